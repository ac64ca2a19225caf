"""What the stored records of a study add up to: success of many losses, success by learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator, PercentFormatter

from wdlg.evaluation import SUCCESS_TITLE, recovered
from wdlg.figures.look import (
    LOOKS,
    OTHER,
    WIDTH,
    Picture,
    beside,
    empty,
    legend_below,
    listed,
    panels,
    percent,
)
from wdlg.study.statistics import share_by_network
from wdlg.verdicts import wording
from wdlg.verdicts.readings import BETTER, NONE_RECOVERS, TIES, TOO_FEW, WORSE, Place


def success_of_each(table: pd.DataFrame, titles: Mapping[str, str], order: Sequence[str]) -> Picture:
    """Share of runs that recovered the image and share that exploded, for many losses.

    Args:
        table: records with dataset, method, network, mse and exploded.
        titles: of the data sets, by name; one panel each.
        order: methods from top to bottom.
    """
    if not titles:
        return empty()
    # Narrow, so that the many names stay legible on a phone.
    figure = Picture(figsize=(min(1.8 * len(titles) + 2.2, WIDTH + 0.4), 0.28 * len(order) + 1.2))
    columns = figure.subplots(1, len(titles), squeeze=False, sharey=True)[0]
    places = np.arange(len(order))[::-1]
    shares: dict[str, list[float]] = {}
    for axes, (name, title) in zip(columns, titles.items(), strict=True):
        part = table[table["dataset"] == name]
        for place, method in zip(places, order, strict=True):
            rows = part[part["method"] == method]
            if not len(rows):
                continue
            good = share_by_network(recovered(rows["mse"]), rows["network"])
            bad = rows["exploded"].mean()
            shares.setdefault(method, []).append(good.value)
            axes.plot([good.low, good.high], [place] * 2, color=LOOKS["WDLG"].color, linewidth=2)
            axes.plot(good.value, place, marker="o", color=LOOKS["WDLG"].color, label=SUCCESS_TITLE)
            axes.plot(bad, place, marker="x", color=LOOKS["iDLG"].color, label="exploded", linestyle="none")
        axes.set(xlabel="share of runs", title=title, xlim=(-0.03, 1.03))
        axes.set_yticks(places, order)
        axes.xaxis.set_major_locator(MultipleLocator(0.5))
        axes.xaxis.set_minor_locator(MultipleLocator(0.1))
        axes.grid(True, axis="x", which="minor", linewidth=0.4)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    legend_below(figure)
    if shares:
        means = {method: sum(values) / len(values) for method, values in shares.items()}
        best = max(means, key=lambda method: means[method])
        none = [method for method in means if not means[method]]
        figure.told = (
            f"In the mean over the panels {best} recovers the most, {percent(means[best])}; "
            f"{len(none)} of {len(means)} losses recover nothing{': ' + '; '.join(none) if none else ''}."
        )
    return figure


def success_by_rate(table: pd.DataFrame) -> Picture:
    """Share of runs that recovered the image at each learning rate, with 95 % intervals.

    Args:
        table: records with optimizer, learning_rate, method, network and mse; one panel for each optimiser
            with any success, and a sentence for the others.
    """
    if not len(table):
        return empty()
    success = recovered(table["mse"]).groupby(table["optimizer"], sort=False).any()
    every = list(success.index)
    optimizers = [name for name in every if success[name]] or every[:1]
    none = [str(name) for name in every if name not in optimizers]
    figure, found = panels(len(optimizers), across=1, height=2.6, more=0.4 + 0.3 * bool(none), sharey=True)
    told = []
    for axes, optimizer in zip(found, optimizers, strict=True):
        part = table[table["optimizer"] == optimizer]
        methods = list(part["method"].unique())
        for method, rows in part.groupby("method", sort=False):
            look = LOOKS.get(str(method), OTHER)
            shares = {
                float(rate): share_by_network(recovered(runs["mse"]), runs["network"])
                for rate, runs in rows.groupby("learning_rate")
            }
            values = np.array([one.value for one in shares.values()])
            axes.errorbar(
                list(shares),
                values,
                yerr=[
                    values - [one.low for one in shares.values()],
                    [one.high for one in shares.values()] - values,
                ],
                color=look.color,
                linestyle=look.style,
                marker=look.marker,
                capsize=2,
                label=str(method),
                transform=beside(axes, methods.index(method), len(methods)),
            )
            best = max(shares, key=lambda rate: shares[rate].value)
            most = shares[best].value
            where = f"the most at the rate {best:g}, {percent(most)}" if most else "nothing at any rate"
            told.append(f"with {OPTIMIZER_TITLES.get(optimizer, optimizer)} {method} recovers {where}")
        axes.set(xscale="log", xlabel="learning rate", title=optimizer, ylim=(-0.03, 1.03))
        rates = part["learning_rate"].astype(float)
        axes.set_xlim(rates.min() / 1.5, rates.max() * 1.5)
        axes.set_ylabel(f"runs with {SUCCESS_TITLE}")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    legend_below(figure)
    if none:
        told.append(f"with {listed(none)} no method recovers anything, at any rate")
        found[-1].set_xlabel(f"learning rate\n({listed(none)}: nothing recovered)")
    figure.told = _sentence(told)
    return figure


def _sentence(parts: Sequence[str]) -> str:
    """Parts as one sentence, which begins with a capital letter."""
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


VERDICT_LOOKS = {
    BETTER: ("#56B4E9", "+"),
    TIES: ("#DDDDDD", "="),
    WORSE: ("#E69F00", "\N{MINUS SIGN}"),
    NONE_RECOVERS: ("#FFFFFF", ""),
    TOO_FEW: ("#F5F5F5", "?"),
}
"""Colour and sign of each verdict of a map of readings."""

OPTIMIZER_TITLES = {"LBFGS": "L-BFGS", "GradientDescent": "descent", "Adam": "Adam"}
"""Short names of optimisers, for narrow columns."""


def _column(place: Place) -> str:
    """What heads the column of a place on a map."""
    return (
        wording.title(place.dataset)
        if place.dataset
        else OPTIMIZER_TITLES.get(place.optimizer, place.optimizer)
    )


def readings_map(places: Sequence[Place]) -> Picture:
    """Where each reading recovers more, as many or fewer images than the squared distance.

    Args:
        places: of ``wdlg.verdicts.readings``; one panel for each kind of network, a row for each reading, a
            column for each optimiser or, in a comparison by data set, for each data set. A cell shows the
            images recovered and the sign of its verdict.
    """
    if not places:
        return empty()
    networks, readings = (
        list(dict.fromkeys(getattr(place, name) for place in places)) for name in ("network", "reading")
    )
    columns = list(dict.fromkeys(_column(place) for place in places))
    lines = -(-len(networks) // 2)
    wide = 2.1 + 0.75 * len(columns) * min(2, len(networks))
    most = WIDTH + 0.4
    figure = Picture(figsize=(min(wide, most), lines * (0.25 * len(readings) + 1.0)))
    grid = figure.subplots(lines, min(2, len(networks)), squeeze=False, sharey=True)
    for axes in grid.flat[len(networks) :]:
        axes.set_visible(False)
    for axes, network in zip(grid.flat, networks, strict=False):
        runs = 0
        for place in places:
            if place.network != network:
                continue
            column, line = columns.index(_column(place)), readings.index(place.reading)
            color, sign = VERDICT_LOOKS[place.verdict]
            axes.add_patch(
                Rectangle((column - 0.5, line - 0.5), 1, 1, facecolor=color, edgecolor="white", linewidth=1.5)
            )
            opponent = place.gain is None
            axes.text(
                column,
                line,
                f"{place.successes}{'' if opponent else ' ' + sign}".strip(),
                ha="center",
                va="center",
                color="black",
                fontsize=9,
                fontweight="bold" if opponent else "normal",
            )
            runs = max(runs, place.runs)
        axes.set(
            xlim=(-0.5, len(columns) - 0.5),
            ylim=(len(readings) - 0.5, -0.5),
            title=f"{network}\n{runs} runs each",
        )
        axes.set_xticks(
            range(len(columns)), columns, rotation=35 if wide > most or any(p.dataset for p in places) else 0
        )
        axes.set_yticks(range(len(readings)), readings)
        axes.grid(visible=False)
    compared = [place for place in places if place.gain is not None]
    told = [
        f"{verdict} in {count}"
        for verdict in VERDICT_LOOKS
        if (count := sum(place.verdict == verdict for place in compared))
    ]
    better = [
        f"{place.reading} on {place.network}{',' if place.dataset else ' under'} {_column(place)}"
        for place in compared
        if place.verdict == BETTER
    ]
    figure.told = f"Of {len(compared)} places that are compared the verdict is {listed(told)}."
    if better and len(better) <= 5:
        figure.told += f" Better: {listed(better)}."
    return figure


def held_map(table: pd.DataFrame) -> Picture:
    """How many attacks that start near the private image stay there, for each loss and distance.

    Args:
        table: of ``wdlg.verdicts.causes.holding``; one panel for each kind of network, a row for each
            reading, a column for each distance. The darker a cell, the larger the share.
    """
    if not len(table):
        return empty()
    networks, readings, distances = (
        list(dict.fromkeys(table[name])) for name in ("network", "reading", "distance")
    )
    height = 0.25 * len(readings) + 1.2
    figure, found = panels(len(networks), across=1, height=height)
    told: list[str] = []
    for axes, network in zip(found, networks, strict=True):
        part = table[table["network"] == network]
        for row in part.to_dict("records"):
            place = distances.index(row["distance"]), readings.index(row["reading"])
            share = row["held"] / row["runs"]
            axes.add_patch(
                Rectangle(
                    (place[0] - 0.5, place[1] - 0.5),
                    *(1, 1),
                    facecolor=sns.light_palette("#0072B2", as_cmap=True)(0.75 * share),
                    edgecolor="white",
                    linewidth=1.5,
                )
            )
            axes.text(*place, str(row["held"]), ha="center", va="center", color="black", fontsize=9)
        axes.set(
            xlim=(-0.5, len(distances) - 0.5),
            ylim=(len(readings) - 0.5, -0.5),
            title=f"{network}, of {part['runs'].max()} runs",
            xlabel="distance of the start",
        )
        near, far = (part[part["distance"] == one] for one in (min(distances), max(distances)))
        told.extend(
            f"on {network} from a distance of {rows['distance'].iloc[0]:g} "
            + ", ".join(f"{row['held']} ({row['reading']})" for row in rows.to_dict("records"))
            for rows in (near, far)
        )
        axes.set_xticks(range(len(distances)), [f"{one:g}" for one in distances])
        axes.set_yticks(range(len(readings)), readings)
        axes.grid(visible=False)
    figure.told = _sentence(told)
    return figure
