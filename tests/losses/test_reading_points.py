"""Points, masses, roots and penalties against known answers, SciPy and POT."""

import math
from dataclasses import replace
from itertools import pairwise

import ot
import pytest
import torch
from gradients_for_tests import random_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from readings_for_tests import (
    LONG,
    permuted,
    points_of,
    seeds,
    squared,
)
from scipy.stats import wasserstein_distance

from wdlg.losses import Euclidean, SquaredEuclidean, Wasserstein
from wdlg.updates import Gradient


@settings(max_examples=20)
@given(seeds, st.sampled_from(["rows", "scalars"]))
def test_a_gradient_with_permuted_units_has_zero_loss_and_is_another_gradient(seed, points):
    shared = random_gradient(seed)
    other = permuted(shared, seed)
    loss = Wasserstein(points=points, eps=0)(other, shared)
    torch.testing.assert_close(loss, torch.zeros(3, dtype=torch.float64))
    assert (SquaredEuclidean()(other, shared) > 0.1).all()


@settings(max_examples=20)
@given(seeds, seeds)
def test_scalars_are_scipys_and_pots_distances_on_the_line(first, second):
    dummy, shared = random_gradient(first), random_gradient(second)
    loss = Wasserstein(points="scalars", eps=0, cost="euclidean")(dummy, shared)
    square = Wasserstein(points="scalars", eps=0)(dummy, shared)
    for attack in range(3):
        pairs = list(zip(points_of(dummy, attack), points_of(shared, attack), strict=True))
        scipy = sum(wasserstein_distance(x.ravel(), y.ravel()) for x, y in pairs)
        pot = sum(ot.wasserstein_1d(x.ravel(), y.ravel(), p=2) for x, y in pairs)
        assert loss[attack].item() == pytest.approx(scipy)
        assert square[attack].item() == pytest.approx(pot)


@given(seeds, seeds)
def test_tensors_are_euclidean_distances_between_parameters(first, second):
    dummy, shared = random_gradient(first), random_gradient(second)
    norms = torch.stack(
        [(x - y).flatten(1).norm(dim=1) for x, y in zip(dummy.tensors(), shared.tensors(), strict=True)]
    )
    for root, expected in (
        ("each", norms.sum(0)),
        ("total", norms.square().sum(0).sqrt()),
        ("none", norms.square().sum(0)),
    ):
        loss = Wasserstein(points="tensors", root=root)
        torch.testing.assert_close(loss(dummy, shared), expected)
    torch.testing.assert_close(Wasserstein(points="tensors", cost="euclidean")(dummy, shared), norms.sum(0))


@settings(max_examples=10)
@given(seeds, seeds)
def test_kernels_are_pots_distances_within_each_kernel_and_between_channels_within_each_class(first, second):
    dummy, shared = random_gradient(first, features=8), random_gradient(second, features=8)
    loss = Wasserstein(points="kernels", kernel_width=3, eps=0)(dummy, shared)
    for attack in range(3):
        total = 0.0
        for x, y in zip(points_of(dummy, attack), points_of(shared, attack), strict=True):
            if x.shape[-1] == 9:  # a convolution with one input channel
                problems = list(zip(x.reshape(-1, 3, 3), y.reshape(-1, 3, 3), strict=True))
            elif x.shape[-1] == 8:  # the output layer's weight: four hidden units, eight features
                problems = list(zip(x.reshape(-1, 4, 2), y.reshape(-1, 4, 2), strict=True))
            else:  # 6 is no multiple of 3²
                problems = [(x, y)]
            total += sum(ot.emd2([], [], squared(p, q)) for p, q in problems)
        assert loss[attack].item() == pytest.approx(total)


def test_kernels_of_a_convolution_with_several_channels_are_transported_one_by_one():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1, 2, 3, 5, 5, generator=generator, dtype=torch.float64)
    gradients = [random_gradient(0, attacks=1)]
    shared = Gradient.of_one((weight.flatten(2),), gradients[0].bias, gradients[0].output.features)
    within = weight[:, :, :, [1, 0, 2, 3, 4]]  # rows of each kernel
    across = weight[:, :, [1, 0, 2]]  # input channels
    loss = Wasserstein(points="kernels", eps=0)
    for other, zero in ((within, True), (across, False)):
        value = loss(Gradient.of_one((other.flatten(2),), shared.bias, shared.output.features), shared)
        assert (value.item() < 1e-12) == zero


# Mass, root and penalty


@given(seeds, seeds, st.sampled_from(["rows", "kernels", "tensors"]), st.sampled_from(["plain", "debiased"]))
def test_an_infinite_penalty_with_mass_one_is_the_loss_of_dlg(first, second, points, value):
    dummy, shared = random_gradient(first), random_gradient(second)
    settings = {"points": points, "kernel_width": 3, "mass": "one", "penalty": math.inf, "value": value}
    squared = Wasserstein(**settings)
    torch.testing.assert_close(squared(dummy, shared), SquaredEuclidean()(dummy, shared))
    distance = Wasserstein(**settings, root="total")
    torch.testing.assert_close(distance(dummy, shared), Euclidean()(dummy, shared))


@given(seeds, seeds)
def test_an_infinite_penalty_with_relative_mass_is_the_relative_error_of_each_parameter(first, second):
    dummy, shared = random_gradient(first), random_gradient(second)
    errors = [
        (ours - theirs).square().sum((1, 2)) / theirs.square().sum((1, 2))
        for ours, theirs in zip(dummy.tensors(), shared.tensors(), strict=True)
    ]
    loss = Wasserstein(mass="relative", penalty=math.inf)
    torch.testing.assert_close(loss(dummy, shared), sum(errors))


def test_a_parameter_whose_shared_gradient_is_zero_has_no_relative_mass():
    dummy, shared = random_gradient(0), random_gradient(1)
    silent = replace(shared, hidden=(torch.zeros_like(shared.hidden[0]), *shared.hidden[1:]))
    loss = Wasserstein(mass="relative", penalty=math.inf)
    without = loss(replace(dummy, hidden=dummy.hidden[1:]), replace(silent, hidden=silent.hidden[1:]))
    torch.testing.assert_close(loss(dummy, silent), without)


@settings(max_examples=10)
@given(seeds, seeds, st.sampled_from([0.0, 0.1]))
def test_a_large_penalty_keeps_the_mass_in_place_and_is_no_part_of_the_plain_value(first, second, eps):
    dummy, shared = random_gradient(first), random_gradient(second)
    large = Wasserstein(penalty=1e4, eps=eps)(dummy, shared)
    torch.testing.assert_close(large, Wasserstein(penalty=math.inf)(dummy, shared))


@settings(max_examples=10)
@given(seeds, seeds, st.sampled_from([0.0, 0.05]))
def test_more_penalty_moves_less_mass(first, second, eps):
    dummy, shared = random_gradient(first), random_gradient(second)
    kept = []
    for penalty in (0, 0.2, 1.0, 5.0, math.inf):
        loss = Wasserstein(penalty=penalty, eps=eps, relative=True, **LONG)
        plans = loss.couplings(dummy, shared)
        kept.append(torch.stack([plan.diagonal(dim1=1, dim2=2).sum(1) for plan in plans]))
    for fewer, more in pairwise(kept):
        assert (fewer <= more + 1e-6).all()
    torch.testing.assert_close(kept[-1], torch.ones_like(kept[-1]))


@settings(max_examples=10)
@given(seeds, seeds)
def test_each_root_is_w2_of_each_parameter(first, second):
    dummy, shared = random_gradient(first), random_gradient(second)
    each = Wasserstein(eps=0, root="each")(dummy, shared)
    total = Wasserstein(eps=0, root="total", mass="one")(dummy, shared)
    for attack in range(3):
        pairs = zip(points_of(dummy, attack), points_of(shared, attack), strict=True)
        costs = [(len(x), ot.emd2([], [], squared(x, y))) for x, y in pairs]
        assert each[attack].item() == pytest.approx(sum(math.sqrt(cost) for _, cost in costs))
        assert total[attack].item() == pytest.approx(math.sqrt(sum(n * cost for n, cost in costs)))
