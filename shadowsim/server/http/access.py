"""What callers are given: how much they may say and in what time, and how long an answer waits for them.

Whatever they do wrong on the way is refused, and is no entry in the log: who can reach the server could fill a disk.

Who may reach the server, and under which names: the address it binds, the Host header, the token of its pages.

By default only this machine can. A page in a browser on this machine can, too, so a request must name the server by an
address or a name that it is bound under (a rebound DNS name is neither), and no answer allows another origin.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from urllib.parse import parse_qs

from aiohttp import HttpVersion11, web
from aiohttp.http import HttpProcessingError

from shadowsim.errors import InputError, SerializationError, ShadowsimError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::\d{1,5})?")


class ForbiddenError(ShadowsimError):
    """A request for another host, or without the token."""

    code = "AccessDeniedException"
    http_status = 403


def check_bind(host: str, verified: bool, insecure: bool) -> None:
    """Refuse to be reachable from elsewhere without signatures, unless told.

    Raises
    ------
    InputError
        For an address that is not this machine's own.
    """
    if not (is_loopback(host) or verified or insecure):
        what = "is reachable from other machines: give --credentials FILE, or --insecure to let anybody in"
        raise InputError("--host", what, host)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_of(host: str, port: int) -> str:
    """Return where a server that is bound to an address can be asked; all addresses are none that can be."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Hosts:
    """The names under which a server may be asked.

    Parameters
    ----------
    host : str
        What it is bound to.
    names : iterable of str
        More names, as a proxy or a container network gives.
    """

    def __init__(self, host: str, names: Iterable[str] = ()):
        self._names = {host.lower(), *(name.lower() for name in names)}
        # Bound to all addresses, it may be asked by any of them: only names can be rebound.
        self._any_address = host in ("0.0.0.0", "::", "")
        if is_loopback(host) or self._any_address:
            self._names.update(LOOPBACK_NAMES)
        if self._any_address:
            self._names.add(socket.gethostname().lower())

    def check(self, headers: Sequence[str]) -> None:
        """Refuse a Host header that names another server, and any number of them but one. Ports may be forwarded.

        Raises
        ------
        ForbiddenError
        """
        if len(headers) != 1 or not self._allows(headers[0].lower()):
            raise ForbiddenError("The Host header does not name this server.")

    def _allows(self, header: str) -> bool:
        found = _HOST.fullmatch(header)
        if found is None:
            return False
        name = found[1] or found[2]
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._any_address


class Token:
    """What pages, metrics and frames ask for where signatures are verified."""

    def __init__(self) -> None:
        self.text = secrets.token_urlsafe(24)

    def check(self, headers: Mapping[str, str], query: str) -> None:
        """Refuse a request without the token, as `Authorization: Bearer TOKEN` or as `?token=TOKEN`.

        Raises
        ------
        ForbiddenError
        """
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else ""  # of other schemes, nothing is taken
        given = given or parse_qs(query).get("token", [""])[0]
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.text.encode()):
            raise ForbiddenError("This needs the token that the server printed when it started.")


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


class StalledWrites:
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
