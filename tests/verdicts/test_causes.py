"""Causes of failure, read from records made by hand."""

import numpy as np
import pandas as pd
import pytest

from wdlg.figures import held_map
from wdlg.study.specification import from_mapping
from wdlg.verdicts import causes

NEAR = {
    "datasets": ["digits"],
    "attacks": ["one", "two"],
    "networks": 1,
    "images": 1,
    "evaluations": 10,
    "start_distance": 0.1,
}
CONTENT = {
    "name": "causes",
    "seed": 1,
    "attacks": {"one": {"label_rule": "bias_sign"}, "two": {"label_rule": "row_sum"}},
    "parts": {
        "lbfgs": NEAR,
        "adam": {**NEAR, "optimizer": {"name": "adam"}},
        "far": {**NEAR, "start_distance": 1},
        "again": {**{k: v for k, v in NEAR.items() if k != "start_distance"}, "starts": 4},
    },
}
CELLS = from_mapping(CONTENT).cells


class Stored:
    """In the place of a store: MSEs by part and method, and losses and images where a test has them."""

    def __init__(self, errors, **columns):
        self.errors, self.columns = errors, columns

    def read_all(self, cells):
        rows = [
            {"method": cell.attack.name, "network": 0, "mse": mse}
            | {name: values[number] for name, values in self.columns.items()}
            for cell in cells
            for number, mse in enumerate(self.errors.get((cell.part, cell.attack.name), ()))
        ]
        return pd.DataFrame(rows)


GOOD, BAD = 0.0099, 0.0101


def test_the_better_of_two_optimisers_tells_what_a_loss_holds():
    table = causes.holding(
        CELLS,
        Stored(
            {
                ("lbfgs", "one"): [GOOD, BAD, BAD],
                ("adam", "one"): [GOOD, GOOD, BAD],
                ("far", "one"): [np.nan, BAD, GOOD],
            }
        ),
    )
    assert table["network"].unique().tolist() == ["sigmoid, uniform"]
    assert table[["distance", "runs", "held", "optimizer"]].to_numpy().tolist() == [
        [0.1, 3, 2, "Adam"],
        [1.0, 3, 1, "LBFGS"],
    ]


def test_of_optimisers_that_hold_as_many_the_one_that_ends_nearer_counts():
    stored = Stored({("lbfgs", "one"): [GOOD, 1e-5], ("adam", "one"): [GOOD, 1e-7]})
    (row,) = causes.holding(CELLS, stored).to_dict("records")
    assert row["optimizer"] == "Adam"
    assert row["median_mse"] == pytest.approx((GOOD + 1e-7) / 2)


def test_restarts_are_counted_by_image_and_the_others_by_where_they_end():
    errors = [GOOD] * 4 + [BAD] * 4 + [GOOD, 0.3, 0.3, 0.5]
    loss = [0.0] * 4 + [1.0, 1.04, 2.0, 3.0] + [0.0, 1.0, 1.04, 1.0]
    image = [0] * 4 + [1] * 4 + [2] * 4
    stored = Stored({("again", "one"): errors}, loss=loss, image=image)
    (row,) = causes.restarts(CELLS, stored).to_dict("records")
    assert (row["images"], row["starts"], row["recovered"]) == (3, 4, 5)
    assert (row["always"], row["never"]) == (1, 1)
    # Three places of the second image, two of the third.
    assert row["other_ends"] == 2.5


def test_a_failure_that_the_loss_prefers_is_one_at_or_below_the_loss_of_the_private_image():
    table = pd.DataFrame(
        {
            "method": ["a", "a", "a", "b"],
            "mse": [BAD, BAD, GOOD, np.nan],
            "loss": [1.0, 1.1, 0.5, np.nan],
            "loss_at_truth": [1.0, 1.0, 1.0, 1.0],
        }
    )
    found = causes.failures(table).set_index("method")
    assert found.loc["a"].tolist() == [3, 2, 1]
    assert found.loc["b"].tolist() == [1, 1, 0]


def test_what_was_not_run_has_no_row():
    assert causes.holding(CELLS, Stored({})).empty
    assert causes.restarts(CELLS, Stored({})).empty


def test_the_picture_has_a_cell_for_each_distance():
    stored = Stored({("lbfgs", "one"): [GOOD, BAD], ("far", "one"): [BAD, BAD]})
    (axes,) = held_map(causes.holding(CELLS, stored)).axes
    assert [text.get_text() for text in axes.texts] == ["1", "0"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.1", "1"]
