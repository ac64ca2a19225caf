"""The engine: attacks flow through a batch of fixed size, computed together, each ending on its own.

An attack that ends hands its place to the next one that waits, so the memory needed is that of the batch,
whatever the number of attacks. Once nobody waits, the batch shrinks. The result of an attack does not depend
on its neighbours, up to rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from tqdm import tqdm

from wdlg import compiled
from wdlg.attacks import labels
from wdlg.attacks.base import DIVERGENCE, Attack, Observation, Reconstruction, Status
from wdlg.errors import InputError, require_count, told
from wdlg.networks.base import Network, Parameters
from wdlg.optimizers import State
from wdlg.rows import Rows
from wdlg.shapes import require_alike, require_tensor
from wdlg.updates.gradient import Gradient

BATCH_SIZE = 32
"""Attacks computed together. On a CPU more are no faster; on a GPU take hundreds."""


class Observer(Protocol):
    """Something that looks on while attacks run, such as the MSE trace of :mod:`wdlg.evaluation`."""

    def __call__(
        self, attacks: Tensor, evaluations: Tensor, iterations: Tensor, images: Tensor, loss: Tensor
    ) -> None:
        """Called with the attacks' numbers, evaluations and iterations so far (A,), images and losses."""


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


@dataclass(frozen=True)
class Start:
    """What attacks start from.

    Args:
        observation: what the attacker sees, B attacks.
        dummy_images: starting images (B, channels, height, width), N(0, 1) in the papers.
        dummy_labels: starting label logits (B, K), needed by the joint rule only.
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


def reconstruct(
    attack: Attack,
    observation: Observation,
    dummy_images: Tensor,
    dummy_labels: Tensor | None = None,
    *,
    observers: Sequence[Observer] = (),
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
) -> Reconstruction:
    """Recover images and labels from shared gradients by gradient matching (Algorithm 1).

    Ctrl-C ends the run with what there is; see :attr:`Reconstruction.interrupted`.

    Args:
        attack: what to run.
        observation, dummy_images, dummy_labels: as in :class:`Start`.
        observers: called at every evaluation; they cannot influence the attack.
        batch_size: attacks that are computed together; bounds the memory.
        progress: show a bar with attacks done, how many converged, and the time left.

    Raises:
        InputError: the dummies do not fit the observation.
    """
    start = Start(observation, dummy_images, dummy_labels)
    numbers: list[Tensor] = []
    parts: list[Reconstruction] = []
    with tqdm(total=len(start), desc=attack.name, unit="attack", disable=not progress) as bar:
        converged = 0
        for number, part in reconstruct_each(attack, [start], observers=observers, batch_size=batch_size):
            numbers.append(number)
            parts.append(part)
            converged += int((part.status == Status.CONVERGED).sum())
            bar.update(len(part))
            bar.set_postfix_str(f"{converged} converged", refresh=False)
    if sum(map(len, parts)) < len(start):
        raise KeyboardInterrupt  # it came while attacks were about to begin
    order = torch.cat(numbers).argsort()
    return Reconstruction.join(parts).select(order)


def reconstruct_each(
    attack: Attack,
    starts: Iterable[Start],
    *,
    observers: Sequence[Observer] = (),
    batch_size: int = BATCH_SIZE,
) -> Iterator[tuple[Tensor, Reconstruction]]:
    """Like :func:`reconstruct`, for any number of attacks: results come as attacks end, and none are kept.

    Args:
        attack: what to run.
        starts: drawn from as places become free, so that a generator may make them when they are needed.
            All for one network architecture; a network is shared if all starts hold the same parameters.
        observers: called at every evaluation, with attacks numbered from 0 in the order of the starts.
        batch_size: attacks that are computed together; bounds the memory.

    Yields:
        The numbers of attacks that have ended (A,), and their results. After Ctrl-C, all attacks that have
        begun and those of the start in hand, with the status "interrupted"; then it ends.

    Raises:
        InputError: the dummies do not fit their observation.
    """
    require_count("batch_size", batch_size)
    return _Queue(attack, starts, observers, batch_size).run()


@dataclass(frozen=True)
class _Shared:
    """One network for all attacks of the batch: not a row, so never copied."""

    parameters: Parameters


@dataclass(frozen=True)
class _Slots(Rows):
    """The attacks in hand, one row for each; ``targets`` is None where labels are optimised."""

    number: Tensor
    gradient: Gradient
    networks: Parameters | _Shared
    labels: Tensor
    targets: Tensor | None
    state: State
    evaluations: Tensor
    best: Tensor
    best_loss: Tensor
    loss_trace: Tensor
    iteration_trace: Tensor
    seconds: Tensor

    def __len__(self) -> int:
        return len(self.number)

    @property
    def parameters(self) -> Parameters:
        """The networks, one for each attack or one for all."""
        return self.networks.parameters if isinstance(self.networks, _Shared) else self.networks

    def with_own_networks(self) -> _Slots:
        """The same attacks, each with a network of its own."""
        if isinstance(self.networks, _Shared):
            return replace(self, networks=self.networks.parameters.select(torch.zeros_like(self.number)))
        return self


def load_compiled() -> None:
    """Load the compiled loops that attacks use, so that no attack's time holds the import of a compiler."""
    if compiled.in_use():
        from wdlg.losses import compiled_sinkhorn  # noqa: F401
        from wdlg.networks import compiled_pass  # noqa: F401
        from wdlg.optimizers import compiled_lbfgs  # noqa: F401
        from wdlg.updates import compiled_distance  # noqa: F401


class _Queue:
    """One call of :func:`reconstruct_each`."""

    def __init__(
        self, attack: Attack, starts: Iterable[Start], observers: Sequence[Observer], batch_size: int
    ) -> None:
        self.attack = attack
        self.observers = observers
        self.batch_size = batch_size
        self.joint = attack.label_rule == "joint"
        self.network: Network
        self.waiting = iter(starts)
        self.in_hand: Start | None = None
        self.taken = 0  # of the start in hand
        self.begun = 0  # of all starts
        self.ended: list[tuple[Tensor, Reconstruction]] = []

    def run(self) -> Iterator[tuple[Tensor, Reconstruction]]:
        slots = None
        load_compiled()
        try:
            slots = self._take(self.batch_size)
            while slots is not None:
                yield from self._emit()
                slots = self._step(slots)
            yield from self._emit()
        except KeyboardInterrupt:
            if slots is not None:
                self._interrupt(slots)
            if start := self._load():
                self._end_unbegun(*self._next(start, len(start)), Status.INTERRUPTED)
            yield from self._emit()

    def _emit(self) -> Iterator[tuple[Tensor, Reconstruction]]:
        while self.ended:
            yield self.ended.pop(0)

    # Attacks come in.

    def _load(self) -> Start | None:
        """The start in hand, with attacks that have not begun; None if there is no more."""
        if self.in_hand is None and (start := next(self.waiting, None)) is not None:
            _require_dummies(self.attack, start)
            self.in_hand, self.taken = start, 0
        return self.in_hand

    def _next(self, start: Start, room: int) -> tuple[Tensor, Start]:
        """Numbers and copies of up to ``room`` attacks of the start in hand."""
        index = torch.arange(self.taken, min(self.taken + room, len(start)))
        number = self.begun + torch.arange(len(index))
        self.taken += len(index)
        self.begun += len(index)
        if self.taken == len(start):
            self.in_hand = None
        return number, start.select(index)

    def _take(self, room: int) -> _Slots | None:
        """Begin up to ``room`` waiting attacks; None if none can begin."""
        slots = None
        while room and (start := self._load()):
            fresh = self._begin(*self._next(start, room))
            if fresh is not None:
                slots = fresh if slots is None else _Slots.join(_alike(slots, fresh))
                room -= len(fresh)
        return slots

    def _begin(self, number: Tensor, start: Start) -> _Slots | None:
        """Attacks before their first evaluation; those for which no label is found end here."""
        self.network = start.observation.network
        if self.joint:
            assert start.dummy_labels is not None
            x = torch.cat((start.dummy_images.flatten(1), start.dummy_labels), dim=1)
            label = torch.full((len(start),), labels.UNDECIDED, device=x.device)
            targets = None
        else:
            label = labels.recover(self.attack.label_rule, start.observation.gradient)
            decided = label != labels.UNDECIDED
            if not decided.all():
                lost, kept = (mask.nonzero()[:, 0].cpu() for mask in (~decided, decided))
                self._end_unbegun(number[lost], start.select(lost), Status.UNDECIDED)
                if not len(kept):
                    return None
                number, start, label = number[kept], start.select(kept), label[kept]
            x = start.dummy_images.flatten(1).clone()
            targets = F.one_hot(label, self.network.classes).to(x.dtype)
        observation = start.observation
        shape = (len(x), self.attack.evaluations)
        return _Slots(
            number=number.to(x.device),
            gradient=observation.gradient,
            networks=_Shared(observation.parameters)
            if observation.shares_network
            else observation.parameters,
            labels=label,
            targets=targets,
            state=self.attack.optimizer.init(x),
            evaluations=torch.zeros_like(label),
            best=x.clone(),
            best_loss=x.new_full(shape[:1], torch.inf),
            loss_trace=x.new_full(shape, torch.nan),
            iteration_trace=torch.full(shape, -1, dtype=torch.int32, device=x.device),
            seconds=torch.zeros(len(x), dtype=torch.float64, device=x.device),
        )

    # One evaluation of all.

    def _step(self, slots: _Slots) -> _Slots | None:
        started = _working_time()
        state = slots.state
        with compiled.one_blas_thread():
            loss, grad = self._evaluate(slots)
        self._record(slots, loss)
        better = loss < slots.best_loss
        slots = replace(
            slots,
            state=self.attack.optimizer.update(state, loss, grad),
            evaluations=slots.evaluations + 1,
            best=torch.where(better[:, None], state.x, slots.best),
            best_loss=torch.where(better, loss, slots.best_loss),
        )
        status = self._judge(slots, loss, grad)
        slots.seconds.add_((_working_time() - started) / len(slots))
        ended = (status >= 0).nonzero()[:, 0]
        if not len(ended):
            return slots
        self._end(slots, state.x, status, ended)
        return self._refill(slots, ended)

    def _evaluate(self, slots: _Slots) -> tuple[Tensor, Tensor]:
        """Matching loss (B,) and its gradient by the variables (B, n)."""
        variables = slots.state.x.detach().requires_grad_()
        images, targets = self._images(variables), slots.targets
        if targets is None:
            targets = torch.softmax(variables[:, images[0].numel() :], dim=-1)
        dummy = self.network.gradient(slots.parameters, images, targets)
        loss = self.attack.loss(dummy, slots.gradient)
        (grad,) = torch.autograd.grad(loss.sum(), variables)
        return loss.detach(), grad

    def _record(self, slots: _Slots, loss: Tensor) -> None:
        row = torch.arange(len(slots), device=loss.device)
        slots.loss_trace[row, slots.evaluations] = loss
        slots.iteration_trace[row, slots.evaluations] = slots.state.iterations.int()
        images = self._images(slots.state.x)
        for observe in self.observers:
            observe(slots.number, slots.evaluations, slots.state.iterations, images, loss)

    def _judge(self, slots: _Slots, loss: Tensor, grad: Tensor) -> Tensor:
        """Status code of each attack after an evaluation, -1 for those that go on."""
        status = torch.full_like(slots.labels, -1)
        status[slots.state.stalled] = Status.STALLED
        status[slots.evaluations == self.attack.evaluations] = Status.BUDGET_SPENT
        status[loss > DIVERGENCE * slots.loss_trace[:, 0]] = Status.DIVERGED
        status[loss < self.attack.stop_loss] = Status.CONVERGED
        largest = grad.abs().amax(1)  # NaN if any entry is
        status[~(torch.isfinite(loss) & torch.isfinite(largest))] = Status.NON_FINITE
        return status

    def _refill(self, slots: _Slots, ended: Tensor) -> _Slots | None:
        """Waiting attacks take the places of those that ended; without any, the last ones move up."""
        fresh = self._take(len(ended))
        if fresh is not None:
            slots, fresh = _alike(slots, fresh)
            slots = slots.put(ended[: len(fresh)], fresh)
            ended = ended[len(fresh) :]
        count = len(slots) - len(ended)
        if not count:
            return None
        staying = torch.ones(len(slots), dtype=torch.bool, device=ended.device)
        staying[ended] = False
        holes, movers = ended[ended < count], count + staying[count:].nonzero()[:, 0]
        if len(holes):
            slots = slots.put(holes, slots.select(movers))
        return slots.first(count) if count < len(slots) else slots

    # Attacks go out.

    def _interrupt(self, slots: _Slots) -> None:
        """All attacks end where they stand; the evaluation in hand does not count."""
        row = torch.arange(len(slots), device=slots.number.device)
        slots.loss_trace[row, slots.evaluations] = torch.nan
        slots.iteration_trace[row, slots.evaluations] = -1
        ended = torch.cat([slots.number[:0], *(number for number, _ in self.ended)])
        left = (~torch.isin(slots.number, ended)).nonzero()[:, 0]
        self._end(slots, slots.state.x, torch.full_like(slots.number, Status.INTERRUPTED.value), left)

    def _end(self, slots: _Slots, x: Tensor, status: Tensor, places: Tensor) -> None:
        """Attacks at these places end, ``x`` being their last variables."""
        last, best = x[places], slots.best[places]
        made = slots.evaluations[places]
        trace = slots.loss_trace[places]
        label = slots.labels[places]
        if self.joint:
            label = last[:, self._images(last)[0].numel() :].argmax(-1)
        result = Reconstruction(
            images=self._images(last),
            best_images=self._images(best),
            labels=label,
            status=status[places],
            loss=trace.gather(1, (made - 1).clamp_min(0)[:, None])[:, 0],
            best_loss=slots.best_loss[places],
            first_loss=trace[:, 0],
            iterations=slots.state.iterations[places],
            evaluations=made,
            seconds=slots.seconds[places],
            loss_trace=trace,
            iteration_trace=slots.iteration_trace[places],
        )
        self.ended.append((slots.number[places], result))

    def _end_unbegun(self, number: Tensor, start: Start, status: Status) -> None:
        """Attacks end before their first evaluation."""
        images = start.dummy_images
        counts = torch.zeros(len(start), dtype=torch.long, device=images.device)
        nothing = images.new_full((len(start), self.attack.evaluations), torch.nan)
        label = torch.full_like(counts, labels.UNDECIDED)
        if not self.joint and status != Status.UNDECIDED:
            label = labels.recover(self.attack.label_rule, start.observation.gradient)
        result = Reconstruction(
            images=images.clone(),
            best_images=images.clone(),
            labels=label,
            status=torch.full_like(counts, status.value),
            loss=nothing[:, 0],
            best_loss=torch.full_like(nothing[:, 0], torch.inf),
            first_loss=nothing[:, 0],
            iterations=counts,
            evaluations=counts,
            seconds=torch.zeros_like(counts, dtype=torch.float64),
            loss_trace=nothing,
            iteration_trace=torch.full_like(nothing, -1, dtype=torch.int32),
        )
        self.ended.append((number.to(images.device), result))

    def _images(self, variables: Tensor) -> Tensor:
        shape = self.network.image_shape
        return variables[:, : math.prod(shape)].unflatten(1, shape)


def _working_time() -> float:
    """Seconds of a clock that stands still while loops are compiled."""
    return time.perf_counter() - compiled.seconds_compiling()


def _alike(*parts: _Slots) -> Sequence[_Slots]:
    """The same attacks, so that they can be in one batch: all with the same network, or each with its own."""
    held = [part.networks.parameters if isinstance(part.networks, _Shared) else None for part in parts]
    if all(one is not None and one is held[0] for one in held):
        return parts
    return [part.with_own_networks() for part in parts]


def _require_dummies(attack: Attack, start: Start) -> None:
    observation = start.observation
    count, network = len(observation), observation.network
    dummies: list[tuple[str, Tensor, tuple[int, ...]]] = [
        ("dummy_images", start.dummy_images, (count, *network.image_shape))
    ]
    if attack.label_rule == "joint":
        if start.dummy_labels is None:
            raise InputError("dummy_labels is missing, but the joint rule needs starting label logits.")
        dummies.append(("dummy_labels", start.dummy_labels, (count, network.classes)))
    for name, dummy, shape in dummies:
        require_tensor(name, dummy, shape)
        require_alike(name, dummy, "parameters", observation.parameters.tensors[0])
