"""The statistics of the book: intervals and tests for paired, heavy-tailed outcomes.

Runs that failed stay in every denominator: a missing MSE is infinite, never dropped.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest, bootstrap, permutation_test
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from wdlg.errors import InputError, require_count


@dataclass(frozen=True)
class Share:
    """A share of runs with its 95 % Wilson interval, all in [0, 1]."""

    successes: int
    runs: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share itself."""
        return self.successes / self.runs

    def percent(self) -> str:
        """As text: "90.0 % [69.9, 97.2]"."""
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def share(successes: int, runs: int) -> Share:
    """Share of runs that succeeded, with its Wilson (1927) score interval at 95 %.

    >>> share(18, 20).percent()
    '90.0 % [69.9, 97.2]'
    """
    require_count("runs", runs)
    require_count("successes", successes, at_least=0, below=runs + 1)
    low, high = proportion_confint(successes, runs, method="wilson")
    # At 0 % and 100 % rounding may put an end of the interval on the wrong side of the share.
    value = successes / runs
    return Share(int(successes), int(runs), min(float(low), value), max(float(high), value))


def success_curve(mse: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of runs with an MSE below each threshold, and its 95 % Wilson band.

    Args:
        mse: of every run (runs,); NaN counts as a failure.
        thresholds: (T,).

    Returns:
        Share, lower and upper end, each (T,).
    """
    finite = np.where(np.isnan(mse), np.inf, mse)
    shares = [share(int((finite < threshold).sum()), len(finite)) for threshold in thresholds]
    return (
        np.array([one.value for one in shares]),
        np.array([one.low for one in shares]),
        np.array([one.high for one in shares]),
    )


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p-value of McNemar's exact test: did one method succeed where the other failed?

    Args:
        first, second: success of two methods on the same cases, boolean (cases,).

    Raises:
        InputError: the two have different lengths.

    >>> mcnemar(np.array([True] * 6), np.array([False] * 6))
    0.03125
    """
    if len(first) != len(second):
        raise InputError(f"second holds {len(second)} cases, but must hold as many as first, {len(first)}.")
    only_first = int((first & ~second).sum())
    only_second = int((~first & second).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


@dataclass(frozen=True)
class Paired:
    """The mean score of one method against another, with networks as units.

    Attributes:
        mean: over networks of their mean score, in [-1, 1].
        low, high: 95 % bootstrap interval over networks.
        p: of the two-sided sign-flip permutation test over networks.
        networks, cases: how many.
    """

    mean: float
    low: float
    high: float
    p: float
    networks: int
    cases: int

    def text(self) -> str:
        """As text: "+0.20 [0.05, 0.35]"."""
        return f"{self.mean:+.2f} [{self.low:.2f}, {self.high:.2f}]"

    def as_json(self) -> dict[str, float]:
        """Numbers by name."""
        return asdict(self)


RESAMPLES = 9999


def paired_by_network(scores: np.ndarray, networks: np.ndarray) -> Paired:
    """Is the mean score of paired cases different from zero, if the cases of a network hang together?

    Under the null hypothesis the two methods can be exchanged within each network, so each network's mean
    score may as well have the other sign (Fisher's randomisation test). All sign patterns are tried while
    there are at most 9,999, otherwise a fixed random draw of them.

    Args:
        scores: of every case, positive in favour of the first method, (cases,).
        networks: the network of every case, (cases,).

    >>> result = paired_by_network(np.ones(6), np.arange(6))
    >>> result.p, result.text()
    (0.03125, '+1.00 [1.00, 1.00]')
    """
    means = pd.Series(scores).groupby(networks).mean().to_numpy()
    if np.all(means == means[0]):
        # Without spread the resampling has nothing to show; the test is the binomial one.
        p = 1.0 if means[0] == 0 else min(1.0, 2.0 ** (1 - len(means)))
        return Paired(means[0], means[0], means[0], p, len(means), len(scores))
    test = permutation_test(
        (means,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, vectorized=True, rng=0
    )
    interval = bootstrap(
        (means,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0
    ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    return Paired(float(means.mean()), low, high, float(test.pvalue), len(means), len(scores))


def holm(p_values: np.ndarray, level: float) -> np.ndarray:
    """Which of several hypotheses are rejected at a family-wise level, by Holm's method; boolean (tests,).

    >>> holm(np.array([0.01, 0.04, 0.03]), 0.05)
    array([ True, False, False])
    """
    return multipletests(p_values, alpha=level, method="holm")[0]


def quartiles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower quartile, median and upper quartile over runs (axis 0); NaN counts as infinite."""
    filled = np.where(np.isnan(values), np.inf, values)
    # "lower" picks an order statistic, which infinities do not turn into NaN.
    low, middle, high = np.quantile(filled, (0.25, 0.5, 0.75), axis=0, method="lower")
    return low, middle, high
