"""The table of runs counts every run, failed ones too."""

import numpy as np
import pandas as pd

from wdlg.study.summary import FORMATS, summarise_runs


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
