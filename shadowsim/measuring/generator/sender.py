"""Sends requests at planned times, whatever the answers, and notes when each was sent and answered.

The loop is open: a request is sent when it is due, and not when an earlier one has been answered; latency counts from
the planned time, so that the wait of requests during a stall is in it. Three things can keep a request back, and all
are counted: a cap of requests in flight drops it; a ceiling of the rate (asyncio-throttle) holds it back, and the run
is then no longer open; and a generator that is more than `MOST_LATE_S` behind drops it, so that a run of too high a
rate ends in time and in bounded memory.

A ladder of concurrency is closed on purpose: each stage keeps its number of requests in flight.

A request counts as sent when it is handed to the pool of connections. If none is idle one is opened, and that time is
part of its latency, as it is for every caller.

Nothing that a service does ends a run: what went wrong with a request is its status and cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import math
from asyncio import CancelledError, Event, Queue, Task
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from time import monotonic, process_time
from typing import Any

import aiohttp
import numpy as np
from asyncio_throttle.throttler import Throttler
from yarl import URL

from shadowsim.arrays import Floats, Ints
from shadowsim.core_time import core_time
from shadowsim.measuring.generator.bodies import Bodies
from shadowsim.measuring.generator.failures import failure_of, model_failure, refusal
from shadowsim.measuring.generator.load_records import (
    ANSWERED,
    CAP,
    CUT,
    DROPPED,
    ERROR_4XX,
    ERROR_5XX,
    LATE,
    TIMED_OUT,
    UNAVAILABLE,
    UNFINISHED,
    UNSENT,
    LiveCounts,
    LoadRecords,
    RecordTable,
)
from shadowsim.measuring.generator.pacer import Pacer
from shadowsim.measuring.generator.targets import INVOKE, INVOKE_STREAM, PreparedRequest, RequestMaker, Target

MOST_LATE_S = 2.0
SNAPSHOT_S = 1.0
GRACE_S = 2.0  # in which answers may still come after a run was stopped
KEPT_S = 4.0  # an idle connection; servers close theirs after 5 s and more
HELD_S = 0.005  # by the ceiling of the rate; less is the event loop's own delay
_AHEAD, _AHEAD_S = 64, 30.0  # requests that are made ahead of their time, and the greatest age of their signatures
_LARGE_BYTES = 2**20 - 1  # above which aiohttp wants bodies as files
_MOST_ERROR_BYTES = 2**16  # of an answer, in which the model's own status, or a message, is looked for
_UNSENT = ("User-Agent", "Accept-Encoding", "Content-Type")  # headers that aiohttp would add
_MODEL_ERROR = 424
_IS_USED_AGAIN = "is used again"
_MOST_RESENT = 8  # times that one request may find a kept connection closed


@dataclass(frozen=True, slots=True)
class Ladder:
    """A designed experiment: single requests, then rising concurrency, then mixed load.

    Attributes
    ----------
    stage_s : float
        Length of a stage; one goes on until `least` answers, but at most four times as long.
    greatest : int
        Concurrency at which the ladder ends; before it, when twice more of it brings less than 5 % more answers.
    least : int
        Answers of a stage.
    mixed : tuple of float
        Rates of Poisson arrivals after the ladder, as shares of the highest rate of answers.
    mixed_s : float
        Length of each of these.
    seed : int
        Of their arrivals.
    """

    stage_s: float = 10.0
    greatest: int = 64
    least: int = 30
    mixed: tuple[float, ...] = (0.4, 0.7)
    mixed_s: float = 60.0
    seed: int = 7


@dataclass(frozen=True, slots=True)
class LoadStage:
    """A part of a run with one load.

    Attributes
    ----------
    kind : str
        "rate", "unloaded", "ladder" or "mixed".
    begin_s, end_s : float
        On the run's clock; the end is that of sending.
    rate_per_s : float or None
        Of an open loop.
    in_flight : int or None
        Of a closed one.
    """

    kind: str
    begin_s: float
    end_s: float
    rate_per_s: float | None = None
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class LoadJob:
    """What one process sends.

    Attributes
    ----------
    target : Target
    bodies : Bodies
    due_s : ndarray of float64, shape (n,)
        Planned times from the start of the run, ascending; none with a ladder.
    number : ndarray of int64, shape (n,)
        Of these requests in the run.
    stage : ndarray of int64, shape (n,)
        Of these requests; -1 without stages.
    timeout_s : float
        After which a request counts as unanswered, from its sending.
    max_in_flight : int or None
    max_rate_per_s : float or None
    ladder : Ladder or None
    """

    target: Target
    bodies: Bodies
    due_s: Floats
    number: Ints
    stage: Ints
    timeout_s: float
    max_in_flight: int | None = None
    max_rate_per_s: float | None = None
    ladder: Ladder | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """What became of a job.

    Attributes
    ----------
    table : RecordTable
    start_s : float
        Moment of `time.monotonic` that is 0 in the table.
    cpu_share : float
        CPU time of the process over the time of sending.
    starved_share : float
        Share of that time in which the process waited for a core that others had; NaN where the system does not tell.
    sending_s : float
        Length of the time of sending.
    stopped : bool
        Whether it was ended before its time.
    stages : tuple of LoadStage
        Of a ladder.
    n_resent : int
        How often a request was sent again, since the connection that was to be used once more had been closed.
    """

    table: RecordTable
    start_s: float
    cpu_share: float
    starved_share: float
    sending_s: float
    stopped: bool
    stages: tuple[LoadStage, ...] = ()
    n_resent: int = 0


@dataclass(slots=True)
class Control:
    """Stops a run: once to send no more and wait a moment for answers, twice to wait no longer."""

    stopped: Event = field(default_factory=Event)
    cut: Event = field(default_factory=Event)

    def stop(self) -> None:
        """Stop the run; call it in the run's event loop."""
        (self.cut if self.stopped.is_set() else self.stopped).set()


class Generator:
    """Sends the requests of a job and records what becomes of them.

    Parameters
    ----------
    job : LoadJob
    control : Control
    on_counts : callable, optional
        Is given the counts once a second.
    """

    def __init__(self, job: LoadJob, control: Control, on_counts: Callable[[LiveCounts], None] | None = None):
        self._job, self._control, self._on_counts, self._start = job, control, on_counts, math.inf
        self._maker = RequestMaker(job.target, job.bodies)
        self._url = URL(job.target.url, encoded=True)
        self._asks_model = job.target.protocol in (INVOKE, INVOKE_STREAM)
        self._refusals: dict[int, str] = {}  # what is said of answers with a status
        self.records, self.counts = LoadRecords(), LiveCounts()
        self._tasks: set[Task[None]] = set()
        self._ready: dict[int, PreparedRequest] = {}
        self._n_prepared = 0
        self._waiting: Queue[tuple[int, int, float]] | None = None  # for the ceiling of the rate
        self._n_waiting = 0  # with the one that is next
        self._n_resent = 0
        self._session: aiohttp.ClientSession

    def get_ready(self) -> None:
        """Do, in the run's event loop, what takes long and must not be done when requests are due."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_S, ttl_dns_cache=300)
        timeout = aiohttp.ClientTimeout(total=self._job.timeout_s)
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, skip_auto_headers=_UNSENT,
            cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=2**18, trace_configs=[tracing],
        )  # fmt: skip
        self._prepare_ahead(0, self._job.due_s[:_AHEAD].tolist(), self._job.number[:_AHEAD].tolist(), _AHEAD)
        gc.collect()

    async def run(self, start_s: float) -> Sent:
        """Send everything, wait for the answers, and return what was measured; `get_ready` must have been called.

        Parameters
        ----------
        start_s : float
            Moment of `time.monotonic` from which planned times count.
        """
        self._start = start_s
        reporter = asyncio.get_running_loop().create_task(self._report())
        thresholds = gc.get_threshold()
        freezes = not gc.get_freeze_count()
        if freezes:
            gc.freeze()  # what is there already need not be searched again while requests wait
        gc.set_threshold(50_000, 20, 100)
        stages: tuple[LoadStage, ...] = ()
        cpu_s, starved_s, began = process_time(), core_time().waited_s, monotonic()
        try:
            if self._job.ladder is None:
                began = max(self._start, began)
                await self._send_schedule(self._job.due_s, self._job.number, self._job.stage)
            else:
                stages = await self._climb(self._job.ladder)
            sending_s = max(monotonic() - began, 1e-9)
            cpu_share = (process_time() - cpu_s) / sending_s
            starved_share = (core_time().waited_s - starved_s) / sending_s
            await self._drain()
        finally:
            gc.set_threshold(*thresholds)
            if freezes:
                gc.unfreeze()
            reporter.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._session.close()
        self._tell()
        shares, stopped = (cpu_share, starved_share), self._control.stopped.is_set()
        return Sent(self.records.table(), self._start, *shares, sending_s, stopped, stages, self._n_resent)

    # -- an open loop

    async def _send_schedule(self, due_s: Floats, number: Ints, stage: Ints) -> None:
        loop = asyncio.get_running_loop()
        # plain lists: numpy's single numbers are slow
        due, numbers, stages = due_s.tolist(), number.tolist(), stage.tolist()
        gate = None
        if self._job.max_rate_per_s is not None:
            self._waiting = Queue()
            gate = loop.create_task(self._hold_back(self._waiting, self._job.max_rate_per_s))
        self._prepare_ahead(0, due, numbers)

        def call(i: int) -> None:
            self._come_due(due[i], numbers[i], stages[i])
            self._prepare_ahead(i + 1, due, numbers)

        pacer = Pacer(loop, self._start + due_s, call)
        stop = loop.create_task(self._control.stopped.wait())
        stop.add_done_callback(lambda _: pacer.stop())
        try:
            await pacer.finished
            while self._n_waiting and not self._control.stopped.is_set():
                await asyncio.sleep(0.01)
                if gate is not None and gate.done():
                    gate.result()  # raises what ended it
        finally:
            pacer.stop()
            stop.cancel()
            if gate is not None:
                gate.cancel()
        while self._waiting is not None and self._waiting.qsize():
            self.records.fail(self._waiting.get_nowait()[0], CUT, UNSENT)
        self._ready.clear()
        self._n_prepared = 0

    def _prepare_ahead(self, i: int, due: list[float], numbers: list[int], most: int = 2) -> None:
        """Make requests that are due soon, from number i on in the schedule; sending comes first.

        Two at a time make those that are ahead more, while no request has to wait for long.
        """
        self._n_prepared = max(self._n_prepared, i)
        last, until = min(i + _AHEAD, len(due)), max(monotonic() - self._start, 0.0) + _AHEAD_S
        for _ in range(most):
            at = self._n_prepared
            if at >= last or due[at] > until:
                return
            self._n_prepared += 1
            with contextlib.suppress(Exception):  # keys that cannot be renewed: the request will fail with that cause
                self._ready[numbers[at]] = self._maker.prepared(numbers[at])

    def _come_due(self, planned_s: float, number: int, stage: int) -> None:
        now = monotonic()
        lag = now - self._start - planned_s
        row = self.records.begin(number, planned_s, stage, lag_s=lag)
        self.counts.due += 1
        if lag > MOST_LATE_S:
            self.counts.note_lag(lag)
            self._drop(row, number, LATE)
        elif self._waiting is not None:
            self._waiting.put_nowait((row, number, now))
            self._n_waiting += 1
            if self._n_waiting > _AHEAD:  # it will be made when its turn comes, lest those that wait fill the memory
                self._ready.pop(number, None)
        else:
            self._launch(row, number)

    def _launch(self, row: int, number: int) -> None:
        limit = self._job.max_in_flight
        if limit is not None and self.counts.in_flight >= limit:
            self._drop(row, number, CAP)
            return
        self.counts.in_flight += 1
        task = asyncio.get_running_loop().create_task(self._request(row, number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _drop(self, row: int, number: int, cause: str) -> None:
        self._ready.pop(number, None)
        self.records.fail(row, DROPPED, cause)
        self.counts.dropped += 1

    async def _hold_back(self, waiting: Queue[tuple[int, int, float]], most_per_s: float) -> None:
        """Pass requests on no faster than the ceiling of the rate, in order."""
        # The throttler lets as many through at once as its window allows: of a second that would be a second's load.
        n = max(math.floor(most_per_s / (10.0 if most_per_s >= 20.0 else 1.0)), 1)
        throttler = Throttler(rate_limit=n, period=n / most_per_s, retry_interval=min(0.01, n / most_per_s))
        while True:
            row, number, since = await waiting.get()
            try:
                await throttler.acquire()  # type: ignore[no-untyped-call]
            except CancelledError:
                self.records.fail(row, CUT, UNSENT)
                raise
            self._n_waiting -= 1
            held_s = monotonic() - since
            self.records.held[row] = int(held_s > HELD_S)
            if held_s > _AHEAD_S:  # its signature would be too old
                self._ready.pop(number, None)
            self._launch(row, number)

    # -- a closed loop

    async def _climb(self, ladder: Ladder) -> tuple[LoadStage, ...]:
        """Run the stages of a designed experiment, and return them."""
        stages: list[LoadStage] = []
        await asyncio.sleep(max(self._start - monotonic(), 0.0))
        stages.append(await self._closed_stage(0, 1, ladder, pauses=True))
        best, idle, limit = 0.0, 0, 1
        while limit <= ladder.greatest and idle < 2 and not self._control.stopped.is_set():
            before = self.counts.answered
            stages.append(await self._closed_stage(len(stages), limit, ladder))
            rate = (self.counts.answered - before) / (stages[-1].end_s - stages[-1].begin_s)
            idle = 0 if rate > 1.05 * best else idle + 1
            best, limit = max(best, rate), 2 * limit
        random = Random(ladder.seed)
        for share in ladder.mixed:
            if best <= 0.0 or self._control.stopped.is_set():
                break
            begin = at = monotonic() - self._start + 0.05
            due = []
            while (at := at + random.expovariate(share * best)) < begin + ladder.mixed_s:
                due.append(at)
            n, first = len(due), len(self.records)
            numbers = np.arange(first, first + n)
            await self._send_schedule(np.array(due), numbers, np.full(n, len(stages)))
            end = min(begin + ladder.mixed_s, monotonic() - self._start)
            stages.append(LoadStage("mixed", begin, max(end, begin), rate_per_s=share * best))
            await self._drain()
        return tuple(stages)

    async def _closed_stage(self, number: int, limit: int, ladder: Ladder, pauses: bool = False) -> LoadStage:
        begin = monotonic()
        first = len(self.records)

        async def sender() -> None:
            while not self._control.stopped.is_set():
                now = monotonic()
                few = len(self.records) - first < ladder.least
                if now - begin >= ladder.stage_s * (4.0 if few else 1.0):
                    return
                row = self.records.begin(len(self.records), now - self._start, number, limit)
                self.counts.due += 1
                self.counts.in_flight += 1
                await self._request(row, row)
                took = monotonic() - now
                # A pause as long as the answer leaves the service idle; failures at once would otherwise be a flood.
                failed = self.records.status[row] != ANSWERED
                await asyncio.sleep(took if pauses else max(0.05 - took, 0.0) if failed else 0.0)

        senders = [asyncio.get_running_loop().create_task(sender()) for _ in range(limit)]
        self._tasks.update(senders)
        stop = asyncio.get_running_loop().create_task(self._control.cut.wait())
        finished = asyncio.get_running_loop().create_task(_all_of(set(senders)))
        waited: list[Task[Any]] = [finished, stop]
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            finished.cancel()
            for task in senders:
                task.cancel()
            await asyncio.gather(*senders, return_exceptions=True)
            self._tasks.difference_update(senders)
        end = monotonic() - self._start
        return LoadStage("unloaded" if pauses else "ladder", begin - self._start, end, in_flight=limit)

    # -- one request

    async def _request(self, row: int, number: int) -> None:
        records, job = self.records, self._job
        try:
            prepared = self._ready.pop(number, None) or self._maker.prepared(number)
            records.request_bytes[row] = len(prepared.body)
            self.counts.sent += 1
            records.sent[row] = sent_s = monotonic() - self._start
            if not math.isnan(records.lag[row]):
                if not records.held[row]:
                    records.lag[row] = sent_s - records.planned[row]
                self.counts.note_lag(max(records.lag[row], 0.0))
            async with await self._response(prepared) as response:
                records.first_byte[row] = monotonic() - self._start
                await self._read(row, response)
        except TimeoutError:
            records.fail(row, TIMED_OUT, f"no answer within {job.timeout_s:g} s")
            records.done[row] = monotonic() - self._start
        except CancelledError:
            records.fail(row, CUT, UNFINISHED)
        except Exception as error:
            status, cause = failure_of(error)
            if status == DROPPED:
                self.counts.dropped += 1
                self.counts.sent -= 1
                records.sent[row] = math.nan
            else:
                records.done[row] = monotonic() - self._start
            records.fail(row, status, cause)
        finally:
            self.counts.in_flight -= 1
            self._count(row)

    async def _response(self, prepared: PreparedRequest) -> aiohttp.ClientResponse:
        """Send a request and return its answer, whose head has come.

        Some servers close connections that they had promised to keep: a request that finds one closed, before any byte
        of an answer, is sent again, as all clients of HTTP do with connections of a pool.
        """
        body = prepared.body
        for left in reversed(range(_MOST_RESENT)):
            connection: dict[str, bool] = {}
            try:
                return await self._session.request(
                    self._job.target.method, self._url, headers=prepared.headers, allow_redirects=False,
                    data=body if len(body) <= _LARGE_BYTES else io.BytesIO(body), trace_request_ctx=connection,
                )  # fmt: skip
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError):
                if not (left and connection.get(_IS_USED_AGAIN)):
                    raise
                self._n_resent += 1
        raise AssertionError("the last attempt has returned or raised")

    async def _read(self, row: int, response: aiohttp.ClientResponse) -> None:
        records, status = self.records, response.status
        reader = self._maker.reader(response.content_type) if status < 300 else None
        n_bytes, kept = 0, b""
        async for data in response.content.iter_any():
            n_bytes += len(data)
            if reader is not None:
                reader.feed(data, monotonic() - self._start)
            elif self._asks_model and len(kept) < _MOST_ERROR_BYTES:
                kept += data
        records.done[row] = monotonic() - self._start
        records.response_bytes[row] = n_bytes
        if reader is not None:
            reader.close()
            records.first_token[row] = reader.first_token
            records.output_tokens[row], records.prompt_tokens[row] = reader.output_tokens, reader.prompt_tokens
            records.keep_tokens(row, reader.token_times)
            if reader.error:
                records.fail(row, ERROR_5XX, reader.error)
                return
        if status < 300:
            records.status[row] = ANSWERED
            return
        if status == _MODEL_ERROR and self._asks_model:
            records.fail(row, *model_failure(kept))
            return
        # One message per status, the first: some hold the time or an id, and would make a cause of each request.
        cause = self._refusals.setdefault(status, refusal(status, kept))
        records.fail(row, ERROR_5XX if status >= 500 else ERROR_4XX, cause)

    def _count(self, row: int) -> None:
        status, done = self.records.status[row], self.records.done[row]
        if status == ANSWERED:
            self.counts.answered += 1
        elif status not in (DROPPED, CUT):
            self.counts.failed += 1
            self.counts.unreachable += status == UNAVAILABLE
        if not math.isnan(done) and status in (ANSWERED, ERROR_4XX, ERROR_5XX, TIMED_OUT):
            self.counts.note_latency(max(done - self.records.planned[row], 0.0))

    # -- the end

    async def _drain(self) -> None:
        """Wait for what is in flight: each has its own time-out; a stopped run waits for a moment only."""
        loop = asyncio.get_running_loop()
        cut, stopped = loop.create_task(self._control.cut.wait()), loop.create_task(self._control.stopped.wait())
        try:
            while self._tasks and not cut.done():
                wait_s = GRACE_S if stopped.done() else None
                answered = loop.create_task(_all_of(set(self._tasks)))
                waited: list[Task[Any]] = [answered, cut, *([] if stopped.done() else [stopped])]
                done, _ = await asyncio.wait(waited, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                answered.cancel()
                if not done:  # the moment is over
                    break
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            cut.cancel()
            stopped.cancel()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(SNAPSHOT_S)
            self._tell()

    def _tell(self) -> None:
        if self._on_counts is not None:
            self._on_counts(self.counts)


async def _note_reuse(session: aiohttp.ClientSession, context: Any, _: aiohttp.TraceConnectionReuseconnParams) -> None:
    """Note that a request was given a connection of the pool."""
    context.trace_request_ctx[_IS_USED_AGAIN] = True


async def _all_of(tasks: set[Task[None]]) -> None:
    await asyncio.wait(tasks)
