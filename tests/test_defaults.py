"""Defaults are promises: records of the paper's methods hold for these settings and no others."""

import inspect
from dataclasses import asdict, fields

import pytest
import torch

from wdlg import evaluation
from wdlg.attacks import DLG, IDLG, METHODS, WDLG, Optimised
from wdlg.attacks import base as attack
from wdlg.losses import PseudoHuber, SlicedWasserstein, SquaredEuclidean, Wasserstein
from wdlg.losses.sinkhorn import sinkhorn_plan, unrolled_sinkhorn_plan
from wdlg.losses.wasserstein import wdca
from wdlg.networks import Architecture, ConvNet, LeNet, ResNet, architecture
from wdlg.optimizers import LBFGS, Adam, GradientDescent
from wdlg.optimizers.lbfgs import CURVATURE_LIMIT
from wdlg.study import Design, compare_rules


def defaults(function):
    """Default of each argument that has one."""
    return {
        name: argument.default
        for name, argument in inspect.signature(function).parameters.items()
        if argument.default is not argument.empty
    }


def test_the_papers_methods_differ_in_label_rule_and_loss_alone():
    assert {name: (method.name, method.label_rule.name) for name, method in METHODS.items()} == {
        "dlg": ("DLG", "joint"),
        "idlg": ("iDLG", "row_sum"),
        "wdlg": ("WDLG", "bias_sign"),
    }
    assert DLG.loss == IDLG.loss == SquaredEuclidean()
    assert WDLG.loss == Wasserstein()
    for method in METHODS.values():
        assert method.optimizer == LBFGS()
        assert (method.evaluations, method.stop_loss) == (6000, 1e-6)
    plain = Optimised("any", "joint")
    assert (plain.loss, plain.optimizer) == (SquaredEuclidean(), LBFGS())
    assert (plain.evaluations, plain.stop_loss) == (6000, 1e-6)
    assert (plain.priors, plain.projection) == ((), None)


def test_the_wasserstein_loss_is_the_plain_reading_with_eps_of_a_tenth():
    assert asdict(Wasserstein()) == {
        "eps": 0.1,
        "max_iterations": 100,
        "threshold": 1e-3,
        "points": "rows",
        "kernel_width": 5,
        "mass": "share",
        "cost": "squared",
        "huber_scale": 0.01,
        "root": "none",
        "relative": False,
        "value": "plain",
        "derivative": "envelope",
        "penalty": 0.0,
    }


def test_algorithm_2_has_the_same_defaults_alone_and_in_the_loss():
    ours = {name: getattr(Wasserstein(), name) for name in ("eps", "max_iterations", "threshold")}
    assert defaults(wdca) == ours
    assert defaults(sinkhorn_plan) == ours
    assert defaults(unrolled_sinkhorn_plan) == {name: ours[name] for name in ("eps", "max_iterations")}


def test_designs_and_label_comparisons_are_of_the_lenet_of_dlg_unless_they_name_another_network():
    for settings in (vars(Design()), defaults(compare_rules)):
        assert architecture(settings["network"]) == Architecture("lenet")
        assert (settings["activation"], settings["initial"]) == (None, None)
    lenet, convnet, resnet = map(architecture, ("lenet", "convnet", "resnet"))
    assert (lenet.activation(None), lenet.initial(None)) == ("sigmoid", "uniform")
    for other in (convnet, resnet):
        assert (other.activation(None), other.initial(None)) == ("relu", "torch")
    assert LeNet((1, 8, 8), 4) == LeNet((1, 8, 8), 4, activation="sigmoid")
    drawing = defaults(LeNet.initial_parameters)
    assert (drawing["distribution"], drawing["bound"]) == ("uniform", 0.5)
    assert defaults(compare_rules)["bound"] == 0.5
    assert defaults(ConvNet.initial_parameters)["distribution"] == "torch"
    assert ConvNet((3, 32, 32), 10) == ConvNet((3, 32, 32), 10, "relu", width=64, mode="evaluation")
    assert ResNet((3, 32, 32), 10) == ResNet((3, 32, 32), 10, "relu", width=16, blocks=1, mode="evaluation")


def test_other_losses_have_the_defaults_that_they_document():
    assert asdict(PseudoHuber()) == {"scale": 0.01}
    assert asdict(SlicedWasserstein()) == {"projections": 50, "seed": 0, "root": "none"}


@pytest.mark.parametrize(
    ("optimizer", "theirs", "names"),
    [
        (
            LBFGS(),
            torch.optim.LBFGS,
            {
                "learning_rate": "lr",
                "inner_iterations": "max_iter",
                "tolerance_grad": "tolerance_grad",
                "tolerance_change": "tolerance_change",
                "history": "history_size",
            },
        ),
        (Adam(), torch.optim.Adam, {"betas": "betas", "epsilon": "eps"}),  # the rest is not of torch
    ],
    ids=["L-BFGS", "Adam"],
)
def test_optimisers_have_the_defaults_of_torch(optimizer, theirs, names):
    expected = defaults(theirs)
    assert {ours: getattr(optimizer, ours) for ours in names} == {
        ours: expected[name] for ours, name in names.items()
    }
    ours = {field.name for field in fields(optimizer)} - names.keys()
    assert ours <= {"learning_rate", "signed", "milestones", "decay"}


def test_learning_rates_are_those_documented():
    assert (LBFGS().learning_rate, GradientDescent().learning_rate, Adam().learning_rate) == (1.0, 1.0, 0.1)


def test_bounds_are_those_of_the_pages_and_of_the_papers():
    assert attack.DIVERGENCE == 1e6
    assert evaluation.EXPLOSION == 10.0
    assert evaluation.SUCCESS_THRESHOLDS == (1e-2, 5e-3, 1e-3, 5e-4, 1e-4)
    assert CURVATURE_LIMIT == 1e-10  # a literal in torch's code
