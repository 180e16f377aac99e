"""Checks the listing of capture files, torn lines, frames and arrivals."""

import gzip
import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from captured import START, UNIQUE, json_payload, record, write

from shadowsim import InputError, captured_arrivals, read_captures
from shadowsim.captures import folders
from shadowsim.captures.folders import Reading, capture_files, scan_records
from shadowsim.captures.record import CaptureRecord, key_of, line_of, payload_of
from shadowsim.scenario.traffic import parse_traffic


def test_files_of_a_folder_in_order_of_time_with_their_variants(tmp_path):
    moments = [START + timedelta(minutes=m) for m in (61, 0, 60 * 24 * 400, 1)]
    for moment in moments:
        write(tmp_path, "AllTraffic", [record("a")], moment)
    write(tmp_path, "Shadow-01", [record("a")])
    (tmp_path / "endpoint" / "notes.txt").write_text("not a capture")
    files = capture_files(tmp_path)
    assert [f.variant for f in files] == ["AllTraffic"] * 4 + ["Shadow-01"]
    assert {f.endpoint for f in files} == {"endpoint"}
    wanted = [tmp_path / key_of("endpoint", "AllTraffic", moment, UNIQUE) for moment in sorted(moments)]
    assert [f.path for f in files[:4]] == wanted
    # However deep the folder that is given.
    deep = wanted[0].parent
    assert [(f.endpoint, f.variant) for f in capture_files(deep)] == [("endpoint", "AllTraffic")] * 2
    assert capture_files(wanted[0]) == files[:1]


def test_a_file_outside_the_folders_has_no_variant(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text(line_of(record("a")) + "\n")
    (capture,) = capture_files(str(file))
    assert (capture.path, capture.endpoint, capture.variant) == (file, None, None)


def test_torn_and_broken_lines_are_counted_and_passed_over(tmp_path):
    good = [record(f"id-{i}", answer=i) for i in range(5)]
    lines = [line_of(r) for r in good]
    later = START + timedelta(minutes=1)
    write(tmp_path, "V", good[:2], torn=f"{lines[2][:40]}{lines[2]}\n\n  \r\n{lines[3]}\n{lines[0][:-1]}")
    write(tmp_path, "V", [], later, torn=lines[4])  # whole, but without a line end
    reading = Reading()
    files = capture_files(tmp_path)
    records = [(number, offset, entry) for number, offset, entry in scan_records(files, reading)]
    assert [entry.inference_id for _, _, entry in records] == ["id-0", "id-1", "id-3", "id-4"]
    assert (reading.n_records, reading.n_torn, reading.n_broken) == (4, 1, 1)
    assert str(files[0].path) in reading.first_flaw
    assert f"at byte {len(lines[0]) + len(lines[1]) + 2}: broken JSON" in reading.first_flaw
    for number, offset, entry in records:  # the place of each is where it can be read again
        assert files[number].path.read_bytes()[offset:].startswith(line_of(entry).encode())


def test_a_line_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MAX_LINE_BYTES", 1000)
    good = record("id", answer=1)
    assert len(line_of(good)) < 1000
    write(tmp_path, "V", [good], torn="x" * 5500 + "\n" + line_of(good) + "\n")
    reading = Reading()
    n_bytes = len(line_of(good)) + 1
    assert list(scan_records(capture_files(tmp_path), reading)) == [(0, 0, good), (0, n_bytes + 5501, good)]
    assert (reading.n_torn, reading.n_broken) == (0, 1)


def test_a_frame_of_captures(tmp_path):
    npy = payload_of(b"\x93NUMPY", "application/x-npy")
    rows = [
        record("a", answer={"score": 1}, request=[1, 2]),
        CaptureRecord(event_id=None, inference_time=None, response=npy, event_version="7"),
        record("c", after_s=86_400),
    ]
    folder = write(tmp_path, "AllTraffic", rows, torn="{")
    captures = read_captures(folder)
    frame = captures.records
    assert (captures.reading.n_records, captures.reading.n_torn, captures.reading.n_other_versions) == (3, 1, 1)
    assert frame["variant"].tolist() == ["AllTraffic"] * 3
    assert frame["inference_id"].isna().tolist() == [False, True, False]
    assert frame["inference_time"].dtype == "datetime64[s, UTC]"
    assert frame["inference_time"][2] == pd.Timestamp("2026-01-20T19:27:57Z")
    assert frame["inference_time"].isna().tolist() == [False, True, False]
    assert frame["request_body"].tolist() == [b"[1, 2]", None, None]
    assert frame["request_bytes"].tolist() == [6, pd.NA, pd.NA]
    assert frame["response_encoding"][:2].tolist() == ["JSON", "BASE64"]
    assert frame["response_content_type"][1] == "application/x-npy"
    assert frame["response_body"].tolist() == [json_payload({"score": 1}).body, b"\x93NUMPY", None]
    slim = read_captures(folder, bodies=False).records
    assert list(slim) == [c for c in frame if not c.endswith("_body")]
    pd.testing.assert_frame_equal(slim, frame[list(slim)])


def test_captured_arrivals_are_a_trace(tmp_path):
    per_second = [3, 0, 40, 1, 25]
    rows = [record(f"{s}-{i}", answer=[s], request=s, after_s=s) for s, n in enumerate(per_second) for i in range(n)]
    folder = write(tmp_path, "V", rows[::-1])
    frame = captured_arrivals(folder)
    times = frame["timestamp"]
    assert times.is_monotonic_increasing
    assert times.dt.floor("s").value_counts(sort=False).tolist() == [n for n in per_second if n]
    assert times.nunique() == len(rows)  # spread within the second
    pd.testing.assert_frame_equal(frame, captured_arrivals(folder))
    assert not times.equals(captured_arrivals(folder, seed=1)["timestamp"])
    frame.to_csv(tmp_path / "t.csv", index=False)
    trace = parse_traffic({"process": "trace", "path": "t.csv"}, "traffic", tmp_path).trace()
    assert trace.n_requests == len(rows)
    assert trace.columns["response_bytes"].tolist() == [3] * len(rows)
    wanted = (times - times[0]).dt.total_seconds().to_numpy()
    np.testing.assert_allclose(trace.arrival_s, wanted, rtol=0, atol=1e-9)  # a nanosecond


def test_arrivals_within_a_second_are_uniform(tmp_path):
    n = 400
    frame = captured_arrivals(write(tmp_path, "V", [record(str(i)) for i in range(n)]))
    inside = (frame["timestamp"] - frame["timestamp"].dt.floor("s")).dt.total_seconds()
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed by one seed in a thousand.
    assert np.abs(np.sort(inside) - (np.arange(n) + 0.5) / n).max() < 1.95 / np.sqrt(n)


def test_arrivals_are_of_one_variant_and_have_times(tmp_path):
    write(tmp_path, "AllTraffic", [record("a")])
    write(tmp_path, "Shadow-01", [record("a")])
    with pytest.raises(InputError, match=r"must hold one variant, not several \(AllTraffic, Shadow-01\)"):
        captured_arrivals(tmp_path)
    folder = write(tmp_path, "Other", [CaptureRecord(event_id="e", inference_time=None), record("a")])
    with pytest.raises(InputError, match="must have an inferenceTime in every record; records without one, got 1"):
        captured_arrivals(folder)


def test_bad_places(tmp_path):
    with pytest.raises(InputError, match="nowhere: there is no such file or folder"):
        capture_files(tmp_path / "nowhere")
    with pytest.raises(InputError, match="a\0b: there is no such file or folder"):
        capture_files("a\0b")
    with pytest.raises(InputError, match=r"s3://bucket/x: must be a local folder: copy it first \(aws s3 sync\)"):
        capture_files("s3://bucket/x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: has no capture files \(\.jsonl\)$"):
        capture_files(tmp_path / "empty")
    (tmp_path / "empty" / "a.jsonl.gz").write_bytes(gzip.compress(line_of(record("a")).encode()))
    with pytest.raises(InputError, match=r"has no capture files \(\.jsonl\); unpack its \.jsonl\.gz first"):
        capture_files(tmp_path / "empty")
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(InputError, match=r"none\.jsonl: holds no captures$"):
        read_captures(tmp_path / "none.jsonl")
    (tmp_path / "other.jsonl").write_text(json.dumps({"a": 1}) + "\n")
    with pytest.raises(InputError, match=r"cannot be read: .*other\.jsonl, at byte 0: is JSON, but holds no captureD"):
        read_captures(tmp_path / "other.jsonl")


def test_what_cannot_be_opened_or_listed(tmp_path, monkeypatch):
    folder = write(tmp_path, "V", [record("a")])

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        with pytest.raises(InputError, match=r"\.jsonl: cannot be read: Permission denied"):
            read_captures(folder)
    with monkeypatch.context() as patched:
        patched.setattr("os.scandir", lambda path: refuse(path))
        with pytest.raises(InputError, match=r"V: cannot be listed: Permission denied"):
            capture_files(folder)
