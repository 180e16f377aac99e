"""Draws other traces that might as well have been recorded: a stationary block bootstrap of one trace.

A recorded trace is one sample of its traffic. The stationary bootstrap (Politis and Romano, 1994) draws others from it:
it strings together blocks of successive requests, each from a random place to a random length, so that what lies within
a block stays as it was recorded: gaps, sizes and all other columns of a row. The trace is a circle: its first request
follows its last after the gap that makes up `Trace.pass_s`. Lengths of blocks are geometric.

`scenario.resample` says how long blocks are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from shadowsim.engine import _kernel as k
from shadowsim.scenario.resample import Resampling, gaps
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.traces import Trace

_ROOM = 1.1  # more requests than are expected within the horizon


def trace_of(scenario: Scenario, j: int = 0) -> Trace:
    """Return the trace that stream `j` of a scenario replays: the recorded one, or one that is drawn by its seed."""
    traffic = scenario.traffic.streams[j]
    trace = traffic.trace()
    if traffic.resample is None:
        return trace
    return _drawn(trace, traffic.resample, np.uint64(scenario.seed), j, scenario.horizon_s)


def _drawn(trace: Trace, resampling: Resampling, seed: np.uint64, j: int, horizon_s: float) -> Trace:
    gap_s, n, length = gaps(trace), trace.arrival_s.size, resampling.length(trace)
    room = math.ceil(_ROOM * horizon_s * n / trace.pass_s) + 64 if trace.pass_s > 0.0 else n
    while True:
        row = _rows(seed, j, n, room, length)
        # the first request comes at once, as that of the recorded trace
        arrival_s = np.concatenate([[0.0], np.cumsum(gap_s[row[1:]])])
        if arrival_s[-1] >= horizon_s or trace.pass_s == 0.0:
            break
        room *= 2
    row = row[: max(int(np.searchsorted(arrival_s, horizon_s)), 1)]
    columns = {name: values[row] for name, values in trace.columns.items()}
    lists = {name: values[row] for name, values in trace.lists.items()}
    drawn = replace(
        trace, columns=columns, lists=lists, row=trace.row[row], pass_s=max(horizon_s, trace.pass_s), repeat=1
    )
    return replace(drawn, arrival_s=arrival_s[: row.size])


def _rows(seed: np.uint64, j: int, n: int, room: int, length: float) -> NDArray[np.int64]:
    """Return the rows of `room` requests; request i begins a block by draw 2 i, in the row of draw 2 i + 1."""
    key = np.uint64(k.key(seed, k.RESAMPLE + k.PART * j, 0))
    begins, place = np.empty(room), np.empty(room)
    number = np.arange(room)
    k.uniform_all(key, 2 * number, begins)
    k.uniform_all(key, 2 * number + 1, place)
    starts = begins * length <= 1.0
    starts[0] = True
    start = np.minimum((place * n).astype(np.int64), n - 1)
    since = np.maximum.accumulate(np.where(starts, number, 0))
    rows: NDArray[np.int64] = (start[since] + number - since) % n
    return rows
