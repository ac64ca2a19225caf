"""What a transport plan minimises, and which algorithm finds it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from wdlg.errors import require_count, require_flag, require_not_negative, require_positive
from wdlg.losses.ground_cost import GroundCost
from wdlg.losses.point_sets import Points
from wdlg.losses.sinkhorn import exact_assignment, sinkhorn_plan, unrolled_sinkhorn_plan

MEDIAN_OF = 500
"""A median is taken over at most this many points of either side, evenly spaced."""


@dataclass(frozen=True)
class Problem:
    """P transport problems, ready to be solved.

    Attributes:
        points: the points.
        squared: their squared distances (P, n, n), leaves of a graph if the problem is tracked.
        cost: the ground cost C, (P, n, n).
        steered: C + L, with the positional penalty.
        scale: of the pseudo-Huber cost, (P,).
        unit: of eps and penalty, (P, 1, 1).
    """

    points: Points
    squared: Tensor
    cost: Tensor
    steered: Tensor
    scale: Tensor
    unit: Tensor


@dataclass(frozen=True)
class Solver:
    """Finds plans P between uniform marginals a and b that minimise ``<P, C + L> + eps KL(P | a b^T)``.

    C is the ground cost and L the positional penalty. "The unit" of a problem is the median of C (over at
    most 500 evenly spaced points of either side), but at least a tenth of its mean (:func:`unit_of`); it is a
    constant to the derivative. With eps above 0 the plans are those of Sinkhorn's algorithm
    (:mod:`wdlg.losses.sinkhorn`), without it they are permutations.

    Args:
        eps: strength of the entropic regularisation, in the units of the cost; 0 for exact transport, by
            sorting where points lie on a line, or else by assignment.
        max_iterations: the most Sinkhorn iterations for each problem.
        threshold: stop a problem when ``sum |u - u_prev|`` falls below this. Unrolled, there are always
            ``max_iterations``.
        relative: eps is in the unit of its problem.
        penalty: L, the cost added for moving mass i -> j, i != j, in the unit of its problem. At ``inf``
            every point stays with its counterpart, and eps has no effect.

    Raises:
        InputError: a setting is out of range.
    """

    eps: float = 0.1
    max_iterations: int = 100
    threshold: float = 1e-3
    relative: bool = False
    penalty: float = 0.0

    def __post_init__(self) -> None:
        require_not_negative("eps", self.eps)
        require_count("max_iterations", self.max_iterations)
        require_positive("threshold", self.threshold)
        require_flag("relative", self.relative)
        require_not_negative("penalty", self.penalty, or_infinite=True)

    @property
    def holds(self) -> bool:
        """Whether every point stays with its counterpart, so that there is nothing to solve."""
        return self.penalty == math.inf

    @property
    def is_exact(self) -> bool:
        """Whether plans are permutations."""
        return self.eps == 0 or self.holds

    @property
    def steers(self) -> bool:
        """Whether a finite penalty is added to the cost."""
        return 0 < self.penalty < math.inf

    def problem(
        self, points: Points, cost: GroundCost, *, tracked: bool = False, like: Problem | None = None
    ) -> Problem:
        """The problem between these points, in its own scale and unit or in those of another.

        Args:
            points, cost: of the problem.
            tracked: costs keep the graph that leads to the squared distances.
            like: the other problem.
        """
        squared = points.squared().requires_grad_(tracked)
        with torch.enable_grad():
            scale = cost.scale(points) if like is None else like.scale
            ground = cost(squared, scale)
            unit = self._unit(ground.detach()) if like is None else like.unit
            steered = ground
            if self.steers:
                moved = 1 - torch.eye(points.count, dtype=ground.dtype, device=ground.device)
                steered = ground + self.penalty * unit * moved
        return Problem(points, squared, ground, steered, scale, unit)

    def _unit(self, cost: Tensor) -> Tensor:
        """(P, 1, 1); ones where nothing is said in units."""
        if not (self.relative or self.steers):
            return cost.new_ones(len(cost), 1, 1)
        step = thinning(cost.shape[1])
        return unit_of(cost[:, ::step, ::step], cost.mean((1, 2)))[:, None, None]

    def permutation(self, points: Points, cost: GroundCost) -> tuple[Tensor | None, Tensor | float]:
        """The best permutation (P, n), None for the identity, and the penalty that it pays, (P,)."""
        if self.holds or points.count == 1:
            return None, 0.0
        if not self.steers:
            order = points.sorted_order(squared_cost=cost.is_squared)
            if order is not None:
                return order, 0.0
        problem = self.problem(points, cost)
        order = exact_assignment(problem.steered)
        moved = order != torch.arange(points.count, device=order.device)
        return order, self.penalty * problem.unit[:, 0, 0] * moved.to(problem.unit).mean(1)

    def plans(self, problems: Sequence[Problem], *, unrolled: bool = False) -> list[Tensor]:
        """Entropic plan (P, n, n) of each, with a graph through all iterations if unrolled, else without."""
        solve: Callable[[Tensor], Tensor]
        if unrolled:
            solve = partial(unrolled_sinkhorn_plan, eps=self.eps, max_iterations=self.max_iterations)
        else:
            solve = partial(
                sinkhorn_plan, eps=self.eps, max_iterations=self.max_iterations, threshold=self.threshold
            )
        with torch.set_grad_enabled(unrolled):
            return solve_together(
                solve, [each.steered / each.unit if self.relative else each.steered for each in problems]
            )

    def absolute_eps(self, problem: Problem) -> Tensor | float:
        """eps of each problem in the units of its cost, (P,) or one for all."""
        return self.eps * problem.unit[:, 0, 0] if self.relative else self.eps


def unit_of(cost: Tensor, mean: Tensor) -> Tensor:
    """The unit for the costs of each problem, (P,), above 0: the median, but at least a tenth of the mean.

    The bound matters for the output layer alone. Most of its rows are nearly zero, since softmax saturates,
    and so is the median cost; in units of it the other costs exceed 1e9, where plans are rounding noise.

    Args:
        cost: between all points or a sample of them, (P, n, n).
        mean: of the costs between all points, (P,).
    """
    unit = torch.maximum(cost.flatten(1).median(1).values, mean / 10)
    return torch.where(unit > 0, unit, torch.ones_like(unit))


def thinning(count: int) -> int:
    """Take every how many points for a median."""
    return math.ceil(count / MEDIAN_OF)


def solve_together(solve: Callable[[Tensor], Tensor], costs: Sequence[Tensor]) -> list[Tensor]:
    """Plans for cost matrices (P, n, n), one call of the solver for all of one size."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for place, cost in enumerate(costs):
        by_size[cost.shape[-1]].append(place)
    found: dict[int, Tensor] = {}
    for places in by_size.values():
        solved = solve(torch.cat([costs[place] for place in places]))
        parts = solved.split([len(costs[place]) for place in places])
        found.update(zip(places, parts, strict=True))
    return [found[place] for place in range(len(costs))]
