"""The statistics of the book: one rule for intervals and tests, with networks as units.

Runs that failed stay in every denominator: a missing MSE is infinite, never dropped.

Attacks on one network succeed and fail together, so n runs on K networks, m on each, tell less than n
independent runs. They are counted as an **effective number of runs**::

    n* = max(K, n / (1 + (m - 1) r) (t(n - 1) / t(K - 1))^2)

Here r is the intracluster correlation of the outcomes (analysis of variance), and t(d) the 97.5 % quantile of
Student's distribution with d degrees of freedom, which pays for the estimation of r from K networks (Korn
and Graubard 1998). It is moved towards 1 as if one run more had been seen that goes as its whole network
does, to (x r + 1) / (x + 1), where x runs differ from the most frequent outcome. Where none differs nothing
is known of the correlation, and n* = K.

A **share** has the Wilson (1927) score interval for n* runs. With a network for each run that is Wilson's
interval over runs; with networks that succeed or fail as a whole it is Wilson's over networks.

A **paired score** (1, 0 or -1 for each case) is a share of gains minus a share of losses. Its test is
Fisher's: if the two methods can be exchanged within each network, its mean score may as well have the other
sign. Its interval is the smallest that holds two: the scores that this test does not reject (Hartigan 1969),
and the difference of the two shares for n* runs (Newcombe 1998, with the correlation of outcomes that exclude
each other). So an interval that excludes 0 implies p <= 0.05, before correction. The reverse need not hold:
the interval also allows for networks too rare to have been seen, which exchangeable methods rule out.

The rule was chosen for its coverage in simulated studies. All results of the book were known by then, and the
history does not show in which order coverage and verdicts were looked at: the table is what speaks for it.
Ten runs a network, shares from 0.02 to 0.95, beta-distributed over networks with correlations from 0 to 1;
worst and mean share of 2,000 studies whose 95 % interval holds the truth, and its mean width
(``tests/study/test_coverage.py``):

.. table:: Coverage of intervals, worst and mean, and their mean width.

    ========================  ==================  ==================  ==================
    intervals of a share      6 networks          10 networks         20 networks
    ========================  ==================  ==================  ==================
    this rule                 0.88, 0.98; 0.43    0.92, 0.97; 0.31    0.92, 0.96; 0.21
    Student's, over networks  0.12, 0.71; 0.31    0.19, 0.77; 0.25    0.33, 0.84; 0.18
    percentile bootstrap      0.12, 0.68; 0.24    0.19, 0.75; 0.21    0.33, 0.83; 0.16
    Wilson's, over runs       0.31, 0.75; 0.15    0.00, 0.63; 0.12    0.00, 0.65; 0.08
    ========================  ==================  ==================  ==================

Where the rule is below 94 %, networks succeed nearly as a whole or not at all, and Wilson's interval for as
many independent runs as there are networks is below it, too.
"""

from __future__ import annotations

import numbers
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wdlg.errors import InputError, require_count

LEVEL = 0.05
"""Of every interval here (95 %), and of the test that an interval of a paired score agrees with."""


# Shares


@dataclass(frozen=True)
class Share:
    """A share of runs with its 95 % interval, all in [0, 1].

    Attributes:
        successes, runs: how many.
        low, high: ends of the interval.
        networks: on which the runs were made, the units of the interval.
    """

    successes: int
    runs: int
    low: float
    high: float
    networks: int

    @property
    def value(self) -> float:
        """The share itself."""
        return self.successes / self.runs

    def percent(self) -> str:
        """As text: "90.0 % [69.9, 97.2]"."""
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def share(successes: int, runs: int) -> Share:
    """Share of independent runs that succeeded, each on a network of its own, with its Wilson interval.

    Raises:
        InputError: there are no runs, or more successes than runs, or less than none.

    See also:
        :func:`share_by_network`, where runs share networks.

    >>> share(18, 20).percent()
    '90.0 % [69.9, 97.2]'
    """
    require_count("runs", runs)
    require_count("successes", successes, at_least=0, below=runs + 1)
    low, high = _wilson(np.array(successes / runs), np.array(float(runs)))
    return Share(int(successes), int(runs), float(low), float(high), int(runs))


def share_by_network(succeeded: Any, networks: Any) -> Share:
    """Share of runs that succeeded, with its Wilson interval for the effective number of runs.

    Args:
        succeeded: by each run, boolean (runs,).
        networks: the network of each run, (runs,).

    Raises:
        InputError: there are no runs, something else than True and False, or not a network for each run.

    >>> share_by_network([True] * 20, range(20)) == share(20, 20)
    True
    >>> share_by_network([True] * 20, [0, 1] * 10).percent()  # all that two networks say
    '100.0 % [34.2, 100.0]'
    """
    flags = _flags("succeeded", succeeded)
    codes = _networks(networks, len(flags))
    _, low, high = _shares(flags[None], codes)
    return Share(int(flags.sum()), len(flags), float(low[0]), float(high[0]), int(codes.max()) + 1)


def success_curve(mse: Any, thresholds: Any, networks: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of runs with an MSE below each threshold, and its 95 % band, point by point.

    Args:
        mse: of every run (runs,); NaN counts as a failure.
        thresholds: (T,).
        networks: the network of each run, (runs,).

    Returns:
        Share, lower and upper end, each (T,).

    Raises:
        InputError: there are no runs or no thresholds, a threshold is NaN, or not a network for each run.
    """
    errors = _numbers("mse", mse, missing=True)
    bounds = _numbers("thresholds", thresholds)
    codes = _networks(networks, len(errors))
    return _shares(errors < bounds[:, None], codes)


def _shares(flags: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share, lower and upper end, each (T,), of flags (T, runs) of runs on networks (runs,)."""
    value = flags.mean(axis=1)
    counts = _counts(flags, codes)
    sizes = np.bincount(codes)
    low, high = _wilson(value, _effective_runs(np.stack((counts, sizes - counts), axis=1)))
    return value, low, high


def _wilson(value: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the Wilson interval of shares, for any number of runs above 0."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(value * runs, runs, alpha=LEVEL, method="wilson")
    # At 0 % and 100 % rounding may put an end of the interval on the wrong side of the share.
    return np.clip(low, 0, value), np.clip(high, value, 1)


def _counts(flags: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """How many flags of each network are set, (T, K), of flags (T, runs)."""
    return flags.astype(float) @ (codes[:, None] == np.arange(codes.max() + 1))


def _effective_runs(counts: np.ndarray) -> np.ndarray:
    """As how many independent runs those of K networks count: n* of the rule above.

    Args:
        counts: runs of each network with each outcome, (T, outcomes, K); every run has one outcome.

    Returns:
        (T,).
    """
    from scipy.stats import t

    sizes = counts.sum(axis=1)[0]
    runs, networks = sizes.sum(), len(sizes)
    # Kish's number of networks, which is K if all have as many runs.
    least = runs**2 / (sizes**2).sum()
    if networks == 1:
        return np.full(len(counts), least)
    if networks == runs:
        return np.full(len(counts), runs)
    shares = counts / sizes
    overall = counts.sum(axis=2, keepdims=True) / runs
    between = (sizes * (shares - overall) ** 2).sum(axis=(1, 2)) / (networks - 1)
    within = (sizes * shares * (1 - shares)).sum(axis=(1, 2)) / (runs - networks)
    usual = (runs - (sizes**2).sum() / runs) / (networks - 1)
    spread = between + (usual - 1) * within
    correlation = np.divide(between - within, spread, out=np.ones(len(counts)), where=spread > 0)
    differing = runs - counts.sum(axis=2).max(axis=1)
    correlation = (np.clip(correlation, 0, 1) * differing + 1) / (differing + 1)
    effect = 1 + (runs / least - 1) * correlation
    estimated = (t.ppf(1 - LEVEL / 2, runs - 1) / t.ppf(1 - LEVEL / 2, networks - 1)) ** 2
    return np.maximum(least, runs / effect * estimated)


# Paired scores


def mcnemar(first: Any, second: Any) -> float:
    """Two-sided p-value of McNemar's exact test: did one method succeed where the other failed?

    It takes every case for independent: where cases share networks, see :func:`paired_by_network`.

    Args:
        first, second: success of two methods on the same cases, boolean (cases,).

    Raises:
        InputError: there are no cases, something else than True and False, or two different lengths.

    >>> mcnemar(np.array([True] * 6), np.array([False] * 6))
    0.03125
    """
    from scipy.stats import binomtest

    one, two = _flags("first", first), _flags("second", second)
    if len(one) != len(two):
        raise InputError(f"second holds {len(two)} cases, but must hold as many as first, {len(one)}.")
    only_first = int((one & ~two).sum())
    only_second = int((~one & two).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


@dataclass(frozen=True)
class Paired:
    """The mean score of one method against another, with networks as units.

    Attributes:
        mean: over networks of their mean score, in [-1, 1].
        low, high: 95 % interval over networks.
        p: of the two-sided sign-flip test over networks.
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


PATTERNS = 9999
"""Sign patterns that are drawn where there are more."""


def least_p(networks: int) -> float:
    """The least p-value that the sign-flip test can give with so many networks.

    >>> least_p(5), least_p(6)
    (0.0625, 0.03125)
    """
    return 2 / (2**networks if 2**networks <= PATTERNS else PATTERNS + 1)


def paired_by_network(scores: Any, networks: Any) -> Paired:
    """Is the mean score of paired cases different from zero, if the cases of a network hang together?

    All sign patterns are tried while there are at most 9,999 (13 networks), otherwise a fixed random draw of
    them. The module says what the interval is, and how it agrees with the test.

    Args:
        scores: of every case 1 in favour of the first method, -1 of the second, 0 of neither, (cases,).
        networks: the network of every case, (cases,).

    Raises:
        InputError: there are no cases, another score, or not a network for each case.

    >>> result = paired_by_network(np.ones(6), np.arange(6))
    >>> result.p, result.text()
    (0.03125, '+1.00 [0.45, 1.00]')
    """
    points = _numbers("scores", scores)
    strange = points[~np.isin(points, (-1, 0, 1))]
    if len(strange):
        raise InputError(f"scores holds {strange[0]:g}, but must hold 1, 0 and -1 only.")
    codes = _networks(networks, len(points))
    sizes = np.bincount(codes)
    counts = _counts(np.stack((points > 0, points < 0, points == 0)), codes)
    means = (counts[0] - counts[1]) / sizes
    p, low, high = _sign_flips(means)
    gain, loss = (counts[:2] / sizes).mean(axis=1)
    least, most = _difference(gain, loss, _effective_runs(counts[None])[0])
    return Paired(float(means.mean()), min(low, least), max(high, most), p, len(sizes), len(points))


def _sign_flips(means: np.ndarray) -> tuple[float, float, float]:
    """The p-value of the sign-flip test, and the interval of scores that it does not reject, in [-1, 1].

    To flip the signs of a set of networks turns the sum by twice the sum over the set. So a pattern is as
    extreme as what was found if that sum is on the other side of zero, and the scores that are not rejected
    are those between two of the ordered means over sets of networks (Hartigan's typical values).
    """
    count = len(means)
    if 2**count <= PATTERNS:
        chosen = (np.arange(1, 2**count)[:, None] >> np.arange(count)) & 1 == 1
    else:
        chosen = np.random.default_rng(0).random((PATTERNS, count)) < 0.5
        chosen[~chosen.any(axis=1)] = True
    # Rounded, for a sum that is zero must not be taken for a positive one.
    typical = np.sort(np.round(chosen @ means / chosen.sum(axis=1), 12))
    patterns = len(typical) + 1  # with the one that flips nothing
    as_extreme = 1 + min((typical <= 0).sum(), (typical >= 0).sum())
    outside = int(LEVEL / 2 * patterns)
    low, high = (typical[outside - 1], typical[-outside]) if outside else (-1.0, 1.0)
    return float(min(1.0, 2 * as_extreme / patterns)), float(low), float(high)


def _difference(gain: float, loss: float, runs: float) -> tuple[float, float]:
    """Newcombe's interval of the difference of two shares of the same runs, in [-1, 1]."""
    shares = np.array((gain, loss))
    (gain_low, loss_low), (gain_high, loss_high) = _wilson(shares, np.full(2, runs))
    odds = shares / (1 - shares) if shares.max() < 1 else np.zeros(2)
    together = 2 * np.sqrt(odds.prod())  # twice the correlation of two outcomes that exclude each other
    down, up = (gain - gain_low, loss_high - loss), (gain_high - gain, loss - loss_low)
    lower, upper = (np.sqrt(a**2 + b**2 + together * a * b) for a, b in (down, up))
    return max(-1.0, float(gain - loss - lower)), min(1.0, float(gain - loss + upper))


def holm(p_values: Any, level: float) -> np.ndarray:
    """Which of several hypotheses are rejected at a family-wise level, by Holm's method; boolean (tests,).

    Raises:
        InputError: there are no p-values, one is not in [0, 1], or the level is not between 0 and 1.

    >>> holm(np.array([0.01, 0.04, 0.03]), 0.05)
    array([ True, False, False])
    """
    values = _numbers("p_values", p_values)
    outside = values[(values < 0) | (values > 1)]
    if len(outside):
        raise InputError(f"p_values holds {outside[0]:g}, but must hold numbers from 0 to 1.")
    if not isinstance(level, numbers.Real) or isinstance(level, bool) or not 0 < level < 1:
        raise InputError(f"level is {level!r}, but must be a number above 0 and below 1.")
    # As statsmodels' multipletests, which would collect garbage each time, a third of a second.
    order = values.argsort(kind="stable")
    small = values[order] <= level / np.arange(len(values), 0, -1)
    rejected = np.empty(len(values), dtype=bool)
    rejected[order] = np.logical_and.accumulate(small)
    return rejected


def quartiles(values: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower quartile, median and upper quartile over runs (axis 0); NaN counts as infinite.

    Raises:
        InputError: there are no runs, or something else than numbers.
    """
    filled = _numbers("values", values, missing=True, flat=False)
    # "lower" picks an order statistic, which infinities do not turn into NaN.
    low, middle, high = np.quantile(filled, (0.25, 0.5, 0.75), axis=0, method="lower")
    return low, middle, high


# What may enter


def _flags(name: str, values: Any) -> np.ndarray:
    """Values as booleans, (runs,), of which there must be some."""
    array = np.asarray(values)
    if array.dtype == object and array.size and all(isinstance(one, bool | np.bool_) for one in array.flat):
        array = array.astype(bool)
    _require_some(name, array)
    if array.dtype != bool:
        raise InputError(f"{name} holds {array.dtype}, but must hold True and False only.")
    return array


def _numbers(name: str, values: Any, *, missing: bool = False, flat: bool = True) -> np.ndarray:
    """Values as floats, of which there must be some; NaN becomes infinite if ``missing``, or is refused."""
    array = np.asarray(values)
    _require_some(name, array, flat=flat)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} holds {array.dtype}, but must hold numbers.")
    array = array.astype(float)
    if not missing and np.isnan(array).any():
        raise InputError(f"{name} holds NaN, but must hold numbers.")
    return np.where(np.isnan(array), np.inf, array)


def _require_some(name: str, array: np.ndarray, *, flat: bool = True) -> None:
    if array.ndim == 0 or not len(array) or (flat and array.ndim != 1):
        wanted = "one value for each run, and at least one" if flat else "at least one run"
        raise InputError(f"{name} has the shape {array.shape}, but must hold {wanted}.")


def _networks(networks: Any, runs: int) -> np.ndarray:
    """The network of each run as a number from 0 to K - 1, (runs,)."""
    if len(networks) != runs:
        raise InputError(
            f"networks holds {len(networks)} networks, but must hold one for each of {runs} runs."
        )
    import pandas as pd

    codes, _ = pd.factorize(np.asarray(networks))
    if (codes < 0).any():
        raise InputError("networks holds a missing value, but must hold a network for each run.")
    return codes
