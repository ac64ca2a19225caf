"""What number a plan is worth, and what its derivative holds fixed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wdlg.errors import InputError, require_choice
from wdlg.losses.ground_cost import GroundCost
from wdlg.losses.solver import Problem, Solver

VALUES = ("plain", "dual", "debiased")
DERIVATIVES = ("envelope", "unrolled")


@dataclass(frozen=True)
class Value:
    """The value of a transport plan P for the ground cost C and the positional penalty L.

    Args:
        value: "plain" is ``<P, C>``; "dual" is the regularised objective ``<P, C + L> + eps KL(P | a b^T)``
            that P minimises; "debiased" is the Sinkhorn divergence ``OT(x, y) - OT(x, x)/2 - OT(y, y)/2`` of
            these, with the eps of OT(x, y). At equality "plain" and "dual" are above zero; "debiased" is zero
            and so is its slope.
        derivative: "envelope" holds the plan fixed. By the envelope theorem that is exact for "dual" and
            "debiased" once Sinkhorn's algorithm has converged, and for "plain" only where eps is 0.
            "unrolled" goes through all iterations, in the log domain. Units are constants to both.

    Raises:
        InputError: a setting is out of range.
    """

    value: str = "plain"
    derivative: str = "envelope"

    def __post_init__(self) -> None:
        require_choice("value", self.value, VALUES)
        require_choice("derivative", self.derivative, DERIVATIVES)

    @property
    def is_plain(self) -> bool:
        return self.value == "plain"

    @property
    def is_debiased(self) -> bool:
        return self.value == "debiased"

    @property
    def is_unrolled(self) -> bool:
        return self.derivative == "unrolled"

    def require_defined(self, solver: Solver) -> None:
        """Refuse iterations of a solver that makes none, and a value in which infinity times zero stands."""
        if self.is_unrolled and solver.is_exact:
            where = "eps is 0" if solver.eps == 0 else "penalty is inf"
            raise InputError(f"derivative is 'unrolled', but must be 'envelope' where {where}.")
        if self.value == "dual" and solver.holds:
            raise InputError("value is 'dual', but must be 'plain' or 'debiased' where penalty is inf.")

    def is_differentiated_by_plans(self, cost: GroundCost) -> bool:
        """Whether the derivative by the squared distances is the plan itself."""
        return not self.is_unrolled and cost.is_squared

    def __call__(self, problem: Problem, plan: Tensor, eps: Tensor | float) -> Tensor:
        """Of the plans (P, n, n) of a problem, (P,). "Debiased" is put together from dual ones."""
        if self.is_plain:
            return (plan * problem.cost).sum((1, 2))
        return (plan * problem.steered).sum((1, 2)) + eps * divergence(plan)


def divergence(plan: Tensor) -> Tensor:
    """``KL(P | a b^T) = sum_ij P_ij log(n² P_ij) - P_ij + 1/n²`` for uniform a and b, (P,)."""
    ratio = plan.shape[1] * plan.shape[2] * plan
    # An entry that underflowed has no part in the sum, and none in its derivative.
    return (plan * ratio.clamp_min(torch.finfo(plan.dtype).tiny).log() - plan).sum((1, 2)) + 1
