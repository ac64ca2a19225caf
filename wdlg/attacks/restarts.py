"""Several attempts at the same images, of which the one with the least loss counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.attacks.base import BATCH_SIZE, Attack, Observer, Reconstruction, Start, Status
from wdlg.errors import InputError, require_count, told
from wdlg.losses import Loss


@dataclass(frozen=True)
class Restarts:
    """An attack that is run ``attempts`` times: first from its dummies, then from new ones, N(0, 1).

    Of each image the attempt of least loss counts, which the attacker can tell. Evaluations, iterations and
    seconds are those of all attempts, one after the other, and so are the traces.

    Args:
        attack: what is tried.
        attempts: how often, at least 1.
        seed: decides the new dummies; those of an image do not depend on its batch.

    Raises:
        InputError: no attack, one without a loss to choose by, or a count out of range.
    """

    attack: Attack
    attempts: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.attack, Attack) or self.attack.loss is None:
            raise InputError(
                f"attack is {told(self.attack)}, but must be an attack with a loss, by which the best "
                "attempt is chosen."
            )
        require_count("attempts", self.attempts)
        require_count("seed", self.seed, at_least=0)

    @property
    def name(self) -> str:
        """Of the attack, with the attempts."""
        return f"{self.attack.name}, {self.attempts} attempts"

    @property
    def evaluations(self) -> int:
        """The most that all attempts make together."""
        return self.attempts * self.attack.evaluations

    @property
    def loss(self) -> Loss | None:
        """Of the attack."""
        return self.attack.loss

    def run(
        self, starts: Iterable[Start], *, observers: Sequence[Observer] = (), batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[Tensor, Reconstruction]]:
        """Numbers and results, start by start; see :func:`wdlg.attacks.run.reconstruct_each`."""
        begun = 0
        for start in starts:
            done: list[Reconstruction] = []
            while len(done) < self.attempts and not (done and done[-1].interrupted):
                shifted = [_Shifted(observer, begun, tuple(done)) for observer in observers]
                found = self._attempt(start, begun, len(done), shifted, batch_size)
                if found is None:
                    return  # stopped by the user before it began
                done.append(found)
            yield begun + torch.arange(len(start)), _of_least_loss(done, self.evaluations)
            if done[-1].interrupted:
                return
            begun += len(start)

    def _attempt(
        self, start: Start, begun: int, attempt: int, observers: Sequence[Observer], batch_size: int
    ) -> Reconstruction | None:
        """One attempt at all images of a start, in their order; None if it was stopped before it began."""
        if attempt:
            start = self._fresh(start, begun, attempt)
        done = list(self.attack.run([start], observers=observers, batch_size=batch_size))
        if sum(len(part) for _, part in done) < len(start):
            return None
        order = torch.cat([number for number, _ in done]).argsort()
        return Reconstruction.join([part for _, part in done]).select(order)

    def _fresh(self, start: Start, begun: int, attempt: int) -> Start:
        """The same observations with new dummies."""
        images, labels = [], []
        for number in range(begun, begun + len(start)):
            sequence = np.random.SeedSequence(self.seed, spawn_key=(number, attempt))
            stream = torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))
            images.append(torch.randn(start.dummy_images.shape[1:], generator=stream))
            if start.dummy_labels is not None:
                labels.append(torch.randn(start.dummy_labels.shape[1:], generator=stream))
        like = start.dummy_images
        return replace(
            start,
            dummy_images=torch.stack(images).to(like),
            dummy_labels=torch.stack(labels).to(like) if labels else None,
        )


@dataclass(frozen=True)
class _Shifted:
    """An observer that is told the evaluations and iterations of all attempts so far."""

    observer: Observer
    begun: int
    before: tuple[Reconstruction, ...]

    def __call__(
        self, attacks: Tensor, evaluations: Tensor, iterations: Tensor, images: Tensor, loss: Tensor
    ) -> None:
        for attempt in self.before:
            evaluations = evaluations + attempt.evaluations.cpu()[attacks]
            iterations = iterations + attempt.iterations.cpu()[attacks]
        self.observer(attacks + self.begun, evaluations, iterations, images, loss)


def _of_least_loss(attempts: Sequence[Reconstruction], room: int) -> Reconstruction:
    """Of each attack the attempt of least loss, with the traces of all, which have so much room."""
    choice = torch.stack([one.best_loss for one in attempts]).argmin(0)
    row = torch.arange(len(choice), device=choice.device)
    chosen = Reconstruction(
        **{
            field.name: torch.stack([getattr(one, field.name) for one in attempts])[choice, row]
            for field in fields(Reconstruction)
        }
    )
    made = torch.stack([one.evaluations for one in attempts])
    iterations = torch.stack([one.iterations for one in attempts])
    # What was made of each attempt moves to the front, in its order.
    place = torch.arange(attempts[0].loss_trace.shape[1], device=made.device)
    order = torch.cat([place >= count[:, None] for count in made], dim=1).int().argsort(dim=1, stable=True)
    earlier = iterations.cumsum(0) - iterations
    loss_trace = torch.cat([one.loss_trace for one in attempts], dim=1).gather(1, order)
    iteration_trace = torch.cat(
        [
            torch.where(one.iteration_trace < 0, -1, one.iteration_trace + before[:, None].int())
            for one, before in zip(attempts, earlier, strict=True)
        ],
        dim=1,
    ).gather(1, order)
    missing = room - loss_trace.shape[1]  # of attempts that were never begun
    stopped = torch.stack([one.status == Status.INTERRUPTED for one in attempts]).any(0)
    return replace(
        chosen,
        status=torch.where(stopped, Status.INTERRUPTED.value, chosen.status),
        first_loss=attempts[0].first_loss,
        iterations=iterations.sum(0),
        evaluations=made.sum(0),
        seconds=torch.stack([one.seconds for one in attempts]).sum(0),
        loss_trace=F.pad(loss_trace, (0, missing), value=torch.nan),
        iteration_trace=F.pad(iteration_trace, (0, missing), value=-1),
    )
