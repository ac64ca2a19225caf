"""The map of readings: what decides a place on it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from wdlg.figures import readings_map
from wdlg.study.specification import from_mapping
from wdlg.verdicts.readings import OPPONENT, against, as_table, comparisons, in_words, places

CONTENT = {
    "name": "map",
    "seed": 1,
    "attacks": {
        OPPONENT: {"label_rule": "bias_sign"},
        "reading": {"label_rule": "bias_sign", "loss": {"name": "wasserstein"}},
    },
    "parts": {
        "relu": {
            "datasets": ["digits"],
            "attacks": [OPPONENT, "reading"],
            "networks": 1,
            "images": 1,
            "evaluations": 10,
            "activation": "relu",
            "initial": "torch",
            "optimizer": {"name": "adam"},
            "learning_rates": {OPPONENT: 0.1, "reading": 0.3},
        }
    },
}


class Stored:
    """In the place of a store: records made by hand."""

    def __init__(self, **by_method):
        self.by_method = {
            OPPONENT if name == "opponent" else name: errors for name, errors in by_method.items()
        }

    def read_all(self, cells):
        """MSEs of each method, a network for each; one that is negative has exploded."""
        rows = [
            {
                "dataset": cell.dataset,
                "method": cell.attack.name,
                "network": number,
                "case": 0,
                "learning_rate": cell.rate,
                "mse": abs(mse),
                "exploded": mse < 0,
            }
            for cell in cells
            for number, mse in enumerate(self.by_method.get(cell.attack.name, []))
        ]
        return pd.DataFrame(rows)


def found(**by_method):
    return {one.reading: one for one in places(from_mapping(CONTENT).cells, Stored(**by_method))}


GOOD, BAD = 0.001, 1.0


@pytest.mark.parametrize(
    ("opponent", "reading", "verdict"),
    [
        ([BAD] * 8, [GOOD] * 8, "better"),
        ([GOOD] * 8, [BAD] * 8, "worse"),
        ([GOOD] * 8, [GOOD] * 8, "ties"),
        ([GOOD] * 4 + [BAD] * 4, [BAD] * 4 + [GOOD] * 4, "ties"),
        ([BAD] * 8, [BAD] * 7 + [GOOD], "ties"),
        ([BAD] * 8, [np.nan] * 8, "none recovers"),
        ([BAD] * 6, [GOOD] * 6, "better"),
        ([BAD] * 5, [GOOD] * 5, "undecided"),
        ([BAD] * 5, [BAD] * 5, "undecided"),
    ],
)
def test_an_interval_over_networks_decides_a_place(opponent, reading, verdict):
    assert found(opponent=opponent, reading=reading)["reading"].verdict == verdict


def test_a_place_says_what_it_is_of():
    by_reading = found(opponent=[GOOD] * 6, reading=[BAD, -50.0, np.nan, np.nan, np.nan, GOOD])
    place = by_reading["reading"]
    assert (place.network, place.optimizer, place.learning_rate) == ("relu, torch", "Adam", 0.3)
    assert (place.runs, place.networks, place.successes, place.explosions) == (6, 6, 1, 1)
    assert place.median_mse == np.inf
    assert place.gain.mean == pytest.approx(-5 / 6)
    assert by_reading[OPPONENT].gain is None
    assert place.as_json()["gain"]["networks"] == 6


def test_what_was_not_run_has_no_place():
    assert list(found(opponent=[GOOD] * 6)) == [OPPONENT]
    assert found(reading=[GOOD] * 6) == {}
    assert in_words([], ["reading"]) == "not measured"


def test_verdicts_are_counted_in_words():
    marked = list(found(opponent=[GOOD] * 8, reading=[BAD] * 8).values())
    assert in_words(marked, ["reading"]) == "worse in 1 of 1 places"


def test_the_map_has_a_cell_for_each_place_with_its_successes():
    figure = readings_map(list(found(opponent=[GOOD] * 8, reading=[BAD] * 7 + [GOOD]).values()))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["8", "1 \N{MINUS SIGN}"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [OPPONENT, "reading"]
    assert "8 runs each" in axes.get_title()


def test_a_map_of_many_networks_and_optimisers_is_no_wider_than_a_phone_can_show():
    one = next(iter(found(opponent=[GOOD] * 8, reading=[BAD] * 8).values()))
    many = [
        replace(one, network=network, optimizer=optimizer)
        for network in ("relu, torch", "tanh, torch", "sigmoid, torch", "sigmoid, uniform")
        for optimizer in ("LBFGS", "GradientDescent", "Adam")
    ]
    for shown in ([one], many):
        assert readings_map(shown).get_figwidth() * 120 <= 640


class OfOneDataSet(Stored):
    """On MNIST the reading recovers everything and its opponent nothing, on SVHN the other way round."""

    def __init__(self):
        self.tables = {
            "mnist": Stored(opponent=[BAD] * 6, reading=[GOOD] * 6),
            "svhn": Stored(opponent=[GOOD] * 6, reading=[BAD] * 6),
        }

    def read_all(self, cells):
        (dataset,) = {cell.dataset for cell in cells}
        return self.tables[dataset].read_all(cells)


def test_a_comparison_is_made_on_each_data_set_with_the_optimiser_of_each_method():
    part = {**CONTENT["parts"]["relu"], "datasets": ["mnist", "svhn"]}
    del part["optimizer"]
    part["optimizers"] = {OPPONENT: {"name": "adam"}, "reading": {"name": "lbfgs"}}
    cells = from_mapping(CONTENT | {"parts": {"one": part}}).cells
    made = comparisons(cells, OfOneDataSet())
    assert [(one.dataset, one.reading, one.optimizer, one.verdict) for one in made if one.gain] == [
        ("mnist", "reading", "LBFGS", "better"),
        ("svhn", "reading", "LBFGS", "worse"),
    ]
    assert {one.optimizer for one in made if not one.gain} == {"Adam"}
    assert against(made, "reading") == "6 of 6 against 0 of 6 (MNIST), 0 of 6 against 6 of 6 (SVHN)"
    assert (
        against(made, "another") == against(found(reading=[GOOD] * 6).values(), "reading") == "not measured"
    )
    assert as_table(made)["data set"].tolist() == ["MNIST", "MNIST", "SVHN", "SVHN"]
    assert "data set" not in as_table(found(opponent=[GOOD] * 8).values())
