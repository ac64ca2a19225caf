"""The parts of the readings, one by one, against known answers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wdlg.losses.ground_cost import GroundCost
from wdlg.losses.solver import solve_together, thinning, unit_of
from wdlg.losses.total import add_up
from wdlg.losses.transport import permutation_plan
from wdlg.losses.value import divergence


def test_the_unit_is_the_median_or_a_tenth_of_the_mean_or_one():
    usual = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    skewed = torch.tensor([[[0.0, 1e-9, 0.0], [1e-9, 90.0, 0.0], [1e-9, 0.0, 0.0]]])
    for cost, unit in ((usual, 2.0), (skewed, 1.0), (torch.zeros(1, 3, 3), 1.0)):
        assert unit_of(cost, cost.mean((1, 2))).item() == pytest.approx(unit)


@given(st.integers(1, 20_000))
def test_a_median_is_over_at_most_five_hundred_points_and_all_if_there_are_no_more(count):
    taken = len(range(0, count, thinning(count)))
    assert taken <= 500
    assert taken == count or count > 500
    assert taken > 250 or taken == count


@pytest.mark.parametrize(("cost", "expected"), [("squared", 9), ("euclidean", 3), ("pseudo_huber", 4)])
def test_ground_costs_of_a_distance_of_three_at_a_scale_of_four(cost, expected):
    # 16 (sqrt(1 + 9 / 16) - 1) = 16 (5 / 4 - 1)
    scale = torch.tensor([4.0])
    assert GroundCost(cost)(torch.tensor([[[9.0]]]), scale).item() == pytest.approx(expected)


def test_divergence_is_zero_for_the_even_plan_and_log_n_for_a_permutation():
    even = torch.full((1, 6, 6), 1 / 36)
    permutation = permutation_plan(torch.tensor([[2, 0, 1, 5, 4, 3]]), torch.ones(1, 6))
    assert divergence(even).item() == pytest.approx(0, abs=1e-6)
    assert divergence(permutation).item() == pytest.approx(math.log(6))
    assert permutation[0, 1, 0].item() == pytest.approx(1 / 6)


def test_problems_of_one_size_are_solved_in_one_call_and_keep_their_places():
    calls = []

    def solver(costs):
        calls.append(tuple(costs.shape))
        return -costs

    costs = [torch.full((count, n, n), float(place)) for place, (count, n) in
             enumerate([(2, 3), (4, 5), (1, 3), (2, 5)])]  # fmt: skip
    for cost, plan in zip(costs, solve_together(solver, costs), strict=True):
        assert torch.equal(plan, -cost)
    assert calls == [(3, 3, 3), (6, 5, 5)]


@pytest.mark.parametrize(
    ("taken", "expected"),
    [("none", [35.0, 50.0]), ("each", [9.0, 8.0]), ("total", [35**0.5, 50**0.5])],
)
def test_parts_add_up_over_the_problems_of_each_attack(taken, expected):
    # The first parameter is one problem for each of two attacks, the second is two.
    parts = [torch.tensor([9.0, 49.0]), torch.tensor([25.0, 1.0, 1.0, 0.0])]
    torch.testing.assert_close(add_up(parts, 2, taken), torch.tensor(expected))
