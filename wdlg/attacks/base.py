"""The attack as data: label rule x matching loss x optimiser; what it sees, and what it brings.

DLG, iDLG and WDLG are three values of :class:`Attack`, run by :mod:`wdlg.attacks.engine`. The attacker
sees an :class:`Observation` and nothing else; the private image enters only in :mod:`wdlg.evaluation`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.attacks import labels
from wdlg.errors import InputError, require_choice, require_count, require_positive, told
from wdlg.losses import Loss, SquaredEuclidean, Wasserstein
from wdlg.networks.base import Network, Parameters, require_parameters
from wdlg.optimizers import LBFGS, Optimizer
from wdlg.rows import Rows
from wdlg.shapes import require_alike
from wdlg.updates.gradient import Gradient, rows_of
from wdlg.updates.output_layer import Product

DIVERGENCE = 1e6
"""An attack whose loss exceeds this multiple of its start is given up."""


class Status(IntEnum):
    """How an attack ended."""

    BUDGET_SPENT = 0
    CONVERGED = 1
    DIVERGED = 2
    NON_FINITE = 3
    STALLED = 4
    UNDECIDED = 5
    INTERRUPTED = 6

    @property
    def meaning(self) -> str:
        """The status in words."""
        return {
            Status.BUDGET_SPENT: "all gradient evaluations were used",
            Status.CONVERGED: "the loss fell below the stopping value",
            Status.DIVERGED: f"the loss exceeded {DIVERGENCE:.0e} times its start",
            Status.NON_FINITE: "the loss or its gradient became NaN or infinite",
            Status.STALLED: "the optimiser could make no further move",
            Status.UNDECIDED: "the label rule found no label to start from",
            Status.INTERRUPTED: "stopped by the user",
        }[self]


@dataclass(frozen=True)
class Attack:
    """An attack as data.

    Args:
        name: what tables and figures call it.
        label_rule: "bias_sign" (WDLG), "bias_min" (the same for a changed gradient), "row_sum" (iDLG) or
            "joint" (DLG: the label is optimised too).
        loss: what is minimised, from :mod:`wdlg.losses`.
        optimizer: how, from :mod:`wdlg.optimizers`.
        evaluations: the most gradient evaluations for each attack.
        stop_loss: the attack has converged when its loss falls below this. Seen by the attacker, unlike
            the MSE to the private image on which the paper stops.

    Raises:
        InputError: unknown label rule, no loss or optimiser, or a count or number out of range.
    """

    name: str
    label_rule: str
    loss: Loss = field(default_factory=SquaredEuclidean)
    optimizer: Optimizer = field(default_factory=LBFGS)
    evaluations: int = 6000
    stop_loss: float = 1e-6

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"name is {told(self.name)}, but must be a text that is not empty.")
        require_choice("label_rule", self.label_rule, labels.RULES)
        if isinstance(self.loss, type) or not callable(self.loss):
            raise InputError(
                f"loss is {told(self.loss)}, but must be a value of wdlg.losses, such as SquaredEuclidean()."
            )
        if isinstance(self.optimizer, type) or not (
            callable(getattr(self.optimizer, "init", None))
            and callable(getattr(self.optimizer, "update", None))
        ):
            raise InputError(
                f"optimizer is {told(self.optimizer)}, but must be a value of wdlg.optimizers, such as "
                "LBFGS()."
            )
        require_count("evaluations", self.evaluations)
        require_positive("stop_loss", self.stop_loss)


DLG = Attack("DLG", "joint")
IDLG = Attack("iDLG", "row_sum")
WDLG = Attack("WDLG", "bias_sign", loss=Wasserstein())
METHODS = {"dlg": DLG, "idlg": IDLG, "wdlg": WDLG}
"""The three methods of the paper by their lower-case names."""


@dataclass(frozen=True)
class Observation:
    """All that the attacker sees, for B attacks: the architecture, its weights, the shared gradients.

    Args:
        network: the architecture, which tells image shape and class count.
        parameters: N = B networks, or N = 1 that all attacks share.
        gradient: the shared gradients, leading axis B. Where nothing was changed on the way, they must
            be gradients at these parameters, for one label each or a mixture of labels.

    Raises:
        InputError: the gradient has a NaN or infinite entry; shapes, precisions or devices do not fit; or the
            gradient is scaled, or one at other parameters.
    """

    network: Network
    parameters: Parameters
    gradient: Gradient

    def __post_init__(self) -> None:
        if not len(self.gradient):
            raise InputError("observation holds 0 attacks, but must hold at least 1.")
        require_parameters(self.network, self.parameters)
        _require_gradient(self.network, self.parameters, self.gradient)
        if isinstance(self.gradient.output, Product):
            _require_same_weights(self.parameters, self.gradient.output)

    def __len__(self) -> int:
        return len(self.gradient)

    @property
    def shares_network(self) -> bool:
        """True if one network is held for all attacks."""
        return len(self.parameters) == 1

    def select(self, index: Tensor) -> Observation:
        """The observations at ``index``; a shared network stays shared."""
        parameters = self.parameters if self.shares_network else self.parameters.select(index)
        return Observation(self.network, parameters, self.gradient.select(index))

    def to(self, device: torch.device | str) -> Observation:
        """The same observations on a device, such as "cuda"."""
        return Observation(self.network, self.parameters.to(device), self.gradient.to(device))


def _require_gradient(network: Network, parameters: Parameters, gradient: Gradient) -> None:
    """Refuse a gradient that is not of this network's parameters, image by image."""
    count, classes, features = len(gradient), network.classes, network.features
    wanted = [(count, *rows_of(shape)) for shape in network.parameter_shapes[:-2]]
    if len(gradient.hidden) != len(wanted):
        raise InputError(
            f"gradient holds {len(gradient.hidden)} hidden parameters, but the network has {len(wanted)}."
        )
    came = [tuple(part.shape) for part in gradient.hidden] + [gradient.output.shape]
    for shape, needed in zip(came, [*wanted, (count, classes, features)], strict=True):
        if shape != needed:
            raise InputError(f"gradient has a part of shape {shape}, but the network needs {needed} there.")
    for part in gradient.parts():
        require_alike("gradient", part, "parameters", parameters.tensors[0])
    if len(parameters) not in (1, count):
        raise InputError(
            f"parameters holds {len(parameters)} networks, but must hold 1 or one for each of the {count} "
            "gradients."
        )
    gradient.require_finite()


def _require_same_weights(parameters: Parameters, output: Product) -> None:
    """Refuse gradients that the output layer contradicts.

    The features give the class probabilities p, and the bias's gradient is p less the target: what it says of
    the target is no mixture of labels where the gradient is scaled up or turned around, or comes from other
    weights. A gradient that is scaled down is ``scale (p - label)``.
    """
    error = output.error
    probabilities = torch.softmax(parameters.output_layer.logits(output.features), dim=-1)
    exact = probabilities - F.one_hot(error.argmin(1), error.shape[1]).to(error.dtype)
    fits = (error - exact).norm(dim=1) <= 1e-2 * exact.norm(dim=1) + 1e-5
    odd = ~fits & (error != 0).any(1)  # a saturated softmax leaves no features either
    if not odd.any():
        return
    error, probabilities = error[odd], probabilities[odd]
    for extreme in (error.argmin(1), error.argmax(1)):
        exact = probabilities - F.one_hot(extreme, error.shape[1]).to(error.dtype)
        scale = (error * exact).sum(1) / exact.square().sum(1).clamp_min(torch.finfo(error.dtype).tiny)
        scaled = (error - scale[:, None] * exact).norm(dim=1) <= 1e-3 * error.norm(dim=1)
        if scaled.any():
            raise InputError(
                f"gradient is {float(scale[scaled][0]):.3g} times that of one image with one label, but must "
                "be that itself: divide it by that number (a learning rate, an average, a smoothed label)."
            )
    if ((probabilities - error).amin(1) < -1e-2).any():
        raise InputError(
            "gradient is not one at these parameters: its output layer's features give other class "
            "probabilities than its bias."
        )


@dataclass(frozen=True)
class Reconstruction(Rows):
    """What B attacks brought, with no knowledge of the truth. Leading axis B throughout.

    Attributes:
        images: the last iterate, (B, channels, height, width); not clamped to [0, 1].
        best_images: the iterate with the least loss.
        labels: recovered label (B,), ``labels.UNDECIDED`` where there is none.
        status: :class:`Status` codes (B,).
        loss, best_loss, first_loss: at the last, the best and the first evaluation, (B,).
        iterations, evaluations: made, (B,).
        seconds: (B,), the attack's share of the wall time of the batch that it was in.
        loss_trace: loss by evaluation, (B, E), NaN after the end.
        iteration_trace: the iteration in which each evaluation fell, (B, E), from 0; -1 after the end.
    """

    images: Tensor
    best_images: Tensor
    labels: Tensor
    status: Tensor
    loss: Tensor
    best_loss: Tensor
    first_loss: Tensor
    iterations: Tensor
    evaluations: Tensor
    seconds: Tensor
    loss_trace: Tensor
    iteration_trace: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def interrupted(self) -> bool:
        """True if the user stopped the run before every attack had ended."""
        return bool((self.status == Status.INTERRUPTED).any())


def with_settings(
    attack: Attack, *, evaluations: int | None = None, learning_rate: float | None = None
) -> Attack:
    """The same attack with another budget or learning rate; None keeps what it has.

    Raises:
        InputError: a value is out of range, or the optimiser has no learning rate.

    >>> with_settings(DLG, learning_rate=0.5).optimizer.learning_rate
    0.5
    """
    if evaluations is not None:
        attack = replace(attack, evaluations=evaluations)
    if learning_rate is not None:
        if not hasattr(attack.optimizer, "learning_rate"):
            raise InputError(
                f"learning_rate is {told(learning_rate)}, but {attack.optimizer} has none to set."
            )
        optimizer = replace(attack.optimizer, learning_rate=learning_rate)  # type: ignore[type-var]
        attack = replace(attack, optimizer=optimizer)
    return attack
