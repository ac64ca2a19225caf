"""Dataclasses whose tensors all lead with one axis, so that rows can be taken, replaced and joined.

A row is one attack, one network or one problem. Fields may be tensors, tuples of tensors, or such dataclasses
themselves; any other field belongs to all rows and stays as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor


class Rows:
    """Base of frozen dataclasses that hold one row for each member of a batch."""

    def select(self, index: Tensor) -> Self:
        """A copy of the rows at ``index`` (a boolean mask or integer positions)."""
        return self._each(lambda tensor: tensor[index])

    def first(self, count: int) -> Self:
        """The first rows, not copied."""
        return self._each(lambda tensor: tensor[:count])

    def to(self, device: torch.device | str) -> Self:
        """The same rows on a device, such as "cuda"."""
        return self._each(lambda tensor: tensor.to(device))

    def in_precision(self, dtype: torch.dtype) -> Self:
        """The same rows with all that are no whole numbers of that type; itself where they are."""
        return self._each(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)

    def put(self, places: Tensor, rows: Self) -> Self:
        """Overwrite the rows at ``places`` in place. Go on with what comes back: it has no stale caches."""

        def overwrite(tensor: Tensor, new: Tensor) -> Tensor:
            tensor[places] = new
            return tensor

        return self._each(overwrite, rows)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """All rows of all parts, in order."""
        return parts[0]._each(lambda *tensors: torch.cat(tensors), *parts[1:])

    def _each(self, function: Callable[..., Tensor], *others: Self) -> Self:
        """Apply a function to every tensor, together with those of others at the same place."""
        changes = {
            field.name: _apply(
                function, getattr(self, field.name), [getattr(other, field.name) for other in others]
            )
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def _apply(function: Callable[..., Tensor], value: Any, others: list[Any]) -> Any:
    if isinstance(value, Tensor):
        return function(value, *others)
    if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
        return tuple(function(*tensors) for tensors in zip(value, *others, strict=True))
    if isinstance(value, Rows):
        return value._each(function, *others)
    return value
