"""Measures the load generator: pacing, lag, CPU per request, the limit of its rate, and wrk, autocannon and locust.

All load one aiohttp server in a process of its own. Where the machine has several cores, the server is pinned to the
first and the generator to the second. The pacing is asserted as far as it does not depend on the machine: every planned
request is sent. Times are reported, since other programs affect them. wrk and autocannon do not pace single requests,
and locust's users wait for answers: their rates are what they were asked for, if the server can follow.

A peer that is not on the PATH is skipped: wrk is Debian's, autocannon npm's, locust from PyPI (all may stand in
environments of their own).
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from shadowsim.text import time_text

Row = Callable[[str, str, str], None]

LENGTH_S, PEER_S, PEER_RATE = 30, 10, 1_000
SEED = 7
SERVER = """
import asyncio
from aiohttp import web
async def answer(request):
    await request.read()
    return web.Response(body=b'{"predictions": [0.5]}', content_type="application/json")
async def main():
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
LOCUST = """
from locust import FastHttpUser, constant_throughput, task
class Caller(FastHttpUser):
    wait_time = constant_throughput(10)
    @task
    def call(self):
        self.client.post("/invocations", data=b"x" * 33)
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with subprocess.Popen([*_pinned(0), sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/invocations"
        server.kill()


@pytest.mark.parametrize("rate", [500, 1_000])
def test_pacing(url: str, rate: int, table: Row) -> None:
    run, _ = _loaded(url, rate, LENGTH_S)
    asked, achieved = run["run"]["asked"], run["run"]["achieved"]
    assert achieved["requests"] == asked["requests"]
    assert achieved["rate_per_s"] == pytest.approx(asked["drawn_rate_per_s"], rel=0.005)
    name = f"load, Poisson {rate}/s for {LENGTH_S} s"
    table(f"{name}: achieved", f"{achieved['rate_per_s']:.1f}/s", f"{asked['drawn_rate_per_s']:.1f}/s drawn")
    table(f"{name}: SCV of gaps", f"{achieved['gap_scv']:.3f}", f"{asked['gap_scv']:.3f} planned; 0.95 to 1.05")
    lag = f"{time_text(achieved['lag_p50_s'])}, {time_text(achieved['lag_p99_s'])}"
    starved = achieved["starved_share"][0] or 0.0
    table(f"{name}: lag p50, p99", lag, f"1 ms on a quiet core; had no core for {100 * starved:.0f} %")
    table(f"{name}: CPU", f"{100 * achieved['cpu_share'][0]:.0f} % of a core", run["summary"]["verdict"])


def test_too_high_a_rate_is_invalid(url: str, table: Row) -> None:
    run, _ = _loaded(url, 50_000, 5)
    assert run["summary"]["verdict"].startswith("invalid")
    table("load, 50,000/s", run["summary"]["verdict"], f"{run['run']['achieved']['rate_per_s']:,.0f}/s sent")


def test_shadowsim_beside_the_peers(url: str, table: Row) -> None:
    run, cpu_s = _loaded(url, PEER_RATE, PEER_S)
    figures, achieved = run["summary"], run["run"]["achieved"]
    latency = f"p50 {time_text(figures['p50_s'] or float('nan'))}, p99 {time_text(figures['p99_s'] or float('nan'))}"
    each = sum(achieved["cpu_share"]) * PEER_S / achieved["requests"]
    table(
        f"shadowsim {PEER_RATE}/s",
        f"{achieved['rate_per_s']:.0f}/s, {latency}",
        _cpu(each, cpu_s, achieved["requests"]),
    )


def test_wrk(url: str, table: Row) -> None:
    text, cpu_s = _run([_program("wrk"), "-t1", "-c8", f"-d{PEER_S}s", "--latency", url])
    n = int(re.search(r"(\d+) requests in", text)[1])  # type: ignore[index]
    p50, p99 = (re.search(rf"{p}%\s+(\S+)", text)[1] for p in (50, 99))  # type: ignore[index]
    table("wrk, 8 connections, no rate", f"{n / PEER_S:.0f}/s, p50 {p50}, p99 {p99}", _cpu(cpu_s / n, cpu_s, n))


def test_autocannon(url: str, table: Row) -> None:
    command = [_program("autocannon"), "-j", "-m", "POST", "-b", "x" * 33, "-c", "8", "-R", str(PEER_RATE)]
    text, cpu_s = _run([*command, "-d", str(PEER_S), url])
    answer = json.loads(text[text.index("{") :])
    n, latency = answer["requests"]["total"], answer["latency"]
    shown = f"{n / PEER_S:.0f}/s, p50 {latency['p50']} ms, p99 {latency['p99']} ms"
    table(f"autocannon -R {PEER_RATE}", shown, _cpu(cpu_s / n, cpu_s, n))


def test_locust(url: str, table: Row, tmp_path: Path) -> None:
    program = _program("locust")
    (tmp_path / "locustfile.py").write_text(LOCUST)
    users = str(PEER_RATE // 10)
    command = [program, "--headless", "-u", users, "-r", users, "-t", f"{PEER_S}s", "-f", "locustfile.py", "--json"]
    text, cpu_s = _run([*command, "--host", url.rpartition("/")[0]], tmp_path)
    stats = json.loads(text[text.index("[") :])[0]
    n, times = stats["num_requests"], {float(k): v for k, v in stats["response_times"].items()}
    p50, p99 = _quantile(times, 0.5), _quantile(times, 0.99)
    shown = f"{n / PEER_S:.0f}/s, p50 {p50:g} ms, p99 {p99:g} ms (rounded by locust)"
    table(f"locust, {users} users at 10/s", shown, _cpu(cpu_s / n, cpu_s, n))


def _loaded(url: str, rate: int, length_s: int) -> tuple[dict[str, dict[str, object]], float]:  # type: ignore[type-arg]
    """Return what `shadowsim load --json` prints, and its CPU time with its start."""
    command = [sys.executable, "-m", "shadowsim", "load", url, "--rate", str(rate), "--duration", str(length_s)]
    text, cpu_s = _run([*command, "--seed", str(SEED), "--json"])
    return json.loads(text), cpu_s


def _run(command: Sequence[str], folder: Path | None = None) -> tuple[str, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*_pinned(1), *command], capture_output=True, text=True, timeout=300, check=False, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _pinned(core: int) -> list[str]:
    cores = sorted(os.sched_getaffinity(0))
    taskset = shutil.which("taskset")
    return [taskset, "-c", str(cores[core])] if taskset and len(cores) > core else []


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} on the PATH")
    return found


def _cpu(each_s: float, total_s: float, n: int) -> str:
    """Return CPU time of a request while it sends, and of the whole program over its requests."""
    return f"{each_s * 1e6:.0f} us CPU a request ({total_s / n * 1e6:.0f} with its start)"


def _quantile(counts: dict[float, int], q: float) -> float:
    rank, seen = q * sum(counts.values()), 0
    for value, count in sorted(counts.items()):
        seen += count
        if seen >= rank:
            return value
    return float("nan")
