"""Squared Euclidean distance between gradients, the loss of DLG and iDLG, and its square root."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wdlg.gradients import Gradient


def squared_euclidean(dummy: Gradient, shared: Gradient) -> Tensor:
    """Sum over all parameters of the squared difference, (B,) (Zhu et al. 2019, eq. 3).

    The output layer's part is expanded around the shared gradient ``d ⊗ a``: with the differences
    D and A of the dummy's factors to d and a, it is ``|d|²|A|² + 2 (D·d)(A·a⁺) + |D|²|a⁺|²`` with
    ``a⁺ = a + A`` the dummy's own features. No K x M matrix is formed, and nothing large cancels as the
    two gradients approach each other.
    """
    total = _dot(dummy.error - shared.error, dummy.error - shared.error)
    for ours, theirs in zip((*dummy.weights, *dummy.biases), (*shared.weights, *shared.biases), strict=True):
        total = total + (ours - theirs).square().flatten(1).sum(-1)
    error_gap = dummy.error - shared.error
    feature_gap = dummy.features - shared.features
    return (
        total
        + _dot(shared.error, shared.error) * _dot(feature_gap, feature_gap)
        + 2 * _dot(error_gap, shared.error) * _dot(feature_gap, dummy.features)
        + _dot(error_gap, error_gap) * _dot(dummy.features, dummy.features)
    )


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
