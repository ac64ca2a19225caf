"""Verdicts follow from records alone, by the rules that claims.yaml states."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_study import small_study

from wdlg import data
from wdlg.study.specification import load
from wdlg.study.statistics import paired_by_network, share
from wdlg.study.store import Store
from wdlg.verdicts.claims import CONDITION, FAILED, REPRODUCED, UNDECIDED, UNTESTABLE, VERDICTS, rules
from wdlg.verdicts.comparison import compare_all
from wdlg.verdicts.ledger import from_store, gain_table, ground, judge, ledger
from wdlg.verdicts.measures import MEASURES, Records

ROOT = Path(__file__).parents[2]


def attacks(mse, *, datasets=data.PAPER, networks=10, images=4, exploded=(), labels=1.0, **columns):
    """Records in which each method has one MSE for all cases."""
    rows = [
        {
            "dataset": dataset,
            "method": method,
            "network": network,
            "case": case,
            "mse": value,
            "loss": 0.1,
            "loss_first": 1.0,
            "evaluations": 6000,
            "mse_start": 1.2,
            "trace_mse": np.array([1.2, value(network) if callable(value) else value]),
            "iterations_to_success": 10.0
            if (value(network) if callable(value) else value) < 0.01
            else np.nan,
            "exploded": method in exploded,
            "label_correct": (case + network) % images / images < labels,
            **columns,
        }
        for dataset in datasets
        for method, value in mse.items()
        for network in range(networks)
        for case in range(images)
    ]
    return pd.DataFrame(rows)


CONDITIONS = list(product(("uniform", "torch"), ("float32", "float64")))


def label_rules(
    correct=True,
    *,
    read=-1,
    zero=False,
    activations=("sigmoid", "relu"),
    conditions=CONDITIONS,
    datasets=data.PAPER,
):
    rows = [
        {
            "dataset": dataset,
            "architecture": "lenet",
            "activation": activation,
            "initial": initial,
            "dtype": dtype,
            "rule": rule,
            "correct": correct,
            "label_recovered": 0 if correct else read,
            "steps": 10 if rule == "bias_sign" else 5880,
            "seconds": 1e-6 if rule == "bias_sign" else 9e-6,
            "largest_bias_gradient": 0.0 if zero else 1.0,
        }
        for dataset in datasets
        for initial, dtype in conditions
        for activation in activations
        for rule in ("bias_sign", "row_sum")
        for _ in range(3)
    ]
    return pd.DataFrame(rows)


class Verdicts:
    """The verdict on each claim by its name; only those are computed that are asked for."""

    def __init__(self, records):
        self.records = records

    def __getitem__(self, name):
        [claim] = [one for one in rules()["claims"] if one["id"] == name]
        return judge(self.records, claim["measure"], claim.get("settings", {}))


def verdicts(**tables):
    return Verdicts(Records(**tables))


BETTER = {"WDLG": 1e-5, "iDLG": 0.1, "DLG": 0.2}
WORSE = {"WDLG": 0.3, "iDLG": 1e-4, "DLG": 1e-4}
SAME = {"WDLG": 1e-4, "iDLG": 1e-4, "DLG": 1e-4}


def test_a_method_that_is_better_everywhere_reproduces_its_claims():
    found = verdicts(attacks=attacks(BETTER, exploded=("iDLG",)))
    for claim in ("lower-mse", "faster", "higher-success", "lfw-fidelity"):
        assert found[claim].verdict == REPRODUCED, claim
    assert found["no-explosion"].verdict == UNDECIDED  # no outcome of ten networks could pass


def test_a_method_that_is_worse_or_equal_does_not():
    for mse in (WORSE, SAME):
        found = verdicts(attacks=attacks(mse))
        for claim in ("lower-mse", "faster", "higher-success"):
            assert found[claim].verdict == FAILED, claim


def test_a_claim_that_holds_on_one_data_set_has_that_condition():
    table = pd.concat([attacks(BETTER, datasets=("mnist",)), attacks(WORSE, datasets=("svhn",))])
    result = verdicts(attacks=table)["lower-mse"]
    assert result.verdict == CONDITION
    assert "on MNIST against iDLG" in result.condition
    assert "svhn" not in result.condition


def test_a_data_set_without_the_method_is_named():
    table = pd.concat(
        [attacks(BETTER, datasets=("mnist",)), attacks({"iDLG": 0.1, "DLG": 0.1}, datasets=("lfw",))]
    )
    result = verdicts(attacks=table)["lower-mse"]
    better = "only on MNIST against DLG; on MNIST against iDLG"
    absent = "not measured on Fashion-MNIST, SVHN, CIFAR-100 and LFW"
    assert (result.verdict, result.condition) == (CONDITION, f"{better}; {absent}")


def test_the_ground_is_sound_where_the_published_share_lies_in_our_interval():
    table = attacks({"iDLG": 1e-4}, datasets=("mnist",), networks=100, images=1)
    table.loc[table["network"] >= 75, "mse"] = 1.0
    found = share(75, 100)
    ends = ((found.low - 0.019, True), (found.low - 0.021, False))
    ends += ((found.high + 0.019, True), (found.high + 0.021, False))
    for said, agrees in ((0.75, True), *ends):
        (row,) = ground(table, {"mnist": {"iDLG": {0.01: said}}}).to_dict("records")
        assert row["here"] == "75 %"
        assert row["agrees"] is agrees


def test_too_few_networks_decide_nothing():
    table = attacks(BETTER, networks=rules()["fewest_networks"] - 1)
    assert verdicts(attacks=table)["higher-success"].verdict == UNDECIDED


def test_explosions_without_recovery_are_no_clean_success():
    calm_and_useless = {**SAME, "WDLG": 0.5}
    calm = attacks(BETTER, networks=36, images=1)
    assert verdicts(attacks=calm)["no-explosion"].verdict == REPRODUCED
    result = verdicts(attacks=attacks(calm_and_useless, networks=36, images=1))["no-explosion"]
    assert result.verdict == CONDITION
    assert "recovers 0 %" in result.condition
    exploding = verdicts(attacks=attacks(SAME, exploded=("WDLG",)))["no-explosion"]
    assert exploding.verdict == FAILED


def test_losses_in_different_units_are_not_compared():
    assert verdicts(attacks=attacks(BETTER))["lower-loss"].verdict == UNTESTABLE


def test_a_missed_label_is_excused_by_rounding_where_other_weights_or_precisions_miss_none():
    def judged(*tables):
        return verdicts(labels=pd.concat(tables))["label-accuracy"]

    assert judged(label_rules()).verdict == REPRODUCED
    rest = label_rules(conditions=CONDITIONS[1:])
    missed = {"correct": False, "activations": ("relu",), "conditions": CONDITIONS[:1]}
    sigmoid = label_rules(activations=("sigmoid",), conditions=CONDITIONS[:1])
    excused = judged(rest, sigmoid, label_rules(**missed))
    assert excused.verdict == CONDITION
    assert excused.condition.startswith("with weights from U(-0.5, 0.5) in float64, torch's default weights")
    assert excused.condition.endswith("in all that are missed p_y is rounded to 1")
    assert judged(rest, sigmoid, label_rules(**missed, read=3)).verdict == FAILED  # a wrong label, not none
    everywhere = label_rules(correct=False, datasets=("svhn",))
    assert judged(label_rules(), everywhere).verdict == FAILED
    tanh = label_rules(correct=False, activations=("tanh",))
    assert judged(label_rules(), tanh).verdict == REPRODUCED  # tanh is only shown
    other = label_rules(correct=False).assign(architecture="convnet, width 4")
    assert judged(label_rules(), other).verdict == REPRODUCED


@pytest.mark.parametrize("lost", [{"conditions": CONDITIONS[:3]}, {"datasets": data.PAPER[1:]}])
def test_labels_are_undecided_until_all_weights_precisions_and_data_sets_are_there(lost):
    found = verdicts(labels=label_rules(**lost))["label-accuracy"]
    assert found.verdict in (CONDITION, UNDECIDED)
    assert "not measured" in found.condition


def test_label_cost_needs_fewer_steps_and_less_time():
    table = label_rules()
    assert verdicts(labels=table)["label-cost"].verdict == REPRODUCED
    assert verdicts(labels=table.assign(seconds=1e-6))["label-cost"].verdict == CONDITION
    assert verdicts(labels=table.assign(steps=10))["label-cost"].verdict == FAILED


@pytest.mark.parametrize(("right", "verdict"), [(0.5, REPRODUCED), (1.0, FAILED)])
def test_dlg_misses_labels_often_or_not(right, verdict):
    assert verdicts(attacks=attacks(SAME, labels=right))["dlg-labels"].verdict == verdict


def rates(works, *, networks=10, evaluations=6000, **columns):
    """Records at several rates; ``works`` maps a method to the rates at which it succeeds."""
    tables = [
        attacks(
            {method: (1e-4 if rate in good else 0.3) for method, good in works.items()},
            datasets=("lfw",),
            networks=networks,
            images=1,
            optimizer=optimizer,
            learning_rate=rate,
            budget=evaluations,
        )
        for optimizer in ("LBFGS", "GradientDescent")
        for rate in (0.1, 1.0, 10.0)
    ]
    return pd.concat(tables).assign(**columns)


def test_large_rates():
    larger = rates({"WDLG": (0.1, 1.0), "iDLG": (0.1,), "DLG": (0.1,)})
    assert verdicts(rates=larger)["large-rates"].verdict == REPRODUCED
    equal = rates({"WDLG": (1.0,), "iDLG": (1.0,), "DLG": (0.1,)})
    assert verdicts(rates=equal)["large-rates"].verdict == FAILED
    mixed = pd.concat(
        [larger[larger["optimizer"] == "LBFGS"], equal[equal["optimizer"] == "GradientDescent"]]
    )
    result = verdicts(rates=mixed)["large-rates"]
    assert (result.verdict, result.condition) == (CONDITION, "with LBFGS")


def test_an_optimiser_with_which_no_method_recovers_images_decides_nothing():
    none = rates({"WDLG": (), "iDLG": (), "DLG": ()})
    found = verdicts(rates=none)["large-rates"]
    assert (found.verdict, found.condition) == (
        UNDECIDED,
        "no method recovers 10 % of the images at any rate",
    )
    equal = rates({"WDLG": (1.0,), "iDLG": (1.0,), "DLG": ()})
    mixed = pd.concat([none[none["optimizer"] != "LBFGS"], equal[equal["optimizer"] == "LBFGS"]])
    found = verdicts(rates=mixed)["large-rates"]
    assert found.verdict == FAILED
    assert found.condition == "GradientDescent decides nothing: no method recovers images"


WINS_BY_RATES = {"WDLG": (0.1, 1.0), "iDLG": (0.1,), "DLG": (0.1,)}


@pytest.mark.parametrize(
    ("table", "lacking"),
    [
        (rates(WINS_BY_RATES, networks=5), "fewer than 6 networks"),
        (rates(WINS_BY_RATES, evaluations=1000), "fewer than 6,000 evaluations"),
        (rates(WINS_BY_RATES, dataset="faces"), "not measured on LFW"),
        (rates(WINS_BY_RATES).query("optimizer == 'LBFGS'"), "not measured with GradientDescent"),
        (rates(WINS_BY_RATES).query("method != 'DLG'"), "no records of DLG at some rates"),
        (
            rates(WINS_BY_RATES).query("method != 'WDLG' or optimizer != 'LBFGS' or learning_rate != 10"),
            "no records of WDLG at some rates",
        ),
    ],
)
def test_claims_on_rates_need_all_that_their_words_name(table, lacking):
    for claim in ("large-rates", "rate-calm"):
        found = verdicts(rates=table)[claim]
        assert found.verdict in (UNDECIDED, CONDITION)
        assert lacking in found.condition


def test_the_runs_with_the_largest_budget_decide_and_the_old_test_reads_those_of_then():
    now = rates({"WDLG": (1.0,), "iDLG": (1.0,), "DLG": (0.1,)})
    then = rates(WINS_BY_RATES, networks=2, evaluations=1000)
    [entry] = [
        one for one in ledger(Records(rates=pd.concat([then, now])), command="") if one.id == "large-rates"
    ]
    assert entry.result.verdict == FAILED
    assert [past.verdict for past in entry.history] == [REPRODUCED]


def test_the_strongest_loss_must_win_both_ways_everywhere():
    winner = attacks({"Strongest": 1e-4, "iDLG": 0.1, "DLG": 0.1, "WDLG": 0.1}, exploded=("iDLG",))
    assert verdicts(attacks=winner)["strongest-loss"].verdict == REPRODUCED
    half = attacks({"Strongest": 1e-4, "iDLG": 0.1, "DLG": 0.1, "WDLG": 0.1})
    result = verdicts(attacks=half)["strongest-loss"]
    assert result.verdict == CONDITION
    assert "explosions" not in result.condition
    level = attacks({"Strongest": 1e-4, "iDLG": 1e-4, "DLG": 0.1, "WDLG": 0.1})
    assert verdicts(attacks=level)["strongest-loss"].verdict == FAILED


def test_the_second_final_comparison_is_judged_by_its_own_records():
    level = attacks({"Strongest": 1e-4, "iDLG": 1e-4, "DLG": 0.1, "WDLG": 0.1})
    winner = attacks({"Second": 1e-4, "iDLG tuned": 0.1}, exploded=("iDLG tuned",))
    found = verdicts(attacks=level, second=winner)
    assert found["strongest-loss"].verdict == FAILED
    assert found["strongest-again"].verdict == REPRODUCED


def test_a_claim_without_records_is_undecided_and_says_why():
    for entry in ledger(Records(), command=""):
        assert entry.result.verdict == UNDECIDED
        assert entry.result.condition.startswith("there are no records")


@settings(max_examples=3)
@given(st.integers(0, 2**31))
def test_swapping_two_methods_turns_the_score_round(seed):
    random = np.random.default_rng(seed)
    table = attacks({"WDLG": 1.0, "iDLG": 1.0}, datasets=("mnist", "lfw"), networks=6)
    table["mse"] = random.lognormal(size=len(table))
    for score in ("mse", "success"):
        one = compare_all(table, score, "WDLG", ["iDLG"])
        other = compare_all(table, score, "iDLG", ["WDLG"])
        for (dataset, _), result in one.items():
            turned = other[dataset, "WDLG"]
            assert result.mean == pytest.approx(-turned.mean)
            assert result.paired.p == pytest.approx(turned.paired.p)
            assert result.mcnemar == turned.mcnemar


def test_a_case_that_only_one_method_has_is_left_out():
    table = attacks(BETTER)
    lost = table[~((table["method"] == "iDLG") & (table["network"] == 0))]
    assert all(one.paired.cases == 9 * 4 for one in compare_all(lost, "success", "WDLG", ["iDLG"]).values())


def test_the_data_file_names_measures_and_pages_that_exist():
    claims = rules()["claims"]
    assert tuple(rules()["datasets"]) == data.PAPER
    assert len({claim["id"] for claim in claims}) == len(claims)
    before = [past["measure"] for claim in claims for past in claim.get("history", []) if "measure" in past]
    assert {*before, *(claim["measure"] for claim in claims)} == set(MEASURES)
    for claim in claims:
        assert claim["written"].endswith("2026")
        assert claim["section"] == "ours" or claim["published"]
        # Who writes a test on the day on which results are known says which were.
        assert claim["written"] in ("24 November 2026", "25 November 2026") or claim["known"]
        assert set(claim.get("vary", {})) <= {*claim["settings"], "success"} if "vary" in claim else True


def test_entries_are_json_with_verdicts_of_the_list(tmp_path):
    entries = from_store(small_study(), Store(tmp_path), command="again")
    for entry in entries:
        content = json.loads(json.dumps(entry.as_json()))
        assert set(content) >= {"id", "claim", "verdict", "condition", "numbers", "interval", "command"}
        assert set(content) >= {"written", "known", "published", "history", "by_threshold"}
        assert content["verdict"] in VERDICTS
    assert 0 < rules()["level"] < 1


def test_the_file_of_claims_says_which_parts_of_a_study_are_read(tmp_path, monkeypatch):
    study, read = small_study(), []
    monkeypatch.setattr(Store, "read_all", lambda _, cells: read.append(list(cells)) or pd.DataFrame())
    monkeypatch.setitem(
        rules(), "parts", {"attacks": ["labels", "no such part"], "second": ["rates", "main"]}
    )
    from_store(study, Store(tmp_path))
    attacks, second, labels, rates = read
    assert attacks == labels == study.part("labels")
    assert second == study.part("rates") + study.part("main")
    assert rates == study.part("rates")


def test_the_parts_that_are_read_are_parts_of_the_papers_study():
    study = load(ROOT / "studies" / "paper.yaml")
    named = {part for parts in rules()["parts"].values() for part in parts}
    assert named <= {cell.part for cell in study.cells}


def test_the_gain_is_that_of_the_paired_cases_and_its_tests_are_one_family():
    table = attacks({"Strongest": 1e-4, "iDLG": 1e-4}, datasets=("mnist", "lfw"))
    table.loc[(table["method"] == "iDLG") & (table["case"] == 0), "mse"] = 1.0
    found = gain_table(table, "Strongest", "iDLG").set_index("dataset")
    assert list(found.index) == ["mnist", "lfw", "all together"]
    for name, networks in (("mnist", 10), ("all together", 20)):
        scores, units = np.tile((1, 0, 0, 0), networks), np.repeat(np.arange(networks), 4)
        gain, none = paired_by_network(scores, units), paired_by_network(0 * scores, units)
        shown = [f"{gain.text()}*", f"{gain.p:.2g}"]
        assert found.loc[name, ["gain in success", "p (success)"]].tolist() == shown
        assert found.loc[name, ["explosions avoided", "p (explosions)"]].tolist() == [none.text(), "1"]
    assert found.loc["all together", "cases"] == 80
    # Seven networks of seven: p = 2 / 128, which six tests at 0.05 do not take for significant.
    few = gain_table(table[table["network"] < 7], "Strongest", "iDLG").set_index("dataset")
    assert few.loc["mnist", "p (success)"] == "0.016"
    assert not few.loc["mnist", "gain in success"].endswith("*")


# In one number


def test_a_headline_is_counted_like_the_verdict():
    claims = {claim["id"]: claim for claim in rules()["claims"]}

    def headline(claim, **mse):
        claim = claims[claim]
        return judge(Records(attacks=attacks(mse)), claim["measure"], claim["settings"]).headline

    assert (
        headline("higher-success", DLG=1, iDLG=1, WDLG=0.001) == "better in 10, worse in 0 of 10 comparisons"
    )
    assert headline("higher-success", DLG=0, iDLG=0, WDLG=1) == "better in 0, worse in 10 of 10 comparisons"
    assert headline("order", DLG=1, iDLG=0.001, WDLG=1) == "3 of 6 steps of the order hold"
    assert headline("lfw-fidelity", WDLG=0.0001) == "100 % of 40 runs below 0.001"
    assert headline("lfw-fidelity", WDLG=0.01) == "0 % of 40 runs below 0.001"
    assert headline("no-explosion", WDLG=0.001) == "WDLG 0 % of runs"
    assert judge(Records(), "paired", claims["lower-mse"]["settings"]).headline == ""
