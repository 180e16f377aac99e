"""Connections that a container ends when it likes. What else containers do: test_server_runtime."""

import asyncio
import socket
import threading
from contextlib import suppress

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import Container, answer

from shadowsim.server.data_plane import backends
from shadowsim.server.data_plane.backends import GIVEN_UP, Call
from shadowsim.server.data_plane.backends import Container as Backend
from shadowsim.server.data_plane.connections import ReadAllowance, open_session


def blocking(say_after, n):
    """A container in a thread: what it says after its first answer is there before the loop has another turn."""
    listener, said = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve():
        with listener:
            for i in range(n):
                connection, _ = listener.accept()
                with connection, suppress(ConnectionError):  # one that is closed with something unread is reset
                    connection.recv(65_536)
                    connection.sendall(answer(200, b"%d" % i))
                    connection.sendall(say_after)
                    if not say_after:
                        connection.shutdown(socket.SHUT_WR)
                    said.set()
                    while connection.recv(65_536):
                        pass

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", said


@pytest.mark.parametrize("say_after", [b"", answer(200, b"another's")], ids=["its end", "an answer"])
@pytest.mark.parametrize("seen", [False, True], ids=["unread", "read"])
def test_a_connection_on_which_something_has_come_is_not_used_again(say_after, seen):
    """Neither becomes the next caller's: no error for the end, and no answer that was not asked for."""

    async def run():
        url, said = blocking(say_after, 5)
        found = []
        async with open_session() as session:
            for _ in range(5):
                found.append(await Backend([url], session, 100).invoke(0, Call(b"x"), 5.0))
                assert said.wait(5.0)  # the loop stands still meanwhile
                said.clear()
                if seen:
                    await asyncio.sleep(0.01)
        return [(answer.outcome, answer.body) for answer in found]

    assert asyncio.run(run()) == [("answered", b"%d" % i) for i in range(5)]


def test_a_quiet_connection_is_used_again():
    async def run():
        ports = []

        async def echo(writer, asked):
            ports.append(writer.get_extra_info("peername"))
            writer.write(answer(200, asked.body))

        container = Container(echo)
        await container.start()
        async with open_session() as session:
            for _ in range(5):
                await Backend([container.url], session, 100).invoke(0, Call(b"x"), 5.0)
        await container.stop()
        return ports

    assert len(set(asyncio.run(run()))) == 1


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "the container closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "the container closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "the answer broke off"),
        (b"ICMP\r\n\r\n", "the answer is not HTTP: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "the answer is not HTTP: Duplicate"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "the answer is not HTTP: Invalid character"),
    ],
)
def test_a_failure_is_said_for_whoever_looks_after_the_container(said, words):
    async def run():
        async def says(writer, asked):
            writer.write(said)
            writer.close()

        container = Container(says)
        await container.start()
        async with open_session() as session:
            found = await Backend([container.url], session, 100).invoke(0, Call(b"x"), 5.0)
        await container.stop()
        return found

    found = asyncio.run(run())
    assert found.outcome == "broken"
    assert found.failure.startswith(words)
    assert "aiohttp" not in found.failure


def test_nobody_listens():
    async def run():
        async with open_session() as session:
            backend = Backend(["http://127.0.0.1:1"], session, 100)
            return (await backend.invoke(0, Call(b"x"), 5.0)).failure, await backend.ping(1)

    failure, ping = asyncio.run(run())
    assert failure == "the container cannot be connected to"
    assert ping == "http://127.0.0.1:1/ping: the container cannot be connected to"
    assert issubclass(aiohttp.ClientConnectorError, OSError)  # and yet it has words of its own


PARTS = st.lists(st.tuples(st.floats(0, 10), st.integers(0, 500)), max_size=60)


@given(PARTS)
def test_no_stretch_of_time_has_more_than_its_allowance(parts):
    now = [0.0]
    made, read = ReadAllowance(per_s=100, burst=300, most_held=1e9, clock=lambda: now[0]), []
    for wait_s, n_bytes in parts:
        now[0] += wait_s
        if made.allows(n_bytes):
            read.append((now[0], n_bytes))
    # what was refused was read, too, so that what is allowed can only be less
    for i, (begin, _) in enumerate(read):
        for end, _ in read[i:]:
            assert sum(n for at, n in read if begin <= at <= end) <= 300 + 100 * (end - begin) + 1e-6


def test_what_is_held_at_once_is_bounded():
    made = ReadAllowance(most_held=100)
    assert made.allows(60)
    assert made.allows(40)
    assert not made.allows(1)
    made.n_held -= 41
    assert made.allows(40)


def test_what_came_in_one_piece_counts_for_what_comes_later():
    made = ReadAllowance(per_s=1, burst=100, clock=lambda: 0.0)
    made.count(101)
    assert not made.allows(0)
    assert made.n_held == 0


async def endless(writer, asked):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(1000):  # a copy is given up long before
        writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0.001)


def test_an_answer_beyond_the_allowance_is_given_up():
    async def run():
        shadow, made = Container(behave=endless), ReadAllowance(most_held=2**20)
        await shadow.start()
        async with open_session() as session:
            backend = backends.Container([shadow.url], session, 2**30, made)
            answers = await asyncio.gather(*(backend.invoke(0, Call(b""), 60.0) for _ in range(3)))
        await shadow.stop()
        return answers, made

    answers, made = asyncio.run(run())
    assert {answer.outcome for answer in answers} == {GIVEN_UP}
    assert made.n_held == 0
