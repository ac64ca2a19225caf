"""Two methods on the same cases: paired scores, with networks as the units of every test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from wdlg.evaluation import recovered
from wdlg.study.statistics import Paired, holm, mcnemar, paired_by_network
from wdlg.verdicts.claims import rules

Key = TypeVar("Key")


ALL = "all"
"""Stands for all data sets together where others stand by their names."""


class NotMeasuredError(Exception):
    """The records say nothing about a claim; the message says what is missing."""


@dataclass(frozen=True)
class Comparison:
    """Two methods on the cases of one data set.

    Attributes:
        paired: mean score, interval and p-value with networks as units.
        significant: after correction for all comparisons of the claim, its family.
        mcnemar: p-value of McNemar's exact test that ignores networks, for scores of yes and no; else None.
    """

    paired: Paired
    significant: bool
    mcnemar: float | None

    @property
    def mean(self) -> float:
        """Mean score, in [-1, 1]."""
        return self.paired.mean

    @property
    def networks(self) -> int:
        """Units of the test."""
        return self.paired.networks

    def text(self) -> str:
        """As text: "+0.20 [0.05, 0.35]*", with a star if significant."""
        return self.paired.text() + ("*" if self.significant else "")

    def as_json(self) -> dict[str, Any]:
        """Numbers by name."""
        return {**self.paired.as_json(), "significant": self.significant, "mcnemar": self.mcnemar}


def compare_all(
    table: pd.DataFrame, score: str, method: str, opponents: list[str]
) -> dict[tuple[str, str], Comparison]:
    """One method against others on every data set; p-values are corrected by Holm's method.

    Args:
        table: records of attacks.
        score: "mse" (lower is better), "speed" (iterations to success), "success", or "calm" (no explosion).
        method, opponents: names in the column method.

    Returns:
        By data set and opponent. A positive mean score is in favour of ``method``.
    """
    return _corrected(_on_each_data_set(table, score, method, opponents))


def compare_overall(
    table: pd.DataFrame, scores: Sequence[str], method: str, opponent: str
) -> dict[tuple[str, str], Comparison]:
    """One method against another by several scores, on every data set and on all together: one family.

    Args:
        table: records of attacks.
        scores: as in :func:`compare_all`.
        method, opponent: names in the column method.

    Returns:
        By score and data set, or :data:`ALL` for all data sets together.
    """
    found: dict[tuple[str, str], tuple[Paired, float | None]] = {}
    for score in scores:
        for (dataset, _), one in _on_each_data_set(table, score, method, [opponent]).items():
            found[score, dataset] = one
        found[score, ALL] = _compared(table, score, method, opponent)
    return _corrected(found)


def pooled(table: pd.DataFrame, score: str, method: str, opponent: str) -> Paired:
    """One method against another on all data sets together; a network of one data set is one unit."""
    return _compared(table, score, method, opponent)[0]


def _on_each_data_set(
    table: pd.DataFrame, score: str, method: str, opponents: list[str]
) -> dict[tuple[str, str], tuple[Paired, float | None]]:
    """Comparisons that are not corrected, by data set and opponent, where both methods have records."""
    found = {
        (str(dataset), opponent): _compared(rows, score, method, opponent)
        for dataset, rows in some(table, "attacks").groupby("dataset", sort=False)
        for opponent in opponents
        if {method, opponent} <= set(rows["method"])
    }
    if not found:
        raise NotMeasuredError(f"there are no records of {method} beside {' and '.join(opponents)}")
    return found


def _compared(table: pd.DataFrame, score: str, method: str, opponent: str) -> tuple[Paired, float | None]:
    """Two methods on the cases that both have, and McNemar's p-value for scores of yes and no."""
    ours, theirs = _pair(table, method, opponent)
    points = _scores(score, ours, theirs)
    exact = mcnemar(points > 0, points < 0) if score in ("success", "calm") else None
    return paired_by_network(points, units_of(ours)), exact


def units_of(runs: pd.DataFrame) -> np.ndarray:
    """The network of each run, as text with its data set, since each data set has networks of its own."""
    return (runs["dataset"].astype(str) + "/" + runs["network"].astype(str)).to_numpy()


def _corrected(found: Mapping[Key, tuple[Paired, float | None]]) -> dict[Key, Comparison]:
    """All comparisons of a family, with what Holm's method makes of their p-values."""
    significant = holm(np.array([one.p for one, _ in found.values()]), rules()["level"])
    return {
        key: Comparison(one, bool(flag), exact)
        for (key, (one, exact)), flag in zip(found.items(), significant, strict=True)
    }


def _pair(table: pd.DataFrame, method: str, opponent: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of two methods on the cases that both have, in the same order."""
    keys = ["dataset", "network", "case"]
    first, second = (of_method(table, name).set_index(keys).sort_index() for name in (method, opponent))
    common = first.index.intersection(second.index)
    if not len(common):
        raise NotMeasuredError(f"{method} and {opponent} have no case in common")
    return first.loc[common].reset_index(), second.loc[common].reset_index()


def _scores(score: str, ours: pd.DataFrame, theirs: pd.DataFrame) -> np.ndarray:
    """For each case 1 if the first is better, -1 if the second is, 0 if neither."""
    sides = []
    for rows in (ours, theirs):
        if score == "mse":
            cost = rows["mse"].fillna(np.inf)
        elif score == "speed":
            cost = rows["iterations_to_success"].fillna(np.inf)
        elif score == "success":
            cost = -successes(rows).astype(float)
        else:
            cost = rows["exploded"].astype(float)
        sides.append(cost.to_numpy(dtype=float))
    # Not the sign of a difference: infinity minus infinity is not a number.
    return (sides[0] < sides[1]).astype(float) - (sides[0] > sides[1])


def some(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """The table as it is; or :class:`NotMeasuredError` if it has no rows of ``what``."""
    if not len(table):
        raise NotMeasuredError(f"there are no records of {what}")
    return table


def of_method(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of one method, of which there must be some."""
    some(table, "attacks")
    return some(table[table["method"] == name], name)


def successes(rows: pd.DataFrame) -> pd.Series:
    """Which runs recovered the image."""
    return recovered(rows["mse"])
