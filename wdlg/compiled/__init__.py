"""How the hot loops of the engine are compiled by numba for the CPU: one attack at a time, all in cache.

Batched tensor operations stream the whole batch through memory once for each of them. Compiled loops, in the
``compiled_`` modules beside the torch code that they stand in for, do for one attack after another everything
that needs nobody else, in buffers that the core's own cache holds. They compute what the torch code computes,
to rounding, and are taken where :func:`fits` says so: the torch code is for GPUs and for whatever else has no
compiled form.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from torch import Tensor

from wdlg.threads import Shared

_in_use = True


def in_use() -> bool:
    """False within :func:`turned_off`."""
    return _in_use


def fits(*tensors: Tensor) -> bool:
    """True if compiled code can work on these: on the CPU, all in single or all in double precision."""
    dtype = tensors[0].dtype
    return (
        _in_use
        and dtype in (torch.float32, torch.float64)
        and all(tensor.is_cpu and tensor.dtype is dtype for tensor in tensors)
    )


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call compiled code with tensors. What it writes into must be contiguous."""
    return function(*(as_array(one) if isinstance(one, Tensor) else one for one in arguments))


def as_array(tensor: Tensor) -> np.ndarray:
    """The tensor's numbers as a contiguous array; the same memory if it is contiguous."""
    array = (tensor.detach() if tensor.requires_grad else tensor).numpy()
    return array if array.flags.c_contiguous else array.copy()


@contextmanager
def turned_off() -> Iterator[None]:
    """Everything by torch alone: to compare."""
    global _in_use  # noqa: PLW0603
    before, _in_use = _in_use, False
    try:
        yield
    finally:
        _in_use = before


def one_blas_thread() -> AbstractContextManager[None]:
    """The small products of the compiled loops on this thread, whatever else the process may use.

    A product of 12 x 300 numbers is done before a second thread has woken up; and studies have a process on
    each core.
    """
    return _one_blas_thread


@contextmanager
def _one_for_blas() -> Iterator[None]:
    libraries = _blas()
    if all(library.num_threads == 1 for library in libraries.lib_controllers):
        yield
        return
    _let_go(libraries)
    limit = libraries.limit(limits=1)
    try:
        yield
    finally:
        _let_go(libraries)
        limit.restore_original_limits()
        _let_go(libraries)


_one_blas_thread = Shared(_one_for_blas)


def _let_go(libraries: Any) -> None:
    """Let any thread set the numbers: threadpoolctl obeys the first that did, until that puts them back.

    Here the last one puts them back, which may be another.
    """
    for library in libraries.lib_controllers:
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)


@cache
def _blas() -> Any:
    import scipy.linalg.cython_blas  # noqa: F401  # whose products numba calls: loaded before it is looked for
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def seconds_compiling() -> float:
    """What this process has spent on compiling so far, or on loading what an earlier one compiled."""
    watch = _stopwatch()
    return watch.duration if watch.done else 0.0


@cache
def _stopwatch() -> Any:
    from numba.core import event

    watch = event.TimingListener()
    event.register("numba:compile", watch)
    return watch


def compile_loops(function: Callable[..., Any], *, as_written: bool = False) -> Any:
    """Compile at the first call with numba; the machine code is kept on disk for the next process.

    Sums may be reordered and products fused with sums, without which no loop over numbers would use the
    vector units; NaN and infinity behave as always. Division by zero gives infinity, as in torch.

    What it calls must be of :func:`compile_part`. Where no folder can be written to, nothing is kept.
    """
    folder = _kept_in()
    if folder is None:
        return _compile(function, as_written=as_written)
    config = _numba().config
    # numba asks for its folder when a function is declared, and only then.
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        return _compile(function, as_written=as_written, cache=True)
    finally:
        config.CACHE_DIR = before


def compile_part(function: Callable[..., Any]) -> Any:
    """A part of a compiled loop: its machine code is always inside that of the loop that calls it.

    A part compiled apart would be there twice, alone and within its caller, and rounded differently; which of
    the two a process takes would depend on whether it has compiled them or found them on disk.
    """
    return _compile(function, forceinline=True)


def compile_as_written(function: Callable[..., Any]) -> Any:
    """Like :func:`compile_loops`, but every operation is rounded as it stands, as those of torch are."""
    return compile_loops(function, as_written=True)


def _compile(function: Callable[..., Any], *, as_written: bool = False, **settings: Any) -> Any:
    freedom = False if as_written else {"contract", "reassoc", "nsz"}
    return _numba().njit(fastmath=freedom, error_model="numpy", nogil=True, **settings)(function)


def _numba() -> Any:
    import numba  # takes half a second, which a command that attacks nothing need not wait for

    return numba


@cache
def _kept_in() -> Path | None:
    """The folder of the machine code, or None if none can be written to.

    It is one for each state of these sources, since numba looks for changes in a function's own file only,
    and not in the files of its parts.
    """
    here = Path(__file__).parent
    sources = sorted(
        {
            *here.glob("*.py"),
            *here.parent.glob("*/compiled_*.py"),
            here.parent / "networks" / "convolution.py",
        }
    )
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    users = _numba().config.CACHE_DIR  # NUMBA_CACHE_DIR
    places = [users] if users else [here / "__pycache__", platformdirs.user_cache_path("wdlg")]
    for place in places:
        folder = Path(place, f"compiled-{state[:16]}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        return folder
    return None
