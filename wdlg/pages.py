"""What the notebooks share: data sets and studies that are there, measurements, numbers in prose."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from wdlg import data, project
from wdlg.errors import InputError
from wdlg.study.runner import run
from wdlg.study.specification import Study
from wdlg.study.specification import load as load_study
from wdlg.study.store import Store

MISSING = "MISSING:"
"""Starts a line about a data set without a sample file; the build repeats such lines in its log."""


def present_samples(names: Sequence[str], data_dir: str | None = None) -> dict[str, data.Sample]:
    """The samples that are there, by name. Each one that is not is reported, never dropped in silence.

    Raises:
        InputError: none of them is there.
    """
    samples = {}
    for name in names:
        if data.is_present(name, data_dir):
            samples[name] = data.load(name, data_dir)
        else:
            print(f"{MISSING} {name} has no sample file in {data.data_dir(data_dir)} and is left out here.")
    if not samples:
        raise InputError(
            f"datasets is {list(names)}, but at least one must be there: run `wdlg data fetch`, "
            "or set WDLG_DATA to a folder of sample files."
        )
    return samples


def title(name: str) -> str:
    """How tables and figures call a data set."""
    return data.CATALOGUE[name].title


def study(
    name: str,
    store: str | None = None,
    *,
    parts: Sequence[str] = (),
    compute: bool = False,
    data_dir: str | None = None,
) -> tuple[Study, Store]:
    """A study and the store of its records.

    Args:
        name: of a study of the project ("quick", "paper", "readings"), or the path of a study file.
        store: folder of the records; None for the project's own or, where something is to be computed and
            there is no checkout, for ``results/NAME`` in the working folder.
        parts: of the study that the page is about; all if empty.
        compute: compute what is missing of these parts. Else each data set without a record is reported.
        data_dir: folder of the sample files.

    Raises:
        InputError: the study cannot be read, or the store is not there and nothing is to be computed.
    """
    file = project.locate("studies", f"{name}.yaml") or Path(name)
    planned = load_study(str(file))
    there = project.locate("results", planned.name)
    if store is not None:
        folder = Path(store)
    elif compute or there is None:
        folder = (project.checkout() or Path.cwd()) / "results" / planned.name
    else:
        folder = there
    stored = Store(folder)
    if compute:
        remarks = run(planned, stored, parts=parts, data_dir=data_dir)
    elif not folder.is_dir():
        raise InputError(
            f"store is {str(folder)!r}, but must be a folder of records: run `wdlg study run {file}`."
        )
    else:
        cells = [cell for cell in planned.cells if not parts or cell.part in parts]
        present = {cell.dataset for cell in cells if (stored.folder / cell.path).exists()}
        names = dict.fromkeys(cell.dataset for cell in cells)
        remarks = [
            f"{dataset} has no records in the study {planned.name}."
            for dataset in names
            if dataset not in present
        ]
    for remark in remarks:
        print(MISSING, remark)
    return planned, stored


def private_image(dataset: str, index: int, data_dir: str | None = None) -> np.ndarray | None:
    """An image of a sample, (C, H, W); None, which is reported, if the sample is not there."""
    if not data.is_present(dataset, data_dir):
        print(f"{MISSING} {dataset} has no sample file in {data.data_dir(data_dir)}: no private image here.")
        return None
    return data.load(dataset, data_dir).tensor([index])[0].numpy()


def executions(folder: str) -> pd.DataFrame:
    """When the executed notebooks of a folder ran, for how long, and the memory that they took at most.

    Columns: notebook, started (UTC), seconds, peak memory (MB, that of the largest process; NaN where a build
    did not measure it). A notebook that is running, or that papermill has not run, is left out.
    """
    rows = []
    for path in sorted(Path(folder).glob("*.ipynb")):
        metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
        run_by = metadata.get("papermill", {})
        if run_by.get("duration") is not None:
            started = run_by["start_time"].replace("T", " ")[:16]
            memory = metadata.get("peak_memory", float("nan")) / 1e6
            rows.append((path.stem, started, run_by["duration"], memory))
    return pd.DataFrame(rows, columns=["notebook", "started (UTC)", "seconds", "peak memory (MB)"])


def last_audit(path: str | None = None) -> tuple[dict[str, Any], pd.DataFrame]:
    """The report of the last audit that was kept (``wdlg study audit --json``), and its attacks as a table.

    Args:
        path: of the report; None for the project's own, ``results/audit.json``.

    Raises:
        InputError: it is not there.
    """
    place = project.locate("results", "audit.json") if path is None else Path(path)
    if place is None or not place.exists():
        raise InputError(f"path is {path!r}, but must be a report of `wdlg study audit --json`.")
    report = json.loads(place.read_text())
    rows = [
        {
            "attack": finding["attack"],
            "outcome": finding["verdict"],
            "MSE stored": finding["stored"]["mse"],
            "MSE recomputed": finding["found"]["mse"],
        }
        for finding in report["findings"]
    ]
    return report, pd.DataFrame(rows)


def citation(path: str | None = None) -> str:
    """The BibTeX entry of this book, from its CITATION.cff.

    Args:
        path: of the file; None for the project's own.

    Raises:
        InputError: it is not there.
    """
    place = project.locate("CITATION.cff") if path is None else Path(path)
    if place is None or not place.exists():
        raise InputError(f"path is {path!r}, but must be a CITATION.cff, as the repository has one.")
    entry = yaml.safe_load(place.read_text())
    authors = " and ".join(
        f"{{{author['name']}}}" if "name" in author else f"{author['family-names']}, {author['given-names']}"
        for author in entry["authors"]
    )
    fields = {
        "title": f"{{{entry['title']}}}",
        "author": authors,
        **({"year": str(entry["date-released"])[:4]} if "date-released" in entry else {}),
        "version": entry["version"],
        "url": entry["repository-code"],
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join(["@software{wdlg,", *lines, "}"])


def measurements(name: str, folder: str | None = None) -> Any:
    """What ``make bench`` left in a file.

    Args:
        name: of the file.
        folder: that holds it; None for the project's own.

    Raises:
        InputError: it is not there.
    """
    path = project.locate("benchmarks", name) if folder is None else Path(folder, name)
    if path is None or not path.exists():
        raise InputError(
            f"folder is {folder!r}, but must hold {name}, as `make bench` in the repository writes it."
        )
    return json.loads(path.read_text())


def say(**numbers: object) -> None:
    """Glue numbers so that the text of the page can quote them; outside a book build, do nothing."""
    try:
        from myst_nb import glue
    except ModuleNotFoundError:
        return
    for name, value in numbers.items():
        # A page would show the type of a NumPy number, too.
        glue(name, value.item() if isinstance(value, np.generic) else value, display=False)
