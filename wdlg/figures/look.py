"""How every figure looks: one look for each method, and figures that show themselves."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.transforms import ScaledTranslation, Transform

from wdlg.errors import InputError


@dataclass(frozen=True)
class Look:
    """How a method is drawn, in every figure."""

    color: str
    style: str | tuple[int, tuple[int, int]]
    marker: str


LOOKS = {
    "DLG": Look("#0072B2", "-", "o"),
    "iDLG": Look("#D55E00", "--", "s"),
    "WDLG": Look("#009E73", "-.", "^"),
    "Euclidean": Look("#CC79A7", ":", "D"),
    "Strongest": Look("#E69F00", (0, (6, 1)), "P"),
    "LM": Look("#000000", "-", "X"),
}
OTHER = Look("#555555", "-", "o")
"""For a method without a look of its own."""

ORDERED = (
    Look("#000000", "-", "o"),
    Look("#0072B2", "--", "s"),
    Look("#56B4E9", "-.", "^"),
    Look("#009E73", ":", "D"),
    Look("#E69F00", "-", "v"),
    Look("#D55E00", "--", "P"),
    Look("#CC79A7", "-.", "X"),
)
"""For values in an order, such as learning rates, the least first: no two neighbours look alike."""

ERROR_RANGE = (1e-8, 1e2)
"""What axes of the MSE show; a run that explodes leaves the frame at the top."""

WIDTH = 4.8
"""Of a figure, in inches: what a phone shrinks by a third, so that letters of 10 points stay legible."""

NOT_MEASURED = "not measured here"
"""What a page says in the place of a number or a figure that the records do not hold."""


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
    """A figure that a notebook shows by itself, without pyplot's global state.

    Attributes:
        told: what it shows, in sentences with the numbers that it draws. A page adds them to the alternative
            text, so that it is true of whatever was drawn.
    """

    told: str = ""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=120)
        return buffer.getvalue()

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], ...]:
        return told_beside(self.told)


def told_beside(told: str) -> tuple[dict[str, Any], ...]:
    """What a notebook stores beside a picture: nothing instead of it, and what it shows in words."""
    return {}, ({"image/png": {"told": told}} if told else {})


def empty() -> Picture:
    """In the place of a figure of no records: one that says so."""
    figure = Picture(figsize=(WIDTH, 1.0))
    figure.text(0.5, 0.5, NOT_MEASURED, ha="center", va="center")
    figure.told = f"This is {NOT_MEASURED}."
    return figure


def panels(
    count: int, *, across: int = 2, height: float = 2.3, more: float = 0.0, **share: Any
) -> tuple[Picture, list[Axes]]:
    """A figure that a phone can show, and its panels row by row.

    Args:
        count: of panels.
        across: how many stand beside each other.
        height: of a row, in inches.
        more: height for what else there is, such as a legend.
        share: sharex and sharey of matplotlib; tick labels stay on every panel of the lowest rows.
    """
    down = -(-count // across)
    figure = Picture(figsize=(WIDTH, height * down + more))
    places = list(figure.subplots(down, across, squeeze=False, **share).flat)
    for axes in places[count:]:
        axes.set_visible(False)
    for axes in places[max(0, count - across) : count]:
        axes.tick_params(labelbottom=True)
    return figure, places[:count]


def listed(parts: Iterable[str], *, between: str = ", ") -> str:
    """Parts of a sentence, with "and" before the last.

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    found = list(parts)
    if len(found) < 2 or between != ", ":
        return between.join(found)
    return f"{', '.join(found[:-1])} and {found[-1]}"


def percent(share: float, digits: int = 0) -> str:
    """A share in words.

    >>> percent(0.25), percent(0.998, 1)
    ('25 %', '99.8 %')
    """
    return f"{100 * share:.{digits}f} %"


def beside(axes: Axes, number: int, count: int, *, apart: float = 4.0) -> Transform:
    """Where the curve of this number, of so many, is drawn: a few points aside, so that intervals do not hide
    each other; what is drawn stays at its value.
    """
    shift = apart * (number - (count - 1) / 2) / 72
    figure = axes.get_figure(root=True)
    assert figure is not None
    return axes.transData + ScaledTranslation(shift, 0, figure.dpi_scale_trans)


def legend_below(figure: Figure, columns: int = 4) -> Legend:
    """One entry for each name in any panel, under all panels, in so many columns."""
    entries = {
        name: handle
        for axes in figure.axes
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    return figure.legend(
        list(entries.values()), list(entries), loc="outside lower center", ncols=columns, fontsize="small"
    )


def save(figure: Figure, path: Path) -> None:
    """Write a PNG; a file of that name is replaced whole or not at all.

    Raises:
        InputError: the folder cannot be written to.
    """
    try:
        handle, temporary = tempfile.mkstemp(suffix=".png", dir=path.parent)
    except OSError as error:
        raise InputError(
            f"figure is {str(path)!r}, but must be a place one can write to ({error.strerror or error})."
        ) from None
    os.close(handle)
    try:
        figure.savefig(temporary, dpi=150)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise InputError(
            f"figure is {str(path)!r}, but writing it failed ({error.strerror or error})."
        ) from None
    finally:
        Path(temporary).unlink(missing_ok=True)
