"""Reports of counts and lines: acknowledged, sent again, bounded, and in a file for whoever comes after a kill."""

import asyncio
from random import Random

import pytest
from served import served, take, view

from shadowsim.server.processes import reports
from shadowsim.server.processes.links import decoded
from shadowsim.server.processes.reports import (
    BATCH,
    COPY_ENDED,
    LEFT_OUT,
    LINES_LOST,
    SERVED,
    LineReporter,
    Outbox,
    left_batches,
    lost_count,
    served_count,
    spool_file,
)
from shadowsim.server.processes.shared_memory import SharedMemory, make_block

COUNT = served_count("live", "AllTraffic", None, served(1_800_000_000.0))


class Owner:
    """A link to the owner of the reports."""

    def __init__(self):
        self.got = []

    def send_encoded(self, data):
        self.got.append(decoded(data))


@pytest.fixture
def outbox(tmp_path):
    box = Outbox(SharedMemory(make_block()).row(2), spool_file(tmp_path, "worker-0", 1))
    yield box
    box.close()


def test_batches_are_sent_again_until_they_are_acknowledged(outbox):
    outbox.add(COUNT)
    outbox.flush()  # to nobody
    first, second = Owner(), Owner()
    outbox.begin(first)
    outbox.add(COUNT, COUNT)
    outbox.flush()
    outbox.flush()  # nothing is new
    assert [(kind, number, len(counts)) for kind, number, counts, _ in first.got] == [(BATCH, 1, 1), (BATCH, 2, 2)]
    outbox.received(1)
    outbox.begin(second)
    assert [number for _, number, _, _ in second.got] == [2]
    asyncio.run(outbox.empty(0.05))  # the owner says nothing
    outbox.received(2)
    third = Owner()
    outbox.begin(third)
    assert third.got == []


def test_what_was_not_acknowledged_is_there_after_a_kill(tmp_path, outbox):
    outbox.begin(Owner())
    for _ in range(3):
        outbox.add(COUNT)
        outbox.flush()
    outbox.add(COUNT)  # not flushed: it is lost
    assert list(left_batches(tmp_path, "worker-0", 1)) == []  # it is alive
    assert list(left_batches(tmp_path, "worker-1", 2)) == []
    left = list(left_batches(tmp_path, "worker-0", 2))
    assert [number for _, number, _, _ in left] == [1, 2, 3]
    assert list(left_batches(tmp_path, "worker-0", 2)) == []


def test_what_was_acknowledged_is_not_kept(tmp_path, outbox):
    for _ in range(2):
        outbox.add(COUNT)
        outbox.flush()
    outbox.received(2)
    assert spool_file(tmp_path, "worker-0", 1).stat().st_size == 0


def test_what_a_slow_owner_has_no_room_for_is_left_out_and_counted(tmp_path, outbox, monkeypatch):
    monkeypatch.setattr(reports, "MAX_WAITING_BYTES", 3_000)
    captures = LineReporter(outbox, Random(1))
    n_captured = 0
    for _ in range(20):
        outbox.add(COUNT)
        n_captured += take(captures, view(), endpoint="live") is not None
        outbox.flush()
    assert 0 < n_captured < 20
    assert spool_file(tmp_path, "worker-0", 1).stat().st_size < 2 * 3_000 + 2_000
    owner = Owner()
    outbox.begin(owner)
    outbox.received(owner.got[-1][1])
    outbox.add(COUNT)
    outbox.flush()
    counts = [count for _, _, counts, _ in owner.got for count in counts]
    n_left_out = sum(count[1] for count in counts if count[0] == LEFT_OUT)
    assert n_left_out > 0
    assert sum(count[0] == SERVED for count in counts) + n_left_out == 21
    assert sum(count[2] for count in counts if count[0] == LINES_LOST) == 20 - n_captured
    assert sum(len(lines) for _, _, _, lines in owner.got) == n_captured


def test_a_count_is_known_from_before_the_answer_on(tmp_path):
    """Whoever is killed after it has answered, and before it counts, has told how many counts there should be."""
    row = SharedMemory(make_block()).row(2)
    box = Outbox(row, spool_file(tmp_path, "worker-0", 1))
    lost = lost_count("live", "Shadow-01", None, 1_800_000_000.0, "server_lag")
    box.announce()
    box.announce()
    assert row.n_reported == 2
    box.add(lost)
    assert row.n_reported == 3
    box.add(COUNT)
    box.add(COUNT)
    assert row.n_reported == 3
    box.add((COPY_ENDED, "worker-0/1", 1), COUNT)  # of a copy, which nobody is answered
    assert row.n_reported == 4
    box.close()
