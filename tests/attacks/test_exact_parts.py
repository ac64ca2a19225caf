"""What the closed form is made of: activations undone, the equations of a layer, and their solver."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from wdlg.attacks.exact_layers import Layer
from wdlg.attacks.exact_solve import Equations, determined, solve
from wdlg.attacks.exact_stack import INVERSES, RELU, SIGMOID, TANH, _leaky


@pytest.mark.parametrize("activation", [SIGMOID, TANH, _leaky(0.3)], ids=lambda one: one.name)
def test_an_activation_is_undone_and_its_slope_known_from_its_values(activation):
    forward = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "leaky_relu": nn.LeakyReLU(0.3)}
    sums = torch.linspace(-3, 3, 14, dtype=torch.float64).requires_grad_()
    values = forward[activation.name](sums)
    (slope,) = torch.autograd.grad(values.sum(), sums)
    torch.testing.assert_close(activation.values(sums), values)
    torch.testing.assert_close(activation.sums(values), sums)
    torch.testing.assert_close(activation.slope(values), slope)
    assert activation.holds(values).all()


def test_values_out_of_range_are_not_held():
    for activation in INVERSES.values():
        edges = torch.tensor([activation.low - 1, activation.low, activation.middle, activation.high])
        assert activation.holds(edges).tolist() == [False, False, True, False]


def test_relu_is_undone_where_it_does_not_rest():
    sums = torch.linspace(-3, 3, 14, dtype=torch.float64).requires_grad_()
    values = torch.relu(sums)
    (slope,) = torch.autograd.grad(values.sum(), sums)
    held = RELU.holds(values)
    assert torch.equal(held, sums > 0)
    assert torch.equal(RELU.values(sums), values)
    assert torch.equal(RELU.sums(values)[held], sums[held])
    assert torch.equal(torch.where(held, RELU.slope(values), 0.0), slope)
    near = torch.tensor([-1e-3, 1e-3, 3e-3])
    assert RELU.holds(near, torch.tensor(2e-3)).tolist() == [False, False, True]


def system(count=2, layer=None):
    """Equations, their right sides, and the same as matrices (equations, unknowns)."""
    layer = Layer(2, 6, 7, 5, (3, 3), (2, 1), (1, 1)) if layer is None else layer
    stream = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=stream, dtype=torch.float64)

    taps = layer.channels * layer.kernel[0] * layer.kernel[1]
    equations = Equations(
        layer,
        normal(1, layer.filters, taps),
        normal(count, layer.filters, layer.places).abs(),
        normal(count, layer.filters, layer.places),
    )
    right = normal(count, layer.filters, layer.places), normal(count, layer.filters, taps)
    matrices = []
    for row in range(count):
        one = Equations(layer, equations.weights, equations.trust[[row]], equations.delta[[row]])
        columns = [
            torch.cat([part.flatten() for part in one.apply(unit[None])])
            for unit in torch.eye(layer.channels * layer.pixels, dtype=torch.float64).view(
                -1, layer.channels, layer.pixels
            )
        ]
        matrices.append(torch.stack(columns, dim=1).numpy())
    return equations, right, matrices


def test_equations_are_a_convolution_and_the_gradient_of_its_weights():
    equations, _, _ = system()
    layer = equations.layer
    inputs = torch.rand(2, 2, layer.pixels, dtype=torch.float64)
    kernel = equations.weights[0].view(5, 2, 3, 3).clone().requires_grad_()
    sums = F.conv2d(inputs.view(2, 2, 6, 7), kernel, stride=(2, 1), padding=1).flatten(2)
    forward, gradient = equations.apply(inputs)
    torch.testing.assert_close(forward, equations.trust * sums.detach())
    for row in range(2):
        (of_kernel,) = torch.autograd.grad(
            (sums[row] * equations.delta[row]).sum(), kernel, retain_graph=True
        )
        torch.testing.assert_close(gradient[row], of_kernel.flatten(1))


def test_the_transpose_is_the_matrix_turned_around():
    equations, right, matrices = system()
    turned = equations.transposed(*right)
    for row, matrix in enumerate(matrices):
        side = torch.cat([part[row].flatten() for part in right]).numpy()
        np.testing.assert_allclose(turned[row].flatten(), matrix.T @ side, rtol=1e-10, atol=1e-10)


def test_the_preconditioner_is_the_inverse_of_the_gradient_equations_and_a_diagonal():
    equations, _, matrices = system()
    rows = equations.layer.filters * equations.layer.places
    slope = torch.rand(2, 2, equations.layer.pixels, dtype=torch.float64)
    found = equations.preconditioned(slope)
    for row, matrix in enumerate(matrices):
        diagonal = np.square(matrix[:rows]).sum(0).reshape(2, -1).mean(0)
        whole = matrix[rows:].T @ matrix[rows:] + np.diag(np.tile(diagonal, 2))
        expected = np.linalg.solve(whole, slope[row].flatten().numpy())
        np.testing.assert_allclose(found[row].flatten(), expected, rtol=1e-9, atol=1e-12)


def test_the_solution_is_that_of_least_squares():
    equations, right, matrices = system()
    found = solve(equations, *right, tolerance=1e-13)
    for row, matrix in enumerate(matrices):
        side = torch.cat([part[row].flatten() for part in right]).numpy()
        best, squares, _, singular = np.linalg.lstsq(matrix, side, rcond=None)
        np.testing.assert_allclose(found.inputs[row].flatten(), best, rtol=1e-8, atol=1e-10)
        assert found.misfit[row] == pytest.approx(np.sqrt(squares[0]) / np.linalg.norm(side), rel=1e-8)
        assert 1 <= found.condition[row] < 3 * singular[0] / singular[-1]
    # Ritz values have met the extreme ones: the preconditioned condition number, from the matrix itself.
    unit = torch.eye(84, dtype=torch.float64).view(84, 1, 2, -1)
    inverse = torch.stack([equations.preconditioned(one.expand(2, -1, -1)) for one in unit]).flatten(2)
    for row, matrix in enumerate(matrices):
        values = np.linalg.eigvals(inverse[:, row].numpy() @ matrix.T @ matrix).real
        assert found.condition[row] == pytest.approx(np.sqrt(values.max() / values.min()), rel=1e-3)


def test_one_direction_that_is_open_is_noticed():
    equations, _, matrices = system(1)
    assert determined(equations).tolist() == [True]
    assert np.linalg.matrix_rank(matrices[0]) == 84
    open_layer = Layer(3, 7, 6, 5, (4, 3), (3, 2), (0, 2))  # passes the counts, and is one short
    equations, _, matrices = system(1, open_layer)
    assert np.linalg.matrix_rank(matrices[0]) == 125
    assert determined(equations).tolist() == [False]
