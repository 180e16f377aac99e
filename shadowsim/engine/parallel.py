"""One run on several workers, to the bit.

Where a window's randomness is a pure function of the scenario, so is everything after a moment at which all pools are
in a known state. So the run is cut in time: all slices are simulated at once, each from empty pools. Then, in order,
the first windows of each slice are run again from the true end of the slice before, until the whole state at the end of
a window is the one that the slice had there; from then on its rows are exact. Pools with RANDOM routing forget how they
began within a busy period or two, so that this costs a window or a few. A slice that does not meet within `PROBATION`
windows is run again as a whole.

LEAST_OUTSTANDING_REQUESTS hardly ever meets: which instance is next depends on all that came before. Such a run is a
pipeline of two instead: the source's side of the next batch of windows beside the shadow's side of this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from shadowsim.engine import _kernel as k
from shadowsim.engine.arrivals import ArrivalStream
from shadowsim.engine.columns import Columns
from shadowsim.engine.run_state import RunState, new_copies, new_run_state, new_sample

PROBATION = 64  # windows in which a slice may meet the true state
_TURNS = 8  # the two sides change hands more often than progress moves, so that copies stay in the cache
_REQUESTS_A_CALL = 2e6  # about a twentieth of a second: progress moves, Ctrl-C works

Advance = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class RunCounts:
    """What a run counted, of source and shadow, and a sentence on how it was run."""

    tallies: tuple[k.Tally, k.Tally]
    samples: tuple[k.Sample, k.Sample]
    arrived: int
    how: str


@dataclass(frozen=True, slots=True)
class Job:
    """What all slices of a run share; it can be sent to another machine.

    `given_up` gets an element when the run is interrupted: slices on threads of this process look at it between calls
    of the kernel, and end.
    """

    c: Columns
    feed: ArrivalStream
    chunk: int
    wanted: int
    widen: int
    given_up: list[bool] = field(default_factory=list)

    def machine(self, first: int = 0, arrived: int = 0) -> RunState:
        """An empty machine at the beginning of a window, before which `arrived` requests came."""
        expected = self.feed.expected_requests
        samples = new_sample(self.wanted, expected, self.widen), new_sample(self.wanted, expected, self.widen)
        machine = new_run_state(self.c, self.feed, self.chunk, samples)
        machine.begin_at(first, arrived)
        return machine

    @property
    def step(self) -> int:
        """Windows that make a call of the kernel worth while, and leave room to hear Ctrl-C."""
        return max(1, int(_REQUESTS_A_CALL / max(self.feed.expected_requests / self.c.n_windows, 1.0)))


@dataclass(frozen=True, slots=True)
class Slice:
    """Windows first..last-1, simulated from empty pools.

    `early` holds, for each of its first windows, the histograms of both variants (2, BUCKETS) and a digest of the state
    at its end; what the tallies' sections hold begins after those.
    """

    first: int
    last: int
    machine: RunState
    early: tuple[tuple[k.Ints, bytes], ...]


def run(job: Job, workers: int, executor: Executor | None, advance: Advance) -> RunCounts:
    """Simulate a run on a number of workers, or on an executor's; the outcome's figures depend on neither."""
    n = min(workers, job.c.n_windows)
    if n <= 1:
        return _in_one(job, advance)
    if not job.c.forgets:
        return _in_two(job, advance)
    if executor is not None:
        return _in_slices(job, n, executor, None, advance)
    with ThreadPoolExecutor(n) as threads:
        return _in_slices(job, n, threads, advance, lambda _: None)


def _in_one(job: Job, advance: Advance) -> RunCounts:
    machine = job.machine()
    for first in range(0, job.c.n_windows, job.step):
        last = min(first + job.step, job.c.n_windows)
        machine.advance(last)
        advance(last - first)
    return RunCounts(machine.tallies, machine.samples, machine.arrived, "in one piece")


def _in_two(job: Job, advance: Advance) -> RunCounts:
    """The source's side of a batch of windows beside the shadow's side of the batch before."""
    source, shadow = job.machine(), job.machine()
    with ThreadPoolExecutor(1) as other:
        behind: Future[None] | None = None
        step = max(1, job.step // _TURNS)
        for first in range(0, job.c.n_windows, step):
            last = min(first + step, job.c.n_windows)
            source.advance(last, k.SOURCE_SIDE)
            if behind is not None:
                behind.result()
            shadow.copies, shadow.copies_end = source.copies, source.copies_end
            shadow.cursor[k.C_COPIES] = 0
            behind = other.submit(shadow.advance, last, k.SHADOW_SIDE)
            source.copies, source.copies_end = new_copies(source.copies.arrival.size), source.copies_end.copy()
            source.cursor[k.C_OUT] = 0
            advance(last - first)
        if behind is not None:
            behind.result()
    tallies, samples = (source.tallies[0], shadow.tallies[1]), (source.samples[0], shadow.samples[1])
    return RunCounts(tallies, samples, source.arrived, "the source's side beside the shadow's")


def simulate_slice(job: Job, first: int, last: int, arrived: int, advance: Advance | None = None) -> Slice:
    """Simulate windows first..last-1 from empty pools, `arrived` requests having come before."""
    advance = advance or (lambda _: None)
    machine, early = job.machine(first, arrived), []
    for w in range(first, min(first + PROBATION, last) if first else first):
        if job.given_up:
            break
        machine.advance(w + 1)
        section = w * job.c.n_sections // job.c.n_windows
        seen = np.stack([t.sections[section] for t in machine.tallies])
        for t in machine.tallies:
            t.sections[section] = 0
        early.append((seen, machine.digest()))
        advance(1)
    for start in range(first + len(early), last, job.step):
        if job.given_up:
            break
        stop = min(start + job.step, last)
        machine.advance(stop)
        advance(stop - start)
    return Slice(first, last, machine, tuple(early))


def count_arrivals(job: Job, first: int, last: int) -> int:
    """How many requests come in windows first..last-1."""
    n = 0
    for start in range(first, last, job.step):
        n += job.feed.count(start, min(start + job.step, last))
    return n


def _in_slices(job: Job, n: int, executor: Executor, inside: Advance | None, after: Advance) -> RunCounts:
    """Slices on an executor. `inside` is called by each as it goes, where it can be; `after` when one is done."""
    edge = [job.c.n_windows * i // n for i in range(n + 1)]
    arrived = [0] * n
    if job.c.mirror.rule == k.COUNTER:  # which requests a slice copies depends on how many came before it
        counts = executor.map(count_arrivals, [job] * (n - 1), edge[:-2], edge[1:-1])
        arrived = [0, *np.cumsum(list(counts)).tolist()]
    futures = [executor.submit(simulate_slice, job, edge[i], edge[i + 1], arrived[i], inside) for i in range(n)]
    whole, again, fallen = None, 0, 0
    try:
        for i, future in enumerate(futures):
            piece = future.result()
            if whole is None:
                whole = piece.machine
            else:
                n_again, met = _joined(job, whole, piece, arrived[i])
                again, fallen = again + n_again, fallen + (not met)
            after(piece.last - piece.first)
    except BaseException:
        job.given_up.append(True)
        for future in futures:
            future.cancel()
        raise
    assert whole is not None
    how = f"in {n} slices, {again} of {job.c.n_windows} windows run twice"
    if fallen:
        how += f"; slices that never met the true state, and were run again as a whole: {fallen}"
    return RunCounts(whole.tallies, whole.samples, whole.arrived, how)


def _joined(job: Job, whole: RunState, piece: Slice, arrived: int) -> tuple[int, bool]:
    """Put a slice behind the whole, which is exact up to the slice's first window.

    Returns how many windows were run again, and whether the states met.
    """
    came = whole.arrived
    first, met = piece.first, False
    w = first
    while w < piece.last and not met and w - first < len(piece.early):
        whole.advance(w + 1)
        met = whole.digest() == piece.early[w - first][1]
        w += 1
    if not met:
        for start in range(w, piece.last, job.step):
            whole.advance(min(start + job.step, piece.last))
        return piece.last - first, False
    for v in range(2):
        mine, its = whole.tallies[v], piece.machine.tallies[v]
        mine.rows[w : piece.last] = its.rows[w : piece.last]
        mine.sections[:] += its.sections
        for later in range(w, first + len(piece.early)):
            mine.sections[later * job.c.n_sections // job.c.n_windows] += piece.early[later - first][0][v]
    whole.samples = tuple(
        _merged(mine, its, w * job.c.period_s) for mine, its in zip(whole.samples, piece.machine.samples, strict=True)
    )  # type: ignore[assignment]
    n_slice = piece.machine.arrived - arrived
    whole.take_over(piece.machine)
    whole.cursor[k.C_ARRIVED] = came + n_slice
    return w - first, True


def _merged(mine: k.Sample, its: k.Sample, from_s: float) -> k.Sample:
    """The whole's sample, and of a slice's what reached its pool at `from_s` or later; `n` counts what had no room."""
    kept, rows = (x.rows[: int(x.n[0])] for x in (mine, its))
    rows = rows[rows[:, k.S_ARRIVAL] >= from_s]
    lost = sum(max(int(x.n[0]) - x.rows.shape[0], 0) for x in (mine, its))
    spare = max(mine.rows.shape[0] - len(kept) - len(rows), 0)
    joined = np.concatenate([kept, rows, np.zeros((spare, k.S_WIDTH))])
    # what was lost before is still lost: the count then passes the room, as it does in one piece
    return k.Sample(mine.threshold, joined, np.array([len(kept) + len(rows) + (spare + lost if lost else 0)], np.int64))


def sample_fits(samples: Sequence[k.Sample], wanted: int, arrived: int) -> bool:
    """Whether nothing of the samples was lost for want of room, and enough requests came into the source's."""
    return all(int(s.n[0]) <= s.rows.shape[0] for s in samples) and int(samples[0].n[0]) >= min(wanted, arrived)
