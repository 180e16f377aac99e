"""A server in a thread of this process, containers with scripted behaviour, and boto3 clients."""

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from unittest.mock import patch
from urllib.request import Request, urlopen

import boto3
from botocore.config import Config

from shadowsim.server.app import App
from shadowsim.server.data_plane import connections
from shadowsim.server.data_plane.mirror import CopyLimits
from shadowsim.server.settings import Settings
from shadowsim.server.state.destinations import Folders
from shadowsim.server.state.store import Store

ROLE = "arn:aws:iam::111122223333:role/shadowsim"
KEYS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret/of+the=test"}
IMAGE = {"Image": "111122223333.dkr.ecr.us-east-1.amazonaws.com/model:1"}
SHADOW_ACTIONS = {"AllTraffic": "Retain", "Shadow-01": "Remove"}  # for StopInferenceExperiment
CONNECT_S = 5.0  # for containers on a busy machine, where a thread may stand still for longer than SageMaker's time-out
WAIT_S = 20.0  # deadline of waits that take milliseconds


class Loop:
    """An event loop in its own thread."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def __call__(self, work):
        """Run a coroutine in the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60.0)

    def close(self):
        async def drain():
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.loop.shutdown_default_executor()

        self(drain())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10.0)
        self.loop.close()


@dataclass
class ReceivedRequest:
    """A request as a container received it."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Container:
    """A container: `behave(writer, request)` answers an invocation, by default with its body."""

    behave: Callable = None
    ping: int = 200
    url: str = ""
    requests: list[ReceivedRequest] = field(default_factory=list)
    _tasks: set[asyncio.Task] = field(default_factory=set)

    async def start(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=16 * 2**20)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self):
        for _ in range(4):  # asyncio forgets sockets that it is accepting when the server closes
            await asyncio.sleep(0)
        self._server.close()

    def _accept(self, reader, writer):
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)

        def close(_):  # a task that is cancelled before its first step runs nothing of its own, not even `finally`
            self._tasks.discard(task)
            writer.close()

        task.add_done_callback(close)

    async def _serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *fields = head.decode("latin-1").rstrip().split("\r\n")
                headers = {name.lower(): value for name, value in (f.split(": ", 1) for f in fields)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = ReceivedRequest(line.split()[1], headers, body)
                if request.path == "/ping":
                    writer.write(answer(self.ping))
                else:
                    self.requests.append(request)
                    await (self.behave or echo)(writer, request)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass


def answer(status=200, body=b"", **headers):
    """Return the bytes of an HTTP answer."""
    fields = {"Content-Length": len(body), **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"HTTP/1.1 {status} Reason", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def echo(writer, request):
    writer.write(answer(200, request.body, Content_Type=request.headers.get("content-type", "x/y")))


@dataclass
class Rehearsal:
    """A running server and its containers."""

    url: str
    app: App
    store: Store
    loop: Loop
    s3: Path
    containers: dict[str, Container]
    before: dict[str, int] = field(default_factory=dict)
    clients: dict[str, object] = field(default_factory=dict)

    @property
    def invoke(self):
        """Call InvokeEndpoint of the endpoint called "endpoint"."""
        return partial(self.client("sagemaker-runtime").invoke_endpoint, EndpointName="endpoint")

    def client(self, service, **extra):
        """Return boto3's client of a service, without retries; one without extra arguments is made once."""
        if extra or service not in self.clients:
            retries = Config(retries={"total_max_attempts": 1}, max_pool_connections=32)
            arguments = {"region_name": "us-east-1", "endpoint_url": self.url, "config": retries, **KEYS}
            client = boto3.client(service, **{**arguments, **extra})
            return client if extra else self.clients.setdefault(service, client)
        return self.clients[service]

    def renew(self):
        """Let containers echo again, and restart the counts of `answered`."""
        live = self.app.endpoints.by_name.get("endpoint")
        until(lambda: live is None or live.mirror.n_unanswered == 0)
        for container in self.containers.values():
            container.behave = None
            container.requests.clear()
        self.before = {name: self.n_served(name) for name in (live.series if live else ())}

    def n_served(self, variant, endpoint="endpoint"):
        live = self.app.endpoints.by_name.get(endpoint)
        return sum(t.n for t in live.series[variant].totals.values()) if live and variant in live.series else 0

    def get(self, path, **headers):
        """Return the body of a page."""
        with urlopen(Request(self.url + path, headers=headers), timeout=10) as response:
            return response.read()

    def frame(self, experiment, name):
        return json.loads(self.get(f"/shadowsim/experiments/{experiment}/{name}.json"))

    def experiment(self, name="test", endpoint="endpoint", percentage=100, models=("source", "shadow"), **request):
        """Create the models and an experiment on them, wait until it runs, and return the client."""
        sagemaker = self.client("sagemaker")
        create_models(sagemaker, *set(models))
        create_experiment(sagemaker, name, endpoint, percentage, models, **request)
        return sagemaker

    def answered(self, n, variant="Shadow-01"):
        """Wait until a variant has served n requests, and check that there are no more."""
        until(lambda: self.n_served(variant) - self.before.get(variant, 0) >= n)
        assert self.n_served(variant) - self.before.get(variant, 0) == n


def variant(name, model, n_instances=1):
    pool = {"InstanceType": "ml.m5.xlarge", "InstanceCount": n_instances}
    infrastructure = {"InfrastructureType": "RealTimeInference", "RealTimeInferenceConfig": pool}
    return {"ModelName": model, "VariantName": name, "InfrastructureConfig": infrastructure}


def create_models(sagemaker, *names):
    for name in names:
        sagemaker.create_model(ModelName=name, PrimaryContainer=IMAGE, ExecutionRoleArn=ROLE)


def create_experiment(sagemaker, name="test", endpoint="endpoint", percentage=100, models=("a", "b"), **request):
    """Create an experiment on two models, and wait until it runs."""
    shadow = {"ShadowModelVariantName": "Shadow-01", "SamplingPercentage": percentage}
    sagemaker.create_inference_experiment(
        Name=name,
        Type="ShadowMode",
        RoleArn=ROLE,
        EndpointName=endpoint,
        ModelVariants=[variant("AllTraffic", models[0]), variant("Shadow-01", models[1])],
        ShadowModeConfig={"SourceModelVariantName": "AllTraffic", "ShadowModelVariants": [shadow]},
        **request,
    )
    until(lambda: sagemaker.describe_inference_experiment(Name=name)["Status"] == "Running")


def until(holds, within_s=WAIT_S):
    """Wait until a condition holds, and fail after some time."""
    end_s = monotonic() + within_s
    while not holds():
        assert monotonic() < end_s, "the condition did not come to hold"
        sleep(0.01)


@contextmanager
def serving(tmp_path, containers=None, *, urls=None, store=None, **settings):
    """Run a server. `containers` are by model and stop with it, `urls` are those of other containers by model."""
    loop, own = Loop(), containers or {}

    async def start():
        for container in own.values():
            await container.start()
        by_model = {model: (url,) for model, url in (urls or {}).items()}
        by_model |= {model: (container.url,) for model, container in own.items()}
        options = {"transition_s": 0.01, "probed": frozenset(by_model), **(store or {})}
        account = Store(options.pop("path", ":memory:"), **options)
        sink = settings.pop("sink", None) or Folders(tmp_path / "s3")
        # on a busy machine the loop is late, and copies would be lost
        patient = {"grace_s": 5.0, "copy_limits": CopyLimits(max_wait_s=WAIT_S)}
        app = App(Settings(port=0, sink=sink, containers=by_model, **{**patient, **settings}), account)
        await app.start()
        return app, account

    async def stop(app, account):
        await app.stop()
        account.close()
        for container in own.values():
            await container.stop()

    try:
        app, account = loop(start())
        try:
            with patch.object(connections, "CONNECT_S", CONNECT_S):
                yield Rehearsal(app.url, app, account, loop, tmp_path / "s3", own)
        finally:
            loop(stop(app, account))
    finally:
        loop.close()
