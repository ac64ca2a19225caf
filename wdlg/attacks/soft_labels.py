"""Labels under the habits of training: smoothed, mixed, or in a gradient of unknown scale.

Where labels are smoothed with strength s, the target is ``t = (1 - s) onehot + s / K`` and the gradient of
the output bias ``p - t``. Every class with a probability below ``s / K`` then has a negative entry, so that
:func:`~wdlg.attacks.labels.bias_sign` is undecided for most gradients. The least entry is the label's while
``p_y - p_c < 1 - s`` for every other class c: in a network that is not sure of itself yet
(:func:`~wdlg.attacks.labels.bias_min`).

Who has the network needs no such luck. For one image the features are ``f = Wᵀ b / |b|²`` with the output
layer's gradients W and b, whatever the scale of both, and they give p. A gradient of known scale then tells
the target itself, ``t = p - b / scale``. If the scale is unknown, all entries of t but the label's are equal,
which is K - 1 equations for two unknowns and a label (after Wang et al. 2024, who find mixed labels, too).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wdlg.attacks.label_counts import output_layer_of
from wdlg.attacks.labels import UNDECIDED
from wdlg.errors import require_positive
from wdlg.networks.base import Parameters
from wdlg.rows import Rows
from wdlg.updates.gradient import Gradient

TOLERANCE = 1e-4
"""By how much entries of a target that should be equal may differ."""


@dataclass(frozen=True)
class SoftLabels(Rows):
    """What B gradients of one image each say of their targets.

    Attributes:
        labels: the class of the largest entry, (B,); ``UNDECIDED`` where it is not known.
        targets: label probabilities, (B, K); NaN where they are not known.
        scale: by which the gradient was multiplied, (B,); NaN where it is not known.
    """

    labels: Tensor
    targets: Tensor
    scale: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def smoothing(self) -> Tensor:
        """s, if the targets are smoothed labels: K times their least entry, (B,)."""
        return self.targets.shape[1] * self.targets.amin(1)


def soft_labels(
    gradient: Gradient, parameters: Parameters, *, scale: float | None = 1.0, tolerance: float = TOLERANCE
) -> SoftLabels:
    """Targets of gradients of one image each, for an attacker who has the network.

    Args:
        gradient: B gradients of the cross-entropy, exact but for rounding, of one image each.
        parameters: 1 network or B.
        scale: what the gradient was multiplied by, above 0. Targets are then any label probabilities. None
            for an unknown factor, such as a learning rate; labels are then taken to be smoothed, and there
            must be at least 4 classes.
        tolerance: by how much entries of a target may differ that should be equal, or be below 0; above 0.
            A gradient that fits no label, or two, within it is undecided.

    Raises:
        InputError: a number is out of range, or the parameters do not fit the gradient.

    >>> from wdlg.networks import LeNet
    >>> network = LeNet((1, 8, 8), 10)
    >>> weights = network.initial_parameters(generator=torch.Generator().manual_seed(0))
    >>> target = 0.9 * torch.eye(10)[[3]] + 0.1 / 10
    >>> gradient = network.gradient(weights, torch.full((1, 1, 8, 8), 0.5), target)
    >>> found = soft_labels(gradient, weights)
    >>> int(found.labels), round(float(found.smoothing), 4)
    (3, 0.1)
    """
    if scale is not None:
        scale = require_positive("scale", scale)
    tolerance = require_positive("tolerance", tolerance)
    gradient.require_finite()
    weights, biases = output_layer_of(parameters, gradient)
    error = gradient.bias.double()
    size = error.norm(dim=1, keepdim=True)
    unit = error / size  # NaN for a gradient of zeros, which says nothing
    features = (gradient.last_weight.double() * (unit / size)[:, :, None]).sum(1)
    probabilities = torch.softmax((weights * features[:, None]).sum(2) + biases, dim=1)
    if scale is not None:
        targets = probabilities - error / scale
        factor = torch.full_like(size[:, 0], scale)
        fits = targets.amin(1) >= -tolerance
    else:
        targets, factor, fits = _of_any_scale(probabilities, unit, tolerance)
        factor = size[:, 0] / factor
    known = fits & targets.isfinite().all(1)
    return SoftLabels(
        torch.where(known, targets.argmax(1), UNDECIDED),
        torch.where(known[:, None], targets, torch.nan),
        torch.where(known, factor, torch.nan),
    )


def _of_any_scale(probabilities: Tensor, unit: Tensor, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Targets (B, K), by what the error of norm 1 is multiplied, and whether one label alone fits, (B,).

    For a label y the K - 1 other entries of ``p - u b`` are equal; u is their regression of p on b.
    """
    classes = unit.shape[1]
    others = 1 - torch.eye(classes).to(unit)
    count = classes - 1

    def centred(values: Tensor) -> Tensor:
        """Less the mean of the others, and 0 for the label itself, for every label; (B, K, K)."""
        mean = (values[:, None] * others).sum(2, keepdim=True) / count
        return (values[:, None] - mean) * others

    p, b = centred(probabilities), centred(unit)
    u = (p * b).sum(2) / b.square().sum(2)
    off = (p - u[:, :, None] * b).abs().amax(2)
    level = ((probabilities[:, None] - u[:, :, None] * unit[:, None]) * others).sum(2) / count
    fits = (off <= tolerance) & (u > 0) & (level >= -tolerance) & (level < 1 / classes)
    best = torch.where(fits, off, torch.inf).argmin(1, keepdim=True)
    factor = u.gather(1, best)
    return probabilities - factor * unit, factor[:, 0], (fits.sum(1) == 1) & (classes > 3)
