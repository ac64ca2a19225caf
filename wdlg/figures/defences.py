"""What defences do to attacks: success against the strength of a defence, and against its price."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from wdlg.evaluation import SUCCESS_TITLE
from wdlg.figures.look import LOOKS, OTHER, Look, Picture, empty, legend_below

ATTACKERS = {
    **LOOKS,
    "Strongest, least bias": Look("#56B4E9", "-", "v"),
    "sent entries only": Look("#CC79A7", ":", "D"),
    "cosine": Look("#0072B2", "-", "o"),
    "bias_sign": LOOKS["WDLG"],
    "bias_min": Look("#56B4E9", "-", "v"),
    "row_sum": LOOKS["iDLG"],
}
"""Looks of attacks and label rules."""

DEFENDERS = {
    "noise": Look("#0072B2", "-", "o"),
    "pruning": Look("#D55E00", "--", "s"),
    "rounding": Look("#009E73", "-.", "^"),
    "quantisation": Look("#E69F00", ":", "P"),
    "clipped_noise": Look("#CC79A7", (0, (6, 1)), "D"),
}
"""Looks of defences."""


def share_by_strength(
    tables: Mapping[str, pd.DataFrame], who: str, strength: str, *, xlabel: str, ylabel: str, log: bool
) -> Figure:
    """A share with its 95 % interval against the strength of a defence; dotted: without a defence.

    Args:
        tables: by the title of a panel, rows of ``wdlg.verdicts.expectations.successes`` or ``read_right``.
        who: column whose values get a curve each, "method" or "rule".
        strength: column of the strength; rows with the defence "none" have none.
        xlabel, ylabel: of the axes.
        log: the strength is on a logarithmic axis.
    """
    if not tables:
        return empty()
    figure = Picture(figsize=(1.2 + 3.6 * len(tables), 3.7))
    panels = figure.subplots(1, len(tables), squeeze=False, sharey=True, sharex=True)[0]
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        for name, rows in table.groupby(who, sort=False):
            look = ATTACKERS.get(str(name), OTHER)
            curve = rows[rows[strength].notna()].sort_values(strength)
            value, low, high = _ends(curve["success"])
            axes.errorbar(
                curve[strength],
                value,
                yerr=[value - low, high - value],
                color=look.color,
                linestyle=look.style,
                marker=look.marker,
                capsize=2,
                label=str(name),
            )
            for one in rows[rows["defence"] == "none"]["success"]:
                axes.axhline(one.value, color=look.color, linestyle=":", linewidth=1)
        axes.set(title=title, xlabel=xlabel, ylim=(-0.03, 1.04))
        if log:
            axes.set_xscale("log")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylabel(ylabel)
    legend_below(figure)
    return figure


def protection_by_price(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """What the best attack recovers against the relative error of what is sent, a point for each defence.

    Above the share of runs with success, below the median SSIM to the private image; dotted: without a
    defence.

    Args:
        tables: by the title of a panel, columns defence, relative_error, success and ssim (of the best
            attack).
    """
    if not tables:
        return empty()
    figure = Picture(figsize=(1.2 + 3.8 * len(tables), 6.0))
    above, below = figure.subplots(2, len(tables), squeeze=False, sharey="row", sharex=True)
    for shares, likeness, (title, table) in zip(above, below, tables.items(), strict=True):
        for name, rows in table[table["defence"] != "none"].groupby("defence", sort=False):
            look = DEFENDERS[str(name)]
            points = rows.sort_values("relative_error")
            value, low, high = _ends(points["success"])
            drawn = {"color": look.color, "linestyle": "none", "marker": look.marker, "alpha": 0.85}
            shares.errorbar(
                points["relative_error"],
                value,
                yerr=[value - low, high - value],
                capsize=2,
                label=str(name).replace("_", " "),
                **drawn,
            )
            likeness.plot(points["relative_error"], points["ssim"], **drawn)
        for _, row in table[table["defence"] == "none"].iterrows():
            shares.axhline(row["success"].value, color=OTHER.color, linestyle=":", linewidth=1)
            likeness.axhline(row["ssim"], color=OTHER.color, linestyle=":", linewidth=1)
        shares.set(xscale="log", title=title, ylim=(-0.03, 1.04))
        shares.yaxis.set_major_formatter(PercentFormatter(1))
        likeness.set(xlabel="relative error of what is sent", ylim=(-0.03, 1.04))
    above[0].set_ylabel(f"runs with {SUCCESS_TITLE}")
    below[0].set_ylabel("median SSIM")
    legend_below(figure)
    return figure


def _ends(shares: pd.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, lower and upper ends of the intervals of shares."""
    return (
        np.array([one.value for one in shares]),
        np.array([one.low for one in shares]),
        np.array([one.high for one in shares]),
    )
