"""The comparison of the label rules on real images."""

import pytest
from small_study import CONTENT

from wdlg.errors import InputError
from wdlg.study import compare_rules
from wdlg.study.labels import summarise
from wdlg.study.runner import compute
from wdlg.study.schema import complete
from wdlg.study.specification import from_mapping


def test_both_rules_are_always_right_with_sigmoid(digits, faces):
    for sample in (digits, faces):
        summary = summarise(compare_rules(sample, images=40))
        assert {rule: one["accuracy"] for rule, one in summary.items()} == {"bias_sign": 1, "row_sum": 1}


def test_with_tanh_only_the_bias_rule_stays_right(digits):
    summary = summarise(compare_rules(digits, images=60, activation="tanh"))
    assert summary["bias_sign"]["accuracy"] == 1
    assert summary["row_sum"]["accuracy"] < 0.9


def test_saturation_leaves_labels_undecided_and_they_count_as_missed(digits):
    table = compare_rules(digits, images=40, activation="relu", bound=8.0)
    bias = table[table["rule"] == "bias_sign"]
    assert bias["undecided"].any()
    assert not bias[bias["undecided"]]["correct"].any()
    assert (bias[bias["undecided"]]["largest_bias_gradient"] == 0).any()


def test_the_same_seed_gives_the_same_table(digits):
    columns = ["rule", "image", "label_recovered", "largest_bias_gradient"]
    first, second = (compare_rules(digits, images=10, seed=4)[columns] for _ in range(2))
    assert first.equals(second)


def test_another_network_and_other_weights_are_compared_by_name(digits):
    for settings in (
        {"network": {"name": "resnet", "width": 4}},
        {"network": "resnet", "activation": "tanh", "initial": "uniform"},
        {"initial": "torch"},
    ):
        summary = summarise(compare_rules(digits, images=10, **settings))
        assert summary["bias_sign"]["accuracy"] == 1
    # After ReLU no feature is negative, which is what iDLG's rule needs.
    resnet = summarise(compare_rules(digits, images=10, network="resnet"))
    assert resnet["row_sum"]["accuracy"] == 1
    assert resnet["row_sum"]["steps"] == 10 * (4 * 16)


def test_a_part_has_its_gradients_in_the_precision_that_it_names_and_says_so(digits):
    """The same networks: what differs is rounding."""
    part = {"datasets": ["digits"], "activations": ["relu"], "gradients": 8, "initial": "torch"}
    found = {}
    for given in ({}, {"dtype": "float64"}):
        [cell] = from_mapping({**CONTENT, "parts": {"labels": {**part, **given}}}).cells
        settings = cell.settings()
        assert settings["dtype"] == cell.columns()["dtype"] == given.get("dtype", "float32")
        assert cell.columns()["initial"] == "torch"
        assert cell.columns()["architecture"] == "lenet"
        assert complete(_without(settings, "dtype")) == complete({**settings, "dtype": "float32"})
        found[settings["dtype"]] = compute(cell, digits)
    single, double = (table["largest_bias_gradient"].to_numpy() for table in found.values())
    assert (single == single.astype("float32")).all()
    assert not (double == double.astype("float32")).any()
    assert single == pytest.approx(double, rel=1e-4)


def _without(settings, key):
    return {name: value for name, value in settings.items() if name != key}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"images": 0}, "images"),
        ({"images": 1, "activation": "elu"}, "activation"),
        ({"images": 1, "network": "vgg"}, "network"),
        ({"images": 1, "initial": "normal"}, "initial"),
        ({"images": 1, "dtype": "half"}, "dtype"),
    ],
)
def test_impossible_arguments_are_refused_by_name(digits, arguments, name):
    with pytest.raises(InputError, match=f"^{name} is"):
        compare_rules(digits, **arguments)
