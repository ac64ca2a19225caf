"""Matching losses along lines, transport plans, and the convergence of Sinkhorn's algorithm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.ticker import PercentFormatter

from wdlg.figures.look import LOOKS, ORDERED, WIDTH, Picture, legend_below, listed, panels, percent

FLOOR, TOP = 1e-3, 3.0
"""Least and largest share of a loss that loss lines show; anything beyond stands there."""


def loss_lines(
    positions: np.ndarray, losses: Mapping[str, np.ndarray], *, titles: Sequence[str], ends: Sequence[str]
) -> Picture:
    """Matching losses along straight lines in image space, each divided by its value at position 1.

    A marker shows where each curve is least. The axis is logarithmic and ends at a thousandth, so that a
    floor of a few per cent is plain to see; what is lower, down to zero, lies on the edge.

    Args:
        positions: along a line, 0 at the private image, 1 at the other end (T,).
        losses: by loss name, values (lines, T).
        titles: of the lines.
        ends: what is at position 1 of each.
    """
    figure, found = panels(len(titles), across=1, height=2.6, more=0.5)
    looks = dict(zip(losses, (LOOKS["iDLG"], LOOKS["Euclidean"], LOOKS["WDLG"]), strict=False))
    told = []
    for line, (axes, title, end) in enumerate(zip(found, titles, ends, strict=True)):
        least = []
        for name, values in losses.items():
            look = looks[name]
            shares = values[line] / values[line][np.abs(positions - 1).argmin()]
            lowest = int(shares.argmin())
            axes.plot(
                positions,
                shares.clip(FLOOR, TOP),
                color=look.color,
                linestyle=look.style,
                marker=look.marker,
                markevery=[lowest],
                markersize=8,
                clip_on=False,
                label=name,
            )
            share = f"{percent(shares[lowest])} of its value at 1"
            least.append(f"{name} at {round(float(positions[lowest]), 3) + 0:g}, with {share}")
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set(xlabel=f"position: 0 is the private image, 1 {end}", title=title)
        axes.set(yscale="log", ylim=(FLOOR, TOP))
        axes.set_ylabel("loss / loss at position 1")
        told.append(f"On the line {title} the loss is least: {'; '.join(least)}.")
    legend = figure.legend(
        *found[0].get_legend_handles_labels(), loc="outside lower center", fontsize="small"
    )
    for handle in legend.get_lines():
        handle.set_markersize(6)
    figure.told = " ".join(told)
    return figure


def point_plans(x: np.ndarray, y: np.ndarray, plans: Mapping[str, np.ndarray]) -> Picture:
    """Transport between two small sets of points in the plane: a line for each move, as wide as its mass."""
    figure, found = panels(len(plans), height=2.4, more=0.3, sharex=True, sharey=True)
    largest = 1 / len(x)
    told = []
    for number, (axes, (title, plan)) in enumerate(zip(found, plans.items(), strict=True)):
        moves = np.argwhere(plan > 0.01 * largest)
        for i, j in moves:
            axes.plot(
                [x[i, 0], y[j, 0]],
                [x[i, 1], y[j, 1]],
                color="#888888",
                linewidth=4 * plan[i, j] / largest,
                zorder=1,
                solid_capstyle="round",
            )
        axes.scatter(x[:, 0], x[:, 1], color=LOOKS["DLG"].color, marker="o", s=60, label="points x", zorder=2)
        axes.scatter(
            y[:, 0], y[:, 1], color=LOOKS["iDLG"].color, marker="s", s=60, label="points y", zorder=2
        )
        axes.set(title=title, xlabel="first coordinate" if number >= len(plans) - 2 else "")
        if number % 2 == 0:
            axes.set_ylabel("second coordinate")
        told.append(f"{title} {len(moves)}")
    legend_below(figure, 2)
    figure.told = f"Lines in each panel: {listed(told)}."
    return figure


def plan_maps(plans: Mapping[str, np.ndarray]) -> Picture:
    """Transport plans as maps, dark where much mass moves; each entry as a share of its row.

    Tones grow with the root of the share, so that an even spread is grey and not blank.
    """
    figure, found = panels(len(plans), height=2.5, more=0.6)
    shades = PowerNorm(0.5, vmin=0, vmax=1)
    told = []
    for number, (axes, (title, plan)) in enumerate(zip(found, plans.items(), strict=True)):
        image = axes.imshow(plan * len(plan), cmap="Greys", norm=shades)
        place = f"{percent(float(np.trace(plan)))} in place"
        axes.set(title=f"{title}\n{place}", xlabel="row, shared" if number >= len(plans) - 2 else "")
        if number % 2 == 0:
            axes.set_ylabel("row, dummy")
        axes.grid(visible=False)
        told.append(f"{title}: {place}")
    bar = figure.colorbar(image, ax=found, label="share of the row's mass", location="bottom", aspect=35)
    even = 1 / len(plan)
    bar.set_ticks([0, even, 0.25, 0.5, 1], labels=["0", "even", *(percent(one) for one in (0.25, 0.5, 1))])
    figure.told = f"Mass on the diagonal: {'; '.join(told)}."
    return figure


def lines(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    xlabel: str,
    ylabel: str,
    xscale: str = "linear",
    yscale: str = "log",
    legend: str | None = None,
    size: tuple[float, float] = (WIDTH, 3.6),
) -> Picture:
    """A few named curves (x, y) on one pair of axes, told apart by colour, style and marker."""
    figure = Picture(figsize=size)
    axes = figure.subplots()
    told = []
    for number, (name, (x, y)) in enumerate(curves.items()):
        look = ORDERED[number % len(ORDERED)]
        told.append(f"{name} from {y[0]:.2g} at {x[0]:.3g} to {y[-1]:.2g} at {x[-1]:.3g}")
        axes.plot(
            x,
            y,
            label=name,
            color=look.color,
            linestyle=look.style,
            marker=look.marker,
            markevery=max(1, len(x) // 10),
            markersize=5,
        )
    axes.set(xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale)
    axes.legend(fontsize="small", title=legend)
    figure.told = f"{ylabel}, {f'by {legend}' if legend else 'curve by curve'}: {'; '.join(told)}."
    figure.told = figure.told[:1].upper() + figure.told[1:]
    return figure


def kept_mass(table: pd.DataFrame) -> Picture:
    """Share of mass that stays with its own unit against iteration, a panel for each reading.

    Cases whose attack recovered its image are solid and end in a star, the others are dashed; black is the
    median of all.

    Args:
        table: rows of :func:`wdlg.study.mechanism.kept_along`.
    """
    methods = list(table["method"].unique())
    figure, found = panels(len(methods), height=2.5, more=0.5, sharey=True)
    won, lost = LOOKS["WDLG"].color, LOOKS["iDLG"].color
    last = table["iteration"].max()
    told = []
    for number, (axes, method) in enumerate(zip(found, methods, strict=True)):
        rows = table[table["method"] == method]
        successes = 0
        for _, case in rows.groupby("case"):
            good = bool(case["recovered"].iloc[-1])
            successes += good
            axes.plot(
                case["iteration"],
                case["kept"],
                color=won if good else lost,
                linestyle="-" if good else "--",
                alpha=0.8,
                linewidth=1.2,
                marker="*" if good else None,
                markersize=11,
                markevery=[-1],
                clip_on=False,
                label="recovered" if good else "not recovered",
            )
        middle = rows.groupby("iteration")["kept"].median()
        axes.plot(
            middle.index, middle, color="black", linewidth=2.2, marker="o", markersize=4, label="median"
        )
        axes.set(xlabel="iteration", title=method, ylim=(0, 1.03))
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(0, last)
        axes.set_xticks([0, 1, 10], ["0", "1", "10"])
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        if number % 2 == 0:
            axes.set_ylabel("mass in its place")
        cases = rows["case"].nunique()
        told.append(
            f"{method} from {percent(middle.iloc[0])} to {percent(middle.iloc[-1])}, "
            f"{successes} of {cases} images recovered"
        )
    legend_below(figure, 3)
    figure.told = f"The median share goes: {'; '.join(told)}."
    return figure
