"""One rule for every method's learning rate."""

import numpy as np
import pandas as pd
import pytest
from small_study import CONTENT, small_study

from wdlg.errors import InputError
from wdlg.evaluation import SUCCESS
from wdlg.study.runner import run
from wdlg.study.specification import from_mapping
from wdlg.study.store import Store
from wdlg.study.tuning import best_rates, ranking, tuned


def records(**by_rate):
    """Of one method at rates 1, 2, ...: each a list of MSEs, one that is negative having exploded."""
    rows = [
        {"part": "p", "method": "m", "learning_rate": float(rate), "mse": abs(mse), "exploded": mse < 0}
        for rate, errors in enumerate(by_rate.values(), start=1)
        for mse in errors
    ]
    return pd.DataFrame(rows)


def best(table):
    return best_rates(table)["learning_rate"].tolist()


def test_most_successes_come_first_whatever_else():
    low, high = 0.99 * SUCCESS, 1.01 * SUCCESS
    assert best(records(one=[1e-9, 1e-9, high], two=[low, low, low])) == [2.0]
    assert best(records(one=[low, low, -1e9], two=[low, high, high])) == [1.0]


def test_of_equal_successes_fewer_explosions_come_first():
    assert best(records(one=[1e-9, -3.0], two=[1e-3, 5.0])) == [2.0]


def test_then_the_lower_median_and_then_the_smaller_rate():
    assert best(records(one=[0.5, 0.6, 9.0], two=[0.4, 0.5, 99.0])) == [2.0]
    assert best(records(one=[0.5, 0.6], two=[0.5, 0.6])) == [1.0]


def test_an_mse_that_is_no_number_is_no_success_and_the_worst():
    table = records(one=[np.nan, np.nan, 0.2], two=[0.3, 0.3, 0.3])
    assert best(table) == [2.0]
    row = ranking(table, ["learning_rate"]).set_index("learning_rate").loc[1.0]
    assert (row["attacks"], row["successes"], row["median_mse"]) == (3, 0, np.inf)


def test_a_method_is_tuned_in_each_part_over_all_data_sets():
    rows = records(one=[1e-9, 1.0], two=[1e-9, 1e-9])
    other = records(one=[1e-9, 1e-9], two=[1e-9, 1.0]).assign(part="q")
    table = best_rates(pd.concat([rows, other]))
    assert dict(zip(table["part"], table["learning_rate"], strict=True)) == {"p": 2.0, "q": 1.0}


def test_only_methods_of_which_every_rate_is_there_are_compared(tmp_path):
    study, store = small_study(), Store(tmp_path)
    run(study, store, parts=("rates",), processes=1)
    table, left_out = tuned(study, store)
    assert (table["part"].tolist(), left_out) == (["rates"], 0)
    (tmp_path / study.part("rates")[0].path).unlink()
    with pytest.raises(InputError, match="no method of which all learning rates are computed"):
        tuned(study, Store(tmp_path))


def test_a_study_without_several_rates_has_nothing_to_tune(tmp_path):
    parts = {"main": CONTENT["parts"]["main"]}
    with pytest.raises(InputError, match="^the study small has no part that tries several"):
        tuned(small_study(parts=parts), Store(tmp_path))


def test_a_part_may_give_each_attack_its_own_rate():
    part = {**CONTENT["parts"]["main"], "learning_rates": {"iDLG": 0.5, "WDLG": 2}}
    cells = from_mapping({**CONTENT, "parts": {"main": part}}).cells
    found = {(cell.attack.name, cell.rate, cell.attack.optimizer.learning_rate) for cell in cells}
    assert found == {("iDLG", 0.5, 0.5), ("WDLG", 2.0, 2.0)}


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"iDLG": 0.5}, "has no 'WDLG'"),
        ({"iDLG": 0.5, "WDLG": 1, "DLG": 1}, "DLG"),
        ({"iDLG": 0.5, "WDLG": 0}, "learning_rates.WDLG is 0, but must be a finite number above 0"),
        ({"iDLG": 0.5, "WDLG": [1, 2]}, "learning_rates.WDLG is"),
    ],
)
def test_such_a_table_names_every_attack_of_the_part_and_no_other(rates, message):
    part = {**CONTENT["parts"]["main"], "learning_rates": rates}
    with pytest.raises(InputError, match=message):
        from_mapping({**CONTENT, "parts": {"main": part}})
