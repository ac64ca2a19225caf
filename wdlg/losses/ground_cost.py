"""The cost of moving mass from one point to another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wdlg.errors import require_choice, require_positive
from wdlg.losses.point_sets import Points
from wdlg.updates.distance import root

COSTS = ("squared", "euclidean", "pseudo_huber")


@dataclass(frozen=True)
class GroundCost:
    """Cost of moving mass over the Euclidean distance d, differentiable by d², also at 0.

    Args:
        cost: "squared" is d², "euclidean" is d, "pseudo_huber" is ``s² (sqrt(1 + d²/s²) - 1)``: d²/2 for
            short distances, and s d for long ones.
        huber_scale: s, where "pseudo_huber" goes over from a square to a line, in units of the root mean
            square norm of the problem's shared points; above 0. A problem whose shared points are all zero
            then costs nothing.

    Raises:
        InputError: a setting is out of range.
    """

    cost: str = "squared"
    huber_scale: float = 0.01

    def __post_init__(self) -> None:
        require_choice("cost", self.cost, COSTS)
        require_positive("huber_scale", self.huber_scale)

    @property
    def is_squared(self) -> bool:
        """Whether it is d²: only then its derivative by d² is constant, and its root a distance."""
        return self.cost == "squared"

    def scale(self, points: Points) -> Tensor:
        """s of each problem, (P,), constant to the derivative."""
        return self.huber_scale * points.shared_size().detach()

    def __call__(self, squared: Tensor, scale: Tensor) -> Tensor:
        """Costs (P, ...) of the squared distances d² (P, ...), with s = ``scale`` (P,)."""
        if self.is_squared:
            return squared
        if self.cost == "euclidean":
            return root(squared)
        s = scale.clamp_min(torch.finfo(scale.dtype).tiny).view(-1, *[1] * (squared.ndim - 1))
        # The same without its cancellation, and defined for s -> 0.
        return s * squared / (s + root(s**2 + squared))
