"""Running an attack of any kind: on what is at hand, or on starts as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from wdlg.attacks.base import BATCH_SIZE, Attack, Observation, Observer, Reconstruction, Start, Status
from wdlg.errors import require_count


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
    return attack.run(starts, observers=observers, batch_size=batch_size)
