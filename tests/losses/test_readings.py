"""What every reading of the paper's distance promises, what readings are refused, and their plans."""

import math

import pytest
import torch
from gradients_for_tests import random_gradient
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from readings_for_tests import (
    LONG,
    READINGS,
    difference,
    each_reading,
    moved,
    seeds,
    slope,
    three,
)

from wdlg.errors import InputError
from wdlg.losses import Wasserstein


@each_reading
def test_an_attack_alone_has_the_loss_and_derivative_that_it_has_among_others(loss):
    dummy, shared, direction = three(0)
    alone = torch.tensor([1])
    one = [gradient.select(alone) for gradient in (dummy, shared, direction)]
    torch.testing.assert_close(loss(one[0], one[1]), loss(dummy, shared)[1:2])
    torch.testing.assert_close(slope(loss, *one), slope(loss, dummy, shared, direction)[1:2])


@each_reading
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_derivative_is_finite_at_equality_and_for_vanishing_gradients(loss, dtype):
    for scale in (1.0, 0.0):
        shared = random_gradient(3, scale=scale, dtype=dtype)
        direction = random_gradient(4, dtype=dtype)
        assert torch.isfinite(loss(shared, shared)).all()
        assert torch.isfinite(slope(loss, shared, shared, direction)).all()


EXACT_SLOPES = [
    name for name in READINGS if name not in ("plain", "relative", "total root, mass one", "euclidean",
    "pseudo-Huber", "penalty", "dual", "debiased, pseudo-Huber", "kernels", "kernels, debiased",
    "exact, penalty, dual")
]  # fmt: skip


@pytest.mark.parametrize("name", EXACT_SLOPES)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_the_derivative_is_that_of_the_value_by_finite_differences(name, seed):
    """For all readings but envelope derivatives of plain values and those of values in moving units."""
    dummy, shared, direction = three(seed)
    loss = READINGS[name]
    # The exact distance of scalars has a kink wherever two of many entries change places.
    middle, ahead, behind = (
        slope(loss, moved(dummy, direction, step), shared, direction) for step in (0, 1e-5, -1e-5)
    )
    assume(name != "scalars" or torch.allclose((ahead + behind) / 2, middle, rtol=1e-6, atol=1e-8))
    torch.testing.assert_close(
        slope(loss, dummy, shared, direction),
        difference(loss, dummy, shared, direction),
        rtol=1e-5,
        atol=1e-7,
    )


# Plans


@settings(max_examples=10)
@given(seeds, seeds, st.sampled_from([0.0, 0.2]), st.sampled_from(["squared", "euclidean"]))
def test_couplings_are_plans_whose_cost_is_the_loss(first, second, eps, cost):
    dummy, shared = random_gradient(first), random_gradient(second)
    loss = Wasserstein(eps=eps, cost=cost, penalty=0.2, relative=True, **LONG)
    total = 0.0
    for plan, x, y in zip(loss.couplings(dummy, shared), dummy.tensors(), shared.tensors(), strict=True):
        n = plan.shape[-1]
        torch.testing.assert_close(plan.sum(1), torch.full((3, n), 1 / n, dtype=torch.float64))
        distances = torch.cdist(x, y)
        total += (plan * (distances if cost == "euclidean" else distances**2)).sum((1, 2))
    torch.testing.assert_close(loss(dummy, shared), total)


def test_couplings_of_kernels_are_one_plan_for_each_kernel_and_class():
    dummy, shared = random_gradient(0, features=8), random_gradient(1, features=8)
    plans = Wasserstein(points="kernels", kernel_width=3).couplings(dummy, shared)
    assert [tuple(plan.shape) for plan in plans] == [
        (3, 4, 4), (3, 4, 4), (3, 4, 3, 3), (3, 4, 4), (3, 5, 4, 4), (3, 5, 5)
    ]  # fmt: skip


def test_couplings_of_identity_and_tensors_stay_in_place():
    dummy, shared = random_gradient(0), random_gradient(1)
    for plan in Wasserstein(penalty=math.inf).couplings(dummy, shared):
        n = plan.shape[-1]
        torch.testing.assert_close(plan, torch.eye(n, dtype=torch.float64).expand(3, n, n) / n)
    for plan in Wasserstein(points="tensors").couplings(dummy, shared):
        assert torch.equal(plan, torch.ones(3, 1, 1, dtype=torch.float64))


# Refusals


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"points": "columns"}, "points is 'columns', but must be one of rows, kernels, scalars, tensors."),
        ({"kernel_width": 0}, "kernel_width is 0, but must be a whole number, at least 1."),
        ({"mass": "two"}, "mass is 'two', but must be one of share, one, relative."),
        ({"cost": "cubed"}, "cost is 'cubed', but must be one of squared, euclidean, pseudo_huber."),
        ({"huber_scale": 0.0}, "huber_scale is 0.0, but must be a finite number above 0."),
        ({"root": True}, "root is True, but must be one of none, each, total."),
        ({"relative": 1}, "relative is 1, but must be True or False."),
        ({"value": "primal"}, "value is 'primal', but must be one of plain, dual, debiased."),
        ({"derivative": "none"}, "derivative is 'none', but must be one of envelope, unrolled."),
        ({"penalty": -1.0}, "penalty is -1.0, but must be a number, 0 or above, or inf."),
        ({"penalty": math.nan}, "penalty is nan, but must be a number, 0 or above, or inf."),
        ({"points": "scalars"}, "eps is 0.1, but must be 0 where points is 'scalars'."),
        (
            {"points": "scalars", "eps": 0, "penalty": 1.0},
            "penalty is 1.0, but must be 0 or inf where points is 'scalars'.",
        ),
        (
            {"cost": "euclidean", "root": "each"},
            "root is 'each', but must be 'none' where cost is 'euclidean'.",
        ),
        (
            {"derivative": "unrolled", "eps": 0},
            "derivative is 'unrolled', but must be 'envelope' where eps is 0.",
        ),
        (
            {"derivative": "unrolled", "penalty": math.inf},
            "derivative is 'unrolled', but must be 'envelope' where penalty is inf.",
        ),
        (
            {"value": "dual", "penalty": math.inf},
            "value is 'dual', but must be 'plain' or 'debiased' where penalty is inf.",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_sentence(settings, sentence):
    with pytest.raises(InputError) as caught:
        Wasserstein(**settings)
    assert str(caught.value) == sentence


def test_plans_between_scalars_are_refused():
    shared = random_gradient(0)
    with pytest.raises(InputError, match="^points is 'scalars', but must be one of rows, kernels, tensors"):
        Wasserstein(points="scalars", eps=0).couplings(shared, shared)
