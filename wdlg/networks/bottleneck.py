"""A network with a random layer, meant as a defence: PRECODE (Scheliga, Mäder and Seeland 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wdlg.errors import require_choice, require_count
from wdlg.networks.activations import ACTIVATIONS
from wdlg.networks.base import Parameters, require_image_shape
from wdlg.networks.functional import TorchNetwork
from wdlg.networks.lenet import CHANNELS, KERNEL, PADDING, STRIDES, LeNet


class RandomLayer(nn.Module):
    """A variational bottleneck: ``z = m + exp(s / 2) * noise`` from ``(m, s)``, then back to the old width.

    Args:
        features: its inputs and outputs M.
        width: k, of z.
    """

    noise: Tensor

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(features, 2 * width)
        self.decoder = nn.Linear(width, features)
        self.register_buffer("noise", torch.zeros(width))

    def forward(self, features: Tensor) -> Tensor:
        """(B, M) of (B, M)."""
        mean, log_variance = self.encoder(features).chunk(2, dim=1)
        return self.decoder(mean + torch.exp(log_variance / 2) * self.noise)


@dataclass(frozen=True)
class Bottleneck(TorchNetwork):
    """LeNet with a variational bottleneck between its convolutions and its output layer.

    Whoever computes a gradient draws the layer's normal noise anew and tells nobody. It is held as a buffer:
    :meth:`with_noise` draws that of a participant, and untouched parameters have none of it.

    Args:
        image_shape: (channels, height, width).
        classes: number of classes K, at least 2.
        activation: of the convolutions, "sigmoid", "relu" or "tanh".
        width: k of the bottleneck. Scheliga et al. take 256.

    Raises:
        InputError: a setting is out of range.
    """

    constants: ClassVar[Mapping[str, Any]] = {"channels": CHANNELS, "strides": STRIDES}
    """What decides its form and is no setting."""

    image_shape: tuple[int, int, int]
    classes: int
    activation: str = "tanh"
    width: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", require_image_shape(self.image_shape))
        require_count("classes", self.classes, at_least=2)
        require_choice("activation", self.activation, ACTIVATIONS)
        require_count("width", self.width)

    @property
    def below(self) -> LeNet:
        """The convolutions with the encoder as their output layer: all that comes before the noise."""
        return LeNet(self.image_shape, 2 * self.width, self.activation)

    def with_noise(self, parameters: Parameters, generator: torch.Generator) -> Parameters:
        """The same weights with noise drawn from N(0, 1), for each of N networks."""
        [held] = parameters.buffers
        return replace(parameters, buffers=(torch.randn(held.shape, generator=generator).to(held),))

    def make_module(self) -> nn.Module:
        """The layers, without weights."""
        layers: list[nn.Module] = []
        with torch.device("meta"):
            for (channels, _, _), stride in zip(self.below.layer_inputs[:-1], STRIDES, strict=True):
                layers += [
                    nn.Conv2d(channels, CHANNELS, KERNEL, padding=PADDING, stride=stride),
                    ACTIVATIONS[self.activation](),
                ]
            features = self.below.features
            layers += [nn.Flatten(), RandomLayer(features, self.width), nn.Linear(features, self.classes)]
        module = nn.Sequential(*layers)
        # Without noise until some is drawn; a buffer has a value, other than weights.
        module[-2].noise = torch.zeros(self.width)
        return module
