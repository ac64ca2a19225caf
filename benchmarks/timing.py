"""How measurements are made: two ways in turn, several rounds, the ratio of each round."""

from __future__ import annotations

import multiprocessing
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed, parallel_config

from benchmarks.problems import Problem
from wdlg.attacks import Optimised, reconstruct_each


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of some rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """The spread of these values."""
        return cls(statistics.median(values), min(values), max(values))


def ratio(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> tuple[Spread, float, float]:
    """Run both ``rounds`` times in turn, after one run that does not count.

    Returns:
        The spread of ``ours / theirs``, and the median of each.
    """
    ours()
    theirs()
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return (
        Spread.of([mine / other for mine, other in pairs]),
        statistics.median(mine for mine, _ in pairs),
        statistics.median(other for _, other in pairs),
    )


def rate(work: Callable[[], int]) -> float:
    """What ``work`` says it has done, for each second that it took."""
    started = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - started)


def attack(attack: Optimised, problem: Problem, batch_size: int) -> int:
    """Run attacks through the engine here; the gradient evaluations made."""
    results = reconstruct_each(attack, [problem.start()], batch_size=batch_size)
    return sum(int(part.evaluations.sum()) for _, part in results)


def engine_rate(method: Optimised, problems: list[Problem], *, batch_size: int, processes: int) -> float:
    """Gradient evaluations a second, in processes of one thread each that share the problems."""
    with parallel_config("loky", n_jobs=processes, inner_max_num_threads=1):
        pool = Parallel()
        run = delayed(attack)
        if processes == 1:
            return one_thread(
                lambda: rate(lambda: sum(pool([run(method, one, batch_size) for one in problems])))
            )
        pool([delayed(_ready)() for _ in range(processes)])
        return rate(lambda: sum(pool([run(method, one, batch_size) for one in problems])))


def _ready() -> None:
    """Lets a process load the library before the clock starts."""
    time.sleep(0.5)


def one_thread(measurement: Callable[[], Any]) -> Any:
    """A measurement with torch on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measurement()
    finally:
        torch.set_num_threads(threads)


def one_thread_rate(method: Optimised, problem: Problem, batch_size: int) -> float:
    """Gradient evaluations a second of the engine on one thread here."""
    return one_thread(lambda: rate(lambda: attack(method, problem, batch_size)))


def peak_memory(work: Callable[..., Any], *arguments: Any) -> float:
    """Largest memory in GiB that a new process holds while it does this work, libraries included."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measured, args=(theirs, work, *arguments))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{work.__name__} ended with exit code {process.exitcode}.")
    return ours.recv()


def _measured(pipe: Any, work: Callable[..., Any], *arguments: Any) -> None:
    torch.set_num_threads(1)
    work(*arguments)
    pipe.send(_peak_bytes() / 2**30)


def _peak_bytes() -> float:
    """Most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux ru_maxrss would count what the parent process held when it started this one.
        return 1024 * float(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
