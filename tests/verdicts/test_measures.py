"""Each measure at its decision boundaries, with its words and numbers, on tables written by hand."""

import numpy as np
import pandas as pd
import pytest

from wdlg import data
from wdlg.study.statistics import share
from wdlg.study.summary import summarise_runs
from wdlg.verdicts.before import dlg_labels_of_main, label_cost_of_all, rate_threshold
from wdlg.verdicts.claims import CONDITION, FAILED, REPRODUCED, UNDECIDED, UNTESTABLE
from wdlg.verdicts.comparison import Limits, NotMeasuredError, costs
from wdlg.verdicts.measures import Records
from wdlg.verdicts.on_images import fidelity, lower_loss
from wdlg.verdicts.on_labels import dlg_labels, label_cost, label_growth


def rules_table(steps, seconds, datasets=data.PAPER, architecture="lenet"):
    """Label rules: steps and seconds of row_sum, where bias_sign takes 10 steps and 1 s."""
    rows = [
        (name, rule, *cost)
        for name in datasets
        for rule, cost in {"bias_sign": (10, 1.0), "row_sum": (steps, seconds)}.items()
    ]
    table = pd.DataFrame(rows, columns=["dataset", "rule", "steps", "seconds"])
    return table.assign(architecture=architecture, initial="uniform", dtype="float32")


COST = {"fewer_steps": 10, "time_share": 0.5}


@pytest.mark.parametrize(
    ("steps", "seconds", "verdict", "condition"),
    [
        (100, 2.0, REPRODUCED, ""),  # at both bounds
        (100, 1.99, CONDITION, "in steps, hardly in time"),
        (99, 2.0, FAILED, ""),
        (99, 1.0, FAILED, ""),
    ],
)
def test_a_rule_is_cheaper_in_steps_and_in_time_or_in_steps_alone(steps, seconds, verdict, condition):
    records = Records(labels=rules_table(steps, seconds))
    for measure in (label_cost, label_cost_of_all):
        result = measure(records, **COST)
        assert (result.verdict, result.condition) == (verdict, condition)
    assert label_cost(records, **COST).numbers["svhn"] == {"steps": steps / 10, "time": seconds}


def test_the_cost_of_each_data_set_is_judged_by_itself():
    slow, fast = rules_table(100, 1.0, data.PAPER[:4]), rules_table(100, 9.0, data.PAPER[4:])
    result = label_cost(Records(labels=pd.concat([slow, fast])), **COST)
    assert (result.verdict, result.condition) == (CONDITION, "in steps, in time on LFW only")
    found = label_cost(Records(labels=fast), **COST)
    assert (found.verdict, found.condition) == (
        CONDITION,
        "in steps, in time on LFW only; not measured on MNIST, Fashion-MNIST, SVHN and CIFAR-100",
    )
    other = rules_table(100, 9.0, ["digits"])
    assert label_cost(Records(labels=other), **COST).verdict == UNDECIDED
    wide = rules_table(1000, 0.1, architecture="convnet, width 64")
    assert label_cost(Records(labels=pd.concat([rules_table(100, 2.0), wide])), **COST).verdict == REPRODUCED


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        ((1.0, 1.5, 2.0), REPRODUCED),  # twice as large at the widest
        ((1.0, 1.5, 1.99), FAILED),
        ((1.0, 1.0, 2.0), FAILED),  # not at every width
        ((1.0, 2.0), UNDECIDED),
    ],
)
def test_the_gain_grows_if_it_is_larger_at_every_width_and_twice_as_large_at_the_widest(times, verdict):
    names = ["mnist", "lfw"]
    table = pd.concat(
        rules_table(100 * 4**place, seconds, names, f"convnet, width {4**place}")
        for place, seconds in enumerate(times)
    )
    settings = {"datasets": names, "network": "convnet", "widths": 3, "growth": 2}
    found = label_growth(Records(labels=pd.concat([rules_table(5000, 0.1), table])), **settings)
    assert found.verdict == verdict
    assert found.numbers["lfw"] == {str(10 * 4**place): one for place, one in enumerate(times)}
    mixed = pd.concat([table[table["dataset"] == "lfw"], table.assign(dataset="mnist", seconds=1.0)])
    if verdict == REPRODUCED:
        found = label_growth(Records(labels=mixed), **settings)
        assert (found.verdict, found.condition) == (CONDITION, "on LFW")


def at_rates(**medians):
    """One run at each of the learning rates 1, 2, 3, ... for each optimiser, with these MSEs."""
    rows = [
        ("WDLG", optimizer, rate, mse, 1000)
        for optimizer, errors in medians.items()
        for rate, mse in enumerate(errors, start=1)
    ]
    columns = ["method", "optimizer", "learning_rate", "mse", "budget"]
    return Records(rates=pd.DataFrame(rows, columns=columns))


@pytest.mark.parametrize(
    ("errors", "holds"),
    [
        ((1.0, 0.5, 2.0), True),  # falls by exactly half to a best rate within
        ((1.0, 0.51, 2.0), False),  # falls by less
        ((1.0, 3.0, 0.1, 2.0), False),  # does not fall from rate to rate
        ((0.1, 0.5, 2.0), False),  # the best is the smallest
        ((2.0, 0.5, 0.1), False),  # the best is the largest
    ],
)
def test_a_threshold_was_a_best_rate_within_after_a_steady_fall_by_half(errors, holds):
    settings = {"method": "WDLG", "fall": 0.5, "budget": 1000}
    alone = rate_threshold(at_rates(LBFGS=errors), **settings)
    assert alone.verdict == (REPRODUCED if holds else FAILED)
    beside = rate_threshold(at_rates(LBFGS=errors, Adam=(1.0, 1.0, 1.0)), **settings)
    assert (beside.verdict, beside.condition) == ((CONDITION, "with LBFGS") if holds else (FAILED, ""))
    assert alone.numbers["LBFGS"] == {f"{rate}": mse for rate, mse in enumerate(errors, start=1)}


# What a run costs


def test_a_run_is_as_unsteady_as_its_mse_rises_in_any_unit():
    traces = [[4.0, 2.0, 4.0, 1.0, 2.0], [4.0, 1.0, 0.0], [1.0, np.nan, 1.0], [1.0, np.inf], []]
    table = pd.DataFrame({"trace_mse": [np.array(one) for one in traces]})
    expected = [2 * np.log(2), 0, np.inf, np.inf, np.inf]
    assert costs(table, "steadiness") == pytest.approx(expected)
    scaled = pd.DataFrame({"trace_mse": [7 * np.array(one) for one in traces]})
    assert costs(scaled, "steadiness") == pytest.approx(expected)
    with pytest.raises(NotMeasuredError, match="traces of the mse"):
        costs(pd.DataFrame({"mse": [1.0]}), "steadiness")


def test_iterations_to_another_threshold_are_those_of_the_first_stored_point_below_it():
    table = pd.DataFrame(
        {
            "iterations_to_success": [3.0, np.nan],
            "trace_iteration": [np.array([0, 2, 5, 9]), np.array([0, 4])],
            "trace_mse": [np.array([1.0, 0.1, 0.009, 0.0005]), np.array([1.0, np.nan])],
        }
    )
    assert costs(table, "speed").tolist() == [3.0, np.inf]
    for success, iterations in ((0.5, 2.0), (0.1, 5.0), (0.001, 9.0), (0.0001, np.inf)):
        assert costs(table, "speed", Limits(success)).tolist() == [iterations, np.inf]


def test_explosions_at_another_multiple_are_counted_anew():
    table = pd.DataFrame(
        {
            "exploded": [True, False, False, True, True],
            "mse": [20.0, 3.0, 1.0, np.nan, 1.0],
            "mse_start": 1.0,
            "loss": [1.0, 1.0, 3.0, 1.0, np.inf],
            "loss_first": 1.0,
            "evaluations": 5,
        }
    )
    assert costs(table, "calm").tolist() == [1, 0, 0, 1, 1]
    assert costs(table, "calm", Limits(times=2)).tolist() == [1, 1, 1, 1, 1]
    assert costs(table, "calm", Limits(times=3)).tolist() == [1, 0, 0, 1, 1]
    assert costs(table, "calm", Limits(times=100)).tolist() == [0, 0, 0, 1, 1]
    assert costs(table, "calm by loss", Limits(times=2)).tolist() == [0, 0, 1, 0, 1]


def runs(good, networks, *, method="WDLG", dataset="lfw", column="mse"):
    """A run on each network, of which some are good."""
    flags = np.arange(networks) < good
    table = pd.DataFrame({"network": np.arange(networks), "method": method, "dataset": dataset})
    return table.assign(**{column: np.where(flags, 1e-9, 1.0) if column == "mse" else flags})


@pytest.mark.parametrize("good", range(11))
@pytest.mark.parametrize("networks", [4, 10])
def test_fidelity_is_decided_by_the_lower_end_of_at_least_six_networks(good, networks):
    good = min(good, networks)
    one = share(good, networks)
    result = fidelity(
        Records(attacks=runs(good, networks)), method="WDLG", dataset="lfw", mse=1e-3, share=0.5
    )
    expected = UNDECIDED if networks < 6 else REPRODUCED if one.low >= 0.5 else FAILED
    assert result.verdict == expected
    assert result.condition == ("fewer than 6 networks on LFW" if expected == UNDECIDED else "")
    assert result.summary.startswith(f"{one.percent()} of {networks} runs below 0.001; median MSE ")
    assert result.interval == (one.low, one.high)
    assert result.numbers["share"] == good / networks


def test_the_shares_of_right_labels_are_numbers_of_the_claim():
    table = pd.concat(
        runs(good, 10, method="DLG", dataset=name, column="label_correct")
        for name, good in (("mnist", 10), ("lfw", 5))
    )
    result = dlg_labels(Records(attacks=table), often=0.05)
    expected = {name: share(good, 10) for name, good in (("mnist", 10), ("lfw", 5))}
    assert result.numbers == {
        name: {"share": one.value, "low": one.low, "high": one.high} for name, one in expected.items()
    }
    lacking = "not measured on Fashion-MNIST, SVHN and CIFAR-100"
    assert (result.verdict, result.condition) == (CONDITION, f"on LFW; {lacking}")
    before = dlg_labels_of_main(Records(attacks=table), often=0.05)
    assert (before.verdict, before.condition) == (CONDITION, "on LFW")


def test_a_run_without_a_number_stays_in_every_median_as_a_failure():
    """Of three runs two have no MSE, or no loss: the middle one is such a run."""
    table = runs(3, 3).assign(mse=[1e-9, np.nan, np.nan], loss=[1.0, np.nan, np.nan], loss_first=2.0)
    one = fidelity(Records(attacks=table), method="WDLG", dataset="lfw", mse=1e-3, share=0.5)
    assert one.numbers["median_mse"] == np.inf
    assert lower_loss(Records(attacks=table)).numbers == {"WDLG": np.inf}
    rates = table.assign(optimizer="Adam", learning_rate=1.0, budget=9)
    found = rate_threshold(Records(rates=rates), method="WDLG", fall=0.5, budget=9)
    assert found.numbers == {"Adam": {"1": np.inf}}
    flags = ("below_0.01", "below_0.001", "exploded", "label_correct")
    table = table.assign(status="diverged", evaluations=1, seconds=1.0, **dict.fromkeys(flags, False))
    assert summarise_runs(table)["median MSE"].tolist() == [np.inf]


def test_losses_are_shown_beside_each_other_and_the_reason_why_they_are_not_compared():
    table = pd.DataFrame({"method": ["WDLG", "iDLG"], "loss": [1.0, 1.0], "loss_first": [4.0, 2.0]})
    result = lower_loss(Records(attacks=table))
    assert (result.verdict, result.numbers) == (UNTESTABLE, {"WDLG": 0.25, "iDLG": 0.5})
    assert result.condition == "the losses are different quantities in different units"
