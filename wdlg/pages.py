"""What the notebooks share: data sets and studies that are there, measurements, numbers in prose."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

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
    """When the executed notebooks of a folder ran: notebook, started (UTC), seconds; by name.

    A notebook that is running, or that papermill has not run, is left out.
    """
    rows = []
    for path in sorted(Path(folder).glob("*.ipynb")):
        run_by = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("papermill", {})
        if run_by.get("duration") is not None:
            started = run_by["start_time"].replace("T", " ")[:16]
            rows.append({"notebook": path.stem, "started (UTC)": started, "seconds": run_by["duration"]})
    return pd.DataFrame(rows, columns=["notebook", "started (UTC)", "seconds"])


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
