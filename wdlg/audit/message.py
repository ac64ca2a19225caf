"""What is kept, and what is sent: private images, and the message that a participant makes of them.

Of each parameter it is known whether its gradient was sent. What was not, because the layer is frozen, secret
or only added for the attacks, is left out of every loss and every bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.audit.models import System
from wdlg.errors import InputError, require_count, require_not_negative, require_positive, told
from wdlg.losses import Loss, SquaredEuclidean, WeightedEuclidean
from wdlg.sharing.defences import Defence, LaplaceNoise, Noise
from wdlg.sharing.federated import FedAvg, FedSGD, Sharing
from wdlg.sharing.habits import Smoothed, apart_from_labels
from wdlg.updates.gradient import Gradient
from wdlg.updates.output_layer import Dense


@dataclass(frozen=True)
class Private:
    """What a participant keeps to itself.

    Attributes:
        images: (N, channels, height, width) in [0, 1], of which the mean gradient is taken.
        labels: (N,).
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def private(system: System, images: Any, labels: Any) -> Private:
    """Private images and their labels, checked against the model.

    Args:
        system: that learns from them.
        images: (N, channels, height, width) with values in [0, 1].
        labels: (N,), whole numbers below the model's classes.

    Raises:
        InputError: shapes, values or labels do not fit.
    """
    shape = system.network.image_shape
    if (
        not isinstance(images, Tensor)
        or images.ndim != 4
        or tuple(images.shape[1:]) != shape
        or not len(images)
    ):
        came = tuple(images.shape) if isinstance(images, Tensor) else told(images)
        raise InputError(f"images are {came}, but must be of shape (N, *{shape}) as --image-shape says.")
    if not ((images >= 0) & (images <= 1)).all():
        raise InputError(
            "images have values outside [0, 1], but must be within it: --mean and --std normalise."
        )
    if not isinstance(labels, Tensor) or labels.shape != (len(images),) or labels.is_floating_point():
        raise InputError("labels must be whole numbers, one for each image.")
    if labels.min() < 0 or labels.max() >= system.classes:
        raise InputError(
            f"labels are {sorted(set(labels.tolist()))[:6]}, but must be from 0 to {system.classes - 1}, the "
            "model's classes."
        )
    return Private(images, labels.long())


@dataclass(frozen=True)
class Message:
    """What the attacker sees of one participant.

    Attributes:
        gradient: one row, in units of a gradient; zero where nothing was sent.
        sent: of each of the network's parameters, whether its gradient was sent.
        sharing: how it was made.
        notes: sentences for the report on what was done to read it.
        digest: SHA-256 of the file, or none for a message that the model was made to send.
    """

    gradient: Gradient
    sent: tuple[bool, ...]
    sharing: Sharing
    notes: tuple[str, ...] = ()
    digest: str | None = None

    @property
    def complete(self) -> bool:
        """Whether the gradient of every parameter of the network was sent."""
        return all(self.sent)

    @property
    def smoothing(self) -> float:
        """Of the labels, from 0."""
        return self.sharing.smoothing if isinstance(self.sharing, Smoothed) else 0.0

    @property
    def rounds(self) -> Sharing:
        """How it was made, whatever the labels."""
        return apart_from_labels(self.sharing)

    @property
    def loss(self) -> Loss:
        """The squared distance of what was sent."""
        if self.complete:
            return SquaredEuclidean()
        return WeightedEuclidean(tuple(float(one) for one in self.sent))

    def parts(self) -> list[Tensor]:
        """The tensors that were sent, each (1, units, entries)."""
        return [one for one, sent in zip(self.gradient.tensors(), self.sent, strict=True) if sent]

    @property
    def entries(self) -> int:
        """Numbers that were sent."""
        return sum(part.numel() for part in self.parts())

    @property
    def size(self) -> float:
        """Norm of what was sent."""
        return float(sum(part.double().square().sum() for part in self.parts()) ** 0.5)

    def as_applied(self, defence: Defence) -> Defence:
        """The same defence for the whole network: a noise level is one of the entries that are sent."""
        if isinstance(defence, Noise | LaplaceNoise):
            every = sum(one.numel() for one in self.gradient.tensors())
            return replace(defence, level=defence.level * (every / self.entries) ** 0.5)
        return defence

    def defended(self, defence: Defence, seed: int) -> Message:
        """The same after a defence."""
        changed = self.as_applied(defence)(self.gradient, (torch.Generator().manual_seed(seed),))
        return replace(self, gradient=masked(changed, self.sent), digest=None)


def sharing_of(
    system: System, steps: int, rate: float | None, images: int, smoothing: float = 0.0
) -> Sharing:
    """How a participant makes its message: one gradient, or the change of weights after some steps.

    With ``smoothing`` above 0 its labels are smoothed.

    Each step is on all its images; frozen layers, and one that was only added for the attacks, stay.

    Raises:
        InputError: a number is out of range, or a rate is missing.
    """
    require_count("--local-steps", steps)
    if require_not_negative("--label-smoothing", smoothing) >= 1:
        raise InputError(f"--label-smoothing is {smoothing:g}, but must be below 1.")
    if smoothing:
        return Smoothed(smoothing, sharing_of(system, steps, rate, images))
    if rate is not None:
        require_positive("--learning-rate", rate)
    if steps == 1:
        return FedSGD()
    if rate is None:
        raise InputError(
            f"--local-steps is {steps}, but needs --learning-rate: the weights after a step depend on it."
        )
    still = tuple(place for place, moves in enumerate(_trained(system)) if not moves)
    return FedAvg(rate=rate, steps=steps, batch=images, frozen=still)


def made(system: System, private: Private, sharing: Sharing) -> Message:
    """What the model sends of private images: an exact message, of every parameter that it trains."""
    sent = _trained(system)
    return Message(masked(exact(system, private, sharing), sent), sent, sharing)


def one_hot(system: System, private: Private, like: Tensor) -> Tensor:
    """Label probabilities (1, K), or (1, N, K) of N images."""
    target = F.one_hot(private.labels, system.classes).to(like)
    return target if len(private) == 1 else target[None]


def batch(private: Private, like: Tensor) -> Tensor:
    """The images as one participant's: (1, channels, height, width), or (1, N, channels, height, width)."""
    images = private.images.to(like)
    return images if len(private) == 1 else images[None]


def exact(system: System, private: Private, sharing: Sharing) -> Gradient:
    """What all parameters of the network would send, those of an added layer among them."""
    like = system.parameters.tensors[0]
    return sharing(
        system.network, system.parameters, batch(private, like), one_hot(system, private, like)
    ).as_sent()


def _trained(system: System) -> tuple[bool, ...]:
    sent = tuple(not one for one in system.frozen) + (False,) * system.added
    if not any(sent):
        raise InputError(
            "model trains no parameter (requires_grad is False for all), so that nothing is sent."
        )
    return sent


def masked(gradient: Gradient, sent: Sequence[bool]) -> Gradient:
    """With zeros in the place of what was not sent."""
    if all(sent):
        return gradient
    hidden = tuple(
        one if there else torch.zeros_like(one) for one, there in zip(gradient.hidden, sent[:-2], strict=True)
    )
    if sent[-2:] == (True, True):
        return Gradient(hidden, gradient.output)
    weight, bias = gradient.last_weight, gradient.bias
    return Gradient(hidden, Dense.of(sent[-2] * weight, sent[-1] * bias))
