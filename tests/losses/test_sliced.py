"""The sliced distance: known values, invariance, and POT on the same lines."""

import numpy as np
import ot
import pytest
import torch
from gradients_for_tests import random_gradient
from hypothesis import given, settings
from hypothesis import strategies as st

from wdlg.errors import InputError
from wdlg.losses import SlicedWasserstein
from wdlg.updates import Gradient
from wdlg.updates.output_layer import Dense

seeds = st.integers(0, 2**20)


def lines_of(loss, gradient):
    """The lines that the loss draws for each parameter."""
    generator = torch.Generator().manual_seed(loss.seed)
    weights = [*gradient.hidden, gradient.last_weight]
    return [loss._lines(tensor, generator).numpy() for tensor in weights] + [np.ones((1, 1))]


@settings(max_examples=20)
@given(seeds, seeds, seeds)
def test_it_is_pots_sliced_distance_on_the_same_lines(first, second, lines):
    dummy, shared = random_gradient(first), random_gradient(second)
    loss = SlicedWasserstein(projections=7, seed=lines)
    values = loss(dummy, shared)
    for attack in range(3):
        expected = sum(
            ot.sliced_wasserstein_distance(x[attack].numpy(), y[attack].numpy(), projections=line) ** 2
            for x, y, line in zip(dummy.tensors(), shared.tensors(), lines_of(loss, dummy), strict=True)
        )
        assert values[attack].item() == pytest.approx(expected)


@given(seeds)
def test_the_order_of_the_units_does_not_matter(seed):
    shared = random_gradient(seed)
    turned = Gradient.of_one(
        tuple(tensor.flip(1) for tensor in shared.hidden), shared.bias.flip(1), shared.output.features
    )
    assert float(SlicedWasserstein(projections=5)(turned, shared).max()) < 1e-20


def test_the_root_is_taken_of_each_parameter_or_of_their_sum():
    dummy, shared = random_gradient(0), random_gradient(1)
    plain, total, each = (
        SlicedWasserstein(projections=5, root=root)(dummy, shared) for root in ("none", "total", "each")
    )
    torch.testing.assert_close(total.square(), plain)
    assert (each > total).all()  # the norm of sums is below the sum of norms


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"projections": 0}, "^projections is 0"),
        ({"seed": -1}, "^seed is -1"),
        ({"root": "square"}, "^root is 'square'"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        SlicedWasserstein(**arguments)


def test_points_on_a_line_are_compared_as_they_are():
    """In one dimension a direction is 1 or -1, whatever is drawn: the distance is that of sorted points."""
    x, y = torch.tensor([[[0.0], [3.0]]]), torch.tensor([[[5.0], [1.0]]])
    error, features = torch.tensor([[0.5, -0.5]]), torch.zeros(1, 2)
    dummy, shared = (Gradient.of_one((points,), error, features) for points in (x, y))
    for projections in (1, 7):
        found = SlicedWasserstein(projections=projections)(dummy, shared)
        torch.testing.assert_close(found, torch.tensor([(1.0 + 4.0) / 2]))


def test_an_output_layer_kept_as_product_and_rest_is_the_same_layer():
    stream = torch.Generator().manual_seed(0)
    hidden = (torch.randn(1, 3, 2, generator=stream),)
    error, features, others = (torch.randn(1, size, generator=stream) for size in (4, 5, 5))
    dummy = Gradient.of_one(hidden, error, others)
    product = error[:, :, None] * features[:, None, :]
    for share in (0.0, 0.25):
        split = Gradient(hidden, Dense(error, share * features, (1 - share) * product))
        torch.testing.assert_close(
            SlicedWasserstein()(dummy, split),
            SlicedWasserstein()(dummy, Gradient.of_one(hidden, error, features)),
        )


def test_a_shift_of_all_points_costs_its_square_shared_among_the_directions():
    """``(t·v)²`` of a line t is ``|v|² / d`` in the mean over all directions of d dimensions."""
    x = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    error, features = torch.tensor([[0.5, -0.5]]).double(), torch.zeros(1, 2).double()
    shift = torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64)
    dummy, shared = (Gradient.of_one((points,), error, features) for points in (x, x + shift))
    found = SlicedWasserstein(projections=20_000)(dummy, shared).item()
    # The square of a coordinate of a random direction scatters by 0.3: by 0.002 in the mean of 20 000.
    assert found == pytest.approx(9 / 3, abs=9 * 0.01)


def test_the_largest_seed_of_torch_is_the_largest_allowed():
    assert SlicedWasserstein(seed=2**63 - 1).seed == 2**63 - 1
    with pytest.raises(InputError, match="^seed is 9223372036854775808"):
        SlicedWasserstein(seed=2**63)
