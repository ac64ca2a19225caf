"""What a cell costs on a cluster, beside processes: handing it out, its file, the memory that it takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from wdlg import data
from wdlg.study.cells import Cell
from wdlg.study.cluster import connect
from wdlg.study.executors import Workers, do_all
from wdlg.study.runner import compute_file
from wdlg.study.specification import from_mapping
from wdlg.study.store import Store, as_file

EMPTY = 100_000
"""Cells without an attack that the scheduler is given in one run."""

FEW = 2_000
"""Empty cells for the comparison with processes."""

ATTACKS = 64
"""Cells with attacks for the comparison of one worker with two: of 10 images, as in the paper's study."""


def cells(count: int, evaluations: int = 1) -> Sequence[Cell]:
    """So many cells of iDLG on the digits, of 10 images each."""
    part = {"datasets": ["digits"], "attacks": ["iDLG"], "networks": count, "images": 10}
    study = {
        "name": "measured",
        "seed": 0,
        "attacks": {"iDLG": {"label_rule": "row_sum", "stop_loss": 1e-30}},
        "parts": {"main": {**part, "evaluations": evaluations}},
    }
    return from_mapping(study).cells


def empty(cell: Cell, *_: Any) -> tuple[int, None]:
    """In the place of :func:`~wdlg.study.runner.compute_file`: nothing is computed and nothing written."""
    return cell.attacks, None


def measure(say: Callable[[str], None], count: int = EMPTY) -> dict[str, Any]:
    """Seconds and bytes a cell: handed out by processes and by Dask, written, and read again."""
    result: dict[str, Any] = {"processes of the machine that want a core, at the start": os.getloadavg()[0]}

    def keep(name: str, values: dict[str, float]) -> None:
        result[name] = {key: float(f"{value:.3g}") for key, value in values.items()}
        say(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in values.items()))

    few, attacks = cells(FEW), cells(ATTACKS, evaluations=300)
    for workers in (1, 2):
        with cluster(workers) as (there, family):
            keep(f"empty cells, Dask, {workers} workers", handed_out(few, empty, there, 1, family))
            keep(f"cells of 10 attacks, Dask, {workers} workers", computed(attacks, there, 1))
            if workers == 2:
                keep(f"{count} empty cells, Dask", handed_out(cells(count), empty, there, 1, family))
        keep(f"empty cells, {workers} processes", handed_out(few, empty, None, workers, {}))
        keep(f"cells of 10 attacks, {workers} processes", computed(attacks, None, workers))
    keep(f"{count} files", files(cells(count)))
    return result


def handed_out(
    given: Sequence[Cell],
    function: Callable[..., Any],
    executor: Workers | None,
    processes: int,
    family: dict[str, psutil.Process],
) -> dict[str, float]:
    """Seconds a cell, of the clock and of the processors, and bytes at most while all are handed out."""
    tasks = [(cell, Path(), None) for cell in given]
    done: list[int] = []
    watched = {"runner": psutil.Process(), **family}
    most = dict.fromkeys(watched, 0)

    def finished(place: int, _: Any) -> None:
        done.append(place)
        if len(done) % 1000 == 1:
            for name, one in watched.items():
                most[name] = max(most[name], one.memory_info().rss)

    def all_of(some: Sequence[Any]) -> float:
        started = time.perf_counter()
        do_all(function, some, executor=executor, processes=processes, then=finished)
        return time.perf_counter() - started

    all_of(tasks[:50])  # loads the library there, and in the scheduler
    done.clear()
    before = {name: (sum(one.cpu_times()[:2]), one.memory_info().rss) for name, one in watched.items()}
    seconds = all_of(tasks)
    assert sorted(done) == list(range(len(tasks)))
    found = {"milliseconds a cell": 1000 * seconds / len(tasks), "seconds": seconds}
    for name, one in watched.items():
        spent, held = before[name]
        found[f"processor milliseconds a cell of the {name}"] = (
            1000 * (sum(one.cpu_times()[:2]) - spent) / len(tasks)
        )
        found[f"more MB of the {name}"] = (most[name] - held) / 1e6
    return found


def computed(given: Sequence[Cell], executor: Workers | None, processes: int) -> dict[str, float]:
    """Cells with attacks a second, each stored by who computes it."""
    with tempfile.TemporaryDirectory() as folder:
        # Twice: before the first time is over, each worker has loaded the library and compiled its loops.
        for turn in ("first", "second"):
            tasks = [(cell, data.data_dir(None).absolute(), Store(Path(folder, turn))) for cell in given]
            started = time.perf_counter()
            do_all(compute_file, tasks, executor=executor, processes=processes, then=lambda *_: None)
            seconds = time.perf_counter() - started
        return {"a second": len(tasks) / seconds}


def files(given: Sequence[Cell]) -> dict[str, float]:
    """Milliseconds to write, list and check a file of records without traces, and its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        records = pd.DataFrame({"mse": [0.5] * 10})

        def timed(work: Callable[[], Any]) -> float:
            started = time.perf_counter()
            work()
            return 1000 * (time.perf_counter() - started) / len(given)

        def write() -> None:
            for cell in given:
                store.put(cell, as_file(cell, records, wall_seconds=1.0, sample=""))

        written = timed(write)
        listed = timed(lambda: store.strangers(given))
        checked = timed(lambda: [store.state(cell) for cell in given])
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
        return {
            "milliseconds to write": written,
            "milliseconds to list": listed,
            "milliseconds to check": checked,
            "bytes": size / len(given),
        }


@contextmanager
def cluster(workers: int) -> Iterator[tuple[Workers, dict[str, psutil.Process]]]:
    """A scheduler and workers in processes of their own, as on many machines; and the scheduler's process."""
    folder = Path(tempfile.mkdtemp())
    file = folder / "scheduler.json"

    def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{program}", "--scheduler-file", str(file)]
        return subprocess.Popen(
            [*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
        )

    started = [start("scheduler", "--port", "0", "--no-dashboard")]
    try:
        while not file.exists():
            time.sleep(0.1)
        started += [start("worker", "--nthreads", "1", "--no-dashboard") for _ in range(workers)]
        with connect(str(file)) as there:
            while there.count() < workers:
                time.sleep(0.1)
            yield there, {"scheduler": psutil.Process(started[0].pid)}
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()
        shutil.rmtree(folder)
