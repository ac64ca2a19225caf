"""Compute the cells of a study that a store does not hold yet, by several processes, one thread each.

A cell is always computed in the same way, in one batch and with one thread, so that a run that was killed
and taken up again leaves the same records as one that was not.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from wdlg import data
from wdlg.errors import InputError, require_count
from wdlg.evaluation import SUCCESS_THRESHOLDS
from wdlg.study.cases import Cases, draw
from wdlg.study.labels import compare_rules
from wdlg.study.records import PICTURE_ITERATIONS, PICTURE_NETWORKS, as_bytes, record
from wdlg.study.specification import AttackCell, Cell, LabelCell, Study
from wdlg.study.store import State, Store, provenance

SUCCESS = SUCCESS_THRESHOLDS[0]

LOOK_EVERY = 0.5
"""Seconds after which a worker looks again whether the run that it works for is still there."""


def run(
    study: Study,
    store: Store,
    *,
    data_dir: str | Path | None = None,
    parts: Sequence[str] = (),
    processes: int | None = None,
    progress: bool = False,
) -> list[str]:
    """Compute what is missing. Files that are no good records of the study are set aside first.

    A run may be killed at any moment: its workers end with it, the cells in hand are lost, and are computed
    by the next run.

    Args:
        study: what to compute.
        store: where records are, and go.
        data_dir: folder of the sample files.
        parts: names of the parts to compute; all if empty.
        processes: side by side; None for one a core.
        progress: show a bar with the success so far.

    Returns:
        Sentences: what was set aside and why, and which data sets are missing.

    Raises:
        InputError: unknown part; or the store is another study's, is in use by another run, or cannot be
            written to.
        KeyboardInterrupt: stopped by the user; all finished cells are stored.
    """
    for name in parts:
        if not study.part(name):
            known = sorted({cell.part for cell in study.cells})
            raise InputError(f"--part is {name!r}, but must be one of {', '.join(known)}.")
    require_count("processes", processes := (os.cpu_count() or 1) if processes is None else processes)
    cells = [cell for cell in study.cells if not parts or cell.part in parts]
    with store.taken(study):
        remarks, left = _clear(store, study, cells)
        absent = sorted({cell.dataset for cell in cells if not data.is_present(cell.dataset, data_dir)})
        remarks += [f"{name} is missing: its cells are left out (wdlg data fetch {name})." for name in absent]
        _compute_all(
            [cell for cell in left if cell.dataset not in absent],
            store,
            data_dir,
            processes=processes,
            title=study.name,
            progress=progress,
        )
    return remarks


def _clear(store: Store, study: Study, cells: Iterable[Cell]) -> tuple[list[str], list[Cell]]:
    """Set aside what is in the way, and say so; and the cells that are left to compute."""
    remarks = [
        f"{path} is of no cell of this study: set aside as {store.set_aside(path)}."
        for path in store.strangers(study.cells)
        if path.suffix == ".parquet"
    ]
    left = []
    for cell in cells:
        state = store.state(cell)
        if state is not State.DONE:
            left.append(cell)
            if state is not State.MISSING:
                remarks.append(f"{cell.path} {state.value}: set aside as {store.set_aside(cell.path)}.")
    return remarks, left


def _compute_all(
    cells: Sequence[Cell],
    store: Store,
    data_dir: str | Path | None,
    *,
    processes: int,
    title: str,
    progress: bool,
) -> None:
    """Compute and store cells by several processes, with a bar that counts the successes."""
    tally: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    with (
        parallel_config(
            "loky",
            n_jobs=max(1, min(processes, len(cells))),
            inner_max_num_threads=1,
            initializer=_end_with,
            initargs=(os.getpid(),),
        ),
        tqdm(
            total=sum(cell.attacks for cell in cells), desc=title, unit="attack", disable=not progress
        ) as bar,
    ):
        tasks = (delayed(compute_and_store)(cell, store, data_dir) for cell in cells)
        for cell, good in Parallel(return_as="generator_unordered", pre_dispatch="n_jobs")(tasks):
            sums = tally[cell.columns().get("method", "labels")]
            sums[0] += good
            sums[1] += cell.attacks
            bar.update(cell.attacks)
            bar.set_postfix_str(", ".join(f"{name} {one}/{all_}" for name, (one, all_) in tally.items()))


def _end_with(runner: int) -> None:
    """From now on, this process ends when the one that started it, whose number is given, has ended.

    Also if that was killed: a process whose parent ends gets another parent.
    """

    def watch() -> None:
        while os.getppid() == runner:
            time.sleep(LOOK_EVERY)
        os._exit(1)  # without waiting for the computation; a file that is being written is not yet there

    threading.Thread(target=watch, daemon=True).start()


def compute_and_store(cell: Cell, store: Store, data_dir: str | Path | None) -> tuple[Cell, int]:
    """Compute a cell and store it; the cell, and in how many of its attacks the attacker had success."""
    started = time.perf_counter()
    sample = _load(cell.dataset, data_dir)
    records = compute(cell, sample)
    store.write(cell, records, wall_seconds=time.perf_counter() - started, sample=sample.digest())
    return cell, _successes(records)


def _successes(records: pd.DataFrame) -> int:
    """Attacks that recovered the image, or gradients of which WDLG's rule read the label."""
    if "mse" in records:
        return int((records["mse"] < SUCCESS).sum())
    return int((records["correct"] & (records["rule"] == "bias_sign")).sum())


@lru_cache(maxsize=2)
def _load(dataset: str, data_dir: str | Path | None) -> data.Sample:
    return data.load(dataset, data_dir)


def compute(cell: Cell, sample: data.Sample, only: Sequence[int] | None = None) -> pd.DataFrame:
    """The records of a cell, one row for each attack.

    For attacks these are network where the cell has several, case, the columns of
    :func:`~wdlg.study.records.record`, and pictures: the images (uint8, C x H x W, clamped to [0, 1]) at
    ``PICTURE_ITERATIONS``, empty for most cases.

    For label rules they are the columns of :func:`~wdlg.study.compare_rules`.

    Args:
        cell: what to compute.
        sample: the images of its data set.
        only: the numbers of the attacks of the cell that are wanted; None for all.
    """
    provenance()  # now and not when the records are written: the checkout may have moved on by then
    with _one_thread():
        if isinstance(cell, LabelCell):
            return compare_rules(
                sample,
                images=cell.gradients,
                network=cell.network,
                activation=cell.activation,
                initial=cell.initial,
                seed=cell.seed,
                rules=cell.rules,
                defence=cell.defence,
            )
        cases = draw(sample, cell.design)
        numbers = list(range(len(cases))) if only is None else list(only)
        records = _attack(cell, cases.select(torch.tensor(numbers)), numbers)
        if cell.design.networks > 1:
            records.insert(0, "network", cell.design.first_network + cases.network_index[numbers].numpy())
        return records


def _attack(cell: AttackCell, cases: Cases, numbers: list[int]) -> pd.DataFrame:
    records, _, snapshots = record(
        cases, cell.attack, batch_size=len(cases), snapshot_iterations=PICTURE_ITERATIONS
    )
    records.insert(0, "case", numbers)
    pictured = cell.design.first_network < PICTURE_NETWORKS
    records["pictures"] = [
        as_bytes(snapshots[:, place]) if pictured and number == 0 else b""
        for place, number in enumerate(numbers)
    ]
    return records


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread: the fastest use of a core, and sums in the same order everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Progress:
    """How far a group of cells has come.

    Attributes:
        group: part, data set and attack.
        done, cells: finished cells, and all.
        attacks: in finished cells.
        successes: attacks with success (labels: right labels).
        seconds_left: computing time of one process for the rest; None if nothing is known of its speed.
    """

    group: tuple[str, ...]
    done: int
    cells: int
    attacks: int
    successes: int
    seconds_left: float | None


def status(study: Study, store: Store) -> tuple[list[Progress], list[str]]:
    """How far each group of a study has come, and what in the store is not as it should be."""
    store.require_of(study)
    groups: dict[tuple[str, ...], list[Cell]] = defaultdict(list)
    seconds: dict[tuple[str, ...], list[float]] = defaultdict(list)
    attacks: dict[tuple[str, ...], int] = defaultdict(int)
    successes: dict[tuple[str, ...], int] = defaultdict(int)
    remarks = []
    for cell in study.cells:
        groups[cell.group].append(cell)
        held = store.held(cell)
        if held.state is State.DONE:
            columns = ("correct", "rule") if isinstance(cell, LabelCell) else ("mse",)
            seconds[cell.group].append(held.metadata["wall_seconds"])
            attacks[cell.group] += cell.attacks
            successes[cell.group] += _successes(held.table(columns).to_pandas())
        elif held.state is not State.MISSING:
            remarks.append(f"{cell.path} {held.state.value}.")
    remarks += [f"{path} is of no cell of this study." for path in store.strangers(study.cells)]
    pace = {group: float(np.mean(values)) for group, values in seconds.items()}
    table = []
    for group, cells in groups.items():
        done = len(seconds[group])
        known = (
            pace.get(group)
            or _mean([pace[other] for other in pace if other[0] == group[0]])
            or _mean(list(pace.values()))
        )
        missing = len(cells) - done
        left = 0.0 if not missing else None if known is None else missing * known
        table.append(Progress(group, done, len(cells), attacks[group], successes[group], left))
    return table, remarks


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
