"""Joins sections of a run to uncorrelated batches, and computes standard errors from these.

Each estimate states what every section of a run contributes to its error: deviations, which add up to 0. Neighbouring
sections of a busy queue are correlated, since requests that wait at the end of one section still wait in the next.
Sections are therefore joined until neighbouring batches are uncorrelated, and the scatter of the batches gives the
error (batch means: Schmeiser, 1982; the test: von Neumann, 1941).

Traffic with a profile also moves sections, but not by chance: the same day would do the same again. If batches stay
correlated however long they are, the part that follows the traffic is removed: first a smooth function of the section's
requests, then slow trends, by taking differences of neighbours (von Neumann's mean square successive difference). These
must be as negatively correlated as differences of independent batches are. The memory of a queue fails this test, since
it makes neighbours similar.

This needs traffic with a profile. A rate that is modulated at random moves sections, too, but the next run would have
another path: nothing of it is removed (`STEADY`), and batches are long against its cycles, or there are none. A result
knows its traffic. Where only frames are known, a profile is one if the requests change visibly and gradually
(`changes_gradually`): a day does, but a modulated rate jumps, and so do traffic in steps, whose intervals are then
withheld.

A test of neighbours misses a day that is only a few batches long, and the section's requests do not describe traffic
that changes within a section. Where the traffic is known block by block and changes smoothly, the part that follows it
is removed first, and each block of a section counts at its own rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri  # type: ignore[import-untyped]

from shadowsim.arrays import Floats

MIN_BATCHES, MAX_BATCHES = 10, 30  # Schmeiser (1982): more narrow an interval little, and leave correlation in it
_LEVEL_COUNTS = (MAX_BATCHES, 25, 20, 16, 13)  # batches tried without removing a trend
_TREND_COUNTS = (50, 100, 30)  # batches tried with it: of many, a trend changes little from one to the next
_DEGREE = 6  # of the polynomial in the traffic: a tail grows much faster than the load
_BLOCKS_PER_SECTION = (16, 8, 4, 2, 1)
_MAX_NOISE = 0.01  # share of the variance of the blocks' requests that may be due to chance
_MAX_JUMP = 0.25  # of the range, from a block to the next: seven days in a hundred sections change by 0.22
_MIN_SMOOTHNESS = 0.95  # correlation of neighbouring blocks; a randomly modulated rate reaches it only with few jumps


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """What is known of a side's traffic.

    Attributes
    ----------
    moments : ndarray of float64, or None
        Moments of traffic with a profile, from `traffic_moments`; None if they are unknown.
    is_steady : bool
        Whether the traffic has no profile.
    share_cv : float
        Coefficient of variation of the number of requests between choices of sessions, if whole sessions are copied.
    """

    moments: Floats | None = None
    is_steady: bool = False
    share_cv: float = 0.0


UNKNOWN, STEADY = Course(), Course(is_steady=True)


class Deviations(NamedTuple):
    """Contributions of the sections to an estimate's error, which add up to 0, and their requests."""

    sums: Floats
    n: Floats
    course: Course = UNKNOWN


@dataclass(frozen=True, slots=True)
class Batches:
    """A way to join sections.

    Attributes
    ----------
    n : int
        Number of batches.
    trend : bool
        Whether the part that follows the traffic is removed.
    """

    n: int
    trend: bool = False

    def __str__(self) -> str:
        return f"{self.n} groups" + (", traffic's trend removed" if self.trend else "")

    def error(self, deviations: Deviations) -> tuple[float, float]:
        """Return the standard error of the sum of the sections, and its degrees of freedom for Student's t.

        The degrees are Satterthwaite's (1946): twice the square of the variance over the variance of its estimate. The
        latter grows with the batches' kurtosis (Box, 1953): with k = sum Z^4 / (sum Z^2)^2, the degrees are
        2 / (k - 1 / n), which is n - 1 to first order for normal batches, and much less if a few batches hold most of
        the scatter. For differences they are 2 / k, which is two thirds of n - 1 for normal batches.
        """
        x = self.scatter(deviations)
        squares = float(x @ x)
        if extra := _of_sessions(deviations):
            error, df = self.error(deviations._replace(course=replace(deviations.course, share_cv=0.0)))
            return math.hypot(error, extra), df
        most = (self.n - 1.0) * (2.0 / 3.0 if self.trend else 1.0)
        if squares <= 0.0:
            return 0.0, most
        excess = float((x**4).sum()) / squares**2 - (0.0 if self.trend else 1.0 / self.n)
        return math.sqrt(squares), min(most, 2.0 / excess if excess > 0.0 else most)

    def skewness(self, deviations: Deviations) -> float:
        """Return the skewness of the sum, from the third moment of the batches; of a trend, from what remains."""
        x = _batch_sums(_detrended(deviations) if self.trend else deviations.sums, self.n)
        x = x - x.mean()
        squares = float(x @ x)
        if squares <= 0.0:
            return 0.0
        n = float(self.n)
        third = n * n / ((n - 1.0) * (n - 2.0)) * float((x**3).sum())  # unbiased
        return float(third / (squares * n / (n - 1.0)) ** 1.5)

    def correlation(self, source: Deviations, shadow: Deviations) -> float:
        """Return the correlation of the errors of two series."""
        x, y = self.scatter(source), self.scatter(shadow)
        scale = math.hypot(*x, _of_sessions(source)) * math.hypot(*y, _of_sessions(shadow))
        return float(x @ y) / scale if scale > 0.0 else 0.0

    def scatter(self, deviations: Deviations) -> Floats:
        """Return terms whose squares add up to the variance of the sum."""
        scale = self.n / (self.n - 1.0)
        if self.trend:
            return np.diff(_batch_sums(_detrended(deviations), self.n)) * math.sqrt(0.5 * scale)
        return _batch_sums(deviations.sums, self.n) * math.sqrt(scale)


def uncorrelated_batches(*deviations: Deviations) -> Batches | None:
    """Join sections to as many batches as possible such that neighbouring ones are uncorrelated in every series.

    The test is at 20 %, since correlation that a stricter test misses makes intervals too narrow; at 10 % for the
    smallest number of batches, after which there is no other. Differences of independent batches have correlation -1/2,
    with standard error sqrt(1/2 / n) (Bartlett, 1946). Where the traffic's moments are known, its trend is removed
    first, if necessary with a test at 5 %, since batches that contain it say nothing; n in the standard error is then
    the number of normal batches of the same kurtosis. Traffic without a profile has none to remove.

    Returns
    -------
    Batches or None
        None if all are correlated, or there are fewer than `MIN_BATCHES` sections.
    """
    size = min(d.sums.size for d in deviations)

    def independent(n: int, level: float) -> bool:
        limit = ndtri(1.0 - level) / math.sqrt(n)
        return n <= size and all(_lag_1(_batch_sums(d.sums, n)) <= limit for d in deviations)

    def with_trend() -> Batches | None:
        return next((Batches(n) for n in _LEVEL_COUNTS if independent(n, 0.2)), None)

    def without_trend(level: float) -> Batches | None:
        detrended = [_detrended(d) for d in deviations] if size >= _TREND_COUNTS[-1] else []
        for n in _TREND_COUNTS:
            sums = [_batch_sums(x, n) for x in detrended] if n <= size else []
            n_effective = [_n_normal(x) if known else n for x in sums]
            limits = [-0.5 + ndtri(1.0 - level) * math.sqrt(0.5 / m) for m in n_effective]
            if sums and all(_lag_1(np.diff(x)) <= limit for x, limit in zip(sums, limits, strict=True)):
                return Batches(n, trend=True)
        return None

    known = any(d.course.moments is not None for d in deviations)
    steady = any(d.course.is_steady for d in deviations)
    if known and (batches := without_trend(0.2) or without_trend(0.05)):
        return batches
    if batches := with_trend() or (None if known or steady else without_trend(0.2)):
        return batches
    return Batches(MIN_BATCHES) if independent(MIN_BATCHES, 0.1) else None


def traffic_moments(requests: Floats, n_sections: int) -> Floats | None:
    """Return the moments of the traffic of each section, if it follows a profile.

    A section's deviation is expected to be the sum over its blocks of n f(z), with z the block's standardised requests
    and f a polynomial, whose coefficients multiply the sums of n z^j.

    Parameters
    ----------
    requests : ndarray of float64, shape (windows,)
        Window w of W is in section w n_sections // W.
    n_sections : int

    Returns
    -------
    ndarray of float64, shape (sections, degree + 1), or None
        Highest power first. None if the traffic does not change smoothly by far more than chance explains: then only
        the section's requests are known to matter.
    """
    blocks = _course(requests, n_sections)
    if blocks is None or _lag_1(blocks.rate) < _MIN_SMOOTHNESS:
        return None
    n, rate, _ = blocks
    powers = np.vander((rate - rate.mean()) / rate.std(), _DEGREE + 1)
    moments: Floats = (powers * n[:, None]).reshape(n_sections, n.size // n_sections, -1).sum(axis=1)
    return moments


def changes_gradually(requests: Floats, n_sections: int) -> bool:
    """Return whether the traffic changes by far more than chance explains, and without jumps.

    A jump is a change by more than a quarter of the range from a block to the next, after what chance allows.

    Parameters
    ----------
    requests : ndarray of float64, shape (windows,)
    n_sections : int
    """
    blocks = _course(requests, n_sections)
    if blocks is None:
        return False
    _, rate, noise = blocks
    chance = math.sqrt(2.0) * noise * float(ndtri(1.0 - 0.5 / rate.size))  # the greatest difference of so many
    return bool(np.abs(np.diff(rate)).max() <= _MAX_JUMP * np.ptp(rate) + chance)


class _Blocks(NamedTuple):
    """Requests and rate per window of blocks of windows, and the standard error of a rate if arrivals are Poisson."""

    n: Floats
    rate: Floats
    noise: float


def _course(requests: Floats, n_sections: int) -> _Blocks | None:
    """Return the smallest blocks that show how the traffic changes; None if chance explains its changes."""
    window = np.arange(requests.size)
    for per_section in _BLOCKS_PER_SECTION:
        n_blocks = n_sections * per_section
        if n_blocks > requests.size:
            continue
        block = window * n_blocks // requests.size
        n, windows = (np.bincount(block, x, n_blocks).astype(np.float64) for x in (requests, np.ones(requests.size)))
        rate = n / windows  # blocks may differ by a window
        variance = float(np.mean(n / windows**2))
        if variance < _MAX_NOISE * float(rate.std()) ** 2:
            return _Blocks(n, rate, math.sqrt(variance))
    return None


def _detrended(deviations: Deviations) -> Floats:
    """Return deviations less a polynomial in the traffic, fitted per request.

    Without moments of the traffic, the polynomial is in the section's requests.
    """
    sums, n, moments = deviations.sums, deviations.n, deviations.course.moments
    if moments is not None:
        scale = np.divide(1.0, np.sqrt(n), out=np.zeros(n.size), where=n > 0.0)
        explained: Floats = moments @ np.linalg.lstsq(moments * scale[:, None], sums * scale, rcond=None)[0]
        free = max(n.size - _DEGREE - 1, 1)  # each coefficient removes the scatter of a section
        return (sums - explained) * math.sqrt(n.size / free)
    spread = float(n.std())
    if not spread > 0.0:
        return sums
    powers = np.vander((n - n.mean()) / spread, _DEGREE + 1)
    weight = np.sqrt(n)
    share = np.divide(sums, n, out=np.zeros(n.size), where=n > 0.0)
    coefficients = np.linalg.lstsq(powers * weight[:, None], share * weight, rcond=None)[0]
    residuals: Floats = sums - powers @ coefficients * n
    return residuals


def _of_sessions(deviations: Deviations) -> float:
    """Return the standard error of the sum that is due to the choice of the sessions that are copied.

    Their number of requests varies, and so does the load of the pool that gets them. The sections tell how deviations
    change with the requests: by the slope of a straight line through them.
    """
    cv, n = deviations.course.share_cv, deviations.n - deviations.n.mean()
    squares = float(n @ n)
    return abs(float(n @ deviations.sums)) / squares * cv * float(deviations.n.sum()) if squares > 0.0 and cv else 0.0


def _n_normal(x: Floats) -> float:
    """Return how many normal numbers of equal variance have this kurtosis; a day's peak hours hold most scatter."""
    fourth = float((x**4).sum())
    return min(3.0 * float(x @ x) ** 2 / fourth, x.size) if fourth > 0.0 else x.size


def _batch_sums(deviations: Floats, n: int) -> Floats:
    sums: Floats = np.add.reduceat(deviations, np.arange(n) * deviations.size // n)
    return sums


def _lag_1(x: Floats) -> float:
    """Return the correlation of neighbours; that of differences of independent numbers if all are equal."""
    d = x - x.mean()
    total = d @ d
    return float(d[1:] @ d[:-1] / total) if total > 0.0 else -0.5
