"""Compute the cells of a study that a store does not hold yet, by several processes, one thread each.

A cell is always computed in the same way, in one batch and with one thread, so that a run that was killed
and taken up again leaves the same records as one that was not.
"""

from __future__ import annotations

import os
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
from wdlg.labels import ANALYTIC
from wdlg.study.cases import Cases, draw
from wdlg.study.labels import compare_rules
from wdlg.study.records import PICTURE_ITERATIONS, PICTURE_NETWORKS, as_bytes, record
from wdlg.study.specification import AttackCell, Cell, LabelCell, Study
from wdlg.study.store import State, Store, provenance

SUCCESS = SUCCESS_THRESHOLDS[0]


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

    A run may be killed at any moment: the cells in hand are lost, and computed by the next run.

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
        InputError: unknown part.
        KeyboardInterrupt: stopped by the user; all finished cells are stored.
    """
    for name in parts:
        if not study.part(name):
            known = sorted({cell.part for cell in study.cells})
            raise InputError(f"--part is {name!r}, but must be one of {', '.join(known)}.")
    require_count("processes", processes := (os.cpu_count() or 1) if processes is None else processes)
    cells = [cell for cell in study.cells if not parts or cell.part in parts]
    remarks = _clear(store, study, cells)
    absent = sorted({cell.dataset for cell in cells if not data.is_present(cell.dataset, data_dir)})
    remarks += [f"{name} is missing: its cells are left out (wdlg data fetch {name})." for name in absent]
    left = [cell for cell in cells if cell.dataset not in absent and store.state(cell) is State.MISSING]
    tally: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    with (
        parallel_config("loky", n_jobs=processes, inner_max_num_threads=1),
        tqdm(
            total=sum(cell.attacks for cell in left), desc=study.name, unit="attack", disable=not progress
        ) as bar,
    ):
        tasks = (delayed(_compute_and_store)(cell, store, data_dir) for cell in left)
        for cell, good in Parallel(return_as="generator_unordered", pre_dispatch="n_jobs")(tasks):
            sums = tally[cell.columns().get("method", "labels")]
            sums[0] += good
            sums[1] += cell.attacks
            bar.update(cell.attacks)
            bar.set_postfix_str(", ".join(f"{name} {one}/{all_}" for name, (one, all_) in tally.items()))
    return remarks


def _clear(store: Store, study: Study, cells: Iterable[Cell]) -> list[str]:
    """Set aside what is in the way, and say so. Parts of files that a killed run left are deleted."""
    remarks = []
    for path in store.strangers(study.cells):
        if path.suffix == ".part" and path.name.startswith("."):
            (store.folder / path).unlink(missing_ok=True)
        elif path.suffix == ".parquet":
            remarks.append(f"{path} is of no cell of this study: set aside as {store.set_aside(path)}.")
    for cell in cells:
        state = store.state(cell)
        if state not in (State.DONE, State.MISSING):
            remarks.append(f"{cell.path} {state.value}: set aside as {store.set_aside(cell.path)}.")
    return remarks


def _compute_and_store(cell: Cell, store: Store, data_dir: str | Path | None) -> tuple[Cell, int]:
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
                activation=cell.activation,
                seed=cell.seed,
                rules=("bias_sign", "row_sum") if cell.defence is None else ANALYTIC,
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
    groups: dict[tuple[str, ...], list[Cell]] = defaultdict(list)
    for cell in study.cells:
        groups[cell.group].append(cell)
    states = {cell.path: store.state(cell) for cell in study.cells}
    remarks = [
        f"{cell.path} {states[cell.path].value}."
        for cell in study.cells
        if states[cell.path] not in (State.DONE, State.MISSING)
    ]
    remarks += [f"{path} is of no cell of this study." for path in store.strangers(study.cells)]
    rows, pace = [], {}
    for group, cells in groups.items():
        finished = [cell for cell in cells if states[cell.path] is State.DONE]
        records = store.read_all(finished)
        successes = 0
        if len(records):
            successes = _successes(records)
            pace[group] = float(np.mean([store.metadata(cell)["wall_seconds"] for cell in finished]))
        rows.append((group, cells, finished, successes))
    table = []
    for group, cells, finished, successes in rows:
        left = len(cells) - len(finished)
        known = (
            pace.get(group)
            or _mean([pace[other] for other in pace if other[0] == group[0]])
            or _mean(list(pace.values()))
        )
        seconds = 0.0 if not left else None if known is None else left * known
        attacks = sum(cell.attacks for cell in finished)
        table.append(Progress(group, len(finished), len(cells), attacks, successes, seconds))
    return table, remarks


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
