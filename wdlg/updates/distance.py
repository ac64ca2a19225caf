"""Squared distance and norm of gradients over all parameters, one value for each attack."""

from __future__ import annotations

import torch
from torch import Tensor

from wdlg import compiled
from wdlg.updates.gradient import Gradient, require_alike_gradients


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
        from wdlg.updates.compiled_distance import SquaredDistances

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


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(-1)
