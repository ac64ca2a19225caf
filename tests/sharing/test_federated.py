"""What is sent of several images, and after several steps, is what plain torch computes, and leaks them."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from wdlg.attacks import IDLG, Observation, Optimised, Start, reconstruct
from wdlg.attacks.labels import BiasSign, Joint
from wdlg.errors import InputError
from wdlg.losses import Cosine, SquaredEuclidean, Wasserstein
from wdlg.networks import LeNet
from wdlg.optimizers import GradientDescent
from wdlg.sharing import FedAvg, FedSGD
from wdlg.updates.output_layer import Dense, Product, Products

NETWORK = LeNet((1, 8, 8), 4)


def setting(participants=2, images=2, *, networks=None, bound=0.5, seed=0, dtype=torch.float64):
    """Networks, private images (B, N, 1, 8, 8) and their labels (B, N), a different one for each image."""
    stream = torch.Generator().manual_seed(seed)
    count = participants if networks is None else networks
    parameters = NETWORK.initial_parameters(count, generator=stream, bound=bound, dtype=dtype)
    truth = torch.rand(participants, images, 1, 8, 8, generator=stream, dtype=dtype)
    order = torch.stack([torch.randperm(4, generator=stream)[:images] for _ in range(participants)])
    return parameters, truth, order.sort(1).values


def targets(labels, dtype=torch.float64):
    return F.one_hot(labels, 4).to(dtype)


def trained(parameters, number, images, labels, *, rate, steps, batch):
    """Weights before and after plain training of one network, in the shapes of torch."""
    module = NETWORK.as_module(parameters, number)
    before = [tensor.detach().clone() for tensor in module.parameters()]
    optimizer = torch.optim.SGD(module.parameters(), lr=rate)
    for step in range(steps):
        at = [(step * batch + place) % len(images) for place in range(batch)]
        optimizer.zero_grad()
        F.cross_entropy(module(images[at]), labels[at]).backward()
        optimizer.step()
    return before, [tensor.detach() for tensor in module.parameters()]


@pytest.mark.parametrize("networks", [1, 2])
def test_fedsgd_sends_the_gradient_of_the_mean_loss(networks):
    parameters, truth, labels = setting(networks=networks)
    sent = FedSGD()(NETWORK, parameters, truth, targets(labels))
    assert isinstance(sent.output, Products)
    for attack in range(2):
        before, after = trained(
            parameters, attack % networks, truth[attack], labels[attack], rate=1.0, steps=1, batch=2
        )
        for ours, old, new in zip(sent.as_sent().tensors(), before, after, strict=True):
            torch.testing.assert_close(ours[attack].view_as(old), old - new)


def test_of_one_image_all_shapes_and_rules_agree():
    parameters, truth, labels = setting(images=1)
    one = FedSGD()(NETWORK, parameters, truth[:, 0], targets(labels)[:, 0])
    several = FedSGD()(NETWORK, parameters, truth, targets(labels))
    step = FedAvg(rate=0.1, steps=1)(NETWORK, parameters, truth[:, 0], targets(labels)[:, 0])
    assert isinstance(several.output, Product)
    assert isinstance(step.output, Dense)
    for ours, theirs, changed in zip(one.tensors(), several.tensors(), step.tensors(), strict=True):
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(ours, changed)


@pytest.mark.parametrize("networks", [1, 2])
@pytest.mark.parametrize(("images", "steps", "batch"), [(2, 2, 1), (2, 3, 1), (4, 3, 2), (2, 1, 2)])
def test_fedavg_sends_the_change_of_plain_training(networks, images, steps, batch):
    parameters, truth, labels = setting(images=images, networks=networks)
    rate = 0.05
    sent = FedAvg(rate, steps, batch)(NETWORK, parameters, truth, targets(labels))
    for attack in range(2):
        before, after = trained(
            parameters, attack % networks, truth[attack], labels[attack], rate=rate, steps=steps, batch=batch
        )
        for ours, old, new in zip(sent.tensors(), before, after, strict=True):
            torch.testing.assert_close(ours[attack].view_as(old), (old - new) / (rate * steps))


@pytest.mark.parametrize("sharing", [FedSGD(), FedAvg(0.05, 2, 1)])
@pytest.mark.parametrize("loss", [SquaredEuclidean(), Cosine(), Wasserstein(max_iterations=3)])
def test_the_slope_by_the_images_is_that_of_finite_differences(sharing, loss):
    parameters, truth, labels = setting()
    shared = sharing(NETWORK, parameters, truth, targets(labels)).as_sent()
    stream = torch.Generator().manual_seed(1)
    point = torch.rand(truth.shape, generator=stream, dtype=torch.float64).requires_grad_()
    direction = torch.randn(truth.shape, generator=stream, dtype=torch.float64)

    def value(images):
        return loss(sharing(NETWORK, parameters, images, targets(labels)), shared).sum()

    (slope,) = torch.autograd.grad(value(point), point)
    if isinstance(loss, Wasserstein):  # whose derivative holds the plan: only that of what is exact
        assert torch.isfinite(slope).all()
        return
    step = 1e-5
    with torch.no_grad():
        found = (value(point + step * direction) - value(point - step * direction)) / (2 * step)
    torch.testing.assert_close((slope * direction).sum(), found, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sharing", [FedSGD(), FedAvg(0.05, 2, 1)])
@pytest.mark.parametrize("joint", [False, True])
def test_the_engine_takes_the_course_of_a_plain_loop(sharing, joint):
    """Each participant alone, with autograd through plain training of a torch module."""
    parameters, truth, labels = setting(bound=0.1)
    observation = Observation(
        NETWORK,
        parameters,
        sharing(NETWORK, parameters, truth, targets(labels)).as_sent(),
        sharing=sharing,
        images=2,
    )
    stream = torch.Generator().manual_seed(1)
    dummies = torch.randn(truth.shape, generator=stream, dtype=torch.float64)
    logits = torch.randn(2, 2, 4, generator=stream, dtype=torch.float64)
    rule = Joint() if joint else BiasSign()
    attack = Optimised("plain", rule, optimizer=GradientDescent(0.5), evaluations=5, stop_loss=1e-300)
    result = reconstruct(attack, observation, dummies, logits, batch_size=1)
    assert torch.equal(result.labels, result.labels.sort(1).values if not joint else result.labels)
    for number in range(2):
        module = NETWORK.as_module(parameters, number)
        weights = dict(module.named_parameters())
        shared = [part[number] for part in observation.gradient.tensors()]
        x = [dummies[number].clone().requires_grad_(), logits[number].clone().requires_grad_()]
        for place in range(5):
            target = torch.softmax(x[1], 1) if joint else targets(labels[number])
            now, steps = weights, [[0, 1]] if isinstance(sharing, FedSGD) else [[0], [1]]
            for at in steps:
                scores = torch.func.functional_call(module, now, (x[0][at],))
                loss = F.cross_entropy(scores, target[at])
                slopes = torch.autograd.grad(loss, list(now.values()), create_graph=True)
                rate = 0.05
                now = {
                    name: old - rate * slope for (name, old), slope in zip(now.items(), slopes, strict=True)
                }
            sent = [(weights[name] - now[name]) / (rate * len(steps)) for name in weights]
            value = sum(
                ((ours - theirs.view_as(ours)) ** 2).sum() for ours, theirs in zip(sent, shared, strict=True)
            )
            torch.testing.assert_close(result.loss_trace[number, place], value.detach())
            last = x[0].detach()
            moves = torch.autograd.grad(value, x, allow_unused=True, materialize_grads=True)
            x = [(old - 0.5 * move).detach().requires_grad_() for old, move in zip(x, moves, strict=True)]
        torch.testing.assert_close(result.images[number], last)


def test_two_averaged_digits_and_their_labels_are_recovered(digits):
    """With labels read off, in all of three networks with small weights."""
    pairs = torch.tensor([[0, 1], [2, 3], [4, 5]])
    labels = torch.from_numpy(digits.labels)[pairs]
    assert (labels[:, 0] != labels[:, 1]).all()
    pairs = pairs.gather(1, labels.argsort(1))
    labels = labels.sort(1).values
    truth = digits.tensor(pairs.flatten().numpy(), dtype=torch.float64).view(3, 2, 1, 8, 8)
    network = LeNet((1, 8, 8), 10)
    stream = torch.Generator().manual_seed(0)
    parameters = network.initial_parameters(3, generator=stream, bound=0.3, dtype=torch.float64)
    sent = FedSGD()(network, parameters, truth, F.one_hot(labels, 10).double()).as_sent()
    observation = Observation(network, parameters, sent, images=2)
    dummies = torch.randn(truth.shape, generator=stream, dtype=torch.float64)
    attack = replace(IDLG, label_rule=BiasSign(), evaluations=400, stop_loss=1e-12)
    result = reconstruct(attack, observation, dummies)
    assert torch.equal(result.labels, labels)
    mse = (result.images - truth).square().flatten(1).mean(1)
    assert mse.max() < 1e-3


def test_what_cannot_be_sent_or_seen_is_refused():
    parameters, truth, labels = setting()
    for wrong, message in (
        ({"rate": 0.0, "steps": 1}, "^rate is 0"),
        ({"rate": 1.0, "steps": 0}, "^steps is 0"),
        ({"rate": 1.0, "steps": 1, "batch": 0}, "^batch is 0"),
    ):
        with pytest.raises(InputError, match=message):
            FedAvg(**wrong)
    with pytest.raises(InputError, match="^batch is 3, but must divide the 2 images of a participant"):
        FedAvg(1.0, 1, 3)(NETWORK, parameters, truth, targets(labels))
    with pytest.raises(InputError, match="^images has shape"):
        FedAvg(1.0, 1, 1)(NETWORK, parameters, truth[..., :-1], targets(labels))
    with pytest.raises(InputError, match="^target has shape"):
        FedSGD()(NETWORK, parameters, truth, targets(labels)[:, :1])
    for sharing in (FedSGD(), FedAvg(1.0, 1)):
        for images, target in (("x", None), (truth[:, 0], None), (truth[0, 0], targets(labels)[:, 0])):
            with pytest.raises(InputError, match="^(images|target) "):
                sharing(NETWORK, parameters, images, target)
    one = NETWORK.gradient(parameters, truth[:, 0], targets(labels)[:, 0])
    with pytest.raises(InputError, match="^images is 2, but the gradient has been read as that of one image"):
        Observation(NETWORK, parameters, one, images=2)
    gradient = FedSGD()(NETWORK, parameters, truth, targets(labels))
    with pytest.raises(InputError, match="^gradient holds the factors of several images"):
        Observation(NETWORK, parameters, gradient, images=2)
    with pytest.raises(InputError, match="^images is 0"):
        Observation(NETWORK, parameters, gradient.as_sent(), images=0)
    observation = Observation(NETWORK, parameters, gradient.as_sent(), images=2)
    with pytest.raises(
        InputError, match=r"^dummy_images is .* shape \(2, 1, 8, 8\), but must be .*\(2, 2, 1, 8, 8\)"
    ):
        reconstruct(IDLG, observation, truth[:, 0])
    other = replace(observation, sharing=FedAvg(1.0, 2))
    with pytest.raises(InputError, match="^starts have observations of several networks or ways of sharing"):
        list(IDLG.run([Start(observation, truth), Start(other, truth)]))
