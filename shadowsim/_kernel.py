"""All compiled code, and every constant that it reads.

Rules of this file
------------------
numba's cache notices a change in the file that it compiles, not in the files that this one imports; so nothing that
compiled code reads is defined elsewhere, and this file imports numpy and numba only. Functions take scalars, arrays
and the named tuples below: inputs first, then state, then outputs. They never raise, never allocate in a loop over
requests, and run without the interpreter's lock. The same functions run uncompiled under `NUMBA_DISABLE_JIT=1` and
give the same bits: arithmetic is + - * /, sqrt, comparisons and integers, all of which IEEE 754 fixes to the last bit;
there is no call to a mathematics library, no contraction and no reordering. Hash arithmetic has np.uint64 operands
only, since a signed operand would turn it into floating point.

What a run is
-------------
Time is cut into windows of `period_s`. For each window, chunk by chunk of a size that stays in the cache:

    arrivals -> serve(source) -> which are copied -> serve(shadow) -> tally of both

Everything random about a request is a pure function of (seed, column, window, number in the window): see `key` and
`mix`. So no draw depends on the chunk size, on the order of computing, on threads, or on the fate of another request,
and two scenarios share every draw that they have in common. A copy is drawn by its *source* request's number.

Ties: at one instant a worker becomes free before a request arrives, ConcurrentRequestsPerModel is sampled after what
finishes and before what arrives, requests arrive in the order of their numbers, and a copy follows its source request.

Queues
------
An instance has `workers` workers and one FIFO queue. A request that arrives at t starts at max(t, earliest free time)
(Kiefer and Wolfowitz, 1955), so an instance's whole state is the multiset of its workers' free times, kept sorted: the
earliest leaves the front and the new one is inserted by comparisons without a branch. Starts never decrease, so a
queue that may hold L requests is full exactly when the L-th last accepted request has not started yet.

Laws
----
A law is a table of quantiles of mean 1. A draw's low bit chooses the half (upper or lower tail), its high 53 bits are a
tail probability u/2, and a cell is found from u's exponent and its 7 leading mantissa bits, so that cells shrink with
the tail: `draw` interpolates linearly inside a cell.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Int32s = NDArray[np.int32]
Hashes = NDArray[np.uint64]

# error_model="numpy": a division then carries no test for zero, and the loop round it can be vectorised. No divisor
# here can be zero (each is guarded where it is formed).
njit = numba.njit(nogil=True, cache=True, error_model="numpy")

# ---- The columns of draws: published, append only. A retry's attempt a will use column + 64 a. ----
ARRIVAL = 0
COPY = 1  # high 32 bits: the coin; low 32 bits: the order in which requests enter the sample
SOURCE_SERVICE, SOURCE_ROUTE, SOURCE_ERROR, SOURCE_RESPONSE_BYTES = 2, 3, 4, 5
SHADOW_SERVICE, SHADOW_ROUTE, SHADOW_ERROR, SHADOW_RESPONSE_BYTES = 6, 7, 8, 9
REQUEST_BYTES = 10

# ---- Arrival processes ----
POISSON, CONSTANT, TRACE = 0, 1, 2

# ---- Tables of quantiles: one cell for each exponent of u in (0, 1] and each value of its 7 leading mantissa bits ----
CELL_BITS = 7
TABLE_CELLS = 53 << CELL_BITS
TABLE_HALF = TABLE_CELLS + 2  # knots of one half; the last is read, at weight zero, by u = 1

# ---- Histogram of latencies: 128 buckets an octave from 2^-20 s (0.95 us) to 2^12 s (68 min), ends clamped ----
BUCKETS_LOG2 = 7
BUCKETS = 32 << BUCKETS_LOG2
BUCKET_LOWEST_S = 2.0**-20

# ---- What a window's row holds, one array of float64 a (window, variant) ----
R_REQUESTS, R_REFUSED, R_TIMED_OUT, R_ERROR_4XX, R_ERROR_5XX = 0, 1, 2, 3, 4
R_LATENCY_SUM, R_LATENCY_MIN, R_LATENCY_MAX, R_WAIT_SUM, R_WORK, R_BACKLOG = 5, 6, 7, 8, 9, 10
R_QUANTILES = 11  # five columns, for QUANTILES
R_CONCURRENT_MIN, R_CONCURRENT_MAX, R_REQUEST_BYTES, R_RESPONSE_BYTES, R_REFUSED_WORK = 16, 17, 18, 19, 20
R_WIDTH = 21
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)

# ---- What a row of the sample holds ----
S_WINDOW, S_NUMBER, S_ORDER, S_ARRIVAL = 0, 1, 2, 3
S_SOURCE, S_SHADOW = 4, 7  # from each: instance (-1: not copied), start (-1: refused), service
S_WIDTH = 10

CONCURRENCY_EVERY_S = 10.0  # CloudWatch emits ConcurrentRequestsPerModel every ten seconds


class Arrivals(NamedTuple):
    """When requests come.

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

    `queue_limit` and `timeout_s` are -1 and inf where there is none; `service`, `route` and `error` are columns of
    draws.
    """

    n_instances: int
    n_workers: int
    queue_limit: int
    timeout_s: float
    mean_s: float
    table: Floats
    work_s: Floats
    error_4xx: float
    error_5xx: float
    service: int
    route: int
    error: int


class Payload(NamedTuple):
    """Bytes of a request or of an answer: a law of mean `mean` (table), or a trace's column; mean -1: not counted."""

    mean: float
    table: Floats
    by_request: Floats
    column: int


class State(NamedTuple):
    """What a pool carries from one request to the next; updated in place.

    `free_s` (n_instances x n_workers,): sorted within an instance. `start_s` (n_instances x queue_limit,) and
    `start_at` (n_instances,): the last starts, as rings. `queued_change` (ticks, n_instances) and `queued`
    (n_instances,): how many requests wait at each ten-second tick, as changes, and at the last tick.
    """

    free_s: Floats
    start_s: Floats
    start_at: Ints
    queued_change: Int32s
    queued: Ints


class Tally(NamedTuple):
    """What is counted of a pool: `rows` (windows, R_WIDTH), `sections` (sections, BUCKETS), `bucket` (BUCKETS,)."""

    rows: Floats
    sections: Ints
    bucket: NDArray[np.uint32]


class Sample(NamedTuple):
    """Requests kept whole: those whose order is below `threshold`. `rows` (capacity, S_WIDTH), `n` (1,): how many."""

    threshold: np.uint64
    rows: Floats
    n: Ints


class Scratch(NamedTuple):
    """Columns of one chunk, for the source and for the shadow, reused from chunk to chunk.

    `number` counts requests from the chunk's first, `offset` is GOLDEN times it: both are fixed for the source, and
    chosen from those for the shadow.
    """

    reached: Floats
    number: Int32s
    offset: Hashes
    arrival: Floats
    work: Floats
    start: Floats
    instance: Int32s
    shadow_number: Int32s
    shadow_offset: Hashes
    shadow_arrival: Floats
    shadow_work: Floats
    shadow_start: Floats
    shadow_instance: Int32s
    kept: Int32s


# ---- Draws: splitmix64's finaliser over a counter (Steele, Lea and Flood, 2014) ----

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_0, _1, _11, _27, _30, _31, _32 = (np.uint64(n) for n in (0, 1, 11, 27, 30, 31, 32))
_LOW32 = np.uint64(0xFFFFFFFF)


@njit
def mix(z: np.uint64) -> np.uint64:
    """splitmix64's finaliser: a bijection of 64 bits."""
    z = (z ^ (z >> _30)) * _MIX1
    z = (z ^ (z >> _27)) * _MIX2
    return z ^ (z >> _31)


@njit
def key(seed: np.uint64, column: int, window: int) -> np.uint64:
    """The key of one column in one window; the draw of request i is `mix(key + GOLDEN * i)`."""
    k = mix(mix(seed) + GOLDEN * np.uint64(column + 1))
    return mix(k + GOLDEN * np.uint64(window + 1))


@njit
def uniform(z: np.uint64) -> float:
    """A draw as a number in (0, 1], a multiple of 2^-53."""
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
    """-log(u) for u in (0, 1]: a unit exponential variate when u is uniform."""
    bits = np.float64(u).view(np.int64)
    d = bits - _LOG_ORIGIN
    k = d >> 52
    cell = np.uint64((d >> 45) & 127)
    r = np.int64(bits - (k << 52)).view(np.float64) * _LOG_FACTOR[cell] - 1.0
    tail = r * r * (0.5 + r * (-1 / 3 + r * (0.25 + r * (-0.2 + r * (1 / 6 - r * (1 / 7))))))
    return (_LOG[cell] - np.float64(k) * _LN2) + (tail - r)


# ---- Tables of quantiles ----

_ONE_BITS = np.int64(0x3FF0000000000000)
_CELL_SHIFT = np.uint64(52 - CELL_BITS)
_CELL_MASK = np.uint64((1 << (52 - CELL_BITS)) - 1)
_CELL_ORIGIN = np.uint64(0x3FF << CELL_BITS)
_HALF = np.uint64(TABLE_HALF)


def table_tails() -> Floats:
    """Tail probabilities v = u / 2 at the knots of one half of a table, shape (TABLE_HALF - 1,): from 2^-54 to 1/2."""
    bits = _ONE_BITS + (np.arange(TABLE_CELLS + 1, dtype=np.int64) << (52 - CELL_BITS))
    return bits.view(np.float64) * 2.0**-54


@njit
def draw(z: np.uint64, table: Floats) -> float:
    """The quantile that a draw picks from a table: its low bit the half, its high 53 bits the tail probability."""
    bits = np.float64(np.int64(z >> _11) + 1).view(np.uint64)
    at = (bits >> _CELL_SHIFT) + (z & _1) * _HALF - _CELL_ORIGIN
    inside = np.float64(np.int64(bits & _CELL_MASK)) * 2.0 ** -(52 - CELL_BITS)
    low = table[at]
    return low + (table[at + _1] - low) * inside


@njit
def draw_all(k: np.uint64, number: Ints, table: Floats, scale: float, out: Floats) -> None:
    """Draws of the requests `number` (n,) under key k, times `scale`, into `out` (n,)."""
    for i in range(number.size):
        out[i] = draw(mix(k + GOLDEN * np.uint64(number[i])), table) * scale


@njit
def uniform_all(k: np.uint64, number: Ints, out: Floats) -> None:
    """Uniform draws of the requests `number` (n,) under key k, into `out` (n,)."""
    for i in range(number.size):
        out[i] = uniform(mix(k + GOLDEN * np.uint64(number[i])))


# ---- Arrivals ----


@njit
def _moment(count: float, t0: float, rate: float, slope: float) -> float:
    """When `count` requests after t0 have come, on a stretch whose rate is rate + slope (t - t0).

    The stable root of count = rate x + slope x^2 / 2; the guards only matter where the rate is zero at an end.
    """
    root = math.sqrt(max(rate * rate + 2.0 * slope * count, 0.0))
    return t0 + 2.0 * count / max(rate + root, 1e-300)


@njit
def _moments(count: Floats, lo: int, hi: int, last: float, stretch: Floats, out: Floats) -> float:
    """Arrival times of the counts lo..hi-1, all in one stretch; `last` is the arrival before them.

    Rounding may put a time past the stretch's end or, where the rate changes, an ulp before the last one: undone.
    """
    t0, rate, slope, origin, end = stretch[0], stretch[1], stretch[2], stretch[3], stretch[5]
    if slope == 0.0:
        for i in range(lo, hi):
            out[i] = min(t0 + (count[i] - origin) / rate, end)
    else:
        for i in range(lo, hi):
            last = max(min(_moment(count[i] - origin, t0, rate, slope), end), last)
            out[i] = last
    return out[hi - 1]


@njit
def _just_below(t: float) -> float:
    """The greatest float64 below t > 0."""
    return np.int64(np.float64(t).view(np.int64) - 1).view(np.float64)


@njit
def _constant_at(i: int, knot: int, a: Arrivals) -> float:
    """When request i of a constant process comes, `knot` being the first knot whose count passes i, less one."""
    t0, t1 = a.knot_s[knot], a.knot_s[knot + 1]
    rate = a.knot_rate[knot]
    slope = (a.knot_rate[knot + 1] - rate) / (t1 - t0)
    if slope == 0.0:
        return t0 + (i - a.knot_count[knot]) / rate if rate > 0.0 else np.inf
    return _moment(i - a.knot_count[knot], t0, rate, slope)


@njit
def _knot_of(i: int, a: Arrivals) -> int:
    """The stretch of the rate in which count i is reached: the last knot with knot_count <= i < the next one's."""
    lo, hi = 0, a.knot_count.size - 1
    while hi - lo > 1:
        mid = (lo + hi) // 2
        if a.knot_count[mid] <= i:
            lo = mid
        else:
            hi = mid
    return lo


@njit
def _global_at(i: int, a: Arrivals) -> float:
    """When request i, counted from the start of the run, comes: for constant arrivals and for traces."""
    if a.process == TRACE:
        m = a.trace_s.size
        return a.trace_s[i % m] + np.float64(i // m) * a.pass_s
    return _constant_at(i, _knot_of(i, a), a)


@njit
def first_from(t: float, a: Arrivals) -> int:
    """The number, counted from the start of the run, of the first request at or after t; `n_total` if there is none."""
    lo, hi = -1, a.n_total
    while hi - lo > 1:
        mid = (lo + hi) // 2
        if _global_at(mid, a) < t:
            lo = mid
        else:
            hi = mid
    return hi


@njit
def _next_global(start: int, n: int, end: float, a: Arrivals, out: Floats) -> int:
    """Arrival times of requests start, start + 1, ... before `end`, at most n; returns how many."""
    if a.process == TRACE:
        m = a.trace_s.size
        j, shift = start % m, np.float64(start // m) * a.pass_s
        for i in range(n):
            t = a.trace_s[j] + shift
            if t >= end:
                return i
            out[i] = t
            j += 1
            if j == m:
                j, shift = 0, np.float64((start + i + 1) // m) * a.pass_s
        return n
    knot = _knot_of(start, a)
    for i in range(n):
        while knot < a.knot_count.size - 2 and a.knot_count[knot + 1] <= start + i:
            knot += 1
        t = _constant_at(start + i, knot, a)
        if t >= end:
            return i
        out[i] = t
    return n


@njit
def _stretches(begin: float, end: float, a: Arrivals, first: int, out: Floats) -> int:
    """Cut a window at the rate's knots, from knot `first` on; returns how many stretches.

    A row of `out` is (t0, rate at t0, slope, count up to its start, count up to its end, greatest arrival time), counts
    from the window's start.
    """
    n, count = 0, 0.0
    for k in range(first, a.knot_s.size - 1):
        t0, t1 = a.knot_s[k], a.knot_s[k + 1]
        if t0 >= end:
            break
        lo, hi = max(t0, begin), min(t1, end)
        if hi <= lo:
            continue
        slope = (a.knot_rate[k + 1] - a.knot_rate[k]) / (t1 - t0)
        rate = a.knot_rate[k] + slope * (lo - t0)
        rate_end = a.knot_rate[k] + slope * (hi - t0)
        area = 0.5 * (rate + rate_end) * (hi - lo)
        out[n, 0], out[n, 1], out[n, 2], out[n, 3], out[n, 4] = lo, rate, slope, count, count + area
        out[n, 5] = _just_below(hi)
        count += area
        n += 1
    return n


@njit
def _poisson(
    k: np.uint64, size: int, count: float, last: float, stretch: Floats, n_stretches: int, at: int, s: Scratch
) -> tuple[int, float, int]:
    """The next arrivals of a window: how many (fewer than `size`: the window is full), the count reached, the stretch.

    Poisson arrivals at unit rate on the count axis, mapped through the inverse of the rate's integral. `k` is the key
    of the first of them, `last` the arrival before it.
    """
    for i in range(size):
        s.start[i] = neg_log(uniform(mix(k + GOLDEN * np.uint64(i))))
    total = stretch[n_stretches - 1, 4]
    n = size
    for i in range(size):
        count += s.start[i]
        if count >= total:
            n = i
            break
        s.reached[i] = count
    lo = 0
    while lo < n:
        while s.reached[lo] >= stretch[at, 4]:
            at += 1
        hi, edge = n, stretch[at, 4]
        if s.reached[n - 1] >= edge:
            hi = lo
            while s.reached[hi] < edge:
                hi += 1
        last = _moments(s.reached, lo, hi, last, stretch[at], s.arrival)
        lo = hi
    return n, count, at


# ---- One pool ----


@njit
def _fill_work(k: np.uint64, offset: Hashes, n: int, p: Pool, out: Floats) -> None:
    """Service times by the pool's law. `k` is the key of the chunk's first request."""
    for i in range(n):
        out[i] = draw(mix(k + offset[i]), p.table) * p.mean_s


@njit
def _copy_work(first: int, number: Int32s, n: int, p: Pool, out: Floats) -> None:
    """Service times from a trace, the chunk's first request being request `first` of the run."""
    m = p.work_s.size
    for i in range(n):
        out[i] = p.work_s[(first + number[i]) % m]


@njit
def _fill_instance(k: np.uint64, offset: Hashes, n: int, n_instances: int, out: Int32s) -> None:
    """RANDOM: each request to a random instance."""
    count = np.uint64(n_instances)
    for i in range(n):
        out[i] = np.int32(((mix(k + offset[i]) >> _32) * count) >> _32)


@njit
def _sample_concurrency(tick: int, p: Pool, s: State, row: Floats) -> None:
    """ConcurrentRequestsPerModel at a tick, an instance's waiting and in service: the window's extremes are updated."""
    t = np.float64(tick) * CONCURRENCY_EVERY_S
    for i in range(p.n_instances):
        s.queued[i] += s.queued_change[tick, i]
        busy = s.queued[i]
        for j in range(i * p.n_workers, (i + 1) * p.n_workers):
            busy += np.int64(s.free_s[j] > t)
        row[R_CONCURRENT_MIN] = min(row[R_CONCURRENT_MIN], np.float64(busy))
        row[R_CONCURRENT_MAX] = max(row[R_CONCURRENT_MAX], np.float64(busy))


@njit
def _note_queued(lo: int, hi: int, tick: int, instance: Int32s, start: Floats, p: Pool, s: State) -> None:
    """Note which of the requests lo..hi-1, all of which arrived before `tick`, wait at it and at later ticks.

    Most pools have nobody waiting then, which the workers that are free first tell without a look at the requests.
    """
    tick_s = np.float64(tick) * CONCURRENCY_EVERY_S
    waiting = False
    for i in range(p.n_instances):
        waiting = waiting or s.free_s[i * p.n_workers] > tick_s
    if not waiting:
        return
    n = s.queued_change.shape[0]
    for i in range(lo, hi):
        if start[i] > tick_s:
            gone = min(np.int64(math.ceil(min(start[i] / CONCURRENCY_EVERY_S, np.float64(n)))), n - 1)
            s.queued_change[tick, instance[i]] += np.int32(1)
            s.queued_change[gone, instance[i]] -= np.int32(1)


@njit
def _serve(
    arrival: Floats, work: Floats, instance: Int32s, lo: int, hi: int, n_workers: int, free_s: Floats,
    start: Floats,
) -> None:  # fmt: skip
    """Requests lo..hi-1 through the pool: `start` is written, `free_s` updated."""
    for i in range(lo, hi):
        at = np.uint64(np.int64(instance[i]) * n_workers)
        begin = max(free_s[at], arrival[i])
        start[i] = begin
        y = begin + work[i]
        for _ in range(n_workers - 1):
            other = free_s[at + _1]
            free_s[at] = min(other, y)
            y = max(other, y)
            at += _1
        free_s[at] = y


@njit
def _serve_limited(
    arrival: Floats, work: Floats, instance: Int32s, lo: int, hi: int, p: Pool, s: State, start: Floats
) -> None:
    """As `_serve`, where a request that finds `queue_limit` others waiting is refused: its start is -1."""
    k, limit = p.n_workers, p.queue_limit
    for i in range(lo, hi):
        at = np.int64(instance[i])
        ring = at * limit + s.start_at[at]
        full = s.start_s[ring] > arrival[i] if limit > 0 else s.free_s[at * k] > arrival[i]
        if full:
            start[i] = -1.0
            continue
        _serve(arrival, work, instance, i, i + 1, k, s.free_s, start)
        if limit > 0:
            s.start_s[ring] = start[i]
            s.start_at[at] = (s.start_at[at] + 1) % limit


@njit
def _serve_to(
    arrival: Floats, work: Floats, instance: Int32s, n: int, tick: int, p: Pool, s: State, start: Floats,
    row: Floats,
) -> int:  # fmt: skip
    """A chunk through the pool, stopping at each tick on the way to sample concurrency; returns the next tick."""
    lo = 0
    while lo < n:
        hi = n
        if arrival[n - 1] >= np.float64(tick) * CONCURRENCY_EVERY_S:
            hi = lo
            while arrival[hi] < np.float64(tick) * CONCURRENCY_EVERY_S:
                hi += 1
        # a literal number of workers lets the compiler unroll the insertion
        if p.queue_limit >= 0:
            _serve_limited(arrival, work, instance, lo, hi, p, s, start)
        elif p.n_workers == 1:
            _serve(arrival, work, instance, lo, hi, 1, s.free_s, start)
        elif p.n_workers == 2:
            _serve(arrival, work, instance, lo, hi, 2, s.free_s, start)
        elif p.n_workers == 4:
            _serve(arrival, work, instance, lo, hi, 4, s.free_s, start)
        elif p.n_workers == 8:
            _serve(arrival, work, instance, lo, hi, 8, s.free_s, start)
        else:
            _serve(arrival, work, instance, lo, hi, p.n_workers, s.free_s, start)
        _note_queued(lo, hi, tick, instance, start, p, s)
        if hi < n:
            _sample_concurrency(tick, p, s, row)
            tick += 1
        lo = hi
    return tick


# ---- Tally ----


@njit
def bucket_of(latency: float) -> int:
    """The histogram bucket of a latency in seconds."""
    lowest = np.float64(BUCKET_LOWEST_S).view(np.int64)
    b = (np.float64(latency).view(np.int64) - lowest) >> np.int64(52 - BUCKETS_LOG2)
    return min(max(b, 0), BUCKETS - 1)


def bucket_edges() -> Floats:
    """Edges of the histogram's buckets in seconds, shape (BUCKETS + 1,)."""
    lowest = np.float64(BUCKET_LOWEST_S).view(np.int64)
    return (lowest + (np.arange(BUCKETS + 1, dtype=np.int64) << (52 - BUCKETS_LOG2))).view(np.float64)


@njit
def _tally(
    arrival: Floats, work: Floats, start: Floats, n: int, timeout: float, row: Floats, bucket: NDArray[np.uint32]
) -> None:
    """Add a chunk to its window's row, request by request in order of arrival."""
    work_sum, wait_sum, latency_sum = row[R_WORK], row[R_WAIT_SUM], row[R_LATENCY_SUM]
    least, greatest = row[R_LATENCY_MIN], row[R_LATENCY_MAX]
    refused, timed_out = 0, 0
    for i in range(n):
        if start[i] < 0.0:
            refused += 1
            row[R_REFUSED_WORK] += work[i]
            continue
        x = (start[i] + work[i]) - arrival[i]
        timed_out += np.int64(x > timeout)
        x = min(x, timeout)
        work_sum += work[i]
        wait_sum += start[i] - arrival[i]
        latency_sum += x
        least = min(least, x)
        greatest = max(greatest, x)
        bucket[np.uint64(bucket_of(x))] += np.uint32(1)
    row[R_REQUESTS] += n
    row[R_REFUSED] += refused
    row[R_TIMED_OUT] += timed_out
    row[R_WORK], row[R_WAIT_SUM], row[R_LATENCY_SUM] = work_sum, wait_sum, latency_sum
    row[R_LATENCY_MIN], row[R_LATENCY_MAX] = least, greatest


@njit
def _in_time(arrival: float, work: float, start: float, timeout: float) -> bool:
    """Whether the model answered: neither refused nor timed out."""
    return start >= 0.0 and (start + work) - arrival <= timeout


@njit
def _tally_errors(
    k: np.uint64, offset: Hashes, arrival: Floats, work: Floats, start: Floats, n: int, p: Pool, row: Floats
) -> None:
    """Count the answers that the model itself fails: one draw a request chooses 4XX, 5XX or neither."""
    for i in range(n):
        if _in_time(arrival[i], work[i], start[i], p.timeout_s):
            u = uniform(mix(k + offset[i]))
            row[R_ERROR_4XX] += np.float64(u <= p.error_4xx)
            row[R_ERROR_5XX] += np.float64(p.error_4xx < u <= p.error_4xx + p.error_5xx)


@njit
def bytes_of(z: np.uint64, i: int, p: Payload) -> float:
    """Whole bytes of one payload: from its draw z, or from row i of a trace."""
    size = p.by_request[i % p.by_request.size] if p.by_request.size else draw(z, p.table) * p.mean
    return math.floor(size + 0.5)


@njit
def _tally_bytes(
    k: np.uint64, k_answer: np.uint64, offset: Hashes, first: int, number: Int32s,
    arrival: Floats, work: Floats, start: Floats, n: int,
    timeout: float, request: Payload, answer: Payload, row: Floats,
) -> None:  # fmt: skip
    """Payload bytes: of every request, and of every answer that the model gave in time."""
    for i in range(n):
        at = first + number[i]
        if request.mean >= 0.0:
            row[R_REQUEST_BYTES] += bytes_of(mix(k + offset[i]), at, request)
        if answer.mean >= 0.0 and _in_time(arrival[i], work[i], start[i], timeout):
            row[R_RESPONSE_BYTES] += bytes_of(mix(k_answer + offset[i]), at, answer)


@njit
def _backlog(boundary: float, s: State) -> float:
    """Work in worker-seconds that is left at a boundary."""
    left = 0.0
    for j in range(s.free_s.size):
        left += max(s.free_s[j] - boundary, 0.0)
    return left


@njit
def _close_window(end: float, window: int, section: int, s: State, t: Tally) -> None:
    """Quantiles of the window from its histogram, which moves on to its section and is emptied."""
    row = t.rows[window]
    row[R_BACKLOG] = _backlog(end, s)
    n = row[R_REQUESTS] - row[R_REFUSED]
    if n == 0.0:
        return
    seen, q = 0.0, 0
    for b in range(bucket_of(row[R_LATENCY_MIN]), bucket_of(row[R_LATENCY_MAX]) + 1):
        here = np.int64(t.bucket[b])
        if here == 0:
            continue
        t.sections[section, b] += here
        t.bucket[b] = np.uint32(0)
        while q < len(QUANTILES) and seen + here >= QUANTILES[q] * n:
            row[R_QUANTILES + q] = _within(b, (QUANTILES[q] * n - seen) / here, row)
            q += 1
        seen += here


@njit
def _within(b: int, share: float, row: Floats) -> float:
    """A latency `share` of the way through bucket b, no further than the window's extremes."""
    lowest = np.float64(BUCKET_LOWEST_S).view(np.int64)
    low = np.int64(lowest + (np.int64(b) << np.int64(52 - BUCKETS_LOG2))).view(np.float64)
    high = np.int64(lowest + (np.int64(b + 1) << np.int64(52 - BUCKETS_LOG2))).view(np.float64)
    x = low + (high - low) * share
    return min(max(x, row[R_LATENCY_MIN]), row[R_LATENCY_MAX])


# ---- Copies and sample ----


@njit
def _choose(k: np.uint64, n: int, coin: np.uint64, threshold: np.uint64, s: Scratch) -> tuple[int, int]:
    """Which of a chunk's requests are copied, and which may be sampled: `shadow_...` and `kept` are written."""
    copied, kept = 0, 0
    for i in range(n):
        z = mix(k + s.offset[i])
        s.shadow_number[copied] = i
        copied += np.int64((z >> _32) < coin)
        if (z & _LOW32) < threshold:
            s.kept[kept] = i
            kept += 1
    for i in range(copied):
        at = np.uint64(s.shadow_number[i])
        s.shadow_arrival[i] = s.arrival[at]
        s.shadow_offset[i] = s.offset[at]
    return copied, kept


@njit
def _keep(k: np.uint64, window: int, base: int, kept: int, copied: int, s: Scratch, sample: Sample) -> None:
    """Write the chosen requests of a chunk, with their copies, to the sample. `n` also counts what found no room."""
    c = 0
    for j in range(kept):
        i = s.kept[j]
        while c < copied and s.shadow_number[c] < i:
            c += 1
        at = sample.n[0]
        sample.n[0] += 1
        if at >= sample.rows.shape[0]:
            continue
        row = sample.rows[at]
        row[S_WINDOW], row[S_NUMBER] = window, base + i
        row[S_ORDER] = np.float64(np.int64(mix(k + s.offset[i]) & _LOW32))
        row[S_ARRIVAL] = s.arrival[i]
        row[S_SOURCE], row[S_SOURCE + 1], row[S_SOURCE + 2] = s.instance[i], s.start[i], s.work[i]
        row[S_SHADOW] = -1.0
        if c < copied and s.shadow_number[c] == i:
            row[S_SHADOW], row[S_SHADOW + 1] = s.shadow_instance[c], s.shadow_start[c]
            row[S_SHADOW + 2] = s.shadow_work[c]


# ---- The run ----


@njit
def run(
    first_window: int, last_window: int, n_windows: int, n_sections: int, period: float, horizon: float,
    seed: np.uint64, coin: np.uint64, a: Arrivals, source: Pool, shadow: Pool,
    request: Payload, source_answer: Payload, shadow_answer: Payload,
    source_state: State, shadow_state: State, ticks: Ints,
    source_tally: Tally, shadow_tally: Tally, sample: Sample, scratch: Scratch, stretch: Floats,
) -> int:  # fmt: skip
    """Simulate windows first_window..last_window-1.

    Parameters
    ----------
    n_windows, n_sections : int
        Of the whole run: window w belongs to section w n_sections // n_windows.
    period, horizon : float
        Seconds. The last window ends at the horizon.
    coin : uint64
        A request is copied when the high 32 bits of its COPY draw are below it.
    ticks : ndarray of int64, shape (2,)
        Next tick of ConcurrentRequestsPerModel, of source and shadow; updated.
    source_state, shadow_state, source_tally, shadow_tally, sample
        Updated in place.
    scratch, stretch
        Room to work in; contents do not matter. `stretch` has shape (knots, 6).

    Returns
    -------
    int
        How many requests arrived.
    """
    arrived = 0
    chunk = scratch.arrival.size
    s = scratch
    knot = 0
    for w in range(first_window, last_window):
        begin = np.float64(w) * period
        end = min(np.float64(w + 1) * period, horizon)
        section = w * n_sections // n_windows
        row, shadow_row = source_tally.rows[w], shadow_tally.rows[w]
        for r in (row, shadow_row):
            r[R_LATENCY_MIN], r[R_LATENCY_MAX] = np.inf, -np.inf
            r[R_CONCURRENT_MIN], r[R_CONCURRENT_MAX] = np.inf, -np.inf
        k_arrival, k_copy = key(seed, ARRIVAL, w), key(seed, COPY, w)
        k_work, k_route = key(seed, source.service, w), key(seed, source.route, w)
        k_shadow_work, k_shadow_route = key(seed, shadow.service, w), key(seed, shadow.route, w)
        first, total, n_stretches, at = 0, 0.0, 0, 0
        if a.process == POISSON:
            while knot < a.knot_s.size - 2 and a.knot_s[knot + 1] <= begin:
                knot += 1
            n_stretches = _stretches(begin, end, a, knot, stretch)
            total = stretch[n_stretches - 1, 4]
        else:
            first = first_from(begin, a)
        base, count, last, more = 0, 0.0, begin, True
        while more:
            at_base = GOLDEN * np.uint64(base)
            if a.process == POISSON:
                # draw only as many as the rest of the window is likely to need: a draw too many is lost time, one
                # too few is another turn of this loop
                rest = total - count
                size = min(chunk, np.int64(rest + 6.0 * math.sqrt(rest)) + 8)
                n, count, at = _poisson(k_arrival + at_base, size, count, last, stretch, n_stretches, at, s)
                more = n == size
            else:
                size = min(chunk, a.n_total - first - base)
                n = _next_global(first + base, size, end, a, s.arrival)
                more = n == size and first + base + n < a.n_total
            if n == 0:
                continue
            last = s.arrival[n - 1]
            if source.work_s.size:
                _copy_work(first + base, s.number, n, source, s.work)
            else:
                _fill_work(k_work + at_base, s.offset, n, source, s.work)
            _fill_instance(k_route + at_base, s.offset, n, source.n_instances, s.instance)
            ticks[0] = _serve_to(s.arrival, s.work, s.instance, n, ticks[0], source, source_state, s.start, row)
            copied, kept = _choose(k_copy + at_base, n, coin, sample.threshold, s)
            if shadow.work_s.size:
                _copy_work(first + base, s.shadow_number, copied, shadow, s.shadow_work)
            else:
                _fill_work(k_shadow_work + at_base, s.shadow_offset, copied, shadow, s.shadow_work)
            _fill_instance(k_shadow_route + at_base, s.shadow_offset, copied, shadow.n_instances, s.shadow_instance)
            ticks[1] = _serve_to(
                s.shadow_arrival, s.shadow_work, s.shadow_instance, copied, ticks[1], shadow, shadow_state,
                s.shadow_start, shadow_row,
            )  # fmt: skip
            _tally(s.arrival, s.work, s.start, n, source.timeout_s, row, source_tally.bucket)
            _tally(
                s.shadow_arrival, s.shadow_work, s.shadow_start, copied, shadow.timeout_s, shadow_row,
                shadow_tally.bucket,
            )  # fmt: skip
            if source.error_4xx + source.error_5xx > 0.0:
                _tally_errors(
                    key(seed, source.error, w) + at_base, s.offset, s.arrival, s.work, s.start, n, source, row
                )
            if shadow.error_4xx + shadow.error_5xx > 0.0:
                _tally_errors(
                    key(seed, shadow.error, w) + at_base, s.shadow_offset, s.shadow_arrival, s.shadow_work,
                    s.shadow_start, copied, shadow, shadow_row,
                )  # fmt: skip
            if request.mean >= 0.0 or source_answer.mean >= 0.0:
                k_request = key(seed, request.column, w) + at_base
                _tally_bytes(
                    k_request, key(seed, source_answer.column, w) + at_base, s.offset, first + base, s.number,
                    s.arrival, s.work, s.start, n, source.timeout_s, request, source_answer, row,
                )  # fmt: skip
                _tally_bytes(
                    k_request, key(seed, shadow_answer.column, w) + at_base, s.shadow_offset, first + base,
                    s.shadow_number, s.shadow_arrival, s.shadow_work, s.shadow_start, copied, shadow.timeout_s,
                    request, shadow_answer, shadow_row,
                )  # fmt: skip
            _keep(k_copy + at_base, w, base, kept, copied, s, sample)
            base += n
        while np.float64(ticks[0]) * CONCURRENCY_EVERY_S < end:
            _sample_concurrency(ticks[0], source, source_state, row)
            ticks[0] += 1
        while np.float64(ticks[1]) * CONCURRENCY_EVERY_S < end:
            _sample_concurrency(ticks[1], shadow, shadow_state, shadow_row)
            ticks[1] += 1
        _close_window(end, w, section, source_state, source_tally)
        _close_window(end, w, section, shadow_state, shadow_tally)
        arrived += base
    return arrived
