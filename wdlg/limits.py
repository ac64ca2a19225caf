"""What a gradient can give away at all: bounds that hold for every attack, before anybody attacks.

The gradient g of the loss is a function of the private image x, with Jacobian J = dg/dx. If normal noise of
standard deviation sigma is added to each of its n entries, every unbiased estimate of the d pixels has a
covariance of at least ``sigma² (JᵀJ)⁻¹`` (Cramér-Rao). With the singular values s_i of J and its right
singular vectors v_i, which are images, the variance along v_i is at least ``sigma² / s_i²``: directions with
large s_i leak first. At the relative noise level l of :class:`~wdlg.sharing.defences.Noise`, ``sigma = l |g|
/ sqrt(n)``, so ::

    MSE >= c l²    with    c = |g|² / n · tr((JᵀJ)⁻¹) / d.

An MSE of 0.01 is out of reach from ``l = sqrt(0.01 / c)`` on. Without noise the rank of J says how many
directions of the image the gradient holds at all, to first order.

What this does not cover. The bound is one at the private image, so it needs that image: a participant can
compute it, an attacker cannot. It is of first order: where noise is so large that an estimate is far from the
image, other images than its neighbours matter, and errors are larger. It is one for unbiased estimates: an
attacker who knows what images look like gives up being unbiased, and can be closer at high noise
(:meth:`Limits.with_prior` has the bound of van Trees for a normal prior, ``(JᵀJ / sigma² + prior
precision)⁻¹``, which holds for every estimate). The label is taken for known.

Prior work on such bounds: Hannun, Guo and van der Maaten (2021), Fisher information loss; Zhang et al.
(2023), I2F; Liu, Wang, Chen and Lei (2025, arXiv 2402.09478); Chen, Gürsoy and Lei (arXiv 2411.03746).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import scipy.optimize
import scipy.special
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.errors import InputError, require_count, require_not_negative, require_positive, told
from wdlg.networks.base import Network, Parameters, require_fitting
from wdlg.networks.jacobian import normal_matrices
from wdlg.shapes import describe, require_tensor
from wdlg.updates.distance import norm

MOST_PIXELS = 4096
"""Of an image, all channels: the Jacobian's normal matrix has the square of it, and its spectrum takes the
cube."""

RANK_TOLERANCE = 1e-6
"""A singular value below this share of the largest is none: the normal matrix has half the digits, and
float32 holds no more of a gradient."""


@dataclass(frozen=True)
class Limits:
    """What one gradient gives away of one image.

    Attributes:
        image_shape: (channels, height, width), d pixels in all; where a gradient is of several images, d are
            those of all of them.
        entries: n, of the gradient.
        size: ``|g|``.
        singular_values: of the Jacobian, descending, (d,).
        vectors: its right singular vectors as images of norm 1, in that order, (d, channels, height, width),
            or (d, images, channels, height, width); the first leak first.
    """

    image_shape: tuple[int, int, int]
    entries: int
    size: float
    singular_values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, matrix: Tensor, image_shape: tuple[int, int, int], *, entries: int, size: float) -> Limits:
        """From the normal matrix of a Jacobian.

        Args:
            matrix: ``JᵀJ``, (d, d) in double precision, d the pixels of ``image_shape`` or, for what holds
                several images, a multiple of them.
            image_shape: (channels, height, width).
            entries: n, of the gradient.
            size: ``|g|``.

        Raises:
            InputError: the matrix or the size is not finite, or one of them is zero.
        """
        if not (math.isfinite(size) and torch.isfinite(matrix).all()):
            raise InputError("image has a gradient that is NaN or infinite, but it must be finite.")
        values, vectors = torch.linalg.eigh(matrix)
        singular = values.flip(0).clamp_min(0).sqrt()
        if not size or not singular[0]:
            raise InputError(
                "image has a gradient that is zero or does not depend on it, but must have one that does."
            )
        several = () if len(matrix) == math.prod(image_shape) else (-1,)
        return cls(
            image_shape=image_shape,
            entries=entries,
            size=size,
            singular_values=singular,
            vectors=vectors.T.flip(0).reshape(len(matrix), *several, *image_shape),
        )

    @property
    def pixels(self) -> int:
        """d."""
        return len(self.singular_values)

    @property
    def rank(self) -> int:
        """Directions of the image that the gradient holds, to first order; see ``RANK_TOLERANCE``."""
        values = self.singular_values
        return int((values > RANK_TOLERANCE * values[0]).sum())

    @property
    def constant(self) -> float:
        """c in ``MSE >= c level²``; infinite where some direction is not in the gradient."""
        return float(self._variances.mean())

    @cached_property
    def _variances(self) -> Tensor:
        """Of each direction at level 1, (d,)."""
        unit = self.size**2 / self.entries
        values = self.singular_values
        held = values > RANK_TOLERANCE * values[0]
        return torch.where(held, unit / values.square(), torch.inf)

    def bound(self, level: float) -> float:
        """The least mean squared error of a pixel of any unbiased estimate at a relative noise level."""
        level = require_not_negative("level", level)
        return self.constant * level**2 if level else (0.0 if self.rank == self.pixels else math.inf)

    def level_for(self, mse: float = 0.01) -> float:
        """The relative noise level from which on no unbiased estimate has this MSE; 0 if none ever has."""
        return math.sqrt(require_positive("mse", mse) / self.constant)

    def deviations(self, level: float) -> Tensor:
        """The least standard deviation along each of ``vectors``, in units of a pixel's value, (d,)."""
        return require_not_negative("level", level) * self._variances.sqrt()

    def pixel_deviations(self, level: float) -> Tensor:
        """The least standard deviation of each pixel's value, (channels, height, width).

        The roots of the diagonal of ``sigma² (JᵀJ)⁻¹``; their mean square is :meth:`bound`. Infinite where
        a direction that is not in the gradient has a part of the pixel.
        """
        level = require_not_negative("level", level)
        squares = self.vectors.square()
        if self.rank == self.pixels:
            variances = self._variances
        else:  # what rounding leaves of a pixel in a direction is no part of it
            squares = torch.where(squares > RANK_TOLERANCE, squares, 0.0)
            variances = self._variances.clamp_max(torch.finfo(squares.dtype).max)
        found = torch.einsum("i,ichw->chw", variances, squares)
        return level * torch.where(found < torch.finfo(squares.dtype).max ** 0.9, found, torch.inf).sqrt()

    def directions(self, level: float, accuracy: float = 0.1) -> int:
        """How many directions can be told to within an accuracy (standard deviation) at a noise level."""
        accuracy = require_positive("accuracy", accuracy)
        held = self.deviations(level)[: self.rank]
        return int((held <= accuracy).sum())

    def with_prior(self, level: float, deviation: float | Tensor) -> float:
        """The bound of van Trees for a normal prior: the least MSE of a pixel of any estimate, biased or not.

        The information of the prior is added to that of the gradient, which should be a mean over the prior's
        images; here it is that of one: take the mean of the bounds over several, or :func:`van_trees`.

        Args:
            level: relative noise level, above 0.
            deviation: standard deviation of each pixel by itself, above 0; or a covariance of all (d, d).
        """
        return van_trees([self], level, deviation)


def limits(network: Network, parameters: Parameters, image: Tensor, label: int) -> Limits:
    """What the gradient of one image with its label gives away.

    Args:
        network: the architecture.
        parameters: one network, N = 1.
        image: (channels, height, width) or with a leading axis of 1, in the precision of the parameters.
        label: its class, from 0.

    Raises:
        InputError: shapes or the label do not fit; the image has more than ``MOST_PIXELS`` pixels; or the
            gradient is zero, not finite or does not depend on the image, so that there is nothing to bound.

    >>> from wdlg.networks import LeNet
    >>> network = LeNet((1, 8, 8), 10)
    >>> weights = network.initial_parameters(generator=torch.Generator().manual_seed(0))
    >>> found = limits(network, weights, torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1)), 3)
    >>> found.rank, found.directions(level=1e-3)
    (64, 64)
    """
    if not isinstance(image, Tensor):
        raise InputError(f"image is {describe(image)}, but must be a tensor.")
    image = image if image.ndim == 4 else image[None]
    require_fitting(network, parameters, image)
    if len(image) != 1 or len(parameters) != 1:
        raise InputError(
            f"image holds {len(image)} images and parameters {len(parameters)} networks, but must hold one "
            "each."
        )
    pixels = math.prod(network.image_shape)
    if pixels > MOST_PIXELS:
        raise InputError(
            f"image has {pixels} pixels, but must have at most {MOST_PIXELS}: the spectrum takes the cube "
            "of it."
        )
    label = require_count("label", label, at_least=0, below=network.classes)
    doubles = Parameters(
        tuple(tensor.double() for tensor in parameters.tensors),
        tuple(one.double() if one.is_floating_point() else one for one in parameters.buffers),
    )
    target = F.one_hot(torch.tensor([label], device=image.device), network.classes).double()
    picture = image.detach().double()
    gradient = network.gradient(doubles, picture, target).detach()
    size = float(norm(gradient))
    matrix = normal_matrices(network, doubles, picture, target)[0]
    entries = sum(math.prod(shape) for shape in network.parameter_shapes)
    return Limits.of(matrix, network.image_shape, entries=entries, size=size)


def van_trees(several: Sequence[Limits], level: float, deviation: float | Tensor) -> float:
    """The bound of van Trees from the limits of images drawn from a normal prior, of one network.

    ``tr((mean of JᵀJ / sigma² + prior precision)⁻¹) / d``: the least mean squared error, over noise and
    images, of any estimate whatever.

    Args:
        several: limits of at least one image.
        level: relative noise level, above 0.
        deviation: standard deviation of each pixel, above 0; or a covariance matrix (d, d), symmetric and
            positive definite.

    Raises:
        InputError: there are none, they are of images of different sizes, or a number is out of range.
    """
    level = require_positive("level", level)
    if not isinstance(several, Sequence) or not several or len({one.image_shape for one in several}) > 1:
        raise InputError("several must hold the limits of at least one image, all of one size.")
    pixels = several[0].pixels
    if not isinstance(deviation, Tensor):
        variance = require_positive("deviation", deviation) ** 2
        if len(several) == 1:  # diagonal in the singular vectors
            one = several[0]
            information = one.singular_values.square() * one.entries / (level * one.size) ** 2
            return float((1 / (information + 1 / variance)).mean())
        precision = torch.eye(pixels, dtype=torch.float64) / variance
    else:
        covariance = require_tensor("deviation", deviation, (pixels, pixels)).double()
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if failed or not torch.allclose(covariance, covariance.T):
            raise InputError("deviation is a matrix, but must be symmetric and positive definite.")
        precision = torch.cholesky_inverse(factor)
    information = torch.zeros(pixels, pixels, dtype=torch.float64)
    for one in several:
        rows = one.singular_values[:, None] * one.vectors.flatten(1)
        information += rows.T @ rows * (one.entries / (level * one.size) ** 2) / len(several)
    return float(torch.linalg.inv(information + precision).trace() / pixels)


def epsilon(multiplier: float, delta: float) -> float:
    """Epsilon of one clipped gradient with noise of ``multiplier`` times the clipping norm, given delta.

    The least epsilon at which the Gaussian mechanism is (epsilon, delta)-differentially private for adding or
    removing the image, by the exact condition of Balle and Wang (2018, theorem 8):
    ``Phi(1/2m - m e) - exp(e) Phi(-1/2m - m e) <= delta`` for the multiplier m. Of one release: no
    subsampling, no composition over rounds.

    Args:
        multiplier: above 0.
        delta: above 0 and below 1.

    >>> round(epsilon(1.0, 1e-5), 2)
    4.38
    """
    multiplier = require_positive("multiplier", multiplier)
    delta = _delta(delta)

    def excess(value: float) -> float:
        return _log_delta(value, multiplier) - math.log(delta)

    if excess(0.0) <= 0:
        return 0.0
    # That of the zero-concentrated bound is larger: 1 / 2m² + sqrt(2 log(1 / delta)) / m.
    high = 1 / (2 * multiplier**2) + math.sqrt(2 * math.log(1 / delta)) / multiplier
    return float(scipy.optimize.brentq(excess, 0.0, high, xtol=1e-12 * high, rtol=1e-12))


def multiplier_for(epsilon: float, delta: float) -> float:
    """The least noise multiplier of one release for an epsilon and delta, see :func:`epsilon`.

    >>> round(multiplier_for(1.0, 1e-5), 2)
    3.73
    """
    epsilon = require_positive("epsilon", epsilon)
    delta = _delta(delta)

    def excess(log_multiplier: float) -> float:
        return _log_delta(epsilon, math.exp(log_multiplier)) - math.log(delta)

    # Between the multiplier at which half of all noise would be seen through, and that of concentrated noise.
    root = math.sqrt(2 * math.log(1 / delta))
    high = (root + math.sqrt(root**2 + 2 * epsilon)) / (2 * epsilon)
    low = high
    while excess(math.log(low)) <= 0:
        low /= 2
    return math.exp(float(scipy.optimize.brentq(excess, math.log(low), math.log(high), xtol=1e-12)))


def level_of(multiplier: float, entries: int) -> float:
    """The relative noise level of a clipped gradient with noise of a multiplier: ``multiplier sqrt(n)``.

    For a gradient that was clipped, ``|g|`` above the clipping norm C: what is sent has the norm C, and noise
    of ``multiplier C`` on each of n entries. An attacker does not know the length that was cut, so
    that a bound for a gradient of known length holds for it, too.

    >>> round(level_of(1e-4, 10_000), 6)
    0.01
    """
    return require_positive("multiplier", multiplier) * math.sqrt(require_count("entries", entries))


def _log_delta(epsilon: float, multiplier: float) -> float:
    """Log of the delta of Balle and Wang, in logarithms: exp(epsilon) may be larger than any number."""
    first = float(scipy.special.log_ndtr(0.5 / multiplier - multiplier * epsilon))
    second = epsilon + float(scipy.special.log_ndtr(-0.5 / multiplier - multiplier * epsilon))
    gap = second - first
    return first + math.log(-math.expm1(gap)) if gap < 0 else -1e300


def _delta(value: float) -> float:
    if require_positive("delta", value) >= 1:
        raise InputError(f"delta is {told(value)}, but must be above 0 and below 1.")
    return float(value)
