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

from shadowsim.server.data_plane import connections
from shadowsim.server.data_plane.backends import GIVEN_UP, Call, Unread
from shadowsim.server.data_plane.backends import Container as Backend
from shadowsim.server.data_plane.connections import LONGEST_REST_S, ReadAllowance, open_session


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    monkeypatch.setattr(connections, "CONNECT_S", CONNECT_S)


def blocking(say_after, n):
    """Start a container in a thread; bytes after its answer arrive before the event loop has another turn."""
    listener, sent = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve():
        with listener:
            for i in range(n):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answer(200, b"%d" % i))
                    with suppress(ConnectionError):  # the client resets a connection with unexpected bytes
                        connection.sendall(say_after)
                        if not say_after:
                            connection.shutdown(socket.SHUT_WR)
                    sent.set()
                    with suppress(ConnectionError):
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


PLENTY = {"per_s": 1e12, "burst": 1e12, "most_held": 1e12, "share": 1e3, "burst_s": 1e6}
PARTS = st.lists(st.tuples(st.floats(0, 10), st.integers(0, 500)), max_size=60)


@pytest.mark.parametrize(
    "bounds", [{"per_s": 100, "burst": 300}, {"share": 0.1, "burst_s": 0.3}], ids=["bytes", "time"]
)
@given(PARTS)
def test_no_stretch_of_time_exceeds_the_allowance(bounds, parts):
    """Each byte takes a millisecond of the loop's time."""
    now_s, read = 0.0, []
    allowance = ReadAllowance(**PLENTY | bounds, clock=lambda: now_s)
    for wait_s, n_bytes in parts:
        now_s += wait_s
        if allowance.spend(n_bytes, n_bytes / 1000):
            read.append((now_s, n_bytes))
    # refused bytes were read and count, too, so the sum of the allowed ones can only be less
    for i, (begin, _) in enumerate(read):
        for end, _ in read[i:]:
            assert sum(n for at, n in read if begin <= at <= end) <= 300 + 100 * (end - begin) + 1e-6


def test_bytes_of_incomplete_answers_are_bounded():
    allowance = ReadAllowance(most_held=100)
    for n_held, may_go_on in ((100, True), (101, False), (100, True)):
        allowance.n_held = n_held
        assert allowance.spend(0, 0.0) == may_go_on


async def answers_of(behave, n=3, limit=2**20, **allowance):
    """Return the answers of a container to n calls at once, and the allowance, if one is given."""
    container = Container(behave)
    await container.start()
    shared = ReadAllowance(**allowance) if allowance else None
    async with open_session(allowance=shared) as session:
        backend = Backend([container.url], session, limit)
        answers = await asyncio.gather(*(backend.invoke(0, Call(b""), 60.0) for _ in range(n)))
    await container.stop()
    return answers, shared


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def endless(first, again):
    async def behave(writer, request):
        writer.write(first)
        while not writer.is_closing():
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(0)

    return behave


@pytest.mark.parametrize(
    ("first", "again", "failure"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "there are more than 16 interim answers (1XX)"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "there are more than 16 interim answers (1XX)"),
        (OK, b"X: " + b"y" * 4000 + b"\r\n", "the head of the answer is longer than 32768 bytes"),
        (CHUNKED, b"1;" + b"e" * 1000 + b"\r\nx\r\n", "the framing of the answer's chunks is longer than 65536 bytes"),
        (CHUNKED + b"1;", b"e" * 1000, "the framing of the answer's chunks is longer than 65536 bytes"),
        (
            CHUNKED + b"0\r\n",
            b"X: " + b"y" * 4000 + b"\r\n",
            "the framing of the answer's chunks is longer than 65536 ",
        ),
    ],
    ids=["100 Continue", "103 Early Hints", "headers", "chunk extensions", "one chunk extension", "trailers"],
)
@pytest.mark.parametrize("allowance", [{}, PLENTY], ids=["callers", "copies"])
def test_all_that_is_read_has_a_limit(first, again, failure, allowance):
    answers, shared = asyncio.run(answers_of(endless(first, again), **allowance))
    assert {answer.outcome for answer in answers} == {"broken"}
    assert all(answer.failure.startswith(failure) for answer in answers), answers
    assert shared is None or shared.n_held == 0


@pytest.mark.parametrize("allowance", [{}, PLENTY], ids=["callers", "copies"])
def test_what_follows_an_answer_is_not_parsed(allowance, monkeypatch):
    """The answer counts, whatever else its container sends, and the connection ends."""
    answers, shared = asyncio.run(answers_of(endless(answer(200, b"the answer"), answer(200, b"x") * 100), **allowance))
    assert [answer.body for answer in answers] == [b"the answer"] * 3
    assert shared is None or shared.n_held == 0


@pytest.mark.parametrize("allowance", [{}, PLENTY], ids=["callers", "copies"])
def test_interim_answers_and_small_chunks_are_read(allowance):
    async def behave(writer, request):
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 16 + CHUNKED + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n")

    answers, _ = asyncio.run(answers_of(behave, **allowance))
    assert [(answer.outcome, answer.body) for answer in answers] == [("answered", b"x" * 20_000)] * 3


@pytest.mark.parametrize(
    ("allowance", "again"),
    [
        ({"most_held": 2**20}, b"10000\r\n" + b"x" * 65_536 + b"\r\n"),
        ({"per_s": 2**20, "burst": 2**20}, b"10000\r\n" + b"x" * 65_536 + b"\r\n"),
        ({"share": 1e-3, "burst_s": 0.01}, b"1\r\nx\r\n"),
    ],
    ids=["held", "bytes", "time"],
)
def test_an_answer_beyond_the_allowance_is_given_up(allowance, again):
    answers, shared = asyncio.run(answers_of(endless(CHUNKED, again), limit=2**30, **{**PLENTY, **allowance}))
    assert {answer.outcome for answer in answers} == {GIVEN_UP}
    assert shared.n_held == 0


def test_a_complete_answer_is_never_given_up():
    async def behave(writer, request):
        writer.write(answer(200, b"x"))

    answers, _ = asyncio.run(answers_of(behave, per_s=0, burst=0, share=0, burst_s=0))
    assert {answer.outcome for answer in answers} == {"answered"}


def test_streams_of_copies_rest_once_half_of_the_loop_s_time_is_used():
    now_s = 0.0
    allowance = ReadAllowance(share=0.1, burst_s=0.05, clock=lambda: now_s)
    allowance.n_streams = 30
    assert allowance.rest_s() == 0.0
    assert allowance.spend(0, 0.026)
    assert allowance.rest_s() == pytest.approx(0.03)
    allowance.n_streams = 5_000
    assert allowance.rest_s() == LONGEST_REST_S
    now_s = 0.1  # ten milliseconds have come back
    assert allowance.rest_s() == 0.0


def test_a_copy_s_stream_that_rests_comes_whole_and_leaves_its_connection_for_another():
    """Without rests so many small parts would use the allowance up: each costs 50 us or more, and there are 30 ms."""
    n, event = 700, b'data: {"choices": [{"text": "a"}]}\n\n'

    async def tokens(writer, request):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n")
        for _ in range(n):
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0.0005)
        writer.write(b"0\r\n\r\n")

    async def run():
        container, allowance = Container(tokens), ReadAllowance(share=0.01, burst_s=0.03)
        allowance.n_streams = 20  # others, so that a rest takes 21 ms
        await container.start()
        async with open_session(1, allowance) as session:
            backend = Backend([container.url], session, 100_000, allowance=allowance)
            answers = [await backend.invoke(0, Call(b"x"), 10.0, Unread(20.0)) for _ in range(2)]
        await container.stop()
        return answers, allowance

    answers, allowance = asyncio.run(run())
    assert [a.outcome for a in answers] == ["answered"] * 2
    assert [a.tokens.output for a in answers] == [n] * 2
    assert [len(a.body) for a in answers] == [n * len(event)] * 2
    assert (allowance.n_streams, allowance.n_held) == (20, 0)
