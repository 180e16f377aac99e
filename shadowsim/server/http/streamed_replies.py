"""Streams answers to callers, no further ahead than they read.

A part is written as it comes: as a frame of AWS's event stream, or as it is. The next one is accepted once the caller's
connection has room for it, so that whoever produces the answer waits for a slow caller. The transport keeps the part
and at most 64 KiB before it. What waits is counted in `n_held`, and a caller of whom the transport could send nothing
for `stall_s` is cut off.

A stream that fails after its first byte can no longer have a status. An event stream ends with an exception. Any other
answer breaks off: the connection closes before the last chunk, which every client takes for an error.
"""

from __future__ import annotations

import asyncio
import math
from asyncio import Transport
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from time import perf_counter
from typing import Any

from aiohttp import web

from shadowsim.server.http import event_stream

MODEL_STREAM_ERROR, INTERNAL_STREAM_FAILURE = "ModelStreamError", "InternalStreamFailure"


class CallerGoneError(Exception):
    """A caller who has left, or takes nothing any more."""


class StreamedReply:
    """The answer to a caller that comes in parts.

    Parameters
    ----------
    request : aiohttp.web.BaseRequest
    as_events : bool
        Whether the parts are frames of AWS's event stream.
    within_s : float
        Time limit of the whole stream, for whoever produces it.
    stall_s : float
        Time after which a caller who takes nothing is cut off.
    within : callable
        Returns a context that ends with TimeoutError after a time.

    Attributes
    ----------
    headers : dict of str to str
        Sent with those that `begin` is given.
    response : aiohttp.web.StreamResponse or None
        None until the stream begins.
    first_part_s : float or None
        Moment, by `perf_counter`, at which the first part was written.
    n_held : int
        Bytes of the last part while the caller's connection has no room for another.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        *,
        as_events: bool,
        within_s: float,
        stall_s: float,
        within: Callable[[float], AbstractAsyncContextManager[None]],
    ):
        self.headers: dict[str, str] = {}
        self.response: web.StreamResponse | None = None
        self.first_part_s: float | None = None
        self.within_s = within_s
        self.n_held = 0
        self._request, self._as_events, self._stall_s, self._within = request, as_events, stall_s, within

    async def begin(self, headers: Mapping[str, str]) -> None:
        """Send the head of the answer; from now on it cannot be another one.

        Raises
        ------
        CallerGoneError
        """
        headers = {**self.headers, **headers}
        if self._as_events:
            headers["X-Amzn-SageMaker-Content-Type"] = headers.pop("Content-Type", "application/octet-stream")
            headers["Content-Type"] = event_stream.CONTENT_TYPE
        response = web.StreamResponse(headers=headers)
        try:
            await response.prepare(self._request)
        except ConnectionError:
            raise CallerGoneError from None
        self.response = response

    async def part(self, part: bytes) -> None:
        """Send a part, and wait until there is room for another.

        Raises
        ------
        CallerGoneError
        """
        await self._write(event_stream.payload_part(part) if self._as_events else part)
        if self.first_part_s is None:
            self.first_part_s = perf_counter()

    async def end(self) -> None:
        """End a complete answer."""
        if self.response is not None:
            try:
                async with self._within(self._stall_s):
                    await self.response.write_eof()
            except (ConnectionError, TimeoutError):
                self._abort()

    async def fail(self, name: str, text: str, error_code: str | None = None) -> None:
        """End an answer that is not complete, with the exception that an event stream has for it."""
        transport = self._request.transport
        if not self._as_events:
            if transport is not None:
                transport.close()  # sends what has been written
            return
        try:
            await self._write(event_stream.stream_exception(name, text, error_code))
        except CallerGoneError:
            return
        await self.end()

    async def _write(self, data: bytes) -> None:
        if self.response is None:
            raise AssertionError("a stream must begin before its parts")
        writer: Any = self._request.writer  # the response's own write would wait by itself
        try:
            await writer.write(data, drain=False)
            protocol = self._request.protocol
            if protocol is not None and protocol.writing_paused:
                self.n_held = len(data)
                await self._room()
        except ConnectionError:
            raise CallerGoneError from None
        finally:
            self.n_held = 0

    async def _room(self) -> None:
        """Wait until the connection has room, as long as the caller takes anything."""
        draining = asyncio.ensure_future(self._request.writer.drain())
        n_before = math.inf
        try:
            while not draining.done():
                n_waiting = self._n_waiting()
                if n_waiting >= n_before:
                    self._abort()
                    raise CallerGoneError
                n_before = n_waiting
                with suppress(TimeoutError):
                    async with self._within(self._stall_s):
                        await asyncio.shield(draining)
            await draining
        finally:
            draining.cancel()

    def _n_waiting(self) -> int:
        transport = self._request.transport
        return transport.get_write_buffer_size() if isinstance(transport, Transport) else 0

    def _abort(self) -> None:
        transport = self._request.transport
        if isinstance(transport, Transport):
            transport.abort()
