"""What runs add up to: success, convergence, learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from wdlg.figures.look import ERROR_RANGE, LOOKS, OTHER, Picture, empty, legend_below
from wdlg.study.records import values_at
from wdlg.study.statistics import quartiles, success_curve

STEPS = {"iteration": "iterations", "evaluation": "gradient evaluations"}
"""What the axes call the steps of an attack."""


def success_curves(
    records: Mapping[str, pd.DataFrame], published: Mapping[str, Mapping[str, Mapping[float, float]]]
) -> Figure:
    """Share of runs below an MSE, for each data set and method, with 95 % bands and published points.

    Args:
        records: by data set title, records with columns method, network and mse.
        published: by data set title and method, share (0 to 1) by MSE threshold.
    """
    if not records:
        return empty()
    figure = Picture(figsize=(2.8 * len(records), 3.2))
    thresholds = np.logspace(-6, 0.5, 120)
    for axes, (title, table) in zip(
        figure.subplots(1, len(records), sharey=True, squeeze=False)[0], records.items(), strict=True
    ):
        for method, rows in table.groupby("method", sort=False):
            look = LOOKS.get(str(method), OTHER)
            value, low, high = success_curve(rows["mse"], thresholds, rows["network"])
            axes.plot(thresholds, value, color=look.color, linestyle=look.style, label=f"{method}, here")
            axes.fill_between(thresholds, low, high, color=look.color, alpha=0.15, linewidth=0)
            points = published.get(title, {}).get(str(method), {})
            if points:
                axes.plot(
                    list(points),
                    list(points.values()),
                    linestyle="none",
                    marker=look.marker,
                    markerfacecolor="white",
                    color=look.color,
                    label=f"{method}, published",
                )
        axes.set(
            xscale="log",
            xlabel="MSE threshold",
            title=f"{title}, {rows.shape[0]} runs each",
            ylim=(-0.02, 1.02),
        )
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    figure.axes[0].set_ylabel("runs below the threshold")
    legend_below(figure)
    return figure


def convergence(
    tables: Mapping[str, pd.DataFrame],
    *,
    against: str = "iteration",
    up_to: int | None = None,
    form: str = "log axis",
    quantities: Sequence[str] = ("loss", "mse"),
) -> Figure:
    """Loss and MSE as runs go on, median and quartile band, one column for each data set.

    Of a single data set the panels stand side by side. The axis of the MSE ends at 10⁻⁸, or where the lowest
    median does.

    Args:
        tables: by data set title, records with traces.
        against: "iteration" or "evaluation".
        up_to: last iteration or evaluation that is shown; None for the last of any run.
        form: "log axis", or "paper": the logarithm, shifted up so that the least value drawn is 0.
        quantities: which rows: "loss", "mse".
    """
    if not tables:
        return empty()
    alone = len(tables) == 1
    across, down = (len(quantities), 1) if alone else (len(tables), len(quantities))
    figure = Picture(figsize=(max(2.8 * across, 4.5), 2.5 * down + 0.7))
    grid = figure.subplots(down, across, squeeze=False, sharex="col")
    panels = grid.T if alone else grid
    colors = _colors([str(name) for table in tables.values() for name in table["method"].unique()])
    for column, (title, table) in enumerate(tables.items()):
        places = _places(table, against, up_to)
        for row, quantity in enumerate(quantities):
            axes, lowest = panels[row, column], ERROR_RANGE[0]
            for method, runs in table.groupby("method", sort=False):
                band = quartiles(values_at(runs, quantity, places, against=against))
                low, middle, high = _shifted_log(band) if form == "paper" else band
                look = LOOKS.get(str(method), OTHER)
                style = {"color": colors[str(method)], "linestyle": look.style, "linewidth": 2}
                axes.plot(places, middle, label=str(method), **style)
                axes.fill_between(places, low, high, color=style["color"], alpha=0.15, linewidth=0)
                lowest = min(lowest, *(0.5 * middle[middle > 0]))
            if form == "log axis":
                axes.set_yscale("log")
            if form == "log axis" and quantity == "mse":
                axes.set_ylim(lowest, ERROR_RANGE[1])
            axes.set(xscale="symlog", title=title if row == 0 or alone else "")
            if row == len(quantities) - 1 or alone:
                axes.set_xlabel(STEPS[against])
    for row, quantity in enumerate(quantities):
        name = {"loss": "matching loss", "mse": "MSE"}[quantity]
        panels[row, 0].set_ylabel(name if form == "log axis" else f"log {name}, shifted")
    legend_below(figure)
    return figure


def _colors(methods: Sequence[str]) -> dict[str, str | tuple[float, ...]]:
    """The colour of each method: its own, and a scale from dark to bright for several that have none."""
    without = [name for name in dict.fromkeys(methods) if name not in LOOKS]
    found: dict[str, str | tuple[float, ...]] = {name: look.color for name, look in LOOKS.items()}
    scale = sns.color_palette("viridis", len(without)) if len(without) > 1 else [OTHER.color]
    return found | dict(zip(without, scale, strict=False))


def _places(table: pd.DataFrame, against: str, up_to: int | None) -> np.ndarray:
    """Numbers of evaluations or iterations at which traces are drawn: 0 to the last, dense at first."""
    longest = max((trace[-1] for trace in table[f"trace_{against}"] if len(trace)), default=0) + 1
    last = longest if up_to is None else min(longest, up_to)
    return np.unique(np.concatenate(([0], np.geomspace(1, last, 120).round()))).astype(int)


def _shifted_log(
    band: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logarithms of a band, moved up so that the least finite value of its median is 0."""
    low, middle, high = (np.log(np.where(np.isfinite(part) & (part > 0), part, np.nan)) for part in band)
    shift = np.nanmin(middle) if np.isfinite(middle).any() else 0.0
    return low - shift, middle - shift, high - shift


def mse_against_loss(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """MSE against loss, one line for each run, one column for each data set.

    Args:
        tables: by data set title, records with traces.
    """
    if not tables:
        return empty()
    figure = Picture(figsize=(2.8 * len(tables), 3.2))
    panels = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        for method, runs in table.groupby("method", sort=False):
            look = LOOKS.get(str(method), OTHER)
            style = {"color": look.color, "linestyle": look.style, "linewidth": 1}
            for number, (loss, error) in enumerate(zip(runs["trace_loss"], runs["trace_mse"], strict=True)):
                name = str(method) if number == 0 else None
                axes.plot(loss, error, alpha=max(0.2, 2 / len(runs)), label=name, **style)
        axes.set(xscale="log", yscale="log", xlabel="matching loss", title=title, ylim=ERROR_RANGE)
    panels[0].set_ylabel("MSE")
    for line in legend_below(figure).get_lines():
        line.set_alpha(1)
    return figure


def learning_rates(records: pd.DataFrame, *, quantity: str, up_to: int | None = None) -> Figure:
    """Median loss or MSE against iteration, one panel for each method, one curve for each learning rate.

    Args:
        records: with traces and the column learning_rate.
        quantity: "loss" or "mse".
        up_to: last iteration that is shown; None for the last of any run.
    """
    if not len(records):
        return empty()
    methods = list(records["method"].unique())
    figure = Picture(figsize=(2.8 * len(methods), 3.2))
    panels = figure.subplots(1, len(methods), squeeze=False, sharey=quantity == "mse")[0]
    rates = np.sort(records["learning_rate"].unique())
    colors = sns.color_palette("cividis", len(rates))
    markers = ("o", "s", "^", "D", "v", "P", "X")
    places = _places(records, "iteration", up_to)
    for axes, method in zip(panels, methods, strict=True):
        for number, rate in enumerate(rates):
            runs = records[(records["method"] == method) & (records["learning_rate"] == rate)]
            if not len(runs):
                continue
            _, middle, _ = quartiles(values_at(runs, quantity, places, against="iteration"))
            axes.plot(
                places,
                np.where(np.isfinite(middle), middle, np.nan),
                color=colors[number],
                marker=markers[number % len(markers)],
                markevery=max(1, len(places) // 8),
                markersize=5,
                label=f"{rate:g}",
            )
        axes.set(xlabel="iterations", xscale="symlog", yscale="log", title=method)
        if quantity == "mse":
            axes.set_ylim(top=ERROR_RANGE[1])
    panels[0].set_ylabel({"loss": "matching loss (median)", "mse": "MSE (median)"}[quantity])
    entries = {
        name: handle
        for axes in panels
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    names = sorted(entries, key=float)
    figure.legend(
        [entries[name] for name in names],
        names,
        title="learning rate",
        fontsize="small",
        loc="outside right center",
    )
    return figure
