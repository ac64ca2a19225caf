"""Which networks can be inverted layer by layer: stacks of convolutions whose activations can be undone.

ReLU is among them. What it sets to zero cannot be brought back, and need not be: a zero says that the unit's
slope, and so the derivative by its sum, is zero. That is all that the gradient equations ask for. Only the
unit's forward equation is lost, so there are fewer equations than with an activation that never rests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wdlg.attacks.exact_layers import Layer
from wdlg.errors import InputError
from wdlg.networks.base import Network, Parameters
from wdlg.networks.convolution import KERNEL, PADDING
from wdlg.networks.functional import TorchNetwork
from wdlg.networks.lenet import CHANNELS, STRIDES, LeNet


@dataclass(frozen=True)
class Activation:
    """An activation from both sides.

    Attributes:
        name: of the activation.
        values: from the sums to the values.
        sums: from the values back to the sums.
        slope: its derivative, from the values.
        low, high: the values lie between these.
        middle: a value between them.
        rests: whether many sums have the value ``low``, with a slope of 0 there.
    """

    name: str
    values: Callable[[Tensor], Tensor]
    sums: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    low: float = -torch.inf
    high: float = torch.inf
    middle: float = 0.0
    rests: bool = False

    def holds(self, values: Tensor, error: Tensor | None = None) -> Tensor:
        """Where sums can be told from values: rounding or noise carries saturated ones out of its range.

        Args:
            values: (B, ...).
            error: how far above ``low`` a value may be and still stand for it; None for not at all.
        """
        low = self.low if error is None else self.low + error
        return (values > low) & (values < self.high)


def _leaky(slope: float) -> Activation:
    return Activation(
        "leaky_relu",
        lambda sums: torch.where(sums < 0, slope * sums, sums),
        lambda values: torch.where(values < 0, values / slope, values),
        # Of two numbers torch would make single precision.
        lambda values: torch.where(values < 0, slope, torch.ones_like(values)),
    )


SIGMOID = Activation(
    "sigmoid", torch.sigmoid, torch.logit, lambda values: values * (1 - values), 0.0, 1.0, 0.5
)
TANH = Activation("tanh", torch.tanh, torch.atanh, lambda values: 1 - values.square(), -1.0, 1.0)
RELU = Activation("relu", torch.relu, lambda values: values, torch.ones_like, low=0.0, middle=1.0, rests=True)
INVERSES = {one.name: one for one in (SIGMOID, TANH, RELU)}


@dataclass(frozen=True)
class Stack:
    """Convolutions, each with bias and activation, before a linear output layer.

    Attributes:
        layers: first to last.
        activations: of each.
    """

    layers: tuple[Layer, ...]
    activations: tuple[Activation, ...]

    def handed_on(self, parameters: Parameters, images: Tensor) -> tuple[Tensor, ...]:
        """What each convolution makes of images, after its activation.

        The participant's way up, which the closed form goes down.

        Args:
            parameters: N networks, N = 1 or B.
            images: (B, channels, height, width).

        Returns:
            (B, filters, height, width) for each convolution, first to last.
        """
        found = []
        values = images.flatten(2)
        for number, (layer, activation) in enumerate(zip(self.layers, self.activations, strict=True)):
            weight, bias = parameters.tensors[2 * number : 2 * number + 2]
            weight = weight.reshape(len(weight), layer.filters, -1)
            values = activation.values(weight @ layer.patches(values) + bias[:, :, None])
            found.append(values.unflatten(2, layer.output_size))
        return tuple(found)


def stack_of(network: Network) -> Stack:
    """The network as a stack.

    Raises:
        InputError: it is none: another kind of layer, an activation that cannot be undone, or a layer whose
            input does not follow from what is known.
    """
    if isinstance(network, LeNet):
        if network.activation not in INVERSES:
            raise InputError(
                f"network has the activation {network.activation}, but must have one of "
                f"{', '.join(INVERSES)}."
            )
        shapes = zip(network.layer_inputs[:-1], STRIDES, strict=True)
        layers = tuple(
            Layer(*shape, CHANNELS, (KERNEL, KERNEL), (stride, stride), (PADDING, PADDING))
            for shape, stride in shapes
        )
        stack = Stack(layers, (INVERSES[network.activation],) * len(layers))
    else:
        stack = _of_module(network)
    for number, layer in enumerate(stack.layers, start=1):
        if not layer.may_be_determined:
            raise InputError(
                f"network has a convolution {number} with {layer.forward_equations} forward equations for "
                f"{layer.missing} directions that its weights' gradient leaves open, or with pixels that no "
                "window sees, but its input must follow from the two."
            )
    return stack


def _of_module(network: Network) -> Stack:
    """Of a plain sequence of Conv2d and activation, again and again, and then Flatten and Linear."""
    module = network.make_module() if isinstance(network, TorchNetwork) else None
    if not isinstance(module, nn.Sequential):
        raise _stranger(type(network).__name__ if module is None else type(module).__name__)
    parts = list(module)
    if len(parts) < 4 or len(parts) % 2 or not isinstance(parts[-2], nn.Flatten):
        raise _stranger(", ".join(type(part).__name__ for part in parts))
    layers: list[Layer] = []
    activations: list[Activation] = []
    shape = network.image_shape
    for convolution, activation in zip(parts[:-2:2], parts[1:-2:2], strict=True):
        layers.append(_layer(convolution, shape))
        activations.append(_activation(activation))
        shape = (layers[-1].filters, *layers[-1].output_size)
    return Stack(tuple(layers), tuple(activations))


def _layer(part: nn.Module, shape: tuple[int, int, int]) -> Layer:
    plain = (
        type(part) is nn.Conv2d
        and part.bias is not None
        and part.groups == 1
        and part.dilation == (1, 1)
        and part.padding_mode == "zeros"
        and not isinstance(part.padding, str)
    )
    if not plain:
        raise _stranger(str(part))
    assert isinstance(part, nn.Conv2d)
    assert not isinstance(part.padding, str)
    kernel, stride, padding = (
        (int(pair[0]), int(pair[1])) for pair in (part.kernel_size, part.stride, part.padding)
    )
    return Layer(*shape, part.out_channels, kernel, stride, padding)


def _activation(part: nn.Module) -> Activation:
    if type(part) is nn.Sigmoid:
        return SIGMOID
    if type(part) is nn.Tanh:
        return TANH
    if type(part) is nn.ReLU:
        return RELU
    if type(part) is nn.LeakyReLU and part.negative_slope > 0:
        return _leaky(part.negative_slope)
    raise _stranger(str(part))


def _stranger(what: str) -> InputError:
    return InputError(
        f"network has {what}, but must be convolutions with bias (one group, no dilation, padding with "
        "zeros), each followed by Sigmoid, Tanh, ReLU or LeakyReLU, then Flatten and the output layer."
    )
