"""What the gradient tells of the label."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter

from wdlg.figures.look import LOOKS, OTHER, WIDTH, Picture, empty, legend_below, listed, percent


def bias_gradient(error: np.ndarray, label: int) -> Picture:
    """The gradient of the output bias, one stem for each class, the negative one marked."""
    figure = Picture(figsize=(WIDTH, 2.9))
    axes = figure.subplots()
    classes = np.arange(len(error))
    negative = error < 0
    for chosen, color, marker, name in (
        (~negative, LOOKS["DLG"].color, "o", "positive: $p_c$"),
        (negative, LOOKS["iDLG"].color, "v", "negative: $p_y - 1$, the label"),
    ):
        if chosen.any():
            axes.vlines(classes[chosen], 0, error[chosen], color=color, linewidth=2)
            axes.plot(classes[chosen], error[chosen], marker, color=color, label=name)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlabel=f"class c (true label {label})", ylabel="gradient of the bias $b_c$")
    if len(classes) <= 20:
        axes.set_xticks(classes)
    legend_below(figure, 2)
    down = [f"class {c} at {error[c]:.2g}" for c in classes[negative]]
    figure.told = (
        f"Of {len(error)} stems {len(down)} point{'' if len(down) != 1 else 's'} down"
        f"{': ' + listed(down) if down else ''}. The true label is {label}."
    )
    return figure


def rule_accuracy(table: pd.DataFrame) -> Picture:
    """Accuracy of both label rules with 95 % intervals, for each activation.

    Args:
        table: columns activation, rule, share (:class:`~wdlg.study.statistics.Share`).
    """
    if not len(table):
        return empty()
    figure = Picture(figsize=(WIDTH, 3.0))
    axes = figure.subplots()
    looks = {"bias_sign": ("WDLG", -0.12), "row_sum": ("iDLG", 0.12)}
    activations = list(dict.fromkeys(table["activation"]))
    for rule, (method, shift) in looks.items():
        look = LOOKS[method]
        for place, activation in enumerate(activations):
            for one in table[(table["rule"] == rule) & (table["activation"] == activation)]["share"]:
                axes.errorbar(
                    one.value,
                    place + shift,
                    xerr=[[one.value - one.low], [one.high - one.value]],
                    color=look.color,
                    marker=look.marker,
                    capsize=3,
                    label=f"{rule} ({method})" if place == 0 else None,
                )
    axes.set(xlabel="labels recovered (95 % interval)", ylabel="activation", xlim=(-0.02, 1.04))
    axes.set_yticks(range(len(activations)), activations)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    legend_below(figure, 2)
    told = [
        f"{activation} "
        + listed(
            f"{percent(one.value, 1)} by {str(rule).replace('_', ' ')}"
            for rule, one in zip(rows["rule"], rows["share"], strict=True)
        )
        for activation, rows in table.groupby("activation", sort=False)
    ]
    figure.told = f"Labels recovered: {'; '.join(told)}."
    return figure


def missed_labels(table: pd.DataFrame) -> Picture:
    """Share of labels that a rule does not read, with 95 % intervals, for each data set and condition.

    Args:
        table: columns dataset (as a reader knows it), condition, share (:class:`~wdlg.study.statistics.Share`
            of the labels that were read).
    """
    if not len(table):
        return empty()
    datasets, conditions = (list(dict.fromkeys(table[name])) for name in ("dataset", "condition"))
    figure = Picture(figsize=(WIDTH, 1.2 + 0.22 * len(datasets) * (1 + len(conditions))))
    axes = figure.subplots()
    looks = [*LOOKS.values(), OTHER]
    for number, condition in enumerate(conditions):
        look = looks[number % len(looks)]
        rows = table[table["condition"] == condition]
        missed = np.array([1 - one.value for one in rows["share"]])
        ends = np.array([(1 - one.high, 1 - one.low) for one in rows["share"]])
        places = np.array([datasets.index(name) for name in rows["dataset"]])
        axes.errorbar(
            missed,
            places + 0.8 * ((number + 1) / (len(conditions) + 1) - 0.5),
            xerr=np.abs(ends.T - missed),
            color=look.color,
            marker=look.marker,
            linestyle="none",
            capsize=3,
            label=condition,
        )
    axes.set(xlabel="labels missed (95 % interval)")
    axes.set_yticks(range(len(datasets)), datasets)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    legend_below(figure, columns=1)
    told = []
    for condition, rows in table.groupby("condition", sort=False):
        missed_on = dict(zip(rows["dataset"], [1 - one.value for one in rows["share"]], strict=True))
        worst = max(missed_on, key=lambda name: missed_on[name])
        most = f"at most {percent(missed_on[worst], 1)} ({worst})" if missed_on[worst] else "none at all"
        told.append(f"{condition!s} {most}")
    figure.told = f"Labels missed: {'; '.join(told)}."
    return figure


def saturation(table: pd.DataFrame) -> Picture:
    """Label accuracy of the bias rule against the half width of the initial weights, by precision.

    Args:
        table: columns precision, bound, share.
    """
    figure = Picture(figsize=(WIDTH, 3.2))
    axes = figure.subplots()
    for (precision, rows), look in zip(table.groupby("precision"), list(LOOKS.values())[:2], strict=True):
        value = np.array([one.value for one in rows["share"]])
        low = np.array([one.low for one in rows["share"]])
        high = np.array([one.high for one in rows["share"]])
        axes.errorbar(
            rows["bound"],
            value,
            yerr=[value - low, high - value],
            color=look.color,
            marker=look.marker,
            linestyle=look.style,
            capsize=3,
            label=precision,
        )
    axes.set(
        xscale="log",
        xlabel="half width of the uniform initial weights",
        ylabel="labels recovered by bias_sign",
        ylim=(-0.02, 1.04),
    )
    axes.set_xticks(
        sorted(table["bound"].unique()), [f"{bound:g}" for bound in sorted(table["bound"].unique())]
    )
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(title="precision", fontsize="small")
    told = []
    for precision, rows in table.sort_values("bound").groupby("precision"):
        first, last = rows.iloc[0], rows.iloc[-1]
        told.append(
            f"in {precision} from {percent(first['share'].value)} at a half width of {first['bound']:g} "
            f"to {percent(last['share'].value)} at {last['bound']:g}"
        )
    figure.told = f"The rule's share goes {listed(told)}."
    return figure
