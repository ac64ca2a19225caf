"""The closed form in pictures: the way down through the layers, stride phases, and steps of refinement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle

from wdlg.figures.images import show_image
from wdlg.figures.look import WIDTH, Picture, legend_below, listed

PHASE_COLORS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7")
"""Of Okabe and Ito, one for each phase of a stride of 2."""

LEVEL_LOOKS = (("#0072B2", "-", "o"), ("#D55E00", "--", "s"), ("#009E73", "-.", "^"), ("#CC79A7", ":", "D"))
"""Colour, line and marker of curves for levels of noise, in turn."""


def mosaic(maps: np.ndarray, columns: int = 4) -> np.ndarray:
    """Maps (C, H, W) beside and below each other with white lines between, as one image (1, H', W').

    Their values are stretched to [0, 1] by the least and the largest of all that are finite.
    """
    count, height, width = maps.shape
    rows = -(-count // columns)
    good = maps[np.isfinite(maps)]
    low, high = (good.min(), good.max()) if good.size else (0.0, 1.0)
    scaled = (maps - low) / (high - low or 1.0)
    out = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1))
    for place, one in enumerate(scaled):
        top, left = place // columns * (height + 1), place % columns * (width + 1)
        out[top : top + height, left : left + width] = one
    return out[None]


def way_down(found: Sequence[np.ndarray], true: Sequence[np.ndarray], titles: Sequence[str]) -> Picture:
    """What each layer handed on, as it was recovered and as it was, a row for each, with the MSE below.

    Args:
        found, true: (C, H, W) each, in the order of recovery; the last is an image and shown as one.
        titles: of the rows.
    """
    # Narrow, so that its letters can be read on a phone.
    figure = Picture(figsize=(4.8, 2.15 * len(titles)))
    grid = figure.subplots(len(titles), 2, squeeze=False)
    for row, (title, one, other) in enumerate(zip(titles, found, true, strict=True)):
        picture = row == len(titles) - 1
        for axes, values in zip(grid[row], (one, other), strict=True):
            show_image(axes, values if picture else mosaic(values))
        grid[row, 0].set_ylabel(title)
        grid[row, 0].set_xlabel(f"MSE {np.mean((one - other) ** 2):.1g}")
    for axes, text in zip(grid[0], ("recovered", "private"), strict=True):
        axes.set_title(text)
    errors = [
        f"{title} {np.mean((one - other) ** 2):.1g}"
        for title, one, other in zip(titles, found, true, strict=True)
    ]
    figure.told = f"MSE on the way down: {listed(errors)}."
    return figure


def stride_phases(
    phases: np.ndarray, equations: Sequence[int], pixels: Sequence[int], window: tuple[float, float, int, int]
) -> Picture:
    """Which pixels have which stride phase, and how many equations there are for those of each.

    Args:
        phases: number of the phase of each pixel, (H, W), at most four.
        equations: gradient equations of each phase.
        pixels: of each phase.
        window: row and column of the first pixel of one window of the kernel, and its height and width.
    """
    # One above the other, so that its letters can be read on a phone.
    figure = Picture(figsize=(4.6, 6.6))
    plane, bars = figure.subplots(2, 1, height_ratios=(1.6, 1))
    count = len(equations)
    plane.imshow(phases, cmap=ListedColormap(PHASE_COLORS[:count]), vmin=-0.5, vmax=count - 0.5)
    height, width = phases.shape
    plane.set_xticks(np.arange(width) - 0.5, labels=[])
    plane.set_yticks(np.arange(height) - 0.5, labels=[])
    plane.tick_params(length=0)
    plane.grid(color="white", linewidth=0.8)
    row, column, high, wide = window
    frame = Rectangle((column - 0.5, row - 0.5), wide, high, fill=False, edgecolor="black", linewidth=2.5)
    plane.add_patch(frame)
    for i in range(high):
        for j in range(wide):
            if 0 <= row + i < height and 0 <= column + j < width:
                number = int(phases[int(row) + i, int(column) + j])
                plane.text(column + j, row + i, str(number + 1), ha="center", va="center", fontsize=9)
    plane.set_xlabel("pixels of one channel")
    _bars(bars, equations, pixels)
    counts = [
        f"{known} equations for {unknown} pixels" for known, unknown in zip(equations, pixels, strict=True)
    ]
    figure.told = f"Phase by phase: {listed(counts)}."
    return figure


def _bars(axes: Axes, equations: Sequence[int], pixels: Sequence[int]) -> None:
    places = np.arange(len(equations))[::-1]
    axes.barh(places, equations, color=PHASE_COLORS[: len(equations)], edgecolor="black", linewidth=0.6)
    for place, known, unknown in zip(places, equations, pixels, strict=True):
        axes.plot([unknown] * 2, [place - 0.45, place + 0.45], color="black", linewidth=2.5)
        axes.text(max(known, unknown), place, f"  {known} for {unknown}", va="center", fontsize=10)
    axes.set_yticks(places, [f"phase {number + 1}" for number in range(len(equations))])
    axes.set_xlim(0, 1.5 * max(*equations, *pixels))
    axes.set(xlabel="equations (line: unknown pixels)")
    axes.grid(False, axis="y")


def refinement(curves: Mapping[str, Sequence[float]], *, xlabel: str, others: Mapping[str, float]) -> Picture:
    """MSE by the number of steps, a curve for each level of noise; dotted: another attack's.

    Args:
        curves: MSE after 0, 1, 2 and more steps, by the name of the level.
        xlabel: of the axis.
        others: MSE of the other attack, by the name of the level.
    """
    figure = Picture(figsize=(WIDTH, 3.8))
    axes = figure.subplots()
    for place, (name, values) in enumerate(curves.items()):
        color, style, marker = LEVEL_LOOKS[place % len(LEVEL_LOOKS)]
        axes.plot(range(len(values)), values, color=color, linestyle=style, marker=marker, label=name)
        if name in others:
            axes.axhline(others[name], color=color, linestyle=":", linewidth=1.2)
    axes.set(yscale="log", xlabel=xlabel, ylabel="MSE (median)")
    axes.set_xticks(range(max(len(values) for values in curves.values())))
    legend_below(figure, 3)
    told = [
        f"{name} from {values[0]:.1g} to {values[-1]:.1g}"
        + (f" (the other attack has {others[name]:.1g})" if name in others else "")
        for name, values in curves.items()
    ]
    figure.told = f"The MSE goes: {'; '.join(told)}."
    return figure
