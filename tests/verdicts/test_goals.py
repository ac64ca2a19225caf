"""Goals are judged as they were written down: by all runs, at the boundary, and only when all are there."""

from __future__ import annotations

import pandas as pd
import pytest

from wdlg.study.specification import load as load_study
from wdlg.verdicts.goals import GOALS, MET, MISSED, NONE, OPEN, _outcome, side_by_side


def runs(below, above, *, iterations=15, exploded=0, limit=1e-6):
    mse = [0.99 * limit] * below + [limit] * above
    exploding = [True] * exploded + [False] * (below + above - exploded)
    return pd.DataFrame({"mse": mse, "iterations": iterations, "exploded": exploding})


@pytest.mark.parametrize(
    ("table", "verdict"),
    [
        (runs(98, 2), MET),
        (runs(97, 3), MISSED),
        (runs(100, 0, iterations=15.5), MISSED),
        (runs(100, 0, exploded=1), MISSED),
        (runs(99, 0), OPEN),
    ],
)
def test_a_goal_is_met_at_its_boundary_and_open_before_all_runs_are_there(table, verdict):
    found = _outcome("grey", "mnist", "LM", 100, table)
    assert found.verdict == verdict
    assert found.recovered == int((table["mse"] < 1e-6).sum())
    assert found.interval[0] <= found.recovered / found.runs <= found.interval[1]


def test_a_part_without_a_goal_is_not_judged():
    assert _outcome("joint", "mnist", "LM joint", 30, runs(30, 0)).verdict == NONE


@pytest.mark.parametrize(
    ("part", "least"), [("initial-sigmoid", 90), ("initial-tanh", 95), ("initial-relu", 60)]
)
def test_goals_on_torch_s_weights_ask_for_no_iterations(part, least):
    for below, verdict in ((least, MET), (least - 1, MISSED)):
        table = runs(below, 100 - below, iterations=99, exploded=1, limit=1e-4)
        assert _outcome(part, "mnist", "LM", 100, table).verdict == verdict


def test_every_part_of_the_study_has_its_goal():
    assert set(GOALS) == {cell.part for cell in load_study("studies/second-order.yaml").cells}


def test_the_table_has_a_column_for_each_study_and_says_how_far_an_open_goal_is():
    met = _outcome("grey", "mnist", "LM", 100, runs(98, 2))
    opened = _outcome("grey", "mnist", "LM", 100, runs(40, 0))
    exploded = _outcome("grey", "svhn", "LM", 100, runs(98, 2, exploded=3))
    free = _outcome("joint", "mnist", "LM joint", 30, runs(30, 0))
    table = side_by_side({"first": [met, exploded], "second": [opened, free]})
    assert table.to_dict("records") == [
        {
            **{"part": "grey", "data set": "MNIST", "attack": "LM", "goal": "98 % in 15, below 1e-6"},
            "first": "98 of 100 (93 to 99 %) in 15: met",
            "second": "40 of 40 (91 to 100 %) in 15: open, 40 of 100 runs",
        },
        {
            **{"part": "grey", "data set": "SVHN", "attack": "LM", "goal": "98 % in 15, below 1e-6"},
            "first": "98 of 100 (93 to 99 %) in 15, 3 exploded: missed",
            "second": "",
        },
        {
            **{"part": "joint", "data set": "MNIST", "attack": "LM joint", "goal": "none (below 1e-6)"},
            "first": "",
            "second": "30 of 30 (89 to 100 %) in 15",
        },
    ]
