"""Small models of each kind that an audit meets."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def lenet() -> nn.Sequential:
    """Of 1x8x8 images, weights U(-0.5, 0.5)."""
    model = nn.Sequential(
        nn.Conv2d(1, 12, 5, 2, 2), nn.Sigmoid(), nn.Conv2d(12, 12, 5, 1, 2), nn.Sigmoid(),
        nn.Flatten(), nn.Linear(192, 10),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.5, 0.5)
    return model


class Pooled(nn.Module):
    """Batch norm, pooling, and no linear layer at its end."""

    def __init__(self, scores: int = 4, width: int = 6) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.Tanh(), nn.MaxPool2d(2)
        )
        self.head = nn.Conv2d(width, scores, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, K)."""
        return self.head(self.body(images)).mean((2, 3))


def one_score() -> Pooled:
    """As of two classes."""
    return Pooled(1)


def without_bias() -> nn.Sequential:
    """An output layer without bias, on features above zero."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.Sigmoid(), nn.Linear(30, 5, bias=False))


def number() -> int:
    """No module."""
    return 3


def broken() -> nn.Module:
    """Raises."""
    raise ValueError("the weights are gone")


class Random(nn.Module):
    """Draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 5)

    def forward(self, images: Tensor) -> Tensor:
        """Other scores each time."""
        return self.layer(images.flatten(1) + torch.randn(1))
