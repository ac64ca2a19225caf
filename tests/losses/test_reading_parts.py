"""The settings of the loss and the parts that they describe: one reading, however it is written down."""

import math
import pickle
from dataclasses import MISSING, fields, replace

import pytest
import torch
from gradients_for_tests import random_gradient
from readings_for_tests import difference, slope, three

from wdlg.errors import InputError
from wdlg.losses import SquaredEuclidean, Wasserstein, solver
from wdlg.losses.ground_cost import GroundCost
from wdlg.losses.points import Partition
from wdlg.losses.reading import Reading
from wdlg.losses.sinkhorn import exact_assignment
from wdlg.losses.solver import Solver
from wdlg.losses.total import Total
from wdlg.losses.value import Value

PARTS = {"partition": Partition, "cost": GroundCost, "solver": Solver, "value": Value, "total": Total}


def two():
    """A dummy and a shared gradient."""
    return [random_gradient(seed) for seed in (0, 1)]


def settings_of(reading):
    """Name and value of every setting of every part, in a list so that none hides another."""
    parts = [getattr(reading, name) for name in PARTS]
    return sorted((each.name, getattr(part, each.name)) for part in parts for each in fields(part))


@pytest.mark.parametrize(
    "loss",
    [
        Wasserstein(),
        Wasserstein(0.5, 7, 0.1, points="kernels", kernel_width=3, mass="one", root="total", relative=True,
                    value="dual", derivative="unrolled", penalty=0.3),
        Wasserstein(0.0, points="scalars", cost="pseudo_huber", huber_scale=0.2, value="debiased"),
    ],
)  # fmt: skip
def test_every_setting_of_the_loss_stands_in_one_of_its_parts(loss):
    assert settings_of(loss.reading) == sorted((each.name, getattr(loss, each.name)) for each in fields(loss))


def test_parts_have_the_defaults_of_the_loss():
    assert Reading(*(part() for part in PARTS.values())) == Wasserstein().reading
    assert all(each.default is MISSING for each in fields(Reading))


def test_a_reading_put_together_by_hand_is_the_loss_with_these_settings():
    dummy, shared, direction = three(3)
    reading = Reading(
        Partition("kernels", 3), GroundCost(), Solver(0.2, 30), Value("debiased"), Total("relative", "each")
    )
    loss = Wasserstein(
        0.2, 30, points="kernels", kernel_width=3, value="debiased", mass="relative", root="each"
    )
    assert torch.equal(reading(dummy, shared), loss(dummy, shared))
    assert torch.equal(slope(reading, dummy, shared, direction), slope(loss, dummy, shared, direction))
    for ours, theirs in zip(reading.couplings(dummy, shared), loss.couplings(dummy, shared), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"partition": Partition("scalars")}, "eps is 0.1, but must be 0 where points is 'scalars'."),
        (
            {"cost": GroundCost("pseudo_huber"), "total": Total(root="total")},
            "root is 'total', but must be 'none' where cost is 'pseudo_huber'.",
        ),
        (
            {"solver": Solver(penalty=math.inf), "value": Value("dual")},
            "value is 'dual', but must be 'plain' or 'debiased' where penalty is inf.",
        ),
        (
            {"solver": Solver(eps=0), "value": Value(derivative="unrolled")},
            "derivative is 'unrolled', but must be 'envelope' where eps is 0.",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_refused_however_they_are_put_together(changed, sentence):
    parts = {name: part() for name, part in PARTS.items()} | changed
    with pytest.raises(InputError) as caught:
        Reading(**parts)
    assert str(caught.value) == sentence


def test_a_loss_that_was_used_can_be_sent_to_another_process_and_changed():
    gradients = two()
    loss = Wasserstein(eps=0.3)
    value = loss(*gradients)
    sent = pickle.loads(pickle.dumps(loss))
    assert (sent, hash(sent)) == (loss, hash(loss))
    assert torch.equal(sent(*gradients), value)
    exact = replace(loss, eps=0)
    assert torch.equal(exact(*gradients), Wasserstein(eps=0)(*gradients))


@pytest.mark.parametrize("points", ["rows", "scalars"])
def test_points_held_in_place_need_no_solver_whatever_eps_is(points):
    dummy, shared = two()
    loss = Wasserstein(eps=0, points=points, penalty=math.inf, mass="one")
    torch.testing.assert_close(loss(dummy, shared), SquaredEuclidean()(dummy, shared))


def test_whole_tensors_have_one_plan_so_that_value_and_derivative_may_be_any():
    dummy, shared, direction = three(1)
    plain = Wasserstein(points="tensors")
    for value in ("plain", "dual", "debiased"):
        loss = Wasserstein(points="tensors", value=value, derivative="unrolled", penalty=0.5, relative=True)
        assert torch.equal(loss(dummy, shared), plain(dummy, shared))
        torch.testing.assert_close(
            slope(loss, dummy, shared, direction), difference(plain, dummy, shared, direction)
        )


@pytest.mark.parametrize(
    ("settings", "assigned"),
    [
        ({}, 2),  # the rows of two hidden weights: biases and the output layer's rows lie on lines
        ({"cost": "euclidean"}, 3),  # those of the output layer on two
        ({"penalty": 0.5}, 6),
        ({"penalty": math.inf}, 0),
        ({"points": "scalars", "cost": "euclidean"}, 0),
        ({"points": "tensors", "penalty": 0.5}, 0),
    ],
    ids=str,
)
def test_an_assignment_is_solved_only_where_sorting_does_not_find_the_plan(monkeypatch, settings, assigned):
    calls = []
    monkeypatch.setattr(solver, "exact_assignment", lambda cost: calls.append(cost) or exact_assignment(cost))
    Wasserstein(eps=0, **settings)(*two())
    assert len(calls) == assigned


def test_whole_tensors_and_points_held_in_place_need_no_sinkhorn_iterations(monkeypatch):
    monkeypatch.setattr(solver, "sinkhorn_plan", None)
    for settings in ({"points": "tensors"}, {"penalty": math.inf}):
        assert torch.isfinite(Wasserstein(**settings)(*two())).all()


def test_a_debiased_value_has_one_unit_for_its_three_problems():
    reading = Wasserstein(value="debiased", relative=True, cost="pseudo_huber").reading
    for points in reading.partition(*two()):
        between = reading.solver.problem(points, reading.cost)
        for same in (points.of_dummy(), points.of_shared()):
            alone = reading.solver.problem(same, reading.cost)
            within = reading.solver.problem(same, reading.cost, like=between)
            assert torch.equal(within.unit, between.unit)
            assert torch.equal(within.scale, between.scale)
            assert not torch.equal(alone.unit, between.unit)
