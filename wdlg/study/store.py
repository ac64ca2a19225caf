"""The record store of a study: one Parquet file for each cell, complete or not there at all.

A file carries, in its Parquet metadata, the settings that decide its records, where they were computed, and
a digest. So a file that was cut short, that belongs to other settings, or that was changed by hand is told
from a good one by reading it. The file ``store.json`` says whose records these are.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import secrets
import subprocess
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache, cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wdlg.errors import InputError, told
from wdlg.study.cells import Cell, Study
from wdlg.study.folders import LOCK, PART, Files, InUseError, files_of
from wdlg.study.schema import LABEL, SCHEMA, SET_ASIDE, complete

if TYPE_CHECKING:
    import pandas as pd

METADATA_KEY = b"wdlg"

RUN = ".run-"
"""Beginning of the name of a file that is there while a run is, by which its workers know its store."""

PAUSE = 0.2
"""Seconds between two looks whether another run has given back the store."""

NO_DIGEST = "the SHA-256 of this file with this text in its place".ljust(64, ".")
"""Stands where the digest will, while it is computed."""


class State(Enum):
    """What a store holds for a cell."""

    MISSING = "is not there"
    DONE = "is complete"
    CORRUPT = "cannot be read"
    CHANGED = "does not fit its digest: it was changed after it was written"
    FOREIGN = "belongs to other settings"


@dataclass(frozen=True)
class Held:
    """What a store holds for a cell, read once.

    Attributes:
        cell: whose.
        state: of its file.
        metadata: settings and provenance; empty if there are none.
        file: its content; None if it is no good file of records.
        sha256: of the whole file; empty if there is none.
    """

    cell: Cell
    state: State
    metadata: Mapping[str, Any] = field(default_factory=dict)
    file: pq.ParquetFile | None = None
    sha256: str = ""

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The records of a cell that is done, one row for each attack; of these columns, or of all."""
        assert self.file is not None
        return self.file.read(columns=columns).replace_schema_metadata(None)

    def columns(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Some columns of the records of a cell that is done, by name.

        Arrow's own arrays would load pandas, which takes longer than all the rest.
        """
        table = self.table(names)
        return {
            name: np.array(table[name].to_pylist(), dtype=table[name].type.to_pandas_dtype())
            for name in names
        }


@dataclass(frozen=True)
class Store:
    """A folder of records.

    Args:
        folder: where, as a path or its text, or as the address of an object store, such as
            "s3://bucket/records"; made when the first cell is written.
        run: of whoever computes for a run, the run's name: nothing is written without that run.

    Raises:
        InputError: the folder is none of these, or what speaks the address's protocol is not installed.
    """

    folder: Any
    run: str = ""

    def __post_init__(self) -> None:
        folder = self.folder
        if not isinstance(folder, str | os.PathLike):
            raise InputError(f"folder is {told(folder)}, but must be the name of a folder.")
        if isinstance(folder, str) and "://" in folder:
            files_of(folder)
        else:
            object.__setattr__(self, "folder", Path(folder))

    @cached_property
    def files(self) -> Files:
        """What lies in the folder."""
        return files_of(self.folder)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "run": self.run}

    def absolute(self) -> Store:
        """The same store, whatever the working folder."""
        return self if isinstance(self.folder, str) else replace(self, folder=self.folder.absolute())

    def held(self, cell: Cell, *, in_full: bool = False) -> Held:
        """What is there for a cell.

        Args:
            cell: whose records.
            in_full: compute every digest, also of a file that ``store.json`` remembers as verified.

        Raises:
            InputError: the file is there, but this user or this disk does not let it be read.
        """
        with self._refused("read"):
            try:
                content = self.files.read(cell.path)
            except (FileNotFoundError, NotADirectoryError):
                return Held(cell, State.MISSING)
            except IsADirectoryError:
                return Held(cell, State.CORRUPT)
        sha256 = hashlib.sha256(content).hexdigest()
        label = _read_label(self.files) or {"verified": {}}
        verified = not in_full and label["verified"].get(cell.path.as_posix()) == sha256
        metadata: Mapping[str, Any] = {}
        try:
            file = pq.ParquetFile(pa.BufferReader(content))
            metadata = json.loads(file.metadata.metadata[METADATA_KEY])
            if not verified and not _fits_its_digest(content, metadata, file):
                return Held(cell, State.CHANGED, metadata)
            same = complete(metadata["settings"]) == _as_json(cell.settings())
        except (OSError, pa.ArrowException, AttributeError, KeyError, TypeError, ValueError):
            return Held(cell, State.CORRUPT, metadata)
        return Held(cell, State.DONE if same else State.FOREIGN, metadata, file, sha256)

    def state(self, cell: Cell) -> State:
        """What is there for a cell, in a word."""
        return self.held(cell).state

    def write(self, cell: Cell, records: pd.DataFrame, *, wall_seconds: float, sample: str) -> None:
        """Store the records of a cell: the file appears complete, or not at all.

        Args:
            cell: whose.
            records: one row for each attack.
            wall_seconds: that the cell took.
            sample: digest of the images, see :meth:`wdlg.data.Sample.digest`.

        Raises:
            InputError: the folder cannot be written to, or the disk is full.
        """
        self.put(cell, as_file(cell, records, wall_seconds=wall_seconds, sample=sample))

    def put(self, cell: Cell, content: bytes) -> None:
        """Store a file of :func:`as_file`, as :meth:`write` does.

        Raises:
            InputError: as there; or the run that this is for is not seen in the folder.
        """
        self.require_run()
        self._put(cell.path, content)

    def require_run(self) -> None:
        """Refuse to compute for a run that is not seen here: it has ended, or this is another folder.

        Raises:
            InputError: so it is.
        """
        with self._refused("read"):
            if self.run and not self.files.exists(Path(RUN + self.run)):
                raise InputError(
                    f"--store is {str(self.folder)!r}, but on {platform.node()} the run is not seen there: "
                    "it has ended, or this is not a folder that every worker sees under this name."
                )

    def any_of(self, cells: Iterable[Cell]) -> bool:
        """True if there is a file for any of the cells, good or not."""
        with self._refused("read"):
            return not {cell.path for cell in cells}.isdisjoint(self.files.names())

    def read(self, cell: Cell) -> pd.DataFrame:
        """The records of a cell that is done, with its part and group in front."""
        return self.read_all([cell])

    def read_all(self, cells: Iterable[Cell]) -> pd.DataFrame:
        """The records of all cells that are done, one table; empty if there is none."""
        held = (self.held(cell) for cell in cells)
        return as_frame([one for one in held if one.state is State.DONE])

    def metadata(self, cell: Cell) -> Mapping[str, Any]:
        """Settings and provenance of a cell that is done."""
        return self.held(cell).metadata

    def strangers(self, cells: Iterable[Cell]) -> list[Path]:
        """Files in the store that are of no cell of the study, relative to its folder."""
        known = {cell.path for cell in cells} | {Path(LABEL), Path(LOCK)}
        return [
            path
            for path in self._files()
            if path not in known and path.parts[0] != SET_ASIDE and not _passes(path)
        ]

    def set_aside(self, path: Path) -> Path:
        """Move a file, named relative to the store, out of the way without losing it; its new path."""
        with self._refused("written to"):
            target, number = Path(SET_ASIDE, path), 0
            while self.files.exists(target):
                number += 1
                target = target.with_name(f"{path.name}.{number}")
            self.files.move(path, target)
        return self.folder / target if isinstance(self.folder, Path) else target

    def require_of(self, study: Study) -> None:
        """Refuse a folder that is not the store of a study, nor empty, so that no other's files are touched.

        A store of schema 1 does not say whose it is, and is known by any record that fits the study.

        Raises:
            InputError: the folder is none, belongs to another study, or holds other files.
        """
        with self._refused("read"):
            folder = self.files.is_folder()
            if folder is None:
                return
            if not folder:
                raise InputError(f"--store is {str(self.folder)!r}, but must be a folder.")
        label = _read_label(self.files)
        owner = None if label is None else label["study"]
        if owner is not None and owner != study.name:
            raise InputError(
                f"--store is {str(self.folder)!r}, but that is the store of the study {owner!r} and not of "
                f"{study.name!r}."
            )
        if (
            owner is None
            and any(path.name not in (LOCK, LABEL) and not _passes(path) for path in self._files())
            and not any(self.state(cell) is State.DONE for cell in study.cells)
        ):
            raise InputError(
                f"--store is {str(self.folder)!r}, but must be a folder of records of the study "
                f"{study.name!r}, or an empty one: it holds other files."
            )

    @contextmanager
    def taken(self, study: Study, patience: float = 0.0) -> Iterator[Store]:
        """Hold the store for one run, alone. What a run that was killed left half-written is deleted.

        Args:
            study: whose records it holds.
            patience: how many seconds to wait for another run that holds it.

        Yields:
            The store for whoever computes for this run.

        Raises:
            InputError: see :meth:`require_of`; or another run holds the store, or it cannot be written to.
        """
        self.require_of(study)
        run = secrets.token_hex(8)
        with ExitStack() as held:
            with self._refused("written to"):
                deadline = time.monotonic() + patience
                while True:
                    try:
                        held.enter_context(self.files.held())
                        break
                    except InUseError:
                        if time.monotonic() >= deadline:
                            raise InputError(
                                f"--store is {str(self.folder)!r}, but another run is computing there: wait "
                                "for it, or stop it."
                            ) from None
                        time.sleep(PAUSE)
                for path in self._files():
                    if _passes(path):
                        self.files.remove(path)
            self._sign(study)
            self._put(Path(RUN + run), b"")
            try:
                yield replace(self.absolute(), run=run)
            finally:
                with suppress(OSError):
                    self.files.remove(Path(RUN + run))

    def _sign(self, study: Study) -> None:
        """Say whose store this is. Files of schema 1, whose digest takes long, are verified once, here."""
        if _read_label(self.files) is not None:
            return
        verified = {}
        for cell in study.cells:
            held = self.held(cell, in_full=True)
            if held.state is State.DONE and "schema" not in held.metadata:
                verified[cell.path.as_posix()] = held.sha256
        label = {"study": study.name, "schema": SCHEMA, "verified": verified}
        self._put(Path(LABEL), json.dumps(label, indent=1).encode() + b"\n")

    def _put(self, path: Path, content: bytes) -> None:
        """A file with this content, which appears complete or not at all."""
        with self._refused("written to"):
            self.files.write(path, content)

    def _files(self) -> list[Path]:
        """All files in the store, relative to its folder."""
        return self.files.names()

    @contextmanager
    def _refused(self, done: str) -> Iterator[None]:
        """What the system refuses becomes a sentence: a full disk, a folder that is a file or read-only."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"--store is {str(self.folder)!r}, but cannot be {done} ({error.strerror or error})."
            ) from None


def as_file(cell: Cell, records: pd.DataFrame, *, wall_seconds: float, sample: str) -> bytes:
    """The file of a cell: its records, with the settings, the provenance and the digest as metadata.

    Args:
        cell: whose.
        records: one row for each attack.
        wall_seconds: that the cell took.
        sample: digest of the images, see :meth:`wdlg.data.Sample.digest`.
    """
    metadata = {
        "schema": SCHEMA,
        "settings": cell.settings(),
        "sample": sample,
        "wall_seconds": round(wall_seconds, 3),
        **provenance(),
        "digest": NO_DIGEST,
    }
    table = pa.Table.from_pandas(records, preserve_index=False).replace_schema_metadata(None)
    sink = io.BytesIO()
    # Without Arrow's own schema, a reader finds all metadata in one place; statistics of the columns would be
    # half of a file of few rows.
    with pq.ParquetWriter(
        sink, table.schema, compression="zstd", store_schema=False, write_statistics=False
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({METADATA_KEY: json.dumps(metadata)})
    content = sink.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    return content.replace(NO_DIGEST.encode(), digest.encode())


def as_frame(held: Iterable[Held]) -> pd.DataFrame:
    """The records of cells that are done as one table, each with its part and group in front."""
    import pandas as pd

    tables = []
    for one in held:
        table = one.table()
        for place, (name, value) in enumerate(one.cell.columns().items()):
            table = table.add_column(place, name, pa.repeat(value, len(table)))
        tables.append(table)
    if not tables:
        return pd.DataFrame()
    joined = pa.concat_tables(tables, promote_options="permissive")
    frame = joined.to_pandas()
    for name in frame:  # what a cell does not have is NaN in every column
        if frame[name].dtype.kind == "O" and joined[name].null_count:
            frame[name] = frame[name].where(frame[name].notna(), float("nan"))
    return frame


def digest_of_schema_1(table: pa.Table, settings: Any) -> str:
    """SHA-256 of settings and records, column by column, whatever version wrote the file."""
    sha = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in table.column_names:
        values = json.dumps(table[name].to_pylist(), default=bytes.hex)
        sha.update(f"\n{name}:{values}".encode())
    return sha.hexdigest()


def _fits_its_digest(content: bytes, metadata: Mapping[str, Any], file: pq.ParquetFile) -> bool:
    """True if a file is as it was written."""
    digest = metadata["digest"]
    if "schema" not in metadata:
        return bool(digest == digest_of_schema_1(file.read(), metadata["settings"]))
    blank = content.replace(digest.encode(), NO_DIGEST.encode(), 1)
    return hashlib.sha256(blank).hexdigest() == digest


def _read_label(files: Files) -> dict[str, Any] | None:
    """What the file in a store says of it: study, schema, and the verified files of schema 1; None without.

    Raises:
        InputError: it cannot be read, or a later version wrote it.
    """
    try:
        return _parse_label(files, files.version(Path(LABEL)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError):
        folder = getattr(files, "path", None) or getattr(files, "address", "")
        raise InputError(
            f"--store is {str(folder)!r}, but its {LABEL} must be readable, and of no later version of wdlg "
            "than this."
        ) from None


@lru_cache(maxsize=8)
def _parse_label(files: Files, _: Hashable) -> dict[str, Any]:
    label = json.loads(files.read(Path(LABEL)))
    if label["schema"] > SCHEMA:
        raise ValueError(label)
    return {"study": str(label["study"]), "verified": dict(label["verified"])}


def _passes(path: Path) -> bool:
    """True for a file that is there only while a run is, or was when one was killed."""
    return path.name.startswith(".") and (path.suffix == PART or path.name.startswith(RUN))


@cache
def provenance() -> dict[str, str]:
    """What computes here: versions, device and code revision."""
    return {
        **{name: version(name) for name in ("wdlg", "torch", "numpy", "scipy", "POT")},
        "python": platform.python_version(),
        "device": f"cpu ({platform.machine()})",
        "revision": _revision(),
    }


def _revision() -> str:
    """Commit of the checkout that the package is in; "+changes" if files of the package differ from it."""
    package = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "not in a checkout"


def _as_json(settings: Any) -> Any:
    """Settings as they come back from JSON, with lists for tuples."""
    return json.loads(json.dumps(settings))
