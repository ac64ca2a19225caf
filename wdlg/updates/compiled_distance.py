"""Squared distances of many rows, without a temporary of their size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wdlg.compiled import as_array, compile_loops


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
