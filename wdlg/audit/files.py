"""Files of tensors: what frameworks export of gradients and weights, read without running anything of it."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wdlg.errors import InputError

KINDS = (".npz", ".pt", ".pth", ".bin", ".safetensors")
"""numpy's archives; torch's files, of which weights alone are loaded; and safetensors."""


def read_tensors(
    file: str | Path, what: str, *, nested: Sequence[str] = ()
) -> Mapping[str, Tensor] | list[Tensor]:
    """The tensors of a file by their names; a list where it has none.

    Args:
        file: of a kind in ``KINDS``.
        what: it holds, for messages.
        nested: keys whose table is taken where the file is a table that has one of them.

    Raises:
        InputError: the file is missing, of another kind, damaged, pickled, or holds something else.
    """
    path = Path(file)
    if path.suffix.lower() not in KINDS:
        raise InputError(f"{what} is the file {str(path)!r}, but must end in one of {', '.join(KINDS)}.")
    if not path.is_file():
        raise InputError(f"{what} is the file {str(path)!r}, but there is none.")
    try:
        found = _read(path)
    except InputError:
        raise
    except Exception as error:  # damaged and crafted files raise errors of a dozen kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(
            f"{what} {path} cannot be read ({reason}), but must be a whole file of tensors alone: nothing "
            "else is ever unpickled."
        ) from None
    for key in nested:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    return _tensors(found, what, path)


def _read(path: Path) -> Any:
    kind = path.suffix.lower()
    if kind == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    if kind == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"file {path} is none of torch.save's since torch 1.6, but must be one: older files are pickles."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _tensors(found: Any, what: str, path: Path) -> Mapping[str, Tensor] | list[Tensor]:
    """The same as tensors; names that only number them make a list."""
    if isinstance(found, Mapping):
        if {"state", "param_groups"} <= set(found):
            raise InputError(
                f"{what} {path} is the state of an optimiser, whose averages over steps are no gradient, but "
                "must hold gradients or a change of weights."
            )
        named = {str(key): _tensor(value, what, path, str(key)) for key, value in found.items()}
        numbered = [f"arr_{place}" for place in range(len(named))]
        return [named[key] for key in numbered] if set(named) == set(numbered) and named else named
    if isinstance(found, list | tuple):
        return [_tensor(value, what, path, f"place {place}") for place, value in enumerate(found)]
    raise InputError(
        f"{what} {path} holds a {type(found).__name__}, but must hold a list or table of tensors."
    )


def _tensor(value: Any, what: str, path: Path, where: str) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = torch.from_numpy(np.ascontiguousarray(value.astype(value.dtype.newbyteorder("="))))
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_complex():
        raise InputError(
            f"{what} {path} has a {type(value).__name__} in {where}, but must have dense real tensors alone."
        )
    return value.detach()
