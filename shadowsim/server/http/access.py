"""Access to the port: the address to bind, accepted hosts, the token of pages, and limits on callers.

By default only this machine can reach the server. Pages in a browser on this machine can do so, too. So a request must
name the server by an address or a name that it is bound under, which a rebound DNS name is not, and no answer allows
another origin. A browser also sends some requests of other sites' pages without asking, such as a POST of text/plain to
an endpoint, and only withholds the answer. So a request with another Origin, or that comes from elsewhere as
Sec-Fetch-Site tells, is refused; a link to a page may be followed.

Callers have limits on the length of a body, the time to send it, and the time to take an answer; the bodies that are
arriving on all connections have a limit together, since nobody's signature is known before its body. Their errors are
refused but not logged, since anybody who can reach the server could fill the disk.
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
from typing import Any
from urllib.parse import parse_qs

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.http import HttpProcessingError
from multidict import CIMultiDictProxy

from shadowsim.errors import InputError, SerializationError, ShadowsimError, shown

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
MAX_SURPLUS_BYTES = 32 * 2**20  # read of a body above its limit, so that its sender gets to read the refusal
MAX_ARRIVING_BYTES = 64 * 2**20  # of bodies on all connections, and at least two of the longest
MAX_FIELD_BYTES = 32_768  # of a header's value: far above SageMaker's limits, whose violations get a reason
_ABSOLUTE = re.compile(r"https?://([^/?#@]*)(?=[/?]|\Z)", re.IGNORECASE)
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::\d{1,5})?")


class ForbiddenError(ShadowsimError):
    """A request that names another host, comes from another site's page, or lacks the token."""

    code = "AccessDeniedException"
    http_status = 403


def check_bind(host: str, verified: bool, insecure: bool) -> None:
    """Refuse an address that other machines can reach, unless signatures are verified or it is allowed.

    Raises
    ------
    InputError
        The address is not a loopback address.
    """
    if not (is_loopback(host) or verified or insecure):
        what = "is reachable from other machines: give --credentials FILE, or --insecure to accept unsigned requests"
        raise InputError("--host", what, host)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_of(host: str, port: int, scheme: str = "http") -> str:
    """Return the URL of a server that is bound to an address; for the wildcard address, a loopback one."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class Hosts:
    """The names that a request's Host header may give.

    Parameters
    ----------
    host : str
        Address or name that the server is bound to.
    names : iterable of str
        Further names, such as those of a proxy or a container network.
    """

    def __init__(self, host: str, names: Iterable[str] = ()):
        self._names = {host.lower(), *(name.lower() for name in names)}
        # A server bound to all addresses accepts any address, as DNS rebinding needs a name.
        self._any_address = host in ("0.0.0.0", "::", "")
        if is_loopback(host) or self._any_address:
            self._names.update(LOOPBACK_NAMES)
        if self._any_address:
            self._names.add(socket.gethostname().lower())

    def check(self, headers: Sequence[str]) -> None:
        """Refuse no or several Host headers, and one that names another server; any port is accepted.

        Raises
        ------
        ForbiddenError
        """
        if len(headers) != 1 or not self._allows(headers[0].lower()):
            raise ForbiddenError("The Host header does not name this server.")

    def _allows(self, header: str) -> bool:
        match = _HOST.fullmatch(header)
        if match is None:
            return False
        name = match[1] or match[2]
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._any_address


def origin_form(target: str) -> tuple[str, str | None]:
    """Return a request's target as path and query, and the authority of an absolute one, as sent through a proxy."""
    match = _ABSOLUTE.match(target)
    if match is None:
        return target, None
    rest = target[match.end() :]
    return rest if rest.startswith("/") else f"/{rest}", match[1]


def check_origin(method: str, headers: CIMultiDictProxy[str]) -> None:
    """Refuse a request that a browser sends for a page of another origin; one without a browser passes.

    Parameters
    ----------
    method : str
    headers : mapping
        Headers of the request, with exactly one Host.

    Raises
    ------
    ForbiddenError
    """
    sites = headers.getall("Sec-Fetch-Site", [])
    is_link = method == "GET" and headers.get("Sec-Fetch-Mode") == "navigate" and "Origin" not in headers
    if not is_link and any(site.strip().lower() not in ("same-origin", "none") for site in sites):
        raise ForbiddenError("The Sec-Fetch-Site header tells that the request comes from another site's page.")
    for origin in headers.getall("Origin", []):
        if origin.strip().lower().partition("://")[2] != headers["Host"].lower():
            raise ForbiddenError("The Origin header names another origin than this server.")


class Token:
    """The token that pages, metrics and frames require if signatures are verified."""

    def __init__(self) -> None:
        self.text = secrets.token_urlsafe(24)

    def check(self, headers: Mapping[str, str], query: str) -> None:
        """Refuse a request without the token in `Authorization: Bearer TOKEN` or in `?token=TOKEN`.

        Raises
        ------
        ForbiddenError
        """
        scheme, _, credentials = headers.get("Authorization", "").partition(" ")
        bearer = credentials.strip() if scheme.lower() == "bearer" else ""
        token = bearer or parse_qs(query).get("token", [""])[0]
        if not hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self.text.encode()):
            raise ForbiddenError("This page needs the token that the server printed when it started.")


Refusal = Callable[[ShadowsimError, int], web.Response]


class _Handler(web.RequestHandler):
    """Answers what is not HTTP in the port's form of errors."""

    refusal: Refusal
    _last_body: StreamReader | None = None  # the only one that may not have arrived

    def data_received(self, data: bytes) -> None:
        """Take bytes, and note whose body may be coming."""
        super().data_received(data)
        if self._messages:
            self._last_body = self._messages[-1][1]

    def eof_received(self) -> bool | None:  # type: ignore[override]  # asyncio's protocols may return True
        """Answer the last request of a caller who has closed his side and reads on."""
        assert self.transport is not None
        n_unanswered = len(self._messages) + (self._waiter is None)
        if not (n_unanswered and self._request_count) or self.transport.get_extra_info("sslcontext"):
            return None  # closes the connection
        if self._last_body is not None and not self._last_body.is_eof():
            return None  # its rest cannot come any more
        if n_unanswered == 1:
            self.close()  # after the answer
        return True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to a request that cannot be parsed."""
        response = super().handle_error(request, status, exc, message)
        if status < 500:
            lines = (message or "").splitlines() or [""]
            response = self.refusal(
                SerializationError(f"The request is not HTTP: {shown(lines[0].rstrip(':'))}."), status
            )
            response.force_close()
        return response


class _Server(web.Server):
    def __init__(self, answer: Callable[..., Awaitable[web.StreamResponse]], refusal: Refusal, **options: Any):
        super().__init__(answer, **options)
        self._refusal = refusal

    def __call__(self) -> web.RequestHandler:
        handler = _Handler(self, loop=self._loop, **self._kwargs)
        handler.refusal = self._refusal
        return handler


def open_server(
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], refusal: Refusal, silent_s: float
) -> web.Server:
    """Return an HTTP server with a time limit for silent connections, and a log that callers cannot fill.

    It has no router: a router would answer unknown paths and methods by itself, before the Host header and the
    signature are checked and without AWS's error bodies, and SageMaker's actions share the path "/" anyway.
    """
    log = logging.getLogger(__name__)
    log.addFilter(_is_own)  # adding it again has no effect
    return _Server(
        answer,
        refusal,
        access_log=None,
        logger=log,
        auto_decompress=False,
        keepalive_timeout=silent_s,
        lingering_time=1.0,
        max_field_size=MAX_FIELD_BYTES,
    )


class BusyError(ShadowsimError):
    """A body that does not fit beside those that are arriving; boto3 sends it again."""

    code = "ServiceUnavailable"
    http_status = 503


class ArrivingBodies:
    """The bodies that are arriving on all connections.

    Parameters
    ----------
    most_bytes : int
        Bytes that they may have together.

    Attributes
    ----------
    n_bytes : int
        Bytes of them that have arrived.
    """

    def __init__(self, most_bytes: int):
        self.n_bytes, self._most_bytes = 0, most_bytes

    def check(self, n_bytes: int = 0) -> None:
        """Refuse a body if what has arrived, and so many further bytes, exceed the limit.

        Raises
        ------
        BusyError
        """
        if self.n_bytes + n_bytes > self._most_bytes:
            raise BusyError("The server receives too many bytes at once. Please try again.")


async def read_body(request: web.BaseRequest, most: int, within_s: float, arriving: ArrivingBodies) -> bytes | None:
    """Return a request's body, None if it is longer than `most` bytes.

    Raises
    ------
    SerializationError
        The body did not arrive in time.
    BusyError
        There is no room for it.
    """
    content, parts, n_bytes, n_kept = request.content, [], 0, 0
    announced = request.content_length
    if announced is not None and announced > most + MAX_SURPLUS_BYTES:
        return None
    if content.is_eof():  # as most are: it came with its headers
        body = content.read_nowait()
        return body if len(body) <= most else None
    arriving.check(min(announced or 0, most))
    if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        if announced is not None and announced > most:
            return None
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # so that aiohttp does not take the answer as begun
    try:
        async with asyncio.timeout(within_s):
            async for part in content.iter_any():
                n_bytes += len(part)
                if n_bytes <= most:
                    arriving.check(len(part))
                    arriving.n_bytes += len(part)
                    n_kept += len(part)
                    parts.append(part)
                elif n_bytes > most + MAX_SURPLUS_BYTES:
                    break
    except TimeoutError:
        raise SerializationError(f"The body did not arrive within {within_s:g} s.") from None
    finally:
        arriving.n_bytes -= n_kept
    if n_bytes > most:
        return None
    return parts[0] if len(parts) == 1 else b"".join(parts)


class StalledWrites:
    """Closes the connections of callers who do not read their answers, which would stay in memory without end.

    Parameters
    ----------
    most_s : float
        Longest time for which an answer may wait to be read.
    clock : callable
        Seconds on any steady clock.
    """

    def __init__(self, most_s: float, clock: Callable[[], float]):
        self._most_s, self._clock = most_s, clock
        self._waiting_since_s: dict[web.RequestHandler, float] = {}

    def check(self, connections: Iterable[web.RequestHandler]) -> None:
        """Close the connections that have waited for too long; to be called with all connections, periodically."""
        now, before, self._waiting_since_s = self._clock(), self._waiting_since_s, {}
        for connection in connections:
            transport = connection.transport
            if transport is None or not transport.get_write_buffer_size():
                continue
            since_s = before.get(connection, now)
            if now - since_s > self._most_s:
                transport.abort()
            else:
                self._waiting_since_s[connection] = since_s


def _is_own(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | ConnectionError)
