"""A residual network for small images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wdlg.errors import require_choice, require_count
from wdlg.networks.activations import ACTIVATIONS
from wdlg.networks.base import require_image_shape
from wdlg.networks.functional import MODES, TorchNetwork

STRIDES = (1, 2, 2)
"""Of the three stages; each stage after the first has twice as many channels."""

KERNEL = 3


@dataclass(frozen=True)
class ResNet(TorchNetwork):
    """The residual network of He et al. (2016) for 32x32 images: 6 n + 2 layers with batch normalisation.

    One 3x3 convolution; three stages of n blocks, each two 3x3 convolutions around which the block's input is
    led; the mean over all places; one linear layer. Where a block changes the shape, its input is led through
    a 1x1 convolution with batch normalisation, as in torchvision. With n = 3 and 16 channels (ResNet-20) it
    has 272,474 parameters for colour images of 10 classes.

    Args:
        image_shape: (channels, height, width).
        classes: number of classes K, at least 2.
        activation: "relu" (as He et al.), "sigmoid" or "tanh".
        width: channels of the first stage.
        blocks: of each stage, n; one makes 8 layers.
        mode: of batch normalisation, "evaluation" (its running statistics) or "training" (those of the images
            that come together), see :class:`~wdlg.networks.module.ModuleNetwork`.

    Raises:
        InputError: a count is out of range, or activation or mode is unknown.
    """

    constants: ClassVar[Mapping[str, Any]] = {"strides": STRIDES}
    """What decides its form and is no setting."""

    initial: ClassVar[str] = "torch"
    """The distribution of initial weights that its layers have in torch."""

    image_shape: tuple[int, int, int]
    classes: int
    activation: str = "relu"
    width: int = 16
    blocks: int = 1
    mode: str = "evaluation"

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", require_image_shape(self.image_shape))
        require_count("classes", self.classes, at_least=2)
        require_choice("activation", self.activation, ACTIVATIONS)
        require_count("width", self.width)
        require_count("blocks", self.blocks)
        require_choice("mode", self.mode, MODES)

    def make_module(self) -> nn.Module:
        """The layers, without weights."""
        activation = ACTIVATIONS[self.activation]
        channels = self.width
        with torch.device("meta"):
            layers = [
                _convolution(self.image_shape[0], channels),
                nn.BatchNorm2d(channels),
                activation(),
            ]
            for stage, stride in enumerate(STRIDES):
                for block in range(self.blocks):
                    units = self.width * 2**stage
                    layers.append(_Block(channels, units, 1 if block else stride, activation))
                    channels = units
            mean = nn.AdaptiveAvgPool2d(1)
            return nn.Sequential(*layers, mean, nn.Flatten(), nn.Linear(channels, self.classes))


class _Block(nn.Module):
    """Two convolutions, and the block's input added before the last activation."""

    def __init__(self, channels: int, units: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            _convolution(channels, units, stride),
            nn.BatchNorm2d(units),
            activation(),
            _convolution(units, units),
            nn.BatchNorm2d(units),
        )
        self.around: nn.Module = nn.Identity()
        if channels != units or stride != 1:
            self.around = nn.Sequential(
                nn.Conv2d(channels, units, 1, stride=stride, bias=False), nn.BatchNorm2d(units)
            )
        self.activation = activation()

    def forward(self, images: Tensor) -> Tensor:
        total: Tensor = self.convolutions(images) + self.around(images)
        return self.activation(total)


def _convolution(channels: int, units: int, stride: int = 1) -> nn.Conv2d:
    """Without bias, which the batch normalisation after it has."""
    return nn.Conv2d(channels, units, KERNEL, stride=stride, padding=KERNEL // 2, bias=False)
