"""Readings of the paper's distance, and what tests hold them against."""

import math

import numpy as np
import pytest
import torch
from gradients_for_tests import random_gradient
from hypothesis import strategies as st

from wdlg.losses import Cosine, PseudoHuber, Wasserstein
from wdlg.updates import Gradient

seeds = st.integers(0, 2**31)
LONG = {"max_iterations": 5_000, "threshold": 1e-13}

READINGS = {
    "plain": Wasserstein(),
    "relative": Wasserstein(relative=True),
    "exact": Wasserstein(eps=0),
    "exact, euclidean": Wasserstein(eps=0, cost="euclidean"),
    "exact, penalty, dual": Wasserstein(eps=0, penalty=0.3, value="dual"),
    "each root": Wasserstein(root="each", eps=0),
    "total root, mass one": Wasserstein(root="total", mass="one"),
    "euclidean": Wasserstein(cost="euclidean"),
    "pseudo-Huber": Wasserstein(cost="pseudo_huber"),
    "mass relative": Wasserstein(eps=0, mass="relative"),
    "penalty": Wasserstein(penalty=2.0),
    "identity": Wasserstein(penalty=math.inf),
    "identity, euclidean": Wasserstein(penalty=math.inf, cost="euclidean"),
    "dual": Wasserstein(value="dual", relative=True, penalty=0.5),
    "debiased": Wasserstein(value="debiased", root="total", eps=1.0, **LONG),
    "debiased, pseudo-Huber": Wasserstein(value="debiased", cost="pseudo_huber", relative=True, **LONG),
    "unrolled": Wasserstein(derivative="unrolled", max_iterations=20),
    "unrolled, debiased": Wasserstein(derivative="unrolled", value="debiased", eps=1.0),
    "kernels": Wasserstein(points="kernels", kernel_width=3),
    "kernels, exact": Wasserstein(points="kernels", kernel_width=3, eps=0, cost="euclidean"),
    "kernels, debiased": Wasserstein(points="kernels", kernel_width=3, value="debiased", relative=True),
    "scalars": Wasserstein(points="scalars", eps=0),
    "tensors": Wasserstein(points="tensors", root="each"),
    "tensors, pseudo-Huber": Wasserstein(points="tensors", cost="pseudo_huber", value="debiased"),
    "cosine": Cosine(),
    "pseudo-Huber of the whole": PseudoHuber(),
}
each_reading = pytest.mark.parametrize("loss", READINGS.values(), ids=READINGS.keys())


def squared(x, y):
    """POT's own ot.dist leaves up to 1e-8 between equal points."""
    return ((x[:, None] - y[None]) ** 2).sum(2)


def points_of(gradient, attack):
    """The rows of each parameter of one attack, (n, d)."""
    return [tensor[attack].numpy() for tensor in gradient.tensors()]


def permuted(gradient, seed):
    """The units of every parameter in another order."""
    generator = torch.Generator().manual_seed(seed)

    def shuffled(tensor):
        return tensor[:, torch.randperm(tensor.shape[1], generator=generator)]

    return Gradient.of_one(
        tuple(map(shuffled, gradient.hidden)), shuffled(gradient.bias), gradient.output.features
    )


def moved(gradient, direction, step):
    """The gradient after a step; both in float64."""
    hidden = tuple(x + step * d for x, d in zip(gradient.hidden, direction.hidden, strict=True))
    return Gradient.of_one(
        hidden,
        gradient.bias + step * direction.bias,
        gradient.output.features + step * direction.output.features,
    )


def slope(loss, dummy, shared, direction):
    """Derivative of the loss (B,) along a direction, by autograd."""
    parts = [*dummy.hidden, dummy.bias, dummy.output.features]
    leaves = [part.clone().requires_grad_() for part in parts]
    value = loss(Gradient.of_one(tuple(leaves[:-2]), *leaves[-2:]), shared)
    grads = torch.autograd.grad(value.sum(), leaves)
    along = [*direction.hidden, direction.bias, direction.output.features]
    return sum((grad * d).flatten(1).sum(1) for grad, d in zip(grads, along, strict=True))


def difference(loss, dummy, shared, direction, step=1e-5):
    """The same by central differences."""
    ahead, behind = (loss(moved(dummy, direction, sign * step), shared) for sign in (1, -1))
    return (ahead - behind) / (2 * step)


def three(seed, scale=0.5):
    """A dummy, a shared gradient, and a direction."""
    return (random_gradient(seed + shift, scale=scale) for shift in (0, 1000, 2000))


def pot_cost(x, y, cost, scale):
    distance = np.sqrt(squared(x, y))
    if cost == "squared":
        return distance**2
    if cost == "euclidean":
        return distance
    s = scale * math.sqrt((y**2).sum(1).mean())
    return s**2 * (np.sqrt(1 + distance**2 / s**2) - 1)


def unit_of(C):
    """The median (torch's: the lower one), but at least a tenth of the mean."""
    return max(torch.from_numpy(C).median().item(), C.mean() / 10)
