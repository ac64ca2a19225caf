"""The most likely picture: one attack for every defence, by what the defence does to each entry.

Whoever knows the defence knows how what is sent differs from the gradient g(x), and so how likely a message
g* is for a picture x. The most likely picture minimises the negative logarithm, ::

    sum_i rho(r_i / s_i),    r = T(g(x)) - g*,

with a size s_i of the error of each entry, a rule T that the participant follows, and ``rho(u) = u² / 2``
where the error is normal or taken for such. One mechanism, Levenberg-Marquardt with weights ``1 / s_i²`` and
the residual r, so covers all defences (Balunović et al. 2022 put attacks into this form):

.. table:: What is known of a message after each defence.

    ================ ======================================== ==============================================
    defence          size of an entry's error                 and
    ================ ======================================== ==============================================
    noise            that of the noise
    Laplace noise    that of the noise                        rho is the absolute value: weights ``1 / |r_i|``
    clipped noise    ``multiplier C``                         T clips g(x) as the participant did
    pruning          none for what was sent; for zeros up to  the least entry that was sent bounds those that
                     the least sent                           were not
    rounding         the last bit of this entry
    quantisation     one unit of its parameter
    no output bias   infinite for the bias                    the weight is 0
    ================ ======================================== ==============================================

An error that is spread evenly over an interval counts by its variance. With a prior the term
``(x - m)ᵀ C⁻¹ (x - m) / 2`` is added, and the picture is the most probable one
(:mod:`wdlg.attacks.most_probable`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.attacks.base import BATCH_SIZE, Observation, Observer, Reconstruction, Start
from wdlg.attacks.gauss_newton import doubled
from wdlg.attacks.labels import UNDECIDED, BiasMin, LabelRule, label_rule
from wdlg.attacks.most_probable import NormalPrior
from wdlg.errors import InputError, require_count, require_text, told
from wdlg.networks.jacobian import derivatives, inner_products, normal_matrices
from wdlg.networks.lenet import LeNet
from wdlg.optimizers.levenberg_marquardt import MOST_DAMPING, solve
from wdlg.sharing.defences import (
    FORMATS,
    ClippedNoise,
    Defence,
    LaplaceNoise,
    Noise,
    NoOutputBias,
    Pruning,
    Quantisation,
    Rounding,
    Unprotected,
)
from wdlg.sharing.federated import FedSGD
from wdlg.updates.gradient import Gradient, from_tensors

EXACT = 1e-5
"""Size of the error of an entry that is sent as it is, in units of their root mean square. Not 0, since an
entry without error would outweigh all others without limit."""

KINK = 0.02
"""The absolute value is a parabola within this distance of 0, in units of the size of the noise."""

SETTLED = 1e-9
"""A step that is predicted to lower the sum by a smaller share than this is the last one."""

FIRST_DAMPING = 1e-3
"""In units of the largest diagonal entry of the matrix."""


@dataclass(frozen=True)
class ErrorModel:
    """What is known of the errors of one message with n entries.

    Attributes:
        weights: ``1 / s_i²``, for each parameter, of the shapes of ``Gradient.tensors`` for one attack.
        absolute: rho is the absolute value, of a Laplace distribution, instead of half a square.
        clip: the largest norm of a gradient that is sent; infinite if none is clipped.
    """

    weights: tuple[Tensor, ...]
    absolute: bool = False
    clip: float = math.inf


def error_model(defence: Defence, sent: Gradient) -> ErrorModel:
    """What a defence says of the errors in a message.

    Args:
        defence: that was applied.
        sent: the message of one attack.

    Raises:
        InputError: the defence is not in the table above.
    """
    tensors = sent.tensors()
    entries = sum(tensor.numel() for tensor in tensors)
    squared = sum(float(tensor.square().sum()) for tensor in tensors)
    least = EXACT**2 * squared / entries
    absolute, clip = False, math.inf

    def everywhere(variance: float) -> list[Tensor]:
        return [torch.full_like(tensor, variance) for tensor in tensors]

    match defence:
        case Unprotected() | NoOutputBias():
            variances = everywhere(0.0)
        case Noise(level) | LaplaceNoise(level):
            # What is sent is as long as gradient and noise together.
            variances = everywhere(level**2 / (1 + level**2) * squared / entries)
            absolute = isinstance(defence, LaplaceNoise)
        case ClippedNoise(clip, multiplier):
            variances = everywhere((multiplier * clip) ** 2)
        case Pruning():
            variances = [_of_pruned(tensor) for tensor in tensors]
        case Rounding(kind):
            bit = torch.finfo(FORMATS[kind])
            variances = [
                (bit.eps / 2 * tensor.abs().clamp_min(bit.smallest_normal)).square() / 3 for tensor in tensors
            ]
        case Quantisation(bits, stochastic):
            share = (1 / 6 if stochastic else 1 / 12) / (2 ** (bits - 1) - 1) ** 2
            variances = [
                torch.full_like(tensor, share * float(tensor.abs().max()) ** 2) for tensor in tensors
            ]
        case _:
            raise InputError(
                f"defence is {told(defence)}, but must be one of wdlg.sharing.defences, whose errors are "
                "known."
            )
    weights = [1 / (variance + least) for variance in variances]
    if isinstance(defence, NoOutputBias):
        weights[-1] = torch.zeros_like(weights[-1])
    return ErrorModel(tuple(weights), absolute, clip)


def _of_pruned(tensor: Tensor) -> Tensor:
    """Variances of the entries of a parameter: none of those that were sent, and of zeros that of an even
    distribution up to the least that was."""
    missing = tensor == 0
    least = (
        torch.where(missing, torch.inf, tensor.abs()).amin() if not missing.all() else tensor.new_zeros(())
    )
    return torch.where(missing, least**2 / 3, 0.0)


@dataclass(frozen=True)
class MostLikely:
    """Levenberg-Marquardt steps to the picture that makes a message most likely.

    Args:
        defence: that the participant applied.
        prior: what is known of images; None for nothing.
        steps: from each start, at least 1.
        starts: images drawn from N(0, 1) that are tried where no other start has ended well, 0 or more.
        label_rule: how labels are read; not the joint rule.
        name: what tables and figures call it.

    Raises:
        InputError: a setting is out of range; on use, the defence is none of the table above, or the images
            have another shape than the prior's.
    """

    defence: Defence
    prior: NormalPrior | None = None
    steps: int = 40
    starts: int = 4
    label_rule: LabelRule = field(default_factory=BiasMin)
    name: str = "most likely"

    loss = None

    def __post_init__(self) -> None:
        if self.prior is not None and not isinstance(self.prior, NormalPrior):
            raise InputError(f"prior is {told(self.prior)}, but must be None or a NormalPrior.")
        require_count("steps", self.steps)
        require_count("starts", self.starts, at_least=0)
        object.__setattr__(self, "label_rule", label_rule(self.label_rule))
        require_text("name", self.name)
        if self.label_rule.joint:
            raise InputError("label_rule is joint, but labels are not optimised here: take one that reads.")

    @property
    def evaluations(self) -> int:
        """One at each start, and one for each step from it."""
        return (1 + self.steps) * (2 + self.starts)

    def run(
        self,
        starts: Iterable[Start],
        *,
        observers: Sequence[Observer] = (),
        batch_size: int = BATCH_SIZE,  # noqa: ARG002
    ) -> Iterator[tuple[Tensor, Reconstruction]]:
        """Numbers and results, one at a time; see :func:`wdlg.attacks.run.reconstruct_each`."""
        begun = 0
        for start in starts:
            for place in range(len(start)):
                started = time.perf_counter()
                seen = start.observation.select(torch.tensor([place]))
                labels = self.label_rule(seen.gradient, seen.images)
                images, value = self.find(seen, labels, [start.dummy_images[place : place + 1]])
                images = images.to(start.dummy_images)
                number = torch.tensor([begun + place])
                for observe in observers:
                    observe(number, 0 * number, 0 * number, images, value)
                yield (
                    number,
                    Reconstruction.at_once(
                        images, labels, loss=value.to(images), seconds=time.perf_counter() - started
                    ),
                )
            begun += len(start)

    def find(
        self, observation: Observation, labels: Tensor, starts: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Tensor]:
        """The most likely images, (B, ...) in double precision, and what is minimised there, (B,).

        After the starts that are given come the mean of the prior, or grey, and the draws. The first that
        ends where the errors are as large as they should be is taken, else the best of all.

        Args:
            observation: what the attacker sees.
            labels: (B,), or (B, images).
            starts: images to start from, each (B, ...), such as those of the closed form.
        """
        found = []
        for place in range(len(observation)):
            index = torch.tensor([place])
            one = _Search(self, observation.select(index), labels[index])
            found.append(one.best([start[index] for start in starts]))
        images, values = zip(*found, strict=True)
        return torch.cat(images), torch.stack(values)


class _Search:
    """The search for one message."""

    def __init__(self, attack: MostLikely, seen: Observation, labels: Tensor) -> None:
        self.attack, self.seen = attack, doubled(seen)
        self.labels = labels
        self.target = F.one_hot(labels.clamp_min(0), seen.network.classes).double()
        # As it was sent: in another precision what was exactly zero is no longer.
        self.model = error_model(attack.defence, seen.gradient)
        self.weights = torch.cat([one.flatten() for one in self.model.weights]).double()
        self.sent = _flat(seen.gradient).double()
        self.shape = (1, *seen.image_shape)
        self.mean: Tensor | None = None
        if attack.prior is not None:
            prior = attack.prior
            if seen.network.image_shape != tuple(prior.mean.shape):
                raise InputError(
                    f"prior is of images {tuple(prior.mean.shape)}, but the network takes "
                    f"{seen.network.image_shape}."
                )
            precision = torch.cholesky_inverse(torch.linalg.cholesky(prior.covariance))
            self.precision = torch.block_diag(*[precision] * seen.images)
            self.mean = prior.mean.expand(self.shape).flatten()

    def best(self, given: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The images and the sum there."""
        images = torch.full(self.shape, torch.nan, dtype=torch.float64)
        value = images.new_full((), torch.inf)
        if bool((self.labels == UNDECIDED).any()):
            return images, value
        # In the mean the sum is half the number of entries for squares, all of it for absolute values.
        enough = len(self.sent) * (1.5 if self.model.absolute else 1.0)
        for start in self._starts(given):
            if torch.isfinite(start).all():
                x = start.double().flatten()
                if self.model.absolute:  # whose sum is smooth near its least alone: squares lead there
                    absolute, self.model = self.model, replace(self.model, absolute=False)
                    x = self.run(x)[0].flatten()
                    self.model = absolute
                found, there = self.run(x)
                if there < value:
                    images, value = found, there
                if value <= enough:
                    break
        return images, value

    def _starts(self, given: Sequence[Tensor]) -> Iterator[Tensor]:
        yield from given
        grey = torch.full(self.shape, 0.5, dtype=torch.float64)
        yield grey if self.mean is None else self.mean
        stream = torch.Generator().manual_seed(0)
        for _ in range(self.attack.starts):
            yield torch.randn(self.shape, generator=stream, dtype=torch.float64)

    def run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The images at which the steps from x (d,) end, and the sum there."""
        value, slope, residual, along = self._evaluate(x)
        damping, growth, matrix, largest = 0.0, 2.0, None, 0.0
        for _ in range(self.attack.steps):
            if matrix is None:
                matrix = self._matrix(x, residual, along)
                largest = float(matrix.diagonal().max())
                damping = damping or FIRST_DAMPING * largest
            step = solve(matrix, damping, -slope)
            if step is not None:
                predicted = float(damping * (step @ step) - slope @ step) / 2
                if not predicted > SETTLED * float(value):
                    break
                trial = self._evaluate(x + step)
                gain = float(value - trial[0]) / predicted
                if gain > 1e-4:  # which NaN is not
                    x = x + step
                    value, slope, residual, along = trial
                    damping *= max(1 / 3, 1 - (2 * gain - 1) ** 3)
                    growth, matrix = 2.0, None
                    continue
            damping *= growth
            growth *= 2
            if damping > MOST_DAMPING * largest:
                break
        return x.view(self.shape), value

    def _evaluate(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The sum, its gradient by x, the residual (n,), and how x moves the norm of what is clipped."""
        seen = self.seen
        variables = x.detach().requires_grad_()
        with torch.enable_grad():
            gradient = _flat(
                seen.sharing(seen.network, seen.parameters, variables.view(self.shape), self.target)
            )
            length = gradient.norm()
            clipped = bool(length > self.model.clip)
            residual = (gradient * self.model.clip / length if clipped else gradient) - self.sent
            value = self._rho(residual)
            (slope,) = torch.autograd.grad(value, variables, retain_graph=clipped)
            along = None
            if clipped:
                (along,) = torch.autograd.grad(length, variables)
                along = torch.cat((along, (self.model.clip / length.detach())[None]))
        value = value.detach()
        if self.mean is not None:
            away = self.precision @ (x - self.mean)
            value, slope = value + (x - self.mean) @ away / 2, slope + away
        return value, slope, residual.detach(), along

    def _rho(self, residual: Tensor) -> Tensor:
        if not self.model.absolute:
            return (self.weights * residual.square()).sum() / 2
        # The scale b of a Laplace distribution has the variance 2 b².
        scaled = residual * (2 * self.weights).sqrt()
        size = scaled.abs()
        return torch.where(size < KINK, scaled.square() / (2 * KINK) + KINK / 2, size).sum()

    def _matrix(self, x: Tensor, residual: Tensor, along: Tensor | None) -> Tensor:
        """``Jᵀ W J`` with the weights at this residual, and the prior's precision."""
        seen, weights = self.seen, self.weights
        if self.model.absolute:
            scaled = residual.abs() * (2 * weights).sqrt()
            weights = 2 * weights / scaled.clamp_min(KINK)
        images = x.view(self.shape)
        alike = bool((weights == weights[0]).all())
        if alike and type(seen.network) is LeNet and type(seen.sharing) is FedSGD and seen.images == 1:
            matrix = weights[0] * normal_matrices(seen.network, seen.parameters, images, self.target)[0]
        else:
            at, changes = derivatives(seen.sharing, seen.network, seen.parameters, images, self.target)
            parts = [
                part.view(one.shape)
                for part, one in zip(
                    weights.split([one.numel() for one in self.model.weights]),
                    self.model.weights,
                    strict=True,
                )
            ]
            matrix = inner_products(at, changes, parts)
        if along is not None:  # the derivative of C g / |g|: nothing moves along g
            of_length, shrink = along[:-1], along[-1]
            matrix = shrink**2 * (matrix - weights[0] * torch.outer(of_length, of_length))
        return matrix + self.precision if self.mean is not None else matrix


def with_bias(observation: Observation, labels: Tensor) -> Observation:
    """The same with the gradient of the output layer's bias, which was not sent, computed from its weight's.

    For one image that weight's gradient is ``e aᵀ``. Its greatest singular vectors are e and a up to one
    number, the length s of e, and the sign, which the label decides: its entry of e is negative. And e must
    be what the features make it, ``softmax(V a + c) - y``: s is the number for which it is.

    Args:
        observation: of one image each, B attacks; the gradient of the bias is not looked at.
        labels: (B,).
    """
    seen = doubled(observation)
    left, _, _ = torch.linalg.svd(seen.gradient.last_weight, full_matrices=False)
    rows = torch.arange(len(labels))
    error = -left[:, :, 0] * left[rows, labels, 0].sign()[:, None]
    scaled = (error[:, None] @ seen.gradient.last_weight)[:, 0]
    target = F.one_hot(labels, seen.network.classes).double()
    layer = seen.parameters.output_layer

    def misfit(length: Tensor) -> Tensor:
        made = torch.softmax(layer.logits(scaled / length[:, None]), dim=-1) - target
        return (made / length[:, None] - error).norm(dim=1)

    # It is between 0 and sqrt(2): first a coarse look, then a finer one around the best.
    best, span = torch.full((len(labels),), 1e-3).double(), math.log(1.5e3)
    for _ in range(8):
        tried = best.log() + torch.linspace(-span, span, 201).double()[:, None]
        found = torch.stack([misfit(one.exp()) for one in tried])
        best = tried[found.argmin(0), rows].exp()
        span /= 50
    *others, _ = seen.gradient.tensors()
    gradient = from_tensors([*others, (best[:, None] * error)[:, :, None]], rank_one=False)
    return replace(observation, gradient=gradient.in_precision(observation.gradient.bias.dtype))


def _flat(gradient: Gradient) -> Tensor:
    """All entries of the gradient of one attack, (n,)."""
    return torch.cat([tensor.flatten() for tensor in gradient.tensors()])
