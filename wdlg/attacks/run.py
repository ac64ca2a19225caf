"""Running an attack of any kind: on what is at hand, or on starts as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from wdlg.attacks.base import (
    BATCH_SIZE,
    Attack,
    Observation,
    Observer,
    Reconstruction,
    Start,
    Status,
    require_attack,
)
from wdlg.attacks.optimised import IDLG
from wdlg.errors import InputError, require_count, told
from wdlg.networks.module import ModuleNetwork
from wdlg.sharing.federated import FedSGD, Sharing
from wdlg.updates.gradient import from_tensors

IDLG_ON_A_MODULE = replace(IDLG, first_loss=100.0)
"""iDLG for networks of any weights: gradients of one's own may be so small that L-BFGS, whose tolerances are
absolute, takes them for zero. So its loss begins at 100, as it does by itself on networks like DLG's."""


def attack(
    observation: Observation,
    method: Attack = IDLG,
    *,
    seed: int = 0,
    observers: Sequence[Observer] = (),
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
) -> Reconstruction:
    """Run an attack from dummies drawn from a seed, N(0, 1) as in the papers.

    Args:
        observation: what the attacker sees, B attacks.
        method: DLG, IDLG, WDLG or any other attack.
        seed: decides the dummies.
        observers, batch_size, progress: as in :func:`reconstruct`.

    Returns:
        What it brought; ``images`` are (B, channels, height, width).
    """
    require_attack("method", method)
    if not isinstance(observation, Observation):
        raise InputError(f"observation is {told(observation)}, but must be an Observation.")
    stream = torch.Generator().manual_seed(require_count("seed", seed, at_least=0, below=2**63))
    like = observation.parameters.tensors[0]
    images, labels = (
        torch.randn(len(observation), *shape, generator=stream).to(like)
        for shape in (observation.image_shape, observation.label_shape)
    )
    return reconstruct(
        method, observation, images, labels, observers=observers, batch_size=batch_size, progress=progress
    )


def attack_module(
    module: nn.Module,
    gradients: Sequence[Any] | Mapping[str, Any],
    image_shape: tuple[int, int, int],
    method: Attack = IDLG_ON_A_MODULE,
    *,
    images: int = 1,
    sharing: Sharing | None = None,
    mode: str = "evaluation",
    seed: int = 0,
    progress: bool = False,
) -> Reconstruction:
    """Recover the images and labels behind gradients of a torch module of one's own.

    Args:
        module: a classifier, with the weights at which the gradients were taken; see
            :class:`~wdlg.networks.module.ModuleNetwork` for what it must be.
        gradients: of the cross-entropy, as a training loop has them: in the order of ``module.parameters()``,
            or by name; see :func:`~wdlg.updates.gradient.from_tensors`.
        image_shape: (channels, height, width).
        method: DLG, IDLG, WDLG or any other attack; by default iDLG, its loss told to the optimiser in a unit
            in which it begins at 100 (``first_loss``), whatever the size of the gradients.
        images: that the mean gradient is of; with more than one, the result's images are (B, images,
            channels, height, width).
        sharing: how the participant made the gradients out of the images; None for one gradient. Steps of
            :class:`~wdlg.sharing.federated.FedAvg` are taken to be in the order of ascending labels.
        mode: of the module when they were made, "evaluation" or "training" (statistics of the batch).
        seed: decides the dummies.
        progress: show a bar.

    Raises:
        InputError: the module cannot be attacked, these cannot be its gradients, or a setting is none.

    >>> import wdlg
    >>> module = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Sigmoid(), nn.Linear(32, 10))
    >>> loss = nn.functional.cross_entropy(module(torch.rand(1, 1, 8, 8)), torch.tensor([3]))
    >>> gradients = torch.autograd.grad(loss, list(module.parameters()))
    >>> int(wdlg.attack_module(module, gradients, (1, 8, 8)).labels)
    3
    """
    require_attack("method", method)
    sharing = FedSGD() if sharing is None else sharing
    network = ModuleNetwork(module, image_shape, mode)
    of_one = images == 1 and sharing == FedSGD()
    seen = Observation(
        network,
        network.parameters(),
        from_tensors(gradients, rank_one=of_one),
        sharing=sharing,
        images=images,
    )
    return attack(seen, method, seed=seed, progress=progress)


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
        InputError: no attack; or the dummies do not fit the observation.
    """
    require_attack("attack", attack)
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
        InputError: no attack; or the dummies do not fit their observation.
    """
    require_attack("attack", attack)
    require_count("batch_size", batch_size)
    return attack.run(starts, observers=observers, batch_size=batch_size)
