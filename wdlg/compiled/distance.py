"""Squared distances of many rows, without a temporary of their size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wdlg.compiled import compile_loops, run


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


class SquaredDistance(torch.autograd.Function):
    """``|ours - theirs|²`` of tensors (B, ...), (B,)."""

    @staticmethod
    def forward(ctx: Any, ours: Tensor, theirs: Tensor) -> Tensor:
        x, y = (tensor.detach().reshape(len(tensor), -1).contiguous() for tensor in (ours, theirs))
        out = x.new_zeros(len(x))
        run(squared_distances, x, y, out)
        ctx.shape = ours.shape
        ctx.save_for_backward(x, y)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor | None]:
        x, y = ctx.saved_tensors
        out = torch.empty_like(x)
        run(scaled_differences, x, y, cotangent, out)
        out = out.view(ctx.shape)
        return out, -out if ctx.needs_input_grad[1] else None
