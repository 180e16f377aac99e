"""Access to the port: hosts, tokens, callers that expect 100-continue, and callers that read no answers."""

import json
import re
import socket
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlsplit

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from serving import KEYS, Container, answer, serving, until

from shadowsim.errors import InputError
from shadowsim.server.data_plane.invoke import Limits
from shadowsim.server.http.access import (
    MAX_ARRIVING_BYTES,
    ForbiddenError,
    Hosts,
    StalledWrites,
    Token,
    check_bind,
    check_origin,
    url_of,
)

HEAD = b"POST /endpoints/endpoint/invocations HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    containers = {"source": Container()}
    limits = Limits(max_body_bytes=10 * 2**20)
    with serving(tmp_path_factory.mktemp("serving"), containers, limits=limits, body_s=0.5) as server:
        server.experiment(models=("source", "source"), percentage=0)
        yield server


def connected(server, **options):
    """Return a connection to the server that closes itself, with socket options such as SO_RCVBUF."""
    address = urlsplit(server.url)
    connection = socket.socket()
    for option, value in options.items():
        connection.setsockopt(socket.SOL_SOCKET, getattr(socket, option), value)
    connection.settimeout(10.0)
    connection.connect((address.hostname, address.port))
    return closing(connection)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_caller_who_ends_in_the_middle_of_a_body_is_not_waited_for(server, is_chunked):
    """His connection closes before the time limit of bodies, after which he would be answered."""
    head = HEAD.replace(b"Expect: 100-continue\r\n", b"")
    with connected(server) as connection:
        length = b"Transfer-Encoding: chunked\r\n\r\n5\r\n" if is_chunked else b"Content-Length: 5\r\n\r\n"
        connection.sendall(head + length + b"ab")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65_536) == b""


def test_a_body_is_requested_by_100_continue(server):
    with connected(server) as connection:
        connection.sendall(HEAD + b"Content-Length: 3\r\n\r\n")
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        response = connection.recv(65_536)
    assert response.startswith(b"HTTP/1.1 200")
    assert response.endswith(b"abc")


def test_a_body_that_is_too_long_is_refused_unread(server):
    with connected(server) as connection:
        connection.sendall(HEAD + b"Content-Length: 10485761\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400")


def is_served(server, connection):
    """Whether the server still has its end of a connection."""
    transports = [handler.transport for handler in server.app.server.connections]
    return connection.getsockname() in [t.get_extra_info("peername") for t in transports if t is not None]


def test_an_answer_that_nobody_reads_is_given_up(server):
    async def long(writer, request):
        writer.write(answer(200, b"y" * (10 * 2**20)))

    server.renew()
    server.containers["source"].behave = long
    with connected(server, SO_RCVBUF=4096) as connection:
        connection.sendall(HEAD.replace(b"Expect: 100-continue\r\n", b"") + b"Content-Length: 0\r\n\r\n")
        server.answered(1, "AllTraffic")
        until(lambda: not is_served(server, connection))
        n_bytes = 0
        with suppress(ConnectionResetError):
            while part := connection.recv(65_536):
                n_bytes += len(part)
    assert n_bytes < 10 * 2**20


class Transport:
    """A connection and its transport, with some unwritten bytes."""

    def __init__(self):
        self.transport, self.n_bytes, self.aborted = self, 0, False

    def get_write_buffer_size(self):
        return self.n_bytes

    def abort(self):
        self.aborted = True


def test_only_connections_that_stall_are_aborted():
    now_s = 0.0
    slow, quick, gone = Transport(), Transport(), Transport()
    gone.transport = None
    stalled_writes = StalledWrites(10.0, lambda: now_s)
    for second in range(13):
        now_s, slow.n_bytes, quick.n_bytes = float(second), 5, second % 10
        stalled_writes.check([slow, quick, gone])
        assert slow.aborted == (second > 10)
    assert not quick.aborted


def test_a_connection_that_ended_is_forgotten():
    now_s, connection = 0.0, Transport()
    connection.n_bytes = 5
    stalled_writes = StalledWrites(10.0, lambda: now_s)
    stalled_writes.check([connection])
    stalled_writes.check([])
    now_s = 11.0
    stalled_writes.check([connection])  # as if it were new
    assert not connection.aborted


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_addresses_may_be_bound(host):
    check_bind(host, verified=False, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_other_addresses_need_signatures_or_permission(host):
    with pytest.raises(InputError, match="reachable from other machines"):
        check_bind(host, verified=False, insecure=False)
    check_bind(host, verified=True, insecure=False)
    check_bind(host, verified=False, insecure=True)


@pytest.mark.parametrize(
    ("bound", "header", "allowed"),
    [
        *[("127.0.0.1", h, True) for h in ("127.0.0.1:4599", "localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:4599")],
        *[
            ("127.0.0.1", h, False)
            for h in ("evil.org", "evil.org:4599", "10.0.0.1", "", "localhost.evil.org", "a:b:c")
        ],
        *[
            ("127.0.0.1", h, False)
            for h in ("localhost:", "localhost:x", "[localhost]", "127.0.0.1:4599:1", "localhost/")
        ],
        ("10.0.0.1", "10.0.0.1:4599", True),
        ("10.0.0.1", "localhost", False),
        *[("0.0.0.0", h, True) for h in ("10.0.0.1", "192.168.1.1:80", "localhost", "[fe80::1]")],
        ("0.0.0.0", "evil.org", False),
        ("127.0.0.1", "proxy.internal:80", True),
    ],
)
def test_host_headers(bound, header, allowed):
    hosts = Hosts(bound, ["proxy.internal"])
    if allowed:
        hosts.check([header])
    else:
        with pytest.raises(ForbiddenError):
            hosts.check([header])
    for wrong in ([], [header, header]):
        with pytest.raises(ForbiddenError):
            hosts.check(wrong)


@pytest.mark.parametrize(
    ("method", "headers", "allowed"),
    [
        ("POST", {}, True),
        ("GET", {}, True),
        *[("POST", {"Sec-Fetch-Site": site}, True) for site in ("same-origin", "none")],
        *[("POST", {"Sec-Fetch-Site": site}, False) for site in ("cross-site", "same-site", "Cross-Site", "", "?")],
        *[("POST", {"Origin": origin}, True) for origin in ("http://localhost:4599", "HTTP://LocalHost:4599")],
        *[
            ("POST", {"Origin": origin}, False)
            for origin in (
                "https://evil.org",
                "http://localhost:8888",
                "http://127.0.0.1:4599",
                "null",
                "",
                "localhost:4599",
            )
        ],
        ("POST", {"Origin": "http://localhost:4599", "Sec-Fetch-Site": "cross-site"}, False),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, False),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, True),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, False),  # a form
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Origin": "null"}, False),
    ],
)
def test_requests_of_other_sites_pages(method, headers, allowed):
    fields = CIMultiDictProxy(CIMultiDict({"Host": "localhost:4599", **headers}))
    if allowed:
        check_origin(method, fields)
    else:
        with pytest.raises(ForbiddenError):
            check_origin(method, fields)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Origin: https://evil.org\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n", 403),
        (b"Origin: https://evil.org\r\n", 403),
        (b"Sec-Fetch-Site: same-site\r\n", 403),
        (b"Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n", 200),
        (b"", 200),
    ],
)
@pytest.mark.parametrize("path", [b"/endpoints/endpoint/invocations", b"/"])
def test_a_page_of_another_site_invokes_nothing(server, path, headers, status):
    """A no-cors POST of text/plain, which a browser sends without asking, gets the port's own form of error."""
    server.renew()
    with connected(server) as connection:
        head = (
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: SageMaker.ListModels\r\nContent-Type: text/plain\r\n"
        )
        connection.sendall(head % path + headers + b"Content-Length: 2\r\n\r\n{}")
        head, _, body = connection.recv(65_536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    if status == 403:
        assert b"x-amzn-ErrorType: AccessDeniedException" in head
        assert set(json.loads(body)) == ({"__type", "message"} if path == b"/" else {"Message", "message"})
    server.answered(status == 200 and path != b"/", "AllTraffic")


MOST_SLACK_BYTES = 96 * 2**20  # aiohttp's and asyncio's buffers, some 400 kB for each of 150 connections, and the rest


def memory_bytes():
    return int(re.search(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize(
    "key",
    [
        pytest.param("", marks=pytest.mark.slow, id="unsigned"),
        pytest.param(KEYS["aws_access_key_id"], id="a known key, a wrong signature"),
    ],
)
def test_bodies_before_their_signatures_are_bounded_together(tmp_path, key):
    """150 connections send bodies of 6 MiB; callers with small bodies are served meanwhile."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{key}/{stamp[:8]}/us-east-1/sagemaker/aws4_request"
    signed = f"Authorization: AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;x-amz-date, Signature=0\r\n"
    head = f"POST /endpoints/e/invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {6 * 2**20}\r\n"
    head += f"X-Amz-Date: {stamp}\r\n{signed if key else ''}\r\n"
    secrets = {KEYS["aws_access_key_id"]: KEYS["aws_secret_access_key"]}
    with serving(tmp_path, secrets=secrets) as server, ExitStack() as stack:
        server.experiment()
        server.invoke(Body=b"x")
        before, most = memory_bytes(), 0
        connections = [stack.enter_context(connected(server)) for _ in range(150)]
        for connection in connections:
            connection.sendall(head.encode())
            connection.setblocking(False)
        left = dict.fromkeys(connections, 5 * 2**20)  # a MiB of each body never comes
        end_s = monotonic() + 4.0
        while left and monotonic() < end_s:
            for connection in list(left):
                try:
                    left[connection] -= connection.send(bytes(min(left[connection], 2**18)))
                except BlockingIOError:
                    continue
                except ConnectionError:  # refused
                    left[connection] = 0
                if not left[connection]:
                    del left[connection]
            most = max(most, server.app._arriving.n_bytes)
        assert most <= (MAX_ARRIVING_BYTES if key else 0)
        assert memory_bytes() - before < most + MOST_SLACK_BYTES
        assert server.invoke(Body=b"y")["Body"].read() == b"y"
    assert server.app._arriving.n_bytes == 0


def test_a_body_without_room_is_refused_in_the_runtime_s_form(server, monkeypatch):
    """By its announced length at once, by its bytes as they arrive, and never if it comes with its head."""
    monkeypatch.setattr(server.app._arriving, "_most_bytes", 1000)
    start = HEAD.replace(b"Expect: 100-continue\r\n", b"")
    for head, parts in (
        (b"Content-Length: 1001\r\n\r\n", []),
        (b"Transfer-Encoding: chunked\r\n\r\n", [b"3e8\r\n" + b"x" * 1000, b"\r\n1\r\nx\r\n"]),
    ):
        with connected(server) as connection:
            connection.sendall(start + head)
            for part in parts:
                sleep(0.05)
                connection.sendall(part)
            response = connection.recv(65_536)
        assert response.startswith(b"HTTP/1.1 503")
        assert b"x-amzn-ErrorType: ServiceUnavailable" in response
        assert b"Please try again" in response
    with connected(server) as connection:
        connection.sendall(start + b"Content-Length: 2000\r\n\r\n" + b"x" * 2000)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")


def test_a_token_is_required():
    token = Token()
    for scheme in ("Bearer", "bearer", "BEARER "):
        token.check({"Authorization": f"{scheme} {token.text}"}, "")
    token.check({}, f"a=b&token={token.text}")
    for headers, query in (
        ({}, ""),
        ({"Authorization": "Bearer x"}, ""),
        ({"Authorization": f"Basic {token.text}"}, ""),
        ({}, "token=é"),
        ({}, "token="),
    ):
        with pytest.raises(ForbiddenError):
            token.check(headers, query)
    assert Token().text != token.text


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::1", "http://[::1]:1"),
        ("::", "http://[::1]:1"),
    ],
)
def test_url_of_a_bound_address(host, url):
    assert url_of(host, 1) == url
