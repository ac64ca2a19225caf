"""Every compiled loop on odd shapes, with each index checked: a process of its own, for test_compiled.py.

With ``NUMBA_DISABLE_JIT`` the loops are plain Python on numpy arrays, which refuse an index out of bounds,
and the copies, which are compiled from machine instructions, are replaced by copies that check. With
``NUMBA_BOUNDSCHECK`` the compiled loops themselves check.
"""

import os

import numpy as np
import torch

from wdlg.losses import SquaredEuclidean, Wasserstein, compiled_sinkhorn
from wdlg.losses.sinkhorn import sinkhorn_plan
from wdlg.networks import LeNet, compiled_convolution
from wdlg.optimizers import LBFGS
from wdlg.updates import Gradient


def _within(array, start, count):
    assert 0 <= start <= start + count <= len(array), (start, count, len(array))
    return slice(start, start + count)


def copy(target, start, source, source_start, count):
    target[_within(target, start, count)] = source[_within(source, source_start, count)]


def add(target, start, source, source_start, count):
    target[_within(target, start, count)] += source[_within(source, source_start, count)]


if os.environ.get("NUMBA_DISABLE_JIT") == "1":
    compiled_convolution.copy_run, compiled_convolution.add_run = copy, add
    compiled_sinkhorn.math = np  # whose exponential gives infinity where Python's raises an error
    np.seterr(all="ignore")

stream = torch.Generator().manual_seed(0)
for image_shape in ((1, 1, 1), (3, 2, 5), (2, 7, 3)):
    for attacks, networks in ((2, 1), (2, 2), (1, 1)):
        network = LeNet(image_shape, 3)
        parameters = network.initial_parameters(networks, generator=stream)
        images = torch.rand(attacks, *image_shape, generator=stream).requires_grad_()
        gradient = network.gradient(parameters, images, torch.eye(3)[:attacks])
        hidden = tuple(torch.rand_like(part) for part in gradient.hidden)
        shared = Gradient.of_one(
            hidden, torch.rand_like(gradient.bias), torch.rand_like(gradient.output.features)
        )
        loss = SquaredEuclidean()(gradient, shared) + Wasserstein(max_iterations=3)(gradient, shared)
        loss.sum().backward()
        assert torch.isfinite(images.grad).all()

for history in (1, 3, 6):
    optimizer = LBFGS(history=history, inner_iterations=2)
    state = optimizer.init(torch.randn(2, 3, generator=stream))
    for _ in range(9):
        state = optimizer.update(state, state.x.square().sum(1), 2 * state.x + 0.1 * torch.sin(9 * state.x))

for n, m in ((1, 1), (1, 5), (5, 1), (4, 7)):
    for scale in (1.0, 1e4):
        cost = scale * torch.rand(2, n, m, generator=stream)
        plan = sinkhorn_plan(cost, eps=0.1, max_iterations=25, threshold=1e-30)
        assert torch.allclose(plan.sum(1), torch.full((2, m), 1 / m), atol=1e-5)
