"""Estimates whose errors know that requests wait for each other.

Latencies that lie close together in time lie close together in size, too, so a run of a million requests may say no
more about its p99 than a few thousand independent ones would. Nothing here therefore takes requests for independent.
A run is cut into sections; every estimate says what each section contributes to its error; and the scatter of
batches of sections is that error (batches.py; Asmussen and Glynn, Stochastic Simulation, 2007, III.4-5).

* A quantile's interval is had on the scale of probability, from the number of answers beyond it in each batch, and
  read back through the run's own distribution: it is as lopsided as the tail is, and no density is estimated.
* Two variants share their arrivals, so their errors move together: the interval of their difference is put together
  from both intervals and the correlation of their batches (Zou and Donner, 2008).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.statistics.batch_means import Batches, Deviations, choose
from shadowsim.statistics.samples import Sample, Values

FEW_HITS = 30  # below it the scatter of hits says nothing
_LAGS = 1 << 16  # how far autocorrelation is followed at most


class Estimate(NamedTuple):
    """A value, its interval, and what both rest on: requests, and how many independent ones these are worth."""

    value: float
    low: float
    high: float
    n: int
    n_eff: float


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


def beyond(sample: Sample, p: float, moments: Floats | None = None) -> Deviations:
    """How the answers beyond the quantile at p are spread over the sections; `moments` are those of `Deviations`."""
    return Deviations(sample.beyond(p), sample.n_by_section, moments)


def n_effective(sample: Sample, p: float, batches: Batches | None = None, moments: Floats | None = None) -> float:
    """How many independent requests would place the quantile at p as well, at most as many as there are.

    p (1 - p) over the variance of the share beyond it, by the batches that are given or as `batches.choose` finds them,
    0 when it finds none; for values in order by autocorrelation, unless they follow a trend.
    """
    deviations = beyond(sample, p, moments)
    batches = batches or choose(deviations)
    if isinstance(sample, Values) and not (batches and batches.trend):
        return sample.n / autocorrelation_time(sample.indicator(p))
    return _worth(p * (1.0 - p), sample.n, batches.error(deviations)[0]) if batches else 0.0


def quantile(sample: Sample, p: float, batches: Batches, alpha: float, moments: Floats | None = None) -> Estimate:
    """Quantile at p, with its interval at level alpha.

    The error is that of `n_effective`, the degrees of freedom are the batches'. An interval that reaches beyond the
    least or the greatest answer has no such end (NaN).
    """
    error, df = batches.error(beyond(sample, p, moments))
    n_eff = n_effective(sample, p, batches, moments)
    half = critical(alpha, df) * math.sqrt(p * (1.0 - p) / n_eff) if error else 0.0
    low = sample.quantile(p - half) if p - half > 0.0 else math.nan
    high = sample.quantile(p + half) if p + half < 1.0 else math.nan
    return Estimate(sample.quantile(p), low, high, sample.n, n_eff)


def mean(
    total: Floats, n: Floats, variance: float, batches: Batches, alpha: float, moments: Floats | None = None
) -> Estimate:
    """Mean over requests, from each section's sum and number, with its interval at level alpha.

    `variance` is that of single requests, NaN where it is not known; n_eff needs it.
    """
    whole = n.sum()
    value = float(total.sum() / whole)
    error, df = batches.error(Deviations(total - value * n, n, moments))
    half = critical(alpha, df) * error / whole
    return Estimate(value, value - half, value + half, int(whole), _worth(variance, int(whole), error))


def share(
    hits: Floats, n: Floats, worth: float, batches: Batches | None, alpha: float, moments: Floats | None = None
) -> Estimate:
    """Share of requests of a kind, with Wilson's interval (1927) at the number of independent requests.

    Wilson's holds for few hits and none, where the batches' scatter says nothing: below `FEW_HITS` at most `worth`
    independent requests are taken for granted, what the run's latencies are worth.
    """
    whole, some = n.sum(), hits.sum()
    value = float(some / whole)
    error, df = batches.error(Deviations(hits - value * n, n, moments)) if batches else (0.0, math.inf)
    n_eff = _worth(value * (1.0 - value), int(whole), error)
    if some < FEW_HITS or batches is None:
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
