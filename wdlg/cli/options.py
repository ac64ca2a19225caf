"""What the commands share: options, JSON, and one sentence for a mistake."""

from __future__ import annotations

import gc
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO

import click

from wdlg.errors import InputError

MISTAKE = 2
STOPPED = 130
PIPE_CLOSED = 141
"""Exit codes. The last two are those of a program that a signal ends: 128 and its number, SIGINT's 2 and
SIGPIPE's 13."""


class PoliteGroup(click.Group):
    """Turns all that a user can do something about into one sentence on standard error and an exit code.

    The code is 2 for a mistake, for memory that is not there, and for a file or standard output that cannot
    be read or written (a full disk, ``>&-``); 130 for Ctrl-C. When the reader of a pipe has seen enough
    (``wdlg ... | head -1``), nothing is said, and the code is 141. Every other error is one of this program,
    and keeps its traceback.
    """

    def main(self, *arguments: Any, **settings: Any) -> Any:
        # Outside of what click catches: a usage error that cannot be told, since standard error is full.
        with _polite():
            return super().main(*arguments, **settings)

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        with _polite():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        with _polite():
            return super().invoke(ctx)


@contextmanager
def _polite() -> Iterator[None]:
    """One sentence and the exit code for each error of :class:`PoliteGroup`."""
    if sys.stderr is None:
        sys.stderr = _nowhere()  # closed by the user, who does not want to be told anything
    try:
        if sys.stdout is None:
            raise InputError("standard output is closed, but must be open for the result.")
        yield
    except InputError as error:
        complain(error)
        _end(MISTAKE)
    except KeyboardInterrupt:
        complain("stopped.")
        _end(STOPPED)
    except BrokenPipeError:
        _end(PIPE_CLOSED)
    except OSError as error:
        where = "a file or standard output" if error.filename is None else repr(os.fspath(error.filename))
        complain(f"{where} cannot be read or written ({error.strerror or error}).")
        _end(MISTAKE)
    except (MemoryError, RuntimeError) as error:
        # torch says it in a RuntimeError: "can't allocate memory", "Tried to allocate 20.00 GiB".
        if not isinstance(error, MemoryError) and "allocate" not in str(error):
            raise
        complain("this asks for more memory than there is; ask for less.")
        _end(MISTAKE)


def complain(sentence: object) -> None:
    """Say a sentence on standard error; where that is full, too, nothing is left but the exit code."""
    with suppress(OSError):
        click.echo(f"wdlg: {sentence}", err=True)


def _end(code: int) -> NoReturn:
    """Exit. What standard output did not take is given up, or Python would try once more, and complain."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (AttributeError, OSError, ValueError):
            setattr(sys, name, _nowhere())
    sys.exit(code)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


@contextmanager
def loading() -> Iterator[None]:
    """For the imports of a command.

    What they make stays; that Python looks through it for garbage, again and again while it grows, would be a
    tenth of their time, and a third of that of the last ones.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def option(*names: str, **settings: Any) -> Any:
    """A click option that shows its default if it has one."""
    return click.option(*names, **{"show_default": settings.get("default") is not None, **settings})


data_dir_option = option(
    "--data-dir",
    metavar="DIR",
    help="Folder of the sample files. Default: the environment variable WDLG_DATA, else your data folder.",
)
seed_option = option("--seed", type=int, default=0, metavar="S", help="Decides every random draw.")
json_option = option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


def json_text(value: Any) -> str:
    """JSON text; what is not a finite number becomes null."""

    def clean(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: clean(entry) for key, entry in part.items()}
        if isinstance(part, list):
            return [clean(entry) for entry in part]
        part = part.item() if hasattr(part, "item") else part
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(clean(value), indent=2, allow_nan=False)
