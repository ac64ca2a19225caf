"""What a defence costs against what it leaves to see."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from wdlg.evaluation import SUCCESS, SUCCESS_TITLE
from wdlg.figures.defences import DEFENDERS
from wdlg.figures.look import OTHER, Look, Picture, empty, legend_below, panels

LOOKS = {
    **DEFENDERS,
    "none": Look("#000000", "-", "X"),
    "laplace_noise": Look("#56B4E9", "-", "v"),
    "dp_sgd": Look("#009E73", "-", "*"),
    "rounding": Look("#999999", "-.", "^"),
    "no_output_bias": Look("#E69F00", ":", "<"),
    "local_steps": Look("#D55E00", ":", ">"),
    "batch": Look("#333333", ":", "h"),
}
"""Looks of families of defences."""

NAMES = {
    "clipped_noise": "clipped noise, each message",
    "dp_sgd": "DP-SGD, noise on the sum",
    "laplace_noise": "Laplace noise",
    "batch": "four images a message",
}

LEAST, MOST = 1e-9, 1.0
"""Of the MSE that has a place on the axis; what is larger stands at the edge."""

ZONE = (1e-14, 1e-10)
"""Where images that are recovered to within less stand side by side."""

LABEL, GAP = 4.0, 0.055
"""Where epsilons are written, and the least distance of two in accuracy."""


def accuracy_by_leak(tables: Mapping[str, pd.DataFrame]) -> Picture:
    """Accuracy of networks trained under a defence against the MSE of the best picture from a message.

    A point for each strength of a defence, with the range over its networks. Right is hidden, left is seen;
    solid line: success ends there; dotted: who guesses without a look at the message. An epsilon stands
    beside its point. A bar marks the bound for unbiased estimates, which a prior may go below. Images
    recovered to within less than ``LEAST`` stand side by side at the left.

    Args:
        tables: by the title of a panel, lines of :func:`wdlg.study.price.table`; without an attack a line is
            left out.
    """
    shown = {title: table[table["leak"].notna()] for title, table in tables.items()}
    shown = {title: table for title, table in shown.items() if len(table)}
    if not shown:
        return empty()
    figure, places = panels(len(shown), across=1, height=4.4, more=1.2)
    for axes, (title, lines) in zip(places, shown.items(), strict=True):
        table = lines.assign(place=_places(lines["leak"]))
        for family, rows in table.groupby("family", sort=False):
            look = LOOKS.get(str(family), OTHER)
            axes.errorbar(
                rows["place"],
                rows["accuracy"],
                yerr=[rows["accuracy"] - rows["lowest"], rows["highest"] - rows["accuracy"]],
                color=look.color,
                linestyle="none",
                marker=look.marker,
                markersize=9 if look.marker == "*" else 6,
                capsize=2,
                alpha=0.9,
                label=NAMES.get(str(family), str(family).replace("_", " ")),
            )
        for _, row in table[table["bound"].between(LEAST, MOST)].iterrows():
            look = LOOKS.get(row["family"], OTHER)
            axes.plot([row["bound"], row["place"]], [row["accuracy"]] * 2, color=look.color, linewidth=1)
            axes.plot(row["bound"], row["accuracy"], color=look.color, marker="|", markersize=9)
        _write_epsilons(axes, table[table["epsilon"].notna()])
        axes.axvspan(ZONE[0] / 10, LEAST, color=OTHER.color, alpha=0.08)
        axes.text(ZONE[0], 0.03, "MSE < 1e-9, side by side", fontsize=8, color=OTHER.color)
        axes.axvline(SUCCESS, color=OTHER.color, linewidth=1)
        axes.axvline(float(table["variance"].median()), color=OTHER.color, linestyle=":", linewidth=1)
        axes.set(
            title=title,
            xscale="log",
            xlim=(ZONE[0] / 10, 3e3),
            xticks=[1e-8, 1e-6, 1e-4, 1e-2, 1],
            xlabel="MSE of the best picture",
            ylim=(0, 1.03),
            ylabel="accuracy on held-out images",
        )
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.text(SUCCESS / 1.3, 0.03, SUCCESS_TITLE, ha="right", fontsize=8, color=OTHER.color)
    legend_below(figure, columns=2)
    figure.told = " ".join(_told(title, table) for title, table in shown.items())
    return figure


def _told(title: str, table: pd.DataFrame) -> str:
    """What a panel shows, in a sentence."""
    hidden = table[table["leak"] >= SUCCESS]
    found = f"On {title}, of {len(table)} settings of defences, images are recovered under "
    if not len(hidden):
        return f"{found}all."
    best = hidden.sort_values("accuracy").iloc[-1]
    name = NAMES.get(str(best["family"]), str(best["family"]).replace("_", " "))
    return (
        f"{found}{len(table) - len(hidden)}; of those that hide them the most accurate is {name}, with "
        f"{100 * best['accuracy']:.0f} %."
    )


def _places(leaks: pd.Series) -> pd.Series:
    """Where points stand on the axis."""
    places = leaks.clip(LEAST, MOST)
    exact = leaks.index[leaks < LEAST]
    places[exact] = np.geomspace(*ZONE, num=max(2, len(exact)))[: len(exact)]
    return places


def _write_epsilons(axes: Axes, rows: pd.DataFrame) -> None:
    """Each in a column at the right, none over another, with a line to its point."""
    height = 1.0
    for _, row in rows.sort_values("accuracy", ascending=False).iterrows():
        height = min(row["accuracy"], height - GAP)
        value = row["epsilon"]
        axes.annotate(
            f"ε = {value:,.0f}" if value >= 100 else f"ε = {value:.2g}",
            (row["place"], row["accuracy"]),
            xytext=(LABEL, height),
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": OTHER.color, "linewidth": 0.5},
        )
