"""Connections that containers end at any time, and the allowance of bytes; test_invoke has other behaviour."""

import asyncio
import socket
import threading
from contextlib import suppress

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import CONNECT_S, Container, answer

from shadowsim.server.data_plane import backends
from shadowsim.server.data_plane.backends import GIVEN_UP, Call
from shadowsim.server.data_plane.backends import Container as Backend
from shadowsim.server.data_plane.connections import ReadAllowance, open_session


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    monkeypatch.setattr(backends, "CONNECT_S", CONNECT_S)


def blocking(say_after, n):
    """Start a container in a thread; bytes after its answer arrive before the event loop has another turn."""
    listener, sent = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve():
        with listener:
            for i in range(n):
                connection, _ = listener.accept()
                with connection, suppress(ConnectionError):  # the client resets a connection with unread bytes
                    connection.recv(65_536)
                    connection.sendall(answer(200, b"%d" % i))
                    connection.sendall(say_after)
                    if not say_after:
                        connection.shutdown(socket.SHUT_WR)
                    sent.set()
                    while connection.recv(65_536):
                        pass

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", sent


@pytest.mark.parametrize("say_after", [b"", answer(200, b"another's")], ids=["its end", "an answer"])
@pytest.mark.parametrize("seen", [False, True], ids=["unread", "read"])
def test_a_connection_with_unexpected_bytes_is_not_used_again(say_after, seen):
    """Neither the end nor an answer that was not asked for reaches the next caller."""

    async def run():
        url, sent = blocking(say_after, 5)
        answers = []
        async with open_session() as session:
            for _ in range(5):
                answers.append(await Backend([url], session, 100).invoke(0, Call(b"x"), 5.0))
                assert sent.wait(5.0)  # the loop stands still meanwhile
                sent.clear()
                if seen:
                    await asyncio.sleep(0.01)  # gives the loop a turn to read
        return [(answer.outcome, answer.body) for answer in answers]

    assert asyncio.run(run()) == [("answered", b"%d" % i) for i in range(5)]


def test_a_quiet_connection_is_used_again():
    async def run():
        ports = []

        async def echo(writer, request):
            ports.append(writer.get_extra_info("peername"))
            writer.write(answer(200, request.body))

        container = Container(echo)
        await container.start()
        async with open_session() as session:
            for _ in range(5):
                await Backend([container.url], session, 100).invoke(0, Call(b"x"), 5.0)
        await container.stop()
        return ports

    assert len(set(asyncio.run(run()))) == 1


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", "the container closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "the container closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "the answer broke off"),
        (b"ICMP\r\n\r\n", "the answer is not HTTP: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "the answer is not HTTP: Duplicate"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "the answer is not HTTP: Invalid character"),
    ],
)
def test_failures_have_a_text_for_the_container_s_maintainer(sent, words):
    async def run():
        async def send(writer, request):
            writer.write(sent)
            writer.close()

        container = Container(send)
        await container.start()
        async with open_session() as session:
            broken = await Backend([container.url], session, 100).invoke(0, Call(b"x"), 5.0)
        await container.stop()
        return broken

    broken = asyncio.run(run())
    assert broken.outcome == "broken"
    assert broken.failure.startswith(words)
    assert "aiohttp" not in broken.failure


def test_a_refused_connection():
    async def run():
        async with open_session() as session:
            backend = Backend(["http://127.0.0.1:1"], session, 100)
            return (await backend.invoke(0, Call(b"x"), 5.0)).failure, await backend.ping(1)

    failure, ping = asyncio.run(run())
    assert failure == "the container cannot be connected to"
    assert ping == "http://127.0.0.1:1/ping: the container cannot be connected to"
    assert issubclass(aiohttp.ClientConnectorError, OSError)  # so its case must come first


PARTS = st.lists(st.tuples(st.floats(0, 10), st.integers(0, 500)), max_size=60)


@given(PARTS)
def test_no_stretch_of_time_exceeds_the_allowance(parts):
    now_s, read = 0.0, []
    allowance = ReadAllowance(per_s=100, burst=300, most_held=1e9, clock=lambda: now_s)
    for wait_s, n_bytes in parts:
        now_s += wait_s
        if allowance.allows(n_bytes):
            read.append((now_s, n_bytes))
    # refused bytes were read and count, too, so the sum of the allowed ones can only be less
    for i, (begin, _) in enumerate(read):
        for end, _ in read[i:]:
            assert sum(n for at, n in read if begin <= at <= end) <= 300 + 100 * (end - begin) + 1e-6


def test_bytes_of_incomplete_answers_are_bounded():
    allowance = ReadAllowance(most_held=100)
    assert allowance.allows(60)
    assert allowance.allows(40)
    assert not allowance.allows(1)
    allowance.n_held -= 41
    assert allowance.allows(40)


def test_complete_answers_count():
    allowance = ReadAllowance(per_s=1, burst=100, clock=lambda: 0.0)
    allowance.count(101)
    assert not allowance.allows(0)
    assert allowance.n_held == 0


async def endless(writer, request):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(1000):  # the copy is given up long before
        writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0.001)


def test_an_answer_beyond_the_allowance_is_given_up():
    async def run():
        shadow, allowance = Container(behave=endless), ReadAllowance(most_held=2**20)
        await shadow.start()
        async with open_session() as session:
            backend = backends.Container([shadow.url], session, 2**30, allowance)
            answers = await asyncio.gather(*(backend.invoke(0, Call(b""), 60.0) for _ in range(3)))
        await shadow.stop()
        return answers, allowance

    answers, allowance = asyncio.run(run())
    assert {answer.outcome for answer in answers} == {GIVEN_UP}
    assert allowance.n_held == 0
