"""The measurements with a goal. Each is one function that returns what it measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from benchmarks import plain, timing, wasserstein
from benchmarks.problems import Problem, of_the_quick_book
from wdlg.attacks import IDLG, WDLG, Optimised, Start, reconstruct_each

BATCH = 64


@dataclass(frozen=True)
class Goal:
    """A measurement, and what it should reach.

    Attributes:
        name: as in the table of results.
        measure: what measures it: the spread of the ratio (or of GiB), and in words what was compared.
        at_least, aim: the goal and the hope.
        smaller_is_better: for memory.
    """

    name: str
    measure: Callable[[], tuple[timing.Spread, str]]
    at_least: float
    aim: float
    smaller_is_better: bool = False


def engine_against_loop() -> tuple[timing.Spread, str]:
    """iDLG, 32x32x3, 100 classes: two processes against one image at a time with torch's own threads."""
    problems = [Problem(BATCH, seed=seed) for seed in range(2)]
    return _against_loop(problems, few=2, evaluations=300, rounds=5)


def engine_against_loop_many_classes() -> tuple[timing.Spread, str]:
    """The same with 5,749 classes, each network shared by 10 images."""
    problems = [Problem(10, classes=5749, shared=True, seed=seed) for seed in range(4)]
    return _against_loop(problems, few=1, evaluations=200, rounds=5)


def _against_loop(
    problems: list[Problem], *, few: int, evaluations: int, rounds: int
) -> tuple[timing.Spread, str]:
    method = lasting(IDLG, evaluations)
    first = problems[0].start().select(torch.arange(few))
    spread, ours, theirs = timing.ratio(
        lambda: timing.engine_rate(method, problems, batch_size=BATCH, processes=2),
        lambda: timing.rate(lambda: plain.idlg(first, evaluations)),
        rounds,
    )
    return spread, f"{ours:.0f} against {theirs:.0f} gradient evaluations a second"


def quick_book_against_loop() -> tuple[timing.Spread, str]:
    """The quick book's attacks by iDLG, in two processes as there, against one image at a time."""
    method = lasting(IDLG, 300)
    problems = of_the_quick_book("iDLG")
    firsts = [problem.start().select(torch.arange(1)) for problem in problems]
    spread, ours, theirs = timing.ratio(
        lambda: timing.engine_rate(method, problems, batch_size=BATCH, processes=2),
        lambda: timing.rate(lambda: sum(plain.idlg(first, 300) for first in firsts)),
        5,
    )
    return spread, f"{ours:.0f} against {theirs:.0f} gradient evaluations a second"


def wasserstein_against_pot() -> tuple[timing.Spread, str]:
    """WDCA loss and derivative, 100 iterations in both, one thread."""
    few, many = wasserstein.gradients(2), wasserstein.gradients(BATCH)
    ours, theirs = wasserstein.batched(*few), wasserstein.layer_by_layer(*few)
    for mine, other in zip((ours[0], *ours[1]), (theirs[0], *theirs[1]), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    spread, mine, other = timing.ratio(
        lambda: timing.rate(lambda: len(wasserstein.batched(*many)[0])),
        lambda: timing.rate(lambda: len(wasserstein.layer_by_layer(*few)[0])),
        5,
    )
    torch.set_num_threads(threads)
    return spread, f"{mine:.0f} against {other:.1f} losses with derivative a second"


def wdlg_against_idlg() -> tuple[timing.Spread, str]:
    """Gradient evaluations a second of WDLG (rows) and of iDLG in the engine, one thread."""
    problem = Problem(BATCH)
    spread, ours, theirs = timing.ratio(
        *(partial(timing.one_thread_rate, lasting(method, 150), problem, BATCH) for method in (WDLG, IDLG)),
        5,
    )
    return spread, f"{ours:.0f} against {theirs:.0f} gradient evaluations a second"


def two_processes_against_one() -> tuple[timing.Spread, str]:
    """The same study in two processes and in one, iDLG."""
    problems = [Problem(BATCH, seed=seed) for seed in range(2)]
    method = lasting(IDLG, 150)
    spread, ours, theirs = timing.ratio(
        *(
            partial(timing.engine_rate, method, problems, batch_size=BATCH, processes=processes)
            for processes in (2, 1)
        ),
        5,
    )
    return spread, f"{ours:.0f} against {theirs:.0f} gradient evaluations a second"


def memory_of_a_batch() -> tuple[timing.Spread, str]:
    """Peak memory of a process that runs 128 attacks as one batch, in GiB."""
    method = lasting(IDLG, 150)
    values = [timing.peak_memory(timing.attack, method, Problem(128), 128) for _ in range(3)]
    spread = timing.Spread.of(values)
    return spread, f"{spread.median:.2f} GiB with torch's own {timing.peak_memory(_nothing):.2f} GiB"


def memory_of_a_study() -> tuple[timing.Spread, str]:
    """Peak memory of a study of 10,000 attacks over that of one of 1,000."""
    pairs = [[timing.peak_memory(run_study, attacks) for attacks in (10_000, 1_000)] for _ in range(3)]
    spread = timing.Spread.of([large / small for large, small in pairs])
    return spread, f"{pairs[0][0]:.2f} against {pairs[0][1]:.2f} GiB"


def run_study(attacks: int) -> None:
    """A study whose attacks are made when the queue has room, and whose results are counted and let go."""

    def starts() -> Iterator[Start]:
        for seed in range(attacks // 20):
            yield Problem(20, side=28, channels=1, classes=10, seed=seed).start()

    done = 0
    for numbers, _ in reconstruct_each(lasting(IDLG, 5), starts(), batch_size=BATCH):
        done += len(numbers)
    if done != attacks:
        raise RuntimeError(f"{done} of {attacks} attacks came back.")


def _nothing() -> None:
    """What a process holds that has only loaded the libraries."""


def lasting(method: Optimised, evaluations: int) -> Optimised:
    """A method that does not stop because it has converged."""
    return replace(method, evaluations=evaluations, stop_loss=1e-30)


GOALS = {
    "engine": Goal("engine against one image at a time, 100 classes", engine_against_loop, 10, 20),
    "many-classes": Goal(
        "engine against one image at a time, 5,749 classes", engine_against_loop_many_classes, 30, 60
    ),
    "quick-book": Goal(
        "the quick book's iDLG attacks against one image at a time", quick_book_against_loop, 5, 10
    ),
    "wasserstein": Goal("WDCA against POT layer by layer", wasserstein_against_pot, 50, 200),
    "wdlg": Goal("WDLG against iDLG in the engine", wdlg_against_idlg, 0.25, 0.5),
    "processes": Goal("two processes against one", two_processes_against_one, 1.8, 1.95),
    "memory": Goal("peak memory of a batch of 128, GiB", memory_of_a_batch, 2.0, 1.0, True),
    "study-memory": Goal("memory of 10,000 attacks against 1,000", memory_of_a_study, 1.1, 1.0, True),
}
