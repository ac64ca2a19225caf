"""Training is gradient descent on what is sent: compared with plain loops of autograd."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from wdlg.errors import InputError
from wdlg.networks import LeNet
from wdlg.sharing.defences import Noise, Pruning
from wdlg.sharing.federated import FedAvg
from wdlg.training import SecureSum, Training, accuracy, train

NETWORK = LeNet((1, 8, 8), 4, activation="tanh")
LABELS = torch.arange(12) % 4


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def start():
    return NETWORK.initial_parameters(generator=stream(), distribution="torch", dtype=torch.float64)


IMAGES = torch.rand(12, 1, 8, 8, generator=stream(1), dtype=torch.float64)


def trained(training, seed=2):
    return train(training, NETWORK, start(), IMAGES, LABELS, generator=stream(seed))


def same(ours, theirs):
    return all(torch.allclose(a, b, rtol=1e-9) for a, b in zip(ours.tensors, theirs.tensors, strict=True))


def by_autograd(steps, change=lambda gradients: [sum(parts) / len(parts) for parts in zip(*gradients)]):  # noqa: B905
    """Gradient descent by the mean of every image's gradient, or another sum of them."""
    module = NETWORK.as_module(start())
    for _ in range(steps):
        each = []
        for image, label in zip(IMAGES, LABELS, strict=True):
            loss = cross_entropy(module(image[None]), label[None])
            each.append(torch.autograd.grad(loss, list(module.parameters())))
        with torch.no_grad():
            for parameter, slope in zip(module.parameters(), change(each), strict=True):
                parameter.sub_(0.5 * slope)
    return [parameter.detach() for parameter in module.parameters()]


def equals_module(parameters, wanted):
    return all(
        torch.allclose(ours[0], theirs.reshape(ours[0].shape), rtol=1e-9, atol=1e-12)
        for ours, theirs in zip(parameters.tensors, wanted, strict=True)
    )


def clipped(gradients, size=1.1):
    """The mean of gradients of at most that norm; about half of them are longer."""
    total = [torch.zeros_like(one) for one in gradients[0]]
    for gradient in gradients:
        norm = torch.cat([one.flatten() for one in gradient]).norm()
        total = [sum_ + one * min(1.0, size / norm) for sum_, one in zip(total, gradient, strict=True)]
    return [one / len(gradients) for one in total]


def test_with_everybody_in_every_round_it_is_gradient_descent():
    assert equals_module(trained(Training(lot=12, epochs=3)), by_autograd(3))


def test_dp_sgd_without_noise_is_gradient_descent_by_clipped_gradients():
    training = Training(SecureSum(1.1), lot=12, epochs=3)
    assert equals_module(trained(training), by_autograd(3, clipped))
    assert not equals_module(trained(training), by_autograd(3))


def test_who_sees_a_sum_only_trains_the_same_network():
    assert same(trained(Training(SecureSum(), lot=5)), trained(Training(lot=5)))


def test_several_images_of_a_participant_make_one_message_of_their_mean():
    assert same(trained(Training(images=4, lot=12, epochs=2)), trained(Training(lot=12, epochs=2)))
    pruned = [trained(Training(Pruning(0.9), images=n, lot=12, epochs=2)) for n in (1, 4)]
    assert not same(*pruned)


def test_one_local_step_is_a_gradient_and_more_are_not():
    one = trained(Training(lot=12, epochs=2, sharing=FedAvg(0.5, 1)))
    assert same(one, trained(Training(lot=12, epochs=2)))
    assert not same(one, trained(Training(lot=12, epochs=2, sharing=FedAvg(0.5, 2))))


def test_the_noise_on_the_sum_has_the_stated_size():
    """One round: the move without noise is known, and what is left is rate / lot times normal numbers."""
    quiet, loud = (trained(Training(SecureSum(0.3, m), lot=12, epochs=1)) for m in (0.0, 2.0))
    z = torch.cat([(a - b).flatten() for a, b in zip(quiet.tensors, loud.tensors, strict=True)])
    z = z * 12 / 0.5 / (2.0 * 0.3)
    assert abs(z.square().mean().item() - 1) < 5 * (2 / len(z)) ** 0.5


def test_each_is_in_a_lot_with_the_same_probability_and_a_sum_is_divided_by_the_number_expected():
    """With a rate so small that the weights stay, the move counts how often an image was used."""
    before = start()
    many = Training(lot=3, epochs=500, rate=1e-9)
    assert (many.sample_rate(12), many.rounds(12)) == (0.25, 2000)
    after = train(many, NETWORK, before, IMAGES, LABELS, generator=stream(5))
    exact = NETWORK.gradient(before, IMAGES, one_hot(LABELS, 4).double()).tensors()
    each = torch.cat([one.flatten(1) for one in exact], dim=1)
    move = torch.cat([(a - b).flatten() for a, b in zip(before.tensors, after.tensors, strict=True)])
    counts = 3 / 1e-9 * torch.linalg.lstsq(each.T, move[:, None]).solution[:, 0]
    assert torch.allclose(counts, counts.round(), atol=0.05)
    assert ((counts - 500).abs() < 5 * (2000 * 0.25 * 0.75) ** 0.5).all()
    assert counts.std() > 5  # and not everybody equally often


def test_a_defence_draws_anew_for_each_participant_and_round_from_one_stream():
    noisy = Training(Noise(1.0), lot=6, epochs=2)
    assert same(trained(noisy, 3), trained(noisy, 3))
    assert not same(trained(noisy, 3), trained(noisy, 4))


def test_training_on_digits_learns_and_accuracy_counts_what_is_right(digits):
    network = LeNet((1, 8, 8), 10, activation="tanh")
    images, labels = digits.tensor()[:600], torch.from_numpy(digits.labels)[:600]
    before = network.initial_parameters(generator=stream(), distribution="torch")
    after = train(Training(epochs=5), network, before, images[:500], labels[:500], generator=stream(1))
    right = network.logits(after, images[500:]).argmax(1) == labels[500:]
    assert accuracy(network, after, images[500:], labels[500:]) == right.double().mean() > 0.75
    assert accuracy(network, before, images[500:], labels[500:]) < 0.35


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SecureSum(0.0), "^clip is 0.0, but must be a finite number above 0"),
        (lambda: SecureSum(1.0, -1.0), "^multiplier is -1.0"),
        (lambda: SecureSum(multiplier=1.0), "^multiplier is 1.0, but must be 0 without a clip"),
        (lambda: Training(Noise), "^defence is .*Noise.*, but must be a value of wdlg.sharing or SecureSum"),
        (lambda: Training(sharing=0.1), "^sharing is 0.1"),
        (lambda: Training(images=0), "^images is 0"),
        (lambda: Training(rate=math.nan), "^rate is nan"),
        (lambda: trained(Training(images=13)), "^images holds 12, but a participant needs 13"),
        (lambda: trained(Training(SecureSum(1e308, 1e3))), "^rate is 0.5, but must be smaller"),
        (
            lambda: train(
                Training(), NETWORK, NETWORK.initial_parameters(2, generator=stream(), dtype=torch.float64),
                IMAGES, LABELS, generator=stream(),
            ),
            "^parameters holds 2 networks",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()
