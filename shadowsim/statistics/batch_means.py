"""Sections joined to batches that no longer move together, and how far their sum may be off.

Every estimate here says what each section of a run contributes to its error: deviations, which add up to 0. Sections
of a busy queue move together, since what waits at the end of one still waits in the next. They are joined until
neighbours are uncorrelated, and the scatter of these batches is the error (batch means: Schmeiser, 1982; von Neumann,
1941, for the test).

Traffic with a profile moves sections, too, but that is no chance: the same day would do the same again. Where batches
stay correlated however long they are, what follows the traffic is taken out: a smooth function of the requests of a
section, and then what is left of a slow trend, by differences of neighbours (von Neumann's mean square successive
difference). These must be as negatively correlated as differences of independent batches are. A queue's memory does
not pass this test, since it makes neighbours alike.

A day that is a few batches long hides from a test of neighbours, and traffic that changes within a section is not told
by the section's requests. Where it is known block by block, and changes smoothly, what follows it is taken out first,
and each block of a section counts at its own rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri  # type: ignore[import-untyped]

from shadowsim.arrays import Floats

LEAST, MOST = 10, 30  # Schmeiser (1982): more batches narrow an interval little, and leave correlation in it
_LEVEL = (MOST, 25, 20, 16, 13)
_TREND = (50, 100, 30)  # many: the more there are, the less does a trend change from one to the next
_DEGREE = 6  # of the polynomial that follows the traffic: a tail grows with load far faster than in proportion
_BLOCKS = (16, 8, 4, 2, 1)  # of a section
_NOISE = 0.01  # of the variance of the blocks' requests, what may be due to chance
_SMOOTH = 0.95  # correlation of neighbouring blocks; modulation at random has it only when hardly ever modulated


class Deviations(NamedTuple):
    """What each section adds to an estimate's error, in a sum that is 0, and its requests: shape (sections,) each.

    `moments` are those of its traffic, as `traffic_moments` finds them.
    """

    sums: Floats
    n: Floats
    moments: Floats | None = None


@dataclass(frozen=True, slots=True)
class Batches:
    """How sections are joined.

    Attributes
    ----------
    n : int
        Into how many batches.
    trend : bool
        Whether what follows the traffic is taken out.
    """

    n: int
    trend: bool = False

    def __str__(self) -> str:
        return f"{self.n} groups" + (", traffic's trend removed" if self.trend else "")

    def error(self, deviations: Deviations) -> tuple[float, float]:
        """Standard error of the sum of the sections, and Student's degrees of freedom for it.

        Satterthwaite's (1946): twice the square of the variance over the variance of its estimate. The latter grows
        with the batches' kurtosis (Box, 1953): with k = sum Z^4 / (sum Z^2)^2, the degrees are 2 / (k - 1 / n), which
        is n - 1 to first order for normal batches, and far fewer where a few of them hold most of the scatter. For
        differences 2 / k, which is two thirds of n - 1 for normal batches.
        """
        x = self.scatter(deviations)
        squares = float(x @ x)
        most = (self.n - 1.0) * (2.0 / 3.0 if self.trend else 1.0)
        if squares <= 0.0:
            return 0.0, most
        excess = float((x**4).sum()) / squares**2 - (0.0 if self.trend else 1.0 / self.n)
        return math.sqrt(squares), min(most, 2.0 / excess if excess > 0.0 else most)

    def correlation(self, source: Deviations, shadow: Deviations) -> float:
        """Correlation of two series' errors."""
        x, y = self.scatter(source), self.scatter(shadow)
        scale = math.sqrt(float(x @ x) * float(y @ y))
        return float(x @ y) / scale if scale > 0.0 else 0.0

    def scatter(self, deviations: Deviations) -> Floats:
        """Terms whose squares add up to the variance of the sum."""
        scale = self.n / (self.n - 1.0)
        if self.trend:
            return np.diff(_joined(_left_over(deviations), self.n)) * math.sqrt(0.5 * scale)
        return _joined(deviations.sums, self.n) * math.sqrt(scale)


def choose(*deviations: Deviations) -> Batches | None:
    """Join sections to the most batches of which no series is correlated from one to the next.

    Correlated is what a test at 20 % calls so, since what a stricter one overlooks makes intervals too narrow; at 10 %
    for the fewest batches, after which there may be none. Differences of independent batches have correlation -1/2,
    with standard error sqrt(1/2 / n) (Bartlett, 1946). Where the traffic's moments are known, its trend is taken out
    before anything else is tried, at 5 % if need be, since batches with it say nothing; n is as many as are alike.

    Returns
    -------
    Batches or None
        None when all are correlated, or there are fewer than `LEAST` sections.
    """
    size = min(d.sums.size for d in deviations)

    def apart(n: int, level: float) -> bool:
        limit = ndtri(1.0 - level) / math.sqrt(n)
        return n <= size and all(_lag_1(_joined(d.sums, n)) <= limit for d in deviations)

    def plain() -> Batches | None:
        return next((Batches(n) for n in _LEVEL if apart(n, 0.2)), None)

    def without_trend(level: float) -> Batches | None:
        left_over = [_left_over(d) for d in deviations] if size >= _TREND[-1] else []
        for n in _TREND:
            joined = [_joined(x, n) for x in left_over] if n <= size else []
            worth = [_evenly(x) if known else n for x in joined]
            limits = [-0.5 + ndtri(1.0 - level) * math.sqrt(0.5 / w) for w in worth]
            if joined and all(_lag_1(np.diff(x)) <= limit for x, limit in zip(joined, limits, strict=True)):
                return Batches(n, trend=True)
        return None

    known = any(d.moments is not None for d in deviations)
    if known and (found := without_trend(0.2) or without_trend(0.05)):
        return found
    return plain() or (None if known else without_trend(0.2)) or (Batches(LEAST) if apart(LEAST, 0.1) else None)


def traffic_moments(requests: Floats, n_sections: int) -> Floats | None:
    """Moments of the traffic of each section, where it follows a profile.

    A section's deviation is expected to be the sum over its blocks of n f(z), with z the block's requests,
    standardised, and f a polynomial: the sums of n z^j are what its coefficients are multiplied by.

    Parameters
    ----------
    requests : ndarray of float64, shape (windows,)
        Window w of W is in section w n_sections // W.
    n_sections : int

    Returns
    -------
    ndarray of float64, shape (sections, degree + 1), or None
        Highest power first. None when the traffic does not change smoothly by far more than chance makes it: then
        nothing but the section's requests is known to matter.
    """
    window = np.arange(requests.size)
    for per_section in _BLOCKS:
        n_blocks = n_sections * per_section
        if n_blocks > requests.size:
            continue
        block = window * n_blocks // requests.size
        n, windows = np.bincount(block, requests, n_blocks), np.bincount(block, minlength=n_blocks)
        rate = n / windows  # blocks may differ by a window
        spread = float(rate.std())
        if float(np.mean(n / windows**2)) >= _NOISE * spread**2:  # the variance that Poisson's law gives these rates
            continue
        if _lag_1(rate) < _SMOOTH:
            return None
        powers = np.vander((rate - rate.mean()) / spread, _DEGREE + 1)
        moments: Floats = (powers * n[:, None]).reshape(n_sections, per_section, -1).sum(axis=1)
        return moments
    return None


def _left_over(deviations: Deviations) -> Floats:
    """Deviations without what a polynomial in the traffic explains of them, request by request.

    In the section's requests, where no moments of its traffic are known.
    """
    sums, n, moments = deviations
    if moments is not None:
        scale = np.divide(1.0, np.sqrt(n), out=np.zeros(n.size), where=n > 0.0)
        explained: Floats = moments @ np.linalg.lstsq(moments * scale[:, None], sums * scale, rcond=None)[0]
        free = max(n.size - _DEGREE - 1, 1)  # each coefficient takes a section's worth of the scatter
        return (sums - explained) * math.sqrt(n.size / free)
    spread = float(n.std())
    if not spread > 0.0:
        return sums
    powers = np.vander((n - n.mean()) / spread, _DEGREE + 1)
    weight = np.sqrt(n)
    share = np.divide(sums, n, out=np.zeros(n.size), where=n > 0.0)
    found = np.linalg.lstsq(powers * weight[:, None], share * weight, rcond=None)[0]
    left: Floats = sums - powers @ found * n
    return left


def _evenly(x: Floats) -> float:
    """How many normal numbers of one variance have this kurtosis: the peak hours of a day hold most of the scatter."""
    fourth = float((x**4).sum())
    return min(3.0 * float(x @ x) ** 2 / fourth, x.size) if fourth > 0.0 else x.size


def _joined(deviations: Floats, n: int) -> Floats:
    sums: Floats = np.add.reduceat(deviations, np.arange(n) * deviations.size // n)
    return sums


def _lag_1(x: Floats) -> float:
    d = x - x.mean()
    total = d @ d
    return float(d[1:] @ d[:-1] / total) if total > 0.0 else -0.5
