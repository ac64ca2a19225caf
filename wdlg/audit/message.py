"""What was sent: tensors of a file matched to a model's parameters, or what the model itself would send.

Of each parameter it is known whether its gradient was sent. What was not, because the layer is frozen, secret
or only added for the attacks, is left out of every loss and every bound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.audit.models import System
from wdlg.errors import InputError, require_count, require_positive, told
from wdlg.losses import Loss, SquaredEuclidean, WeightedEuclidean
from wdlg.sharing.defences import Defence, Noise
from wdlg.sharing.federated import FedAvg, FedSGD, Sharing
from wdlg.updates.gradient import Gradient, from_tensors, rows_of
from wdlg.updates.output_layer import Dense

FITS = 0.1
"""A message whose cosine with the gradient of the private images is below this is not taken for theirs."""

MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer", "max_exp_avg_sq")
"""Names under which optimisers keep averages over steps."""

PREFIXES = ("module.", "model.", "_orig_mod.")
"""What wrappers of torch put before the names of a model's parameters."""


@dataclass(frozen=True)
class Private:
    """What a participant keeps to itself.

    Attributes:
        images: (N, channels, height, width) in [0, 1], of which the mean gradient is taken.
        labels: (N,).
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Message:
    """What the attacker sees of one participant.

    Attributes:
        gradient: one row, in units of a gradient; zero where nothing was sent.
        sent: of each of the network's parameters, whether its gradient was sent.
        sharing: how it was made.
        notes: sentences for the report on what was done to read it.
        digest: SHA-256 of the file, or none for a message that the model was made to send.
    """

    gradient: Gradient
    sent: tuple[bool, ...]
    sharing: Sharing
    notes: tuple[str, ...] = ()
    digest: str | None = None

    @property
    def complete(self) -> bool:
        """Whether the gradient of every parameter of the network was sent."""
        return all(self.sent)

    @property
    def loss(self) -> Loss:
        """The squared distance of what was sent."""
        if self.complete:
            return SquaredEuclidean()
        return WeightedEuclidean(tuple(float(one) for one in self.sent))

    def parts(self) -> list[Tensor]:
        """The tensors that were sent, each (1, units, entries)."""
        return [one for one, sent in zip(self.gradient.tensors(), self.sent, strict=True) if sent]

    @property
    def entries(self) -> int:
        """Numbers that were sent."""
        return sum(part.numel() for part in self.parts())

    @property
    def size(self) -> float:
        """Norm of what was sent."""
        return float(sum(part.double().square().sum() for part in self.parts()) ** 0.5)

    def defended(self, defence: Defence, seed: int) -> Message:
        """The same after a defence."""
        if isinstance(defence, Noise):  # whose level is one of all entries, also of those that are not sent
            every = sum(one.numel() for one in self.gradient.tensors())
            defence = Noise(defence.level * (every / self.entries) ** 0.5)
        changed = defence(self.gradient, (torch.Generator().manual_seed(seed),))
        return replace(self, gradient=_masked(changed, self.sent), digest=None)


def sharing_of(system: System, steps: int, rate: float | None, images: int) -> Sharing:
    """How a participant makes its message: one gradient, or the change of weights after some steps.

    Each step is on all its images; frozen layers, and one that was only added for the attacks, stay.

    Raises:
        InputError: a number is out of range, or a rate is missing.
    """
    require_count("--local-steps", steps)
    if rate is not None:
        require_positive("--learning-rate", rate)
    if steps == 1:
        return FedSGD()
    if rate is None:
        raise InputError(
            f"--local-steps is {steps}, but needs --learning-rate: the weights after a step depend on it."
        )
    still = tuple(place for place, moves in enumerate(_trained(system)) if not moves)
    return FedAvg(rate=rate, steps=steps, batch=images, frozen=still)


def made(system: System, private: Private, sharing: Sharing) -> Message:
    """What the model sends of private images: an exact message, of every parameter that it trains."""
    sent = _trained(system)
    gradient = _masked(_exact(system, private, sharing), sent, keep=all(sent))
    return Message(gradient, sent, sharing)


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
            f"The message is a change of weights; divided by minus {delta_rate:g} times {steps} it is a "
            "mean of "
            "gradients."
        )
    whole = [
        found[place] if place in found else like.new_zeros(shapes[place]) for place in range(len(shapes))
    ]
    sent = tuple(place in found for place in range(len(shapes)))
    scaled = [(scale * tensor.double()).to(like) for tensor in whole]
    of_one = isinstance(sharing, FedSGD) and len(private) == 1
    message = Message(_gradient(scaled, sent, of_one, notes), sent, sharing, tuple(notes), digest)
    return replace(message, notes=(*notes, *_fit(system, message, private)))


def digest_of(path: Any) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def one_hot(system: System, private: Private, like: Tensor) -> Tensor:
    """Label probabilities (1, K), or (1, N, K) of N images."""
    target = F.one_hot(private.labels, system.classes).to(like)
    return target if len(private) == 1 else target[None]


def batch(private: Private, like: Tensor) -> Tensor:
    """The images as one participant's: (1, channels, height, width), or (1, N, channels, height, width)."""
    images = private.images.to(like)
    return images if len(private) == 1 else images[None]


def _exact(system: System, private: Private, sharing: Sharing) -> Gradient:
    like = system.parameters.tensors[0]
    return sharing(
        system.network, system.parameters, batch(private, like), one_hot(system, private, like)
    ).as_sent()


def _trained(system: System) -> tuple[bool, ...]:
    sent = tuple(not one for one in system.frozen) + (False,) * system.added
    if not any(sent):
        raise InputError(
            "model trains no parameter (requires_grad is False for all), so that nothing is sent."
        )
    return sent


def _masked(gradient: Gradient, sent: Sequence[bool], *, keep: bool = False) -> Gradient:
    """With zeros in the place of what was not sent."""
    if keep or all(sent):
        return gradient
    hidden = tuple(
        one if there else torch.zeros_like(one) for one, there in zip(gradient.hidden, sent[:-2], strict=True)
    )
    if sent[-2:] == (True, True):
        return Gradient(hidden, gradient.output)
    weight, bias = gradient.last_weight, gradient.bias
    return Gradient(hidden, Dense.of(sent[-2] * weight, sent[-1] * bias))


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
    exact = _exact(system, private, message.sharing).tensors()
    names = [name for name, sent in zip((*system.names, "", ""), message.sent, strict=False) if sent]
    ours = [one.double().flatten() for one in message.parts()]
    true = [one.double().flatten() for one, sent in zip(exact, message.sent, strict=True) if sent]
    whole = _cosine(torch.cat(ours), torch.cat(true))
    if whole < -0.5:
        raise InputError(
            f"message points away from the gradient of these images (cosine {whole:.2f}), but must be along "
            "it: a change of weights is new less old with --delta, and a gradient is not."
        )
    for place, name in enumerate(names):
        for other in range(place):
            if ours[place].shape != ours[other].shape or ours[place].numel() < 2:
                continue
            crossed = _cosine(ours[place], true[other]), _cosine(ours[other], true[place])
            straight = _cosine(ours[place], true[place]), _cosine(ours[other], true[other])
            if min(crossed) > 0.9 and max(straight) < 0.5:
                raise InputError(f"message has {names[other]} and {name} in each other's place.")
    if whole < FITS:
        raise InputError(
            f"message is not one of these images at these weights (cosine {whole:.2f} with their gradient, "
            f"and at least {FITS:g} is needed): other weights, another image or label, another loss, an "
            "update by momentum or Adam, or nothing but noise."
        )
    gap = float((torch.cat(ours) - torch.cat(true)).norm() / torch.cat(true).norm())
    if gap < 1e-3:
        return [f"The message is the gradient of these images to {gap:.1g} of its length."]
    length = float(torch.cat(ours).norm() / torch.cat(true).norm())
    if whole > 0.999 and abs(length - 1) > 1e-2:
        raise InputError(
            f"message is {length:.3g} times the gradient of these images, but must be that itself: divide "
            "it by "
            "that number (a batch that was added up, a learning rate, a scale of mixed precision)."
        )
    return [
        f"The message differs from the gradient of these images by {gap:.2g} of its length (cosine "
        f"{whole:.3f})."
    ]


def _cosine(one: Tensor, other: Tensor) -> float:
    lengths = one.norm() * other.norm()
    return float(one @ other / lengths) if lengths > 0 else 0.0


def require_private(system: System, images: Any, labels: Any) -> Private:
    """Private images and their labels, as they fit a model.

    Raises:
        InputError: shapes, values or labels do not fit.
    """
    shape = system.network.image_shape
    if (
        not isinstance(images, Tensor)
        or images.ndim != 4
        or tuple(images.shape[1:]) != shape
        or not len(images)
    ):
        came = tuple(images.shape) if isinstance(images, Tensor) else told(images)
        raise InputError(f"images are {came}, but must be of shape (N, *{shape}) as --image-shape says.")
    if not ((images >= 0) & (images <= 1)).all():
        raise InputError(
            "images have values outside [0, 1], but must be within it: --mean and --std normalise."
        )
    if not isinstance(labels, Tensor) or labels.shape != (len(images),) or labels.is_floating_point():
        raise InputError("labels must be whole numbers, one for each image.")
    if labels.min() < 0 or labels.max() >= system.classes:
        raise InputError(
            f"labels are {sorted(set(labels.tolist()))[:6]}, but must be from 0 to {system.classes - 1}, the "
            "model's classes."
        )
    return Private(images, labels.long())
