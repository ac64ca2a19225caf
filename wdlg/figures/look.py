"""How every figure looks: one look for each method, and figures that show themselves."""

from __future__ import annotations

import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.legend import Legend

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

ERROR_RANGE = (1e-8, 1e2)
"""What axes of the MSE show; a run that explodes leaves the frame at the top."""

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
    """A figure that a notebook shows by itself, without pyplot's global state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=120)
        return buffer.getvalue()


def empty() -> Figure:
    """In the place of a figure of no records: one that says so."""
    figure = Picture(figsize=(6.5, 1.0))
    figure.text(0.5, 0.5, NOT_MEASURED, ha="center", va="center")
    return figure


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
