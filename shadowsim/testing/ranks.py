"""Two samples compared by their ranks: medians, how far one is shifted against the other, and whether that is chance.

Nothing is taken for normal, and an outlier is one rank away from its neighbour, however far off it is: timings of code
have long tails. Observations of a sample are taken for independent and alike.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from shadowsim.statistics.samples import Floats

_HALVINGS = 64


class Interval(NamedTuple):
    """An estimate and its interval, whose ends are NaN when the sample is too small for one."""

    value: float
    low: float
    high: float


def median(x: Floats, confidence: float) -> Interval:
    """Median, with the interval between the narrowest pair of order statistics that covers it often enough.

    The k-th from below and from above, with P(B <= k - 1) <= (1 - confidence) / 2 for B binomial (n, 1/2) (David and
    Nagaraja, Order Statistics, 2003, section 7.1). For 95 % it takes six observations.
    """
    ordered = np.sort(x)
    k = int(stats.binom.ppf((1.0 - confidence) / 2.0, x.size, 0.5))
    # ppf gives the first number that reaches the level; k - 1 must not pass it.
    k += bool(stats.binom.cdf(k, x.size, 0.5) <= (1.0 - confidence) / 2.0)
    ends = (float(ordered[k - 1]), float(ordered[-k])) if k > 0 else (math.nan, math.nan)
    return Interval(float(np.median(ordered)), *ends)


def shift(x: Floats, y: Floats, confidence: float) -> Interval:
    """By how much y lies above x: the median of all differences, with its interval (Hodges and Lehmann, 1963).

    The interval holds the shifts that the test of `p_value` would not reject (Moses, 1965; Hollander, Wolfe and
    Chicken, 2014, section 4.3): from the C-th difference to the C-th from above, C the integer part of
    n m / 2 - z sqrt(n m (n + m + 1) / 12).
    """
    x, y = np.sort(x), np.sort(y)
    n = x.size * y.size
    z = float(stats.norm.ppf(0.5 + 0.5 * confidence))
    c = math.floor(n / 2.0 - z * math.sqrt(n * (x.size + y.size + 1) / 12.0))
    middle = 0.5 * (_difference(x, y, (n + 1) // 2) + _difference(x, y, n // 2 + 1))
    ends = (_difference(x, y, c), _difference(x, y, n + 1 - c)) if c > 0 else (math.nan, math.nan)
    return Interval(middle, *ends)


def p_value(x: Floats, y: Floats) -> float:
    """Two-sided p of Mann and Whitney's (1947) test that neither sample tends to be larger."""
    if x.min() == x.max() == y.min() == y.max():
        return 1.0
    return float(stats.mannwhitneyu(x, y).pvalue)


def _difference(x: Floats, y: Floats, k: int) -> float:
    """The k-th smallest of all y_j - x_i, without making all of them: thousands of rounds have many millions."""
    low, high = float(y[0] - x[-1]), float(y[-1] - x[0])
    if _n_upto(x, y, low) >= k:
        return low
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if _n_upto(x, y, middle) >= k:
            high = middle
        else:
            low = middle
    # The least of those above `low`.
    at = np.searchsorted(y, x + low, side="right")
    some = at < y.size
    return float((y[at[some]] - x[some]).min())


def _n_upto(x: Floats, y: Floats, d: float) -> int:
    return int(np.searchsorted(y, x + d, side="right").sum())
