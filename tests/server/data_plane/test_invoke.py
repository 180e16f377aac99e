"""InvokeEndpoint through boto3, with scripted containers and with shadows that misbehave."""

import asyncio
import gzip
import os
import re
from time import monotonic

import pytest
from botocore.exceptions import ClientError
from serving import WAIT_S, Container, answer, create_models, serving, until

from shadowsim.server.data_plane.invoke import Limits
from shadowsim.server.data_plane.mirror import CopyLimits
from shadowsim.server.state.quotas import Quotas


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An experiment at 100 % between two containers."""
    containers = {"source": Container(), "shadow": Container()}
    limits = Limits(max_body_bytes=100_000, timeout_s=1.5)
    with serving(tmp_path_factory.mktemp("serving"), containers, limits=limits) as server:
        server.experiment()
        yield server


@pytest.fixture
def rehearsal(server):
    """The server with its containers and counts reset."""
    server.renew()
    return server


def refused(call, **request):
    with pytest.raises(ClientError) as caught:
        call(**request)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response


def test_bodies_and_headers_pass_as_they_are_and_others_are_stripped(rehearsal):
    body = gzip.compress(b"kept as it is") + bytes(range(256))

    answered = {"Content-Type": "a/b; c=d", "Content-Encoding": "gzip", "Set-Cookie": "a=b"}

    async def tagged(writer, request):
        writer.write(answer(200, request.body, **answered, **{"X-Amzn-SageMaker-Custom-Attributes": "mine"}))

    rehearsal.containers["source"].behave = tagged
    sent = {"ContentType": "p/q;r=s", "Accept": "t/u", "CustomAttributes": "c; d", "InferenceId": "i 1"}
    reply = rehearsal.invoke(Body=body, **sent)
    headers = reply["ResponseMetadata"]["HTTPHeaders"]
    assert reply["Body"].read() == body
    assert reply["ContentType"] == "a/b; c=d"
    assert reply["InvokedProductionVariant"] == "AllTraffic"
    assert reply["CustomAttributes"] == "mine"
    assert re.fullmatch(r"[0-9a-f-]{36}", headers["x-amzn-requestid"])
    assert not {"set-cookie", "content-encoding", "access-control-allow-origin"} & set(headers)
    rehearsal.answered(1)
    for container in rehearsal.containers.values():
        (request,) = container.requests
        assert request.path == "/invocations"
        assert request.body == body
        passed = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
        assert passed == {"content-type": "p/q;r=s", "accept": "t/u", "x-amzn-sagemaker-custom-attributes": "c; d"}


@pytest.mark.parametrize(("status", "words"), [(404, "client error (404)"), (500, "server error (500)")])
def test_a_container_s_error_is_a_model_error_and_is_not_retried(rehearsal, status, words):
    async def fail(writer, request):
        writer.write(answer(status, b"what went wrong"))

    rehearsal.containers["source"].behave = fail
    # boto3's default retries, which leave 424 alone
    code, http, response = refused(
        rehearsal.client("sagemaker-runtime", config=None).invoke_endpoint, EndpointName="endpoint", Body=b"x"
    )
    assert (code, http) == ("ModelError", 424)
    assert response["OriginalStatusCode"] == status
    assert response["OriginalMessage"] == "what went wrong"
    assert response["LogStreamArn"].endswith(":log-group:/aws/sagemaker/Endpoints/endpoint")
    assert f'Received {words} from primary with message "what went wrong". See https://' in response["Error"]["Message"]
    assert len(rehearsal.containers["source"].requests) == 1


def test_a_redirect_is_an_error_and_is_not_followed(rehearsal):
    async def elsewhere(writer, request):
        writer.write(answer(307, b"", Location=rehearsal.containers["shadow"].url + "/invocations"))

    rehearsal.containers["source"].behave = elsewhere
    code, http, response = refused(rehearsal.invoke, Body=b"x")
    assert (code, http, response["OriginalStatusCode"]) == ("ModelError", 424, 307)
    rehearsal.answered(1)
    assert len(rehearsal.containers["shadow"].requests) == 1  # the copy


def test_a_model_that_takes_too_long_is_a_model_error_of_status_0(rehearsal):
    async def sleep(writer, request):
        await asyncio.sleep(5.0)

    rehearsal.containers["source"].behave = sleep
    code, http, response = refused(rehearsal.invoke, Body=b"x")
    assert (code, http, response["OriginalStatusCode"]) == ("ModelError", 424, 0)
    expected = (
        'Received server error (0) from primary with message "Your invocation timed out while waiting for a response'
    )
    assert response["Error"]["Message"].startswith(expected)


@pytest.mark.parametrize(
    ("request_of", "status", "words"),
    [
        ({"EndpointName": "other"}, 400, "Endpoint other of account 111122223333 not found."),
        ({"TargetVariant": "Shadow-01"}, 400, "Variant Shadow-01 is not a production variant"),
        ({"TargetModel": "m.tar.gz"}, 400, "multi-model"),
        (
            {"InferenceId": "x" * 65},
            400,
            "'inferenceId' failed to satisfy constraint: Member must have length less than",
        ),
        ({"CustomAttributes": "é"}, 400, "'customAttributes' failed to satisfy constraint"),
        (
            {"Body": b"x" * 100_001},
            400,
            "'body' failed to satisfy constraint: Member must have length less than or equal",
        ),
    ],
)
def test_refused_invocations_reach_no_container(rehearsal, request_of, status, words):
    code, http, response = refused(rehearsal.invoke, **{"Body": b"x", **request_of})
    assert (code, http) == ("ValidationError", status)
    assert words in response["Error"]["Message"]
    assert not rehearsal.containers["source"].requests


def test_an_answer_above_the_limit_is_cut_off(rehearsal):
    async def long(writer, request):
        writer.write(answer(200, b"y" * 100_001))

    rehearsal.containers["source"].behave = long
    code, _, response = refused(rehearsal.invoke, Body=b"x" * 100_000)
    assert code == "ModelError"
    assert "could not load the entire response body" in response["Error"]["Message"]


def test_an_unprintable_header_is_left_out(rehearsal):
    async def odd(writer, request):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: a/\xff\r\nContent-Length: 1\r\n\r\n1")

    rehearsal.containers["source"].behave = odd
    assert rehearsal.invoke(Body=b"x")["Body"].read() == b"1"


def test_a_weight_changes_and_instances_go_on(tmp_path):
    with serving(tmp_path) as server:
        sagemaker = server.client("sagemaker")
        create_models(sagemaker, "m")
        pool = {"ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        variants = [{"VariantName": name, **pool} for name in ("one", "two")]
        sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=variants)
        sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="c")
        status = lambda: sagemaker.describe_endpoint(EndpointName="endpoint")["EndpointStatus"]  # noqa: E731
        until(lambda: status() == "InService")
        server.invoke(Body=b"x")
        before = dict(server.app.endpoints.by_name["endpoint"].pools)
        weights = [{"VariantName": "one", "DesiredWeight": 0.0}, {"VariantName": "two", "DesiredWeight": 1.0}]
        sagemaker.update_endpoint_weights_and_capacities(EndpointName="endpoint", DesiredWeightsAndCapacities=weights)
        until(lambda: status() == "InService")
        for target in (None, "one"):
            chosen = {"TargetVariant": target} if target else {}
            assert {server.invoke(Body=b"x", **chosen)["InvokedProductionVariant"] for _ in range(5)} == {
                target or "two"
            }
        after = server.app.endpoints.by_name["endpoint"].pools
        assert all(after[name] is before[name] for name in ("one", "two"))


async def slow(writer, request):
    await asyncio.sleep(3.0)


async def dead(writer, request):
    pass  # never a byte


async def slams(writer, request):
    writer.transport.abort()


async def garbage(writer, request):
    writer.write(os.urandom(1000))


async def half(writer, request):
    writer.write(answer(200, b"z" * 100)[:-50])
    writer.close()


async def endless(writer, request):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"4000\r\n" + b"e" * 0x4000 + b"\r\n")
        await writer.drain()


async def headers_without_end(writer, request):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"h" * 1000 + b"\r\n")
        await writer.drain()


async def breaks_header(writer, request):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\rX: y\r\nContent-Length: 1\r\n\r\n1")


@pytest.mark.parametrize(
    ("behave", "outcomes"),
    [
        (slow, {"timed_out"}),
        (dead, {"timed_out"}),
        (slams, {"broken"}),
        (garbage, {"broken"}),
        (half, {"broken"}),
        (endless, {"broken"}),
        (headers_without_end, {"broken"}),
        (breaks_header, {"broken"}),
        (None, {"broken"}),  # the container has stopped, so connections are refused
    ],
)
def test_callers_get_the_source_s_bytes_from_any_shadow(tmp_path, behave, outcomes):
    containers = {"source": Container(), "shadow": Container(behave)}
    limits, copy_limits = Limits(max_body_bytes=100_000), CopyLimits(timeout_s=1.0, max_wait_s=WAIT_S)
    with serving(tmp_path, containers, limits=limits, copy_limits=copy_limits) as server:
        server.experiment()
        if behave is None:
            server.loop(containers["shadow"].stop())
        for i in range(8):
            body = os.urandom(50) * (i + 1)
            assert server.invoke(Body=body)["Body"].read() == body
        server.answered(8)
        rows = [row for row in server.frame("test", "requests") if row["role"] == "shadow"]
        assert {row["status"] for row in rows} == outcomes
        assert [row["request"] for row in rows] == list(range(8))
        windows = [row for row in server.frame("test", "windows") if row["role"] == "shadow"]
        assert sum(row["InvocationModelErrors"] for row in windows) == 8


def test_copies_beyond_the_bound_are_lost_and_counted(tmp_path):
    containers = {"source": Container(), "shadow": Container(dead)}
    copy_limits = CopyLimits(timeout_s=2.0, max_copies=3, max_wait_s=WAIT_S)
    with serving(tmp_path, containers, copy_limits=copy_limits) as server:
        server.experiment()
        for _ in range(10):
            server.invoke(Body=b"x")
        server.answered(3)
        windows = [row for row in server.frame("test", "windows") if row["role"] == "shadow"]
        assert sum(row["copies_made"] for row in windows) == 3
        assert sum(row["copies_lost_max_in_flight"] for row in windows) == 7


def test_a_shadow_that_does_not_answer_gets_few_connections(tmp_path):
    containers = {"source": Container(), "shadow": Container(dead)}
    copy_limits = CopyLimits(timeout_s=0.5, max_wait_s=WAIT_S)
    with serving(tmp_path, containers, copy_limits=copy_limits, copy_connections=2) as server:
        server.experiment()
        began = monotonic()
        for _ in range(6):
            server.invoke(Body=b"x")
        n_sent = len(containers["shadow"].requests)
        assert n_sent <= 2 * (1 + (monotonic() - began) // 0.5)  # each is given up after half a second
        server.answered(6)
        rows = [row for row in server.frame("test", "requests") if row["role"] == "shadow"]
        assert {row["status"] for row in rows} == {"timed_out"}


def test_the_share_is_changed_while_the_experiment_runs(rehearsal):
    sagemaker = rehearsal.client("sagemaker")
    rehearsal.invoke(Body=b"x")
    config = sagemaker.describe_inference_experiment(Name="test")["ShadowModeConfig"]
    config["ShadowModelVariants"][0]["SamplingPercentage"] = 0
    sagemaker.update_inference_experiment(Name="test", ShadowModeConfig=config)
    until(lambda: sagemaker.describe_inference_experiment(Name="test")["Status"] == "Running")
    rehearsal.invoke(Body=b"y")
    rehearsal.answered(2, "AllTraffic")
    rehearsal.answered(1)


def test_invocations_above_the_quota_are_throttled_without_a_message(tmp_path):
    with serving(tmp_path, store={"quotas": Quotas({"Rate of InvokeEndpoint requests": 0.001})}) as server:
        server.experiment()
        server.invoke(Body=b"x")
        with pytest.raises(ClientError) as caught:
            server.invoke(Body=b"x")
        assert caught.value.response["Error"] == {"Code": "ThrottlingException", "Message": None}
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
