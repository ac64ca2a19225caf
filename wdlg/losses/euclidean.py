"""Functions of the Euclidean distance between gradients: its square, the loss of DLG and iDLG, and others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wdlg import compiled
from wdlg.errors import require_positive
from wdlg.gradients import Gradient, require_alike_gradients


def squared_euclidean(dummy: Gradient, shared: Gradient) -> Tensor:
    """Sum over all parameters of the squared difference, (B,) (Zhu et al. 2019, eq. 3).

    Raises:
        InputError: the two are not gradients of the same parameters, attacks and precision.
    """
    require_alike_gradients(dummy, shared)
    gap = dummy.error - shared.error
    total = _dot(gap, gap) + rank_one_squared_distance(
        (dummy.error, dummy.features), (shared.error, shared.features)
    )
    if dummy.residual is not None or shared.residual is not None:
        total = total + residual_part(dummy, shared)
    if compiled.fits(total, *dummy.hidden, *shared.hidden):
        from wdlg.compiled.distance import SquaredDistances

        return SquaredDistances.apply(total, *dummy.hidden, *shared.hidden)
    for ours, theirs in zip(dummy.hidden, shared.hidden, strict=True):
        total = total + (ours - theirs).square().flatten(1).sum(-1)
    return total


def residual_part(dummy: Gradient, shared: Gradient) -> Tensor:
    """What residuals add to the squared distance of the output layers' weight gradients, (B,).

    With the factors (e, f) and (d, a) and the difference R of the residuals, the dummy's less the other's,
    ``|e ⊗ f - d ⊗ a + R|² - |e ⊗ f - d ⊗ a|² = 2 (E·Rf + d·RA) + |R|²``, where E = e - d and A = f - a. One
    matrix times two vectors: the matrix of the dummy is not formed, and nothing large cancels at equality.
    """
    rest = dummy.residual
    if rest is None:
        assert shared.residual is not None
        rest = -shared.residual
    elif shared.residual is not None:
        rest = rest - shared.residual
    gaps = torch.stack((dummy.features, dummy.features - shared.features), dim=2)
    by_features, by_gap = (rest @ gaps).unbind(2)
    mixed = _dot(dummy.error - shared.error, by_features) + _dot(shared.error, by_gap)
    return 2 * mixed + rest.square().sum((1, 2))


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
    if (rest := gradient.residual) is not None:
        crossed = _dot(error, (rest @ features[:, :, None])[:, :, 0])
        squared = squared + 2 * crossed + rest.square().sum((1, 2))
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
class SentEntries:
    """``||m * (g' - g)||²``, where m is 1 for every entry of the shared gradient that is not zero, else 0.

    For an attacker who knows that small entries were set to zero (:class:`wdlg.defences.Pruning`): these say
    nothing of the private image, and are left out. The output layer's weight gradient is written out.
    """

    def __call__(self, dummy: Gradient, shared: Gradient) -> Tensor:
        """Loss of each attack, (B,)."""
        require_alike_gradients(dummy, shared)
        total = torch.zeros_like(shared.error[:, 0])
        for ours, theirs in zip(dummy.tensors(), shared.tensors(), strict=True):
            total = total + torch.where(theirs != 0, ours - theirs, 0.0).square().sum((1, 2))
        return total


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
