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
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri  # type: ignore[import-untyped]

from shadowsim.samples import Floats

LEAST, MOST = 10, 30  # Schmeiser (1982): more batches narrow an interval little, and leave correlation in it
_LEVEL = (MOST, 25, 20, 16, 13)
_TREND = (50, 100, 30)  # many: the more there are, the less does a trend change from one to the next
_DEGREE = 6  # of the polynomial that follows the traffic: a tail grows with load far faster than in proportion


class Deviations(NamedTuple):
    """What each section adds to an estimate's error, in a sum that is 0, and its requests: shape (sections,) each."""

    sums: Floats
    n: Floats


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
    with standard error sqrt(1/2 / n) (Bartlett, 1946).

    Returns
    -------
    Batches or None
        None when all are correlated, or there are fewer than `LEAST` sections.
    """
    size = min(d.sums.size for d in deviations)

    def apart(n: int, level: float) -> bool:
        limit = ndtri(1.0 - level) / math.sqrt(n)
        return n <= size and all(_lag_1(_joined(d.sums, n)) <= limit for d in deviations)

    for n in _LEVEL:
        if apart(n, 0.2):
            return Batches(n)
    left_over = [_left_over(d) for d in deviations] if size >= _TREND[-1] else []
    for n in _TREND:
        limit = -0.5 + ndtri(0.8) * math.sqrt(0.5 / n)
        if n <= size and all(_lag_1(np.diff(_joined(x, n))) <= limit for x in left_over):
            return Batches(n, trend=True)
    return Batches(LEAST) if apart(LEAST, 0.1) else None


def _left_over(deviations: Deviations) -> Floats:
    """Deviations without what a polynomial in the section's requests explains of them, request by request."""
    sums, n = deviations
    spread = float(n.std())
    if not spread > 0.0:
        return sums
    powers = np.vander((n - n.mean()) / spread, _DEGREE + 1)
    weight = np.sqrt(n)
    share = np.divide(sums, n, out=np.zeros(n.size), where=n > 0.0)
    found = np.linalg.lstsq(powers * weight[:, None], share * weight, rcond=None)[0]
    left: Floats = sums - powers @ found * n
    return left


def _joined(deviations: Floats, n: int) -> Floats:
    sums: Floats = np.add.reduceat(deviations, np.arange(n) * deviations.size // n)
    return sums


def _lag_1(x: Floats) -> float:
    d = x - x.mean()
    total = d @ d
    return float(d[1:] @ d[:-1] / total) if total > 0.0 else -0.5
