"""Connections to containers: how they are kept, how it is seen that one has ended, and how an answer is read from it.

A container may end a connection whenever it likes, also one that waits to be used again. A request that meets such an
end would fail though nothing is wrong with its container, and a POST must not be sent twice. So a connection is kept
for a shorter time than servers keep theirs (gunicorn 2 s, uvicorn 5 s), and one that was used before is looked at
before it is used again. If anything has come, it has ended, or is out of step: an answer that nobody asked for would be
taken for the next request's, and go to another caller.

How much of the copies' answers is read: a second, and at once.

A shadow may answer without end, and as fast as this process can read. Left alone, reading it would be all that the
event loop does, in more and more memory, and callers would wait. So copies' answers have an allowance together; a copy
that would pass it is given up. Answers of up to some hundred kilobytes come in one piece with their headers: of them,
nothing is saved by giving up, and they only count.
"""

from __future__ import annotations

import sys
from asyncio import BaseTransport
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING
from weakref import WeakSet

import aiohttp

from shadowsim.server.state.token_bucket import TokenBucket

if TYPE_CHECKING:
    from aiohttp.tracing import Trace

BYTES_PER_S, BURST_BYTES, HELD_BYTES = 64 * 2**20, 16 * 2**20, 32 * 2**20


class Intake:
    """An allowance of bytes.

    Parameters
    ----------
    per_s, burst : float
        Bytes a second, and what may come at once after a quiet time.
    most_held : float
        Bytes of answers that are not complete.
    clock : callable
        Seconds on any steady clock.

    Attributes
    ----------
    n_held : int
        Bytes of answers that are being read; whoever reads one takes away what it has counted when it ends.
    """

    def __init__(
        self,
        per_s: float = BYTES_PER_S,
        burst: float = BURST_BYTES,
        most_held: float = HELD_BYTES,
        clock: Callable[[], float] = perf_counter,
    ):
        self.n_held = 0
        self._bucket, self._most_held = TokenBucket(per_s, burst, clock), most_held

    def count(self, n_bytes: int) -> None:
        """Count bytes that were read."""
        self._bucket.overdraw(n_bytes)

    def allows(self, n_bytes: int) -> bool:
        """Count bytes of an answer that is being read, and return whether more of it may be."""
        self.n_held += n_bytes
        return self._bucket.overdraw(n_bytes) and self.n_held <= self._most_held


KEPT_S = 1.0
# aiohttp would add its own, and a container must see what the caller sent
_UNSENT = ("User-Agent", "Accept-Encoding", "Accept", "Content-Type")


class TooMuchError(Exception):
    """An answer that its intake does not allow."""


def open_session(limit: int = 0) -> aiohttp.ClientSession:
    """Return a session with connections of its own: no decompression, cookies, proxies or headers of its own.

    Parameters
    ----------
    limit : int
        Connections at once; 0 for any number.
    """
    return aiohttp.ClientSession(
        connector=_Connector(limit=limit, keepalive_timeout=KEPT_S),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_UNSENT,
        trust_env=False,
    )


async def read(content: aiohttp.StreamReader, most: int, intake: Intake | None) -> bytes | None:
    """Return a body of at most `most` bytes, None for a longer one.

    Raises
    ------
    TooMuchError
        Its intake does not allow more.
    """
    if content.is_eof():  # as with most: it came with its headers
        body = content.read_nowait()
        if intake is not None:
            intake.count(len(body))
        return body if len(body) <= most else None
    parts, n_bytes = [], 0
    try:
        async for part in content.iter_any():
            n_bytes += len(part)
            parts.append(part)
            if intake is not None and not intake.allows(len(part)):
                raise TooMuchError
            if n_bytes > most:
                return None
    finally:
        if intake is not None:
            intake.n_held -= n_bytes
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _Connector(aiohttp.TCPConnector):
    """A pool that does not hand out what has ended, though the event loop may not have heard of it."""

    def __init__(self, limit: int, keepalive_timeout: float):
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout)
        self._used: WeakSet[BaseTransport] = WeakSet()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        while True:  # each time with one connection less to be had
            connection = await super().connect(req, traces, timeout)
            protocol, transport = connection.protocol, connection.transport
            if protocol is None or transport is None:
                return connection
            if transport not in self._used:
                self._used.add(transport)
                return connection
            if not (protocol.should_close or _readable(transport)):  # nothing came, neither read nor unread
                return connection
            connection.close()


def _readable(transport: BaseTransport) -> bool:
    """Return whether something has come, or the end, that nobody has read."""
    if sys.platform == "win32":  # which has no poll
        return False
    from select import POLLIN, poll

    found = transport.get_extra_info("socket")
    if found is None or found.fileno() < 0 or transport.get_extra_info("sslcontext") is not None:
        return False  # TLS has messages of its own, at any time
    waiting = poll()
    waiting.register(found.fileno(), POLLIN)
    return bool(waiting.poll(0))
