"""Gauss-Newton steps: from a picture close to the private one to the best that the whole gradient gives.

With the shared gradient ``g* = g(x) + noise`` and the Jacobian J of g, a step solves ``JᵀJ s = Jᵀ (g* -
g(x))``. Where the noise is normal, independent and of one size, the picture at which the steps end has the
greatest likelihood, and its error is to first order that of the Cramér-Rao bound (:mod:`wdlg.limits`).
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.attacks.base import Observation
from wdlg.attacks.labels import UNDECIDED
from wdlg.networks.base import Parameters
from wdlg.networks.jacobian import normal_matrices
from wdlg.updates.distance import norm, squared_euclidean


def doubled(observation: Observation) -> Observation:
    """The same in double precision."""
    parameters = observation.parameters
    return replace(
        observation,
        gradient=observation.gradient.double(),
        parameters=Parameters(
            tuple(tensor.double() for tensor in parameters.tensors),
            tuple(one.double() if one.is_floating_point() else one for one in parameters.buffers),
        ),
    )


def residual(observation: Observation, images: Tensor, labels: Tensor) -> Tensor:
    """``|g(x) - g*| / |g*|`` of images (B, channels, height, width) with labels (B,); (B,).

    NaN where there is no label, or no finite image.
    """
    usable = _usable(images, labels)
    again = observation.network.gradient(
        observation.parameters,
        torch.where(usable[:, None, None, None], images, 0.0),
        _one_hot(observation, labels).to(images),
    )
    distance = squared_euclidean(again, observation.gradient).clamp_min(0).sqrt()
    return torch.where(usable, distance / norm(observation.gradient), torch.nan)


def refined(
    observation: Observation,
    images: Tensor,
    labels: Tensor,
    *,
    prior: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Images after one step, (B, channels, height, width) in double precision, and their residuals (B,).

    Without a prior, an image that a step would carry to a larger residual stays where it is.

    Args:
        observation: what the attacker sees, of one image each.
        images: (B, channels, height, width).
        labels: (B,); where there is none, the image stays.
        prior: mean and precision of a normal distribution of images, with the precision in units of the
            inverse variance of the noise: minimised is ``|g(x) - g*|² + (x - mean)ᵀ precision (x - mean)``,
            a maximum a posteriori estimate. (channels, height, width), and (pixels, pixels) or one for each
            image, (B, pixels, pixels).
    """
    observation, images = doubled(observation), images.double()
    before = residual(observation, images, labels)
    held = before.isfinite()
    start = torch.where(held[:, None, None, None], images, 0.0).requires_grad_()
    target = _one_hot(observation, labels).double()
    network, parameters = observation.network, observation.parameters
    with torch.enable_grad():
        distance = squared_euclidean(network.gradient(parameters, start, target), observation.gradient)
        (slope,) = torch.autograd.grad(distance.sum() / 2, start)
    start = start.detach()
    matrices, slope = normal_matrices(network, parameters, start, target), slope.flatten(1)
    if prior is not None:
        mean, precision = (one.to(slope) for one in prior)
        matrices = matrices + precision
        slope = slope + ((start - mean).flatten(1)[:, None] @ precision)[:, 0]
    factor, failed = torch.linalg.cholesky_ex(matrices)
    step = torch.cholesky_solve(slope[:, :, None], factor)[:, :, 0]
    moved = start - torch.where(failed[:, None] == 0, step, 0.0).view_as(start)
    after = residual(observation, moved, labels)
    better = held & after.isfinite() & (failed == 0)
    if prior is None:
        better &= after < before
    return (
        torch.where(better[:, None, None, None], moved, images),
        torch.where(better, after, before),
    )


def _usable(images: Tensor, labels: Tensor) -> Tensor:
    return (labels != UNDECIDED) & torch.isfinite(images).flatten(1).all(1)


def _one_hot(observation: Observation, labels: Tensor) -> Tensor:
    return F.one_hot(labels.clamp_min(0), observation.network.classes)
