"""Where a verdict turns: ends of intervals decide, not shares, and each threshold has one side."""

import numpy as np
import pandas as pd
import pytest

from wdlg import data
from wdlg.evaluation import SUCCESS
from wdlg.study.statistics import share
from wdlg.verdicts.before import large_rates_by_half
from wdlg.verdicts.claims import CONDITION, FAILED, REPRODUCED, UNDECIDED, rules
from wdlg.verdicts.comparison import successes
from wdlg.verdicts.ledger import as_table, history_table, ledger, threshold_table
from wdlg.verdicts.measures import Records
from wdlg.verdicts.on_images import fidelity, no_explosion, no_explosion_by_loss, order, paired, strongest
from wdlg.verdicts.on_labels import dlg_labels
from wdlg.verdicts.on_rates import rate_calm, rate_effect


def runs(count, *, method="WDLG", dataset="lfw", **columns):
    """Records of one method, each run on a network of its own."""
    table = {"dataset": dataset, "method": method, "network": np.arange(count), "case": 0, **columns}
    return pd.DataFrame(table)


def everywhere(count, *, method="WDLG", **columns):
    """The same records on each data set of the paper."""
    return pd.concat([runs(count, method=method, dataset=name, **columns) for name in data.PAPER])


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


def test_few_networks_leave_fidelity_open_whatever_they_say():
    fewest = rules()["fewest_networks"]
    for good in (0, fewest - 1):
        assert close(good, fewest - 1, 0.5) == UNDECIDED
    assert close(0, fewest, 0.5) == FAILED
    assert close(fewest, fewest, 0.5) == REPRODUCED


def explosions(number, of, rarely, *, recovered=1.0):
    table = everywhere(of, exploded=first(number, of), mse=np.where(first(recovered * of, of), 1e-4, 1.0))
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
    table = everywhere(of, method="DLG", label_correct=first(right, of))
    return dlg_labels(Records(table), often=1 - limit).verdict


def test_labels_are_often_wrong_if_the_upper_end_says_so_not_the_share():
    assert missed(90, 100, 0.95) == REPRODUCED
    assert missed(94, 100, 0.95) == FAILED
    end = share(5, 10).high
    assert missed(5, 10, end) == FAILED
    assert missed(5, 10, above(end)) == REPRODUCED


def test_few_networks_leave_labels_open():
    assert missed(5, 5, share(5, 5).low) == UNDECIDED
    assert missed(0, 5, 0.95) == UNDECIDED
    assert missed(0, 6, 0.95) == REPRODUCED


def test_runs_with_a_network_of_their_own_decide_on_labels_where_they_are():
    main = everywhere(10, method="DLG", label_correct=first(9, 10))
    assert dlg_labels(Records(main), often=0.05).verdict == FAILED
    ground = runs(100, method="DLG", dataset="svhn", label_correct=first(90, 100))
    found = dlg_labels(Records(main, ground=ground), often=0.05)
    assert (found.verdict, found.condition) == (CONDITION, "on SVHN")
    assert list(found.numbers) == list(data.PAPER)
    assert found.numbers["svhn"]["share"] == 0.9
    ground = runs(5, method="DLG", dataset="svhn", label_correct=False)
    found = dlg_labels(Records(main, ground=ground), often=0.05)
    assert (found.verdict, found.condition) == (UNDECIDED, "fewer than 6 networks on SVHN")


def by_loss(ours, theirs, of=50, **change):
    """Runs of which some have a loss of eleven times its start, on all data sets together."""
    tables = []
    for method, number in (("WDLG", ours), ("DLG", theirs), ("iDLG", theirs)):
        blown = [first(number // 5 + (place < number % 5), of // 5) for place in range(5)]
        for name, flags in zip(data.PAPER, blown, strict=True):
            tables.append(
                runs(
                    of // 5,
                    method=method,
                    dataset=name,
                    loss=np.where(flags, 11.0, 1.0),
                    loss_first=1.0,
                    evaluations=10,
                    exploded=flags,
                )
            )
    table = pd.concat(tables).assign(**change)
    settings = {"method": "WDLG", "opponents": ["DLG", "iDLG"], "rarely": 0.1, "times": 10}
    return no_explosion_by_loss(Records(table), **settings)


def test_explosions_by_loss_are_solved_where_others_have_them_and_the_method_has_not():
    assert by_loss(0, 20).verdict == REPRODUCED
    found = by_loss(0, 0)
    assert found.verdict == CONDITION
    assert found.condition == "hardly any run of DLG (0.0 %) and iDLG (0.0 %) does so either"
    assert by_loss(20, 20).verdict == FAILED
    found = by_loss(20, 0)
    assert (found.verdict, found.condition) == (FAILED, "more often than DLG and iDLG")


def test_a_loss_exploded_above_ten_times_its_start_or_without_a_number_but_not_before_it_began():
    assert by_loss(20, 20, loss=10.0).condition.startswith("hardly any run of DLG (0.0 %)")
    assert by_loss(0, 0, loss=np.nan).numbers["WDLG"]["share"] == 1
    assert by_loss(0, 0, loss=np.nan, evaluations=0).numbers["WDLG"]["share"] == 0


def test_explosions_by_loss_are_undecided_where_a_data_set_is_lacking():
    found = by_loss(0, 20, dataset="mnist", network=np.tile(np.arange(50), 3))
    assert (found.verdict, found.condition) == (
        UNDECIDED,
        "not measured on Fashion-MNIST, SVHN, CIFAR-100 and LFW",
    )


def test_a_run_succeeds_below_the_threshold_not_at_it():
    bound = SUCCESS
    assert successes(runs(3, mse=[bound, np.nextafter(bound, 0), np.nan])).tolist() == [False, True, False]


# Comparisons


@pytest.mark.parametrize(("networks", "verdict"), [(5, UNDECIDED), (6, FAILED)])
def test_six_networks_that_do_not_differ_fail_and_five_say_nothing(monkeypatch, networks, verdict):
    # One data set is one test, for which six networks are enough.
    monkeypatch.setitem(rules(), "datasets", ["lfw"])
    table = pd.concat([runs(networks, method=name, mse=1e-4) for name in ("WDLG", "iDLG")])
    found = paired(Records(table), score="success", method="WDLG", opponents=["iDLG"])
    assert found.verdict == verdict


@pytest.mark.parametrize(("networks", "verdict"), [(8, UNDECIDED), (9, FAILED)])
def test_a_family_of_ten_tests_needs_nine_networks(networks, verdict):
    """Of eight the least p-value is 2 / 256, above 0.05 / 10; of nine it is 2 / 512."""
    names = ("WDLG", "DLG", "iDLG")
    table = pd.concat([everywhere(networks, method=name, mse=1e-4) for name in names])
    found = paired(Records(table), score="success", method="WDLG", opponents=["DLG", "iDLG"])
    assert found.verdict == verdict
    better = table.assign(mse=np.where(table["method"] == "WDLG", 1e-4, 1.0))
    found = paired(Records(better), score="success", method="WDLG", opponents=["DLG", "iDLG"])
    assert found.verdict == (REPRODUCED if verdict == FAILED else UNDECIDED)


def test_records_of_other_data_sets_are_shown_and_decide_nothing():
    table = pd.concat([runs(10, method=name, dataset="digits", mse=1e-4) for name in ("WDLG", "iDLG")])
    better = table.assign(mse=np.where(table["method"] == "WDLG", 1e-4, 1.0))
    found = paired(Records(better), score="success", method="WDLG", opponents=["iDLG"])
    assert found.verdict == UNDECIDED
    assert found.condition == "not measured on MNIST, Fashion-MNIST, SVHN, CIFAR-100 and LFW"
    assert "against iDLG +1.00 [" in found.summary


def in_order(**iterations):
    """Ten networks on three data sets; iterations to success by method, for each of the data sets."""
    tables = [
        runs(10, method=method, dataset=name, iterations_to_success=value)
        for method, values in iterations.items()
        for name, value in zip(("svhn", "cifar100", "lfw"), values, strict=True)
    ]
    settings = {"score": "speed", "from_last_to_first": ["DLG", "iDLG", "WDLG"]}
    return order(Records(pd.concat(tables)), datasets=["svhn", "cifar100", "lfw"], **settings)


def test_an_order_holds_if_each_needs_fewer_iterations_than_the_one_before_everywhere():
    assert in_order(DLG=[3, 3, 3], iDLG=[2, 2, 2], WDLG=[1, 1, 1]).verdict == REPRODUCED
    found = in_order(DLG=[3, 3, 3], iDLG=[2, 2, 2], WDLG=[1, 2, 4])
    assert (found.verdict, found.condition) == (CONDITION, "on SVHN")
    found = in_order(DLG=[3, 3, 3], iDLG=[2, 2, 2], WDLG=[2, 4, np.nan])
    pairs = (
        "iDLG needs fewer than DLG on SVHN, CIFAR-100 and LFW; WDLG needs more than iDLG on CIFAR-100 and LFW"
    )
    assert (found.verdict, found.condition) == (CONDITION, pairs)
    found = in_order(DLG=[3, 3, 2], iDLG=[2, 2, 2], WDLG=[2, 2, 2])
    assert (found.verdict, found.condition) == (FAILED, "iDLG needs fewer than DLG on SVHN and CIFAR-100")


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
            runs(2, method=name, mse=mse, optimizer="LBFGS", learning_rate=rate, budget=1000)
            for name, rate, mse in (
                ("WDLG", 1.0, [1e-4, 1e-4]),
                ("WDLG", 2.0, [1e-4, 1.0]),
                ("iDLG", 1.0, [1e-4, 1e-4]),
                ("iDLG", 2.0, [1.0, 1.0]),
            )
        ]
    )
    found = [
        large_rates_by_half(
            Records(rates=table), budget=1000, method="WDLG", opponents=["iDLG"], works=works
        ).verdict
        for works in (0.5, above(0.5))
    ]
    assert found == [REPRODUCED, FAILED]


def at_rates(networks=10, **columns):
    """Ten networks with both optimisers, a value at each of the rates 1, 2, 3, 4 for each column."""
    tables = [
        runs(networks, optimizer=optimizer, learning_rate=float(rate), budget=6000).assign(
            **{name: values[rate - 1] for name, values in columns.items()}
        )
        for optimizer in ("LBFGS", "GradientDescent")
        for rate in range(1, len(next(iter(columns.values()))) + 1)
    ]
    return pd.concat(tables)


def effect(table, quantity="mse"):
    settings = {"method": "WDLG", "fall": 0.5, "evaluations": 6000, "dataset": "lfw"}
    return rate_effect(Records(rates=table), quantity=quantity, **settings)


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        ((1.0, 0.8, 0.5, 2.0), REPRODUCED),  # falls by exactly half to a best rate within
        ((1.0, 0.8, 0.51, 2.0), FAILED),  # falls by less
        ((1.0, 3.0, 0.1, 2.0), FAILED),  # does not fall from rate to rate
        ((0.1, 0.5, 2.0, 2.0), FAILED),  # the best is the smallest
        ((2.0, 1.0, 0.5, 0.1), CONDITION),  # the best is the largest: no threshold
    ],
)
def test_a_larger_rate_helps_up_to_a_threshold(errors, verdict):
    found = effect(at_rates(mse=errors))
    assert found.verdict == verdict
    if verdict == CONDITION:
        without = "without a threshold among the rates tried"
        assert found.condition == f"with GradientDescent and LBFGS {without}"
    losses = at_rates(loss=[3 * one for one in errors]).assign(loss_first=3.0)
    assert effect(losses, "loss").verdict == verdict


def test_medians_that_fall_by_chance_show_no_effect_of_the_rate():
    """At the better rate half of the networks do worse, so that only the median is lower."""
    table = at_rates(mse=(1.0, 0.9, 0.5, 2.0))
    worse = (table["learning_rate"] == 3.0) & (table["network"] >= 6)
    assert effect(table.assign(mse=table["mse"].mask(worse, 1.5))).verdict == FAILED


def test_few_networks_or_evaluations_show_no_effect_of_the_rate():
    errors = (1.0, 0.8, 0.5, 2.0)
    assert effect(at_rates(networks=5, mse=errors)).condition.endswith("fewer than 6 networks")
    # Six networks reach p = 2 / 64, and the family has eight tests.
    found = effect(at_rates(networks=6, mse=errors))
    assert (found.verdict, found.condition) == (UNDECIDED, "too few networks to decide")


def calm(wdlg, others, *, mse=(1.0, 0.5, 1.0, 1.0)):
    """Whether the runs of WDLG, and those of DLG and iDLG, explode at each of four rates."""
    tables = [
        at_rates(exploded=flags, mse=mse).assign(method=method)
        for method, flags in (("WDLG", wdlg), ("DLG", others), ("iDLG", others))
    ]
    settings = {"method": "WDLG", "opponents": ["DLG", "iDLG"], "reference": "iDLG", "evaluations": 6000}
    return rate_calm(Records(rates=pd.concat(tables)), dataset="lfw", **settings)


def test_a_method_is_calmer_at_large_rates_if_it_is_at_each_where_some_run_is_left():
    assert calm([False] * 4, [False, False, True, True]).verdict == REPRODUCED
    assert calm([False, False, False, True], [False, False, True, True]).verdict == REPRODUCED
    found = calm([False] * 4, [False, False, True, False])
    assert (found.verdict, found.condition) == (CONDITION, "with GradientDescent at 3; with LBFGS at 3")
    assert calm([False] * 4, [True, True, False, False]).verdict == FAILED  # at rates that are not large
    found = calm([False, False, True, True], [False, False, True, True])
    assert (found.verdict, found.condition) == (
        UNDECIDED,
        "at no large rate is there a run without explosion",
    )
    none_above = calm([False] * 4, [False] * 4, mse=(1.0, 1.0, 1.0, 0.5))
    assert none_above.verdict == UNDECIDED


# What was said before


def test_a_verdict_that_a_new_rule_changed_stands_beside_the_new_one_with_the_reason():
    entries = ledger(Records(), command="", study="paper")
    before = {entry.id: entry for entry in entries if entry.history}
    assert {"label-accuracy", "label-cost", "dlg-labels", "large-rates", "rate-threshold"} < set(before)
    entry = before["dlg-labels"]
    said, computed = entry.history
    text = "Until 26 November 2026: reproduced with a condition: on SVHN, CIFAR-100 and LFW. The "
    assert said.text().startswith(text)
    assert (said.computed, computed.computed) == (False, True)
    assert computed.verdict == UNDECIDED  # of no records
    assert [one["reason"] for one in entry.as_json()["history"]] == [said.reason, computed.reason]
    assert entry.as_json()["written"] == computed.until == "27 November 2026"
    shown = as_table(entries).set_index("Claim").loc[entry.claim, "Verdict"]
    now = f"{entry.result.verdict}: {entry.result.condition}"
    assert shown == f"{now} (test changed on 27 November 2026)"
    rows = history_table(entries).set_index("Claim").loc[entry.claim]
    assert rows["Until"].tolist() == ["26 November 2026", "27 November 2026", ""]
    assert rows["Why"].iloc[-1] == f"Known: {entry.known}"


def test_the_texts_of_a_claim_are_texts():
    for claim in rules()["claims"]:
        assert all(isinstance(claim[name], str) for name in ("id", "section", "claim", "test", "written"))


def test_what_a_ledger_said_of_one_study_is_not_shown_beside_another():
    for entry in ledger(Records(), command="", study="mine"):
        assert all(past.computed for past in entry.history)


def test_a_verdict_is_shown_at_other_thresholds(monkeypatch):
    monkeypatch.setitem(
        rules(), "claims", [one for one in rules()["claims"] if one["id"] == "higher-success"]
    )
    table = pd.concat(
        [everywhere(10, method=name, mse=mse) for name, mse in (("WDLG", 0.05), ("DLG", 0.2), ("iDLG", 0.2))]
    )
    entries = ledger(Records(table), command="", thresholds=True)
    moved = threshold_table(entries).set_index(["Claim", "Setting", "Value"])["Verdict"]
    of_claim = moved.loc[entries[0].claim, "success"]
    assert list(of_claim.index) == ["0.1", "0.01*", "0.001", "0.0001"]
    assert list(of_claim) == [REPRODUCED, FAILED, FAILED, FAILED]
    assert ledger(Records(), command="")[0].moved == ()
