"""Transport between rank-one rows is that of the full cost matrix, to rounding."""

import pytest
import torch
from gradients_for_tests import random_gradient
from hypothesis import given
from hypothesis import strategies as st

from wdlg.losses import Wasserstein, rank_one
from wdlg.losses.rank_one import LARGEST, RankOneRows
from wdlg.losses.sinkhorn import ROUND, sinkhorn_plan
from wdlg.losses.wasserstein import squared_distances
from wdlg.updates import Gradient
from wdlg.updates.output_layer import Dense

seeds = st.integers(0, 2**31)


def softmax_errors(seed, classes, spread, problems=3):
    """Gradients of output biases: softmax minus one-hot, (problems, classes)."""
    stream = torch.Generator().manual_seed(seed)
    scores = spread * torch.randn(2, problems, classes, generator=stream, dtype=torch.float64)
    error = scores.softmax(-1)
    error[:, :, 1] -= 1
    return error


def rows(seed, classes=30, spread=3.0, features=20):
    """Rank-one rows, and their factors (e, f) and (s, g)."""
    (e, s) = softmax_errors(seed, classes, spread)
    stream = torch.Generator().manual_seed(seed + 1)
    f, g = torch.randn(2, 3, features, generator=stream, dtype=torch.float64)
    given = RankOneRows(e, s, f.square().sum(1), g.square().sum(1), (f * g).sum(1))
    return given, (e, f), (s, g)


@given(
    seeds,
    st.sampled_from([0.05, 0.1, 1.0]),
    st.sampled_from([0.3, 3.0, 10.0]),
    st.integers(1, 60),
    st.sampled_from([30, 300]),
)
def test_cost_is_that_of_the_full_matrix_after_any_number_of_iterations(
    seed, eps, spread, iterations, classes
):
    problem, (e, f), (s, g) = rows(seed, spread=spread, classes=classes)
    cost = squared_distances(e[:, :, None] * f[:, None, :], s[:, :, None] * g[:, None, :])
    settings = {"eps": eps, "max_iterations": iterations, "threshold": 1e-6}
    full = (sinkhorn_plan(cost, **settings) * cost).sum((1, 2))
    ours = problem.transport_cost(**settings, look_every=ROUND)
    torch.testing.assert_close(ours, full, rtol=1e-9, atol=1e-12)


@given(seeds)
def test_loss_and_derivative_do_not_depend_on_the_way(seed):
    shared, other = (random_gradient(seed + shift, classes=12, scale=0.5) for shift in (0, 1))
    results = []
    for limit in (0, 100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rank_one, "RANK_ONE_ABOVE", limit)
            error, features = (part.clone().requires_grad_() for part in (other.bias, other.output.features))
            dummy = Gradient.of_one(other.hidden, error, features)
            loss = Wasserstein()(dummy, shared)
            results.append((loss.detach(), *torch.autograd.grad(loss.sum(), (error, features))))
    for ours, full in zip(*results, strict=True):
        torch.testing.assert_close(ours, full, rtol=1e-7, atol=1e-10)


CLASSES = 12
BY_MATRIX = [
    *({"value": value} for value in ("dual", "debiased")),
    *({"cost": cost} for cost in ("euclidean", "pseudo_huber")),
    {"penalty": 0.5},
    {"derivative": "unrolled", "max_iterations": 5},
    {"points": "kernels", "kernel_width": 3},
    {"eps": 1e-7},
]
WITHOUT_MATRIX = [{}, {"relative": True}, {"mass": "one"}, {"mass": "relative"}, {"root": "each"}]


def ways(settings, classes=CLASSES, others=lambda gradient: gradient):
    """Loss without and with the matrix of all pairs of classes, and the calls of the way without."""
    shared, other = (random_gradient(seed, classes=classes, scale=0.5) for seed in (0, 1))
    results, calls = [], []
    plain = RankOneRows.transport_cost

    def counted(self, **given):
        calls.append(len(self.left))
        return plain(self, **given)

    for limit in (CLASSES - 1, 100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rank_one, "RANK_ONE_ABOVE", limit)
            patch.setattr(RankOneRows, "transport_cost", counted)
            results.append(Wasserstein(**settings)(other, others(shared)))
    torch.testing.assert_close(*results, rtol=1e-7, atol=1e-10)
    return calls


@pytest.mark.parametrize("settings", WITHOUT_MATRIX, ids=str)
def test_weight_and_bias_are_solved_in_one_call_without_a_matrix(settings):
    assert ways(settings) == [2 * 3]  # of three attacks


@pytest.mark.parametrize("settings", BY_MATRIX, ids=str)
def test_other_readings_and_kernels_beyond_double_precision_write_the_matrix_out(settings):
    assert ways(settings) == []


def test_few_classes_and_weights_that_are_no_product_are_solved_by_their_matrix():
    assert ways({}, classes=CLASSES - 1) == []

    def noisy(gradient):
        rest = 0.1 * torch.ones(gradient.output.shape, dtype=torch.float64)
        return Gradient(gradient.hidden, Dense(gradient.bias, gradient.output.features, rest))

    assert ways({}, others=noisy) == []


def test_thousands_of_classes_are_no_obstacle():
    problem, *_ = rows(0, classes=3000, spread=4.0, features=600)
    settings = {"eps": 0.1, "max_iterations": 20, "threshold": 1e-6, "look_every": ROUND}
    cost = problem.transport_cost(**settings)
    alone = RankOneRows(*(part[1:2] for part in vars(problem).values())).transport_cost(**settings)
    assert torch.isfinite(cost).all()
    torch.testing.assert_close(cost[1:2], alone)


def test_a_kernel_beyond_double_precision_is_seen_before_it_is_used():
    problem, *_ = rows(1)
    largest = problem.left.abs().amax()
    eps = float(2 * problem.coupling.abs().amin() * largest**2 / LARGEST**2)
    assert not problem.is_within_range(eps / 10)
    assert problem.is_within_range(1.0)
