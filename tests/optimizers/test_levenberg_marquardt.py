"""Levenberg-Marquardt solves least squares: the textbook's problems, and what its rules promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from torch import Tensor
from torch.func import jvp, vjp

from wdlg.errors import InputError
from wdlg.optimizers import OPTIMIZERS, LevenbergMarquardt
from wdlg.optimizers.levenberg_marquardt import (
    BEND,
    LEAST_DAMPING,
    MATRIX,
    MOST_DAMPING,
    SOLUTION,
    LevenbergMarquardtState,
    solve,
)

Residual = Callable[[Tensor], Tensor]


def rosenbrock(x: Tensor) -> Tensor:
    return torch.stack((10 * (x[1] - x[0] ** 2), 1 - x[0]))


def powell(x: Tensor) -> Tensor:
    """Powell's singular function, whose Jacobian at the solution 0 has rank 2."""
    return torch.stack(
        (x[0] + 10 * x[1], 5**0.5 * (x[2] - x[3]), (x[1] - 2 * x[2]) ** 2, 10**0.5 * (x[0] - x[3]) ** 2)
    )


def unasked(place: int, step: Tensor) -> Tensor:
    raise AssertionError("without acceleration nobody asks how a path bends")


class Run:
    """The course of some attacks on one residual, as the engine takes it."""

    def __init__(self, optimizer: LevenbergMarquardt, residual: Residual, start: Tensor) -> None:
        self.optimizer, self.residual = optimizer, residual
        self.state = optimizer.init(start)
        self.losses: list[Tensor] = []
        self.matrices, self.bends = 0, 0

    def at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        loss = torch.stack([self.residual(row).square().sum() for row in x])
        return loss.detach(), torch.autograd.grad(loss.sum(), x)[0]

    def step(self) -> None:
        state, loss, grad = self.optimizer.settle(self.state, *self.at(self.state.x))
        self.losses.append(loss)
        self.points = state.x

        def normal_matrix(place: int) -> Tensor:
            self.matrices += 1
            x = state.x[place].detach().requires_grad_()
            rows = [torch.autograd.grad(one, x, retain_graph=True)[0] for one in self.residual(x)]
            return torch.stack(rows).T @ torch.stack(rows)

        def bend(place: int, step: Tensor) -> Tensor:
            self.bends += 1

            def along(x: Tensor) -> Tensor:
                return jvp(self.residual, (x,), (step,))[1]

            second = jvp(along, (state.x[place],), (step,))[1]
            return vjp(self.residual, state.x[place])[1](second)[0]

        self.state = self.optimizer.update(state, loss, grad, normal_matrix, bend)

    def until(self, loss: float, most: int = 300) -> int:
        for number in range(most):
            self.step()
            if float(self.losses[-1].max()) < loss:
                return number
        return most


@pytest.mark.parametrize(
    ("residual", "start"),
    [(rosenbrock, [-1.2, 1.0]), (powell, [3.0, -1.0, 0.0, 1.0])],
    ids=["Rosenbrock", "Powell"],
)
def test_problems_of_the_textbook_are_solved_from_their_standard_starts(residual, start):
    run = Run(LevenbergMarquardt(), residual, torch.tensor([start], dtype=torch.float64))
    assert run.until(1e-20) < 60
    theirs = least_squares(lambda x: residual(torch.from_numpy(x)).numpy(), start, method="lm")
    torch.testing.assert_close(run.points[0], torch.from_numpy(theirs.x), rtol=0, atol=1e-4)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_linear_problem_is_solved_by_one_undamped_step(seed):
    stream = torch.Generator().manual_seed(seed)
    matrix = torch.randn(9, 4, generator=stream, dtype=torch.float64)
    right = torch.randn(9, generator=stream, dtype=torch.float64)
    run = Run(
        LevenbergMarquardt(damping=1e-14, acceleration=0),
        lambda x: matrix @ x - right,
        torch.zeros(1, 4).double(),
    )
    run.step()
    expected = torch.linalg.lstsq(matrix, right).solution
    torch.testing.assert_close(run.state.x[0], expected, rtol=1e-6, atol=1e-6)


def test_of_a_linear_problem_the_model_foretells_the_loss_whatever_the_damping():
    stream = torch.Generator().manual_seed(2)
    matrix = torch.randn(9, 4, generator=stream, dtype=torch.float64)
    right = torch.randn(9, generator=stream, dtype=torch.float64)
    run = Run(
        LevenbergMarquardt(damping=0.3, fall=3, acceleration=0),
        lambda x: matrix @ x - right,
        torch.zeros(1, 4).double(),
    )
    for _ in range(4):
        run.step()
        after, _ = run.at(run.state.x)
        torch.testing.assert_close(run.state.predicted, run.losses[-1] - after, rtol=1e-9, atol=0)


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1), damping=st.floats(1e-12, 1e3))
def test_the_loss_never_rises_and_attacks_go_as_if_alone(seed, damping):
    stream = torch.Generator().manual_seed(seed)
    start = 3 * torch.randn(3, 2, generator=stream, dtype=torch.float64)
    optimizer = LevenbergMarquardt(damping=damping)
    together = Run(optimizer, rosenbrock, start)
    alone = [Run(optimizer, rosenbrock, start[place : place + 1]) for place in range(3)]
    for _ in range(8):
        for run in (together, *alone):
            run.step()
    losses = torch.stack(together.losses)
    assert (losses.diff(dim=0) <= 0).all()
    for place, run in enumerate(alone):
        assert torch.equal(losses[:, place], torch.cat(run.losses))
        assert torch.equal(together.state.x[place], run.state.x[0])


@pytest.mark.parametrize("fall", [3.0, 10.0])
def test_a_trial_is_taken_by_gain_and_damping_follows_nielsens_rule(fall):
    optimizer = LevenbergMarquardt(least_gain=0.25, fall=fall)
    state = replace(
        optimizer.init(torch.ones(5, 1, dtype=torch.float64)),
        begun=torch.ones(5, dtype=torch.bool),
        origin=torch.zeros(5, 1, dtype=torch.float64),
        origin_loss=torch.full((5,), 10.0, dtype=torch.float64),
        predicted=torch.full((5,), 4.0, dtype=torch.float64),
        damping=torch.full((5,), 3.0, dtype=torch.float64),
        growth=torch.full((5,), 8.0, dtype=torch.float64),
    )
    loss = torch.tensor(
        [6.0, 8.0, 9.0, 8.9, torch.inf], dtype=torch.float64
    )  # gains 1, 1/2, 1/4, 0.275, none
    settled, kept, _ = optimizer.settle(state, loss, torch.zeros(5, 1, dtype=torch.float64))
    assert settled.fresh.tolist() == [True, True, False, True, False]
    assert kept.tolist() == [6.0, 8.0, 10.0, 8.9, 10.0]
    assert settled.x[:, 0].tolist() == [1, 1, 0, 1, 0]
    assert settled.iterations.tolist() == [1, 1, 0, 1, 0]
    rule = [3 * max(1 / fall, 1 - (2 * gain - 1) ** 3) for gain in (1, 0.5, 0.275)]
    torch.testing.assert_close(
        settled.damping, torch.tensor([rule[0], rule[1], 24, rule[2], 24], dtype=torch.float64)
    )
    assert settled.growth.tolist() == [2, 2, 16, 2, 16]


def test_a_trial_whose_gradient_is_not_finite_is_not_taken():
    optimizer = LevenbergMarquardt()
    run = Run(optimizer, rosenbrock, torch.tensor([[-1.2, 1.0]], dtype=torch.float64))
    run.step()
    settled, loss, grad = optimizer.settle(
        run.state, torch.zeros(1).double(), torch.tensor([[0.0, torch.nan]]).double()
    )
    assert torch.equal(settled.x, run.points)
    assert torch.equal(loss, run.losses[0])
    assert torch.isfinite(grad).all()


def test_refused_trials_share_one_matrix_and_are_counted():
    run = Run(
        LevenbergMarquardt(damping=1e-12, acceleration=0),
        rosenbrock,
        torch.tensor([[-1.2, 1.0]], dtype=torch.float64),
    )
    spent, refused = 0, 0
    while not run.losses or run.losses[-1] > 1e-20:
        run.step()
        spent += int(run.state.spent)
        refused += int(not run.state.fresh)
        assert int(run.state.spent) <= run.optimizer.cost(2)
    assert refused > 0
    assert run.matrices == len(run.losses) - refused
    assert int(run.state.iterations) == run.matrices - 1  # the last one has no step yet
    assert spent == run.matrices * round(2 * MATRIX) + len(run.losses) * round(2 * SOLUTION)


def parabola(bend: float, unit: float) -> Residual:
    """r = (y - bend y²/2, 1) with y = x / unit: its path along a step s in y has ``r'' = -bend s²``."""
    return lambda x: torch.cat((x / unit - bend * (x / unit) ** 2 / 2, torch.ones(1).double()))


@pytest.mark.parametrize("unit", [0.01, 1, 100])
@pytest.mark.parametrize("acceleration", [0.3, 0.5])
def test_a_step_follows_how_its_path_bends_up_to_a_bound(acceleration, unit):
    # From y = 1 with slope J = 1 - bend and residual 1 - bend/2.
    for bend in (0.1, 0.2, 0.25, 0.3, 0.4):
        optimizer = LevenbergMarquardt(damping=0.5, acceleration=acceleration)
        run = Run(optimizer, parabola(bend, unit), torch.full((1, 1), unit, dtype=torch.float64))
        run.step()
        slope, damped = 1 - bend, 1.5 * (1 - bend) ** 2
        step = -slope * (1 - bend / 2) / damped
        bent = slope * bend * step**2 / damped
        followed = abs(bent) <= acceleration * abs(step)
        expected = 1 + step + (bent / 2 if followed else 0)
        assert float(run.state.x) / unit == pytest.approx(expected, rel=1e-12)
        assert int(run.state.spent) == optimizer.cost(1) == round(MATRIX) + round(SOLUTION) + BEND


def test_a_path_that_does_not_bend_is_followed_as_without_acceleration():
    stream = torch.Generator().manual_seed(2)
    matrix = torch.randn(9, 4, generator=stream, dtype=torch.float64)
    runs = [
        Run(LevenbergMarquardt(acceleration=bound), lambda x: matrix @ x - 1, torch.zeros(1, 4).double())
        for bound in (0, 1)
    ]
    for run in runs:
        run.step()
    assert torch.equal(runs[0].state.x, runs[1].state.x)
    assert (runs[0].bends, runs[1].bends) == (0, 1)


def test_a_curved_valley_takes_fewer_models_with_acceleration():
    # A Rosenbrock of a narrower valley, from the standard start.
    def valley(x: Tensor) -> Tensor:
        return torch.stack((100 * (x[1] - x[0] ** 2), 1 - x[0]))

    start = torch.tensor([[-1.2, 1.0]], dtype=torch.float64)
    runs = [Run(LevenbergMarquardt(acceleration=bound), valley, start) for bound in (0, 0.75)]
    assert all(run.until(1e-20) < 300 for run in runs)
    assert 2 * runs[1].matrices < runs[0].matrices
    torch.testing.assert_close(runs[1].points, torch.ones(1, 2).double())


def test_where_a_bend_is_not_finite_the_step_is_not_bent():
    optimizer = LevenbergMarquardt(acceleration=0.75)
    loss, grad = torch.ones(1).double(), torch.ones(1, 2).double()
    trials = [
        optimizer.update(
            optimizer.init(torch.zeros_like(grad)),
            loss,
            grad,
            lambda _: torch.eye(2).double(),
            lambda _, step, wrong=wrong: torch.full_like(step, wrong),
        ).x
        for wrong in (0.0, torch.nan, torch.inf)
    ]
    assert torch.equal(trials[1], trials[0])
    assert torch.equal(trials[2], trials[0])


def test_an_attack_stalls_where_the_model_promises_nothing():
    # The least loss is 1, in x = 0.
    run = Run(
        LevenbergMarquardt(),
        lambda x: torch.cat((x, torch.ones(1).double())),
        torch.ones(1, 1, dtype=torch.float64),
    )
    for _ in range(12):
        run.step()
        if run.state.stalled:
            break
    assert run.state.stalled
    assert torch.equal(run.state.x, run.points)
    assert float(run.losses[-1]) == pytest.approx(1, abs=1e-6)


def updated(matrix: Tensor, damping: float) -> LevenbergMarquardtState:
    """After an update at a point of loss 1 and gradient (1, ..., 1), by this matrix and damping."""
    optimizer = LevenbergMarquardt(tolerance=1e-12, acceleration=0)
    loss, grad = torch.ones(1).double(), torch.ones(1, len(matrix)).double()
    state, _, _ = optimizer.settle(optimizer.init(torch.ones_like(grad)), loss, grad)
    state = replace(state, begun=torch.ones(1, dtype=torch.bool), damping=torch.tensor([damping]).double())
    return optimizer.update(state, loss, grad, lambda _: matrix, unasked)


def test_an_attack_stalls_where_no_damping_helps():
    twice = 2 * torch.eye(4).double()
    most = 2 * MOST_DAMPING
    assert not updated(twice, most).stalled
    beyond = updated(twice, 1.01 * most)
    assert beyond.stalled
    assert int(beyond.spent) == round(4 * MATRIX)  # no solution was tried
    assert updated(torch.full((2, 2), torch.nan).double(), 1.0).stalled
    assert updated(torch.zeros(2, 2).double(), 0.0).stalled


def test_damping_has_a_least_value_in_units_of_the_matrix():
    assert updated(4 * torch.eye(2).double(), 0.0).damping.tolist() == [4 * LEAST_DAMPING]


def test_damping_grows_faster_each_time_that_a_matrix_is_not_positive_definite():
    # By 2, 4 and 8, until it exceeds the eigenvalue below 0.
    indefinite = torch.diag(torch.tensor([1.0, 1.0, 1.0, -0.05])).double()
    found = updated(indefinite, 1e-3)
    assert found.damping.tolist() == [pytest.approx(64e-3)]
    assert found.growth.tolist() == [16]
    assert int(found.spent) == round(4 * MATRIX) + 4 * round(4 * SOLUTION)


def test_attacks_that_have_ended_get_no_trial():
    optimizer = LevenbergMarquardt(acceleration=0)
    start = torch.tensor([[-1.2, 1.0], [2.0, 2.0]], dtype=torch.float64)
    run = Run(optimizer, rosenbrock, start)
    asked = []

    def normal_matrix(place: int) -> Tensor:
        asked.append(place)
        return torch.eye(2).double()

    state, loss, grad = optimizer.settle(run.state, *run.at(start))
    state = optimizer.update(state, loss, grad, normal_matrix, unasked, torch.tensor([False, True]))
    assert asked == [1]
    assert torch.equal(state.x[0], start[0])
    assert not torch.equal(state.x[1], start[1])
    assert state.spent[0] == 0


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), damping=st.floats(1e-3, 10))
def test_the_normal_equations_are_solved(seed, damping):
    stream = torch.Generator().manual_seed(seed)
    rows = torch.randn(4, 6, generator=stream, dtype=torch.float64)
    matrix, right = rows.T @ rows, torch.randn(6, generator=stream, dtype=torch.float64)
    before = matrix.clone()
    found = solve(matrix, damping, right)
    torch.testing.assert_close(matrix @ found + damping * found, right, rtol=1e-9, atol=1e-9)
    assert torch.equal(matrix, before)
    assert solve(-matrix - torch.eye(6).double(), 1e-3, right) is None
    single = solve(matrix.float(), damping, right)
    assert single.dtype == torch.float64
    torch.testing.assert_close(single, found, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    "impossible",
    [
        {"damping": 0},
        {"fall": 1},
        {"fall": 0.5},
        {"damping": float("nan")},
        {"tolerance": -1},
        {"least_gain": 0},
        {"precision": "half"},
        {"acceleration": -0.1},
        {"acceleration": float("inf")},
    ],
)
def test_impossible_settings_are_refused_by_name(impossible):
    with pytest.raises(InputError, match=f"^{next(iter(impossible))} is"):
        LevenbergMarquardt(**impossible)


def test_it_comes_back_from_its_description():
    optimizer = LevenbergMarquardt(precision="single", damping=0.1, acceleration=0.75)
    assert OPTIMIZERS.build("optimizer", OPTIMIZERS.describe(optimizer)) == optimizer
