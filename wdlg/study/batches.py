"""Batches: a participant who sends the mean gradient of several images, and what is recovered of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.attacks.base import Attack, Observation, Reconstruction
from wdlg.attacks.run import attack
from wdlg.data import Sample
from wdlg.errors import InputError, require_count
from wdlg.evaluation import matched
from wdlg.networks.base import Network, Parameters
from wdlg.networks.lenet import LeNet
from wdlg.sharing.federated import FedSGD, Sharing
from wdlg.study.cases import generator


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
