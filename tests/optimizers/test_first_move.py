"""The first move of L-BFGS has no curvature to go by, and is cautious: never longer than the learning rate.

``torch.optim.LBFGS`` takes ``min(1, 1 / |g|_1) * lr`` times the gradient g. Without this bound an attack with
a large gradient leaves the image's range in its first move.
"""

from contextlib import nullcontext

import pytest
import torch

from wdlg import compiled
from wdlg.optimizers import LBFGS

PATHS = {"compiled": nullcontext, "torch": compiled.turned_off}


def first_move(gradient, learning_rate):
    """Of attacks that start at zero, (B, n)."""
    optimizer = LBFGS(learning_rate=learning_rate)
    state = optimizer.init(torch.zeros_like(gradient))
    return optimizer.update(state, gradient.new_ones(len(gradient)), gradient).x


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("learning_rate", [0.1, 1.0, 2.5])
def test_it_is_as_long_as_the_learning_rate_in_the_sum_of_sizes_for_a_large_gradient(path, learning_rate):
    gradient = torch.tensor([[3.0, -4.0, 0.5], [1e6, 2e6, -1e7], [0.9, 0.2, 0.0]], dtype=torch.float64)
    with PATHS[path]():
        move = first_move(gradient, learning_rate)
    torch.testing.assert_close(move.abs().sum(1), torch.full((3,), learning_rate, dtype=torch.float64))
    torch.testing.assert_close(move, -learning_rate * gradient / gradient.abs().sum(1, keepdim=True))


@pytest.mark.parametrize("path", PATHS)
def test_it_is_the_learning_rate_times_a_small_gradient(path):
    gradient = torch.tensor([[0.3, -0.4, 0.05], [1e-3, 2e-3, 0.0]], dtype=torch.float64)
    with PATHS[path]():
        move = first_move(gradient, 0.5)
    torch.testing.assert_close(move, -0.5 * gradient)


@pytest.mark.parametrize("path", PATHS)
def test_it_is_that_of_torch(path):
    gradient = torch.tensor([3.0, -4.0, 0.5], dtype=torch.float64)
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    reference = torch.optim.LBFGS([x], lr=0.7, max_iter=1)

    def closure():
        x.grad = gradient.clone()
        return torch.tensor(1.0, dtype=torch.float64)

    reference.step(closure)
    with PATHS[path]():
        torch.testing.assert_close(first_move(gradient[None], 0.7)[0], x.detach())
