"""The measures that decide claims on labels: how often they are read right, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product

import pandas as pd

from wdlg.study.statistics import Share, share
from wdlg.verdicts.claims import UNDECIDED, rules
from wdlg.verdicts.comparison import of_method, some
from wdlg.verdicts.result import Records, Result
from wdlg.verdicts.wording import Lack, lack, listed, named, settle, shares_in, title, titles, values, words

LENET = "lenet"
WEIGHTS: dict[str, str] = {"uniform": "weights from U(-0.5, 0.5)", "torch": "torch's default weights"}


"""Initial weights in words."""


def label_accuracy(
    records: Records, *, activations: Sequence[str], initials: Sequence[str], dtypes: Sequence[str]
) -> Result:
    """Is every label read right, for all initial weights and precisions?"""
    datasets = rules()["datasets"]
    table = some(records.labels, "label rules")
    table = named(table[(table["rule"] == "bias_sign") & (table["architecture"] == LENET)], datasets)
    shares = accuracy_by_condition(table)
    judged = table[table["activation"].isin(activations)]
    missed = judged[~judged["correct"]]
    silent = bool((missed["label_recovered"] < 0).all())
    present = [name for name in datasets if name in set(judged["dataset"])]
    held, short = [], []
    for initial, dtype in product(initials, dtypes):
        rows = judged[(judged["initial"] == initial) & (judged["dtype"] == dtype)]
        there = set(zip(rows["dataset"], rows["activation"], strict=True))
        if not set(product(present, activations)) <= there:
            short.append(f"{WEIGHTS[initial]} in {dtype}")
        elif present and rows["correct"].all():
            held.append(f"{WEIGHTS[initial]} in {dtype}")
    lacking = Lack(
        tuple(name for name in datasets if name not in present),
        other=(f"not measured everywhere with {words(short)}",) if short else (),
    )
    conditions = []
    if held and silent:
        reason = "; in all that are missed p_y is rounded to 1" if len(missed) else ""
        conditions = [f"with {words(held)}{reason}"]
    verdict, condition = settle(not len(missed), conditions, lacking)
    zero = int((missed["largest_bias_gradient"] == 0).sum())
    total = share(int(judged["correct"].sum()), len(judged)) if len(judged) else None
    return Result(
        verdict,
        "; ".join(
            f"{WEIGHTS.get(initial, initial)}, {dtype}: "
            + ", ".join(f"{name} {one.percent()} of {one.runs:,}" for name, one in by_name.items())
            for (initial, dtype), by_name in shares.items()
        )
        + (
            f"; of {len(missed)} misses {int((missed['label_recovered'] < 0).sum())} have no negative entry, "
            f"{zero} of these are all zero"
            if len(missed)
            else ""
        ),
        condition,
        {
            f"{initial}/{dtype}/{name}": {"share": one.value, "low": one.low, "runs": one.runs}
            for (initial, dtype), by_name in shares.items()
            for name, one in by_name.items()
        }
        | {"missed": len(missed), "missed_all_zero": zero},
        None if total is None else (total.low, total.high),
        "" if total is None else f"{len(judged) - len(missed):,} of {len(judged):,} labels right",
    )


def accuracy_by_condition(table: pd.DataFrame) -> dict[tuple[str, str], dict[str, Share]]:
    """Share of labels read right, by initial weights and precision, and by activation.

    Args:
        table: records of one rule; each gradient has a network of its own.
    """
    found: dict[tuple[str, str], dict[str, Share]] = {}
    for (initial, dtype, activation), rows in table.groupby(["initial", "dtype", "activation"], sort=False):
        one = share(int(rows["correct"].sum()), len(rows))
        found.setdefault((str(initial), str(dtype)), {})[str(activation)] = one
    return found


def label_cost(records: Records, *, fewer_steps: float, time_share: float) -> Result:
    """Steps and time of WDLG's rule against iDLG's, on every data set."""
    datasets = rules()["datasets"]
    table = some(records.labels, "label rules")
    table = named(usual(table), datasets)
    costs = some(cost_table(table), "both label rules")
    rows, found = costs.to_dict("records"), costs.set_index("dataset")
    absent = tuple(name for name in datasets if name not in found.index)
    steps = found["steps_ratio"]
    fewer = bool((steps >= fewer_steps).all())
    faster = found.index[(1 / found["time_ratio"]) <= time_share].tolist()
    conditions = []
    if fewer:
        where = f"in time on {titles(faster)} only" if faster else "hardly in time"
        conditions = [f"in steps, {where}"]
    verdict, condition = settle(fewer and len(faster) == len(found), conditions, Lack(absent))
    if absent and len(absent) == len(datasets):
        verdict, condition = UNDECIDED, Lack(absent).text()
    return Result(
        verdict,
        "; ".join(
            f"{title(row['dataset'])} {row['steps_ratio']:,.0f} times fewer steps, "
            f"{row['time_ratio']:.3g} times as fast "
            f"({1e6 * row['seconds_bias']:.0f} µs against {1e6 * row['seconds_row']:.0f} µs)"
            for row in rows
        ),
        condition,
        {row["dataset"]: {"steps": row["steps_ratio"], "time": row["time_ratio"]} for row in rows},
        headline=f"{_range(found['time_ratio'])} times as fast" if len(found) else "",
    )


def _range(values: pd.Series) -> str:
    """The least and the largest of some numbers: "1.2 to 231"."""
    return " to ".join(dict.fromkeys(f"{value:.3g}" for value in (values.min(), values.max())))


def label_growth(
    records: Records, *, datasets: Sequence[str], network: str, widths: int, growth: float
) -> Result:
    """Does the gain in time grow with the number of neurons, for every number of classes?"""
    table = some(records.labels, "label rules")
    kinds = table["architecture"].str.split(",").str[0]
    table = some(table[(kinds == network) & (table["dtype"] == "float32")], f"a {network} of several widths")
    found = some(cost_table(named(table, datasets)), "both label rules").sort_values("neurons")
    ratios = {
        str(name): dict(zip(rows["neurons"].tolist(), rows["time_ratio"].tolist(), strict=True))
        for name, rows in found.groupby("dataset", sort=False)
    }
    enough = {name: one for name, one in ratios.items() if name in datasets and len(one) >= widths}
    grows = [name for name, one in enough.items() if _grows(list(one.values()), growth)]
    lacking = Lack(
        tuple(name for name in datasets if name not in ratios),
        other=tuple(
            f"fewer than {widths} widths on {title(name)}"
            for name in datasets
            if name in ratios and name not in enough
        ),
    )
    verdict, condition = settle(len(grows) == len(enough), [f"on {titles(grows)}"] if grows else [], lacking)
    return Result(
        verdict,
        "; ".join(
            f"{title(name)}: "
            + ", ".join(
                f"{ratio:.3g} times as fast with {neurons:,} neurons" for neurons, ratio in one.items()
            )
            for name, one in ratios.items()
        ),
        condition,
        {name: {str(neurons): ratio for neurons, ratio in one.items()} for name, one in ratios.items()},
        headline=_widest(ratios),
    )


def _widest(ratios: Mapping[str, Mapping[int, float]]) -> str:
    """How the ratio grows from the narrowest to the widest network, where it grows most."""
    grown = {name: list(one.values()) for name, one in ratios.items() if len(one) > 1}
    if not grown:
        return ""
    name = max(grown, key=lambda one: grown[one][-1] / grown[one][0])
    return f"from {grown[name][0]:.3g} to {grown[name][-1]:.3g} times as fast on {title(name)}"


def _grows(ratios: Sequence[float], growth: float) -> bool:
    rising = all(later > earlier for earlier, later in pairwise(ratios))
    return rising and ratios[-1] >= growth * ratios[0]


def usual(table: pd.DataFrame) -> pd.DataFrame:
    """The label rules in DLG's own networks: a LeNet with weights from U(-0.5, 0.5), in float32."""
    chosen = (
        (table["architecture"] == LENET) & (table["initial"] == "uniform") & (table["dtype"] == "float32")
    )
    return some(table[chosen], "label rules in the LeNet")


def cost_table(table: pd.DataFrame) -> pd.DataFrame:
    """What both rules cost, for each data set and number of neurons in the last hidden layer.

    Args:
        table: records of label rules.

    Returns:
        Columns dataset, classes C, neurons M, steps_ratio (iDLG's over WDLG's), time_ratio (of median times),
        seconds_bias and seconds_row (the medians), gradients.
    """
    rows = []
    pairs = table.assign(
        size=table.groupby(["dataset", "architecture"], sort=False)["steps"].transform("max")
    )
    for (dataset, size), part in pairs.groupby(["dataset", "size"], sort=False):
        both = part.groupby("rule")
        steps, seconds = both["steps"].first(), both["seconds"].median()
        if {"bias_sign", "row_sum"} <= set(steps.index):
            rows.append(
                {
                    "dataset": str(dataset),
                    "classes": int(steps["bias_sign"]),
                    "neurons": int(size // steps["bias_sign"]),
                    "steps_ratio": float(steps["row_sum"] / steps["bias_sign"]),
                    "time_ratio": float(seconds["row_sum"] / seconds["bias_sign"]),
                    "seconds_bias": float(seconds["bias_sign"]),
                    "seconds_row": float(seconds["row_sum"]),
                    "gradients": int((part["rule"] == "bias_sign").sum()),
                }
            )
    columns = ["dataset", "classes", "neurons", "steps_ratio", "time_ratio", "seconds_bias", "seconds_row"]
    return pd.DataFrame(rows, columns=[*columns, "gradients"])


def dlg_labels(records: Records, *, often: float) -> Result:
    """Does DLG miss labels?"""
    datasets = rules()["datasets"]
    return _misses(labels_of_dlg(records), often, datasets)


def labels_of_dlg(records: Records) -> pd.DataFrame:
    """Runs of DLG: on each data set those with a network of their own, where there are such."""
    main = of_method(records.attacks, "DLG")
    if not len(records.ground):
        return named(main, rules()["datasets"])
    ground = records.ground[records.ground["method"] == "DLG"]
    rest = main[~main["dataset"].isin(ground["dataset"])]
    both = pd.concat([rest, ground], ignore_index=True)
    order = {name: place for place, name in enumerate(rules()["datasets"])}
    both = both.sort_values("dataset", key=lambda names: names.map(order), kind="stable")
    return named(both, rules()["datasets"])


def _misses(rows: pd.DataFrame, often: float, datasets: Sequence[str]) -> Result:
    shares = shares_in(rows, "label_correct")
    lacking = lack(rows, ["DLG"], datasets)
    wrong = [
        name
        for name, one in shares.items()
        if one.high < 1 - often and name in datasets and name not in lacking.few
    ]
    verdict, condition = settle(len(wrong) == len(shares), [f"on {titles(wrong)}"] if wrong else [], lacking)
    least = min(shares, key=lambda name: shares[name].value)
    headline = f"{100 * shares[least].value:.0f} % of labels right on {title(least)}"
    return Result(verdict, listed(shares), condition, values(shares), headline=headline)
