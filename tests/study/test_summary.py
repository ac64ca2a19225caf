"""The table of runs counts every run, failed ones too."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from wdlg.study.summary import FORMATS, paired_outcomes, summarise_runs


def records(**changes):
    rows = {
        "dataset": ["digits"] * 4,
        "method": ["iDLG", "iDLG", "iDLG", "DLG"],
        "mse": [1e-5, np.inf, 5e-3, 1.0],
        "status": ["converged", "non_finite", "stalled", "budget_spent"],
        "exploded": [False, True, False, False],
        "label_correct": [True, True, True, False],
        "evaluations": [10, 20, 60, 40],
        "seconds": [1.0, 2.0, 3.0, 4.0],
    }
    return pd.DataFrame(rows | changes)


def test_failed_runs_stay_in_every_count():
    row = summarise_runs(records()).set_index("method").loc["iDLG"]
    counts = row[["runs", "MSE < 0.01", "MSE < 0.001", "exploded", "stalled", "labels right"]]
    assert counts.tolist() == [3, 2, 1, 1, 1, 3]
    assert row["median MSE"] == 5e-3
    assert row["evaluations (mean)"] == 30


def test_runs_can_be_grouped_by_any_columns_and_all_of_them_are_counted():
    rated = pd.concat([records().assign(learning_rate=rate) for rate in (0.1, 1.0)])
    table = summarise_runs(rated, by=("method", "learning_rate"))
    assert len(table) == 4
    assert table["runs"].sum() == len(rated)
    assert set(FORMATS) <= set(table.columns)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=12),
)
def test_each_case_that_both_methods_met_has_one_outcome_and_pictures_belong_to_it(cases):
    rows = [
        {
            "dataset": "digits",
            "network": place // 3,
            "case": place % 3,
            "method": method,
            "mse": 0.001 if good else 1.0,
            "pictures": b"picture" if pictured else b"",
        }
        for place, (one, two, pictured) in enumerate(cases)
        for method, good in (("A", one), ("B", two))
    ]
    alone = {**rows[0], "network": 99, "method": "A"}  # B did not meet this case
    found = paired_outcomes(pd.DataFrame([*rows, alone]), "A", "B").set_index("outcome")
    words = {(True, True): "both", (True, False): "A alone", (False, True): "B alone"}
    expected = [words.get((one, two), "neither") for one, two, _ in cases]
    assert found["count"].to_dict() == {word: expected.count(word) for word in dict.fromkeys(expected)}
    assert found["count"].is_monotonic_decreasing
    assert set(found["cases"]) == {len(cases)}
    for word, row in found.iterrows():
        places = [place for place, said in enumerate(expected) if said == word and cases[place][2]]
        if places:
            assert row["network"] * 3 + row["case"] == places[0]
        else:
            assert pd.isna(row["dataset"])


def test_two_methods_that_were_not_both_run_have_no_outcomes():
    rows = records(network=0, case=[0, 1, 2, 0], pictures=b"")
    assert paired_outcomes(rows, "iDLG", "WDLG").empty
    assert paired_outcomes(rows, "iDLG", "DLG")["outcome"].tolist() == ["iDLG alone"]
