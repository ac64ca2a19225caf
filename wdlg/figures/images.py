"""Pictures of pictures: private images, recoveries, and recoveries on their way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wdlg.figures.look import LOOKS, Picture
from wdlg.study.paired import Outcome


def show_image(axes: Axes, image: np.ndarray) -> None:
    """Draw an image (C, H, W), clamped to [0, 1], without axes."""
    picture = np.clip(np.nan_to_num(image), 0, 1).transpose(1, 2, 0)
    axes.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def image_grid(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    row_titles: Sequence[str],
    column_titles: Sequence[str],
    notes: Sequence[Sequence[str]] | None = None,
    size: float = 0.95,
) -> Figure:
    """Images (C, H, W) in rows and columns, with a note under each where given."""
    figure = Picture(figsize=(size * len(column_titles) + 1.2, (size + 0.3) * len(rows)))
    grid = np.atleast_2d(figure.subplots(len(rows), len(column_titles), squeeze=False))
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            axes = grid[row, column]
            show_image(axes, image)
            if row == 0:
                axes.set_title(column_titles[column], fontsize="small")
            if notes is not None:
                axes.set_xlabel(notes[row][column], fontsize="x-small")
        grid[row, 0].set_ylabel(
            row_titles[row], rotation=0, ha="right", va="center", fontsize="small", labelpad=8
        )
    return figure


def single_attack(outcome: Outcome, method: str, *, start: np.ndarray) -> Figure:
    """One attack: the private image, the start, the last iterate, and the loss at each evaluation."""
    figure = Picture(figsize=(9, 2.8))
    left, middle, right, curve = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.8))
    pictures = [outcome.truth[0], start[0], outcome.images[method][0]]
    titles = ("private image", "start: random noise", f"recovered by {method}")
    for axes, picture, title in zip((left, middle, right), pictures, titles, strict=True):
        show_image(axes, picture)
        axes.set_title(title, fontsize="small")
    look = LOOKS[method]
    curve.semilogy(np.arange(1, outcome.loss[method].shape[1] + 1), outcome.loss[method][0], color=look.color)
    curve.set(xlabel="gradient evaluations", ylabel="matching loss")
    return figure


def unfolding(outcome: Outcome, method: str, *, case: int = 0) -> Figure:
    """A recovery in steps: the image at each snapshot iteration, and its MSE below."""
    images = [outcome.snapshots[method][place, case] for place in range(len(outcome.snapshot_iterations))]
    truth = outcome.truth[case]
    errors = [f"MSE {np.mean((image - truth) ** 2):.2g}" for image in images]
    return image_grid(
        [[*images, truth]],
        row_titles=[method],
        column_titles=[*(f"iteration {number}" for number in outcome.snapshot_iterations), "private image"],
        notes=[[*errors, ""]],
    )
