"""What a message can give away, before any attack: the Jacobian's rank and spectrum, in all and by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp, vjp

from wdlg import compiled
from wdlg.audit.estimate import Spectrum, spectrum
from wdlg.audit.message import Message, Private, batch, one_hot
from wdlg.audit.models import System
from wdlg.errors import InputError
from wdlg.limits import MOST_PIXELS, RANK_TOLERANCE, Limits
from wdlg.networks.base import Parameters
from wdlg.networks.jacobian import derivatives, load_forward_mode
from wdlg.updates import output_layer
from wdlg.updates.gradient import Gradient

MOST_NUMBERS = 400_000_000
"""Of a Jacobian that is held as a whole: 3.2 GB."""


@dataclass(frozen=True)
class Layer:
    """What the gradient of one layer gives away by itself, were nothing else sent.

    Attributes:
        name: of the layer.
        entries: of its gradient.
        rank: directions of the image in it.
        singular_values: of its Jacobian, descending; zeros are left out.
    """

    name: str
    entries: int
    rank: int
    singular_values: Tensor

    def directions(self, deviation: float, accuracy: float) -> int:
        """Directions that are told to within ``accuracy`` where noise has this deviation on every entry."""
        if not deviation:
            return self.rank
        return int((deviation / self.singular_values[: self.rank] <= accuracy).sum())


@dataclass(frozen=True)
class Leak:
    """What a message gives away of its images.

    Attributes:
        pixels: d, of all images together.
        entries: n, that were sent.
        size: norm of what was sent.
        limits: of all that was sent; None where the model or the images are too large for it.
        layers: of each layer by itself, in the model's order; none where there are no limits.
        spectrum: in the place of limits, what random directions say of it.
    """

    pixels: int
    entries: int
    size: float
    limits: Limits | None
    layers: tuple[Layer, ...]
    spectrum: Spectrum | None

    @property
    def rank(self) -> int | None:
        """Directions of the image in the message; None where that is unknown."""
        return None if self.limits is None else self.limits.rank

    def deviation(self, level: float) -> float:
        """Of the noise on every entry at a relative level."""
        return level * self.size / math.sqrt(self.entries)

    def directions(self, level: float, accuracy: float) -> tuple[int, int]:
        """Directions told to within ``accuracy`` at a relative noise level: at least, and at most.

        The two are equal where there are limits.
        """
        if self.limits is not None:
            told = self.limits.directions(level, accuracy)
            return told, told
        assert self.spectrum is not None
        least = RANK_TOLERANCE**2 * float(self.spectrum.nodes.max())
        return self.spectrum.above(max((self.deviation(level) / accuracy) ** 2, least))

    def bound(self, level: float) -> float | None:
        """The least mean squared error of an unbiased estimate; None without limits."""
        return None if self.limits is None else self.limits.bound(level)


def leak(system: System, message: Message, private: Private, *, seed: int = 0) -> Leak:
    """What a message gives away of the private images that it is of.

    In full where the images have at most ``wdlg.limits.MOST_PIXELS`` values together and the Jacobian
    ``MOST_NUMBERS`` entries, between bounds otherwise (:mod:`wdlg.audit.estimate`).

    Args:
        system, message, private: what is audited.
        seed: of the estimate's random directions.

    Raises:
        InputError: the gradient is not finite or does not depend on the images.
    """
    pixels = private.images.numel()
    if is_large(system, private):
        estimate = _estimated(system, message, private, seed)
        if not message.size or not float(estimate.nodes.max()):
            raise InputError(
                "image has a gradient that is zero or does not depend on it, but must have one that does."
            )
        return Leak(pixels, message.entries, message.size, None, (), estimate)
    doubles = system.parameters.in_precision(torch.float64)
    with torch.no_grad(), compiled.one_blas_thread():
        matrix, layers = _by_layer(system, message, private, doubles)
    shape = system.network.image_shape
    limits = Limits.of(matrix, shape, entries=message.entries, size=message.size)
    return Leak(pixels, message.entries, message.size, limits, layers, None)


def is_large(system: System, private: Private) -> bool:
    """Whether the Jacobian is too large to be held, so that its spectrum is only bounded."""
    pixels = private.images.numel()
    held = sum(math.prod(shape) for shape in system.network.parameter_shapes)
    return pixels > MOST_PIXELS or pixels * held > MOST_NUMBERS


def _by_layer(
    system: System, message: Message, private: Private, parameters: Parameters
) -> tuple[Tensor, tuple[Layer, ...]]:
    """``JᵀJ`` and each layer's share of it, from a Jacobian that is held."""
    like = parameters.tensors[0]
    at, along = derivatives(
        message.sharing, system.network, parameters, batch(private, like), one_hot(system, private, like)
    )
    rows: dict[str, list[Tensor]] = {}
    names = system.names
    whole = message.sent[-2:] == (True, True)
    for place, change in enumerate(along.hidden):
        if message.sent[place]:
            rows.setdefault(_layer_of(names[place]), []).append(change.flatten(1))
    found: dict[str, tuple[Tensor, int]] = {}
    pixels = private.images.numel()
    total = like.new_zeros(pixels, pixels)
    for name, parts in rows.items():
        joined = torch.cat(parts, 1)
        few = joined.shape[1] < pixels
        total += joined @ joined.T
        found[name] = (joined.T @ joined if few else joined @ joined.T, joined.shape[1])
    if any(message.sent[-2:]):
        matrix, entries = _of_output(at, along, message.sent, whole)
        total += matrix
        name = _layer_of(names[-1])
        if name in found:  # a layer of which hidden tensors belong to the output's name
            name += " (output)"
        found[name] = matrix, entries
    layers = tuple(_layer(name, matrix, entries) for name, (matrix, entries) in found.items())
    return total, layers


def _of_output(at: Gradient, along: Gradient, sent: tuple[bool, ...], whole: bool) -> tuple[Tensor, int]:
    """The output layer's share of ``JᵀJ``, and the entries that it sends."""
    _, classes, features = at.output.shape
    if whole:
        return output_layer.inner_products(at.output, along.output), classes * (features + 1)
    if sent[-1]:
        bias = along.bias
        return bias @ bias.T, classes
    parts = output_layer.derivatives_of_weight(at.output, along.output)
    total: Tensor = sum((some @ some.T for some in parts), start=along.bias.new_zeros(()))
    return total, classes * features


def _layer(name: str, matrix: Tensor, entries: int) -> Layer:
    values = torch.linalg.eigvalsh(matrix).flip(0).clamp_min(0).sqrt()
    rank = int((values > RANK_TOLERANCE * values[0]).sum()) if float(values[0]) > 0 else 0
    return Layer(name, entries, rank, values[:rank].clone())


def _layer_of(name: str) -> str:
    return name.rpartition(".")[0] or name


def _estimated(system: System, message: Message, private: Private, seed: int) -> Spectrum:
    """The spectrum of ``JᵀJ`` from its products with random directions."""
    parameters = system.parameters.in_precision(torch.float64)  # single leaves noise of small eigenvalues
    like = parameters.tensors[0]
    images, target = batch(private, like), one_hot(system, private, like)

    def sent(flat: Tensor) -> tuple[Tensor, ...]:
        gradient = message.sharing(system.network, parameters, flat.view_as(images), target)
        return tuple(one for one, there in zip(gradient.tensors(), message.sent, strict=True) if there)

    load_forward_mode()
    at = images.flatten()
    back = vjp(sent, at)[1]

    def product(direction: Tensor) -> Tensor:
        change = jvp(sent, (at,), (direction.to(at),))[1]
        found: Tensor = back(change)[0]
        return found.detach()

    return spectrum(product, len(at), seed=seed)
