"""A rehearsal server in a thread of this process, containers that behave as told, and boto3 in front of it."""

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from urllib.request import Request, urlopen

import boto3
from botocore.config import Config

from shadowsim.server.app import App
from shadowsim.server.settings import Settings
from shadowsim.server.state.destinations import Folders
from shadowsim.server.state.store import Store

ROLE = "arn:aws:iam::111122223333:role/shadowsim"
KEYS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret/of+the=test"}
SHADOW_ACTIONS = {"AllTraffic": "Retain", "Shadow-01": "Remove"}  # for StopInferenceExperiment
WAIT_S = 20.0  # for what takes milliseconds


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def __call__(self, work):
        """Run a coroutine there and return its result."""
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
class Asked:
    """A request as a container got it."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Container:
    """A container's server: `behave(writer, asked)` answers a request, by default with its body."""

    behave: Callable = None
    ping: int = 200
    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=16 * 2**20)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self):
        self._server.close()

    async def _serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *fields = head.decode("latin-1").rstrip().split("\r\n")
                headers = {name.lower(): value for name, value in (f.split(": ", 1) for f in fields)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                asked = Asked(line.split()[1], headers, body)
                if asked.path == "/ping":
                    writer.write(answer(self.ping))
                else:
                    self.asked.append(asked)
                    await (self.behave or echo)(writer, asked)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def answer(status=200, body=b"", **headers):
    """The bytes of an HTTP answer."""
    fields = {"Content-Length": len(body), **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def echo(writer, asked):
    writer.write(answer(200, asked.body, Content_Type=asked.headers.get("content-type", "x/y")))


@dataclass
class Rehearsal:
    """A running server."""

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
        """InvokeEndpoint of the endpoint called "endpoint"."""
        return partial(self.client("sagemaker-runtime").invoke_endpoint, EndpointName="endpoint")

    def client(self, service, **extra):
        """boto3's, without retries; made once for each service."""
        if extra or service not in self.clients:
            retries = Config(retries={"total_max_attempts": 1}, max_pool_connections=32)
            given = {"region_name": "us-east-1", "endpoint_url": self.url, "config": retries, **KEYS}
            made = boto3.client(service, **{**given, **extra})
            return made if extra else self.clients.setdefault(service, made)
        return self.clients[service]

    def renew(self):
        """Let containers echo again, and counts begin at 0."""
        live = self.app.endpoints.by_name.get("endpoint")
        until(lambda: live is None or live.mirror.n_unanswered == 0)
        for container in self.containers.values():
            container.behave = None
            container.asked.clear()
        self.before = {name: self.n_served(name) for name in (live.series if live else ())}

    def n_served(self, variant, endpoint="endpoint"):
        live = self.app.endpoints.by_name.get(endpoint)
        series = live.series if live else {}
        return sum(t.n for t in list(series[variant].periods.values())) if variant in series else 0

    def get(self, path, **headers):
        """The body of a page."""
        with urlopen(Request(self.url + path, headers=headers), timeout=10) as response:
            return response.read()

    def frame(self, experiment, name):
        return json.loads(self.get(f"/shadowsim/experiments/{experiment}/{name}.json"))

    def experiment(self, name="test", endpoint="endpoint", percentage=100, models=("source", "shadow"), **request):
        """Create the models and an experiment on them, and wait until it runs."""
        sagemaker = self.client("sagemaker")
        for model in set(models):
            image = {"Image": "111122223333.dkr.ecr.us-east-1.amazonaws.com/model:1"}
            sagemaker.create_model(ModelName=model, PrimaryContainer=image, ExecutionRoleArn=ROLE)
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
        return sagemaker

    def answered(self, n, variant="Shadow-01"):
        """Wait until a variant has done with n requests, and see that it is no more."""
        until(lambda: self.n_served(variant) - self.before.get(variant, 0) >= n)
        assert self.n_served(variant) - self.before.get(variant, 0) == n


def variant(name, model, n_instances=1):
    pool = {"InstanceType": "ml.m5.xlarge", "InstanceCount": n_instances}
    infrastructure = {"InfrastructureType": "RealTimeInference", "RealTimeInferenceConfig": pool}
    return {"ModelName": model, "VariantName": name, "InfrastructureConfig": infrastructure}


def until(holds):
    end = monotonic() + WAIT_S
    while not holds():
        assert monotonic() < end, "it did not come true"
        sleep(0.01)


@contextmanager
def serving(tmp_path, containers=None, *, urls=None, store=None, **settings):
    """A server; `containers` are by model and stop with it, `urls` are those of others."""
    loop, given = Loop(), containers or {}

    async def start():
        for container in given.values():
            await container.start()
        places = {model: (url,) for model, url in (urls or {}).items()}
        places |= {model: (container.url,) for model, container in given.items()}
        options = {"transition_s": 0.01, "probed": frozenset(places), **(store or {})}
        kept = Store(options.pop("path", ":memory:"), **options)
        sink = settings.pop("sink", None) or Folders(tmp_path / "s3")
        app = App(Settings(port=0, sink=sink, containers=places, **{"grace_s": 5.0, **settings}), kept)
        await app.start()
        return app, kept

    async def stop(app, kept):
        await app.stop()
        kept.close()
        for container in given.values():
            await container.stop()

    try:
        app, kept = loop(start())
        try:
            yield Rehearsal(app.url, app, kept, loop, tmp_path / "s3", given)
        finally:
            loop(stop(app, kept))
    finally:
        loop.close()
