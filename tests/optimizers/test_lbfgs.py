"""The batched L-BFGS walks the path of torch.optim.LBFGS, attack by attack: compiled, and by torch alone."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wdlg import compiled
from wdlg.errors import InputError
from wdlg.optimizers import LBFGS


@pytest.fixture(autouse=True, scope="module", params=["compiled", "torch"])
def path(request):
    """Everything here holds for both forms of the update."""
    with nullcontext() if request.param == "compiled" else compiled.turned_off():
        yield


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


@pytest.mark.parametrize("history", [1, 2, 5])
def test_memory_full_or_not_an_attack_may_be_ahead_of_its_neighbours(history):
    """Attacks that begin at different times have memories of different lengths in one batch."""
    optimizer = LBFGS(learning_rate=0.1, history=history, inner_iterations=5)
    start = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole, counts, _ = ours(sigmoids, start, optimizer, 30)
    _, _, early = ours(sigmoids, start, optimizer, 7)
    state = type(early).join([early.select(torch.tensor([1, 3])), optimizer.init(start[[0, 2]])])
    for evaluation in range(20):
        torch.testing.assert_close(state.x[:2], whole[evaluation + 7, [1, 3]])
        torch.testing.assert_close(state.x[2:], whole[evaluation, [0, 2]])
        assert torch.equal(state.iterations[:2], counts[evaluation + 7, [1, 3]])
        x = state.x.detach().requires_grad_()
        loss = sigmoids(x)
        state = optimizer.update(state, loss.detach(), torch.autograd.grad(loss.sum(), x)[0])


def update_once(optimizer, state, loss, *grads):
    return optimizer.update(state, torch.tensor(loss).double(), torch.tensor(grads).double())


def test_an_iteration_ends_at_a_flat_point_a_small_move_or_a_small_change_and_not_before():
    """The rules of torch, each alone: after the first evaluation of an iteration, and not at the bound."""
    optimizer = LBFGS(learning_rate=0.5, tolerance_grad=0.25, tolerance_change=1 / 64)
    begun = update_once(optimizer, optimizer.init(torch.zeros(5, 2).double()), [1.0] * 5, *[[1.0, 0.5]] * 5)
    assert begun.inner.tolist() == [1] * 5
    x = begun.x.clone()
    losses = [0.5, 0.5, 0.99, 1 - 1 / 64, 0.5]
    grads = [[0.25, -0.25], [0.25, -0.375], [1.0, 0.0], [1.0, 0.0], [0.0, 0.26]]
    after = update_once(optimizer, begun, losses, *grads)
    assert after.iterations.tolist() == [1, 0, 1, 0, 0]
    assert after.inner.tolist() == [0, 2, 0, 2, 2]
    assert (after.x == x).all(1).tolist() == [True, False, True, False, False]
    assert not after.stalled.any()


def test_an_iteration_ends_after_a_move_of_the_tolerance_and_not_after_a_longer_one():
    for rate, ended in ((0.125, True), (0.1251, False)):
        optimizer = LBFGS(learning_rate=rate, tolerance_change=0.125)
        begun = update_once(optimizer, optimizer.init(torch.zeros(1, 2).double()), [9.0], [1.0, 0.0])
        after = update_once(optimizer, begun, [1.0], [1.0, 0.5])
        assert after.iterations.tolist() == [int(ended)]


def test_an_attack_without_a_slope_to_descend_is_stalled():
    for slope, stalled in ((0.5, True), (0.51, False)):
        optimizer = LBFGS(tolerance_change=0.2501 if stalled else 0.26, tolerance_grad=1e-9)
        state = update_once(optimizer, optimizer.init(torch.zeros(1, 1).double()), [1.0], [slope])
        assert state.stalled.tolist() == [stalled]
        assert state.iterations.tolist() == [int(stalled)]
        assert state.inner.tolist() == [int(not stalled)]
        assert (state.x == 0).all().item() == stalled


def test_the_memory_holds_moves_and_changes_of_the_gradient_and_only_those_of_positive_curvature():
    optimizer = LBFGS(learning_rate=0.5, history=2)
    state = update_once(
        optimizer, optimizer.init(torch.zeros(2, 2).double()), [1.0, 1.0], [0.5, 0.0], [0.5, 0.0]
    )
    torch.testing.assert_close(state.x, torch.tensor([[-0.25, 0.0]] * 2).double())
    assert state.taken.tolist() == [0, 0]
    state = update_once(optimizer, state, [0.5, 0.5], [0.25, 0.5], [0.75, 0.5])
    # y = (-0.25, 0.5) and (0.25, 0.5), s = (-0.25, 0): y·s = 1/16 and -1/16; gamma = y·s / y·y = 1/5.
    assert state.taken.tolist() == [1, 0]
    torch.testing.assert_close(state.scale, torch.tensor([0.2, 1.0]).double())
    torch.testing.assert_close(state.S[0, 0], torch.tensor([-0.25, 0.0]).double())
    torch.testing.assert_close(state.Y[0, 0], torch.tensor([-0.25, 0.5]).double())
    assert not state.S[1].any()
    # Without a pair the direction is down the gradient, at the full rate: the first move alone is cautious.
    torch.testing.assert_close(state.x[1], torch.tensor([-0.25 - 0.375, -0.25]).double())
    assert state.moves.tolist() == [2, 2]
    assert state.previous_loss.tolist() == [0.5, 0.5]
    assert state.step.tolist() == [0.5, 0.5]
