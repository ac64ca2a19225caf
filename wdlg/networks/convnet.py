"""The convolutional network that the literature on gradient inversion attacks after LeNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from wdlg.errors import InputError, require_choice, require_count
from wdlg.networks.activations import ACTIVATIONS
from wdlg.networks.base import require_image_shape
from wdlg.networks.functional import MODES, TorchNetwork

WIDTHS = (1, 2, 2, 4, 4, 4, 4, 4)
"""Channels of the eight convolutions, in units of the first's."""

POOLED = (6, 8)
"""After these many convolutions the image is pooled."""

POOL = 3
KERNEL = 3


@dataclass(frozen=True)
class ConvNet(TorchNetwork):
    """Eight 3x3 convolutions with batch normalisation, maximum pooling by 3 after six and eight, one linear
    layer.

    The "ConvNet" of Geiping et al. (2020), Inverting gradients - how easy is it to break privacy in federated
    learning?: with 64, 128, 128 and five times 256 channels it has 2,904,970 parameters for 32x32 colour
    images of 10 classes. Their activation is ReLU.

    Args:
        image_shape: (channels, height, width), at least 9 high and wide.
        classes: number of classes K, at least 2.
        activation: "relu" (as Geiping et al.), "sigmoid" or "tanh".
        width: channels of the first convolution; the last five have four times as many.
        mode: of batch normalisation, "evaluation" (its running statistics) or "training" (those of the images
            that come together), see :class:`~wdlg.networks.module.ModuleNetwork`.

    Raises:
        InputError: images are too small, a count is out of range, or activation or mode is unknown.
    """

    constants: ClassVar[Mapping[str, Any]] = {"widths": WIDTHS, "pooled": POOLED, "pool": POOL}
    """What decides its form and is no setting."""

    initial: ClassVar[str] = "torch"
    """The distribution of initial weights of its own papers."""

    image_shape: tuple[int, int, int]
    classes: int
    activation: str = "relu"
    width: int = 64
    mode: str = "evaluation"

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", require_image_shape(self.image_shape))
        require_count("classes", self.classes, at_least=2)
        require_choice("activation", self.activation, ACTIVATIONS)
        require_count("width", self.width)
        require_choice("mode", self.mode, MODES)
        if min(self.image_shape[1:]) < POOL ** len(POOLED):
            raise InputError(
                f"image_shape is {self.image_shape}, but must be at least {POOL ** len(POOLED)} high and "
                "wide: the network pools by 3 twice."
            )

    def make_module(self) -> nn.Module:
        """The layers, without weights."""
        channels, height, width = self.image_shape
        layers: list[nn.Module] = []
        with torch.device("meta"):
            for number, share in enumerate(WIDTHS, start=1):
                units = share * self.width
                layers += [
                    nn.Conv2d(channels, units, KERNEL, padding=KERNEL // 2),
                    nn.BatchNorm2d(units),
                    ACTIVATIONS[self.activation](),
                ]
                channels = units
                if number in POOLED:
                    layers.append(nn.MaxPool2d(POOL))
                    height, width = height // POOL, width // POOL
            return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, self.classes))
