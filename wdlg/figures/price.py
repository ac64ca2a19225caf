"""What a defence costs against what it leaves to see."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from wdlg.evaluation import SUCCESS, SUCCESS_TITLE
from wdlg.figures.defences import DEFENDERS
from wdlg.figures.look import OTHER, Look, Picture, empty, legend_below

LOOKS = {
    **DEFENDERS,
    "none": Look("#000000", "-", "X"),
    "laplace_noise": Look("#56B4E9", "-", "v"),
    "dp_sgd": Look("#009E73", "-", "*"),
    "rounding": Look("#999999", "-.", "^"),
    "no_output_bias": Look("#E69F00", ":", "<"),
    "local_steps": Look("#D55E00", ":", ">"),
    "batch": Look("#0072B2", ":", "h"),
}
"""Looks of families of defences."""

NAMES = {
    "clipped_noise": "clipped noise, each message",
    "dp_sgd": "DP-SGD, noise on the sum",
    "laplace_noise": "Laplace noise",
    "batch": "four images a message",
}

LEAST, MOST = 1e-9, 1.0
"""Of the MSE that is shown; what is outside stands at the edge."""


def accuracy_by_leak(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy of networks trained under a defence against the MSE of the best picture from a message.

    A point for each strength of a defence, with the range over its networks. Right is hidden, left is seen;
    solid line: success ends there; dotted: who guesses without a look at the message. An epsilon stands
    beside its point.

    Args:
        tables: by the title of a panel, lines of :func:`wdlg.study.price.table`; without an attack a line is
            left out.
    """
    shown = {title: table[table["leak"].notna()] for title, table in tables.items()}
    shown = {title: table for title, table in shown.items() if len(table)}
    if not shown:
        return empty()
    figure = Picture(figsize=(1.2 + 4.2 * len(shown), 4.6))
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, (title, table) in zip(panels, shown.items(), strict=True):
        for family, rows in table.groupby("family", sort=False):
            look = LOOKS.get(str(family), OTHER)
            axes.errorbar(
                np.clip(rows["leak"], LEAST, MOST),
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
        for _, row in table[table["epsilon"].notna()].iterrows():
            axes.annotate(
                f"ε {row['epsilon']:,.2g}" if row["epsilon"] < 100 else f"ε {row['epsilon']:,.0f}",
                (np.clip(row["leak"], LEAST, MOST), row["accuracy"]),
                textcoords="offset points",
                xytext=(-6, -11),
                ha="right",
                fontsize=7,
            )
        axes.axvline(SUCCESS, color=OTHER.color, linewidth=1)
        axes.axvline(float(table["variance"].median()), color=OTHER.color, linestyle=":", linewidth=1)
        axes.set(
            title=title,
            xscale="log",
            xlim=(LEAST / 2, 2 * MOST),
            xlabel="MSE of the best picture",
            ylim=(0, 1),
        )
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.text(SUCCESS / 1.3, 0.03, SUCCESS_TITLE, ha="right", fontsize=8, color=OTHER.color)
    panels[0].set_ylabel("accuracy on held-out images")
    legend_below(figure, columns=4)
    return figure
