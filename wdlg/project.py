"""Where the project's studies, records and measurements are: in the checkout, or beside the package."""

from __future__ import annotations

import os
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


def homes() -> list[Path]:
    """Folders that hold the project's files, those that come first before the others.

    The checkout that holds the working folder, then the one that the package itself lies in, as after an
    editable installation, and then the copies beside the package, where a wheel has them.
    """
    source = SHIPPED.parents[1]
    editable = source if checkout(source) == source else None
    return [home for home in (checkout(), editable, SHIPPED) if home is not None]


def locate(*parts: str) -> Path | None:
    """A file or folder of the project, as ``locate("studies", "quick.yaml")``; None if it is nowhere."""
    for home in homes():
        if home.joinpath(*parts).exists():
            return home.joinpath(*parts)
    return None


def study_file(study: str) -> Path:
    """The file of a study, which is named by its path or, if it is one of the project's, by its name."""
    if not os.path.isfile(study):  # which is False, not an error, also for what cannot be a path
        for home in homes():
            for file in (home / "studies").glob("*.yaml"):
                if file.stem == study:
                    return file
    return Path(study)


def records_beside(study_file: Path, name: str) -> Path | None:
    """The records that came with a study of the project, by its file and its name; None if it has none."""
    home = study_file.resolve().parent.parent
    folder = home / "results" / name
    return folder if home in [one.resolve() for one in homes()] and folder.is_dir() else None
