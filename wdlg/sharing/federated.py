"""What a participant sends of its images: one gradient (FedSGD), or the change of its weights (FedAvg).

A rule of sharing is a frozen dataclass. The participant and the attacker call the same one: the first with
its private images, the second with dummies, and with a graph. Defences (:mod:`wdlg.sharing.defences`) come
after it, and the attacker cannot call them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.func import grad, vmap

from wdlg.errors import InputError, require_count, require_positive
from wdlg.networks.base import Network, Parameters, require_fitting, require_fitting_batches
from wdlg.updates.gradient import Gradient, rows_of
from wdlg.updates.output_layer import Dense


class Sharing(Protocol):
    """A rule by which B participants make what they send out of their images."""

    def __call__(self, network: Network, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """What is sent, differentiable in ``images`` and ``target``.

        Args:
            network: the architecture.
            parameters: N = 1 network that all participants share, or one for each.
            images: one for each participant, (B, channels, height, width), or several,
                (B, images, channels, height, width).
            target: their label probabilities, (B, K) or (B, images, K).
        """


@dataclass(frozen=True)
class FedSGD:
    """The gradient of the mean cross-entropy over a participant's images (McMahan et al. 2017)."""

    def __call__(self, network: Network, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """What is sent; see :class:`Sharing`."""
        if isinstance(images, Tensor) and images.ndim == 5:
            return network.mean_gradient(parameters, images, target)
        return network.gradient(parameters, images, target)


@dataclass(frozen=True)
class FedAvg:
    """The change of a participant's weights after some steps of gradient descent (McMahan et al. 2017).

    Sent is ``(w_0 - w_T) / (rate T)``: a scale that everybody knows, in which one step on all images is the
    gradient of FedSGD. Step t is on images ``t batch`` to ``(t + 1) batch``, and from the first again after
    the last; the weights that it starts from depend on the images before.

    Args:
        rate: learning rate of the participant, above 0.
        steps: T, at least 1.
        batch: images in a step; they must divide the participant's images.
        frozen: places of parameters that the participant does not train; of them zeros are sent.

    Raises:
        InputError: a setting is out of range; on use, the batch does not divide the images.
    """

    rate: float
    steps: int
    batch: int = 1
    frozen: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require_positive("rate", self.rate)
        require_count("steps", self.steps)
        require_count("batch", self.batch)
        frozen = tuple(require_count("frozen", place, at_least=0) for place in self.frozen)
        object.__setattr__(self, "frozen", frozen)

    def __call__(self, network: Network, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """What is sent; see :class:`Sharing`."""
        if isinstance(images, Tensor) and images.ndim == 4:
            require_fitting(network, parameters, images, target)
            images, target = images[:, None], target[:, None]
        require_fitting_batches(network, parameters, images, target)
        if images.shape[1] % self.batch:
            raise InputError(
                f"batch is {self.batch}, but must divide the {images.shape[1]} images of a participant."
            )

        def change(
            weights: tuple[Tensor, ...], buffers: tuple[Tensor, ...], images: Tensor, target: Tensor
        ) -> tuple[Tensor, ...]:
            def loss(weights: tuple[Tensor, ...], part: slice) -> Tensor:
                scores = network.scores(weights, images[part], buffers)
                return (torch.logsumexp(scores, 1) - (target[part] * scores).sum(1)).mean()

            total: tuple[Tensor, ...] = tuple(torch.zeros_like(tensor) for tensor in weights)
            for step in range(self.steps):
                first = step * self.batch % len(images)
                now = tuple(w - self.rate * sum_ for w, sum_ in zip(weights, total, strict=True))
                slopes = grad(loss)(now, slice(first, first + self.batch))
                slopes = tuple(
                    torch.zeros_like(slope) if place in self.frozen else slope
                    for place, slope in enumerate(slopes)
                )
                total = tuple(sum_ + slope for sum_, slope in zip(total, slopes, strict=True))
            return tuple(sum_ / self.steps for sum_ in total)

        own = 0 if len(parameters) > 1 or len(images) == 1 else None
        tensors, buffers = (
            held if own == 0 else tuple(tensor[0] for tensor in held)
            for held in (parameters.tensors, parameters.buffers)
        )
        *hidden, weight, bias = vmap(change, in_dims=(own, own if buffers else None, 0, 0))(
            tensors, buffers, images, target
        )
        rows = tuple(tensor.reshape(len(images), *rows_of(tensor.shape[1:])) for tensor in hidden)
        return Gradient(rows, Dense.of(weight, bias))
