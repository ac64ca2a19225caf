"""Levenberg-Marquardt for sums of squares, batched over attacks, each with its own damping.

A sum of squares ``f(x) = |r(x)|²`` has the gradient ``2 Jᵀ r`` and about the Hessian ``2 JᵀJ``. The step s
minimises the model ``|r + J s|² + mu |s|²``,

    (JᵀJ + mu I) s = -Jᵀ r,

and is taken where f falls by enough of what the model without its last term says. Then the damping mu falls,
by how well the two agree; otherwise it grows, twice as fast each time in a row (Nielsen's rule; Madsen,
Nielsen and Tingleff 2004, section 3.2). So the loss never rises, and there is no learning rate.

Two numbers are not theirs, and were chosen on development images. A start from noise is far from the image,
and with little damping the first step leaps still farther, into saturated units, from where an attack may not
come back: so the damping begins at 1e-2, not at 1e-6 as for a good start. And near the image the matrix has
eigenvalues of all sizes, of which the image needs the smallest: so the damping may fall to a tenth at a
step, not to a third only. ``studies/second-order.yaml`` has ``damping=1e-6, fall=3``.

With *geodesic acceleration* the step gets a second part (Transtrum and Sethna 2012, arXiv:1201.5885). The
step s is the velocity of a path along which r changes evenly; that path bends by a, where r'' is the second
derivative of r along s:

    (JᵀJ + mu I) a = -Jᵀ r'',    x + s + a/2.

It takes three evaluations and no new factorisation. Where the path bends too much it is not followed: where
``|a| > acceleration |s|`` the step is s alone. ``studies/damped.yaml`` has ``acceleration=0``, and
``studies/accelerated.yaml`` has it as it is here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from wdlg.errors import InputError, require_choice, require_not_negative, require_positive
from wdlg.optimizers.state import State, require_evaluation, require_start

NormalMatrix = Callable[[int], Tensor]
"""``JᵀJ`` (n, n) at the point of the attack in this place of the batch."""

Bend = Callable[[int, Tensor], Tensor]
"""``Jᵀ r''`` (n,) there, with r'' the second derivative of the residual along a step (n,)."""

MOST_DAMPING = 1e8
"""The damping beyond which an attack is given up, in units of the largest diagonal entry of ``JᵀJ``."""

LEAST_DAMPING = 1e-15
"""It does not fall below this in the same unit: rounding of ``JᵀJ`` is as large."""

MATRIX, SOLUTION = 1.0, 0.25
"""What the normal matrix of n variables and the solution of its equations take, in n gradient evaluations."""

BEND = 3
"""What ``Jᵀ r''`` takes, in gradient evaluations."""

PRECISIONS = {"double": torch.float64, "single": torch.float32}
"""Of the normal equations; the loss and its gradient are in double precision whatever these are."""


@dataclass(frozen=True)
class LevenbergMarquardtState(State):
    """:class:`State` with the last point that was taken, and the model around it.

    Attributes:
        spent: (B,), evaluations that the last update was worth, beside that of the loss and its gradient.
        begun: (B,), True after the first evaluation.
        origin: (B, n), the point that the trial x was made from.
        origin_loss, origin_grad: there, (B,) and (B, n).
        matrix: ``JᵀJ`` there, (B, n, n); changed in place.
        fresh: (B,), True where x has been taken, and the model is still that of the point before.
        damping: (B,), mu.
        growth: (B,), by which mu is multiplied at the next trial that is not taken.
        predicted: (B,), by how much the model says that the loss falls from origin to x.
    """

    spent: Tensor
    begun: Tensor
    origin: Tensor
    origin_loss: Tensor
    origin_grad: Tensor
    matrix: Tensor
    fresh: Tensor
    damping: Tensor
    growth: Tensor
    predicted: Tensor


@dataclass(frozen=True)
class LevenbergMarquardt:
    """Damped Gauss-Newton steps with Nielsen's rule for the damping.

    An iteration is one model: a matrix ``JᵀJ``, a step, and further steps from the same matrix while none is
    taken. What it takes is counted in gradient evaluations: one for the loss and its gradient at each trial,
    n for the matrix of n variables, since J has as many columns, and n/4 for each solution of the normal
    equations (:data:`MATRIX` and :data:`SOLUTION`). A LeNet's take less, since the structure of its layers
    gives the matrix (``python -m benchmarks second-order``); another network's take about that. What
    ``acceleration`` needs is counted as :data:`BEND` for each step.

    An attack stalls where the model predicts a fall of less than ``tolerance`` of the loss: on an exact
    gradient that is where rounding of the shared gradient is reached.

    Args:
        damping: mu at the start, above 0, in units of the largest diagonal entry of ``JᵀJ``.
        fall: by how many times the damping falls at most at a step, above 1; 3 in Nielsen's rule.
        tolerance: above 0.
        least_gain: a trial is taken where the loss falls by more than this share of what the model predicts,
            above 0.
        precision: of the normal equations, "double" or "single", which is twice as fast.
        acceleration: the largest geodesic acceleration that is followed, in lengths of the step; 0 for none.

    Raises:
        InputError: a setting is out of range.
    """

    remembers_moves: ClassVar[bool] = True
    takes_squares: ClassVar[bool] = True
    """It needs a loss that is a sum of squares, and is called with ``JᵀJ``."""

    damping: float = 1e-2
    fall: float = 10.0
    tolerance: float = 1e-6
    least_gain: float = 1e-4
    precision: str = "double"
    acceleration: float = 0.75

    def __post_init__(self) -> None:
        require_positive("damping", self.damping)
        if require_positive("fall", self.fall) <= 1:
            raise InputError(
                f"fall is {self.fall:g}, but must be above 1: by how many times the damping falls."
            )
        require_positive("tolerance", self.tolerance)
        require_positive("least_gain", self.least_gain)
        require_choice("precision", self.precision, PRECISIONS)
        require_not_negative("acceleration", self.acceleration)

    @property
    def dtype(self) -> torch.dtype:
        """Of the normal equations."""
        return PRECISIONS[self.precision]

    def cost(self, n: int) -> int:
        """Evaluations that an update is worth, for n variables, if the first damping is large enough."""
        return round(MATRIX * n) + round(SOLUTION * n) + (BEND if self.acceleration else 0)

    def init(self, x: Tensor) -> LevenbergMarquardtState:
        """Start at x (B, n)."""
        attacks, n = require_start(x).shape
        counts = torch.zeros(attacks, dtype=torch.long, device=x.device)
        return LevenbergMarquardtState(
            x=x,
            iterations=counts,
            stalled=counts.bool(),
            spent=counts.clone(),
            begun=counts.bool(),
            origin=x.clone(),
            origin_loss=x.new_full((attacks,), torch.inf),
            origin_grad=torch.zeros_like(x),
            matrix=torch.zeros(attacks, n, n, dtype=self.dtype, device=x.device),
            fresh=counts.bool(),
            damping=x.new_zeros(attacks),
            growth=x.new_full((attacks,), 2.0),
            predicted=x.new_zeros(attacks),
        )

    def settle(
        self, state: LevenbergMarquardtState, loss: Tensor, grad: Tensor
    ) -> tuple[LevenbergMarquardtState, Tensor, Tensor]:
        """Take each trial or go back: the state at the points that count, with their losses and gradients.

        Args:
            state: with trials x.
            loss, grad: at x, (B,) and (B, n). A trial where one is not finite is not taken.
        """
        require_evaluation(state, loss, grad)
        gain = (state.origin_loss - loss) / state.predicted
        finite = torch.isfinite(loss) & torch.isfinite(grad).all(1)
        taken = ~state.begun | (finite & (gain > self.least_gain))
        shrunk = state.damping * torch.clamp(1 - (2 * gain - 1) ** 3, min=1 / self.fall)
        damping = torch.where(taken, shrunk, state.damping * state.growth)
        column = taken[:, None]
        settled = replace(
            state,
            x=torch.where(column, state.x, state.origin),
            iterations=state.iterations + (taken & state.begun),
            fresh=taken,
            damping=torch.where(state.begun, damping, state.damping),
            growth=torch.where(taken, 2.0, 2 * state.growth),
        )
        return (
            settled,
            torch.where(taken, loss, state.origin_loss),
            torch.where(column, grad, state.origin_grad),
        )

    def update(
        self,
        state: LevenbergMarquardtState,
        loss: Tensor,
        grad: Tensor,
        normal_matrix: NormalMatrix,
        bend: Bend,
        going_on: Tensor | None = None,
    ) -> LevenbergMarquardtState:
        """The next trials, from a state that :meth:`settle` has brought.

        Args:
            state: settled.
            loss, grad: at its points, (B,) and (B, n).
            normal_matrix: ``JᵀJ`` there.
            bend: ``Jᵀ r''`` there, along a step.
            going_on: (B,), False for attacks that have ended and need no trial; None for none.

        Raises:
            InputError: loss or gradient are not those of the state.
        """
        require_evaluation(state, loss, grad)
        x, damping, growth = state.x.clone(), state.damping.clone(), state.growth.clone()
        predicted, stalled = state.predicted.clone(), state.stalled.clone()
        spent = torch.zeros_like(state.spent)
        for place in range(len(x)):
            if going_on is not None and not going_on[place]:
                continue
            if state.fresh[place]:
                state.matrix[place] = normal_matrix(place)
                spent[place] += round(MATRIX * x.shape[1])
            largest = float(state.matrix[place].diagonal().max())
            if not state.begun[place]:
                damping[place] = self.damping * largest
            damping[place].clamp_(min=LEAST_DAMPING * largest)
            step = None
            while step is None and damping[place] <= MOST_DAMPING * largest:
                spent[place] += round(SOLUTION * x.shape[1])
                solve = solver(state.matrix[place], float(damping[place]))
                step = None if solve is None else solve(-grad[place] / 2)
                if step is None:
                    damping[place] *= growth[place]
                    growth[place] *= 2
            if step is None:
                stalled[place] = True
                continue
            fall = damping[place] * (step @ step) - (grad[place] @ step) / 2
            predicted[place] = fall
            stalled[place] = not fall > self.tolerance * loss[place]
            if stalled[place]:
                continue
            x[place] += step
            if self.acceleration:
                assert solve is not None  # it has given the step
                spent[place] += BEND
                bent = solve(-bend(place, step))
                if bent is not None and bent.norm() <= self.acceleration * step.norm():
                    x[place] += bent / 2
        return replace(
            state,
            x=x,
            stalled=stalled,
            spent=spent,
            begun=torch.ones_like(state.begun),
            origin=state.x,
            origin_loss=loss,
            origin_grad=grad,
            damping=damping,
            growth=growth,
            predicted=predicted,
        )


def solver(matrix: Tensor, damping: float) -> Callable[[Tensor], Tensor | None] | None:
    """``(matrix + damping I)^-1``, or None where that matrix is not positive definite to rounding.

    Args:
        matrix: symmetric (n, n), in the precision of the solution.
        damping: above 0.

    Returns:
        A function of a right side (n,): the solution in its precision, or None if that is not finite.
    """
    damped = matrix.clone()
    damped.diagonal().add_(damping)
    if damped.is_cpu:  # scipy's Cholesky decomposition is faster than torch's on processors of most makers
        try:
            factor = scipy.linalg.cho_factor(damped.numpy(), lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            return None

        def solved(right: Tensor) -> Tensor:
            return torch.from_numpy(scipy.linalg.cho_solve(factor, right.numpy(), check_finite=False))
    else:
        lower, failed = torch.linalg.cholesky_ex(damped)
        if failed:
            return None

        def solved(right: Tensor) -> Tensor:
            return torch.cholesky_solve(right[:, None], lower)[:, 0]

    def solve(right: Tensor) -> Tensor | None:
        solution = solved(right.to(matrix.dtype))
        return solution.to(right.dtype) if bool(torch.isfinite(solution).all()) else None

    return solve


def solve(matrix: Tensor, damping: float, right: Tensor) -> Tensor | None:
    """``(matrix + damping I)^-1 right``, or None; as of :func:`solver`, which serves several right sides."""
    solved = solver(matrix, damping)
    return None if solved is None else solved(right)
