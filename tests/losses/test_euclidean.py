"""The Euclidean losses are sums over the written-out gradients, whatever the factored form says."""

import math

import pytest
import torch
from gradients_for_tests import random_gradient
from hypothesis import given
from hypothesis import strategies as st

from wdlg.errors import InputError
from wdlg.losses import Euclidean, PseudoHuber, SquaredEuclidean
from wdlg.updates import Gradient

seeds = st.integers(0, 2**31)


def written_out(dummy, shared):
    return sum(
        (ours - theirs).square().flatten(1).sum(1)
        for ours, theirs in zip(dummy.tensors(), shared.tensors(), strict=True)
    )


@given(seeds, seeds)
def test_squared_euclidean_is_the_sum_over_all_parameters(first, second):
    dummy, shared = random_gradient(first), random_gradient(second)
    torch.testing.assert_close(SquaredEuclidean()(dummy, shared), written_out(dummy, shared))
    torch.testing.assert_close(Euclidean()(dummy, shared), written_out(dummy, shared).sqrt())


@given(seeds)
def test_losses_and_their_derivatives_vanish_at_equality(seed):
    shared = random_gradient(seed)
    for loss in (SquaredEuclidean(), Euclidean()):
        error = shared.bias.clone().requires_grad_()
        value = loss(Gradient.of_one(shared.hidden, error, shared.output.features), shared)
        (grad,) = torch.autograd.grad(value.sum(), error)
        assert torch.equal(value, torch.zeros(3, dtype=torch.float64))
        assert torch.equal(grad, torch.zeros_like(grad))


def test_factored_form_keeps_its_digits_near_the_solution():
    shared = random_gradient(0, scale=100.0)
    gap = 1e-9
    dummy = Gradient.of_one(shared.hidden, shared.bias, shared.output.features + gap)
    exact = shared.bias.square().sum(1) * gap**2 * shared.output.features.shape[1]
    # features + gap itself is rounded: 1e-9 against 100 leaves five digits.
    torch.testing.assert_close(SquaredEuclidean()(dummy, shared), exact, rtol=1e-4, atol=0)


def norm(gradient):
    return sum(tensor.square().flatten(1).sum(1) for tensor in gradient.tensors()).sqrt()


@given(seeds, seeds, st.floats(0.01, 10))
def test_pseudo_huber_is_its_printed_formula_in_units_of_the_shared_norm(first, second, scale):
    dummy, shared = random_gradient(first), random_gradient(second)
    s, d = scale * norm(shared), written_out(dummy, shared).sqrt()
    printed = s * ((1 + (d / s) ** 2).sqrt() - 1)
    torch.testing.assert_close(PseudoHuber(scale)(dummy, shared), printed, rtol=1e-6, atol=1e-10)


@given(seeds)
def test_pseudo_huber_goes_over_from_the_square_to_the_distance(seed):
    dummy, shared = random_gradient(seed), random_gradient(seed + 1)
    torch.testing.assert_close(
        PseudoHuber(1e-7)(dummy, shared), Euclidean()(dummy, shared), rtol=1e-5, atol=0
    )
    s = 1e5 * norm(shared)
    torch.testing.assert_close(
        PseudoHuber(1e5)(dummy, shared), SquaredEuclidean()(dummy, shared) / (2 * s), rtol=1e-5, atol=0
    )


def test_pseudo_huber_keeps_its_digits_near_the_solution_in_single_precision():
    shared = random_gradient(0, dtype=torch.float32)
    dummy = Gradient.of_one(shared.hidden, shared.bias, shared.output.features * (1 + 2**-20))
    s = 0.01 * norm(shared)
    d = shared.bias.norm(dim=1) * (dummy.output.features - shared.output.features).norm(dim=1)
    assert torch.equal(s * ((1 + (d / s) ** 2).sqrt() - 1), torch.zeros(3))  # as printed: all digits are lost
    torch.testing.assert_close(PseudoHuber()(dummy, shared), d**2 / (2 * s), rtol=1e-4, atol=0)


def test_the_scale_of_pseudo_huber_does_not_move_with_the_dummy_and_may_be_zero():
    shared, dummy = random_gradient(0, scale=0.0), random_gradient(1)
    torch.testing.assert_close(PseudoHuber()(dummy, shared), norm(dummy))
    error = torch.zeros_like(shared.bias).requires_grad_()
    value = PseudoHuber()(Gradient.of_one(shared.hidden, error, shared.output.features), shared)
    (grad,) = torch.autograd.grad(value.sum(), error)
    assert torch.equal(grad, torch.zeros_like(error))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, "small"])
def test_pseudo_huber_refuses_a_scale_that_is_no_positive_number(scale):
    with pytest.raises(InputError, match=r"^scale is .*, but must be a finite number above 0\.$"):
        PseudoHuber(scale)
