"""One attack alone: its speed beside that of a batch and of the plain loop, and what its command waits for.

All three ways are run in turn, several times, on one thread: a ratio compares what was measured side by side,
and what else the machine does moves both.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from benchmarks import plain, timing
from benchmarks.goals import lasting
from benchmarks.problems import Problem
from wdlg.attacks import IDLG

ROUNDS = 7
BATCH = 32
EVALUATIONS = {"alone": 400, "batch": 120, "plain": 120}
"""More than the 100 pairs that L-BFGS remembers."""

PICTURES = {
    "8x8, 10 classes": {"side": 8, "channels": 1, "classes": 10},
    "28x28, 10 classes": {"side": 28, "channels": 1, "classes": 10},
    "32x32x3, 100 classes": {"side": 32, "channels": 3, "classes": 100},
}

ATTACK = "attack --dataset digits --method idlg --evaluations 1"
STARTS = {
    f"wdlg {ATTACK}": ["-c", "from wdlg.cli import main; main()", *ATTACK.split()],
    "import torch": ["-c", "import torch"],
    "import wdlg": ["-c", "import wdlg"],
}


def measure(say: Callable[[str], None], rounds: int = ROUNDS) -> dict[str, Any]:
    """Gradient evaluations a second of iDLG in each way, their ratios, and seconds of a new process."""
    result: dict[str, Any] = {"evaluations a second": {}, "seconds": {}}
    for name, settings in PICTURES.items():
        found = timing.one_thread(lambda settings=settings: speeds(rounds, **settings))
        result["evaluations a second"][name] = {way: asdict(spread) for way, spread in found.items()}
        say(f"{name}: {', '.join(f'{way} {_words(spread)}' for way, spread in found.items())}")
    processes = {name: timing.Spread.of(times) for name, times in _start_up(rounds).items()}
    for name, spread in processes.items():
        result["seconds"][name] = asdict(spread)
        say(f"{name}: {_words(spread)} s")
    return result


def speeds(rounds: int, **settings: int) -> dict[str, timing.Spread]:
    """Evaluations a second alone, in a batch and by the plain loop; and alone over each of the others."""
    one, many = Problem(1, **settings), Problem(BATCH, **settings)
    start = one.start()
    ways: dict[str, Callable[[], int]] = {
        "alone": lambda: timing.attack(lasting(IDLG, EVALUATIONS["alone"]), one, 1),
        "batch": lambda: timing.attack(lasting(IDLG, EVALUATIONS["batch"]), many, BATCH),
        "plain": lambda: plain.idlg(start, EVALUATIONS["plain"]),
    }
    for work in ways.values():
        work()
    found = [{way: timing.rate(work) for way, work in ways.items()} for _ in range(rounds)]
    values = {way: [each[way] for each in found] for way in ways}
    for other in ("batch", "plain"):
        values[f"alone / {other}"] = [each["alone"] / each[other] for each in found]
    return {way: timing.Spread.of(each) for way, each in values.items()}


def _start_up(rounds: int) -> dict[str, list[float]]:
    """Seconds of new processes, in turn, after one of each that does not count."""
    times: dict[str, list[float]] = {name: [] for name in STARTS}
    for number in range(rounds + 1):
        for name, arguments in STARTS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            if number:
                times[name].append(time.perf_counter() - started)
    return times


def _words(spread: timing.Spread) -> str:
    digits = 0 if spread.median >= 100 else 2
    return f"{spread.median:,.{digits}f} ({spread.low:,.{digits}f} to {spread.high:,.{digits}f})"
