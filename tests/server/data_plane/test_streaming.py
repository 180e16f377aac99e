"""Streamed answers of containers: as boto3, the openai client, curl and raw sockets get them."""

import asyncio
import contextlib
import json
import logging
import math
import shutil
import socket
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from time import monotonic, perf_counter, sleep
from unittest.mock import patch
from urllib.request import Request, urlopen

import numpy as np
import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import EventStreamError
from serving import KEYS, WAIT_S, Container, answer, serving, until

from shadowsim.server.data_plane.connections import MAX_AHEAD_BYTES
from shadowsim.server.data_plane.invoke import Limits
from shadowsim.server.data_plane.mirror import CopyLimits
from shadowsim.server.data_plane.streamed_bodies import StreamedBody


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def streams(*parts, between=None, ending=b"0\r\n\r\n", content_type="application/jsonlines"):
    """Return a behaviour: parts in HTTP chunks, each after a coroutine of `between`."""

    async def behave(writer, request):
        writer.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: %b\r\n\r\n" % content_type.encode()
        )
        for part in parts:
            if between is not None:
                await between()
            writer.write(chunk(part))
            await writer.drain()
        writer.write(ending)
        await writer.drain()
        if not ending:
            writer.close()

    return behave


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An experiment at 100 % between two containers."""
    containers = {"source": Container(), "shadow": Container()}
    limits = Limits(max_body_bytes=100_000, timeout_s=1.0, stream_s=1.2)
    with serving(tmp_path_factory.mktemp("serving"), containers, limits=limits) as server:
        server.experiment()
        yield server


@pytest.fixture
def rehearsal(server):
    server.renew()
    return server


def invoke_stream(rehearsal, **request):
    runtime = rehearsal.client("sagemaker-runtime")
    return runtime.invoke_endpoint_with_response_stream(EndpointName="endpoint", **{"Body": b"x", **request})


def test_boto3_gets_each_chunk_when_it_comes(rehearsal):
    """A chunk is sent once the caller has the one before it, so none of them waits for another."""
    seen = asyncio.Semaphore(0)

    rehearsal.containers["source"].behave = streams(
        b"one", b"two", b"three", between=lambda: asyncio.wait_for(seen.acquire(), 10)
    )
    release = lambda: rehearsal.loop.loop.call_soon_threadsafe(seen.release)  # noqa: E731
    release()
    reply = invoke_stream(rehearsal, ContentType="a/b", Accept="c/d", CustomAttributes="e")
    assert reply["ContentType"] == "application/jsonlines"
    assert reply["InvokedProductionVariant"] == "AllTraffic"
    assert reply["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "application/vnd.amazon.eventstream"
    got = []
    for event in reply["Body"]:
        got.append(event["PayloadPart"]["Bytes"])
        release()
    assert got == [b"one", b"two", b"three"]
    (request,) = rehearsal.containers["source"].requests
    assert request.path == "/invocations"
    assert (request.headers["accept"], request.headers["content-type"]) == ("c/d", "a/b")
    rehearsal.answered(1)


def test_an_error_before_the_first_byte_is_a_model_error(rehearsal):
    async def fail(writer, request):
        writer.write(answer(500, b"went wrong"))

    rehearsal.containers["source"].behave = fail
    with pytest.raises(rehearsal.client("sagemaker-runtime").exceptions.ModelError) as caught:
        invoke_stream(rehearsal)
    assert caught.value.response["OriginalMessage"] == "went wrong"


def read_stream(reply):
    """Return the parts, and the error that ended the stream, None for a complete one."""
    got = []
    try:
        for event in reply["Body"]:
            got.append(event["PayloadPart"]["Bytes"])
    except EventStreamError as error:
        return got, error.response["Error"]
    finally:
        reply["Body"].close()
    return got, None


def rows_of(rehearsal, role):
    return [row for row in rehearsal.frame("test", "requests") if row["role"] == role]


@pytest.mark.parametrize("ending", [b"", b"zz\r\n"], ids=["early end", "no chunk"])
def test_a_container_that_breaks_off_is_a_model_stream_error(rehearsal, ending):
    seen = asyncio.Semaphore(1)
    rehearsal.containers["source"].behave = streams(
        b"one", b"two", between=lambda: asyncio.wait_for(seen.acquire(), 10), ending=ending
    )
    reply = invoke_stream(rehearsal)
    rehearsal.loop.loop.call_soon_threadsafe(seen.release)  # boto3 has the head, which came with the first part
    got, error = read_stream(reply)
    assert b"".join(got) == b"onetwo"
    assert error["Code"] == "ModelStreamError"
    assert "ended early" in error["Message"]
    rehearsal.answered(1, "AllTraffic")
    row = rows_of(rehearsal, "source")[-1]
    assert (row["status"], row["response_bytes"]) == ("broken", 6)


def test_the_error_code_of_a_stream_is_in_its_last_frame(rehearsal):
    """boto3 drops ErrorCode, so the frame itself is looked at."""
    rehearsal.containers["source"].behave = streams(b"one", ending=b"")
    buffer = EventStreamBuffer()
    buffer.add_data(post(rehearsal, "/endpoints/endpoint/invocations-response-stream").read())
    *_, last = buffer
    assert last.headers[":exception-type"] == "ModelStreamError"
    assert json.loads(last.payload)["ErrorCode"] == "StreamBroken"
    rehearsal.answered(1, "AllTraffic")


def test_a_stream_without_end_takes_its_time_limit(rehearsal):
    rehearsal.containers["source"].behave = streams(*[b"x"] * 1000, between=lambda: asyncio.sleep(0.05))
    began = monotonic()
    got, error = read_stream(invoke_stream(rehearsal))
    assert monotonic() - began >= 1.2  # stream_s
    assert error["Code"] == "ModelStreamError"
    assert "within 1.2 s" in error["Message"]
    assert 1 <= len(got) <= 1.2 / 0.05
    rehearsal.answered(1, "AllTraffic")
    assert rows_of(rehearsal, "source")[-1]["status"] == "timed_out"


def test_a_first_byte_that_takes_too_long_is_an_ordinary_model_error(rehearsal):
    async def head_alone(writer, request):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await asyncio.sleep(5.0)

    rehearsal.containers["source"].behave = head_alone
    with pytest.raises(rehearsal.client("sagemaker-runtime").exceptions.ModelError) as caught:
        invoke_stream(rehearsal)
    assert caught.value.response["OriginalStatusCode"] == 0
    assert "timed out" in caught.value.response["Error"]["Message"]


def test_an_empty_answer_is_an_empty_stream(rehearsal):
    rehearsal.containers["source"].behave = streams()
    assert read_stream(invoke_stream(rehearsal)) == ([], None)


def test_an_answer_in_one_piece_is_streamed_too(rehearsal):
    got, error = read_stream(invoke_stream(rehearsal, Body=b"echo" * 20_000))
    assert (b"".join(got), error) == (b"echo" * 20_000, None)


def test_a_connection_is_used_again_after_a_stream(rehearsal):
    peers = set()
    inner = streams(*[b"y" * 40_000] * 20)

    async def noting(writer, request):
        peers.add(writer.get_extra_info("peername"))
        await inner(writer, request)

    rehearsal.containers["source"].behave = noting
    for _ in range(3):
        got, error = read_stream(invoke_stream(rehearsal))
        assert (len(b"".join(got)), error) == (800_000, None)
    assert len(peers) == 1


class Endless:
    """A container that streams as fast as it can, and counts what it could write."""

    def __init__(self):
        self.n_bytes = 0

    async def __call__(self, writer, request):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.transport.set_write_buffer_limits(0)
        while True:
            writer.write(chunk(b"e" * 16_384))
            await writer.drain()
            self.n_bytes += 16_384


def test_a_caller_who_reads_nothing_holds_the_container_up_and_is_cut_off(tmp_path):
    """What the server holds is bounded; the rest is in the buffers of the kernel, of both connections."""
    endless = Endless()
    containers = {"source": Container(endless), "shadow": Container()}
    with serving(tmp_path, containers, body_s=1.0) as server:
        server.experiment(percentage=0)
        with raw_post(server, "/endpoints/endpoint/invocations-response-stream") as caller:
            until(lambda: server.app.n_held_for_callers > 0)
            sizes = []
            until(lambda: sizes.append(endless.n_bytes) or (len(sizes) > 20 and len(set(sizes[-20:])) == 1))
            # What is read ahead, the same as a part that waits, once more in the transport, and what this kept before.
            part = MAX_AHEAD_BYTES + 256 * 1024  # with one read of a socket
            assert server.loop(held(server)) <= 3 * part + 65_536
            until(lambda: server.n_served("AllTraffic") == 1)  # cut off after body_s
            assert server.app.n_held_for_callers == 0
            caller.settimeout(10.0)
            with contextlib.suppress(ConnectionError):
                while caller.recv(1 << 20):
                    pass
        until(lambda: sum(server.app.endpoints.by_name["endpoint"].pools["AllTraffic"].outstanding) == 0)
        row = rows_of(server, "source")[-1]
        assert row["status"] == "answered"
        windows = [row for row in server.frame("test", "windows") if row["role"] == "source"]
        assert sum(row["InvocationModelErrors"] for row in windows) == 0


async def held(server):
    """Bytes that the server has read of containers and not written to callers' sockets."""
    written = sum(c.transport.get_write_buffer_size() for c in server.app.server.connections if c.transport)
    connections = server.app._sessions[0].connector._acquired
    ahead = sum(connection._answer._size for connection in connections if connection._answer is not None)
    return ahead + written + server.app.n_held_for_callers


def test_a_caller_who_reads_slowly_is_not_cut_off(tmp_path):
    """The whole takes longer than body_s, but no part of it does."""
    n = 120
    containers = {"source": Container(streams(*[b"s" * 100_000] * n)), "shadow": Container()}
    with serving(tmp_path, containers, body_s=1.0) as server:
        server.experiment(percentage=0)
        with raw_post(server, "/endpoints/endpoint/invocations-response-stream") as caller:
            data, began = bytearray(), monotonic()
            while not data.endswith(b"\r\n0\r\n\r\n"):
                got = caller.recv(100_000)
                assert got, "the caller was cut off"
                data += got
                sleep(0.01)
        assert monotonic() - began > 1.0
        assert data.count(b"s") >= n * 100_000


def test_the_capture_holds_the_joined_parts(tmp_path):
    containers = {"source": Container(streams(b"one,", b"two", content_type="text/csv")), "shadow": Container()}
    with serving(tmp_path, containers, flush_s=0.05) as server:
        storage = {"Destination": "s3://bucket/captured", "ContentType": {"CsvContentTypes": ["text/csv"]}}
        server.experiment(DataStorageConfig=storage)
        read_stream(invoke_stream(server, ContentType="text/csv"))
        server.answered(1)
        files = lambda: [f for f in (tmp_path / "s3").rglob("*.jsonl") if "AllTraffic" in str(f)]  # noqa: E731
        until(files)
        captured = json.loads(files()[0].read_text())["captureData"]
        assert captured["endpointOutput"]["data"] == "one,two"


def test_of_a_long_stream_the_capture_holds_the_first_bytes(tmp_path):
    containers = {"source": Container(streams(b"one,", b"two", content_type="text/csv")), "shadow": Container()}
    with serving(tmp_path, containers, flush_s=0.05, limits=Limits(max_body_bytes=5)) as server:
        storage = {"Destination": "s3://bucket/captured", "ContentType": {"CsvContentTypes": ["text/csv"]}}
        server.experiment(DataStorageConfig=storage)
        got, _ = read_stream(invoke_stream(server))
        assert b"".join(got) == b"one,two"
        files = lambda: [f for f in (tmp_path / "s3").rglob("*.jsonl") if "AllTraffic" in str(f)]  # noqa: E731
        until(files)
        assert json.loads(files()[0].read_text())["captureData"]["endpointOutput"]["data"] == "one,t"
        assert rows_of(server, "source")[-1]["response_bytes"] == 7


def test_a_defect_in_mid_stream_is_an_internal_failure(rehearsal, monkeypatch):
    def breaks(self, part):
        if part != b"one":
            raise RuntimeError("a defect")

    monkeypatch.setattr(StreamedBody, "add", breaks)
    rehearsal.containers["source"].behave = streams(b"one", b"two", between=lambda: asyncio.sleep(0.1))
    got, error = read_stream(invoke_stream(rehearsal))
    assert got == [b"one"]
    assert error["Code"] == "InternalStreamFailure"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_frames(rehearsal):
    url = f"{rehearsal.url}/endpoints/endpoint/invocations-response-stream"
    done = subprocess.run(["curl", "-sSN", "--data-binary", "x", url], capture_output=True, check=True, timeout=20)
    buffer = EventStreamBuffer()
    buffer.add_data(done.stdout)
    assert [message.payload for message in buffer] == [b"x"]


def post(rehearsal, path, body=b"x", **headers):
    return urlopen(Request(rehearsal.url + path, data=body, headers=headers), timeout=20)


def raw_post(rehearsal, path, body=b"x"):
    """Return a socket on which a request has been sent."""
    host, port = rehearsal.url.removeprefix("http://").split(":")
    caller = socket.socket()
    caller.settimeout(20.0)
    caller.connect((host, int(port)))
    caller.sendall(
        b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body
    )
    return caller


def test_cloudwatch_has_the_first_chunk_s_times_and_streams_that_broke(tmp_path):
    """The first chunk comes after 0.1 s, the whole after 0.2 s, but for a timer's millisecond; or later."""
    pause = lambda: asyncio.sleep(0.1)  # noqa: E731
    good, broken = streams(b"one", b"two", between=pause), streams(b"one", ending=b"")
    with serving(tmp_path, {"source": Container(good), "shadow": Container(good)}) as server:
        server.experiment()
        read_stream(invoke_stream(server))
        server.containers["source"].behave = broken
        read_stream(invoke_stream(server))
        server.answered(2)
        cloudwatch = server.client("cloudwatch")
        names = {metric["MetricName"] for metric in cloudwatch.list_metrics()["Metrics"]}
        assert {"FirstChunkLatency", "FirstChunkOverheadLatency", "MidStreamErrors"} <= names
        end = datetime.now(UTC) + timedelta(minutes=1)

        def figures(metric, variant="AllTraffic"):
            dimensions = {"EndpointName": "endpoint", "VariantName": variant}
            points = cloudwatch.get_metric_statistics(
                Namespace="AWS/SageMaker",
                MetricName=metric,
                Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
                StartTime=end - timedelta(minutes=60),
                EndTime=end,
                Period=3600,
                Statistics=["Sum", "SampleCount", "Maximum", "Minimum"],
            )["Datapoints"]
            return {name: sum(point[name] for point in points) for name in ("Sum", "SampleCount", "Maximum")}

        assert figures("MidStreamErrors") == {"Sum": 1.0, "SampleCount": 2.0, "Maximum": 1.0}
        assert figures("MidStreamErrors", "Shadow-01")["Sum"] == 0.0
        first, model, whole = map(figures, ("FirstChunkLatency", "FirstChunkModelLatency", "ModelLatency"))
        assert 99e3 <= model["Maximum"] <= first["Maximum"]
        assert model["Sum"] < whole["Sum"]
        assert whole["Maximum"] >= 198e3
        assert model["Sum"] + figures("FirstChunkOverheadLatency")["Sum"] == pytest.approx(first["Sum"])


def test_a_request_counts_as_concurrent_until_its_last_byte(rehearsal):
    seen = asyncio.Semaphore(1)
    rehearsal.containers["source"].behave = streams(
        b"one", b"two", between=lambda: asyncio.wait_for(seen.acquire(), 10)
    )
    pool = rehearsal.app.endpoints.by_name["endpoint"].pools["AllTraffic"]
    reply = invoke_stream(rehearsal)
    events = iter(reply["Body"])
    next(events)
    assert pool.outstanding == [1]
    rehearsal.loop.loop.call_soon_threadsafe(seen.release)
    assert len(list(events)) == 1
    until(lambda: pool.outstanding == [0])
    reply["Body"].close()


async def stalls(writer, request):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"one"))
    await writer.drain()
    await asyncio.sleep(30.0)


async def says_nothing(writer, request):
    await asyncio.sleep(30.0)


async def floods(writer, request):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n")
    while True:
        writer.write(chunk(b"data: {}\n\n" * 1000))
        await writer.drain()


async def resets(writer, request):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"one"))
    await writer.drain()
    writer.transport.abort()


@pytest.mark.parametrize(
    ("behave", "outcome"), [(stalls, None), (says_nothing, None), (floods, "max_in_flight"), (resets, "broken")]
)
def test_a_caller_gets_its_chunks_whatever_the_shadow_does(tmp_path, behave, outcome):
    """The source sends a chunk once the caller has the one before, so none waits for the shadow's stream."""
    seen = asyncio.Semaphore(1)
    parts = [b"%d " % i for i in range(50)]
    source = streams(*parts, between=lambda: asyncio.wait_for(seen.acquire(), 10))
    with serving(tmp_path, {"source": Container(source), "shadow": Container(behave)}, grace_s=0.5) as server:
        server.experiment()
        reply = invoke_stream(server)
        until(lambda: server.containers["shadow"].requests)
        got = []
        for event in reply["Body"]:
            got.append(event["PayloadPart"]["Bytes"])
            server.loop.loop.call_soon_threadsafe(seen.release)
        assert got == parts
        server.answered(1, "AllTraffic")
        live = server.app.endpoints.by_name["endpoint"]
        if outcome is None:
            assert live.mirror.n_unanswered == 1
        elif outcome == "broken":
            server.answered(1)
            assert [row["status"] for row in rows_of(server, "shadow")] == ["broken"]
        else:  # more than the allowance of all copies
            until(lambda: live.mirror.n_unanswered == 0)
            assert live.series["Shadow-01"].totals["shadow"].lost == {"max_in_flight": 1}


@pytest.mark.slow
@pytest.mark.parametrize("behave", [stalls, says_nothing, resets])
def test_a_bad_shadow_costs_the_caller_s_stream_no_time(tmp_path, behave):
    """In turn with and without copies: the mean time differs by less than 1 ms and four standard errors.

    The millisecond is what a copy may take of this process: the source's stream waits while the copy is sent.
    """
    n_pairs = 60
    source = streams(*[b"x" * 100] * 10, between=lambda: asyncio.sleep(0.002))
    containers = {"source": Container(source), "shadow": Container(behave)}
    copy_limits = CopyLimits(timeout_s=1.0, max_wait_s=20.0)
    with serving(tmp_path, containers, grace_s=0.5, copy_limits=copy_limits) as server:
        server.experiment()
        took = {True: [], False: []}
        server.invoke(Body=b"warm up")
        mirror = server.app.endpoints.by_name["endpoint"].mirror
        for i in range(n_pairs):
            for is_copied in (True, False) if i % 2 else (False, True):
                with patch.object(mirror, "chooses", lambda *_, c=is_copied: c):
                    began = perf_counter()
                    got, error = read_stream(invoke_stream(server))
                    took[is_copied].append(perf_counter() - began)
                    assert (b"".join(got), error) == (b"x" * 1000, None)
        assert len(server.containers["shadow"].requests) == n_pairs + 1
    differences = np.array(took[True]) - np.array(took[False])
    assert differences.mean() < 0.001 + 4 * differences.std(ddof=1) / math.sqrt(n_pairs)


def test_a_caller_who_leaves_ends_the_stream_and_is_nobody_s_error(tmp_path, caplog):
    gone = threading.Event()

    async def behave(writer, request):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(chunk(b"one"))
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            gone.set()

    containers = {"source": Container(behave), "shadow": Container()}
    with serving(tmp_path, containers, flush_s=0.05) as server:
        server.experiment(DataStorageConfig={"Destination": "s3://bucket/captured"})
        with raw_post(server, "/endpoints/endpoint/invocations-response-stream") as caller:
            assert caller.recv(10_000)
        assert gone.wait(WAIT_S)  # the container's connection is closed
        server.answered(1, "AllTraffic")
        row = rows_of(server, "source")[-1]
        assert row["status"] == "answered"
        server.answered(1)
        until(lambda: list((tmp_path / "s3").rglob("*.jsonl")))
        assert not [file for file in (tmp_path / "s3").rglob("*.jsonl") if "AllTraffic" in str(file)]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_the_server_stops_while_a_stream_goes_on(tmp_path):
    source = streams(*[b"x"] * 10_000, between=lambda: asyncio.sleep(0.01))
    with serving(tmp_path, {"source": Container(source), "shadow": Container()}, grace_s=0.2) as server:
        server.experiment(percentage=0)
        caller = raw_post(server, "/endpoints/endpoint/invocations-response-stream")
        assert caller.recv(10_000)
    with caller:
        while caller.recv(100_000):
            pass


def test_aiobotocore_reads_the_stream(rehearsal):
    from aiobotocore.session import get_session

    rehearsal.containers["source"].behave = streams(b"one", b"two", between=lambda: asyncio.sleep(0.05))

    async def read():
        options = {"region_name": "us-east-1", "endpoint_url": rehearsal.url, **KEYS}
        async with get_session().create_client("sagemaker-runtime", **options) as client:
            reply = await client.invoke_endpoint_with_response_stream(EndpointName="endpoint", Body=b"x")
            return [event["PayloadPart"]["Bytes"] async for event in reply["Body"]]

    assert b"".join(asyncio.run(read())) == b"onetwo"
