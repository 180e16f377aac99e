"""Sends requests to containers over kept connections, and reads the heads of their answers.

aiohttp's connections, their pool and its parser do the work. Its ClientSession does not: cookies, redirects, proxies,
compression and headers of its own are not wanted of what passes on a caller's request, and take a third of the
processor time of a call.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from multidict import CIMultiDictProxy
from yarl import URL

_UNLIMITED = aiohttp.ClientTimeout(total=None, sock_connect=None)  # the connector and the caller have limits
_NEVER_PAUSED = 2**30  # bytes that aiohttp may keep: reading is not paused, but bounded in connections.py
_OWN_HEADERS = ("User-Agent", "Accept-Encoding", "Accept", "Content-Type")  # of aiohttp, which are not sent
_NOT_IN_A_LINE = re.compile(r"[\r\n\0]")


class _Place(NamedTuple):
    """Where a request goes: a request of aiohttp's, which names the connection, and the beginning of the head."""

    request: aiohttp.ClientRequest
    head: str


class ContainerAnswer:
    """An answer whose head has come; as a context, it gives its connection back.

    Attributes
    ----------
    status : int
    headers : CIMultiDictProxy
    content : aiohttp.StreamReader
        The body.
    connection : aiohttp.connector.Connection
    """

    __slots__ = ("connection", "content", "headers", "status")

    def __init__(self, message: RawResponseMessage, content: aiohttp.StreamReader, connection: Connection):
        self.status: int = message.code
        self.headers: CIMultiDictProxy[str] = message.headers
        self.content, self.connection = content, connection

    @property
    def content_type(self) -> str:
        """The type of the body, without parameters."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def __enter__(self) -> ContainerAnswer:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Keep the connection for the next request; that of an incomplete request or answer is closed."""
        transport = self.connection.transport
        if transport is not None and transport.get_write_buffer_size():
            self.connection.close()
        else:
            self.connection.release()


class ContainerSession:
    """Sends requests over the connections of a pool.

    Attributes
    ----------
    connector : aiohttp.TCPConnector
        The pool; closed with the session.
    """

    def __init__(self, connector: aiohttp.TCPConnector):
        self.connector = connector
        self._places: dict[tuple[str, str], _Place] = {}  # by method and URL, of which there are a few for a container

    async def __aenter__(self) -> ContainerSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self.connector.close()

    async def get(self, url: str) -> ContainerAnswer:
        """Send a GET, as `post` does."""
        return await self._exchange(self._place("GET", url), "\r\n", b"")

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> ContainerAnswer:
        """Send a POST, and return the answer once its head has come, whatever its status is.

        Raises
        ------
        aiohttp.ClientError, HttpProcessingError, OSError
            There is no connection, it broke, or what came is not HTTP.
        ValueError
            A header has a line break.
        """
        if _NOT_IN_A_LINE.search("".join(headers.values())):
            raise ValueError("a header has a line break")
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        return await self._exchange(self._place("POST", url), f"{lines}Content-Length: {len(body)}\r\n\r\n", body)

    def _place(self, method: str, url: str) -> _Place:
        place = self._places.get((method, url))
        if place is None:
            loop = asyncio.get_running_loop()
            request = aiohttp.ClientRequest(method, URL(url), skip_auto_headers=_OWN_HEADERS, loop=loop)
            request.headers.pop("Content-Length", None)
            lines = [f"{name}: {value}\r\n" for name, value in request.headers.items()]
            head = f"{method} {request.url.raw_path_qs} HTTP/1.1\r\n{''.join(lines)}"
            place = self._places[method, url] = _Place(request, head)
        return place

    async def _exchange(self, place: _Place, rest: str, body: bytes) -> ContainerAnswer:
        head = f"{place.head}{rest}".encode()
        connection = await self.connector.connect(place.request, [], _UNLIMITED)
        try:
            protocol, transport = connection.protocol, connection.transport
            assert protocol is not None
            if transport is None:
                raise aiohttp.ServerDisconnectedError
            protocol.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=_NEVER_PAUSED)
            transport.writelines((head, body) if body else (head,))
            message, content = await protocol.read()
        except BaseException:
            connection.close()
            raise
        return ContainerAnswer(message, content, connection)
