"""Backends of variants: what they are asked and answer, and containers behind URLs.

A backend answers an invocation with one of its variant's instances. It never raises for a failure of that instance: a
container that refuses, drops the connection, sends garbage or never ends gives an `Answer`, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

import aiohttp

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
class TokenFigures:
    """What a service in tokens did for a call.

    Attributes
    ----------
    first_token_s, per_token_s : float
        Time from arrival to the first token, and mean time per token after it; NaN where they did not come in time.
    prompt, output : int
        Tokens of the prompt, and of a whole answer.
    produced, prefilled : int
        Tokens that were produced, and tokens of prompts that were computed, until the caller had its answer.
    preemptions : int
        How often the call's sequence gave its blocks back.
    """

    first_token_s: float
    per_token_s: float
    prompt: int
    output: int
    produced: int
    prefilled: int
    preemptions: int


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
        None but for a simulated service in tokens.
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


class Backend(Protocol):
    """A backend of one variant."""

    @property
    def n_workers(self) -> int | None:
        """Workers per instance; None if unknown."""
        ...

    async def invoke(self, instance: int, call: Call, timeout_s: float) -> Answer:
        """Answer a call with an instance, within a time limit."""
        ...

    def batches(self) -> Sequence[tuple[int, float]]:
        """Return of each instance the running sequences, and the share of its cache that they hold; or nothing."""
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

    def batches(self) -> Sequence[tuple[int, float]]:
        """Return nothing: a container does not say what it runs."""
        return ()

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
