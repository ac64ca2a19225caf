"""Federated training of one network, round by round, with what each participant sends changed by a defence.

In every round each participant takes part with the same probability, independently of all others (a Poisson
lot; Abadi et al. 2016). Who does sends one message, made by a rule of :mod:`wdlg.sharing.federated`, and
changed by a defence. The server adds all messages up, divides by the number of participants that it
*expects*, and moves the weights by the learning rate times that. The divisor is fixed, since DP-SGD needs it:
the number who came is private, too.

With :class:`SecureSum` the server does not see the messages but their sum. With a clipping norm and noise on
the sum this is DP-SGD.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.errors import InputError, require_count, require_not_negative, require_positive, told
from wdlg.networks.base import Network, Parameters, require_fitting
from wdlg.sharing.defences import Defence, Unprotected
from wdlg.sharing.federated import FedSGD, Sharing
from wdlg.updates.distance import norm

CHUNK = 64
"""Participants whose messages are computed together; bounds the memory."""


@dataclass(frozen=True)
class SecureSum:
    """Only the sum of a round's messages is seen, each clipped, with normal noise on the sum.

    Secure aggregation (Bonawitz et al. 2017) lets participants mask their messages so that the masks cancel
    in the sum; each adds its part of the noise. With both settings it is DP-SGD (Abadi et al. 2016,
    Algorithm 1), and :func:`wdlg.training.accounting.privacy_loss` has its epsilon.

    Args:
        clip: C, the largest norm of a message, above 0; infinite for none.
        multiplier: the noise on each entry of the sum has the standard deviation ``multiplier C``; 0 for
            none, which it must be without a clip.

    Raises:
        InputError: a setting is out of range, or there is noise without a clip.
    """

    clip: float = math.inf
    multiplier: float = 0.0

    def __post_init__(self) -> None:
        if self.clip != math.inf:
            require_positive("clip", self.clip)
        require_not_negative("multiplier", self.multiplier)
        if self.multiplier and self.clip == math.inf:
            raise InputError(
                f"multiplier is {self.multiplier}, but must be 0 without a clip, whose size the noise is in."
            )

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise on each entry of the sum."""
        return self.multiplier * self.clip if self.multiplier else 0.0


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Args:
        defence: of each message, or :class:`SecureSum`.
        sharing: how a message is made of a participant's images.
        images: of each participant, at least 1.
        lot: images that are expected in a round.
        epochs: how often an image is used, in the mean.
        rate: learning rate of the server, above 0.

    Raises:
        InputError: a setting is out of range.
    """

    defence: Defence | SecureSum = field(default_factory=Unprotected)
    sharing: Sharing = field(default_factory=FedSGD)
    images: int = 1
    lot: int = 64
    epochs: int = 20
    rate: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("defence", self.defence), ("sharing", self.sharing)):
            if isinstance(value, type) or not (callable(value) or isinstance(value, SecureSum)):
                raise InputError(
                    f"{name} is {told(value)}, but must be a value of wdlg.sharing or SecureSum()."
                )
        for name in ("images", "lot", "epochs"):
            require_count(name, getattr(self, name))
        require_positive("rate", self.rate)

    def sample_rate(self, count: int) -> float:
        """Probability that a participant takes part in a round, of so many images in all."""
        return min(1.0, self.lot / count)

    def rounds(self, count: int) -> int:
        """Rounds that so many images take."""
        return max(1, round(self.epochs / self.sample_rate(count)))


def train(
    training: Training,
    network: Network,
    parameters: Parameters,
    images: Tensor,
    labels: Tensor,
    *,
    generator: torch.Generator,
) -> Parameters:
    """The weights after training.

    Args:
        training: how.
        network: the architecture.
        parameters: to start from, N = 1.
        images: (T, channels, height, width); ``training.images`` in a row are one participant's, and what is
            left over at the end has none.
        labels: (T,).
        generator: of lots and of what defences draw.

    Raises:
        InputError: shapes do not fit, there is more than one network, fewer images than one participant
            needs; or the weights become NaN or infinite.
    """
    require_fitting(network, parameters, images)
    if len(parameters) != 1:
        raise InputError(f"parameters holds {len(parameters)} networks, but must hold 1.")
    participants = len(images) // training.images
    if not participants:
        raise InputError(f"images holds {len(images)}, but a participant needs {training.images}.")
    used = participants * training.images
    target = F.one_hot(labels[:used], network.classes).to(images.dtype)
    images = images[:used]
    if training.images > 1:
        images, target = (one.unflatten(0, (participants, training.images)) for one in (images, target))
    probability = training.sample_rate(used)
    expected = probability * participants
    defence = training.defence
    deviation = defence.deviation if isinstance(defence, SecureSum) else 0.0
    for _ in range(training.rounds(used)):
        lot = (torch.rand(participants, generator=generator) < probability).nonzero()[:, 0]
        total = [torch.zeros_like(tensor) for tensor in parameters.tensors]
        for some in lot.split(CHUNK) if len(lot) else ():
            message = training.sharing(network, parameters, images[some], target[some]).detach()
            if isinstance(defence, SecureSum):
                shrink = (defence.clip / norm(message)).clamp_max(1.0)[:, None, None]
                tensors = [shrink * tensor for tensor in message.tensors()]
            else:
                tensors = defence(message, [generator] * len(some)).tensors()
            total = [sum_ + tensor.sum(0).view_as(sum_) for sum_, tensor in zip(total, tensors, strict=True)]
        if deviation:
            total = [
                sum_ + deviation * torch.randn(sum_.shape, generator=generator, dtype=sum_.dtype)
                for sum_ in total
            ]
        parameters = Parameters(
            tuple(
                tensor - training.rate / expected * sum_
                for tensor, sum_ in zip(parameters.tensors, total, strict=True)
            ),
            parameters.buffers,
        )
        if not all(torch.isfinite(tensor).all() for tensor in parameters.tensors):
            raise InputError(
                f"rate is {training.rate}, but must be smaller: the weights became NaN or infinite."
            )
    return parameters


def accuracy(network: Network, parameters: Parameters, images: Tensor, labels: Tensor) -> float:
    """The share of images whose greatest score is that of their label.

    Args:
        network: the architecture.
        parameters: N = 1.
        images: (T, channels, height, width).
        labels: (T,).
    """
    require_fitting(network, parameters, images)
    weights, buffers = ([one[0] for one in held] for held in (parameters.tensors, parameters.buffers))
    with torch.no_grad():
        found = network.scores(weights, images, buffers).argmax(1)
    return float((found == labels).double().mean())
