"""What every optimiser's state has in common, and how a batch of them is thinned."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self

from torch import Tensor


@dataclass(frozen=True)
class State:
    """Where B attacks stand between two evaluations. Every field is a tensor with leading axis B.

    Attributes:
        x: (B, n), where each attack wants its loss and gradient next.
        iterations: (B,), iterations finished, as the optimiser counts them.
        stalled: (B,), True where the optimiser can make no further move.
    """

    x: Tensor
    iterations: Tensor
    stalled: Tensor

    def select(self, index: Tensor) -> Self:
        """The states at ``index`` of the leading axis."""
        return replace(self, **{field.name: getattr(self, field.name)[index] for field in fields(self)})


class Optimizer(Protocol):
    """A frozen dataclass of settings with two verbs. Attacks in a batch never influence each other."""

    def init(self, x: Tensor) -> Any:
        """The :class:`State` before the first evaluation, at the starting points x (B, n)."""

    def update(self, state: Any, loss: Tensor, grad: Tensor) -> Any:
        """The state after an evaluation at ``state.x`` gave ``loss`` (B,) and ``grad`` (B, n).

        Each optimiser takes and returns its own subclass of :class:`State`.
        """
