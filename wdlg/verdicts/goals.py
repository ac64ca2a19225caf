"""Goals for Levenberg-Marquardt on the paper's networks, written down in ``studies/second-order.yaml``.

``studies/damped.yaml`` and ``studies/accelerated.yaml`` ask the same of other settings, part by part.

A goal is met if the share of all runs reaches it, with the iterations in the median and the explosions that
it names; a run that ended by its budget stays in the count. Each run has a network of its own. Before all
runs of a data set are computed, it is open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from wdlg.study.cells import AttackCell, Cell
from wdlg.study.statistics import share
from wdlg.study.store import Store
from wdlg.verdicts.wording import title

MET, MISSED, OPEN, NONE = "met", "missed", "open", "no goal"


@dataclass(frozen=True)
class Goal:
    """What a part of the study is to reach.

    Attributes:
        below: MSE from which downwards an image counts as recovered.
        share: of runs that are to be recovered; None for no goal.
        iterations: the most in the median; None for any.
    """

    below: float
    share: float | None
    iterations: int | None = None


GOALS = {
    "grey": Goal(1e-6, 0.98, 15),
    "colour": Goal(1e-6, 0.98, 15),
    "initial-sigmoid": Goal(1e-4, 0.90),
    "initial-tanh": Goal(1e-4, 0.95),
    "initial-relu": Goal(1e-4, 0.60),
    "joint": Goal(1e-6, None),
}
"""By part of the study, written down on 27 November 2026."""


@dataclass(frozen=True)
class Outcome:
    """How one data set of a part came out.

    Attributes:
        part, dataset, attack: of the study.
        planned, runs: in the study, and computed.
        recovered: runs below the goal's MSE.
        interval: 95 % of Wilson for their share.
        iterations: median.
        exploded: runs, see :func:`wdlg.evaluation.evaluate`.
        median_mse: of all runs.
        verdict: MET, MISSED, OPEN or NONE.
    """

    part: str
    dataset: str
    attack: str
    planned: int
    runs: int
    recovered: int
    interval: tuple[float, float]
    iterations: float
    exploded: int
    median_mse: float
    verdict: str


def outcomes(cells: Iterable[Cell], store: Store) -> list[Outcome]:
    """Every data set of every part that has a goal, in the study's order; none without a run."""
    groups: dict[tuple[str, str, str], list[AttackCell]] = {}
    for cell in cells:
        if isinstance(cell, AttackCell) and cell.part in GOALS:
            groups.setdefault((cell.part, cell.dataset, cell.attack.name), []).append(cell)
    found = []
    for (part, dataset, attack), members in groups.items():
        table = store.read_all(members)
        if len(table):
            planned = sum(cell.attacks for cell in members)
            found.append(_outcome(part, dataset, attack, planned, table))
    return found


def _outcome(part: str, dataset: str, attack: str, planned: int, table: pd.DataFrame) -> Outcome:
    goal = GOALS[part]
    mse = table["mse"]
    recovered = int((mse < goal.below).sum())
    exploded = int(table["exploded"].sum())
    iterations = float(table["iterations"].median())
    whole = share(recovered, len(table))
    if goal.share is None:
        verdict = NONE
    elif len(table) < planned:
        verdict = OPEN
    else:
        quick = goal.iterations is None or (iterations <= goal.iterations and not exploded)
        verdict = MET if recovered >= goal.share * len(table) and quick else MISSED
    return Outcome(
        part=part,
        dataset=dataset,
        attack=attack,
        planned=planned,
        runs=len(table),
        recovered=recovered,
        interval=(whole.low, whole.high),
        iterations=iterations,
        exploded=exploded,
        median_mse=float(mse.median()),
        verdict=verdict,
    )


def side_by_side(studies: Mapping[str, Iterable[Outcome]]) -> pd.DataFrame:
    """Outcomes of studies that have the same goals: a table for a page, with a column for each study.

    Args:
        studies: outcomes by what their column is called.
    """
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for study, found in studies.items():
        for one in found:
            row = rows.setdefault((one.part, one.dataset, one.attack), {})
            row[study] = _told(one)
    return pd.DataFrame(
        [
            {"part": part, "data set": title(dataset), "attack": attack, "goal": _in_words(GOALS[part])}
            | {study: row.get(study, "") for study in studies}
            for (part, dataset, attack), row in rows.items()
        ]
    )


def _told(one: Outcome) -> str:
    low, high = (f"{100 * end:.0f}" for end in one.interval)
    exploded = f", {one.exploded} exploded" if one.exploded else ""
    found = f"{one.recovered} of {one.runs} ({low} to {high} %) in {one.iterations:g}{exploded}"
    if one.verdict == NONE:
        return found
    return f"{found}: {one.verdict}" + (f", {one.runs} of {one.planned} runs" if one.verdict == OPEN else "")


def _in_words(goal: Goal) -> str:
    below = f"below {goal.below:.0e}".replace("e-0", "e-")
    if goal.share is None:
        return f"none ({below})"
    steps = "" if goal.iterations is None else f" in {goal.iterations}"
    return f"{100 * goal.share:g} %{steps}, {below}"
