"""Simulates requests through two pools, whose requests end at times that are known when they arrive.

Rules of this file
------------------
Compiled code is here and in `_event_kernel`, with every constant that it reads; both import numpy and numba only.
numba's cache notices a change in the file that it compiles, but not in files that this one imports; the other file sees
to it. Functions take scalars, arrays and the named tuples below: inputs first, then state, then outputs. They never
raise, never allocate in a loop over requests, and run without the interpreter's lock. The same functions run uncompiled
under `NUMBA_DISABLE_JIT=1` and give the same bits: arithmetic is + - * /, sqrt, comparisons and integers, all of which
IEEE 754 fixes to the last bit; there is no call to a mathematics library, no contraction and no reordering. Hash
arithmetic has np.uint64 operands only, since a signed operand would turn it into floating point.

What a run is
-------------
Time is cut into windows of `period_s`. For each window, chunk by chunk of a size that stays in the cache:

    arrivals -> serve(source) -> tally -> choose and time the copies -> serve(shadow) -> tally

`run` simulates both sides, or one of them: the source's copies are then kept in `Copies` for the shadow's side, so that
two threads can work on one run. It returns early, to be called again, when a structure that grows with the backlog has
no room left for a chunk.

Everything random about a request is a pure function of (seed, column, window, number in the window): see `key` and
`mix`. So no draw depends on the chunk size, on the order of computing, on threads, or on the fate of another request,
and two scenarios share every draw that they have in common. A copy is drawn by its *source* request's number.

Ties: at one instant a worker becomes free before a request arrives, ConcurrentRequestsPerModel is sampled after
requests finish and before others arrive, requests arrive in the order of their numbers, and a copy follows its source
request.
Copies at the source's response leave in the order of (response, window, number).

Queues
------
An instance has `workers` workers and one FIFO queue. A request that arrives at t starts at max(t, earliest free time)
(Kiefer and Wolfowitz, 1955), so an instance's whole state is the multiset of its workers' free times, kept sorted: the
earliest leaves the front and the new one is inserted by comparisons without a branch. Starts never decrease, so a
queue that may hold L requests is full exactly when the L-th last accepted request has not started yet.

LEAST_OUTSTANDING_REQUESTS needs to know, at each arrival, which instances have the fewest unfinished requests. The time
at which a request leaves is known as soon as it is accepted. A timing wheel (Varghese and Lauck, 1987) holds these
times in buckets, with a bit for each bucket that is not empty, and one bitset per level holds the instances with a
number of unfinished requests. The m-th tied instance in index order is the m-th set bit: a function of the tied set
and the draw, never of a structure's history. The outcome of each search is unpredictable, and a mispredicted branch
costs as much as everything else, so the structures are searched by counting bits, without branches.

A backlog costs no more than an empty queue. What leaves later than within a turn of the wheel waits in lists, each of
one turn, beyond 4,096 turns of 4,096 turns, and so on (Varghese and Lauck's hierarchical wheels), and is looked at
again only when that time begins. The levels are 64 numbers of requests round the least one, and move with it.

Variants
--------
Compiling takes longest of all, so `run` is compiled for what a scenario needs. numba compiles a function for
the types of its arguments, and drops a branch on `argument is None`, or `is not None`, where the argument is None. (It
does so for arguments only, not for fields of a tuple, so these two are passed on.) There are three variants:

    general None, tracked None    plain: Poisson arrivals, a coin for each copy, which is made at the arrival, RANDOM
                                  pools without refusals, slowdown, errors or payloads, no caps
    general None, tracked True    the same with LEAST_OUTSTANDING_REQUESTS
    general True, tracked True    everything

In a plain run the columns that nothing reads are None, too: taking an array from Python is much code.

Laws
----
A law is a table of quantiles of mean 1. A draw's low bit chooses the half (upper or lower tail), its high 53 bits are a
tail probability u/2, and a cell is found from u's exponent and its 7 leading mantissa bits, so that cells shrink with
the tail: `draw` interpolates linearly inside a cell.
"""

from __future__ import annotations

import math
import os
import sys
from decimal import Decimal, localcontext
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Int32s = NDArray[np.int32]
Hashes = NDArray[np.uint64]

# error_model="numpy": divisions are then not tested for zero, and loops round them can be vectorised. No divisor here
# can be zero (each is guarded where it is formed). _nrt=False: arrays are borrowed from the caller, and no access to
# them counts references, which is atomic; a function can then neither allocate nor return an array.
njit = numba.njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cfunc_wrapper=True)
# For functions that only compiled code calls: without the wrappers for Python they compile faster, and a call from
# Python would crash. Never for a public function.
inner = numba.njit(
    nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True
)
# For functions that are called once per request: LLVM inlines them, whatever their size. (numba's own inlining would
# type and lower a copy at each call.)
inline = numba.njit(
    nogil=True,
    cache=True,
    error_model="numpy",
    _nrt=False,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
    forceinline=True,
)  # fmt: skip

# ---- The columns of draws: published, append only. A retry's attempt a will use column + 64 a. ----
ARRIVAL = 0
COPY = 1  # high 32 bits: the coin; low 32 bits: the order in which requests enter the sample
SOURCE_SERVICE, SOURCE_ROUTE, SOURCE_ERROR, SOURCE_RESPONSE_BYTES = 2, 3, 4, 5
SHADOW_SERVICE, SHADOW_ROUTE, SHADOW_ERROR, SHADOW_RESPONSE_BYTES = 6, 7, 8, 9
REQUEST_BYTES = 10
SESSION, SESSION_COPY, MODULATION = 11, 12, 13  # a request's session; which sessions are copied; states of an MMPP
RESAMPLE = 18  # where blocks of a resampled trace begin; 14 to 17 are those of events

# ---- Arrival processes ----
POISSON, CONSTANT, TRACE = 0, 1, 2

RENEWAL_BLOCK = 4096  # gaps of a renewal process that are keyed and summed together
PART = 1 << 16  # part j of superposed traffic draws its arrivals and states from columns c + PART j

# ---- Policies ----
RANDOM, LEAST_OUTSTANDING = 0, 1
COIN, COUNTER, HASH = 0, 1, 2
AT_ARRIVAL, AT_RESPONSE = 0, 1

# ---- Which sides `run` simulates, and its status ----
SOURCE_SIDE, SHADOW_SIDE, BOTH_SIDES = 1, 2, 3
DONE, NEEDS_ROOM = 0, 1

# ---- Reasons in place of a request's start ----
REFUSED, LOST_IN_FLIGHT, LOST_PER_S = -1.0, -2.0, -3.0

# ---- Tables of quantiles: one cell for each exponent of u in (0, 1] and each value of its 7 leading mantissa bits ----
CELL_BITS = 7
TABLE_CELLS = 53 << CELL_BITS
TABLE_HALF = TABLE_CELLS + 2  # knots of one half; the last is read, at weight zero, by u = 1

# ---- Histogram of latencies: 128 buckets per octave from 2^-20 s (0.95 us) to 2^12 s (68 min), ends clamped ----
BUCKETS_LOG2 = 7
BUCKETS = 32 << BUCKETS_LOG2
BUCKET_LOWEST_S = 2.0**-20

# ---- Columns of a window's row, one array of float64 per (window, variant) ----
R_REQUESTS, R_REFUSED, R_TIMED_OUT, R_ERROR_4XX, R_ERROR_5XX = 0, 1, 2, 3, 4
R_LATENCY_SUM, R_LATENCY_MIN, R_LATENCY_MAX, R_WAIT_SUM, R_WORK, R_BACKLOG = 5, 6, 7, 8, 9, 10
R_QUANTILES = 11  # five columns, for QUANTILES
R_CONCURRENT_MIN, R_CONCURRENT_MAX, R_REQUEST_BYTES, R_RESPONSE_BYTES, R_REFUSED_WORK = 16, 17, 18, 19, 20
R_LOST_BODY, R_LOST_IN_FLIGHT, R_LOST_PER_S = 21, 22, 23
R_WIDTH = 24
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)

# ---- Columns of the sample ----
S_WINDOW, S_NUMBER, S_ORDER, S_ARRIVAL, S_INSTANCE, S_START, S_SERVICE = 0, 1, 2, 3, 4, 5, 6
S_WIDTH = 7

# ---- Elements of `Progress.cursor` and `Progress.reached` ----
C_WINDOW, C_PHASE, C_BASE, C_FIRST, C_STRETCHES, C_STRETCH, C_MORE, C_COPIES, C_ARRIVED, C_OUT = range(10)
REACHED_COUNT, REACHED_S = 0, 1  # expected requests in the window, time of the last arrival
OPEN, ARRIVE, RELEASE, CLOSE = 0, 1, 2, 3  # phases of a window

# ---- Elements of `Flight.counts`: a free node, the number of requests, the bucket up to which all have left, how many
# requests leave after a turn of the wheel, the number of requests of level 0, the lowest level with an instance ----
F_FREE, F_TOTAL, F_LAST, F_FAR, F_BASE, F_LEAST = range(6)
LEVELS = 64
FAR_BITS, FAR_SCALES = 12, 4  # 48 bits and those of the wheel, at least 6, are more than buckets have

CONCURRENCY_EVERY_S = 10.0  # CloudWatch emits ConcurrentRequestsPerModel every ten seconds


# Whether a run needs a part of the code. None: it does not, and the part is not compiled; see `Variants`.
Need = Literal[True] | None


class Arrivals(NamedTuple):
    """The arrival process.

    `knot_s`, `knot_rate` (n,): a piecewise-linear rate; `knot_count` (n,): its integral up to each knot. A trace has
    `trace_s` (m,) instead, sorted, and is played `n_total / m` times, `pass_s` apart.
    """

    process: int
    knot_s: Floats
    knot_rate: Floats
    knot_count: Floats
    trace_s: Floats
    pass_s: float
    n_total: int


class Pool(NamedTuple):
    """One variant's instances. `table` (2 TABLE_HALF,) has mean 1; `work_s` (m,) replaces it for a trace with columns.

    `queue_limit` and `timeout_s` are -1 and inf where there is none. `slowdown[b - 1]` is the factor on a service that
    starts when b workers are busy, itself included; the last factor holds for more; empty: none. A service that finds
    its instance idle for x takes wake_s x / (x + wake_half_s) longer; `wake_s` 0: none. `buckets_per_s` is the
    resolution of the timing wheel. `service`, `route` and `error` are columns of draws.
    """

    n_instances: int
    n_workers: int
    queue_limit: int
    timeout_s: float
    mean_s: float
    table: Floats
    work_s: Floats
    slowdown: Floats
    wake_s: float
    wake_half_s: float
    error_4xx: float
    error_5xx: float
    routing: int
    buckets_per_s: float
    service: int
    route: int
    error: int


class Mirror(NamedTuple):
    """The rule that chooses the requests to copy, and the instant of copying. Caps are -1 if there is none.

    `coin`: the share as a threshold of 32 bits, `percent`: as SageMaker has it. `session_by_request` (m,) is a trace's
    column of session numbers; without one there are `n_sessions`, drawn evenly.
    """

    rule: int
    instant: int
    coin: np.uint64
    percent: int
    n_sessions: int
    session_by_request: Ints
    max_body_bytes: float
    max_in_flight: int
    max_per_s: int


class Payload(NamedTuple):
    """Bytes of a request or of an answer: a law of mean `mean` (table), or a trace's column; mean -1: not counted."""

    mean: float
    table: Floats
    by_request: Floats
    column: int


class Flight(NamedTuple):
    """Requests in flight, if they are tracked.

    `counts` (6,): F_... . A request is a node: `next_node`, `leave_s`, `instance` (nodes,). Nodes whose requests leave
    in one bucket of time are a list, ended by -1, from `wheel` (buckets,) on, and bit b of `occupied` (buckets / 64,)
    says that bucket b has one. `far` (FAR_SCALES, 2^FAR_BITS) are lists of those that leave later than within a turn of
    the wheel: row 0 by turns, modulo the row's length, the next row by times as long as row 0, and so on. Nodes that
    are free are another list.

    `outstanding` (n_instances,): how many requests an instance has in flight. Bit i of `level` (LEVELS, words) is set
    when instance i has as many as the level says, counted from F_BASE, or, at the first and last level, at most and at
    least so many; `at_level` (LEVELS,) counts those bits.
    """

    counts: Ints
    wheel: Int32s
    occupied: Hashes
    far: Int32s
    next_node: Int32s
    leave_s: Floats
    instance: Int32s
    outstanding: Ints
    level: Hashes
    at_level: Ints


class State(NamedTuple):
    """The state of a pool between requests; updated in place.

    `free_s` (n_instances x n_workers,): sorted within an instance. `start_s` (n_instances x queue_limit,) and
    `start_at` (n_instances,): the last starts, as rings. `queued_change` (ticks, n_instances) and `queued`
    (n_instances,): how many requests wait at each ten-second tick, as changes, and at the last tick; `tick` (1,): the
    next one.

    `copied_s` (max_per_s,) and `copied_at` (1,): when the last copies were made, as a ring.

    `flight` is None where requests are not tracked; so are the starts and the times of copies in a plain run.
    """

    free_s: Floats
    start_s: Floats
    start_at: Ints
    queued_change: Int32s
    queued: Ints
    tick: Ints
    flight: Flight
    copied_s: Floats
    copied_at: Ints


class Pending(NamedTuple):
    """Copies that wait for the source's response: a heap by (time, window, number) of `n` (1,) elements."""

    time_s: Floats
    window: Ints
    number: Ints
    request: Ints
    n: Ints


class Copies(NamedTuple):
    """Copies on their way to the shadow, in order of time.

    `offset` is GOLDEN times the source request's number in its window, `order` its order in the sample, `request` its
    number in the run, for traces. `window` is the source request's; it is written only for copies at a response, since
    those at arrival share the window in which they are served.
    """

    arrival: Floats
    window: Ints
    offset: Hashes
    request: Ints
    order: Hashes


class Tally(NamedTuple):
    """Counts of a pool: `rows` (windows, R_WIDTH), `sections` (sections, BUCKETS), `bucket` (BUCKETS,)."""

    rows: Floats
    sections: Ints
    bucket: NDArray[np.uint32]


class Sample(NamedTuple):
    """Single requests: those whose order is below `threshold`. `rows` (capacity, S_WIDTH), `n` (1,): their number."""

    threshold: np.uint64
    rows: Floats
    n: Ints


class RunSettings(NamedTuple):
    """Length of the run and of its windows; window w belongs to section w n_sections // n_windows.

    The last window ends at the horizon.
    """

    n_windows: int
    n_sections: int
    period_s: float
    horizon_s: float
    seed: np.uint64


class PoolRun(NamedTuple):
    """One side of a run: a pool, its responses' payloads, and what is updated: its state, counts and sample."""

    pool: Pool
    answer: Payload
    state: State
    tally: Tally
    sample: Sample


class Transit(NamedTuple):
    """Copies between the sides; `copies_end` (windows,): where a window's copies end in `copies`."""

    pending: Pending
    copies: Copies
    copies_end: Ints


class Progress(NamedTuple):
    """Where a run stands: `cursor` (10,): C_... ; `reached` (2,): REACHED_... ."""

    cursor: Ints
    reached: Floats


class Scratch(NamedTuple):
    """Columns of one chunk, reused from chunk to chunk and by both sides in turn.

    `offset` is GOLDEN times a request's number in the chunk; `request` counts from the start of the run, and is filled
    only for a trace. `picked` are the numbers of those to be copied, with their `order` in the sample; `kept` of those
    that may be sampled. `stretch` (knots, 6) are the stretches of the window on which the rate is linear, see
    `_stretches`.
    """

    reached: Floats
    offset: Hashes
    request: Ints
    order: Hashes
    picked: Int32s
    kept: Int32s
    arrival: Floats
    work: Floats
    route: Hashes
    start: Floats
    instance: Int32s
    stretch: Floats


# ---- Draws: splitmix64's finaliser over a counter (Steele, Lea and Flood, 2014) ----

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
NUMBER_OF_OFFSET = np.uint64(
    pow(0x9E3779B97F4A7C15, -1, 1 << 64)
)  # GOLDEN i NUMBER_OF_OFFSET is i: an offset tells its number
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_0, _1, _2, _3, _4, _6, _7, _8, _11, _27 = (np.uint64(n) for n in (0, 1, 2, 3, 4, 6, 7, 8, 11, 27))
_30, _31, _32, _56, _63, _255 = (np.uint64(n) for n in (30, 31, 32, 56, 63, 255))
_55, _33, _0F, _01, _80, _FF = (np.uint64(int(byte * 8, 16)) for byte in ("55", "33", "0F", "01", "80", "FF"))
LOW32 = np.uint64(0xFFFFFFFF)


@njit
def mix(z: np.uint64) -> np.uint64:
    """Return splitmix64's finaliser of z, a bijection of 64 bits."""
    z = (z ^ (z >> _30)) * _MIX1
    z = (z ^ (z >> _27)) * _MIX2
    return z ^ (z >> _31)


@njit
def key(seed: np.uint64, column: int, window: int) -> np.uint64:
    """Return the key of one column in one window; the draw of request i is `mix(key + GOLDEN * i)`."""
    k = mix(mix(seed) + GOLDEN * np.uint64(column + 1))
    return mix(k + GOLDEN * np.uint64(window + 1))


@njit
def uniform(z: np.uint64) -> float:
    """Return a draw as a number in (0, 1], a multiple of 2^-53."""
    return np.float64(np.int64(z >> _11) + 1) * 2.0**-53


# ---- The logarithm ----
# -log u for u in (0, 1], pinned: u = 2^k m with m in [0.6875, 1.375), m in one of 128 cells, r = m c - 1 with c near
# 1/m (c = 1 in the two cells that meet at 1, so that the result is exact at u = 1 and never negative), and a polynomial
# in r. Absolute error below 4e-16 max(1, -log u). The tables are rounded correctly from 40 decimal digits.

_LOG_ORIGIN = np.int64(0x3FE6000000000000)  # the bits of 0.6875
_LN2 = 0.6931471805599453


def _log_tables() -> tuple[Floats, Floats]:
    factor, log = np.empty(128), np.empty(128)
    with localcontext() as context:
        context.prec = 40
        for j in range(128):
            low = Decimal(float(np.int64(_LOG_ORIGIN + (j << 45)).view(np.float64)))
            high = Decimal(float(np.int64(_LOG_ORIGIN + ((j + 1) << 45)).view(np.float64)))
            # ten bits, so that the product with m loses as little as possible
            factor[j] = 1.0 if 1 in (low, high) else round(2048 / (low + high)) / 1024
            log[j] = float(Decimal(float(factor[j])).ln())
    return factor, log


_LOG_FACTOR, _LOG = _log_tables()


@njit
def neg_log(u: float) -> float:
    """Return -log(u) for u in (0, 1]: a unit exponential variate when u is uniform."""
    bits = np.float64(u).view(np.int64)
    d = bits - _LOG_ORIGIN
    k = d >> 52
    cell = np.uint64((d >> 45) & 127)
    r = np.int64(bits - (k << 52)).view(np.float64) * _LOG_FACTOR[cell] - 1.0
    tail = r * r * (0.5 + r * (-1 / 3 + r * (0.25 + r * (-0.2 + r * (1 / 6 - r * (1 / 7))))))
    return (_LOG[cell] - np.float64(k) * _LN2) + (tail - r)


@njit
def neg_log_all(u: Floats) -> None:
    """Replace each u by -log(u)."""
    for i in range(u.size):
        u[i] = neg_log(u[i])


# ---- Tables of quantiles ----

_ONE_BITS = np.int64(0x3FF0000000000000)
_CELL_SHIFT = np.uint64(52 - CELL_BITS)
_CELL_MASK = np.uint64((1 << (52 - CELL_BITS)) - 1)
_CELL_SHARE = 2.0 ** -(52 - CELL_BITS)  # named: numba would compute a power
_CELL_ORIGIN = np.uint64(0x3FF << CELL_BITS)
_HALF = np.uint64(TABLE_HALF)


def table_tails() -> Floats:
    """Return the tail probabilities v = u / 2, 2^-54 to 1/2, at the knots of half a table, shape (TABLE_HALF - 1,)."""
    bits = _ONE_BITS + (np.arange(TABLE_CELLS + 1, dtype=np.int64) << (52 - CELL_BITS))
    return bits.view(np.float64) * 2.0**-54


@njit
def draw(z: np.uint64, table: Floats) -> float:
    """Return a table's quantile for a draw: its low bit is the half, its high 53 bits are the tail probability."""
    bits = np.float64(np.int64(z >> _11) + 1).view(np.uint64)
    at = (bits >> _CELL_SHIFT) + (z & _1) * _HALF - _CELL_ORIGIN
    inside = np.float64(np.int64(bits & _CELL_MASK)) * _CELL_SHARE
    low = table[at]
    return low + (table[at + _1] - low) * inside


@njit
def draw_all(k: np.uint64, number: Ints, table: Floats, scale: float, out: Floats) -> None:
    """Write draws of the requests `number` (n,) under key k, times `scale`, into `out` (n,)."""
    for i in range(number.size):
        out[i] = draw(mix(k + GOLDEN * np.uint64(number[i])), table) * scale


@njit
def uniform_all(k: np.uint64, number: Ints, out: Floats) -> None:
    """Write uniform draws of the requests `number` (n,) under key k into `out` (n,)."""
    for i in range(number.size):
        out[i] = uniform(mix(k + GOLDEN * np.uint64(number[i])))


# ---- Arrivals ----


@inner
def _moment(count: float, t0: float, rate: float, slope: float) -> float:
    """Return the time at which `count` requests after t0 have come, where the rate is rate + slope (t - t0).

    It is the stable root of count = rate x + slope x^2 / 2; the guards matter only where the rate is zero at an end.
    """
    root = math.sqrt(max(rate * rate + 2.0 * slope * count, 0.0))
    return t0 + 2.0 * count / max(rate + root, 1e-300)


@inner
def _moments(count: Floats, last: float, stretch: Floats, out: Floats) -> float:
    """Write the arrival times of the counts, all in one stretch; `last` is the arrival before them.

    Rounding may put a time past the stretch's end or, where the rate changes, an ulp before the last one; both are
    corrected.
    """
    t0, rate, slope, origin, end = stretch[0], stretch[1], stretch[2], stretch[3], stretch[5]
    if slope == 0.0:
        for i in range(count.size):
            out[i] = min(t0 + (count[i] - origin) / rate, end)
    else:
        for i in range(count.size):
            last = max(min(_moment(count[i] - origin, t0, rate, slope), end), last)
            out[i] = last
    return out[count.size - 1]


@inner
def just_below(t: float) -> float:
    """Return the greatest float64 below t > 0."""
    return np.int64(np.float64(t).view(np.int64) - 1).view(np.float64)


@inner
def _count_at(count: float, knot: int, arrivals: Arrivals) -> float:
    """Return the time at which `count` requests have come, in the stretch of the rate that begins at `knot`."""
    t0, t1 = arrivals.knot_s[knot], arrivals.knot_s[knot + 1]
    rate = arrivals.knot_rate[knot]
    slope = (arrivals.knot_rate[knot + 1] - rate) / (t1 - t0)
    if slope == 0.0:
        return t0 + (count - arrivals.knot_count[knot]) / rate if rate > 0.0 else np.inf
    return _moment(count - arrivals.knot_count[knot], t0, rate, slope)


@inner
def _last_knot(x: float, knot: Floats) -> int:
    """Return the last knot at or before x, in time or in counts; never the very last, where no stretch begins."""
    lo, hi = 0, knot.size - 1
    while hi - lo > 1:
        mid = (lo + hi) // 2
        if knot[mid] <= x:
            lo = mid
        else:
            hi = mid
    return lo


@inner
def _global_at(i: int, arrivals: Arrivals) -> float:
    """Return the time of request i, counted from the start of the run, for constant arrivals and traces."""
    if arrivals.process == TRACE:
        m = arrivals.trace_s.size
        return arrivals.trace_s[i % m] + np.float64(i // m) * arrivals.pass_s
    return _count_at(np.float64(i), _last_knot(np.float64(i), arrivals.knot_count), arrivals)


@njit
def first_from(t: float, arrivals: Arrivals) -> int:
    """Return the number, from the start of the run, of the first request at or after t; `n_total` if there is none."""
    lo, hi = -1, arrivals.n_total
    while hi - lo > 1:
        mid = (lo + hi) // 2
        if _global_at(mid, arrivals) < t:
            lo = mid
        else:
            hi = mid
    return hi


@inner
def _next_global(start: int, n: int, end: float, arrivals: Arrivals, out: Floats) -> int:
    """Write the arrival times of requests start, start + 1, ... before `end`, at most n; return how many."""
    if n == 0:
        return 0
    if arrivals.process == TRACE:
        m = arrivals.trace_s.size
        j, shift = start % m, np.float64(start // m) * arrivals.pass_s
        for i in range(n):
            t = arrivals.trace_s[j] + shift
            if t >= end:
                return i
            out[i] = t
            j += 1
            if j == m:
                j, shift = 0, np.float64((start + i + 1) // m) * arrivals.pass_s
        return n
    knot = _last_knot(np.float64(start), arrivals.knot_count)
    for i in range(n):
        while knot < arrivals.knot_count.size - 2 and arrivals.knot_count[knot + 1] <= start + i:
            knot += 1
        t = _count_at(np.float64(start + i), knot, arrivals)
        if t >= end:
            return i
        out[i] = t
    return n


@inner
def _stretches(begin: float, end: float, arrivals: Arrivals, first: int, out: Floats) -> int:
    """Cut a window at the rate's knots, from knot `first` on; return the number of stretches.

    A row of `out` is (t0, rate at t0, slope, count up to its start, count up to its end, greatest arrival time), counts
    from the window's start.
    """
    n, count = 0, 0.0
    for k in range(first, arrivals.knot_s.size - 1):
        t0, t1 = arrivals.knot_s[k], arrivals.knot_s[k + 1]
        if t0 >= end:
            break
        lo, hi = max(t0, begin), min(t1, end)
        if hi <= lo:
            continue
        slope = (arrivals.knot_rate[k + 1] - arrivals.knot_rate[k]) / (t1 - t0)
        rate = arrivals.knot_rate[k] + slope * (lo - t0)
        rate_end = arrivals.knot_rate[k] + slope * (hi - t0)
        area = 0.5 * (rate + rate_end) * (hi - lo)
        out[n, 0], out[n, 1], out[n, 2], out[n, 3], out[n, 4] = lo, rate, slope, count, count + area
        out[n, 5] = just_below(hi)
        count += area
        n += 1
    return n


@inner
def _poisson(
    k: np.uint64, size: int, count: float, last: float, stretch: Floats, n_stretches: int, at: int, gap: Floats,
    reached: Floats, arrival: Floats,
) -> tuple[int, float, int]:  # fmt: skip
    """Write the next arrivals of a window; return how many (fewer than `size`: no more), the count and the stretch.

    Arrivals are Poisson at unit rate on the count axis, mapped through the inverse of the rate's integral. `k` is the
    key of the first one, `last` the arrival before it; `gap` and `reached` are scratch space.
    """
    for i in range(size):
        gap[i] = neg_log(uniform(mix(k + GOLDEN * np.uint64(i))))
    total = stretch[n_stretches - 1, 4]
    n = size
    for i in range(size):
        count += gap[i]
        if count >= total:
            n = i
            break
        reached[i] = count
    lo = np.int64(0)  # typed: with a literal, the functions called with it would be compiled once more
    while lo < n:
        while reached[lo] >= stretch[at, 4]:
            at += 1
        hi, edge = n, stretch[at, 4]
        if reached[n - 1] >= edge:
            hi = lo
            while reached[hi] < edge:
                hi += 1
        last = _moments(reached[lo:hi], last, stretch[at], arrival[lo:hi])
        lo = hi
    return n, count, at


@njit
def poisson_arrivals(
    first: int, last: int, period_s: float, horizon_s: float, seed: np.uint64, column: int, arrivals: Arrivals,
    stretch: Floats, gap: Floats, reached: Floats, arrival: Floats, out: Floats,
) -> int:  # fmt: skip
    """Write the Poisson arrivals of windows first..last-1 into `out`; return how many, or -1 without room for all."""
    n = 0
    for w in range(first, last):
        begin, end = np.float64(w) * period_s, min(np.float64(w + 1) * period_s, horizon_s)
        n_stretches = _stretches(begin, end, arrivals, _last_knot(begin, arrivals.knot_s), stretch)
        k, base, count, before, at, more = key(seed, column, w), 0, 0.0, begin, 0, True
        while more:
            size, k_base = arrival.size, k + GOLDEN * np.uint64(base)
            got, count, at = _poisson(k_base, size, count, before, stretch, n_stretches, at, gap, reached, arrival)
            if n + got > out.size:
                return -1
            for i in range(got):
                out[n + i] = arrival[i]
            n, base, more = n + got, base + got, got == size
            if got > 0:
                before = arrival[got - 1]
    return n


@njit
def global_arrivals(begin: float, end: float, arrivals: Arrivals, out: Floats) -> int:
    """Write constant arrivals, or a trace's, in [begin, end) into `out`; return how many, or -1 without room."""
    first = first_from(begin, arrivals)
    room = min(out.size, arrivals.n_total - first)
    n = _next_global(first, room, end, arrivals, out)
    return -1 if n == out.size and first + n < arrivals.n_total else n


@njit
def renewal_sums(seed: np.uint64, column: int, table: Floats, total: float, out: Floats) -> int:
    """Sum gaps of mean 1 in blocks of RENEWAL_BLOCK: `out[b]` is the sum of all gaps before block b.

    Return the number of blocks until the sum passes `total`, or -1 when `out` has no room for them.
    """
    count, b = 0.0, 0
    while count <= total:
        if b + 1 >= out.size:
            return -1
        out[b] = count
        inside, k = 0.0, key(seed, column, b)
        for i in range(RENEWAL_BLOCK):
            inside += draw(mix(k + GOLDEN * np.uint64(i)), table)
        count += inside
        b += 1
    out[b] = count
    return b


@njit
def renewal_arrivals(
    begin: float, end: float, seed: np.uint64, column: int, table: Floats, sums: Floats, first: int, arrivals: Arrivals,
    out: Floats,
) -> int:  # fmt: skip
    """Write the renewals in [begin, end), from block `first` on, into `out`; return how many, or -1 without room.

    Renewals are counts on an axis on which the rate is 1, mapped through the inverse of the rate's integral.
    """
    n, knot, t = 0, _last_knot(sums[first], arrivals.knot_count), begin
    for b in range(first, sums.size):
        inside, k = 0.0, key(seed, column, b)
        for i in range(RENEWAL_BLOCK):
            inside += draw(mix(k + GOLDEN * np.uint64(i)), table)
            count = sums[b] + inside
            while knot < arrivals.knot_count.size - 2 and arrivals.knot_count[knot + 1] <= count:
                knot += 1
            t = _count_at(count, knot, arrivals)
            if t >= end:
                return n
            if t >= begin:
                if n == out.size:
                    return -1
                out[n] = t
                n += 1
    return n


# ---- Draws for the requests of a chunk ----
# Columns are first cut to these requests: an index that may be negative, like lo + i, is tested at each access, and
# makes compilers gather and scatter what stands side by side.


@inner
def _draw_requests(
    seed: np.uint64, window: int, k: np.uint64, offset: Hashes, request: Ints, general: Need, pool: Pool, work: Floats,
    route: Hashes, instance: Int32s,
) -> None:  # fmt: skip
    """Write service times, by the pool's law or from a trace, and instances; draws are mix(k + key + offset).

    RANDOM chooses the instance here; one instance needs no choice. For LEAST_OUTSTANDING the draw is kept in `route`
    until the tie is known.
    """
    n = offset.size
    if general is not None and pool.work_s.size:
        m = pool.work_s.size
        for i in range(n):
            work[i] = pool.work_s[request[i] % m]
    else:
        k_work, table, mean_s = k + key(seed, pool.service, window), pool.table, pool.mean_s
        for i in range(n):
            work[i] = draw(mix(k_work + offset[i]), table) * mean_s
    k_route, count = k + key(seed, pool.route, window), np.uint64(pool.n_instances)
    if pool.n_instances == 1:
        for i in range(n):
            instance[i] = 0
    elif pool.routing == RANDOM:
        for i in range(n):
            instance[i] = np.int32(((mix(k_route + offset[i]) >> _32) * count) >> _32)
    else:
        for i in range(n):
            route[i] = mix(k_route + offset[i]) >> _32


# ---- Requests in flight ----
# These take arrays, not states: reading a field of a tuple in a loop costs a reference count, which is atomic.


def _select_table() -> NDArray[np.uint8]:
    """Return a table with, at 256 m + b, the position of the m-th set bit of the byte b, counting from 0."""
    table = np.empty(2048, np.uint8)
    for byte in range(256):
        places = [i for i in range(8) if byte >> i & 1]
        table[byte::256] = places + [0] * (8 - len(places))
    return table


_SELECT = _select_table()


@inline
def _popcount(x: np.uint64) -> np.uint64:
    """Return the number of set bits of x; it compiles to one instruction."""
    x = x - ((x >> _1) & _55)
    x = (x & _33) + ((x >> _2) & _33)
    x = (x + (x >> _4)) & _0F
    return (x * _01) >> _56


@inline
def lowest_bit(x: np.uint64) -> np.uint64:
    """Return the position of the lowest set bit of x > 0; likewise one instruction."""
    return _popcount((x & (~x + _1)) - _1)


@njit
def select(x: np.uint64, m: np.uint64) -> np.uint64:
    """Return the position of the m-th set bit of x, counting from 0, for m below the number of set bits.

    The byte is found by comparing m with the counts up to each of the eight bytes at once, and the bit in a table
    (Vigna, 2008).
    """
    s = x - ((x >> _1) & _55)
    s = (s & _33) + ((s >> _2) & _33)
    s = ((s + (s >> _4)) & _0F) * _01  # byte j: how many are set in bytes 0 to j
    at = ((((((m * _01) | _80) - s) & _80) >> _7) * _01 >> _56) << _3
    before = ((s << _8) >> at) & _255
    return at + np.uint64(_SELECT[((m - before) << _8) + ((x >> at) & _255)])


@inner
def _centre_levels(counts: Ints, outstanding: Ints, level: Hashes, at_level: Ints) -> None:
    """Move the levels so that the fewest requests in flight are in their middle.

    It takes LEVELS / 2 arrivals or departures at least until this is necessary again.
    """
    least = outstanding[0]
    for i in range(outstanding.size):
        least = min(least, outstanding[i])
    base = max(least - LEVELS // 2, 0)
    counts[F_BASE], counts[F_LEAST] = base, least - base
    level[:], at_level[:] = _0, 0
    for i in range(outstanding.size):
        n = _level_of(outstanding[i], base)
        level[n, i >> 6] |= _1 << (np.uint64(i) & _63)
        at_level[n] += 1


@inline
def _level_of(n: int, base: int) -> np.uint64:
    return np.uint64(min(max(n - base, 0), LEVELS - 1))


@inline
def _least_outstanding(
    route: np.uint64, counts: Ints, outstanding: Ints, level: Hashes, at_level: Ints
) -> np.uint64:  # fmt: skip
    """Return the instance with the fewest requests in flight; of m tied ones the (route m / 2^32)-th in index order."""
    if counts[F_LEAST] == LEVELS - 1 or counts[F_LEAST] == 0 < counts[F_BASE]:
        _centre_levels(counts, outstanding, level, at_level)
    least = np.uint64(counts[F_LEAST])
    m, word = (route * np.uint64(at_level[least])) >> _32, _0
    if level.shape[1] > 1:
        seen, before = _0, _0
        for w in range(level.shape[1]):
            seen += _popcount(level[least, np.uint64(w)])
            past = np.uint64(seen <= m)
            word += past
            before += past * (seen - before)
        m -= before
    return (word << _6) + select(level[least, word], m)


@inline
def _move(instance: np.uint64, by: int, counts: Ints, outstanding: Ints, level: Hashes, at_level: Ints) -> None:
    """Count one request more (by = 1) or less (-1) at an instance."""
    word, bit, base = instance >> _6, _1 << (instance & _63), counts[F_BASE]
    n = outstanding[instance]
    outstanding[instance] = n + by
    before, after = _level_of(n, base), _level_of(n + by, base)
    level[before, word] &= ~bit
    level[after, word] |= bit
    at_level[before] -= 1
    at_level[after] += 1
    if by < 0:
        counts[F_LEAST] = min(counts[F_LEAST], np.int64(after))
    else:
        # where the least level lost its last instance, this one is at the next
        counts[F_LEAST] += np.int64(at_level[np.uint64(counts[F_LEAST])] == 0)


@inline
def wheel_bucket(t: float, per_s: float) -> int:
    return np.int64(min(t * per_s, 9e15))


@inline
def _leave_until(
    t: float, per_s: float, counts: Ints, wheel: Int32s, occupied: Hashes, far: Int32s, next_node: Int32s,
    leave_s: Floats, instance: Int32s, outstanding: Ints, level: Hashes, at_level: Ints,
) -> None:  # fmt: skip
    """Remove the requests that leave at or before t from those in flight."""
    now, last = wheel_bucket(t, per_s), counts[F_LAST]
    counts[F_LAST] = now
    b = max(last, now - wheel.size + 1)
    while b <= now:
        # the buckets from b on that share a word of bits
        word, first = np.uint64(b & (wheel.size - 1)) >> _6, np.uint64(b) & _63
        n = min(64 - np.int64(first), now - b + 1)
        bits = (occupied[word] >> first) & (_FF >> np.uint64(64 - n))
        while bits != _0:
            slot = (word << _6) + first + lowest_bit(bits)
            bits &= bits - _1
            node, staying = np.int64(wheel[slot]), np.int64(-1)
            while node >= 0:
                at = np.uint64(node)
                after = np.int64(next_node[at])
                if leave_s[at] <= t:
                    next_node[at] = counts[F_FREE]
                    counts[F_FREE] = node
                    counts[F_TOTAL] -= 1
                    _move(np.uint64(instance[at]), -1, counts, outstanding, level, at_level)
                else:
                    next_node[at] = staying
                    staying = node
                node = after
            wheel[slot] = staying
            occupied[word] &= ~(np.uint64(staying < 0) << (slot & _63))
        b += n
    if counts[F_FAR] > 0:
        _come_near(
            t, last, per_s, counts, wheel, occupied, far, next_node, leave_s, instance, outstanding, level, at_level,
        )  # fmt: skip


@inner
def _come_near(
    t: float, last: int, per_s: float, counts: Ints, wheel: Int32s, occupied: Hashes, far: Int32s, next_node: Int32s,
    leave_s: Floats, instance: Int32s, outstanding: Ints, level: Hashes, at_level: Ints,
) -> None:  # fmt: skip
    """Look again at the far requests whose turns, or longer times, have begun since bucket `last`."""
    shift, now = np.int64(_popcount(np.uint64(wheel.size - 1))), counts[F_LAST]
    for scale in range(FAR_SCALES):
        begun = now >> shift
        if begun == last >> shift:
            break
        # what was in an earlier row comes into the wheel, and from this one nothing into those looked at already
        for u in range(max(last >> shift, begun - far.shape[1]) + 1, begun + 1):
            slot = u & (far.shape[1] - 1)
            node = np.int64(far[scale, slot])
            far[scale, slot] = -1
            while node >= 0:
                after = np.int64(next_node[node])
                counts[F_FAR] -= 1
                if leave_s[node] <= t:
                    next_node[node] = counts[F_FREE]
                    counts[F_FREE] = node
                    counts[F_TOTAL] -= 1
                    _move(np.uint64(instance[node]), -1, counts, outstanding, level, at_level)
                else:
                    _file(np.uint64(node), wheel_bucket(leave_s[node], per_s), counts, wheel, occupied, far, next_node)
                node = after
        shift += FAR_BITS


@inline
def _file(
    node: np.uint64, bucket: int, counts: Ints, wheel: Int32s, occupied: Hashes, far: Int32s, next_node: Int32s
) -> None:
    """Put a request into its bucket of the wheel, or among those that leave later."""
    if bucket - counts[F_LAST] < wheel.size:
        slot = np.uint64(bucket & (wheel.size - 1))
        next_node[node] = wheel[slot]
        wheel[slot] = node
        occupied[slot >> _6] |= _1 << (slot & _63)
    else:
        _put_far(node, bucket, counts, wheel, far, next_node)


@inner
def _put_far(node: np.uint64, bucket: int, counts: Ints, wheel: Int32s, far: Int32s, next_node: Int32s) -> None:
    shift, scale = np.int64(_popcount(np.uint64(wheel.size - 1))), 0
    u, begun = bucket >> shift, counts[F_LAST] >> shift
    while u - begun >= far.shape[1]:
        u, begun, scale = u >> FAR_BITS, begun >> FAR_BITS, scale + 1
    slot = u & (far.shape[1] - 1)
    next_node[node] = far[scale, slot]
    far[scale, slot] = node
    counts[F_FAR] += 1


@inline
def _enter(
    at: np.uint64, leave: float, per_s: float, counts: Ints, wheel: Int32s, occupied: Hashes, far: Int32s,
    next_node: Int32s, leave_s: Floats, instance: Int32s, outstanding: Ints, level: Hashes, at_level: Ints,
) -> None:  # fmt: skip
    """Add a request at instance `at` to those in flight, until `leave`."""
    node = np.uint64(counts[F_FREE])
    counts[F_FREE] = next_node[node]
    counts[F_TOTAL] += 1
    leave_s[node], instance[node] = leave, at
    _file(node, wheel_bucket(leave, per_s), counts, wheel, occupied, far, next_node)
    _move(at, 1, counts, outstanding, level, at_level)


# ---- One pool ----


@inner
def _sample_concurrency(pool: Pool, state: State, row: Floats) -> None:
    """Update the extremes of ConcurrentRequestsPerModel (an instance's waiting and in service) at the next tick."""
    tick = state.tick[0]
    t = np.float64(tick) * CONCURRENCY_EVERY_S
    for i in range(pool.n_instances):
        state.queued[i] += state.queued_change[tick, i]
        busy = state.queued[i]
        for j in range(i * pool.n_workers, (i + 1) * pool.n_workers):
            busy += np.int64(state.free_s[j] > t)
        row[R_CONCURRENT_MIN] = min(row[R_CONCURRENT_MIN], np.float64(busy))
        row[R_CONCURRENT_MAX] = max(row[R_CONCURRENT_MAX], np.float64(busy))
    state.tick[0] = tick + 1


@inner
def _note_queued(instance: Int32s, start: Floats, pool: Pool, state: State) -> None:
    """Count which of these requests, all of which arrived before the next tick, wait at it and at later ones.

    In most pools none waits at the tick, which the workers that become free first show without reading the requests.
    """
    tick = state.tick[0]
    tick_s = np.float64(tick) * CONCURRENCY_EVERY_S
    waiting = False
    for i in range(pool.n_instances):
        waiting = waiting or state.free_s[i * pool.n_workers] > tick_s
    if not waiting:
        return
    n = state.queued_change.shape[0]
    for i in range(start.size):
        if start[i] > tick_s:
            gone = min(np.int64(math.ceil(min(start[i] / CONCURRENCY_EVERY_S, np.float64(n)))), n - 1)
            state.queued_change[tick, instance[i]] += np.int32(1)
            state.queued_change[gone, instance[i]] -= np.int32(1)


@inline
def _start(at: np.uint64, n_workers: int, t: float, work: float, free_s: Floats) -> float:
    """Assign a request to the worker that is free first, of those from `at` on; return its start."""
    begin = max(free_s[at], t)
    y = begin + work
    for _ in range(n_workers - 1):
        other = free_s[at + _1]
        free_s[at] = min(other, y)
        y = max(other, y)
        at += _1
    free_s[at] = y
    return begin


@inner
def _serve(
    arrival: Floats, work: Floats, instance: Int32s, n_workers: int, free_s: Floats, start: Floats
) -> None:  # fmt: skip
    """Serve requests in FIFO queues: write `start`."""
    for i in range(arrival.size):
        at = np.uint64(np.int64(instance[i]) * n_workers)
        start[i] = _start(at, n_workers, arrival[i], work[i], free_s)


@inner
def _serve_least(
    arrival: Floats, work: Floats, route: Hashes, instance: Int32s, pool: Pool, state: State, start: Floats
) -> None:  # fmt: skip
    """Serve as `_serve` does, each request on an instance with the fewest in flight: write `instance`, too.

    The result is that of `_serve_any` when nothing can be refused, lost or slowed down, but a tenth faster.
    """
    k, timeout, per_s, free_s = pool.n_workers, pool.timeout_s, pool.buckets_per_s, state.free_s
    counts, wheel, occupied, far, next_node, leave_s, node_instance, outstanding, level, at_level = state.flight
    for i in range(arrival.size):
        t = arrival[i]
        _leave_until(
            t, per_s, counts, wheel, occupied, far, next_node, leave_s, node_instance, outstanding, level, at_level,
        )  # fmt: skip
        at = _least_outstanding(route[i], counts, outstanding, level, at_level)
        begin = _start(at * np.uint64(k), k, t, work[i], free_s)
        instance[i], start[i] = at, begin
        _enter(
            at, min(begin + work[i], t + timeout), per_s, counts, wheel, occupied, far, next_node, leave_s,
            node_instance, outstanding, level, at_level,
        )  # fmt: skip


@inner
def _serve_any(
    arrival: Floats, work: Floats, route: Hashes, instance: Int32s, capped: bool, mirror: Mirror, pool: Pool,
    state: State, start: Floats,
) -> None:  # fmt: skip
    """Serve as `_serve` does, with refusals, losses, slowdown and wake; `start` is the reason if there is no start.

    `capped`: the requests are copies, to which the mirror's caps apply. `work` becomes the time that the worker is
    held. Requests in flight are tracked only if the routing or a cap needs them.
    """
    k, limit, timeout, slowdown = pool.n_workers, pool.queue_limit, pool.timeout_s, pool.slowdown
    per_s = pool.buckets_per_s
    most_in_flight = mirror.max_in_flight if capped else -1
    most_per_s = mirror.max_per_s if capped else -1
    least = pool.routing == LEAST_OUTSTANDING
    flying = least or most_in_flight >= 0
    free_s, start_s, start_at = state.free_s, state.start_s, state.start_at
    copied_s, copied_at = state.copied_s, state.copied_at
    counts, wheel, occupied, far, next_node, leave_s, node_instance, outstanding, level, at_level = state.flight
    for i in range(arrival.size):
        t = arrival[i]
        if flying:
            _leave_until(
                t, per_s, counts, wheel, occupied, far, next_node, leave_s, node_instance, outstanding, level, at_level,
            )  # fmt: skip
            if most_in_flight >= 0 and counts[F_TOTAL] >= most_in_flight:
                start[i] = LOST_IN_FLIGHT
                continue
        if most_per_s >= 0:
            if most_per_s == 0 or copied_s[copied_at[0]] > t - 1.0:
                start[i] = LOST_PER_S
                continue
            copied_s[copied_at[0]] = t
            copied_at[0] = (copied_at[0] + 1) % most_per_s
        if least:
            instance[i] = np.int32(_least_outstanding(route[i], counts, outstanding, level, at_level))
        at = np.int64(instance[i])
        if limit >= 0:
            ring = at * limit + start_at[at]
            if (start_s[ring] if limit > 0 else free_s[at * k]) > t:
                start[i] = REFUSED
                continue
        if slowdown.size:
            begin, busy = max(free_s[at * k], t), 0
            for j in range(at * k + 1, (at + 1) * k):
                busy += np.int64(free_s[j] > begin)
            work[i] *= slowdown[min(busy, slowdown.size - 1)]
        if pool.wake_s > 0.0:
            idle_s = t - free_s[(at + 1) * k - 1]  # since its last worker was busy
            if idle_s > 0.0:
                work[i] += pool.wake_s * (idle_s / (idle_s + pool.wake_half_s))
        start[i] = _start(np.uint64(at * k), k, t, work[i], free_s)
        if limit > 0:
            start_s[at * limit + start_at[at]] = start[i]
            start_at[at] = (start_at[at] + 1) % limit
        if flying:
            _enter(
                np.uint64(at), min(start[i] + work[i], t + timeout), per_s, counts, wheel, occupied, far, next_node,
                leave_s, node_instance, outstanding, level, at_level,
            )  # fmt: skip


@inner
def _serve_to(
    arrival: Floats, general: Need, tracked: Need, capped: bool, mirror: Mirror, pool: Pool, state: State,
    scratch: Scratch, row: Floats,
) -> None:  # fmt: skip
    """Serve a chunk, and sample concurrency at each tick on the way."""
    n, free_s = arrival.size, state.free_s
    plain = True
    if general is not None:
        plain = pool.queue_limit < 0 and pool.slowdown.size == 0 and pool.wake_s == 0.0 and not capped
    lo = np.int64(0)
    while lo < n:
        hi, tick_s = n, np.float64(state.tick[0]) * CONCURRENCY_EVERY_S
        if arrival[n - 1] >= tick_s:
            hi = lo
            while arrival[hi] < tick_s:
                hi += 1
        t, work, route = arrival[lo:hi], scratch.work[lo:hi], scratch.route[lo:hi]
        instance, start = scratch.instance[lo:hi], scratch.start[lo:hi]
        # a literal number of workers lets the compiler unroll the insertion
        if general is not None and not plain:
            _serve_any(t, work, route, instance, capped, mirror, pool, state, start)
        elif tracked is not None and pool.routing == LEAST_OUTSTANDING:
            _serve_least(t, work, route, instance, pool, state, start)
        elif pool.n_workers == 1:
            _serve(t, work, instance, np.int64(1), free_s, start)
        elif pool.n_workers == 2:
            _serve(t, work, instance, np.int64(2), free_s, start)
        elif pool.n_workers == 4:
            _serve(t, work, instance, np.int64(4), free_s, start)
        elif pool.n_workers == 8:
            _serve(t, work, instance, np.int64(8), free_s, start)
        else:
            _serve(t, work, instance, pool.n_workers, free_s, start)
        _note_queued(instance, start, pool, state)
        if hi < n:
            _sample_concurrency(pool, state, row)
        lo = hi


# ---- Tally ----


@njit
def bucket_of(latency: float) -> int:
    """Return the histogram bucket of a latency in seconds."""
    lowest = np.float64(BUCKET_LOWEST_S).view(np.int64)
    b = (np.float64(latency).view(np.int64) - lowest) >> np.int64(52 - BUCKETS_LOG2)
    return min(max(b, 0), BUCKETS - 1)


def bucket_edges() -> Floats:
    """Return the edges of the histogram's buckets in seconds, shape (BUCKETS + 1,)."""
    lowest = np.float64(BUCKET_LOWEST_S).view(np.int64)
    return (lowest + (np.arange(BUCKETS + 1, dtype=np.int64) << (52 - BUCKETS_LOG2))).view(np.float64)


@inner
def _tally(
    arrival: Floats, work: Floats, start: Floats, general: Need, timeout: float, row: Floats, bucket: NDArray[np.uint32]
) -> None:
    """Add a chunk to its window's row, request by request in order of arrival."""
    work_sum, wait_sum, latency_sum = row[R_WORK], row[R_WAIT_SUM], row[R_LATENCY_SUM]
    least, greatest = row[R_LATENCY_MIN], row[R_LATENCY_MAX]
    n = arrival.size
    came, timed_out = n, 0
    for i in range(n):
        if general is not None and start[i] < 0.0:
            came -= _tally_without_start(start[i], work[i], row)
            continue
        t = arrival[i]
        x = (start[i] + work[i]) - t
        timed_out += np.int64(x > timeout)
        x = min(x, timeout)
        work_sum += work[i]
        wait_sum += start[i] - t
        latency_sum += x
        least = min(least, x)
        greatest = max(greatest, x)
        bucket[np.uint64(bucket_of(x))] += np.uint32(1)
    row[R_REQUESTS] += came
    row[R_TIMED_OUT] += timed_out
    row[R_WORK], row[R_WAIT_SUM], row[R_LATENCY_SUM] = work_sum, wait_sum, latency_sum
    row[R_LATENCY_MIN], row[R_LATENCY_MAX] = least, greatest


@inner
def _tally_without_start(why: float, work: float, row: Floats) -> int:
    """Count a refusal or a lost copy; return 1 for a copy, which never reached the pool, else 0."""
    if why == REFUSED:
        row[R_REFUSED] += 1.0
        row[R_REFUSED_WORK] += work
        return 0
    row[R_LOST_IN_FLIGHT if why == LOST_IN_FLIGHT else R_LOST_PER_S] += 1.0
    return 1


@inner
def _in_time(arrival: float, work: float, start: float, timeout: float) -> bool:
    """Return whether the model answered: the request was neither refused nor timed out."""
    return start >= 0.0 and (start + work) - arrival <= timeout


@njit
def bytes_of(z: np.uint64, i: int, payload: Payload) -> float:
    """Return the whole bytes of one payload: from its draw z, or from row i of a trace."""
    by_request = payload.by_request
    size = by_request[i % by_request.size] if by_request.size else draw(z, payload.table) * payload.mean
    return math.floor(size + 0.5)


@inner
def _tally_answers(
    seed: np.uint64, window: int, k: np.uint64, offset: Hashes, request: Ints, arrival: Floats, work: Floats,
    start: Floats, pool: Pool, sent: Payload, answer: Payload, row: Floats,
) -> None:  # fmt: skip
    """Count the model's errors, and the payloads of requests and of answers in time.

    One draw per request chooses 4XX, 5XX or neither.
    """
    n = offset.size
    if pool.error_4xx + pool.error_5xx > 0.0:
        k_error = k + key(seed, pool.error, window)
        for i in range(n):
            if _in_time(arrival[i], work[i], start[i], pool.timeout_s):
                u = uniform(mix(k_error + offset[i]))
                row[R_ERROR_4XX] += np.float64(u <= pool.error_4xx)
                row[R_ERROR_5XX] += np.float64(pool.error_4xx < u <= pool.error_4xx + pool.error_5xx)
    if sent.mean >= 0.0 or answer.mean >= 0.0:
        k_sent, k_answer = k + key(seed, sent.column, window), k + key(seed, answer.column, window)
        for i in range(n):
            if sent.mean >= 0.0 and start[i] >= REFUSED:
                row[R_REQUEST_BYTES] += bytes_of(mix(k_sent + offset[i]), request[i], sent)
            if answer.mean >= 0.0 and _in_time(arrival[i], work[i], start[i], pool.timeout_s):
                row[R_RESPONSE_BYTES] += bytes_of(mix(k_answer + offset[i]), request[i], answer)


@inner
def _backlog(boundary: float, state: State) -> float:
    """Return the work in worker-seconds that is left at a boundary."""
    left = 0.0
    for j in range(state.free_s.size):
        left += max(state.free_s[j] - boundary, 0.0)
    return left


@inner
def _close_window(end: float, window: int, section: int, pool: Pool, state: State, tally: Tally) -> None:
    """Sample the last ticks, compute the window's quantiles, and move its histogram to its section."""
    row = tally.rows[window]
    while np.float64(state.tick[0]) * CONCURRENCY_EVERY_S < end:
        _sample_concurrency(pool, state, row)
    row[R_BACKLOG] = _backlog(end, state)
    n = row[R_REQUESTS] - row[R_REFUSED]
    if n == 0.0:
        return
    close_histogram(n, row, section, tally.bucket, tally.sections)


@inner
def close_histogram(n: float, row: Floats, section: int, bucket: NDArray[np.uint32], sections: Ints) -> None:
    """Compute a window's quantiles from its histogram of n latencies, and move it to its section."""
    seen, q = 0.0, 0
    for b in range(bucket_of(row[R_LATENCY_MIN]), bucket_of(row[R_LATENCY_MAX]) + 1):
        here = np.int64(bucket[b])
        if here == 0:
            continue
        sections[section, b] += here
        bucket[b] = np.uint32(0)
        while q < len(QUANTILES) and seen + here >= QUANTILES[q] * n:
            row[R_QUANTILES + q] = _within(b, (QUANTILES[q] * n - seen) / here, row)
            q += 1
        seen += here


@inner
def _within(b: int, share: float, row: Floats) -> float:
    """Return the latency `share` of the way through bucket b, limited to the window's extremes."""
    lowest = np.float64(BUCKET_LOWEST_S).view(np.int64)
    low = np.int64(lowest + (np.int64(b) << np.int64(52 - BUCKETS_LOG2))).view(np.float64)
    high = np.int64(lowest + (np.int64(b + 1) << np.int64(52 - BUCKETS_LOG2))).view(np.float64)
    x = low + (high - low) * share
    return min(max(x, row[R_LATENCY_MIN]), row[R_LATENCY_MAX])


# ---- Copies ----


@inner
def _choose_coin(k: np.uint64, n: int, mirror: Mirror, threshold: np.uint64, scratch: Scratch) -> tuple[int, int]:
    """Choose requests by a coin each: write `picked`, `order` and `kept`; return the numbers of copies and samples."""
    offset, picked, orders = scratch.offset, scratch.picked, scratch.order
    copied, kept, coin = 0, 0, mirror.coin
    for i in range(n):
        z = mix(k + offset[i])
        picked[copied], orders[copied] = i, z & LOW32
        copied += np.int64((z >> _32) < coin)
        if (z & LOW32) < threshold:
            scratch.kept[kept] = i
            kept += 1
    return copied, kept


@inner
def _choose_otherwise(
    k: np.uint64, k_session: np.uint64, k_copy: np.uint64, before: int, n: int, mirror: Mirror, threshold: np.uint64,
    scratch: Scratch,
) -> tuple[int, int]:  # fmt: skip
    """Choose requests by COUNTER or HASH; write and return as `_choose_coin` does.

    COUNTER: request g of the run, counting from 1, is copied when floor(g share) grows; `before` came before these.
    HASH: all requests of a session or none, by a hash of the session's number.
    """
    copied, kept = 0, 0
    for i in range(n):
        order = mix(k + scratch.offset[i]) & LOW32
        if mirror.rule == COUNTER:
            g = before + i + 1
            copy = g * mirror.percent // 100 > (g - 1) * mirror.percent // 100
        else:
            session = session_of(mix(k_session + scratch.offset[i]), scratch.request[i], mirror)
            copy = (mix(k_copy + GOLDEN * session) >> _32) < mirror.coin
        scratch.picked[copied], scratch.order[copied] = i, order
        copied += np.int64(copy)
        if order < threshold:
            scratch.kept[kept] = i
            kept += 1
    return copied, kept


@njit
def session_of(z: np.uint64, i: int, mirror: Mirror) -> np.uint64:
    """Return the session of a request: from its draw z, or from row i of a trace."""
    if mirror.session_by_request.size:
        return np.uint64(mirror.session_by_request[i % mirror.session_by_request.size])
    return ((z >> _32) * np.uint64(mirror.n_sessions)) >> _32


@inner
def _small_enough(k: np.uint64, copied: int, mirror: Mirror, sent: Payload, scratch: Scratch, row: Floats) -> int:
    """Keep the chosen requests whose body may be copied, and count the others; return how many are kept."""
    kept = 0
    for j in range(copied):
        i = scratch.picked[j]
        scratch.picked[kept], scratch.order[kept] = i, scratch.order[j]
        kept += np.int64(bytes_of(mix(k + scratch.offset[i]), scratch.request[i], sent) <= mirror.max_body_bytes)
    row[R_LOST_BODY] += copied - kept
    return kept


@inline
def _earlier(
    t: float, window: int, number: int, at: np.uint64, time_s: Floats, windows: Ints, numbers: Ints
) -> bool:  # fmt: skip
    """Return whether a copy leaves before the pending one at `at`: by (response, window, number)."""
    if t != time_s[at]:
        earlier = t < time_s[at]
    elif window != windows[at]:
        earlier = window < windows[at]
    else:
        earlier = number < numbers[at]
    return earlier


# Four elements below each: half as many steps as with two, each of which reads one line of memory per column.


@inner
def rise(last: int, time_s: Floats, windows: Ints, numbers: Ints, requests: Ints) -> None:
    """Restore the heap after an element was put at its end, `last`."""
    i = np.uint64(last)
    t, window, number, request = time_s[i], windows[i], numbers[i], requests[i]
    while i > _0 and _earlier(t, window, number, (i - _1) >> _2, time_s, windows, numbers):
        above = (i - _1) >> _2
        time_s[i], windows[i] = time_s[above], windows[above]
        numbers[i], requests[i] = numbers[above], requests[above]
        i = above
    time_s[i], windows[i], numbers[i], requests[i] = t, window, number, request


@inner
def pop(n: int, time_s: Floats, windows: Ints, numbers: Ints, requests: Ints) -> None:
    """Remove the first of n + 1 pending copies."""
    i, end = _0, np.uint64(n)
    t, window, number, request = time_s[end], windows[end], numbers[end], requests[end]
    below = _1
    while below < end:
        first = below
        for child in range(below + _1, min(below + _4, end)):
            if _earlier(time_s[child], windows[child], numbers[child], first, time_s, windows, numbers):
                first = child
        if _earlier(t, window, number, first, time_s, windows, numbers):
            break
        time_s[i], windows[i] = time_s[first], windows[first]
        numbers[i], requests[i] = numbers[first], requests[first]
        i = first
        below = (i << _2) + _1
    time_s[i], windows[i], numbers[i], requests[i] = t, window, number, request


@inner
def _release(seed: np.uint64, through: float, pending: Pending, at: int, room: int, copies: Copies) -> int:
    """Move pending copies with a response at or before `through` to `copies`, at most `room`; return how many."""
    n = 0
    while n < room and pending.n[0] > 0 and pending.time_s[0] <= through:
        window, offset = pending.window[0], GOLDEN * np.uint64(pending.number[0])
        copies.arrival[at + n], copies.window[at + n], copies.offset[at + n] = pending.time_s[0], window, offset
        copies.request[at + n] = pending.request[0]
        copies.order[at + n] = mix(key(seed, COPY, window) + offset) & LOW32
        n += 1
        pending.n[0] -= 1
        pop(pending.n[0], pending.time_s, pending.window, pending.number, pending.request)
    return n


@inner
def _hand_over(
    window: int, base: int, copied: int, general: Need, counted: bool, timeout: float, mirror: Mirror,
    scratch: Scratch, pending: Pending, at: int, copies: Copies,
) -> int:  # fmt: skip
    """Write a chunk's copies to `copies` from `at` on, or to `pending`; return how many were written to `copies`."""
    picked, arrival = scratch.picked, scratch.arrival
    if general is None or mirror.instant == AT_ARRIVAL:
        k, offset, order = GOLDEN * np.uint64(base), scratch.offset, scratch.order
        to_arrival, to_offset, to_order = copies.arrival[at:], copies.offset[at:], copies.order[at:]
        for j in range(copied):
            i = np.uint64(picked[j])
            to_arrival[j], to_offset[j], to_order[j] = arrival[i], k + offset[i], order[j]
        if general is not None and counted:
            for j in range(copied):
                copies.request[at + j] = scratch.request[picked[j]]
        return copied
    start, work, request = scratch.start, scratch.work, scratch.request
    time_s, windows, number, requests, n = pending.time_s, pending.window, pending.number, pending.request, pending.n[0]
    for j in range(copied):
        i = picked[j]
        leave = arrival[i]
        if start[i] >= 0.0:
            # the same sum as the tally's latency, so that all code sees the same order of events
            leave += min((start[i] + work[i]) - arrival[i], timeout)
        time_s[n], windows[n], number[n], requests[n] = leave, window, base + i, request[i]
        rise(n, time_s, windows, number, requests)
        n += 1
    pending.n[0] = n
    return 0


# ---- The run ----


@inner
def open_row(row: Floats) -> None:
    for i in range(row.size):
        row[i] = 0.0
    row[R_LATENCY_MIN], row[R_LATENCY_MAX] = np.inf, -np.inf
    row[R_CONCURRENT_MIN], row[R_CONCURRENT_MAX] = np.inf, -np.inf


@inner
def open_arrivals(begin: float, end: float, arrivals: Arrivals, general: Need, stretch: Floats, cursor: Ints) -> None:
    """Set the cursor to a window's first arrival."""
    cursor[C_STRETCH], cursor[C_STRETCHES], cursor[C_FIRST] = 0, 0, 0
    if general is not None and arrivals.process != POISSON:
        cursor[C_FIRST] = first_from(begin, arrivals)
    else:
        cursor[C_STRETCHES] = _stretches(begin, end, arrivals, _last_knot(begin, arrivals.knot_s), stretch)


@inner
def arrive(
    w: int, end: float, seed: np.uint64, arrivals: Arrivals, general: Need, counted: bool, scratch: Scratch,
    stretch: Floats, cursor: Ints, reached: Floats,
) -> int:  # fmt: skip
    """Write the next arrivals of window w, at most a chunk, and, if `counted`, their numbers; return how many."""
    chunk, base, first = scratch.arrival.size, cursor[C_BASE], cursor[C_FIRST]
    if general is not None and arrivals.process != POISSON:
        size = min(chunk, arrivals.n_total - first - base)
        n = _next_global(first + base, size, end, arrivals, scratch.arrival)
        more = n == size and first + base + n < arrivals.n_total
    else:
        # draw about as many as the rest of the window needs: more are lost time, fewer cost another call
        rest = stretch[cursor[C_STRETCHES] - 1, 4] - reached[REACHED_COUNT]
        size = min(chunk, np.int64(rest + 6.0 * math.sqrt(rest)) + 8)
        n, reached[REACHED_COUNT], cursor[C_STRETCH] = _poisson(
            key(seed, ARRIVAL, w) + GOLDEN * np.uint64(base), size, reached[REACHED_COUNT], reached[REACHED_S], stretch,
            cursor[C_STRETCHES], cursor[C_STRETCH], scratch.start, scratch.reached, scratch.arrival,
        )  # fmt: skip
        more = n == size
    cursor[C_MORE] = np.int64(more)
    if n > 0:
        reached[REACHED_S] = scratch.arrival[n - 1]
    if general is not None and counted:
        for i in range(n):
            scratch.request[i] = first + base + i
    return n


@inner
def _same_window(window: Ints, lo: int) -> int:
    """Return the end of the copies from `lo` on that come from one window."""
    hi = lo + 1
    while hi < window.size and window[hi] == window[lo]:
        hi += 1
    return hi


@inner
def _copy(
    w: int, n: int, general: Need, counted: bool, seed: np.uint64, timeout: float, mirror: Mirror, sent: Payload,
    row: Floats, sample: Sample, pending: Pending, copies: Copies, scratch: Scratch, cursor: Ints,
) -> None:  # fmt: skip
    """Choose a chunk's requests to copy, pass the copies on, and sample the requests."""
    base = cursor[C_BASE]
    k = GOLDEN * np.uint64(base)
    k_copy = key(seed, COPY, w) + k
    if general is not None and mirror.rule != COIN:
        k_session, k_session_copy = key(seed, SESSION, w) + k, key(seed, SESSION_COPY, 0)
        copied, kept = _choose_otherwise(
            k_copy, k_session, k_session_copy, cursor[C_ARRIVED], n, mirror, sample.threshold, scratch
        )
    else:
        copied, kept = _choose_coin(k_copy, n, mirror, sample.threshold, scratch)
    if general is not None and mirror.max_body_bytes >= 0.0:
        copied = _small_enough(key(seed, sent.column, w) + k, copied, mirror, sent, scratch, row)
    number, offset, arrival = scratch.kept, scratch.offset, scratch.arrival
    rows, n_rows, instance, start, work = sample.rows, sample.n, scratch.instance, scratch.start, scratch.work
    for j in range(kept):
        i = number[j]
        order = mix(k_copy + offset[i]) & LOW32
        _keep_one(w, base + i, order, arrival[i], instance[i], start[i], work[i], rows, n_rows)
    cursor[C_OUT] += _hand_over(
        w, base, copied, general, counted, timeout, mirror, scratch, pending, cursor[C_OUT], copies
    )
    cursor[C_BASE] = base + n
    cursor[C_ARRIVED] += n


@inline
def _keep_one(
    window: int, number: int, order: np.uint64, arrival: float, instance: int, start: float, work: float, rows: Floats,
    n: Ints,
) -> None:  # fmt: skip
    """Write a request to the sample. `n` also counts requests without room."""
    at = n[0]
    n[0] = at + 1
    if at < rows.shape[0]:
        row = rows[at]
        row[S_WINDOW], row[S_NUMBER], row[S_ORDER] = window, number, np.float64(np.int64(order))
        row[S_ARRIVAL], row[S_INSTANCE], row[S_START], row[S_SERVICE] = arrival, instance, start, work


@inner
def _keep_copies(
    w: int, lo: int, n: int, general: Need, mixed: bool, copies: Copies, sample: Sample, scratch: Scratch
) -> None:
    """Sample the copies that reached the shadow."""
    order, arrival = copies.order[lo : lo + n], copies.arrival[lo:]
    offset = copies.offset[lo:]
    rows, n_rows, instance, start, work = sample.rows, sample.n, scratch.instance, scratch.start, scratch.work
    threshold = sample.threshold
    for i in range(n):
        if order[i] < threshold and start[i] >= REFUSED:
            window = w
            if general is not None and mixed:
                window = copies.window[lo + i]
            number = np.int64(offset[i] * NUMBER_OF_OFFSET)
            _keep_one(window, number, order[i], arrival[i], instance[i], start[i], work[i], rows, n_rows)


@inner
def _through_pool(
    w: int, general: Need, tracked: Need, mixed: bool, k: np.uint64, lo: int, hi: int, arrival: Floats, offset: Hashes,
    request: Ints, window: Ints, capped: bool, seed: np.uint64, pool: Pool, mirror: Mirror, sent: Payload,
    answer: Payload, state: State, tally: Tally, scratch: Scratch,
) -> None:  # fmt: skip
    """Serve requests, elements lo..hi-1 of the columns, and count them in the row of window w, in which they arrive.

    `mixed`: they come from several windows, as copies at a response do: `window` (n,) holds these.
    """
    n, row = hi - lo, tally.rows[w]
    arrival, offset = arrival[lo:hi], offset[lo:hi]
    work, start = scratch.work[:n], scratch.start[:n]
    if general is None:
        _draw_requests(seed, w, k, offset, request, general, pool, work, scratch.route[:n], scratch.instance[:n])
    else:
        request, window = request[lo:hi], window[lo:hi]
        i = np.int64(0)
        while i < n:
            j = _same_window(window, i) if mixed else n
            _draw_requests(
                seed, window[i] if mixed else w, k, offset[i:j], request[i:j], general, pool, work[i:j],
                scratch.route[i:j], scratch.instance[i:j],
            )  # fmt: skip
            i = j
    _serve_to(arrival, general, tracked, capped, mirror, pool, state, scratch, row)
    _tally(arrival, work, start, general, pool.timeout_s, row, tally.bucket)
    if general is not None:
        i = np.int64(0)
        if pool.error_4xx + pool.error_5xx == 0.0 and sent.mean < 0.0 and answer.mean < 0.0:
            i = n
        while i < n:
            j = _same_window(window, i) if mixed else n
            _tally_answers(
                seed, window[i] if mixed else w, k, offset[i:j], request[i:j], arrival[i:j], work[i:j], start[i:j],
                pool, sent, answer, row,
            )  # fmt: skip
            i = j


@inner
def _room_for_source(
    chunk: int, general: Need, tracked: Need, mirror: Mirror, flight: Flight, pending: Pending, copies: Copies,
    cursor: Ints,
) -> bool:  # fmt: skip
    waiting = general is None or mirror.instant == AT_ARRIVAL or pending.time_s.size - pending.n[0] >= chunk
    return _room_in_flight(tracked, flight, chunk) and waiting and copies.arrival.size - cursor[C_OUT] >= chunk


@inner
def _room_in_flight(tracked: Need, flight: Flight, n: int) -> bool:
    if tracked is None:
        return True
    return flight.leave_s.size == 0 or flight.leave_s.size - flight.counts[F_TOTAL] >= n


@njit
def run(
    last_window: int, sides: int, general: Need, tracked: Need, settings: RunSettings, arrivals: Arrivals,
    mirror: Mirror, sent: Payload, source: PoolRun, shadow: PoolRun, transit: Transit, scratch: Scratch,
    progress: Progress,
) -> int:  # fmt: skip
    """Simulate up to window `last_window`, from where `progress` stands.

    Parameters
    ----------
    sides : int
        BOTH_SIDES; or SOURCE_SIDE, which leaves the copies of window w in `transit.copies` up to
        `transit.copies_end[w]`; or SHADOW_SIDE, which takes them from there.
    general, tracked
        Which variant of this function; see the file's `Variants`.
    sent : Payload
        Bodies of requests.
    source, shadow, transit, progress
        Updated in place.
    scratch : Scratch
        Must be passed on to the next call.

    Returns
    -------
    int
        DONE, or NEEDS_ROOM: nodes of a state, pending copies or copies have no room for another chunk.
    """
    # unpacked once: reading a field counts references
    n_windows, n_sections, period_s, horizon_s, seed = settings
    pending, copies, copies_end = transit.pending, transit.copies, transit.copies_end
    cursor, reached = progress
    source_state, shadow_state, source_tally, shadow_tally = source.state, shadow.state, source.tally, shadow.tally
    stretch, chunk = scratch.stretch, scratch.arrival.size
    with_source, with_shadow = sides != SHADOW_SIDE, sides != SOURCE_SIDE
    late = mirror.instant == AT_RESPONSE
    counted = False
    if general is not None:
        counted = (
            source.pool.work_s.size + shadow.pool.work_s.size + sent.by_request.size + source.answer.by_request.size
            + mirror.session_by_request.size > 0
        )  # fmt: skip
    while cursor[C_WINDOW] < last_window:
        w = cursor[C_WINDOW]
        begin, end = np.float64(w) * period_s, min(np.float64(w + 1) * period_s, horizon_s)
        n, came = 0, False
        if cursor[C_PHASE] == OPEN:
            if with_source:
                open_row(source_tally.rows[w])
                open_arrivals(begin, end, arrivals, general, stretch, cursor)
                reached[REACHED_COUNT], reached[REACHED_S] = 0.0, begin
            if with_shadow:
                open_row(shadow_tally.rows[w])
            cursor[C_BASE], cursor[C_MORE], cursor[C_PHASE] = 0, np.int64(with_source), ARRIVE
        elif cursor[C_PHASE] == ARRIVE:
            if cursor[C_MORE] == 0:
                # a response at the window's end belongs to the next window
                reached[REACHED_S], cursor[C_PHASE] = just_below(end), RELEASE
            elif not _room_for_source(chunk, general, tracked, mirror, source_state.flight, pending, copies, cursor):
                return NEEDS_ROOM
            else:
                n, came = arrive(w, end, seed, arrivals, general, counted, scratch, stretch, cursor, reached), True
        elif cursor[C_PHASE] == RELEASE:
            if general is not None and late and with_source:
                room = (chunk if with_shadow else copies.arrival.size) - cursor[C_OUT]
                cursor[C_OUT] += _release(seed, reached[REACHED_S], pending, cursor[C_OUT], room, copies)
            if with_shadow:
                n = min((cursor[C_OUT] if with_source else copies_end[w]) - cursor[C_COPIES], chunk)
                if not _room_in_flight(tracked, shadow_state.flight, n):
                    return NEEDS_ROOM
            elif general is not None and late and pending.n[0] > 0 and pending.time_s[0] <= reached[REACHED_S]:
                return NEEDS_ROOM
            if n == 0:
                ended = not with_source or (cursor[C_MORE] == 0 and reached[REACHED_S] == just_below(end))
                cursor[C_PHASE] = CLOSE if ended else ARRIVE
        else:
            section = w * n_sections // n_windows
            if with_source:
                _close_window(end, w, section, source.pool, source_state, source_tally)
                copies_end[w] = cursor[C_OUT]
            if with_shadow:
                _close_window(end, w, section, shadow.pool, shadow_state, shadow_tally)
            cursor[C_WINDOW], cursor[C_PHASE] = w + 1, OPEN
        if n > 0:
            # one call for both sides: code that is inlined here is compiled once
            side, lo, k = source, 0, GOLDEN * np.uint64(cursor[C_BASE])
            arrival, offset, request = scratch.arrival, scratch.offset, scratch.request
            if not came:
                side, lo, k = shadow, cursor[C_COPIES], _0
                arrival, offset, request = copies.arrival, copies.offset, copies.request
            capped = not came and (mirror.max_in_flight >= 0 or mirror.max_per_s >= 0)
            mixed = late and not came
            _through_pool(
                w, general, tracked, mixed, k, lo, lo + n, arrival, offset, request, copies.window, capped, seed,
                side.pool, mirror, sent, side.answer, side.state, side.tally, scratch,
            )  # fmt: skip
            if came:
                _copy(
                    w, n, general, counted, seed, side.pool.timeout_s, mirror, sent, side.tally.rows[w], side.sample,
                    pending, copies, scratch, cursor,
                )  # fmt: skip
            else:
                _keep_copies(w, lo, n, general, mixed, copies, side.sample, scratch)
                cursor[C_COPIES] += n
                if with_source:
                    cursor[C_COPIES], cursor[C_OUT] = 0, 0
        if came:
            cursor[C_PHASE] = RELEASE
    return DONE


def watch(name: str, *others: ModuleType) -> None:
    """Let numba's cache see that what it holds of a module was compiled from other modules as well.

    It stamps a function with its own file's time and size only. Where another version of numba stores this elsewhere,
    or compiling is off, nothing is done.
    """
    files = [os.stat(str(other.__file__)) for other in others]
    stamps = tuple(value for file in files for value in (file.st_mtime, file.st_size))
    for function in list(vars(sys.modules[name]).values()):
        index: Any = getattr(getattr(function, "_cache", None), "_cache_file", None)
        if hasattr(index, "_source_stamp") and function.py_func.__module__ == name:
            index._source_stamp = (index._source_stamp, *stamps)
