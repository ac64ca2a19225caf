"""What every attack is: what it sees, what it starts from, how it may end, and what it brings.

The attacker sees an :class:`Observation` and nothing else; the private image enters only in
:mod:`wdlg.evaluation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from wdlg.attacks.labels import UNDECIDED
from wdlg.attacks.seen import require_possible
from wdlg.errors import InputError, require_count, told
from wdlg.losses import Loss
from wdlg.networks.base import Network, Parameters, require_parameters
from wdlg.rows import Rows
from wdlg.sharing.federated import FedSGD, Sharing
from wdlg.updates.gradient import Gradient
from wdlg.updates.output_layer import Product

BATCH_SIZE = 32
"""Attacks computed together. On a CPU more are no faster; on a GPU take hundreds."""


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
    UNSURE = 7

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
            Status.UNSURE: "the picture found does not fit the gradient, or others fit it as well",
        }[self]


@dataclass(frozen=True)
class Observation:
    """All that the attacker sees, for B attacks: the architecture, its weights, the shared gradients.

    Args:
        network: the architecture, which tells image shape and class count.
        parameters: N = B networks, or N = 1 that all attacks share.
        gradient: the shared gradients, leading axis B. Where nothing was changed on the way, they must
            be gradients at these parameters, for one label each or a mixture of labels.
        sharing: how each participant made what it sent out of its images; its settings are known.
        images: of each participant. With more than one, images have shape (B, images, channels, height,
            width) throughout, and labels (B, images).

    Raises:
        InputError: the gradient has a NaN or infinite entry; shapes, precisions or devices do not fit; or the
            gradient is scaled, or one at other parameters.
    """

    network: Network
    parameters: Parameters
    gradient: Gradient
    sharing: Sharing = field(default_factory=FedSGD)
    images: int = 1

    def __post_init__(self) -> None:
        if not len(self.gradient):
            raise InputError("observation holds 0 attacks, but must hold at least 1.")
        require_count("images", self.images)
        if isinstance(self.sharing, type) or not callable(self.sharing):
            raise InputError(
                f"sharing is {told(self.sharing)}, but must be a value of wdlg.sharing, such as FedSGD()."
            )
        require_parameters(self.network, self.parameters)
        if self.images > 1 and isinstance(self.gradient.output, Product):
            raise InputError(
                f"images is {self.images}, but the gradient has been read as that of one image: take "
                "from_tensors(..., rank_one=False)."
            )
        require_possible(
            self.network, self.parameters, self.gradient, of_one=self.images == 1 and self.sharing == FedSGD()
        )

    def __len__(self) -> int:
        return len(self.gradient)

    @property
    def shares_network(self) -> bool:
        """True if one network is held for all attacks."""
        return len(self.parameters) == 1

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of what one attack recovers: (channels, height, width), or (images, channels, height, width)."""
        shape = self.network.image_shape
        return shape if self.images == 1 else (self.images, *shape)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of the label probabilities of one attack: (K,), or (images, K)."""
        return (self.network.classes,) if self.images == 1 else (self.images, self.network.classes)

    def select(self, index: Tensor) -> Observation:
        """The observations at ``index``; a shared network stays shared."""
        parameters = self.parameters if self.shares_network else self.parameters.select(index)
        return replace(self, parameters=parameters, gradient=self.gradient.select(index))

    def to(self, device: torch.device | str) -> Observation:
        """The same observations on a device, such as "cuda"."""
        return replace(self, parameters=self.parameters.to(device), gradient=self.gradient.to(device))


@dataclass(frozen=True)
class Start:
    """What attacks start from.

    Args:
        observation: what the attacker sees, B attacks.
        dummy_images: starting images (B, channels, height, width), N(0, 1) in the papers; where participants
            have several, (B, images, channels, height, width).
        dummy_labels: starting label logits (B, K), or (B, images, K); needed by the joint rule only.
    """

    observation: Observation
    dummy_images: Tensor
    dummy_labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.observation)

    def select(self, index: Tensor) -> Start:
        """The attacks at ``index``."""
        logits = None if self.dummy_labels is None else self.dummy_labels[index]
        return Start(self.observation.select(index), self.dummy_images[index], logits)

    def to(self, device: torch.device | str) -> Start:
        """The same attacks on a device, such as "cuda", where the engine then computes them."""
        logits = None if self.dummy_labels is None else self.dummy_labels.to(device)
        return Start(self.observation.to(device), self.dummy_images.to(device), logits)


@dataclass(frozen=True)
class Reconstruction(Rows):
    """What B attacks brought, with no knowledge of the truth. Leading axis B throughout.

    Attributes:
        images: the last iterate, (B, channels, height, width), or with several images of a participant
            (B, images, channels, height, width); not clamped to [0, 1].
        best_images: the iterate with the least loss.
        labels: recovered label (B,), or (B, images); ``labels.UNDECIDED`` where there is none.
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

    @classmethod
    def at_once(
        cls, images: Tensor, labels: Tensor, *, loss: Tensor | None = None, seconds: float = 0.0
    ) -> Self:
        """What an attack brings that makes a single evaluation and no move.

        The status is "converged"; or "non finite" where an image has an entry that is NaN or infinite, and
        "undecided" where there is no label.

        Args:
            images: (B, channels, height, width), or (B, images, channels, height, width).
            labels: (B,), or (B, images).
            loss: (B,); None for an attack that has none: NaN.
            seconds: that all took together.
        """
        count, device = len(images), images.device
        zeros = torch.zeros(count, dtype=torch.long, device=device)
        loss = images.new_full((count,), torch.nan) if loss is None else loss
        finite = torch.isfinite(images).flatten(1).all(1)
        undecided = (labels.view(count, -1) == UNDECIDED).any(1)
        status = torch.where(finite, Status.CONVERGED.value, Status.NON_FINITE.value)
        return cls(
            images=images,
            best_images=images,
            labels=labels,
            status=torch.where(undecided, Status.UNDECIDED.value, status),
            loss=loss,
            best_loss=loss,
            first_loss=loss,
            iterations=zeros,
            evaluations=zeros + 1,
            seconds=torch.full((count,), seconds / count, dtype=torch.float64, device=device),
            loss_trace=loss[:, None],
            iteration_trace=zeros[:, None].int(),
        )

    @classmethod
    def in_steps(cls, steps: Sequence[tuple[Tensor, Tensor]], labels: Tensor, *, seconds: float) -> Self:
        """What an attack brings that makes the same number of steps for all B, one evaluation each.

        The status is that of :meth:`at_once` for the last images.

        Args:
            steps: images (B, channels, height, width) and losses (B,) of each evaluation, at least one.
            labels: (B,), or (B, images).
            seconds: that all took together.
        """
        images, loss = steps[-1]
        last = cls.at_once(images, labels, loss=loss, seconds=seconds)
        losses = torch.stack([loss for _, loss in steps], dim=1)
        best = losses.nan_to_num(nan=torch.inf).argmin(1)
        rows = torch.arange(len(images), device=images.device)
        number = torch.arange(len(steps), device=images.device).int()
        return replace(
            last,
            best_images=torch.stack([images for images, _ in steps], dim=1)[rows, best],
            best_loss=losses[rows, best],
            first_loss=losses[:, 0],
            iterations=torch.full_like(last.iterations, len(steps) - 1),
            evaluations=torch.full_like(last.evaluations, len(steps)),
            loss_trace=losses,
            iteration_trace=number.expand(len(images), -1),
        )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def interrupted(self) -> bool:
        """True if the user stopped the run before every attack had ended."""
        return bool((self.status == Status.INTERRUPTED).any())


class Observer(Protocol):
    """Something that looks on while attacks run, such as the MSE trace of :mod:`wdlg.evaluation`."""

    def __call__(
        self, attacks: Tensor, evaluations: Tensor, iterations: Tensor, images: Tensor, loss: Tensor
    ) -> None:
        """Called with the attacks' numbers, evaluations and iterations so far (A,), images and losses."""


@runtime_checkable
class Attack(Protocol):
    """What can be run on observations: :class:`~wdlg.attacks.optimised.Optimised` and others."""

    @property
    def name(self) -> str:
        """What tables and figures call it."""

    @property
    def evaluations(self) -> int:
        """The most gradient evaluations for each attack; traces have room for as many."""

    @property
    def loss(self) -> Loss | None:
        """What it minimises; None for an attack that minimises nothing."""

    def run(
        self, starts: Iterable[Start], *, observers: Sequence[Observer] = (), batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[Tensor, Reconstruction]]:
        """Numbers (A,) and results of attacks as they end; see :func:`wdlg.attacks.run.reconstruct_each`."""


def require_attack(name: str, value: object) -> Attack:
    """Return the value if it is an attack; raise :class:`InputError` otherwise."""
    if isinstance(value, type) or not isinstance(value, Attack):
        raise InputError(f"{name} is {told(value)}, but must be an attack, such as wdlg.IDLG.")
    return value


def require_device(name: str, value: str) -> torch.device:
    """Return the device of that name if this machine has it.

    Raises:
        InputError: it is no "cpu", "cuda" or "cuda:1", or torch finds no such GPU.
    """
    try:
        device = torch.device(value)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"{name} is {told(value)}, but must be cpu, cuda, or cuda:1 and so on.")
    found = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= found:
        raise InputError(
            f"{name} is {told(value)}, but torch {torch.__version__} finds {found or 'no'} CUDA devices "
            "here: take cpu, or install a torch with CUDA and the driver that it needs."
        )
    return device
