"""The engine: attacks flow through a batch of fixed size, computed together, each ending on its own.

An attack that ends hands its place to the next one that waits, so the memory needed is that of the batch,
whatever the number of attacks. Once nobody waits, the batch shrinks. The result of an attack does not depend
on its neighbours, up to rounding.

What is big is where the attacks compute, which may be a GPU; the log of each attack is on the CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wdlg import compiled
from wdlg.attacks.base import Observation, Observer, Reconstruction, Start, Status
from wdlg.attacks.endings import GOES_ON, Endings
from wdlg.attacks.labels import UNDECIDED
from wdlg.attacks.objective import Objective
from wdlg.attacks.waiting import Waiting
from wdlg.networks.base import Parameters
from wdlg.optimizers import Optimizer, SquaresOptimizer, State
from wdlg.rows import Rows
from wdlg.updates.gradient import Gradient


def run(
    objective_of: Callable[[Observation], Objective],
    optimizer: Optimizer | SquaresOptimizer,
    endings: Endings,
    starts: Iterable[Start],
    *,
    observers: Sequence[Observer],
    batch_size: int,
) -> Iterator[tuple[Tensor, Reconstruction]]:
    """Run attacks; arguments and results as in :func:`wdlg.attacks.run.reconstruct_each`.

    Args:
        objective_of: what is minimised, given the first observation.
        optimizer, endings: how, and until when.
        starts: of the attacks.
        observers: called at every evaluation.
        batch_size: attacks that are computed together.
    """
    load_compiled()
    return _Engine(objective_of, optimizer, endings, starts, observers, batch_size).run()


def load_compiled() -> None:
    """Load the compiled loops that attacks use, so that no attack's time holds the import of a compiler."""
    if compiled.in_use():
        from wdlg.losses import compiled_sinkhorn  # noqa: F401
        from wdlg.networks import compiled_lenet_normal, compiled_pass  # noqa: F401
        from wdlg.optimizers import compiled_lbfgs  # noqa: F401
        from wdlg.updates import compiled_distance  # noqa: F401


@dataclass(frozen=True)
class _Shared:
    """One network for all attacks of the batch: not a row, so never copied."""

    parameters: Parameters


@dataclass(frozen=True)
class _Log(Rows):
    """What is written down of attacks, on the CPU; fields as in :class:`Reconstruction`."""

    number: Tensor
    labels: Tensor
    evaluations: Tensor
    best_loss: Tensor
    loss_trace: Tensor
    iteration_trace: Tensor
    seconds: Tensor

    @classmethod
    def empty(cls, number: Tensor, labels: Tensor, room: int, dtype: torch.dtype) -> _Log:
        """Of attacks before their first evaluation, with room for so many."""
        shape = (len(number), room)
        return cls(
            number=number,
            labels=labels.cpu(),
            evaluations=torch.zeros_like(number),
            best_loss=torch.full(shape[:1], torch.inf, dtype=dtype),
            loss_trace=torch.full(shape, torch.nan, dtype=dtype),
            iteration_trace=torch.full(shape, -1, dtype=torch.int32),
            seconds=torch.zeros(len(number), dtype=torch.float64),
        )

    def __len__(self) -> int:
        return len(self.number)

    def write(self, loss: Tensor, iterations: Tensor) -> None:
        """Write an evaluation into the traces; its number is that of evaluations so far."""
        row, place = np.arange(len(self)), self.evaluations.numpy()
        self.loss_trace.numpy()[row, place] = loss.numpy()
        self.iteration_trace.numpy()[row, place] = iterations.numpy()

    def counted(self, loss: Tensor) -> tuple[_Log, Tensor]:
        """With that evaluation counted, and True where its loss is the least so far, (B,).

        A new log, since whoever is interrupted goes back to the old one.
        """
        better = loss < self.best_loss
        best = torch.where(better, loss, self.best_loss)
        traces = self.loss_trace, self.iteration_trace, self.seconds
        return _Log(self.number, self.labels, self.evaluations + 1, best, *traces), better

    def spend(self, evaluations: np.ndarray) -> None:
        """Count work that is worth so many evaluations (B,), in which the loss stays what it is; in place."""
        for row, more in enumerate(evaluations.tolist()):
            last = int(self.evaluations[row]) - 1
            for trace in (self.loss_trace, self.iteration_trace):
                trace[row, last + 1 : last + 1 + more] = trace[row, last]
            self.evaluations[row] += more

    def forget_last(self) -> None:
        """Take back what was written of evaluations that do not count."""
        for row, counted in enumerate(self.evaluations.tolist()):
            self.loss_trace[row, counted:] = torch.nan
            self.iteration_trace[row, counted:] = -1

    def result(
        self, images: Tensor, best_images: Tensor, labels: Tensor, status: Tensor, iterations: Tensor
    ) -> Reconstruction:
        """What the attacks brought, on the device of the images."""
        return Reconstruction(
            images=images,
            best_images=best_images,
            labels=labels,
            status=status,
            loss=self.loss_trace.gather(1, (self.evaluations - 1).clamp_min(0)[:, None])[:, 0],
            best_loss=self.best_loss,
            first_loss=self.loss_trace[:, 0],
            iterations=iterations,
            evaluations=self.evaluations,
            seconds=self.seconds,
            loss_trace=self.loss_trace,
            iteration_trace=self.iteration_trace,
        ).to(images.device)


@dataclass(frozen=True)
class _Slots(Rows):
    """The attacks in hand, one row for each; ``targets`` is None where labels are optimised."""

    log: _Log
    gradient: Gradient
    networks: Parameters | _Shared
    targets: Tensor | None
    state: State
    best: Tensor

    def __len__(self) -> int:
        return len(self.log)

    @property
    def parameters(self) -> Parameters:
        """The networks, one for each attack or one for all."""
        return self.networks.parameters if isinstance(self.networks, _Shared) else self.networks

    def with_own_networks(self) -> _Slots:
        """The same attacks, each with a network of its own."""
        if isinstance(self.networks, _Shared):
            return replace(self, networks=self.networks.parameters.select(torch.zeros_like(self.log.number)))
        return self


class _Engine:
    """One call of :func:`run`."""

    def __init__(
        self,
        objective_of: Callable[[Observation], Objective],
        optimizer: Any,
        endings: Endings,
        starts: Iterable[Start],
        observers: Sequence[Observer],
        batch_size: int,
    ) -> None:
        self.objective_of = objective_of
        self.optimizer = optimizer
        self.endings = endings
        self.waiting = Waiting(starts, self._look_at)
        self.observers = observers
        self.batch_size = batch_size
        self.takes_squares = getattr(optimizer, "takes_squares", False)
        self.ended: list[tuple[Tensor, Reconstruction]] = []
        self.objective: Objective

    def run(self) -> Iterator[tuple[Tensor, Reconstruction]]:
        slots = None
        try:
            slots = self._begin(self.batch_size)
            while slots is not None:
                yield from self._emit()
                with compiled.one_blas_thread():
                    while slots is not None and not self.ended:
                        slots = self._step(slots)
            yield from self._emit()
        except KeyboardInterrupt:
            if slots is not None:
                self._interrupt(slots)
            for number, start in self.waiting.rest_of_the_start():
                labels = self.objective.labels(start.observation)
                self._end_unbegun(number, start, labels, Status.INTERRUPTED)
            yield from self._emit()

    def _emit(self) -> Iterator[tuple[Tensor, Reconstruction]]:
        while self.ended:
            yield self.ended.pop(0)

    # Attacks come in.

    def _look_at(self, start: Start) -> None:
        """The first start tells what is minimised, and all must fit that."""
        if not hasattr(self, "objective"):
            self.objective = self.objective_of(start.observation)
        self.objective.require_dummies(start)

    def _begin(self, room: int) -> _Slots | None:
        """Up to ``room`` waiting attacks before their first evaluation; None if none can begin."""
        slots = None
        while room:
            parts = list(self.waiting.take(room))
            if not parts:
                break
            for number, start in parts:
                fresh = self._before_the_first(number, start)
                if fresh is not None:
                    slots = fresh if slots is None else _Slots.join(_alike(slots, fresh))
                    room -= len(fresh)
        return slots

    def _before_the_first(self, number: Tensor, start: Start) -> _Slots | None:
        """Attacks that begin; those for which no label is found end here."""
        objective = self.objective
        labels = objective.labels(start.observation)
        if not objective.label_rule.joint:
            decided = (labels != UNDECIDED).view(len(labels), -1).all(1)
            if not decided.all():
                lost, kept = (mask.nonzero()[:, 0].cpu() for mask in (~decided, decided))
                self._end_unbegun(number[lost], start.select(lost), labels[lost], Status.UNDECIDED)
                if not len(kept):
                    return None
                number, start, labels = number[kept], start.select(kept), labels[kept]
        x = objective.variables(start)
        observation = start.observation
        shared = observation.shares_network
        return _Slots(
            log=_Log.empty(number, labels, self.endings.evaluations, x.dtype),
            gradient=observation.gradient,
            networks=_Shared(observation.parameters) if shared else observation.parameters,
            targets=objective.targets(labels, x),
            state=self.optimizer.init(x),
            best=x.clone(),
        )

    # One evaluation of all.

    def _step(self, slots: _Slots) -> _Slots | None:
        started = _working_time()
        state, log = slots.state, slots.log
        loss, slope = self.objective(state.x, slots.targets, slots.parameters, slots.gradient)
        if self.takes_squares:
            state, loss, slope = self.optimizer.settle(state, loss, slope)
        loss_seen, iterations = loss.cpu(), state.iterations.cpu()
        log.write(loss_seen, iterations)
        images = self.objective.images(state.x)
        for observe in self.observers:
            observe(log.number, log.evaluations, iterations, images, loss_seen)
        first_loss = log.loss_trace[:, 0]
        judged, judged_first = loss_seen, first_loss
        unit = self.endings.unit(first_loss)
        if unit is not None:
            judged, judged_first = loss_seen * unit, first_loss * unit
            unit = unit.to(loss.device)
            loss, slope = loss * unit, slope * unit[:, None]
        if self.takes_squares:
            moved, short = self._next_trials(slots, state, loss, slope)
        else:
            moved, short = self.objective.projected(self.optimizer.update(state, loss, slope)), None
        log, better = log.counted(loss_seen)
        # Copied: places are overwritten when other attacks take them, and observers may keep what they saw.
        best = (
            state.x.clone()
            if better.all()
            else torch.where(better.to(loss.device)[:, None], state.x, slots.best)
        )
        slots = _Slots(log, slots.gradient, slots.networks, slots.targets, moved, best)
        status = self.endings.judge(
            loss=judged.numpy(),
            first_loss=judged_first.numpy(),
            largest_slope=_largest(slope),
            evaluations=log.evaluations.numpy() if short is None else short,
            stalled=moved.stalled.cpu().numpy(),
        )
        if self.takes_squares:
            # A place is left for the evaluation of each trial; an attack that stalls has none.
            left = self.endings.evaluations - log.evaluations.numpy() - (status == GOES_ON)
            log.spend(np.minimum(moved.spent.cpu().numpy(), left))  # type: ignore[attr-defined]
        log.seconds.numpy()[:] += (_working_time() - started) / len(slots)
        if (status == GOES_ON).all():
            return slots
        ended = torch.from_numpy((status != GOES_ON).nonzero()[0])
        self._end(slots, state.x, torch.from_numpy(status), ended)
        return self._refill(slots, ended)

    def _next_trials(
        self, slots: _Slots, state: Any, loss: Tensor, slope: Tensor
    ) -> tuple[State, np.ndarray]:
        """The optimiser's next trials, and evaluations (B,): all, where too few are left to pay for a trial.

        An attack that ends gets none: to make it would take longer than much of what it has done.
        """
        evaluations, most = slots.log.evaluations.numpy() + 1, self.endings.evaluations
        needed = evaluations + self.optimizer.cost(state.x.shape[1]) + 1
        evaluations = np.where(needed > most, most, evaluations)
        status = self.endings.judge(
            loss=loss.cpu().numpy(),
            first_loss=slots.log.loss_trace.numpy()[:, 0],
            largest_slope=_largest(slope),
            evaluations=evaluations,
            stalled=np.zeros(len(slots), dtype=bool),
        )

        def problem(place: int) -> tuple[Tensor, Tensor | None, Parameters, Gradient]:
            one = torch.tensor([place], device=slope.device)
            targets = None if slots.targets is None else slots.targets[one]
            parameters = slots.parameters if len(slots.parameters) == 1 else slots.parameters.select(one)
            return state.x[one], targets, parameters, slots.gradient.select(one)

        def normal_matrix(place: int) -> Tensor:
            return self.objective.normal_matrix(*problem(place), self.optimizer.dtype)

        def bend(place: int, step: Tensor) -> Tensor:
            return self.objective.bend(*problem(place), step[None])[0]

        going_on = torch.from_numpy(status == GOES_ON)
        return self.optimizer.update(state, loss, slope, normal_matrix, bend, going_on), evaluations

    def _refill(self, slots: _Slots, ended: Tensor) -> _Slots | None:
        """Waiting attacks take the places of those that ended; without any, the last ones move up."""
        fresh = self._begin(len(ended))
        if fresh is not None:
            slots, fresh = _alike(slots, fresh)
            slots = slots.put(ended[: len(fresh)], fresh)
            ended = ended[len(fresh) :]
        count = len(slots) - len(ended)
        if not count:
            return None
        staying = torch.ones(len(slots), dtype=torch.bool)
        staying[ended] = False
        holes, movers = ended[ended < count], count + staying[count:].nonzero()[:, 0]
        if len(holes):
            slots = slots.put(holes, slots.select(movers))
        return slots.first(count) if count < len(slots) else slots

    # Attacks go out.

    def _interrupt(self, slots: _Slots) -> None:
        """All attacks end where they stand; the evaluation in hand does not count."""
        slots.log.forget_last()
        ended = torch.cat([slots.log.number[:0], *(number.cpu() for number, _ in self.ended)])
        left = (~torch.isin(slots.log.number, ended)).nonzero()[:, 0]
        self._end(slots, slots.state.x, torch.full_like(slots.log.number, Status.INTERRUPTED.value), left)

    def _end(self, slots: _Slots, x: Tensor, status: Tensor, places: Tensor) -> None:
        """Attacks at these places end, ``x`` being their last variables."""
        last, log = x[places], slots.log.select(places)
        labels = log.labels
        if self.objective.label_rule.joint:
            labels = self.objective.logits(last).argmax(-1)
        result = log.result(
            images=self.objective.images(last),
            best_images=self.objective.images(slots.best[places]),
            labels=labels,
            status=status[places],
            iterations=slots.state.iterations[places],
        )
        self.ended.append((log.number, result))

    def _end_unbegun(self, number: Tensor, start: Start, labels: Tensor, status: Status) -> None:
        """Attacks end before their first evaluation."""
        images = start.dummy_images
        log = _Log.empty(number, labels, self.endings.evaluations, images.dtype)
        result = log.result(
            images=images.clone(),
            best_images=images.clone(),
            labels=labels,
            status=torch.full_like(number, status.value),
            iterations=torch.zeros_like(number),
        )
        self.ended.append((number, result))


def _largest(slope: Tensor) -> np.ndarray:
    """Largest absolute entry of each row (B, n), NaN if one is NaN; (B,)."""
    if slope.device.type == "cpu":
        rows = slope.numpy()
        return np.maximum(rows.max(1), -rows.min(1))
    return slope.abs().amax(1).cpu().numpy()


def _working_time() -> float:
    """Seconds of a clock that stands still while loops are compiled."""
    return time.perf_counter() - compiled.seconds_compiling()


def _alike(*parts: _Slots) -> Sequence[_Slots]:
    """The same attacks, so that they can be in one batch: all with the same network, or each with its own."""
    held = [part.networks.parameters if isinstance(part.networks, _Shared) else None for part in parts]
    if all(one is not None and one is held[0] for one in held):
        return parts
    return [part.with_own_networks() for part in parts]
