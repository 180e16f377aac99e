"""Estimates how often a test finds a difference, from rehearsals of it.

A rehearsal of length L gives an estimate d of the true difference D, and an interval whose lower end is `low`. In a
test that is k times as long, both the error d - D and the distance of the interval's end from d are smaller by sqrt(k),
since sections further apart than the queue's memory are independent. So its lower end is

    D + (low - D) / sqrt(k),

and the share of rehearsals for which this is above 0 is the power of the long test. It is the power of the very
intervals that `compare` makes, with their Student's quantiles and their asymmetry, and not that of a normal
approximation. At k = 1 it is the share of rehearsals that found the effect, whatever D is. A shadow that is better is
found by the upper end, with all signs reversed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shadowsim.arrays import Floats
from shadowsim.planning.plan_rehearsals import RehearsalResult


class Rate(NamedTuple):
    """A share of tests and its standard error."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class PowerEstimator:
    """The results of the rehearsals of one hypothesis, from which powers are estimated.

    Attributes
    ----------
    difference, low, high : ndarray of float64, shape (rehearsals,)
        The estimated differences of the shadow from the source, and the ends of their intervals, NaN where there was
        not enough data.
    short : ndarray of bool, shape (rehearsals,)
        Whether a longer test would have enough data.
    true, true_error : float
        The true difference and its standard error, 0 where it is known.
    source, n_copies : float
        Means of the source's metric and of the number of copies.
    """

    difference: Floats
    low: Floats
    high: Floats
    short: NDArray[np.bool_]
    true: float
    true_error: float
    source: float
    n_copies: float

    @classmethod
    def of(
        cls, results: Sequence[RehearsalResult], true: float | None = None, true_error: float = 0.0
    ) -> PowerEstimator:
        """Collect results; a true difference that is not given is estimated by their mean."""
        difference = differences(results)
        if true is None:
            true, true_error = mean_and_error(difference)
        low, high = np.array([x.low for x in results]), np.array([x.high for x in results])
        short = np.array([x.short for x in results], np.bool_)
        n_copies = float(np.mean([x.n_copies for x in results]))
        return cls(difference, low, high, short, true, true_error, mean_source(results), n_copies)

    @property
    def undecided(self) -> float:
        """Share of the rehearsals that had too little data for an interval."""
        return float(np.isnan(self.low).mean())

    def worse(self, k: float) -> Rate:
        """Return how often a test `k` times as long finds the shadow worse."""
        return self._above(self.low, self.true, k)

    def better(self, k: float) -> Rate:
        """Return how often a test `k` times as long finds the shadow better."""
        return self._above(-self.high, -self.true, k)

    def either(self, k: float) -> Rate:
        """Return how often a test `k` times as long finds the shadow worse or better, of which only one can be."""
        worse, better = self.worse(k), self.better(k)
        return Rate(worse.value + better.value, math.hypot(worse.error, better.error))

    def visible(self, power: float, k: float, sign: float) -> float:
        """Return the smallest difference that a test `k` times as long finds with a power; NaN when there is none.

        It is minus the value that (low - D) exceeds in a share `power` of the rehearsals, over sqrt(k): at such a
        difference just that share of the intervals lies above 0. It assumes the scatter of the rehearsed effect.

        Parameters
        ----------
        sign : float
            Positive for differences that make the shadow worse, negative for better.
        """
        distances = self._ends(self.low - self.true if sign > 0.0 else self.true - self.high, k)
        exceeded = float(np.quantile(distances, 1.0 - power, method="lower")) if distances.size else -math.inf
        return -exceeded / math.sqrt(k) if math.isfinite(exceeded) else math.nan

    def _above(self, end: Floats, true: float, k: float) -> Rate:
        """Return how often an end of the interval is above 0 in a test `k` times as long."""
        distances = self._ends(end, k) - true
        n = distances.size
        if 2 * n < end.size:  # longer tests have enough data, but their results are not known
            return Rate(math.nan, math.nan)
        if k == 1.0:
            p = float((distances + true > 0.0).mean())
            return Rate(p, _error(p, n))
        plausible = (true, true - self.true_error, true + self.true_error)
        p, less, more = (float((x + distances / math.sqrt(k) > 0.0).mean()) for x in plausible)
        return Rate(p, math.hypot(_error(p, n), 0.5 * (more - less)))

    def _ends(self, end: Floats, k: float) -> Floats:
        """Return the ends of the intervals that count for a test `k` times as long, -inf where there is none."""
        counted = end if k == 1.0 else end[~self.short]
        return np.where(np.isnan(counted), -np.inf, counted)


def differences(results: Sequence[RehearsalResult]) -> Floats:
    """Return the estimated differences of rehearsals, NaN where a side had no answers."""
    return np.array([x.shadow - x.source for x in results])


def mean_source(results: Sequence[RehearsalResult]) -> float:
    """Return the mean of the source's metric over the rehearsals that have one, NaN when none has."""
    known = [x.source for x in results if not math.isnan(x.source)]
    return float(np.mean(known)) if known else math.nan


def mean_and_error(differences: Floats) -> tuple[float, float]:
    """Return the mean of the differences that are known and its standard error, NaN without any."""
    known = differences[~np.isnan(differences)]
    if not known.size:
        return math.nan, math.nan
    return float(known.mean()), float(known.std(ddof=1) / math.sqrt(known.size)) if known.size > 1 else math.inf


def _error(p: float, n: int) -> float:
    """Return the standard error of a share p of n.

    One hit and one miss are added, so that it is never 0 (Agresti and Coull, 1998).
    """
    if math.isnan(p) or n == 0:
        return math.nan
    shrunk = (p * n + 1.0) / (n + 2.0)
    return math.sqrt(shrunk * (1.0 - shrunk) / n)
