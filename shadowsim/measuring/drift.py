"""Tells how much a server's speed drifts, so that intervals allow for the speed of another run.

A processor that virtual machines share is some per cent faster or slower from one minute to the next. A bootstrap of
one run's requests does not know that: it draws again what this run had.
"""

from __future__ import annotations

import math

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.text import percent

_BLOCKS = 10  # of neighbouring requests, whose means tell how a server drifts
_NO_CHANCE = 3.8  # of Allan's variance of so many blocks over what chance makes of it: one of 1,000 is above


def drift_of(service_s: Floats) -> float:
    """Return by how much the services of another run may be longer or shorter than these, as a standard deviation.

    Half of the mean squared difference of the means of neighbouring blocks is Allan's variance (1966). It hardly
    depends on the length of the blocks where noise is of 1/f, as that of machines often is, so that two runs differ by
    twice as much. It is 0 where it may be chance.

    Parameters
    ----------
    service_s : ndarray of float64, shape (n,)
        In order of their starts; in any unit.
    """
    means = np.array([block.mean() for block in np.array_split(service_s, _BLOCKS)])
    allan = 0.5 * float((np.diff(means) ** 2).mean())
    by_chance = float(service_s.var()) * _BLOCKS / len(service_s)
    if allan <= _NO_CHANCE * by_chance:
        return 0.0
    return math.sqrt(2.0 * (allan - by_chance)) / float(means.mean())


def drift_notes(drift: float) -> list[str]:
    """Return a sentence on a drift, or none."""
    if not drift:
        return []
    return [
        f"The server drifts: intervals allow for services of another run that are {percent(drift)} longer or "
        "shorter (a standard deviation)."
    ]
