"""Pictures of pictures: private images, recoveries, and recoveries on their way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from wdlg import data
from wdlg.evaluation import recovered as is_recovered
from wdlg.figures.look import LOOKS, OTHER, WIDTH, Picture, empty, listed
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
) -> Picture:
    """Images (C, H, W) in rows and columns, with a note under each where given.

    The title of a row stands upright beside it, so that its pictures have the width of the page.
    """
    size = min(size, (WIDTH - 0.4) / len(column_titles))
    lines = 1 if notes is None else 1 + max(note.count("\n") for row in notes for note in row)
    height = size + (0.1 if notes is None else 0.12 + 0.16 * lines)
    figure = Picture(figsize=(size * len(column_titles) + 0.4, height * len(rows) + 0.25))
    grid = np.atleast_2d(figure.subplots(len(rows), len(column_titles), squeeze=False))
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            axes = grid[row, column]
            show_image(axes, image)
            if row == 0:
                axes.set_title(column_titles[column], fontsize="small")
            if notes is not None:
                axes.set_xlabel(notes[row][column], fontsize=8, labelpad=2)
        grid[row, 0].set_ylabel(row_titles[row], fontsize="small")
    return figure


def montage(images: Sequence[np.ndarray], *, columns: int = 2) -> np.ndarray:
    """Images (C, H, W) of one size as one, with white lines between; what is no number is black.

    >>> montage([np.zeros((1, 8, 8))] * 4).shape
    (1, 17, 17)
    """
    channels, height, width = images[0].shape
    rows = -(-len(images) // columns)
    out = np.ones((channels, rows * (height + 1) - 1, columns * (width + 1) - 1))
    for place, image in enumerate(images):
        top, left = place // columns * (height + 1), place % columns * (width + 1)
        out[:, top : top + height, left : left + width] = np.clip(np.nan_to_num(image), 0, 1)
    return out


def cards(
    pictures: Mapping[str, np.ndarray], notes: Mapping[str, str], *, columns: int = 4, size: float = 1.45
) -> Picture:
    """Images (C, H, W) by their titles, in rows, with a note under each that has one."""
    rows = -(-len(pictures) // columns)
    size = min(size, (WIDTH - 0.2) / columns)
    lines = max((note.count("\n") + 1 for note in notes.values() if note), default=0)
    figure = Picture(figsize=(size * columns + 0.2, (size + 0.35 + 0.17 * lines) * rows))
    places = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (title, image) in zip(places, pictures.items(), strict=False):
        show_image(axes, image)
        axes.set_title(title, fontsize="small")
        axes.set_xlabel(notes.get(title, ""), fontsize="small")
    for axes in places[len(pictures) :]:
        axes.set_visible(False)
    told = [f"{title}: {note.replace(chr(10), ', ')}" for title, note in notes.items() if note]
    figure.told = f"{'; '.join(told)}." if told else ""
    return figure


def who_recovered(errors: Mapping[str, float]) -> str:
    """Whose error is below the threshold of success, in words.

    >>> who_recovered({"DLG": 0.5, "iDLG": 0.001}), who_recovered({"DLG": 0.5})
    ('iDLG', 'nobody')
    """
    return listed(name for name, error in errors.items() if is_recovered(error)) or "nobody"


def recovered(records: pd.DataFrame, private: Mapping[str, np.ndarray | None]) -> Picture:
    """The private image and what each method has at the last of ``PICTURE_ITERATIONS``, or at its end.

    One case and one row for each data set.

    Args:
        records: one row for each data set and method, with pictures; see :func:`wdlg.study.runner.compute`.
        private: the private image (C, H, W) by data set, None if it is not at hand.
    """
    if not len(records):
        return empty()
    methods = list(records["method"].unique())
    rows, notes, told = [], [], []
    for name, image in private.items():
        part = records[records["dataset"] == name]
        images = {str(record["method"]): _stored(record)[-1] for _, record in part.iterrows()}
        last = values_at(part, "mse", np.array(PICTURE_ITERATIONS[-1:]), against="iteration")[:, 0]
        errors = {method: f"MSE {error:.2g}" for method, error in zip(images, last, strict=True)}
        who = who_recovered(dict(zip(images, last, strict=True)))
        told.append(f"on {data.CATALOGUE[name].title} {who}")
        blank = np.ones_like(next(iter(images.values())))
        rows.append([blank if image is None else image, *(images.get(method, blank) for method in methods)])
        mark = "not at hand" if image is None else ""
        notes.append([mark, *(errors.get(method, "not run") for method in methods)])
    figure = image_grid(
        rows,
        row_titles=[data.CATALOGUE[name].title for name in private],
        column_titles=["private", *methods],
        notes=notes,
        size=1.3,
    )
    figure.told = f"Recovered by: {'; '.join(told)}."
    return figure


def outcomes(
    records: pd.DataFrame, found: pd.DataFrame, private: Mapping[tuple[str, int], np.ndarray | None]
) -> Picture:
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
    figure = image_grid(
        rows, row_titles=titles, column_titles=["private image", *methods], notes=notes, size=1.3
    )
    counts = [f"{row['outcome']} in {row['count']} of {row['cases']}" for row in found.to_dict("records")]
    figure.told = f"Recovered by {listed(counts)} cases."
    return figure


def on_the_way(records: pd.DataFrame, private: np.ndarray | None) -> Picture:
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
    figure = image_grid(
        rows,
        row_titles=list(records["method"]),
        column_titles=[*(f"iteration {number}" for number in PICTURE_ITERATIONS), "private"],
    )
    told = []
    errors = values_at(records, "mse", np.array(PICTURE_ITERATIONS), against="iteration")
    for method, by_iteration in zip(records["method"], errors, strict=True):
        there = np.flatnonzero(is_recovered(by_iteration))
        when = f"by iteration {PICTURE_ITERATIONS[there[0]]}" if len(there) else "in none of them"
        told.append(f"{method} {when}")
    figure.told = f"The picture is recognised (MSE below 0.01): {'; '.join(told)}."
    return figure


def _stored(record: pd.Series) -> np.ndarray:
    height, width, channels = data.CATALOGUE[record["dataset"]].shape
    return as_images(record["pictures"], (channels, height, width))


def single_attack(outcome: Outcome, method: str, *, start: np.ndarray | None) -> Picture:
    """One attack: the private image, the start, the last iterate, and below the loss at each evaluation.

    Without a start, for an attack that needs none, its picture is left out.
    """
    pictures = {"private image": outcome.truth[0]}
    if start is not None:
        pictures["start: random noise"] = start[0]
    pictures[f"recovered by {method}"] = outcome.images[method][0]
    figure = Picture(figsize=(WIDTH, 4.3))
    grid = figure.add_gridspec(2, len(pictures), height_ratios=(1, 1.3))
    places = [figure.add_subplot(grid[0, place]) for place in range(len(pictures))]
    for axes, (title, picture) in zip(places, pictures.items(), strict=True):
        show_image(axes, picture)
        axes.set_title(title, fontsize="small")
    curve = figure.add_subplot(grid[1, :])
    look = LOOKS.get(method, OTHER)
    record = outcome.records[outcome.records["method"] == method].iloc[0]
    evaluations, loss = record["trace_evaluation"] + 1, record["trace_loss"]
    # A curve of one point is a point.
    curve.plot(evaluations, loss, color=look.color, marker=look.marker if len(loss) == 1 else None)
    curve.set(xscale="log", yscale="log")
    curve.set(xlabel="gradient evaluations", ylabel="matching loss")
    figure.told = (
        f"The loss goes from {loss[0]:.2g} to {loss[-1]:.2g} in {evaluations[-1]:,} gradient evaluations."
    )
    return figure


def unfolding(outcome: Outcome, method: str, *, case: int = 0) -> Picture:
    """A recovery in steps, row by row: the image at each snapshot with its MSE, and the private one."""
    images = [outcome.snapshots[method][place, case] for place in range(len(outcome.snapshot_iterations))]
    truth = outcome.truth[case]
    errors = [float(np.mean((image - truth) ** 2)) for image in images]
    pictures, notes = {}, {}
    for number, image, error in zip(outcome.snapshot_iterations, images, errors, strict=True):
        pictures[f"iteration {number}"] = image
        notes[f"iteration {number}"] = f"MSE {error:.2g}"
    pictures["private image"] = truth
    figure = cards(pictures, notes, columns=3 if len(pictures) % 3 == 0 else 4)
    first, last = outcome.snapshot_iterations[0], outcome.snapshot_iterations[-1]
    there = [
        number
        for number, error in zip(outcome.snapshot_iterations, errors, strict=True)
        if is_recovered(error)
    ]
    when = f"it is below 0.01 by iteration {there[0]}" if there else "it is never below 0.01"
    ends = f"from {errors[0]:.2g} at iteration {first} to {errors[-1]:.2g} at iteration {last}"
    figure.told = f"The MSE goes {ends}; {when}."
    return figure
