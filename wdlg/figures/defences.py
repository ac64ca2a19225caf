"""What defences do to attacks: success against the strength of a defence, and against its price."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from wdlg.evaluation import SUCCESS_TITLE
from wdlg.figures.look import LOOKS, OTHER, WIDTH, Look, Picture, empty, legend_below, listed, panels, percent

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


FEW = 3
"""A data set with fewer strengths than this has no panel of its own, but open markers in the first one."""


def share_by_strength(
    tables: Mapping[str, pd.DataFrame], who: str, strength: str, *, xlabel: str, ylabel: str, log: bool
) -> Picture:
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
    own, few = _apart(tables, strength)
    figure, found = panels(len(own), across=1, height=2.6, more=0.4 + 0.2 * len(few))
    told = []
    for axes, (title, table) in zip(found, own.items(), strict=True):
        for name, rows in table.groupby(who, sort=False):
            look = ATTACKERS.get(str(name), OTHER)
            _points(axes, rows, strength, look, str(name), linestyle=look.style)
            for one in rows[rows["defence"] == "none"]["success"]:
                axes.axhline(one.value, color=look.color, linestyle=":", linewidth=1)
            told.append(f"{_word(name)} on {title} {_first_and_last(rows, strength)}")
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel, ylim=(-0.03, 1.04))
        if log:
            axes.set_xscale("log")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    for title, table in few.items():
        for name, rows in table.groupby(who, sort=False):
            look = ATTACKERS.get(str(name), OTHER)
            open_ones = {"linestyle": "none", "markerfacecolor": "white", "alpha": 0.9}
            _points(found[0], rows, strength, look, f"{name}, {title}", **open_ones)
            told.append(f"{_word(name)} on {title} {_first_and_last(rows, strength)}")
    if few:
        found[0].set_title(f"{found[0].get_title()}; open markers: {listed(few)}")
    legend_below(figure, 2)
    figure.told = f"{ylabel[:1].upper()}{ylabel[1:]}: {'; '.join(told)}."
    return figure


def _apart(
    tables: Mapping[str, pd.DataFrame], strength: str
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Tables with a panel of their own, as the first has, and those with too few strengths for one."""
    first = next(iter(tables))
    few = {
        title: table for title, table in tables.items() if title != first and table[strength].nunique() < FEW
    }
    return {title: table for title, table in tables.items() if title not in few}, few


def _points(axes: Axes, rows: pd.DataFrame, strength: str, look: Look, name: str, **drawn: Any) -> None:
    """The shares of one attack or rule, with intervals."""
    curve = rows[rows[strength].notna()].sort_values(strength)
    if not len(curve):
        return
    value, low, high = _ends(curve["success"])
    axes.errorbar(
        curve[strength],
        value,
        yerr=[value - low, high - value],
        color=look.color,
        marker=look.marker,
        capsize=2,
        label=name,
        **drawn,
    )


def _word(name: Hashable) -> str:
    """The name of a rule or defence as a word."""
    return str(name).replace("_", " ")


def _first_and_last(rows: pd.DataFrame, strength: str) -> str:
    """Shares without a defence, and at the least and the largest strength, in words."""
    curve = rows[rows[strength].notna()].sort_values(strength)
    parts = [f"{percent(one.value)} without" for one in rows[rows["defence"] == "none"]["success"]]
    ends = curve.iloc[[0, -1]] if len(curve) > 1 else curve
    parts += [f"{percent(row['success'].value)} at {row[strength]:g}" for _, row in ends.iterrows()]
    return listed(parts)


def protection_by_price(tables: Mapping[str, pd.DataFrame]) -> Picture:
    """What the best attack recovers against the relative error of what is sent, a point for each defence.

    Above the share of runs with success, below the median SSIM to the private image; dotted: without a
    defence.

    Args:
        tables: by the title of a panel, columns defence, relative_error, success and ssim (of the best
            attack). Filled markers are of the first data set, open ones of the others.
    """
    if not tables:
        return empty()
    figure = Picture(figsize=(WIDTH, 6.4))
    shares, likeness = figure.subplots(2, 1, sharex=True)
    told = []
    for number, (title, table) in enumerate(tables.items()):
        standing = {}
        for name, rows in table[table["defence"] != "none"].groupby("defence", sort=False):
            look = DEFENDERS[str(name)]
            points = rows.sort_values("relative_error")
            value, low, high = _ends(points["success"])
            drawn: dict[str, Any] = {"color": look.color, "linestyle": "none", "marker": look.marker}
            if number:
                drawn |= {"markerfacecolor": "white"}
            said = _word(name)
            shares.errorbar(
                points["relative_error"],
                value,
                yerr=[value - low, high - value],
                capsize=2,
                label=f"{said}, {title}" if number else said,
                **drawn,
            )
            likeness.plot(points["relative_error"], points["ssim"], **drawn)
            still = points["relative_error"][value >= 0.5]
            if len(still):
                standing[said] = still.max()
        for _, row in table[table["defence"] == "none"].iterrows():
            style = {"color": OTHER.color, "linestyle": ":" if number == 0 else (0, (1, 4)), "linewidth": 1}
            shares.axhline(row["success"].value, **style)
            likeness.axhline(row["ssim"], **style)
        ends = listed(f"{error:.2g} under {name}" for name, error in standing.items())
        up_to = f"up to an error of {ends}" if ends else "at no error that was tried"
        told.append(f"on {title} the best attack recovers at least half {up_to}")
    others = list(tables)[1:]
    filled = next(iter(tables))
    shares.set(xscale="log", ylim=(-0.03, 1.04), ylabel=f"runs with {SUCCESS_TITLE}")
    shares.set_title(f"{filled}; open markers: {listed(others)}" if others else filled)
    shares.yaxis.set_major_formatter(PercentFormatter(1))
    likeness.set(xlabel="relative error of what is sent", ylim=(-0.03, 1.04), ylabel="median SSIM")
    legend_below(figure, 2)
    text = "; ".join(told)
    figure.told = f"{text[:1].upper()}{text[1:]}."
    return figure


def _ends(shares: pd.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, lower and upper ends of the intervals of shares."""
    return (
        np.array([one.value for one in shares]),
        np.array([one.low for one in shares]),
        np.array([one.high for one in shares]),
    )
