"""Backends of variants: containers behind URLs, and simulated instances of a service model.

A backend answers an invocation with one of its variant's instances. It never raises for a failure of that instance: a
container that refuses, drops the connection, sends garbage or never ends gives an `Answer`, too.

A simulated instance follows the simulator. It knows when each of its workers is free, so it gives an arriving request
its start and its end at once, first in, first out. The caller then waits until that end. So timers that fire late, by
up to a millisecond on an idle machine, neither add up in the queue nor count as latency: they are OverheadLatency.
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
from shadowsim.server.data_plane.connections import AllowanceExceededError, ExcessError, read
from shadowsim.server.data_plane.loop_clock import LoopClock

ANSWERED, ERROR_4XX, ERROR_5XX, TIMED_OUT, REFUSED = "answered", "error_4xx", "error_5xx", "timed_out", "refused"
BROKEN = "broken"  # no readable answer
TOO_LONG = "too_long"  # an answer above the limit, which is not read on; "broken" in frames
GIVEN_UP = "given_up"  # a copy whose answer exceeded the allowance; a lost copy in frames
CONNECT_S, PING_S = 0.25, 2.0  # SageMaker's time-outs for a container's socket and for /ping
CONTENT_TYPE = "Content-Type"
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
NEW_SESSION, CLOSED_SESSION = "X-Amzn-SageMaker-New-Session-Id", "X-Amzn-SageMaker-Closed-Session-Id"
_PASSED = (CONTENT_TYPE, CUSTOM_ATTRIBUTES, NEW_SESSION, CLOSED_SESSION)
_DRAWS_AT_ONCE = 256  # some laws take a microsecond per draw, during which the event loop stands still


@dataclass(frozen=True, slots=True)
class Call:
    """An invocation as a container sees it.

    Attributes
    ----------
    body : bytes
    headers : mapping of str to str
        The headers that SageMaker passes on.
    """

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a call, or its failure.

    Attributes
    ----------
    outcome : str
        A status of the `requests` frame: "answered" (2XX), "error_4xx", "error_5xx" (every other HTTP status),
        "timed_out", "refused" (a simulated queue was full) or "broken" (no readable answer); or "too_long" or
        "given_up".
    latency_s : float
        ModelLatency, in seconds.
    status : int
        The HTTP status; 0 without one.
    body : bytes
    headers : mapping of str to str
        The answer's headers that SageMaker passes on.
    wait_s, service_s : float
        Parts of the latency in the instance's queue and in service; NaN for a container, which does not report them.
    failure : str
        Why a call is "broken", as a text for people.
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
    """A backend of one variant."""

    @property
    def n_workers(self) -> int | None:
        """Workers per instance; None if unknown."""
        ...

    async def invoke(self, instance: int, call: Call, timeout_s: float) -> Answer:
        """Answer a call with an instance, within a time limit."""
        ...


class Container:
    """Containers behind URLs: `POST /invocations`, `GET /ping`.

    Parameters
    ----------
    urls : sequence of str
        One per instance; instances share them if there are fewer.
    session : aiohttp.ClientSession
        Made by `connections.open_session`, which leaves bodies unchanged.
    max_answer_bytes : int
        Longest answer; reading a longer one stops, and its connection is closed.
    loop_clock : LoopClock, optional
        Clock of the time-outs.
    """

    n_workers = None

    def __init__(
        self,
        urls: Sequence[str],
        session: aiohttp.ClientSession,
        max_answer_bytes: int,
        loop_clock: LoopClock | None = None,
    ):
        self._urls = [url.rstrip("/") for url in urls]
        self._invocations = [f"{url}/invocations" for url in self._urls]
        self._limits = aiohttp.ClientTimeout()
        self._session, self._max_answer_bytes = session, max_answer_bytes
        self._loop_clock = loop_clock or LoopClock()

    async def invoke(self, instance: int, call: Call, timeout_s: float) -> Answer:
        """Post a call to an instance's container."""
        url = self._invocations[instance % len(self._invocations)]
        if self._limits.sock_connect != CONNECT_S:
            self._limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        began = perf_counter()
        try:
            async with (
                self._loop_clock.within(timeout_s),
                self._session.post(
                    url, data=call.body, headers=call.headers, timeout=self._limits, allow_redirects=False
                ) as response,
            ):
                body = await read(response.content, self._max_answer_bytes)
                latency_s = perf_counter() - began
                if body is None:
                    response.close()  # leaves the rest unread
                    return Answer(TOO_LONG, latency_s)
                headers = response.headers
                # an unprintable value cannot be sent on
                passed = {name: headers[name] for name in _PASSED if name in headers and headers[name].isprintable()}
                return Answer(outcome_of(response.status), latency_s, response.status, body, passed)
        except AllowanceExceededError as error:
            error.__traceback__ = None  # the connection keeps the error, whose frames would keep what was read
            return Answer(GIVEN_UP, perf_counter() - began)
        except ExcessError as error:
            error.__traceback__ = None
            return Answer(BROKEN, perf_counter() - began, failure=str(error))
        except aiohttp.ConnectionTimeoutError:
            return Answer(BROKEN, perf_counter() - began, failure=f"no connection within {CONNECT_S:g} s")
        except TimeoutError:
            return Answer(TIMED_OUT, timeout_s)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: garbage in a header
            return Answer(BROKEN, perf_counter() - began, failure=_failure(error))

    async def ping(self, n_instances: int) -> str | None:
        """Return None if the containers of all instances answer /ping with 200, else what the first other one did."""
        limits = aiohttp.ClientTimeout(total=None)
        for url in self._urls[:n_instances]:
            try:
                async with (
                    self._loop_clock.within(PING_S),
                    self._session.get(f"{url}/ping", timeout=limits, allow_redirects=False) as response,
                ):
                    if response.status != 200:
                        return f"{url}/ping answered {response.status}"
            except ExcessError as error:
                return f"{url}/ping: {error}"
            except TimeoutError:
                return f"{url}/ping did not answer within {PING_S:g} s"
            except (aiohttp.ClientError, OSError, ValueError) as error:
                return f"{url}/ping: {_failure(error)}"
        return None


class Simulated:
    """Simulated instances of a service model; answers echo the call's body.

    Parameters
    ----------
    service : Service
        Its law may not be linear, as that needs a trace.
    n_instances, n_workers : int
        Instances, and workers per instance.
    seed : int

    Raises
    ------
    InputError
        For a linear law.
    """

    def __init__(self, service: Service, n_instances: int, n_workers: int, seed: int):
        if service.time.kind == "linear":
            raise InputError(
                "time.law", "must not be linear: a server has no trace with the columns that a linear law needs"
            )
        self.n_workers = n_workers
        self._service = service
        self._queues = [SimulatedQueue(n_workers, service.queue_limit, service.slowdown) for _ in range(n_instances)]
        self._coin = Random(seed)
        self._times = draws(service.time, np.random.default_rng(seed))

    async def invoke(self, instance: int, call: Call, timeout_s: float) -> Answer:
        """Hold a worker of an instance for a drawn time, after the requests that came before."""
        loop = asyncio.get_running_loop()
        arrival = loop.time()
        service = self._queues[instance].enter(arrival, next(self._times))
        error = self._coin.random()
        if service is None:
            return Answer(REFUSED, 0.0, 503, b"the queue is full")
        start, end = service
        wait_s, service_s = start - arrival, end - start
        await _until(loop, min(end, arrival + timeout_s))
        if end - arrival > timeout_s:  # the worker stays busy until the end
            return Answer(TIMED_OUT, timeout_s, wait_s=wait_s, service_s=service_s)
        latency_s = end - arrival  # without the timer's delay, which is overhead of the server
        if error < self._service.error_4xx:
            return Answer(ERROR_4XX, latency_s, 400, b"a simulated error", wait_s=wait_s, service_s=service_s)
        if error < self._service.error_4xx + self._service.error_5xx:
            return Answer(ERROR_5XX, latency_s, 500, b"a simulated error", wait_s=wait_s, service_s=service_s)
        headers = {CONTENT_TYPE: call.headers[CONTENT_TYPE]} if CONTENT_TYPE in call.headers else {}
        return Answer(ANSWERED, latency_s, 200, call.body, headers, wait_s, service_s)


class SimulatedQueue:
    """One simulated instance: the times at which its workers are free, and at which waiting requests start."""

    def __init__(self, n_workers: int, limit: int | None, slowdown: tuple[float, ...]):
        self._free_s = [0.0] * n_workers  # a heap
        self._starts_s: deque[float] = deque()  # of waiting requests, ascending
        self._limit, self._slowdown = limit, slowdown

    def enter(self, arrival: float, work_s: float) -> tuple[float, float] | None:
        """Return start and end of a request's service, None if the queue is full."""
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
    """Yield draws of a law without end, by inversion from both tails."""
    while True:
        v = 0.5 - 0.5 * random.random(_DRAWS_AT_ONCE)  # in (0, 0.5]
        lower, upper = law.tails(v)
        yield from np.where(random.random(_DRAWS_AT_ONCE) < 0.5, lower, upper).tolist()


def outcome_of(status: int) -> str:
    """Return the outcome of an HTTP status; any status but 2XX and 4XX counts as the server's fault."""
    if 200 <= status < 300:
        return ANSWERED
    return ERROR_4XX if 400 <= status < 500 else ERROR_5XX


def _failure(error: Exception) -> str:
    """Return why there is no answer, in words for the container's maintainer."""
    match error:
        case aiohttp.ClientConnectorError():
            return "the container cannot be connected to"
        case aiohttp.ServerDisconnectedError():
            return "the container closed the connection without an answer"
        case aiohttp.ClientPayloadError():
            return "the answer broke off"
        case aiohttp.ClientResponseError():
            return f"the answer is not HTTP: {error.message.splitlines()[0].rstrip(':')}"
        case OSError():
            return f"the connection broke: {error.strerror or error}"
        case _:
            return f"the answer is not HTTP: {error}"


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
