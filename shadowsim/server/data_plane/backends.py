"""Backends of variants: what they are asked and answer, and containers behind URLs.

A backend answers an invocation with one of its variant's instances. It never raises for a failure of that instance: a
container that refuses, drops the connection, sends garbage or never ends gives an `Answer`, too.

An answer may be streamed: its parts go to a `Receiver` as they come, and the `Answer` follows at the end. What is not
2XX is not streamed, so it can become an ordinary error.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Protocol

import aiohttp
from aiohttp.http import HttpProcessingError

from shadowsim.server.data_plane.completions import CompletionRequest
from shadowsim.server.data_plane.connections import (
    CONNECT_S,
    AllowanceExceededError,
    ExcessError,
    ReadAllowance,
    parts,
    read,
)
from shadowsim.server.data_plane.exchanges import ContainerAnswer, ContainerSession
from shadowsim.server.data_plane.loop_clock import LoopClock
from shadowsim.server.data_plane.streamed_bodies import StreamedBody, TokenFigures
from shadowsim.server.http.streamed_replies import CallerGoneError

ANSWERED, ERROR_4XX, ERROR_5XX, TIMED_OUT, REFUSED = "answered", "error_4xx", "error_5xx", "timed_out", "refused"
BROKEN = "broken"  # no readable answer
TOO_LONG = "too_long"  # an answer above the limit, which is not read on; "broken" in frames
GIVEN_UP = "given_up"  # a copy whose answer exceeded the allowance; a lost copy in frames
PING_S = 2.0  # SageMaker's time-out for /ping
CONTENT_TYPE = "Content-Type"
INVOCATIONS = "/invocations"  # of every container
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
NEW_SESSION, CLOSED_SESSION = "X-Amzn-SageMaker-New-Session-Id", "X-Amzn-SageMaker-Closed-Session-Id"
_BREAKS = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError)  # the last: garbage in a header
_FAILURES = (AllowanceExceededError, ExcessError, *_BREAKS)
_PASSED = (CONTENT_TYPE, CUSTOM_ATTRIBUTES, NEW_SESSION, CLOSED_SESSION)


@dataclass(frozen=True, slots=True)
class Call:
    """An invocation as a container sees it.

    Attributes
    ----------
    body : bytes
    headers : mapping of str to str
        The headers that SageMaker passes on.
    path : str
        Path at the container.
    completion : CompletionRequest or None
        What it asks for in the form of OpenAI's API; None for any other call.
    """

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = INVOCATIONS
    completion: CompletionRequest | None = None


class Receiver(Protocol):
    """Who takes the parts of a streamed answer; each call returns when the next may follow."""

    @property
    def within_s(self) -> float:
        """Time limit of the whole answer; its first part has that of an invocation."""
        ...

    async def begin(self, headers: Mapping[str, str]) -> None:
        """Take the headers, before any part; raises `CallerGoneError`."""
        ...

    async def part(self, part: bytes) -> None:
        """Take a part; raises `CallerGoneError`."""
        ...


@dataclass(frozen=True, slots=True)
class Unread:
    """Takes the parts of a copy's answer, which nobody reads."""

    within_s: float

    async def begin(self, headers: Mapping[str, str]) -> None:
        """Do nothing."""

    async def part(self, part: bytes) -> None:
        """Do nothing."""


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
    work_s : float
        Its share of the time of an instance's worker, which instances that batch divide among calls; NaN for a
        container.
    offered_s : float
        The least such share that it can have had: in full batches. It makes up the offered load.
    tokens : TokenFigures or None
        None but for a simulated service in tokens, and for a streamed answer.
    first_part_s : float
        Time to the first part of a streamed answer; NaN without one.
    cut_bytes : int
        Bytes of a streamed answer that follow those of `body`, which has a limit.
    is_left : bool
        Whether the caller left before the end of a streamed answer.
    """

    outcome: str
    latency_s: float
    status: int = 0
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = math.nan
    service_s: float = math.nan
    failure: str = ""
    work_s: float = math.nan
    offered_s: float = math.nan
    tokens: TokenFigures | None = None
    first_part_s: float = math.nan
    cut_bytes: int = 0
    is_left: bool = False

    @property
    def is_streamed(self) -> bool:
        """Whether the caller got a part of it before its end was known."""
        return not math.isnan(self.first_part_s)


class Backend(Protocol):
    """A backend of one variant."""

    @property
    def n_workers(self) -> int | None:
        """Workers per instance; None if unknown."""
        ...

    @property
    def overhead_s(self) -> float:
        """What an answer takes at least beyond its latency; parts of streamed ones wait for it in `invoke`."""
        ...

    async def invoke(self, instance: int, call: Call, timeout_s: float, receiver: Receiver | None = None) -> Answer:
        """Answer a call with an instance, within a time limit; streamed if there is a receiver."""
        ...

    def batches(self) -> Sequence[tuple[int, float]]:
        """Return of each instance the running sequences, and the share of its cache that they hold; or nothing."""
        ...

    def add_instance(self, instance: int) -> None:
        """Make a further instance, with a number that was never used."""
        ...

    def remove_instance(self, instance: int) -> None:
        """Forget an instance that gets no more requests and has none."""
        ...


class Container:
    """Containers behind URLs: `POST /invocations` or another path, `GET /ping`.

    Parameters
    ----------
    urls : sequence of str
        One per instance; instances share them if there are fewer.
    session : ContainerSession
        Made by `connections.open_session`.
    max_answer_bytes : int
        Longest answer; reading a longer one stops, and its connection is closed. A streamed one is read on, but no more
        of it is kept.
    loop_clock : LoopClock, optional
        Clock of the time-outs.
    allowance : ReadAllowance, optional
        Also pays for the time in which the tokens of streamed answers are counted.
    """

    n_workers, overhead_s = None, 0.0  # the network's time is in the latency

    def __init__(
        self,
        urls: Sequence[str],
        session: ContainerSession,
        max_answer_bytes: int,
        loop_clock: LoopClock | None = None,
        allowance: ReadAllowance | None = None,
    ):
        self._urls = [url.rstrip("/") for url in urls]
        self._session, self._max_answer_bytes = session, max_answer_bytes
        self._loop_clock, self._allowance = loop_clock or LoopClock(), allowance

    async def invoke(self, instance: int, call: Call, timeout_s: float, receiver: Receiver | None = None) -> Answer:
        """Post a call to an instance's container."""
        url = self._urls[instance % len(self._urls)] + call.path
        if receiver is not None:
            return await self._stream(url, call, timeout_s, receiver)
        began = perf_counter()
        try:
            async with self._loop_clock.within(timeout_s):
                with await self._session.post(url, call.headers, call.body) as response:
                    return await self._whole(response, began)
        except _FAILURES as error:
            return _failed(error, perf_counter() - began, timeout_s)

    async def _stream(self, url: str, call: Call, timeout_s: float, receiver: Receiver) -> Answer:
        """Pass an answer on in parts; the time for which the receiver holds them up is not the container's."""
        began, passed = perf_counter(), {}
        if self._allowance is not None:
            self._allowance.n_streams += 1
        body: StreamedBody | None = None
        response: ContainerAnswer | None = None
        source: AsyncGenerator[bytes, None] | None = None
        try:
            async with self._loop_clock.within(timeout_s):
                response = await self._session.post(url, call.headers, call.body)
                if outcome_of(response.status) != ANSWERED:
                    return await self._whole(response, began)
                source = parts(response, self._allowance)
                part = await anext(source, b"")
            passed = _passed_on(response)
            is_sse = response.content_type == "text/event-stream"
            body = StreamedBody(began, self._max_answer_bytes, is_sse, self._allowance)
            async with self._loop_clock.within(receiver.within_s - (perf_counter() - began)):
                body.add(part)
                await body.hand_over(receiver.begin(passed))
                while part:
                    await body.hand_over(receiver.part(part))
                    part = await anext(source, b"")
                    body.add(part)
            answer = Answer(ANSWERED, body.lasted_s)
        except CallerGoneError:
            answer = Answer(ANSWERED, perf_counter() - began, is_left=True)
        except _FAILURES as error:
            if response is None or body is None:
                return _failed(error, perf_counter() - began, timeout_s)
            answer = _failed(error, body.elapsed_s, body.elapsed_s)
        finally:
            if self._allowance is not None:
                self._allowance.n_streams -= 1
            if source is not None:
                await source.aclose()
            if response is not None:
                response.release()  # closes the connection of an incomplete answer
        if body is None or response is None:
            return answer
        return replace(
            answer,
            status=response.status,
            body=body.kept.joined(),
            headers=passed,
            tokens=body.figures(),
            first_part_s=body.first_part_s,
            cut_bytes=body.kept.cut_bytes,
        )

    async def _whole(self, response: ContainerAnswer, began: float) -> Answer:
        body = await read(response.content, self._max_answer_bytes)
        latency_s = perf_counter() - began
        if body is None:
            return Answer(TOO_LONG, latency_s)
        return Answer(outcome_of(response.status), latency_s, response.status, body, _passed_on(response))

    def batches(self) -> Sequence[tuple[int, float]]:
        """Return nothing: a container does not say what it runs."""
        return ()

    def add_instance(self, instance: int) -> None:
        """Do nothing: instances share the URLs."""

    def remove_instance(self, instance: int) -> None:
        """Do nothing."""

    async def ping(self, n_instances: int) -> str | None:
        """Return None if the containers of all instances answer /ping with 200, else what the first other one did."""
        for url in self._urls[:n_instances]:
            try:
                async with self._loop_clock.within(PING_S):
                    with await self._session.get(f"{url}/ping") as response:
                        if response.status != 200:
                            return f"{url}/ping answered {response.status}"
            except ExcessError as error:
                return f"{url}/ping: {error}"
            except TimeoutError:
                return f"{url}/ping did not answer within {PING_S:g} s"
            except _BREAKS as error:
                return f"{url}/ping: {_failure(error)}"
        return None


def _passed_on(response: ContainerAnswer) -> dict[str, str]:
    headers = response.headers
    # an unprintable value cannot be sent on
    return {name: headers[name] for name in _PASSED if name in headers and headers[name].isprintable()}


def outcome_of(status: int) -> str:
    """Return the outcome of an HTTP status; any status but 2XX and 4XX counts as the server's fault."""
    if 200 <= status < 300:
        return ANSWERED
    return ERROR_4XX if 400 <= status < 500 else ERROR_5XX


def _failed(error: Exception, latency_s: float, timeout_s: float) -> Answer:
    """Return the answer that a failure makes; `timeout_s` is the latency of one that came too late."""
    match error:
        case AllowanceExceededError():
            error.__traceback__ = None  # the connection keeps the error, whose frames would keep what was read
            return Answer(GIVEN_UP, latency_s)
        case ExcessError():
            error.__traceback__ = None
            return Answer(BROKEN, latency_s, failure=str(error))
        case aiohttp.ConnectionTimeoutError():
            return Answer(BROKEN, latency_s, failure=f"no connection within {CONNECT_S:g} s")
        case TimeoutError():
            return Answer(TIMED_OUT, timeout_s)
    return Answer(BROKEN, latency_s, failure=_failure(error))


def _failure(error: Exception) -> str:
    """Return why there is no answer, in words for the container's maintainer."""
    match error:
        case aiohttp.ClientConnectorError():
            return "the container cannot be connected to"
        case aiohttp.ServerDisconnectedError():
            return "the container closed the connection without an answer"
        case aiohttp.ClientPayloadError():
            return "the answer broke off"
        case HttpProcessingError():
            return f"the answer is not HTTP: {error.message.splitlines()[0].rstrip(':')}"
        case OSError():
            return f"the connection broke: {error.strerror or error}"
        case _:
            return f"the answer is not HTTP: {error}"
