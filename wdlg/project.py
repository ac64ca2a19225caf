"""Where the project's studies, records and measurements are: in the checkout, or beside the package."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parent / "shipped"
"""A wheel has copies of ``studies``, ``results`` and ``benchmarks`` here, for use without a checkout."""


def checkout(start: Path | None = None) -> Path | None:
    """The checkout (or copy of its sources) that holds a folder, by default the working folder; or None."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "_toc.yml").exists() and (folder / "notebooks").is_dir():
            return folder
    return None


def locate(*parts: str) -> Path | None:
    """A file or folder of the project, as ``locate("studies", "quick.yaml")``; None if it is nowhere."""
    for home in (checkout(), SHIPPED):
        if home is not None and home.joinpath(*parts).exists():
            return home.joinpath(*parts)
    return None
