"""One attack for every defence: its weights are what each defence says, and it sees what others do not."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import one_hot

from wdlg import attack
from wdlg.attacks.base import Observation
from wdlg.attacks.labels import BiasMin
from wdlg.attacks.most_likely import MostLikely, _flat, _Search, error_model, with_bias
from wdlg.attacks.most_probable import MostProbable, NormalPrior
from wdlg.errors import InputError
from wdlg.limits import limits
from wdlg.networks import LeNet
from wdlg.sharing.defences import (
    ClippedNoise,
    LaplaceNoise,
    Noise,
    NoOutputBias,
    Pruning,
    Quantisation,
    Rounding,
    Unprotected,
)
from wdlg.sharing.federated import FedAvg

NETWORK = LeNet((1, 8, 8), 6, activation="tanh")
LABEL = torch.tensor([2])


def private(seed=0, dtype=torch.float64):
    """One image and one network with torch's weights."""
    stream = torch.Generator().manual_seed(seed)
    weights = NETWORK.initial_parameters(generator=stream, distribution="torch", dtype=dtype)
    return weights, torch.rand(1, 1, 8, 8, generator=stream, dtype=dtype)


def observed(defence, seed=0, noise=5, dtype=torch.float64):
    """What is seen, and the private image."""
    weights, image = private(seed, dtype)
    exact = NETWORK.gradient(weights, image, one_hot(LABEL, 6).to(dtype)).detach()
    sent = defence(exact, [torch.Generator().manual_seed(noise)])
    return Observation(NETWORK, weights, sent), image


def error(defence, noise=5, **settings):
    """MSE of the most likely picture."""
    seen, image = observed(defence, noise=noise)
    found, _ = MostLikely(settings.pop("known", defence), **settings).find(seen, LABEL)
    return float((found - image).square().mean())


def spread(defence):
    """1 / sqrt(weight) of every entry, and the true errors, for each parameter."""
    seen, image = observed(defence)
    exact = NETWORK.gradient(seen.parameters, image, one_hot(LABEL, 6).double()).tensors()
    model = error_model(defence, seen.gradient)
    return [
        (weight.rsqrt(), sent - true)
        for weight, sent, true in zip(model.weights, seen.gradient.tensors(), exact, strict=True)
    ]


# What is known of the errors


@pytest.mark.parametrize(
    "defence",
    [
        Noise(0.3),
        LaplaceNoise(0.3),
        Quantisation(6),
        Quantisation(6, stochastic=True),
        Rounding("float16"),
        Rounding("bfloat16"),
    ],
)
def test_errors_have_the_size_that_the_attacker_expects(defence):
    """In the root mean square over all entries that are not tiny, in units of what is expected of each."""
    away = torch.cat([(true / size)[true != 0].flatten() for size, true in spread(defence)])
    # Entries of a parameter are not spread evenly over a unit of quantisation; a relative rounding error is
    # up to twice as large at the upper end of a power of two.
    low, high = (0.9, 1.1) if isinstance(defence, Noise | LaplaceNoise) else (0.4, 1.6)
    assert low < away.square().mean().sqrt() < high


def test_what_pruning_sent_has_no_error_and_zeros_are_below_the_least_sent():
    for size, true in spread(Pruning(0.5)):
        unsent = true != 0
        assert size[~unsent].max() <= size[unsent].min() if unsent.any() else True
        assert (true[unsent].abs() <= math.sqrt(3) * size[unsent] * (1 + 1e-6)).all()


def test_a_bias_that_was_not_sent_has_no_weight():
    seen, _ = observed(NoOutputBias())
    model = error_model(NoOutputBias(), seen.gradient)
    assert not model.weights[-1].any()
    assert all((one > 0).all() for one in model.weights[:-1])


@pytest.mark.parametrize(
    ("defence", "with_prior"),
    [
        (ClippedNoise(0.1, 0.01), True),
        (LaplaceNoise(0.1), False),
        (Quantisation(5), True),
        (Noise(0.1), False),
    ],
)
def test_slope_and_matrix_are_those_of_autograd(defence, with_prior):
    """At a point that is not the private image; of Laplace's, ``sum w r²/2`` with its weights held still."""
    seen, image = observed(defence)
    prior = NormalPrior.of(torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    search = _Search(MostLikely(defence, prior if with_prior else None), seen, LABEL)
    x = (
        (image + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(2)))
        .flatten()
        .double()
    )
    module = NETWORK.as_module(seen.parameters).double()

    def sent(x):
        loss = torch.nn.functional.cross_entropy(module(x.view(1, 1, 8, 8)), LABEL)
        entries = torch.autograd.grad(loss, list(module.parameters()), create_graph=True)
        g = torch.cat([one.flatten() for one in entries])
        return g * search.model.clip / g.norm() if g.norm() > search.model.clip else g

    residual = sent(x.requires_grad_()) - search.sent
    jacobian = torch.autograd.functional.jacobian(sent, x, vectorize=True)
    weights = search.weights.clone()
    if isinstance(defence, LaplaceNoise):
        b = (1 / (2 * weights)).sqrt()
        weights = 1 / (b * residual.detach().abs().clamp_min(0.02 * b))
    value, slope, found, along = search._evaluate(x.detach())
    matrix = jacobian.T @ (weights[:, None] * jacobian)
    wanted = jacobian.T @ (weights * residual.detach())
    if with_prior:
        precision = torch.linalg.inv(prior.covariance)
        matrix, wanted = matrix + precision, wanted + precision @ (x.detach() - prior.mean.flatten())
    assert torch.allclose(found, residual.detach(), atol=1e-12)
    assert torch.allclose(slope, wanted, rtol=1e-6, atol=1e-8 * wanted.abs().max().item())
    assert torch.allclose(
        search._matrix(x.detach(), found, along), matrix, rtol=1e-6, atol=1e-8 * matrix.abs().max().item()
    )
    assert value > 0


# What it finds


@pytest.mark.parametrize(
    ("defence", "most"),
    [
        (Unprotected(), 1e-20),
        (Pruning(0.5), 1e-16),
        (Pruning(0.9), 1e-14),
        (NoOutputBias(), 1e-16),
        (Rounding("bfloat16"), 1e-6),
        (Quantisation(8), 1e-3),
        (ClippedNoise(0.1, 1e-6), 1e-6),
    ],
)
def test_who_knows_the_defence_sees_the_image(defence, most):
    assert error(defence) < most


def test_knowing_what_was_pruned_and_by_how_much_a_clip_shortened_is_what_it_takes():
    assert error(Pruning(0.9), known=Unprotected()) > 1e-3
    assert error(ClippedNoise(0.1, 1e-6), known=Unprotected()) > 1e-3


def test_normal_noise_is_seen_through_down_to_the_bound():
    """The mean of 20 draws: a sum of 64 squares each, so within some 10 %."""
    weights, image = private()
    bound = limits(NETWORK, weights, image, 2).bound(0.01)
    errors = [error(Noise(0.01), noise) for noise in range(20)]
    assert 0.8 < sum(errors) / 20 / bound < 1.2


def test_laplace_noise_shows_twice_as_much_to_who_knows_it_as_to_who_takes_it_for_normal():
    """Fisher information 1/b² against 1/2b²; the mean of 8 draws."""
    knowing = sum(error(LaplaceNoise(0.01), noise) for noise in range(8))
    taken = sum(error(LaplaceNoise(0.01), noise, known=Noise(0.01)) for noise in range(8))
    assert 0.4 < knowing / taken < 0.65


def test_with_a_prior_it_is_the_most_probable_picture():
    level = 0.5
    prior = NormalPrior.of(torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    seen, _ = observed(Noise(level))
    ours, _ = MostLikely(Noise(level), prior).find(seen, LABEL)

    def labels(gradient, images=1):
        return LABEL

    labels.joint = False
    theirs = attack(seen, MostProbable(prior, level, steps=20, label_rule=labels)).images
    assert (ours - theirs).square().mean() < 1e-6 * (theirs - prior.mean).square().mean()


def test_several_local_steps_and_several_images_are_seen_through():
    weights, image = private()
    sharing = FedAvg(0.1, 3)
    target = one_hot(LABEL, 6).double()
    seen = Observation(NETWORK, weights, sharing(NETWORK, weights, image, target).detach(), sharing)
    found, _ = MostLikely(Unprotected()).find(seen, LABEL)
    assert (found - image).square().mean() < 1e-16
    both, labels = torch.cat((image, image.flip(3)))[None], torch.tensor([[2, 4]])
    gradient = NETWORK.mean_gradient(weights, both, one_hot(labels, 6).double()).detach().as_sent()
    seen = Observation(NETWORK, weights, gradient, images=2)
    found, _ = MostLikely(Unprotected()).find(seen, labels)
    assert (found - both).square().mean() < 1e-12


def test_a_bias_that_was_not_sent_is_computed_from_the_weight():
    for seed in range(5):
        seen, image = observed(NoOutputBias(), seed)
        true = NETWORK.gradient(seen.parameters, image, one_hot(LABEL, 6).double()).bias
        assert torch.allclose(with_bias(seen, LABEL).gradient.bias, true, rtol=1e-6)


def test_it_is_an_attack_like_others():
    seen, image = observed(Noise(0.01), dtype=torch.float32)
    found = attack(seen, MostLikely(Noise(0.01), label_rule=BiasMin()), seed=3)
    assert found.images.dtype == torch.float32
    assert found.labels.tolist() == [2]
    assert (found.images - image).square().mean() < 1e-2
    assert _flat(seen.gradient).ndim == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MostLikely(Noise(0.1), prior=0.3), "^prior is 0.3, but must be None or a NormalPrior"),
        (lambda: MostLikely(Noise(0.1), steps=0), "^steps is 0, but must be a whole number, at least 1"),
        (lambda: MostLikely(Noise(0.1), starts=-1), "^starts is -1"),
        (lambda: MostLikely(Noise(0.1), label_rule="joint"), "^label_rule is joint"),
        (
            lambda: error(Noise(0.1), known=lambda gradient, _: gradient),
            "^defence is .*whose errors are known",
        ),
        (
            lambda: error(Noise(0.1), prior=NormalPrior(torch.zeros(1, 2, 2), torch.eye(4))),
            r"^prior is of images \(1, 2, 2\), but the network takes \(1, 8, 8\)",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_without_a_label_there_is_no_picture():
    seen, _ = observed(Unprotected())
    found, value = MostLikely(Unprotected()).find(seen, torch.tensor([-1]))
    assert found.isnan().all()
    assert value == math.inf
    assert replace(MostLikely(Noise(0.1)), steps=3).evaluations == 24
