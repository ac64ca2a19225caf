"""Every kind of defence, and small gradients for them."""

import pytest
import torch
from torch.nn.functional import one_hot

from wdlg.networks import LeNet
from wdlg.sharing import defences
from wdlg.sharing.defences import (
    ClippedNoise,
    LaplaceNoise,
    Noise,
    NoOutputBias,
    Pruning,
    Quantisation,
    Rounding,
)

ALL = (
    Noise(0.1),
    LaplaceNoise(0.1),
    ClippedNoise(clip=0.5, multiplier=0.01),
    Pruning(0.7),
    Rounding("float16"),
    Rounding("bfloat16"),
    Quantisation(),
    Quantisation(4, stochastic=True),
    NoOutputBias(),
)
each_defence = pytest.mark.parametrize("defence", ALL, ids=defences.title)


def shared(attacks=3, dtype=torch.float64, classes=6, seed=5):
    """Gradients of small networks, one for each attack."""
    generator = torch.Generator().manual_seed(seed)
    network = LeNet((1, 8, 8), classes)
    parameters = network.initial_parameters(attacks, generator=generator, dtype=dtype)
    images = torch.rand(attacks, 1, 8, 8, generator=generator, dtype=dtype)
    target = one_hot(torch.arange(attacks) % classes, classes).to(dtype)
    return network.gradient(parameters, images, target).detach()


def streams(attacks, seed=0):
    return [torch.Generator().manual_seed(seed + number) for number in range(attacks)]


def flat(gradient):
    """All entries of each attack in one row."""
    return torch.cat([tensor.flatten(1) for tensor in gradient.tensors()], dim=1)
