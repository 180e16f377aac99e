"""Connections to containers: the limits on what is read of them, and when they are used again.

A container may end a connection at any time, also an idle one. A request on a connection that has just ended would fail
although its container is fine, and a POST must not be sent twice. So idle connections are kept for a shorter time than
servers keep theirs (gunicorn 2 s, uvicorn 5 s), and a used one is checked before it is used again. If bytes or the end
have arrived on it, it is dropped: bytes that no request asked for would be taken as the answer to the next request.

All bytes of an answer are counted as they arrive, before they are parsed: interim answers, headers, the framing of
chunks and trailers. A head, its interim answers and the framing have limits of their own, for callers and for copies;
the body has that of `read`. What follows a complete answer is not parsed, and ends the connection.

A shadow may answer without end and as fast as this process can read. Reading all of it would occupy the event loop, in
ever more memory, while callers wait. So all copies' answers together have an allowance of bytes and of the loop's time,
and a copy whose answer is incomplete when it is exhausted is given up. A complete answer only counts: giving it up
saves nothing. The time counts from FREE_S on, which no ordinary answer takes.

An answer that is passed on in parts is read no further ahead than MAX_AHEAD_BYTES and what one read of the socket
brings. Whoever takes its parts slowly so slows the container down, by TCP's own means.

A copy's answer in parts, which nobody waits for, would use the allowance up by many small reads: those of tokens. While
less than half of the loop's time is left, each such stream rests after a read, for REST_S times the streams that there
are. Its parts then come together, so times between them are known to this rest alone; that to the first part stays.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import AbstractEventLoop, Transport
from collections.abc import AsyncGenerator, Callable
from functools import partial
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from shadowsim.server.data_plane.exchanges import ContainerAnswer, ContainerSession
from shadowsim.server.data_plane.loop_clock import LoopClock
from shadowsim.server.state.token_bucket import TokenBucket

if TYPE_CHECKING:
    from aiohttp.http import RawResponseMessage
    from aiohttp.tracing import Trace

_Poll = Callable[[int], list[tuple[int, int]]]

CONNECT_S = 0.25  # SageMaker's time-out for a container's socket
KEPT_S = 1.0
MAX_HEAD_BYTES, MAX_INTERIM = 32 * 2**10, 16  # of an answer's head with its interim answers, and number of these
# Bytes that are not body: so many, and so many per byte of body. A chunk of one byte has five more.
MAX_FRAMING_BYTES, MAX_FRAMING_PER_BODY = 64 * 2**10, 8
# Bytes that are parsed between two checks: of a head, of a body in small chunks, and of any other body.
_HEAD_PIECE, _CHUNKS_PIECE, _BODY_PIECE = 2 * 2**10, 4 * 2**10, 32 * 2**10
BYTES_PER_S, BURST_BYTES, HELD_BYTES = 64 * 2**20, 16 * 2**20, 32 * 2**20
TIME_SHARE, BURST_S = 0.1, 0.05
READ_S = 50e-6  # the loop's time per arrival of bytes, apart from their parsing
MAX_AHEAD_BYTES = 64 * 2**10  # of an answer in parts, beyond which its connection is not read
REST_S, LONGEST_REST_S = 1e-3, 1.0  # a thousand reads a second in all take half of the allowance
FREE_S = 1e-3  # of the loop's time, for each answer: some times what it takes to send a copy


class ReadAllowance:
    """An allowance of bytes to read and of the loop's time to do so.

    Parameters
    ----------
    per_s, burst : float
        Bytes per second, and bytes that may come at once after a quiet time.
    most_held : float
        Bytes of incomplete answers.
    share, burst_s : float
        Share of the loop's time, and seconds of it that may be used at once after a quiet time.
    clock : callable
        Seconds on any steady clock.

    Attributes
    ----------
    n_held : int
        Bytes of incomplete answers.
    n_streams : int
        Answers that are being read in parts.
    """

    def __init__(
        self,
        per_s: float = BYTES_PER_S,
        burst: float = BURST_BYTES,
        most_held: float = HELD_BYTES,
        share: float = TIME_SHARE,
        burst_s: float = BURST_S,
        clock: Callable[[], float] = perf_counter,
    ):
        self.n_held = self.n_streams = 0
        self._most_held = most_held
        self._bytes, self._time = TokenBucket(per_s, burst, clock), TokenBucket(share, burst_s, clock)

    def spend(self, n_bytes: int, spent_s: float) -> bool:
        """Count bytes and the time that they took, and return whether reading may go on."""
        in_bytes, in_time = self._bytes.overdraw(n_bytes), self._time.overdraw(spent_s)
        return in_bytes and in_time and self.n_held <= self._most_held

    def rest_s(self) -> float:
        """Return for how long an answer in parts is not read now: 0 as long as there is time."""
        return 0.0 if self._time.level > 0.5 else min(self.n_streams * REST_S, LONGEST_REST_S)


class AllowanceExceededError(Exception):
    """An answer that exceeds the allowance."""


class ExcessError(Exception):
    """An answer whose head or framing exceeds its limits; its text is for the container's maintainer."""


def open_session(
    limit: int = 0, allowance: ReadAllowance | None = None, loop_clock: LoopClock | None = None
) -> ContainerSession:
    """Return a session with its own connections.

    Parameters
    ----------
    limit : int
        Connections at once; 0 for no limit.
    allowance : ReadAllowance, optional
        Allowance that all answers share.
    loop_clock : LoopClock, optional
        Clock of the time-outs for connections.
    """
    return ContainerSession(_Connector(limit, allowance, loop_clock or LoopClock()))


async def read(content: aiohttp.StreamReader, most: int) -> bytes | None:
    """Return a body of at most `most` bytes, None for a longer one."""
    if content.is_eof():  # as most are: it came in one piece with its headers
        body = content.read_nowait()
        return body if len(body) <= most else None
    parts, n_bytes = [], 0
    async for part in content.iter_any():
        n_bytes += len(part)
        parts.append(part)
        if n_bytes > most:
            return None
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def parts(answer: ContainerAnswer, allowance: ReadAllowance | None = None) -> AsyncGenerator[bytes, None]:
    """Yield the parts of a body as they arrive; not much is read ahead while one is in use.

    Parameters
    ----------
    answer : ContainerAnswer
    allowance : ReadAllowance, optional
        Lets the stream rest.
    """
    content, protocol = answer.content, answer.connection.protocol
    reader = protocol if isinstance(protocol, _AnswerReader) else None
    if reader is not None:
        reader.is_in_parts = True
    while True:
        if reader is not None:
            reader.read_on()
        if content.exception() is not None and content._size:
            yield content._read_nowait(-1)  # what came before it broke off
        part = await content.readany()
        if not part:
            return
        rest_s = 0.0 if allowance is None or reader is None or content.is_eof() else allowance.rest_s()
        if rest_s and reader is not None:
            reader.hold_up()
        yield part
        if rest_s:
            await asyncio.sleep(rest_s)


class _AnswerReader(ResponseHandler):
    """The protocol of a connection: parses answers piece by piece, and stops at the limits.

    Parameters
    ----------
    allowance : ReadAllowance or None
        Allowance that it shares.

    Attributes
    ----------
    is_in_parts : bool
        Whether the present answer is read by `parts`.
    is_used : bool
        Whether a request was sent on the connection.
    """

    def __init__(self, loop: AbstractEventLoop, allowance: ReadAllowance | None):
        super().__init__(loop)
        self._allowance = allowance
        self._failure: Exception | None = None
        self._answer: aiohttp.StreamReader | None = None
        self._n_raw = self._n_interim = self._n_before_body = self._n_joined = self._n_body_seen = self._n_held = 0
        self._spent_s = 0.0  # at most FREE_S between two checks
        self.is_in_parts = self.is_used = self._is_held_up = False
        self._poll: _Poll | None = None

    def set_response_params(self, **params: Any) -> None:
        """Expect the answer to a new request."""
        self.is_used = True
        self._answer = None
        self._n_raw = self._n_interim = self._n_before_body = self._n_joined = self._n_body_seen = 0
        self._spent_s = 0.0
        self.is_in_parts = False
        super().set_response_params(**params)

    def feed_data(self, data: tuple[RawResponseMessage, aiohttp.StreamReader], size: int = 0) -> None:
        """Take a parsed head: interim ones are only counted, and the first other one is the answer's."""
        message, body = data
        if 100 <= message.code < 200 and message.code != 101:
            self._n_interim += 1
        elif self._answer is None:
            self._answer, self._n_before_body = body, self._n_raw
            super().feed_data(data, size)
        else:
            self.force_close()  # an answer that no request asked for

    def data_received(self, data: bytes) -> None:
        """Parse bytes that have arrived, as far as the limits allow."""
        if not data:  # aiohttp asks for what it has kept, which is nothing
            return
        self._spent_s += READ_S
        begin, allowance = 0, self._allowance
        while begin < len(data) and self._failure is None and self._exception is None and self.transport is not None:
            if self._is_complete():
                self._end()  # bytes that no request asked for
                return
            began_s = thread_time() if allowance is not None else 0.0
            piece = data[begin : begin + self._piece_bytes()]
            begin += len(piece)
            self._n_raw += len(piece)
            super().data_received(piece)
            self._join_small_chunks()
            if allowance is not None:
                self._spent_s += thread_time() - began_s
            self._check(len(piece))
        body = self._answer
        if self.is_in_parts and body is not None and not body.is_eof() and body._size > MAX_AHEAD_BYTES:
            self.hold_up()

    def has_unread(self) -> bool:
        """Return whether something has arrived, or the end, that the loop has not read; on an open connection."""
        if self._poll is None:
            assert self.transport is not None
            self._poll = _poll_of(self.transport)
        return bool(self._poll(0))

    def hold_up(self) -> None:
        """Leave the connection unread until `read_on`; only while the answer is incomplete."""
        self._is_held_up = True
        self._pause_transport_reading()

    def read_on(self) -> None:
        """Read the connection again, as what had arrived is in use."""
        if self._is_held_up:
            self._is_held_up = False
            self._resume_transport_reading()

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Keep the first failure, which ended the connection."""
        super().set_exception(self._failure or exc, *cause)
        body = self._answer
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(self._failure or aiohttp.ClientPayloadError(str(exc)))

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the incomplete answer."""
        self._release()
        super().connection_lost(exc)

    def _piece_bytes(self) -> int:
        if self._answer is None:
            return _HEAD_PIECE
        return _CHUNKS_PIECE if self._has_small_chunks() else _BODY_PIECE

    def _framing_bytes(self) -> int:
        return self._n_raw - self._n_before_body - self._body_bytes()

    def _body_bytes(self) -> int:
        return 0 if self._answer is None else self._answer.total_bytes - self._n_joined

    def _has_small_chunks(self) -> bool:
        return self._framing_bytes() > _CHUNKS_PIECE + self._body_bytes() // 16

    def _join_small_chunks(self) -> None:
        # aiohttp keeps each chunk apart, and takes longer to put them together later than all of this does now
        body = self._answer
        if body is not None and self._has_small_chunks() and not body.is_eof() and body.exception() is None:
            n_before, self._n_body_seen = self._n_body_seen, self._body_bytes()
            if self._n_body_seen > n_before:
                joined = body.read_nowait()
                body.feed_data(joined)
                self._n_joined += len(joined)

    def _is_complete(self) -> bool:
        return self._answer is not None and self._answer.is_eof()

    def _check(self, n_bytes: int) -> None:
        is_complete, allowance = self._is_complete(), self._allowance
        spent_s = max(self._spent_s - FREE_S, 0.0)
        self._spent_s -= spent_s
        if allowance is not None:
            self._n_held += n_bytes
            allowance.n_held += n_bytes
            if is_complete:
                self._release()
            if not allowance.spend(n_bytes, spent_s) and not is_complete:
                self._fail(AllowanceExceededError())
                return
        excess = self._excess()
        if excess:
            self._fail(ExcessError(excess))

    def _excess(self) -> str:
        if self._n_interim > MAX_INTERIM:
            return f"there are more than {MAX_INTERIM} interim answers (1XX)"
        if self._answer is None:
            is_long = self._n_raw > MAX_HEAD_BYTES
            return f"the head of the answer is longer than {MAX_HEAD_BYTES} bytes" if is_long else ""
        if self._framing_bytes() > MAX_FRAMING_BYTES + MAX_FRAMING_PER_BODY * self._body_bytes():
            return f"the framing of the answer's chunks is longer than {MAX_FRAMING_BYTES} bytes"
        return ""

    def _fail(self, failure: Exception) -> None:
        body = self._payload
        self._failure = failure
        self.set_exception(failure)
        if body is not None:
            body.set_exception(failure)
        self._parser = self._payload = None  # so that aiohttp does not replace the failure by that of a broken answer
        self._end()

    def _end(self) -> None:
        self.force_close()
        if self.transport is not None:
            self.transport.abort()

    def _release(self) -> None:
        if self._allowance is not None:
            self._allowance.n_held -= self._n_held
            self._n_held = 0


class _Connector(aiohttp.TCPConnector):
    """A connection pool that drops connections which have ended, even if the event loop has not noticed yet."""

    def __init__(self, limit: int, allowance: ReadAllowance | None, loop_clock: LoopClock):
        super().__init__(limit=limit, keepalive_timeout=KEPT_S)
        self._loop_clock = loop_clock
        self._factory = partial(_AnswerReader, self._loop, allowance)  # type: ignore[assignment]

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        while True:  # ends: each turn drops a connection of the pool
            connection = await super().connect(req, traces, timeout)
            reader = connection.protocol
            if not isinstance(reader, _AnswerReader) or not reader.is_used:
                return connection
            if not (reader.should_close or reader.has_unread()):
                return connection
            connection.close()

    async def _wrap_create_connection(self, *args: Any, **more: Any) -> tuple[Transport, ResponseHandler]:
        """Make a connection within CONNECT_S of the loop's own time."""
        try:
            async with self._loop_clock.within(CONNECT_S):
                return await super()._wrap_create_connection(*args, **more)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error


def _poll_of(transport: Transport) -> _Poll:
    """Return what tells whether unread bytes, or the end, have arrived on a connection."""
    socket = transport.get_extra_info("socket")
    # TLS may send messages of its own at any time; Windows has no poll
    if socket is None or transport.get_extra_info("sslcontext") is not None or sys.platform == "win32":
        return lambda _: []
    from select import POLLIN, poll

    poller = poll()
    poller.register(socket.fileno(), POLLIN)
    return poller.poll
