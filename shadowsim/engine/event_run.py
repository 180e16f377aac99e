"""Runs one evented side of a run: creates and grows its arrays, and calls the compiled loop with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from shadowsim.engine import _event_kernel as e
from shadowsim.engine import _kernel as k
from shadowsim.engine import _prefix_kernel as p
from shadowsim.engine import _token_kernel as t
from shadowsim.engine.arrivals import ArrivalStream
from shadowsim.engine.columns import Columns
from shadowsim.engine.run_state import (
    NO_ARRIVALS,
    is_compiled,
    longer,
    longer_pending,
    new_pending,
    new_scratch,
    wheel_size,
)
from shadowsim.errors import InputError

_FIRST_NODES, _FIRST_SLOTS, _FIRST_RING, _FIRST_ACTIONS = 1024, 8, 4, 64


@dataclass(slots=True)
class EventSide:
    """One evented side of a run in progress."""

    columns: Columns
    arrivals: ArrivalStream | None
    pool: k.Pool
    dynamics: e.Dynamics
    answer: k.Payload
    machines: e.Machines
    engines: t.Engines | None
    prefixes: p.Prefixes | None
    tally: k.Tally
    token_tally: t.TokenTally | None
    sample: k.Sample
    pending: k.Pending
    incoming: e.Attempts
    copies: e.Attempts
    copies_end: k.Ints
    scratch: k.Scratch
    cursor: k.Ints
    reached: k.Floats

    @property
    def is_source(self) -> bool:
        """Whether this is the source's side."""
        return self.arrivals is not None

    def advance(self, last_window: int) -> None:
        """Simulate up to `last_window`, with more room whenever the kernel asks for it."""
        arrivals = NO_ARRIVALS
        if self.arrivals is not None:
            arrivals = self.arrivals.of_windows(int(self.cursor[k.C_WINDOW]), last_window)
        with np.errstate(over="ignore"):  # hash arithmetic wraps, uncompiled too
            while status := e.run_side(*self._arguments(last_window, arrivals)):
                if status == e.TOO_LONG:
                    self._refuse()
                self._grow()

    @property
    def is_compiled(self) -> bool:
        """Whether the kernel of this side is in this process or in numba's cache."""
        return is_compiled(e.run_side, self._arguments(0, NO_ARRIVALS))

    def compile(self) -> None:
        """Compile the kernel of this side, or load it from numba's cache; nothing is simulated."""
        e.run_side(*self._arguments(0, NO_ARRIVALS))

    def hand_over(self) -> tuple[e.Attempts, k.Ints]:
        """Return the copies that the source's side has made since the last time, and where each window's end."""
        copies, ends = self.copies, self.copies_end
        self.copies, self.copies_end = new_attempts(copies.arrival.size), ends.copy()
        self.cursor[k.C_OUT] = 0
        return copies, ends

    def take_copies(self, copies: e.Attempts, ends: k.Ints) -> None:
        """Take the copies that the source's side handed over, for the shadow's side."""
        self.incoming, self.copies_end = copies, ends
        self.cursor[e.C_AT] = 0

    @property
    def arrived(self) -> int:
        """Number of attempts that have arrived."""
        return int(self.cursor[k.C_ARRIVED])

    @property
    def actions(self) -> k.Floats:
        """The scaling actions that took effect before the horizon and the outages, in order.

        Their columns are those of `Machines.action`. While requests are followed past the horizon, pools still change.
        """
        actions = self.machines.action[: self.machines.count[e.M_ACTIONS]]
        return actions[actions[:, e.A_TIME_S] < self.columns.horizon_s]

    @property
    def counts(self) -> k.Tally:
        """The counts of the run's windows."""
        return self.tally._replace(rows=self.tally.rows[:-1])

    def _arguments(self, last_window: int, arrivals: k.Arrivals) -> tuple[Any, ...]:
        """Return the arguments of the kernel."""
        c = self.columns
        settings = k.RunSettings(c.n_windows, c.n_sections, c.period_s, c.horizon_s, c.seed)
        dynamics = self.dynamics._replace(prefix=None)  # the kernel finds the names beside the caches
        side = e.EventRun(
            self.pool, dynamics, self.answer, self.machines, self.tally, self.sample, self.engines,
            self.prefixes, self.token_tally,
        )  # fmt: skip
        return (
            last_window, self.is_source, settings, arrivals, c.mirror, c.request, side, self._reads_trace, self.pending,
            self.incoming, self.copies, self.copies_end, self.scratch, k.Progress(self.cursor, self.reached),
        )  # fmt: skip

    @property
    def _reads_trace(self) -> bool:
        """Whether the numbers of requests are needed, to find their rows in a trace."""
        c = self.columns
        payloads = c.request, c.source_answer, c.shadow_answer
        lengths = c.source_dynamics.lengths, c.shadow_dynamics.lengths
        names = [d.prefix.by_request for d in (c.source_dynamics, c.shadow_dynamics) if d.prefix is not None]
        columns = (
            c.source.work_s, c.shadow.work_s, c.mirror.session_by_request, *(p.by_request for p in payloads),
            *(n.prompt_by_request for n in lengths), *(n.output_by_request for n in lengths), *names,
        )  # fmt: skip
        return any(column.size for column in columns)

    def _refuse(self) -> NoReturn:
        """Raise `InputError` for a request that no instance can hold."""
        side = "source" if self.is_source else "shadow"
        s, row = self.dynamics.scheduler, int(self.machines.count[e.M_FAULT])
        room = s.blocks * s.block_tokens if s.chunked else min(s.blocks * s.block_tokens, s.max_step_tokens)
        constraint = f"must fit an instance, which holds {room:,} of prompt and output"
        raise InputError(f"the {side}'s tokens", constraint, f"request {row}")

    def _grow(self) -> None:
        """Make more room where none is left."""
        m, count = self.machines, self.machines.count
        if count[e.M_N_FREE] < 2:
            # four times as many: to copy costs more than to reserve memory that is not touched
            more = 3 * m.node.shape[0]
            if self.engines is not None:
                self.engines = _with_sequences(self.engines, more)
            if self.prefixes is not None:
                self.prefixes = self.prefixes._replace(of_node=longer(self.prefixes.of_node, more))
            self.machines = m = _with_nodes(m, more)
        if self.is_source and self.pending.time_s.size:
            n = int(self.pending.n[0])
            if self.pending.time_s.size - n < m.node.shape[0]:
                self.pending = longer_pending(self.pending, n + m.node.shape[0])
        if count[e.M_FREE_SLOTS] < self.dynamics.scaling.most:
            self.machines = m = _with_slots(m, m.world_s.size + self.dynamics.scaling.most, self.pool.n_workers)
            if self.engines is not None:
                self.engines = _with_engines(self.engines, m.world_s.size, self.dynamics.scheduler)
            if self.prefixes is not None:
                self.prefixes = _with_caches(self.prefixes, m.world_s.size)
        if count[e.M_ACTIONS] == m.action.shape[0]:
            self.machines = m = m._replace(action=longer(m.action, len(m.action)))
        if self.is_source and self.copies.arrival.size == int(self.cursor[k.C_OUT]):
            self.copies = e.Attempts(*(longer(column, column.size) for column in self.copies))
        ring = m.open_n.size
        if int(self.cursor[k.C_WINDOW]) - int(count[e.M_OPEN]) >= ring:
            first = int(count[e.M_OPEN])
            self.machines = _with_ring(m, first)
            if self.token_tally is not None:
                self.token_tally = self.token_tally._replace(
                    first_token=_with_longer_ring(self.token_tally.first_token, first),
                    per_token=_with_longer_ring(self.token_tally.per_token, first),
                )


_HEADS = (
    e.M_FREE, e.M_FIRST, e.M_DEADLINES, e.M_LAST_DEADLINE, e.M_CALLS, e.M_LAST_CALL, e.M_ENTERING, e.M_LAST_ENTERING,
    e.M_ANSWERING, e.M_LAST_ANSWERING,
)  # fmt: skip


def new_event_side(c: Columns, role: str, arrivals: ArrivalStream | None, chunk: int, sample: k.Sample) -> EventSide:
    """Return the evented side of a run at its start; the source's has the run's arrivals."""
    source = role == "source"
    pool, dynamics = c.pool(role), c.source_dynamics if source else c.shadow_dynamics
    late = source and c.mirror.instant == k.AT_RESPONSE
    tally = k.Tally(
        rows=np.zeros((c.n_windows + 1, e.EVENT_ROW_WIDTH)),  # the last row is of no window
        sections=np.zeros((c.n_sections, k.BUCKETS), np.int64),
        bucket=np.zeros(0, np.uint32),
    )
    side = EventSide(
        columns=c,
        arrivals=arrivals if source else None,
        pool=pool,
        dynamics=dynamics,
        answer=c.source_answer if source else c.shadow_answer,
        machines=_new_machines(c, pool, dynamics, 0 if source else max(c.mirror.max_per_s, 0)),
        engines=None,
        prefixes=None,
        tally=tally,
        token_tally=None,
        sample=sample,
        pending=new_pending(4 * _FIRST_NODES if late else 0),
        incoming=new_attempts(chunk),
        copies=new_attempts(chunk),
        copies_end=np.zeros(c.n_windows, np.int64),
        scratch=new_scratch(chunk, arrivals.n_knots if source and arrivals else 1),
        cursor=np.zeros(e.CURSOR, np.int64),
        reached=np.zeros(2),
    )
    if dynamics.scheduler.max_sequences:
        side.engines = _new_engines(side.machines, dynamics.scheduler)
        side.token_tally = _new_token_tally(c)
        if dynamics.prefix is not None:
            side.prefixes = _new_prefixes(side.machines, dynamics.prefix)
    with np.errstate(over="ignore"):
        e.start_pool(c.seed, pool.n_instances, dynamics.outages, side.machines, tally.rows[0])
    return side


def _new_engines(m: e.Machines, scheduler: t.Scheduler) -> t.Engines:
    most, nodes = scheduler.max_sequences, m.node.shape[0]
    engines = t.Engines(
        sequence=np.zeros((nodes, t.SEQUENCE_WIDTH), np.int64),
        first_token_s=np.zeros(nodes),
        last_token_s=np.zeros(nodes),
        listed=np.zeros(most, np.int32),
        running=np.zeros((0, most), np.int32),
        engine=np.zeros((0, t.ENGINE_WIDTH), np.int64),
        segment_s=np.zeros(0),
        wraps=np.zeros(scheduler.block_tokens + 1, np.int64),
    )
    return _with_engines(engines, m.world_s.size, scheduler)


def _new_prefixes(m: e.Machines, names: p.PrefixNames) -> p.Prefixes:
    room = max(names.most_blocks, 1)
    longest = int(names.length_by_request.max(initial=0)) if names.by_request.size else names.length
    prefixes = p.Prefixes(
        names=names,
        of_node=np.zeros((m.node.shape[0], 2), np.int64),
        n_blocks=np.zeros(0, np.int64),
        name=np.zeros((0, room + 1), np.int64),
        place=np.zeros((0, room + 1), np.int32),
        newer=np.zeros((0, room + 1), np.int32),
        older=np.zeros((0, room + 1), np.int32),
        chain=np.zeros((0, room + 1), np.int32),
        bucket=np.zeros((0, 1 << math.ceil(math.log2(room))), np.int32),
        known=np.zeros(max(longest // names.block_tokens, 1), np.int32),
    )
    return _with_caches(prefixes, m.world_s.size)


def _new_token_tally(c: Columns) -> t.TokenTally:
    def measure() -> t.Measure:
        return t.Measure(
            rows=np.zeros((c.n_windows + 1, k.R_WIDTH)),
            sections=np.zeros((c.n_sections, k.BUCKETS), np.int64),
            open_bucket=np.zeros((_FIRST_RING, k.BUCKETS), np.uint32),
        )

    return t.TokenTally(measure(), measure(), c.goodput_s, np.zeros((c.n_windows + 1, len(c.goodput_s))))


def new_attempts(n: int) -> e.Attempts:
    """Return room for n attempts."""
    window, request, attempt = (np.zeros(n, np.int64) for _ in range(3))
    return e.Attempts(np.zeros(n), window, np.zeros(n, np.uint64), request, np.zeros(n, np.uint64), attempt)


def attempts_of(copies: k.Copies, ends: k.Ints, first: int, last: int, late: bool) -> e.Attempts:
    """Return the copies that a plain source made in windows first..last-1 as attempts.

    Copies at a response (`late`) know their source request's window; others belong to that in which they are made.
    """
    n = int(ends[last - 1])
    window = copies.window[:n]
    if not late:
        window = np.repeat(np.arange(first, last), np.diff(ends[first:last], prepend=0))
    none = np.zeros(n, np.int64)
    return e.Attempts(copies.arrival[:n], window, copies.offset[:n], copies.request[:n], copies.order[:n], none)


def copies_of(attempts: e.Attempts) -> k.Copies:
    """Return first attempts, those of an evented source without retries, as copies for a plain shadow."""
    return k.Copies(*attempts[:5])


def _new_machines(c: Columns, pool: k.Pool, dynamics: e.Dynamics, max_per_s: int) -> e.Machines:
    scaling, count = dynamics.scaling, np.zeros(e.N_COUNTS, np.int64)
    for at in _HEADS:
        count[at] = -1
    clock, buckets = np.zeros(e.N_CLOCKS), wheel_size(pool)
    clock[e.T_END] = math.inf
    clock[e.T_OUT_COOLDOWN] = clock[e.T_IN_COOLDOWN] = -math.inf
    effects = math.ceil(scaling.delay_s / k.CONCURRENCY_EVERY_S) * 2 + 16 if scaling.metric else 1
    n_clients = max(dynamics.retries.n_clients, 1)
    machines = e.Machines(
        node_s=np.zeros((0, e.NODE_S_WIDTH)),
        node=np.zeros((0, e.NODE_WIDTH), np.int64),
        slot=np.zeros((0, e.SLOT_WIDTH), np.int64),
        end_s=np.zeros(0),
        next_worker=np.zeros(0, np.int32),
        wheel=np.full(buckets, -1, np.int32),
        occupied=np.zeros(buckets // 64, np.uint64),
        job=np.zeros(0, np.int32),
        idle=np.zeros(0, np.int32),
        due_s=np.zeros(0),
        due_tree=np.zeros(0, np.int32),
        world_s=np.zeros(0),
        serving=np.zeros(0, np.int32),
        load=np.zeros(0, np.int32),
        ready=np.zeros(0, np.int32),
        free_slot=np.zeros(0, np.int32),
        retry=np.zeros(0, np.int32),
        effect_s=np.zeros((effects, e.EFFECT_S_WIDTH)),
        effect=np.zeros((effects, 2), np.int64),
        action=np.zeros((_FIRST_ACTIONS, e.ACTION_WIDTH)),
        tokens=np.full(n_clients, max(dynamics.retries.quota, 0), np.int64),
        open_bucket=np.zeros((_FIRST_RING, k.BUCKETS), np.uint32),
        open_n=np.zeros(_FIRST_RING, np.int64),
        call_sections=np.zeros((c.n_sections, k.BUCKETS), np.int64),
        count=count,
        clock=clock,
        copied_s=np.full(max(max_per_s, 1), -math.inf),
        copied_at=np.zeros(1, np.int64),
    )
    slots = max(_FIRST_SLOTS, pool.n_instances + scaling.most)
    return _with_slots(_with_nodes(machines, _FIRST_NODES), slots, pool.n_workers)


def _with_nodes(m: e.Machines, more: int) -> e.Machines:
    """Return machines with room for `more` nodes more."""
    m.count[e.M_N_FREE] += more
    return m._replace(node=longer(m.node, more), node_s=longer(m.node_s, more), retry=longer(m.retry, more))


def _with_sequences(engines: t.Engines, more: int) -> t.Engines:
    """Return engines with room for the sequences of `more` nodes more."""
    return engines._replace(
        sequence=longer(engines.sequence, more),
        first_token_s=longer(engines.first_token_s, more),
        last_token_s=longer(engines.last_token_s, more),
    )


def _with_engines(engines: t.Engines, slots: int, scheduler: t.Scheduler) -> t.Engines:
    """Return engines for this many slots; new ones are empty."""
    size = engines.segment_s.size
    engine = longer(engines.engine, slots - size)
    engine[size:, [t.G_HEAD, t.G_TAIL]] = -1
    engine[size:, t.G_FREE] = scheduler.blocks
    running, segment_s = (longer(column, slots - size) for column in (engines.running, engines.segment_s))
    return engines._replace(engine=engine, running=running, segment_s=segment_s)


def _with_caches(prefixes: p.Prefixes, slots: int) -> p.Prefixes:
    """Return prefix caches for this many slots; new ones are empty."""
    more = slots - prefixes.n_blocks.size
    columns = "n_blocks", "name", "place", "newer", "older", "chain", "bucket"
    return prefixes._replace(**{name: longer(getattr(prefixes, name), more) for name in columns})


def _with_slots(m: e.Machines, wanted: int, workers: int) -> e.Machines:
    """Return machines with room for at least `wanted` instances, a power of two."""
    size, slots = m.world_s.size, 1 << math.ceil(math.log2(wanted))
    more = slots - size
    slot = longer(m.slot, more)
    slot[size:, [e.I_HEAD, e.I_TAIL, e.I_PLACE]] = -1
    idle = np.arange(slots * workers, dtype=np.int32)
    idle[: size * workers] = m.idle
    # the lowest new slot is taken first
    free, n_free = np.zeros(slots, np.int32), int(m.count[e.M_FREE_SLOTS])
    free[:more] = np.arange(slots - 1, size - 1, -1)
    free[more : more + n_free] = m.free_slot[:n_free]
    m.count[e.M_FREE_SLOTS] += more
    machines = m._replace(
        slot=slot,
        end_s=longer(m.end_s, more * workers, math.inf),
        next_worker=longer(m.next_worker, more * workers),
        job=longer(m.job, more * workers),
        idle=idle,
        due_s=longer(m.due_s, more, math.inf),
        due_tree=np.zeros(2 * slots, np.int32),
        world_s=longer(m.world_s, more, math.inf),
        serving=longer(m.serving, more),
        load=longer(m.load, more),
        ready=longer(m.ready, more),
        free_slot=free,
    )
    e.plant_tree(machines)
    return machines


def _with_ring(m: e.Machines, first_open: int) -> e.Machines:
    """Return machines with room for twice as many open windows, the first of which is `first_open`."""
    return m._replace(open_bucket=_longer_ring(m.open_bucket, first_open), open_n=_longer_ring(m.open_n, first_open))


def _with_longer_ring(measure: t.Measure, first: int) -> t.Measure:
    return measure._replace(open_bucket=_longer_ring(measure.open_bucket, first))


def _longer_ring(ring: Any, first: int) -> Any:
    """Return a ring of twice the size; what belongs to number i, from `first` on, is at i modulo its size."""
    size = len(ring)
    at = np.arange(first, first + size)
    longer = np.zeros((2 * size, *ring.shape[1:]), ring.dtype)
    longer[at % (2 * size)] = ring[at % size]
    return longer
