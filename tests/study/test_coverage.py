"""Intervals hold the truth as often as they promise, in simulated studies whose runs share networks."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from wdlg.study import statistics
from wdlg.study.statistics import paired_by_network, share

STUDIES = 2000
SHARES = (0.02, 0.05, 0.2, 0.5, 0.8, 0.95)
CORRELATIONS = (0, 0.1, 0.3, 0.6, 0.9, 1)
DESIGNS = [(6, 10), (10, 1), (10, 4), (10, 10), (20, 4), (20, 10)]


def chances(share_of_all, correlation, shape, dice):
    """The chance of success in each network: beta-distributed, or one for all, or all or nothing."""
    if correlation == 0 or share_of_all in (0, 1):
        return np.full(shape, share_of_all)
    if correlation == 1:
        return (dice.random(shape) < share_of_all).astype(float)
    strength = 1 / correlation - 1
    return dice.beta(share_of_all * strength, (1 - share_of_all) * strength, shape)


def simulated(networks, images, share_of_all, correlation, dice):
    """Successes of simulated studies, (studies, runs), the runs of a network side by side."""
    chance = chances(share_of_all, correlation, (STUDIES, networks), dice)
    return dice.random((STUDIES, networks * images)) < np.repeat(chance, images, axis=1)


def ours(flags, networks, images):
    return statistics._shares(flags, np.repeat(np.arange(networks), images))[1:]


def bootstrap(flags, networks, images):
    """The percentile bootstrap over networks, which was used before."""
    means = flags.reshape(len(flags), networks, images).mean(axis=2)
    weights = np.random.default_rng(1).multinomial(networks, np.ones(networks) / networks, 999) / networks
    return np.quantile(means @ weights.T, (0.025, 0.975), axis=1)


def over_runs(flags, networks, images):
    """Wilson's interval over runs, which was used before."""
    found = [share(number, networks * images) for number in range(networks * images + 1)]
    ends = np.array([(one.low, one.high) for one in found])
    return ends[flags.sum(axis=1)].T


def coverage(interval, networks, images):
    """Share of studies whose interval holds the truth, for each share and correlation."""
    dice = np.random.default_rng(networks * 100 + images)
    held = {}
    for truth, correlation in product(SHARES, CORRELATIONS if images > 1 else (0,)):
        low, high = interval(simulated(networks, images, truth, correlation, dice), networks, images)
        held[truth, correlation] = np.mean((low <= truth) & (truth <= high))
    return held


def of_wilson(truth, runs):
    """Exact coverage of Wilson's interval for independent runs: it is below 95 % for some shares."""
    found = [share(number, runs) for number in range(runs + 1)]
    return sum(binom.pmf(one.successes, runs, truth) for one in found if one.low <= truth <= one.high)


@pytest.mark.parametrize(("networks", "images"), DESIGNS)
def test_an_interval_of_a_share_holds_the_truth_in_94_of_100_studies(networks, images):
    """Or as often as Wilson's for as many independent runs as there are networks, where that is less."""
    for (truth, correlation), held in coverage(ours, networks, images).items():
        promised = 0.94 if 0 < correlation < 0.9 else min(0.94, of_wilson(truth, networks))
        assert held > promised - 0.015, (truth, correlation)


@pytest.mark.parametrize(("networks", "images"), [(6, 10), (10, 10), (20, 10)])
def test_the_intervals_that_were_used_before_do_not(networks, images):
    for before in (bootstrap, over_runs):
        held = coverage(before, networks, images)
        assert held[0.2, 0.3] < 0.935
        assert held[0.05, 0.6] < 0.85


@pytest.mark.parametrize("networks", [6, 10, 20])
@pytest.mark.parametrize("truth", [0, 1])
def test_a_share_that_is_none_or_all_is_held_and_never_by_an_interval_of_no_width(networks, truth):
    low, high = ours(np.full((1, networks * 10), bool(truth)), networks, 10)
    assert low <= truth <= high
    assert high - low > 0.1


# Paired scores


def scores_of(first, second, correlation, networks, images, dice):
    """Scores of a study of two methods whose chances differ from network to network, and their mean."""
    won, lost = (
        dice.random((networks, images)) < chances(one, correlation, (networks, 1), dice)
        for one in (first, second)
    )
    return (won.astype(float) - lost).ravel(), first - second


KINDS = [(0.5, 0.5, 0.5), (0.8, 0.6, 0.5), (0.9, 0.1, 0.3), (0.2, 0.0, 0.3), (0.1, 0.0, 0.6), (0.9, 0.9, 0)]


@pytest.mark.parametrize(("networks", "images"), [(6, 10), (10, 1), (10, 10)])
def test_an_interval_of_a_paired_score_holds_the_truth_in_94_of_100_studies(networks, images):
    dice = np.random.default_rng(networks + images)
    units = np.repeat(np.arange(networks), images)
    for first, second, correlation in KINDS:
        held = []
        for _ in range(600):
            scores, truth = scores_of(first, second, correlation, networks, images, dice)
            found = paired_by_network(scores, units)
            held.append(found.low - 1e-9 <= truth <= found.high + 1e-9)
            assert found.low < found.high
        assert np.mean(held) > 0.92, (first, second, correlation)


def test_exchangeable_methods_differ_significantly_in_at_most_one_study_of_twenty():
    dice = np.random.default_rng(4)
    units = np.repeat(np.arange(10), 10)
    for correlation in (0, 0.3, 0.9):
        found = [
            paired_by_network(scores_of(0.7, 0.7, correlation, 10, 10, dice)[0], units) for _ in range(600)
        ]
        assert np.mean([one.p <= 0.05 for one in found]) < 0.065
        assert np.mean([one.low > 0 or one.high < 0 for one in found]) < 0.065
