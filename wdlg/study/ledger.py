"""The claims ledger: a verdict for each claim of the paper, computed from records.

The claims, the tests that decide them and their thresholds stand in ``claims.yaml`` beside this file. Each
names one function of :data:`MEASURES`, which turns records into a :class:`Result`. Nothing is typed by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
import yaml

from wdlg import data
from wdlg.study.specification import AttackCell, LabelCell, Study
from wdlg.study.statistics import Paired, Share, holm, mcnemar, paired_by_network, share
from wdlg.study.store import Store

REPRODUCED = "reproduced"
CONDITION = "reproduced with a condition"
FAILED = "not reproduced"
UNTESTABLE = "cannot be tested from the paper"
UNDECIDED = "undecided"
VERDICTS = (REPRODUCED, CONDITION, FAILED, UNTESTABLE, UNDECIDED)


@dataclass(frozen=True)
class Records:
    """What the verdicts are computed from; empty tables where nothing was run.

    Attributes:
        attacks: rows of :meth:`wdlg.study.store.Store.read`, or of :attr:`wdlg.study.Outcome.records`.
        rates: the same at several learning rates, with the columns optimizer and learning_rate.
        labels: rows of :func:`wdlg.study.compare_rules`, with the columns dataset and activation.
    """

    attacks: pd.DataFrame = field(default_factory=pd.DataFrame)
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


@dataclass(frozen=True)
class Entry:
    """A claim with its verdict.

    Attributes:
        id, section, claim, test: as in ``claims.yaml``.
        figure: the page with the figure.
        command: what repeats the numbers.
        result: the verdict and its numbers.
    """

    id: str
    section: str
    claim: str
    test: str
    figure: str
    command: str
    result: Result

    def as_json(self) -> dict[str, Any]:
        """For ``wdlg study report --json``."""
        return {
            "id": self.id,
            "claim": self.claim,
            "section": self.section,
            "test": self.test,
            "verdict": self.result.verdict,
            "condition": self.result.condition,
            "summary": self.result.summary,
            "numbers": dict(self.result.numbers),
            "interval": None if self.result.interval is None else list(self.result.interval),
            "figure": self.figure,
            "command": self.command,
        }


@cache
def rules() -> dict[str, Any]:
    """The content of ``claims.yaml``: level, success_mse, fewest_networks, claims."""
    return yaml.safe_load(files("wdlg.study").joinpath("claims.yaml").read_text(encoding="utf-8"))


def ledger(records: Records, *, command: str) -> list[Entry]:
    """The verdict of every claim.

    Args:
        records: what to judge. A claim that they say nothing about is undecided.
        command: what repeats them.
    """
    entries = []
    for claim in rules()["claims"]:
        try:
            result = MEASURES[claim["measure"]](records, **claim.get("settings", {}))
        except NotMeasuredError as error:
            result = Result(UNDECIDED, "not measured here", condition=str(error))
        texts = {name: claim[name] for name in ("id", "section", "claim", "test", "figure")}
        entries.append(Entry(**texts, command=command, result=result))
    return entries


def as_table(entries: list[Entry]) -> pd.DataFrame:
    """The ledger as a table for a page."""
    return pd.DataFrame(
        {
            "The paper claims": [entry.claim for entry in entries],
            "Section": [entry.section for entry in entries],
            "Test": [entry.test for entry in entries],
            "Verdict": [_with_condition(entry.result) for entry in entries],
            "Numbers": [entry.result.summary for entry in entries],
        }
    )


def _with_condition(result: Result) -> str:
    return f"{result.verdict}: {result.condition}" if result.condition else result.verdict


def gain_table(attacks: pd.DataFrame, method: str, opponent: str) -> pd.DataFrame:
    """Paired gain of one method over another, for each data set and for all together.

    Returns:
        Columns dataset, networks, cases, and for success and calm (no explosion) the mean gain with its
        interval, and the p-value of the sign-flip test over networks, not corrected.
    """
    both = attacks[attacks["method"].isin([method, opponent])]
    tables = {
        str(name): rows for name, rows in both.groupby("dataset", sort=False) if rows["method"].nunique() == 2
    }
    if not tables:
        raise NotMeasuredError(f"there are no records of {method} beside {opponent}")
    tables["all together"] = pd.concat(list(tables.values()))
    rows = []
    for name, table in tables.items():
        results = {score: _pooled(table, score, method, opponent) for score in ("success", "calm")}
        row: dict[str, object] = {
            "dataset": name,
            "networks": results["success"].networks,
            "cases": results["success"].cases,
        }
        for score, one in results.items():
            row |= {f"gain in {score}": one.text(), f"p ({score})": f"{one.p:.2g}"}
        rows.append(row)
    return pd.DataFrame(rows)


def ground(
    attacks: pd.DataFrame,
    published: Mapping[str, Mapping[str, Mapping[float, float]]],
    *,
    reading_error: float = 0.02,
) -> pd.DataFrame:
    """Our success beside published success: is the ground of the comparison sound?

    Args:
        attacks: records.
        published: share of successful runs by data set, method and MSE threshold.
        reading_error: of the published share, which was read off a plot.

    Returns:
        One row for each data set and method that both have: dataset, method, runs, here (mean over networks),
        interval (bootstrap over networks), published, agrees (the published share, give or take its reading
        error, lies within the interval).
    """
    rows = []
    for dataset, methods in published.items():
        for method, points in methods.items():
            runs = attacks[(attacks["dataset"] == dataset) & (attacks["method"] == method)]
            said = points[rules()["success_mse"]]
            if len(runs):
                ours = paired_by_network(_success(runs).to_numpy(dtype=float), runs["network"].to_numpy())
                rows.append(
                    {
                        "dataset": dataset,
                        "method": method,
                        "runs": len(runs),
                        "here": f"{100 * ours.mean:.0f} %",
                        "interval": f"{100 * ours.low:.0f} to {100 * ours.high:.0f} %",
                        "published": f"{100 * said:.0f} %",
                        "agrees": ours.low - reading_error <= said <= ours.high + reading_error,
                    }
                )
    return pd.DataFrame(rows)


def from_store(study: Study, store: Store, *, command: str | None = None) -> list[Entry]:
    """The ledger of a study's stored records.

    The part *main* speaks of attacks, the parts with several learning rates of these, the parts with label
    rules of labels. Other parts decide no claim.

    Args:
        study: the study.
        store: its records.
        command: that repeats the measurements; None for that of a study in ``studies``.
    """
    command = command or f"wdlg study run studies/{study.name}.yaml"
    rates = [cell for cell in study.cells if isinstance(cell, AttackCell) and cell.rate is not None]
    labels = [cell for cell in study.cells if isinstance(cell, LabelCell)]
    tables = (store.read_all(cells) for cells in (study.part("main"), rates, labels))
    return ledger(Records(*tables), command=command)


class NotMeasuredError(Exception):
    """The records say nothing about a claim; the message says what is missing."""


# Labels


def label_accuracy(records: Records, *, activations: list[str]) -> Result:
    """Is every label read right?"""
    table = _some(records.labels, "label rules")
    table = table[table["rule"] == "bias_sign"]
    shares = {
        str(name): share(int(rows["correct"].sum()), len(rows)) for name, rows in table.groupby("activation")
    }
    judged = table[table["activation"].isin(activations)]
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
    table = _some(records.labels, "label rules")
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
    shares = _shares(_method(records.attacks, "DLG"), "label_correct")
    wrong = [name for name, one in shares.items() if one.high < 1 - often]
    verdict = REPRODUCED if len(wrong) == len(shares) else CONDITION if wrong else FAILED
    return Result(
        verdict,
        _list_shares(shares),
        f"on {_titles(wrong)}" if verdict == CONDITION else "",
        _values(shares),
    )


# Losses, errors, success


def lower_loss(records: Records) -> Result:
    """How far each loss fell: not a comparison, since the losses are different quantities."""
    table = _some(records.attacks, "attacks")
    fall = (table["loss"] / table["loss_first"]).groupby(table["method"]).median()
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
    few = min(one.networks for one in comparisons.values()) < rules()["fewest_networks"]
    condition = ""
    absent = _without(records.attacks, method)
    if len(better) == len(comparisons):
        verdict = CONDITION if absent else REPRODUCED
        condition = f"not measured on {_titles(absent)}" if absent else ""
    elif better:
        where = "; ".join(f"on {_title(one)} against {two}" for one, two in better)
        verdict, condition = CONDITION, f"only {where}"
    elif few and not worse:
        verdict, condition = UNDECIDED, "too few networks to decide"
    else:
        verdict = FAILED
        condition = f"significantly worse in {len(worse)} of {len(comparisons)} comparisons" if worse else ""
        if absent:
            condition = "; ".join(filter(None, (condition, f"not measured on {_titles(absent)}")))
    middle = float(np.mean([one.mean for one in comparisons.values()]))
    return Result(
        verdict,
        "; ".join(f"{_title(one)} against {two} {value.text()}" for (one, two), value in comparisons.items()),
        condition,
        {f"{one}/{two}": value.as_json() for (one, two), value in comparisons.items()} | {"mean": middle},
        _pooled_interval(records.attacks, score, method, opponents),
    )


def no_explosion(records: Records, *, method: str, rarely: float, recovers: float) -> Result:
    """Does the method hardly ever explode, while it recovers images?"""
    table = _some(records.attacks, "attacks")
    rows = _method(table, method)
    exploded = _shares(rows, "exploded")
    success = _shares(rows.assign(success=_success(rows)), "success")
    calm = [name for name, one in exploded.items() if one.high < rarely]
    good = [name for name in calm if success[name].value >= recovers]
    verdict = REPRODUCED if len(good) == len(exploded) else CONDITION if calm else FAILED
    condition = ""
    if verdict == CONDITION:
        condition = f"on {_titles(calm)}, where it recovers " + ", ".join(
            f"{100 * success[name].value:.0f} %" for name in calm
        )
    others = {
        str(name): share(int(part["exploded"].sum()), len(part)).percent()
        for name, part in table.groupby("method")
    }
    return Result(
        verdict,
        f"{method} exploded: {_list_shares(exploded)}; all data sets: "
        + ", ".join(f"{name} {text}" for name, text in others.items()),
        condition,
        _values(exploded),
    )


def fidelity(records: Records, *, method: str, dataset: str, mse: float, share: float) -> Result:
    """How many images of one data set come very close?"""
    rows = _method(records.attacks, method)
    rows = _some(rows[rows["dataset"] == dataset], dataset)
    one = _share(rows["mse"] < mse)
    median = float(rows["mse"].quantile(0.5, interpolation="lower"))
    return Result(
        REPRODUCED if one.low >= share else FAILED,
        f"{one.percent()} of {one.runs} runs below {mse:g}; median MSE {median:.2g}",
        numbers={"share": one.value, "median_mse": median},
        interval=(one.low, one.high),
    )


def strongest(records: Records, *, method: str, opponent: str) -> Result:
    """Does the strongest loss beat iDLG in success and in explosions?"""
    results = {
        score: compare_all(records.attacks, score, method, [opponent]) for score in ("success", "calm")
    }
    pooled = {score: _pooled(records.attacks, score, method, opponent) for score in results}
    won = {
        score: [name for (name, _), one in found.items() if one.significant and one.mean > 0]
        for score, found in results.items()
    }
    if all(len(won[score]) == len(found) for score, found in results.items()):
        verdict, condition = REPRODUCED, ""
    else:
        gains = {"success": "more success", "calm": "fewer explosions"}
        conditions = [f"{gain} on {_titles(won[score])}" for score, gain in gains.items() if won[score]]
        conditions += [
            f"{gain} over all data sets together"
            for score, gain in gains.items()
            if pooled[score].p < rules()["level"] and pooled[score].mean > 0
        ]
        verdict, condition = (CONDITION, "; ".join(conditions)) if conditions else (FAILED, "")
    words = {"success": "success", "calm": "explosions avoided"}
    return Result(
        verdict,
        "; ".join(
            f"{words[score]}, all data sets {pooled[score].text()} ("
            + ", ".join(f"{_title(name)} {one.text()}" for (name, _), one in results[score].items())
            + ")"
            for score in results
        ),
        condition,
        {
            score: {name: one.as_json() for (name, _), one in found.items()}
            | {"all": pooled[score].as_json()}
            for score, found in results.items()
        },
        (pooled["success"].low, pooled["success"].high),
    )


# Learning rates


def large_rates(records: Records, *, method: str, opponents: list[str], works: float) -> Result:
    """Up to which learning rate does each method work?"""
    table = _some(records.rates, "runs at several learning rates")
    table = table.assign(success=_success(table))
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
    table = _method(records.rates, method)
    shown, held = {}, []
    for optimizer, rows in table.groupby("optimizer"):
        medians = rows.groupby("learning_rate")["mse"].quantile(0.5, interpolation="lower")
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


# Paired scores


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
    for dataset, rows in _some(table, "attacks").groupby("dataset", sort=False):
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
        raise NotMeasuredError(f"there are no records of {method} beside {_words(opponents)}")
    significant = holm(np.array([one.p for one, _ in found.values()]), rules()["level"])
    return {
        key: Comparison(one, bool(flag), exact)
        for (key, (one, exact)), flag in zip(found.items(), significant, strict=True)
    }


def _pooled(table: pd.DataFrame, score: str, method: str, opponent: str) -> Paired:
    """All data sets together; a network of one data set is one unit."""
    ours, theirs = _pair(table, method, opponent)
    units = ours["dataset"].astype(str) + "/" + ours["network"].astype(str)
    return paired_by_network(_scores(score, ours, theirs), units.to_numpy())


def _pooled_interval(
    table: pd.DataFrame, score: str, method: str, opponents: list[str]
) -> tuple[float, float]:
    one = _pooled(table, score, method, opponents[-1])
    return one.low, one.high


def _pair(table: pd.DataFrame, method: str, opponent: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of two methods on the cases that both have, in the same order."""
    keys = ["dataset", "network", "case"]
    first, second = (_method(table, name).set_index(keys).sort_index() for name in (method, opponent))
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
            cost = -_success(rows).astype(float)
        else:
            cost = rows["exploded"].astype(float)
        sides.append(cost.to_numpy(dtype=float))
    # Not the sign of a difference: infinity minus infinity is not a number.
    return (sides[0] < sides[1]).astype(float) - (sides[0] > sides[1])


# Small words


def _some(table: pd.DataFrame, what: str) -> pd.DataFrame:
    if not len(table):
        raise NotMeasuredError(f"there are no records of {what}")
    return table


def _method(table: pd.DataFrame, name: str) -> pd.DataFrame:
    _some(table, "attacks")
    return _some(table[table["method"] == name], name)


def _without(table: pd.DataFrame, method: str) -> list[str]:
    """Data sets on which a method has no record."""
    return [
        str(name) for name, rows in table.groupby("dataset", sort=False) if method not in set(rows["method"])
    ]


def _success(rows: pd.DataFrame) -> pd.Series:
    return rows["mse"] < rules()["success_mse"]


def _share(flags: pd.Series) -> Share:
    return share(int(flags.sum()), len(flags))


def _shares(rows: pd.DataFrame, column: str) -> dict[str, Share]:
    """Share of a yes-or-no column on each data set."""
    return {str(name): _share(part[column]) for name, part in rows.groupby("dataset", sort=False)}


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
