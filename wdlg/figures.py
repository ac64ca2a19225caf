"""Every picture in the book: a function takes results and returns a matplotlib figure, and computes nothing.

One visual language: each method has a colour (Okabe and Ito's, safe for the colour-blind), a line style and
a marker, so that figures can be read in print. Figures are opaque, since pages have a dark mode.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.ticker import PercentFormatter

from wdlg.errors import InputError
from wdlg.study.paired import Outcome
from wdlg.study.statistics import quartiles, success_curve


@dataclass(frozen=True)
class Look:
    """How a method is drawn, in every figure."""

    color: str
    style: str
    marker: str


LOOKS = {
    "DLG": Look("#0072B2", "-", "o"),
    "iDLG": Look("#D55E00", "--", "s"),
    "WDLG": Look("#009E73", "-.", "^"),
    "Euclidean": Look("#CC79A7", ":", "D"),
}
ERROR_RANGE = (1e-8, 1e2)
"""What axes of the MSE show; a run that explodes leaves the frame at the top."""

sns.set_theme(
    context="notebook",
    style="whitegrid",
    rc={
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "axes.titlesize": "medium",
        "font.size": 10,
        "axes.labelsize": 10,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.frameon": True,
    },
)


class Picture(Figure):
    """A figure that a notebook shows by itself, without pyplot's global state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=120)
        return buffer.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a PNG; a file of that name is replaced whole or not at all.

    Raises:
        InputError: the folder cannot be written to.
    """
    try:
        handle, temporary = tempfile.mkstemp(suffix=".png", dir=path.parent)
    except OSError as error:
        raise InputError(
            f"figure is {str(path)!r}, but must be a place one can write to ({error.strerror})."
        ) from None
    os.close(handle)
    try:
        figure.savefig(temporary, dpi=150)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise InputError(f"figure is {str(path)!r}, but writing it failed ({error.strerror}).") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


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
            look = LOOKS[str(method)]
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
        axes.legend(fontsize="x-small", loc="lower right")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    figure.axes[0].set_ylabel("runs with MSE below the threshold")
    return figure


def bias_gradient(error: np.ndarray, label: int) -> Figure:
    """The gradient of the output bias, one stem for each class, the negative one marked."""
    figure = Picture(figsize=(7.5, 2.8))
    axes = figure.subplots()
    classes = np.arange(len(error))
    negative = error < 0
    for chosen, color, marker, name in (
        (~negative, LOOKS["DLG"].color, "o", "positive: $p_c$"),
        (negative, LOOKS["iDLG"].color, "v", "negative: $p_y - 1$, the label"),
    ):
        if chosen.any():
            axes.vlines(classes[chosen], 0, error[chosen], color=color, linewidth=2)
            axes.plot(classes[chosen], error[chosen], marker, color=color, label=name)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlabel=f"class c (true label {label})", ylabel="gradient of the bias $b_c$")
    if len(classes) <= 20:
        axes.set_xticks(classes)
    axes.legend(fontsize="small")
    return figure


def rule_accuracy(table: pd.DataFrame) -> Figure:
    """Accuracy of both label rules with 95 % intervals, for each activation.

    Args:
        table: columns activation, rule, share (:class:`~wdlg.study.statistics.Share`).
    """
    figure = Picture(figsize=(6.5, 2.8))
    axes = figure.subplots()
    looks = {"bias_sign": ("WDLG", -0.12), "row_sum": ("iDLG", 0.12)}
    activations = list(dict.fromkeys(table["activation"]))
    for rule, (method, shift) in looks.items():
        look = LOOKS[method]
        for place, activation in enumerate(activations):
            one = table[(table["rule"] == rule) & (table["activation"] == activation)]["share"].iloc[0]
            axes.errorbar(
                one.value,
                place + shift,
                xerr=[[one.value - one.low], [one.high - one.value]],
                color=look.color,
                marker=look.marker,
                capsize=3,
                label=f"{rule} ({method})" if place == 0 else None,
            )
    axes.set(xlabel="labels recovered (95 % interval)", ylabel="activation", xlim=(-0.02, 1.04))
    axes.set_yticks(range(len(activations)), activations)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(fontsize="small", loc="lower left")
    return figure


def saturation(table: pd.DataFrame) -> Figure:
    """Label accuracy of the bias rule against the half width of the initial weights, by precision.

    Args:
        table: columns precision, bound, share.
    """
    figure = Picture(figsize=(6.5, 3.2))
    axes = figure.subplots()
    for (precision, rows), look in zip(table.groupby("precision"), list(LOOKS.values())[:2], strict=True):
        value = np.array([one.value for one in rows["share"]])
        low = np.array([one.low for one in rows["share"]])
        high = np.array([one.high for one in rows["share"]])
        axes.errorbar(
            rows["bound"],
            value,
            yerr=[value - low, high - value],
            color=look.color,
            marker=look.marker,
            linestyle=look.style,
            capsize=3,
            label=precision,
        )
    axes.set(
        xscale="log",
        xlabel="half width of the uniform initial weights",
        ylabel="labels recovered by bias_sign",
        ylim=(-0.02, 1.04),
    )
    axes.set_xticks(
        sorted(table["bound"].unique()), [f"{bound:g}" for bound in sorted(table["bound"].unique())]
    )
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(title="precision", fontsize="small")
    return figure


def method_diagram() -> Figure:
    """Our drawing of the method (the paper's Figure 1): participant, shared gradient, attacker's loop."""
    figure = Picture(figsize=(8.2, 3.7))
    axes = figure.subplots()
    axes.set(xlim=(0, 8.2), ylim=(-0.75, 3.2))
    axes.axis("off")
    private, public, attacker = "#FBE3D0", "#E6E6E6", "#D3EBE1"
    columns, (top, middle, bottom) = (0.95, 3.05, 5.15, 7.25), (2.5, 1.35, 0.2)
    boxes = (
        (columns[0], top, "private image x,\nlabel y", private),
        (columns[1], top, "network F(x; W)", public),
        (columns[2], top, "shared gradient g", public),
        (columns[2], middle, "label: index of the\nnegative bias entry", attacker),
        (columns[0], bottom, "dummy image x'", attacker),
        (columns[1], bottom, "network F(x'; W)", public),
        (columns[2], bottom, "dummy gradient g'", attacker),
        (columns[3], bottom, "matching loss\nW(g', g)", attacker),
    )
    for x, y, text, color in boxes:
        axes.add_patch(
            FancyBboxPatch((x - 0.8, y - 0.3), 1.6, 0.6, boxstyle="round,pad=0.03", fc=color, ec="black")
        )
        axes.text(x, y, text, ha="center", va="center", fontsize=9)
    across, down = 0.84, 0.34
    arrows = [
        *(
            ((left + across, y), (right - across, y))
            for y in (top, bottom)
            for left, right in pairwise(columns[:3])
        ),
        ((columns[2] + across, bottom), (columns[3] - across, bottom)),
        ((columns[2], top - down), (columns[2], middle + down)),
        ((columns[2], middle - down), (columns[2], bottom + down)),
    ]
    for start, end in arrows:
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color="black"))
    elbow: dict[str, Any] = {
        "arrowstyle": "-|>",
        "mutation_scale": 13,
        "color": "black",
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.add_patch(
        FancyArrowPatch(
            (columns[2] + across, top),
            (columns[3], bottom + down),
            connectionstyle="angle,angleA=0,angleB=90,rad=4",
            **elbow,
        )
    )
    axes.add_patch(
        FancyArrowPatch(
            (columns[3], bottom - down),
            (columns[0], bottom - down),
            connectionstyle="bar,fraction=-0.05",
            **elbow,
        )
    )
    axes.text(
        4.1, -0.6, "x' ← x' − η ∇W(g', g)", ha="center", va="center", fontsize=9, backgroundcolor="white"
    )
    for y, who in ((top, "participant"), (bottom, "attacker")):
        axes.text(0.15, y + 0.5, who, fontsize=10, weight="bold", va="center")
    return figure


def loss_lines(positions: np.ndarray, losses: Mapping[str, np.ndarray], *, titles: Sequence[str]) -> Figure:
    """Matching losses along straight lines in image space, each divided by its value at the start.

    Args:
        positions: along a line, 0 at the private image, 1 at the start (T,).
        losses: by loss name, values (lines, T).
        titles: of the lines.
    """
    figure = Picture(figsize=(4 * len(titles), 3.2))
    panels = figure.subplots(1, len(titles), squeeze=False, sharey=True)[0]
    looks = dict(zip(losses, (LOOKS["iDLG"], LOOKS["Euclidean"], LOOKS["WDLG"]), strict=False))
    for line, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        for name, values in losses.items():
            scale = values[line][np.abs(positions - 1).argmin()]
            axes.plot(
                positions,
                values[line] / scale,
                color=looks[name].color,
                linestyle=looks[name].style,
                label=name,
            )
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set(xlabel="position: 0 private image, 1 dummy", title=title, yscale="log")
    panels[0].set_ylabel("loss, relative to position 1")
    panels[-1].legend(fontsize="small")
    return figure


def point_plans(x: np.ndarray, y: np.ndarray, plans: Mapping[str, np.ndarray]) -> Figure:
    """Transport between two small sets of points in the plane: a line for each move, as wide as its mass."""
    figure = Picture(figsize=(2.1 * len(plans), 2.5))
    panels = figure.subplots(1, len(plans), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (title, plan) in zip(panels, plans.items(), strict=True):
        largest = 1 / len(x)
        for i, j in np.argwhere(plan > 0.01 * largest):
            axes.plot(
                [x[i, 0], y[j, 0]],
                [x[i, 1], y[j, 1]],
                color="#888888",
                linewidth=4 * plan[i, j] / largest,
                zorder=1,
                solid_capstyle="round",
            )
        axes.scatter(*x.T, color=LOOKS["DLG"].color, marker="o", s=60, label="points x", zorder=2)
        axes.scatter(*y.T, color=LOOKS["iDLG"].color, marker="s", s=60, label="points y", zorder=2)
        axes.set(title=title, xlabel="first coordinate")
    panels[0].set_ylabel("second coordinate")
    panels[0].legend(fontsize="small")
    return figure


def plan_maps(plans: Mapping[str, np.ndarray]) -> Figure:
    """Transport plans as maps, dark where much mass moves; each entry as a share of its row."""
    figure = Picture(figsize=(2 * len(plans) + 0.8, 2.6))
    panels = figure.subplots(1, len(plans), squeeze=False)[0]
    for axes, (title, plan) in zip(panels, plans.items(), strict=True):
        image = axes.imshow(plan * len(plan), cmap="Greys", vmin=0, vmax=1)
        axes.set(title=title, xlabel="row of the shared gradient")
        axes.grid(visible=False)
    panels[0].set_ylabel("row of the dummy gradient")
    figure.colorbar(image, ax=list(panels), label="share of the row's mass", shrink=0.8)
    return figure


def lines(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    xlabel: str,
    ylabel: str,
    xscale: str = "linear",
    yscale: str = "log",
    legend: str | None = None,
) -> Figure:
    """A few named curves (x, y) on one pair of axes, told apart by colour, style and marker."""
    figure = Picture(figsize=(6.5, 3.4))
    axes = figure.subplots()
    colors = sns.color_palette("cividis", len(curves))
    styles = ("-", "--", "-.", ":")
    markers = ("o", "s", "^", "D", "v", "P", "X")
    for number, (name, (x, y)) in enumerate(curves.items()):
        axes.plot(
            x,
            y,
            label=name,
            color=colors[number],
            linestyle=styles[number % 4],
            marker=markers[number % 7],
            markevery=max(1, len(x) // 10),
            markersize=5,
        )
    axes.set(xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale)
    axes.legend(fontsize="small", title=legend)
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
    panels[-1].legend(title="learning rate", fontsize="small")
    return figure
