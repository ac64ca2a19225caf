"""The hot loops of the engine for the CPU, compiled by numba: one attack at a time, all in cache.

Batched tensor operations stream the whole batch through memory once for each of them. The functions here
do for one attack after another everything that needs nobody else, in buffers that the core's own cache
holds. They compute what the torch code beside them computes, to rounding, and are taken where
:func:`fits` says so: the torch code is for GPUs and for whatever else has no compiled form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

_in_use = True


def fits(*tensors: Tensor) -> bool:
    """True if compiled code can work on these: on the CPU, all in single or all in double precision."""
    kinds = {(tensor.device.type, tensor.dtype) for tensor in tensors}
    return _in_use and kinds in ({("cpu", torch.float32)}, {("cpu", torch.float64)})


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call compiled code with tensors. What it writes into must be contiguous."""
    return function(*(a.detach().contiguous().numpy() if isinstance(a, Tensor) else a for a in arguments))


@contextmanager
def turned_off() -> Iterator[None]:
    """Everything by torch alone: to compare."""
    global _in_use  # noqa: PLW0603
    before, _in_use = _in_use, False
    try:
        yield
    finally:
        _in_use = before


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """The small products of the compiled loops on this thread, whatever else the process may use.

    A product of 12 x 300 numbers is done before a second thread has woken up; and studies have a process on
    each core.
    """
    with _blas().limit(limits=1, user_api="blas"):
        yield


@cache
def _blas() -> Any:
    import scipy.linalg.cython_blas  # noqa: F401  # whose products numba calls: loaded before it is looked for
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def compile_loops(function: Callable[..., Any]) -> Any:
    """Compile at the first call with numba; the machine code is kept on disk for the next process.

    Sums may be reordered and products fused with sums, without which no loop over numbers would use the
    vector units; NaN and infinity behave as always. Division by zero gives infinity, as in torch.
    """
    import numba  # takes half a second, which a command that attacks nothing need not wait for

    return numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy", nogil=True)(
        function
    )
