"""What every network is: an architecture, its weights held apart, and the one place that checks both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from wdlg.errors import InputError, require_count, told
from wdlg.networks.output_layer import OutputLayer
from wdlg.rows import Rows
from wdlg.shapes import describe, require_alike
from wdlg.updates.gradient import Gradient
from wdlg.updates.output_layer import Product, Products

Derived = TypeVar("Derived")


@dataclass(frozen=True)
class Parameters(Rows):
    """The weights of N networks of one architecture.

    Attributes:
        tensors: in the order of ``torch.nn.Module.parameters``, each with a leading axis N; last the output
            layer's, (N, K, M) and (N, K). They must not be changed in place, since what is derived from them
            is kept.
        buffers: what a network holds besides and no gradient is taken of, such as the running statistics of
            batch normalisation, in the order of ``torch.nn.Module.buffers``, each with a leading axis N.
    """

    tensors: tuple[Tensor, ...]
    buffers: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getstate__(self) -> dict[str, object]:
        """For other processes the weights alone, not what has been derived from them."""
        return {"tensors": self.tensors, "buffers": self.buffers}

    def derived(self, make: Callable[[Parameters], Derived]) -> Derived:
        """What an architecture makes of these weights, made at the first call and kept with them.

        Args:
            make: a class or a function of a module, which is what the result is kept under. What it makes
                must not hold these parameters themselves, or neither could be freed in time.
        """
        if make not in self._kept:
            self._kept[make] = make(self)
        return self._kept[make]

    def repeated(self, times: int) -> Parameters:
        """Every network so many times in a row, N * times networks; the last copy is kept for a next call."""
        if times == 1:
            return self
        before, copy = self._kept.get("repeated", (0, self))
        if before != times:
            copy = self._each(lambda tensor: tensor.repeat_interleave(times, dim=0))
            self._kept["repeated"] = times, copy
        return copy

    @cached_property
    def _kept(self) -> dict[Any, Any]:
        return {}

    @cached_property
    def output_layer(self) -> OutputLayer:
        """The last layer, a linear one with a bias."""
        return OutputLayer(*self.tensors[-2:])


class Network(Protocol):
    """An architecture that can be attacked; its weights are held apart, in :class:`Parameters`.

    It must end in a linear layer with bias, whose gradient the label rules read.
    """

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
    def parameter_names(self) -> tuple[str, ...]:
        """Of the tensors in :class:`Parameters`, in their order: a layer, and "weight" or "bias"."""

    @property
    def parameter_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of one network's tensors in :class:`Parameters`; last the output layer's, (K, M) and (K,)."""

    @property
    def buffer_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of one network's buffers in :class:`Parameters`; none for most architectures."""

    def initial_parameters(
        self,
        count: int = 1,
        *,
        generator: torch.Generator,
        distribution: str = ...,
        bound: float = ...,
        dtype: torch.dtype = ...,
    ) -> Parameters:
        """Untrained networks, N = count, with weights of a distribution in ``DISTRIBUTIONS``.

        Without ``distribution`` they are those that the architecture's own papers and codes start from.
        """

    def scores(self, weights: Sequence[Tensor], images: Tensor, buffers: Sequence[Tensor] = ()) -> Tensor:
        """Class scores (N, K) of N images (N, channels, height, width) in one network.

        Plain torch that changes nothing, so that ``torch.func`` can map it and differentiate it, twice, by
        weights and images: what a participant who trains on images computes.

        Args:
            weights: the network's tensors, without the axis of networks, of ``parameter_shapes``.
            images: the images.
            buffers: its buffers, of ``buffer_shapes``.
        """

    def gradient(self, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """Gradient of the cross-entropy, image by image, differentiable in ``images`` and ``target``.

        Args:
            parameters: N = 1 or N = B networks.
            images: (B, channels, height, width).
            target: label probabilities (B, K).
        """

    def mean_gradient(self, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """Gradient of the mean cross-entropy over the N images of each of B participants.

        Differentiable in ``images`` and ``target``. For one image each, N = 1, it is that of ``gradient``.

        Args:
            parameters: 1 network that all share, or B.
            images: (B, N, channels, height, width).
            target: label probabilities (B, N, K).
        """


def mean_of_gradients(network: Network, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
    """:meth:`Network.mean_gradient` of a network whose images do not see each other: a mean of gradients.

    A network that all participants share is not copied. Where each has one, the copies for its images are
    kept with the parameters, for the next call.

    Raises:
        InputError: shapes, precisions or devices do not fit together.
    """
    require_fitting_batches(network, parameters, images, target)
    participants, count = images.shape[:2]
    if count == 1:
        return network.gradient(parameters, images[:, 0], target[:, 0])
    each = network.gradient(
        parameters if len(parameters) == 1 else parameters.repeated(count),
        images.flatten(0, 1),
        target.flatten(0, 1),
    )
    of_images = (participants, count)
    assert isinstance(each.output, Product)  # of one image each
    return gradient_of_mean(
        tuple(tensor.unflatten(0, of_images).mean(1) for tensor in each.hidden),
        each.output.error.unflatten(0, of_images),
        each.output.features.unflatten(0, of_images),
    )


def gradient_of_mean(hidden: tuple[Tensor, ...], errors: Tensor, features: Tensor) -> Gradient:
    """The gradient of a mean cross-entropy over N images, from what each brings to the output layer.

    Args:
        hidden: gradients of the mean by the hidden parameters, each (B, units, entries).
        errors: softmax(scores) - target of each image, (B, N, K).
        features: the output layer's input of each image, (B, N, M).
    """
    count = errors.shape[1]
    if count == 1:
        return Gradient.of_one(hidden, errors[:, 0], features[:, 0])
    return Gradient(hidden, Products(errors / count, features))


def require_image_shape(value: Any) -> tuple[int, int, int]:
    """Return (channels, height, width) as a tuple, or raise :class:`InputError`."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 3:
        raise InputError(f"image_shape is {told(value)}, but must be (channels, height, width).")
    channels, height, width = (
        require_count(f"image_shape {name}", size)
        for name, size in zip(("channels", "height", "width"), value, strict=True)
    )
    return channels, height, width


def require_fitting(network: Network, parameters: Parameters, images: Tensor, *target: Tensor) -> None:
    """Raise :class:`InputError` unless networks, images and, where they are given, label probabilities fit.

    Everything that computes a gradient asks here: what comes after it, compiled loops among it, trusts the
    shapes.
    """
    _require_fitting(network, parameters, images, target, axes=("B",))


def require_fitting_batches(network: Network, parameters: Parameters, images: Tensor, target: Tensor) -> None:
    """The same for the N images of each of B participants, one axis more."""
    _require_fitting(network, parameters, images, (target,), axes=("B", "N"))


def _require_fitting(
    network: Network,
    parameters: Parameters,
    images: Tensor,
    targets: tuple[Tensor, ...],
    axes: tuple[str, ...],
) -> None:
    require_parameters(network, parameters)
    like = parameters.tensors[0]
    fits = isinstance(images, Tensor) and images.ndim == len(axes) + 3 and all(images.shape[1 : len(axes)])
    if not fits or tuple(images.shape[len(axes) :]) != network.image_shape:
        came = f"has shape {tuple(images.shape)}" if isinstance(images, Tensor) else f"is {describe(images)}"
        raise InputError(
            f"images {came}, but must be ({', '.join(axes)}, channels, height, width) with "
            f"(channels, height, width) = {network.image_shape}."
        )
    require_alike("images", images, "parameters", like)
    if len(parameters) not in (1, len(images)):
        whose = "images" if len(axes) == 1 else "participants"
        raise InputError(
            f"parameters holds {len(parameters)} networks, but must hold 1 or one for each of the "
            f"{len(images)} {whose}."
        )
    wanted = (*images.shape[: len(axes)], network.classes)
    for target in targets:
        if not isinstance(target, Tensor) or target.shape != wanted:
            came = (
                f"has shape {tuple(target.shape)}" if isinstance(target, Tensor) else f"is {describe(target)}"
            )
            raise InputError(
                f"target {came}, but must have shape {wanted}: one row of label probabilities for each image."
            )
        require_alike("target", target, "parameters", like)


def require_held(network: Network, weights: Sequence[Tensor], buffers: Sequence[Tensor]) -> None:
    """Raise :class:`InputError` unless there are as many weights and buffers as one network has."""
    for name, came, wanted in (
        ("weights", weights, network.parameter_shapes),
        ("buffers", buffers, network.buffer_shapes),
    ):
        if len(came) != len(wanted):
            raise InputError(f"{name} holds {len(came)} tensors, but the network has {len(wanted)}.")


def require_parameters(network: Network, parameters: Parameters) -> None:
    """Raise :class:`InputError` unless these are weights of the network, in one precision on one device."""
    for kind, tensors, wanted in (
        ("tensor", parameters.tensors, network.parameter_shapes),
        ("buffer", parameters.buffers, network.buffer_shapes),
    ):
        if len(tensors) != len(wanted):
            raise InputError(f"parameters holds {len(tensors)} {kind}s, but the network has {len(wanted)}.")
        for place, (tensor, shape) in enumerate(zip(tensors, wanted, strict=True)):
            ours = tuple(tensor.shape)
            if not ours or ours[1:] != shape or not ours[0] or ours[0] != len(parameters):
                sizes = ", ".join(map(str, ("N", *shape)))
                raise InputError(
                    f"parameters has a {kind} of shape {ours} in place {place}, but the network takes "
                    f"({sizes}) there, with the same N everywhere, at least 1."
                )
            # A buffer may count, in whole numbers.
            if kind == "tensor" or tensor.is_floating_point():
                held = "parameters" if kind == "tensor" else "parameters' buffer"
                require_alike(f"{held} in place {place}", tensor, "place 0", parameters.tensors[0])
