"""Label rules: how an attacker reads the private label off a shared gradient.

With cross-entropy, a one-hot label y and class probabilities p, the gradient of the output bias is
``p_c - 1[c = y]`` (eq. 3 of the paper): negative for the label alone. The gradient of the output weights
is that number times the features, so the sign survives in its row sums when the features are not
negative (iDLG).
"""

from __future__ import annotations

import torch
from torch import Tensor

from wdlg.errors import InputError, require_choice, require_count
from wdlg.shapes import require_tensor
from wdlg.updates.gradient import Gradient

UNDECIDED = -1
"""What a rule returns for a gradient that names no label; never a class."""

RULES = ("bias_sign", "bias_min", "row_sum", "joint")
ANALYTIC = ("bias_sign", "bias_min", "row_sum")
"""Rules that read the label off the gradient, and those with "joint", which optimises it."""


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


def recover(rule: str, gradient: Gradient) -> Tensor:
    """Labels (B,) by the analytic rule of that name, one of ``ANALYTIC``; ``UNDECIDED`` as there."""
    require_choice("rule", rule, ANALYTIC)
    if rule != "row_sum":
        return bias_sign(gradient.bias) if rule == "bias_sign" else bias_min(gradient.bias)
    # A matrix with a single column says all that the rule asks.
    return row_sum(gradient.output.row_sums()[:, :, None])


def steps(rule: str, *, classes: int, features: int) -> int | None:
    """Elementary steps that a rule takes on one full gradient, as Table 1 of the paper counts them.

    ``bias_sign`` and ``bias_min`` make K comparisons; ``row_sum`` touches all K x M entries of the weight
    gradient. ``joint`` has no count of its own (None): it is the whole optimisation.

    >>> steps("bias_sign", classes=100, features=768), steps("row_sum", classes=100, features=768)
    (100, 76800)
    """
    require_choice("rule", rule, RULES)
    require_count("classes", classes, at_least=2)
    require_count("features", features)
    return {"bias_sign": classes, "bias_min": classes, "row_sum": classes * features, "joint": None}[rule]


def _bias(gradient: Tensor) -> Tensor:
    require_tensor("bias_gradient", gradient, ("B", "K"))
    if gradient.shape[1] < 2:
        raise InputError("bias_gradient has 1 class, but must have at least 2.")
    return _finite("bias_gradient", gradient)


def _finite(name: str, tensor: Tensor) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise InputError(f"{name} has an entry that is NaN or infinite, but every entry must be finite.")
    return tensor
