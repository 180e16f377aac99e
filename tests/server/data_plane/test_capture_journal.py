"""Tests that captured lines survive a kill in the journal, and are written once."""

import asyncio
import shutil
from random import Random

import pytest
from served import take, view

from shadowsim import InputError, read_captures
from shadowsim.server.data_plane.capture_journal import CaptureJournal
from shadowsim.server.data_plane.captures import CaptureWriter
from shadowsim.server.state.destinations import Folders


class Gate(Folders):
    """A folder that can be written or not, as S3 can be reached or not."""

    is_shut = False

    def write(self, bucket, key, data):
        if self.is_shut:
            raise OSError("it is shut")
        super().write(bucket, key, data)


def ids(folder):
    return sorted(read_captures(folder).records["inference_id"]) if folder.exists() else []


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path / "s3")


def writer(tmp_path, gate):
    return CaptureWriter(gate, Random(1), 3600.0, CaptureJournal(tmp_path / "journal"))


def next_server(tmp_path, gate):
    """Write what the last server has left, and close."""

    async def run():
        captures = writer(tmp_path, gate)
        running = asyncio.create_task(captures.run())
        await asyncio.sleep(0)  # it begins with what is left
        await captures.close()
        running.cancel()
        return captures

    return asyncio.run(run())


def test_a_killed_server_loses_only_what_came_after_the_last_append(tmp_path, gate):
    async def run():
        captures = writer(tmp_path, gate)
        for i in range(3):
            take(captures, view(), inference_id=f"id-{i}")
            await captures.journal()
        take(captures, view(), inference_id="another", variant="Shadow-01", arrival_s=1_800_003_600.0)
        await captures.journal()
        take(captures, view(), inference_id="lost")  # nothing more happens, as after a kill

    asyncio.run(run())
    assert not (tmp_path / "s3").exists()
    for _ in range(2):  # once: the second server finds nothing
        next_server(tmp_path, gate)
        assert ids(tmp_path / "s3") == ["another", "id-0", "id-1", "id-2"]
        assert list((tmp_path / "journal").iterdir()) == []


def test_a_kill_after_the_object_is_written_writes_the_same_object_again(tmp_path, gate):
    async def run():
        captures = writer(tmp_path, gate)
        take(captures, view(), inference_id="one")
        await captures.journal()
        take(captures, view(), inference_id="two")  # only the write itself puts it into the journal
        remove = captures._journal.remove
        captures._journal.remove = lambda file: None
        await captures.flush()
        captures._journal.remove = remove

    asyncio.run(run())
    files = list((tmp_path / "s3").rglob("*.jsonl"))
    assert ids(tmp_path / "s3") == ["one", "two"]
    next_server(tmp_path, gate)
    assert ids(tmp_path / "s3") == ["one", "two"]
    assert list((tmp_path / "s3").rglob("*.jsonl")) == files


def test_a_destination_that_is_away_at_the_stop_gets_its_lines_from_the_next_server(tmp_path, gate):
    gate.is_shut = True

    async def run():
        captures = writer(tmp_path, gate)
        take(captures, view(), inference_id="one")
        await captures.flush()
        take(captures, view(), inference_id="two")
        await captures.flush()  # both are in one file again
        assert len(list((tmp_path / "journal").iterdir())) == 1
        take(captures, view(), inference_id="three")
        await captures.close()
        return captures

    captures = asyncio.run(run())
    assert (captures.n_left, captures.n_lost) == (3, {})
    assert next_server(tmp_path, gate).n_left == 3  # it is still away
    gate.is_shut = False
    assert next_server(tmp_path, gate).n_left == 0
    assert ids(tmp_path / "s3") == ["one", "three", "two"]


def test_a_torn_line_is_left_out_and_what_is_no_journal_is_left_alone(tmp_path, gate, caplog):
    async def run():
        captures = writer(tmp_path, gate)
        for i in range(2):
            take(captures, view(), inference_id=f"id-{i}")
        await captures.journal()

    asyncio.run(run())
    (file,) = (tmp_path / "journal").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    (tmp_path / "journal" / "notes.txt").write_text("none of ours")
    next_server(tmp_path, gate)
    assert ids(tmp_path / "s3") == ["id-0"]
    assert "notes.txt holds no captures that can be read, and is left as it is" in caplog.text
    assert [path.name for path in (tmp_path / "journal").iterdir()] == ["notes.txt"]


def test_a_journal_that_cannot_be_written_costs_no_capture(tmp_path, gate, caplog):
    async def run():
        captures = writer(tmp_path, gate)
        take(captures, view(), inference_id="one")
        shutil.rmtree(tmp_path / "journal")
        await captures.journal()
        await captures.close()

    asyncio.run(run())
    assert ids(tmp_path / "s3") == ["one"]
    assert "the journal of captures cannot be written" in caplog.text


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path):
    (tmp_path / "state.db-captures").write_text("")
    with pytest.raises(
        InputError, match=r"--db: needs the folder .*state\.db-captures beside it, which cannot be made"
    ):
        CaptureJournal(tmp_path / "state.db-captures")
