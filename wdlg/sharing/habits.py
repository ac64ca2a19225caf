"""Habits of training that change what is sent: smoothed labels and normalised images.

Each is a rule of sharing around another one. The attacker who knows of it calls it with dummies, as the
participant does with private images; its images stay those before the normalisation, in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wdlg.errors import InputError, require_not_negative, require_positive, told
from wdlg.networks.base import Network, Parameters
from wdlg.shapes import describe
from wdlg.sharing.federated import FedSGD, Sharing
from wdlg.updates.gradient import Gradient


@dataclass(frozen=True)
class Smoothed:
    """Labels smoothed: targets become ``(1 - s) target + s / K`` (Szegedy et al. 2016).

    Args:
        smoothing: s, at least 0 and below 1.
        sharing: what is sent with these targets.

    Raises:
        InputError: s is out of range.
    """

    smoothing: float
    sharing: Sharing = field(default_factory=FedSGD)

    def __post_init__(self) -> None:
        if require_not_negative("smoothing", self.smoothing) >= 1:
            raise InputError(f"smoothing is {told(self.smoothing)}, but must be at least 0 and below 1.")

    def __call__(self, network: Network, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """What is sent; see :class:`~wdlg.sharing.federated.Sharing`."""
        smooth = (1 - self.smoothing) * target + self.smoothing / network.classes
        return self.sharing(network, parameters, images, smooth)


def apart_from_labels(sharing: Sharing) -> Sharing:
    """The rule under a smoothing of labels: how something is sent, whatever the labels.

    >>> apart_from_labels(Smoothed(0.1))
    FedSGD()
    """
    return sharing.sharing if isinstance(sharing, Smoothed) else sharing


@dataclass(frozen=True)
class Normalised:
    """Images normalised before the network sees them: ``(image - mean) / deviation``, channel by channel.

    Args:
        mean: one for each channel, finite.
        deviation: one for each channel, above 0.
        sharing: what is sent of these images.

    Raises:
        InputError: a number is out of range, or they are not as many; on use, the images have another number
            of channels.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    sharing: Sharing = field(default_factory=FedSGD)

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("deviation", self.deviation)):
            if not isinstance(values, Sequence) or isinstance(values, str) or not values:
                raise InputError(f"{name} is {told(values)}, but must be a number for each channel.")
        for one in self.mean:
            require_not_negative("mean", abs(one))
        for one in self.deviation:
            require_positive("deviation", one)
        if len(self.mean) != len(self.deviation):
            raise InputError(
                f"deviation has {len(self.deviation)} numbers, but must have {len(self.mean)}, as mean has."
            )
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "deviation", tuple(map(float, self.deviation)))

    def normalised(self, images: Tensor) -> Tensor:
        """Images (..., channels, height, width) as the network sees them."""
        mean, deviation = self._like(images)
        return (images - mean) / deviation

    def restored(self, images: Tensor) -> Tensor:
        """Images (..., channels, height, width) as they were before."""
        mean, deviation = self._like(images)
        return images * deviation + mean

    def __call__(self, network: Network, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """What is sent; see :class:`~wdlg.sharing.federated.Sharing`."""
        return self.sharing(network, parameters, self.normalised(images), target)

    def _like(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if not isinstance(images, Tensor) or images.ndim < 3 or images.shape[-3] != len(self.mean):
            raise InputError(f"images is {describe(images)}, but must have {len(self.mean)} channels.")
        mean, deviation = (
            torch.tensor(values, dtype=images.dtype, device=images.device)[:, None, None]
            for values in (self.mean, self.deviation)
        )
        return mean, deviation
