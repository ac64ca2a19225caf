"""Costs, values and derivatives against POT and finite differences."""

import math
import warnings
from itertools import product

import numpy as np
import ot
import pytest
import torch
from gradients_for_tests import random_gradient
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from readings_for_tests import (
    LONG,
    difference,
    points_of,
    pot_cost,
    seeds,
    slope,
    squared,
    three,
    unit_of,
)

from wdlg.losses import Wasserstein
from wdlg.updates import Gradient

# Costs


@settings(max_examples=20)
@given(
    seeds,
    seeds,
    st.sampled_from(["squared", "euclidean", "pseudo_huber"]),
    st.sampled_from([0.0, 0.7]),
)
def test_exact_transport_is_pots_for_every_cost_and_penalty(first, second, cost, penalty):
    dummy, shared = random_gradient(first), random_gradient(second)
    settings = {"eps": 0, "cost": cost, "huber_scale": 0.5, "penalty": penalty}
    with_penalty = Wasserstein(**settings, value="dual")(dummy, shared)
    plain = Wasserstein(**settings)(dummy, shared)
    for attack in range(3):
        costs, values = 0.0, 0.0
        for x, y in zip(points_of(dummy, attack), points_of(shared, attack), strict=True):
            C = pot_cost(x, y, cost, 0.5)
            unit = unit_of(C)
            plan = ot.emd([], [], C + penalty * unit * (1 - np.eye(len(C))))
            costs += (plan * C).sum()
            values += (plan * C).sum() + penalty * unit * (1 - np.trace(plan))
        assert plain[attack].item() == pytest.approx(costs)
        assert with_penalty[attack].item() == pytest.approx(values)


def test_a_pseudo_huber_cost_is_half_the_square_at_a_large_scale_and_the_distance_at_a_small_one():
    dummy, shared, _ = three(5)
    exact = {"eps": 0, "penalty": math.inf}
    wide = Wasserstein(cost="pseudo_huber", huber_scale=1e4, **exact)(dummy, shared)
    torch.testing.assert_close(2 * wide, Wasserstein(**exact)(dummy, shared))
    scale = 1e-6
    narrow = Wasserstein(cost="pseudo_huber", huber_scale=scale, points="tensors")(dummy, shared)
    expected = sum(
        scale * y.flatten(1).norm(dim=1) * (x - y).flatten(1).norm(dim=1)
        for x, y in zip(dummy.tensors(), shared.tensors(), strict=True)
    )
    torch.testing.assert_close(narrow, expected, rtol=1e-4, atol=0)


# Values and derivatives


@pytest.mark.filterwarnings("ignore:Sinkhorn did not converge")  # nearly: compared all the same
@settings(max_examples=10)
@given(
    seeds,
    seeds,
    st.sampled_from(["squared", "euclidean", "pseudo_huber"]),
    st.booleans(),
    st.sampled_from([0.0, 0.4]),
)
def test_plain_and_dual_values_are_pots(first, second, cost, relative, penalty):
    assume(first != second)  # among equal points the median cost is small, and POT does not converge
    dummy, shared = random_gradient(first, scale=0.4), random_gradient(second, scale=0.4)
    settings = {"cost": cost, "huber_scale": 0.5, "relative": relative, "penalty": penalty}
    plain = Wasserstein(eps=1.0, **settings, **LONG)(dummy, shared)
    dual = Wasserstein(eps=1.0, **settings, value="dual", **LONG)(dummy, shared)
    for attack in range(3):
        values = np.zeros(2)
        for x, y in zip(points_of(dummy, attack), points_of(shared, attack), strict=True):
            C = pot_cost(x, y, cost, 0.5)
            unit = unit_of(C)
            steered = C + penalty * unit * (1 - np.eye(len(C)))
            reg = unit if relative else 1.0
            with warnings.catch_warnings():
                # To need all iterations is no failure: the plan is compared all the same.
                warnings.simplefilter("ignore")
                found = ot.solve(steered, reg=reg, reg_type="KL", max_iter=5_000, tol=1e-10)
            values += (found.plan * C).sum(), found.value
        np.testing.assert_allclose((plain[attack], dual[attack]), values, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Sinkhorn did not converge")  # nearly: compared all the same
@pytest.mark.parametrize("relative", [False, True])
@settings(max_examples=5)
@given(first=seeds, second=seeds)
def test_debiased_values_are_pots_sinkhorn_divergence_at_one_eps(relative, first, second):
    assume(first != second)  # points in proportion have a small median cost, and POT does not converge
    dummy, shared = random_gradient(first, scale=0.2), random_gradient(second, scale=0.4)
    loss = Wasserstein(eps=1.0, relative=relative, value="debiased", **LONG)(dummy, shared)
    for attack in range(3):
        total = 0.0
        for x, y in zip(points_of(dummy, attack), points_of(shared, attack), strict=True):
            reg = unit_of(squared(x, y)) if relative else 1.0
            # POT's own empirical_sinkhorn_divergence leaves the entropy out of its three values.
            between, ours, theirs = (
                ot.solve(squared(*pair), reg=reg, reg_type="KL", max_iter=5_000, tol=1e-10).value
                for pair in ((x, y), (x, x), (y, y))
            )
            total += between - ours / 2 - theirs / 2
        assert loss[attack].item() == pytest.approx(total, rel=1e-5)


@given(
    seeds,
    st.sampled_from(["rows", "kernels"]),
    st.sampled_from(["squared", "euclidean", "pseudo_huber"]),
    st.booleans(),
    st.sampled_from([0.0, 0.5]),
    st.integers(1, 50),
)
def test_debiased_is_zero_with_zero_slope_at_equality_even_before_convergence(
    seed, points, cost, relative, penalty, iterations
):
    shared, direction = random_gradient(seed), random_gradient(seed + 1)
    loss = Wasserstein(value="debiased", points=points, kernel_width=3, cost=cost, relative=relative,
                       penalty=penalty, max_iterations=iterations)  # fmt: skip
    torch.testing.assert_close(loss(shared, shared), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    still = slope(loss, shared, shared, direction)
    torch.testing.assert_close(still, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-11)


@given(seeds, st.sampled_from(["plain", "dual"]), st.sampled_from([0.1, 1.0]))
def test_the_other_entropic_values_are_above_zero_at_equality(seed, value, eps):
    shared = random_gradient(seed)
    assert (Wasserstein(eps=eps, value=value)(shared, shared) > 0).all()


@settings(max_examples=10)
@given(
    st.integers(0, 2**20),
    st.sampled_from(["dual", "debiased"]),
    st.sampled_from(["squared", "euclidean", "pseudo_huber"]),
    st.sampled_from(["rows", "kernels"]),
)
def test_the_envelope_derivative_is_exact_for_the_regularised_values(seed, value, cost, points):
    dummy, shared, direction = three(seed)
    loss = Wasserstein(
        eps=1.0, value=value, cost=cost, huber_scale=1.0, points=points, kernel_width=3, **LONG
    )
    torch.testing.assert_close(
        slope(loss, dummy, shared, direction),
        difference(loss, dummy, shared, direction),
        rtol=1e-4,
        atol=1e-6,
    )


@settings(max_examples=10)
@given(
    st.integers(0, 2**20),
    st.sampled_from(["plain", "dual", "debiased"]),
    st.sampled_from(["squared", "euclidean", "pseudo_huber"]),
    st.integers(1, 30),
)
def test_the_unrolled_derivative_is_exact_after_any_number_of_iterations(seed, value, cost, iterations):
    dummy, shared, direction = three(seed)
    loss = Wasserstein(derivative="unrolled", value=value, cost=cost, max_iterations=iterations, eps=0.5)
    torch.testing.assert_close(
        slope(loss, dummy, shared, direction),
        difference(loss, dummy, shared, direction),
        rtol=1e-4,
        atol=1e-6,
    )


def test_the_envelope_derivative_of_the_plain_value_is_another_vector():
    dummy, shared, direction = three(7)
    loss = Wasserstein(eps=1.0, **LONG)
    envelope = slope(loss, dummy, shared, direction)
    exact = difference(loss, dummy, shared, direction)
    unrolled = slope(
        Wasserstein(eps=1.0, derivative="unrolled", max_iterations=300), dummy, shared, direction
    )
    torch.testing.assert_close(unrolled, exact, rtol=1e-4, atol=1e-6)
    assert ((envelope - exact).abs() > 0.05 * exact.abs()).any()


@settings(max_examples=20)
@given(seeds, seeds, st.floats(1e-3, 1e3), st.sampled_from(["plain", "dual", "debiased"]))
def test_relative_units_make_the_loss_homogeneous_and_absolute_ones_do_not(first, second, factor, value):
    dummy, shared = random_gradient(first), random_gradient(second)

    def times(gradient):
        # The output layer's weight gradient is a product of error and features.
        return Gradient.of_one(
            tuple(factor * tensor for tensor in gradient.hidden),
            factor * gradient.bias,
            gradient.output.features,
        )

    loss = Wasserstein(relative=True, penalty=0.5, value=value)
    torch.testing.assert_close(loss(times(dummy), times(shared)), factor**2 * loss(dummy, shared))


def test_an_absolute_eps_is_not_homogeneous():
    dummy, shared, _ = three(0)
    double = [
        Gradient.of_one(tuple(2 * x for x in g.hidden), 2 * g.bias, g.output.features)
        for g in (dummy, shared)
    ]
    loss = Wasserstein(eps=0.5)
    assert ((loss(*double) / loss(dummy, shared) - 4).abs() > 0.1).all()


def test_relative_units_are_the_same_without_the_matrix_of_all_classes(monkeypatch):
    from wdlg.losses import rank_one

    dummy, shared, direction = (random_gradient(seed, attacks=2, classes=40, scale=0.4) for seed in range(3))
    results = []
    for limit in (10, 100):
        monkeypatch.setattr(rank_one, "RANK_ONE_ABOVE", limit)
        loss = Wasserstein(relative=True, mass="one", root="each")
        results.append((loss(dummy, shared), slope(loss, dummy, shared, direction)))
    for without, full in zip(*results, strict=True):
        torch.testing.assert_close(without, full, rtol=1e-7, atol=1e-9)


def test_saturated_outputs_leave_relative_transport_finite():
    """Nearly all rows of the output layer vanish, and so does the median of its costs."""
    generator = torch.Generator().manual_seed(0)
    dummy, shared, direction = (random_gradient(seed, classes=100, dtype=torch.float32) for seed in range(3))
    saturated = []
    for gradient in (dummy, shared):
        error = (12 * torch.randn(3, 100, generator=generator)).softmax(1)
        error[:, 0] -= 1
        saturated.append(Gradient.of_one(gradient.hidden, error, gradient.output.features))
    assert 1e-18 < saturated[0].bias.abs().median() < 1e-9
    for value, points in product(("plain", "dual", "debiased"), ("rows", "kernels")):
        loss = Wasserstein(eps=0.01, relative=True, value=value, points=points)
        assert (loss(*saturated) < 1e3).all()
        assert torch.isfinite(slope(loss, *saturated, direction)).all()
