"""What runs add up to, as a table for a page."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from wdlg.evaluation import SUCCESS_THRESHOLDS, SUCCESS_TITLE, recovered
from wdlg.study.statistics import quartiles

CLOSER = SUCCESS_THRESHOLDS[2]
"""A second MSE below which runs are counted."""


def summarise_runs(records: pd.DataFrame, by: Sequence[str] = ("dataset", "method")) -> pd.DataFrame:
    """Counts and averages over runs, one row for each combination of the columns ``by``.

    Every run counts, however it ended; the median is the lower one, so that infinite errors do not turn it
    into something that is not a number.

    Args:
        records: those of a :class:`wdlg.study.paired.Outcome`.
        by: columns to group by.

    Returns:
        The columns ``by``, then runs, MSE < 0.01, MSE < 0.001, median MSE, exploded, stalled, labels right,
        evaluations and seconds (means).
    """
    flagged = records.assign(
        recovered=recovered(records["mse"]),
        closer=records["mse"] < CLOSER,
        stalled=records["status"] == "stalled",
    )
    table = flagged.groupby(list(by), sort=False).agg(
        runs=("mse", "size"),
        recovered=("recovered", "sum"),
        closer=("closer", "sum"),
        median=("mse", lambda mse: float(quartiles(mse)[1])),
        exploded=("exploded", "sum"),
        stalled=("stalled", "sum"),
        labels=("label_correct", "sum"),
        evaluations=("evaluations", "mean"),
        seconds=("seconds", "mean"),
    )
    names = {
        "recovered": SUCCESS_TITLE,
        "closer": f"MSE < {CLOSER:g}",
        "median": "median MSE",
        "labels": "labels right",
        "evaluations": "evaluations (mean)",
        "seconds": "seconds (mean)",
    }
    return table.reset_index().rename(columns=names)


FORMATS = {
    "median MSE": "{:.2g}",
    "evaluations (mean)": "{:.0f}",
    "seconds (mean)": "{:.2f}",
    "learning_rate": "{:g}",
}
"""How the columns of the table are written on a page."""


def paired_outcomes(records: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """What came of two methods on the same cases: both recovered the image, one of them, or none.

    Args:
        records: of attacks, with the columns dataset, network, case, method, mse and pictures.
        first, second: names of methods; cases that only one of them met are left out.

    Returns:
        A row for each outcome that happened, the most frequent first: outcome (in words), count, cases (of
        all outcomes), and dataset, network, case of the first case for which both have stored pictures (None
        where there is none).
    """
    key = ["dataset", "network", "case"]
    both = records[records["method"].isin([first, second])]
    good = both.assign(good=recovered(both["mse"])).pivot_table("good", key, "method", sort=False)
    shown = both.assign(shown=both["pictures"].map(len) > 0).pivot_table("shown", key, "method", sort=False)
    if not {first, second} <= set(good.columns):
        return pd.DataFrame(columns=["outcome", "count", "cases", *key])
    good = good[[first, second]].dropna().astype(bool)
    rows = []
    for one, two, words in (
        (True, True, "both"),
        (True, False, f"{first} alone"),
        (False, True, f"{second} alone"),
        (False, False, "neither"),
    ):
        cases = good.index[(good[first] == one) & (good[second] == two)]
        pictured = [case for case in cases if shown.loc[case].all()]
        if len(cases):
            place = pictured[0] if pictured else (None, None, None)
            rows.append((words, len(cases), len(good), *place))
    rows.sort(key=lambda row: -row[1])
    return pd.DataFrame(rows, columns=["outcome", "count", "cases", *key])
