"""What a participant sends: the gradient of the cross-entropy, B of them at a time.

The gradient of the output layer for a single image is rank one, and kept as its factors; what is known of it
otherwise, for several images or after a defence (:mod:`wdlg.sharing.defences`), is said by its type
(:mod:`wdlg.updates.output_layer`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from wdlg.errors import InputError
from wdlg.rows import Rows
from wdlg.shapes import describe, require_alike
from wdlg.updates.output_layer import Dense, OutputGradient, Product, Products


@dataclass(frozen=True)
class Gradient(Rows):
    """The gradients of B attacks, one entry of the leading axis for each.

    Attributes:
        hidden: gradients of the hidden layers' parameters, in the order of ``torch.nn.Module.parameters``,
            each (B, units, entries). A row holds all weights that lead to one output unit (for a convolution
            channels x height x width of its kernel); a bias has rows of length one.
        output: gradient of the output layer: a :class:`~wdlg.updates.output_layer.Product` for one image, or
            one of its siblings.
    """

    hidden: tuple[Tensor, ...]
    output: OutputGradient

    @classmethod
    def of_one(cls, hidden: tuple[Tensor, ...], error: Tensor, features: Tensor) -> Self:
        """That of one image, from the two factors of its output layer, (B, K) and (B, M)."""
        return cls(hidden, Product(error, features))

    def __len__(self) -> int:
        return len(self.output)

    @property
    def bias(self) -> Tensor:
        """Gradient of the output layer's bias, (B, K): for one image softmax(logits) - target."""
        return self.output.bias

    @property
    def last_weight(self) -> Tensor:
        """The output layer's weight gradient written out, (B, K, M)."""
        return self.output.weight()

    def tensors(self) -> list[Tensor]:
        """Every parameter's gradient, (B, units, entries), in the order of ``torch.nn.Module.parameters``."""
        return [*self.hidden, self.last_weight, self.bias[:, :, None]]

    def parts(self) -> list[Tensor]:
        """Every tensor that is held, hidden layers first."""
        return [*self.hidden, *vars(self.output).values()]

    def as_sent(self) -> Gradient:
        """The same values as whoever receives them has them: without a graph, and a sum only as a sum."""
        sent = self.detach()
        if isinstance(sent.output, Products):
            return Gradient(sent.hidden, Dense.of(sent.last_weight, sent.bias))
        return sent

    def in_precision(self, dtype: torch.dtype) -> Gradient:
        """The same values in that type; what is zero stays zero."""
        return Gradient(tuple(tensor.to(dtype) for tensor in self.hidden), self.output.in_precision(dtype))

    def double(self) -> Gradient:
        """The same values in double precision."""
        return self._each(Tensor.double)

    def detach(self) -> Gradient:
        """The same values, cut from the graph that produced them."""
        return self._each(Tensor.detach)

    def require_finite(self) -> Gradient:
        """Return self, or raise :class:`InputError` if any entry is NaN or infinite."""
        for tensor in self.parts():
            if not torch.isfinite(tensor).all():
                raise InputError(
                    "gradient has an entry that is NaN or infinite, but every entry must be finite."
                )
        return self

    def _each(self, function: Callable[..., Tensor], *others: Self) -> Self:
        kinds = sorted({type(one.output).__name__ for one in (self, *others)})
        if len(kinds) > 1:
            raise InputError(
                f"gradient has output layers of the kinds {' and '.join(kinds)}, but a batch must hold one "
                "kind only."
            )
        return super()._each(function, *others)


def require_alike_gradients(dummy: Gradient, shared: Gradient) -> None:
    """Raise :class:`InputError` unless two gradients are of the same parameters, attacks and precision.

    Every matching loss asks here: compiled loops among them trust that both have the same shapes, and torch
    would broadcast what has not.
    """
    if len(dummy.hidden) != len(shared.hidden):
        raise InputError(
            f"dummy holds {len(dummy.hidden)} hidden parameters, but must hold as many as shared, "
            f"{len(shared.hidden)}."
        )
    shapes = [
        *((one.shape, other.shape) for one, other in zip(dummy.hidden, shared.hidden, strict=True)),
        (dummy.output.shape, shared.output.shape),
    ]
    for ours, theirs in shapes:
        if ours != theirs:
            raise InputError(
                f"dummy has a part of shape {tuple(ours)} where shared has {tuple(theirs)}, but both must be "
                "gradients of the same parameters for as many attacks."
            )
    like = shared.bias
    for name, gradient in (("dummy", dummy), ("shared", shared)):
        for part in gradient.parts():
            require_alike(name, part, "shared", like)


def from_tensors(
    tensors: Sequence[Any] | Mapping[str, Any], *, tolerance: float = 1e-4, rank_one: bool = True
) -> Gradient:
    """A :class:`Gradient` from the per-parameter gradients that a participant sends, B at a time.

    The features are read off the output layer as ``W^T b / |b|^2`` (W its weight gradient, b its bias
    gradient), which is exact for the gradient of one image, and nearest to W for any other.

    Args:
        tensors: gradients in the order of ``torch.nn.Module.parameters``, or a table of them by name in that
            order; last the output layer's weight and bias. torch tensors or numpy arrays, each with a leading
            axis B and then in any shape that starts with the units; or all without that axis, as torch hands
            them out, for B = 1. What is shorter than single precision becomes single precision, and if one
            has double precision, all get it.
        tolerance: how far, relative to its norm, the output layer's weight gradient may be from rank one. For
            gradients sent in a shorter format than float32 it is at least twice that format's precision.
        rank_one: refuse what cannot be the gradient of one image with one label; False keeps all that is not
            rank one beside the factors, for a gradient that a defence has changed.

    Raises:
        InputError: something is no gradient or not finite; the parts do not fit together; or, unless
            ``rank_one`` is False, the output layer's part is not rank one (a batch, a defence, rounding), its
            bias's entries do not add up to zero (another loss), or another number of them than one is
            negative (a change of weights, a smoothed label).
    """
    given = _as_tensors(tensors)
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in given) else torch.float32
    precision = max((torch.finfo(tensor.dtype).eps for tensor in given), default=0.0)
    *hidden, last_weight, error = _with_attack_axis([tensor.to(dtype) for tensor in given])
    error = error.flatten(1)
    rows = tuple(tensor.reshape(len(tensor), *rows_of(tensor.shape[1:])) for tensor in hidden)
    # Squares of the entries of a saturated softmax would underflow. A power of two changes no digit.
    unit = torch.ldexp(torch.ones_like(error[:, :1]), error.abs().amax(1, keepdim=True).frexp().exponent - 1)
    relative, weight = error / unit, last_weight / unit[:, :, None]
    squared_norm = relative.square().sum(1, keepdim=True).clamp_min(torch.finfo(dtype).tiny)
    features = (relative[:, None, :] @ weight)[:, 0] / squared_norm
    gradient = Gradient.of_one(rows, error, features).require_finite()
    rest = last_weight - gradient.last_weight
    if not rank_one:
        return Gradient(rows, Dense(error, features, rest)).require_finite()
    missed, whole = ((part / unit[:, :, None]).flatten(1).norm(dim=1) for part in (rest, last_weight))
    if bool((missed > max(tolerance, 2 * precision) * whole).any()):
        raise InputError(
            "tensors holds an output-layer weight gradient of rank above one "
            f"({float((missed / whole).nan_to_num(0).max()):.1g} of it is not of rank one), but must be the "
            "gradient of one image: a batch or a defence raises the rank, and so does the rounding of a "
            "small difference of weights."
        )
    _require_one_label(error, precision)
    return gradient


def _as_tensors(given: Any) -> list[Tensor]:
    """Each entry as a floating-point tensor, all on one device."""
    if isinstance(given, Mapping):
        given = list(given.values())
    if isinstance(given, Tensor | str | bytes) or not isinstance(given, Iterable):
        raise InputError(
            f"tensors is {describe(given)}, but must be a list or table of gradients, one for each parameter."
        )
    found = []
    for place, entry in enumerate(given):
        tensor = entry
        # What numpy has no type for, such as objects and text, torch refuses.
        if isinstance(entry, np.ndarray):
            try:
                tensor = torch.from_numpy(np.ascontiguousarray(entry))
            except TypeError:
                tensor = entry
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.layout != torch.strided:
            reason = "a parameter without gradient" if entry is None else describe(entry)
            raise InputError(
                f"tensors has {reason} in place {place}, but must have a dense floating-point tensor or "
                "array there."
            )
        found.append(tensor.detach())
        if tensor.device != found[0].device:
            raise InputError(
                f"tensors are on {found[0].device} and {tensor.device}, but must be on one device."
            )
    return found


def _with_attack_axis(tensors: list[Tensor]) -> list[Tensor]:
    """The gradients with a leading axis B, which fit together."""
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if [len(shape) for shape in shapes[-2:]] == [2, 1]:  # without that axis, as of one image
        tensors = [tensor[None] for tensor in tensors]
    weight, bias = ([(), ()] + [tuple(tensor.shape) for tensor in tensors])[-2:]
    if len(weight) != 3 or bias not in (weight[:2], (*weight[:2], 1)) or weight[1] < 2 or 0 in weight:
        raise InputError(
            f"tensors ends with shapes {', '.join(map(str, shapes[-2:])) or 'of nothing'}, but must end with "
            "the output layer's weight (B, K, M) and bias (B, K), K at least 2, or both without B."
        )
    for place, tensor in enumerate(tensors):
        if not tensor.ndim or len(tensor) != weight[0] or 0 in tensor.shape:
            raise InputError(
                f"tensors has a gradient of shape {shapes[place]} in place {place}, but all must have the "
                f"leading axis B = {weight[0]} of the output layer, or none, and nothing may be empty."
            )
    return tensors


def _require_one_label(error: Tensor, precision: float) -> None:
    """Refuse what ``softmax(logits) - target`` with one label cannot be."""
    total, size = error.sum(1).abs(), error.abs().sum(1)
    off = total > max(1e-3, 4 * precision) * size + 16 * precision
    if off.any():
        raise InputError(
            f"tensors holds a bias gradient whose entries add up to {float(error.sum(1)[off][0]):.2g}, but "
            "those of the cross-entropy add up to 0: another loss is not covered."
        )
    negative = (error < 0).sum(1)
    if (negative > 1).any():
        raise InputError(
            f"tensors holds a bias gradient with {int(negative.max())} negative entries, but that of one "
            "label has one: divide a change of weights by minus the learning rate first, and for a smoothed "
            "label or a changed gradient take rank_one=False."
        )


def rows_of(shape: Sequence[int]) -> tuple[int, int]:
    """Units, and entries of a unit, of a parameter of any shape: one for a bias, and a number is one unit."""
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)
