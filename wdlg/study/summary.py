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
