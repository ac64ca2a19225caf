"""Squared Euclidean distance between gradients, the loss of DLG and iDLG, and its square root."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wdlg.gradients import Gradient


def squared_euclidean(dummy: Gradient, shared: Gradient) -> Tensor:
    """Sum over all parameters of the squared difference, (B,) (Zhu et al. 2019, eq. 3)."""
    gap = dummy.error - shared.error
    total = _dot(gap, gap) + rank_one_squared_distance(
        (dummy.error, dummy.features), (shared.error, shared.features)
    )
    for ours, theirs in zip(dummy.hidden, shared.hidden, strict=True):
        total = total + (ours - theirs).square().flatten(1).sum(-1)
    return total


def rank_one_squared_distance(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> Tensor:
    """``|e ⊗ f - d ⊗ a|²`` of factors (e, f) and (d, a), each (B, n) and (B, m); (B,).

    Expanded around ``d ⊗ a``: with the differences E = e - d and A = f - a it is
    ``|d|²|A|² + 2 (E·d)(A·f) + |E|²|f|²``. No n x m matrix is formed, and nothing large cancels as the two
    come close to each other.
    """
    (e, f), (d, a) = ours, theirs
    E, A = e - d, f - a
    return _dot(d, d) * _dot(A, A) + 2 * _dot(E, d) * _dot(A, f) + _dot(E, E) * _dot(f, f)


def root(squared: Tensor) -> Tensor:
    """Square root whose derivative at 0 is 0 (a subgradient) instead of infinite."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)


@dataclass(frozen=True)
class SquaredEuclidean:
    """``||g' - g||²`` over all parameters: the loss of DLG and iDLG."""

    def __call__(self, dummy: Gradient, shared: Gradient) -> Tensor:
        """Loss of each attack, (B,)."""
        return squared_euclidean(dummy, shared)


@dataclass(frozen=True)
class Euclidean:
    """``||g' - g||``: the root of the loss of DLG and iDLG.

    It is also the Wasserstein-2 distance when each tensor is one single point, or when every point may
    only move to its own counterpart.
    """

    def __call__(self, dummy: Gradient, shared: Gradient) -> Tensor:
        """Loss of each attack, (B,)."""
        return root(squared_euclidean(dummy, shared))


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(-1)
