"""Goals for Levenberg-Marquardt on the paper's networks, written down in ``studies/second-order.yaml``.

``studies/damped.yaml`` and ``studies/accelerated.yaml`` ask the same of other settings, part by part.

A goal is met if the share of all runs reaches it, with the iterations in the median and the explosions that
it names; a run that ended by its budget stays in the count. Each run has a network of its own. Before all
runs of a data set are computed, it is open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from wdlg.study.cells import AttackCell, Cell
from wdlg.study.statistics import share
from wdlg.study.store import Store

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


def as_table(found: Iterable[Outcome]) -> pd.DataFrame:
    """The outcomes for a page."""
    return pd.DataFrame(
        [
            {
                "part": one.part,
                "data set": one.dataset,
                "attack": one.attack,
                "goal": _in_words(GOALS[one.part]),
                "recovered": f"{one.recovered} of {one.runs}",
                "interval": f"{100 * one.interval[0]:.0f} to {100 * one.interval[1]:.0f} %",
                "iterations": f"{one.iterations:.0f}",
                "exploded": one.exploded,
                "median MSE": f"{one.median_mse:.1g}",
                "verdict": one.verdict
                if one.verdict != OPEN
                else f"{OPEN}: {one.runs} of {one.planned} runs",
            }
            for one in found
        ]
    )


def _in_words(goal: Goal) -> str:
    if goal.share is None:
        return f"none (below {goal.below:g})"
    steps = "" if goal.iterations is None else f", {goal.iterations} iterations, none explodes"
    return f"{100 * goal.share:g} % below {goal.below:g}{steps}"
