"""Normalisations by the statistics of what comes in, in plain operations.

An attack differentiates twice, and does so for a batch of networks by ``torch.func.vmap``. There torch 2.13
gets the second derivative of its own batch, layer and instance normalisation wrong, by some percent and
without a word (https://github.com/pytorch/functorch/issues/534), though not of the operations that they are
made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.overrides import TorchFunctionMode

from wdlg.errors import InputError


class PlainNormalisations(TorchFunctionMode):
    """Within this context torch's normalisations are computed by the functions of this module."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],  # torch hands it over
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return PLAIN.get(func, func)(*args, **(kwargs or {}))


def batch_norm(
    input: Tensor,  # torch's names, since arguments may come by name
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``torch.nn.functional.batch_norm``, without any change of the running statistics.

    Raises:
        InputError: there is one value for a channel, whose variance would be none.
    """
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if input.numel() == input.shape[1]:
        raise InputError(
            "images gives a batch normalisation in training mode a single value for each channel, but must "
            "give it more: it needs larger images, or more of them at once."
        )
    axes = (0, *range(2, input.ndim))
    return _scaled(_standardised(input, axes, eps), weight, bias, input.ndim - 2)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``torch.nn.functional.instance_norm``, without any change of the running statistics."""
    if not use_input_stats:
        return F.instance_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    axes = tuple(range(2, input.ndim))
    return _scaled(_standardised(input, axes, eps), weight, bias, input.ndim - 2)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """``torch.nn.functional.layer_norm``."""
    axes = tuple(range(input.ndim - len(normalized_shape), input.ndim))
    return _scaled(_standardised(input, axes, eps), weight, bias, 0)


PLAIN: Mapping[Callable[..., Any], Callable[..., Tensor]] = {
    F.batch_norm: batch_norm,
    F.instance_norm: instance_norm,
    F.layer_norm: layer_norm,
}


def _standardised(values: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """Values less their mean over the axes, divided by their standard deviation."""
    centred = values - values.mean(axes, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + eps)


def _scaled(values: Tensor, weight: Tensor | None, bias: Tensor | None, after: int) -> Tensor:
    """Values times weight plus bias, which have so many axes fewer at the end."""
    if weight is not None:
        values = values * weight[(..., *[None] * after)]
    return values if bias is None else values + bias[(..., *[None] * after)]
