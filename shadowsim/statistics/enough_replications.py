"""Decides how many independent runs make a figure as precise as was asked for.

A rule that looks at its own interval and stops as soon as it is narrow stops too often where the scatter happens to be
small, so that its 95 % intervals cover less than 95 % (Law, Simulation Modeling and Analysis, 2015, section 9.4.1).
Three things make up for that: there are at least ten runs; there are few looks, since each stage makes all runs that
the scatter asks for, at most twice as many as before; and the intervals, both while it looks and at the end, are those
of Student's t at 96 %. For normal figures and from 11 to 100 runs they then cover 94.6 to 95.7 %, and 93 % or more for
figures with a skewness of 1 (benchmarks/test_stopping.py).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.statistics.estimates import critical

LEAST = 10  # runs
ALLOWANCE = 0.8  # on the level of an interval, for looking at it


class Look(NamedTuple):
    """What the runs so far say of a figure.

    Attributes
    ----------
    n : int
        Number of runs.
    needed : int
        Number of runs that the precision seems to need; `n` if it is reached.
    relative : tuple of float
        Half-width of the interval over the mean, of each side; NaN if there is none.
    reached : bool
        Whether the wanted precision is reached by all sides.
    why : str
        Why more runs would not reach it; "" if they may.
    """

    n: int
    needed: int
    relative: tuple[float, ...]
    reached: bool
    why: str = ""


def look(values: Floats, relative: float) -> Look:
    """Return whether the figures of runs are precise enough, and else how many runs to make.

    Parameters
    ----------
    values : ndarray of float64, shape (runs, sides)
    relative : float
        Wanted half-width of the interval over the mean.
    """
    n, mean = len(values), values.mean(axis=0)
    if n < 2:
        return Look(n, LEAST, (math.nan,) * mean.size, False)
    error = critical(ALLOWANCE * 0.05, n - 1) * values.std(axis=0, ddof=1) / math.sqrt(n)
    widths = tuple(float(e / abs(m)) if m else math.nan for e, m in zip(error, mean, strict=True))
    if any(map(math.isnan, widths)):
        missing = bool(np.isnan(mean).any())
        why = "a run has no such figure" if missing else "it is 0 in all runs, which have no relative precision"
        return Look(n, n, widths, False, why)
    if n < LEAST:
        return Look(n, LEAST, widths, False)
    if max(widths) <= relative:
        return Look(n, n, widths, True)
    needed = math.ceil(n * (max(widths) / relative) ** 2)
    return Look(n, min(max(needed, n + 1), 2 * n), widths, False)
