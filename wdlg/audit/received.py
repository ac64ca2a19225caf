"""A message as a framework has sent it: tensors of a file, matched to a model's parameters and checked.

It is taken only where it can be what the model sends of the private images. That is not for the attacker to
know; it is to find weights, names and scales that were mixed up before an audit says something of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wdlg.audit.message import Message, Private, exact
from wdlg.audit.models import System
from wdlg.errors import InputError, require_positive
from wdlg.sharing.federated import FedSGD, Sharing
from wdlg.sharing.habits import apart_from_labels
from wdlg.updates.gradient import Gradient, from_tensors, rows_of
from wdlg.updates.output_layer import Dense

FITS = 0.1
"""A message whose cosine with the gradient of the private images is below this is not taken for theirs."""

ALIKE, UNLIKE = 0.9, 0.5
"""Cosines above and below which one tensor is taken for another, and not for itself."""

MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer", "max_exp_avg_sq")
"""Names under which optimisers keep averages over steps."""

PREFIXES = ("module.", "model.", "_orig_mod.")
"""What wrappers of torch put before the names of a model's parameters."""


def read(
    system: System,
    private: Private,
    tensors: Mapping[str, Tensor] | Sequence[Tensor],
    sharing: Sharing,
    *,
    digest: str | None = None,
    renamed: Mapping[str, str] | None = None,
    partial: bool = False,
    delta_rate: float | None = None,
    steps: int = 1,
) -> Message:
    """A message from the tensors of a file, checked against the model and the private images.

    Args:
        system: that sent it.
        private: what it is said to be of.
        tensors: by name, or in the order of the model's parameters.
        sharing: how it was made.
        digest: of the file.
        renamed: names of parameters by names in the file, where the two differ.
        partial: whether parameters may be missing.
        delta_rate: learning rate, where the tensors are changes of weights, new less old; None for gradients.
        steps: of gradient descent in such a change.

    Raises:
        InputError: names, shapes or numbers do not fit; or this is not a message of these images.
    """
    notes: list[str] = []
    found = _matched(system, tensors, dict(renamed or {}), partial, notes)
    for place in [place for place, tensor in found.items() if system.frozen[place] and not tensor.any()]:
        del found[place]  # a frozen layer's zeros say nothing, and were not computed
    like = system.parameters.tensors[0]
    shapes = system.network.parameter_shapes
    for place, tensor in found.items():
        name = system.names[place]
        if tuple(tensor.shape) != shapes[place]:
            raise InputError(
                f"message has {name} of shape {tuple(tensor.shape)}, but the parameter is of shape "
                f"{shapes[place]}{_turned(tensor, shapes[place])}."
            )
        if not torch.isfinite(tensor).all():
            raise InputError(
                f"message has an entry of {name} that is NaN or infinite, but all must be finite."
            )
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in found.values()})
    if kinds != [str(like.dtype).removeprefix("torch.")]:
        notes.append(
            f"The message is in {' and '.join(kinds)}; the attack computes with its values as they are."
        )
    scale = 1.0 if delta_rate is None else -1.0 / (require_positive("--learning-rate", delta_rate) * steps)
    if delta_rate is not None:
        notes.append(
            f"The message is a change of weights; divided by minus {delta_rate:g} times {steps} it is a mean "
            "of gradients."
        )
    whole = [
        found[place] if place in found else like.new_zeros(shapes[place]) for place in range(len(shapes))
    ]
    sent = tuple(place in found for place in range(len(shapes)))
    scaled = [(scale * tensor.double()).to(like) for tensor in whole]
    of_one = isinstance(apart_from_labels(sharing), FedSGD) and len(private) == 1
    message = Message(_gradient(scaled, sent, of_one, notes), sent, sharing, tuple(notes), digest)
    return replace(message, notes=(*notes, *_fit(system, message, private)))


def digest_of(path: str | Path) -> str:
    """SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _gradient(tensors: list[Tensor], sent: Sequence[bool], of_one: bool, notes: list[str]) -> Gradient:
    """The tensors as the library has them."""
    if sent[-2:] == (True, True):
        try:
            return from_tensors(tensors, rank_one=of_one)
        except InputError as error:
            if not of_one:
                raise
            notes.append(
                "The output layer's part is not that of one exact gradient, as after a defence or rounding: "
                f"{error}"
            )
            return from_tensors(tensors, rank_one=False)
    rows = tuple(tensor.reshape(1, *rows_of(tensor.shape)) for tensor in tensors[:-2])
    return Gradient(rows, Dense.of(tensors[-2][None], tensors[-1][None]))


def _matched(
    system: System,
    tensors: Mapping[str, Tensor] | Sequence[Tensor],
    renamed: dict[str, str],
    partial: bool,
    notes: list[str],
) -> dict[int, Tensor]:
    """Tensors by the place of their parameter."""
    names = system.names
    if not isinstance(tensors, Mapping):
        if renamed:
            raise InputError("--rename is given, but the message has no names: it is a list.")
        if len(tensors) != len(names):
            raise InputError(
                f"message is a list of {len(tensors)} tensors, but the model has {len(names)} parameters: a "
                "message of some of them needs their names."
            )
        return dict(enumerate(tensors))
    _require_renames(renamed, tensors, names)
    buffers = {name for name, _ in system.model.named_buffers()}
    found: dict[int, Tensor] = {}
    skipped: list[str] = []
    for key, tensor in tensors.items():
        name = renamed.get(key) or _plain(key, (*names, *buffers))
        if name in buffers:
            skipped.append(key)
            continue
        place = _place(key, name, names)
        if place in found:
            raise InputError(f"message has {name} twice, but must have each parameter once.")
        found[place] = tensor
    if skipped:
        notes.append(f"Buffers in the message are no gradients and were left out: {', '.join(skipped)}.")
    missing = [name for place, name in enumerate(names) if place not in found and not system.frozen[place]]
    if not found:
        raise InputError("message has no parameter of the model, but must have at least one.")
    if missing and not partial:
        raise InputError(
            f"message has no {missing[0]} ({len(missing)} of {len(names)} parameters are missing), but must "
            "have all: --partial says that the rest was not sent."
        )
    if missing:
        notes.append(f"Not sent, and left out of losses and bounds: {', '.join(missing)}.")
    return found


def _require_renames(renamed: Mapping[str, str], tensors: Mapping[str, Tensor], names: Sequence[str]) -> None:
    for old, new in renamed.items():
        if old not in tensors:
            raise InputError(f"--rename names {old!r}, but the message has {_some(tensors)}.")
        if new not in names:
            raise InputError(f"--rename gives {old} the name {new!r}, but the model has {_some(names)}.")


def _place(key: str, name: str, names: Sequence[str]) -> int:
    """Of the parameter that an entry of a message belongs to."""
    if any(key.endswith(moment) for moment in MOMENTS):
        raise InputError(
            f"message has {key!r}, an optimiser's average over steps, but must have gradients or a change of "
            "weights by plain gradient descent."
        )
    if name not in names:
        raise InputError(
            f"message has {key!r}, which is no parameter of the model; it has {_some(names)} (--rename "
            f"{key}=PARAMETER gives it a place)."
        )
    return names.index(name)


def _plain(key: str, names: Sequence[str]) -> str:
    """A name without what wrappers put before it, where only that makes it a parameter's."""
    for prefix in PREFIXES:
        if key not in names and key.startswith(prefix):
            key = key.removeprefix(prefix)
    return key


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _turned(tensor: Tensor, shape: tuple[int, ...]) -> str:
    turned = tensor.ndim == 2 and tuple(tensor.T.shape) == shape
    return ": it is transposed, as other frameworks keep it" if turned else ""


def _fit(system: System, message: Message, private: Private) -> list[str]:
    """What the message has to do with the gradient of the private images; refuses one that has nothing."""
    every = exact(system, private, message.sharing).tensors()
    shapes = [
        shape for shape, sent in zip(system.network.parameter_shapes, message.sent, strict=True) if sent
    ]
    names = [name for name, sent in zip((*system.names, "", ""), message.sent, strict=False) if sent]
    ours = [one.double().flatten() for one in message.parts()]
    true = [one.double().flatten() for one, sent in zip(every, message.sent, strict=True) if sent]
    _require_right_places(names, shapes, ours, true)
    sent, expected = torch.cat(ours), torch.cat(true)
    along = _cosine(sent, expected)
    if along < -UNLIKE:
        raise InputError(
            f"message points away from the gradient of these images (cosine {along:.2f}), but must be along "
            "it: a change of weights is new less old with --delta, and a gradient is not."
        )
    if along < FITS:
        raise InputError(
            f"message is not one of these images at these weights (cosine {along:.2f} with their gradient, "
            f"and at least {FITS:g} is needed): other weights, another image or label, another loss, an "
            "update by momentum or Adam, or nothing but noise."
        )
    _require_scale(sent, expected, along)
    gap = float((sent - expected).norm() / expected.norm())
    if gap < 1e-3:
        return [f"The message is the gradient of these images to {gap:.1g} of its length."]
    return [
        f"The message differs from the gradient of these images by {gap:.2g} of its length (cosine "
        f"{along:.3f}). Noise does that, and so do other habits of training: see --label-smoothing, --mean, "
        "--std and --mode."
    ]


def _require_right_places(
    names: Sequence[str], shapes: Sequence[tuple[int, ...]], ours: Sequence[Tensor], true: Sequence[Tensor]
) -> None:
    """Refuse tensors that are transposed, or in each other's place, though their shapes fit."""
    straight = [_cosine(*pair) for pair in zip(ours, true, strict=True)]
    for place, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        if straight[place] >= UNLIKE:
            continue
        if len(shape) == 2 and shape[0] == shape[1]:
            turned = ours[place].view(shape).T.flatten()
            if _cosine(turned, true[place]) > ALIKE:
                raise InputError(f"message has {name} transposed, as other frameworks keep it.")
        for other in range(place):
            if shapes[other] != shape or ours[place].numel() < 2 or straight[other] >= UNLIKE:
                continue
            crossed = _cosine(ours[place], true[other]), _cosine(ours[other], true[place])
            if min(crossed) > ALIKE:
                raise InputError(f"message has {names[other]} and {name} in each other's place.")


def _require_scale(sent: Tensor, expected: Tensor, along: float) -> None:
    """Refuse a multiple of the gradient, also under noise.

    The multiple that fits best is 1 but for what noise there is. Entries that were set to zero make it
    smaller, and then it is the square of the cosine.
    """
    scale = float(sent @ expected / (expected @ expected))
    exactly = along > 0.999 and abs(scale - 1) > 1e-2
    if exactly or scale > 1.5 or scale < min(0.5, 0.8 * along**2):
        raise InputError(
            f"message is {scale:.3g} times the gradient of these images, but must be that itself: divide it "
            "by that number (a batch that was added up, a learning rate, a scale of mixed precision, "
            "clipping)."
        )


def _cosine(one: Tensor, other: Tensor) -> float:
    lengths = one.norm() * other.norm()
    return float(one @ other / lengths) if lengths > 0 else 0.0
