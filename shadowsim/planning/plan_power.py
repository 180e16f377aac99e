"""How often a test finds what it looks for, from rehearsals of it.

A rehearsal of length L gives an estimate d of the true difference D, and an interval whose lower end is `low`. In a
test that is k times as long both the error d - D and the distance of the interval's end from d are smaller by sqrt(k),
since sections further apart than the queue's memory are independent. So its lower end is

    D + (low - D) / sqrt(k),

and the share of rehearsals for which this is above 0 is the power of the long test: with the very intervals that
`compare` makes, their Student's quantiles and their lopsidedness included, and not those of a normal approximation. At
k = 1 it is the share of rehearsals that found the effect, whatever D is. A shadow that is better is found by the upper
end, with all signs turned.
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
class Shown:
    """What the rehearsals of one hypothesis showed.

    Attributes
    ----------
    difference, low, high : ndarray of float64, shape (rehearsals,)
        Of the shadow from the source; the ends of the interval are NaN where there was not enough data.
    true, true_error : float
        The true difference, and how sure it is: 0 where it is known.
    source, n_copies : float
        The source's metric and the number of copies, means.
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
    def of(cls, outcomes: Sequence[RehearsalResult], true: float | None = None, error: float = 0.0) -> Shown:
        """Collect outcomes; without a true difference that is known, their mean is it."""
        difference = differences(outcomes)
        if true is None:
            true, error = estimated(difference)
        low, high = (np.array([getattr(x, end) for x in outcomes]) for end in ("low", "high"))
        short = np.array([x.short for x in outcomes], np.bool_)
        source, n_copies = source_of(outcomes), float(np.mean([x.n_copies for x in outcomes]))
        return cls(difference, low, high, short, true, error, source, n_copies)

    @property
    def undecided(self) -> float:
        """The share of rehearsals that had not enough data for an interval."""
        return float(np.isnan(self.low).mean())

    def worse(self, k: float) -> Rate:
        """Return how often a test `k` times as long finds the shadow worse."""
        return self._above(self.low, self.true, k)

    def better(self, k: float) -> Rate:
        """Return how often it finds the shadow better."""
        return self._above(-self.high, -self.true, k)

    def either(self, k: float) -> Rate:
        """Return how often it finds anything: the intervals lie on one side of 0 only, so that the shares add up."""
        worse, better = self.worse(k), self.better(k)
        return Rate(worse.value + better.value, math.hypot(worse.error, better.error))

    def visible(self, power: float, k: float, sign: float) -> float:
        """Return the smallest difference that a test `k` times as long finds with a power; NaN where none was.

        What (low - D) exceeds in a share `power` of the rehearsals, over sqrt(k): at such a difference just that share
        of the intervals lies above 0. It counts on the scatter of the effect that was rehearsed.
        """
        c = self._ends(self.low - self.true if sign > 0.0 else self.true - self.high, k)
        found = float(np.quantile(c, 1.0 - power, method="lower")) if c.size else -math.inf
        return -found / math.sqrt(k) if math.isfinite(found) else math.nan

    def _above(self, end: Floats, true: float, k: float) -> Rate:
        c = self._ends(end, k) - true
        if 2 * c.size < end.size:  # longer tests have enough data, but what they would show is not known
            return Rate(math.nan, math.nan)
        if k == 1.0:
            p = float((c + true > 0.0).mean())
            return Rate(p, _error(p, c.size))
        near = (true, true - self.true_error, true + self.true_error)
        p, less, more = (float((x + c / math.sqrt(k) > 0.0).mean()) for x in near)
        return Rate(p, math.hypot(_error(p, c.size), 0.5 * (more - less)))

    def _ends(self, end: Floats, k: float) -> Floats:
        """Return the ends of the intervals that count for a test `k` times as long, -inf where there is none."""
        counted = end if k == 1.0 else end[~self.short]
        return np.where(np.isnan(counted), -np.inf, counted)


def differences(outcomes: Sequence[RehearsalResult]) -> Floats:
    """Return the estimated differences of some rehearsals, NaN where a side had no answers."""
    return np.array([x.shadow - x.source for x in outcomes])


def source_of(outcomes: Sequence[RehearsalResult]) -> float:
    """Return the mean of the source's metric, NaN when it never had one."""
    some = [x.source for x in outcomes if not math.isnan(x.source)]
    return float(np.mean(some)) if some else math.nan


def estimated(differences: Floats) -> tuple[float, float]:
    """Return the mean of differences and its standard error, NaN without any."""
    some = differences[~np.isnan(differences)]
    if not some.size:
        return math.nan, math.nan
    return float(some.mean()), float(some.std(ddof=1) / math.sqrt(some.size)) if some.size > 1 else math.inf


def _error(p: float, n: int) -> float:
    """Return the standard error of a share of n; never 0, as of one hit and one miss more (Agresti and Coull, 1998)."""
    if math.isnan(p) or n == 0:
        return math.nan
    near = (p * n + 1.0) / (n + 2.0)
    return math.sqrt(near * (1.0 - near) / n)
