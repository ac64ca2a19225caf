"""Pictures of pictures: private images, recoveries, and recoveries on their way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wdlg import data
from wdlg.figures.look import LOOKS, OTHER, Picture, empty
from wdlg.study.paired import Outcome
from wdlg.study.records import PICTURE_ITERATIONS, as_images, values_at


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


def cards(
    pictures: Mapping[str, np.ndarray], notes: Mapping[str, str], *, columns: int = 4, size: float = 1.45
) -> Figure:
    """Images (C, H, W) by their titles, in rows, with a note under each that has one."""
    rows = -(-len(pictures) // columns)
    figure = Picture(figsize=(size * columns + 0.3, (size + 0.75) * rows))
    places = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (title, image) in zip(places, pictures.items(), strict=False):
        show_image(axes, image)
        axes.set_title(title, fontsize="small")
        axes.set_xlabel(notes.get(title, ""), fontsize="small")
    for axes in places[len(pictures) :]:
        axes.set_visible(False)
    return figure


def recovered(records: pd.DataFrame, private: Mapping[str, np.ndarray | None]) -> Figure:
    """The private image and what each method has at the last of ``PICTURE_ITERATIONS``, or at its end.

    One case and one row for each data set.

    Args:
        records: one row for each data set and method, with pictures; see :func:`wdlg.study.runner.compute`.
        private: the private image (C, H, W) by data set, None if it is not at hand.
    """
    if not len(records):
        return empty()
    methods = list(records["method"].unique())
    rows, notes = [], []
    for name, image in private.items():
        part = records[records["dataset"] == name]
        images = {str(record["method"]): _stored(record)[-1] for _, record in part.iterrows()}
        last = values_at(part, "mse", np.array(PICTURE_ITERATIONS[-1:]), against="iteration")[:, 0]
        errors = {method: f"MSE {error:.2g}" for method, error in zip(images, last, strict=True)}
        blank = np.ones_like(next(iter(images.values())))
        rows.append([blank if image is None else image, *(images.get(method, blank) for method in methods)])
        mark = "not at hand" if image is None else ""
        notes.append([mark, *(errors.get(method, "not run") for method in methods)])
    return image_grid(
        rows,
        row_titles=[data.CATALOGUE[name].title for name in private],
        column_titles=["private image", *methods],
        notes=notes,
        size=1.3,
    )


def outcomes(
    records: pd.DataFrame, found: pd.DataFrame, private: Mapping[tuple[str, int], np.ndarray | None]
) -> Figure:
    """A case for each outcome of two methods: the private image, and what each method has at the end.

    Args:
        records: of the two methods, with pictures.
        found: of :func:`wdlg.study.summary.paired_outcomes`; an outcome without pictures is left out.
        private: the private image (C, H, W) by data set and number, None if it is not at hand.
    """
    methods = list(dict.fromkeys(records["method"]))
    rows, titles, notes = [], [], []
    for outcome in found.dropna(subset="dataset").to_dict("records"):
        here = [records[name] == outcome[name] for name in ("dataset", "network", "case")]
        case = records[np.logical_and.reduce(here)]
        ends = {record["method"]: _stored(record)[-1] for _, record in case.iterrows()}
        last = values_at(case, "mse", np.array(PICTURE_ITERATIONS[-1:]), against="iteration")[:, 0]
        errors = dict(zip(ends, last, strict=True))
        image = private.get((outcome["dataset"], int(case["image"].iloc[0])))
        blank = np.ones_like(next(iter(ends.values())))
        rows.append([blank if image is None else image, *(ends[method] for method in methods)])
        mark = "not at hand" if image is None else ""
        notes.append([mark, *(f"MSE {errors[method]:.2g}" for method in methods)])
        titles.append(f"{outcome['outcome']}:\n{outcome['count']} of {outcome['cases']}")
    if not rows:
        return empty()
    return image_grid(
        rows, row_titles=titles, column_titles=["private image", *methods], notes=notes, size=1.3
    )


def on_the_way(records: pd.DataFrame, private: np.ndarray | None) -> Figure:
    """One case in steps: a row for each method, its images at ``PICTURE_ITERATIONS`` or at its end.

    Args:
        records: one row for each method, with pictures.
        private: the private image (C, H, W), None if it is not at hand.
    """
    if not len(records):
        return empty()
    rows = []
    for _, record in records.iterrows():
        images = _stored(record)
        rows.append([*images, np.ones_like(images[0]) if private is None else private])
    return image_grid(
        rows,
        row_titles=list(records["method"]),
        column_titles=[*(f"iteration {number}" for number in PICTURE_ITERATIONS), "private"],
    )


def _stored(record: pd.Series) -> np.ndarray:
    height, width, channels = data.CATALOGUE[record["dataset"]].shape
    return as_images(record["pictures"], (channels, height, width))


def single_attack(outcome: Outcome, method: str, *, start: np.ndarray | None) -> Figure:
    """One attack: the private image, the start, the last iterate, and the loss at each evaluation.

    Without a start, for an attack that needs none, its picture is left out.
    """
    pictures = {"private image": outcome.truth[0]}
    if start is not None:
        pictures["start: random noise"] = start[0]
    pictures[f"recovered by {method}"] = outcome.images[method][0]
    figure = Picture(figsize=(9, 2.8))
    *places, curve = figure.subplots(1, len(pictures) + 1, width_ratios=(*[1] * len(pictures), 1.8))
    for axes, (title, picture) in zip(places, pictures.items(), strict=True):
        show_image(axes, picture)
        axes.set_title(title, fontsize="small")
    look = LOOKS.get(method, OTHER)
    record = outcome.records[outcome.records["method"] == method].iloc[0]
    evaluations, loss = record["trace_evaluation"] + 1, record["trace_loss"]
    # A curve of one point is a point.
    curve.plot(evaluations, loss, color=look.color, marker=look.marker if len(loss) == 1 else None)
    curve.set(xscale="log", yscale="log")
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
