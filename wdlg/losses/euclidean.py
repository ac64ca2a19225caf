"""Functions of the Euclidean distance between gradients: its square, the loss of DLG and iDLG, and others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wdlg.errors import require_positive
from wdlg.updates.distance import norm, root, squared_euclidean
from wdlg.updates.gradient import Gradient, require_alike_gradients


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

    For an attacker who knows that small entries were set to zero (:class:`wdlg.sharing.defences.Pruning`):
    these say nothing of the private image, and are left out. The output layer's weight gradient is written
    out.
    """

    def __call__(self, dummy: Gradient, shared: Gradient) -> Tensor:
        """Loss of each attack, (B,)."""
        require_alike_gradients(dummy, shared)
        total = torch.zeros_like(shared.bias[:, 0])
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
