"""A server in processes, as `shadowsim serve` starts it, and its processes by name."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import boto3
from botocore.config import Config
from serving import KEYS, Loop, create_experiment, create_models, until

WIRE = Path(__file__).with_name("wire.py")
START_S = 150.0  # longer than the supervisor waits, which then says for which process


@dataclass
class ServerProcesses:
    """A running server: its URL, the process of `serve`, and the lines that it printed."""

    url: str
    process: subprocess.Popen
    lines: list[str]
    folder: Path
    clients: dict[str, object] = field(default_factory=dict)

    def client(self, service):
        """Return boto3's client of a service, without retries."""
        if service not in self.clients:
            retries = Config(retries={"total_max_attempts": 1}, max_pool_connections=32)
            options = {"region_name": "us-east-1", "endpoint_url": self.url, "config": retries, **KEYS}
            self.clients[service] = boto3.client(service, **options)
        return self.clients[service]

    @property
    def invoke(self):
        """Call InvokeEndpoint of the endpoint called "endpoint"."""
        return partial(self.client("sagemaker-runtime").invoke_endpoint, EndpointName="endpoint")

    def experiment(self, **request):
        """Create models and an experiment on them, and wait until it runs."""
        create_models(self.client("sagemaker"), "a", "b")
        create_experiment(self.client("sagemaker"), **request)

    def connections(self, n):
        """Return n connections."""
        return [HTTPConnection(urlsplit(self.url).netloc, timeout=30.0) for _ in range(n)]

    def get(self, path, **headers):
        token = re.search(r"need \?token=(\S+)", self.lines[-1])  # of a server that verifies signatures
        path += f"?token={token[1]}" if token else ""
        with urlopen(Request(self.url + path, headers=headers), timeout=30) as response:
            return response.read()

    def frame(self, name, experiment="test"):
        return json.loads(self.get(f"/shadowsim/experiments/{experiment}/{name}.json"))

    def metric(self, name, **labels):
        """Return the sum of a metric's values with some labels."""
        total = 0.0
        for line in self.get("/metrics").decode().splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == f"shadowsim_{name}":
                found = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
                if labels.items() <= found.items():
                    total += float(match[3])
        return total

    def counted(self, n_source, n_shadow):
        """Wait until so many requests and copies are counted, and check that there are no more."""

        def n(role):
            return self.metric("invocations_total", endpoint="endpoint", role=role)

        until(lambda: n("source") >= n_source and n("shadow") >= n_shadow)
        assert (n("source"), n("shadow")) == (n_source, n_shadow)

    @property
    def pids(self):
        """Process ids of its parts by name; without parts, that of the whole as "worker-0"."""
        found = {}
        for pid in children(self.process.pid):
            command = command_of(pid)
            if "shadowsim.server.processes" in command:
                found[command[command.index("shadowsim.server.processes") + 1]] = pid
        return found

    def kill(self, name):
        """Kill a part, and return whether it was there."""
        pid = self.pids.get(name)
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        return True

    def stop(self):
        """Stop the server as Ctrl-C does; return its exit status."""
        self.process.terminate()
        status = self.process.wait(60)
        self.lines += self.process.stdout.read().splitlines()
        return status

    @property
    def log(self):
        return (self.folder / "log").read_text()


def children(pid):
    """Return the process ids of a process's children."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(file.parent.name))
    return found


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


@contextmanager
def serving_processes(folder, n, *options, containers=()):
    """Run a server in n processes; `containers` are models that get an echoing process each, or containers by model."""
    started, backends, loop = [], [], None
    try:
        if isinstance(containers, dict):
            loop = Loop()
            for model, container in containers.items():
                loop(container.start())
                backends += ["--backend", f"{model}={container.url}"]
        for model in () if loop else containers:
            command = [sys.executable, str(WIRE), "serve", "0"]
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            backends += ["--backend", f"{model}=http://127.0.0.1:{started[-1].stdout.readline().strip()}"]
        # like the command `shadowsim`, it imports nothing from the folder in which it runs
        command = [sys.executable, "-P", "-m", "shadowsim", "serve", "--port", "0", "--processes", str(n), *backends]
        command += ["--s3-root", str(folder / "s3"), *options]
        with (folder / "log").open("a") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder)
        started.append(process)
        lines = printed(process, folder)
        url = next(line.split()[-1] for line in lines if line.startswith("shadowsim serves at "))
        server = ServerProcesses(url, process, lines, folder)
        yield server
        for client in server.clients.values():
            client.close()
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        log = (folder / "log").read_text()
        assert "a defect" not in log, log
        assert "Traceback" not in log, log
    finally:
        for process in started:
            process.kill()
            process.wait(30)
            process.stdout.close()
        if loop:
            for container in containers.values():
                loop(container.stop())
            loop.close()


def printed(process, folder):
    """Return the lines that a server prints at its start."""
    lines, deadline = [], threading.Timer(START_S, process.kill)  # ends the loop
    deadline.start()
    try:
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("# "):
                return lines
    finally:
        deadline.cancel()
    raise AssertionError(f"the server did not start:\n{(folder / 'log').read_text()[-5000:]}")


def wait_for_parts(server, names, within_s=30.0):
    """Wait until parts of a server run."""
    end_s = monotonic() + within_s
    while not set(names) <= server.pids.keys():
        assert monotonic() < end_s, server.log[-3000:]
        sleep(0.05)
