"""One thread for a computation, also where several threads of this process compute at once.

How many threads a library uses is a setting of the whole process. Were each computation to set it and put it
back by itself, the first of two that ends would put it back while the other still computes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch


class Shared(AbstractContextManager[None]):
    """A setting of the process that several threads may want: the first makes it, the last takes it back.

    Args:
        setting: makes it when entered, and takes it back when left.
    """

    def __init__(self, setting: Callable[[], AbstractContextManager[Any]]) -> None:
        self._setting = setting
        self._lock = threading.Lock()
        self._made: AbstractContextManager[Any] | None = None
        self._users = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._made is None:
                made = self._setting()
                made.__enter__()
                self._made = made
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                made, self._made = self._made, None
                assert made is not None
                made.__exit__(None, None, None)


@contextmanager
def _one_for_torch() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_torch = Shared(_one_for_torch)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """One torch thread: the fastest use of a core, and sums in the same order everywhere.

    A thread that leaves while others go on keeps one; the last puts the number back.
    """
    with _torch:
        torch.set_num_threads(1)  # OpenMP has a number for each thread; that of the process is set already
        yield
