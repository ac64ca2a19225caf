"""The cases of a study: which network, which private image, which dummy. Decided by one seed.

Every random draw has its own stream, named by what it is for and its number. A case therefore does not
change when the study grows, and every method meets the same cases (paired comparison).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.attacks.base import Observation
from wdlg.data import Sample
from wdlg.errors import InputError, require_choice, require_count, require_not_negative, told
from wdlg.networks.activations import ACTIVATIONS
from wdlg.networks.base import Network, Parameters
from wdlg.networks.initial import DISTRIBUTIONS
from wdlg.networks.registry import Architecture, architecture
from wdlg.sharing.defences import Defence

POOLS = ("all", "development", "final")
"""Images that a study may use: all, or one of two parts without a common image."""

DEVELOPMENT_EVERY = 5
"""Every fifth image of a sample is for development, the others are for final comparisons."""

STREAMS = {"network": 0, "image order": 1, "dummy": 2, "defence": 3}


def generator(seed: int, stream: str, number: int = 0) -> torch.Generator:
    """The random stream of one draw: same seed, stream and number, same numbers."""
    sequence = np.random.SeedSequence(seed, spawn_key=(STREAMS[stream], number))
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))


@dataclass(frozen=True)
class Design:
    """What a study attacks.

    Args:
        networks: untrained networks that are drawn.
        images: private images for each network; the next network goes on to the next images.
        seed: decides networks, images and dummies.
        network: the architecture: a name in ``wdlg.networks.NETWORKS``, a table of a name and settings such
            as ``{"name": "convnet", "width": 16}``, or an
            :class:`~wdlg.networks.registry.Architecture`, which it then is.
        activation: of the networks, "sigmoid", "relu" or "tanh"; None for the architecture's own, sigmoid for
            a LeNet.
        initial: the distribution of their weights, "uniform" or "torch", see
            :meth:`~wdlg.networks.base.Network.initial_parameters`; None for the architecture's own, uniform
            for a LeNet.
        classes: output units of the networks; None for the data set's own number. With fewer, only images
            with a label below it are used.
        first_image: None draws the order of the images from the seed; a number takes those images of the
            sample that the pool and the classes leave, as they stand, from the image at that position on.
        first_network: number of the first network; its images and dummies are those that it has in a design
            that starts from 0.
        pool: which images may be drawn: "all", "development" (every fifth of the sample), or "final" (the
            others), so that a loss can be searched for on images that its final comparison does not use.
        defence: what is done to each gradient before it is sent, from :mod:`wdlg.sharing.defences`; None for
            nothing. Its random numbers belong to the case: the same for every strength of a defence.
        starts: dummies for each image, each a case of its own.
        start_distance: standard deviation of the dummy images around their private images, in units of the
            pixels; 0 is the private image itself. No attacker can start there: it shows whether a loss would
            hold the image. None for the noise N(0, 1) of the paper.

    Raises:
        InputError: a count or distance is out of range, or network, activation, initial, pool or defence is
            unknown.
    """

    networks: int = 10
    images: int = 1
    seed: int = 0
    network: str | Mapping[str, Any] | Architecture = "lenet"
    activation: str | None = None
    initial: str | None = None
    classes: int | None = None
    first_image: int | None = None
    first_network: int = 0
    pool: str = "all"
    defence: Defence | None = None
    starts: int = 1
    start_distance: float | None = None

    def __post_init__(self) -> None:
        require_count("networks", self.networks)
        require_count("images", self.images)
        require_count("starts", self.starts)
        if self.start_distance is not None:
            require_not_negative("start_distance", self.start_distance)
        require_count("seed", self.seed, at_least=0)
        object.__setattr__(self, "network", architecture(self.network))
        if self.activation is not None:
            require_choice("activation", self.activation, ACTIVATIONS)
        if self.initial is not None:
            require_choice("initial", self.initial, DISTRIBUTIONS)
        if self.classes is not None:
            require_count("classes", self.classes, at_least=2)
        if self.first_image is not None:
            require_count("first_image", self.first_image, at_least=0)
        require_count("first_network", self.first_network, at_least=0)
        require_choice("pool", self.pool, POOLS)
        # A class can be called, too, but makes a defence instead of applying one.
        if self.defence is not None and (not callable(self.defence) or isinstance(self.defence, type)):
            raise InputError(
                f"defence is {told(self.defence)}, but must be None or a defence with its settings, such as "
                "Noise(0.01)."
            )

    @property
    def architecture(self) -> Architecture:
        """The network, whichever way it was given."""
        return architecture(self.network)


@dataclass(frozen=True)
class Cases:
    """B private images with their networks and dummies, B = networks x images x starts.

    Attributes:
        dataset: name of the sample that the images are from.
        network: the architecture.
        parameters: N = ``design.networks`` networks.
        network_index, image_index: of each case, (B,); the latter is a position in the sample.
        truth: private images (B, C, H, W) in [0, 1].
        labels: private labels (B,).
        dummy_images, dummy_labels: starting points, (B, C, H, W) and (B, K).
        numbers: of the cases among all of the seed, (B,).
        seed: of the design.
        defence: of the design.
    """

    dataset: str
    network: Network
    parameters: Parameters
    network_index: Tensor
    image_index: Tensor
    truth: Tensor
    labels: Tensor
    dummy_images: Tensor
    dummy_labels: Tensor
    numbers: Tensor
    seed: int
    defence: Defence | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def exact(self) -> Observation:
        """What the attacker would see without a defence. A single network is shared, not copied."""
        parameters = self.parameters
        if len(parameters) > 1:
            parameters = parameters.select(self.network_index)
        target = F.one_hot(self.labels, self.network.classes).to(self.truth.dtype)
        gradient = self.network.gradient(parameters, self.truth, target).detach()
        return Observation(self.network, parameters, gradient)

    def observation(self) -> Observation:
        """What the attacker sees of these cases."""
        exact = self.exact()
        if self.defence is None:
            return exact
        streams = [generator(self.seed, "defence", number) for number in self.numbers.tolist()]
        sent = self.defence(exact.gradient, streams)
        if not all(torch.isfinite(part).all() for part in sent.parts()):
            raise InputError(f"defence is {self.defence}, but must leave every entry of the gradient finite.")
        return replace(exact, gradient=sent)

    def select(self, index: Tensor) -> Cases:
        """The cases at ``index``, with their networks only."""
        networks, network_index = self.network_index[index].unique(return_inverse=True)
        return Cases(
            self.dataset,
            self.network,
            self.parameters.select(networks),
            network_index,
            self.image_index[index],
            self.truth[index],
            self.labels[index],
            self.dummy_images[index],
            self.dummy_labels[index],
            self.numbers[index],
            self.seed,
            self.defence,
        )


def draw(sample: Sample, design: Design) -> Cases:
    """The cases of a design on a sample of images.

    Raises:
        InputError: no image of the pool has a label below ``classes``; ``first_image`` is beyond the sample,
            outside the pool, or has another label; or the images are too small for the network.
    """
    cases_a_network = design.images * design.starts
    total = design.networks * cases_a_network
    classes = sample.num_classes if design.classes is None else design.classes
    positions = np.arange(len(sample))
    in_pool = {
        "all": positions >= 0,
        "development": positions % DEVELOPMENT_EVERY == 0,
        "final": positions % DEVELOPMENT_EVERY != 0,
    }[design.pool]
    if not in_pool.any():
        raise InputError(f"pool is {design.pool!r}, but {sample.name} has only {len(sample)} images.")
    pool = torch.from_numpy(np.flatnonzero(in_pool & (sample.labels < classes)))
    if not len(pool):
        raise InputError(
            f"classes is {classes}, but must be above {sample.labels[in_pool].min()}, the least label of "
            f"{sample.name} here."
        )
    if design.first_image is None:
        order = pool[torch.randperm(len(pool), generator=generator(design.seed, "image order"))]
    else:
        order = pool.roll(-_place(sample, design, pool, classes))
    numbers = design.first_network * cases_a_network + torch.arange(total)
    image_index = order[(numbers // design.starts) % len(order)]
    labels = torch.from_numpy(sample.labels)[image_index]
    height, width, channels = sample.images.shape[1:]
    network = design.architecture.build((channels, height, width), classes, design.activation)
    distribution = design.architecture.initial(design.initial)
    parameters = Parameters.join(
        [
            network.initial_parameters(
                generator=generator(design.seed, "network", number), distribution=distribution
            )
            for number in range(design.first_network, design.first_network + design.networks)
        ]
    )
    dummy_images, dummy_labels = [], []
    for number in numbers.tolist():
        stream = generator(design.seed, "dummy", number)
        dummy_images.append(torch.randn(*network.image_shape, generator=stream))
        dummy_labels.append(torch.randn(classes, generator=stream))
    truth, noise = sample.tensor(image_index.numpy()), torch.stack(dummy_images)
    return Cases(
        dataset=sample.name,
        network=network,
        parameters=parameters,
        network_index=torch.arange(design.networks).repeat_interleave(cases_a_network),
        image_index=image_index,
        truth=truth,
        labels=labels,
        dummy_images=noise if design.start_distance is None else truth + design.start_distance * noise,
        dummy_labels=torch.stack(dummy_labels),
        numbers=numbers,
        seed=design.seed,
        defence=design.defence,
    )


def _place(sample: Sample, design: Design, pool: Tensor, classes: int) -> int:
    """The place of the first image among the positions of the pool (P,)."""
    first = require_count("first_image", design.first_image, at_least=0, below=len(sample))
    place = (pool == first).nonzero()
    if len(place):
        return int(place[0, 0])
    if (label := sample.labels[first]) >= classes:
        raise InputError(
            f"first_image is {first}, an image with the label {label}, but its label must be below classes, "
            f"{classes}."
        )
    positions = ", ".join(map(str, pool[:3].tolist()))
    raise InputError(
        f"first_image is {first}, but must be in the pool {design.pool!r}: {positions} and so on."
    )
