"""What is no transport problem is refused by name, and an attack that has exploded ends like any other."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from wdlg.attacks import Observation, Optimised, Status, reconstruct
from wdlg.errors import InputError
from wdlg.losses import Wasserstein
from wdlg.losses.sinkhorn import exact_assignment, sinkhorn_plan, unrolled_sinkhorn_plan
from wdlg.losses.wasserstein import wdca
from wdlg.networks import LeNet
from wdlg.optimizers import GradientDescent

X = torch.rand(3, 2, generator=torch.Generator().manual_seed(0))
SETTINGS = [
    {"eps": 0.0},
    {"eps": -0.1},
    {"eps": float("nan")},
    {"max_iterations": 0},
    {"max_iterations": 1.5},
]


@pytest.mark.parametrize("settings", [*SETTINGS, {"threshold": 0.0}])
@pytest.mark.parametrize(
    "solver", [lambda **given: wdca(X, X, **given), lambda **given: sinkhorn_plan(X[None], **given)]
)
def test_solvers_refuse_settings_out_of_range(solver, settings):
    with pytest.raises(InputError, match=f"^{next(iter(settings))} is"):
        solver(**settings)


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_unrolled_solver_refuses_settings_out_of_range(settings):
    with pytest.raises(InputError, match=f"^{next(iter(settings))} is"):
        unrolled_sinkhorn_plan(X[None], **settings)


@pytest.mark.parametrize(
    ("x", "y", "name"),
    [
        (X[:, 0], X, "x is a float32 tensor of shape (3,)"),
        (X.numpy(), X, "x is a numpy.ndarray"),
        (X.long(), X, "x is an int64 tensor"),
        (X[:0], X, "x is a float32 tensor of shape (0, 2)"),
        (X, X[:, :1], "y is a float32 tensor of shape (3, 1)"),
        (X, X.double(), "y is float64 on cpu"),
    ],
)
def test_the_distance_refuses_what_are_no_two_sets_of_points(x, y, name):
    with pytest.raises(InputError) as caught:
        wdca(x, y)
    assert str(caught.value).startswith(name)


@pytest.mark.parametrize("solver", [sinkhorn_plan, unrolled_sinkhorn_plan, exact_assignment])
@pytest.mark.parametrize("cost", [X, X[0], X.numpy(), X[None].long(), X[None, :0], [[[1.0]]]])
def test_solvers_refuse_what_are_no_cost_matrices(solver, cost):
    with pytest.raises(InputError, match="^cost is"):
        solver(cost)


def test_an_assignment_needs_as_many_columns_as_rows():
    with pytest.raises(InputError, match="^cost has matrices of 3 x 2, but must have square ones"):
        exact_assignment(X[None])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_an_assignment_without_a_least_cost_leaves_every_row_in_its_place(bad):
    cost = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    exact = exact_assignment(cost)
    broken = cost.clone()
    broken[0, 1, 2] = bad
    assert exact_assignment(broken).tolist() == [[0, 1, 2, 3], exact[1].tolist()]


def test_an_attack_by_exact_transport_that_explodes_ends_as_failure_and_leaves_its_neighbour_alone():
    network = LeNet((1, 8, 8), 4)
    stream = torch.Generator().manual_seed(0)
    parameters = network.initial_parameters(generator=stream)
    truth = torch.rand(2, 1, 8, 8, generator=stream)
    target = F.one_hot(torch.arange(2), 4).float()
    observation = Observation(network, parameters, network.gradient(parameters, truth, target))
    dummies = torch.randn(2, 1, 8, 8, generator=stream)
    dummies[0] = torch.nan
    attack = Optimised("exact", "bias_sign", Wasserstein(eps=0.0), GradientDescent(), evaluations=3)
    result = reconstruct(attack, observation, dummies)
    assert result.status.tolist() == [Status.NON_FINITE, Status.BUDGET_SPENT]
    assert torch.isfinite(result.loss[1])
