"""The attack: label rule x matching loss x optimiser, run on many shared gradients at once.

DLG, iDLG and WDLG are three values of :class:`Attack` and share one loop, :func:`reconstruct`. The attacker
sees an :class:`Observation` and nothing else; the private image enters only in :mod:`wdlg.evaluation`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from tqdm import tqdm

from wdlg import labels
from wdlg.errors import InputError, require_choice, require_count, require_positive
from wdlg.gradients import Gradient
from wdlg.losses import Loss, SquaredEuclidean, Wasserstein
from wdlg.networks import LeNet, Parameters
from wdlg.optimizers import LBFGS, Optimizer, State

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
        label_rule: "bias_sign" (WDLG), "row_sum" (iDLG) or "joint" (DLG: the label is optimised too).
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

    network: LeNet
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

    def select(self, index: Tensor) -> Observation:
        """The observations at ``index``; a shared network stays shared."""
        parameters = self.parameters if len(self.parameters) == 1 else self.parameters.select(index)
        return Observation(self.network, parameters, self.gradient.select(index))


@dataclass(frozen=True)
class Reconstruction:
    """What B attacks brought, with no knowledge of the truth. Leading axis B throughout.

    Attributes:
        images: the last iterate, (B, channels, height, width); not clamped to [0, 1].
        best_images: the iterate with the least loss.
        labels: recovered label (B,), ``labels.UNDECIDED`` where there is none.
        status: :class:`Status` codes (B,).
        loss, best_loss, first_loss: at the last, the best and the first evaluation, (B,).
        iterations, evaluations: made, (B,).
        seconds: (B,), the attack's share of the wall time of the batches that it was in.
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


class Observer(Protocol):
    """Something that looks on while attacks run, such as the MSE trace of :mod:`wdlg.evaluation`."""

    def __call__(
        self, attacks: Tensor, evaluation: int, iterations: Tensor, images: Tensor, loss: Tensor
    ) -> None:
        """Called at each evaluation with the attacks' positions (A,), their iterations, images and losses."""


def reconstruct(
    attack: Attack,
    observation: Observation,
    dummy_images: Tensor,
    dummy_labels: Tensor | None = None,
    *,
    observers: Sequence[Observer] = (),
    batch_size: int = 64,
    progress: bool = False,
) -> Reconstruction:
    """Recover images and labels from shared gradients by gradient matching (Algorithm 1).

    Attacks run in batches and leave their batch when they end. The result of an attack does not depend on
    its neighbours, up to rounding. Ctrl-C ends the run with what there is; see
    :attr:`Reconstruction.interrupted`.

    Args:
        attack: what to run.
        observation: what the attacker sees, B attacks.
        dummy_images: starting images (B, channels, height, width), N(0, 1) in the papers.
        dummy_labels: starting label logits (B, K), needed by the joint rule only.
        observers: called at every evaluation; they cannot influence the attack.
        batch_size: attacks that are computed together; bounds the memory.
        progress: show a bar with attacks done, how many converged, and the time left.

    Raises:
        InputError: the dummies do not fit the observation.
    """
    _require_dummies(attack, observation, dummy_images, dummy_labels)
    require_count("batch_size", batch_size)
    total = len(observation)
    run = _Run(attack, observation, dummy_images, dummy_labels)
    with (
        tqdm(total=total, desc=attack.name, unit="attack", disable=not progress) as bar,
        suppress(KeyboardInterrupt),
    ):
        # Attacks that Ctrl-C leaves unfinished keep the status that they began with: interrupted.
        for start in range(0, total, batch_size):
            run.batch(torch.arange(start, min(start + batch_size, total)), observers, bar)
    return run.result()


class _Run:
    """The result of a call of :func:`reconstruct` while it grows."""

    def __init__(
        self, attack: Attack, observation: Observation, images: Tensor, label_logits: Tensor | None
    ) -> None:
        total = len(observation)
        self.attack = attack
        self.observation = observation
        self.pixels = images[0].numel()
        self.joint = attack.label_rule == "joint"
        if self.joint:
            assert label_logits is not None
            self.variables = torch.cat((images.flatten(1), label_logits), dim=1)
            self.labels = torch.full((total,), labels.UNDECIDED)
        else:
            self.variables = images.flatten(1).clone()
            self.labels = labels.recover(attack.label_rule, observation.gradient)
        self.best = self.variables.clone()
        self.status = torch.full((total,), Status.INTERRUPTED.value)
        self.loss = images.new_full((total,), torch.nan)
        self.best_loss = images.new_full((total,), torch.inf)
        self.iterations = torch.zeros(total, dtype=torch.long)
        self.evaluations = torch.zeros(total, dtype=torch.long)
        self.seconds = torch.zeros(total, dtype=torch.float64)
        self.loss_trace = images.new_full((total, attack.evaluations), torch.nan)
        self.iteration_trace = torch.full((total, attack.evaluations), -1, dtype=torch.int32)

    def batch(self, attacks: Tensor, observers: Sequence[Observer], bar: tqdm) -> None:
        """Run the attacks at these positions to their end."""
        if not self.joint:
            decided = self.labels[attacks] != labels.UNDECIDED
            self._end(attacks[~decided], Status.UNDECIDED, bar)
            attacks = attacks[decided]
        if not len(attacks):
            return
        observation = self.observation.select(attacks)
        targets = None if self.joint else self._one_hot(attacks)
        state = self.attack.optimizer.init(self.variables[attacks])
        for evaluation in range(self.attack.evaluations):
            started = time.perf_counter()
            loss, grad = self._evaluate(observation, state.x, targets)
            self._record(attacks, evaluation, state, loss, observers)
            status = self._judge(attacks, evaluation, loss, grad)
            state = self.attack.optimizer.update(state, loss, grad)
            status = torch.where((status < 0) & state.stalled, Status.STALLED.value, status)
            self.iterations[attacks] = state.iterations
            self.seconds[attacks] += (time.perf_counter() - started) / len(attacks)
            ended = status >= 0
            if ended.any():
                for code in status[ended].unique().tolist():
                    self._end(attacks[status == code], Status(code), bar)
                going = (~ended).nonzero()[:, 0]
                attacks = attacks[going]
                if not len(attacks):
                    return
                observation, state = observation.select(going), state.select(going)
                targets = None if targets is None else targets[going]
        self._end(attacks, Status.BUDGET_SPENT, bar)

    def result(self) -> Reconstruction:
        """The run so far."""
        shape = (-1, *self.observation.network.image_shape)
        label = self.labels
        if self.joint:
            label = self.variables[:, self.pixels :].argmax(-1)
        return Reconstruction(
            images=self.variables[:, : self.pixels].reshape(shape),
            best_images=self.best[:, : self.pixels].reshape(shape),
            labels=label,
            status=self.status,
            loss=self.loss,
            best_loss=self.best_loss,
            first_loss=self.loss_trace[:, 0],
            iterations=self.iterations,
            evaluations=self.evaluations,
            seconds=self.seconds,
            loss_trace=self.loss_trace,
            iteration_trace=self.iteration_trace,
        )

    def _one_hot(self, attacks: Tensor) -> Tensor:
        return F.one_hot(self.labels[attacks], self.observation.network.classes).to(self.variables.dtype)

    def _evaluate(
        self, observation: Observation, variables: Tensor, targets: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Matching loss (B,) and its gradient by the variables (B, n)."""
        variables = variables.detach().requires_grad_()
        network = observation.network
        images = variables[:, : self.pixels].unflatten(1, network.image_shape)
        if targets is None:
            targets = torch.softmax(variables[:, self.pixels :], dim=-1)
        dummy = network.gradient(observation.parameters, images, targets)
        loss = self.attack.loss(dummy, observation.gradient)
        (grad,) = torch.autograd.grad(loss.sum(), variables)
        return loss.detach(), grad

    def _record(
        self, attacks: Tensor, evaluation: int, state: State, loss: Tensor, observers: Sequence[Observer]
    ) -> None:
        self.variables[attacks] = state.x
        self.loss[attacks] = loss
        self.evaluations[attacks] = evaluation + 1
        self.loss_trace[attacks, evaluation] = loss
        self.iteration_trace[attacks, evaluation] = state.iterations.int()
        better = loss < self.best_loss[attacks]
        self.best[attacks[better]] = state.x[better]
        self.best_loss[attacks[better]] = loss[better]
        if observers:
            images = state.x[:, : self.pixels].unflatten(1, self.observation.network.image_shape)
            for observe in observers:
                observe(attacks, evaluation, state.iterations, images, loss)

    def _judge(self, attacks: Tensor, evaluation: int, loss: Tensor, grad: Tensor) -> Tensor:
        """Status code of each attack after an evaluation, -1 for those that go on."""
        status = torch.full((len(loss),), -1)
        status[loss > DIVERGENCE * self.loss_trace[attacks, 0]] = Status.DIVERGED
        status[loss < self.attack.stop_loss] = Status.CONVERGED
        status[~(torch.isfinite(loss) & torch.isfinite(grad).all(1))] = Status.NON_FINITE
        if evaluation + 1 == self.attack.evaluations:
            status[status < 0] = Status.BUDGET_SPENT
        return status

    def _end(self, attacks: Tensor, status: Status, bar: tqdm) -> None:
        self.status[attacks] = status
        bar.update(len(attacks))
        converged = int((self.status == Status.CONVERGED).sum())
        bar.set_postfix_str(f"{converged} converged", refresh=False)


def _require_dummies(
    attack: Attack, observation: Observation, images: Tensor, label_logits: Tensor | None
) -> None:
    expected = (len(observation), *observation.network.image_shape)
    if tuple(images.shape) != expected:
        raise InputError(f"dummy_images has shape {tuple(images.shape)}, but must have shape {expected}.")
    if attack.label_rule == "joint":
        wanted = (len(observation), observation.network.classes)
        came = None if label_logits is None else tuple(label_logits.shape)
        if came != wanted:
            raise InputError(f"dummy_labels has shape {came}, but the joint rule needs shape {wanted}.")


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
