"""The sum over all transport problems of an attack: how much mass each has, and which root is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wdlg.errors import InputError, require_choice
from wdlg.losses.ground_cost import GroundCost
from wdlg.losses.point_sets import Points
from wdlg.updates.distance import root

MASSES = ("share", "one", "relative")
ROOTS = ("none", "each", "total")


@dataclass(frozen=True)
class Total:
    """The costs of all problems as one number for each attack.

    Args:
        mass: of each point: "share" (1/n each), "one", which makes the cost n times as large, or "relative"
            (1/(n m²), with m the root mean square norm of the problem's shared points), which makes a squared
            cost a relative error: no parameter outweighs another because its gradient is larger. A problem
            whose shared points are all zero then costs nothing.
        root: "none", "each" (of each problem's cost: W_2) or "total" (of their sum). The derivative of a root
            at 0 is 0.

    Raises:
        InputError: a setting is out of range.
    """

    mass: str = "share"
    root: str = "none"

    def __post_init__(self) -> None:
        require_choice("mass", self.mass, MASSES)
        require_choice("root", self.root, ROOTS)

    def require_distance(self, cost: GroundCost) -> None:
        """Refuse the root of a cost that is no square."""
        if not cost.is_squared and self.root != "none":
            raise InputError(f"root is {self.root!r}, but must be 'none' where cost is {cost.cost!r}.")

    def __call__(self, costs: Sequence[Tensor], pairs: Sequence[Points], attacks: int) -> Tensor:
        """(B,) from the costs of the problems of each parameter, (P,) at a mass of 1 in all."""
        if self.mass != "share":
            costs = [self._mass(points) * cost for points, cost in zip(pairs, costs, strict=True)]
        return add_up(costs, attacks, self.root)

    def _mass(self, points: Points) -> Tensor | int:
        """Mass of all points of a problem together."""
        if self.mass == "one":
            return points.count
        squared = points.shared_size().detach().square()
        return torch.where(squared > 0, 1 / squared, 0.0)


def add_up(parts: Sequence[Tensor], attacks: int, taken: str) -> Tensor:
    """Sum over all problems of all parts, (B,), with the root of "none", of "each" problem or of the "total".

    Each part is (P,), where P is a multiple of B and the problems of an attack stand side by side.
    """
    if taken == "each":
        parts = [root(part) for part in parts]
    total = torch.stack([part.view(attacks, -1).sum(1) for part in parts]).sum(0)
    return root(total) if taken == "total" else total
