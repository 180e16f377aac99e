"""Computes arrival times, a batch of windows at a time, or the rates from which the kernel does.

The kernel itself generates Poisson arrivals (at a modulated rate, too, once its path is drawn), constant ones and those
of a trace. Renewals, and superposed streams of different kinds, are computed here for a batch of windows, sorted, and
passed to the kernel as a trace. In both cases arrivals depend on the scenario alone, not on the batch or on earlier
calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.engine import _kernel as k
from shadowsim.engine.law_tables import law_table
from shadowsim.engine.resampling import trace_of
from shadowsim.scenario.rates import mmpp_knots
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.traffic import Traffic

_NONE = np.empty(0)
_BLOCK = 4096  # draws of an MMPP's path at a time


@dataclass(frozen=True, slots=True)
class _Stream:
    """One of the superposed streams; `table` and `sums` (blocks + 1,) are empty except for a renewal process."""

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
        Mean number of requests in the run, given the path of a modulated rate; exact for a trace.
    peak_per_s : float
        The highest rate; for a trace, its mean rate.
    """

    period_s: float
    horizon_s: float
    seed: np.uint64
    streams: tuple[_Stream, ...]
    expected_requests: float
    peak_per_s: float

    @property
    def n_knots(self) -> int:
        """Greatest number of the rate's knots in a window."""
        return max(max(s.arrivals.knot_s.size for s in self.streams), 1)

    @property
    def is_poisson(self) -> bool:
        """Whether the kernel itself draws all arrivals, at a rate that may vary."""
        return len(self.streams) == 1 and self.streams[0].arrivals.process == k.POISSON

    def of_windows(self, first: int, last: int) -> k.Arrivals:
        """Return the kernel's input for the arrivals of windows first..last-1."""
        if len(self.streams) == 1 and not self.streams[0].sums.size:
            return self.streams[0].arrivals
        with np.errstate(over="ignore"):  # hash arithmetic wraps, uncompiled too
            times = [self._times(stream, first, last) for stream in self.streams]
        merged = np.sort(np.concatenate(times), kind="stable")
        return k.Arrivals(k.TRACE, _NONE, _NONE, _NONE, merged, 0.0, merged.size)

    def times(self, n_windows: int) -> Floats:
        """Return the times of all requests in the first windows, ascending."""
        with np.errstate(over="ignore"):  # hash arithmetic wraps, uncompiled too
            return np.sort(np.concatenate([self._times(s, 0, n_windows) for s in self.streams]), kind="stable")

    def count(self, first: int, last: int) -> int:
        """Return the number of requests in windows first..last-1."""
        with np.errstate(over="ignore"):
            return sum(len(self._times(stream, first, last)) for stream in self.streams)

    def _times(self, stream: _Stream, first: int, last: int) -> Floats:
        begin, end = first * self.period_s, min(last * self.period_s, self.horizon_s)
        mean = stream.expected * (end - begin) / self.horizon_s

        def fill(out: Floats) -> int:
            if stream.sums.size:
                before = np.searchsorted(stream.sums, _count_before(begin, stream.arrivals), side="right")
                # a block early: rounding may put an arrival on the other side of the boundary
                block = max(int(before) - 2, 0)
                n: int = k.renewal_arrivals(
                    begin, end, self.seed, stream.column, stream.table, stream.sums, block, stream.arrivals, out
                )
            elif stream.arrivals.process == k.POISSON:
                room = np.empty((stream.arrivals.knot_s.size, 6)), np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
                n = k.poisson_arrivals(
                    first, last, self.period_s, self.horizon_s, self.seed, stream.column, stream.arrivals, *room, out
                )
            else:
                n = k.global_arrivals(begin, end, stream.arrivals, out)
            return n

        return _filled(fill, mean)


def arrivals_of(scenario: Scenario) -> ArrivalStream:
    """Return a scenario's arrivals; this reads its traces, draws the paths of modulated rates, and sums renewals."""
    seed, horizon_s = np.uint64(scenario.seed), scenario.horizon_s
    rates, streams = [], []
    with np.errstate(over="ignore"):  # hash arithmetic wraps, uncompiled too
        for j, traffic in enumerate(scenario.traffic.streams):
            if traffic.process in ("poisson", "mmpp"):
                rates.append(_rate(traffic, j, scenario, seed))
            else:
                streams.append(_stream(traffic, j, scenario, seed))
    if rates:
        # superposed Poisson processes are one, of the summed rate
        streams.insert(0, _with_rate(k.POISSON, *_sum_of(rates), k.ARRIVAL))
    peaks = [
        float(s.arrivals.knot_rate.max()) if s.arrivals.knot_rate.size else s.expected / horizon_s for s in streams
    ]
    expected = math.fsum(s.expected for s in streams)
    return ArrivalStream(scenario.period_s, horizon_s, seed, tuple(streams), expected, math.fsum(peaks))


def _rate(traffic: Traffic, j: int, scenario: Scenario, seed: np.uint64) -> tuple[Floats, Floats]:
    if traffic.process == "poisson":
        return traffic.knots(scenario.horizon_s, scenario.start)
    key = np.uint64(k.key(seed, k.MODULATION + k.PART * j, 0))
    start = k.uniform(np.uint64(k.mix(key)))

    def draws() -> Iterator[tuple[Floats, Floats]]:
        """Yield blocks of sojourns; sojourn n = 1, 2, ... has the draws 2 n - 1 and 2 n, and draw 0 the first state."""
        n = 1
        while True:
            odd = 2 * np.arange(n, n + _BLOCK) - 1
            exponential, uniform = np.empty(_BLOCK), np.empty(_BLOCK)
            k.uniform_all(key, odd, exponential)
            k.uniform_all(key, odd + 1, uniform)
            k.neg_log_all(exponential)
            yield exponential, uniform
            n += _BLOCK

    return mmpp_knots(traffic.rates_per_s, traffic.mean_sojourn_s, scenario.horizon_s, start, draws())


def _stream(traffic: Traffic, j: int, scenario: Scenario, seed: np.uint64) -> _Stream:
    column = k.ARRIVAL + k.PART * j
    if traffic.process == "trace":
        trace = trace_of(scenario, j)
        times = np.require(trace.arrival_s, np.float64, ["C", "W"])
        arrivals = k.Arrivals(k.TRACE, _NONE, _NONE, _NONE, times, trace.pass_s, trace.n_requests)
        return _Stream(arrivals, column, _NONE, _NONE, float(trace.n_before(scenario.horizon_s)))
    even = _with_rate(k.CONSTANT, *traffic.knots(scenario.horizon_s, scenario.start), column)
    if traffic.gap_law is None:
        return even
    table = law_table(traffic.gap_law)
    sums = _renewal_sums(seed, column, table, even.expected)
    return _Stream(even.arrivals, column, table, sums, even.expected)


def _with_rate(process: int, time_s: Floats, rate: Floats, column: int) -> _Stream:
    area = 0.5 * (rate[1:] + rate[:-1]) * np.diff(time_s)
    count = np.concatenate([[0.0], np.cumsum(area)])
    # two more than are due, so that the search for a window's first request always ends inside
    arrivals = k.Arrivals(process, time_s, rate, count, _NONE, 0.0, math.ceil(count[-1]) + 2)
    return _Stream(arrivals, column, _NONE, _NONE, float(count[-1]))


def _sum_of(rates: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Return the sum of piecewise-linear rates, with two knots at each time at which one of them jumps."""
    if len(rates) == 1:
        return rates[0]
    time_s = np.unique(np.concatenate([t for t, _ in rates]))
    before = np.sum([_limit(time_s, t, r, "left") for t, r in rates], axis=0)
    after = np.sum([_limit(time_s, t, r, "right") for t, r in rates], axis=0)
    keep = np.stack([np.ones(time_s.size, bool), before != after], axis=1)
    keep[0], keep[-1] = (False, True), (True, False)
    return np.repeat(time_s, 2).reshape(-1, 2)[keep], np.stack([before, after], axis=1)[keep]


def _limit(at: Floats, time_s: Floats, rate: Floats, side: str) -> Floats:
    """Return the rate just before (left) or just after (right) each time."""
    if side == "left":
        hi = np.clip(np.searchsorted(time_s, at, side="left"), 1, time_s.size - 1)
    else:
        hi = np.clip(np.searchsorted(time_s, at, side="right"), 1, time_s.size - 1)
    width = time_s[hi] - time_s[hi - 1]
    share = np.divide(at - time_s[hi - 1], width, out=np.zeros(at.size), where=width > 0)
    limit: Floats = rate[hi - 1] + (rate[hi] - rate[hi - 1]) * share
    return limit


def _count_before(t: float, arrivals: k.Arrivals) -> float:
    """Return the expected number of requests before t."""
    knot = int(np.clip(np.searchsorted(arrivals.knot_s, t, side="right") - 1, 0, arrivals.knot_s.size - 2))
    width = arrivals.knot_s[knot + 1] - arrivals.knot_s[knot]
    slope = (arrivals.knot_rate[knot + 1] - arrivals.knot_rate[knot]) / width if width > 0 else 0.0
    x = t - arrivals.knot_s[knot]
    return float(arrivals.knot_count[knot] + x * (arrivals.knot_rate[knot] + 0.5 * slope * x))


def _filled(fill: Callable[[Floats], int], mean: float) -> Floats:
    """Return what `fill` writes into an array of about `mean` elements, which grows until `fill` returns a length."""
    room = math.ceil(mean + 8.0 * math.sqrt(mean)) + 64
    while True:
        out = np.empty(room)
        n = fill(out)
        if n >= 0:
            return out[:n]
        room *= 2


def _renewal_sums(seed: np.uint64, column: int, table: Floats, total: float) -> Floats:
    """Return the sum of all gaps before each block of a renewal process, until it passes `total`."""
    room = math.ceil(total / k.RENEWAL_BLOCK) + 8
    while True:
        out = np.empty(room)
        n = k.renewal_sums(seed, column, table, total, out)
        if n >= 0:
            return out[: n + 1]
        room *= 2
