"""Tasks that end their own worker, in a module that loads nothing: the next worker is there at once."""

import os
import signal


def begun(folder, number, *, fatal=(), always=()):
    """Leave a file that says so; end this process in the middle of some, the first time or always."""
    count = len(list(folder.glob(f"{number}-*")))
    (folder / f"{number}-{count}").write_text("")
    if number in always or (number in fatal and not count):
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fatal_five(folder, number):
    """Task 5 ends the first worker that begins it."""
    return begun(folder, number, fatal=(5,))


def always_five(folder, number):
    """Task 5 ends every worker that begins it."""
    return begun(folder, number, always=(5,))
