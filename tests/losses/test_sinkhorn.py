"""Each problem of a batch is solved on its own, with exactly as many iterations as are asked for."""

from contextlib import nullcontext

import pytest
import torch

from wdlg import compiled
from wdlg.losses.sinkhorn import ROUND, sinkhorn_plan, unrolled_sinkhorn_plan
from wdlg.losses.wasserstein import wdca

WAYS = [False, True]


def costs(scale, seed=0, n=9, m=7):
    """A cost matrix (1, n, m); with a large scale its scalings leave the safe range in the first round."""
    stream = torch.Generator().manual_seed(seed)
    return scale * torch.rand(1, n, m, generator=stream, dtype=torch.float64) ** 3


def solved(cost, by_torch, **settings):
    with compiled.turned_off() if by_torch else nullcontext():
        return sinkhorn_plan(cost, **settings)


@pytest.mark.parametrize("by_torch", WAYS)
@pytest.mark.parametrize("scale", [1.0, 3e3])
@pytest.mark.parametrize("iterations", [1, 2, ROUND - 1, ROUND, ROUND + 1, 2 * ROUND + 3])
def test_as_many_iterations_are_made_as_are_asked_for_in_safe_rounds_and_others(scale, iterations, by_torch):
    cost = costs(scale)
    plan = solved(cost, by_torch, max_iterations=iterations, threshold=1e-300)
    exact = unrolled_sinkhorn_plan(cost, max_iterations=iterations)
    torch.testing.assert_close(plan, exact, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("by_torch", WAYS)
@pytest.mark.parametrize("scale", [1e3, 3e3, 1e5])
def test_a_problem_that_leaves_the_safe_range_changes_no_bit_of_its_neighbours(scale, by_torch):
    calm, other, hard = costs(1.0), costs(1.0, seed=1), costs(scale, seed=2)
    beside_calm, beside_hard = (
        solved(torch.cat((calm, neighbour)), by_torch, max_iterations=35, threshold=1e-300)[0]
        for neighbour in (other, hard)
    )
    assert torch.equal(beside_calm, beside_hard)


def plain_costs():
    """Cost matrices (1, 6, 5) without any extreme."""
    return torch.rand(1, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def changes_of_u(cost, eps, iterations):
    """``sum |u - u_prev|`` in each iteration from the second, as Algorithm 2 is printed."""
    n, m = cost.shape
    kernel, v, u, changes = torch.exp(-cost / eps), torch.ones(m).double(), None, []
    for _ in range(iterations):
        before, u = u, 1 / (n * (kernel @ v))
        v = 1 / (m * (kernel.T @ u))
        changes.append(None if before is None else float((u - before).abs().sum()))
    return changes


@pytest.mark.parametrize("by_torch", WAYS)
@pytest.mark.parametrize("looks", [1, 2])
def test_a_problem_ends_at_the_first_look_that_finds_the_change_of_u_below_the_threshold(looks, by_torch):
    cost = plain_costs()[0]
    done = looks * ROUND
    change = changes_of_u(cost, 0.02, done + 1)[done]  # what one more iteration would change
    expected = {factor: done if factor > 1 else done + ROUND for factor in (1.001, 0.999)}
    for factor, iterations in expected.items():
        plan = solved(cost[None], by_torch, eps=0.02, max_iterations=1000, threshold=change * factor)
        exact = unrolled_sinkhorn_plan(cost[None], eps=0.02, max_iterations=iterations)
        torch.testing.assert_close(plan, exact, rtol=1e-9, atol=1e-12)


def test_defaults_are_a_tenth_a_hundred_and_a_thousandth():
    cost = 4 * plain_costs()
    exact = unrolled_sinkhorn_plan(cost, eps=0.1, max_iterations=100)
    assert torch.equal(unrolled_sinkhorn_plan(cost), exact)
    assert torch.equal(sinkhorn_plan(cost), sinkhorn_plan(cost, eps=0.1, max_iterations=100, threshold=1e-3))
    x = torch.rand(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    given = wdca(x, x.flip(0) + 1, eps=0.1, max_iterations=100, threshold=1e-3)
    for ours, theirs in zip(wdca(x, x.flip(0) + 1), given, strict=True):
        assert torch.equal(ours, theirs)
