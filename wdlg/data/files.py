"""Opening the files that a user names."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import BinaryIO


def open_file(path: str | Path) -> BinaryIO:
    """Open an ordinary file for reading.

    Raises:
        OSError: there is none, or what is there is a folder, or a pipe or device, which may never end.
    """
    path = Path(path)
    kind = path.stat().st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    return path.open("rb")
