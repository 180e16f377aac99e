"""What is read of the copies' answers, by a clock that is set, and from a shadow that never ends."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from serving import Container

from shadowsim.server.data_plane import backends
from shadowsim.server.data_plane.backends import GIVEN_UP, Call
from shadowsim.server.data_plane.connections import open_session
from shadowsim.server.data_plane.intake import Intake

PARTS = st.lists(st.tuples(st.floats(0, 10), st.integers(0, 500)), max_size=60)


@given(PARTS)
def test_no_stretch_of_time_has_more_than_its_allowance(parts):
    now = [0.0]
    made, read = Intake(per_s=100, burst=300, most_held=1e9, clock=lambda: now[0]), []
    for wait_s, n_bytes in parts:
        now[0] += wait_s
        if made.allows(n_bytes):
            read.append((now[0], n_bytes))
    # what was refused was read, too, so that what is allowed can only be less
    for i, (begin, _) in enumerate(read):
        for end, _ in read[i:]:
            assert sum(n for at, n in read if begin <= at <= end) <= 300 + 100 * (end - begin) + 1e-6


def test_what_is_held_at_once_is_bounded():
    made = Intake(most_held=100)
    assert made.allows(60)
    assert made.allows(40)
    assert not made.allows(1)
    made.n_held -= 41
    assert made.allows(40)


def test_what_came_in_one_piece_counts_for_what_comes_later():
    made = Intake(per_s=1, burst=100, clock=lambda: 0.0)
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
        shadow, made = Container(behave=endless), Intake(most_held=2**20)
        await shadow.start()
        async with open_session() as session:
            backend = backends.Container([shadow.url], session, 2**30, made)
            answers = await asyncio.gather(*(backend.invoke(0, Call(b""), 60.0) for _ in range(3)))
        await shadow.stop()
        return answers, made

    answers, made = asyncio.run(run())
    assert {answer.outcome for answer in answers} == {GIVEN_UP}
    assert made.n_held == 0
