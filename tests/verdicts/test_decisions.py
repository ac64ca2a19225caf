"""Where a verdict turns: ends of intervals decide, not shares, and each threshold has one side."""

import numpy as np
import pandas as pd
import pytest

from wdlg.evaluation import SUCCESS
from wdlg.study.statistics import share
from wdlg.verdicts.claims import CONDITION, FAILED, REPRODUCED, UNDECIDED, rules
from wdlg.verdicts.comparison import successes
from wdlg.verdicts.ledger import as_table, ledger
from wdlg.verdicts.measures import (
    Records,
    dlg_labels,
    fidelity,
    large_rates,
    no_explosion,
    paired,
    strongest,
)


def runs(count, *, method="WDLG", dataset="lfw", **columns):
    """Records of one method, each run on a network of its own."""
    table = {"dataset": dataset, "method": method, "network": np.arange(count), "case": 0, **columns}
    return pd.DataFrame(table)


def first(number, of):
    """Flags of runs, of which the first are set."""
    return np.arange(of) < number


def above(value):
    return float(np.nextafter(value, 2))


# Shares


def close(number, of, at_least, *, mse=1e-4):
    table = runs(of, mse=np.where(first(number, of), mse, 1.0))
    return fidelity(Records(table), method="WDLG", dataset="lfw", mse=1e-3, share=at_least).verdict


def test_fidelity_needs_the_lower_end_of_the_interval_not_the_share():
    assert close(6, 10, 0.5) == FAILED
    assert close(9, 10, 0.5) == REPRODUCED


def test_an_image_is_close_below_the_threshold_not_at_it():
    assert close(10, 10, 0.5, mse=1e-3) == FAILED


def test_fidelity_turns_where_the_lower_end_is_the_threshold():
    end = share(9, 10).low
    assert close(9, 10, end) == REPRODUCED
    assert close(9, 10, above(end)) == FAILED


def test_few_networks_leave_fidelity_open_as_long_as_the_upper_end_reaches_the_threshold():
    assert close(0, 5, share(0, 5).high) == UNDECIDED
    assert close(0, 5, above(share(0, 5).high)) == FAILED
    assert close(3, rules()["fewest_networks"], 0.5) == FAILED


def explosions(number, of, rarely, *, recovered=1.0):
    table = runs(of, exploded=first(number, of), mse=np.where(first(recovered * of, of), 1e-4, 1.0))
    return no_explosion(Records(table), method="WDLG", rarely=rarely, recovers=0.5).verdict


def test_explosions_are_rare_if_the_upper_end_says_so_not_the_share():
    assert explosions(0, 40, 0.1) == REPRODUCED
    assert explosions(1, 40, 0.1) == FAILED


def test_the_verdict_on_explosions_turns_where_an_end_is_the_threshold():
    end = share(0, 40).high
    assert explosions(0, 40, end) == UNDECIDED  # no outcome of 40 networks could pass
    assert explosions(0, 40, above(end)) == REPRODUCED
    end = share(5, 10).low
    assert explosions(5, 10, end) == FAILED
    assert explosions(5, 10, above(end)) == UNDECIDED


def test_a_calm_method_must_recover_half_of_the_images():
    assert explosions(0, 40, 0.1, recovered=0.5) == REPRODUCED
    assert explosions(0, 40, 0.1, recovered=0.475) == CONDITION


def missed(right, of, limit):
    table = runs(of, method="DLG", label_correct=first(right, of))
    return dlg_labels(Records(table), often=1 - limit).verdict


def test_labels_are_often_wrong_if_the_upper_end_says_so_not_the_share():
    assert missed(90, 100, 0.95) == REPRODUCED
    assert missed(94, 100, 0.95) == FAILED
    end = share(5, 10).high
    assert missed(5, 10, end) == FAILED
    assert missed(5, 10, above(end)) == REPRODUCED


def test_few_networks_leave_labels_open_unless_the_interval_lies_above():
    end = share(5, 5).low
    assert missed(5, 5, end) == FAILED
    assert missed(5, 5, above(end)) == UNDECIDED


def test_a_run_succeeds_below_the_threshold_not_at_it():
    bound = SUCCESS
    assert successes(runs(3, mse=[bound, np.nextafter(bound, 0), np.nan])).tolist() == [False, True, False]


# Comparisons


@pytest.mark.parametrize(("networks", "verdict"), [(5, UNDECIDED), (6, FAILED)])
def test_six_networks_that_do_not_differ_fail_and_five_say_nothing(networks, verdict):
    table = pd.concat([runs(networks, method=name, mse=1e-4) for name in ("WDLG", "iDLG")])
    found = paired(Records(table), score="success", method="WDLG", opponents=["iDLG"])
    assert found.verdict == verdict


def final_comparison(won):
    """Two methods on five data sets of ten networks; the first wins on some networks of one."""
    names = ("mnist", "fashion_mnist", "svhn", "cifar100", "lfw")
    tables = []
    for name in names:
        lost = first(won if name == "mnist" else 0, 10)
        tables.append(runs(10, method="Strongest", dataset=name, mse=1e-4, exploded=False))
        tables.append(runs(10, method="iDLG", dataset=name, mse=np.where(lost, 1.0, 1e-4), exploded=False))
    return strongest(Records(pd.concat(tables)), method="Strongest", opponent="iDLG")


def test_all_tests_of_the_strongest_loss_are_one_family():
    """Eight of eight: p = 2 / 256, below 0.05 / 5 but not below 0.05 / 12. Ten of ten: 2 / 1024."""
    assert final_comparison(8).verdict == FAILED
    found = final_comparison(10)
    assert found.verdict == CONDITION
    assert found.condition == "more success on MNIST; more success over all data sets together"


# Learning rates


def test_a_method_works_at_a_rate_at_which_just_the_asked_share_succeeds():
    table = pd.concat(
        [
            runs(2, method=name, mse=mse, optimizer="LBFGS", learning_rate=rate)
            for name, rate, mse in (
                ("WDLG", 1.0, [1e-4, 1e-4]),
                ("WDLG", 2.0, [1e-4, 1.0]),
                ("iDLG", 1.0, [1e-4, 1e-4]),
                ("iDLG", 2.0, [1.0, 1.0]),
            )
        ]
    )
    found = [
        large_rates(Records(rates=table), method="WDLG", opponents=["iDLG"], works=works).verdict
        for works in (0.5, above(0.5))
    ]
    assert found == [REPRODUCED, FAILED]


# What was said before


def test_a_verdict_that_a_new_rule_changed_stands_beside_the_new_one_with_the_reason():
    entries = ledger(Records(), command="", study="paper")
    before = {entry.id: entry for entry in entries if entry.earlier is not None}
    assert set(before) == {"dlg-labels", "strongest-loss"}
    entry = before["dlg-labels"]
    text = "Until 26 November 2026: reproduced with a condition: on SVHN, CIFAR-100 and LFW. The "
    assert entry.earlier.text().startswith(text)
    assert entry.as_json()["earlier"]["reason"] == entry.earlier.reason
    shown = as_table(entries).set_index("Claim").loc[entry.claim, "Verdict"]
    assert shown == f"{entry.result.verdict}: {entry.result.condition}. {entry.earlier.text()}"


def test_no_earlier_verdict_is_shown_beside_that_of_another_study():
    for entry in ledger(Records(), command="", study="mine"):
        assert entry.earlier is None
        assert entry.as_json()["earlier"] is None
