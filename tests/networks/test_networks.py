"""The hand-written gradient is torch's own, network by network and image by image."""

import math
import pickle

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import grad, jvp, vmap

from wdlg.errors import InputError
from wdlg.networks import ACTIVATIONS, LeNet, Parameters
from wdlg.updates import Gradient, from_tensors


def problem(
    network: LeNet, *, attacks: int, networks: int, seed: int = 0
) -> tuple[Parameters, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    parameters = network.initial_parameters(networks, generator=generator, dtype=torch.float64)
    images = torch.rand(attacks, *network.image_shape, generator=generator, dtype=torch.float64)
    target = torch.rand(attacks, network.classes, generator=generator, dtype=torch.float64).softmax(-1)
    return parameters, images, target


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("image_shape", [(1, 28, 28), (3, 32, 32), (1, 25, 25), (1, 8, 8)])
@pytest.mark.parametrize("shared", [False, True])
def test_gradient_equals_autograd_of_the_torch_module(activation, image_shape, shared):
    network = LeNet(image_shape, 7, activation)
    parameters, images, target = problem(network, attacks=3, networks=1 if shared else 3)
    gradient = network.gradient(parameters, images, target)
    logits = network.logits(parameters, images)
    for index in range(3):
        module = network.as_module(parameters, 0 if shared else index)
        scores = module(images[index : index + 1])
        torch.testing.assert_close(logits[index], scores[0])
        loss = F.cross_entropy(scores, target[index : index + 1])
        for ours, theirs in zip(
            gradient.tensors(), torch.autograd.grad(loss, list(module.parameters())), strict=True
        ):
            torch.testing.assert_close(ours[index], theirs.view_as(ours[index]))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_of_the_matching_loss_equals_double_backward(activation):
    network = LeNet((1, 8, 8), 4, activation)
    parameters, images, target = problem(network, attacks=1, networks=1)
    images.requires_grad_()
    ours = sum(tensor.square().sum() for tensor in network.gradient(parameters, images, target).tensors())
    module = network.as_module(parameters)
    first = torch.autograd.grad(
        F.cross_entropy(module(images), target), list(module.parameters()), create_graph=True
    )
    theirs = sum(tensor.square().sum() for tensor in first)
    torch.testing.assert_close(torch.autograd.grad(ours, images), torch.autograd.grad(theirs, images))


def test_widths_of_the_last_hidden_layer_are_those_of_dlg_and_idlg():
    assert LeNet((1, 28, 28), 10).features == 588
    assert LeNet((3, 32, 32), 100).features == 768


def test_initial_weights_are_uniform_and_decided_by_the_generator():
    network = LeNet((1, 8, 8), 10)
    first = network.initial_parameters(50, generator=torch.Generator().manual_seed(1))
    again = network.initial_parameters(50, generator=torch.Generator().manual_seed(1))
    values = torch.cat([tensor.flatten() for tensor in first.tensors])
    assert all(torch.equal(a, b) for a, b in zip(first.tensors, again.tensors, strict=True))
    assert values.abs().max() <= 0.5
    # Standard deviation of U(-1/2, 1/2), with four standard errors of room.
    assert abs(values.std() - 12**-0.5) < 4 * 12**-0.5 / len(values) ** 0.5


def test_initial_weights_of_torch_are_distributed_as_those_of_its_layers():
    lenet = LeNet((3, 8, 8), 10)
    ours = lenet.initial_parameters(
        200, generator=torch.Generator().manual_seed(1), distribution="torch"
    ).tensors
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 12, 5), nn.Conv2d(12, 12, 5), nn.Conv2d(12, 12, 5), nn.Linear(48, 10)]
    for place, layer in enumerate(layers):
        bound = 1 / math.sqrt(layer.weight[0].numel())
        for mine, name in zip(ours[2 * place : 2 * place + 2], ("weight", "bias"), strict=True):
            theirs = []
            while sum(map(len, theirs)) < mine.numel():
                layer.reset_parameters()
                theirs.append(getattr(layer, name).detach().clone().flatten())
            for values in (mine.flatten(), torch.cat(theirs)):
                assert 0.98 * bound < values.abs().max() <= bound * (1 + 1e-6)
                # The mean square of U(-b, b) is b^2 / 3, with a standard deviation of b^2 sqrt(4 / 45).
                room = 4 * math.sqrt(4 / 45 / len(values))
                assert abs(values.square().mean() / bound**2 - 1 / 3) < room


def test_scores_of_one_network_are_those_of_its_module_and_can_be_mapped_and_differentiated_twice():
    network = LeNet((1, 8, 8), 4, "tanh")
    parameters, images, target = problem(network, attacks=3, networks=3)
    tensors = parameters.tensors
    torch.testing.assert_close(
        vmap(lambda weights, image: network.scores(weights, image[None])[0])(tensors, images),
        network.logits(parameters, images),
    )
    weights = tuple(tensor[1] for tensor in tensors)
    torch.testing.assert_close(network.scores(weights, images), network.as_module(parameters, 1)(images))

    def loss(weights, images):
        return F.cross_entropy(network.scores(weights, images), target)

    def size(images):
        return sum(part.square().sum() for part in grad(loss)(weights, images))

    direction = torch.ones_like(images)
    leaf = images.clone().requires_grad_()
    module = network.as_module(parameters, 1)
    first = torch.autograd.grad(
        F.cross_entropy(module(leaf), target), list(module.parameters()), create_graph=True
    )
    (plain,) = torch.autograd.grad(sum(part.square().sum() for part in first), leaf)
    torch.testing.assert_close(grad(size)(images), plain)
    torch.testing.assert_close(jvp(size, (images,), (direction,))[1], (plain * direction).sum())


@pytest.mark.parametrize("shared", [False, True])
def test_mean_gradient_is_that_of_the_mean_loss_over_a_participants_images(shared):
    network = LeNet((1, 8, 8), 4)
    parameters, images, target = problem(network, attacks=6, networks=1 if shared else 2)
    images, target = (tensor.unflatten(0, (2, 3)) for tensor in (images, target))
    leaf = images.clone().requires_grad_()
    gradient = network.mean_gradient(parameters, leaf, target)
    (ours,) = torch.autograd.grad(sum((part**3).sum() for part in gradient.tensors()), leaf)
    for place in range(2):
        module = network.as_module(parameters, 0 if shared else place)
        alone = images[place].clone().requires_grad_()
        loss = F.cross_entropy(module(alone), target[place])
        parts = torch.autograd.grad(loss, list(module.parameters()), create_graph=True)
        for mine, theirs in zip(gradient.tensors(), parts, strict=True):
            torch.testing.assert_close(mine[place], theirs.view_as(mine[place]))
        (theirs,) = torch.autograd.grad(sum((part**3).sum() for part in parts), alone)
        torch.testing.assert_close(ours[place], theirs)


@pytest.mark.parametrize("networks", [1, 3])
def test_mean_gradient_of_one_image_each_has_the_bits_of_the_gradient(networks):
    network = LeNet((1, 8, 8), 4)
    parameters, images, target = problem(network, attacks=3, networks=networks)
    ours = network.mean_gradient(parameters, images[:, None], target[:, None]).tensors()
    assert all(map(torch.equal, ours, network.gradient(parameters, images, target).tensors()))


def test_networks_are_copied_once_for_a_participants_images_and_never_where_all_share_one(monkeypatch):
    network = LeNet((1, 8, 8), 4)
    given = []
    plain = LeNet.gradient

    def gradient(self, weights, *rest):
        given.append(weights)
        return plain(self, weights, *rest)

    monkeypatch.setattr(LeNet, "gradient", gradient)
    for networks in (1, 2):
        parameters, images, target = problem(network, attacks=6, networks=networks)
        batch = images.unflatten(0, (2, 3)), target.unflatten(0, (2, 3))
        for _ in range(2):
            network.mean_gradient(parameters, *batch)
        first, second = given[-2:]
        assert first is second
        assert (first is parameters) == (networks == 1)
    assert torch.equal(first.tensors[0], parameters.tensors[0].repeat_interleave(3, dim=0))


def test_what_is_derived_from_weights_is_made_once_is_never_stale_and_stays_at_home():
    parameters, _, _ = problem(LeNet((1, 8, 8), 4), attacks=1, networks=2)
    made = []

    def largest(weights):
        made.append(weights)
        return float(weights.tensors[0].abs().max())

    before = parameters.derived(largest)
    assert parameters.derived(largest) == before
    assert len(made) == 1
    louder = parameters.put(
        torch.tensor([0]), parameters.select(torch.tensor([0]))._each(lambda one: 2 * one)
    )
    assert louder.derived(largest) == float(louder.tensors[0].abs().max())
    for copy in (pickle.loads(pickle.dumps(parameters)), parameters.first(2)):
        count = len(made)
        copy.derived(largest)
        assert len(made) == count + 1


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(2, 9))
def test_factors_are_read_back_from_the_gradients_that_a_participant_sends(seed, attacks, classes):
    network = LeNet((1, 8, 8), classes)
    parameters, images, _ = problem(network, attacks=attacks, networks=1, seed=seed)
    target = F.one_hot(torch.arange(attacks) % classes, classes).double()
    gradient = network.gradient(parameters, images, target)
    kernels = gradient.tensors()
    kernels[0] = kernels[0].unflatten(-1, (1, 5, 5))
    back = from_tensors(kernels)
    for ours, theirs in zip(gradient.tensors(), back.tensors(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradient_of_a_batch_is_refused_since_its_rank_is_above_one():
    network = LeNet((1, 8, 8), 4)
    parameters, images, target = problem(network, attacks=2, networks=1)
    mean = [tensor.mean(0, keepdim=True) for tensor in network.gradient(parameters, images, target).tensors()]
    with pytest.raises(InputError, match="rank above one"):
        from_tensors(mean)


def test_nan_in_a_gradient_is_named():
    nothing = torch.zeros(1, 2, 2)
    broken = torch.tensor([[1.0, torch.nan]])
    with pytest.raises(InputError, match="gradient has an entry that is NaN"):
        Gradient.of_one((nothing,), broken, torch.zeros(1, 3)).require_finite()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"image_shape": (1, 8, 8), "classes": 1}, "classes"),
        ({"image_shape": (1, 0, 8), "classes": 3}, "image_shape height"),
        ({"image_shape": (1, 8, 8), "classes": 3, "activation": "elu"}, "activation"),
    ],
)
def test_impossible_networks_are_refused_by_name(arguments, name):
    with pytest.raises(InputError, match=f"^{name} is"):
        LeNet(**arguments)


@pytest.mark.parametrize(
    "settings",
    [
        {"count": 0},
        {"distribution": "normal"},
        {"bound": 0.0},
        {"bound": float("inf")},
        {"dtype": torch.int32},
        {"dtype": "float32"},
    ],
)
def test_impossible_initial_weights_are_refused_by_name(settings):
    with pytest.raises(InputError, match=f"^{next(iter(settings))} is"):
        LeNet((1, 8, 8), 4).initial_parameters(generator=torch.Generator(), **settings)


def test_shapes_that_do_not_fit_are_refused_by_name():
    network = LeNet((1, 8, 8), 4)
    parameters, images, target = problem(network, attacks=3, networks=2)
    with pytest.raises(InputError, match="^parameters holds 2 networks"):
        network.gradient(parameters, images, target)
    with pytest.raises(InputError, match="^images has shape"):
        network.gradient(parameters, images[:, :, :7], target)
    with pytest.raises(InputError, match="^target has shape"):
        network.gradient(parameters, images[:2], target[:2, :3])
    with pytest.raises(InputError, match=r"^images has shape .* must be \(B, N, channels, height, width\)"):
        network.mean_gradient(parameters, images, target)
    with pytest.raises(InputError, match="^parameters holds 2 networks, .* of the 3 participants"):
        network.mean_gradient(parameters, images[:, None], target[:, None])
    with pytest.raises(InputError, match=r"^target has shape .* must have shape \(1, 3, 4\)"):
        network.mean_gradient(parameters.first(1), images[None], target)
    with pytest.raises(InputError, match="^weights holds 7 tensors, but the network has 8"):
        network.scores(parameters.tensors[:-1], images)
