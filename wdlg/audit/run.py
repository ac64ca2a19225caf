"""An audit: what a message gives away by the bounds, what attacks make of it, and what defences change."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wdlg.attacks.base import Attack, Observation, Status
from wdlg.attacks.exact import Exact
from wdlg.attacks.label_counts import label_counts
from wdlg.attacks.labels import UNDECIDED, BiasMin, Known, LabelRule, row_sum
from wdlg.attacks.most_likely import MostLikely
from wdlg.attacks.optimised import LM_STOP_LOSS, Optimised
from wdlg.attacks.run import attack
from wdlg.attacks.soft_labels import soft_labels
from wdlg.audit.bounds import Leak, is_large, leak
from wdlg.audit.message import Message, Private
from wdlg.audit.models import System
from wdlg.errors import InputError, require_count, require_positive
from wdlg.evaluation import matched, psnr, recovered
from wdlg.optimizers import LevenbergMarquardt
from wdlg.sharing.defences import Defence, Noise, relative_error, title
from wdlg.sharing.federated import FedSGD

LEVELS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Relative noise levels of the bounds, unless others are asked for."""

ACCURACY = 0.1
"""To which a direction is to be told, in units of a pixel's range."""

EVALUATIONS = 1000
"""Of iDLG. Levenberg-Marquardt has its own number."""

ITERATIONS = 50
"""Of Levenberg-Marquardt; where a message determines its images, a quarter of it is enough."""

SINGLE_FROM = 2000
"""Variables from which on the normal equations of Levenberg-Marquardt are solved in single precision."""


@dataclass(frozen=True)
class Labels:
    """What the message says of the labels.

    Attributes:
        rule: that was used, or "none".
        read: labels in ascending order; empty where the rule found none or none applies.
        true: labels in ascending order.
        note: a sentence.
    """

    rule: str
    read: tuple[int, ...]
    true: tuple[int, ...]
    note: str

    @property
    def leaked(self) -> bool:
        """Whether they were read, and right."""
        return bool(self.read) and self.read == self.true


@dataclass(frozen=True)
class Attempt:
    """One attack on the message, from one start.

    Attributes:
        attack: its name.
        start: number of the start, from 0.
        status: how it ended, in words.
        evaluations: of the gradient.
        seconds: taken.
        mse, psnr: of each private image, against the recovered one that is matched to it.
        images: recovered, (N, channels, height, width), in the order of the private images.
        defence: that the message went through, or "none".
    """

    attack: str
    start: int
    status: str
    evaluations: int
    seconds: float
    mse: tuple[float, ...]
    psnr: tuple[float, ...]
    images: np.ndarray
    defence: str = "none"

    @property
    def succeeded(self) -> bool:
        """Whether every image was recovered."""
        return all(bool(recovered(one)) for one in self.mse)


@dataclass(frozen=True)
class Defended:
    """What a defence changes.

    Attributes:
        name: of the defence with its settings.
        relative_error: of what is sent.
        label_leaked: whether the labels are read right after it.
        attempts: of the attack that :func:`adaptive` chooses.
        bound: least MSE of an unbiased estimate, where the defence is noise; else None.
    """

    name: str
    relative_error: float
    label_leaked: bool
    attempts: tuple[Attempt, ...]
    bound: float | None


@dataclass(frozen=True)
class Audit:
    """Everything that an audit found."""

    system: System
    message: Message
    private: Private
    labels: Labels
    leak: Leak
    attempts: tuple[Attempt, ...]
    left_out: tuple[str, ...]
    defended: tuple[Defended, ...]
    levels: tuple[float, ...]
    accuracy: float
    seed: int
    seconds: float
    weights_digest: str

    @property
    def best(self) -> Attempt | None:
        """The attempt with the least error of its worst image."""
        return min(self.attempts, key=lambda one: max(one.mse), default=None)


def audit(
    system: System,
    message: Message,
    private: Private,
    *,
    levels: Sequence[float] = LEVELS,
    accuracy: float = ACCURACY,
    defences: Sequence[Defence] = (),
    starts: int = 1,
    evaluations: int = EVALUATIONS,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Audit:
    """Bound what the message gives away, attack it, and attack it again after each defence.

    Args:
        system, message, private: what is audited.
        levels: relative noise levels, 0 or above, of the bounds.
        accuracy: to which a direction is to be told.
        defences: that a participant considers.
        starts: from how many dummies each optimising attack begins.
        evaluations: of iDLG.
        seed: decides every draw.
        tell: called with what is done next.

    Raises:
        InputError: a number is out of range, or the message cannot be bounded.
    """
    began = time.perf_counter()
    require_positive("--accuracy", accuracy)
    require_count("--starts", starts)
    require_count("--evaluations", evaluations)
    tell("bound")
    found = leak(system, message, private, seed=seed)
    labels, rule = read_labels(system, message, private)
    attacks, left_out = _attacks(system, message, private, rule, evaluations)
    attempts: list[Attempt] = []
    for method in attacks:
        for start in range(starts if isinstance(method, Optimised) else 1):
            tell(method.name)
            attempts.append(_attempt(system, message, private, method, seed, start))
    defended = []
    for defence in defences:
        tell(title(defence))
        defended.append(_defended(system, message, private, defence, found, seed, starts))
    return Audit(
        system=system,
        message=message,
        private=private,
        labels=labels,
        leak=found,
        attempts=tuple(attempts),
        left_out=tuple(left_out),
        defended=tuple(defended),
        levels=tuple(levels),
        accuracy=accuracy,
        seed=seed,
        seconds=time.perf_counter() - began,
        weights_digest=_weights_digest(system),
    )


def read_labels(system: System, message: Message, private: Private) -> tuple[Labels, LabelRule]:
    """What the message says of the labels, and the rule by which attacks on it come by them."""
    true = tuple(sorted(private.labels.tolist()))
    told = Known(tuple(private.labels.tolist()))
    if message.smoothing:
        return _smoothed_labels(system, message, true, told)
    return _plain_labels(system, message, private, true, told)


def _plain_labels(
    system: System, message: Message, private: Private, true: tuple[int, ...], told: Known
) -> tuple[Labels, LabelRule]:
    """The same where a target is a label."""
    if system.own_output and all(message.sent[-2:]) and len(private) > 1:
        found = label_counts(message.gradient, len(private), system.parameters)
        read = tuple(found.labels[0].tolist())
        if UNDECIDED in read:
            return Labels("label_counts", (), true, "The bias's gradient says nothing of the labels."), told
        note = (
            "All are certain by the output bias's gradient."
            if bool(found.decided[0])
            else f"Certain are {len(private) - int(found.open[0])} of {len(private)} by the output bias's "
            "gradient; the rest is an estimate."
        )
        return Labels("label_counts", read, true, note), Known(read)
    if system.own_output and message.sent[-1] and len(private) == 1:
        return _least_entry(message, true, told, "Read as the least entry of the output bias's gradient.")
    last = system.model.get_submodule(system.names[-1].rpartition(".")[0])
    reads = (
        isinstance(last, torch.nn.Linear)
        and last.bias is None
        and last.out_features == system.classes
        and message.sent[len(system.names) - 1]
        and len(private) == 1
    )
    if reads:
        read = tuple(row_sum(message.gradient.hidden[len(system.names) - 1]).tolist())
        note = (
            "The output layer has no bias: read as the row of its weights' gradient with the least sum, "
            "which is right where the features before it add up to something positive."
        )
        if UNDECIDED not in read:
            return Labels("row_sum", read, true, note), Known(read)
    note = (
        "No rule applies: the model does not end in a linear layer whose gradient is sent. The attacks are "
        "told the labels."
    )
    return Labels("none", (), true, note), told


def _least_entry(message: Message, true: tuple[int, ...], told: Known, note: str) -> tuple[Labels, LabelRule]:
    """The label that the least entry of the output bias's gradient names, if it names one."""
    rule = BiasMin()
    read = tuple(rule(message.gradient).tolist())
    if UNDECIDED in read:
        return Labels(rule.name, (), true, "The least entry of the bias names no label."), told
    return Labels(rule.name, read, true, note), rule


def _smoothed_labels(
    system: System, message: Message, true: tuple[int, ...], told: Known
) -> tuple[Labels, LabelRule]:
    """The same where labels are smoothed: of one image's gradient the target is known."""
    if len(true) > 1 or not system.own_output or not all(message.sent[-2:]) or message.rounds != FedSGD():
        note = (
            "Labels are smoothed, and then a rule applies only to one gradient of one image, of a model that "
            "ends in a linear layer with bias. The attacks are told the labels."
        )
        return Labels("none", (), true, note), told
    found = soft_labels(message.gradient, system.parameters)
    label = int(found.labels[0])
    if label == UNDECIDED:  # as after noise: the least entry may name the label all the same
        note = "The gradient fits no target exactly: read as the least entry of the output bias's gradient."
        return _least_entry(message, true, told, note)
    note = f"Read off the target, whose labels are smoothed by {float(found.smoothing[0]):.3g}."
    return Labels("soft_labels", (label,), true, note), Known((label,))


def _attacks(
    system: System, message: Message, private: Private, rule: LabelRule, evaluations: int
) -> tuple[list[Attack], list[str]]:
    """The attacks that apply, and sentences on those that do not."""
    attacks: list[Attack] = []
    left_out: list[str] = []
    try:
        one = len(private) == 1 and message.sharing == FedSGD()
        if not (one and system.own_output and message.complete):
            raise InputError(
                "it needs the whole gradient of one image with a label that is not smoothed, of a model that "
                "ends in a linear layer with bias."
            )
        from wdlg.attacks.exact_stack import stack_of

        stack_of(system.network)
        attacks.append(Exact(label_rule=rule, refine=2, name="closed form"))
    except InputError as error:
        left_out.append(f"closed form: {error}")
    if is_large(system, private):
        left_out.append("LM: the model or the images are too large for its equations.")
    else:
        attacks.append(levenberg_marquardt(message, private, rule))
    attacks.append(first_order(message, rule, evaluations))
    return attacks, left_out


def first_order(message: Message, rule: LabelRule, evaluations: int) -> Optimised:
    """The loss of iDLG under L-BFGS, on what was sent."""
    return Optimised("iDLG (L-BFGS)", rule, loss=message.loss, first_loss=100.0, evaluations=evaluations)


def levenberg_marquardt(message: Message, private: Private, rule: LabelRule) -> Optimised:
    """Levenberg-Marquardt on what was sent."""
    precision = "single" if private.images.numel() >= SINGLE_FROM else "double"
    optimizer = LevenbergMarquardt(precision=precision)
    return Optimised(
        "LM",
        rule,
        loss=message.loss,
        optimizer=optimizer,
        evaluations=ITERATIONS * (optimizer.cost(private.images.numel()) + 1),
        stop_loss=LM_STOP_LOSS,
    )


def adaptive(system: System, message: Message, private: Private, defence: Defence, rule: LabelRule) -> Attack:
    """The attack of somebody who knows the defence, where that can be computed; else one who does not."""
    if is_large(system, private):
        return first_order(message, rule, EVALUATIONS)
    if not message.complete:
        return levenberg_marquardt(message, private, rule)
    return MostLikely(defence, starts=0, label_rule=rule)


def _attempt(
    system: System,
    message: Message,
    private: Private,
    method: Attack,
    seed: int,
    start: int,
    defence: str = "none",
) -> Attempt:
    seen = Observation(
        system.network, system.parameters, message.gradient, sharing=message.sharing, images=len(private)
    )
    result = attack(seen, method, seed=seed + start)
    images = result.best_images.detach()
    truth = private.images.to(images)
    found, errors = matched(images.view(1, *truth.shape), truth[None])
    images = found[0]
    return Attempt(
        attack=method.name,
        start=start,
        status=Status(int(result.status)).name.lower(),
        evaluations=int(result.evaluations),
        seconds=float(result.seconds),
        mse=tuple(errors[0].tolist()),
        psnr=tuple(float(one) for one in psnr(images, truth)),
        images=images.float().numpy(),
        defence=defence,
    )


def _defended(
    system: System,
    message: Message,
    private: Private,
    defence: Defence,
    found: Leak,
    seed: int,
    starts: int,
) -> Defended:
    changed = message.defended(defence, seed)
    labels, rule = read_labels(system, changed, private)
    name = title(defence)
    method = adaptive(system, changed, private, message.as_applied(defence), rule)
    attempts = tuple(
        _attempt(system, changed, private, method, seed, start, defence=name) for start in range(starts)
    )
    return Defended(
        name=name,
        relative_error=float(relative_error(changed.gradient, message.gradient)),
        label_leaked=labels.leaked,
        attempts=attempts,
        bound=found.bound(defence.level) if isinstance(defence, Noise) else None,
    )


def _weights_digest(system: System) -> str:
    """SHA-256 of all weights and buffers, in their order."""
    sha = hashlib.sha256()
    for name, tensor in system.model.state_dict().items():
        sha.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        sha.update(
            tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            if tensor.ndim
            else repr(tensor.item()).encode()
        )
    return sha.hexdigest()
