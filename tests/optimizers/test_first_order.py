"""Gradient descent and Adam are torch's, attack by attack."""

import pytest
import torch

from wdlg.errors import InputError
from wdlg.optimizers import LBFGS, Adam, GradientDescent


def bumpy(x):
    return (x.square() + torch.cos(3 * x)).sum(1)


@pytest.mark.parametrize(
    ("optimizer", "reference"),
    [
        (GradientDescent(learning_rate=0.05), lambda x: torch.optim.SGD([x], lr=0.05)),
        (Adam(learning_rate=0.05), lambda x: torch.optim.Adam([x], lr=0.05)),
    ],
    ids=["gradient descent", "Adam"],
)
def test_path_equals_torchs(optimizer, reference):
    start = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theirs = start.clone().requires_grad_()
    solver = reference(theirs)
    state = optimizer.init(start)
    for step in range(40):
        torch.testing.assert_close(state.x, theirs.detach(), rtol=1e-10, atol=1e-12)
        assert state.iterations.tolist() == [step] * 5
        x = state.x.detach().requires_grad_()
        loss = bumpy(x)
        state = optimizer.update(state, loss.detach(), torch.autograd.grad(loss.sum(), x)[0])
        solver.zero_grad()
        bumpy(theirs).sum().backward()
        solver.step()


@pytest.mark.parametrize("optimizer", [GradientDescent, Adam])
@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "fast"])
def test_impossible_learning_rates_are_refused_by_name(optimizer, value):
    with pytest.raises(InputError, match="^learning_rate is"):
        optimizer(learning_rate=value)


@pytest.mark.parametrize("optimizer", [GradientDescent, Adam, LBFGS])
def test_a_start_has_counts_of_zero_and_nothing_stalled(optimizer):
    start = torch.ones(3, 2)
    state = optimizer().init(start)
    assert state.x is start
    assert (state.iterations.dtype, state.iterations.tolist()) == (torch.long, [0, 0, 0])
    assert (state.stalled.dtype, state.stalled.tolist()) == (torch.bool, [False] * 3)


@pytest.mark.parametrize("optimizer", [GradientDescent, Adam])
def test_a_zero_gradient_moves_nothing_and_counts_an_iteration(optimizer):
    start = torch.ones(1, 2)
    state = optimizer().init(start)
    state = optimizer().update(state, torch.ones(1), torch.zeros(1, 2))
    assert torch.equal(state.x, start)
    assert state.iterations.tolist() == [1]
    assert state.stalled.tolist() == [False]


def test_adam_adds_epsilon_to_the_root_and_not_under_it():
    optimizer = Adam(learning_rate=1.0, epsilon=0.5)
    gradient = torch.full((1, 1), 0.5, dtype=torch.float64)
    state = optimizer.update(optimizer.init(torch.zeros_like(gradient)), gradient[0], gradient)
    assert state.x.item() == pytest.approx(-0.5)  # 0.5 / (0.5 + 0.5)


def test_adams_decays_may_come_as_a_list_and_are_refused_by_name():
    assert Adam(betas=[0.5, 0.75]).betas == (0.5, 0.75)
    assert Adam(betas=(0, 0)).betas == (0, 0)
    for betas in ((-0.1, 0.9), (0.9, 1.0), (0.9,), "ab", None, (0.9, 0.9, 0.9)):
        with pytest.raises(InputError, match="^betas is"):
            Adam(betas=betas)
