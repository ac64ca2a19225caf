"""Kinds of values by name: what study files and the command line call losses, optimisers, defences."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from wdlg.errors import InputError, require_choice, require_keys, require_table, told


class Registry(Mapping[str, Any]):
    """Frozen dataclasses by name; their fields are the settings that stand beside the name.

    Args:
        what: they are, for messages.
        kinds: the classes by name.

    >>> from wdlg.losses import LOSSES
    >>> LOSSES.build("loss", {"name": "pseudo_huber", "scale": 0.1})
    PseudoHuber(scale=0.1)
    >>> LOSSES.describe(_)
    {'name': 'pseudo_huber', 'scale': 0.1}
    """

    def __init__(self, what: str, kinds: Mapping[str, type[Any]]) -> None:
        self.what = what
        self._kinds: dict[str, type[Any]] = {}
        for name, kind in kinds.items():
            self.register(name, kind)

    def __getitem__(self, name: str) -> type[Any]:
        return self._kinds[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def register(self, name: str, kind: type[Any]) -> None:
        """Give a kind of one's own a name, so that studies can use it and records can tell it.

        Raises:
            InputError: the name is taken by another kind, or the kind is no frozen dataclass.
        """
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(f"name is {told(name)}, but must be a word of letters, digits and _.")
        if self._kinds.get(name, kind) is not kind:
            raise InputError(f"name is {name!r}, but {self.what} has a {self._kinds[name].__name__} of it.")
        frozen = isinstance(kind, type) and getattr(kind, "__dataclass_params__", None)
        if not frozen or not frozen.frozen:
            raise InputError(f"kind is {told(kind)}, but must be a frozen dataclass.")
        self._kinds[name] = kind

    def build(self, where: str, settings: Any) -> Any:
        """A value from a table of its name and settings.

        Args:
            where: the table is, for messages.
            settings: name, and values of fields.

        Raises:
            InputError: the name or a setting is unknown or missing, or a value out of range.
        """
        given = dict(require_table(where, settings, required=("name",)))
        kind = self[require_choice(f"{where}.name", given.pop("name"), self)]
        fields = dataclasses.fields(kind)
        required = [field.name for field in fields if field.default is field.default_factory]  # both missing
        require_keys(where, given, required, tuple(field.name for field in fields))
        return kind(**{key: single(f"{where}.{key}", value) for key, value in given.items()})

    def describe(self, value: Any) -> dict[str, Any]:
        """Name and every setting of a value: the inverse of :meth:`build`.

        Raises:
            InputError: its kind has no name here.
        """
        for name, kind in self._kinds.items():
            if type(value) is kind:
                fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
                return {"name": name, **fields}
        raise InputError(
            f"{self.what} has no {type(value).__name__}, but must know it by a name: register(name, "
            f"{type(value).__name__}) gives it one."
        )


def single(where: str, value: Any) -> Any:
    """A single value, or a tuple for a list of them: settings are hashable.

    Raises:
        InputError: it is a table.
    """
    if isinstance(value, list):
        return tuple(single(where, one) for one in value)
    if isinstance(value, Mapping):
        raise InputError(f"{where} is {reprlib.repr(value)}, but must be a single value.")
    return value
