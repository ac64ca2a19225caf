"""Small models of each kind that an audit meets, their digits, and what a training loop makes of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import wdlg
from wdlg import audit
from wdlg.sharing.federated import FedSGD


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


def digits(system, *indices):
    """Private images of the embedded data set; labels wrap round at the model's classes."""
    sample = wdlg.data.load("digits")
    places = list(indices)
    labels = torch.tensor(sample.labels[places]) % system.classes
    return audit.private(system, sample.tensor(places), labels)


def of(model, *indices, **settings):
    """A system, private images and the message of them."""
    torch.manual_seed(0)
    system = audit.system(model, (1, 8, 8), **settings)
    private = digits(system, *(indices or (3,)))
    return system, private, audit.made(system, private, FedSGD())


def gradients(model, private, loss=F.cross_entropy, *, change=lambda images: images):
    """By name, as a training loop has them."""
    model.zero_grad()
    loss(model.eval()(change(private.images)), private.labels).backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    return found


def assert_sent(system, message, expected):
    """The message holds these gradients."""
    for name, tensor in zip(system.names, message.gradient.tensors(), strict=False):
        assert torch.allclose(tensor.flatten(), expected[name].flatten(), atol=1e-6), name


def ordered(parts):
    """As an audit takes them."""
    system, private, message = parts
    return system, message, private
