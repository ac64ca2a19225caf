"""Each measure at its decision boundaries, with its words and numbers, on tables written by hand."""

import numpy as np
import pandas as pd
import pytest

from wdlg.study.statistics import share
from wdlg.study.summary import summarise_runs
from wdlg.verdicts.claims import CONDITION, FAILED, REPRODUCED, UNDECIDED, UNTESTABLE
from wdlg.verdicts.measures import Records, dlg_labels, fidelity, label_cost, lower_loss, rate_threshold


def rules_table(steps, seconds):
    """Label rules of one data set: steps and seconds of row_sum, where bias_sign takes 10 steps and 1 s."""
    rows = [("bias_sign", 10, 1.0), ("row_sum", steps, seconds)]
    table = pd.DataFrame(rows, columns=["rule", "steps", "seconds"])
    return Records(labels=table.assign(dataset="mnist"))


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
    result = label_cost(rules_table(steps, seconds), fewer_steps=10, time_share=0.5)
    assert (result.verdict, result.condition) == (verdict, condition)
    assert result.numbers == pytest.approx({"fewer_steps": steps / 10, "time_ratio": 1 / seconds})


def at_rates(**medians):
    """One run at each of the learning rates 1, 2, 3, ... for each optimiser, with these MSEs."""
    rows = [
        ("WDLG", optimizer, rate, mse)
        for optimizer, errors in medians.items()
        for rate, mse in enumerate(errors, start=1)
    ]
    return Records(rates=pd.DataFrame(rows, columns=["method", "optimizer", "learning_rate", "mse"]))


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
def test_a_threshold_is_a_best_rate_within_after_a_steady_fall_by_half(errors, holds):
    alone = rate_threshold(at_rates(LBFGS=errors), method="WDLG", fall=0.5)
    assert alone.verdict == (REPRODUCED if holds else FAILED)
    beside = rate_threshold(at_rates(LBFGS=errors, Adam=(1.0, 1.0, 1.0)), method="WDLG", fall=0.5)
    assert (beside.verdict, beside.condition) == ((CONDITION, "with LBFGS") if holds else (FAILED, ""))
    assert alone.numbers["LBFGS"] == {f"{rate}": mse for rate, mse in enumerate(errors, start=1)}


def runs(good, networks, *, method="WDLG", dataset="lfw", column="mse"):
    """A run on each network, of which some are good."""
    flags = np.arange(networks) < good
    table = pd.DataFrame({"network": np.arange(networks), "method": method, "dataset": dataset})
    return table.assign(**{column: np.where(flags, 1e-9, 1.0) if column == "mse" else flags})


@pytest.mark.parametrize("good", range(11))
@pytest.mark.parametrize("networks", [4, 10])
def test_fidelity_is_decided_by_the_lower_end_and_few_networks_decide_only_where_both_ends_agree(
    good, networks
):
    good = min(good, networks)
    one = share(good, networks)
    result = fidelity(
        Records(attacks=runs(good, networks)), method="WDLG", dataset="lfw", mse=1e-3, share=0.5
    )
    straddles = one.low < 0.5 <= one.high
    expected = REPRODUCED if one.low >= 0.5 else UNDECIDED if straddles and networks < 6 else FAILED
    assert result.verdict == expected
    assert result.condition == ("too few networks to decide" if expected == UNDECIDED else "")
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
    assert (result.verdict, result.condition) == (CONDITION, "on LFW")


def test_a_run_without_a_number_stays_in_every_median_as_a_failure():
    """Of three runs two have no MSE, or no loss: the middle one is such a run."""
    table = runs(3, 3).assign(mse=[1e-9, np.nan, np.nan], loss=[1.0, np.nan, np.nan], loss_first=2.0)
    one = fidelity(Records(attacks=table), method="WDLG", dataset="lfw", mse=1e-3, share=0.5)
    assert one.numbers["median_mse"] == np.inf
    assert lower_loss(Records(attacks=table)).numbers == {"WDLG": np.inf}
    rates = table.assign(optimizer="Adam", learning_rate=1.0)
    assert rate_threshold(Records(rates=rates), method="WDLG", fall=0.5).numbers == {"Adam": {"1": np.inf}}
    flags = ("below_0.01", "below_0.001", "exploded", "label_correct")
    table = table.assign(status="diverged", evaluations=1, seconds=1.0, **dict.fromkeys(flags, False))
    assert summarise_runs(table)["median MSE"].tolist() == [np.inf]


def test_losses_are_shown_beside_each_other_and_the_reason_why_they_are_not_compared():
    table = pd.DataFrame({"method": ["WDLG", "iDLG"], "loss": [1.0, 1.0], "loss_first": [4.0, 2.0]})
    result = lower_loss(Records(attacks=table))
    assert (result.verdict, result.numbers) == (UNTESTABLE, {"WDLG": 0.25, "iDLG": 0.5})
    assert result.condition == "the losses are different quantities in different units"
