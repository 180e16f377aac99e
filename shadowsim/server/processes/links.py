"""Carries messages between processes over Unix sockets, in order, and connects again after a break.

A message is a tuple of plain values (None, numbers, texts, bytes, tuples, lists, dictionaries) whose first member names
its kind. It travels as its length, four bytes, and its encoding by `marshal`: both ends are the same interpreter, and
the sockets lie in a folder that only this user can enter.
"""

from __future__ import annotations

import asyncio
import marshal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from errno import ENOSPC
from struct import Struct
from typing import Any, BinaryIO

Message = tuple[Any, ...]
_LENGTH = Struct("<I")
RETRY_S = 0.02  # between two attempts to connect


def encoded(message: Message) -> bytes:
    """Return the bytes of a message."""
    return marshal.dumps(message)


def decoded(data: bytes | memoryview) -> Message:
    """Return the message in bytes."""
    message: Message = marshal.loads(data)
    return message


def framed(data: bytes) -> bytes:
    """Return an encoded message behind its length, as files have it."""
    return _LENGTH.pack(len(data)) + data


def append_framed(stream: BinaryIO, data: bytes, n_bytes: int) -> int:
    """Append an encoded message to an unbuffered file of `n_bytes`, whole or not at all; return how long it is then.

    Raises
    ------
    OSError
        There is no room, or the file cannot be written.
    """
    whole = framed(data)
    try:
        if stream.write(whole) < len(whole):
            raise OSError(ENOSPC, "the disk is full")
    except OSError:
        stream.truncate(n_bytes)  # a torn message would hide those after it
        stream.seek(n_bytes)
        raise
    return n_bytes + len(whole)


def unframed(data: bytes) -> Iterator[Message]:
    """Yield the messages of a file; a torn last one is left out."""
    at, view = 0, memoryview(data)
    while len(data) - at >= _LENGTH.size:
        end = at + _LENGTH.size + _LENGTH.unpack_from(data, at)[0]
        if end > len(data):
            return
        yield decoded(view[at + _LENGTH.size : end])
        at = end


class Link(asyncio.Protocol):
    """One end of a connection.

    Parameters
    ----------
    receive : callable
        Gets the link and each message.
    ended : callable, optional
        Gets the link once it has broken or was closed.
    read : callable, optional
        Gets the link after the messages of one read.

    Attributes
    ----------
    has_ended : asyncio.Event
        Set once it has broken or was closed.
    peer : str
        Name of the process at the other end, for whoever has learned it.
    """

    def __init__(
        self,
        receive: Callable[[Link, Message], None],
        ended: Callable[[Link], None] | None = None,
        read: Callable[[Link], None] | None = None,
    ):
        self._receive, self._ended, self._read = receive, ended, read
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self.has_ended = asyncio.Event()
        self.peer = ""

    @property
    def is_open(self) -> bool:
        """Whether it is connected."""
        return self._transport is not None and not self.has_ended.is_set()

    def send(self, message: Message) -> None:
        """Send a message; without effect on a link that is not open."""
        self.send_encoded(encoded(message))

    def send_encoded(self, data: bytes) -> None:
        """Send an encoded message."""
        if self._transport is not None and self.is_open:
            self._transport.writelines((_LENGTH.pack(len(data)), data))

    def close(self) -> None:
        """Send what is waiting, and close."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open the link."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes, and hand over the messages that are complete."""
        buffer, at = self._buffer, 0
        buffer += data
        while len(buffer) - at >= _LENGTH.size:
            end = at + _LENGTH.size + _LENGTH.unpack_from(buffer, at)[0]
            if len(buffer) < end:
                break
            with memoryview(buffer) as view, view[at + _LENGTH.size : end] as part:
                message = decoded(part)
            at = end
            self._receive(self, message)
        del buffer[:at]
        if at and self._read is not None:
            self._read(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the link."""
        self.has_ended.set()
        if self._ended is not None:
            self._ended(self)


async def serve_links(path: str, make: Callable[[], Link]) -> asyncio.Server:
    """Accept links at a path, whose socket is made anew."""
    loop = asyncio.get_running_loop()
    return await loop.create_unix_server(make, path)


async def link_over(end: socket.socket, make: Callable[[], Link]) -> Link:
    """Return a link over one end of a socket pair."""
    _, link = await asyncio.get_running_loop().create_unix_connection(make, sock=end)
    return link


async def keep_linked(path: str, make: Callable[[], Link], greet: Callable[[Link], Awaitable[None] | None]) -> None:
    """Connect to a path, greet, and connect again whenever the link has ended, until cancelled."""
    loop = asyncio.get_running_loop()
    link: Link | None = None
    try:
        while True:
            with suppress(OSError):
                _, link = await loop.create_unix_connection(make, path)
                greeting = greet(link)
                if greeting is not None:
                    await greeting
                await link.has_ended.wait()
            await asyncio.sleep(RETRY_S)
    finally:
        if link is not None:
            link.close()
