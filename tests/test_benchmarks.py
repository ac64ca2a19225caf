"""The measurements count what is done, and compare like with like."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import alone, plain, wasserstein
from benchmarks.goals import lasting
from benchmarks.ideas import ideas
from benchmarks.problems import Problem
from benchmarks.scaling import operations
from wdlg import compiled, figures
from wdlg.attacks import IDLG, reconstruct
from wdlg.losses import SquaredEuclidean


@pytest.mark.parametrize("side", [28, 32])
def test_operations_are_those_that_torch_counts(side):
    start = Problem(2, side=side, classes=30).start()
    observation = start.observation
    images = start.dummy_images.requires_grad_()
    target = F.one_hot(torch.tensor([1, 2]), 30).float()
    # Compiled code makes the same products, where torch cannot count them.
    with compiled.turned_off(), FlopCounterMode(display=False) as counter:
        dummy = observation.network.gradient(observation.parameters, images, target)
        torch.autograd.grad(SquaredEuclidean()(dummy, observation.gradient).sum(), images)
    assert counter.get_total_flops() == 2 * operations(observation.network)


def test_the_plain_loop_makes_the_evaluations_of_the_engine():
    start = Problem(2, side=8, channels=1, classes=4).start()
    engine = reconstruct(lasting(IDLG, 40), *vars(start).values())
    assert plain.idlg(start, 40) == int(engine.evaluations.sum())


def test_alone_and_in_a_batch_are_compared_with_the_plain_loop(monkeypatch):
    monkeypatch.setattr(alone, "EVALUATIONS", dict.fromkeys(alone.EVALUATIONS, 3))
    monkeypatch.setattr(alone, "BATCH", 2)
    found = alone.speeds(1, side=8, channels=1, classes=4)
    for other in ("batch", "plain"):
        assert found[f"alone / {other}"].median == found["alone"].median / found[other].median
    assert [name for name in found if "/" not in name] == list(alone.EVALUATIONS)


def test_both_ways_of_the_wasserstein_loss_agree():
    given = wasserstein.gradients(1)
    (loss, derivatives), (theirs, others) = wasserstein.batched(*given), wasserstein.layer_by_layer(*given)
    torch.testing.assert_close(loss, theirs, rtol=1e-3, atol=1e-4)
    for mine, other in zip(derivatives, others, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-2, atol=1e-3 * float(other.abs().max()))


def test_both_ways_of_an_idea_bring_the_same():
    by_name = {idea.name.split(",")[0]: idea for idea in ideas()}
    for name in (
        "both passes compiled",
        "both passes by hand in torch",
        "derivative by the input by added windows",
    ):
        idea = by_name[name]
        ours, theirs = idea.ours(), idea.theirs()
        torch.testing.assert_close(ours, theirs.view_as(ours), rtol=1e-3, atol=1e-3)


GOAL = {"name": "n", "ratio": 4.0, "low": 3.0, "high": 5.0, "at_least": 2.0, "aim": 8.0}


@pytest.mark.parametrize(("smaller_is_better", "place"), [(False, 2.0), (True, 0.5)])
def test_a_goal_is_drawn_right_of_one_where_it_is_reached(smaller_is_better, place):
    figure = figures.speed_goals([{**GOAL, "smaller_is_better": smaller_is_better}])
    marker = next(line for line in figure.axes[0].lines if line.get_marker() in "^s")
    assert list(marker.get_xdata()) == [place]
    assert marker.get_marker() == ("s" if smaller_is_better else "^")


def test_the_parts_of_the_time_add_up_to_the_whole():
    limits = {
        "matrix product, operations a second": 1e11,
        "memory, bytes a second": 4e10,
        "operations for one evaluation": 1e7,
        "bytes of L-BFGS for one evaluation": 4e6,
    }
    bars = figures.speed_limits(limits, 1000.0).axes[0].patches
    assert [round(bar.get_width()) for bar in bars] == [100, 100, 800]
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(1000)


def test_attacks_of_a_measurement_do_not_stop_early():
    assert lasting(IDLG, 7) == replace(IDLG, evaluations=7, stop_loss=1e-30)
