"""Creates, grows and compares the arrays that change during a run, and calls the kernel with them.

A `RunState` is one run, or a slice of it, at some point of time; it does not depend on how that point was reached.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Literal

import numpy as np

from shadowsim.engine import _kernel as k
from shadowsim.engine._event_kernel import EVENT_SAMPLE_WIDTH
from shadowsim.engine.arrivals import ArrivalStream
from shadowsim.engine.columns import Columns
from shadowsim.errors import SimulationError

_NONE = np.empty(0)
_ABSENT: Any = None  # a column that the kernel's variant does not read
NO_ARRIVALS = k.Arrivals(k.TRACE, _NONE, _NONE, _NONE, _NONE, 0.0, 0)


@dataclass(slots=True)
class RunState:
    """A run in progress; pairs are (source, shadow).

    `general` is False for a run that a plain variant of the kernel simulates: columns that it does not read are None.
    """

    general: bool
    columns: Columns
    arrivals: ArrivalStream
    source: k.State
    shadow: k.State
    tallies: tuple[k.Tally, k.Tally]
    samples: tuple[k.Sample, k.Sample]
    pending: k.Pending
    copies: k.Copies
    copies_end: k.Ints
    scratch: k.Scratch
    cursor: k.Ints
    reached: k.Floats

    def advance(self, last_window: int, sides: int = k.BOTH_SIDES) -> None:
        """Simulate up to `last_window`, with more room whenever the kernel asks for it."""
        first = int(self.cursor[k.C_WINDOW])
        arrivals = NO_ARRIVALS if sides == k.SHADOW_SIDE else self.arrivals.of_windows(first, last_window)
        with np.errstate(over="ignore"):  # hash arithmetic wraps, uncompiled too
            while k.run(*self._arguments(last_window, sides, arrivals)) == k.NEEDS_ROOM:
                self._grow()

    @property
    def is_compiled(self) -> bool:
        """Whether the kernel's variant for this run is in this process or in numba's cache."""
        return is_compiled(k.run, self._arguments(0, k.BOTH_SIDES, NO_ARRIVALS))

    def compile(self) -> None:
        """Compile the kernel's variant for this run, or load it from numba's cache; nothing is simulated."""
        k.run(*self._arguments(0, k.BOTH_SIDES, NO_ARRIVALS))

    def _arguments(self, last_window: int, sides: int, arrivals: k.Arrivals) -> tuple[Any, ...]:
        c, (source_tally, shadow_tally), (source_sample, shadow_sample) = self.columns, self.tallies, self.samples
        if not self.general:
            arrivals = arrivals._replace(trace_s=_ABSENT)
        return (
            last_window,
            sides,
            _need(self.general),
            _need(self.source.flight is not None),
            k.RunSettings(c.n_windows, c.n_sections, c.period_s, c.horizon_s, c.seed),
            arrivals,
            c.mirror,
            c.request,
            k.PoolRun(c.source, c.source_answer, self.source, source_tally, source_sample),
            k.PoolRun(c.shadow, c.shadow_answer, self.shadow, shadow_tally, shadow_sample),
            k.Transit(self.pending, self.copies, self.copies_end),
            self.scratch,
            k.Progress(self.cursor, self.reached),
        )

    def _grow(self) -> None:
        chunk = self.scratch.arrival.size
        self.source, self.shadow = _with_nodes(self.source, chunk), _with_nodes(self.shadow, chunk)
        if self.pending is not None and self.pending.time_s.size - int(self.pending.n[0]) < chunk:
            self.pending = longer_pending(self.pending, self.pending.time_s.size)
        if self.copies.arrival.size - int(self.cursor[k.C_OUT]) < chunk:
            self.copies = k.Copies(*(c if c is None else longer(c, c.size) for c in self.copies))

    def hand_over(self) -> tuple[k.Copies, k.Ints]:
        """Return the copies that the source's side has made since the last time, and where each window's end."""
        copies, ends = self.copies, self.copies_end
        self.copies, self.copies_end = new_copies(copies.arrival.size, self.general), ends.copy()
        self.cursor[k.C_OUT] = 0
        return copies, ends

    def take_copies(self, copies: k.Copies, ends: k.Ints) -> None:
        """Take the copies that the source's side handed over, for the shadow's side."""
        self.copies, self.copies_end = copies, ends
        self.cursor[k.C_COPIES] = 0

    def begin_at(self, window: int, arrived: int) -> None:
        """Move to the beginning of a window, before which `arrived` requests came; the pools are empty."""
        self.cursor[k.C_WINDOW], self.cursor[k.C_ARRIVED] = window, arrived
        tick = math.ceil(window * self.columns.period_s / k.CONCURRENCY_EVERY_S)
        while tick * k.CONCURRENCY_EVERY_S < window * self.columns.period_s:
            tick += 1
        for state in (self.source, self.shadow):
            state.tick[0] = tick

    def take_over(self, other: RunState) -> None:
        """Continue from the point of another state, at the beginning of a window."""
        self.source, self.shadow, self.pending = other.source, other.shadow, other.pending
        self.cursor[:] = other.cursor

    def digest(self) -> bytes:
        """Return a hash of the part of the state that can affect anything after the current window's beginning."""
        now = min(int(self.cursor[k.C_WINDOW]) * self.columns.period_s, self.columns.horizon_s)
        digest = sha256()
        for pool, state in ((self.columns.source, self.source), (self.columns.shadow, self.shadow)):
            for values in _relevant_state(now, pool, state):
                digest.update(np.ascontiguousarray(values).tobytes())
        if self.pending is not None:
            pending, n = self.pending, int(self.pending.n[0])
            for column in (pending.time_s, pending.window, pending.number, pending.request):
                order = np.lexsort((pending.number[:n], pending.window[:n], pending.time_s[:n]))
                digest.update(column[:n][order].tobytes())
        return digest.digest()

    @property
    def arrived(self) -> int:
        """Number of requests that have arrived."""
        return int(self.cursor[k.C_ARRIVED])


def is_compiled(function: Any, arguments: tuple[Any, ...] | None = None) -> bool:
    """Return whether this process or numba's cache has a function compiled, for these arguments or for any.

    True if that cannot be told: numba is switched off, or another version of it.
    """
    try:
        cache = function._cache
        index = cache._cache_file._load_index()
        if arguments is None:
            return bool(function.signatures or index)
        types = tuple(map(function.typeof_pyval, arguments))
        return types in function.overloads or cache._index_key(types, function.targetctx.codegen()) in index
    except (AttributeError, OSError):
        return True


def new_run_state(c: Columns, arrivals: ArrivalStream, chunk: int, samples: tuple[k.Sample, k.Sample]) -> RunState:
    """Return the state at the start of a run, with empty pools."""
    general = not _is_plain(c, arrivals)
    source_tracked = c.source.routing == k.LEAST_OUTSTANDING
    shadow_tracked = c.shadow.routing == k.LEAST_OUTSTANDING or c.mirror.max_in_flight >= 0
    at_response = c.mirror.instant == k.AT_RESPONSE
    source = _new_state(c.source, c.horizon_s, chunk if source_tracked else 0, 0)
    shadow = _new_state(c.shadow, c.horizon_s, chunk if shadow_tracked else 0, max(c.mirror.max_per_s, 0))
    scratch = new_scratch(chunk, arrivals.n_knots)
    if not general:
        source, shadow, scratch = _plain_state(source), _plain_state(shadow), scratch._replace(request=_ABSENT)
    if not (general or source_tracked or shadow_tracked):
        source, shadow = source._replace(flight=_ABSENT), shadow._replace(flight=_ABSENT)
    return RunState(
        general=general,
        columns=c if general else _plain_columns(c),
        arrivals=arrivals,
        source=source,
        shadow=shadow,
        tallies=(_new_tally(c), _new_tally(c)),
        samples=samples,
        pending=new_pending(2 * chunk if at_response else 0) if general else _ABSENT,
        copies=new_copies(chunk, general),
        copies_end=np.zeros(c.n_windows, np.int64),
        scratch=scratch,
        cursor=np.zeros(10, np.int64),
        reached=np.zeros(2),
    )


def _is_plain(c: Columns, arrivals: ArrivalStream) -> bool:
    """Return whether a plain variant of the kernel can simulate a run."""
    pools, payloads, mirror = (c.source, c.shadow), (c.request, c.source_answer, c.shadow_answer), c.mirror
    return (
        arrivals.is_poisson
        and not (c.source_dynamics.evented or c.shadow_dynamics.evented)
        and not any(p.queue_limit >= 0 or p.slowdown.size or p.wake_s or p.work_s.size for p in pools)
        and all(p.error_4xx == p.error_5xx == 0.0 for p in pools)
        and all(payload.mean < 0.0 for payload in payloads)
        and (mirror.rule, mirror.instant) == (k.COIN, k.AT_ARRIVAL)
        and max(mirror.max_body_bytes, mirror.max_in_flight, mirror.max_per_s) < 0
    )


def _need(needed: bool) -> Literal[True] | None:
    return True if needed else None


def _plain_columns(c: Columns) -> Columns:
    """Return a plain run's columns without those that the kernel does not read."""
    return replace(
        c,
        mirror=c.mirror._replace(session_by_request=_ABSENT),
        source=c.source._replace(work_s=_ABSENT, slowdown=_ABSENT),
        shadow=c.shadow._replace(work_s=_ABSENT, slowdown=_ABSENT),
        request=_ABSENT,
        source_answer=_ABSENT,
        shadow_answer=_ABSENT,
    )


def _plain_state(state: k.State) -> k.State:
    return state._replace(start_s=_ABSENT, start_at=_ABSENT, copied_s=_ABSENT, copied_at=_ABSENT)


def _relevant_state(now: float, pool: k.Pool, s: k.State) -> Iterator[Any]:
    """Yield the part of a pool's state that still matters at `now`, in a form that does not depend on its history."""
    yield np.maximum(s.free_s, now)
    if pool.wake_s > 0.0:
        yield s.free_s[pool.n_workers - 1 :: pool.n_workers]  # since when instances are idle
    if pool.queue_limit > 0:
        rings = s.start_s.reshape(pool.n_instances, pool.queue_limit)
        oldest_first = [np.roll(ring, -int(at)) for ring, at in zip(rings, s.start_at, strict=True)]
        yield np.maximum(oldest_first, now)
    tick = int(s.tick[0])
    last = min(math.ceil(float(s.free_s.max()) / k.CONCURRENCY_EVERY_S) + 2, s.queued_change.shape[0] - 1)
    # how many wait at future ticks; the last row is never read
    yield s.queued + np.cumsum(s.queued_change[tick : max(last, tick)], axis=0, dtype=np.int64)
    f = s.flight
    if f is not None and f.leave_s.size:
        flying = np.zeros(f.leave_s.size, bool)
        heads = np.concatenate([f.wheel, f.far.ravel()])
        for node in heads[heads >= 0]:
            while node >= 0:
                flying[node] = f.leave_s[node] > now
                node = f.next_node[node]
        leave, instance = f.leave_s[flying], f.instance[flying]
        order = np.lexsort((instance, leave))
        yield leave[order]
        yield instance[order]
    if s.copied_s is not None:
        yield np.maximum(np.roll(s.copied_s, -int(s.copied_at[0])), now - 1.0)


def _new_state(pool: k.Pool, horizon_s: float, nodes: int, max_per_s: int) -> k.State:
    """Return an empty pool. Ticks beyond the horizon are counted in one spare row, which is never read."""
    n_ticks = math.ceil(horizon_s / k.CONCURRENCY_EVERY_S) + 2
    n = pool.n_instances
    return k.State(
        free_s=np.zeros(n * pool.n_workers),
        start_s=np.full(n * max(pool.queue_limit, 0), -1.0),
        start_at=np.zeros(n, np.int64),
        queued_change=np.zeros((n_ticks, n), np.int32),
        queued=np.zeros(n, np.int64),
        tick=np.zeros(1, np.int64),
        flight=_new_flight(pool, nodes),
        copied_s=np.full(max(max_per_s, 1), -math.inf),
        copied_at=np.zeros(1, np.int64),
    )


def _new_flight(pool: k.Pool, nodes: int) -> k.Flight:
    """Return an empty in-flight table with room for 2 `nodes` requests (0 if the pool's requests are not tracked)."""
    n = pool.n_instances
    buckets = wheel_size(pool)
    instances = np.arange(n, dtype=np.uint64)
    level = np.zeros((k.LEVELS, -(-n // 64)), np.uint64)
    at_level = np.zeros(k.LEVELS, np.int64)
    np.bitwise_or.at(level[0], instances // 64, np.uint64(1) << instances % 64)
    at_level[0] = n
    flight = k.Flight(
        counts=np.array([-1, 0, 0, 0, 0, 0]),
        wheel=np.full(buckets if nodes else 1, -1, np.int32),
        occupied=np.zeros(buckets // 64, np.uint64),
        far=np.full((k.FAR_SCALES, 1 << k.FAR_BITS) if nodes else (1, 1), -1, np.int32),
        next_node=np.empty(0, np.int32),
        leave_s=np.empty(0),
        instance=np.empty(0, np.int32),
        outstanding=np.zeros(n, np.int64),
        level=level,
        at_level=at_level,
    )
    return _more_nodes(flight, 2 * nodes) if nodes else flight


def wheel_size(pool: k.Pool) -> int:
    """Return the number of buckets of a pool's timing wheel: a turn is several service times, so few stay longer."""
    return 1 << min(max(math.ceil(math.log2(4 * pool.buckets_per_s * max(pool.mean_s, 1e-9) + 1)), 6), 16)


def _with_nodes(state: k.State, n: int) -> k.State:
    """Return the state with room for n more requests in flight, if they are tracked."""
    size = 0 if state.flight is None else state.flight.leave_s.size
    if size == 0 or size - int(state.flight.counts[k.F_TOTAL]) >= n:
        return state
    return state._replace(flight=_more_nodes(state.flight, size))


def _more_nodes(flight: k.Flight, n: int) -> k.Flight:
    size = flight.leave_s.size
    chain = np.arange(size + 1, size + n + 1, dtype=np.int32)
    chain[-1] = flight.counts[k.F_FREE]
    flight.counts[k.F_FREE] = size
    return flight._replace(
        next_node=np.concatenate([flight.next_node, chain]),
        leave_s=np.concatenate([flight.leave_s, np.zeros(n)]),
        instance=np.concatenate([flight.instance, np.zeros(n, np.int32)]),
    )


def longer(column: Any, more: int, value: float = 0) -> Any:
    """Return a column with `more` rows more, all of `value`."""
    grown = np.zeros((len(column) + more, *column.shape[1:]), column.dtype)  # zeros take no memory until they change
    grown[: len(column)] = column
    if value:
        grown[len(column) :] = value
    return grown


def longer_pending(pending: k.Pending, more: int) -> k.Pending:
    """Return the pending copies with room for `more` others."""
    columns = ("time_s", "window", "number", "request")
    return pending._replace(**{name: longer(getattr(pending, name), more) for name in columns})


def _new_tally(c: Columns) -> k.Tally:
    """Return zero counts of one variant for a whole run."""
    return k.Tally(
        rows=np.zeros((c.n_windows, k.R_WIDTH)),
        sections=np.zeros((c.n_sections, k.BUCKETS), np.int64),
        bucket=np.zeros(k.BUCKETS, np.uint32),
    )


def new_pending(n: int) -> k.Pending:
    """Return room for n copies that wait for a response."""
    window, number, request, count = (np.zeros(size, np.int64) for size in (n, n, n, 1))
    return k.Pending(np.zeros(n), window, number, request, count)


def new_copies(n: int, general: bool) -> k.Copies:
    """Return room for n copies on their way to the shadow, with the columns that the kernel's variant writes."""

    def integers() -> k.Ints:
        return np.zeros(n, np.int64)

    def hashes() -> k.Hashes:
        return np.zeros(n, np.uint64)

    window, request = (integers(), integers()) if general else (_ABSENT, _ABSENT)
    return k.Copies(arrival=np.zeros(n), window=window, offset=hashes(), request=request, order=hashes())


def new_scratch(chunk: int, n_knots: int) -> k.Scratch:
    """Return room for chunks of up to `chunk` requests, and for the stretches between `n_knots` knots of the rate."""

    def real() -> k.Floats:
        return np.empty(chunk)

    return k.Scratch(
        reached=real(), offset=np.arange(chunk, dtype=np.uint64) * k.GOLDEN, request=np.zeros(chunk, np.int64),
        # one more: an element is written before it is known whether it counts
        order=np.empty(chunk + 1, np.uint64), picked=np.empty(chunk + 1, np.int32),
        kept=np.empty(chunk, np.int32), arrival=real(), work=real(), route=np.empty(chunk, np.uint64), start=real(),
        instance=np.empty(chunk, np.int32), stretch=np.empty((n_knots, 6)),
    )  # fmt: skip


def new_sample(n: int, expected: float, widen: int = 0, attempts: int = 1, evented: bool = False) -> k.Sample:
    """Return room for a sample of n of about `expected` requests.

    A request enters when the 32 bits of its order are below the threshold. This is chosen so that the sample has fewer
    than n requests, or more than there is room for, at most once in 10^15 runs; `widen` is how often that has happened
    to this run. Each request may be attempted `attempts` times.
    """
    width = EVENT_SAMPLE_WIDTH if evented else k.S_WIDTH
    if n == 0:
        return k.Sample(np.uint64(0), np.zeros((0, width)), np.zeros(1, np.int64))
    slack = 8.0 * 2.0**widen
    candidates = n + slack * math.sqrt(n) + 8.0 * slack
    low = expected - slack * math.sqrt(expected) - slack
    if candidates >= low:
        threshold, room = 2**32, expected + slack * math.sqrt(expected) + 8.0 * slack
    else:
        threshold = math.ceil(candidates / low * 2**32)
        room = candidates * expected / low + slack * math.sqrt(candidates) + 8.0 * slack
    room *= attempts
    if room > 2**31:
        raise SimulationError(f"a sample of {n} requests does not fit")
    return k.Sample(np.uint64(threshold), np.zeros((math.ceil(room), width)), np.zeros(1, np.int64))
