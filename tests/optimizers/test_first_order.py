"""Gradient descent and Adam are torch's, attack by attack."""

import pytest
import torch

from wdlg.errors import InputError
from wdlg.optimizers import Adam, GradientDescent


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
