"""Defences: what a participant does to the gradient before it is sent. One value for each; see ``DEFENCES``.

A defence is a frozen dataclass of settings, called with the exact gradients of B attacks and, where it draws
random numbers, one generator for each attack, whose draw so does not depend on its neighbours. It returns
what is sent. In general that is the gradient of no image, so its output layer has a residual
(:class:`~wdlg.updates.gradient.Gradient`); the factors are read off the sent numbers alone.

:func:`relative_error` and :func:`cosine` measure the price: how far what is sent is from what the participant
has learnt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from wdlg.errors import (
    InputError,
    require_choice,
    require_count,
    require_flag,
    require_not_negative,
    require_positive,
    told,
)
from wdlg.registry import Registry
from wdlg.updates.distance import norm, root, squared_euclidean
from wdlg.updates.gradient import Gradient, from_tensors, require_alike_gradients

Generators = Sequence[torch.Generator]

FORMATS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Defence(Protocol):
    """A rule by which gradients are changed before they are sent."""

    def __call__(self, gradient: Gradient, generators: Generators = ()) -> Gradient:
        """What is sent instead of the gradient (B attacks), with one generator each where it is random."""


@dataclass(frozen=True)
class Unprotected:
    """The gradient is sent as it is: the baseline."""

    def __call__(self, gradient: Gradient, generators: Generators = ()) -> Gradient:  # noqa: ARG002
        """The gradient itself."""
        return gradient


@dataclass(frozen=True)
class Noise:
    """``g + z`` with independent normal z, whose standard deviation is ``level |g| / sqrt(n)`` for n entries.

    ``|g|`` is the norm over all parameters, so ``E|z|² = level² |g|²``: the level is the relative error of
    what is sent, whatever the network. (Zhu et al. 2019, section 5, fix the variance of each entry instead.)

    Args:
        level: size of the noise relative to the gradient, 0 or above.

    Raises:
        InputError: level is not a finite number, 0 or above.
    """

    level: float

    def __post_init__(self) -> None:
        require_not_negative("level", self.level)

    def __call__(self, gradient: Gradient, generators: Generators = ()) -> Gradient:
        """What is sent; ``generators`` has one entry for each attack."""
        tensors = gradient.tensors()
        entries = sum(tensor[0].numel() for tensor in tensors)
        return _add_noise(tensors, self.level / entries**0.5 * norm(gradient), generators)


@dataclass(frozen=True)
class LaplaceNoise:
    """``g + z`` with independent z from the Laplace distribution, as long as that of :class:`Noise`.

    Its scale is ``level |g| / sqrt(2 n)`` for n entries, so that ``E|z|² = level² |g|²`` again. Most entries
    have less noise than normal noise of that size would put on them, and few have far more: whoever knows it
    sees twice as much (:mod:`wdlg.attacks.most_likely`).

    Args:
        level: size of the noise relative to the gradient, 0 or above.

    Raises:
        InputError: level is not a finite number, 0 or above.
    """

    level: float

    def __post_init__(self) -> None:
        require_not_negative("level", self.level)

    def __call__(self, gradient: Gradient, generators: Generators = ()) -> Gradient:
        """What is sent; ``generators`` has one entry for each attack."""
        tensors = gradient.tensors()
        entries = sum(tensor[0].numel() for tensor in tensors)
        scale = (self.level / (2 * entries) ** 0.5 * norm(gradient))[:, None, None]
        drawn = _draw(torch.rand, tensors, generators)
        # The inverse of its distribution function; rand may be 0, whose logarithm is not finite.
        return _sent(
            [
                tensor
                - scale * u.sign() * torch.log1p(-(2 * u.abs()).clamp_max(1 - torch.finfo(u.dtype).eps))
                for tensor, u in zip(tensors, (one - 0.5 for one in drawn), strict=True)
            ]
        )


@dataclass(frozen=True)
class ClippedNoise:
    """``g min(1, C / |g|) + z``, z normal with standard deviation ``multiplier C``: one example of DP-SGD.

    Abadi et al. 2016, Algorithm 1, for a lot of one example. Their proof speaks of a whole training run: the
    privacy loss epsilon depends on the multiplier, on how lots are drawn and on the number of steps. It is
    not computed here, and nothing is claimed about it.

    Args:
        clip: C, the largest norm (over all parameters) that is sent, above 0.
        multiplier: of the noise, 0 or above; 0 clips only.

    Raises:
        InputError: a setting is out of range.
    """

    clip: float
    multiplier: float

    def __post_init__(self) -> None:
        require_positive("clip", self.clip)
        require_not_negative("multiplier", self.multiplier)

    def __call__(self, gradient: Gradient, generators: Generators = ()) -> Gradient:
        """What is sent; ``generators`` has one entry for each attack."""
        length = norm(gradient)
        factor = torch.where(length > self.clip, self.clip / length, 1.0)[:, None, None]
        clipped = [factor * tensor for tensor in gradient.tensors()]
        return _add_noise(
            clipped, length.new_tensor(self.multiplier * self.clip).expand(len(length)), generators
        )


@dataclass(frozen=True)
class Pruning:
    """The smallest entries of each parameter's gradient are set to zero, and the others are sent as they are.

    Of n entries the ``floor(share n)`` with the least absolute value go: what Zhu et al. (2019, section 5)
    try as a defence. Deep Gradient Compression (Lin et al. 2018) sends such gradients to save traffic, and
    adds what was left out to later ones, which is not done here. The share is one of each parameter, not of
    all together.

    Args:
        share: of the entries that are set to zero, 0 or above and below 1.

    Raises:
        InputError: share is out of range.
    """

    share: float

    def __post_init__(self) -> None:
        if require_not_negative("share", self.share) >= 1:
            raise InputError(f"share is {self.share!r}, but must be below 1, or nothing would be sent.")

    def __call__(self, gradient: Gradient, generators: Generators = ()) -> Gradient:  # noqa: ARG002
        """What is sent."""
        return _sent([self._prune(tensor) for tensor in gradient.tensors()])

    def _prune(self, tensor: Tensor) -> Tensor:
        flat = tensor.flatten(1)
        count = int(self.share * flat.shape[1] + 1e-9)  # 0.29 * 100 is 28.999999999999996
        smallest = flat.abs().topk(count, dim=1, largest=False).indices
        return flat.scatter(1, smallest, 0.0).view_as(tensor)


@dataclass(frozen=True)
class Rounding:
    """Each entry is rounded to a shorter floating-point format, to the nearest, ties to even.

    Args:
        format: "float16" (11 significant bits; from 6e-8 to 65504) or "bfloat16" (8 significant bits, the
            range of float32).

    Raises:
        InputError: unknown format; on use, an entry is too large for it.
    """

    format: str

    def __post_init__(self) -> None:
        require_choice("format", self.format, FORMATS)

    def __call__(self, gradient: Gradient, generators: Generators = ()) -> Gradient:  # noqa: ARG002
        """What is sent."""
        return _sent([tensor.to(FORMATS[self.format]).to(tensor.dtype) for tensor in gradient.tensors()])


@dataclass(frozen=True)
class Quantisation:
    """Each entry becomes a whole multiple of ``max|g_t| / (2^(bits - 1) - 1)``, the maximum over its
    parameter.

    That is a signed integer of so many bits, and one scale for each parameter. Stochastic rounding goes up
    with the probability of the remainder, so its mean is the entry itself, as in QSGD (Alistarh et al. 2017),
    whose unit is the norm instead of the maximum.

    Args:
        bits: of the integers, from 2 to 16.
        stochastic: round at random instead of to the nearest.

    Raises:
        InputError: a setting is out of range.
    """

    bits: int = 8
    stochastic: bool = False

    def __post_init__(self) -> None:
        require_count("bits", self.bits, at_least=2, below=17)
        require_flag("stochastic", self.stochastic)

    def __call__(self, gradient: Gradient, generators: Generators = ()) -> Gradient:
        """What is sent; ``generators`` has one entry for each attack if the rounding is stochastic."""
        tensors = gradient.tensors()
        shifts = [torch.full_like(tensor, 0.5) for tensor in tensors]
        if self.stochastic:
            shifts = _draw(torch.rand, tensors, generators)
        return _sent([self._quantise(*pair) for pair in zip(tensors, shifts, strict=True)])

    def _quantise(self, tensor: Tensor, shift: Tensor) -> Tensor:
        largest = tensor.abs().amax((1, 2), keepdim=True)
        unit = torch.where(largest > 0, largest / (2 ** (self.bits - 1) - 1), 1.0)
        most = 2 ** (self.bits - 1) - 1
        return (tensor / unit + shift).floor().clamp(-most, most) * unit


@dataclass(frozen=True)
class NoOutputBias:
    """The gradient of the output layer's bias is zero, as that of a network without one.

    The rules that read label and features off the bias have nothing to read.
    """

    def __call__(self, gradient: Gradient, generators: Generators = ()) -> Gradient:  # noqa: ARG002
        """What is sent."""
        *others, bias = gradient.tensors()
        return _sent([*others, torch.zeros_like(bias)])


DEFENCES = Registry(
    "DEFENCES",
    {
        "none": Unprotected,
        "noise": Noise,
        "laplace_noise": LaplaceNoise,
        "clipped_noise": ClippedNoise,
        "pruning": Pruning,
        "rounding": Rounding,
        "quantisation": Quantisation,
        "no_output_bias": NoOutputBias,
    },
)
"""Defences by the names that study files and the command line give them."""


def title(defence: Defence) -> str:
    """Name and settings of a defence as text, the same as :func:`parse` reads.

    >>> title(ClippedNoise(clip=1.0, multiplier=0.01))
    'clipped_noise,clip=1,multiplier=0.01'
    """
    parts = DEFENCES.describe(defence)
    name = parts.pop("name")
    values = (
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in parts.items()
    )
    return ",".join((name, *values))


def parse(text: str) -> Defence:
    """A defence from text such as "noise,level=0.01" or "quantisation,bits=4,stochastic=true".

    Raises:
        InputError: unknown name or setting, a setting that is missing or given twice, or a value out of
            range.
    """
    name, *parts = text.split(",")
    require_choice("defence", name, DEFENCES)
    fields = {field.name: field for field in dataclasses.fields(DEFENCES[name])}
    given: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or key not in fields or key in given:
            allowed = ", ".join(f"{field}=VALUE" for field in fields) or "nothing"
            raise InputError(
                f"defence {name} has {told(part)}, but allowed after its name is {allowed}, each once."
            )
        given[key] = _value(value)
    missing = [
        key for key, field in fields.items() if field.default is dataclasses.MISSING and key not in given
    ]
    if missing:
        raise InputError(
            f"defence {name} has no {missing[0]!r}, but must have one, as in {name},{missing[0]}=VALUE."
        )
    built: Defence = DEFENCES[name](**given)
    return built


def relative_error(sent: Gradient, true: Gradient) -> Tensor:
    """``|sent - true| / |true|`` over all parameters, (B,); 0 where both are zero."""
    require_alike_gradients(sent, true)
    distance, length = root(squared_euclidean(sent, true).clamp_min(0)), norm(true)
    if not torch.isfinite(distance).all() and sent.bias.dtype != torch.float64:
        return relative_error(sent.double(), true.double()).to(distance)  # squares of large entries overflow
    return torch.where(distance == 0, 0.0, distance / length)


def cosine(sent: Gradient, true: Gradient) -> Tensor:
    """Cosine of the angle between two gradients over all parameters, (B,); 0 where one is zero."""
    require_alike_gradients(sent, true)
    lengths = norm(sent).double() * norm(true).double()
    if not torch.isfinite(lengths).all() and sent.bias.dtype != torch.float64:
        return cosine(sent.double(), true.double()).to(sent.bias.dtype)
    products = [
        (ours.double() * theirs.double()).sum((1, 2))
        for ours, theirs in zip(sent.tensors(), true.tensors(), strict=True)
    ]
    return torch.where(lengths > 0, torch.stack(products).sum(0) / lengths, 0.0).to(sent.bias.dtype)


def _value(text: str) -> Any:
    """A setting written as text: true, false, a whole number, another number, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _sent(tensors: Sequence[Tensor]) -> Gradient:
    for tensor in tensors:
        if not torch.isfinite(tensor).all():
            raise InputError(
                "defence makes an entry of the gradient NaN or infinite, but must leave all finite: its "
                "settings are too large."
            )
    return from_tensors(tensors, rank_one=False)


def _add_noise(tensors: Sequence[Tensor], deviation: Tensor, generators: Generators) -> Gradient:
    """Add normal noise of a standard deviation (B,) to gradients (B, units, entries)."""
    drawn = _draw(torch.randn, tensors, generators)
    return _sent([tensor + deviation[:, None, None] * z for tensor, z in zip(tensors, drawn, strict=True)])


def _draw(kind: Any, like: Sequence[Tensor], generators: Generators) -> list[Tensor]:
    """Random numbers in the shapes of gradients, those of an attack from its generator in the given order."""
    if len(generators) != len(like[0]):
        raise InputError(
            f"generators holds {len(generators)}, but must hold one for each of the {len(like[0])} attacks."
        )
    rows = [
        [kind(tensor.shape[1:], generator=generator, dtype=tensor.dtype) for tensor in like]
        for generator in generators
    ]
    return [
        torch.stack(parts).to(tensor.device)
        for parts, tensor in zip(zip(*rows, strict=True), like, strict=True)
    ]
