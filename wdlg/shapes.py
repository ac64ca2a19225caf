"""One check for tensors that come from outside, where a function takes them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from wdlg.errors import InputError


def require_tensor(name: str, value: Any, shape: tuple[int | str, ...]) -> Tensor:
    """Return ``value`` if it is a floating-point tensor of that shape and not empty.

    Args:
        name: of the argument.
        value: what came.
        shape: a number for each size that is fixed, the name that the documentation gives it for any other.

    >>> import torch
    >>> require_tensor("cost", torch.zeros(3), ("P", "n", "m"))
    Traceback (most recent call last):
    wdlg.errors.InputError: cost is a float32 tensor of shape (3,), but must be a floating-point tensor of
    shape (P, n, m).
    """
    fits = (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.ndim == len(shape)
        and 0 not in value.shape
        and all(came == size for came, size in zip(value.shape, shape, strict=True) if isinstance(size, int))
    )
    if not fits:
        comma = "," if len(shape) == 1 else ""
        wanted = f"({', '.join(map(str, shape))}{comma})"
        raise InputError(
            f"{name} is {describe(value)}, but must be a floating-point tensor of shape {wanted}."
        )
    return value


def describe(value: Any) -> str:
    """A tensor or another value in a few words, for a message."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{_with_article(dtype)} tensor of shape {tuple(value.shape)}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a {type(value).__module__}.{type(value).__name__} of shape {tuple(value.shape)}"
    return f"of type {type(value).__name__}"


def _with_article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def require_alike(name: str, value: Tensor, like_name: str, like: Tensor) -> None:
    """Raise :class:`InputError` unless two tensors have one precision and one device."""
    if value.dtype != like.dtype or value.device != like.device:
        came, wanted = (f"{str(one.dtype).removeprefix('torch.')} on {one.device}" for one in (value, like))
        raise InputError(f"{name} is {came}, but must be {wanted}, as {like_name} is.")
