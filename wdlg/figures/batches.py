"""Batches: labels counted, images recovered together, and where a gradient holds no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from wdlg.figures.images import image_grid
from wdlg.figures.look import Look, Picture, legend_below

WAYS = {
    "mean": Look("#009E73", "-", "o"),
    "class": Look("#0072B2", "--", "s"),
    "bias alone": Look("#E69F00", "-.", "^"),
    "certain": Look("#000000", "-", "X"),
    "negative entries": Look("#CC79A7", ":", "D"),
}
"""Looks of the ways to read the labels of a batch."""

CURVES = (
    Look("#000000", "-", "o"),
    Look("#0072B2", "--", "s"),
    Look("#009E73", "-.", "^"),
    Look("#CC79A7", ":", "D"),
    Look("#E69F00", (0, (6, 1)), "P"),
    Look("#D55E00", (0, (2, 1)), "v"),
)
"""Of curves without a meaning of their own, in turn."""


def counts_by_batch(table: pd.DataFrame) -> Figure:
    """Share of batches whose labels are all read right, against their size.

    Args:
        table: of :func:`wdlg.study.batches.compare_counts`.
    """
    figure = Picture(figsize=(5.2, 4.4))
    axes = figure.subplots()
    for way, look in WAYS.items():
        part = table[table["way"] == way]
        axes.plot(
            part["images"],
            part["counts"],
            color=look.color,
            linestyle=look.style,
            marker=look.marker,
            label=way,
        )
    sizes = sorted(table["images"].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel="images in the batch", ylabel="batches with all labels right", ylim=(-0.04, 1.04))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    legend_below(figure, 3)
    return figure


def recovered_together(
    truth: np.ndarray, found: Mapping[int, np.ndarray], errors: Mapping[int, Sequence[float]]
) -> Figure:
    """Private images, and what is recovered of them from batches of the first of them, a row for each size.

    Args:
        truth: (N, C, H, W).
        found: recovered images by the size of the batch, (size, C, H, W).
        errors: their MSE.
    """
    blank = np.ones_like(truth[0])
    rows, notes = [list(truth)], [[""] * len(truth)]
    for size, images in found.items():
        missing = len(truth) - size
        rows.append([*images, *[blank] * missing])
        notes.append([*(f"{error:.0e}" for error in errors[size]), *[""] * missing])
    return image_grid(
        rows,
        row_titles=["private", *(f"of {size}" for size in found)],
        column_titles=[str(place + 1) for place in range(len(truth))],
        notes=notes,
        size=0.8,
    )


def rank_by_count(most: Mapping[str, Sequence[int]], pixels: Mapping[str, int]) -> Figure:
    """The most that a gradient can hold, as a share of the pixels of its images, against their number.

    Args:
        most: the most that the rank can be, for 1, 2, 3 ... images, by a title.
        pixels: of one image, by the same.
    """
    figure = Picture(figsize=(5.2, 4.2))
    axes = figure.subplots()
    for (title, ranks), look in zip(most.items(), cycle(CURVES), strict=False):
        images = np.arange(1, len(ranks) + 1)
        share = np.array(ranks) / (images * pixels[title])
        axes.plot(images, share, color=look.color, linestyle=look.style, linewidth=2.5, label=title)
    axes.set(xscale="log", xlabel="images in the batch", ylabel="most directions held", ylim=(0, 1.05))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    legend_below(figure, 1)
    return figure


def spectra(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, tolerance: float, least: float = 1e-10
) -> Figure:
    """Singular values of Jacobians relative to the largest, against their place as a share of the pixels.

    Args:
        curves: places, from 0 to 1, and values by a title.
        tolerance: below which a value is none.
        least: the axis ends there.
    """
    figure = Picture(figsize=(5.2, 5.0))
    axes = figure.subplots()
    for (title, (places, values)), look in zip(curves.items(), cycle(CURVES), strict=False):
        shown = np.maximum(np.array(values), least)
        axes.plot(places, shown, color=look.color, linestyle=look.style, linewidth=2, label=title)
    axes.axhspan(least, tolerance, color="0.85", label="not in the gradient")
    axes.set(yscale="log", ylim=(least, 2), xlim=(0, 1))
    axes.set(xlabel="direction, as a share of the pixels", ylabel="seen in the gradient (relative)")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    legend_below(figure, 2)
    return figure
