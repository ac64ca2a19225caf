"""Many tasks, computed by an executor: a pool of threads or processes, a cluster, or this thread.

Whatever computes, tasks go out and results come back in one way. Without an executor, as many processes of
this machine are taken as there shall be, with one thread each, which is the fastest use of its cores.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from wdlg.errors import InputError, told

LOOK_EVERY = 0.5
"""Seconds after which a worker looks again whether the run that it works for is still there."""

KEPT_IDLE = 300
"""Seconds that processes wait for the next run: starting one takes longer than many a cell."""

ONE_THREAD = dict.fromkeys(
    (
        *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS"),
        *("VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS"),
    ),
    "1",
)
"""What tells the libraries of a process, when it starts, to use one thread."""


def do_all(
    function: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    *,
    executor: Executor | None,
    processes: int,
    then: Callable[[int, Any], None],
) -> None:
    """Compute ``function(*task)`` for every task, in any order.

    When a task fails, or the user stops the run, tasks that have not begun are left out. Of those that have,
    the ones in processes that were started here are ended; what an executor of the caller has begun, nobody
    can end, and is waited for. Whatever is finished by then is handed on, and the first error is raised.

    Args:
        function: what an executor of processes can send there, as its tasks and results.
        tasks: the arguments of each call.
        executor: what computes; None for processes that are started here.
        processes: how many of those; 1 computes in this thread.
        then: called here, with the place of each task and its result, as soon as it is there.

    Raises:
        InputError: the executor is none.
    """
    with _workers(executor, min(processes, len(tasks))) as workers:
        left = iter(enumerate(tasks))
        pending: dict[Future[Any], int] = {}
        try:
            while True:
                for place, task in islice(left, workers.ahead - len(pending)):
                    pending[workers.executor.submit(function, *task)] = place
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    then(pending[future], future.result())
                    del pending[future]
        except BaseException:
            for future in pending:
                future.cancel()
            workers.end()
            wait(pending)
            for future, place in pending.items():
                if not future.cancelled() and future.exception() is None:
                    then(place, future.result())
            raise


@dataclass(frozen=True)
class _Workers:
    """What computes tasks.

    Attributes:
        executor: takes them.
        ahead: how many it is given before the first is done.
        end: ends those that have begun, as far as that is possible.
    """

    executor: Executor
    ahead: int
    end: Callable[[], None] = lambda: None


@contextmanager
def _workers(executor: Executor | None, processes: int) -> Iterator[_Workers]:
    """The caller's executor, or processes, or this thread."""
    if executor is not None:
        if not isinstance(executor, Executor):
            raise InputError(
                f"executor is {told(executor)}, but must be a concurrent.futures.Executor, such as "
                "ThreadPoolExecutor(4), or None."
            )
        yield _Workers(executor, ahead=2**31)  # it has a queue of its own
        return
    if processes <= 1:
        yield _Workers(ThisThread(), ahead=1)
        return
    # Processes of joblib rather than of the standard library: they take what a notebook has defined, can be
    # ended, and are kept for the next run.
    from joblib.externals.loky import get_reusable_executor

    pool = get_reusable_executor(
        max_workers=processes,
        timeout=KEPT_IDLE,
        env=ONE_THREAD,
        initializer=_end_with,
        initargs=(os.getpid(),),
    )
    yield _Workers(pool, ahead=processes, end=lambda: pool.shutdown(kill_workers=True))


class ThisThread(Executor):
    """An executor that computes each task when it is submitted, and lets Ctrl-C through."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Compute now; the result, or the error, in a future that is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # whatever it is: who asks for the result gets it
            future.set_exception(error)
        return future


def _end_with(runner: int) -> None:
    """From now on, this process ends when the one that started it, whose number is given, has ended.

    Also if that was killed: a process whose parent ends gets another parent.
    """

    def watch() -> None:
        while os.getppid() == runner:
            time.sleep(LOOK_EVERY)
        os._exit(1)  # without waiting for the computation; a file that is being written is not yet there

    threading.Thread(target=watch, daemon=True).start()
