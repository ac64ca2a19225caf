"""Cosine distance between gradients, the loss of Geiping et al. (2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wdlg.updates.distance import norm, squared_euclidean
from wdlg.updates.gradient import Gradient


@dataclass(frozen=True)
class Cosine:
    """``1 - <g', g> / (|g'| |g|)`` over all parameters (Geiping et al. 2020, eq. 4, without their prior).

    It is computed as half the squared distance of the two gradients when each has norm 1, which keeps its
    digits as they come close. A gradient that is zero has no direction: it stays zero, at 1/2 from any other.
    """

    def __call__(self, dummy: Gradient, shared: Gradient) -> Tensor:
        """Loss of each attack, (B,), from 0 to 2."""
        return squared_euclidean(_normalised(dummy), _normalised(shared)) / 2


def _normalised(gradient: Gradient) -> Gradient:
    """The gradient divided by its norm."""
    length = norm(gradient)
    inverse = torch.where(length > 0, length, 1.0).reciprocal()
    hidden = tuple(inverse[:, None, None] * tensor for tensor in gradient.hidden)
    return Gradient(hidden, gradient.output.scaled(inverse))
