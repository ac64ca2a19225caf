"""What every optimiser's state has in common, and what an optimiser is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from wdlg.rows import Rows
from wdlg.shapes import require_alike, require_tensor


@dataclass(frozen=True)
class State(Rows):
    """Where B attacks stand between two evaluations. Every field is a tensor with leading axis B.

    Attributes:
        x: (B, n), where each attack wants its loss and gradient next.
        iterations: (B,), iterations finished, as the optimiser counts them.
        stalled: (B,), True where the optimiser can make no further move.
    """

    x: Tensor
    iterations: Tensor
    stalled: Tensor


def require_start(x: Tensor) -> Tensor:
    """Return the starting points, or raise :class:`InputError` unless they are (B, n)."""
    return require_tensor("x", x, ("B", "n"))


def require_evaluation(state: State, loss: Tensor, grad: Tensor) -> None:
    """Raise :class:`InputError` unless loss (B,) and gradient (B, n) are those of the state's points."""
    for name, tensor, shape in (("loss", loss, state.x.shape[:1]), ("grad", grad, state.x.shape)):
        require_tensor(name, tensor, tuple(shape))
        require_alike(name, tensor, "x", state.x)


class SquaresOptimizer(Protocol):
    """An optimiser of sums of squares ``|r(x)|²``, which asks for ``JᵀJ`` with J the Jacobian of r, and more.

    An evaluation is at a trial that may be refused. So it has a verb more than an :class:`Optimizer`.
    """

    takes_squares: ClassVar[bool]

    @property
    def dtype(self) -> torch.dtype:
        """In which it wants ``JᵀJ``."""

    def init(self, x: Tensor) -> Any:
        """The :class:`State` before the first evaluation, at the starting points x (B, n)."""

    def settle(self, state: Any, loss: Tensor, grad: Tensor) -> tuple[Any, Tensor, Tensor]:
        """After an evaluation at ``state.x``: the state, loss and gradient at the points that count."""

    def update(
        self,
        state: Any,
        loss: Tensor,
        grad: Tensor,
        normal_matrix: Callable[[int], Tensor],
        bend: Callable[[int, Tensor], Tensor],
        going_on: Tensor | None = None,
    ) -> Any:
        """The next trials of a settled state, and in ``spent`` (B,) what they took, in evaluations.

        Args:
            state, loss, grad: of :meth:`settle`.
            normal_matrix: ``JᵀJ`` (n, n) of the attack in a place of the batch, at its point.
            bend: ``Jᵀ r''`` (n,) of it, with r'' the second derivative of r along a step (n,).
            going_on: (B,), False for attacks that have ended; None where all go on.
        """

    def cost(self, n: int) -> int:
        """What an update of an attack on n variables takes at least, in evaluations, with a new matrix."""


class Optimizer(Protocol):
    """A frozen dataclass of settings with two verbs. Attacks in a batch never influence each other."""

    def init(self, x: Tensor) -> Any:
        """The :class:`State` before the first evaluation, at the starting points x (B, n)."""

    def update(self, state: Any, loss: Tensor, grad: Tensor) -> Any:
        """The state after an evaluation at ``state.x`` gave ``loss`` (B,) and ``grad`` (B, n).

        Each optimiser takes and returns its own subclass of :class:`State`, and raises an
        ``InputError`` for loss or gradient of another shape, precision or device.
        """
