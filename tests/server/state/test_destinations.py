"""Destinations of captures: folders without torn files, and S3."""

import socket
import subprocess
import sys

import pytest

from shadowsim.server.state.destinations import S3, Folders


def test_links_out_of_the_bucket_are_refused(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    (root / "bucket").mkdir(parents=True)
    (root / "bucket" / "link").symlink_to(outside)
    (root / "linked").symlink_to(outside)
    for bucket, key in (("bucket", "link/a.jsonl"), ("bucket", "link/deeper/a.jsonl"), ("linked", "a.jsonl")):
        with pytest.raises(OSError, match="by a link"):
            Folders(root).write(bucket, key, b"x")
    assert not list(outside.iterdir())


def test_a_killed_writer_leaves_no_torn_file(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from shadowsim.server.state import destinations
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
sink = destinations.Folders(Path({str(tmp_path)!r}))
sink.write("bucket", "whole.jsonl", b"line\\n" * 1000)
os.fsync = die
sink.write("bucket", "torn.jsonl", b"line\\n" * 1000)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert [p.name for p in tmp_path.rglob("*.jsonl")] == ["whole.jsonl"]


def test_an_s3_that_never_answers_is_an_error(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TimeoutError):
            S3(url, timeout_s=0.5).write("bucket", "key", b"data")
