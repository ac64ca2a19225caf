"""Functions of the Euclidean distance between gradients: its square, the loss of DLG and iDLG, and others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wdlg.errors import InputError, require_not_negative, require_positive, told
from wdlg.updates.distance import norm, root, squared_euclidean
from wdlg.updates.gradient import Gradient, require_alike_gradients


@dataclass(frozen=True)
class SquaredEuclidean:
    """``||g' - g||²`` over all parameters: the loss of DLG and iDLG."""

    def __call__(self, dummy: Gradient, shared: Gradient) -> Tensor:
        """Loss of each attack, (B,)."""
        return squared_euclidean(dummy, shared)

    def square_weights(self, shared: Gradient) -> None:  # noqa: ARG002
        """Every square has the weight 1."""
        return


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

    def square_weights(self, shared: Gradient) -> list[Tensor]:
        """The weight of each entry's square, m, in the order of ``Gradient.tensors``."""
        return [(tensor != 0).to(tensor.dtype) for tensor in shared.tensors()]


@dataclass(frozen=True)
class WeightedEuclidean:
    """``sum_l w_l ||g'_l - g_l||²`` with a weight for each parameter l.

    Args:
        weights: one for each parameter, in the order of ``torch.nn.Module.parameters``, 0 or above; or
            "relative", ``1 / ||g_l||²``, which makes each part a relative error, so that no parameter
            outweighs another because its gradient is larger. A parameter whose shared gradient is zero then
            has no weight. The output layer's weight gradient is written out.

    Raises:
        InputError: a weight is out of range; on use, there are not as many weights as parameters.
    """

    weights: tuple[float, ...] | str = "relative"

    def __post_init__(self) -> None:
        if self.weights == "relative":
            return
        if not isinstance(self.weights, list | tuple) or not self.weights:
            raise InputError(
                f"weights is {told(self.weights)}, but must be 'relative' or a weight for each parameter."
            )
        weights = tuple(require_not_negative("weights", one) for one in self.weights)
        object.__setattr__(self, "weights", weights)

    def __call__(self, dummy: Gradient, shared: Gradient) -> Tensor:
        """Loss of each attack, (B,)."""
        require_alike_gradients(dummy, shared)
        total = torch.zeros_like(shared.bias[:, 0])
        for weight, ours, theirs in zip(
            self._of_parameters(shared), dummy.tensors(), shared.tensors(), strict=True
        ):
            total = total + weight * (ours - theirs).square().sum((1, 2))
        return total

    def square_weights(self, shared: Gradient) -> list[Tensor]:
        """The weight of each entry's square, in the order of ``Gradient.tensors``."""
        return [
            weight[:, None, None].expand_as(tensor)
            for weight, tensor in zip(self._of_parameters(shared), shared.tensors(), strict=True)
        ]

    def _of_parameters(self, shared: Gradient) -> list[Tensor]:
        """A weight of each attack, (B,), for each parameter."""
        tensors = shared.tensors()
        if isinstance(self.weights, str):
            squared = [tensor.detach().square().sum((1, 2)) for tensor in tensors]
            return [torch.where(one > 0, 1 / one, 0.0) for one in squared]
        if len(self.weights) != len(tensors):
            raise InputError(
                f"weights has {len(self.weights)} entries, but must have one for each of the {len(tensors)} "
                "parameters."
            )
        return [
            torch.full_like(tensor[:, 0, 0], one) for one, tensor in zip(self.weights, tensors, strict=True)
        ]


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
