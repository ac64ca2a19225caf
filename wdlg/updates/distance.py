"""Squared distance and norm of gradients over all parameters, one value for each attack."""

from __future__ import annotations

import torch
from torch import Tensor

from wdlg import compiled
from wdlg.updates.gradient import Gradient, require_alike_gradients
from wdlg.updates.output_layer import Product


def squared_euclidean(dummy: Gradient, shared: Gradient) -> Tensor:
    """Sum over all parameters of the squared difference, (B,) (Zhu et al. 2019, eq. 3).

    Raises:
        InputError: the two are not gradients of the same parameters, attacks and precision.
    """
    require_alike_gradients(dummy, shared)
    ours, theirs = dummy.output, shared.output
    if isinstance(ours, Product) and isinstance(theirs, Product):
        parts = (*dummy.hidden, ours.error, ours.features)
        constants = (*shared.hidden, theirs.error, theirs.features)
        if compiled.fits(*parts, *constants) and not any(tensor.requires_grad for tensor in constants):
            from wdlg.updates.compiled_distance import SquaredDistance

            return SquaredDistance.apply(*parts, *constants)
    total = ours.squared_distance(theirs)
    if compiled.fits(total, *dummy.hidden, *shared.hidden):
        from wdlg.updates.compiled_distance import SquaredDistances

        return SquaredDistances.apply(total, *dummy.hidden, *shared.hidden)
    for one, other in zip(dummy.hidden, shared.hidden, strict=True):
        total = total + (one - other).square().flatten(1).sum(-1)
    return total


def norm(gradient: Gradient) -> Tensor:
    """Euclidean norm over all parameters, (B,), with derivative 0 at 0."""
    squared = gradient.output.squared_norm()
    for tensor in gradient.hidden:
        squared = squared + tensor.square().flatten(1).sum(-1)
    return root(squared)


def root(squared: Tensor) -> Tensor:
    """Square root whose derivative at 0 is 0 (a subgradient) instead of infinite; NaN stays NaN."""
    positive = ~(squared <= 0)
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)
