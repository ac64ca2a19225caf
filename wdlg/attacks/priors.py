"""What an attacker knows of images in general: priors that are added to the loss, and limits of their values.

A prior is a frozen dataclass that is called with the dummy images and gives one number for each attack,
differentiable. A projection carries images back to where they may be after each move.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from torch import Tensor

from wdlg.errors import InputError, require_positive, told
from wdlg.registry import Registry
from wdlg.shapes import describe

Prior = Callable[[Tensor], Tensor]
"""Dummy images (B, C, H, W) or (B, N, C, H, W) to a penalty (B,)."""

Projection = Callable[[Tensor], Tensor]
"""Dummy images to images of the same shape."""


@dataclass(frozen=True)
class TotalVariation:
    """``weight`` times the mean absolute difference of neighbours, across plus down (Rudin et al. 1992).

    As the prior of Geiping et al. (2020): the mean is over all pairs of neighbours, channels and images.

    Args:
        weight: above 0, in units of the loss per unit of the images.

    Raises:
        InputError: weight is out of range; on use, an image has a single row or column.
    """

    weight: float

    def __post_init__(self) -> None:
        require_positive("weight", self.weight)

    def __call__(self, images: Tensor) -> Tensor:
        """The penalty of each attack, (B,)."""
        if not isinstance(images, Tensor) or images.ndim < 4 or not images.is_floating_point():
            raise InputError(
                f"images is {describe(images)}, but must be a floating-point tensor (B, channels, height, "
                "width)."
            )
        if min(images.shape[-2:]) < 2:
            raise InputError(
                f"images are {images.shape[-2]} x {images.shape[-1]}, but must have at least 2 rows and "
                "columns for a total variation."
            )
        down, across = images.diff(dim=-2), images.diff(dim=-1)
        return self.weight * (down.abs().flatten(1).mean(1) + across.abs().flatten(1).mean(1))


@dataclass(frozen=True)
class Box:
    """Values are cut off at ``low`` and ``high``: the range that pixels have.

    Raises:
        InputError: a limit is no finite number, or low is not below high.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        for name, limit in (("low", self.low), ("high", self.high)):
            if not isinstance(limit, Real) or isinstance(limit, bool) or not math.isfinite(limit):
                raise InputError(f"{name} is {told(limit)}, but must be a finite number.")
        if not self.low < self.high:
            raise InputError(f"low is {self.low!r}, but must be below high, {self.high!r}.")

    def __call__(self, images: Tensor) -> Tensor:
        """The images, cut off."""
        return images.clamp(self.low, self.high)


PRIORS = Registry("PRIORS", {"total_variation": TotalVariation})
"""Priors by the names that study files give them."""

PROJECTIONS = Registry("PROJECTIONS", {"box": Box})
"""Projections by the names that study files give them."""
