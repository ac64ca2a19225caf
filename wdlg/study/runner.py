"""Compute the cells of a study that a store does not hold yet, side by side, with one thread each.

A cell is always computed in the same way, in one batch and with one thread, so that a run that was killed
and taken up again leaves the same records as one that was not, and so that it does not matter who computes:
processes of this machine, or any executor.
"""

from __future__ import annotations

import os
import reprlib
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from wdlg import data
from wdlg.compiled import one_blas_thread
from wdlg.errors import InputError, require_count, require_not_negative
from wdlg.evaluation import recovered
from wdlg.study.cases import Cases, draw
from wdlg.study.cells import AttackCell, Cell, LabelCell, Study
from wdlg.study.executors import LostError, Workers, do_all
from wdlg.study.labels import compare_rules
from wdlg.study.records import PICTURE_ITERATIONS, PICTURE_NETWORKS, TRACE_POINTS, as_bytes, record
from wdlg.study.store import Held, State, Store, as_file, provenance
from wdlg.threads import one_torch_thread

if TYPE_CHECKING:
    import pandas as pd


def run(
    study: Study,
    store: Store,
    *,
    data_dir: str | Path | None = None,
    parts: Sequence[str] = (),
    processes: int | None = None,
    executor: Executor | Workers | None = None,
    workers_write: bool = True,
    patience: float = 0.0,
    progress: bool = False,
) -> list[str]:
    """Compute what is missing. Files that are no good records of the study are set aside first.

    A run may be killed at any moment: the processes that it started end with it, the cells in hand are lost,
    and are computed by the next run. An executor of yours finishes what it has begun, and that is stored.
    When a process or a worker of a cluster is killed, the run goes on, and computes anew what it had in hand.

    Args:
        study: what to compute.
        store: where records are, and go.
        data_dir: folder of the sample files, which every worker must see under this name.
        parts: names of the parts to compute; all if empty.
        processes: side by side; None for one a core. With an executor it says nothing: that has its own.
        executor: where cells are computed; None for processes of this machine. A
            :class:`~wdlg.study.cluster.Cluster`, or any executor of :mod:`concurrent.futures`: a pool of
            threads or processes. A cell is sent as one call of :func:`compute_file`.
        workers_write: whoever computes a cell stores it, so that a finished one is safe whatever becomes of
            this process. False where a worker does not see the store's folder: then its records come back,
            and are stored here.
        patience: how many seconds to wait for another run that computes in this store.
        progress: show a bar with the success so far.

    Returns:
        Sentences: what was set aside and why, and which data sets are missing.

    Raises:
        InputError: unknown part; a sample file that cannot be read; an executor that is none; or the store is
            another study's, is in use by another run for longer than patience, or cannot be written to.
        LostError: some cells lost every worker that began them; all others are stored.
        KeyboardInterrupt: stopped by the user; all finished cells are stored.
    """
    for name in parts:
        if not study.part(name):
            known = sorted({cell.part for cell in study.cells})
            raise InputError(f"--part is {name!r}, but must be one of {', '.join(known)}.")
    require_not_negative("patience", patience)
    require_count("processes", processes := (os.cpu_count() or 1) if processes is None else processes)
    cells = [cell for cell in study.cells if not parts or cell.part in parts]
    folder = data.data_dir(data_dir).absolute()
    # Before the store is touched: a sample file that cannot be read is no reason to set a record aside.
    absent = _absent({cell.dataset for cell in cells}, folder)
    with store.taken(study, patience) as there:
        remarks, left = _clear(store, study, cells)
        remarks += [f"{name} is missing: its cells are left out (wdlg data fetch {name})." for name in absent]
        _compute_all(
            [cell for cell in left if cell.dataset not in absent],
            there,
            folder,
            executor=executor,
            processes=processes,
            workers_write=workers_write,
            title=study.name,
            progress=progress,
        )
    return remarks


def _absent(datasets: Iterable[str], folder: Path) -> list[str]:
    """Names of the data sets without a sample file.

    Raises:
        InputError: a sample file is there, but cannot be read to its end.
    """
    absent = []
    for name in sorted(datasets):
        if not data.is_present(name, folder):
            absent.append(name)
        elif not data.CATALOGUE[name].embedded:
            data.load(name, folder)
    return absent


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
    data_dir: Path,
    *,
    executor: Executor | Workers | None,
    processes: int,
    workers_write: bool,
    title: str,
    progress: bool,
) -> None:
    """Compute and store cells, with a bar that counts the successes."""
    tally: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    there = store if workers_write else None

    def finished(place: int, outcome: tuple[int, bytes | None]) -> None:
        cell, (good, content) = cells[place], outcome
        if content is not None:
            store.put(cell, content)
        sums = tally[cell.columns().get("method", "labels")]
        sums[0] += good
        sums[1] += cell.attacks
        bar.update(cell.attacks)
        bar.set_postfix_str(", ".join(f"{name} {one}/{all_}" for name, (one, all_) in tally.items()))

    with tqdm(
        total=sum(cell.attacks for cell in cells), desc=title, unit="attack", disable=not progress
    ) as bar:
        try:
            do_all(
                compute_file,
                [(cell, data_dir, there) for cell in cells],
                executor=executor,
                processes=processes,
                then=finished,
            )
        except LostError as error:
            names = reprlib.repr([cells[place].path.as_posix() for place in error.places])
            raise LostError(error.places, f"{len(error.places)} of {len(cells)} cells, {names},") from None


def compute_file(cell: Cell, data_dir: Path, store: Store | None) -> tuple[int, bytes | None]:
    """Compute a cell: in how many of its attacks the attacker had success, and the file of its records.

    This is what runs in another thread or process, or on another machine. It depends on its arguments only.

    Args:
        cell: what to compute.
        data_dir: folder of the sample files.
        store: where the file is written; None to return its content instead.
    """
    if store is not None:
        store.require_run()
        held = store.held(cell)
        if held.state is State.DONE:  # by a worker that was lost before it could say so
            return _successes_of(held), None
    started = time.perf_counter()
    sample = _load(cell.dataset, data_dir)
    records = compute(cell, sample)
    content = as_file(cell, records, wall_seconds=time.perf_counter() - started, sample=sample.digest())
    if store is None:
        return _successes(dict(records)), content
    store.put(cell, content)
    return _successes(dict(records)), None


def _successes(records: Mapping[str, Any]) -> int:
    """Attacks that recovered the image, or gradients of which WDLG's rule read the label, of columns."""
    if "mse" in records:
        return int(recovered(records["mse"]).sum())
    return int((records["correct"] & (records["rule"] == "bias_sign")).sum())


def _successes_of(held: Held) -> int:
    """The same, of a stored cell."""
    return _successes(held.columns(("correct", "rule") if isinstance(held.cell, LabelCell) else ("mse",)))


@lru_cache(maxsize=2)
def _load(dataset: str, data_dir: Path) -> data.Sample:
    return data.load(dataset, data_dir)


def compute(cell: Cell, sample: data.Sample, only: Sequence[int] | None = None) -> pd.DataFrame:
    """The records of a cell, one row for each attack.

    For attacks these are network where the cell has several, case, the columns of
    :func:`~wdlg.study.records.record`, and pictures: the images (uint8, C x H x W, clamped to [0, 1]) at
    ``PICTURE_ITERATIONS``, empty for most cases.

    For label rules they are the columns of :func:`~wdlg.study.labels.compare_rules`.

    Args:
        cell: what to compute.
        sample: the images of its data set.
        only: the numbers of the attacks of the cell that are wanted; None for all.
    """
    provenance()  # now and not when the records are written: the checkout may have moved on by then
    with one_torch_thread(), one_blas_thread():
        if isinstance(cell, LabelCell):
            return compare_rules(
                sample,
                images=cell.gradients,
                network=cell.network,
                activation=cell.activation,
                initial=cell.initial,
                seed=cell.seed,
                dtype=cell.dtype,
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
        cases,
        cell.attack,
        batch_size=len(cases),
        snapshot_iterations=PICTURE_ITERATIONS,
        trace_points=cell.trace_points or TRACE_POINTS,
    )
    records.insert(0, "case", numbers)
    pictured = cell.pictures and cell.design.first_network < PICTURE_NETWORKS
    records["pictures"] = [
        as_bytes(snapshots[:, place]) if pictured and number == 0 else b""
        for place, number in enumerate(numbers)
    ]
    return records


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
            seconds[cell.group].append(held.metadata["wall_seconds"])
            attacks[cell.group] += cell.attacks
            successes[cell.group] += _successes_of(held)
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
