"""Build the book: papermill executes every notebook, then Jupyter Book makes the pages.

A build works on a copy of the sources in ``book/executed``, where the executed notebooks stand in for their
sources under the same names. So every page's links (download, Binder, Colab, repository) lead to the notebook
in the repository, and the sources stay without outputs. The pages replace those of the last build only when
everything went well.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
import yaml
from filelock import FileLock, Timeout

from wdlg import project
from wdlg.book.exercises import take_out_solutions, write_exercises
from wdlg.book.pages import MISSING
from wdlg.book.slides import write_slides
from wdlg.errors import InputError, require_choice, require_count, require_table
from wdlg.interruption import terminated_like_interrupted
from wdlg.study import study_file

PROFILES = ("quick", "paper")

FROM_SCRATCH = ("quick",)
"""Profiles whose study is computed anew by each build; the records of the others are in the repository."""

LAST = ("07_status",)
"""Notebooks that read what the others left."""

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)

ADDED = {"injected-parameters", "papermill-error-cell-tag", "times"}
"""Tags of the cells that a build adds, and that a count of the source's cells leaves out."""

WORDS_A_MINUTE = 200
"""How fast text with mathematics is read: a round number for adults, who read plain text at 240 or so."""

HIDING = {"hide-cell", "hide-input", "remove-cell", "remove-input"}
"""Tags that say how much of a cell a page shows."""

PATIENCE = 10.0
"""Seconds that papermill and its kernel have to end when asked, once a build stops."""


_QUOTED = re.compile(r"\{glue:text\}`([^`]+)`")


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
        _Execution(checkout, parameters, environment, names).run(jobs)
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


class _Execution:
    """The notebooks of one build: independent ones side by side, then those that read their results."""

    def __init__(
        self,
        checkout: Checkout,
        parameters: Mapping[str, Mapping[str, Any]],
        environment: Mapping[str, str],
        names: Sequence[str],
    ) -> None:
        self.checkout = checkout
        self.parameters = parameters
        self.environment = environment
        self.names = names
        self.stopping = False
        self.changed = threading.Condition()  # held by who reads or changes `stopping` and `running`
        self.running: set[subprocess.Popen[str]] = set()
        self.done = 0

    def run(self, jobs: int) -> None:
        """Execute all; the first failure stops the others."""
        stages = [[name for name in self.names if name not in LAST], *([name] for name in LAST)]
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for stage in stages:
                    tasks = [pool.submit(self.execute, name) for name in stage if name in self.names]
                    for task in as_completed(tasks):
                        task.result()
            except BaseException:
                # Before the pool waits for its threads, end what they wait for.
                self.stop()
                raise

    def stop(self) -> None:
        """End every notebook that runs, with its kernel, and start no other."""
        with self.changed:
            self.stopping = True
            # papermill dies without ending its kernel. A kernel ends itself once its parent is process 1, but
            # orphans come to another process where one asks for them (systemd, containers, CI runners).
            alive = [member for process in self.running for member in _family(process.pid)]
            for member in alive:
                with suppress(psutil.NoSuchProcess):
                    member.terminate()
            self.changed.wait_for(lambda: not self.running, timeout=PATIENCE)
            for process in self.running:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGSTOP)  # so that it starts no kernel from here on
            alive += [member for process in self.running for member in _family(process.pid)]
        for member in alive:
            with suppress(psutil.NoSuchProcess):
                member.kill()

    def execute(self, name: str) -> None:
        """Run one notebook in a process of its own."""
        target = self.checkout.executed / "notebooks" / f"{name}.ipynb"
        settings = target.with_suffix(".yaml")
        command = [
            *(sys.executable, "-m", "papermill", "--no-progress-bar", "--log-level", "ERROR"),
            *("--kernel", "python3", "--cwd", str(target.parent), "--parameters_file", str(settings)),
            *(str(self.checkout.notebooks / target.name), str(target)),
        ]
        started = time.perf_counter()
        with self.changed:
            if self.stopping:
                return
            click.echo(f"[{self.done}/{len(self.names)}] {name} started")
            settings.write_text(yaml.safe_dump(dict(self.parameters.get(name) or {})))
            process = subprocess.Popen(
                command,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            self.running.add(process)
        output, memory = _output_and_memory(process)
        settings.unlink()
        with self.changed:
            self.running.discard(process)
            self.changed.notify_all()
            if self.stopping:
                return
        if process.returncode != 0:
            raise BookError(_failure(target) or f"notebook {name} failed:\n{output.strip()[-2000:]}")
        _finish(target, memory)
        self.done += 1
        click.echo(f"[{self.done}/{len(self.names)}] {name} done in {time.perf_counter() - started:.0f} s")
        for line in _missing(target):
            click.echo(f"    {line}")


def _family(pid: int) -> list[psutil.Process]:
    """A process and every process below it; none if it has ended."""
    try:
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _output_and_memory(process: subprocess.Popen[str]) -> tuple[str, int]:
    """What a process printed until its end, and the peak memory of the largest process below it, in bytes.

    The system itself counts it, for papermill and every process that it has waited for: the kernel is one of
    them. Processes that ran side by side are not added up, and none counts less than this process had used
    when it started them.
    """
    assert process.stdout is not None
    with process.stdout as pipe:
        output = pipe.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return output, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _outputs(notebook: Path) -> Iterator[tuple[int, Any]]:
    """Every output of a notebook's code cells, with the cell's number (from 1, as counted in its source)."""
    import nbformat

    if not notebook.exists():
        return
    cells = nbformat.read(notebook, as_version=4).cells
    own = [cell for cell in cells if not ADDED & set(cell.metadata.get("tags", ()))]
    for number, cell in enumerate(own, start=1):
        for output in cell.get("outputs", []):
            yield number, output


def _failure(notebook: Path) -> str | None:
    """Notebook, cell and error of a failed execution; None if the notebook shows none."""
    for number, output in _outputs(notebook):
        if output.output_type == "error":
            return f"notebook {notebook.stem} failed in cell {number}: {output.ename}: {output.evalue}"
    return None


def _finish(notebook: Path, memory: int) -> None:
    """Check that each figure is a picture, and make the notebook one that readers can download.

    What an alternative text quotes, as ``{glue:text}`name```, stands in it as a number: a page reads it as it
    is. What the figure itself tells of what it drew (``wdlg.figures.Picture.told``) follows after it. The
    parameters that papermill adds are shown if the notebook shows its own, no folder of this machine is left
    in the file, and below the title stands how long the page takes. The status page finds the peak memory, in
    bytes, beside what papermill has recorded.

    Raises:
        BookError: a cell with a caption shows no picture, or an alternative text quotes what is not there.
    """
    import nbformat

    content = nbformat.read(notebook, as_version=4)
    numbers = _glued(content)
    for cell in content.cells:
        image = cell.metadata.get("mystnb", {}).get("image", {})
        if "alt" in image:
            try:
                image["alt"] = _QUOTED.sub(lambda quoted: numbers[quoted[1]], image["alt"])
            except KeyError as name:
                raise BookError(
                    f"notebook {notebook.stem} quotes {name} in an alternative text, but glues nothing of "
                    "that name."
                ) from None
            image["alt"] = " ".join([image["alt"], *_told(cell)])
        caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption")
        if caption and not any("image/png" in output.get("data", {}) for output in cell.outputs):
            raise BookError(f"notebook {notebook.stem} shows no picture above the caption {caption!r}.")
    by_tag = {tag: cell for cell in content.cells for tag in cell.metadata.get("tags", ())}
    if "injected-parameters" in by_tag:
        shown_as = HIDING & set(by_tag["parameters"].metadata["tags"])
        by_tag["injected-parameters"].metadata["tags"] += sorted(shown_as)
    for path in ("input_path", "output_path"):
        content.metadata.papermill.pop(path, None)
    content.metadata["peak_memory"] = memory
    content.cells.insert(1, nbformat.v4.new_markdown_cell(_times(content), metadata={"tags": ["times"]}))
    nbformat.write(content, notebook)


def _glued(notebook: Any) -> dict[str, str]:
    """Texts that the prose of an executed notebook quotes, by name."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return {
        output.metadata["scrapbook"]["name"]: text.strip("'\"")
        for output in outputs
        if "scrapbook" in output.get("metadata", {})
        for kind, text in output.data.items()
        if kind.endswith("text/plain")
    }


def _told(cell: Any) -> Iterator[str]:
    """What the pictures of an executed cell tell of themselves."""
    for output in cell.get("outputs", []):
        told = output.get("metadata", {}).get("image/png", {}).get("told")
        if told:
            yield told


def _times(notebook: Any) -> str:
    """How long an executed notebook takes to read, counted in words, and took to run."""
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    minutes, seconds = math.ceil(words / WORDS_A_MINUTE), round(notebook.metadata.papermill.duration)
    return f"*About {minutes} min to read; ran in {seconds} s.*"


def _missing(notebook: Path) -> list[str]:
    """What a notebook reported as missing."""
    return [
        line
        for _, output in _outputs(notebook)
        if output.output_type == "stream"
        for line in output.text.splitlines()
        if line.startswith(MISSING)
    ]


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
