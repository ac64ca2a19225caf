"""Whether a mean gradient determines its images at all: the rank of the joint Jacobian, and counting.

The gradient g of the mean loss over N images is a function of all N d pixels, with Jacobian J = dg/dx. Its
rank says how many directions of the N images together the gradient holds, to first order. Where the rank is
below N d there are changes of the images that g does not see: no attack that has g alone can tell them.
Where it is full, the bounds of :mod:`wdlg.limits` hold for the N images together ::

    MSE >= c l²    with    c = |g|² / n · tr((JᵀJ)⁻¹) / (N d)

at the relative noise level l. The labels are taken for known, and so is which image has which.

Counting comes first. The part of the gradient from a layer of a LeNet upwards sees the images through that
layer's input alone, a numbers for each image; the layers below it have m parameters. So the rank is at most
``N a + m``, whatever the weights are (:func:`most_rank`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import scipy.linalg
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.errors import InputError, require_count, told
from wdlg.limits import Limits
from wdlg.networks.base import Network, Parameters, require_fitting_batches
from wdlg.networks.jacobian import mean_normal_matrix
from wdlg.networks.lenet import STRIDES, LeNet
from wdlg.shapes import describe
from wdlg.updates.distance import norm

MOST_VARIABLES = 8192
"""Pixels of all images together: the normal matrix has the square of it, and its spectrum takes the cube."""


@dataclass(frozen=True)
class JointLimits:
    """What one mean gradient gives away of its images.

    Attributes:
        images: N.
        image_shape: (channels, height, width), d pixels in all.
        entries: n, of the gradient.
        size: ``|g|``.
        singular_values: of the joint Jacobian, descending, (N d,).
        last: the right singular vectors of the least singular values, each N images that together have norm
            1, in that order, (V, N, channels, height, width); the last is seen least.
    """

    images: int
    image_shape: tuple[int, int, int]
    entries: int
    size: float
    singular_values: Tensor
    last: Tensor

    @property
    def pixels(self) -> int:
        """N d."""
        return len(self.singular_values)

    @property
    def rank(self) -> int:
        """Directions of all images that the gradient holds; see ``RANK_TOLERANCE`` in :mod:`wdlg.limits`."""
        return self._together.rank

    @property
    def determined(self) -> bool:
        """True if the rank is full: to first order no other images have this gradient."""
        return self.rank == self.pixels

    @property
    def constant(self) -> float:
        """c in ``MSE >= c level²``; infinite where some direction is not in the gradient."""
        return self._together.constant

    def level_for(self, mse: float = 0.01) -> float:
        """The relative noise level from which on no unbiased estimate has this MSE; 0 if none ever has."""
        return self._together.level_for(mse)

    def directions(self, level: float, accuracy: float = 0.1) -> int:
        """How many directions can be told to within an accuracy (standard deviation) at a noise level."""
        return self._together.directions(level, accuracy)

    def unseen(self) -> Tensor:
        """The part of each pixel in directions that the gradient does not hold, (N, channels, height, width).

        From 0, where the pixel is seen, to 1. All those directions must be among ``last``.

        Raises:
            InputError: they are not.
        """
        lacking = self.pixels - self.rank
        if lacking > len(self.last):
            raise InputError(
                f"last holds {len(self.last)} directions, but must hold all {lacking} that are not in the "
                "gradient: take joint_limits(..., last=...)."
            )
        return self.last[len(self.last) - lacking :].square().sum(0)

    @cached_property
    def _together(self) -> Limits:
        """Bounds that need the spectrum only, as of one image with the pixels of all."""
        shape = (self.images * self.image_shape[0], *self.image_shape[1:])
        return Limits(shape, self.entries, self.size, self.singular_values, self.last.flatten(1, 2))


def joint_limits(
    network: Network, parameters: Parameters, images: Tensor, labels: Sequence[int], *, last: int = 0
) -> JointLimits:
    """What the gradient of the mean loss over several images with their labels gives away.

    Two images of 32x32x3 take about a minute on one core, eight of 28x28 two minutes.

    Args:
        network: the architecture.
        parameters: one network.
        images: (N, channels, height, width), in the precision of the parameters.
        labels: N classes from 0.
        last: how many of the directions that are seen least to return, from 0.

    Raises:
        InputError: shapes or labels do not fit; the images have more than ``MOST_VARIABLES`` pixels together;
            or the gradient is zero, not finite or does not depend on the images.

    >>> network = LeNet((1, 8, 8), 10)
    >>> weights = network.initial_parameters(generator=torch.Generator().manual_seed(0))
    >>> images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    >>> found = joint_limits(network, weights, images, [3, 5])
    >>> found.rank, found.pixels, found.determined
    (128, 128, True)
    """
    if not isinstance(images, Tensor) or images.ndim != 4:
        raise InputError(f"images is {describe(images)}, but must be (N, channels, height, width).")
    require_fitting_batches(network, parameters, images[None], _one_hot(labels, len(images), network, images))
    if len(parameters) != 1:
        raise InputError(f"parameters holds {len(parameters)} networks, but must hold one.")
    pixels = images.numel()
    if pixels > MOST_VARIABLES:
        raise InputError(
            f"images have {pixels} pixels, but must have at most {MOST_VARIABLES} together: the spectrum "
            "takes the cube of it."
        )
    require_count("last", last, at_least=0, below=pixels + 1)
    doubles = Parameters(
        tuple(tensor.double() for tensor in parameters.tensors),
        tuple(one.double() if one.is_floating_point() else one for one in parameters.buffers),
    )
    private = images.detach().double()[None]
    target = _one_hot(labels, len(images), network, private)
    size = float(norm(network.mean_gradient(doubles, private, target).detach()))
    matrix = mean_normal_matrix(network, doubles, private, target)
    if not (math.isfinite(size) and torch.isfinite(matrix).all()):
        raise InputError("images have a gradient that is NaN or infinite, but it must be finite.")
    array = matrix.cpu().numpy()
    values = scipy.linalg.eigvalsh(array, check_finite=False)
    vectors = array[:, :0]
    if last:
        _, vectors = scipy.linalg.eigh(array, subset_by_index=[0, last - 1], check_finite=False)
    singular = torch.from_numpy(values).flip(0).clamp_min(0).sqrt()
    if not size or not singular[0]:
        raise InputError(
            "images have a gradient that is zero or does not depend on them, but must have one that does."
        )
    return JointLimits(
        images=len(images),
        image_shape=network.image_shape,
        entries=sum(math.prod(shape) for shape in network.parameter_shapes),
        size=size,
        singular_values=singular,
        last=torch.from_numpy(vectors.copy()).T.flip(0).reshape(last, *images.shape),
    )


def most_rank(network: LeNet, images: int) -> int:
    """The most that the rank of the joint Jacobian can be for N images, in any LeNet with these sizes.

    The gradient of a layer and of all above it is a function of the layer's input, which has a numbers for
    each image, and has n' entries, of which M + 1 follow from the others: those of the output layer sum to
    zero over the classes. With the m parameters below, the rank is at most ``min(N a, n') + m``; the least of
    that over all layers counts.

    Args:
        network: the architecture; its weights do not matter.
        images: N.

    Raises:
        InputError: no LeNet, or a count below 1.

    >>> most_rank(LeNet((3, 32, 32), 100), 2)  # of 6,144 pixels
    6060
    """
    if not isinstance(network, LeNet):
        raise InputError(f"network is {told(network)}, but must be a LeNet, whose layers are known.")
    require_count("images", images)
    sizes = [math.prod(shape) for shape in network.parameter_shapes]
    layers = [weight + bias for weight, bias in zip(sizes[::2], sizes[1::2], strict=True)]
    dependent = network.features + 1
    found = []
    for layer, shape in enumerate(network.layer_inputs):
        below = sum(layers[:layer])
        found.append(min(images * math.prod(shape), sum(layers) - below - dependent) + below)
    assert len(found) == len(STRIDES) + 1
    return min(found)


def most_images(network: LeNet) -> int:
    """The most images that a mean gradient of such a LeNet can determine, by :func:`most_rank`; 0 if not one.

    >>> most_images(LeNet((1, 28, 28), 10)), most_images(LeNet((3, 32, 32), 100))
    (16, 1)
    """
    pixels = math.prod(network.image_shape)
    images = 1
    while most_rank(network, images) == images * pixels:
        images += 1
    return images - 1


def _one_hot(labels: Sequence[int], count: int, network: Network, like: Tensor) -> Tensor:
    """Label probabilities (1, N, K)."""
    if isinstance(labels, str) or not isinstance(labels, Sequence) or len(labels) != count:
        raise InputError(f"labels is {told(labels)}, but must be {count} classes, one for each image.")
    classes = [require_count("labels", one, at_least=0, below=network.classes) for one in labels]
    return F.one_hot(torch.tensor(classes, device=like.device), network.classes).to(like.dtype)[None]
