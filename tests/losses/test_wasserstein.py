"""WDCA against POT, against known answers, and against itself in its two forms."""

import math

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from gradients_for_tests import random_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from ot.batch import bregman_log_projection_batch
from scipy.stats import wasserstein_distance

from wdlg.errors import InputError
from wdlg.losses import Wasserstein
from wdlg.losses.sinkhorn import exact_assignment, sinkhorn_plan
from wdlg.losses.wasserstein import row_costs, squared_distances, wdca
from wdlg.updates import Gradient

seeds = st.integers(0, 2**31)
LONG = {"max_iterations": 20_000, "threshold": 1e-12}
NEARLY_EXACT = {"eps": 2e-3, "max_iterations": 3_000, "threshold": 1e-9}


def points(seed, n=7, d=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, n, d, generator=generator, dtype=torch.float64)


def uniform(n):
    return np.full(n, 1 / n)


@settings(max_examples=20)
@given(seeds, st.sampled_from([0.05, 0.1, 1.0]))
def test_algorithm_2_and_its_log_domain_form_and_pot_agree(seed, eps):
    x, y = points(seed)
    distance, plan = wdca(x, y, eps=eps, **LONG)
    fast = sinkhorn_plan(squared_distances(x, y)[None], eps=eps, **LONG)[0]
    cost = squared_distances(x, y).numpy()
    pot = ot.sinkhorn(uniform(7), uniform(7), cost, eps, stopThr=1e-12, numItermax=20_000, warn=False)
    np.testing.assert_allclose(plan, pot, atol=1e-8)
    np.testing.assert_allclose(fast, pot, atol=1e-8)
    assert distance.item() == pytest.approx((pot * cost).sum())


@settings(max_examples=20)
@given(seeds, st.integers(1, 40))
def test_both_forms_agree_after_any_number_of_iterations(seed, iterations):
    x, y = points(seed)
    _, plan = wdca(x, y, eps=0.1, max_iterations=iterations, threshold=1e-300)
    fast = sinkhorn_plan(squared_distances(x, y)[None], eps=0.1, max_iterations=iterations, threshold=1e-300)
    torch.testing.assert_close(fast[0], plan)


@settings(max_examples=10)
@given(seeds)
def test_the_limit_of_small_eps_is_the_exact_distance(seed):
    x, y = points(seed)
    cost = squared_distances(x, y)
    exact = ot.emd2(uniform(7), uniform(7), cost.numpy())
    plan = sinkhorn_plan(cost[None], **NEARLY_EXACT)[0]
    # Entropy costs at most eps log n more; mass that misses its marginal may save some.
    slack = missing(plan) * cost.max()
    assert exact - slack - 1e-12 <= (plan * cost).sum() <= exact + 2e-3 * math.log(7) + slack


def missing(plan):
    """Mass by which a plan between 7 and 7 points misses its first marginal."""
    return (plan.sum(1) - 1 / 7).abs().sum()


@settings(max_examples=20)
@given(seeds)
def test_points_on_a_line_give_scipys_distance_squared_costs_by_sorting(seed):
    x, y = points(seed, d=1)
    cost = squared_distances(x, y)
    plan = sinkhorn_plan(cost[None], **NEARLY_EXACT)[0]
    by_sorting = (x.sort(0).values - y.sort(0).values).square().mean()
    slack = missing(plan) * cost.max()
    assert by_sorting - slack - 1e-12 <= (plan * cost).sum() <= by_sorting + 2e-3 * math.log(7) + slack
    root = ot.wasserstein_1d(x[:, 0].numpy(), y[:, 0].numpy(), p=1)
    assert root == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]))


@settings(max_examples=20)
@given(seeds)
def test_shuffling_the_points_changes_nothing(seed):
    x, y = points(seed)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    assert wdca(x[order], y, **LONG)[0].item() == pytest.approx(wdca(x, y, **LONG)[0].item())


@settings(max_examples=20)
@given(seeds, st.floats(0.02, 2.0))
def test_the_cost_of_an_entropic_plan_is_above_zero_for_equal_points(seed, eps):
    x, _ = points(seed)
    distance, plan = wdca(x, x, eps=eps, **LONG)
    assert distance > 0
    torch.testing.assert_close(plan, plan.T, atol=1e-6, rtol=0)


def test_a_translation_costs_the_square_of_its_length():
    x, _ = points(1)
    shift = torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64)
    cost = squared_distances(x, x + shift)
    plan = sinkhorn_plan(cost[None], **NEARLY_EXACT)[0]
    assert (plan * cost).sum() == pytest.approx(25, abs=1e-2)


def test_large_costs_underflow_algorithm_2_as_printed_and_not_the_log_domain():
    x, y = points(2)
    distance, _ = wdca(x, y + 40.0, eps=0.1)
    assert torch.isnan(distance)
    cost = squared_distances(x, y + 40.0)
    plan = sinkhorn_plan(cost[None], eps=0.1)[0]
    torch.testing.assert_close(plan.sum(0), torch.full((7,), 1 / 7, dtype=torch.float64))


def test_a_problem_alone_and_among_harder_ones_has_the_same_plan():
    easy = squared_distances(*points(3))
    hard = squared_distances(*points(4)) * 50
    together = sinkhorn_plan(torch.stack((hard, easy, hard * 3)))
    torch.testing.assert_close(together[1], sinkhorn_plan(easy[None])[0])


@given(seeds, seeds)
def test_factored_costs_of_the_output_layer_are_distances_between_its_rows(first, second):
    dummy, shared = random_gradient(first), random_gradient(second)
    for cost, ours, theirs in zip(row_costs(dummy, shared), dummy.tensors(), shared.tensors(), strict=True):
        ours, theirs = (t if t.ndim == 3 else t[:, :, None] for t in (ours, theirs))  # noqa: PLW2901
        torch.testing.assert_close(cost, squared_distances(ours, theirs))


def test_loss_is_the_sum_of_algorithm_2_over_the_parameters():
    dummy, shared = random_gradient(0, scale=0.3), random_gradient(1, scale=0.3)
    loss = Wasserstein(eps=0.1, **LONG)(dummy, shared)
    for attack in range(3):
        total = sum(
            wdca(ours[attack].view(len(ours[attack]), -1), theirs[attack].view(len(theirs[attack]), -1),
                 eps=0.1, **LONG)[0]
            for ours, theirs in zip(dummy.tensors(), shared.tensors(), strict=True)
        )  # fmt: skip
        assert loss[attack].item() == pytest.approx(total.item(), rel=1e-6)


@settings(max_examples=10)
@given(seeds)
def test_envelope_derivative_is_that_of_the_regularised_value_by_finite_differences(seed):
    x, y = points(seed)
    eps = 0.1

    def value(moved):
        cost = squared_distances(moved, y)
        plan = sinkhorn_plan(cost[None], eps=eps, **LONG)[0]
        return (plan * cost).sum() + eps * (plan * plan.log()).sum()

    moved = x.clone().requires_grad_()
    cost = squared_distances(moved, y)
    (grad,) = torch.autograd.grad((sinkhorn_plan(cost[None], eps=eps, **LONG)[0] * cost).sum(), moved)
    step = 1e-5
    for row, column in ((0, 0), (3, 2)):
        bump = torch.zeros_like(x)
        bump[row, column] = step
        difference = (value(x + bump) - value(x - bump)) / (2 * step)
        assert grad[row, column].item() == pytest.approx(difference.item(), abs=1e-6)


def tracked(gradient):
    """The same gradient as leaves of a graph."""
    leaves = [part.clone().requires_grad_() for part in gradient.hidden]
    error, features = (
        gradient.bias.clone().requires_grad_(),
        gradient.output.features.clone().requires_grad_(),
    )
    return Gradient.of_one(tuple(leaves), error, features), [*leaves, error, features]


@settings(max_examples=20)
@given(seeds, seeds, st.sampled_from([0.0, 0.1, 1.0]))
def test_derivative_is_that_of_the_cost_with_the_plan_held_fixed(first, second, eps):
    shared = random_gradient(second)
    ours, ours_leaves = tracked(random_gradient(first))
    loss = Wasserstein(eps=eps)
    ours_grads = torch.autograd.grad(loss(ours, shared).sum(), ours_leaves)

    plain, plain_leaves = tracked(random_gradient(first))
    total = 0.0
    if eps:
        plans = loss.couplings(ours, shared)
    else:
        costs = row_costs(ours.detach(), shared)
        plans = [F.one_hot(exact_assignment(cost), cost.shape[-1]) / cost.shape[-1] for cost in costs]
    for plan, x, y in zip(plans, plain.tensors(), shared.tensors(), strict=True):
        x, y = (t if t.ndim == 3 else t[:, :, None] for t in (x, y))  # noqa: PLW2901
        total = total + (plan * squared_distances(x, y)).sum()
    torch.testing.assert_close(loss(ours, shared).sum(), total)
    torch.testing.assert_close(ours_grads, torch.autograd.grad(total, plain_leaves))


@settings(max_examples=20)
@given(seeds, seeds)
def test_eps_of_zero_is_the_exact_distance_of_pot(first, second):
    dummy, shared = random_gradient(first), random_gradient(second)
    for attack, loss in enumerate(Wasserstein(eps=0.0)(dummy, shared)):
        exact = 0.0
        for cost in row_costs(dummy, shared):
            n = cost.shape[-1]
            exact += ot.emd2(uniform(n), uniform(n), cost[attack].numpy())
        assert loss.item() == pytest.approx(exact)


@settings(max_examples=20)
@given(seeds, st.sampled_from([1.0, 30.0, 1e3, 1e5]), st.sampled_from([torch.float32, torch.float64]))
def test_costs_of_any_size_in_either_precision_are_pots_log_domain(seed, scale, dtype):
    generator = torch.Generator().manual_seed(seed)
    cost = scale * torch.rand(4, 9, 9, generator=generator, dtype=torch.float64)
    cost[1] *= torch.rand(9, 1, generator=generator, dtype=torch.float64) ** 8
    plan = sinkhorn_plan(cost.to(dtype), eps=0.1, max_iterations=60, threshold=1e-300)
    log_plan = bregman_log_projection_batch(-cost / 0.1, max_iter=60, tol=0.0)["T"]
    # In single precision a cost of 1e5 / 0.1 is known to 0.06 only, and so is the exponent of the kernel.
    rounding = torch.finfo(dtype).eps * scale / 0.1
    torch.testing.assert_close(plan.double(), log_plan, rtol=1e-6 + 100 * rounding, atol=1e-8 + rounding)


@pytest.mark.parametrize(
    ("name", "value"),
    [("eps", -1.0), ("eps", math.inf), ("eps", float("nan")), ("max_iterations", 0), ("threshold", 0.0)],
)
def test_impossible_settings_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"^{name} is"):
        Wasserstein(**{name: value})
