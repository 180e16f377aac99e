"""The mirror process: copies of an endpoint's version that it has not seen yet wait, up to a number and up to bytes."""

import asyncio
from types import SimpleNamespace

import pytest

from shadowsim.frames import SERVER_LAG
from shadowsim.server.data_plane.mirror import MAX_COPIES_BYTES
from shadowsim.server.processes import mirror
from shadowsim.server.processes.copies import COPY, TAKEN, TOLD_BYTES, TOLD_COPIES
from shadowsim.server.processes.links import Link
from shadowsim.server.processes.member import HELLO, MIRROR, ProcessStart
from shadowsim.server.processes.mirror import CopySender
from shadowsim.server.processes.reports import COPY_ENDED, LOST
from shadowsim.server.processes.shared_memory import SharedMemory, make_block
from shadowsim.server.settings import Settings
from shadowsim.server.state.destinations import Folders
from shadowsim.server.state.quotas import Quotas


@pytest.fixture
def sender(tmp_path):
    start = ProcessStart(
        role=MIRROR,
        name=MIRROR,
        row=1,
        generation=1,
        folder=tmp_path,
        settings=Settings(sink=Folders(tmp_path)),
        quotas=Quotas({}),
        store={},
        n_workers=2,
        url="",
        token=None,
        log_format="text",
    )
    made = CopySender(start, SharedMemory(make_block()))
    made._endpoints = SimpleNamespace(by_name={})
    yield made
    made._member.outbox.close()


@pytest.mark.parametrize(("n_bytes", "n_waiting"), [(MAX_COPIES_BYTES // 4, 4), (1, 1_000)])
def test_copies_of_a_version_to_come_are_bounded(sender, monkeypatch, n_bytes, n_waiting):
    said, reported = [], []
    monkeypatch.setattr(sender._member.outbox, "add", lambda *counts: reported.append(counts))

    async def run():
        seen = asyncio.Event()

        async def in_step(*_):
            await seen.wait()

        monkeypatch.setattr(mirror, "in_step", in_step)
        link = Link(sender._receive)
        monkeypatch.setattr(link, "send", said.append)
        sender._receive(link, (HELLO, "worker-0", 1))
        body = bytes(n_bytes)
        for number in range(n_waiting + 2):
            identity = "live", "Shadow-01", None, None
            rest = {}, "/invocations", None, "", "", number, 1.0, 0.0, None
            sender._receive(link, (COPY, number, 1, *identity, body, *rest))
        sender._tell(link)
        assert len(sender._waiting) == n_waiting
        assert [(ended[0], ended[2], lost[0], lost[-1]) for ended, lost in reported] == [
            (COPY_ENDED, n_waiting + i, LOST, SERVER_LAG) for i in range(2)
        ]
        seen.set()
        await asyncio.gather(*sender._waiting)
        sender._receive(link, (COPY, number + 1, 1, *identity, body, *rest))  # there is room again
        assert len(sender._waiting) == 1
        await asyncio.gather(*sender._waiting)

    asyncio.run(run())
    assert said == [(HELLO, 1), (TAKEN, n_waiting + 2, (n_waiting + 2) * n_bytes)]


@pytest.mark.parametrize(
    ("n_copies", "n_bytes", "is_told"), [(1, 1, False), (TOLD_COPIES, 1, True), (1, TOLD_BYTES, True)]
)
def test_a_worker_is_told_when_much_was_taken(sender, monkeypatch, n_copies, n_bytes, is_told):
    said = []
    monkeypatch.setattr(sender, "_lose", lambda *_: None)
    monkeypatch.setattr(sender, "_has_room", lambda _: False)
    link = Link(sender._receive)
    monkeypatch.setattr(link, "send", said.append)
    sender._receive(link, (HELLO, "worker-0", 1))
    for number in range(n_copies):
        rest = {}, "/invocations", None, "", "", number, 1.0, 0.0, None
        sender._receive(link, (COPY, number, 1, "live", "Shadow-01", None, None, bytes(n_bytes), *rest))
        sender._tell(link)
    assert said[1:] == [(TAKEN, n_copies, n_copies * n_bytes)] * is_told


def test_a_version_that_has_turned_out_otherwise_is_served_as_it_is_now(sender):
    shadow = SimpleNamespace(variant=SimpleNamespace(name="Shadow-01"))
    for _ in range(2):
        live = SimpleNamespace(view=SimpleNamespace(version=7), shadow=shadow)
        sender._endpoints.by_name = {"e": live}
        assert sender._view_and_pool(live, "e", 7, "Shadow-01") == (live.view, shadow)
        assert sender._view_and_pool(live, "e", 7, "Shadow-01")[0] is live.view


def test_versions_of_deleted_endpoints_are_not_kept(sender):
    for i in range(100):
        name = f"e-{i}"
        shadow = SimpleNamespace(variant=SimpleNamespace(name="Shadow-01"))
        live = SimpleNamespace(view=SimpleNamespace(version=1), shadow=shadow)
        sender._endpoints.by_name = {"e-0": live, name: live}
        assert sender._view_and_pool(live, name, 1, "Shadow-01") == (live.view, shadow)
    assert set(sender._served) <= {"e-0", "e-98", "e-99"}
