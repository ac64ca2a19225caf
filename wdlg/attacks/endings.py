"""When an attack ends, by what the attacker sees of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wdlg.attacks.base import DIVERGENCE, Status

GOES_ON = -1
"""Stands where an attack has no status yet."""


@dataclass(frozen=True)
class Endings:
    """The rules by which attacks end, after each evaluation.

    Args:
        evaluations: the most that are made.
        stop_loss: an attack has converged when its loss falls below this.
        first_loss: what the loss of an attack at its dummy is taken to be, in the eyes of the optimiser and
            of ``stop_loss``; None for what it is.
    """

    evaluations: int
    stop_loss: float
    first_loss: float | None = None

    def unit(self, first_loss: Tensor) -> Tensor | None:
        """What losses and slopes are multiplied by, (B,), from those at the dummies; None for nothing.

        A first loss of zero, which no factor changes, or one that is not finite counts as it is.
        """
        if self.first_loss is None:
            return None
        size = first_loss.abs()
        return torch.where((size > 0) & size.isfinite(), self.first_loss / size, torch.ones_like(size))

    def judge(
        self,
        *,
        loss: np.ndarray,
        first_loss: np.ndarray,
        largest_slope: np.ndarray,
        evaluations: np.ndarray,
        stalled: np.ndarray,
    ) -> np.ndarray:
        """Status code of each attack, ``GOES_ON`` where none; all arguments (B,).

        Args:
            loss, first_loss: at this and at the first evaluation.
            largest_slope: largest absolute entry of the loss's gradient; NaN if an entry is.
            evaluations: made, this one among them.
            stalled: whether the optimiser can make no further move.
        """
        status = np.full(len(loss), GOES_ON)
        # Of two reasons the later line is told.
        status[stalled] = Status.STALLED
        status[evaluations == self.evaluations] = Status.BUDGET_SPENT
        status[loss > DIVERGENCE * first_loss] = Status.DIVERGED
        status[loss < self.stop_loss] = Status.CONVERGED
        status[~(np.isfinite(loss) & np.isfinite(largest_slope))] = Status.NON_FINITE
        return status
