"""Label rules: how an attacker reads the private label off a shared gradient.

With cross-entropy, a one-hot label y and class probabilities p, the gradient of the output bias is
``p_c - 1[c = y]`` (eq. 3 of the paper): negative for the label alone. The gradient of the output weights
is that number times the features, so the sign survives in its row sums when the features are not
negative (iDLG).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from wdlg.errors import InputError, require_choice, require_count, told
from wdlg.registry import Registry
from wdlg.shapes import require_tensor
from wdlg.updates.gradient import Gradient

UNDECIDED = -1
"""What a rule returns for a gradient that names no label; never a class."""


def bias_sign(bias_gradient: Tensor) -> Tensor:
    """Label of each gradient by the rule of WDLG: the index of the one negative entry (Algorithm 1, line 1).

    Args:
        bias_gradient: gradient of the output layer's bias, (B, K).

    Returns:
        (B,) class indices; ``UNDECIDED`` where not exactly one entry is negative, as when the softmax
        saturates and the gradient is zero.

    Raises:
        InputError: no such tensor, or an entry is NaN or infinite.

    >>> bias_sign(torch.tensor([[0.2, -0.9, 0.7], [0.0, 0.0, 0.0]]))
    tensor([ 1, -1])
    """
    least, place = _bias(bias_gradient).topk(2, largest=False)
    return torch.where((least[:, 0] < 0) & (least[:, 1] >= 0), place[:, 0], UNDECIDED)


def bias_min(bias_gradient: Tensor) -> Tensor:
    """Label of each gradient by the least entry, for an attacker who expects a changed gradient.

    On an exact gradient it agrees with :func:`bias_sign`. That rule gives up once noise has turned the sign
    of any other entry; this one is right while the label's entry stays the least. No other entry is larger in
    size than ``p_y - 1 = -sum of all other p_c``, so pruning small entries leaves it to the last.

    Args:
        bias_gradient: gradient of the output layer's bias, (B, K).

    Returns:
        (B,) class indices; ``UNDECIDED`` where no entry is negative.

    Raises:
        InputError: no such tensor, or an entry is NaN or infinite.

    >>> bias_min(torch.tensor([[0.2, -0.9, -0.1], [0.0, 0.0, 0.0]]))
    tensor([ 1, -1])
    """
    least, place = _bias(bias_gradient).min(-1)
    return torch.where(least < 0, place, UNDECIDED)


def row_sum(weight_gradient: Tensor) -> Tensor:
    """Label of each gradient by the rule of iDLG: the row of the output weights with the least sum.

    Args:
        weight_gradient: gradient of the output layer's weights, (B, K, M).

    Returns:
        (B,) class indices; ``UNDECIDED`` where no row sum is negative. Wrong, without notice, where the
        features sum to a negative number (possible with tanh).

    Raises:
        InputError: no such tensor, or an entry is NaN or infinite.
    """
    sums = _finite("weight_gradient", require_tensor("weight_gradient", weight_gradient, ("B", "K", "M")))
    sums = sums.sum(-1)
    smallest, label = sums.min(-1)
    return torch.where(smallest < 0, label, UNDECIDED)


def row_product(weight_gradient: Tensor) -> Tensor:
    """Label of each gradient without the bias, whatever the sign of the features.

    For one image all rows are multiples of the features, by a negative number for the label alone. So the
    inner products of its row with the others are negative and all others positive: the label's row is the
    one whose products with the others have the least sum. With smoothed labels more rows are negative. Where
    a network gives nearly all probability to one wrong class, its row and the label's are opposite to each
    other up to rounding, and either may have the least sum.

    Args:
        weight_gradient: gradient of the output layer's weights, (B, K, M).

    Returns:
        (B,) class indices; ``UNDECIDED`` where no sum is negative, or two are the least. With two classes
        the rows are opposite to each other and have the same sum: nothing tells which is the label's.

    Raises:
        InputError: no such tensor, or an entry is NaN or infinite.

    >>> features = torch.tensor([0.3, -2.0, 0.1])  # with a negative sum, which misleads row_sum
    >>> row_product(torch.tensor([[0.2, -0.9, 0.7]])[:, :, None] * features)
    tensor([1])
    """
    rows = _finite("weight_gradient", require_tensor("weight_gradient", weight_gradient, ("B", "K", "M")))
    scaled = rows / rows.flatten(1).norm(dim=1).clamp_min(torch.finfo(rows.dtype).tiny)[:, None, None]
    products = scaled @ scaled.mT
    sums = products.sum(2) - products.diagonal(dim1=1, dim2=2)
    # Rows of two classes have the same sum, and one of zeros has none below zero.
    least, place = sums.topk(2, largest=False)
    return torch.where((least[:, 0] < 0) & (least[:, 0] < least[:, 1]), place[:, 0], UNDECIDED)


def one_logit_sign(bias_gradient: Tensor) -> Tensor:
    """Label of each gradient of the binary cross-entropy of a single score z: ``sigmoid(z) - y``.

    Negative for y = 1 and positive for y = 0, by any positive scale. The rules for K scores do not apply to
    an output layer of one.

    Args:
        bias_gradient: gradient of the output layer's bias, (B, 1).

    Returns:
        (B,) 0 or 1; ``UNDECIDED`` where the entry is zero.

    Raises:
        InputError: no such tensor, or an entry is NaN or infinite.

    >>> one_logit_sign(torch.tensor([[-0.2], [0.7], [0.0]]))
    tensor([ 1,  0, -1])
    """
    entry = _finite("bias_gradient", require_tensor("bias_gradient", bias_gradient, ("B", 1)))[:, 0]
    return torch.where(entry == 0, UNDECIDED, (entry < 0).long())


class LabelRule(Protocol):
    """How an attacker comes by the labels: a frozen dataclass, called with the gradients that were sent."""

    name: ClassVar[str]
    """In a study file and at the command line."""

    joint: ClassVar[bool]
    """True if labels are optimised together with the images, and no rule is asked for them."""

    def __call__(self, gradient: Gradient, images: int = 1) -> Tensor:
        """Labels of ``images`` private images each, (B,) for one and (B, images) for more.

        A row in ascending order, or ``UNDECIDED`` throughout.
        """

    def steps(self, *, classes: int, features: int) -> int | None:
        """Elementary steps on one full gradient of K x M weights, as Table 1 of the paper counts them."""


@dataclass(frozen=True)
class BiasSign:
    """The rule of WDLG, :func:`bias_sign`. For N images, the N entries that are negative: each label once.

    >>> BiasSign().steps(classes=100, features=768)  # one comparison for each class
    100
    """

    name: ClassVar[str] = "bias_sign"
    joint: ClassVar[bool] = False

    def __call__(self, gradient: Gradient, images: int = 1) -> Tensor:
        """Labels, see :class:`LabelRule`."""
        if images == 1:
            return bias_sign(gradient.bias)
        bias = _bias(gradient.bias)
        return torch.where((bias < 0).sum(1, keepdim=True) == images, _least(bias, images), UNDECIDED)

    def steps(self, *, classes: int, features: int) -> int:
        """K comparisons."""
        _require_sizes(classes, features)
        return classes


@dataclass(frozen=True)
class BiasMin:
    """The least entry, :func:`bias_min`, for a changed gradient. For N images, the N least."""

    name: ClassVar[str] = "bias_min"
    joint: ClassVar[bool] = False

    def __call__(self, gradient: Gradient, images: int = 1) -> Tensor:
        """Labels, see :class:`LabelRule`."""
        return bias_min(gradient.bias) if images == 1 else _least(_bias(gradient.bias), images)

    def steps(self, *, classes: int, features: int) -> int:
        """K comparisons."""
        _require_sizes(classes, features)
        return classes


@dataclass(frozen=True)
class RowSum:
    """The rule of iDLG, :func:`row_sum`. For N images, the N rows of least sum: each label once.

    >>> RowSum().steps(classes=100, features=768)  # every entry of the output layer's weight gradient
    76800
    """

    name: ClassVar[str] = "row_sum"
    joint: ClassVar[bool] = False

    def __call__(self, gradient: Gradient, images: int = 1) -> Tensor:
        """Labels, see :class:`LabelRule`."""
        sums = _finite("row_sums", gradient.output.row_sums())
        # A matrix with a single column says all that the rule asks.
        return row_sum(sums[:, :, None]) if images == 1 else _least(sums, images)

    def steps(self, *, classes: int, features: int) -> int:
        """K x M sums."""
        _require_sizes(classes, features)
        return classes * features


@dataclass(frozen=True)
class Joint:
    """DLG's way: the labels are optimised together with the images, as logits of label probabilities."""

    name: ClassVar[str] = "joint"
    joint: ClassVar[bool] = True

    def __call__(self, gradient: Gradient, images: int = 1) -> Tensor:
        """No label is known before the attack."""
        shape = (len(gradient),) if images == 1 else (len(gradient), images)
        return torch.full(shape, UNDECIDED, device=gradient.bias.device)

    def steps(self, *, classes: int, features: int) -> None:
        """None: it has no count of its own, it is the whole optimisation."""
        _require_sizes(classes, features)


@dataclass(frozen=True)
class Known:
    """No rule: the labels are known from elsewhere, and are the same for every gradient.

    For an attacker who has been told them, or has read them otherwise, as
    :func:`wdlg.attacks.label_counts.label_counts` does for a batch. It has no name in ``RULES``.

    Args:
        labels: a class from 0 for each image of a participant; with several images in the order in which
            they are recovered.

    Raises:
        InputError: there is none, or one is no class; on use, they are not as many as the images, or the
            network has no such class.

    >>> Known((3, 3, 5)).labels
    (3, 3, 5)
    """

    name: ClassVar[str] = "known"
    joint: ClassVar[bool] = False

    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.labels, tuple | list) or not self.labels:
            raise InputError(f"labels is {told(self.labels)}, but must be a tuple of at least one class.")
        labels = tuple(require_count("labels", one, at_least=0) for one in self.labels)
        object.__setattr__(self, "labels", labels)

    def __call__(self, gradient: Gradient, images: int = 1) -> Tensor:
        """Labels, see :class:`LabelRule`."""
        classes = gradient.bias.shape[1]
        if len(self.labels) != images or max(self.labels) >= classes:
            raise InputError(
                f"labels is {self.labels}, but must be {images} of the classes 0 to {classes - 1}, one for "
                "each image."
            )
        row = torch.tensor(self.labels, device=gradient.bias.device)
        rows = row.expand(len(gradient), -1).clone()
        return rows[:, 0] if images == 1 else rows

    def steps(self, *, classes: int, features: int) -> int:
        """None are needed: 0."""
        _require_sizes(classes, features)
        return 0


RULES = Registry("RULES", {rule.name: rule for rule in (BiasSign, BiasMin, RowSum, Joint)})
"""Label rules by the names that study files and the command line give them."""

ANALYTIC = tuple(name for name, rule in RULES.items() if not rule.joint)
"""Those that read the label off the gradient."""


def label_rule(value: LabelRule | str) -> LabelRule:
    """A rule as it is, or by its name in ``RULES``.

    Raises:
        InputError: it is neither.

    >>> label_rule("row_sum")
    RowSum()
    """
    if isinstance(value, str):
        rule: LabelRule = RULES[require_choice("label_rule", value, RULES)]()
        return rule
    if isinstance(value, type) or not callable(value) or not hasattr(value, "joint"):
        raise InputError(
            f"label_rule is {told(value)}, but must be a rule of wdlg.attacks.labels or one of "
            f"{', '.join(RULES)}."
        )
    return value


def _least(values: Tensor, count: int) -> Tensor:
    """Places of the least values of each row (B, K), ascending, (B, count); all must be negative."""
    if count > values.shape[1]:
        return torch.full((len(values), count), UNDECIDED, device=values.device)
    least, place = values.topk(count, largest=False)
    return torch.where((least < 0).all(1, keepdim=True), place.sort(1).values, UNDECIDED)


def _require_sizes(classes: int, features: int) -> None:
    require_count("classes", classes, at_least=2)
    require_count("features", features)


def _bias(gradient: Tensor) -> Tensor:
    require_tensor("bias_gradient", gradient, ("B", "K"))
    if gradient.shape[1] < 2:
        raise InputError("bias_gradient has 1 class, but must have at least 2.")
    return _finite("bias_gradient", gradient)


def _finite(name: str, tensor: Tensor) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise InputError(f"{name} has an entry that is NaN or infinite, but every entry must be finite.")
    return tensor
