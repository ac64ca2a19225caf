"""The squared distance of gradients and its derivative: what :mod:`wdlg.updates.distance` computes, compiled.

Of one attack, whose tensors are small, nearly all of the time would go into the three dozen operations and
into recording them. To the bit it is what torch computes: the sums are left to torch, which adds up in an
order of its own, and the rest is rounded operation by operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wdlg.compiled import as_array, compile_as_written, compile_loops


@compile_loops
def squared_distances(ours, theirs, out):  # type: ignore[no-untyped-def]
    """``|ours - theirs|²`` of rows (B, n)."""
    for b in range(len(ours)):
        x, y = ours[b], theirs[b]
        total = out[b] * 0
        for i in range(len(x)):
            total += (x[i] - y[i]) * (x[i] - y[i])
        out[b] = total


@compile_loops
def scaled_differences(ours, theirs, scale, out):  # type: ignore[no-untyped-def]
    """``2 scale (ours - theirs)`` of rows (B, n)."""
    for b in range(len(ours)):
        x, y, to, twice = ours[b], theirs[b], out[b], 2 * scale[b]
        for i in range(len(x)):
            to[i] = twice * (x[i] - y[i])


@compile_as_written
def rank_one_products(e, f, d, a, by_class, by_feature):  # type: ignore[no-untyped-def]
    """What is summed for ``|e - d|² + |e ⊗ f - d ⊗ a|²``, with E = e - d and A = f - a.

    By class ``E E, E d, d d``, (3, B, K); by feature ``A A, A f, f f``, (3, B, M).
    """
    for b in range(len(e)):
        for k in range(e.shape[1]):
            gap = e[b, k] - d[b, k]
            by_class[0, b, k] = gap * gap
            by_class[1, b, k] = gap * d[b, k]
            by_class[2, b, k] = d[b, k] * d[b, k]
        for m in range(f.shape[1]):
            gap = f[b, m] - a[b, m]
            by_feature[0, b, m] = gap * gap
            by_feature[1, b, m] = gap * f[b, m]
            by_feature[2, b, m] = f[b, m] * f[b, m]


@compile_as_written
def added_up(class_sums, feature_sums, hidden, total):  # type: ignore[no-untyped-def]
    """The distance from the sums (3, B) of :func:`rank_one_products` and those of the hidden parameters."""
    for b in range(len(total)):
        EE, Ed, dd = class_sums[:, b]
        AA, Af, ff = feature_sums[:, b]
        total[b] = EE + (dd * AA + (Ed + Ed) * Af + EE * ff)
        for part in hidden:
            total[b] += part[b]


@compile_as_written
def rank_one_derivatives(  # type: ignore[no-untyped-def]
    cotangent, e, f, d, a, class_sums, feature_sums, by_error, by_features
):
    """Of that distance by e and by f, with the sums in the order in which torch adds up derivatives."""
    for b in range(len(e)):
        EE, Ed, dd = class_sums[:, b]
        Af, ff = feature_sums[1:, b]
        g = cotangent[b]
        by_EE, by_ff, by_AA, by_Af = g * ff, g * EE, g * dd, g * (Ed + Ed)
        by_Ed = g * Af + g * Af
        for k in range(e.shape[1]):
            gap = e[b, k] - d[b, k]
            inner = (by_EE * gap + by_EE * gap) + by_Ed * d[b, k]
            by_error[b, k] = inner + (g * gap + g * gap)
        for m in range(f.shape[1]):
            gap = f[b, m] - a[b, m]
            inner = (by_Af * f[b, m] + by_AA * gap) + by_AA * gap
            by_features[b, m] = ((by_ff * f[b, m] + by_ff * f[b, m]) + by_Af * gap) + inner


class Distance:
    """Squared distance of gradients whose output layers are products, and on demand its derivative.

    Args:
        ours, theirs: arrays of both in one order: hidden parameters, then error (B, K) and features (B, M).

    Attributes:
        total: (B,).
    """

    def __init__(self, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> None:
        *hidden, e, f = ours
        *others, d, a = theirs
        by_class, by_feature = np.empty((3, *e.shape), e.dtype), np.empty((3, *f.shape), f.dtype)
        rank_one_products(e, f, d, a, by_class, by_feature)
        sums = [torch.from_numpy(products).sum(-1).numpy() for products in (by_class, by_feature)]
        batch = len(e)
        parts = np.zeros((len(hidden), batch), e.dtype)
        pairs = [(x.reshape(batch, -1), y.reshape(batch, -1)) for x, y in zip(hidden, others, strict=True)]
        for (x, y), out in zip(pairs, parts, strict=True):
            squared_distances(x, y, out)
        self.total = np.empty(batch, e.dtype)
        added_up(*sums, parts, self.total)
        self._pairs, self._output = pairs, (e, f, d, a, *sums)
        self._shapes = [x.shape for x in hidden]

    def back(self, cotangent: np.ndarray) -> list[np.ndarray]:
        """Derivatives by ours, from that by ``total``, (B,)."""
        found = []
        for (ours, theirs), shape in zip(self._pairs, self._shapes, strict=True):
            out = np.empty_like(ours)
            scaled_differences(ours, theirs, cotangent, out)
            found.append(out.reshape(shape))
        by_error, by_features = (np.empty_like(one) for one in self._output[:2])
        rank_one_derivatives(cotangent, *self._output, by_error, by_features)
        return [*found, by_error, by_features]


class SquaredDistance(torch.autograd.Function):
    """:class:`Distance` of tensors, first all of ours, then all of theirs, which are taken for constants."""

    @staticmethod
    def forward(ctx: Any, *both: Tensor) -> Tensor:
        arrays = [as_array(tensor) for tensor in both]
        ctx.done = Distance(arrays[: len(arrays) // 2], arrays[len(arrays) // 2 :])
        return torch.from_numpy(ctx.done.total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        found = ctx.done.back(as_array(cotangent))
        return (*map(torch.from_numpy, found), *[None] * len(found))


class SquaredDistances(torch.autograd.Function):
    """``start + |ours_1 - theirs_1|² + |ours_2 - theirs_2|² + ...`` of tensors (B, ...), (B,).

    Called with start and then all of ours, then all of theirs.
    """

    @staticmethod
    def forward(ctx: Any, start: Tensor, *both: Tensor) -> Tensor:
        rows = [as_array(tensor).reshape(len(tensor), -1) for tensor in both]
        ctx.pairs = list(zip(rows[: len(rows) // 2], rows[len(rows) // 2 :], strict=True))
        ctx.shapes = [tensor.shape for tensor in both[: len(both) // 2]]
        total = as_array(start).copy()
        for ours, theirs in ctx.pairs:
            part = np.zeros_like(total)
            squared_distances(ours, theirs, part)
            total += part
        return torch.from_numpy(total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        scale = as_array(cotangent)
        by_ours, by_theirs = [], []
        # Of the flags the first is for start; the last half for theirs, which seldom need a derivative.
        needed = ctx.needs_input_grad[1 + len(ctx.pairs) :]
        for (ours, theirs), shape, both in zip(ctx.pairs, ctx.shapes, needed, strict=True):
            out = np.empty_like(ours)
            scaled_differences(ours, theirs, scale, out)
            by_ours.append(torch.from_numpy(out).view(shape))
            by_theirs.append(-by_ours[-1] if both else None)
        return cotangent, *by_ours, *by_theirs
