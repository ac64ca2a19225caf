"""Labels of a batch, as a set and as counts: what the gradient of a mean over N images says of them.

With class probabilities ``p_n`` and ``n_c`` images of class c, the mean gradient of the output bias is
``b_c = mean_n p_nc - n_c / N``, and so

    n_c = N (mean_n p_nc - b_c).

Every probability is above 0, so ``n_c > -N b_c``. That is the rule of WDLG for a batch: a class with a
negative entry is there, and one whose entry is below ``-k / N`` is there at least k + 1 times. No rule that
reads b alone can say more: to any counts above these bounds there are probabilities that give the same b,
``b + n / N`` for every image. Each label that the bounds leave open may be of any class.

Who knows the network knows more. Two ways to estimate the probabilities are here:

- "mean" takes one vector of features for all images, ``Wᵀ b / |b|²`` with the output weights' gradient W,
  and the probabilities that the network gives to it;
- "class" takes one for each class, the row of W over its entry of b, and solves N linear equations for the
  counts (iLRG, Ma et al. 2023).

Prior work: the N least entries or rows, for labels that do not repeat (GradInversion, Yin et al. 2021);
repeated labels (Geng et al. 2021; LLG, Wainakh et al. 2022; iLRG, Ma et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.attacks.labels import UNDECIDED
from wdlg.errors import InputError, require_choice, require_count, require_not_negative, told
from wdlg.networks.base import Parameters
from wdlg.rows import Rows
from wdlg.shapes import require_alike
from wdlg.updates.gradient import Gradient

ESTIMATES = ("mean", "class")
"""Ways to estimate the class probabilities of the images of a batch; see above."""

ROUNDING = 16
"""Units of the precision by which the probability of an image may be off in what is sent."""


@dataclass(frozen=True)
class LabelCounts(Rows):
    """What B mean gradients of N images each say of the labels.

    Attributes:
        certain: each class is there at least so often, (B, K).
        counts: an estimate of how often each is there, (B, K); N in sum, and nowhere below ``certain``.
            ``UNDECIDED`` throughout where the gradient is none of N images, or says nothing of them.
        images: N.
    """

    certain: Tensor
    counts: Tensor
    images: int

    def __len__(self) -> int:
        return len(self.certain)

    @property
    def open(self) -> Tensor:
        """How many labels are not certain, (B,); below 0 where this is no gradient of N images."""
        return self.images - self.certain.sum(1)

    @property
    def decided(self) -> Tensor:
        """True where every label is certain, and the counts are no estimate, (B,)."""
        return self.open == 0

    @property
    def labels(self) -> Tensor:
        """The estimate as labels in ascending order, (B, N); ``UNDECIDED`` where there is none."""
        counts = self.counts.clamp_min(0)
        counts[:, 0] += self.images - counts.sum(1)  # rows without an estimate have to be as long
        classes = torch.arange(counts.shape[1], device=counts.device)
        rows = torch.stack([torch.repeat_interleave(classes, one) for one in counts])
        return torch.where((self.counts == UNDECIDED).any(1, keepdim=True), UNDECIDED, rows)


def label_counts(
    gradient: Gradient,
    images: int,
    parameters: Parameters | None = None,
    *,
    by: str = "mean",
    smoothing: float = 0.0,
    tolerance: float | None = None,
) -> LabelCounts:
    """What is certain of the labels of a batch, and how often each class is estimated to be there.

    Args:
        gradient: B gradients of the mean cross-entropy over N images.
        images: N.
        parameters: 1 network or B; None for an attacker who does not have them: every class is then taken to
            have the probability 1/K in the estimate, as in a network with small weights.
        by: how the probabilities are estimated, "mean" or "class". The first did better in our trials.
        smoothing: s, where labels were smoothed, ``(1 - s) onehot + s / K``; at least 0 and below 1.
        tolerance: by how much ``N b_c`` may be off for rounding or noise; an entry so close to the bound
            counts for nothing. None for ``16 N`` units of the gradient's precision. What was rounded or
            defended on its way takes more, and with a tolerance that is too small what is called certain is
            not.

    Raises:
        InputError: a setting is out of range; the gradient has an entry that is NaN or infinite; or the
            parameters do not fit it.

    >>> from wdlg.updates.output_layer import Dense
    >>> bias = torch.tensor([[-0.30, 0.25, -0.20, 0.25]])  # of four images
    >>> sent = Gradient((), Dense.of(bias[:, :, None].expand(1, 4, 3), bias))
    >>> found = label_counts(sent, 4)
    >>> found.certain.tolist(), found.open.tolist()  # -0.3 is below -1/4: twice at least
    ([[2, 0, 1, 0]], [1])
    >>> found.counts.tolist(), found.labels.tolist()
    ([[2, 0, 2, 0]], [[0, 0, 2, 2]])
    """
    require_count("images", images)
    require_choice("by", by, ESTIMATES)
    smoothing = require_smoothing(smoothing)
    bias = gradient.bias
    for part in (bias, gradient.last_weight):
        if not torch.isfinite(part).all():
            raise InputError("gradient has an entry that is NaN or infinite, but every entry must be finite.")
    if tolerance is None:
        tolerance = ROUNDING * images * torch.finfo(bias.dtype).eps
    tolerance = require_not_negative("tolerance", tolerance)
    # In double precision whatever was sent: N b_c is compared with whole numbers.
    error, classes = bias.double(), bias.shape[1]
    hard = images * (error + smoothing / classes)
    certain = torch.ceil((-hard - tolerance) / (1 - smoothing)).clamp_min(0).long()
    if parameters is None:
        wanted = (images / classes - hard) / (1 - smoothing)
        told_of = torch.ones_like(certain[:, 0], dtype=torch.bool)
    else:
        weights, biases = output_layer_of(parameters, gradient)
        estimate = _by_mean if by == "mean" else _by_class
        wanted = estimate(error, gradient.last_weight.double(), weights, biases, images, smoothing)
        told_of = wanted.isfinite().all(1) & (error != 0).any(1)
    possible = certain.sum(1) <= images
    counts = _nearest(wanted.nan_to_num(0.0), certain, images)
    return LabelCounts(certain, torch.where((possible & told_of)[:, None], counts, UNDECIDED), images)


def require_smoothing(value: float) -> float:
    """Return a strength of label smoothing, at least 0 and below 1; raise :class:`InputError` otherwise."""
    if require_not_negative("smoothing", value) >= 1:
        raise InputError(f"smoothing is {told(value)}, but must be at least 0 and below 1.")
    return float(value)


def _by_mean(
    error: Tensor, weight: Tensor, weights: Tensor, biases: Tensor, images: int, smoothing: float
) -> Tensor:
    """Counts (B, K), no whole numbers, from the probabilities of one vector of features for all images."""
    features = (weight * error[:, :, None]).sum(1) / error.square().sum(1, keepdim=True)
    probabilities = torch.softmax((weights * features[:, None]).sum(2) + biases, dim=1)
    return images * (probabilities - error - smoothing / error.shape[1]) / (1 - smoothing)


def _by_class(
    error: Tensor, weight: Tensor, weights: Tensor, biases: Tensor, images: int, smoothing: float
) -> Tensor:
    """The same from the probabilities that images of each class have in the mean, a vector for each.

    They are those of ``P`` (K, K), a row for each class of image, and ``(Pᵀ - (1 - s) I) n = N (b + s/K)``.
    """
    classes = error.shape[1]
    features = weight / error[:, :, None]
    finite = features.isfinite().all(2, keepdim=True)  # a class without an entry has no features
    features = torch.where(finite, features, 0.0)
    probabilities = torch.softmax(features @ weights.mT + biases[:, None], dim=2)
    equations = probabilities.mT - (1 - smoothing) * torch.eye(classes).to(error)
    total = torch.ones_like(equations[:, :1])
    right = torch.cat((images * (error + smoothing / classes), images * total[:, :, 0]), dim=1)
    solution = torch.linalg.pinv(torch.cat((equations, total), dim=1)) @ right[:, :, None]
    return solution[:, :, 0]


def _nearest(wanted: Tensor, least: Tensor, total: int) -> Tensor:
    """The whole numbers nearest to those wanted, at least ``least``, and ``total`` in sum, (B, K).

    The sum of squared differences is convex in each number: whoever adds one where that brings most, again
    and again, ends at its minimum. Rows whose bounds exceed the total stay at the bounds.
    """
    counts = least.clone()
    for _ in range(total):
        missing = counts.sum(1, keepdim=True) < total
        counts += missing * F.one_hot((wanted - counts).argmax(1), counts.shape[1])
    return counts


def output_layer_of(parameters: Parameters, gradient: Gradient) -> tuple[Tensor, Tensor]:
    """Weights (N, K, M) and biases (N, K) of the last layer in double precision, which fit a gradient."""
    weights, biases = parameters.tensors[-2:]
    _, *wanted = gradient.output.shape
    if list(weights.shape[1:]) != wanted or len(weights) not in (1, len(gradient)):
        raise InputError(
            f"parameters has output weights of shape {tuple(weights.shape)}, but must have 1 or "
            f"{len(gradient)} of shape {tuple(wanted)}, as the gradient has."
        )
    require_alike("parameters", weights, "gradient", gradient.bias)
    return weights.double(), biases.double()
