"""Initial weights by the name of their distribution, drawn from a generator alone.

The global random state of torch is left as it is: what a seed means may depend neither on what ran before
nor on what another thread draws meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wdlg.errors import InputError, require_choice, require_count, require_positive, told

DISTRIBUTIONS = ("uniform", "torch")
"""Of initial weights: "uniform" is U(-bound, bound) for every parameter, as the code of DLG draws them;
"torch" is what the layers of ``torch.nn`` start with."""

BOUND = 0.5
"""Half width of the uniform distribution in the code of DLG and iDLG."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
STATISTICS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""Layers that may keep running statistics, which begin with mean 0 and variance 1."""

NORMALISATIONS = (
    *STATISTICS,
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm),
)
"""Layers that torch starts as plain normalisations: scale 1, shift 0."""


class Around(NamedTuple):
    """The uniform distribution U(centre - bound, centre + bound); with bound 0 it is the centre itself."""

    centre: float
    bound: float


def require_distribution(distribution: str, bound: float) -> None:
    """Raise :class:`InputError` unless these are a known distribution and a half width above zero."""
    require_choice("distribution", distribution, DISTRIBUTIONS)
    require_positive("bound", bound)


def fan_in_bound(inputs: int) -> float:
    """Half width of torch's distribution for weights and biases of units with so many inputs.

    Linear and convolution layers of torch draw weights from He's uniform distribution with the negative slope
    sqrt(5), that is U(-b, b) with b = sqrt(2 / (1 + 5)) sqrt(3 / inputs) = 1 / sqrt(inputs), and biases from
    the same interval.
    """
    return 1 / math.sqrt(inputs) if inputs else 0.0


def draw(
    shapes: Sequence[Sequence[int]],
    around: Sequence[Around],
    count: int,
    *,
    generator: torch.Generator,
    dtype: torch.dtype,
) -> tuple[Tensor, ...]:
    """Tensors of these shapes with a leading axis of networks, one after another from the generator.

    Args:
        shapes: of one network's tensors.
        around: the distribution of each tensor.
        count: how many networks, N.
        generator: source of randomness.
        dtype: floating type of the result.

    Raises:
        InputError: the count is below 1, or the type is no floating type.
    """
    require_count("count", count)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InputError(f"dtype is {told(dtype)}, but must be a floating type of torch.")
    drawn = []
    for shape, (centre, bound) in zip(shapes, around, strict=True):
        if not bound:
            drawn.append(torch.full((count, *shape), centre, dtype=dtype))
            continue
        # Drawn in single precision always, so that a seed means the same network in every precision.
        tensor = (torch.rand(count, *shape, generator=generator) * 2 - 1) * bound
        drawn.append((tensor + centre if centre else tensor).to(dtype))
    return tuple(drawn)


def of_torch(module: nn.Module) -> list[Around]:
    """The distribution that torch starts each parameter of a module with, in their order.

    Raises:
        InputError: a parameter belongs to a layer of another kind than these: linear, convolution,
            normalisation.
    """
    found: dict[int, Around] = {}
    for layer in module.modules():
        own = dict(layer.named_parameters(recurse=False))
        if isinstance(layer, (nn.Linear, *CONVOLUTIONS)):
            around = Around(0, fan_in_bound(layer.weight[0].numel()))
            found.update((id(tensor), around) for tensor in own.values())
        elif isinstance(layer, NORMALISATIONS):
            found.update((id(tensor), Around(float(name == "weight"), 0)) for name, tensor in own.items())
        elif own:
            raise InputError(
                f"distribution is 'torch', but is known for linear, convolution and normalisation layers "
                f"alone, and the module has a {type(layer).__name__}: take 'uniform'."
            )
    return [found[id(tensor)] for tensor in module.parameters()]


def initial_buffers(module: nn.Module, count: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The buffers of an untrained network, each (count, ...): running statistics begin, others stay.

    Statistics of batch normalisation begin with mean 0 and variance 1 over no batch.
    """
    found: dict[int, Tensor] = {}
    for layer in module.modules():
        if isinstance(layer, STATISTICS):
            for name, buffer in layer.named_buffers(recurse=False):
                found[id(buffer)] = torch.full(buffer.shape, float(name == "running_var"), dtype=buffer.dtype)
    buffers = [found.get(id(buffer), buffer) for buffer in module.buffers()]
    return tuple(
        buffer.to("cpu", dtype if buffer.is_floating_point() else buffer.dtype).repeat(
            count, *(1 for _ in buffer.shape)
        )
        for buffer in buffers
    )
