"""Batches: a participant who sends the mean gradient of several images, and what is recovered of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.attacks.base import Attack, Observation, Reconstruction
from wdlg.attacks.label_counts import ESTIMATES, label_counts
from wdlg.attacks.labels import UNDECIDED, BiasSign
from wdlg.attacks.run import attack
from wdlg.data import Sample
from wdlg.errors import InputError, require_count
from wdlg.evaluation import matched
from wdlg.networks.base import Network, Parameters
from wdlg.networks.lenet import LeNet
from wdlg.sharing.federated import FedSGD, Sharing
from wdlg.study.cases import generator

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Batch:
    """Images of one participant, and the network that it computes with.

    Attributes:
        network, parameters: one network.
        truth: private images (N, C, H, W) in [0, 1].
        labels: their classes.
        sharing: what is sent.
    """

    network: Network
    parameters: Parameters
    truth: Tensor
    labels: tuple[int, ...]
    sharing: Sharing = field(default_factory=FedSGD)

    def __len__(self) -> int:
        return len(self.labels)

    def observation(self) -> Observation:
        """What the attacker sees: the mean gradient, and how many images it is of."""
        target = F.one_hot(torch.tensor(self.labels), self.network.classes).to(self.truth.dtype)
        if len(self) == 1:
            gradient = self.sharing(self.network, self.parameters, self.truth, target)
        else:
            gradient = self.sharing(self.network, self.parameters, self.truth[None], target[None])
        return Observation(
            self.network, self.parameters, gradient.as_sent(), sharing=self.sharing, images=len(self)
        )


@dataclass(frozen=True)
class Recovered:
    """What an attack on one batch brought, matched to the truth.

    Attributes:
        images: in the order of the private ones, (N, C, H, W).
        mse: of each, (N,).
        result: all that the attack said.
    """

    images: Tensor
    mse: Tensor
    result: Reconstruction


def draw_batch(
    sample: Sample,
    images: int,
    *,
    seed: int = 0,
    number: int = 0,
    repeated: bool = True,
    activation: str = "sigmoid",
    initial: str = "uniform",
) -> Batch:
    """A batch of a sample and an untrained LeNet, both drawn from a seed.

    The images of a batch are the first of those of a larger one of the same seed and number.

    Args:
        sample: private images.
        images: N.
        seed: decides network and images.
        number: of the batch among those of the seed, from 0.
        repeated: whether images may share a label; False draws each label once, and at most as many images
            as there are classes in the sample.
        activation, initial: of the network, see :class:`~wdlg.study.cases.Design`.

    Raises:
        InputError: a setting is out of range, or the sample has too few images or labels.
    """
    require_count("images", images)
    order = torch.randperm(len(sample), generator=generator(seed, "image order", number))
    labels = torch.from_numpy(sample.labels)[order]
    if not repeated:
        first = torch.stack([(labels == one).nonzero()[0, 0] for one in labels.unique()])
        order = order[first.sort().values]
    if images > len(order):
        what = "images" if repeated else "labels"
        raise InputError(f"images is {images}, but {sample.name} has only {len(order)} {what}.")
    index = order[:images].numpy()
    height, width, channels = sample.images.shape[1:]
    network = LeNet((channels, height, width), sample.num_classes, activation)
    return Batch(
        network,
        network.initial_parameters(generator=generator(seed, "network", number), distribution=initial),
        sample.tensor(index),
        tuple(sample.labels[index].tolist()),
    )


def recover(batch: Batch, method: Attack, *, seed: int = 0, progress: bool = False) -> Recovered:
    """Run an attack on a batch from noise, and match what it brings to the truth.

    Args:
        batch: what is attacked.
        method: any attack for several images, such as LM with the labels
            :class:`~wdlg.attacks.labels.Known`.
        seed: decides the dummies.
        progress: show a bar.
    """
    found = attack(batch.observation(), method, seed=seed, progress=progress)
    images = found.images if len(batch) > 1 else found.images[:, None]
    order, errors = matched(images, batch.truth[None])
    return Recovered(order[0], errors[0], found)


def compare_counts(
    sample: Sample,
    sizes: Sequence[int],
    *,
    batches: int = 100,
    seed: int = 0,
    repeated: bool = True,
    activation: str = "sigmoid",
    initial: str = "uniform",
) -> pd.DataFrame:
    """How often the labels of batches are read right, as sets and as counts.

    Args:
        sample: private images.
        sizes: of batches, N.
        batches: of each size, every one with an untrained LeNet of its own.
        seed, repeated, activation, initial: see :func:`draw_batch`.

    Returns:
        A row for each size and way to read labels. Columns images, way, answers (the share of batches with an
        answer), sets (the share in which exactly the classes that are there are named), counts (the share in
        which each has its number, too), open (labels that are not certain, in the mean), wrong (batches in
        which something is called certain that is not there). Ways are "negative entries", the rule of WDLG
        for N images; "certain", what the bias alone proves; "bias alone", its estimate for an attacker
        without the network; and the two estimates of :func:`~wdlg.attacks.label_counts.label_counts`.
    """
    import pandas as pd

    rows = []
    for images in sizes:
        drawn = [
            draw_batch(
                sample,
                images,
                seed=seed,
                number=number,
                repeated=repeated,
                activation=activation,
                initial=initial,
            )
            for number in range(require_count("batches", batches))
        ]
        network, parameters = drawn[0].network, Parameters.join([one.parameters for one in drawn])
        target = F.one_hot(torch.tensor([one.labels for one in drawn]), network.classes)
        private = torch.stack([one.truth for one in drawn])
        sent = FedSGD()(network, parameters, private, target.to(private.dtype)).as_sent()
        true = target.sum(1)
        alone = label_counts(sent, images)
        told = BiasSign()(sent, images).view(batches, -1)
        read = {
            "negative entries": _counts_of(told, network.classes),
            "certain": torch.where(alone.decided[:, None], alone.counts, UNDECIDED),
            "bias alone": alone.counts,
        } | {way: label_counts(sent, images, parameters, by=way).counts for way in ESTIMATES}
        for way, counts in read.items():
            rows.append(
                {
                    "images": images,
                    "way": way,
                    "answers": float((counts != UNDECIDED).all(1).double().mean()),
                    "sets": float(((counts > 0) == (true > 0)).all(1).double().mean()),
                    "counts": float((counts == true).all(1).double().mean()),
                    "open": float(alone.open.double().mean()),
                    "wrong": int((alone.certain > true).any(1).sum()),
                }
            )
    return pd.DataFrame(rows)


def _counts_of(labels: Tensor, classes: int) -> Tensor:
    """How often each class is among labels (B, N), (B, K); ``UNDECIDED`` where they are."""
    counts = F.one_hot(labels.clamp_min(0), classes).sum(1)
    return torch.where((labels == UNDECIDED).any(1, keepdim=True), UNDECIDED, counts)
