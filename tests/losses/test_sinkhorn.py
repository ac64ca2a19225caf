"""Each problem of a batch is solved on its own, with exactly as many iterations as are asked for."""

from contextlib import nullcontext

import pytest
import torch

from wdlg import compiled
from wdlg.losses.sinkhorn import ROUND, sinkhorn_plan, unrolled_sinkhorn_plan

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
