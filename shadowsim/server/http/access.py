"""What callers are given: how much they may say and in what time, and how long an answer waits for them.

Whatever they do wrong on the way is refused, and is no entry in the log: who can reach the server could fill a disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import HttpVersion11, web
from aiohttp.http import HttpProcessingError

from shadowsim.errors import SerializationError

MAX_SURPLUS_BYTES = 32 * 2**20  # of a body above its limit, read so that its sender can read the refusal
MAX_FIELD_BYTES = 32_768  # of a header's value: what is above its own limit, but not by far, is refused with reason


def open_server(answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], silent_s: float) -> web.Server:
    """Return a server whose connections may be silent for a time, and whose log callers cannot fill."""
    log = logging.getLogger(__name__)
    log.addFilter(_is_ours)  # once, however often
    return web.Server(
        answer,
        access_log=None,
        logger=log,
        auto_decompress=False,
        keepalive_timeout=silent_s,
        lingering_time=1.0,
        max_field_size=MAX_FIELD_BYTES,
    )


async def read_body(request: web.BaseRequest, most: int, within_s: float) -> bytes | None:
    """Return a request's body, None when it is longer than `most` bytes.

    Raises
    ------
    SerializationError
        It did not come in time.
    """
    content, parts, n_bytes = request.content, [], 0
    announced = request.content_length
    if announced is not None and announced > most + MAX_SURPLUS_BYTES:
        return None
    if content.is_eof():  # as with most: it came with its headers
        body = content.read_nowait()
        return body if len(body) <= most else None
    if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        if announced is not None and announced > most:
            return None
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun
    try:
        async with asyncio.timeout(within_s):
            async for part in content.iter_any():
                n_bytes += len(part)
                if n_bytes <= most:
                    parts.append(part)
                elif n_bytes > most + MAX_SURPLUS_BYTES:
                    break
    except TimeoutError:
        raise SerializationError(f"The body did not come within {within_s:g} s.") from None
    if n_bytes > most:
        return None
    return parts[0] if len(parts) == 1 else b"".join(parts)


class Patience:
    """Cuts off callers who do not take their answers: these would be kept for them without end.

    Parameters
    ----------
    most_s : float
        How long an answer may lie.
    clock : callable
        Seconds on any steady clock.
    """

    def __init__(self, most_s: float, clock: Callable[[], float]):
        self._most_s, self._clock = most_s, clock
        self._since_s: dict[web.RequestHandler, float] = {}

    def look(self, connections: Iterable[web.RequestHandler]) -> None:
        """Look at all connections; to be called again and again."""
        now, before, self._since_s = self._clock(), self._since_s, {}
        for connection in connections:
            transport = connection.transport
            if transport is None or not transport.get_write_buffer_size():
                continue
            since_s = before.get(connection, now)
            if now - since_s > self._most_s:
                transport.abort()
            else:
                self._since_s[connection] = since_s


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | ConnectionError)
