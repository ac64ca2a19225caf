"""A reading of the paper's distance: points, ground cost, solver, value and total put together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from wdlg.losses.ground_cost import GroundCost
from wdlg.losses.points import Partition
from wdlg.losses.solver import Solver
from wdlg.losses.total import Total
from wdlg.losses.transport import Entropic, Exact, Transport
from wdlg.losses.value import Value
from wdlg.updates.gradient import Gradient


@dataclass(frozen=True)
class Reading:
    """Transport cost between the points of two gradients, over all parameters, in five steps.

    1. The **partition** makes points of a dummy and a shared gradient, problem by problem.
    2. The **ground cost** prices the distance between two points.
    3. The **solver** finds the plan of each problem.
    4. The **value** says what the plan is worth, and what its derivative holds fixed.
    5. The **total** adds the problems up.

    Each part says what it may not be combined with.

    Raises:
        InputError: two parts do not go together.
    """

    partition: Partition
    cost: GroundCost
    solver: Solver
    value: Value
    total: Total

    def __post_init__(self) -> None:
        self.partition.require_solvable(self.solver)
        self.total.require_distance(self.cost)
        self.value.require_defined(self.solver)

    def __call__(self, dummy: Gradient, shared: Gradient) -> Tensor:
        """Loss of each attack, (B,)."""
        pairs = self.partition(dummy, shared)
        return self.total(self._transport.costs(pairs), pairs, len(dummy))

    def couplings(self, dummy: Gradient, shared: Gradient) -> list[Tensor]:
        """Transport plans of each parameter, without a graph: (B, n, n), or (B, problems, n, n) for several.

        Raises:
            InputError: points are scalars.
        """
        self.partition.require_plans()
        plans = self._transport.plans(self.partition(dummy.detach(), shared))
        several = [plan.unflatten(0, (len(dummy), -1)) for plan in plans]
        return [plan[:, 0] if plan.shape[1] == 1 else plan for plan in several]

    @cached_property
    def _transport(self) -> Transport:
        exact = self.solver.is_exact or self.partition.has_one_plan
        return (Exact if exact else Entropic)(self.cost, self.solver, self.value)
