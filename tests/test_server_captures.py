"""Captures while serving: read back by read_captures, from folders and from an S3; nothing torn, nothing outside."""

import asyncio
import json
import os
import subprocess
import sys
from random import Random
from time import sleep

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from serving import serving

from shadowsim import ValidationError, read_captures
from shadowsim.server.backends import Answer, Call
from shadowsim.server.captures import Captures
from shadowsim.server.destinations import S3, Folders, parse_destination, sink_of
from shadowsim.server.views import CaptureView

BOTH = frozenset({"Input", "Output"})
TYPES = {"csv_content_types": ("text/csv",), "json_content_types": ("application/json",)}


def view(destination="s3://bucket/some/prefix", percentage=100, modes=BOTH, **more):
    return CaptureView(destination, percentage, modes, **{**TYPES, **more})


def taken(captures, *views, body=b"1,2", content_type="text/csv", outcome="answered", **more):
    call = Call(body, {"Content-Type": content_type} if content_type else {})
    answer = Answer(outcome, 0.0, 200, b'{"y": 1}', {"Content-Type": "application/json"})
    given = {"variant": "AllTraffic", "production": True, "inference_id": "", "custom_attributes": "", **more}
    return captures.take(views, "endpoint", call=call, answer=answer, **given)


def written(tmp_path, fill):
    """What lies in the folder after a server took captures and stopped."""

    async def run():
        captures = Captures(Folders(tmp_path), Random(1))
        fill(captures)
        await captures.close()
        assert not captures.n_lost

    asyncio.run(run())
    return read_captures(tmp_path).records


def test_lines_and_folders_are_sagemaker_s(tmp_path):
    def fill(captures):
        assert taken(captures, view(), inference_id="one", custom_attributes="a") == 3 + 8
        assert taken(captures, view(), body=b"\xff", content_type="application/x-npy", variant="Shadow-01") == 1 + 8

    records = written(tmp_path, fill)
    assert sorted(records["variant"]) == ["AllTraffic", "Shadow-01"]
    one, two = records.sort_values("variant").to_dict("records")
    assert (one["inference_id"], one["request_body"], one["request_encoding"]) == ("one", b"1,2", "CSV")
    assert (one["response_body"], one["response_encoding"]) == (b'{"y": 1}', "JSON")
    assert (two["request_body"], two["request_encoding"]) == (b"\xff", "BASE64")
    (file,) = (tmp_path / "bucket" / "some" / "prefix" / "endpoint" / "AllTraffic").rglob("*.jsonl")
    assert json.loads(file.read_text())["eventMetadata"]["customAttributes"] == ["a"]
    folders = file.relative_to(tmp_path).parts
    assert [len(part) for part in folders[5:9]] == [4, 2, 2, 2]  # yyyy/mm/dd/hh
    assert not list(tmp_path.rglob("*.partial"))


def test_which_invocations_are_captured(tmp_path):
    def fill(captures):
        assert taken(captures, view(variants=("Shadow-01",))) is None
        assert taken(captures, view(), production=False, variant="Shadow-01") is None
        assert taken(captures, view(), outcome="error_5xx") is None
        assert taken(captures, view(percentage=0)) is None
        assert taken(captures, view(modes=frozenset({"Input"}))) == 3
        assert taken(captures, view(), view("s3://other-bucket")) == 2 * (3 + 8)

    assert len(written(tmp_path, fill)) == 3
    assert {p.name for p in tmp_path.iterdir()} == {"bucket", "other-bucket"}


def test_a_share_is_captured(tmp_path):
    n = 400

    def fill(captures):
        for _ in range(n):
            taken(captures, view(percentage=25))

    assert abs(len(written(tmp_path, fill)) - n / 4) < 4 * (n * 0.25 * 0.75) ** 0.5  # four standard errors


def test_what_cannot_be_written_is_tried_again_and_at_the_end_counted(tmp_path, caplog):
    class Full(Folders):
        broken = True

        def write(self, bucket, key, data):
            if self.broken:
                raise OSError("the disk is full")
            super().write(bucket, key, data)

    async def run():
        sink = Full(tmp_path)
        captures = Captures(sink, Random(1))
        taken(captures, view())
        await captures.flush()
        taken(captures, view())
        sink.broken = False
        await captures.flush()
        assert len(read_captures(tmp_path).records) == 2
        sink.broken = True
        taken(captures, view())
        await captures.close()
        return captures.n_lost

    assert asyncio.run(run()) == {"endpoint": 1}
    assert "the disk is full" in caplog.text


def test_a_flush_that_has_begun_is_finished(tmp_path):
    class Slow(Folders):
        def write(self, bucket, key, data):
            sleep(0.1)
            super().write(bucket, key, data)

    async def run():
        captures = Captures(Slow(tmp_path), Random(1), flush_s=0.01)
        for name in "abc":
            taken(captures, view(), variant=name)
        flushing = asyncio.create_task(captures.run())
        await asyncio.sleep(0.1)
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
        await captures.close()

    asyncio.run(run())
    assert sorted(read_captures(tmp_path).records["variant"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("s3://my.bucket/a//b/", ("my.bucket", "a/b")),
        ("https://bucket.s3.eu-west-1.amazonaws.com/a/b", ("bucket", "a/b")),
        ("https://s3.amazonaws.com/bucket/a", ("bucket", "a")),
        ("https://s3-eu-west-1.amazonaws.com/bucket/a", ("bucket", "a")),
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
from shadowsim.server import destinations
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
sink = destinations.Folders(Path({str(tmp_path)!r}))
sink.write("bucket", "whole.jsonl", b"line\\n" * 1000)
os.fsync = die
sink.write("bucket", "torn.jsonl", b"line\\n" * 1000)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert [p.name for p in tmp_path.rglob("*.jsonl")] == ["whole.jsonl"]


@pytest.fixture
def moto(monkeypatch):
    """moto's S3 with a bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**keys, "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="bucket")
    yield boto3.client("s3")
    server.stop()


def test_captures_go_to_the_s3_of_the_environment(tmp_path, moto):
    sink = sink_of(tmp_path / "unused", dict(os.environ))
    assert isinstance(sink, S3)
    with serving(tmp_path, sink=sink) as server:
        types = {"JsonContentTypes": ["application/json"]}
        storage = {"Destination": "s3://bucket/captures", "ContentType": types}
        server.experiment(DataStorageConfig=storage)
        for i in range(3):
            server.invoke(Body=b"{}", ContentType="application/json", InferenceId=f"id-{i}")
        server.answered(3)
    objects = moto.list_objects_v2(Bucket="bucket", Prefix="captures/endpoint/")["Contents"]
    lines = [
        line for o in objects for line in moto.get_object(Bucket="bucket", Key=o["Key"])["Body"].read().splitlines()
    ]
    ids = sorted(json.loads(line)["eventMetadata"]["inferenceId"] for line in lines)
    assert ids == ["id-0", "id-0", "id-1", "id-1", "id-2", "id-2"]
    assert {o["Key"].split("/")[2] for o in objects} == {"AllTraffic", "Shadow-01"}
    assert not (tmp_path / "unused").exists()
