"""What a participant shares: the gradient of the cross-entropy for one private image, B of them at a time.

The gradient of the output layer for a single image is rank one: the weight gradient is
``error ⊗ features`` and the bias gradient is ``error`` itself, with ``error = softmax(logits) - target``.
It is therefore kept as its two factors; the K x M matrix is formed only where somebody asks for it. A
gradient that was changed before it was sent (:mod:`wdlg.defences`) is not rank one any more: what the factors
miss is kept beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from wdlg.errors import InputError
from wdlg.rows import Rows


@dataclass(frozen=True)
class Gradient(Rows):
    """The gradients of B attacks, one entry of the leading axis for each.

    Attributes:
        hidden: gradients of the hidden layers' parameters, in the order of ``torch.nn.Module.parameters``,
            each (B, units, entries). A row holds all weights that lead to one output unit (for a convolution
            channels x height x width of its kernel); a bias has rows of length one.
        error: gradient of the output layer's bias, (B, K), which is softmax(logits) - target.
        features: input of the output layer, (B, M). The output layer's weight gradient is
            ``error[:, :, None] * features[:, None, :]``.
        residual: what has to be added to that product, (B, K, M), where the gradient was changed before it
            was sent; None where nothing has.
    """

    hidden: tuple[Tensor, ...]
    error: Tensor
    features: Tensor
    residual: Tensor | None = None

    def __len__(self) -> int:
        return len(self.error)

    @property
    def last_weight(self) -> Tensor:
        """The output layer's weight gradient written out, (B, K, M)."""
        product = self.error[:, :, None] * self.features[:, None, :]
        return product if self.residual is None else product + self.residual

    def tensors(self) -> list[Tensor]:
        """Every parameter's gradient, (B, units, entries), in the order of ``torch.nn.Module.parameters``."""
        return [*self.hidden, self.last_weight, self.error[:, :, None]]

    def detach(self) -> Gradient:
        """The same values, cut from the graph that produced them."""
        return self._each(Tensor.detach)

    def require_finite(self) -> Gradient:
        """Return self, or raise :class:`InputError` if any entry is NaN or infinite."""
        rest = () if self.residual is None else (self.residual,)
        for tensor in (*self.hidden, self.error, self.features, *rest):
            if not torch.isfinite(tensor).all():
                raise InputError(
                    "gradient has an entry that is NaN or infinite, but every entry must be finite."
                )
        return self

    def _each(self, function: Callable[..., Tensor], *others: Self) -> Self:
        if any((other.residual is None) != (self.residual is None) for other in others):
            raise InputError(
                "gradients with and without a residual came together, but a batch must hold one kind only."
            )
        return super()._each(function, *others)


def from_tensors(tensors: Sequence[Tensor], *, tolerance: float = 1e-4, rank_one: bool = True) -> Gradient:
    """A :class:`Gradient` from the per-parameter gradients that a participant sends, B at a time.

    The features are read off the output layer as ``W^T b / |b|^2`` (W its weight gradient, b its bias
    gradient), which is exact for the gradient of one image, and nearest to W for any other.

    Args:
        tensors: gradients in the order of ``torch.nn.Module.parameters``, each with a leading axis B and then
            in any shape that starts with the units; last the output layer's weight and bias.
        tolerance: how far, relative to its norm, the output layer's weight gradient may be from rank one.
        rank_one: refuse what is further; False keeps all that is not rank one as the residual, for a gradient
            that a defence has changed.

    Raises:
        InputError: an entry is not finite; the last two do not fit together; or the output layer's gradient
            is not rank one though it must be, so that it is not the gradient of one image.
    """
    if len(tensors) < 2 or tensors[-2].shape[:2] != tensors[-1].shape[:2] or tensors[-2].ndim != 3:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors[-2:])
        raise InputError(
            f"tensors ends with shapes {shapes}, but must end with the output layer's weight (B, K, M) and "
            "bias (B, K)."
        )
    *hidden, last_weight, error = tensors
    error = error.flatten(1)
    squared_norm = (error * error).sum(-1, keepdim=True).clamp_min(torch.finfo(error.dtype).tiny)
    features = (error[:, None, :] @ last_weight)[:, 0] / squared_norm
    rows = tuple(tensor.reshape(*tensor.shape[:2], -1) for tensor in hidden)
    gradient = Gradient(rows, error, features).require_finite()
    residual = last_weight - gradient.last_weight
    if not rank_one:
        return Gradient(rows, error, features, residual).require_finite()
    if bool((residual.flatten(1).norm(dim=1) > tolerance * last_weight.flatten(1).norm(dim=1)).any()):
        raise InputError(
            "tensors holds an output-layer weight gradient of rank above one, but must be the gradient of "
            "one image (a batch or a defence raises the rank)."
        )
    return gradient
