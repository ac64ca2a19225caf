"""Paired runs: every method on the same networks, images and dummies."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from wdlg.attacks.base import BATCH_SIZE, Attack, require_device
from wdlg.compiled import one_blas_thread
from wdlg.errors import InputError, require_count, told
from wdlg.study.cases import Cases
from wdlg.study.executors import Workers, do_all
from wdlg.study.records import record
from wdlg.threads import one_torch_thread

if TYPE_CHECKING:
    import pandas as pd

SHARE_ABOVE_CLASSES = 500
"""With more classes than this, a network's output layer is large: its images form a batch that shares it."""


@dataclass(frozen=True)
class Outcome:
    """What the methods brought on the same cases.

    Attributes:
        records: one row for each method and case: dataset, method, case and network, then the columns of
            :func:`~wdlg.study.records.record`.
        images: by method, the last images (cases, C, H, W).
        snapshots: by method, images (len(iterations), cases, C, H, W).
        snapshot_iterations: the iterations of the snapshots.
        truth: the private images (cases, C, H, W).
    """

    records: pd.DataFrame
    images: dict[str, np.ndarray]
    snapshots: dict[str, np.ndarray]
    snapshot_iterations: tuple[int, ...]
    truth: np.ndarray


def run_paired(
    cases: Cases,
    attacks: Sequence[Attack],
    *,
    snapshot_iterations: Sequence[int] = (),
    batch_size: int = BATCH_SIZE,
    processes: int = 1,
    executor: Executor | Workers | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> Outcome:
    """Run every attack on every case.

    Args:
        cases: from :func:`~wdlg.study.cases.draw`.
        attacks: at least one, with names that differ: the names are what tables and figures call them.
        snapshot_iterations: iterations whose images are kept, ascending from 0.
        batch_size: attacks computed together in a process.
        processes: run in as many processes with one thread each, which is the fastest use of the cores; 1
            runs here, with torch's threads. The cases are split among so many.
        executor: runs the attacks in place of the processes, with one thread each: any executor of
            :mod:`concurrent.futures`, such as a pool of threads.
        device: where attacks compute, such as "cuda"; then take one process and a batch of hundreds.
        progress: show bars.

    Raises:
        InputError: this machine does not have the device; no attacks, or two of one name; iterations that do
            not ascend; a count out of range; an executor that is none.
        KeyboardInterrupt: the user stopped the run.
    """
    import pandas as pd

    attacks = _with_names_that_differ(attacks)
    snapshot_iterations = _ascending(snapshot_iterations)
    require_count("batch_size", batch_size)
    require_count("processes", processes)
    require_device("device", device)
    groups = [cases.select(index) for index in _groups(cases, batch_size, processes)]
    here = executor is None and processes == 1
    runs = [
        (group, attack, snapshot_iterations, batch_size, device, here, progress and here)
        for attack in attacks
        for group in groups
    ]
    flat: list[Any] = [None] * len(runs)
    with tqdm(desc=cases.dataset, total=len(runs), unit="group", disable=not progress or here) as bar:

        def finished(place: int, part: tuple[pd.DataFrame, np.ndarray, np.ndarray]) -> None:
            flat[place] = part
            bar.update()

        do_all(_run, runs, executor=executor, processes=processes, then=finished)
    parts = [flat[place : place + len(groups)] for place in range(0, len(flat), len(groups))]
    records, images, snapshots = [], {}, {}
    for attack, group_parts in zip(attacks, parts, strict=True):
        table = pd.concat([part[0] for part in group_parts], ignore_index=True)
        table.insert(0, "dataset", cases.dataset)
        table.insert(1, "method", attack.name)
        table.insert(2, "case", np.arange(len(cases)))
        table.insert(3, "network", cases.network_index.numpy())
        records.append(table)
        images[attack.name] = np.concatenate([part[1] for part in group_parts])
        snapshots[attack.name] = np.concatenate([part[2] for part in group_parts], axis=1)
    return Outcome(
        records=pd.concat(records, ignore_index=True),
        images=images,
        snapshots=snapshots,
        snapshot_iterations=snapshot_iterations,
        truth=cases.truth.numpy(),
    )


def _with_names_that_differ(attacks: Sequence[Attack]) -> tuple[Attack, ...]:
    """The attacks, if a table and a figure can tell them apart."""
    if isinstance(attacks, Attack):
        raise InputError(f"attacks is the attack {attacks.name!r}, but must be a list, such as [attack].")
    attacks = tuple(attacks)
    strangers = [one for one in attacks if not isinstance(one, Attack)]
    if strangers or not attacks:
        came = f"holds {told(strangers[0])}" if strangers else "is empty"
        raise InputError(f"attacks {came}, but must hold at least one Attack and nothing else.")
    names = [attack.name for attack in attacks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"attacks holds {twice!r} more than once, but names must differ: give another one with "
            "dataclasses.replace(attack, name=...)."
        )
    return attacks


def _ascending(iterations: Sequence[int]) -> tuple[int, ...]:
    """The iterations, if they are whole numbers that ascend from 0."""
    counts = tuple(require_count("snapshot_iterations", number, at_least=0) for number in iterations)
    if any(later <= earlier for earlier, later in pairwise(counts)):
        raise InputError(f"snapshot_iterations is {counts}, but must ascend, with no iteration twice.")
    return counts


def _groups(cases: Cases, batch_size: int, processes: int) -> list[Tensor]:
    """Positions of the cases that run together."""
    if cases.network.classes > SHARE_ABOVE_CLASSES:
        networks = range(len(cases.parameters))
        return [(cases.network_index == number).nonzero()[:, 0] for number in networks]
    everything = torch.arange(len(cases))
    # Enough groups for every process to have work until near the end, none larger than a batch.
    return (
        list(everything.split(min(batch_size, -(-len(cases) // processes))))
        if processes > 1
        else [everything]
    )


def _run(
    cases: Cases,
    attack: Attack,
    snapshot_iterations: Sequence[int],
    batch_size: int,
    device: str,
    here: bool,
    progress: bool,
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Records, last images and snapshots of one attack on one group; alone in the process, or one of many."""
    with ExitStack() as limits:
        if not here:
            limits.enter_context(one_torch_thread())
            limits.enter_context(one_blas_thread())
            # A module of torch holds the weights while it computes with them, so threads must not share one.
            cases = replace(cases, network=copy.deepcopy(cases.network))
        records, result, snapshots = record(
            cases,
            attack,
            batch_size=batch_size,
            snapshot_iterations=snapshot_iterations,
            device=device,
            progress=progress,
        )
    return records, result.images.numpy(), snapshots.numpy()
