"""Fits how much longer a service takes that finds its instance idle: what rests is slow at first.

Of the requests that found their instance idle for x, the latency grows by most_s x / (x + half_s), as
scenario/service.py has it: most_s by least squares, for each of many half_s, of which the best is taken. The fit is
kept where the slope is `CLEAR_ERRORS` standard errors from 0, and the fit of the workers with it has the better score
after 2 more parameters (BIC).

Intervals come from a bootstrap of blocks of neighbouring requests. All that a fit needs are sums over requests, so that
a sample costs no more than a weighted sum of the blocks' sums. A half_s beyond the idle times that were seen cannot be
told from a longer one; a sample that ends there leaves the interval without a limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.measuring.calibration import CONFIDENCE, FittedParameter
from shadowsim.measuring.fifo_starts import Answered, idle_time
from shadowsim.text import time_text

CLEAR_ERRORS = 5.0
LEAST = 200  # requests that found their instance idle
_HALVES = 64  # that are tried
_RANGE = 0.05, 0.95  # quantiles of idle times between which they lie: beyond, nothing tells a bend from a line
_BLOCKS = 200  # of neighbouring requests, at most: with fewer requests each is a block
_N_SAMPLES = 400  # of the bootstrap: 10 lie beyond each end of an interval


@dataclass(frozen=True, slots=True)
class WakeCurve:
    """What a request takes longer after x seconds of idleness: `most_s` x / (x + `half_s`)."""

    most_s: float
    half_s: float

    def added_s(self, idle_s: Floats) -> Floats:
        """Return what services take longer, by how long their instances were idle."""
        return np.asarray(self.most_s * idle_s / (idle_s + self.half_s), np.float64)


@dataclass(frozen=True, slots=True)
class WakeFit:
    """What services take longer after idleness, as a run shows it.

    Attributes
    ----------
    curve : WakeCurve
        The best.
    samples : tuple of WakeCurve
        What the uncertainty of the data leaves possible.
    shortest_s, longest_s : float
        The least and the greatest `half_s` that were tried.
    """

    curve: WakeCurve
    samples: tuple[WakeCurve, ...]
    shortest_s: float
    longest_s: float

    def parameters(self) -> list[FittedParameter]:
        """Return both parameters with their intervals, or why an end is open."""
        ends = 0.5 * (1.0 - CONFIDENCE), 0.5 * (1.0 + CONFIDENCE)
        low_s, high_s = np.quantile([one.half_s for one in self.samples], ends).tolist()
        least_s, most_s = np.quantile([one.most_s for one in self.samples], ends).tolist()
        why = why_most = ""
        if low_s <= self.shortest_s:
            low_s = 0.0
            why = f"hardly an idleness was shorter than {time_text(self.shortest_s)}, so that it may be any time below"
        if high_s >= self.longest_s:
            high_s = most_s = math.inf
            seen = f"hardly an idleness was longer than {time_text(self.longest_s)}"
            why = f"{seen}, and up to there the growth may be a straight line"
            why_most = f"{seen}, and what longer ones would add is not known"
        return [
            FittedParameter("wake.most_s", self.curve.most_s, max(least_s, 0.0), most_s, why_most),
            FittedParameter("wake.half_s", self.curve.half_s, low_s, high_s, why),
        ]


def fit_wake(answered: Answered, overhead_s: float, seed: int = 0) -> WakeFit | None:
    """Return what services take longer after idleness; None where nothing shows it.

    Parameters
    ----------
    answered : Answered
    overhead_s : float
        As fitted without it.
    seed : int
        Of the bootstrap.
    """
    idle = idle_time(answered, overhead_s)
    found = idle > 0.0
    x, y = idle[found], answered.latency_s[found]
    if len(x) < LEAST:
        return None
    y = y - y.mean()
    n_blocks = min(_BLOCKS, len(x))
    firsts = np.linspace(0, len(x), n_blocks + 1).astype(np.int64)[:-1]
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_blocks, np.full(n_blocks, 1.0 / n_blocks), _N_SAMPLES)
    weights = np.vstack([np.ones(n_blocks), drawn])  # of the blocks: as they came, then in each sample

    def total(values: Floats) -> Floats:
        return np.asarray(weights @ np.add.reduceat(values, firsts), np.float64)

    n, sum_y, sum_yy = total(np.ones(len(x))), total(y), total(y * y)
    low, high = np.quantile(x, _RANGE)
    halves = np.geomspace(low, high, _HALVES)
    slopes, rests, spreads = np.empty((3, _HALVES, len(weights)))
    for i, half_s in enumerate(halves.tolist()):
        grown = x / (x + half_s)
        grown -= grown.mean()
        sum_g = total(grown)
        spreads[i] = total(grown * grown) - sum_g * sum_g / n
        products = total(grown * y) - sum_g * sum_y / n
        slopes[i] = products / spreads[i]
        rests[i] = sum_yy - sum_y * sum_y / n - slopes[i] * products
    best, row = rests.argmin(axis=0), np.arange(len(weights))
    curve, *samples = map(WakeCurve, slopes[best, row].tolist(), halves[best].tolist())
    error_s = math.sqrt(rests[best[0], 0] / (len(x) - 2) / spreads[best[0], 0])
    return WakeFit(curve, tuple(samples), float(low), float(high)) if curve.most_s > CLEAR_ERRORS * error_s else None
