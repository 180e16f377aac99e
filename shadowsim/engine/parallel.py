"""Runs one simulation on several workers; the result is the same to the bit as on one.

A window's randomness is a pure function of the scenario, and so is everything that follows a known state of all pools.
The run is therefore cut in time. All slices are simulated at once, each from empty pools. Then, in order, the first
windows of each slice are simulated again from the true end of the slice before, until the state at the end of a window
equals the state that the slice had there; from then on the slice's rows are exact. Pools whose routing splits requests
independently forget their initial state within a busy period or two, so that a few windows are simulated twice. A slice
whose state does not become equal within `PROBATION` windows is simulated again completely.

With LEAST_OUTSTANDING_REQUESTS the states hardly ever become equal: the next instance depends on the whole past. Such a
run is a pipeline of two threads instead: one simulates the source's side of the next batch of windows while the other
simulates the shadow's side of the current one. Pools that batch, scale, fail or are retried run like that, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np

from shadowsim.engine import _kernel as k
from shadowsim.engine._event_kernel import start_pool
from shadowsim.engine.arrivals import ArrivalStream
from shadowsim.engine.columns import Columns
from shadowsim.engine.event_run import EventSide, attempts_of, copies_of, new_event_side
from shadowsim.engine.run_state import RunState, is_compiled, new_run_state, new_sample
from shadowsim.frames import ROLES

PROBATION = 64  # windows in which a slice may reach the true state
_BATCHES_PER_STEP = 8  # small batches of the pipeline keep the copies in the cache
_PLAIN_COMPILES_S, _GENERAL_COMPILES_S, _EVENTS_COMPILE_S = 10, 20, 40  # about; it is announced
_REQUESTS_PER_CALL = 2e6  # about a twentieth of a second: progress moves, Ctrl-C works
LONG_WINDOW = 2e7  # requests of a window that is reported in parts
_LOOK_EVERY_S = 0.25

Advance = Callable[[float], object]


@dataclass(frozen=True, slots=True)
class RunCounts:
    """The counts of a run, for source and shadow, a phrase that tells how it was run, and evented sides by role."""

    tallies: tuple[k.Tally, k.Tally]
    samples: tuple[k.Sample, k.Sample]
    arrived: int
    how: str
    evented: Mapping[str, EventSide] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """The input that all slices of a run share; it can be sent to another machine.

    `cancelled` gets an element when the run is interrupted: slices on threads of this process check it between calls
    of the kernel, and end.
    """

    columns: Columns
    arrivals: ArrivalStream
    chunk: int
    n_sampled: int
    widen: int
    cancelled: list[bool] = field(default_factory=list)

    def new_samples(self) -> tuple[k.Sample, k.Sample]:
        """Return room for the samples of source and shadow."""
        expected, c = self.arrivals.expected_requests, self.columns
        attempts = max(c.source_dynamics.retries.max_attempts, 1)
        source, shadow = (
            new_sample(self.n_sampled, expected, self.widen, attempts, dynamics.evented)
            for dynamics in (c.source_dynamics, c.shadow_dynamics)
        )
        return source, shadow

    def new_state(self, first: int = 0, arrived: int = 0, samples: tuple[k.Sample, k.Sample] | None = None) -> RunState:
        """Return the state of empty pools at the beginning of a window, before which `arrived` requests came."""
        state = new_run_state(self.columns, self.arrivals, self.chunk, samples or self.new_samples())
        state.begin_at(first, arrived)
        return state

    @property
    def requests_per_window(self) -> float:
        """Mean number of source requests of a window, as far as it is known before the run."""
        return self.arrivals.expected_requests / self.columns.n_windows

    @property
    def step(self) -> int:
        """Windows per call of the kernel: enough to be efficient, few enough to notice Ctrl-C."""
        return max(1, int(_REQUESTS_PER_CALL / max(self.requests_per_window, 1.0)))


@dataclass(frozen=True, slots=True)
class Slice:
    """Windows first..last-1, simulated from empty pools.

    `early` holds, for each of its first windows, the histograms of both variants (2, BUCKETS) and a digest of the state
    at its end; these histograms are not in the tallies' sections.
    """

    first: int
    last: int
    state: RunState
    early: tuple[tuple[k.Ints, bytes], ...]


def run(job: Job, workers: int, executor: Executor | None, advance: Advance) -> RunCounts:
    """Simulate a run on threads or on an executor; the counts do not depend on which, or on how many."""
    n = min(workers, job.columns.n_windows)
    if job.columns.source_dynamics.evented or job.columns.shadow_dynamics.evented:
        return _by_sides(job, n > 1, advance)
    if n <= 1:
        return _in_one_piece(job, advance)
    if not job.columns.forgets:
        return _by_sides(job, True, advance)
    if executor is not None:
        return _in_slices(job, n, executor, None, advance)
    with ThreadPoolExecutor(n) as threads:
        return _in_slices(job, n, threads, advance, lambda _: None)


def _in_one_piece(job: Job, advance: Advance) -> RunCounts:
    state = job.new_state()
    for first in range(0, job.columns.n_windows, job.step):
        last = min(first + job.step, job.columns.n_windows)
        _advance_reporting(job, state, last, k.BOTH_SIDES, advance, last - first)
    return RunCounts(state.tallies, state.samples, state.arrived, "in one piece")


def seconds_to_compile(job: Job) -> int:
    """Return about how long the kernels of a run take to compile; 0 if they are compiled."""
    if job.columns.source_dynamics.evented or job.columns.shadow_dynamics.evented:
        # asked first, since this one is called when a side is made
        compiled = is_compiled(start_pool) and all(side.is_compiled for side in _new_sides(job))
        return 0 if compiled else _EVENTS_COMPILE_S
    state = job.new_state()
    return 0 if state.is_compiled else _GENERAL_COMPILES_S if state.general else _PLAIN_COMPILES_S


def compile_kernel(job: Job) -> None:
    """Compile the kernels of a run, or load them from numba's cache; nothing is simulated."""
    evented = job.columns.source_dynamics.evented or job.columns.shadow_dynamics.evented
    for side in _new_sides(job) if evented else (job.new_state(),):
        side.compile()


def _new_sides(job: Job) -> tuple[RunState | EventSide, RunState | EventSide]:
    """Return the source's and the shadow's side at the start of a run by sides."""
    c, samples = job.columns, job.new_samples()
    source: RunState | EventSide = job.new_state(samples=samples)
    shadow: RunState | EventSide = job.new_state(samples=samples)
    if c.source_dynamics.evented:
        source = new_event_side(c, "source", job.arrivals, job.chunk, samples[0])
    if c.shadow_dynamics.evented:
        shadow = new_event_side(c, "shadow", None, job.chunk, samples[1])
    return source, shadow


def _by_sides(job: Job, threaded: bool, advance: Advance) -> RunCounts:
    """Simulate batches of windows, the source first; if `threaded`, beside the shadow's side of the batch before."""
    c, late = job.columns, job.columns.mirror.instant == k.AT_RESPONSE
    source, shadow = _new_sides(job)
    step = max(1, job.step // _BATCHES_PER_STEP)
    with ThreadPoolExecutor(1) as thread:
        shadow_done: Future[None] | None = None
        for first in range(0, c.n_windows, step):
            last = min(first + step, c.n_windows)
            _advance_reporting(job, source, last, k.SOURCE_SIDE, advance, 0.5 * (last - first))
            if shadow_done is not None:
                shadow_done.result()
            _hand_over(source, shadow, first, last, late)
            if threaded:
                shadow_done = thread.submit(_advance, shadow, last, k.SHADOW_SIDE)
            else:
                _advance(shadow, last, k.SHADOW_SIDE)
            advance(0.5 * (last - first))
        if shadow_done is not None:
            shadow_done.result()
    tallies = (
        source.counts if isinstance(source, EventSide) else source.tallies[0],
        shadow.counts if isinstance(shadow, EventSide) else shadow.tallies[1],
    )
    samples = (
        source.sample if isinstance(source, EventSide) else source.samples[0],
        shadow.sample if isinstance(shadow, EventSide) else shadow.samples[1],
    )
    evented = {r: side for r, side in zip(ROLES, (source, shadow), strict=True) if isinstance(side, EventSide)}
    how = "the source's side beside the shadow's" if threaded else "the source's side, then the shadow's"
    return RunCounts(tallies, samples, source.arrived, how, evented)


def _advance(side: RunState | EventSide, last: int, sides: int) -> None:
    if isinstance(side, EventSide):
        side.advance(last)
    else:
        side.advance(last, sides)


def _advance_reporting(
    job: Job, side: RunState | EventSide, last: int, sides: int, advance: Advance, windows: float
) -> None:
    """Simulate up to window `last`, and report `windows`: those of a long window in parts, while it is simulated."""
    expected = job.requests_per_window
    if expected < LONG_WINDOW:
        _advance(side, last, sides)
        advance(windows)
        return
    arrived, reported = side.arrived, 0.0
    with ThreadPoolExecutor(1) as thread:  # the kernel lets go of the interpreter, and counts what has arrived
        work = thread.submit(_advance, side, last, sides)
        while not work.done():
            wait([work], _LOOK_EVERY_S)
            part = min((side.arrived - arrived) / expected, 1.0) * windows - reported
            reported += part
            advance(part)
        work.result()
    advance(windows - reported)


def _hand_over(source: RunState | EventSide, shadow: RunState | EventSide, first: int, last: int, late: bool) -> None:
    """Pass on the copies of windows first..last-1. With retries both sides have events; else all are first attempts."""
    if isinstance(source, EventSide):
        attempts, ends = source.hand_over()
        if isinstance(shadow, EventSide):
            shadow.take_copies(attempts, ends)
        else:
            shadow.take_copies(copies_of(attempts), ends)
    else:
        copies, ends = source.hand_over()
        if isinstance(shadow, EventSide):
            shadow.take_copies(attempts_of(copies, ends, first, last, late), ends)
        else:
            shadow.take_copies(copies, ends)


def simulate_slice(job: Job, first: int, last: int, arrived: int, advance: Advance | None = None) -> Slice:
    """Simulate windows first..last-1 from empty pools, `arrived` requests having come before."""
    advance = advance or (lambda _: None)
    state, early = job.new_state(first, arrived), []
    for w in range(first, min(first + PROBATION, last) if first else first):
        if job.cancelled:
            break
        state.advance(w + 1)
        section = w * job.columns.n_sections // job.columns.n_windows
        histograms = np.stack([tally.sections[section] for tally in state.tallies])
        for tally in state.tallies:
            tally.sections[section] = 0
        early.append((histograms, state.digest()))
        advance(1)
    for start in range(first + len(early), last, job.step):
        if job.cancelled:
            break
        stop = min(start + job.step, last)
        _advance_reporting(job, state, stop, k.BOTH_SIDES, advance, stop - start)
    return Slice(first, last, state, tuple(early))


def count_arrivals(job: Job, first: int, last: int) -> int:
    """Return the number of requests in windows first..last-1."""
    n = 0
    for start in range(first, last, job.step):
        n += job.arrivals.count(start, min(start + job.step, last))
    return n


def _in_slices(job: Job, n: int, executor: Executor, during: Advance | None, after: Advance) -> RunCounts:
    """Simulate slices on an executor; threads call `during` within a slice, and `after` is called after each slice."""
    edge = [job.columns.n_windows * i // n for i in range(n + 1)]
    arrived = [0] * n
    if job.columns.mirror.rule == k.COUNTER:  # which requests a slice copies depends on how many came before it
        counts = executor.map(count_arrivals, [job] * (n - 1), edge[:-2], edge[1:-1])
        arrived = [0, *np.cumsum(list(counts)).tolist()]
    futures = [executor.submit(simulate_slice, job, edge[i], edge[i + 1], arrived[i], during) for i in range(n)]
    run_state, n_twice, n_failed = None, 0, 0
    try:
        for i, future in enumerate(futures):
            piece = future.result()
            if run_state is None:
                run_state = piece.state
            else:
                n_again, met = _append(job, run_state, piece, arrived[i])
                n_twice, n_failed = n_twice + n_again, n_failed + (not met)
            after(piece.last - piece.first)
    except BaseException:
        job.cancelled.append(True)
        for future in futures:
            future.cancel()
        raise
    assert run_state is not None
    how = f"in {n} slices, {n_twice} of {job.columns.n_windows} windows run twice"
    if n_failed:
        how += f"; slices re-run from scratch: {n_failed}"
    return RunCounts(run_state.tallies, run_state.samples, run_state.arrived, how)


def _append(job: Job, run_state: RunState, piece: Slice, arrived: int) -> tuple[int, bool]:
    """Append a slice to the run, which is exact up to the slice's first window.

    Return the number of windows that were run again, and whether the states became equal.
    """
    arrived_before = run_state.arrived
    first, met = piece.first, False
    w = first
    while w < piece.last and not met and w - first < len(piece.early):
        run_state.advance(w + 1)
        met = run_state.digest() == piece.early[w - first][1]
        w += 1
    if not met:
        for start in range(w, piece.last, job.step):
            run_state.advance(min(start + job.step, piece.last))
        return piece.last - first, False
    for v in range(2):
        tally, piece_tally = run_state.tallies[v], piece.state.tallies[v]
        tally.rows[w : piece.last] = piece_tally.rows[w : piece.last]
        tally.sections[:] += piece_tally.sections
        for later in range(w, first + len(piece.early)):
            tally.sections[later * job.columns.n_sections // job.columns.n_windows] += piece.early[later - first][0][v]
    (source, shadow), (piece_source, piece_shadow) = run_state.samples, piece.state.samples
    from_s = w * job.columns.period_s
    run_state.samples = _merged(source, piece_source, from_s), _merged(shadow, piece_shadow, from_s)
    n_slice = piece.state.arrived - arrived
    run_state.take_over(piece.state)
    run_state.cursor[k.C_ARRIVED] = arrived_before + n_slice
    return w - first, True


def _merged(sample: k.Sample, of_slice: k.Sample, from_s: float) -> k.Sample:
    """Add a slice's rows that reached their pool at `from_s` or later; `n` also counts rows without room."""
    kept, rows = (x.rows[: int(x.n[0])] for x in (sample, of_slice))
    rows = rows[rows[:, k.S_ARRIVAL] >= from_s]
    lost = sum(max(int(x.n[0]) - x.rows.shape[0], 0) for x in (sample, of_slice))
    spare = max(sample.rows.shape[0] - len(kept) - len(rows), 0)
    joined = np.concatenate([kept, rows, np.zeros((spare, k.S_WIDTH))])
    # rows that had no room stay lost: the count then exceeds the room, as in a run in one piece
    return k.Sample(
        sample.threshold, joined, np.array([len(kept) + len(rows) + (spare + lost if lost else 0)], np.int64)
    )


def sample_fits(samples: Sequence[k.Sample], n_sampled: int, arrived: int) -> bool:
    """Return whether both samples had room for all rows, and the source's has at least as many as it should."""
    return all(int(s.n[0]) <= s.rows.shape[0] for s in samples) and int(samples[0].n[0]) >= min(n_sampled, arrived)
