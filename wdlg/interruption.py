"""A request to end, by whichever signal it comes, ends a computation as Ctrl-C does."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click

REQUESTS = ("SIGTERM", "SIGHUP")
"""Signals that ask a process to end: of who stops it, and of a terminal that is closed."""


class Terminated(KeyboardInterrupt):
    """One of ``REQUESTS`` came.

    Attributes:
        exit_code: by convention 128 and the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Within this, each of ``REQUESTS`` raises :class:`Terminated` in the main thread.

    A signal that the process was told to ignore, as by nohup, stays ignored. Outside the main thread nothing
    changes, since only that may set handlers.
    """

    def end(number: int, _: FrameType | None) -> NoReturn:
        raise Terminated(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in REQUESTS:
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def exit_code_of_request() -> Iterator[None]:
    """For a command: a request to end stops it like Ctrl-C, and then it exits with the code of the signal."""
    with terminated_like_interrupted():
        try:
            yield
        except Terminated as request:
            click.echo("wdlg: stopped.", err=True)
            sys.exit(request.exit_code)
