"""The clients that callers of shadow tests use, each asking the same of the server: answers, streams, errors, metrics.

aiobotocore, boto3, curl, openai's client, the AWS CLI and SageMaker's SDK ask a server in one process and one in two,
which copies all of it. The last two pin what others pin otherwise, so each has an environment of its own, in slow
tests.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import closing, contextmanager
from functools import partial

import pytest
from aiobotocore.session import get_session
from bearer import token
from botocore.exceptions import ClientError
from serving import KEYS, Container, answer, until
from serving_processes import serving_processes

PARTS = [b"one", b" two", b" three"]
QUESTION = {"messages": [{"role": "user", "content": "?"}]}
REGION = "us-east-1"


async def behave(writer, request):
    """Answer as a container that streams what is asked as a stream, and fails on the body "fail"."""
    if request.body == b"fail":
        writer.write(answer(500, b"went wrong"))
        return
    asked = json.loads(request.body) if request.body.startswith(b"{") else {}
    parts, kind = PARTS, "text/plain"
    if "messages" in asked and not asked.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", "content": "one two three"}, "finish_reason": "stop"}
        whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        writer.write(answer(200, json.dumps(whole).encode(), Content_Type="application/json"))
        return
    if asked.get("stream"):
        kind, parts = "text/event-stream", [*map(event, PARTS), b"data: [DONE]\n\n"]
    elif request.body != b"stream":
        writer.write(answer(200, request.body, Content_Type="text/plain"))
        return
    writer.write(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: {kind}\r\n\r\n".encode())
    for part in parts:
        writer.write(b"%x\r\n%b\r\n" % (len(part), part))
        await writer.drain()
    writer.write(b"0\r\n\r\n")


def event(part):
    choice = {"index": 0, "delta": {"content": part.decode()}, "finish_reason": None}
    whole = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(whole).encode() + b"\n\n"


class Boto3:
    """boto3's clients."""

    def __init__(self, server):
        self.runtime, self.cloudwatch = server.client("sagemaker-runtime"), server.client("cloudwatch")

    def invoke(self, body):
        try:
            return self.runtime.invoke_endpoint(EndpointName="endpoint", Body=body)["Body"].read()
        except ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"]

    def stream(self):
        asked = {"EndpointName": "endpoint", "Body": b"stream"}
        with closing(self.runtime.invoke_endpoint_with_response_stream(**asked)["Body"]) as events:
            return [event["PayloadPart"]["Bytes"] for event in events]

    def n_metrics(self):
        return len(self.cloudwatch.list_metrics(MetricName="Invocations")["Metrics"])


class Aiobotocore:
    """The same through aiobotocore."""

    def __init__(self, server):
        self.arguments = {"region_name": REGION, "endpoint_url": server.url, **KEYS}

    def run(self, service, work):
        async def asked():
            async with get_session().create_client(service, **self.arguments) as client:
                return await work(client)

        return asyncio.run(asked())

    def invoke(self, body):
        async def work(client):
            try:
                return await (await client.invoke_endpoint(EndpointName="endpoint", Body=body))["Body"].read()
            except ClientError as error:
                return error.response["ResponseMetadata"]["HTTPStatusCode"]

        return self.run("sagemaker-runtime", work)

    def stream(self):
        async def work(client):
            asked = {"EndpointName": "endpoint", "Body": b"stream"}
            events = (await client.invoke_endpoint_with_response_stream(**asked))["Body"]
            return [event["PayloadPart"]["Bytes"] async for event in events]

        return self.run("sagemaker-runtime", work)

    def n_metrics(self):
        async def work(client):
            return len((await client.list_metrics(MetricName="Invocations"))["Metrics"])

        return self.run("cloudwatch", work)


class Curl:
    """curl, with its own signatures."""

    def __init__(self, server):
        if shutil.which("curl") is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)("curl is not installed")
        self.url = server.url

    def run(self, path, body, *more, service="sagemaker"):
        signed = ["--aws-sigv4", f"aws:amz:{REGION}:{service}", "--user", ":".join(KEYS.values())]
        run = ["curl", "-sS", "-N", *signed, "--data-binary", body, *more, self.url + path]
        return subprocess.run(run, capture_output=True, check=True, timeout=20).stdout

    def invoke(self, body):
        out = self.run("/endpoints/endpoint/invocations", body.decode(), "-w", "\n%{http_code}")
        text, _, status = out.rpartition(b"\n")
        return text if status == b"200" else int(status)

    def stream(self):
        path = "/endpoints/endpoint/openai/v1/chat/completions"
        lines = self.run(path, json.dumps(QUESTION | {"stream": True})).decode().split("\n\n")
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line not in ("", "data: [DONE]")]
        return [event["choices"][0]["delta"]["content"].encode() for event in events]

    def n_metrics(self):
        headers = ["-H", "X-Amz-Target: GraniteServiceVersion20100801.ListMetrics"]
        headers += ["-H", "Content-Type: application/x-amz-json-1.0"]
        out = self.run("/", '{"MetricName": "Invocations"}', *headers, service="monitoring")
        return len(json.loads(out)["Metrics"])


class OpenAI:
    """OpenAI's client, with a bearer token; it knows neither other bodies nor metrics."""

    def __init__(self, server):
        openai = pytest.importorskip("openai")
        base, key = f"{server.url}/endpoints/endpoint/openai/v1", token().removeprefix("Bearer ")
        self.open = partial(openai.OpenAI, base_url=base, api_key=key, max_retries=0, timeout=20.0)

    def invoke(self, body):
        if body == b"fail":
            return 424
        with self.open() as api:
            chat = api.chat.completions.create(model="m", **QUESTION)
        return body if chat.choices[0].message.content == "one two three" else b""

    def stream(self):
        with self.open() as api, api.chat.completions.create(model="m", stream=True, **QUESTION) as events:
            return [event.choices[0].delta.content.encode() for event in events]

    def n_metrics(self):
        return 2


def checked(client):
    """Ask through a client all that each can ask, and check what it gets."""
    assert client.invoke(b"hello") == b"hello"
    assert client.invoke(b"fail") == 424  # ModelError
    assert b"".join(client.stream()) == b"".join(PARTS)
    assert client.n_metrics() == 2


@pytest.fixture(scope="module", params=[1, 2])
def server(request, tmp_path_factory):
    """A server whose requests are signed and copied."""
    folder = tmp_path_factory.mktemp("server")
    key, secret = KEYS.values()
    (folder / "keys").write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    options = ("--transition-s", "0", "--credentials", str(folder / "keys"))
    containers = {"a": Container(behave), "b": Container(behave)}
    with serving_processes(folder, request.param, *options, containers=containers) as server:
        server.containers = containers
        server.experiment()
        until(lambda: server.invoke(Body=b"first")["Body"].read() and Boto3(server).n_metrics() == 2)
        yield server


@contextmanager
def all_copied(server, n):
    """Check that what follows is n requests, and that the shadow gets them all, but for what a busy machine sheds."""
    source, shadow = (container.requests for container in server.containers.values())

    def n_lost():
        return server.metric("copies_lost_total", cause="server_lag")

    until(lambda: len(shadow) + n_lost() >= len(source))
    source.clear()
    shadow.clear()
    n_before = n_lost()
    yield
    assert len(source) == n
    until(lambda: len(shadow) + n_lost() - n_before >= n)
    assert len(shadow) + n_lost() - n_before == n
    assert not Counter(request.body for request in shadow) - Counter(request.body for request in source)


@pytest.mark.parametrize("client", [Boto3, Aiobotocore, Curl, OpenAI])
def test_a_client_is_answered_streamed_to_refused_and_told_metrics(server, client):
    with all_copied(server, 2 if client is OpenAI else 3):
        checked(client(server))


def environment_with(folder, *packages):
    """Return the folder of the commands of a new environment with packages."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    subprocess.run(pip, check=True, timeout=400)
    return folder / "bin"


def variables(server):
    names = ("SAGEMAKER", "SAGEMAKER_RUNTIME", "CLOUDWATCH", "APPLICATION_AUTO_SCALING")
    environment = {f"AWS_ENDPOINT_URL_{name}": server.url for name in names}
    key, secret = KEYS.values()
    environment |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": REGION}
    return {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **environment}


SDK = """
import boto3, json
from sagemaker.base_serializers import IdentitySerializer
from sagemaker.deserializers import BytesDeserializer
from sagemaker.iterators import ByteIterator
from sagemaker.predictor import Predictor
from sagemaker.session import Session

session = Session(
    boto_session=boto3.Session(), sagemaker_client=boto3.client("sagemaker"),
    sagemaker_runtime_client=boto3.client("sagemaker-runtime"), default_bucket="bucket",
)
predictor = Predictor("endpoint", session, IdentitySerializer("text/plain"), BytesDeserializer())
whole = predictor.predict(b"hello").decode()
parts = [part.decode() for part in predictor.predict_stream(b"stream", iterator=ByteIterator)]
try:
    failed = predictor.predict(b"fail")
except Exception as error:
    failed = type(error).__name__
print(json.dumps([whole, "".join(parts), failed]))
"""


@pytest.fixture(scope="module")
def with_sdk(tmp_path_factory):
    """The path of an interpreter that has SageMaker's SDK."""
    return environment_with(tmp_path_factory.mktemp("sdk"), "sagemaker<3") / "python"


@pytest.mark.slow
def test_sagemaker_s_sdk_predicts_and_streams(server, with_sdk):
    command = [with_sdk, "-c", SDK]
    with all_copied(server, 3):
        done = subprocess.run(command, env=variables(server), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["hello", "one two three", "ModelError"]
