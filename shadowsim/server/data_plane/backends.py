"""What answers an invocation: a real container by its URLs, or a service model that holds a worker for as long.

A backend serves one variant. It is asked for one of the variant's instances and never raises for what happens behind
it: a container that refuses, slams the connection, sends garbage or never ends is an `Answer`, too.

A simulated instance is the simulator's (design, "An instance"): its workers' free times are kept, and a request that
arrives is given its start and its end at once, as first in, first out allows. The caller then waits until the end. So
timers that fire late, by up to a millisecond on an idle machine, never add up in the queue, and are no part of the
latency: they are OverheadLatency.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from time import perf_counter
from typing import Protocol

import aiohttp
import numpy as np

from shadowsim.errors import InputError
from shadowsim.scenario.laws import Law
from shadowsim.scenario.service import Service
from shadowsim.server.data_plane.connections import Intake, TooMuchError, read

ANSWERED, ERROR_4XX, ERROR_5XX, TIMED_OUT, REFUSED = "answered", "error_4xx", "error_5xx", "timed_out", "refused"
BROKEN = "broken"  # no answer that could be read
TOO_LONG = "too_long"  # broken off at the limit of an answer's length; frames call it broken
GIVEN_UP = "given_up"  # a copy whose answer was too much for us
CONNECT_S, PING_S = 0.25, 2.0  # SageMaker's, for a container's socket and for /ping
CONTENT_TYPE = "Content-Type"
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
NEW_SESSION, CLOSED_SESSION = "X-Amzn-SageMaker-New-Session-Id", "X-Amzn-SageMaker-Closed-Session-Id"
_PASSED = (CONTENT_TYPE, CUSTOM_ATTRIBUTES, NEW_SESSION, CLOSED_SESSION)
_DRAWS_AT_ONCE = 256  # some of the laws take a microsecond a draw, and everybody waits


@dataclass(frozen=True, slots=True)
class Call:
    """An invocation as a container sees it.

    Attributes
    ----------
    body : bytes
    headers : mapping of str to str
        Those that SageMaker passes on.
    """

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call.

    Attributes
    ----------
    outcome : str
        A status of the `requests` frame: "answered" (2XX), "error_4xx", "error_5xx" (every other HTTP status),
        "timed_out", "refused" (a simulated queue was full) or "broken" (no answer that could be read).
    latency_s : float
        ModelLatency, in seconds.
    status : int
        The HTTP status; 0 when there is none.
    body : bytes
    headers : mapping of str to str
        Those of the answer that SageMaker passes on.
    wait_s, service_s : float
        Of the latency, the time in the instance's queue and in service; NaN behind a container, which does not tell.
    failure : str
        Why a call is "broken", for people.
    """

    outcome: str
    latency_s: float
    status: int = 0
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = math.nan
    service_s: float = math.nan
    failure: str = ""


class Backend(Protocol):
    """What serves a variant."""

    @property
    def n_workers(self) -> int | None:
        """Workers of one instance, where that is known."""
        ...

    async def invoke(self, instance: int, call: Call, timeout_s: float) -> Answer:
        """Let an instance answer a call, within a time."""
        ...


class Container:
    """Containers behind URLs: `POST /invocations`, `GET /ping`.

    Parameters
    ----------
    urls : sequence of str
        One an instance; shared when there are fewer.
    session : aiohttp.ClientSession
        Made by `connections.open_session`, so that bodies pass as they are.
    max_answer_bytes : int
        An answer that is longer is not read on; its connection is closed.
    intake : Intake, optional
        What copies' answers share; without one there is no other limit.
    """

    n_workers = None

    def __init__(
        self,
        urls: Sequence[str],
        session: aiohttp.ClientSession,
        max_answer_bytes: int,
        intake: Intake | None = None,
    ):
        self._urls = [url.rstrip("/") for url in urls]
        self._invocations = [f"{url}/invocations" for url in self._urls]
        self._limits: tuple[float, aiohttp.ClientTimeout] = 0.0, aiohttp.ClientTimeout()
        self._session = session
        self._max_answer_bytes, self._intake = max_answer_bytes, intake

    async def invoke(self, instance: int, call: Call, timeout_s: float) -> Answer:
        """Post a call to the container of an instance."""
        url = self._invocations[instance % len(self._invocations)]
        if self._limits[0] != timeout_s:
            self._limits = timeout_s, aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_S, timeout_s))
        began = perf_counter()
        try:
            async with self._session.post(
                url, data=call.body, headers=call.headers, timeout=self._limits[1], allow_redirects=False
            ) as response:
                body = await read(response.content, self._max_answer_bytes, self._intake)
                latency_s = perf_counter() - began
                if body is None:
                    response.close()  # what is left of it is not to be read
                    return Answer(TOO_LONG, latency_s)
                found = response.headers
                # what is not printable cannot be written again
                passed = {name: found[name] for name in _PASSED if name in found and found[name].isprintable()}
                return Answer(outcome_of(response.status), latency_s, response.status, body, passed)
        except TooMuchError:
            return Answer(GIVEN_UP, perf_counter() - began)
        except TimeoutError as error:
            latency_s = perf_counter() - began
            if isinstance(error, aiohttp.ConnectionTimeoutError) and latency_s < timeout_s:
                return Answer(BROKEN, latency_s, failure=f"no connection within {CONNECT_S:g} s")
            return Answer(TIMED_OUT, timeout_s)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: garbage in a header
            return Answer(BROKEN, perf_counter() - began, failure=_failure(error))

    async def ping(self, n_instances: int) -> str | None:
        """Return None when the containers of all instances answer /ping with 200, or else what one did."""
        limits = aiohttp.ClientTimeout(total=PING_S)
        for url in self._urls[:n_instances]:
            try:
                async with self._session.get(f"{url}/ping", timeout=limits, allow_redirects=False) as response:
                    if response.status != 200:
                        return f"{url}/ping answered {response.status}"
            except TimeoutError:
                return f"{url}/ping did not answer within {PING_S:g} s"
            except (aiohttp.ClientError, OSError, ValueError) as error:
                return f"{url}/ping: {_failure(error)}"
        return None


class Simulated:
    """Instances of a service model; answers echo the call's body.

    Parameters
    ----------
    service : Service
        Its law may not be a linear one, which needs a trace.
    n_instances, n_workers : int
        Instances, and workers of each.
    seed : int

    Raises
    ------
    InputError
        For a linear law.
    """

    def __init__(self, service: Service, n_instances: int, n_workers: int, seed: int):
        if service.time.kind == "linear":
            raise InputError("time.law", "must not be linear: a server has no trace whose columns it could take")
        self.n_workers = n_workers
        self._service = service
        self._queues = [_Queue(n_workers, service.queue_limit, service.slowdown) for _ in range(n_instances)]
        self._coin = Random(seed)
        self._times = draws(service.time, np.random.default_rng(seed))

    async def invoke(self, instance: int, call: Call, timeout_s: float) -> Answer:
        """Hold a worker of an instance for a drawn time, after those who came before."""
        loop = asyncio.get_running_loop()
        arrival = loop.time()
        held = self._queues[instance].enter(arrival, next(self._times))
        error = self._coin.random()
        if held is None:
            return Answer(REFUSED, 0.0, 503, b"the queue is full")
        start, end = held
        wait_s, service_s = start - arrival, end - start
        await _until(loop, min(end, arrival + timeout_s))
        if end - arrival > timeout_s:  # its worker does the work all the same
            return Answer(TIMED_OUT, timeout_s, wait_s=wait_s, service_s=service_s)
        latency_s = end - arrival  # a timer that fires late is the server's overhead, not the model's
        if error < self._service.error_4xx:
            return Answer(ERROR_4XX, latency_s, 400, b"a simulated error", wait_s=wait_s, service_s=service_s)
        if error < self._service.error_4xx + self._service.error_5xx:
            return Answer(ERROR_5XX, latency_s, 500, b"a simulated error", wait_s=wait_s, service_s=service_s)
        kept = {CONTENT_TYPE: call.headers[CONTENT_TYPE]} if CONTENT_TYPE in call.headers else {}
        return Answer(ANSWERED, latency_s, 200, call.body, kept, wait_s, service_s)


class _Queue:
    """One simulated instance: when its workers are free, and when those who wait will start."""

    def __init__(self, n_workers: int, limit: int | None, slowdown: tuple[float, ...]):
        self._free_s = [0.0] * n_workers  # a heap
        self._starts_s: deque[float] = deque()  # of those who wait, ascending
        self._limit, self._slowdown = limit, slowdown

    def enter(self, arrival: float, work_s: float) -> tuple[float, float] | None:
        """Return start and end of a request's service, None when the queue is full."""
        while self._starts_s and self._starts_s[0] <= arrival:
            self._starts_s.popleft()
        start = max(arrival, self._free_s[0])
        if start > arrival:
            if self._limit is not None and len(self._starts_s) >= self._limit:
                return None
            self._starts_s.append(start)
        if self._slowdown:
            busy = 1 + sum(free > start for free in self._free_s)
            work_s *= self._slowdown[min(busy, len(self._slowdown)) - 1]
        heapq.heapreplace(self._free_s, start + work_s)
        return start, start + work_s


def draws(law: Law, random: np.random.Generator) -> Iterator[float]:
    """Yield draws of a law without end, by its quantiles from both ends."""
    while True:
        v = 0.5 - 0.5 * random.random(_DRAWS_AT_ONCE)  # in (0, 0.5]
        lower, upper = law.tails(v)
        yield from np.where(random.random(_DRAWS_AT_ONCE) < 0.5, lower, upper).tolist()


def outcome_of(status: int) -> str:
    """Return the outcome of an HTTP status; what is neither 2XX nor 4XX counts as the server's fault."""
    if 200 <= status < 300:
        return ANSWERED
    return ERROR_4XX if 400 <= status < 500 else ERROR_5XX


def _failure(error: Exception) -> str:
    """Return why there is no answer, as whoever looks after the container would say it."""
    match error:
        case aiohttp.ClientConnectorError():
            return "the container cannot be connected to"
        case aiohttp.ServerDisconnectedError():
            return "the container closed the connection without an answer"
        case aiohttp.ClientPayloadError():
            return "the answer broke off"
        case aiohttp.ClientResponseError():
            return f"the answer is no HTTP: {error.message.splitlines()[0].rstrip(':')}"
        case OSError():
            return f"the connection broke: {error.strerror or error}"
        case _:
            return f"the answer is no HTTP: {error}"


async def _until(loop: asyncio.AbstractEventLoop, moment: float) -> None:
    """Sleep until a moment of the loop's clock."""
    if moment > loop.time():
        done = loop.create_future()
        timer = loop.call_at(moment, _set, done)
        try:
            await done
        finally:
            timer.cancel()


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
