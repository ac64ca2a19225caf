"""The most probable picture: what an attacker makes of a noisy gradient who knows what images look like.

With noise of standard deviation sigma on each entry of the gradient, and images that are normal with mean m
and covariance C, the posterior density is greatest where ::

    |g(x) - g*|² / sigma² + (x - m)ᵀ C⁻¹ (x - m)

is least (maximum a posteriori). The estimate leans towards the mean, so it is biased, and the Cramér-Rao
bound (:mod:`wdlg.limits`) does not hold for it: at high noise it is closer to the private image than any
unbiased estimate can be. :func:`wdlg.limits.van_trees` bounds it, over images drawn from the prior.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wdlg.attacks.base import BATCH_SIZE, Observation, Observer, Reconstruction, Start
from wdlg.attacks.gauss_newton import doubled, refined, residual
from wdlg.attacks.labels import BiasMin, LabelRule, label_rule
from wdlg.errors import InputError, require_count, require_positive, require_text
from wdlg.networks.base import Network
from wdlg.shapes import require_tensor
from wdlg.updates.distance import norm

CHUNK = 8
"""Images that are solved together: each has a matrix of its own."""

HALVINGS = 8
"""Of a step that would make a picture less probable."""

SETTLED = 1e-9
"""Where a step lowers what is minimised by a smaller share than this, in every picture, no more are made."""


@dataclass(frozen=True)
class NormalPrior:
    """Images as draws of a normal distribution.

    Args:
        mean: (channels, height, width), d pixels in all.
        covariance: (d, d), symmetric and positive definite.

    Raises:
        InputError: the shapes do not fit, or the covariance is not positive definite.
    """

    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        mean = require_tensor("mean", self.mean, ("channels", "height", "width")).double()
        pixels = mean.numel()
        covariance = require_tensor("covariance", self.covariance, (pixels, pixels)).double()
        _, failed = torch.linalg.cholesky_ex(covariance)
        if failed or not torch.allclose(covariance, covariance.T):
            raise InputError("covariance must be symmetric and positive definite.")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)

    @classmethod
    def of(cls, images: Tensor, shrinkage: float = 0.02) -> NormalPrior:
        """The mean of images and their covariance, of which a share is spread over all pixels alike.

        Fewer images than pixels have a covariance without full rank; ``(1 - s) S + s tr(S)/d I`` has one.

        Args:
            images: (N, channels, height, width), at least two.
            shrinkage: the share s, above 0 and below 1.

        Raises:
            InputError: there are too few images, all are equal, or the share is out of range.
        """
        require_tensor("images", images, ("N", "channels", "height", "width"))
        if require_positive("shrinkage", shrinkage) >= 1:
            raise InputError(f"shrinkage is {shrinkage!r}, but must be above 0 and below 1.")
        if len(images) < 2:
            raise InputError(f"images holds {len(images)}, but must hold at least 2 to have a covariance.")
        flat = images.double().flatten(1)
        empirical = torch.cov(flat.T)
        even = torch.eye(flat.shape[1], dtype=torch.float64) * empirical.diagonal().mean()
        return cls(images.double().mean(0), (1 - shrinkage) * empirical + shrinkage * even)

    @property
    def variance(self) -> float:
        """Of a pixel, in the mean: the MSE of who answers with the mean image."""
        return float(self.covariance.diagonal().mean())

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Images, (count, channels, height, width) in double precision; some have values outside [0, 1]."""
        standard = torch.randn(count, self.mean.numel(), generator=generator, dtype=torch.float64)
        rows = standard @ torch.linalg.cholesky(self.covariance).T
        return self.mean + rows.view(count, *self.mean.shape)


@dataclass(frozen=True)
class MostProbable:
    """Gauss-Newton steps to the most probable picture, from the mean of the prior.

    The attacker knows the relative level of the noise, as :class:`~wdlg.sharing.defences.Noise` has it, and
    takes ``|g|² = |g*|² / (1 + level²)`` for the length of the gradient without it. A step that would make
    the picture less probable is halved until it does not. Its loss is the relative residual of the gradient,
    which is not zero at the end.

    Args:
        prior: what is known of images.
        level: of the noise, above 0.
        steps: at least 1.
        label_rule: how labels are read; not the joint rule. The least entry of the bias withstands noise.
        name: what tables and figures call it.

    Raises:
        InputError: a setting is out of range; on use, the images have another shape than the prior's, or what
            is shared is of several images.
    """

    prior: NormalPrior
    level: float
    steps: int = 8
    label_rule: LabelRule = field(default_factory=BiasMin)
    name: str = "most probable"

    loss = None

    def __post_init__(self) -> None:
        if not isinstance(self.prior, NormalPrior):
            raise InputError(f"prior is of type {type(self.prior).__name__}, but must be a NormalPrior.")
        require_positive("level", self.level)
        require_count("steps", self.steps)
        object.__setattr__(self, "label_rule", label_rule(self.label_rule))
        require_text("name", self.name)
        if self.label_rule.joint:
            raise InputError("label_rule is joint, but labels are not optimised here: take one that reads.")

    @property
    def evaluations(self) -> int:
        """One of the gradient of the mean image, and one for each step."""
        return 1 + self.steps

    def run(
        self, starts: Iterable[Start], *, observers: Sequence[Observer] = (), batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[Tensor, Reconstruction]]:
        """Numbers and results, some at a time; see :func:`wdlg.attacks.run.reconstruct_each`."""
        begun = 0
        for start in starts:
            self._require_fitting(start.observation)
            for index in torch.arange(len(start)).split(min(batch_size, CHUNK)):
                number = begun + index
                trace, result = self._solve(start.observation.select(index))
                for evaluation, (images, loss) in enumerate(trace):
                    made = torch.full_like(number, evaluation)
                    for observe in observers:
                        observe(number, made, made, images, loss)
                yield number, result
            begun += len(start)

    def _require_fitting(self, observation: Observation) -> None:
        network: Network = observation.network
        if network.image_shape != tuple(self.prior.mean.shape):
            raise InputError(
                f"prior is of images {tuple(self.prior.mean.shape)}, but the network takes "
                f"{network.image_shape}."
            )
        if observation.images != 1:
            raise InputError(f"images is {observation.images}, but must be 1.")

    def _solve(self, seen: Observation) -> tuple[list[tuple[Tensor, Tensor]], Reconstruction]:
        """Images and residuals of all evaluations, and the result, in the precision of the observation."""
        started = time.perf_counter()
        like = seen.parameters.tensors[0]
        observation = doubled(seen)
        labels = self.label_rule(seen.gradient)
        entries = sum(math.prod(shape) for shape in observation.network.parameter_shapes)
        length = norm(observation.gradient)
        unit = self.level**2 * length.square() / (1 + self.level**2) / entries
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(self.prior.covariance)).to(length)
        mean = self.prior.mean.to(length)
        precision = unit[:, None, None] * inverse

        def improbable(images: Tensor, loss: Tensor) -> Tensor:
            away = (images - mean).flatten(1)
            return (loss * length).square() + ((away[:, None] @ precision)[:, 0] * away).sum(1)

        images = mean.expand(len(labels), *mean.shape).clone()
        loss = residual(observation, images, labels)
        value = improbable(images, loss)
        trace = [(images, loss)]
        settled = False
        for _ in range(self.steps):
            if settled:
                trace.append(trace[-1])
                continue
            moved, after = refined(observation, images, labels, prior=(mean, precision))
            for _ in range(HALVINGS):
                worse = improbable(moved, after) > value
                if not worse.any():
                    break
                moved = torch.where(worse[:, None, None, None], (images + moved) / 2, moved)
                after = residual(observation, moved, labels)
            new = improbable(moved, after)
            better = new < value
            settled = not bool((new < (1 - SETTLED) * value).any())
            images = torch.where(better[:, None, None, None], moved, images)
            loss, value = torch.where(better, after, loss), torch.where(better, new, value)
            trace.append((images, loss))
        trace = [(images.to(like), loss.to(like)) for images, loss in trace]
        return trace, Reconstruction.in_steps(trace, labels, seconds=time.perf_counter() - started)
