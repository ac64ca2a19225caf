"""L-BFGS without line search, batched over attacks: the iterates of ``torch.optim.LBFGS``, one batch for all.

The direction is computed in a compact form. With the remembered pairs as rows of S and Y, oldest first,
R the upper triangle of S Y^T, D its diagonal and gamma the scale of the initial inverse Hessian, the two
loops of the recursion are two triangular solves in the space of the pairs,

    R alpha = S g,    R^T c = D alpha - gamma (Y g - Y Y^T alpha),
    direction = -(gamma (g - Y^T alpha) + S^T c),

which is algebraically the two-loop recursion (compare Byrd, Nocedal and Schnabel 1994) in four batched
matrix products instead of hundreds of small steps.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor

from wdlg import compiled
from wdlg.errors import InputError, require_count, require_positive
from wdlg.optimizers.state import State, require_evaluation, require_start

CURVATURE_LIMIT = 1e-10
"""A pair enters the memory only if ``y·s`` is above this, as in ``torch.optim.LBFGS``."""


@dataclass(frozen=True)
class LBFGSState(State):
    """:class:`State` with the memory of B attacks. H = history, n = number of unknowns.

    The pair memories are rings: attack b writes its next pair in slot ``taken[b] % H``. They are changed in
    place, since copying them would cost more than the step itself; by compiled code the last gradient and
    direction, too.

    Attributes:
        inner: (B,), evaluations made in the iteration in hand; 0 at its start.
        moves: (B,), moves made since the start.
        previous_loss, previous_grad: at the point that the last move left, (B,) and (B, n).
        direction, step: the last move is ``step * direction``, (B, n) and (B,).
        S, Y: remembered moves and gradient changes, (B, H, n); unused slots are zero.
        SY, YY: their inner products by slot, (B, H, H): s_i·y_j (kept for j not older than i) and y_i·y_j.
        taken: (B,), pairs written so far.
        scale: (B,), gamma.

    Raises:
        InputError: a field has another shape.
    """

    inner: Tensor
    moves: Tensor
    previous_loss: Tensor
    previous_grad: Tensor
    direction: Tensor
    step: Tensor
    S: Tensor
    Y: Tensor
    SY: Tensor
    YY: Tensor
    taken: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        # Compiled loops trust these shapes.
        attacks, n = self.x.shape
        history = self.S.shape[1]
        sizes = {
            **dict.fromkeys(("previous_grad", "direction"), (attacks, n)),
            **dict.fromkeys(("S", "Y"), (attacks, history, n)),
            **dict.fromkeys(("SY", "YY"), (attacks, history, history)),
        }
        for field in fields(self)[1:]:
            came, wanted = tuple(getattr(self, field.name).shape), sizes.get(field.name, (attacks,))
            if came != wanted:
                raise InputError(f"{field.name} has shape {came}, but must have shape {wanted}.")


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS with the settings of DLG's and iDLG's public code.

    One iteration is one call of ``torch.optim.LBFGS.step``: up to ``inner_iterations`` gradient
    evaluations, fewer when one of its stopping rules fires. (A rule that fires after a move makes torch
    evaluate the same point again at the start of its next step; so does this, and counts it.)

    Args:
        learning_rate: length of a move in units of the quasi-Newton direction, above 0.
        history: pairs remembered.
        inner_iterations: evaluations in one iteration.
        tolerance_grad: largest gradient entry at which an attack rests.
        tolerance_change: smallest move, change of loss, or expected decrease that is worth going on.
    """

    remembers_moves: ClassVar[bool] = True

    learning_rate: float = 1.0
    history: int = 100
    inner_iterations: int = 20
    tolerance_grad: float = 1e-7
    tolerance_change: float = 1e-9

    def __post_init__(self) -> None:
        require_positive("learning_rate", self.learning_rate)
        require_count("history", self.history)
        require_count("inner_iterations", self.inner_iterations)
        require_positive("tolerance_grad", self.tolerance_grad)
        require_positive("tolerance_change", self.tolerance_change)

    def init(self, x: Tensor) -> LBFGSState:
        """Start at x (B, n) with an empty memory."""
        attacks, n = require_start(x).shape
        x = x.contiguous()
        counts = torch.zeros(attacks, dtype=torch.long, device=x.device)
        return LBFGSState(
            x=x,
            iterations=counts,
            stalled=counts.bool(),
            inner=counts.clone(),
            moves=counts.clone(),
            previous_loss=x.new_zeros(attacks),
            previous_grad=torch.zeros_like(x),
            direction=torch.zeros_like(x),
            step=x.new_zeros(attacks),
            S=x.new_zeros(attacks, self.history, n),
            Y=x.new_zeros(attacks, self.history, n),
            SY=x.new_zeros(attacks, self.history, self.history),
            YY=x.new_zeros(attacks, self.history, self.history),
            taken=counts.clone(),
            scale=x.new_ones(attacks),
        )

    def update(self, state: LBFGSState, loss: Tensor, grad: Tensor) -> LBFGSState:
        """Move every attack on, or end its iteration where a stopping rule of torch fires.

        Raises:
            InputError: loss or gradient are not those of the state, or the state remembers another number of
                pairs than this optimiser.
        """
        require_evaluation(state, loss, grad)
        if state.S.shape[1] != self.history:
            raise InputError(
                f"state has room for {state.S.shape[1]} pairs, but must have it for {self.history}: it is of "
                "another optimiser."
            )
        if compiled.fits(state.x, loss, grad):
            return self._compiled_update(state, loss, grad)
        fresh = state.inner == 0
        flat = grad.abs().amax(1) <= self.tolerance_grad
        small_move = (state.direction.abs().amax(1) * state.step) <= self.tolerance_change
        small_change = (loss - state.previous_loss).abs() < self.tolerance_change
        ended = ~fresh & (flat | small_move | small_change)
        stalled = fresh & flat
        moving = ~(ended | stalled)

        first = state.moves == 0
        y = grad - state.previous_grad
        s = state.direction * state.step[:, None]
        curvature = (y * s).sum(1)
        remember = moving & ~first & (curvature > CURVATURE_LIMIT)
        direction, scale = self._direction(state, grad, s, y, curvature, remember)
        slope = (grad * direction).sum(1)
        # torch gives up on a direction that does not descend, and would do so again at every later step.
        stalled = stalled | (moving & (slope > -self.tolerance_change))
        moving = moving & ~stalled

        cautious = torch.clamp(1 / grad.abs().sum(1), max=1.0) * self.learning_rate
        step = torch.where(first, cautious, self.learning_rate)
        inner = torch.where(moving, state.inner + 1, 0)
        complete = inner == self.inner_iterations
        column = moving[:, None]
        return replace(
            state,
            x=torch.where(column, state.x + step[:, None] * direction, state.x),
            iterations=state.iterations + (complete | ended | stalled),
            stalled=stalled,
            inner=torch.where(complete, 0, inner),
            moves=state.moves + moving,
            previous_loss=torch.where(moving, loss, state.previous_loss),
            previous_grad=torch.where(column, grad, state.previous_grad),
            direction=torch.where(column, direction, state.direction),
            step=torch.where(moving, step, state.step),
            taken=state.taken + remember,
            scale=scale,
        )

    def _compiled_update(self, state: LBFGSState, loss: Tensor, grad: Tensor) -> LBFGSState:
        """The same attack by attack, with vectors changed in place."""
        from wdlg.optimizers.compiled_lbfgs import update

        vectors = ("previous_grad", "direction", "S", "Y", "SY", "YY")
        new = {
            field.name: value if field.name in vectors else value.clone()
            for field in fields(state)
            if field.name != "x"
            for value in [getattr(state, field.name)]
        }
        new_x = state.x.new_empty(state.x.shape)
        compiled.run(
            update, grad, loss, state.x, *(new[name] for name in vectors), new_x,
            *(tensor for name, tensor in new.items() if name not in vectors),
            self.learning_rate, self.inner_iterations, self.tolerance_grad, self.tolerance_change,
            CURVATURE_LIMIT,
        )  # fmt: skip
        return LBFGSState(x=new_x, **new)

    def _direction(
        self, state: LBFGSState, grad: Tensor, s: Tensor, y: Tensor, curvature: Tensor, remember: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Remember the pairs (s, y) where told to; then the quasi-Newton direction (B, n) and gamma (B,)."""
        who = remember.nonzero()[:, 0]
        slot = state.taken[who] % self.history
        state.S[who, slot] = s[who]
        state.Y[who, slot] = y[who]
        taken = state.taken + remember
        scale = torch.where(remember, curvature / (y * y).sum(1), state.scale)
        used = int(taken.max().clamp(max=self.history))
        if used == 0:
            return -grad * scale[:, None], scale

        S, Y = state.S[:, :used], state.Y[:, :used]
        # The vectors stand as rows on the left: as columns on the right torch is several times slower.
        both = torch.stack((grad, y), dim=1)
        S_grad, S_y = (both @ S.transpose(1, 2)).unbind(1)
        Y_grad, Y_y = (both @ Y.transpose(1, 2)).unbind(1)
        state.SY[who, :used, slot] = S_y[who]
        state.YY[who, :used, slot] = Y_y[who]
        state.YY[who, slot, :used] = Y_y[who]
        SY, YY = state.SY[:, :used, :used], state.YY[:, :used, :used]

        # Oldest first. Before the rings are full, slots are in order already.
        wrapped = used == self.history
        order = (
            torch.where(taken > self.history, taken, 0)[:, None] + torch.arange(used, device=grad.device)
        ) % self.history
        if wrapped:
            S_grad, Y_grad = S_grad.gather(1, order), Y_grad.gather(1, order)
            SY = SY.gather(1, order[:, :, None].expand_as(SY)).gather(2, order[:, None, :].expand_as(SY))
            YY = YY.gather(1, order[:, :, None].expand_as(YY)).gather(2, order[:, None, :].expand_as(YY))
        diagonal = SY.diagonal(dim1=1, dim2=2)
        # What stands below the diagonal is not read. Empty slots have a zero there, which becomes a one.
        empty = torch.arange(used, device=grad.device) >= taken[:, None]
        R = SY if wrapped and not empty.any() else SY + torch.diag_embed(empty.to(SY.dtype))
        alpha = torch.linalg.solve_triangular(R, S_grad[:, :, None], upper=True)
        right = diagonal[:, :, None] * alpha - scale[:, None, None] * (Y_grad[:, :, None] - YY @ alpha)
        c = torch.linalg.solve_triangular(R.transpose(1, 2), right, upper=False)
        if wrapped:
            back = order.argsort(1)[:, :, None]
            alpha, c = alpha.gather(1, back), c.gather(1, back)
        direction = (
            scale[:, None] * (grad - (alpha.transpose(1, 2) @ Y)[:, 0]) + (c.transpose(1, 2) @ S)[:, 0]
        )
        return -direction, scale
