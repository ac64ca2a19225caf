"""Build the book: papermill executes every notebook, then Jupyter Book makes the pages.

A build works on a copy of the sources in ``book/executed``, where the executed notebooks stand in for their
sources under the same names. So every page's links (download, Binder, Colab, repository) lead to the notebook
in the repository, and the sources stay without outputs. The pages replace those of the last build only when
everything went well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from filelock import FileLock, Timeout

from wdlg.book.checkout import BookError, Checkout, find_checkout
from wdlg.book.execution import Execution
from wdlg.book.exercises import take_out_solutions, write_exercises
from wdlg.book.slides import write_slides
from wdlg.errors import InputError, require_choice, require_count, require_table
from wdlg.interruption import terminated_like_interrupted
from wdlg.study import study_file

PROFILES = ("quick", "paper")

FROM_SCRATCH = ("quick",)
"""Profiles whose study is computed anew by each build; the records of the others are in the repository."""

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


def read_profile(checkout: Checkout, profile: str) -> dict[str, dict[str, Any]]:
    """Parameters for each notebook, by the notebook's name.

    Raises:
        InputError: unknown profile, or a profile that cannot be read, has a key twice, or names a notebook or
            a parameter that is not there.
    """
    from papermill import inspect_notebook

    require_choice("--profile", profile, PROFILES)
    path = checkout.notebooks / "profiles" / f"{profile}.yaml"
    parameters = require_table(path.name, study_file.read(path, "the profile") or {})
    known = {notebook.stem for notebook in checkout.notebooks.glob("*.ipynb")}
    for name, values in parameters.items():
        require_choice(f"a notebook in {path.name}", name, sorted(known))
        declared = sorted(inspect_notebook(str(checkout.notebooks / f"{name}.ipynb")))
        for parameter in require_table(f"{name} in {path.name}", values or {}):
            require_choice(f"a parameter of {name} in {path.name}", parameter, declared)
    return {name: dict(values or {}) for name, values in parameters.items()}


def build(
    profile: str = "quick",
    *,
    root: Path | None = None,
    data_dir: str | None = None,
    jobs: int | None = None,
    solutions: str | None = None,
) -> Path:
    """Execute the notebooks with a profile's parameters and build the pages.

    Args:
        profile: "quick" (computes a small study on embedded images) or "paper" (reads the committed records).
        root: a folder in the checkout; None for the working folder.
        data_dir: folder of the sample files, handed to the notebooks as ``WDLG_DATA``.
        jobs: notebooks, or cells of the study, that run side by side, one thread each; None for the number of
            cores, at most 2, since a notebook of the paper profile can need several GB.
        solutions: folder for the solutions of the exercises, which the pages then leave out; None to keep
            them on the pages.

    Returns:
        The page to open.

    Raises:
        InputError: no checkout, unknown profile, bad count, another build of the same checkout, or a folder
            that cannot be written to.
        BookError: a notebook failed, or the pages have a warning.
    """
    checkout = find_checkout(root)
    parameters = read_profile(checkout, profile)
    jobs = min(os.cpu_count() or 1, 2) if jobs is None else require_count("--jobs", jobs)
    environment = {**os.environ, **ONE_THREAD, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    if data_dir is not None:
        environment["WDLG_DATA"] = str(Path(data_dir).resolve())
    if solutions is not None and (
        not solutions or (Path(solutions).exists() and not Path(solutions).is_dir())
    ):
        raise InputError(f"--solutions is {solutions!r}, but must be a folder, or not be there yet.")
    started = time.perf_counter()
    names = sorted(notebook.stem for notebook in checkout.notebooks.glob("*.ipynb"))
    with terminated_like_interrupted(), _alone(checkout):
        try:
            _stage(checkout)
        except OSError as error:
            raise _cannot_write(checkout.executed, error) from None
        _compute_study(checkout, profile, jobs)
        Execution(checkout, parameters, environment, names).run(jobs)
        write_exercises(checkout.notebooks, checkout.executed / "exercises", checkout.executed / "notebooks")
        if solutions is not None:
            try:
                take_out_solutions(checkout.executed / "notebooks", Path(solutions))
            except OSError as error:
                raise _cannot_write(Path(solutions), error) from None
        _make_pages(checkout, environment)
    page = checkout.pages / "index.html"
    click.echo(f"The book is ready after {time.perf_counter() - started:.0f} s. Open {page}")
    return page


@contextmanager
def _alone(checkout: Checkout) -> Iterator[None]:
    """Hold the checkout for one build: another would delete what this one executes.

    Raises:
        InputError: another build holds it, or the book's folder cannot be written to.
    """
    folder = checkout.pages.parent
    lock = FileLock(folder / "lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"the checkout {checkout.root} is being built already, but must be built by one `wdlg book` at a "
            "time: wait for the other, or stop it."
        ) from None
    except OSError as error:
        raise _cannot_write(folder, error) from None
    try:
        yield
    finally:
        lock.release()


def _cannot_write(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"the book's folder {folder} cannot be written to ({error.strerror or error}), but must be."
    )


def _stage(checkout: Checkout) -> None:
    """A fresh copy of the sources; results of an earlier build do not survive."""
    shutil.rmtree(checkout.executed, ignore_errors=True)
    (checkout.executed / "notebooks").mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(checkout.root / name, checkout.executed)
    for results in checkout.root.glob("benchmarks/*.json"):
        (checkout.executed / "benchmarks").mkdir(exist_ok=True)
        shutil.copy(results, checkout.executed / "benchmarks")
    if (checkout.root / "studies").is_dir():
        shutil.copytree(checkout.root / "studies", checkout.executed / "studies")
    for records in checkout.root.glob("results/*"):
        target = checkout.executed / "results" / records.name
        if records.is_dir() and records.name not in FROM_SCRATCH:
            shutil.copytree(records, target)
        elif records.suffix == ".json":
            target.parent.mkdir(exist_ok=True)
            shutil.copy(records, target)
    for name in ("CHANGELOG.md", "CITATION.cff"):
        if (checkout.root / name).exists():
            shutil.copy(checkout.root / name, checkout.executed)
    write_exercises(checkout.notebooks, checkout.executed / "exercises")
    shutil.copytree(
        checkout.root / "book",
        checkout.executed / "book",
        ignore=shutil.ignore_patterns("executed", "_build"),
    )


def _compute_study(checkout: Checkout, profile: str, processes: int) -> None:
    """Compute the study that the pages of a profile read, unless its records came with the sources."""
    file = checkout.executed / "studies" / f"{profile}.yaml"
    if profile not in FROM_SCRATCH or not file.exists():
        return
    # Only now: this import takes seconds, and a build without a study does not need it.
    from wdlg.study import runner, specification, store

    click.echo(f"Computing the study {file.name}")
    started = time.perf_counter()
    planned = specification.load(file)
    runner.run(
        planned,
        store.Store(checkout.executed / "results" / profile),
        processes=processes,
        progress=sys.stderr.isatty(),
    )
    attacks = sum(cell.attacks for cell in planned.cells)
    click.echo(f"{attacks:,} attacks and gradients done in {time.perf_counter() - started:.0f} s")


def slides(root: Path | None = None) -> list[Path]:
    """Make the slides again, from the pages of the last build.

    Args:
        root: a folder in the checkout; None for the working folder.

    Raises:
        InputError: no checkout, no pages, or a lecture that names what no page has.
    """
    checkout = find_checkout(root)
    if not checkout.pages.is_dir():
        raise InputError(f"{checkout.pages} is not there, but slides are cut out of it: run `wdlg book`.")
    return write_slides(checkout.lectures, checkout.pages)


def _make_pages(checkout: Checkout, environment: Mapping[str, str]) -> None:
    """Jupyter Book with warnings as errors; the new pages replace the old ones only if there are none."""
    click.echo("Building the pages")
    command = [
        *(str(Path(sys.executable).with_name("jupyter-book")), "build", str(checkout.executed)),
        *("--warningiserror", "--nitpick", "--keep-going", "--quiet"),
    ]
    result = subprocess.run(
        command, env=dict(environment), capture_output=True, text=True, check=False, cwd=checkout.executed
    )
    if result.returncode != 0:
        complaints = [line for line in result.stderr.splitlines() if line.strip()]
        raise BookError("the pages could not be built:\n" + "\n".join(complaints[-40:]))
    write_slides(checkout.lectures, checkout.executed / "_build" / "html")
    shutil.rmtree(checkout.pages, ignore_errors=True)
    checkout.pages.parent.mkdir(parents=True, exist_ok=True)
    (checkout.executed / "_build" / "html").rename(checkout.pages)
