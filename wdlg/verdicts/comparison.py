"""Two methods on the same cases: paired scores, with networks as the units of every test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from wdlg.evaluation import EXPLOSION, SUCCESS
from wdlg.study.statistics import Paired, holm, mcnemar, paired_by_network
from wdlg.verdicts.claims import rules

Key = TypeVar("Key")

Uncorrected = tuple[Paired, float | None]
"""A paired result with McNemar's p-value for scores of yes and no, before Holm's correction."""


ALL = "all"
"""Stands for all data sets together where others stand by their names."""


class NotMeasuredError(Exception):
    """The records say nothing about a claim; the message says what is missing."""


@dataclass(frozen=True)
class Limits:
    """What counts as a success and as an explosion.

    Attributes:
        success: a run succeeded if its MSE is below this.
        times: a run exploded if its loss or MSE is not finite or exceeds this multiple of its start.
    """

    success: float = SUCCESS
    times: float = EXPLOSION


USUAL = Limits()
"""The limits of the book."""


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
    table: pd.DataFrame, score: str, method: str, opponents: Sequence[str], limits: Limits = USUAL
) -> dict[tuple[str, str], Comparison]:
    """One method against others on every data set; p-values are corrected by Holm's method.

    Args:
        table: records of attacks.
        score: a name in :data:`COSTS`.
        method, opponents: names in the column method.
        limits: of success and explosion.

    Returns:
        By data set and opponent. A positive mean score is in favour of ``method``.
    """
    pairs = [(method, opponent) for opponent in opponents]
    found = on_each_data_set(table, score, pairs, limits)
    return corrected({(dataset, opponent): one for (dataset, _, opponent), one in found.items()})


def compare_overall(
    table: pd.DataFrame, scores: Sequence[str], method: str, opponent: str, limits: Limits = USUAL
) -> dict[tuple[str, str], Comparison]:
    """One method against another by several scores, on every data set and on all together: one family.

    Args:
        table: records of attacks.
        scores: names in :data:`COSTS`.
        method, opponent: names in the column method.
        limits: of success and explosion.

    Returns:
        By score and data set, or :data:`ALL` for all data sets together.
    """
    found: dict[tuple[str, str], Uncorrected] = {}
    for score in scores:
        for (dataset, _, _), one in on_each_data_set(table, score, [(method, opponent)], limits).items():
            found[score, dataset] = one
        found[score, ALL] = compared(table, score, method, opponent, limits)
    return corrected(found)


def pooled(table: pd.DataFrame, score: str, method: str, opponent: str, limits: Limits = USUAL) -> Paired:
    """One method against another on all data sets together; a network of one data set is one unit."""
    return compared(table, score, method, opponent, limits)[0]


def on_each_data_set(
    table: pd.DataFrame, score: str, pairs: Sequence[tuple[str, str]], limits: Limits = USUAL
) -> dict[tuple[str, str, str], Uncorrected]:
    """Comparisons that are not corrected, by data set, method and opponent, where both have records."""
    found = {
        (str(dataset), method, opponent): compared(rows, score, method, opponent, limits)
        for dataset, rows in some(table, "attacks").groupby("dataset", sort=False)
        for method, opponent in pairs
        if {method, opponent} <= set(rows["method"])
    }
    if not found:
        wanted = " or ".join(f"{method} beside {opponent}" for method, opponent in pairs)
        raise NotMeasuredError(f"there are no records of {wanted}")
    return found


def compared(
    table: pd.DataFrame, score: str, method: str, opponent: str, limits: Limits = USUAL
) -> Uncorrected:
    """Two methods on the cases that both have, and McNemar's p-value for scores of yes and no."""
    keys = ["dataset", "network", "case"]
    ours, theirs = (
        rows[keys].assign(cost=costs(rows, score, limits))
        for rows in (of_method(table, name) for name in (method, opponent))
    )
    both = ours.merge(theirs, on=keys, suffixes=("", " of opponent")).sort_values(keys)
    if not len(both):
        raise NotMeasuredError(f"{method} and {opponent} have no case in common")
    sides = (both["cost"].to_numpy(), both["cost of opponent"].to_numpy())
    return of_costs(*sides, both, exact=score in OF_YES_AND_NO)


def of_costs(
    first: np.ndarray, second: np.ndarray, runs: pd.DataFrame, *, exact: bool = False
) -> Uncorrected:
    """Scores of paired runs by their costs (runs,), the lower of which is better; infinity is the worst."""
    # Not the sign of a difference: infinity minus infinity is not a number.
    points = (first < second).astype(float) - (first > second)
    return paired_by_network(points, units_of(runs)), mcnemar(points > 0, points < 0) if exact else None


def units_of(runs: pd.DataFrame) -> np.ndarray:
    """The network of each run, as text with its data set, since each data set has networks of its own."""
    return (runs["dataset"].astype(str) + "/" + runs["network"].astype(str)).to_numpy()


def corrected(found: Mapping[Key, Uncorrected]) -> dict[Key, Comparison]:
    """All comparisons of a family, with what Holm's method makes of their p-values."""
    if not found:
        return {}
    significant = holm(np.array([one.p for one, _ in found.values()]), rules()["level"])
    return {
        key: Comparison(one, bool(flag), exact)
        for (key, (one, exact)), flag in zip(found.items(), significant, strict=True)
    }


# What a run costs


COSTS: dict[str, Callable[[pd.DataFrame, Limits], Any]] = {
    "mse": lambda rows, _: rows["mse"].fillna(np.inf),
    "speed": lambda rows, limits: iterations_to(rows, limits.success),
    "success": lambda rows, limits: -successes(rows, limits.success).astype(float),
    "calm": lambda rows, limits: exploded(rows, limits.times),
    "calm by loss": lambda rows, limits: exploded_by_loss(rows, limits.times),
    "steadiness": lambda rows, _: unsteadiness(rows),
}
"""By the name of a score, what it counts against a run: the last MSE; iterations to success; no success; an
explosion; one that its loss shows; rises of the MSE on the way."""

OF_YES_AND_NO = ("success", "calm", "calm by loss")
"""Scores for which McNemar's test is shown, too."""


def costs(rows: pd.DataFrame, score: str, limits: Limits = USUAL) -> np.ndarray:
    """What a score counts against each run, (runs,); infinity is the worst."""
    return np.asarray(COSTS[score](rows, limits), dtype=float)


def successes(rows: pd.DataFrame, success: float = SUCCESS) -> pd.Series:
    """Which runs recovered the image: their MSE is below ``success``."""
    return rows["mse"] < success


def iterations_to(rows: pd.DataFrame, success: float) -> np.ndarray:
    """Iterations until the MSE of each run was first below ``success``, (runs,); infinity for never.

    Records hold them for the usual value. For another they are those of the first stored point of the trace
    that is below it, which lies somewhat later.
    """
    if success == SUCCESS:
        return rows["iterations_to_success"].fillna(np.inf).to_numpy(dtype=float)
    found = np.full(len(rows), np.inf)
    for place, (iteration, mse) in enumerate(
        zip(*(_traces(rows, name) for name in ("iteration", "mse")), strict=True)
    ):
        below = np.flatnonzero(mse < success)
        if len(below):
            found[place] = iteration[below[0]]
    return found


def exploded(rows: pd.DataFrame, times: float) -> np.ndarray:
    """Which runs ended with a loss or an MSE that is not finite or above ``times`` its start, (runs,)."""
    if times == EXPLOSION:
        return rows["exploded"].to_numpy(dtype=bool)
    mse, start = rows["mse"].to_numpy(dtype=float), rows["mse_start"].to_numpy(dtype=float)
    return ~(mse <= times * start) | exploded_by_loss(rows, times)


def exploded_by_loss(rows: pd.DataFrame, times: float) -> np.ndarray:
    """Which runs ended with a loss that is not finite or above ``times`` its first, (runs,).

    A run that never started, for want of a label, has no loss, and has not exploded.
    """
    loss, first = rows["loss"].to_numpy(dtype=float), rows["loss_first"].to_numpy(dtype=float)
    return (rows["evaluations"].to_numpy() > 0) & (~np.isfinite(loss) | (loss > times * first))


def unsteadiness(rows: pd.DataFrame) -> np.ndarray:
    """The sum of all rises of log MSE from one stored point of each run's trace to the next, (runs,).

    Infinite where an MSE is not finite, and for a run that never started. The measure does not depend on the
    unit, and falls do not count.
    """
    found = np.full(len(rows), np.inf)
    for place, mse in enumerate(_traces(rows, "mse")):
        if len(mse) and np.isfinite(mse).all():
            steps = np.diff(np.log(np.maximum(mse, np.finfo(float).tiny)))
            found[place] = steps[steps > 0].sum()
    return found


def _traces(rows: pd.DataFrame, quantity: str) -> pd.Series:
    if f"trace_{quantity}" not in rows:
        raise NotMeasuredError(f"there are no records of traces of the {quantity}")
    return rows[f"trace_{quantity}"]


# Rows


def some(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """The table as it is; or :class:`NotMeasuredError` if it has no rows of ``what``."""
    if not len(table):
        raise NotMeasuredError(f"there are no records of {what}")
    return table


def of_method(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of one method, of which there must be some."""
    some(table, "attacks")
    return some(table[table["method"] == name], name)
