"""Where the files of a store lie: a folder that this machine sees, or an object store elsewhere.

Both are written in one step, so that a file appears complete or not at all, and both are held by one run at a
time. Names are relative to the folder.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from wdlg.errors import InputError

LOCK = ".lock"
"""File that a run holds. Of a folder the system takes it back when the run ends, however it does."""

PART = ".part"
"""Ending of a file that is being written."""

LEASE = 60.0
"""Seconds after which a lock elsewhere is free if nobody has renewed it."""

PROTOCOLS = ("s3", "gs", "az", "abfs", "memory")
"""Of object stores, which show a file when all of it is there. ``memory`` is of one process, for tests."""


class InUseError(Exception):
    """Another run holds the folder."""


class Files(Protocol):
    """The files of a store."""

    def __hash__(self) -> int:
        """Two of one place are the same."""

    def is_folder(self) -> bool | None:
        """True if the folder is there, False if something else is, None if nothing is."""

    def read(self, name: Path) -> bytes:
        """The content of a file; FileNotFoundError, IsADirectoryError or another OSError without one."""

    def write(self, name: Path, content: bytes) -> None:
        """A file with this content, which appears complete or not at all."""

    def names(self) -> list[Path]:
        """All files, in order."""

    def move(self, name: Path, to: Path) -> None:
        """Give a file another name."""

    def remove(self, name: Path) -> None:
        """Delete a file, if it is there."""

    def exists(self, name: Path) -> bool:
        """True if there is a file or folder of this name."""

    def version(self, name: Path) -> Hashable:
        """What differs when the file has been written anew; FileNotFoundError without one."""

    def held(self) -> Any:
        """Hold the folder, for a with statement; raises InUseError if another run does."""


@dataclass(frozen=True)
class Folder:
    """A folder of this machine, or of a disk that several share.

    Args:
        path: of the folder.
    """

    path: Path

    def is_folder(self) -> bool | None:
        return self.path.is_dir() if self.path.exists() else None

    def read(self, name: Path) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: Path, content: bytes) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=PART)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def names(self) -> list[Path]:
        return sorted(path.relative_to(self.path) for path in self.path.rglob("*") if not path.is_dir())

    def move(self, name: Path, to: Path) -> None:
        (self.path / to).parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.path / name, self.path / to)

    def remove(self, name: Path) -> None:
        (self.path / name).unlink(missing_ok=True)

    def exists(self, name: Path) -> bool:
        return (self.path / name).exists()

    def version(self, name: Path) -> Hashable:
        return (self.path / name).stat().st_mtime_ns

    @contextmanager
    def held(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InUseError from None
        except NotImplementedError:
            raise OSError("its file system has no locks, which keep two runs apart") from None
        try:
            yield
        finally:
            lock.release()


@dataclass(frozen=True)
class Elsewhere:
    """A folder of an object store, through fsspec.

    Args:
        address: such as "s3://bucket/records".

    Raises:
        InputError: the address is of no such store, or what speaks its protocol is not installed.
    """

    address: str

    def __post_init__(self) -> None:
        protocol, _, rest = self.address.partition("://")
        if protocol not in PROTOCOLS or not rest.strip("/"):
            raise InputError(
                f"--store is {self.address!r}, but must be a folder, or an address such as s3://BUCKET/NAME "
                f"that begins with {', '.join(PROTOCOLS)}."
            )
        self._system  # noqa: B018  # what is not installed is missed here

    @cached_property
    def _system(self) -> tuple[Any, str]:
        """The file system and the folder's name in it."""
        from fsspec.core import url_to_fs

        try:
            return url_to_fs(self.address)
        except ImportError as error:
            packages = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
            package = packages[self.address.partition("://")[0]]
            raise InputError(
                f"--store is {self.address!r}, but for that {package} must be installed: pip install "
                f"{package} ({error})."
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address}

    @contextmanager
    def _at(self, name: Path) -> Iterator[tuple[Any, str]]:
        """The file system and a file's name in it. Whatever it raises becomes an OSError."""
        try:
            system, root = self._system
            yield system, "/".join([root.rstrip("/"), *name.parts])
        except OSError:
            raise
        except Exception as error:  # each library has errors of its own
            first = (str(error).splitlines() or [""])[0]
            raise OSError(f"{type(error).__name__}: {first[:200]}") from None

    def is_folder(self) -> bool | None:
        with self._at(Path()) as (system, root):
            system.invalidate_cache()
            if system.isfile(root):
                return False
            return True if system.exists(root) else None

    def read(self, name: Path) -> bytes:
        with self._at(name) as (system, full):
            content = system.cat_file(full)
            assert isinstance(content, bytes)
            return content

    def write(self, name: Path, content: bytes) -> None:
        with self._at(name) as (system, full):
            system.pipe_file(full, content)

    def names(self) -> list[Path]:
        with self._at(Path()) as (system, root):
            system.invalidate_cache()
            return sorted(Path(one.removeprefix(root).lstrip("/")) for one in system.find(root))

    def move(self, name: Path, to: Path) -> None:
        self.write(to, self.read(name))
        self.remove(name)

    def remove(self, name: Path) -> None:
        with self._at(name) as (system, full), suppress(FileNotFoundError):
            system.rm_file(full)

    def exists(self, name: Path) -> bool:
        try:
            self.read(name)  # not what a listing remembers
        except FileNotFoundError:
            return False
        return True

    def version(self, name: Path) -> Hashable:
        return self.read(name)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Object stores have no locks: a file says who holds it, and is written anew while that run lives.

        Whoever finds one looks for ``LEASE`` seconds whether it changes, and needs no clock in common.
        """
        mine, name = secrets.token_hex(8), Path(LOCK)
        found = self._content(name)
        if found is not None:
            deadline = time.monotonic() + LEASE
            while time.monotonic() < deadline and self._content(name) == found:
                time.sleep(LEASE / 20)
            if self._content(name) not in (found, None):
                raise InUseError
        self._renew(mine, 0, new=found is None)
        time.sleep(LEASE / 60)  # two that began at once see whose came last
        if not self._is(mine):
            raise InUseError
        ended = threading.Event()

        def renew() -> None:
            beats = 0
            while not ended.wait(LEASE / 6):
                with suppress(OSError):  # the next beat may reach it
                    if self._is(mine):
                        self._renew(mine, beats := beats + 1)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with suppress(OSError):
                if self._is(mine):
                    self.remove(name)

    def _content(self, name: Path) -> bytes | None:
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def _renew(self, token: str, beat: int, *, new: bool = False) -> None:
        content = json.dumps({"run": token, "beat": beat}).encode()
        with self._at(Path(LOCK)) as (system, full):
            if new:
                with suppress(NotImplementedError, ValueError, TypeError):  # not every store can
                    try:
                        system.pipe_file(full, content, mode="create")
                    except FileExistsError:
                        raise InUseError from None
                    return
            system.pipe_file(full, content)

    def _is(self, token: str) -> bool:
        content = self._content(Path(LOCK))
        try:
            return content is not None and json.loads(content)["run"] == token
        except (ValueError, KeyError, TypeError):
            return False


def files_of(folder: Path | str) -> Files:
    """The files of a store at a path, or at an address."""
    return Elsewhere(folder) if isinstance(folder, str) else Folder(folder)
