"""Registered networks are those of the literature, and are named with their settings."""

import math
import pickle
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.func import functional_call

from wdlg.errors import InputError
from wdlg.networks import (
    ACTIVATIONS,
    NETWORKS,
    Architecture,
    ConvNet,
    LeNet,
    ResNet,
    TorchNetwork,
    architecture,
)
from wdlg.networks.functional import MODES

TYPE = {"dtype": torch.float64}
SMALL = {"convnet": ConvNet((1, 9, 9), 4, "tanh", 2), "resnet": ResNet((1, 9, 9), 4, "sigmoid", 2)}


def weights(network):
    return sum(math.prod(shape) for shape in network.parameter_shapes)


def test_parameter_counts_are_those_of_the_sources():
    # Counted layer by layer: a 3x3 convolution with bias, and two numbers for a normalised channel.
    channels = [3, 64, 128, 128, *[256] * 5]
    convolutions = sum(9 * a * b + b + 2 * b for a, b in pairwise(channels))
    # The last layer of the code of Geiping et al. takes 36 numbers for each unit of the width.
    assert weights(ConvNet((3, 32, 32), 10)) == convolutions + 10 * (36 * 64 + 1) == 2_904_970
    assert ConvNet((1, 28, 28), 10, width=16).features == 36 * 16
    # ResNet-20 with 1x1 convolutions where a block changes the shape.
    assert weights(ResNet((3, 32, 32), 10, blocks=3)) == 272_474
    assert ResNet((1, 8, 8), 10, width=6).features == 24


def test_a_small_residual_network_has_eight_layers():
    shapes = ResNet((3, 32, 32), 10).parameter_shapes
    layers = [shape for shape in shapes if len(shape) == 2 or (len(shape) == 4 and shape[-1] == 3)]
    assert len(layers) == 8


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SMALL)
def test_mean_gradient_and_its_derivative_are_those_of_autograd(name, mode):
    network = replace(SMALL[name], mode=mode)
    stream = torch.Generator().manual_seed(0)
    parameters = network.initial_parameters(2, generator=stream, **TYPE)
    images = torch.rand(2, 3, *network.image_shape, generator=stream, **TYPE).requires_grad_()
    target = torch.rand(2, 3, 4, generator=stream, **TYPE).softmax(-1)
    gradient = network.mean_gradient(parameters, images, target)
    (back,) = torch.autograd.grad(sum((part**3).sum() for part in gradient.tensors()), images)
    module = network.make_module().to_empty(device="cpu").double().train(mode == "training")
    names = [name for name, _ in module.named_parameters()]
    statistics = {name: torch.full_like(one, float("var" in name)) for name, one in module.named_buffers()}
    for place in range(2):
        leaf = images[place].detach().clone().requires_grad_()
        leaves = [tensor[place].clone().requires_grad_() for tensor in parameters.tensors]
        held = {**dict(zip(names, leaves, strict=True)), **statistics}
        loss = F.cross_entropy(functional_call(module, held, (leaf,)), target[place])
        exact = torch.autograd.grad(loss, leaves, create_graph=True)
        (exact_back,) = torch.autograd.grad(sum((part**3).sum() for part in exact), leaf)
        ours = torch.cat([part[place].flatten() for part in gradient.tensors()])
        theirs = torch.cat([part.flatten() for part in exact])
        for mine, other in ((ours, theirs), (back[place], exact_back)):
            assert other.norm() > 0
            assert (mine - other).norm() <= 1e-9 * other.norm()


@pytest.mark.parametrize("network", SMALL.values(), ids=SMALL)
def test_a_network_is_a_value_and_survives_the_way_to_another_process(network):
    network.parameter_shapes  # noqa: B018  # builds the module
    copy = pickle.loads(pickle.dumps(network))
    assert copy == network
    assert hash(copy) == hash(network)
    stream = torch.Generator().manual_seed(0)
    parameters = network.initial_parameters(generator=stream)
    weights, buffers = ([one[0] for one in held] for held in (parameters.tensors, parameters.buffers))
    images = torch.rand(2, *network.image_shape, generator=stream)
    assert torch.equal(copy.scores(weights, images, buffers), network.scores(weights, images, buffers))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_registered_network_is_built_from_its_name_and_draws_the_same_from_a_seed(name, activation):
    network = Architecture(name).build((3, 12, 10), 5, activation)
    assert (network.image_shape, network.classes, network.activation) == ((3, 12, 10), 5, activation)
    first, second = (
        network.initial_parameters(2, generator=torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert all(map(torch.equal, first.tensors, second.tensors))
    assert [tuple(tensor.shape[1:]) for tensor in first.tensors] == list(network.parameter_shapes)
    assert network.parameter_shapes[-2:] == ((5, network.features), (5,))


def test_an_architecture_is_a_name_or_a_table_and_the_same_however_it_is_said():
    assert architecture("lenet").build((1, 8, 8), 4) == LeNet((1, 8, 8), 4)
    said = architecture({"name": "convnet", "width": 16, "mode": "evaluation"})
    assert said == Architecture("convnet", (("width", 16),))
    assert said.build((1, 9, 9), 4, "tanh") == ConvNet((1, 9, 9), 4, "tanh", 16)
    described = said.describe()
    assert described["name"] == "convnet"
    assert described["width"] == 16
    assert described["mode"] == "evaluation"
    assert described["widths"] == (1, 2, 2, 4, 4, 4, 4, 4)
    assert (said.activation(None), said.initial(None)) == ("relu", "torch")
    assert (architecture("lenet").activation(None), architecture("lenet").initial(None)) == (
        "sigmoid",
        "uniform",
    )


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("vgg", "network is 'vgg'"),
        ({"width": 3}, "network is .* a table of a name and settings"),
        (3, "network is 3"),
        (
            {"name": "resnet", "depth": 3},
            "network has the setting 'depth', but allowed are width, blocks, mode",
        ),
        ({"name": "lenet", "width": 3}, "network has the setting 'width', but allowed are none"),
        ({"name": "resnet", "width": 0}, "network resnet: width is 0"),
        ({"name": "convnet", "mode": "test"}, "network convnet: mode is 'test'"),
    ],
)
def test_an_unknown_architecture_is_refused_in_a_sentence(value, sentence):
    with pytest.raises(InputError, match=f"^{sentence}"):
        architecture(value)


def test_images_too_small_to_be_pooled_twice_are_refused():
    with pytest.raises(InputError, match=r"^image_shape is \(1, 8, 9\), but must be at least 9"):
        ConvNet((1, 8, 9), 4)


@dataclass(frozen=True)
class TwoLayers(TorchNetwork):
    """As the book's page on adding one's own has it."""

    image_shape: tuple[int, int, int]
    classes: int
    activation: str = "sigmoid"
    width: int = 5

    def make_module(self):
        pixels = math.prod(self.image_shape)
        return torch.nn.Sequential(
            torch.nn.Flatten(),
            torch.nn.Linear(pixels, self.width),
            ACTIVATIONS[self.activation](),
            torch.nn.Linear(self.width, self.classes),
        )


def test_a_network_of_ones_own_needs_a_module_and_a_name(monkeypatch):
    monkeypatch.setattr(NETWORKS, "_kinds", dict(NETWORKS._kinds))
    NETWORKS.register("two_layers", TwoLayers)
    form = architecture({"name": "two_layers", "width": 7})
    assert form.describe() == {"name": "two_layers", "width": 7}
    assert (form.activation(None), form.initial(None)) == ("sigmoid", "torch")
    network = form.build((1, 4, 4), 3)
    assert network.parameter_shapes == ((7, 16), (7,), (3, 7), (3,))
    weights = [one[0] for one in network.initial_parameters(generator=torch.Generator()).tensors]
    assert all(one.abs().max() <= 0.25 for one in weights[:2])  # 1 / sqrt(16)
    images = torch.rand(2, 1, 4, 4)
    first = torch.sigmoid(F.linear(images.flatten(1), *weights[:2]))
    torch.testing.assert_close(network.scores(weights, images), F.linear(first, *weights[2:]))


def test_a_network_without_the_fields_of_a_case_gets_no_name():
    @dataclass(frozen=True)
    class Fixed(TorchNetwork):
        image_shape: tuple[int, int, int]
        classes: int

    with pytest.raises(InputError, match="^kind has the fields image_shape, classes, but must have"):
        NETWORKS.register("fixed", Fixed)
    with pytest.raises(InputError, match="^kind is .*, but must be a frozen dataclass"):
        NETWORKS.register("fixed", torch.nn.Linear)
    assert "fixed" not in NETWORKS
