"""What runs add up to: success, convergence, learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter

from wdlg.evaluation import SUCCESS
from wdlg.figures.look import (
    ERROR_RANGE,
    LOOKS,
    ORDERED,
    OTHER,
    Picture,
    empty,
    legend_below,
    listed,
    panels,
    percent,
)
from wdlg.study.records import values_at
from wdlg.study.statistics import quartiles, success_curve

STEPS = {"iteration": "iterations", "evaluation": "gradient evaluations"}
"""What the axes call the steps of an attack."""


def success_curves(
    records: Mapping[str, pd.DataFrame], published: Mapping[str, Mapping[str, Mapping[float, float]]]
) -> Picture:
    """Share of runs below an MSE, for each data set and method, with 95 % bands and published points.

    Args:
        records: by data set title, records with columns method, network and mse.
        published: by data set title and method, share (0 to 1) by MSE threshold.
    """
    if not records:
        return empty()
    figure, places = panels(len(records), height=2.3, more=0.8, sharey=True)
    thresholds = np.logspace(-6, 0.5, 120)
    told = []
    for number, (axes, (title, table)) in enumerate(zip(places, records.items(), strict=True)):
        shares = []
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
            shares.append(f"{method} {percent((rows['mse'] < SUCCESS).mean())}")
        axes.set(
            xscale="log",
            xlabel="MSE threshold",
            title=f"{title},\n{rows.shape[0]} runs each",
            ylim=(-0.02, 1.02),
        )
        axes.set_xticks([1e-6, 1e-4, 1e-2, 1])
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        if number % 2 == 0:
            axes.set_ylabel("runs below it")
        told.append(f"on {title} {listed(shares)}")
    legend_below(figure, 2)
    figure.told = f"Runs below an MSE of {SUCCESS:g}: {'; '.join(told)}."
    return figure


def convergence(
    tables: Mapping[str, pd.DataFrame],
    *,
    against: str = "iteration",
    up_to: int | None = None,
    form: str = "log axis",
    quantities: Sequence[str] = ("loss", "mse"),
) -> Picture:
    """Loss and MSE as runs go on, median and quartile band: a row for each data set, loss beside MSE.

    The axis of the MSE ends at 10⁻⁸, or where the lowest median does.

    Args:
        tables: by data set title, records with traces.
        against: "iteration" or "evaluation".
        up_to: last iteration or evaluation that is shown; None for the last of any run.
        form: "log axis", or "paper": the logarithm, shifted up so that the least value drawn is 0.
        quantities: which columns: "loss", "mse".
    """
    if not tables:
        return empty()
    across = len(quantities)
    figure, found = panels(across * len(tables), across=across, height=2.4, more=0.5)
    colors = _colors([str(name) for table in tables.values() for name in table["method"].unique()])
    told = []
    for row, (title, table) in enumerate(tables.items()):
        places = _places(table, against, up_to)
        for column, quantity in enumerate(quantities):
            axes, lowest = found[across * row + column], ERROR_RANGE[0]
            ends = []
            for method, runs in table.groupby("method", sort=False):
                band = quartiles(values_at(runs, quantity, places, against=against))
                ends.append((str(method), band[1][0], band[1][-1]))
                low, middle, high = _shifted_log(band) if form == "paper" else band
                look = LOOKS.get(str(method), OTHER)
                style: dict[str, Any] = {
                    "color": colors[str(method)],
                    "linestyle": look.style,
                    "linewidth": 2,
                }
                axes.plot(places, middle, label=str(method), **style)
                axes.fill_between(places, low, high, color=style["color"], alpha=0.15, linewidth=0)
                lowest = min(lowest, *(0.5 * middle[middle > 0]))
            if form == "log axis":
                axes.set_yscale("log")
            if form == "log axis" and quantity == "mse":
                axes.set_ylim(lowest, ERROR_RANGE[1])
            name = {"loss": "matching loss", "mse": "MSE"}[quantity]
            axes.set(xscale="symlog", title=title, xlabel=STEPS[against])
            axes.set_xlim(0, places[-1])
            axes.set_ylabel(name if form == "log axis" else f"log {name}, shifted")
            if quantity == "mse":
                told.append(f"on {title} {_from_to(ends)}" if len(tables) > 1 else _from_to(ends))
    legend_below(figure)
    if told and form == "log axis":
        figure.told = f"The median MSE goes {'; '.join(told)}."
    elif told:
        figure.told = "The lowest median of each curve is drawn at zero, whatever it is."
    return figure


def _from_to(ends: Sequence[tuple[str, float, float]]) -> str:
    """What each method begins and ends with, in words."""
    return listed(f"from {first:.2g} to {last:.2g} by {name}" for name, first, last in ends)


def _colors(methods: Sequence[str]) -> dict[str, str | tuple[float, ...]]:
    """The colour of each method: its own, and one of an order for several that have none."""
    without = [name for name in dict.fromkeys(methods) if name not in LOOKS]
    found: dict[str, str | tuple[float, ...]] = {name: look.color for name, look in LOOKS.items()}
    scale = [look.color for look in ORDERED] if len(without) > 1 else [OTHER.color]
    return found | {name: scale[number % len(scale)] for number, name in enumerate(without)}


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


def mse_against_loss(tables: Mapping[str, pd.DataFrame]) -> Picture:
    """MSE against loss: of each method the way of the medians, and where every run ended.

    One panel for each data set, below each other. A way begins at the filled marker; each open marker is the
    end of a run. Runs that explode end on the edge of the frame.

    Args:
        tables: by data set title, records with traces.
    """
    if not tables:
        return empty()
    figure, found = panels(len(tables), across=1, height=2.7, more=0.4)
    told = []
    for axes, (title, table) in zip(found, tables.items(), strict=True):
        places = _places(table, "evaluation", None)
        ends = []
        for method, runs in table.groupby("method", sort=False):
            look = LOOKS.get(str(method), OTHER)
            loss, error = (
                quartiles(values_at(runs, quantity, places, against="evaluation"))[1]
                for quantity in ("loss", "mse")
            )
            last_loss, last_error = (
                np.array([trace[-1] for trace in runs[f"trace_{quantity}"] if len(trace)])
                for quantity in ("loss", "mse")
            )
            cloud: dict[str, Any] = {
                "facecolors": "none",
                "edgecolors": look.color,
                "alpha": 0.45,
                "linewidths": 0.8,
            }
            shown = np.nan_to_num(last_error, nan=np.inf).clip(*ERROR_RANGE)
            axes.scatter(last_loss, shown, s=14, marker=look.marker, clip_on=False, **cloud)
            axes.plot(
                loss,
                error,
                color=look.color,
                linestyle=look.style,
                linewidth=2,
                marker=look.marker,
                markevery=[0],
                label=str(method),
            )
            ends.append(f"by {method} to {last_share(loss)} and {last_share(error)}")
        axes.set(xscale="log", yscale="log", xlabel="matching loss", ylabel="MSE", title=title)
        axes.set_ylim(*ERROR_RANGE)
        told.append(f"on {title} {listed(ends)}")
    legend_below(figure)
    figure.told = f"Median loss and median MSE go, as shares of their start, {'; '.join(told)}."
    return figure


def last_share(values: np.ndarray) -> str:
    """The last of some values as a share of the first.

    >>> last_share(np.array([4.0, 2.0, 1.0]))
    '0.25'
    """
    return f"{values[-1] / values[0]:.2g}"


def learning_rates(records: pd.DataFrame, *, quantity: str, up_to: int | None = None) -> Picture:
    """Median loss or MSE against iteration, one panel for each method, one curve for each learning rate.

    Args:
        records: with traces and the column learning_rate.
        quantity: "loss" or "mse".
        up_to: last iteration that is shown; None for the last of any run.
    """
    if not len(records):
        return empty()
    methods = list(records["method"].unique())
    shared = {"sharey": quantity == "mse"}
    figure, found = panels(len(methods), across=1, height=2.3, more=0.6, **shared)
    rates = np.sort(records["learning_rate"].unique())
    places = _places(records, "iteration", up_to)
    name = {"loss": "matching loss", "mse": "MSE"}[quantity]
    told = []
    for axes, method in zip(found, methods, strict=True):
        ends = {}
        for number, rate in enumerate(rates):
            runs = records[(records["method"] == method) & (records["learning_rate"] == rate)]
            if not len(runs):
                continue
            look = ORDERED[number % len(ORDERED)]
            _, middle, _ = quartiles(values_at(runs, quantity, places, against="iteration"))
            finite = np.where(np.isfinite(middle), middle, np.nan)
            axes.plot(
                places,
                finite,
                color=look.color,
                linestyle=look.style,
                marker=look.marker,
                markevery=(number % 3, max(1, len(places) // 8)),
                markersize=5,
                label=f"{rate:g}",
            )
            if np.isfinite(finite[-1]):
                ends[float(rate)] = finite[-1] / finite[0]
        axes.set(xlabel="iterations", xscale="symlog", yscale="log", title=method)
        axes.set(ylabel=f"{name} (median)", xlim=(0, places[-1]))
        if quantity == "mse":
            axes.set_ylim(top=ERROR_RANGE[1])
        if ends:
            best = min(ends, key=lambda rate: ends[rate])
            told.append(f"for {method} at the rate {best:g}, at {ends[best]:.2g} times its start")
    entries = {
        name: handle for axes in found for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    names = sorted(entries, key=float)
    figure.legend(
        [entries[name] for name in names],
        names,
        title="learning rate",
        fontsize="small",
        ncols=4,
        loc="outside lower center",
    )
    figure.told = f"The median {name} ends lowest {listed(told)}." if told else ""
    return figure
