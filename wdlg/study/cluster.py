"""Compute the cells of a study on many machines: a cluster of dask.distributed as what computes tasks.

It needs the extra ``cluster`` of the package, here and on every worker. Each worker computes one cell at a
time with one thread, writes its records itself, to a folder that all see or to an object store, and returns
their name only.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from wdlg.errors import InputError, told
from wdlg.study.executors import ONE_THREAD, Workers, leave_nothing_behind
from wdlg.study.store import provenance

LOCAL = "local"
"""In the place of a scheduler's address: a cluster on this machine."""

RETRIES = 2
"""Times that a cell is computed anew after an error, which on many machines may be of one of them."""

AHEAD = 20_000
"""Cells that the scheduler is given at a time: enough for thousands of workers, at a bounded memory."""

PATIENCE = 10
"""Seconds until an address at which no scheduler answers is refused."""

DESERTED = 60.0
"""Seconds without any worker, after which those of this machine are started anew."""

LIBRARIES = ("wdlg", "revision", "sources", "python", "torch", "numpy", "scipy", "POT")
"""What must be the same on every worker as here, in the order in which it is told."""


class Cluster(Workers):
    """The workers of a cluster, as an executor of :func:`~wdlg.study.runner.run`.

    A worker that comes later is used, too. One that is killed costs the cell that it had in hand, which
    another computes. A cell that loses more workers than ``distributed.scheduler.allowed-failures`` says, 3
    unless you set it, may only have stood in the queue of each, and is handed out once more, alone; then it
    is given up.

    Args:
        client: a ``distributed.Client``.
        refill: starts all workers anew, when none has been there for ``DESERTED`` seconds; None to wait for
            those who start them.

    Raises:
        InputError: the extra is not installed, this is no client, or a worker has several threads or another
            version or revision of the package, of Python, or of a library that decides the records.
    """

    patience = 5.0

    def __init__(self, client: Any, refill: Callable[[], None] | None = None) -> None:
        distributed = require_distributed()
        if not isinstance(client, distributed.Client):
            raise InputError(f"client is {told(client)}, but must be a distributed.Client.")
        self.lost = (distributed.KilledWorker,)
        self._client = client
        self._refill = refill
        self._deserted: float | None = None
        self._expected = identity()
        self._require_like_here()
        super().__init__(client.get_executor(pure=False, retries=RETRIES), ahead=AHEAD)

    def submit(self, function: Callable[..., Any], task: tuple[Any, ...]) -> Future[Any]:
        """Hand out one task, to a worker that looks first whether it has the same package."""
        return self.executor.submit(_checked, self._expected, function, *task)

    def look(self) -> None:
        """Start the workers of this machine anew where all are gone: what starts one again may fail to."""
        if self._refill is None or self.count():
            self._deserted = None
        elif self._deserted is None:
            self._deserted = time.monotonic()
        elif time.monotonic() - self._deserted > DESERTED:
            self._refill()
            self._deserted = None

    def end(self, pending: Iterable[Future[Any]]) -> None:
        """Leave out what has not begun, and let go what has: nobody stores that once the run has ended."""
        self.executor.shutdown(wait=False)
        super().end(pending)

    def tries_left(self, lost: int) -> bool:
        """True once: the scheduler has tried several workers, but blames all that these had."""
        return lost < 2

    def count(self) -> int:
        """Workers that it has now."""
        return len(self._client.nthreads())

    def text(self) -> str:
        """Where it is, how many workers it has now, and the address of its dashboard."""
        count = self.count()
        workers = {0: "no worker yet: cells wait for one", 1: "1 worker"}.get(count, f"{count} workers")
        address = self._client.scheduler.address
        return f"cluster at {address}, {workers}, dashboard at {self._client.dashboard_link}."

    def _require_like_here(self) -> None:
        for worker, threads in self._client.nthreads().items():
            if threads != 1:
                raise InputError(
                    f"worker {worker} has {threads} threads, but must have one: start it with --nthreads 1."
                )
        for worker, found in self._client.run(_identity_there, on_error="return").items():
            if isinstance(found, OSError):
                continue  # it ended meanwhile; what comes in its place is looked at by its first task
            if isinstance(found, BaseException):
                raise InputError(
                    f"worker {worker} has no package wdlg like that of this machine ({_first_line(found)})."
                )
            _require_same(worker, found, self._expected)


def _identity_there() -> dict[str, str]:
    """What a worker says of itself."""
    return identity()


def _checked(expected: dict[str, str], function: Callable[..., Any], *task: Any) -> Any:
    """Compute a task on a worker, if that is like the machine that asks for it."""
    from distributed import get_worker

    leave_nothing_behind()
    _require_same(get_worker().address, identity(), expected)
    return function(*task)


def _require_same(worker: str, found: dict[str, str], expected: dict[str, str]) -> None:
    for name in LIBRARIES:
        if found.get(name) != expected[name]:
            what = {"revision": "wdlg at revision", "sources": "wdlg with sources of digest"}.get(name, name)
            raise InputError(
                f"worker {worker} has {what} {found.get(name)}, but must have {expected[name]}, as there is "
                "where the run was started: records would not be the same."
            )


@cache
def identity() -> dict[str, str]:
    """What decides records here: versions, revision, and a digest of the package's sources.

    The digest tells apart what a revision does not: changes that are not committed, and installations without
    a checkout.
    """
    package = Path(__file__).resolve().parent.parent
    sha = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        sha.update(f"{path.relative_to(package).as_posix()}\n".encode() + path.read_bytes())
    return {**provenance(), "sources": sha.hexdigest()[:16]}


def require_distributed() -> Any:
    """The library.

    Raises:
        InputError: it is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise InputError(
            f"a cluster needs the extra 'cluster', which is not installed ({error}): pip install "
            "'wdlg[cluster]', or in a checkout pip install -e '.[cluster]'."
        ) from None
    return distributed


@contextmanager
def connect(scheduler: str, *, workers: int | None = None) -> Iterator[Cluster]:
    """A cluster, by the address of its scheduler; or one that is started on this machine, and ends with this.

    Args:
        scheduler: an address such as "tcp://10.0.0.1:8786", the path of a scheduler file, or "local".
        workers: how many are started; None for one a core. Only with "local".

    Raises:
        InputError: as for :class:`Cluster`; or no scheduler answers there, or ``workers`` are given for one
            that has its own.
    """
    distributed = require_distributed()
    import dask

    if scheduler != LOCAL and workers is not None:
        raise InputError(
            f"--processes is {workers}, but must be left out with --scheduler {scheduler}, which has workers "
            "of its own."
        )
    if scheduler == LOCAL:
        count = (os.cpu_count() or 1) if workers is None else workers
        with (
            dask.config.set({"distributed.nanny.pre-spawn-environ": ONE_THREAD}),
            _started(distributed, count) as cluster,
            distributed.Client(cluster) as client,
        ):

            def refill() -> None:
                cluster.scale(0)
                cluster.scale(count)

            yield Cluster(client, refill)
        return
    with _client(distributed, scheduler) as client, _told(scheduler):
        yield Cluster(client)


def _started(distributed: Any, workers: int) -> Any:
    """A cluster on this machine."""
    # In another thread, so that a request to end, which comes to this one, finds a whole cluster to close.
    with ThreadPoolExecutor(1) as starter:
        cluster = starter.submit(
            distributed.LocalCluster,
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=0,  # as for processes: the system decides
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,  # a worker that was killed is no news, and an error comes back
        )
        try:
            return cluster.result()
        except RuntimeError as error:
            raise InputError(
                f"no cluster of {workers} workers can be started here ({_first_line(error)}): a program of "
                "your own must start it under `if __name__ == '__main__':`."
            ) from None
        except KeyboardInterrupt:
            cluster.result().close()
            raise


def _client(distributed: Any, scheduler: str) -> Any:
    where = {"scheduler_file": scheduler} if os.path.isfile(scheduler) else {"address": scheduler}
    try:
        return distributed.Client(**where, timeout=PATIENCE)
    except Exception as error:  # an address can be wrong in many ways, and the library asserts some
        raise InputError(
            f"--scheduler is {scheduler!r}, but must be the address of a scheduler that answers, such as "
            f"tcp://10.0.0.1:8786, a scheduler file, or {LOCAL} ({_first_line(error)})."
        ) from None


@contextmanager
def _told(scheduler: str) -> Iterator[None]:
    """What is raised when the scheduler ends becomes a sentence."""
    try:
        yield
    except CancelledError:
        raise InputError(
            f"--scheduler is {scheduler!r}, but nothing answers there any more: what is finished is stored; "
            "start a scheduler and run this again."
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
