"""The hot loops of the engine for the CPU, compiled by numba: one attack at a time, so that it stays in the cache.

Batched tensor operations stream the whole batch through memory once for each of them. The functions here do for
one attack after another everything that needs nobody else, in buffers that the core's own cache holds. They
compute what the torch code beside them computes, to rounding, and are taken where :func:`fits` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_in_use = True


def fits(*tensors: Tensor) -> bool:
    """True if compiled code can work on these: on the CPU, all in single or all in double precision."""
    kinds = {(tensor.device.type, tensor.dtype) for tensor in tensors}
    return _in_use and kinds in ({("cpu", torch.float32)}, {("cpu", torch.float64)})


@contextmanager
def turned_off() -> Iterator[None]:
    """Everything by torch alone: to compare."""
    global _in_use  # noqa: PLW0603
    before, _in_use = _in_use, False
    try:
        yield
    finally:
        _in_use = before


def compile_loops(function: Callable[..., Any]) -> Any:
    """Compile at the first call with numba; the machine code is kept on disk for the next process.

    Sums may be reordered and products fused with sums, without which no loop over numbers would use the vector
    units; NaN and infinity behave as always. Division by zero gives infinity, as in torch.
    """
    import numba  # takes half a second, which a command that attacks nothing need not wait for

    options = {"fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy", "nogil": True}
    return numba.njit(function, cache=True, **options)
