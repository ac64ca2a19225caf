"""Many tasks, computed by an executor: a pool of threads or processes, a cluster, or this thread.

Whatever computes, tasks go out and results come back in one way. Without an executor, as many processes of
this machine are taken as there shall be, with one thread each, which is the fastest use of its cores.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any

from tqdm import tqdm

from wdlg.errors import InputError, told

LOOK_EVERY = 0.5
"""Seconds after which a worker looks again whether the run that it works for is still there."""

TRIES = 4
"""Times that a task is begun before it is given up, where each time its worker ends without a word."""

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


class LostError(InputError):
    """Tasks during which their worker ended without a word, again and again: killed, or out of memory.

    Attributes:
        places: of the tasks.
    """

    def __init__(self, places: Sequence[int], what: str) -> None:
        super().__init__(
            f"{what} lost each worker that began it, without a word: was it killed, or is there less memory "
            "than this takes?"
        )
        self.places = tuple(places)


class Workers:
    """What computes tasks: a value that :func:`do_all` takes, whether it stands for a thread or a cluster.

    Args:
        executor: takes the tasks.
        ahead: how many it is given before the first is done.
    """

    lost: tuple[type[BaseException], ...] = ()
    """What a task raises that was lost with its worker, and may be computed anew."""

    patience: float | None = None
    """Seconds without a result after which :meth:`look` is called; None for never."""

    def __init__(self, executor: Any, ahead: int = 2**31) -> None:
        self.executor = executor
        self.ahead = ahead

    def submit(self, function: Callable[..., Any], task: tuple[Any, ...]) -> Future[Any]:
        """Hand out one task."""
        future: Future[Any] = self.executor.submit(function, *task)
        return future

    def look(self) -> None:
        """See whether somebody is still there, where no future says so.

        Raises:
            BaseException: one of :attr:`lost`, if nobody is.
        """

    def end(self, pending: Iterable[Future[Any]]) -> None:
        """Leave out what has not begun, and end what has, as far as that is possible."""
        for future in pending:
            future.cancel()

    def tries_left(self, lost: int) -> bool:
        """True if a task that was lost so many times shall be handed out again; makes ready for it."""
        return lost < TRIES


def do_all(
    function: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    *,
    executor: Executor | Workers | None,
    processes: int,
    then: Callable[[int, Any], None],
) -> None:
    """Compute ``function(*task)`` for every task, in any order.

    When a task fails, or the user stops the run, tasks that have not begun are left out. Of those that have,
    the ones in processes that were started here are ended, the ones on a cluster are let go, and what an
    executor of the caller has begun, nobody can end, and is waited for. Whatever is finished by then is
    handed on, and the first error is raised.

    When a worker is killed, only what was in hand is lost. It is computed anew when all else is done, one
    task after another, so that one that takes its worker along takes no other task along, up to ``TRIES``
    times in all. A task that loses every worker is left out, and named at the end.

    Args:
        function: what an executor of processes can send there, as its tasks and results.
        tasks: the arguments of each call.
        executor: what computes; None for processes that are started here.
        processes: how many of those; 1 computes in this thread.
        then: called here, with the place of each task and its result, as soon as it is there.

    Raises:
        InputError: the executor is none.
        LostError: some tasks lost every worker.
    """
    run = _Run(_workers(executor, min(processes, len(tasks))), function, tasks, then)
    try:
        while run.hand_out():
            run.hand_on()
    except BaseException:
        run.stop()
        raise
    if run.given_up:
        raise LostError(run.given_up, f"task {run.given_up[0]} of {len(tasks)}")


class _Run:
    """The state of :func:`do_all`.

    Attributes:
        waiting: places of the tasks that nobody has yet.
        again: of those that were lost with their worker.
        given_up: of those that lost every worker.
        pending: place by future of those that somebody has.
        done: where each future comes when it is done. To wait for all of many would take longer the more
            there are.
    """

    def __init__(
        self,
        workers: Workers,
        function: Callable[..., Any],
        tasks: Sequence[tuple[Any, ...]],
        then: Callable[[int, Any], None],
    ) -> None:
        self._workers, self._function, self._tasks, self._then = workers, function, tasks, then
        self._losses: Counter[int] = Counter()
        self.waiting = deque(range(len(tasks)))
        self.again: deque[int] = deque()
        self.given_up: list[int] = []
        self.pending: dict[Future[Any], int] = {}
        self.done: SimpleQueue[Future[Any]] = SimpleQueue()

    def hand_out(self) -> bool:
        """Give the workers as much as they take; False if nothing is left."""
        while self.waiting or self.again or self.pending:
            if not self.waiting and not self.pending:
                self.waiting.append(self.again.popleft())
            while self.waiting and len(self.pending) < self._workers.ahead:
                try:
                    future = self._workers.submit(self._function, self._tasks[self.waiting[0]])
                except self._workers.lost:  # what is pending was lost in the same way, and says so
                    if not self.pending:
                        self._lost(self.waiting.popleft())
                    break
                self.pending[future] = self.waiting.popleft()
                future.add_done_callback(self.done.put)
            if self.pending:
                return True
        return False

    def hand_on(self) -> None:
        """Wait for one that is done, for a while, and hand on its result."""
        try:
            future = self.done.get(timeout=self._workers.patience)
        except Empty:
            try:
                self._workers.look()
            except self._workers.lost:  # nobody is left who could say so of each
                for place in self.pending.values():
                    self._lost(place)
                self.pending.clear()
            return
        if future not in self.pending:  # given up before, and done after all
            return
        try:
            result = future.result()
        except self._workers.lost:
            self._lost(self.pending.pop(future))
        else:
            self._then(self.pending[future], result)
            del self.pending[future]

    def _lost(self, place: int) -> None:
        self._losses[place] += 1
        if self._workers.tries_left(self._losses[place]):
            self.again.append(place)
        else:
            self.given_up.append(place)

    def stop(self) -> None:
        """End what can be ended, wait for the rest, and hand on what is finished."""
        left = set(self.pending)
        self._workers.end(left)
        while not all(future.done() for future in left):
            try:
                left.discard(self.done.get(timeout=self._workers.patience))
            except Empty:  # ended without a word
                break
        for future, place in self.pending.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                self._then(place, future.result())


def _workers(executor: Executor | Workers | None, processes: int) -> Workers:
    """The caller's executor, or processes, or this thread."""
    if isinstance(executor, Workers):
        return executor
    if isinstance(executor, Executor):
        return Workers(executor)  # it has a queue of its own
    if executor is not None:
        raise InputError(
            f"executor is {told(executor)}, but must be a concurrent.futures.Executor, such as "
            "ThreadPoolExecutor(4), or None."
        )
    return Workers(ThisThread(), ahead=1) if processes <= 1 else Processes(processes)


PATIENCE = 30.0
"""Seconds without a result after which the pool of processes is looked at."""


class Processes(Workers):
    """Processes of this machine, with one thread each. They are kept for the next run.

    They are those of joblib rather than of the standard library: these take what a notebook has defined, and
    can be ended.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        # joblib takes as long to load as the smallest study to run.
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        self.lost = (TerminatedWorkerError,)
        self.patience = PATIENCE
        super().__init__(self._start(count), ahead=count)

    def look(self) -> None:
        """See whether the pool's thread is alive: without it no result arrives, and no end is seen."""
        thread = getattr(self.executor, "_executor_manager_thread", None)
        if thread is None or thread.is_alive():
            return
        for process in list((self.executor._processes or {}).values()):
            process.terminate()
        self.executor.shutdown(wait=False)
        raise self.lost[0]("the pool of processes has stopped")

    @staticmethod
    def _start(count: int) -> Any:
        from joblib.externals.loky import get_reusable_executor

        return get_reusable_executor(
            max_workers=count,
            timeout=KEPT_IDLE,
            env=ONE_THREAD,
            initializer=_end_with,
            initargs=(os.getpid(),),
        )

    def end(self, pending: Iterable[Future[Any]]) -> None:  # noqa: ARG002
        """End the processes, in the middle of what they do."""
        # Nothing is cancelled: the pool's thread stops at a future that is, and leaves processes alive. It
        # may do so at a result that arrives while it ends.
        processes = list((getattr(self.executor, "_processes", None) or {}).values())
        self.executor.shutdown(kill_workers=True)
        for process in processes:
            if process.is_alive():
                process.terminate()

    def tries_left(self, lost: int) -> bool:
        """As for all workers; new processes take the place of those that one of them took along."""
        self.executor = self._start(self.ahead)
        return super().tries_left(lost)


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


def leave_nothing_behind() -> None:
    """For a process that may be killed: the lock of its bars is not a semaphore that stays in the system."""
    tqdm.set_lock(threading.RLock())


def _end_with(runner: int) -> None:
    """From now on, this process ends when the one that started it, whose number is given, has ended.

    Also if that was killed: a process whose parent ends gets another parent.
    """
    leave_nothing_behind()

    def watch() -> None:
        while os.getppid() == runner:
            time.sleep(LOOK_EVERY)
        os._exit(1)  # without waiting for the computation; a file that is being written is not yet there

    threading.Thread(target=watch, daemon=True).start()
