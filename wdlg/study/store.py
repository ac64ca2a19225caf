"""The record store of a study: one Parquet file for each cell, complete or not there at all.

A file carries, in its Parquet metadata, the settings that decide its records, where they were computed, and
a digest of the records. So a file that was cut short, that belongs to other settings, or whose records were
changed by hand is told from a good one by reading it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from wdlg.study.specification import Cell

METADATA_KEY = b"wdlg"

SET_ASIDE = "set-aside"
"""Folder in the store for files that are not records of the study."""


class State(Enum):
    """What a store holds for a cell."""

    MISSING = "is not there"
    DONE = "is complete"
    CORRUPT = "cannot be read"
    CHANGED = "does not fit its digest: it was changed after it was written"
    FOREIGN = "belongs to other settings"


@dataclass(frozen=True)
class Store:
    """A folder of records.

    Args:
        folder: where; made when the first cell is written.
    """

    folder: Path

    def state(self, cell: Cell) -> State:
        """What is there for a cell, by reading the whole file."""
        path = self.folder / cell.path
        if not path.exists():
            return State.MISSING
        try:
            table = pq.read_table(path)
            metadata = _metadata(table)
            if metadata["digest"] != digest(table, metadata["settings"]):
                return State.CHANGED
        except (OSError, pa.ArrowException, KeyError, ValueError):
            return State.CORRUPT
        return State.DONE if metadata["settings"] == _as_json(cell.settings()) else State.FOREIGN

    def write(self, cell: Cell, records: pd.DataFrame, *, wall_seconds: float, sample: str) -> None:
        """Store the records of a cell: the file appears complete, or not at all.

        Args:
            cell: whose.
            records: one row for each attack.
            wall_seconds: that the cell took.
            sample: digest of the images, see :meth:`wdlg.data.Sample.digest`.
        """
        table = pa.Table.from_pandas(records, preserve_index=False).replace_schema_metadata(None)
        settings = _as_json(cell.settings())
        metadata = {
            "settings": settings,
            "sample": sample,
            "wall_seconds": round(wall_seconds, 3),
            "digest": digest(table, settings),
            **provenance(),
        }
        path = self.folder / cell.path
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                pq.write_table(
                    table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata).encode()}),
                    file,
                    compression="zstd",
                )
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def read(self, cell: Cell) -> pd.DataFrame:
        """The records of a cell that is done, with its part and group in front."""
        records = pq.read_table(self.folder / cell.path).to_pandas()
        for place, (name, value) in enumerate(cell.columns().items()):
            records.insert(place, name, value)
        return records

    def read_all(self, cells: Iterable[Cell]) -> pd.DataFrame:
        """The records of all cells that are done, one table; empty if there is none."""
        tables = [self.read(cell) for cell in cells if self.state(cell) is State.DONE]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def metadata(self, cell: Cell) -> dict[str, Any]:
        """Settings and provenance of a cell that is done."""
        return _metadata(pq.read_schema(self.folder / cell.path))

    def strangers(self, cells: Iterable[Cell]) -> list[Path]:
        """Files in the store that are of no cell of the study, relative to its folder."""
        known = {cell.path for cell in cells}
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return sorted(path for path in found if path not in known and path.parts[0] != SET_ASIDE)

    def set_aside(self, path: Path) -> Path:
        """Move a file, named relative to the store, out of the way without losing it; its new path."""
        target = self.folder / SET_ASIDE / path
        target.parent.mkdir(parents=True, exist_ok=True)
        number = 0
        while target.exists():
            number += 1
            target = target.with_name(f"{path.name}.{number}")
        os.replace(self.folder / path, target)
        return target


def digest(table: pa.Table, settings: Any) -> str:
    """SHA-256 of settings and records, column by column, whatever version wrote the file."""
    sha = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in table.column_names:
        values = json.dumps(table[name].to_pylist(), default=bytes.hex)
        sha.update(f"\n{name}:{values}".encode())
    return sha.hexdigest()


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


def _metadata(holder: Any) -> dict[str, Any]:
    """The metadata of a table or of a schema."""
    schema = holder if isinstance(holder, pa.Schema) else holder.schema
    return json.loads((schema.metadata or {})[METADATA_KEY])


def _as_json(settings: Any) -> Any:
    """Settings as they come back from JSON, with lists for tuples."""
    return json.loads(json.dumps(settings))
