"""The hand-written gradient is torch's own, network by network and image by image."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

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
    [{"count": 0}, {"bound": 0.0}, {"bound": float("inf")}, {"dtype": torch.int32}, {"dtype": "float32"}],
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
