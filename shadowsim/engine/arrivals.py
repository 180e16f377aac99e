"""When requests come, a batch of windows at a time.

Poisson arrivals (a modulated rate included, once its path is drawn), constant ones and traces are made by the kernel as
it goes. Renewals, and streams of different kinds superposed, are made here for a batch of windows, sorted, and handed
to the kernel as a trace. Either way an arrival depends on nothing but the scenario: not on the batch, not on what came
before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.engine import _kernel as k
from shadowsim.engine.law_tables import law_table
from shadowsim.scenario.rates import mmpp_knots
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.traffic import Traffic

_NONE = np.empty(0)
_BLOCK = 4096  # draws of an MMPP's path at a time


@dataclass(frozen=True, slots=True)
class _Stream:
    """One of the streams that are superposed: `table` and `sums` (blocks + 1,) are a renewal process's."""

    arrivals: k.Arrivals
    column: int
    table: Floats
    sums: Floats
    expected: float


@dataclass(frozen=True, slots=True)
class ArrivalStream:
    """The arrivals of a run.

    Attributes
    ----------
    expected_requests : float
        Mean number of requests of the run, given the path of a modulated rate; exact for a trace.
    peak_per_s : float
        The greatest rate, as far as one is known.
    """

    period_s: float
    horizon_s: float
    seed: np.uint64
    streams: tuple[_Stream, ...]
    expected_requests: float
    peak_per_s: float

    @property
    def n_knots(self) -> int:
        """Knots of the rate that the kernel may meet in a window, at most."""
        return max(max(s.arrivals.knot_s.size for s in self.streams), 1)

    def arrivals(self, first: int, last: int) -> k.Arrivals:
        """What the kernel needs to know of the arrivals of windows first..last-1."""
        if len(self.streams) == 1 and not self.streams[0].sums.size:
            return self.streams[0].arrivals
        with np.errstate(over="ignore"):  # hash arithmetic wraps, uncompiled too
            times = [self._times(stream, first, last) for stream in self.streams]
        merged = np.sort(np.concatenate(times), kind="stable")
        return k.Arrivals(k.TRACE, _NONE, _NONE, _NONE, merged, 0.0, merged.size)

    def count(self, first: int, last: int) -> int:
        """How many requests come in windows first..last-1."""
        with np.errstate(over="ignore"):
            return sum(len(self._times(stream, first, last)) for stream in self.streams)

    def _times(self, s: _Stream, first: int, last: int) -> Floats:
        begin, end = first * self.period_s, min(last * self.period_s, self.horizon_s)
        mean = s.expected * (end - begin) / self.horizon_s

        def fill(out: Floats) -> int:
            if s.sums.size:
                before = np.searchsorted(s.sums, _count_before(begin, s.arrivals), side="right")
                # a block early: rounding may put an arrival on the other side of the boundary
                block = max(int(before) - 2, 0)
                n: int = k.renewal_arrivals(begin, end, self.seed, s.column, s.table, s.sums, block, s.arrivals, out)
            elif s.arrivals.process == k.POISSON:
                room = np.empty((s.arrivals.knot_s.size, 6)), np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
                n = k.poisson_arrivals(
                    first, last, self.period_s, self.horizon_s, self.seed, s.column, s.arrivals, *room, out
                )
            else:
                n = k.global_arrivals(begin, end, s.arrivals, out)
            return n

        return _filled(fill, mean)


def arrivals_of(scenario: Scenario) -> ArrivalStream:
    """The arrivals of a scenario: its trace is read, the path of its modulated rates drawn, its renewals are summed."""
    seed, horizon_s = np.uint64(scenario.seed), scenario.horizon_s
    parts = scenario.traffic.streams
    rates, streams = [], []
    with np.errstate(over="ignore"):  # hash arithmetic wraps, uncompiled too
        for j, part in enumerate(parts):
            if part.process in ("poisson", "mmpp"):
                rates.append(_rate(part, j, scenario, seed))
            else:
                streams.append(_stream(part, j, scenario, seed))
    if rates:
        # superposed Poisson processes are one, of the summed rate
        streams.insert(0, _with_rate(k.POISSON, *_sum_of(rates), k.ARRIVAL))
    peaks = [
        float(s.arrivals.knot_rate.max()) if s.arrivals.knot_rate.size else s.expected / horizon_s for s in streams
    ]
    expected = math.fsum(s.expected for s in streams)
    return ArrivalStream(scenario.period_s, horizon_s, seed, tuple(streams), expected, math.fsum(peaks))


def _rate(part: Traffic, j: int, scenario: Scenario, seed: np.uint64) -> tuple[Floats, Floats]:
    if part.process == "poisson":
        return part.knots(scenario.horizon_s, scenario.start)
    key = np.uint64(k.key(seed, k.MODULATION + k.PART * j, 0))
    start = k.uniform(np.uint64(k.mix(key)))

    def draws() -> Iterator[tuple[Floats, Floats]]:
        """Sojourn n has the draws 2 n - 1 and 2 n, n = 1, 2, ...; draw 0 chooses the first state."""
        n = 1
        while True:
            odd = 2 * np.arange(n, n + _BLOCK) - 1
            exponential, uniform = np.empty(_BLOCK), np.empty(_BLOCK)
            k.uniform_all(key, odd, exponential)
            k.uniform_all(key, odd + 1, uniform)
            k.neg_log_all(exponential)
            yield exponential, uniform
            n += _BLOCK

    return mmpp_knots(part.rates_per_s, part.mean_sojourn_s, scenario.horizon_s, start, draws())


def _stream(part: Traffic, j: int, scenario: Scenario, seed: np.uint64) -> _Stream:
    column = k.ARRIVAL + k.PART * j
    if part.process == "trace":
        trace = part.trace()
        times = np.require(trace.arrival_s, np.float64, ["C", "W"])
        arrivals = k.Arrivals(k.TRACE, _NONE, _NONE, _NONE, times, trace.pass_s, trace.n_requests)
        return _Stream(arrivals, column, _NONE, _NONE, float(trace.n_before(scenario.horizon_s)))
    known = _with_rate(k.CONSTANT, *part.knots(scenario.horizon_s, scenario.start), column)
    if part.gap_law is None:
        return known
    table = law_table(part.gap_law)
    sums = _filled_sums(seed, column, table, known.expected)
    return _Stream(known.arrivals, column, table, sums, known.expected)


def _with_rate(process: int, time_s: Floats, rate: Floats, column: int) -> _Stream:
    area = 0.5 * (rate[1:] + rate[:-1]) * np.diff(time_s)
    count = np.concatenate([[0.0], np.cumsum(area)])
    # two more than are due, so that the search for a window's first request always ends inside
    arrivals = k.Arrivals(process, time_s, rate, count, _NONE, 0.0, math.ceil(count[-1]) + 2)
    return _Stream(arrivals, column, _NONE, _NONE, float(count[-1]))


def _sum_of(rates: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """The sum of piecewise-linear rates, two knots at each time at which one of them jumps."""
    if len(rates) == 1:
        return rates[0]
    time_s = np.unique(np.concatenate([t for t, _ in rates]))
    before = np.sum([_limit(time_s, t, r, "left") for t, r in rates], axis=0)
    after = np.sum([_limit(time_s, t, r, "right") for t, r in rates], axis=0)
    keep = np.stack([np.ones(time_s.size, bool), before != after], axis=1)
    keep[0], keep[-1] = (False, True), (True, False)
    return np.repeat(time_s, 2).reshape(-1, 2)[keep], np.stack([before, after], axis=1)[keep]


def _limit(at: Floats, time_s: Floats, rate: Floats, side: str) -> Floats:
    """The rate just before (left) or just after (right) each time."""
    if side == "left":
        hi = np.clip(np.searchsorted(time_s, at, side="left"), 1, time_s.size - 1)
    else:
        hi = np.clip(np.searchsorted(time_s, at, side="right"), 1, time_s.size - 1)
    width = time_s[hi] - time_s[hi - 1]
    share = np.divide(at - time_s[hi - 1], width, out=np.zeros(at.size), where=width > 0)
    limit: Floats = rate[hi - 1] + (rate[hi] - rate[hi - 1]) * share
    return limit


def _count_before(t: float, a: k.Arrivals) -> float:
    """How many requests are due before t."""
    at = int(np.clip(np.searchsorted(a.knot_s, t, side="right") - 1, 0, a.knot_s.size - 2))
    width = a.knot_s[at + 1] - a.knot_s[at]
    slope = (a.knot_rate[at + 1] - a.knot_rate[at]) / width if width > 0 else 0.0
    x = t - a.knot_s[at]
    return float(a.knot_count[at] + x * (a.knot_rate[at] + 0.5 * slope * x))


def _filled(fill: Callable[[Floats], int], mean: float) -> Floats:
    """What `fill` writes, with more room until it says that it had enough."""
    room = math.ceil(mean + 8.0 * math.sqrt(mean)) + 64
    while True:
        out = np.empty(room)
        n = fill(out)
        if n >= 0:
            return out[:n]
        room *= 2


def _filled_sums(seed: np.uint64, column: int, table: Floats, total: float) -> Floats:
    room = math.ceil(total / k.RENEWAL_BLOCK) + 8
    while True:
        out = np.empty(room)
        n = k.renewal_sums(seed, column, table, total, out)
        if n >= 0:
            return out[: n + 1]
        room *= 2
