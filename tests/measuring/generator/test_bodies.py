"""Bodies of requests: files, folders, lines, rows of arrays, captures, random bytes; and what is refused."""

import hashlib
import io
import json

import numpy as np
import pytest
from captured import record, write

from shadowsim.errors import InputError
from shadowsim.measuring.generator import bodies as module
from shadowsim.measuring.generator.bodies import Bodies, random_bodies, read_bodies


def test_one_file_is_sent_each_time(tmp_path):
    file = tmp_path / "request.json"
    file.write_bytes(b'{"x": 1}')
    read = read_bodies(file)
    assert [read.body(i) for i in (0, 5)] == [b'{"x": 1}'] * 2
    assert read.content_type(3) == "application/json"


def test_a_folder_is_sent_in_the_order_of_names(tmp_path):
    for name, content in (("b.csv", b"2"), ("a.txt", b"1"), (".hidden", b"no"), ("c.bin", b"3")):
        (tmp_path / name).write_bytes(content)
    read = read_bodies(tmp_path)
    assert [read.body(i) for i in range(4)] == [b"1", b"2", b"3", b"1"]
    assert [read.content_type(i) for i in range(3)] == ["text/plain", "text/csv", "application/octet-stream"]


def test_lines_are_sent_in_turn(tmp_path):
    (tmp_path / "lines.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    read = read_bodies(tmp_path / "lines.jsonl")
    assert [read.body(i) for i in range(3)] == [b'{"a": 1}', b'{"a": 2}', b'{"a": 1}']
    assert read.content_type(0) == "application/json"


def test_rows_of_an_array_are_arrays_of_one_row(tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(6.0).reshape(3, 2))
    read = read_bodies(tmp_path / "rows.npy")
    assert np.array_equal(np.load(io.BytesIO(read.body(1))), [[2.0, 3.0]])
    assert len(read.contents) == 3
    assert read.content_type(1) == "application/x-npy"


def test_captures_are_replayed_in_order_with_their_types(tmp_path):
    records = [record("b", request={"n": 2}, after_s=5), record("a", request={"n": 1}), record("c", answer={})]
    folder = write(tmp_path, "AllTraffic", records)
    for source in (tmp_path, folder, next(folder.rglob("*.jsonl"))):
        read = read_bodies(source)
        assert [json.loads(body)["n"] for body in read.contents] == [1, 2]
        assert read.content_types == ("application/json", "application/json")


def test_random_bodies_have_their_sizes_and_differ():
    sizes = np.array([10, 0, 5000, 10])
    drawn = random_bodies(sizes, seed=1)
    assert [len(drawn.body(i)) for i in range(5)] == [10, 0, 5000, 10, 10]
    assert drawn.body(0) != drawn.body(3)
    assert drawn.body(2) == random_bodies(sizes, seed=1).body(2)


def test_hashes_are_those_of_the_bodies():
    few, drawn = Bodies((b"a", b"b"), ("",)), random_bodies(np.array([7, 9]), 1)
    for each in (few, few, drawn):
        assert each.sha256(3) == hashlib.sha256(each.body(3)).hexdigest()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.jsonl", b"\n\n", "has no lines to send"),
        ("broken.npy", b"nothing", "is not an .npy file"),
        ("captures.jsonl", b'{"captureData": {}, "eventMetadata": {}}\n', "has captures of answers only"),
    ],
)
def test_files_without_bodies_are_refused(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_bodies(tmp_path / name)


def test_missing_and_empty_places_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"body: .*nowhere cannot be read: No such file"):
        read_bodies(tmp_path / "nowhere")
    with pytest.raises(InputError, match="has no files to send"):
        read_bodies(tmp_path)
    np.save(tmp_path / "scalar.npy", np.array(1.0))
    with pytest.raises(InputError, match="must be an array with a row for each request"):
        read_bodies(tmp_path / "scalar.npy")
    monkeypatch.setattr(module, "MOST_BYTES", 3)
    (tmp_path / "large.txt").write_bytes(b"four")
    with pytest.raises(InputError, match="must have at most 3 bytes of bodies"):
        read_bodies(tmp_path / "large.txt")
