"""What the notebooks share: data sets and studies that are there, measurements, numbers in prose.

A reader's own study need not hold what a page speaks of. The page then shows what is there: a line that
starts with ``MISSING`` says what is not, :func:`records` is a table with all its columns and no rows,
:class:`Numbers` has a :class:`NotMeasured` for each name that it does not hold, and :func:`say` puts
``NOT_MEASURED`` where the text would quote one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pandas.io.formats.style import Styler

from wdlg import data, project
from wdlg.errors import InputError, require_flag, require_list, require_text
from wdlg.evaluation import recovered
from wdlg.figures import NOT_MEASURED
from wdlg.study.cells import AttackCell, Study
from wdlg.study.runner import run
from wdlg.study.specification import load as load_study
from wdlg.study.statistics import Share, paired_by_network, share, share_by_network
from wdlg.study.store import State, Store
from wdlg.verdicts.comparison import NotMeasuredError, units_of
from wdlg.verdicts.expectations import SETTINGS
from wdlg.verdicts.ledger import gain_table

MISSING = "MISSING:"
"""Starts a line about a data set without a sample file; the build repeats such lines in its log."""

PATIENCE = 1800.0
"""Seconds that a notebook waits for another one that computes in the same store: a build executes several."""

_WORDS = (
    *("part", "dataset", "method", "optimizer", "status", "activation", "rule", "defence"),
    *("architecture", "initial", "dtype"),
)
_FLAGS = (
    *("label_correct", "exploded", "below_0.01", "below_0.005", "below_0.001", "below_0.0005"),
    *("below_0.0001", "correct", "undecided"),
)
_COUNTS = (
    *("network", "case", "image", "label_true", "label_recovered", "iterations", "evaluations"),
    *("iterations_to_success", "evaluations_to_success", "steps"),
)
_MEASURED = (
    *("learning_rate", "seconds", "loss", "loss_first", "loss_best", "loss_at_truth", "mse", "mse_start"),
    *("mse_best", "psnr", "ssim", "largest_bias_gradient", "relative_error", "cosine"),
)
_TRACES = ("trace_evaluation", "trace_iteration", "trace_loss", "trace_mse", "pictures")
COLUMNS = {
    **dict.fromkeys((*_WORDS, *_TRACES, *SETTINGS), object),
    **dict.fromkeys(_FLAGS, bool),
    **dict.fromkeys(_COUNTS, np.int64),
    **dict.fromkeys(_MEASURED, float),
}
"""All columns that the records of any study have, with their type."""


def present_samples(names: Sequence[str], data_dir: str | None = None) -> dict[str, data.Sample]:
    """The samples that are there, by name. Each one that is not is reported, never dropped in silence.

    Raises:
        InputError: one is not in the catalogue, or none of them is there.
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
        compute: compute what is missing of those of these parts that the study has. Else each data set
            without a record is reported.
        data_dir: folder of the sample files.

    Raises:
        InputError: an argument is of another type; the study cannot be read; or the store is not there, or
            that of another study, and nothing is to be computed.
    """
    require_text("study", name)
    require_flag("compute", compute)
    if store is not None:
        require_text("store", store)
    if parts:
        require_list("parts", parts)
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
        known = [part for part in parts if planned.part(part)]
        remarks = []
        if known or not parts:
            remarks = run(planned, stored, parts=known, data_dir=data_dir, patience=PATIENCE)
    elif not folder.is_dir():
        raise InputError(
            f"store is {str(folder)!r}, but must be a folder of records: run `wdlg study run {file}`."
        )
    else:
        stored.require_of(planned)
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


def records(planned: Study, stored: Store, parts: Sequence[str], **wanted: Sequence[str]) -> pd.DataFrame:
    """The records of some parts of a study, with all ``COLUMNS`` even where there is no row.

    Args:
        planned: the study.
        stored: its records.
        parts: of the study, together one table.
        wanted: values of columns, such as ``method=("DLG", "iDLG")``. Each one without a row is reported, and
            each part without one.
    """
    for column, values in (("parts", parts), *wanted.items()):
        require_list(column, values)
    tables = {part: stored.read_all(planned.part(part)) for part in parts}
    for part, table in tables.items():
        if not len(table):
            _report_missing(f"the part {part} has no records in the study {planned.name}")
    table = pd.concat(list(tables.values()), ignore_index=True)
    table = table.reindex(columns=list(dict.fromkeys((*table.columns, *COLUMNS))))
    if not len(table):
        return table.astype(COLUMNS)
    for column, values in wanted.items():
        for value in values:
            if value not in set(table[column]):
                where = f"the study {planned.name} (part {', '.join(parts)})"
                _report_missing(f"the {column} {value} has no records in {where}")
    return table


def _report_missing(what: str) -> None:
    print(f"{MISSING} {what}; what needs them is {NOT_MEASURED}.")


class NotMeasured:
    """Stands for a number that the records do not hold, and for all that is computed from it.

    >>> f"{100 * NotMeasured():.1f}"
    'not measured here'
    """

    def __format__(self, form: str) -> str:
        return NOT_MEASURED

    def __str__(self) -> str:
        return NOT_MEASURED

    def __getattr__(self, name: str) -> NotMeasured:
        # What Python itself and libraries ask for, such as _repr_html_, is not there.
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    def _itself(self, *_: object) -> NotMeasured:
        return self

    __call__ = __getitem__ = __add__ = __radd__ = __sub__ = __rsub__ = _itself
    __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _itself


class Numbers(dict[Any, Any]):
    """Numbers by name, from a mapping or a column; :class:`NotMeasured` for a name that is not there.

    >>> good = Numbers(pd.Series({"iDLG": 0.9, "DLG": float("nan")}))
    >>> f"{100 * good['iDLG']:.0f}, {100 * good['DLG']:.0f}, {100 * good['WDLG']:.0f}"
    '90, not measured here, not measured here'
    """

    def __init__(self, values: Mapping[Any, Any] | pd.Series) -> None:
        super().__init__((key, measured(value)) for key, value in values.items())

    def __missing__(self, key: Any) -> NotMeasured:
        return NotMeasured()


def measured(value: Any) -> Any:
    """A number as it is; :class:`NotMeasured` for one that is not there (NaN), as the mean of no runs."""
    return NotMeasured() if isinstance(value, float | np.floating) and np.isnan(value) else value


def share_of(flags: pd.Series, runs: pd.DataFrame | None = None) -> Share | NotMeasured:
    """The share of runs with a flag (runs,); :class:`NotMeasured` if there are no runs.

    Args:
        flags: of every run.
        runs: records of the same runs, whose networks are the units of the interval; None if each run has a
            network of its own, as the gradients of a label study have.
    """
    if not len(flags):
        return NotMeasured()
    if runs is None:
        return share(int(flags.sum()), len(flags))
    return share_by_network(flags.astype(bool), units_of(runs))


def table(rows: pd.DataFrame, caption: str) -> Styler:
    """Rows as a table that a page shows, without their numbers and with a caption.

    Args:
        rows: what it holds.
        caption: a sentence that says what of.
    """
    return rows.style.hide(axis="index").set_caption(caption)


def sign_flip_of(attacks: pd.DataFrame, first: str, second: str) -> Any:
    """The sign-flip test's p-value for the success of two methods; :class:`NotMeasured` without common cases.

    Args:
        attacks: records.
        first, second: names of the methods.
    """
    good = attacks.assign(good=recovered(attacks["mse"]))
    cases = good.pivot_table("good", ["dataset", "network", "case"], "method", aggfunc="first")
    cases = cases.reindex(columns=[first, second]).dropna().astype(int)
    if not len(cases):
        return NotMeasured()
    return paired_by_network(cases[first] - cases[second], units_of(cases.index.to_frame())).p


def least(values: pd.Series) -> tuple[Any, Any]:
    """The name of the least of some numbers, and that number; :class:`NotMeasured` if there is none."""
    values = values.dropna()
    return (values.idxmin(), values.min()) if len(values) else (NotMeasured(), NotMeasured())


def budget(planned: Study, parts: Sequence[str]) -> tuple[Any, Any]:
    """Gradient evaluations of an attack, and the full iterations that these are.

    Those of the first part of some that the study has; :class:`NotMeasured` if it has none.
    """
    for cell in planned.cells:
        if isinstance(cell, AttackCell) and cell.part in parts:
            evaluations = cell.attack.evaluations
            return evaluations, evaluations // getattr(cell.attack.optimizer, "inner_iterations", 1)
    return NotMeasured(), NotMeasured()


def provenance_of(planned: Study, stored: Store) -> pd.DataFrame:
    """Where the records of a study were computed, a row for each cell that is done.

    Columns: part, attacks, hours (that the cell took), revision (of the code, seven digits), torch (version).
    """
    rows = []
    for cell in planned.cells:
        if stored.state(cell) is State.DONE:
            metadata = stored.metadata(cell)
            hours = metadata["wall_seconds"] / 3600
            rows.append((cell.part, cell.attacks, hours, metadata["revision"][:7], metadata["torch"]))
    return pd.DataFrame(rows, columns=["part", "attacks", "hours", "revision", "torch"])


GAINS = (
    *("dataset", "networks", "cases", "gain in success", "p (success)"),
    *("explosions avoided", "p (explosions)", "pair"),
)


def gains(attacks: pd.DataFrame, *pairs: tuple[str, str]) -> pd.DataFrame:
    """Gains of methods over others, see :func:`wdlg.verdicts.ledger.gain_table`, with the column pair.

    A pair that the records do not hold is reported, and has no rows.

    Args:
        attacks: records.
        pairs: a method and its opponent.
    """
    tables = [pd.DataFrame(columns=list(GAINS))]
    for method, opponent in pairs:
        try:
            table = gain_table(attacks, method, opponent)
        except NotMeasuredError as error:
            _report_missing(str(error))
        else:
            tables.append(table.assign(pair=f"{method} against {opponent}"))
    return pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]


def private_image(dataset: str, index: int, data_dir: str | None = None) -> np.ndarray | None:
    """An image of a sample, (C, H, W); None, which is reported, if the sample is not there."""
    if not data.is_present(dataset, data_dir):
        print(f"{MISSING} {dataset} has no sample file in {data.data_dir(data_dir)}: no private image here.")
        return None
    return data.load(dataset, data_dir).tensor([index])[0].numpy()


CONTRAST = 0.1
"""Least standard deviation of the pixels of an image that shows something; a patch of one grey does not."""


def pictured(
    attacks: pd.DataFrame, data_dir: str | None = None
) -> tuple[pd.DataFrame, dict[str, np.ndarray | None]]:
    """Records of one case of each data set that has stored pictures, and its private image by data set.

    It is the first one drawn with an image that shows something, or the first one if there is none.

    Args:
        attacks: records.
        data_dir: folder of the sample files.
    """
    chosen, private = [attacks.head(0)], {}
    drawn = attacks[attacks["pictures"].map(len) > 0] if len(attacks) else attacks
    for name, rows in drawn.groupby("dataset", sort=False):
        found = None
        for _, case in rows.groupby(["network", "case"]):
            image = private_image(str(name), int(case["image"].iloc[0]), data_dir)
            found = found or (case, image)
            if image is None or float(image.std()) >= CONTRAST:
                found = (case, image)
                break
        assert found is not None
        chosen.append(found[0])
        private[str(name)] = found[1]
    return pd.concat(chosen), private


def executions(folder: str) -> pd.DataFrame:
    """When the executed notebooks of a folder ran, for how long, and the memory that they took at most.

    Columns: notebook, started (UTC), seconds, peak memory (MB, that of the largest process; NaN where a build
    did not measure it). A notebook that is running, or that papermill has not run, is left out.

    Raises:
        InputError: the folder is no text.
    """
    require_text("folder", folder)
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
    if path is not None:
        require_text("path", path)
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
    if path is not None:
        require_text("path", path)
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
        InputError: it is not there, or the folder is no text.
    """
    if folder is not None:
        require_text("folder", folder)
    path = project.locate("benchmarks", name) if folder is None else Path(folder, name)
    if path is None or not path.exists():
        raise InputError(
            f"folder is {folder!r}, but must hold {name}, as `make bench` in the repository writes it."
        )
    return json.loads(path.read_text())


def listed(texts: Iterable[str], *, of: Collection[object]) -> str | NotMeasured:
    """Texts as one, with commas; "none" if there are none, and :class:`NotMeasured` if nothing was measured.

    Args:
        texts: what holds for some of the things that were measured.
        of: those things.

    >>> listed(["a", "b"], of="abc"), listed([], of="abc"), str(listed([], of=""))
    ('a, b', 'none', 'not measured here')
    """
    return (", ".join(texts) or "none") if of else NotMeasured()


def say(**numbers: object) -> None:
    """Glue numbers so that the text of the page can quote them; outside a book build, do nothing.

    An empty text, or one that quotes something that is not measured, becomes ``NOT_MEASURED``. Where there is
    nothing to name although all is measured, :func:`listed` says "none".
    """
    try:
        from myst_nb import glue
    except ModuleNotFoundError:
        return
    for name, value in numbers.items():
        # A page would show the type of a NumPy number, too.
        shown = value.item() if isinstance(value, np.generic) else measured(value)
        glue(name, NOT_MEASURED if not str(shown) or NOT_MEASURED in str(shown) else shown, display=False)
