"""What runs add up to: success, convergence, learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from wdlg.figures.look import ERROR_RANGE, LOOKS, OTHER, Picture, legend_below
from wdlg.study.paired import Outcome
from wdlg.study.statistics import quartiles, success_curve


def success_curves(
    records: Mapping[str, pd.DataFrame], published: Mapping[str, Mapping[str, Mapping[float, float]]]
) -> Figure:
    """Share of runs below an MSE, for each data set and method, with 95 % bands and published points.

    Args:
        records: by data set title, records with columns method and mse.
        published: by data set title and method, share (0 to 1) by MSE threshold.
    """
    figure = Picture(figsize=(2.8 * len(records), 3.2))
    thresholds = np.logspace(-6, 0.5, 120)
    for axes, (title, table) in zip(
        figure.subplots(1, len(records), sharey=True, squeeze=False)[0], records.items(), strict=True
    ):
        for method, rows in table.groupby("method", sort=False):
            look = LOOKS.get(str(method), OTHER)
            value, low, high = success_curve(rows["mse"].to_numpy(), thresholds)
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
    outcomes: Mapping[str, Outcome],
    *,
    iterations: int,
    form: str = "log axis",
    quantities: Sequence[str] = ("loss", "mse"),
) -> Figure:
    """Loss and MSE against iteration, median and quartile band over runs, one column for each data set.

    Args:
        outcomes: by data set title.
        iterations: how many are shown.
        form: "log axis", or "paper": the logarithm, shifted up so that the least value drawn is 0.
        quantities: which rows: "loss", "mse".
    """
    figure = Picture(figsize=(2.8 * len(outcomes), 2.5 * len(quantities)))
    grid = figure.subplots(len(quantities), len(outcomes), squeeze=False, sharex=True)
    for column, (title, outcome) in enumerate(outcomes.items()):
        for row, quantity in enumerate(quantities):
            axes = grid[row, column]
            bands = {
                method: quartiles(outcome.by_iteration(quantity, method, iterations))
                for method in outcome.loss
            }
            if form == "paper":
                bands = {method: _shifted_log(band) for method, band in bands.items()}
            for method, (low, middle, high) in bands.items():
                look = LOOKS[method]
                axes.plot(middle, color=look.color, linestyle=look.style, label=method, linewidth=2)
                axes.fill_between(np.arange(iterations), low, high, color=look.color, alpha=0.15, linewidth=0)
            if form == "log axis":
                axes.set_yscale("log")
            if form == "log axis" and quantity == "mse":
                axes.set_ylim(*ERROR_RANGE)
            axes.set_title(title if row == 0 else "")
            axes.set_xlabel("iteration" if row == len(quantities) - 1 else "")
        for row, quantity in enumerate(quantities):
            name = {"loss": "matching loss", "mse": "MSE"}[quantity]
            grid[row, 0].set_ylabel(name if form == "log axis" else f"log {name}, shifted")
    grid[0, 0].legend(fontsize="small")
    return figure


def _shifted_log(
    band: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logarithms of a band, moved up so that the least finite value of its median is 0."""
    low, middle, high = (np.log(np.where(np.isfinite(part) & (part > 0), part, np.nan)) for part in band)
    shift = np.nanmin(middle)
    return low - shift, middle - shift, high - shift


def mse_against_loss(outcomes: Mapping[str, Outcome], *, iterations: int) -> Figure:
    """MSE against loss, one line for each run, one column for each data set."""
    figure = Picture(figsize=(2.8 * len(outcomes), 2.9))
    panels = figure.subplots(1, len(outcomes), squeeze=False, sharey=True)[0]
    for axes, (title, outcome) in zip(panels, outcomes.items(), strict=True):
        for method in outcome.loss:
            look = LOOKS[method]
            loss = outcome.by_iteration("loss", method, iterations)
            error = outcome.by_iteration("mse", method, iterations)
            for case in range(len(loss)):
                axes.plot(
                    loss[case],
                    error[case],
                    color=look.color,
                    linestyle=look.style,
                    alpha=0.5,
                    linewidth=1,
                    label=method if case == 0 else None,
                )
        axes.set(xscale="log", yscale="log", xlabel="matching loss", title=title, ylim=ERROR_RANGE)
    panels[0].set_ylabel("MSE")
    panels[0].legend(fontsize="small")
    return figure


def learning_rates(outcomes: Mapping[float, Outcome], *, iterations: int, quantity: str) -> Figure:
    """Median loss or MSE against iteration, one panel for each method, one curve for each learning rate."""
    methods = list(next(iter(outcomes.values())).loss)
    figure = Picture(figsize=(2.8 * len(methods), 3.2))
    panels = figure.subplots(1, len(methods), squeeze=False, sharey=quantity == "mse")[0]
    colors = sns.color_palette("cividis", len(outcomes))
    markers = ("o", "s", "^", "D", "v", "P", "X")
    for axes, method in zip(panels, methods, strict=True):
        for number, (rate, outcome) in enumerate(outcomes.items()):
            _, middle, _ = quartiles(outcome.by_iteration(quantity, method, iterations))
            axes.plot(
                np.where(np.isfinite(middle), middle, np.nan),
                color=colors[number],
                marker=markers[number % 7],
                markevery=max(1, iterations // 8),
                markersize=5,
                label=f"{rate:g}",
            )
        axes.set(xlabel="iteration", yscale="log", title=method)
    panels[0].set_ylabel({"loss": "matching loss (median)", "mse": "MSE (median)"}[quantity])
    handles, names = panels[-1].get_legend_handles_labels()
    figure.legend(handles, names, title="learning rate", fontsize="small", loc="outside right center")
    return figure
