"""Estimates means, quantiles and shares with intervals that allow for correlated requests.

Latencies that are close in time are similar in size, so that a run of a million requests may determine its p99 no
better than a few thousand independent ones would. Requests are therefore never taken as independent: a run is cut into
sections, each estimate states what every section contributes to its error, and the scatter of batches of sections is
that error (batch_means.py; Asmussen and Glynn, Stochastic Simulation, 2007, III.4-5).

* The interval of a quantile is computed on the scale of probability, from the number of answers beyond the quantile in
  each batch, and read back through the run's own distribution: it is as asymmetric as the tail, and needs no estimate
  of the density.
* Two variants share their arrivals, so that their errors are correlated: the interval of their difference is composed
  of both intervals and the correlation of their batches (Zou and Donner, 2008).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.statistics.batch_means import UNKNOWN, Batches, Course, Deviations, uncorrelated_batches
from shadowsim.statistics.samples import Sample, Values

FEW_HITS = 30  # with fewer, their scatter says nothing
_MAX_LAGS = 1 << 16
_MOST_SHIFT = 0.5  # of the critical value


class Estimate(NamedTuple):
    """A value with its interval, the number of requests, and the effective sample size.

    `skew_low` and `skew_high` are how much further away the ends are because of skewness.
    """

    value: float
    low: float
    high: float
    n: int
    n_eff: float
    skew_low: float = 0.0
    skew_high: float = 0.0

    def widths(self, rho: float) -> tuple[float, float]:
        """Return how far the ends are below and above, as far as another estimate's error does not cancel skewness."""
        kept = min(max(rho, 0.0), 1.0)
        return self.value - self.low - kept * self.skew_low, self.high - self.value - kept * self.skew_high


def critical(alpha: float, df: float) -> float:
    """Return Student's two-sided critical value at level alpha."""
    return float(stdtrit(df, 1.0 - 0.5 * alpha))


def skewed(critical: float, skewness: float) -> tuple[float, float]:
    """Return how many standard errors an interval reaches below and above an estimate with a skewed distribution.

    A run that happens to lack its rare long queues has a low estimate and a small standard error: symmetric intervals
    then lie below the truth too often. The longer end is further away by skewness (2 z^2 + 1) / 6 (Johnson, 1978;
    Hall, 1992), at most by half; the shorter end is left alone, since the skewness of a few batches is uncertain.
    """
    shift = min(abs(skewness) * (2.0 * critical * critical + 1.0) / 6.0, _MOST_SHIFT * critical)
    return (critical, critical + shift) if skewness > 0.0 else (critical + shift, critical)


def autocorrelation_time(x: Floats) -> float:
    """Return how many neighbours in a stationary series count as one independent value, at least 1.

    Twice the sum of the autocorrelations of lags 0, 1, ... less that of lag 0. The sum ends by Geyer's (1992,
    section 3.3) initial monotone sequence: it takes sums of neighbouring pairs while they are positive, none larger
    than the one before.
    """
    d = x - x.mean()
    lags = min(x.size, _MAX_LAGS) // 2 * 2
    if lags < 2 or not d.any():
        return 1.0
    size = 1 << (2 * x.size - 1).bit_length()  # padding keeps the end from wrapping round to the start
    covariance = np.fft.irfft(np.abs(np.fft.rfft(d, size)) ** 2)[:lags]
    pairs = covariance.reshape(-1, 2).sum(axis=1) / covariance[0]
    ends = np.flatnonzero(pairs <= 0.0)
    kept = np.minimum.accumulate(pairs[: ends[0] if ends.size else None])
    return max(float(2.0 * kept.sum() - 1.0), 1.0)


def beyond(sample: Sample, p: float, course: Course = UNKNOWN) -> Deviations:
    """Return the deviations of the quantile at p: answers beyond it in each section, less the expected number.

    `course` is that of the side's traffic.
    """
    return Deviations(sample.beyond(p), sample.n_by_section, course)


def n_effective(sample: Sample, p: float, batches: Batches | None = None, course: Course = UNKNOWN) -> float:
    """Return the effective sample size at the quantile at p, at most the number of requests.

    That many independent requests would determine the quantile as well: p (1 - p) over the variance of the share beyond
    it. The variance comes from the batches, by default `uncorrelated_batches`, and the size is 0 if there are none; for
    values in order it comes from the autocorrelation, unless they follow a trend.
    """
    deviations = beyond(sample, p, course)
    batches = batches or uncorrelated_batches(deviations)
    if isinstance(sample, Values) and not (batches and batches.trend):
        return sample.n / autocorrelation_time(sample.indicator(p))
    return _n_effective(p * (1.0 - p), sample.n, batches.error(deviations)[0]) if batches else 0.0


def quantile(
    sample: Sample,
    p: float,
    batches: Batches,
    alpha: float,
    course: Course = UNKNOWN,
    max_n_eff: float | None = None,
) -> Estimate:
    """Return the quantile at p, with its interval at level alpha.

    The error is that of `n_effective`, with the batches' degrees of freedom, and with an effective sample size of at
    most `max_n_eff`: a run that lacks its rare long queues seems to have more independent answers in the tail than it
    has at the median. An end of the interval beyond the smallest or the greatest answer is NaN.
    """
    error, df = batches.error(beyond(sample, p, course))
    n_eff = min(n_effective(sample, p, batches, course), math.inf if max_n_eff is None else max_n_eff)
    scale = math.sqrt(p * (1.0 - p) / n_eff) if error else 0.0
    plain = critical(alpha, df)
    below, above = skewed(plain, batches.skewness(beyond(sample, p, course)))
    depths = [p - below * scale, p - plain * scale, p + plain * scale, p + above * scale]
    depths[0] = max(depths[0], 0.5 * depths[1])  # skewness leads no further than half way to the last answer
    depths[3] = min(depths[3], 0.5 * (depths[2] + 1.0))
    low, least, most, high = (sample.quantile(x) if 0.0 < x < 1.0 else math.nan for x in depths)
    return Estimate(sample.quantile(p), low, high, sample.n, n_eff, least - low, high - most)


def mean(
    total: Floats, n: Floats, variance: float, batches: Batches, alpha: float, course: Course = UNKNOWN
) -> Estimate:
    """Return the mean over requests, from each section's sum and number, with its interval at level alpha.

    `variance` is that of single requests, for n_eff; NaN if unknown.
    """
    n_all = n.sum()
    value = float(total.sum() / n_all)
    error, df = batches.error(Deviations(total - value * n, n, course))
    plain, scale = critical(alpha, df), error / n_all
    below, above = (x * scale for x in skewed(plain, batches.skewness(Deviations(total - value * n, n, course))))
    n_eff, half = _n_effective(variance, int(n_all), error), plain * scale
    return Estimate(value, value - below, value + above, int(n_all), n_eff, below - half, above - half)


def share(
    hits: Floats,
    n: Floats,
    max_n_eff: float,
    batches: Batches | None,
    alpha: float,
    course: Course = UNKNOWN,
    of_tail: bool = False,
) -> Estimate:
    """Return the share of requests that are hits, with Wilson's interval (1927) at the effective sample size.

    Wilson's also holds for few hits or none, when the batches' scatter says nothing: with fewer than `FEW_HITS` the
    effective sample size is at most `max_n_eff`, that of the run's latencies. A share of a tail of these is limited by
    it whatever the number of hits, as `quantile` is.
    """
    n_all, n_hits = n.sum(), hits.sum()
    value = float(n_hits / n_all)
    error, df = batches.error(Deviations(hits - value * n, n, course)) if batches else (0.0, math.inf)
    n_eff = _n_effective(value * (1.0 - value), int(n_all), error)
    if n_hits < FEW_HITS or batches is None:
        n_eff, df = min(n_eff, max_n_eff), math.inf
    if of_tail:
        n_eff = min(n_eff, max_n_eff)
    if n_eff <= 0.0:
        return Estimate(value, math.nan, math.nan, int(n_all), 0.0)
    c = critical(alpha, df) ** 2 / n_eff
    middle = value + 0.5 * c
    half = math.sqrt(value * (1.0 - value) * c + 0.25 * c * c)
    return Estimate(value, max(0.0, (middle - half) / (1.0 + c)), (middle + half) / (1.0 + c), int(n_all), n_eff)


def _n_effective(variance: float, n: int, error: float) -> float:
    """Return how many independent requests of a variance have a sum with this standard error, at most n."""
    if math.isnan(variance):
        return math.nan
    return min(float(n), variance * (n / error) ** 2) if error > 0.0 else float(n)


def error_of_mean(values: Floats) -> Floats:
    """Return the standard errors of means over independent runs, by the runs' scatter.

    Parameters
    ----------
    values : ndarray of float64, shape (runs, figures)
        Of at least two runs.
    """
    return np.asarray(values.std(axis=0, ddof=1) / math.sqrt(len(values)), np.float64)


def difference(source: Estimate, shadow: Estimate, rho: float) -> tuple[float, float]:
    """Return the interval of shadow minus source from both intervals (Zou and Donner, 2008, with correlated errors)."""
    d = shadow.value - source.value
    (below, above), (under, over) = shadow.widths(rho), source.widths(rho)
    return d - _half_width(below, over, rho), d + _half_width(above, under, rho)


def _half_width(a: float, b: float, rho: float) -> float:
    return math.sqrt(max(a * a + b * b - 2.0 * rho * a * b, 0.0))


def ratio(source: Estimate, shadow: Estimate, rho: float) -> tuple[float, float]:
    """Return the interval of shadow over source: the ratios r for which the interval of shadow - r source contains 0.

    Donner and Zou (2012) with correlated errors; the interval lies above 1 if and only if `difference` lies above 0.
    """
    x, y = source.value, shadow.value
    if not x > 0.0:
        return math.nan, math.nan
    (below, above), (under, over) = shadow.widths(rho), source.widths(rho)
    low, _ = _ratios(x, y, over, below, rho)
    _, high = _ratios(x, y, under, above, rho)
    return low, high


def _ratios(x: float, y: float, b: float, a: float, rho: float) -> tuple[float, float]:
    """Return both r with (y - r x)^2 = a^2 + r^2 b^2 - 2 rho r a b, without cancellation; infinity for no end."""
    square, middle, rest = x * x - b * b, x * y - rho * a * b, y * y - a * a
    top = middle + math.sqrt(max(middle * middle - square * rest, 0.0))
    return (rest / top if top > 0.0 else 0.0), (top / square if square > 0.0 else math.inf)
