"""The measures that decide claims on learning rates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from wdlg.evaluation import SUCCESS
from wdlg.study.statistics import quartiles
from wdlg.verdicts.claims import FAILED, UNDECIDED, rules
from wdlg.verdicts.comparison import (
    Comparison,
    Limits,
    Uncorrected,
    compared,
    corrected,
    of_costs,
    of_method,
    some,
    successes,
)
from wdlg.verdicts.result import Records, Result
from wdlg.verdicts.wording import TOO_FEW, Lack, hopeless, named, settle, words

OPTIMIZERS = ("LBFGS", "GradientDescent")
"""Both that the claims are about: the paper does not say which it uses."""


def large_rates(
    records: Records,
    *,
    method: str,
    opponents: Sequence[str],
    share: float,
    floor: float,
    evaluations: int,
    dataset: str,
    success: float = SUCCESS,
) -> Result:
    """Does a method recover images at rates at which others do not?"""
    methods = (method, *opponents)
    table, lacking = of_rates(records, methods, dataset, evaluations)
    table = table.assign(success=successes(table, success))
    largest: dict[str, dict[str, float]] = {}
    tests: dict[tuple[str, str], Uncorrected] = {}
    for optimizer, rows in table.groupby("optimizer"):
        found = rows.pivot_table("success", "learning_rate", "method", aggfunc="mean")
        best = float(np.nanmax(found.to_numpy()))
        if best < floor:
            continue
        largest[str(optimizer)] = {
            name: float(max(found.index[found[name] >= share * best], default=0.0))
            for name in methods
            if name in found
        }
        rate = largest[str(optimizer)].get(method, 0.0)
        there = rows[rows["learning_rate"] == rate]
        for opponent in opponents:
            if rate and {method, opponent} <= set(there["method"]):
                tests[str(optimizer), opponent] = compared(
                    there, "success", method, opponent, Limits(success)
                )
    family = corrected(tests)
    won = [
        optimizer
        for optimizer, rates in largest.items()
        if rates.get(method, 0.0) > max(rates.get(opponent, 0.0) for opponent in opponents)
        and all(_better(family.get((optimizer, opponent))) for opponent in opponents)
    ]
    verdict, condition = settle(len(won) == len(OPTIMIZERS), [f"with {words(won)}"] if won else [], lacking)
    if verdict == FAILED and not largest:
        verdict, condition = UNDECIDED, f"no method recovers {100 * floor:.0f} % of the images at any rate"
    elif verdict == FAILED:
        silent = [name for name in OPTIMIZERS if name not in largest]
        condition = f"{words(silent)} decides nothing: no method recovers images" if silent else ""
    return Result(
        verdict,
        "; ".join(
            f"{optimizer}: "
            + ", ".join(f"{name} {rate:g}" if rate else f"{name} at none" for name, rate in rates.items())
            for optimizer, rates in largest.items()
        )
        or "at no rate",
        condition,
        largest | {"/".join(key): one.as_json() for key, one in family.items()},
    )


def rate_effect(
    records: Records, *, quantity: str, method: str, fall: float, evaluations: int, dataset: str
) -> Result:
    """Does the loss or the MSE of a method fall further with the rate, up to a threshold?"""
    table, lacking = of_rates(records, [method], dataset, evaluations)
    value = table["loss"] / table["loss_first"] if quantity == "loss" else table["mse"]
    table = table.assign(value=value.fillna(np.inf))
    medians: dict[str, pd.Series] = {}
    tests: dict[tuple[str, float], Uncorrected] = {}
    for name, rows in table.groupby("optimizer"):
        optimizer = str(name)
        by_rate = rows.groupby("learning_rate")["value"]
        medians[optimizer] = by_rate.agg(lambda one: float(quartiles(one)[1]))
        rates = medians[optimizer].index
        best = rates[int(np.argmin(medians[optimizer]))]
        for rate in rates[1:]:
            tests[optimizer, rate] = _between(rows, rate, rates[0])
        if best != rates[-1]:
            tests[optimizer, np.inf] = _between(rows, best, rates[-1])
    family = corrected(tests)
    faster, bounded = [], []
    for optimizer, found in medians.items():
        best = int(np.argmin(found))
        rising = found.iloc[: best + 1]
        if (
            best > 0
            and rising.is_monotonic_decreasing
            and rising.iloc[-1] <= fall * rising.iloc[0]
            and _better(family.get((optimizer, found.index[best])))
        ):
            faster.append(optimizer)
            if _better(family.get((optimizer, np.inf))):
                bounded.append(optimizer)
    conditions = [f"with {words(bounded)}"] if bounded else []
    free = [name for name in faster if name not in bounded]
    if free:
        conditions.append(f"with {words(free)} without a threshold among the rates tried")
    verdict, condition = settle(len(bounded) == len(OPTIMIZERS), conditions, lacking)
    if verdict == FAILED and hopeless(family.values()):
        verdict, condition = UNDECIDED, TOO_FEW
    name = "fall of the loss" if quantity == "loss" else "MSE"
    return Result(
        verdict,
        "; ".join(
            f"{optimizer}, median {name}: "
            + ", ".join(f"{one:.2g} at {rate:g}" for rate, one in found.items())
            for optimizer, found in medians.items()
        ),
        condition,
        {
            optimizer: {f"{rate:g}": float(one) for rate, one in found.items()}
            for optimizer, found in medians.items()
        }
        | {f"{optimizer}/{rate:g}": one.as_json() for (optimizer, rate), one in family.items()},
    )


def rate_calm(
    records: Records,
    *,
    method: str,
    opponents: Sequence[str],
    reference: str,
    evaluations: int,
    dataset: str,
) -> Result:
    """At rates above the best one of a method of reference, does another method explode less often?"""
    methods = (method, *opponents)
    table, lacking = of_rates(records, methods, dataset, evaluations)
    tests: dict[tuple[str, float, str], Uncorrected] = {}
    calm: dict[str, dict[str, dict[str, float]]] = {}
    for name, rows in table.groupby("optimizer"):
        optimizer = str(name)
        shares = 1 - rows.pivot_table("exploded", "learning_rate", "method", aggfunc="mean")
        calm[optimizer] = {
            str(one): {f"{rate:g}": float(value) for rate, value in found.items()}
            for one, found in shares.items()
        }
        if reference not in shares:
            continue
        errors = of_method(rows, reference).groupby("learning_rate")["mse"]
        medians = errors.agg(lambda mse: float(quartiles(mse)[1]))
        for rate in medians.index[int(np.argmin(medians)) + 1 :]:
            there = rows[rows["learning_rate"] == rate]
            if not there["exploded"].all():
                for opponent in opponents:
                    if {method, opponent} <= set(there["method"]):
                        tests[optimizer, float(rate), opponent] = compared(there, "calm", method, opponent)
    family = corrected(tests)
    places = list(dict.fromkeys((optimizer, rate) for optimizer, rate, _ in family))
    won = [one for one in places if all(_better(family.get((*one, opponent))) for opponent in opponents)]
    more = [key for key, one in family.items() if one.significant and one.mean < 0]
    covered = {optimizer for optimizer, _ in places} == set(OPTIMIZERS)
    phrase = [
        f"with {optimizer} at {words([f'{rate:g}' for by, rate in won if by == optimizer])}"
        for optimizer in dict.fromkeys(by for by, _ in won)
    ]
    verdict, condition = settle(
        covered and len(won) == len(places), ["; ".join(phrase)] if phrase else [], lacking
    )
    if verdict == FAILED and not more and (not family or hopeless(family.values())):
        verdict, condition = (
            UNDECIDED,
            TOO_FEW if family else "at no large rate is there a run without explosion",
        )
    return Result(
        verdict,
        "; ".join(
            f"{optimizer}, runs without explosion: "
            + ", ".join(
                f"{one} " + " ".join(f"{100 * value:.0f} % at {rate}" for rate, value in found.items())
                for one, found in by_method.items()
            )
            for optimizer, by_method in calm.items()
        ),
        condition,
        calm | {f"{by}/{rate:g}/{opponent}": one.as_json() for (by, rate, opponent), one in family.items()},
    )


def of_rates(
    records: Records, methods: Sequence[str], dataset: str, evaluations: int
) -> tuple[pd.DataFrame, Lack]:
    """The runs with the largest budget at several learning rates, and what they lack of what a claim names.

    Args:
        records: whose table ``rates`` is read.
        methods, dataset: that the claim names.
        evaluations: the budget that its test names.
    """
    table = named(some(records.rates, "runs at several learning rates"), [dataset])
    table = table[table["budget"] == table["budget"].max()]
    found = table[table["method"].isin(methods)]
    some(found, words(list(methods)))
    absent = (dataset,) if set(found["dataset"]) != {dataset} else ()
    other = [f"not measured with {one}" for one in OPTIMIZERS if one not in set(found["optimizer"])]
    counts = found.groupby(["optimizer", "learning_rate", "method"])["network"].nunique().unstack()
    missing = [name for name in methods if name not in counts or counts[name].isna().any()]
    if missing:
        other.append(f"no records of {words(missing)} at some rates")
    if not missing and counts.to_numpy().min() < rules()["fewest_networks"]:
        other.append(f"fewer than {rules()['fewest_networks']} networks")
    if found["budget"].max() < evaluations:
        other.append(f"fewer than {evaluations:,} evaluations")
    return found, Lack(absent, other=tuple(other))


def _between(rows: pd.DataFrame, rate: float, other: float) -> Uncorrected:
    """Is the value of the same cases lower at one rate than at another?"""
    keys = ["dataset", "network", "case"]
    first, second = (rows[rows["learning_rate"] == one].set_index(keys)["value"] for one in (rate, other))
    common = first.index.intersection(second.index)
    runs = common.to_frame(index=False)
    return of_costs(
        first.loc[common].to_numpy(), second.loc[common].to_numpy(), some(runs, f"rate {other:g}")
    )


def _better(one: Comparison | None) -> bool:
    return one is not None and one.significant and one.mean > 0
