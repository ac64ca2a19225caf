"""Two methods on the same cases: paired scores, with networks as the units of every test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wdlg.study.claims import rules
from wdlg.study.statistics import Paired, holm, mcnemar, paired_by_network


class NotMeasuredError(Exception):
    """The records say nothing about a claim; the message says what is missing."""


@dataclass(frozen=True)
class Comparison:
    """Two methods on the cases of one data set.

    Attributes:
        paired: mean score, interval and p-value with networks as units.
        significant: after correction for all comparisons of the claim.
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
    found: dict[tuple[str, str], tuple[Paired, float | None]] = {}
    for dataset, rows in some(table, "attacks").groupby("dataset", sort=False):
        for opponent in opponents:
            if not {method, opponent} <= set(rows["method"]):
                continue
            ours, theirs = _pair(rows, method, opponent)
            points = _scores(score, ours, theirs)
            yes_no = score in ("success", "calm")
            found[str(dataset), opponent] = (
                paired_by_network(points, ours["network"].to_numpy()),
                mcnemar(points > 0, points < 0) if yes_no else None,
            )
    if not found:
        raise NotMeasuredError(f"there are no records of {method} beside {' and '.join(opponents)}")
    significant = holm(np.array([one.p for one, _ in found.values()]), rules()["level"])
    return {
        key: Comparison(one, bool(flag), exact)
        for (key, (one, exact)), flag in zip(found.items(), significant, strict=True)
    }


def pooled(table: pd.DataFrame, score: str, method: str, opponent: str) -> Paired:
    """One method against another on all data sets together; a network of one data set is one unit."""
    ours, theirs = _pair(table, method, opponent)
    units = ours["dataset"].astype(str) + "/" + ours["network"].astype(str)
    return paired_by_network(_scores(score, ours, theirs), units.to_numpy())


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
    """Which runs ended with an MSE below ``success_mse`` of ``claims.yaml``."""
    return rows["mse"] < rules()["success_mse"]
