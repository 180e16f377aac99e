"""Destinations of captures: URIs that are parsed or refused, folders without torn files, and S3."""

import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim import ValidationError
from shadowsim.server.state.destinations import S3, Folders, parse_destination


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("s3://my.bucket/a//b/", ("my.bucket", "a/b")),
        ("https://bucket.s3.eu-west-1.amazonaws.com/a/b", ("bucket", "a/b")),
        ("https://s3.amazonaws.com/bucket/a", ("bucket", "a")),
        ("https://s3-eu-west-1.amazonaws.com/bucket/a", ("bucket", "a")),
        ("https://bucket.s3.amazonaws.com", ("bucket", "")),
        ("https://my.bucket.s3.dualstack.us-east-1.amazonaws.com/a", ("my.bucket", "a")),
        ("https://s3.dualstack.us-east-1.amazonaws.com/bucket/a", ("bucket", "a")),
        ("https://bucket.s3-fips.us-gov-west-1.amazonaws.com/a", ("bucket", "a")),
        ("https://s3.cn-north-1.amazonaws.com.cn/bucket", ("bucket", "")),
        ("s3://bucket/%2e%2e/a b/ü", ("bucket", "%2e%2e/a b/ü")),
    ],
)
def test_destinations(uri, place):
    assert parse_destination(uri) == place


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "s3://",
            "s3:///etc",
            "s3://../etc",
            "s3://bucket/../other",
            "s3://bucket/a/..",
            "s3://bucket/./a",
            "s3://Bucket",
        ),
        *("s3://bucket/a\0b", "s3://bucket/file::http://x", "s3://bucket/a\\..\\b", "s3://bucket/a\nb", "s3://b..c/a"),
        *(
            "https://example.com/bucket",
            "https://s3.amazonaws.com.evil.org/bucket",
            "file:///etc",
            "/etc",
            "",
            "s3://a",
        ),
        *(
            "https://bucket.s3.amazonaws.com.evil.org/a",
            "https://bucket.s3.amazonaws.comevil/a",
            "https://bucket.s3.amazonaws.com:443/a",
            "https://user@bucket.s3.amazonaws.com/a",
            "https://s3.dualstack.evil.us-east-1.amazonaws.com/bucket",
            "s3://bucket/a?versionId=b",
            "s3://bucket/" + "/".join(["ü" * 100] * 5),
        ),
        *("https://bucket.s3.evil.org/", "s3://bucket/" + "x" * 256, "s3://bucket/\ud800"),
    ],
)
def test_other_destinations_are_refused(uri):
    with pytest.raises(ValidationError, match="at 'destination' failed to satisfy constraint"):
        parse_destination(uri)


@given(st.text(max_size=40))
def test_no_destination_leads_out_of_its_bucket(text):
    try:
        bucket, key = parse_destination(f"s3://bucket/{text}")
    except ValidationError:
        return
    parts = os.path.normpath(f"/root/{bucket}/{key}/x").split("/")
    assert parts[:3] == ["", "root", "bucket"]
    assert os.path.normpath(f"/root/{bucket}/{key}/x") == f"/root/{bucket}/{key}/x".replace("//", "/")


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
