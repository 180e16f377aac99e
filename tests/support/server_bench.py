"""Processes for benchmarks of the rehearsal server: generators of load, backends, servers and nginx's mirror."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import boto3
import numpy as np
from wire import BODY

WIRE = Path(__file__).with_name("wire.py")
BLOCKS = 12
RATE_PER_S, RACE_S, SETTLE_S = 100.0, 30.0, 30.0
ROLE = "arn:aws:iam::111122223333:role/shadowsim"


@dataclass
class Load:
    """The measurements of a generator by URL, and the processor time of the server meanwhile."""

    took_s: dict[str, list[float]]
    bad: list[str]
    elapsed_s: float
    cpu_s: float
    server_cpu_s: float = 0.0
    n_given_up: int = 0

    @property
    def n(self) -> int:
        """Number of answers."""
        return sum(map(len, self.took_s.values()))

    def blocks(self, url: str, q: float) -> list[float]:
        """Return a quantile of the seconds that answers took, one per block of requests."""
        return [float(np.quantile(block, q)) for block in np.array_split(self.took_s[url], BLOCKS)]


class Bench:
    """Starts and ends the processes: backends, servers and nginx."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._processes: list[subprocess.Popen[str]] = []
        self._backends: dict[str, subprocess.Popen[str]] = {}

    def start(self, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=self.folder)
        self._processes.append(process)
        return process

    def backend(self, behaviour: float | str = 0.0, niceness: int = 0) -> str:
        process = self.start("nice", "-n", str(niceness), sys.executable, str(WIRE), "serve", str(behaviour))
        assert process.stdout is not None
        url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        self._backends[url] = process
        return url

    def kill(self, url: str) -> None:
        """End the backend at a URL."""
        process = self._backends.pop(url)
        process.kill()
        process.wait(30)

    def server(
        self, source: str, shadow: str, percentage: int = 100, n: int = 1, *, captures: bool = False
    ) -> tuple[str, int]:
        """Start a server in n processes whose endpoint copies; return the URL to invoke and the process id."""
        process = self.start(
            *(sys.executable, "-m", "shadowsim", "serve", "--port", "0", "--transition-s", "0"),
            *("--backend", f"a={source}", "--backend", f"b={shadow}", "--s3-root", str(self.folder / "s3")),
            *("--processes", str(n)),
            *(("--flush-s", "2") if captures else ()),
        )
        assert process.stdout is not None
        url = next(m[1] for line in process.stdout if (m := re.search(r"serves at (\S+)", line)))
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "us-east-1"}
        sagemaker = boto3.client("sagemaker", endpoint_url=url, **keys)
        variants = []
        for model in "ab":
            image = {"Image": "111122223333.dkr.ecr.us-east-1.amazonaws.com/model:1"}
            sagemaker.create_model(ModelName=model, PrimaryContainer=image, ExecutionRoleArn=ROLE)
            pool = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1}
            infrastructure = {"InfrastructureType": "RealTimeInference", "RealTimeInferenceConfig": pool}
            variants.append({"ModelName": model, "VariantName": model, "InfrastructureConfig": infrastructure})
        shadow_config = {"ShadowModelVariantName": "b", "SamplingPercentage": percentage}
        sagemaker.create_inference_experiment(
            Name="bench",
            Type="ShadowMode",
            RoleArn=ROLE,
            EndpointName="e",
            ModelVariants=variants,
            ShadowModeConfig={"SourceModelVariantName": "a", "ShadowModelVariants": [shadow_config]},
            **({"DataStorageConfig": {"Destination": "s3://bucket/captures"}} if captures else {}),
        )
        end = time.monotonic() + 30.0
        while sagemaker.describe_inference_experiment(Name="bench")["Status"] != "Running":
            assert time.monotonic() < end
            time.sleep(0.05)
        return f"{url}/endpoints/e/invocations", process.pid

    def lean_backend(self) -> str:
        """Start a backend in C that answers what the generators expect, where there is nginx; return its URL."""
        port = free_port()
        answer = f'location / {{ default_type a/b; return 200 "{BODY.decode()}"; }}'
        if not self._start_nginx(f"backend-{port}", f"server {{ listen 127.0.0.1:{port}; {answer} }}"):
            return self.backend()
        return f"http://127.0.0.1:{port}"

    def nginx(self, source: str, shadow: str) -> str | None:
        """Start nginx's mirror in front of two backends; return its URL, or None without nginx."""
        port = free_port()
        places = {name: url.removeprefix("http://") for name, url in (("source", source), ("shadow", shadow))}
        upstreams = "".join(f"upstream {n} {{ server {p}; keepalive 64; }}\n" for n, p in places.items())
        passed = 'proxy_http_version 1.1; proxy_set_header Connection "";'
        is_there = self._start_nginx(
            "mirror",
            f"{upstreams} server {{ listen 127.0.0.1:{port};\n"
            f"location / {{ mirror /mirror; mirror_request_body on; {passed} proxy_pass http://source/invocations; }}\n"
            f"location = /mirror {{ internal; {passed} proxy_pass http://shadow/invocations; }} }}",
        )
        return f"http://127.0.0.1:{port}/" if is_there else None

    def _start_nginx(self, name: str, settings: str) -> bool:
        """Start nginx with what is to stand in its http block; return False without nginx."""
        program = shutil.which("nginx")
        if program is None:
            assert "CI" not in os.environ, "CI needs nginx"
            return False
        folder = self.folder / name
        folder.mkdir()
        file = folder / "nginx.conf"
        file.write_text(
            f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log /dev/null;\n"
            f"events {{}}\nhttp {{ access_log off; client_body_temp_path {folder}/body;\n"
            f"proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;\n"
            f"uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n"
            f"keepalive_requests 1000000; {settings} }}\n"
        )
        self.start(program, "-c", str(file), "-e", "/dev/null")
        time.sleep(0.5)
        return True

    def load(self, url: str, seconds: float, pid: int | None = None, connections: int = 16) -> Load:
        """Run a generator that sends the next request when one is answered."""
        return self._generate(pid, "load", str(seconds), str(connections), url)

    def race(self, *urls: str, seconds: float = RACE_S, rate_per_s: float = RATE_PER_S, pid: int | None = None) -> Load:
        """Run a generator that calls all URLs at the same time, each at a rate."""
        return self._generate(pid, "race", str(seconds), str(rate_per_s), *urls)

    def ask_too_much(self, url: str, seconds: float, rate_per_s: float, most_in_flight: int) -> Load:
        """Run a generator that asks at a rate, and gives up what is due while too many requests are unanswered."""
        return self._generate(None, "overload", str(seconds), str(rate_per_s), str(most_in_flight), url)

    def _generate(self, pid: int | None, *arguments: str) -> Load:
        before = cpu_of(pid)
        command = [sys.executable, str(WIRE), *arguments]
        within_s = float(arguments[1]) + 120.0
        out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=within_s).stdout
        return Load(**json.loads(out), server_cpu_s=cpu_of(pid) - before)

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(30)
            if process.stdout is not None:
                process.stdout.close()


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def cpu_of(pid: int | None) -> float:
    """Return the processor time of a process and of its children in seconds."""
    if pid is None:
        return 0.0
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has just ended
            continue
        if pid in (int(file.parent.name), int(fields[1])):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / 100.0


def copies_of(url: str) -> dict[str, float]:
    """Return the copies that the server of an endpoint's URL has made, those lost by cause, and its requests."""
    found: dict[str, float] = {}
    with urlopen(f"{url.partition('/endpoints')[0]}/metrics", timeout=30) as response:
        for line in response.read().decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name.startswith("shadowsim_copies_lost_total{"):
                found[re.findall(r'cause="(\w+)"', name)[0]] = float(value)
            elif name.startswith("shadowsim_invocations_total{") and 'role="shadow"' in name:
                found["made"] = float(value)
            elif name.startswith("shadowsim_invocations_total{"):
                found["requests"] = float(value)
    return found


def settled(url: str, n_asked: int) -> dict[str, float]:
    """Return `copies_of` a URL once each of so many requests has a copy or a cause of its loss, or after SETTLE_S."""
    end_s = time.monotonic() + SETTLE_S
    while True:
        copies = copies_of(url)
        if sum(copies.values()) - copies["requests"] >= n_asked or time.monotonic() > end_s:
            return copies
        time.sleep(0.2)


def at_rest(url: str) -> dict[str, float]:
    """Return `copies_of` a URL once nothing is added to them any more, or after SETTLE_S."""
    end_s, copies = time.monotonic() + SETTLE_S, copies_of(url)
    while True:
        before = copies
        time.sleep(0.3)  # processes report less often than they answer
        copies = copies_of(url)
        if copies == before or time.monotonic() > end_s:
            return copies


def memory_of(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    match = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) / 1024.0


def processes_of(pid: int) -> dict[int, str]:
    """Return the names of a server's processes by process id, of its supervisor "serve"."""
    found = {pid: "serve"}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(file.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found[int(file.parent.name)] = (file.parent / "cmdline").read_text().split("\0")[-4]
        except (OSError, IndexError):  # it has just ended
            continue
    return found


def own_memory_of(pid: int) -> float:
    """Return the memory of a process in MB; what it shares with others is theirs in equal parts."""
    match = re.search(r"^Pss:\s*(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) / 1024.0
