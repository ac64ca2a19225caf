"""What every network is: an architecture, its weights held apart, and the one place that checks both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from wdlg.errors import InputError, require_count, told
from wdlg.networks.convolution import patch_order
from wdlg.networks.output_layer import OutputLayer
from wdlg.rows import Rows
from wdlg.shapes import describe, require_alike
from wdlg.updates.gradient import Gradient


@dataclass(frozen=True)
class Parameters(Rows):
    """The weights of N networks of one architecture.

    Attributes:
        tensors: in the order of ``torch.nn.Module.parameters``, each with a leading axis N. In LeNet weights
            are matrices: (N, 12, channels * 25) of a convolution, (N, K, M) of the output layer. They must
            not be changed in place, since what is derived from them is kept.
    """

    tensors: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getstate__(self) -> dict[str, object]:
        """For other processes the weights alone, not what has been derived from them."""
        return {"tensors": self.tensors}

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Of layers that all have a weight and a bias, the weights."""
        return self.tensors[::2]

    @property
    def biases(self) -> tuple[Tensor, ...]:
        """Of layers that all have a weight and a bias, the biases."""
        return self.tensors[1::2]

    @cached_property
    def in_patch_order(self) -> tuple[Tensor, ...]:
        """The convolutions' weights with their columns in the order of the patches."""
        return tuple(patch_order(weight) for weight in self.weights[:-1])

    @cached_property
    def with_biases(self) -> tuple[Tensor, ...]:
        """The same with the biases as a last column, for the compiled code."""
        return tuple(
            torch.cat((weight, bias[:, :, None]), dim=2)
            for weight, bias in zip(self.in_patch_order, self.biases[:-1], strict=True)
        )

    @cached_property
    def output_layer(self) -> OutputLayer:
        """The last layer, if it is a linear one with a bias."""
        return OutputLayer(*self.tensors[-2:])


class Network(Protocol):
    """An architecture that can be attacked; its weights are held apart, in :class:`Parameters`."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""

    @property
    def classes(self) -> int:
        """Number of classes K."""

    @property
    def features(self) -> int:
        """Width M of the last hidden layer."""

    @property
    def parameter_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of one network's tensors in :class:`Parameters`; last the output layer's, (K, M) and (K,)."""

    def gradient(self, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """Gradient of the cross-entropy, image by image, differentiable in ``images`` and ``target``."""


def require_image_shape(value: Any) -> tuple[int, int, int]:
    """Return (channels, height, width) as a tuple, or raise :class:`InputError`."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 3:
        raise InputError(f"image_shape is {told(value)}, but must be (channels, height, width).")
    channels, height, width = (
        require_count(f"image_shape {name}", size)
        for name, size in zip(("channels", "height", "width"), value, strict=True)
    )
    return channels, height, width


def require_fitting(
    network: Network, parameters: Parameters, images: Tensor, target: Tensor | None = None
) -> None:
    """Raise :class:`InputError` unless networks, images and label probabilities go together.

    Everything that computes a gradient asks here: what comes after it, compiled loops among it, trusts the
    shapes.
    """
    require_parameters(network, parameters)
    like = parameters.tensors[0]
    if not isinstance(images, Tensor) or images.ndim != 4 or tuple(images.shape[1:]) != network.image_shape:
        came = f"has shape {tuple(images.shape)}" if isinstance(images, Tensor) else f"is {describe(images)}"
        raise InputError(
            f"images {came}, but must be (B, channels, height, width) with (channels, height, width) = "
            f"{network.image_shape}."
        )
    require_alike("images", images, "parameters", like)
    if len(parameters) not in (1, len(images)):
        raise InputError(
            f"parameters holds {len(parameters)} networks, but must hold 1 or one for each of the "
            f"{len(images)} images."
        )
    if target is None:
        return
    wanted = (len(images), network.classes)
    if not isinstance(target, Tensor) or target.shape != wanted:
        came = f"has shape {tuple(target.shape)}" if isinstance(target, Tensor) else f"is {describe(target)}"
        raise InputError(
            f"target {came}, but must have shape {wanted}: one row of label probabilities for each image."
        )
    require_alike("target", target, "parameters", like)


def require_parameters(network: Network, parameters: Parameters) -> None:
    """Raise :class:`InputError` unless these are weights of the network, in one precision on one device."""
    wanted = network.parameter_shapes
    came = [tuple(tensor.shape) for tensor in parameters.tensors]
    if len(came) != len(wanted):
        raise InputError(f"parameters holds {len(came)} tensors, but the network has {len(wanted)}.")
    for place, (ours, shape) in enumerate(zip(came, wanted, strict=True)):
        if ours[1:] != shape or not ours[0] or ours[0] != came[0][0]:
            sizes = ", ".join(map(str, ("N", *shape)))
            raise InputError(
                f"parameters has a tensor of shape {ours} in place {place}, but the network takes ({sizes}) "
                "there, with the same N everywhere, at least 1."
            )
        require_alike(
            f"parameters in place {place}", parameters.tensors[place], "place 0", parameters.tensors[0]
        )
