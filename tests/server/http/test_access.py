"""Callers that wait to be asked for their body, and callers that do not take their answers."""

import socket
from contextlib import closing, suppress
from time import sleep
from urllib.parse import urlsplit

import pytest
from serving import Container, answer, serving

from shadowsim.server.data_plane.invoke import Limits
from shadowsim.server.http.access import Patience

HEAD = b"POST /endpoints/endpoint/invocations HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    containers = {"source": Container()}
    limits = Limits(max_body_bytes=10 * 2**20)
    with serving(tmp_path_factory.mktemp("serving"), containers, limits=limits, body_s=0.5) as server:
        server.experiment(models=("source", "source"), percentage=0)
        yield server


def connected(server, **options):
    address = urlsplit(server.url)
    connection = socket.socket()
    for option, value in options.items():
        connection.setsockopt(socket.SOL_SOCKET, getattr(socket, option), value)
    connection.settimeout(10.0)
    connection.connect((address.hostname, address.port))
    return closing(connection)


def test_a_body_is_asked_for(server):
    with connected(server) as connection:
        connection.sendall(HEAD + b"Content-Length: 3\r\n\r\n")
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        got = connection.recv(65_536)
    assert got.startswith(b"HTTP/1.1 200")
    assert got.endswith(b"abc")


def test_a_body_that_is_too_long_is_not_asked_for(server):
    with connected(server) as connection:
        connection.sendall(HEAD + b"Content-Length: 10485761\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400")


def test_an_answer_that_nobody_takes_is_given_up(server):
    async def long(writer, asked):
        writer.write(answer(200, b"y" * (10 * 2**20)))

    server.renew()
    server.containers["source"].behave = long
    with connected(server, SO_RCVBUF=4096) as connection:
        connection.sendall(HEAD.replace(b"Expect: 100-continue\r\n", b"") + b"Content-Length: 0\r\n\r\n")
        server.answered(1, "AllTraffic")
        sleep(1.5)  # three times as long as it may lie

        n_bytes = 0
        with suppress(ConnectionResetError):
            while part := connection.recv(65_536):
                n_bytes += len(part)
    assert n_bytes < 10 * 2**20


class Transport:
    """A connection's, with something to be written or not."""

    def __init__(self):
        self.transport, self.n_bytes, self.aborted = self, 0, False

    def get_write_buffer_size(self):
        return self.n_bytes

    def abort(self):
        self.aborted = True


def test_who_takes_an_answer_in_time_is_left_alone():
    now = 0.0
    slow, quick, gone = Transport(), Transport(), Transport()
    gone.transport = None
    patience = Patience(10.0, lambda: now)
    for second in range(13):
        now, slow.n_bytes, quick.n_bytes = float(second), 5, second % 10
        patience.look([slow, quick, gone])
        assert slow.aborted == (second > 10)
    assert not quick.aborted
    patience.look([])
    assert not patience._since_s
