"""Every reading of the paper's distance against known answers, POT, SciPy and finite differences."""

import math
import warnings
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import ot
import pytest
import torch
from gradients_for_tests import random_gradient
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from wdlg.errors import InputError
from wdlg.gradients import Gradient
from wdlg.losses import Cosine, Euclidean, PseudoHuber, SquaredEuclidean, Wasserstein

seeds = st.integers(0, 2**31)
LONG = {"max_iterations": 5_000, "threshold": 1e-13}

READINGS = {
    "plain": Wasserstein(),
    "relative": Wasserstein(relative=True),
    "exact": Wasserstein(eps=0),
    "exact, euclidean": Wasserstein(eps=0, cost="euclidean"),
    "exact, penalty, dual": Wasserstein(eps=0, penalty=0.3, value="dual"),
    "each root": Wasserstein(root="each", eps=0),
    "total root, mass one": Wasserstein(root="total", mass="one"),
    "euclidean": Wasserstein(cost="euclidean"),
    "pseudo-Huber": Wasserstein(cost="pseudo_huber"),
    "mass relative": Wasserstein(eps=0, mass="relative"),
    "penalty": Wasserstein(penalty=2.0),
    "identity": Wasserstein(penalty=math.inf),
    "identity, euclidean": Wasserstein(penalty=math.inf, cost="euclidean"),
    "dual": Wasserstein(value="dual", relative=True, penalty=0.5),
    "debiased": Wasserstein(value="debiased", root="total", eps=1.0, **LONG),
    "debiased, pseudo-Huber": Wasserstein(value="debiased", cost="pseudo_huber", relative=True, **LONG),
    "unrolled": Wasserstein(derivative="unrolled", max_iterations=20),
    "unrolled, debiased": Wasserstein(derivative="unrolled", value="debiased", eps=1.0),
    "kernels": Wasserstein(points="kernels", kernel_width=3),
    "kernels, exact": Wasserstein(points="kernels", kernel_width=3, eps=0, cost="euclidean"),
    "kernels, debiased": Wasserstein(points="kernels", kernel_width=3, value="debiased", relative=True),
    "scalars": Wasserstein(points="scalars", eps=0),
    "tensors": Wasserstein(points="tensors", root="each"),
    "tensors, pseudo-Huber": Wasserstein(points="tensors", cost="pseudo_huber", value="debiased"),
    "cosine": Cosine(),
    "pseudo-Huber of the whole": PseudoHuber(),
}
each_reading = pytest.mark.parametrize("loss", READINGS.values(), ids=READINGS.keys())


def squared(x, y):
    """POT's own ot.dist leaves up to 1e-8 between equal points."""
    return ((x[:, None] - y[None]) ** 2).sum(2)


def points_of(gradient, attack):
    """The rows of each parameter of one attack, (n, d)."""
    return [tensor[attack].numpy() for tensor in gradient.tensors()]


def permuted(gradient, seed):
    """The units of every parameter in another order."""
    generator = torch.Generator().manual_seed(seed)

    def shuffled(tensor):
        return tensor[:, torch.randperm(tensor.shape[1], generator=generator)]

    return Gradient(tuple(map(shuffled, gradient.hidden)), shuffled(gradient.error), gradient.features)


def moved(gradient, direction, step):
    """The gradient after a step; both in float64."""
    hidden = tuple(x + step * d for x, d in zip(gradient.hidden, direction.hidden, strict=True))
    return Gradient(
        hidden, gradient.error + step * direction.error, gradient.features + step * direction.features
    )


def slope(loss, dummy, shared, direction):
    """Derivative of the loss (B,) along a direction, by autograd."""
    parts = [*dummy.hidden, dummy.error, dummy.features]
    leaves = [part.clone().requires_grad_() for part in parts]
    value = loss(Gradient(tuple(leaves[:-2]), *leaves[-2:]), shared)
    grads = torch.autograd.grad(value.sum(), leaves)
    along = [*direction.hidden, direction.error, direction.features]
    return sum((grad * d).flatten(1).sum(1) for grad, d in zip(grads, along, strict=True))


def difference(loss, dummy, shared, direction, step=1e-5):
    """The same by central differences."""
    ahead, behind = (loss(moved(dummy, direction, sign * step), shared) for sign in (1, -1))
    return (ahead - behind) / (2 * step)


def three(seed, scale=0.5):
    """A dummy, a shared gradient, and a direction."""
    return (random_gradient(seed + shift, scale=scale) for shift in (0, 1000, 2000))


# All readings


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


# Points


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
    shared = Gradient((weight.flatten(2),), gradients[0].error, gradients[0].features)
    within = weight[:, :, :, [1, 0, 2, 3, 4]]  # rows of each kernel
    across = weight[:, :, [1, 0, 2]]  # input channels
    loss = Wasserstein(points="kernels", eps=0)
    for other, zero in ((within, True), (across, False)):
        value = loss(Gradient((other.flatten(2),), shared.error, shared.features), shared)
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


# Costs


def pot_cost(x, y, cost, scale):
    distance = np.sqrt(squared(x, y))
    if cost == "squared":
        return distance**2
    if cost == "euclidean":
        return distance
    s = scale * math.sqrt((y**2).sum(1).mean())
    return s**2 * (np.sqrt(1 + distance**2 / s**2) - 1)


def unit_of(C):
    """The median (torch's: the lower one), but at least a tenth of the mean."""
    return max(torch.from_numpy(C).median().item(), C.mean() / 10)


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
        return Gradient(
            tuple(factor * tensor for tensor in gradient.hidden), factor * gradient.error, gradient.features
        )

    loss = Wasserstein(relative=True, penalty=0.5, value=value)
    torch.testing.assert_close(loss(times(dummy), times(shared)), factor**2 * loss(dummy, shared))


def test_an_absolute_eps_is_not_homogeneous():
    dummy, shared, _ = three(0)
    double = [Gradient(tuple(2 * x for x in g.hidden), 2 * g.error, g.features) for g in (dummy, shared)]
    loss = Wasserstein(eps=0.5)
    assert ((loss(*double) / loss(dummy, shared) - 4).abs() > 0.1).all()


def test_relative_units_are_the_same_without_the_matrix_of_all_classes(monkeypatch):
    from wdlg.losses import wasserstein

    dummy, shared, direction = (random_gradient(seed, attacks=2, classes=40, scale=0.4) for seed in range(3))
    results = []
    for limit in (10, 100):
        monkeypatch.setattr(wasserstein, "RANK_ONE_ABOVE", limit)
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
        saturated.append(Gradient(gradient.hidden, error, gradient.features))
    assert 1e-18 < saturated[0].error.abs().median() < 1e-9
    for value, points in product(("plain", "dual", "debiased"), ("rows", "kernels")):
        loss = Wasserstein(eps=0.01, relative=True, value=value, points=points)
        assert (loss(*saturated) < 1e3).all()
        assert torch.isfinite(slope(loss, *saturated, direction)).all()


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
