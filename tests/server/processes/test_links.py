"""Messages over links: whole and in order in pieces of any size, and again after a break."""

import asyncio
import io
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.server.processes.links import Link, append_framed, encoded, framed, keep_linked, serve_links, unframed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)
MESSAGES = st.lists(st.tuples(st.text(), VALUES), max_size=5)


@given(MESSAGES, st.lists(st.integers(0, 400), max_size=8), st.integers(0, 50))
def test_messages_arrive_whole_and_in_order(messages, cuts, n_torn):
    data = b"".join(framed(encoded(message)) for message in messages)
    got, n_reads = [], []
    link = Link(lambda _, message: got.append(message), read=lambda _: n_reads.append(len(got)))
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for begin, end in pairwise(places):
        link.data_received(data[begin:end])
    assert got == messages
    assert n_reads == sorted(set(n_reads))
    assert list(unframed(data)) == messages
    torn = list(unframed(data[: len(data) - n_torn] if n_torn else data))
    assert torn == messages[: len(torn)]


class FullDisk(io.BytesIO):
    """A file on a disk with room for some bytes."""

    room = 0

    def write(self, data):
        n = super().write(data[: self.room])
        self.room -= n
        return n


@pytest.mark.parametrize("room", range(12))
def test_a_message_is_appended_whole_or_not_at_all(room):
    message = (0, b"12345")
    n_bytes = len(framed(encoded(message)))
    file = FullDisk()
    file.room = n_bytes + room
    assert append_framed(file, encoded(message), 0) == n_bytes
    with pytest.raises(OSError, match="the disk is full"):
        append_framed(file, encoded(message), n_bytes)
    file.room = 100
    assert append_framed(file, encoded((1,)), n_bytes) == len(file.getvalue())
    assert list(unframed(file.getvalue())) == [message, (1,)]


def test_a_link_is_made_again(tmp_path):
    path = str(tmp_path / "links")

    async def talk():
        got, greeted = [], []
        served = []

        def make():
            served.append(Link(lambda link, message: (got.append(message), link.send(("heard", *message)))))
            return served[-1]

        heard = []
        keeping = asyncio.create_task(
            keep_linked(
                path,
                partial(Link, lambda _, message: heard.append(message)),
                lambda link: (greeted.append(link), link.send(("hello", len(greeted))))[1],
            )
        )
        await asyncio.sleep(0.05)  # nobody is there yet
        server = await serve_links(path, make)
        await until(lambda: len(heard) == 1)
        served[0].abort()
        await until(lambda: len(heard) == 2)
        assert got == [("hello", 1), ("hello", 2)]
        assert heard == [("heard", "hello", 1), ("heard", "hello", 2)]
        assert not greeted[0].is_open
        greeted[0].send(("lost",))  # has no effect
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        server.close()

    async def until(holds):
        async with asyncio.timeout(20.0):
            while not holds():
                await asyncio.sleep(0.01)

    asyncio.run(talk())
