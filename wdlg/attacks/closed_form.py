"""Attacks that compute the image instead of searching for it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wdlg.attacks.base import BATCH_SIZE, Observation, Observer, Reconstruction, Start
from wdlg.attacks.labels import BiasSign, LabelRule, label_rule
from wdlg.errors import InputError, require_text


@dataclass(frozen=True)
class FirstLayer:
    """What a linear first layer with biases gives away (Phong et al. 2018; Geiping et al. 2020, section 3).

    A unit's weight gradient is the layer's input times its bias gradient, so the input is their quotient:
    here the least-squares one over all units, ``sum_u b_u w_u / sum_u b_u²``. That is the image where the
    layer takes the pixels as they are. No dummy is needed.

    Args:
        label_rule: how labels are read, see :class:`~wdlg.attacks.optimised.Optimised`; not the joint rule.
        name: what tables and figures call it.

    Raises:
        InputError: the joint rule; on use, the network's first layer takes something else than all pixels of
            one image, or has no bias.
    """

    label_rule: LabelRule = field(default_factory=BiasSign)
    name: str = "first layer"

    evaluations = 1
    loss = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_rule", label_rule(self.label_rule))
        require_text("name", self.name)
        if self.label_rule.joint:
            raise InputError(
                "label_rule is joint, but nothing is optimised here: take one that reads labels."
            )

    def run(
        self,
        starts: Iterable[Start],
        *,
        observers: Sequence[Observer] = (),
        batch_size: int = BATCH_SIZE,  # noqa: ARG002
    ) -> Iterator[tuple[Tensor, Reconstruction]]:
        """Numbers and results, start by start; see :func:`wdlg.attacks.run.reconstruct_each`."""
        begun = 0
        for start in starts:
            number = begun + torch.arange(len(start))
            begun += len(start)
            result = self._solve(start.observation)
            for observe in observers:
                observe(
                    number, torch.zeros_like(number), torch.zeros_like(number), result.images, result.loss
                )
            yield number, result

    def _solve(self, observation: Observation) -> Reconstruction:
        started = time.perf_counter()
        weight, bias = _first_layer(observation)
        # A unit that saw nothing has no say; if none saw anything, there is no image.
        squared = bias.square().sum((1, 2))
        mixed = (bias * weight).sum(1) / squared[:, None]
        images = mixed.unflatten(1, observation.network.image_shape)
        found = self.label_rule(observation.gradient)
        return Reconstruction.at_once(images, found, seconds=time.perf_counter() - started)


def _first_layer(observation: Observation) -> tuple[Tensor, Tensor]:
    """Weight (B, units, pixels) and bias gradient (B, units, 1) of the first layer."""
    network, gradient = observation.network, observation.gradient
    pixels = math.prod(network.image_shape)
    weight_shape, bias_shape = network.parameter_shapes[:2]
    if observation.images != 1:
        raise InputError(f"images is {observation.images}, but must be 1: a sum of images has no quotient.")
    if weight_shape != (*bias_shape, pixels):
        raise InputError(
            f"network has first parameters of shapes {weight_shape} and {bias_shape}, but must have the "
            f"weights (units, {pixels}) and biases (units,) of a linear layer that takes all pixels."
        )
    weight, bias = gradient.hidden[:2] if gradient.hidden else gradient.tensors()
    return weight, bias
