"""The measures that decide claims: each turns records into a verdict with its numbers.

``claims.yaml`` names them by the keys of :data:`MEASURES`, and holds their thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from wdlg import data
from wdlg.study.statistics import Share, quartiles, share, share_by_network
from wdlg.verdicts.claims import CONDITION, FAILED, REPRODUCED, UNDECIDED, UNTESTABLE, rules
from wdlg.verdicts.comparison import (
    ALL,
    Comparison,
    NotMeasuredError,
    compare_all,
    compare_overall,
    of_method,
    pooled,
    some,
    successes,
    units_of,
)


@dataclass(frozen=True)
class Records:
    """What the verdicts are computed from; empty tables where nothing was run.

    Attributes:
        attacks: rows of :meth:`wdlg.study.store.Store.read`, or the records of a
            :class:`wdlg.study.paired.Outcome`.
        second: the same of a second final comparison, after a second search for the strongest loss.
        rates: the same at several learning rates, with the columns optimizer and learning_rate.
        labels: rows of :func:`wdlg.study.labels.compare_rules`, with the columns dataset and activation.
    """

    attacks: pd.DataFrame = field(default_factory=pd.DataFrame)
    second: pd.DataFrame = field(default_factory=pd.DataFrame)
    rates: pd.DataFrame = field(default_factory=pd.DataFrame)
    labels: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Result:
    """What a measure found.

    Attributes:
        verdict: one of ``VERDICTS``.
        condition: in words, where the verdict has one; why, where it is undecided.
        summary: the numbers in one line of text.
        numbers: the numbers by name, for machines.
        interval: the 95 % interval of the number that decides most, or None.
    """

    verdict: str
    summary: str
    condition: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    interval: tuple[float, float] | None = None


TOO_FEW = "too few networks to decide"


# Labels


def label_accuracy(records: Records, *, activations: list[str]) -> Result:
    """Is every label read right?"""
    table = some(records.labels, "label rules")
    table = table[table["rule"] == "bias_sign"]
    shares = {
        str(name): share(int(rows["correct"].sum()), len(rows)) for name, rows in table.groupby("activation")
    }
    judged = some(table[table["activation"].isin(activations)], f"{_words(activations)} networks")
    missed = judged[~judged["correct"]]
    all_zero = bool((missed["largest_bias_gradient"] == 0).all())
    total = share(int(judged["correct"].sum()), len(judged))
    verdict = REPRODUCED if not len(missed) else CONDITION if all_zero else FAILED
    undecided = int((missed["label_recovered"] < 0).sum())
    return Result(
        verdict,
        "; ".join(f"{name} {one.percent()} of {one.runs:,}" for name, one in shares.items())
        + (f"; in {undecided} of {len(missed)} misses no entry is negative" if len(missed) else ""),
        "the gradient must not be exactly zero in the precision sent" if verdict == CONDITION else "",
        {name: one.value for name, one in shares.items()}
        | {"missed": len(missed), "missed_without_negative_entry": undecided},
        (total.low, total.high),
    )


def label_cost(records: Records, *, fewer_steps: float, time_share: float) -> Result:
    """Steps and time of WDLG's rule against iDLG's."""
    table = some(records.labels, "label rules")
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


def dlg_labels(records: Records, *, often: float) -> Result:
    """Does DLG miss labels?"""
    shares = _shares(of_method(records.attacks, "DLG"), "label_correct")
    wrong = [name for name, one in shares.items() if one.high < 1 - often]
    contradicted = any(one.low >= 1 - often for one in shares.values())
    verdict, condition = FAILED, ""
    if len(wrong) == len(shares):
        verdict = REPRODUCED
    elif wrong:
        verdict, condition = CONDITION, f"on {_titles(wrong)}"
    elif _few(shares.values()) and not contradicted:
        verdict, condition = UNDECIDED, TOO_FEW
    return Result(verdict, _list_shares(shares), condition, _values(shares))


# Losses, errors, success


def lower_loss(records: Records) -> Result:
    """How far each loss fell: not a comparison, since the losses are different quantities."""
    table = some(records.attacks, "attacks")
    # A run without a loss did not fall; pandas would leave it out.
    fall = (table["loss"] / table["loss_first"]).fillna(np.inf).groupby(table["method"]).median()
    return Result(
        UNTESTABLE,
        "median loss at the end as a share of its start: "
        + ", ".join(f"{name} {value:.1e}" for name, value in fall.items()),
        "the losses are different quantities in different units",
        {str(name): float(value) for name, value in fall.items()},
    )


def paired(records: Records, *, score: str, method: str, opponents: list[str]) -> Result:
    """One method against others, case by case, on every data set."""
    comparisons = compare_all(records.attacks, score, method, opponents)
    better = [key for key, one in comparisons.items() if one.significant and one.mean > 0]
    worse = [key for key, one in comparisons.items() if one.significant and one.mean < 0]
    few = _few(comparisons.values())
    condition = ""
    absent = _without(records.attacks, method)
    if len(better) == len(comparisons):
        verdict = CONDITION if absent else REPRODUCED
        condition = f"not measured on {_titles(absent)}" if absent else ""
    elif better:
        where = "; ".join(f"on {_title(one)} against {two}" for one, two in better)
        verdict, condition = CONDITION, f"only {where}"
    elif few and not worse:
        verdict, condition = UNDECIDED, TOO_FEW
    else:
        verdict = FAILED
        condition = f"significantly worse in {len(worse)} of {len(comparisons)} comparisons" if worse else ""
        if absent:
            condition = "; ".join(filter(None, (condition, f"not measured on {_titles(absent)}")))
    middle = float(np.mean([one.mean for one in comparisons.values()]))
    together = pooled(records.attacks, score, method, opponents[-1])
    return Result(
        verdict,
        "; ".join(f"{_title(one)} against {two} {value.text()}" for (one, two), value in comparisons.items()),
        condition,
        {f"{one}/{two}": value.as_json() for (one, two), value in comparisons.items()} | {"mean": middle},
        (together.low, together.high),
    )


def no_explosion(records: Records, *, method: str, rarely: float, recovers: float) -> Result:
    """Does the method hardly ever explode, while it recovers images?"""
    table = some(records.attacks, "attacks")
    rows = of_method(table, method)
    exploded = _shares(rows, "exploded")
    success = _shares(rows.assign(success=successes(rows)), "success")
    calm = [name for name, one in exploded.items() if one.high < rarely]
    good = [name for name in calm if success[name].value >= recovers]
    contradicted = any(one.low >= rarely for one in exploded.values())
    # An interval may be too wide for the claim whatever happens: then nothing else than its width speaks.
    possible = any(share(0, one.networks).high < rarely for one in exploded.values())
    verdict, condition = FAILED, ""
    if len(good) == len(exploded):
        verdict = REPRODUCED
    elif calm:
        verdict = CONDITION
        condition = f"on {_titles(calm)}, where it recovers " + ", ".join(
            f"{100 * success[name].value:.0f} %" for name in calm
        )
    elif not possible and not contradicted:
        verdict, condition = UNDECIDED, TOO_FEW
    others = {str(name): _share(part, "exploded").percent() for name, part in table.groupby("method")}
    return Result(
        verdict,
        f"{method} exploded: {_list_shares(exploded)}; all data sets: "
        + ", ".join(f"{name} {text}" for name, text in others.items()),
        condition,
        _values(exploded),
    )


def fidelity(records: Records, *, method: str, dataset: str, mse: float, share: float) -> Result:
    """How many images of one data set come very close?"""
    rows = of_method(records.attacks, method)
    rows = some(rows[rows["dataset"] == dataset], dataset)
    one = _share(rows.assign(close=rows["mse"] < mse), "close")
    median = float(quartiles(rows["mse"])[1])
    undecided = one.low < share <= one.high and _few([one])
    return Result(
        REPRODUCED if one.low >= share else UNDECIDED if undecided else FAILED,
        f"{one.percent()} of {one.runs} runs below {mse:g}; median MSE {median:.2g}",
        TOO_FEW if undecided else "",
        numbers={"share": one.value, "median_mse": median},
        interval=(one.low, one.high),
    )


def strongest(records: Records, *, method: str, opponent: str, final: str = "attacks") -> Result:
    """Does a loss beat iDLG in success and in explosions, in its final comparison (a table of records)?"""
    table = getattr(records, final)
    gains = {"success": "more success", "calm": "fewer explosions"}
    words = {"success": "success", "calm": "explosions avoided"}
    family = compare_overall(table, list(gains), method, opponent)
    results = {
        score: {name: one for (by, name), one in family.items() if by == score and name != ALL}
        for score in gains
    }
    together = {score: family[score, ALL] for score in gains}
    won = {
        score: [name for name, one in found.items() if one.significant and one.mean > 0]
        for score, found in results.items()
    }
    if all(len(won[score]) == len(found) for score, found in results.items()):
        verdict, condition = REPRODUCED, ""
    else:
        conditions = [f"{gain} on {_titles(won[score])}" for score, gain in gains.items() if won[score]]
        conditions += [
            f"{gain} over all data sets together"
            for score, gain in gains.items()
            if together[score].significant and together[score].mean > 0
        ]
        lost = any(one.significant and one.mean < 0 for one in family.values())
        if conditions:
            verdict, condition = CONDITION, "; ".join(conditions)
        elif _few(family.values()) and not lost:
            verdict, condition = UNDECIDED, TOO_FEW
        else:
            verdict, condition = FAILED, ""
    return Result(
        verdict,
        "; ".join(
            f"{words[score]}, all data sets {together[score].text()} ("
            + ", ".join(f"{_title(name)} {one.text()}" for name, one in results[score].items())
            + ")"
            for score in gains
        ),
        condition,
        {
            score: {name: one.as_json() for name, one in found.items()} | {ALL: together[score].as_json()}
            for score, found in results.items()
        },
        (together["success"].paired.low, together["success"].paired.high),
    )


# Learning rates


def large_rates(records: Records, *, method: str, opponents: list[str], works: float) -> Result:
    """Up to which learning rate does each method work?"""
    table = some(records.rates, "runs at several learning rates")
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
        f"with {_words(won)}" if verdict == CONDITION else "",
        largest,
    )


def rate_threshold(records: Records, *, method: str, fall: float) -> Result:
    """Is a larger rate better, up to a threshold?"""
    table = of_method(records.rates, method)
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
        f"with {_words(held)}" if verdict == CONDITION else "",
        shown,
    )


MEASURES: dict[str, Callable[..., Result]] = {
    "label_accuracy": label_accuracy,
    "label_cost": label_cost,
    "dlg_labels": dlg_labels,
    "lower_loss": lower_loss,
    "paired": paired,
    "no_explosion": no_explosion,
    "fidelity": fidelity,
    "strongest": strongest,
    "large_rates": large_rates,
    "rate_threshold": rate_threshold,
}
"""The functions that decide claims, by the name that ``claims.yaml`` uses."""


# In words


def _without(table: pd.DataFrame, method: str) -> list[str]:
    """Data sets on which a method has no record."""
    return [
        str(name) for name, rows in table.groupby("dataset", sort=False) if method not in set(rows["method"])
    ]


def _few(found: Iterable[Share | Comparison]) -> bool:
    """Is one of several shares or comparisons of fewer networks than decide anything?"""
    return min(one.networks for one in found) < rules()["fewest_networks"]


def _share(rows: pd.DataFrame, column: str) -> Share:
    """Share of a yes-or-no column; a network of one data set is one unit."""
    return share_by_network(rows[column].to_numpy(dtype=bool), units_of(rows))


def _shares(rows: pd.DataFrame, column: str) -> dict[str, Share]:
    """Share of a yes-or-no column on each data set."""
    return {str(name): _share(part, column) for name, part in rows.groupby("dataset", sort=False)}


def _list_shares(shares: Mapping[str, Share]) -> str:
    return "; ".join(f"{_title(name)} {one.percent()} of {one.runs}" for name, one in shares.items())


def _values(shares: Mapping[str, Share]) -> dict[str, Any]:
    return {name: {"share": one.value, "low": one.low, "high": one.high} for name, one in shares.items()}


def _title(dataset: str) -> str:
    """How a reader knows a data set."""
    return data.CATALOGUE[dataset].title if dataset in data.CATALOGUE else dataset


def _titles(datasets: list[str]) -> str:
    return _words([_title(name) for name in datasets])


def _words(names: list[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1] if names else "none"
