"""Holds the latencies of a run section by section: counts in buckets, or single values in order.

Both classes give quantiles, the number of answers in each section beyond a quantile or above a limit, and sums:
estimates.py needs no more to compute an estimate and its error.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from shadowsim.arrays import Floats, Ints
from shadowsim.histogram import place_of


class Buckets:
    """Latencies as counts in buckets, section by section.

    Parameters
    ----------
    low_s, high_s : ndarray of float64, shape (buckets,)
        Edges, ascending.
    counts : ndarray, shape (sections, buckets)
    extremes_s : tuple of float
        The least and the greatest latency, where known; quantiles are clipped to them.
    """

    def __init__(
        self,
        low_s: Floats,
        high_s: Floats,
        counts: NDArray[np.int64],
        extremes_s: tuple[float, float] = (-math.inf, math.inf),
    ):
        self.low_s, self.high_s, self.counts, self.extremes_s = low_s, high_s, counts, extremes_s
        self.n_by_section: Floats = counts.sum(axis=1).astype(np.float64)
        self._count: Floats = counts.sum(axis=0).astype(np.float64)
        self._upto: Floats = np.cumsum(self._count)
        self.n = int(self._upto[-1]) if self._upto.size else 0

    def quantile(self, p: float) -> float:
        """Return the quantile of all sections together, linear inside a bucket, in seconds."""
        at, above = self._place(p)
        least, greatest = self.extremes_s
        return min(max(float(self.high_s[at] - above * (self.high_s[at] - self.low_s[at])), least), greatest)

    def beyond(self, p: float) -> Floats:
        """Return how many more answers than expected lie beyond the quantile at p, per section; the sum is 0."""
        at, above = self._place(p)
        return self._beyond(at, above) - (1.0 - p) * self.n_by_section

    def n_above(self, x_s: float) -> Floats:
        """Return how many answers take longer than x, per section; the bucket that holds x counts in proportion."""
        at = int(np.searchsorted(self.high_s, x_s, side="right"))
        if at == self.high_s.size:
            return np.zeros(self.n_by_section.size)
        inside = (self.high_s[at] - x_s) / (self.high_s[at] - self.low_s[at])
        return self._beyond(at, min(inside, 1.0))

    def capped_totals(self, cap_s: float) -> Floats:
        """Return the sum per section of latencies that are cut off at a cap, each at its bucket's lower edge."""
        totals: Floats = self.counts.astype(np.float64) @ np.minimum(self.low_s, cap_s)
        return totals

    def variance(self) -> float:
        """Return the variance of latency, from the buckets' middles."""
        middle = 0.5 * (self.low_s + self.high_s)
        mean = self._count @ middle / self.n
        return float(self._count @ (middle - mean) ** 2 / self.n)

    def _place(self, p: float) -> tuple[int, float]:
        """Return the bucket that holds the quantile, and the share of it that lies above."""
        rank = min(max(p, 0.0), 1.0) * self.n
        at = place_of(self._upto, rank)
        return at, float((self._upto[at] - rank) / self._count[at])

    def _beyond(self, at: int, share: float) -> Floats:
        n_beyond: Floats = self.counts[:, at + 1 :].sum(axis=1) + share * self.counts[:, at].astype(np.float64)
        return n_beyond


class Values:
    """Single values in the order of their arrival, cut into sections.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
    section : ndarray of int64, shape (n,)
        Ascending.
    n_sections : int
    """

    def __init__(self, values: Floats, section: Ints, n_sections: int):
        self.values, self.section, self.n_sections = values, section, n_sections
        self.n = values.size
        self.n_by_section: Floats = self._sums(np.ones(self.n))
        self._sorted = np.sort(values)

    def quantile(self, p: float) -> float:
        """Return the smallest value that at least a share p of all values do not exceed."""
        return float(self._sorted[min(max(math.ceil(p * self.n) - 1, 0), self.n - 1)])

    def beyond(self, p: float) -> Floats:
        """Return what `Buckets.beyond` returns."""
        return self._sums(self.indicator(p)) - (1.0 - p) * self.n_by_section

    def indicator(self, p: float) -> Floats:
        """Return 1 for each value beyond the quantile at p, and a share for those equal to it; the mean is 1 - p."""
        x = self.quantile(p)
        below, upto = np.searchsorted(self._sorted, x, side="left"), np.searchsorted(self._sorted, x, side="right")
        tied = (upto - p * self.n) / (upto - below)
        return np.where(self.values == x, tied, self.values > x).astype(np.float64)

    def n_above(self, x_s: float) -> Floats:
        """Return what `Buckets.n_above` returns."""
        return self._sums((self.values > x_s).astype(np.float64))

    def capped_totals(self, cap_s: float) -> Floats:
        """Return the sum per section of values that are cut off at a cap."""
        return self._sums(np.minimum(self.values, cap_s))

    def variance(self) -> float:
        """Return the variance of the values."""
        return float(self.values.var())

    def totals(self) -> Floats:
        """Return the sum of the values of each section."""
        return self._sums(self.values)

    def _sums(self, x: Floats) -> Floats:
        sums: Floats = np.bincount(self.section, x, self.n_sections).astype(np.float64)
        return sums


Sample = Buckets | Values
