"""Small classifiers of several kinds, to try an audit on, and to compare what it foretells with attacks.

Each is a function of the image's shape and the number of classes; without arguments it is one for MNIST, as
in ``wdlg audit --model wdlg.audit.examples:pooled --image-shape 1,28,28 --dataset mnist``. Weights are
torch's own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]


def _lenet(activation: type[nn.Module], shape: Shape, classes: int) -> nn.Module:
    """The papers' network: convolutions of stride 2, 2 and 1 with twelve filters, and a linear layer."""
    channels, height, width = shape
    layers: list[nn.Module] = []
    for stride in (2, 2, 1):
        layers += [nn.Conv2d(channels, 12, 5, stride, 2), activation()]
        channels, height, width = 12, -(-height // stride), -(-width // stride)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(12 * height * width, classes))


def lenet_sigmoid(shape: Shape = (1, 28, 28), classes: int = 10) -> nn.Module:
    """The papers' network with sigmoid."""
    return _lenet(nn.Sigmoid, shape, classes)


def lenet_tanh(shape: Shape = (1, 28, 28), classes: int = 10) -> nn.Module:
    """The papers' network with tanh."""
    return _lenet(nn.Tanh, shape, classes)


def lenet_relu(shape: Shape = (1, 28, 28), classes: int = 10) -> nn.Module:
    """The papers' network with ReLU."""
    return _lenet(nn.ReLU, shape, classes)


def pooled(shape: Shape = (1, 28, 28), classes: int = 10) -> nn.Module:
    """Two convolutions with tanh and max pooling, and a linear layer."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, padding=2),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 5, padding=2),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (height // 4) * (width // 4), classes),
    )


class Residual(nn.Module):
    """``x + f(x)``."""

    def __init__(self, width: int, normalised: bool) -> None:
        super().__init__()
        norms = [nn.BatchNorm2d(width) if normalised else nn.Identity() for _ in range(2)]
        self.change = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            norms[0],
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            norms[1],
        )

    def forward(self, values: Tensor) -> Tensor:
        """Of the shape of what comes in."""
        found: Tensor = torch.relu(values + self.change(values))
        return found


def _resnet(shape: Shape, classes: int, normalised: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(shape[0], 12, 3, padding=1),
        nn.ReLU(),
        Residual(12, normalised),
        Residual(12, normalised),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, classes),
    )


def resnet(shape: Shape = (1, 28, 28), classes: int = 10) -> nn.Module:
    """Two residual blocks with ReLU and global average pooling."""
    return _resnet(shape, classes, normalised=False)


def resnet_norm(shape: Shape = (1, 28, 28), classes: int = 10) -> nn.Module:
    """The same with batch normalisation."""
    return _resnet(shape, classes, normalised=True)


class Block(nn.Module):
    """Attention, and then two linear layers at each place, both beside the identity."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width)
        self.mixed = nn.Linear(width, 3 * width)
        self.joined = nn.Linear(width, width)
        self.change = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Of the shape of what comes in, (B, places, width)."""
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.mixed(self.before(tokens)).chunk(3, dim=2)
        )
        weights = torch.softmax(query @ key.transpose(2, 3) / query.shape[3] ** 0.5, dim=3)
        tokens = tokens + self.joined((weights @ value).transpose(1, 2).flatten(2))
        found: Tensor = tokens + self.change(tokens)
        return found


class Transformer(nn.Module):
    """A small vision transformer: patches, two blocks, the mean of all places, a linear layer."""

    def __init__(self, shape: Shape, classes: int, *, patch: int, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(shape[0], width, patch, patch)
        places = (shape[1] // patch) * (shape[2] // patch)
        self.position = nn.Parameter(0.1 * torch.randn(1, places, width))
        self.blocks = nn.Sequential(Block(width, 2), Block(width, 2), nn.LayerNorm(width))
        self.scores = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, K)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.position
        found: Tensor = self.scores(self.blocks(tokens).mean(1))
        return found


def transformer(shape: Shape = (1, 28, 28), classes: int = 10) -> nn.Module:
    """A small vision transformer with patches of 4 x 4 pixels, or 2 x 2 where the image is small."""
    return Transformer(shape, classes, patch=4 if shape[1] >= 16 else 2)


EXAMPLES: dict[str, Callable[[Shape, int], nn.Module]] = {
    one.__name__: one
    for one in (lenet_sigmoid, lenet_tanh, lenet_relu, pooled, resnet, resnet_norm, transformer)
}
"""By name."""
