"""The batched L-BFGS walks the path of torch.optim.LBFGS, attack by attack."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wdlg.errors import InputError
from wdlg.optimizers import LBFGS


def rosenbrock(x):
    """One value for each row of x (B, n)."""
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def sigmoids(x):
    """A bumpy function with flat regions, where pairs of negative curvature are skipped."""
    weights = torch.linspace(-2, 2, x.shape[1], dtype=x.dtype)
    return (torch.sigmoid(x * weights) * torch.cos(x)).sum(1) + 0.01 * x.square().sum(1)


def quadratic(x):
    scales = torch.logspace(0, 3, x.shape[1], dtype=x.dtype)
    return 0.5 * (scales * x.square()).sum(1)


FUNCTIONS = {"rosenbrock": rosenbrock, "sigmoids": sigmoids, "quadratic": quadratic}


def ours(function, start, optimizer, evaluations):
    """Points evaluated, (evaluations, B, n), and the iteration count at each, (evaluations, B)."""
    state = optimizer.init(start)
    points, iterations = [], []
    for _ in range(evaluations):
        x = state.x.detach().requires_grad_()
        loss = function(x)
        (grad,) = torch.autograd.grad(loss.sum(), x)
        points.append(state.x)
        iterations.append(state.iterations)
        state = optimizer.update(state, loss.detach(), grad)
    return torch.stack(points), torch.stack(iterations), state


def torchs(function, start, optimizer, evaluations):
    """The same for one attack with torch.optim.LBFGS; start is (n,)."""
    x = start.clone().requires_grad_()
    reference = torch.optim.LBFGS(
        [x],
        lr=optimizer.learning_rate,
        history_size=optimizer.history,
        max_iter=optimizer.inner_iterations,
        tolerance_grad=optimizer.tolerance_grad,
        tolerance_change=optimizer.tolerance_change,
    )
    points, iterations = [], []

    def closure():
        reference.zero_grad()
        loss = function(x[None])[0]
        loss.backward()
        points.append(x.detach().clone())
        iterations.append(step)
        return loss

    step = 0
    while len(points) < evaluations:
        reference.step(closure)
        step += 1
    return torch.stack(points)[:evaluations], torch.tensor(iterations)[:evaluations]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "optimizer",
    [
        LBFGS(learning_rate=0.3),
        LBFGS(learning_rate=0.1, history=5),
        LBFGS(learning_rate=0.05, history=3, inner_iterations=7),
    ],
    ids=["memory never full", "memory wraps", "short iterations"],
)
def test_every_attack_of_a_batch_follows_torch(name, optimizer):
    function = FUNCTIONS[name]
    start = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    evaluations = 60
    points, iterations, _ = ours(function, start, optimizer, evaluations)
    for attack in range(len(start)):
        expected, expected_iterations = torchs(function, start[attack], optimizer, evaluations)
        # Without line search rounding can grow without bound. Compare the paths as long as torch's own
        # path withstands a change of its start in the last digits.
        nudged, _ = torchs(function, start[attack] * (1 + 1e-15), optimizer, evaluations)
        lost = (nudged - expected).abs().amax(1) > 1e-8 * (1 + expected.abs().amax(1))
        horizon = int(lost.nonzero()[0]) if lost.any() else evaluations
        assert horizon > 15
        torch.testing.assert_close(points[:horizon, attack], expected[:horizon], rtol=1e-5, atol=1e-6)
        assert torch.equal(iterations[:horizon, attack], expected_iterations[:horizon])


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 5), st.sampled_from(sorted(FUNCTIONS)))
def test_an_attack_alone_and_among_others_takes_the_same_path(seed, others, name):
    start = torch.randn(others + 1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    optimizer = LBFGS(learning_rate=0.05, history=4)
    together, _, _ = ours(FUNCTIONS[name], start, optimizer, 25)
    alone, _, _ = ours(FUNCTIONS[name], start[:1], optimizer, 25)
    torch.testing.assert_close(together[:, :1], alone, rtol=1e-7, atol=1e-9)


def test_states_taken_out_of_the_batch_go_on_as_before():
    optimizer = LBFGS(learning_rate=0.1, history=4)
    start = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole, _, _ = ours(rosenbrock, start, optimizer, 30)
    _, _, state = ours(rosenbrock, start, optimizer, 20)
    state = state.select(torch.tensor([2, 0]))
    torch.testing.assert_close(state.x, whole[20, [2, 0]])
    for evaluation in range(20, 30):
        x = state.x.detach().requires_grad_()
        loss = rosenbrock(x)
        torch.testing.assert_close(state.x, whole[evaluation, [2, 0]])
        state = optimizer.update(state, loss.detach(), torch.autograd.grad(loss.sum(), x)[0])


def test_an_attack_at_rest_is_stalled_and_its_neighbour_is_not():
    start = torch.tensor([[0.0, 0.0], [1.0, -1.0]], dtype=torch.float64)
    _, _, state = ours(quadratic, start, LBFGS(), 1)
    assert state.stalled.tolist() == [True, False]


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 0), ("learning_rate", float("nan")), ("history", 0), ("inner_iterations", -1)],
)
def test_impossible_settings_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"^{name} is"):
        LBFGS(**{name: value})
