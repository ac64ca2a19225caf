"""The cosine distance is one over the written-out gradients, and keeps its digits at the solution."""

import torch
import torch.nn.functional as F  # noqa: N812
from gradients_for_tests import random_gradient
from hypothesis import given
from hypothesis import strategies as st

from wdlg.losses import Cosine
from wdlg.updates import Gradient

seeds = st.integers(0, 2**31)


def flat(gradient):
    """All parameters written out, one after the other, (B, entries)."""
    return torch.cat([tensor.flatten(1) for tensor in gradient.tensors()], 1)


def times(gradient, factor):
    return Gradient.of_one(
        tuple(factor * tensor for tensor in gradient.hidden), factor * gradient.bias, gradient.output.features
    )


@given(seeds, seeds)
def test_it_is_one_minus_torchs_cosine_similarity(first, second):
    dummy, shared = random_gradient(first), random_gradient(second)
    expected = 1 - F.cosine_similarity(flat(dummy), flat(shared))
    torch.testing.assert_close(Cosine()(dummy, shared), expected)


@given(seeds, seeds, st.floats(1e-3, 1e3))
def test_only_the_direction_counts(first, second, factor):
    dummy, shared = random_gradient(first), random_gradient(second)
    torch.testing.assert_close(Cosine()(times(dummy, factor), shared), Cosine()(dummy, shared))
    torch.testing.assert_close(
        Cosine()(times(shared, -factor), shared), torch.full((3,), 2.0, dtype=torch.float64)
    )


def test_single_precision_keeps_its_digits_where_the_printed_formula_loses_all():
    shared = random_gradient(0, dtype=torch.float32)
    hidden = (shared.hidden[0] * (1 + 1e-4), *shared.hidden[1:])
    dummy = Gradient.of_one(hidden, shared.bias, shared.output.features)
    exact = 1 - F.cosine_similarity(flat(dummy).double(), flat(shared).double())
    assert (exact < 1e-8).all()
    # A gap of 1e-4 is rounded to three digits in single precision, and so is the distance.
    torch.testing.assert_close(Cosine()(dummy, shared).double(), exact, rtol=1e-2, atol=0)
    printed = 1 - F.cosine_similarity(flat(dummy), flat(shared))
    assert ((printed - exact).abs() > 0.5 * exact).all()


def test_a_gradient_of_zero_is_at_one_half_of_any_other_and_at_none_of_itself():
    zero, shared = random_gradient(0, scale=0.0), random_gradient(1)
    half = torch.full((3,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(Cosine()(zero, shared), half)
    torch.testing.assert_close(Cosine()(shared, zero), half)
    assert torch.equal(Cosine()(zero, zero), torch.zeros_like(half))
