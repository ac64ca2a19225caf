"""The Euclidean losses are sums over the written-out gradients, whatever the factored form says."""

import torch
from gradients_for_tests import random_gradient
from hypothesis import given
from hypothesis import strategies as st

from wdlg.gradients import Gradient
from wdlg.losses import Euclidean, SquaredEuclidean

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
        error = shared.error.clone().requires_grad_()
        value = loss(Gradient(shared.hidden, error, shared.features), shared)
        (grad,) = torch.autograd.grad(value.sum(), error)
        assert torch.equal(value, torch.zeros(3, dtype=torch.float64))
        assert torch.equal(grad, torch.zeros_like(grad))


def test_factored_form_keeps_its_digits_near_the_solution():
    shared = random_gradient(0, scale=100.0)
    gap = 1e-9
    dummy = Gradient(shared.hidden, shared.error, shared.features + gap)
    exact = shared.error.square().sum(1) * gap**2 * shared.features.shape[1]
    # features + gap itself is rounded: 1e-9 against 100 leaves five digits.
    torch.testing.assert_close(SquaredEuclidean()(dummy, shared), exact, rtol=1e-4, atol=0)
