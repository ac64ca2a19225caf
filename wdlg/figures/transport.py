"""Matching losses along lines, transport plans, and the convergence of Sinkhorn's algorithm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from wdlg.figures.look import LOOKS, Picture


def loss_lines(positions: np.ndarray, losses: Mapping[str, np.ndarray], *, titles: Sequence[str]) -> Figure:
    """Matching losses along straight lines in image space, each divided by its value at the start.

    Args:
        positions: along a line, 0 at the private image, 1 at the start (T,).
        losses: by loss name, values (lines, T).
        titles: of the lines.
    """
    figure = Picture(figsize=(4 * len(titles), 3.2))
    panels = figure.subplots(1, len(titles), squeeze=False, sharey=True)[0]
    looks = dict(zip(losses, (LOOKS["iDLG"], LOOKS["Euclidean"], LOOKS["WDLG"]), strict=False))
    for line, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        for name, values in losses.items():
            scale = values[line][np.abs(positions - 1).argmin()]
            axes.plot(
                positions,
                values[line] / scale,
                color=looks[name].color,
                linestyle=looks[name].style,
                label=name,
            )
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set(xlabel="position: 0 private image, 1 dummy", title=title, yscale="log")
    panels[0].set_ylabel("loss, relative to position 1")
    panels[-1].legend(fontsize="small")
    return figure


def point_plans(x: np.ndarray, y: np.ndarray, plans: Mapping[str, np.ndarray]) -> Figure:
    """Transport between two small sets of points in the plane: a line for each move, as wide as its mass."""
    figure = Picture(figsize=(2.1 * len(plans), 2.5))
    panels = figure.subplots(1, len(plans), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (title, plan) in zip(panels, plans.items(), strict=True):
        largest = 1 / len(x)
        for i, j in np.argwhere(plan > 0.01 * largest):
            axes.plot(
                [x[i, 0], y[j, 0]],
                [x[i, 1], y[j, 1]],
                color="#888888",
                linewidth=4 * plan[i, j] / largest,
                zorder=1,
                solid_capstyle="round",
            )
        axes.scatter(*x.T, color=LOOKS["DLG"].color, marker="o", s=60, label="points x", zorder=2)
        axes.scatter(*y.T, color=LOOKS["iDLG"].color, marker="s", s=60, label="points y", zorder=2)
        axes.set(title=title, xlabel="first coordinate")
    panels[0].set_ylabel("second coordinate")
    panels[0].legend(fontsize="small")
    return figure


def plan_maps(plans: Mapping[str, np.ndarray]) -> Figure:
    """Transport plans as maps, dark where much mass moves; each entry as a share of its row."""
    figure = Picture(figsize=(2 * len(plans) + 0.8, 2.6))
    panels = figure.subplots(1, len(plans), squeeze=False)[0]
    for axes, (title, plan) in zip(panels, plans.items(), strict=True):
        image = axes.imshow(plan * len(plan), cmap="Greys", vmin=0, vmax=1)
        axes.set(title=title, xlabel="row of the shared gradient")
        axes.grid(visible=False)
    panels[0].set_ylabel("row of the dummy gradient")
    figure.colorbar(image, ax=list(panels), label="share of the row's mass", shrink=0.8)
    return figure


def lines(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    xlabel: str,
    ylabel: str,
    xscale: str = "linear",
    yscale: str = "log",
    legend: str | None = None,
    size: tuple[float, float] = (6.5, 3.4),
) -> Figure:
    """A few named curves (x, y) on one pair of axes, told apart by colour, style and marker."""
    figure = Picture(figsize=size)
    axes = figure.subplots()
    colors = sns.color_palette("cividis", len(curves))
    styles = ("-", "--", "-.", ":")
    markers = ("o", "s", "^", "D", "v", "P", "X")
    for number, (name, (x, y)) in enumerate(curves.items()):
        axes.plot(
            x,
            y,
            label=name,
            color=colors[number],
            linestyle=styles[number % 4],
            marker=markers[number % 7],
            markevery=max(1, len(x) // 10),
            markersize=5,
        )
    axes.set(xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale)
    axes.legend(fontsize="small", title=legend)
    return figure


def kept_mass(table: pd.DataFrame) -> Figure:
    """Share of mass that stays with its own unit against iteration, a panel for each reading.

    Args:
        table: rows of :func:`wdlg.study.mechanism.kept_along`.
    """
    methods = list(table["method"].unique())
    figure = Picture(figsize=(2.6 * len(methods), 2.9))
    panels = figure.subplots(1, len(methods), squeeze=False, sharey=True)[0]
    for axes, method in zip(panels, methods, strict=True):
        rows = table[table["method"] == method]
        for _, case in rows.groupby("case"):
            axes.plot(case["iteration"], case["kept"], color=LOOKS["WDLG"].color, alpha=0.3, linewidth=1)
        middle = rows.groupby("iteration")["kept"].median()
        axes.plot(middle.index, middle, color=LOOKS["WDLG"].color, linewidth=2.5, marker="^")
        axes.set(xlabel="iteration", title=method, ylim=(0, 1.03))
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylabel("mass in its own place")
    return figure
