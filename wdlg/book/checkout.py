"""The folders of a checkout that a build of the book reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wdlg import project
from wdlg.errors import InputError


class BookError(Exception):
    """A notebook or the page build failed; the message says which and how."""


@dataclass(frozen=True)
class Checkout:
    """The folders of a checkout of the repository."""

    root: Path

    @property
    def notebooks(self) -> Path:
        """Sources of the notebooks."""
        return self.root / "notebooks"

    @property
    def executed(self) -> Path:
        """Copy of the sources that a build works on."""
        return self.root / "book" / "executed"

    @property
    def lectures(self) -> Path:
        """What the slides of each lecture show, and their look."""
        return self.root / "book" / "slides"

    @property
    def pages(self) -> Path:
        """The finished pages."""
        return self.root / "book" / "_build" / "html"


def find_checkout(start: Path | None = None) -> Checkout:
    """The checkout that holds a folder (default: the working folder).

    Raises:
        InputError: neither the folder nor any above it is a checkout.
    """
    found = project.checkout(start)
    if found is None:
        raise InputError(
            f"the working folder is {(start or Path.cwd()).resolve()}, but must be in a checkout of the "
            "repository to build the book."
        )
    return Checkout(found)
