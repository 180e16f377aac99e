"""Estimates whose errors know that requests wait for each other.

Latencies that lie close together in time lie close together in size, too, so a run of a million requests may say no
more about its p99 than a few thousand independent ones would. Nothing here therefore takes requests for independent.
A run is cut into sections; every estimate says what each section contributes to its error, in deviations that add up
to nothing; sections are joined to groups until neighbours no longer move together; and the scatter of the groups is
the error (sectioning: Asmussen and Glynn, Stochastic Simulation, 2007, III.4-5; batch means: Schmeiser, 1982).

* A quantile's interval is had on the scale of probability, from the number of answers beyond it in each group, and
  read back through the run's own distribution: it is as lopsided as the tail is, and no density is estimated.
* Few groups that hold most of the scatter (a few bursts make a p99) say less than as many equal ones. Student's
  degrees of freedom are therefore taken from the groups' kurtosis, never more than one less than the groups.
* Two variants share their arrivals, so their errors move together: the interval of their difference is put together
  from both intervals and the correlation of their groups (Zou and Donner, 2008).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit  # type: ignore[import-untyped]

from shadowsim.samples import Floats, Sample, Values

LEAST_GROUPS, MOST_GROUPS = 10, 30  # Schmeiser (1982): more narrow an interval little, and leave correlation in it
_GROUPS = (MOST_GROUPS, 25, 20, 16, 13, LEAST_GROUPS)
_LAGS = 1 << 16  # how far autocorrelation is followed at most


class Estimate(NamedTuple):
    """A value, its interval, and what both rest on: requests, and how many independent ones these are worth."""

    value: float
    low: float
    high: float
    n: int
    n_eff: float


def grouped(deviations: Floats, n: int) -> Floats:
    """Sums over n groups of neighbouring sections, as even as can be."""
    return np.add.reduceat(deviations, np.arange(n) * deviations.size // n)


def choose_groups(*deviations: Floats) -> int | None:
    """Return into how many groups sections must be joined for no series to be correlated from group to group.

    Groups are made fewer until the lag-1 correlation of no series is significant (a test equal to von Neumann's ratio,
    1941): at a level of 20 %, since what a stricter test overlooks makes intervals too narrow; at 5 % for the fewest
    groups, after which there are no data at all.

    Returns
    -------
    int or None
        Between `LEAST_GROUPS` and `MOST_GROUPS`; None when even the fewest are correlated, or there are fewer sections.
    """
    size = min(d.size for d in deviations)
    for n in _GROUPS:
        limit = ndtri(0.95 if n == LEAST_GROUPS else 0.8) / math.sqrt(n)
        if n <= size and all(_lag_1(grouped(d, n)) <= limit for d in deviations):
            return n
    return None


def _lag_1(x: Floats) -> float:
    d = x - x.mean()
    total = d @ d
    return float(d[1:] @ d[:-1] / total) if total > 0 else 0.0


def spread(groups: Floats) -> tuple[float, float]:
    """Standard error of a sum of independent groups whose expected sum is 0, and its degrees of freedom.

    The variance of an estimated variance is (kurtosis - 1 + 2 / (n - 1)) / n of its square to first order, which is
    that of n - 1 degrees of freedom for a kurtosis of 3 (Box, 1953). Satterthwaite's (1946) degrees of freedom, twice
    the square over the variance, are 2 / (sum Z^4 / (sum Z^2)^2 - 1 / n).
    """
    n = groups.size
    squares = float(groups @ groups)
    if squares <= 0.0:
        return 0.0, n - 1.0
    excess = float((groups**4).sum()) / squares**2 - 1.0 / n
    return math.sqrt(squares * n / (n - 1.0)), min(n - 1.0, 2.0 / excess if excess > 0 else n - 1.0)


def critical(alpha: float, df: float) -> float:
    """Student's two-sided critical value at level alpha."""
    return float(stdtrit(df, 1.0 - 0.5 * alpha))


def autocorrelation_time(x: Floats) -> float:
    """How many neighbours in a stationary series are worth one independent value, at least 1.

    Twice the sum of the autocorrelations of lags 0, 1, ... less that of lag 0, the sum ended by Geyer's (1992,
    section 3.3) initial monotone sequence: sums of neighbouring pairs while they are positive, none larger than the one
    before.
    """
    d = x - x.mean()
    lags = min(x.size, _LAGS) // 2 * 2
    if lags < 2 or not d.any():
        return 1.0
    size = 1 << (2 * x.size - 1).bit_length()  # padded, so that the end does not meet the start
    covariance = np.fft.irfft(np.abs(np.fft.rfft(d, size)) ** 2)[:lags]
    pairs = covariance.reshape(-1, 2).sum(axis=1) / covariance[0]
    ends = np.flatnonzero(pairs <= 0.0)
    kept = np.minimum.accumulate(pairs[: ends[0] if ends.size else None])
    return max(float(2.0 * kept.sum() - 1.0), 1.0)


def n_effective(sample: Sample, p: float, n_groups: int | None = None) -> float:
    """How many independent requests would place the quantile at p as well, at most as many as there are.

    p (1 - p) over the variance of the share beyond it: by autocorrelation for values in order, else by groups, as many
    as are given or as `choose_groups` finds; 0 when it finds none.
    """
    if isinstance(sample, Values):
        return sample.n / autocorrelation_time(sample.indicator(p))
    deviations = sample.beyond(p)
    n = n_groups or choose_groups(deviations)
    return _worth(p * (1.0 - p), sample.n, spread(grouped(deviations, n))[0]) if n else 0.0


def quantile(sample: Sample, p: float, n_groups: int, alpha: float) -> Estimate:
    """Quantile at p, with its interval at level alpha.

    For values in order the error is that of `autocorrelation_time`, else that of the groups; the degrees of freedom
    are the groups' either way. An interval that reaches beyond the least or the greatest answer has no such end (NaN).
    """
    error, df = spread(grouped(sample.beyond(p), n_groups))
    n_eff = n_effective(sample, p) if isinstance(sample, Values) else _worth(p * (1.0 - p), sample.n, error)
    half = critical(alpha, df) * math.sqrt(p * (1.0 - p) / n_eff) if error else 0.0
    low = sample.quantile(p - half) if p - half > 0.0 else math.nan
    high = sample.quantile(p + half) if p + half < 1.0 else math.nan
    return Estimate(sample.quantile(p), low, high, sample.n, n_eff)


def mean(total: Floats, n: Floats, variance: float, n_groups: int, alpha: float) -> Estimate:
    """Mean over requests, from each section's sum and number, with its interval at level alpha.

    `variance` is that of single requests, NaN where it is not known; n_eff needs it.
    """
    whole = n.sum()
    value = float(total.sum() / whole)
    error, df = spread(grouped(total - value * n, n_groups))
    half = critical(alpha, df) * error / whole
    return Estimate(value, value - half, value + half, int(whole), _worth(variance, int(whole), error))


def share(hits: Floats, n: Floats, worth: float, n_groups: int | None, alpha: float) -> Estimate:
    """Share of requests of a kind, with Wilson's interval (1927) at the number of independent requests.

    Wilson's holds for few hits and none, where the groups' scatter says nothing: below 30 hits at most `worth`
    independent requests are taken for granted, what the run's latencies are worth.
    """
    whole, some = n.sum(), hits.sum()
    value = float(some / whole)
    error, df = spread(grouped(hits - value * n, n_groups)) if n_groups else (0.0, math.inf)
    n_eff = _worth(value * (1.0 - value), int(whole), error)
    if some < 30 or n_groups is None:
        n_eff, df = min(n_eff, worth), math.inf
    if n_eff <= 0.0:
        return Estimate(value, math.nan, math.nan, int(whole), 0.0)
    c = critical(alpha, df) ** 2 / n_eff
    middle = value + 0.5 * c
    half = math.sqrt(value * (1.0 - value) * c + 0.25 * c * c)
    return Estimate(value, max(0.0, (middle - half) / (1.0 + c)), (middle + half) / (1.0 + c), int(whole), n_eff)


def _worth(variance: float, n: int, error: float) -> float:
    """How many independent requests of this variance would have this standard error of their sum, at most n."""
    if math.isnan(variance):
        return math.nan
    return min(float(n), variance * (n / error) ** 2) if error > 0.0 else float(n)


def correlation(source: Floats, shadow: Floats) -> float:
    """Correlation of two series that sum to 0."""
    scale = math.sqrt(float(source @ source) * float(shadow @ shadow))
    return float(source @ shadow) / scale if scale > 0.0 else 0.0


def difference(source: Estimate, shadow: Estimate, rho: float) -> tuple[float, float]:
    """Interval of shadow minus source from both intervals (Zou and Donner, 2008, with correlated errors)."""
    d = shadow.value - source.value
    below, above = shadow.value - shadow.low, shadow.high - shadow.value
    under, over = source.value - source.low, source.high - source.value
    return d - _joined(below, over, rho), d + _joined(above, under, rho)


def _joined(a: float, b: float, rho: float) -> float:
    return math.sqrt(max(a * a + b * b - 2.0 * rho * a * b, 0.0))


def ratio(source: Estimate, shadow: Estimate, rho: float) -> tuple[float, float]:
    """Interval of shadow over source: the ratios r for which the interval of shadow - r source holds 0.

    Donner and Zou (2012) with the correlation of the errors; it lies above 1 when `difference` lies above 0.
    """
    x, y = source.value, shadow.value
    if not x > 0.0:
        return math.nan, math.nan
    low, _ = _ratios(x, y, source.high - x, y - shadow.low, rho)
    _, high = _ratios(x, y, x - source.low, shadow.high - y, rho)
    return low, high


def _ratios(x: float, y: float, b: float, a: float, rho: float) -> tuple[float, float]:
    """Both r with (y - r x)^2 = a^2 + r^2 b^2 - 2 rho r a b, written so that nothing cancels; no end as infinity."""
    square, middle, rest = x * x - b * b, x * y - rho * a * b, y * y - a * a
    top = middle + math.sqrt(max(middle * middle - square * rest, 0.0))
    return (rest / top if top > 0.0 else 0.0), (top / square if square > 0.0 else math.inf)
