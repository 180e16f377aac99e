"""Connections to containers, and the allowance within which answers to copies are read from them.

A container may end a connection at any time, also an idle one. A request on a connection that has just ended would fail
although its container is fine, and a POST must not be sent twice. So idle connections are kept for a shorter time than
servers keep theirs (gunicorn 2 s, uvicorn 5 s), and a used one is checked before it is used again. If bytes or the end
have arrived on it, it is dropped: bytes that no request asked for would be taken as the answer to the next request.

A shadow may answer without end and as fast as this process can read. Reading all of it would occupy the event loop, in
ever more memory, while callers wait. So all copies' answers together have an allowance, and a copy that exceeds it is
given up. Answers of up to some hundred kilobytes arrive in one piece with their headers; giving these up saves nothing,
so they only count.
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

KEPT_S = 1.0
BYTES_PER_S, BURST_BYTES, HELD_BYTES = 64 * 2**20, 16 * 2**20, 32 * 2**20
# aiohttp would add its own headers, but a container must get the caller's
_UNSENT = ("User-Agent", "Accept-Encoding", "Accept", "Content-Type")


class ReadAllowance:
    """An allowance of bytes to read, per second and at once.

    Parameters
    ----------
    per_s, burst : float
        Bytes per second, and bytes that may come at once after a quiet time.
    most_held : float
        Bytes of incomplete answers.
    clock : callable
        Seconds on any steady clock.

    Attributes
    ----------
    n_held : int
        Bytes of incomplete answers; a reader subtracts the bytes of its answer when it ends.
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
        """Count bytes of a complete answer."""
        self._bucket.overdraw(n_bytes)

    def allows(self, n_bytes: int) -> bool:
        """Count bytes of an incomplete answer, and return whether reading may go on."""
        self.n_held += n_bytes
        return self._bucket.overdraw(n_bytes) and self.n_held <= self._most_held


class AllowanceExceededError(Exception):
    """An answer that exceeds the allowance."""


def open_session(limit: int = 0) -> aiohttp.ClientSession:
    """Return a session with its own connections, which adds no decompression, cookies, proxies or headers.

    Parameters
    ----------
    limit : int
        Connections at once; 0 for no limit.
    """
    return aiohttp.ClientSession(
        connector=_Connector(limit=limit, keepalive_timeout=KEPT_S),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_UNSENT,
        trust_env=False,
    )


async def read(content: aiohttp.StreamReader, most: int, allowance: ReadAllowance | None) -> bytes | None:
    """Return a body of at most `most` bytes, None for a longer one.

    Raises
    ------
    AllowanceExceededError
        It exceeds the allowance.
    """
    if content.is_eof():  # as most are: it came in one piece with its headers
        body = content.read_nowait()
        if allowance is not None:
            allowance.count(len(body))
        return body if len(body) <= most else None
    parts, n_bytes = [], 0
    try:
        async for part in content.iter_any():
            n_bytes += len(part)
            parts.append(part)
            if allowance is not None and not allowance.allows(len(part)):
                raise AllowanceExceededError
            if n_bytes > most:
                return None
    finally:
        if allowance is not None:
            allowance.n_held -= n_bytes
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _Connector(aiohttp.TCPConnector):
    """A connection pool that drops connections which have ended, even if the event loop has not noticed yet."""

    def __init__(self, limit: int, keepalive_timeout: float):
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout)
        self._used: WeakSet[BaseTransport] = WeakSet()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        while True:  # ends: each turn drops a connection of the pool
            connection = await super().connect(req, traces, timeout)
            protocol, transport = connection.protocol, connection.transport
            if protocol is None or transport is None:
                return connection
            if transport not in self._used:
                self._used.add(transport)
                return connection
            if not (protocol.should_close or _readable(transport)):
                return connection
            connection.close()


def _readable(transport: BaseTransport) -> bool:
    """Return whether unread bytes, or the end, have arrived."""
    if sys.platform == "win32":  # has no poll
        return False
    from select import POLLIN, poll

    socket = transport.get_extra_info("socket")
    if socket is None or socket.fileno() < 0 or transport.get_extra_info("sslcontext") is not None:
        return False  # TLS may send messages of its own at any time
    poller = poll()
    poller.register(socket.fileno(), POLLIN)
    return bool(poller.poll(0))
