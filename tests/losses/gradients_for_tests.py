"""Random gradients of the right shapes, for the tests of the losses."""

import torch

from wdlg.updates import Gradient


def random_gradient(seed, *, attacks=3, classes=5, features=4, scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return scale * torch.randn(attacks, *shape, generator=generator, dtype=dtype)

    hidden = (normal(4, 6), normal(4, 1), normal(4, 9), normal(4, 1))
    return Gradient.of_one(hidden, normal(classes), normal(features))
