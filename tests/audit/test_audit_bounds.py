"""Rank, directions and layers are those of the Jacobian written out; what is only bounded holds the truth."""

from __future__ import annotations

import models_for_tests as models
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from models_for_tests import of
from torch import nn
from torch.func import functional_call

from wdlg import audit, limits
from wdlg.audit import bounds
from wdlg.audit.estimate import _bounds, spectrum
from wdlg.errors import InputError
from wdlg.networks import ModuleNetwork
from wdlg.sharing.federated import FedSGD


def test_the_bound_of_a_model_with_linear_output_is_that_of_the_library():
    model = models.lenet()
    system, private, message = of(model)
    found = audit.leak(system, message, private).limits
    network = ModuleNetwork(model, (1, 8, 8))
    expected = limits.limits(network, network.parameters(), private.images[0], int(private.labels[0]))
    assert found.entries == expected.entries
    assert found.size == pytest.approx(expected.size, rel=1e-5)
    assert torch.allclose(found.singular_values, expected.singular_values, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("indices", [(3,), (3, 8)])
@pytest.mark.parametrize("sent", [{"body.0.weight"}, {"body.1.weight", "head.bias"}, None])
def test_bounds_by_layer_are_those_of_the_jacobian_written_out(sent, indices):
    torch.manual_seed(2)
    model = models.Pooled()
    system, private, whole = of(model, *indices)
    tensors = dict(zip(system.names, (t for t in whole.gradient.tensors()), strict=False))
    tensors = {
        name: tensors[name].reshape(parameter.shape)
        for name, parameter in model.named_parameters()
        if sent is None or name in sent
    }
    message = audit.read(system, private, tensors, FedSGD(), partial=sent is not None)
    found = audit.leak(system, message, private)

    doubled = {name: tensor.detach().double() for name, tensor in model.eval().state_dict().items()}
    weights = {name: doubled[name] for name, _ in model.named_parameters()}

    def rows(images, name):
        def loss(weight):
            scores = functional_call(model, {**doubled, name: weight}, (images,))
            return F.cross_entropy(scores, private.labels)

        return torch.func.grad(loss)(weights[name]).flatten()

    jacobians = {
        name: torch.autograd.functional.jacobian(
            lambda images, name=name: rows(images, name), private.images.double()
        ).flatten(1)
        for name in tensors
    }
    layers: dict[str, list] = {}
    for name, one in jacobians.items():
        layers.setdefault(name.rpartition(".")[0], []).append(one)
    whole_jacobian = torch.cat(list(jacobians.values()))
    scale = float(torch.linalg.svdvals(whole_jacobian)[0])
    assert found.limits.entries == len(whole_jacobian)
    assert found.rank == int((torch.linalg.svdvals(whole_jacobian) > 1e-6 * scale).sum())
    exact = torch.linalg.svdvals(whole_jacobian)[: found.rank]
    assert torch.allclose(found.limits.singular_values[: found.rank], exact, rtol=1e-4, atol=1e-7 * scale)
    assert [layer.name for layer in found.layers] == list(layers)
    for layer, parts in zip(found.layers, layers.values(), strict=True):
        values = torch.linalg.svdvals(torch.cat(parts))
        assert layer.entries == sum(map(len, parts))
        assert layer.rank == int((values > 1e-6 * values[0]).sum())
        assert torch.allclose(layer.singular_values, values[: layer.rank], rtol=1e-4, atol=1e-7 * scale)


def test_directions_of_a_layer_are_told_by_the_noise_on_its_entries():
    layer = audit.Layer("one", 10, 2, torch.tensor([4.0, 1.0]))
    assert [layer.directions(s, 0.1) for s in (0, 0.1, 0.1001, 0.4, 0.41)] == [2, 2, 1, 1, 0]


@given(seed=st.integers(0, 10_000), value=st.floats(1e-6, 50))
@settings(max_examples=60, deadline=None)
def test_the_bounds_of_an_unknown_spectrum_hold_the_true_count_of_each_direction(seed, value):
    stream = torch.Generator().manual_seed(seed)
    eigenvalues = 10 ** (4 * torch.rand(40, generator=stream, dtype=torch.float64) - 3)
    basis = torch.linalg.qr(torch.randn(40, 40, generator=stream, dtype=torch.float64))[0]
    matrix = basis @ torch.diag(eigenvalues) @ basis.T
    few, all_ = (
        spectrum(lambda v: matrix @ v, 40, directions=6, steps=steps, seed=seed) for steps in (9, 40)
    )
    for nodes, weights, exact, shares in zip(few.nodes, few.weights, all_.nodes, all_.weights, strict=True):
        low, high = _bounds(nodes, weights, value)
        true = float(shares[exact >= value].sum())
        assert low - 1e-9 <= true <= high + 1e-9
    low, high = all_.above(value)
    assert 0 <= low <= high <= 40


def test_products_with_the_jacobian_are_those_of_the_jacobian_that_is_held(monkeypatch):
    system, private, message = of(models.Pooled())
    exact = audit.leak(system, message, private)
    monkeypatch.setattr(bounds, "MOST_NUMBERS", 1)
    found = audit.leak(system, message, private)
    assert exact.spectrum is None
    assert found.limits is None
    rows = exact.limits.singular_values[:, None] * exact.limits.vectors.flatten(1)
    known = spectrum(lambda direction: rows.T @ (rows @ direction), 64)
    assert torch.allclose(found.spectrum.nodes[:, -12:], known.nodes[:, -12:], rtol=1e-3)
    for level in (1e-4, 1e-2, 0.1, 1.0):
        low, high = found.directions(level, 0.1)
        assert low - 3 <= exact.directions(level, 0.1)[0] <= high + 3  # 95 %, of each
    assert found.rank is None
    assert found.bound(0.1) is None


def saturated():
    """A network so sure of its label that the gradient is zero in single precision."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1000.0]))
    return model


@pytest.mark.parametrize("most", [1, 10**9])
def test_a_gradient_of_zero_is_refused_however_it_would_be_bounded(most, monkeypatch):
    monkeypatch.setattr(bounds, "MOST_NUMBERS", most)
    system = audit.system(saturated(), (1, 8, 8))
    private = audit.private(system, torch.full((1, 1, 8, 8), 0.5), torch.tensor([3]))
    with pytest.raises(InputError, match="zero"):
        audit.leak(system, audit.made(system, private, FedSGD()), private)


def test_without_noise_a_direction_that_is_not_in_the_message_is_not_counted(monkeypatch):
    system, private, message = of(models.Pooled(width=2))
    exact = audit.leak(system, message, private)
    assert exact.rank < 64
    monkeypatch.setattr(bounds, "MOST_NUMBERS", 1)
    low, high = audit.leak(system, message, private).directions(0.0, 0.1)
    assert low <= exact.rank <= high
    assert low < 64


def test_layers_have_the_entries_of_what_is_sent():
    system, private, message = of(models.lenet())
    found = audit.leak(system, message, private)
    assert [layer.entries for layer in found.layers] == [12 * 26, 12 * 301, 10 * 193]
    assert sum(layer.entries for layer in found.layers) == found.limits.entries


def test_as_many_steps_as_directions_find_every_eigenvalue_once():
    eigenvalues = torch.logspace(-3, 1, 40, dtype=torch.float64)
    stream = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(40, 40, generator=stream, dtype=torch.float64))[0]
    matrix = basis @ torch.diag(eigenvalues) @ basis.T
    found = spectrum(lambda direction: matrix @ direction, 40, directions=2, steps=40)
    for nodes in found.nodes:
        assert torch.allclose(nodes.sort().values, eigenvalues, rtol=1e-6)
