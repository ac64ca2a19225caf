"""What any attack can reach: directions of an image that leak first and last, and errors against noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from wdlg.figures.images import show_image
from wdlg.figures.look import LOOKS, OTHER, WIDTH, Look, Picture, legend_below, listed
from wdlg.study.statistics import quartiles

REACHING = {
    **LOOKS,
    "closed form": Look("#56B4E9", (0, (1, 1)), "v"),
    "closed form, refined": Look("#0072B2", "-", "o"),
    "most probable": Look("#CC79A7", (0, (4, 2)), "D"),
}
"""Looks of the attacks that are compared with the bounds."""

BELOW = 1e-12
"""Where the region that no unbiased estimate reaches ends, below all axes."""


def directions(
    vectors: np.ndarray, deviations: Sequence[float], *, each: int = 3, size: float = 1.45
) -> Picture:
    """Directions of an image that leak first, above, and last, below, with what remains unknown of each.

    Args:
        vectors: (D, C, H, W) of norm 1, the first to leak first; grey is no change of the image.
        deviations: least standard deviation along each, (D,).
        each: how many of each end.
    """
    figure = Picture(figsize=(size * each + 0.6, 2 * (size + 0.55)))
    rows = figure.subplots(2, each, squeeze=False)
    last = len(vectors) - each
    for axes_row, first, name in ((rows[0], 0, "first"), (rows[1], last, "last")):
        for axes, place in zip(axes_row, range(first, first + each), strict=True):
            image = vectors[place]
            show_image(axes, 0.5 + 0.5 * image / np.abs(image).max())
            axes.set_title(f"{place + 1} of {len(vectors):,}")
            axes.set_xlabel(f"± {deviations[place]:.2g}")
        axes_row[0].set_ylabel(name)
    figure.told = (
        f"The least standard deviation is {deviations[0]:.2g} along the first direction and "
        f"{deviations[len(vectors) - 1]:.2g} along the last."
    )
    return figure


def directions_by_noise(
    levels: Sequence[float], counts: Sequence[int], pixels: int, most: Sequence[int] | None = None
) -> Picture:
    """How many directions of an image can be told at each noise level.

    Args:
        levels: relative noise levels, ascending.
        counts: directions at each, or the least that they can be.
        pixels: of the image, the most that there are.
        most: that they can be at each; None where counts are exact.
    """
    figure = Picture(figsize=(5.2, 3.2))
    axes = figure.subplots()
    axes.plot(levels, counts, color="#0072B2")
    if most is not None:
        axes.fill_between(levels, counts, most, color="#0072B2", alpha=0.3, label="at least and at most")
    axes.axhline(pixels, color="0.5", linestyle=":", label=f"all {pixels:,}")
    axes.set(xscale="log", ylim=(0, 1.08 * pixels))
    axes.set(xlabel="noise level (relative to the gradient)", ylabel="directions told")
    axes.legend(loc="lower left", fontsize="small")
    return figure


def pixel_map(image: np.ndarray, deviations: np.ndarray) -> Picture:
    """An image, and the least standard deviation of each of its pixels beside it.

    Args:
        image: (C, H, W).
        deviations: (C, H, W), in units of the pixels' values; of channels the root mean square is shown.
    """
    figure = Picture(figsize=(WIDTH, 2.7))
    left, right = figure.subplots(1, 2)
    show_image(left, image)
    left.set_title("private image", fontsize="medium")
    spread = np.sqrt(np.square(deviations).mean(0))
    drawn = right.imshow(spread, cmap="cividis", interpolation="nearest")
    right.set_title("least standard deviation", fontsize="medium")
    right.set_xticks([])
    right.set_yticks([])
    figure.colorbar(drawn, ax=right, fraction=0.046)
    figure.told = (
        f"The deviations go from {spread.min():.2g} to {spread.max():.2g}, with a median of "
        f"{np.median(spread):.2g}."
    )
    return figure


def mse_by_noise(
    table: pd.DataFrame,
    bound: Mapping[float, float],
    *,
    lines: Mapping[str, Mapping[float, float]],
    shown: tuple[float, float] = (1e-9, 1e2),
) -> Picture:
    """Median MSE of attacks against the level of the noise, above what no unbiased estimate reaches.

    Args:
        table: a row for each run, with level, method and mse.
        bound: the Cramér-Rao bound by level; what lies below it is grey.
        lines: other bounds and values by name, by level, drawn without markers.
        shown: least and largest MSE of the axis; a curve beyond leaves the frame.
    """
    figure = Picture(figsize=(WIDTH, 5.6))
    axes = figure.subplots()
    axes.fill_between(
        list(bound), BELOW, list(bound.values()), color="0.85", label="below the Cramér-Rao bound"
    )
    for place, (name, values) in enumerate(lines.items()):
        style = (":", (0, (5, 5)))[place % 2]
        axes.plot(
            list(values), list(values.values()), color="0.35", linestyle=style, linewidth=2.5, label=name
        )
    told = []
    for method in dict.fromkeys(table["method"]):
        runs = table[table["method"] == method]
        look = REACHING.get(str(method), OTHER)
        middle = {
            float(level): float(quartiles(runs["mse"][runs["level"] == level])[1])
            for level in sorted(runs["level"].unique())
        }
        axes.plot(
            list(middle),
            list(middle.values()),
            color=look.color,
            linestyle=look.style,
            marker=look.marker,
            label=str(method),
        )
        ends = listed(f"{middle[level]:.2g} at {level:g}" for level in (min(middle), max(middle)))
        told.append(f"{method} {ends}")
    axes.set(xscale="log", yscale="log", ylim=shown)
    axes.set(xlabel="noise level (relative to the gradient)", ylabel="MSE (median)")
    legend_below(figure, 2)
    low, high = min(bound), max(bound)
    ends = f"The bound goes from {bound[low]:.2g} at {low:g} to {bound[high]:.2g} at {high:g}."
    figure.told = f"Median MSE at the least and the largest level: {'; '.join(told)}. {ends}"
    return figure
