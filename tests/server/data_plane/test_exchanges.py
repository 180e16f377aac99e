"""Requests as containers get them, byte by byte, and what becomes of their connections."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from serving import answer

from shadowsim.server.data_plane.connections import open_session

WITHIN_S = 30.0
LONG = 16 * 2**20  # bytes of a body that no socket takes at once


@asynccontextmanager
async def container(answers, *, reads_bodies=True):
    """A server that gives its connections one answer after the other; yields its URL, the heads and the bodies."""
    heads, bodies, tasks, left = [], [], set(), list(answers)

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            while left:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                length = next((int(v) for n, v in fields(heads[-1]) if n == "content-length"), 0)
                if reads_bodies:
                    bodies.append(await reader.readexactly(length))
                writer.write(left.pop(0))
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", heads, bodies
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def fields(head):
    lines = head.decode().split("\r\n")[1:-2]
    return [(name.lower(), value) for name, value in (line.split(": ", 1) for line in lines)]


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, WITHIN_S))


def test_a_container_gets_the_caller_s_headers_and_no_others():
    async def exchange():
        async with container([answer(201, b"yes", X_Y="z")]) as (place, heads, bodies), open_session() as session:
            with await session.post(
                f"http://{place}/a%20b?c=d", {"Content-Type": "e/f", "Accept": "*/*"}, b"body"
            ) as got:
                said = got.status, got.headers["x-y"], await got.content.read()
        return said, heads, bodies, place

    said, (head,), bodies, place = run(exchange())
    assert said == (201, "z", b"yes")
    assert bodies == [b"body"]
    assert head.startswith(b"POST /a%20b?c=d HTTP/1.1\r\n")
    assert fields(head) == [("host", place), ("content-type", "e/f"), ("accept", "*/*"), ("content-length", "4")]


def test_a_get_has_no_body_and_a_url_s_user_is_authorised():
    async def exchange():
        async with container([answer(), answer()]) as (place, heads, _), open_session() as session:
            for user in ("", "ann:pass@"):
                with await session.get(f"http://{user}{place}/ping") as got:
                    assert got.status == 200
        return heads

    plain, authorised = run(exchange())
    assert [name for name, _ in fields(plain)] == ["host"]
    assert ("authorization", "Basic YW5uOnBhc3M=") in fields(authorised)


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nX: y", "a\0"])
def test_a_header_cannot_bring_another_one(value):
    async def exchange():
        async with container([answer()]) as (place, heads, _), open_session() as session:
            with pytest.raises(ValueError, match="a header has a line break"):
                await session.post(f"http://{place}/", {"Content-Type": value}, b"")
        return heads

    assert run(exchange()) == []


def test_a_connection_whose_request_is_not_wholly_sent_is_not_used_again():
    """The answer comes before the body has been read; what is left of it would be taken for the next request."""

    async def exchange():
        async with (
            container([answer(413), answer(200)], reads_bodies=False) as (place, heads, _),
            open_session() as session,
        ):
            statuses = []
            for body in (bytes(LONG), b""):
                with await session.post(f"http://{place}/", {}, body) as got:
                    statuses.append(got.status)
        return statuses, heads

    statuses, heads = run(exchange())
    assert statuses == [413, 200]
    assert len(heads) == 2


@pytest.mark.parametrize(("is_read", "n_connections"), [(True, 1), (False, 2)])
def test_only_the_connection_of_an_answer_that_is_complete_is_used_again(is_read, n_connections):
    async def exchange():
        whole = answer(200, b"whole")
        async with container([whole if is_read else whole[:-1], whole]) as (place, _, _), open_session() as session:
            transports = []
            for _ in range(2):
                with await session.post(f"http://{place}/", {}, b"x") as got:
                    transports.append(got.connection.transport)
                    if is_read:
                        assert await got.content.read() == b"whole"
            return len(set(map(id, transports)))

    assert run(exchange()) == n_connections


def test_a_cancelled_exchange_closes_its_connection():
    async def exchange():
        async with container([b""]) as (place, heads, _), open_session() as session:
            posting = asyncio.create_task(session.post(f"http://{place}/", {}, b"x"))
            while not heads:
                await asyncio.sleep(0.001)
            posting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await posting
            return len(session.connector._acquired), len(session.connector._conns)

    assert run(exchange()) == (0, 0)


@pytest.mark.parametrize(
    ("sent", "expected"), [("text/Event-Stream; charset=utf-8", "text/event-stream"), ("a/b", "a/b"), ("", "")]
)
def test_the_type_of_a_body_has_no_parameters(sent, expected):
    async def exchange():
        said = answer(200, b"", **({"Content-Type": sent} if sent else {}))
        async with container([said]) as (place, _, _), open_session() as session:
            with await session.post(f"http://{place}/", {}, b"") as got:
                return got.content_type

    assert run(exchange()) == expected
