"""One kind of error for a user's mistake, and the few checks that raise it.

Every message is one sentence that names the argument, says what came, and says what is allowed.
The command line turns an :class:`InputError` into that sentence and exit code 2.
"""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Collection, Mapping
from typing import Any

MOST_TOLD = 200
"""Characters of a wrong value that a message repeats."""


class InputError(ValueError):
    """A value that the user gave cannot be used; the message is one plain sentence."""


def require_choice(name: str, value: Any, allowed: Collection[str]) -> str:
    """Return ``value`` if it is one of the texts ``allowed``; raise :class:`InputError` otherwise."""
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"{name} is {told(value)}, but must be one of {', '.join(allowed)}.")
    return value


def require_text(name: str, value: Any) -> str:
    """Return ``value`` if it is a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{name} is {told(value)}, but must be a text.")
    return value


def require_list(name: str, value: Any) -> list[Any]:
    """Return ``value`` as a list if it is a list or tuple with at least one entry."""
    if not isinstance(value, list | tuple) or not value:
        raise InputError(f"{name} is {told(value)}, but must be a list with at least one entry.")
    return list(value)


def require_flag(name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is {told(value)}, but must be True or False.")
    return value


def require_count(name: str, value: Any, *, at_least: int = 1, below: int | None = None) -> int:
    """Return ``value`` as an int if it is a whole number in [at_least, below)."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < at_least or (below is not None and value >= below):
        upper = "" if below is None else f" and at most {below - 1}"
        raise InputError(f"{name} is {told(value)}, but must be a whole number, at least {at_least}{upper}.")
    return int(value)


def require_positive(name: str, value: Any) -> float:
    """Return ``value`` as a float if it is a finite number above zero."""
    if not _is_finite(value) or value <= 0:
        raise InputError(f"{name} is {told(value)}, but must be a finite number above 0.")
    return float(value)


def require_not_negative(name: str, value: Any, *, or_infinite: bool = False) -> float:
    """Return ``value`` as a float if it is a number, zero or above, and finite unless infinity is allowed."""
    infinite = or_infinite and isinstance(value, float) and value == math.inf
    if not infinite and (not _is_finite(value) or value < 0):
        allowed = "number, 0 or above, or inf" if or_infinite else "finite number, 0 or above"
        raise InputError(f"{name} is {told(value)}, but must be a {allowed}.")
    return float(value)


def require_table(
    where: str, given: Any, *, required: Collection[str] = (), optional: Collection[str] | None = None
) -> Mapping[str, Any]:
    """A mapping with the required keys; others must be among ``optional`` unless that is None."""
    if not isinstance(given, Mapping):
        raise InputError(f"{where} is {reprlib.repr(given)}, but must be a table of keys and values.")
    for key in given:
        if not isinstance(key, str):
            raise InputError(
                f"{where} has the key {reprlib.repr(key)}, but a key must be text: write it in quotes (YAML "
                "reads on, off, yes and no as True and False, and digits as a number)."
            )
    if required or optional is not None:
        require_keys(where, given, required, optional)
    return given


def require_keys(
    where: str, given: Mapping[str, Any], required: Collection[str], optional: Collection[str] | None
) -> None:
    for key in required:
        if key not in given:
            raise InputError(f"{where} has no {key!r}, but must have one.")
    if optional is not None:
        for key in given:
            if key not in (*required, *optional):
                allowed = ", ".join((*required, *optional))
                raise InputError(f"{where} has the key {key!r}, but allowed are {allowed}.")


def told(value: Any) -> str:
    """What came, for a message: on one line, and cut where it is long.

    >>> told("cifar")
    "'cifar'"
    """
    if isinstance(value, numbers.Number) and hasattr(value, "item"):
        value = value.item()  # numpy's numbers, whose repr names their type
    text = " ".join(line.strip() for line in repr(value).splitlines())
    return text if len(text) <= MOST_TOLD else f"{text[:MOST_TOLD]}..."


def _is_finite(value: Any) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float reaches
        return False
