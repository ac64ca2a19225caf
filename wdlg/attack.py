"""The attack as data: label rule x matching loss x optimiser; what it sees, and what it brings.

DLG, iDLG and WDLG are three values of :class:`Attack`, run by :mod:`wdlg.engine`. The attacker sees an
:class:`Observation` and nothing else; the private image enters only in :mod:`wdlg.evaluation`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum

import torch
from torch import Tensor

from wdlg import labels
from wdlg.errors import InputError, require_choice, require_count, require_positive
from wdlg.gradients import Gradient
from wdlg.losses import Loss, SquaredEuclidean, Wasserstein
from wdlg.networks import Network, Parameters
from wdlg.optimizers import LBFGS, Optimizer
from wdlg.rows import Rows

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
        InputError: unknown label rule, or a count or number out of range.
    """

    name: str
    label_rule: str
    loss: Loss = field(default_factory=SquaredEuclidean)
    optimizer: Optimizer = field(default_factory=LBFGS)
    evaluations: int = 6000
    stop_loss: float = 1e-6

    def __post_init__(self) -> None:
        require_choice("label_rule", self.label_rule, labels.RULES)
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
        gradient: the shared gradients, leading axis B.

    Raises:
        InputError: the gradient has a NaN or infinite entry, or shapes do not fit.
    """

    network: Network
    parameters: Parameters
    gradient: Gradient

    def __post_init__(self) -> None:
        self.gradient.require_finite()
        expected = (self.network.classes, self.network.features)
        came = (self.gradient.error.shape[-1], self.gradient.features.shape[-1])
        if came != expected:
            raise InputError(
                f"gradient is that of an output layer with (classes, features) = {came}, but the network has "
                f"{expected}."
            )

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

    >>> with_settings(DLG, learning_rate=0.5).optimizer.learning_rate
    0.5
    """
    if evaluations is not None:
        attack = replace(attack, evaluations=evaluations)
    if learning_rate is not None:
        optimizer = replace(attack.optimizer, learning_rate=learning_rate)  # type: ignore[type-var]
        attack = replace(attack, optimizer=optimizer)
    return attack
