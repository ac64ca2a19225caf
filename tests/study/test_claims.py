"""A verdict changes with the records in the way its test says."""

import numpy as np
import pandas as pd
import pytest

from wdlg.study import claims


def runs(**mse_by_method):
    """Records of paired runs with these MSEs."""
    return pd.concat(
        pd.DataFrame(
            {
                "dataset": "digits",
                "method": method,
                "case": range(len(mse)),
                "mse": mse,
                "exploded": np.array(mse) > 10,
            }
        )
        for method, mse in mse_by_method.items()
    )


GOOD, BAD, EXPLODED = [1e-5] * 10, [1.0] * 10, [1e6] * 10


@pytest.mark.parametrize(
    ("wdlg", "idlg", "verdict"),
    [(GOOD, BAD, claims.HELD), (BAD, GOOD, claims.FAILED), (GOOD, GOOD, claims.UNDECIDED)],
)
def test_success_and_error_follow_the_better_method(wdlg, idlg, verdict):
    records = runs(WDLG=wdlg, iDLG=idlg)
    assert claims.success(records).verdict == verdict
    assert claims.lower_error(records).verdict == verdict


def test_the_order_of_the_rows_does_not_matter():
    records = runs(WDLG=GOOD[:5] + BAD[:5], iDLG=BAD)
    shuffled = records.sample(frac=1, random_state=0)
    assert claims.success(records) == claims.success(shuffled)


@pytest.mark.parametrize(
    ("wdlg", "idlg", "verdict"),
    [
        (GOOD, EXPLODED, claims.HELD),
        (BAD, EXPLODED, claims.CONDITION),
        (EXPLODED, GOOD, claims.FAILED),
        (GOOD, GOOD, claims.UNDECIDED),
    ],
)
def test_no_explosions_count_for_little_without_successes(wdlg, idlg, verdict):
    assert claims.explosions(runs(WDLG=wdlg, iDLG=idlg)).verdict == verdict


def rules(**correct):
    """Rows of the bias rule by activation, beside a row-sum rule that costs more."""
    rows = []
    for activation, flags in correct.items():
        for rule, steps, seconds in (("bias_sign", 10, 1e-6), ("row_sum", 100, 2e-6)):
            rows += [
                {"rule": rule, "activation": activation, "correct": flag, "steps": steps, "seconds": seconds}
                for flag in flags
            ]
    return pd.DataFrame(rows)


def test_label_accuracy_names_misses_of_other_activations_as_a_condition():
    assert claims.label_accuracy(rules(sigmoid=[True] * 5, relu=[True] * 5)).verdict == claims.HELD
    assert claims.label_accuracy(rules(sigmoid=[True] * 5, relu=[False] * 5)).verdict == claims.CONDITION
    assert claims.label_accuracy(rules(sigmoid=[True, False])).verdict == claims.FAILED


def test_label_cost_needs_fewer_steps_and_less_time():
    table = rules(sigmoid=[True] * 3)
    assert claims.label_cost(table).verdict == claims.HELD
    slower = table.assign(seconds=table["seconds"].where(table["rule"] == "row_sum", 1.0))
    assert claims.label_cost(slower).verdict == claims.CONDITION


def test_dlg_labels_are_undecided_without_a_miss():
    table = pd.DataFrame({"method": "DLG", "label_correct": [True] * 4})
    assert claims.dlg_labels(table).verdict == claims.UNDECIDED
    assert claims.dlg_labels(table.assign(label_correct=[True, True, True, False])).verdict == claims.HELD


@pytest.mark.parametrize(
    ("largest_of_wdlg", "verdict"), [(1.0, claims.HELD), (0.1, claims.UNDECIDED), (None, claims.FAILED)]
)
def test_large_rates_compare_the_largest_rate_that_works(largest_of_wdlg, verdict):
    tables = []
    for rate in (0.1, 1.0):
        wdlg = GOOD if largest_of_wdlg is not None and rate <= largest_of_wdlg else BAD
        idlg = GOOD if rate <= 0.1 else BAD
        tables.append(runs(WDLG=wdlg, iDLG=idlg, DLG=BAD).assign(learning_rate=rate))
    assert claims.large_rates(pd.concat(tables)).verdict == verdict
