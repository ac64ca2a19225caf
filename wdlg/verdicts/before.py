"""Measures of tests that were changed: they decide nothing any more, and stand beside those that do.

``claims.yaml`` has them under "history", with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from wdlg.study.statistics import quartiles, share
from wdlg.verdicts.claims import CONDITION, FAILED, REPRODUCED
from wdlg.verdicts.comparison import NotMeasuredError, of_method, some, successes
from wdlg.verdicts.on_labels import usual
from wdlg.verdicts.result import Records, Result
from wdlg.verdicts.wording import listed, shares_in, titles, values, words


def label_accuracy_if_zero(records: Records, *, activations: Sequence[str]) -> Result:
    """Is every label read right, or its gradient exactly zero?"""
    table = usual(some(records.labels, "label rules"))
    table = table[table["rule"] == "bias_sign"]
    judged = some(table[table["activation"].isin(activations)], f"{words(activations)} networks")
    missed = judged[~judged["correct"]]
    all_zero = bool((missed["largest_bias_gradient"] == 0).all())
    verdict = REPRODUCED if not len(missed) else CONDITION if all_zero else FAILED
    shares = {
        str(name): share(int(rows["correct"].sum()), len(rows)) for name, rows in table.groupby("activation")
    }
    return Result(
        verdict,
        "; ".join(f"{name} {one.percent()} of {one.runs:,}" for name, one in shares.items()),
        "the gradient must not be exactly zero in the precision sent" if verdict == CONDITION else "",
    )


def label_cost_of_all(records: Records, *, fewer_steps: float, time_share: float) -> Result:
    """Steps and time of WDLG's rule against iDLG's, with the times of all data sets together."""
    table = usual(some(records.labels, "label rules"))
    steps = table.groupby(["rule", "dataset"])["steps"].mean()
    least = float((steps["row_sum"] / steps["bias_sign"]).min())
    seconds = table.groupby("rule")["seconds"].median()
    ratio = float(seconds["bias_sign"] / seconds["row_sum"])
    fewer, faster = least >= fewer_steps, ratio <= time_share
    return Result(
        REPRODUCED if fewer and faster else CONDITION if fewer else FAILED,
        f"at least {least:,.0f} times fewer steps; median time {1e6 * seconds['bias_sign']:.0f} µs against "
        f"{1e6 * seconds['row_sum']:.0f} µs",
        "in steps, hardly in time" if fewer and not faster else "",
        {"fewer_steps": least, "time_ratio": ratio},
    )


def dlg_labels_of_main(records: Records, *, often: float) -> Result:
    """Does DLG miss labels, on networks with ten images each?"""
    shares = shares_in(of_method(records.attacks, "DLG"), "label_correct")
    wrong = [name for name, one in shares.items() if one.high < 1 - often]
    verdict = REPRODUCED if len(wrong) == len(shares) else CONDITION if wrong else FAILED
    return Result(
        verdict, listed(shares), f"on {titles(wrong)}" if verdict == CONDITION else "", values(shares)
    )


def large_rates_by_half(
    records: Records, *, method: str, opponents: Sequence[str], works: float, budget: int
) -> Result:
    """Up to which learning rate does each method recover a share of the images?"""
    table = _with_budget(records, budget)
    table = table.assign(success=successes(table))
    largest: dict[str, dict[str, float]] = {}
    for optimizer, rows in table.groupby("optimizer"):
        shares = rows.pivot_table("success", "learning_rate", "method", aggfunc="mean")
        for name in (method, *opponents):
            if name not in shares or shares[name].isna().any():
                raise NotMeasuredError(f"there are no records of {name} with {optimizer} at some rates")
        largest[str(optimizer)] = {
            name: float(max(shares.index[shares[name] >= works], default=0.0))
            for name in (method, *opponents)
        }
    won = [
        optimizer
        for optimizer, rates in largest.items()
        if rates[method] > max(rates[opponent] for opponent in opponents)
    ]
    verdict = REPRODUCED if len(won) == len(largest) else CONDITION if won else FAILED
    return Result(
        verdict,
        "; ".join(
            f"{optimizer}: "
            + ", ".join(f"{name} {rate:g}" if rate else f"{name} at none" for name, rate in rates.items())
            for optimizer, rates in largest.items()
        ),
        f"with {words(won)}" if verdict == CONDITION else "",
        largest,
    )


def rate_threshold(records: Records, *, method: str, fall: float, budget: int) -> Result:
    """Is a larger rate better by the median MSE, up to a threshold?"""
    table = of_method(_with_budget(records, budget), method)
    shown, held = {}, []
    for optimizer, rows in table.groupby("optimizer"):
        medians = rows.groupby("learning_rate")["mse"].agg(lambda mse: float(quartiles(mse)[1]))
        best = int(np.argmin(medians.to_numpy()))
        rising = medians.iloc[: best + 1]
        shown[str(optimizer)] = {f"{rate:g}": float(value) for rate, value in medians.items()}
        if (
            0 < best < len(medians) - 1
            and rising.is_monotonic_decreasing
            and rising.iloc[-1] <= fall * rising.iloc[0]
        ):
            held.append(str(optimizer))
    verdict = REPRODUCED if len(held) == len(shown) else CONDITION if held else FAILED
    return Result(
        verdict,
        "; ".join(
            f"{optimizer}, median MSE: "
            + ", ".join(f"{value:.2g} at {rate}" for rate, value in medians.items())
            for optimizer, medians in shown.items()
        ),
        f"with {words(held)}" if verdict == CONDITION else "",
        shown,
    )


def _with_budget(records: Records, budget: int) -> pd.DataFrame:
    table = some(records.rates, "runs at several learning rates")
    return some(
        table[table["budget"] == budget], f"runs with {budget:,} evaluations at several learning rates"
    )
