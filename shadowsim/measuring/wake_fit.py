"""Fits how much longer a service takes that finds its instance idle: what rests is slow at first.

Of the requests that found their instance idle for x, the latency grows by most_s x / (x + half_s), as
scenario/service.py has it: most_s by least squares, for each of many half_s, of which the best is taken. The fit is
kept where the slope is `CLEAR_ERRORS` standard errors from 0, and the fit of the workers with it has the better score
after 2 more parameters (BIC).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.measuring.fifo_starts import Answered, idle_time

CLEAR_ERRORS = 5.0
LEAST = 200  # requests that found their instance idle
_HALVES = 24  # that are tried
_RANGE = 0.05, 0.95  # quantiles of idle times between which they lie: beyond, nothing tells a bend from a line


@dataclass(frozen=True, slots=True)
class WakeFit:
    """What a request takes longer after x seconds of idleness: `most_s` x / (x + `half_s`).

    Attributes
    ----------
    most_s, half_s : float
    error_s : float
        The standard error of `most_s` at this `half_s`.
    """

    most_s: float
    half_s: float
    error_s: float

    def added_s(self, idle_s: Floats) -> Floats:
        """Return what services take longer, by how long their instances were idle."""
        return np.asarray(self.most_s * idle_s / (idle_s + self.half_s), np.float64)


def fit_wake(answered: Answered, overhead_s: float) -> WakeFit | None:
    """Return what services take longer after idleness; None where nothing shows it.

    Parameters
    ----------
    answered : Answered
    overhead_s : float
        As fitted without it.
    """
    idle = idle_time(answered, overhead_s)
    found = idle > 0.0
    x, y = idle[found], answered.latency_s[found]
    if len(x) < LEAST:
        return None
    y = y - y.mean()
    best: tuple[float, WakeFit] | None = None
    low, high = np.quantile(x, _RANGE)
    for half_s in np.geomspace(low, high, _HALVES).tolist():
        grown = x / (x + half_s)
        grown = grown - grown.mean()
        spread = float(grown @ grown)
        slope = float(grown @ y) / spread
        rest = float(((y - slope * grown) ** 2).sum())
        if best is None or rest < best[0]:
            best = rest, WakeFit(slope, half_s, math.sqrt(rest / (len(x) - 2) / spread))
    assert best is not None
    _, wake = best
    return wake if wake.most_s > CLEAR_ERRORS * wake.error_s else None
