"""Intervals and tests against their formulas; failures are never dropped."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from wdlg.errors import InputError
from wdlg.study.statistics import mcnemar, quartiles, share, success_curve


@given(st.integers(1, 500).flatmap(lambda runs: st.tuples(st.integers(0, runs), st.just(runs))))
def test_wilson_interval_is_scipys_and_holds_the_share(counts):
    successes, runs = counts
    one = share(successes, runs)
    expected = binomtest(successes, runs).proportion_ci(method="wilson")
    assert one.low == pytest.approx(expected.low, abs=1e-9)
    assert one.high == pytest.approx(expected.high, abs=1e-9)
    assert 0 <= one.low <= one.value <= one.high <= 1


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_mcnemar_is_symmetric_and_ignores_agreement(pairs):
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    p = mcnemar(first, second)
    assert p == mcnemar(second, first)
    agreed = np.array([True, False])
    assert p == mcnemar(np.append(first, agreed), np.append(second, agreed))
    assert 0 < p <= 1


def test_success_curve_counts_failures_in_the_denominator():
    value, low, high = success_curve(np.array([1e-5, 1e-3, np.nan, np.inf]), np.array([1e-4, 1e-2, 1e9]))
    assert value.tolist() == [0.25, 0.5, 0.5]
    assert (low < value).all()
    assert (value < high).all()


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_success_curve_never_falls_and_does_not_depend_on_order(values, random):
    thresholds = np.logspace(-7, 4, 40)
    curve = success_curve(np.array(values), thresholds)[0]
    random.shuffle(values)
    assert (np.diff(curve) >= 0).all()
    assert (curve == success_curve(np.array(values), thresholds)[0]).all()


def test_quartiles_keep_runs_that_failed_as_the_worst():
    values = np.array([[1.0], [2.0], [np.nan], [np.inf], [3.0]])
    low, middle, high = quartiles(values)
    assert (low[0], middle[0], high[0]) == (2.0, 3.0, np.inf)


def test_impossible_counts_are_refused_by_name():
    with pytest.raises(InputError, match="^successes is 3"):
        share(3, 2)
    with pytest.raises(InputError, match="^runs is 0"):
        share(0, 0)
    with pytest.raises(InputError, match="^second holds 1"):
        mcnemar(np.array([True, False]), np.array([True]))
