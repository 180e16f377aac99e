"""Captures: which invocations, lines and files in folders and in S3, failures of a sink."""

import asyncio
import json
import os
import threading
from datetime import UTC, datetime
from random import Random

import boto3
import pytest
from moto.server import ThreadedMotoServer
from served import take, view
from serving import serving

from shadowsim import read_captures
from shadowsim.server.data_plane.backends import Answer, Call
from shadowsim.server.data_plane.captures import CaptureWriter, Invocation
from shadowsim.server.state.destinations import S3, Folders, sink_of


def written(tmp_path, fill):
    """Let a function fill a writer, close it, and return the records in the folder."""

    async def run():
        captures = CaptureWriter(Folders(tmp_path), Random(1))
        fill(captures)
        await captures.close()
        assert not captures.n_lost

    asyncio.run(run())
    return read_captures(tmp_path).records


def test_lines_and_folders_are_sagemaker_s(tmp_path):
    def fill(captures):
        assert take(captures, view(), inference_id="one", attributes="a") == 3 + 8
        assert take(captures, view(), body=b"\xff", content_type="application/x-npy", variant="Shadow-01") == 1 + 8

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
        assert take(captures, view(variants=("Shadow-01",))) is None
        assert take(captures, view(), production=False, variant="Shadow-01") is None
        assert take(captures, view(), outcome="error_5xx") is None
        assert take(captures, view(percentage=0)) is None
        assert take(captures, view(modes=frozenset({"Input"}))) == 3
        assert take(captures, view(), view("s3://other-bucket")) == 2 * (3 + 8)

    assert len(written(tmp_path, fill)) == 3
    assert {p.name for p in tmp_path.iterdir()} == {"bucket", "other-bucket"}


def test_the_hour_is_that_of_the_invocation(tmp_path):
    """However long its answer takes, and whatever has been flushed since."""
    hour_s = 1_800_000_000.0  # on the hour

    async def run():
        captures = CaptureWriter(Folders(tmp_path), Random(1))
        take(captures, view(), arrival_s=hour_s - 0.5, inference_id="before")
        take(captures, view(), arrival_s=hour_s, inference_id="at")
        await captures.flush()
        take(captures, view(), arrival_s=hour_s - 0.001, inference_id="late")
        await captures.close()

    asyncio.run(run())
    places = {}
    for file in tmp_path.rglob("*.jsonl"):
        for line in file.read_text().splitlines():
            metadata = json.loads(line)["eventMetadata"]
            places[metadata["inferenceId"]] = ("/".join(file.parts[-5:-1]), file.name[:9], metadata["inferenceTime"])
    assert places == {
        "before": ("2027/01/15/07", "59-59-500", "2027-01-15T07:59:59Z"),
        "at": ("2027/01/15/08", "00-00-000", "2027-01-15T08:00:00Z"),
        "late": ("2027/01/15/07", "59-59-999", "2027-01-15T07:59:59Z"),
    }


def test_a_line_is_sagemaker_s_to_the_byte(tmp_path):
    """The real line of AWS's notebook (2024-01-19), its features shortened as in our source."""
    request = b'{"instances": [{"features": [28, 2, 133937, 9]}]}'
    response = b'{"predictions": [{"score": 0.9899773597717285, "predicted_label": 1}]}'

    async def run():
        captures = CaptureWriter(Folders(tmp_path), Random(1))
        invocation = Invocation(
            endpoint="endpoint",
            variant="AllTraffic",
            production=True,
            call=Call(request, {"Content-Type": "application/json"}),
            answer=Answer("answered", 0.0, 200, response, {"Content-Type": "application/json"}),
            arrival_s=datetime(2024, 1, 19, 19, 27, 57, tzinfo=UTC).timestamp(),
            event_id="7ddb2d7c-4d6a-4e67-a68e-23870399829d",
        )
        captures.take([view()], invocation)
        await captures.close()

    asyncio.run(run())
    (file,) = tmp_path.rglob("*.jsonl")
    assert file.read_bytes() == (
        rb'{"captureData":{"endpointInput":{"observedContentType":"application/json","mode":"INPUT",'
        rb'"data":"{\"instances\": [{\"features\": [28, 2, 133937, 9]}]}","encoding":"JSON"},'
        rb'"endpointOutput":{"observedContentType":"application/json","mode":"OUTPUT",'
        rb'"data":"{\"predictions\": [{\"score\": 0.9899773597717285, \"predicted_label\": 1}]}","encoding":"JSON"}},'
        rb'"eventMetadata":{"eventId":"7ddb2d7c-4d6a-4e67-a68e-23870399829d","inferenceTime":"2024-01-19T19:27:57Z"},'
        rb'"eventVersion":"0"}' + b"\n"
    )


@pytest.mark.parametrize(
    ("content_type", "body", "encoding"),
    [
        ("text/csv; charset=utf-8", b"1,2", "CSV"),
        ("TEXT/CSV", b"1,2", "CSV"),
        ("application/json", b"\xff", "BASE64"),  # as text it would not come back
        ("application/json", b"", "JSON"),
        ("application/json", '{"ü": "\u2028"}'.encode(), "JSON"),
        ("application/jsonlines", b"{}\n{}\n", "BASE64"),  # listed nowhere
        ("application/x-npy", b"\x93NUMPY\x01\x00", "BASE64"),
        (None, b"1,2", "BASE64"),
    ],
)
def test_bodies_come_back_as_they_were(tmp_path, content_type, body, encoding):
    (record,) = written(tmp_path, lambda c: take(c, view(), body=body, content_type=content_type)).to_dict("records")
    assert (record["request_body"], record["request_encoding"]) == (body, encoding)
    (file,) = tmp_path.rglob("*.jsonl")
    assert file.read_bytes().count(b"\n") == 1
    side = json.loads(file.read_bytes())["captureData"]["endpointInput"]
    assert side["observedContentType"] == content_type


@pytest.mark.parametrize(("mode", "side"), [("Input", "endpointInput"), ("Output", "endpointOutput")])
def test_one_side_alone(tmp_path, mode, side):
    written(tmp_path, lambda c: take(c, view(modes=frozenset({mode}))))
    (file,) = tmp_path.rglob("*.jsonl")
    assert list(json.loads(file.read_bytes())["captureData"]) == [side]


def test_a_share_is_captured(tmp_path):
    n = 400

    def fill(captures):
        for _ in range(n):
            take(captures, view(percentage=25))

    assert abs(len(written(tmp_path, fill)) - n / 4) < 4 * (n * 0.25 * 0.75) ** 0.5  # four standard errors


def test_unwritten_lines_are_tried_again_and_finally_counted(tmp_path, caplog):
    class Full(Folders):
        broken = True

        def write(self, bucket, key, data):
            if self.broken:
                raise OSError("the disk is full")
            super().write(bucket, key, data)

    async def run():
        sink = Full(tmp_path)
        captures = CaptureWriter(sink, Random(1))
        take(captures, view())
        await captures.flush()
        take(captures, view())
        sink.broken = False
        await captures.flush()
        assert len(read_captures(tmp_path).records) == 2
        sink.broken = True
        take(captures, view())
        await captures.close()
        return captures.n_lost

    assert asyncio.run(run()) == {"endpoint": 1}
    assert "the disk is full" in caplog.text


def test_a_flush_that_has_begun_is_finished(tmp_path):
    """Cancelling it neither loses lines nor writes them twice."""
    begun, released = threading.Event(), threading.Event()

    class Slow(Folders):
        def write(self, bucket, key, data):
            begun.set()
            assert released.wait(20.0)
            super().write(bucket, key, data)

    async def run():
        captures = CaptureWriter(Slow(tmp_path), Random(1), flush_s=0.01)
        for name in "abc":
            take(captures, view(), variant=name)
        flushing = asyncio.create_task(captures.run())
        assert await asyncio.to_thread(begun.wait, 20.0)
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
        released.set()
        await captures.close()

    asyncio.run(run())
    assert sorted(read_captures(tmp_path).records["variant"]) == ["a", "b", "c"]


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


def test_closing_does_not_wait_for_a_sink_that_never_answers(caplog):
    released = threading.Event()

    class Stuck:
        def write(self, bucket, key, data):
            released.wait(20.0)

    async def run():
        captures = CaptureWriter(Stuck(), Random(1))
        for _ in range(3):
            take(captures, view())
        await captures.close(0.05)
        released.set()  # lets the thread end
        return captures.n_lost

    assert asyncio.run(run()) == {"endpoint": 3}
    assert "3 lines were not written before the end" in caplog.text
