"""The paper's claims, each with the test that decides it in a run of the book.

The tests were fixed before the book's runs, after pilots of at most 32 images. A verdict speaks of the
runs at hand and no further: with the few runs of the quick profile most intervals are wide, and "undecided"
is a common and honest answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from wdlg.study.statistics import mcnemar, share

HELD = "held"
CONDITION = "held with a condition"
FAILED = "did not hold"
UNDECIDED = "undecided"

SUCCESS_MSE = 1e-2
"""A run succeeded if its last MSE is below this (the loosest threshold of iDLG's Figure 1)."""

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Verdict:
    """What a run says about a claim.

    Attributes:
        claim: the paper's claim in our words.
        test: what decides it.
        verdict: one of the four words of this module.
        numbers: what was measured, as text.
    """

    claim: str
    test: str
    verdict: str
    numbers: str


def label_accuracy(labels: pd.DataFrame) -> Verdict:
    """Claim: the sign of the bias gradient gives the label in 100 % of cases.

    Args:
        labels: rows of :func:`wdlg.study.compare_rules` for several activations; columns rule, activation,
            correct.
    """
    rows = labels[labels["rule"] == "bias_sign"]
    sigmoid = rows[rows["activation"] == "sigmoid"]["correct"]
    every = share(int(rows["correct"].sum()), len(rows))
    main = share(int(sigmoid.sum()), len(sigmoid))
    without_misses = main.successes == main.runs
    verdict = HELD if every.successes == every.runs else CONDITION if without_misses else FAILED
    return Verdict(
        "WDLG recovers the label with 100 % accuracy.",
        "Every label right with sigmoid; a condition if another activation has misses.",
        verdict,
        f"sigmoid {main.percent()} of {main.runs}; all activations {every.percent()} of {every.runs}",
    )


def label_cost(labels: pd.DataFrame) -> Verdict:
    """Claim: WDLG's rule needs fewer steps than iDLG's, K against K x M."""
    steps = labels.groupby("rule")["steps"].mean()
    seconds = labels.groupby("rule")["seconds"].median()
    fewer = steps["bias_sign"] < steps["row_sum"]
    faster = seconds["bias_sign"] < seconds["row_sum"]
    return Verdict(
        "WDLG's label rule is cheaper than iDLG's.",
        "Fewer steps, and less time in the median; a condition if only the steps are fewer.",
        HELD if fewer and faster else CONDITION if fewer else FAILED,
        f"{steps['row_sum'] / steps['bias_sign']:,.0f} times fewer steps; median time "
        f"{1e6 * seconds['bias_sign']:.0f} µs against {1e6 * seconds['row_sum']:.0f} µs",
    )


def dlg_labels(records: pd.DataFrame) -> Verdict:
    """Claim: DLG often gets the label wrong."""
    correct = records[records["method"] == "DLG"]["label_correct"]
    one = share(int(correct.sum()), len(correct))
    return Verdict(
        "DLG often recovers a wrong label.",
        "The 95 % interval of DLG's label accuracy lies below 100 %, with at least one miss.",
        HELD if one.successes < one.runs else UNDECIDED,
        f"DLG {one.percent()} of {one.runs} runs",
    )


def success(records: pd.DataFrame) -> Verdict:
    """Claim: WDLG succeeds more often than iDLG (and so has the lower MSE at equal iterations)."""
    first, second = (_success(records, method) for method in ("WDLG", "iDLG"))
    return Verdict(
        "WDLG recovers more images than iDLG.",
        f"McNemar's exact test on runs with MSE below {SUCCESS_MSE:g}, 5 % level, paired cases.",
        _compare(first, second),
        _paired_numbers(first, second),
    )


def lower_error(records: pd.DataFrame) -> Verdict:
    """Claim: WDLG has the lower MSE at equal iterations."""
    first, second = (
        records[records["method"] == method].sort_values(["dataset", "case"])["mse"].to_numpy()
        for method in ("WDLG", "iDLG")
    )
    lower, higher = first < second, second < first
    return Verdict(
        "WDLG's images have a lower MSE than iDLG's at equal iterations.",
        "Sign test on the paired last MSEs, 5 % level.",
        _compare(lower, higher),
        f"lower for WDLG in {lower.sum()} of {len(first)} pairs; median MSE {np.median(first):.2g} against "
        f"{np.median(second):.2g}",
    )


def explosions(records: pd.DataFrame) -> Verdict:
    """Claim: WDLG does not explode where DLG and iDLG do.

    A method whose image hardly moves cannot explode, so few explosions count only beside successes.
    """
    exploded = {
        str(method): rows.sort_values(["dataset", "case"])["exploded"].to_numpy()
        for method, rows in records.groupby("method")
    }
    successes = _success(records, "WDLG").sum()
    fewer = _compare(~exploded["WDLG"], ~exploded["iDLG"])
    return Verdict(
        'WDLG solves the "exploding gradient".',
        "McNemar's exact test on exploded runs against iDLG; a condition if WDLG succeeds in under half of "
        "its runs.",
        CONDITION if fewer == HELD and successes < len(exploded["WDLG"]) / 2 else fewer,
        "; ".join(f"{method} {int(flags.sum())} of {len(flags)}" for method, flags in exploded.items())
        + f" exploded; WDLG succeeded in {successes}",
    )


def large_rates(records: pd.DataFrame) -> Verdict:
    """Claim: WDLG supports larger learning rates than DLG and iDLG.

    Args:
        records: of runs at several rates, with a column learning_rate.
    """
    best = {}
    for method, rows in records.groupby("method"):
        shares = rows.groupby("learning_rate")["mse"].apply(lambda mse: (mse < SUCCESS_MSE).mean())
        working = shares[shares >= 0.5]
        best[str(method)] = float(working.index.max()) if len(working) else 0.0
    others = max(rate for method, rate in best.items() if method != "WDLG")
    decided = HELD if best["WDLG"] > others else FAILED
    verdict = UNDECIDED if best["WDLG"] == others else decided
    return Verdict(
        "WDLG works at learning rates at which DLG and iDLG fail.",
        f"Largest rate at which at least half of the runs end below an MSE of {SUCCESS_MSE:g}.",
        verdict,
        "; ".join(f"{method} {rate:g}" if rate else f"{method} none" for method, rate in best.items()),
    )


def table(verdicts: list[Verdict]) -> pd.DataFrame:
    """The verdicts as a table for a page."""
    return pd.DataFrame(
        {
            "The paper claims": [one.claim for one in verdicts],
            "Test": [one.test for one in verdicts],
            "In this run": [one.verdict for one in verdicts],
            "Numbers": [one.numbers for one in verdicts],
        }
    )


def _success(records: pd.DataFrame, method: str) -> np.ndarray:
    """Which cases of a method succeeded, in the order of data set and case."""
    rows = records[records["method"] == method].sort_values(["dataset", "case"])
    return rows["mse"].to_numpy() < SUCCESS_MSE


def _compare(first: np.ndarray, second: np.ndarray) -> str:
    """HELD if the first method is significantly better, FAILED if the second is, otherwise UNDECIDED."""
    if mcnemar(first, second) >= SIGNIFICANCE:
        return UNDECIDED
    return HELD if first.sum() > second.sum() else FAILED


def _paired_numbers(first: np.ndarray, second: np.ndarray) -> str:
    return (
        f"WDLG {share(int(first.sum()), len(first)).percent()}, "
        f"iDLG {share(int(second.sum()), len(second)).percent()} of {len(first)} pairs; "
        f"p = {mcnemar(first, second):.2g}"
    )
