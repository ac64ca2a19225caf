"""Points that are not written out are those that are, and derivatives keep their digits near the solution."""

import pytest
import torch
from gradients_for_tests import random_gradient
from hypothesis import given
from hypothesis import strategies as st

from wdlg.losses.point_sets import Scaled, WrittenOut
from wdlg.losses.points import kernels, rows
from wdlg.updates import Gradient

seeds = st.integers(0, 2**31)


def factored(seed, kind, dtype=torch.float64):
    """Points of the output layer's weight held as factors, the same written out, and the dummy's factors."""
    dummy, shared = (random_gradient(seed + shift, features=8, dtype=dtype) for shift in (0, 1))
    leaves = [dummy.bias.requires_grad_(), dummy.output.features.requires_grad_()]
    if kind == "rows":
        points = rows(dummy, shared)[-2]
        return points, WrittenOut(dummy.last_weight, shared.last_weight), leaves
    points = kernels(dummy, shared, 3)[-2]
    assert isinstance(points, Scaled)
    cut = [gradient.last_weight.reshape(-1, 4, 2) for gradient in (dummy, shared)]
    return points, WrittenOut(*cut), leaves


@given(seeds, st.sampled_from(["rows", "kernels"]))
def test_factored_points_are_those_written_out(seed, kind):
    points, plain, leaves = factored(seed, kind)
    n = points.count
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(len(plain.x), n, n, generator=generator, dtype=torch.float64)
    order = weights.argsort(2)[:, 0]
    assert points.count == plain.count
    torch.testing.assert_close(points.squared(), plain.squared())
    torch.testing.assert_close(points.paired(), plain.paired())
    torch.testing.assert_close(points.paired(order), plain.paired(order))
    torch.testing.assert_close(points.shared_size(), plain.shared_size())
    torch.testing.assert_close(points.of_dummy().squared(), plain.of_dummy().squared())
    torch.testing.assert_close(points.of_shared().squared(), plain.of_shared().squared())
    for ours, theirs in ((points, plain), (points.of_dummy(), plain.of_dummy())):
        derivatives = [
            torch.autograd.grad(each.pull(weights).sum(), leaves, retain_graph=True)
            for each in (ours, theirs)
        ]
        torch.testing.assert_close(*derivatives)
        assert torch.equal(ours.pull(weights), torch.zeros_like(ours.pull(weights)))


@given(seeds)
def test_pull_is_the_derivative_of_the_weighted_distances(seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64)
    weights = torch.randn(3, 5, 5, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    (ours,) = torch.autograd.grad(WrittenOut(x, y).pull(weights).sum(), x)
    distances = (x[:, :, None] - y[:, None]).square().sum(3)
    (plain,) = torch.autograd.grad((weights * distances).sum(), x)
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("kind", ["written out", "rank one"])
def test_large_weights_of_counterparts_do_not_drown_the_others_in_single_precision(kind):
    """As under the Euclidean cost, whose weight is one over the distance."""
    generator = torch.Generator().manual_seed(0)
    shared = random_gradient(0, dtype=torch.float64)
    error = shared.bias * (1 + 1e-6 * torch.randn(3, 5, generator=generator, dtype=torch.float64))
    derivatives = []
    for dtype in (torch.float32, torch.float64):
        e, f, s, g = (
            part.to(dtype)
            for part in (shared.bias, shared.output.features, error.float(), shared.output.features)
        )
        leaf = e.float().to(dtype).requires_grad_()
        dummy = Gradient.of_one((), leaf, f.float().to(dtype))
        other = Gradient.of_one((), s, g.float().to(dtype))
        points = rows(dummy, other)[0]
        if kind == "written out":
            points = WrittenOut(leaf[:, :, None], other.bias[:, :, None])
        weights = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
        weights = weights + 1e6 * torch.eye(5, dtype=dtype)
        derivatives.append(torch.autograd.grad(points.pull(weights).sum(), leaf)[0].double())
    torch.testing.assert_close(*derivatives, rtol=1e-4, atol=1e-4)


@given(seeds)
def test_the_mean_of_rank_one_distances_needs_no_matrix(seed):
    points = rows(random_gradient(seed), random_gradient(seed + 1))[-2]
    torch.testing.assert_close(points.mean_squared(), points.squared().mean((1, 2)))


def test_rows_of_a_network_without_hidden_layers_are_no_kernels():
    gradients = [random_gradient(seed) for seed in (0, 1)]
    bare = [Gradient.of_one((), gradient.bias, gradient.output.features) for gradient in gradients]
    for cut, whole in zip(kernels(*bare, 5), rows(*bare), strict=True):
        assert torch.equal(cut.squared(), whole.squared())
