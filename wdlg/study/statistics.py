"""The statistics of the book: intervals and tests for paired, heavy-tailed outcomes.

Runs that failed stay in every denominator: a missing MSE is infinite, never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
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


def quartiles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower quartile, median and upper quartile over runs (axis 0); NaN counts as infinite."""
    filled = np.where(np.isnan(values), np.inf, values)
    # "lower" picks an order statistic, which infinities do not turn into NaN.
    low, middle, high = np.quantile(filled, (0.25, 0.5, 0.75), axis=0, method="lower")
    return low, middle, high
