"""Functions of the Euclidean distance between gradients: its square, the loss of DLG and iDLG, and others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wdlg import compiled
from wdlg.errors import require_positive
from wdlg.gradients import Gradient


def squared_euclidean(dummy: Gradient, shared: Gradient) -> Tensor:
    """Sum over all parameters of the squared difference, (B,) (Zhu et al. 2019, eq. 3)."""
    gap = dummy.error - shared.error
    total = _dot(gap, gap) + rank_one_squared_distance(
        (dummy.error, dummy.features), (shared.error, shared.features)
    )
    for ours, theirs in zip(dummy.hidden, shared.hidden, strict=True):
        total = total + _squared_distance(ours, theirs)
    return total


def _squared_distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Of tensors (B, ...), (B,)."""
    if compiled.fits(ours, theirs):
        from wdlg.compiled.distance import SquaredDistance

        return SquaredDistance.apply(ours, theirs)
    return (ours - theirs).square().flatten(1).sum(-1)


def rank_one_squared_distance(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> Tensor:
    """``|e ⊗ f - d ⊗ a|²`` of factors (e, f) and (d, a), each (B, n) and (B, m); (B,).

    Expanded around ``d ⊗ a``: with the differences E = e - d and A = f - a it is
    ``|d|²|A|² + 2 (E·d)(A·f) + |E|²|f|²``. No n x m matrix is formed, and nothing large cancels as the two
    come close to each other.
    """
    (e, f), (d, a) = ours, theirs
    E, A = e - d, f - a
    return _dot(d, d) * _dot(A, A) + 2 * _dot(E, d) * _dot(A, f) + _dot(E, E) * _dot(f, f)


def norm(gradient: Gradient) -> Tensor:
    """Euclidean norm over all parameters, (B,), with derivative 0 at 0."""
    error, features = gradient.error, gradient.features
    squared = _dot(error, error) * (_dot(features, features) + 1)
    for tensor in gradient.hidden:
        squared = squared + tensor.square().flatten(1).sum(-1)
    return root(squared)


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


@dataclass(frozen=True)
class PseudoHuber:
    """``s (sqrt(1 + d²/s²) - 1)`` of the Euclidean distance d: about d from afar, d²/(2s) when close.

    So its slope is bounded like that of d, and vanishes at equality like that of d². The scale s is a part of
    the shared gradient's norm, and so does not move.

    Args:
        scale: s in units of the shared gradient's norm, above 0. About d = s the loss goes over from the
            distance to its square; the default is the value that did well in our trials.

    Raises:
        InputError: scale is not a finite number above 0.
    """

    scale: float = 0.01

    def __post_init__(self) -> None:
        require_positive("scale", self.scale)

    def __call__(self, dummy: Gradient, shared: Gradient) -> Tensor:
        """Loss of each attack, (B,)."""
        squared = squared_euclidean(dummy, shared)
        s = (self.scale * norm(shared).detach()).clamp_min(torch.finfo(squared.dtype).tiny)
        # The same without its cancellation; for a shared gradient of zero it is d.
        return squared / (s + root(s**2 + squared))


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(-1)
