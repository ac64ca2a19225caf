"""Intervals and tests against their formulas; failures are never dropped, and bad input is refused."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, permutation_test
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar as tabulated
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from wdlg.errors import InputError
from wdlg.study.statistics import (
    holm,
    mcnemar,
    paired_by_network,
    quartiles,
    share,
    share_by_network,
    success_curve,
)


def alone(runs):
    """A network of its own for each of some runs."""
    return np.arange(len(runs))


# Shares


@given(st.integers(1, 500).flatmap(lambda runs: st.tuples(st.integers(0, runs), st.just(runs))))
def test_wilson_interval_is_scipys_and_holds_the_share(counts):
    successes, runs = counts
    one = share(successes, runs)
    expected = binomtest(successes, runs).proportion_ci(confidence_level=0.95, method="wilson")
    assert one.low == pytest.approx(expected.low, abs=1e-9)
    assert one.high == pytest.approx(expected.high, abs=1e-9)
    assert 0 <= one.low <= one.value <= one.high <= 1


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_with_a_network_for_each_run_an_interval_is_wilsons_over_runs(flags):
    assert share_by_network(flags, alone(flags)) == share(sum(flags), len(flags))


@given(st.lists(st.booleans(), min_size=2, max_size=20), st.integers(2, 20))
def test_with_networks_that_succeed_or_fail_as_a_whole_it_is_wilsons_over_networks(whole, images):
    one = share_by_network(np.repeat(whole, images), np.repeat(alone(whole), images))
    networks = share(sum(whole), len(whole))
    assert (one.low, one.high) == pytest.approx((networks.low, networks.high))
    assert (one.networks, one.runs) == (len(whole), len(whole) * images)


def test_the_effective_number_of_runs_is_that_of_korn_and_graubard_with_one_run_more():
    """Half of each of ten networks of ten: no correlation is seen, so one of 51 runs speaks for one."""
    one = share_by_network([True, False] * 50, np.repeat(np.arange(10), 10))
    runs = 100 / (1 + 9 / 51) * (student.ppf(0.975, 99) / student.ppf(0.975, 9)) ** 2
    z = norm.ppf(0.975)
    assert one.high - one.low == pytest.approx(z / (1 + z**2 / runs) * np.sqrt(1 / runs + z**2 / runs**2))
    assert one.low + one.high == pytest.approx(1)


def test_the_correlation_is_that_of_an_analysis_of_variance():
    """Networks of unequal size, against the textbook's formulas written out for single runs."""
    flags = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0, 1, 1, 1], dtype=bool)
    units = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2])
    groups = [flags[units == one].astype(float) for one in range(3)]
    sizes = np.array([len(one) for one in groups])
    between = sum(len(one) * (one.mean() - flags.mean()) ** 2 for one in groups) / 2
    within = sum(((one - one.mean()) ** 2).sum() for one in groups) / 9
    usual = (12 - (sizes**2).sum() / 12) / 2
    correlation = (between - within) / (between + (usual - 1) * within)
    correlation = (5 * correlation + 1) / 6
    runs = 12 / (1 + ((sizes**2).sum() / 12 - 1) * correlation)
    runs *= (student.ppf(0.975, 11) / student.ppf(0.975, 2)) ** 2
    runs = max(runs, 144 / (sizes**2).sum())
    expected = binomtest(7, 12).statistic
    z = norm.ppf(0.975)
    middle = (expected + z**2 / 2 / runs) / (1 + z**2 / runs)
    half = z / (1 + z**2 / runs) * np.sqrt(expected * (1 - expected) / runs + z**2 / 4 / runs**2)
    one = share_by_network(flags, units)
    assert (one.low, one.high) == pytest.approx((middle - half, middle + half))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_an_interval_is_between_that_of_runs_and_that_of_networks_whatever_their_order(counts, random):
    flags = np.concatenate([np.arange(5) < one for one in counts])
    units = np.repeat([f"network {number}" for number in range(len(counts))], 5)
    one = share_by_network(flags, units)
    over_runs = share(int(flags.sum()), len(flags))
    assert one.low <= over_runs.low + 1e-12
    assert one.high >= over_runs.high - 1e-12
    networks = len(counts)
    low, high = proportion_confint(one.value * networks, networks, method="wilson")
    assert low - 1e-12 <= one.low
    assert one.high <= high + 1e-12
    order = list(range(len(flags)))
    random.shuffle(order)
    again = share_by_network(flags[order], units[order])
    assert (again.low, again.high) == pytest.approx((one.low, one.high))


def test_one_network_says_as_much_as_one_run():
    one = share_by_network([True] * 10, [3] * 10)
    assert (one.low, one.high) == pytest.approx((share(1, 1).low, 1))


def test_success_curve_counts_failures_in_the_denominator():
    mse = np.array([1e-5, 1e-3, np.nan, np.inf])
    value, low, high = success_curve(mse, np.array([1e-5, 1e-4, 1e-2, 1e9]), alone(mse))
    assert value.tolist() == [0, 0.25, 0.5, 0.5]  # below the threshold, not at it
    assert (low <= value).all()
    assert (value < high).all()
    expected = [share(successes, 4) for successes in (0, 1, 2, 2)]
    np.testing.assert_allclose(low, [one.low for one in expected])
    np.testing.assert_allclose(high, [one.high for one in expected])


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_success_curve_never_falls_and_does_not_depend_on_order(values, random):
    thresholds = np.logspace(-7, 4, 40)
    curve = success_curve(values, thresholds, alone(values))[0]
    random.shuffle(values)
    assert (np.diff(curve) >= 0).all()
    assert (curve == success_curve(values, thresholds, alone(values))[0]).all()


def test_a_band_is_the_interval_of_each_threshold():
    mse, units = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), np.array([0, 0, 0, 1, 1, 1])
    value, low, high = success_curve(mse, [0.25, 0.45], units)
    for place, threshold in enumerate((0.25, 0.45)):
        one = share_by_network(mse < threshold, units)
        assert (value[place], low[place], high[place]) == pytest.approx((one.value, one.low, one.high))


# Paired scores


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_mcnemar_is_statsmodels_is_symmetric_and_ignores_agreement(pairs):
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    p = mcnemar(first, second)
    assert p == mcnemar(second, first)
    agreed = np.array([True, False])
    assert p == mcnemar(np.append(first, agreed), np.append(second, agreed))
    table = [[np.sum(one & two) for two in (second, ~second)] for one in (first, ~first)]
    assert p == pytest.approx(min(1, tabulated(table, exact=True).pvalue))
    assert 0 < p <= 1


scores_by_network = st.integers(2, 11).flatmap(
    lambda networks: st.lists(
        st.lists(st.sampled_from((-1, 0, 1)), min_size=3, max_size=3), min_size=networks, max_size=networks
    )
)


@settings(max_examples=60)
@given(scores_by_network)
def test_the_sign_flip_test_is_scipys_and_the_interval_agrees_with_it(scores):
    found = paired_by_network(np.ravel(scores), np.repeat(alone(scores), 3))
    means = np.mean(scores, axis=1)
    expected = permutation_test(
        (means,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert found.p == pytest.approx(expected.pvalue)
    assert found.mean == pytest.approx(means.mean())
    assert -1 <= found.low <= found.mean + 1e-12 <= found.high + 2e-12 <= 1 + 3e-12
    assert found.low < found.high
    if found.low > 0 or found.high < 0:
        assert found.p <= 0.05


@pytest.mark.parametrize("networks", [6, 8, 11])
def test_the_interval_holds_exactly_the_scores_that_sign_flips_do_not_reject(networks):
    """Where networks differ much, not at the ends of the scale, the sign-flip interval is the wider one."""
    wins = np.arange(networks) % 5
    scores = np.where(np.arange(20) < 4 * wins[:, None], 1, -1).ravel()
    found = paired_by_network(scores, np.repeat(np.arange(networks), 20))
    means = scores.reshape(networks, 20).mean(axis=1)
    signs = np.array(list(product((-1, 1), repeat=networks)))

    def p_of(score):
        sums = np.abs(signs @ (means - score))
        return np.mean(sums >= sums[-1] - 1e-9)

    for inside, outside in ((found.low + 1e-6, found.low - 1e-6), (found.high - 1e-6, found.high + 1e-6)):
        assert p_of(inside) > 0.05
        assert p_of(outside) <= 0.05


def test_with_more_networks_sign_patterns_are_drawn_and_come_close_to_all_of_them():
    scores = np.array([1] * 11 + [-1] * 3)
    found = paired_by_network(scores, alone(scores))
    assert found.p == pytest.approx(binomtest(11, 14).pvalue, abs=0.01)
    assert found == paired_by_network(scores, alone(scores))  # always the same draw
    every = paired_by_network(scores[1:], alone(scores[1:]))
    assert every.p == pytest.approx(binomtest(10, 13).pvalue)


def test_where_all_networks_agree_the_interval_is_that_of_two_shares_of_networks():
    """Newcombe's: gains 10 of 10, losses 0 of 10, and both 0 of 10."""
    end = share(0, 10).high
    all_won = paired_by_network(np.ones(100), np.repeat(np.arange(10), 10))
    assert (all_won.low, all_won.high) == pytest.approx((1 - np.hypot(end, end), 1))
    assert all_won.p == 2 / 2**10
    all_tied = paired_by_network(np.zeros(100), np.repeat(np.arange(10), 10))
    assert (all_tied.low, all_tied.high) == pytest.approx((-end, end))
    assert all_tied.p == 1


def test_newcombes_interval_has_the_correlation_of_outcomes_that_exclude_each_other():
    """Fifty wins and fifty losses, a network for each: the score test of p = 1/2, on the scale of scores."""
    scores = np.tile((1, -1), 50)
    found = paired_by_network(scores, alone(scores))
    half = 2 * (share(50, 100).high - 0.5)
    assert found.high >= half - 1e-9
    assert found.high == pytest.approx(half, abs=0.02)
    assert found.low == pytest.approx(-half, abs=0.02)


@settings(max_examples=30)
@given(scores_by_network)
def test_to_swap_the_methods_turns_the_interval_round(scores):
    units = np.repeat(alone(scores), 3)
    found, turned = (paired_by_network(sign * np.ravel(scores), units) for sign in (1, -1))
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    assert turned.p == found.p


def test_five_networks_exclude_no_score_and_six_do():
    for networks, low in ((5, -1.0), (6, 1 - np.hypot(*[share(0, 6).high] * 2))):
        found = paired_by_network(np.ones(networks), np.arange(networks))
        assert found.low == pytest.approx(low)


# Families of tests


@settings(max_examples=6)  # statsmodels collects garbage each time
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.2))
def test_holm_is_statsmodels(p_values, level):
    expected = multipletests(p_values, alpha=level, method="holm")[0]
    assert holm(p_values, level).tolist() == expected.tolist()


def test_holm_rejects_what_bonferroni_does_not():
    assert holm([0.01, 0.02, 0.5], 0.05).tolist() == [True, True, False]
    assert holm([0.016, 0.024, 0.04], 0.05).tolist() == [True, True, True]  # 0.05 / 3, / 2, / 1


@pytest.mark.parametrize(("p", "rejected"), [(0.025, True), (0.0250001, False)])
def test_a_p_value_at_its_threshold_is_rejected(p, rejected):
    assert holm([p, 0.9], 0.05).tolist() == [rejected, False]


def test_quartiles_keep_runs_that_failed_as_the_worst():
    values = np.array([[1.0], [2.0], [np.nan], [np.inf], [3.0]])
    low, middle, high = quartiles(values)
    assert (low[0], middle[0], high[0]) == (2.0, 3.0, np.inf)
    assert [float(one) for one in quartiles([4, 1, 3, 2])] == [1, 2, 3]  # the lower of two


# What is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: share(3, 2), "^successes is 3, but must be a whole number, at least 0 and at most 2.$"),
        (lambda: share(-1, 2), "^successes is -1"),
        (lambda: share(0, 0), "^runs is 0"),
        (lambda: share(True, 2), "^successes is True"),
        (lambda: share(1.0, 2), "^successes is 1.0"),
        (lambda: share_by_network([], []), "^succeeded has the shape"),
        (lambda: share_by_network([1, 0], [0, 1]), "^succeeded holds int64, but must hold True and False"),
        (
            lambda: share_by_network([True], [0, 1]),
            "^networks holds 2 networks, but must hold one for each of 1",
        ),
        (lambda: share_by_network([True, False], [0, None]), "^networks holds a missing value"),
        (lambda: share_by_network([True, False], [0, np.nan]), "^networks holds a missing value"),
        (lambda: share_by_network([[True]], [0]), "^succeeded has the shape"),
        (lambda: success_curve([], [1.0], []), "^mse has the shape"),
        (lambda: success_curve([1.0], [], [0]), "^thresholds has the shape"),
        (lambda: success_curve([1.0], [np.nan], [0]), "^thresholds holds NaN"),
        (lambda: success_curve(["low"], [1.0], [0]), "^mse holds"),
        (lambda: mcnemar([True, False], [True]), "^second holds 1 cases, but must hold as many as first, 2"),
        (lambda: mcnemar([], []), "^first has the shape"),
        (lambda: mcnemar([True], [1]), "^second holds int64"),
        (lambda: mcnemar([True], [None]), "^second holds object"),
        (lambda: paired_by_network([], []), "^scores has the shape"),
        (lambda: paired_by_network([1, np.nan], [0, 1]), "^scores holds NaN, but must hold numbers"),
        (lambda: paired_by_network([1, 0.5], [0, 1]), "^scores holds 0.5, but must hold 1, 0 and -1 only"),
        (lambda: paired_by_network([np.inf], [0]), "^scores holds inf"),
        (lambda: paired_by_network([True], [0]), "^scores holds bool, but must hold numbers"),
        (lambda: paired_by_network([1, 1], [0]), "^networks holds 1 networks"),
        (lambda: holm([], 0.05), "^p_values has the shape"),
        (lambda: holm([0.1, np.nan], 0.05), "^p_values holds NaN"),
        (lambda: holm([1.2], 0.05), "^p_values holds 1.2, but must hold numbers from 0 to 1"),
        (lambda: holm([-0.1], 0.05), "^p_values holds -0.1"),
        (lambda: holm([0.1], 0), "^level is 0, but must be a number above 0 and below 1"),
        (lambda: holm([0.1], 1), "^level is 1"),
        (lambda: holm([0.1], np.nan), "^level is nan"),
        (lambda: holm([0.1], True), "^level is True"),
        (lambda: holm([0.1], "0.05"), "^level is '0.05'"),
        (lambda: quartiles([]), "^values has the shape"),
        (lambda: quartiles(np.zeros((0, 3))), "^values has the shape"),
        (lambda: quartiles([True]), "^values holds bool"),
        (lambda: quartiles(3.0), "^values has the shape"),
    ],
)
def test_what_cannot_be_counted_is_refused_in_one_sentence(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert str(error.value).count(".\n") == 0
    assert str(error.value).endswith(".")


def test_columns_of_tables_are_taken_by_their_order_whatever_their_index():
    first = pd.Series([True, True, False], index=[5, 6, 7])
    second = pd.Series([False, True, False], index=[1, 2, 3], dtype=object)
    assert mcnemar(first, second) == 1
    assert share_by_network(first, pd.Series(["a", "b", "c"])) == share(2, 3)
