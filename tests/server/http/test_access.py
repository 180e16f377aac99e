"""Access to the port: hosts, tokens, callers that expect 100-continue, and callers that read no answers."""

import socket
from contextlib import closing, suppress
from urllib.parse import urlsplit

import pytest
from serving import Container, answer, serving, until

from shadowsim.errors import InputError
from shadowsim.server.data_plane.invoke import Limits
from shadowsim.server.http.access import ForbiddenError, Hosts, StalledWrites, Token, check_bind, url_of

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
