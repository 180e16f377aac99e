"""Compares the time and memory per request of runs from a million to a billion requests.

A longer run is timed in ten parts, each in turn with short runs of a million requests, so that both see the same state
of the machine. Only the kernel's calls are timed: fixed costs such as tables and frames would flatter the longer run.
The ratio is one of processor time, which excludes other programs. Peak memory is measured in separate processes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable
from time import process_time

import pytest
from plain_case import plain_case
from pytest_benchmark.fixture import BenchmarkFixture

from shadowsim import Scenario, simulate
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns
from shadowsim.engine.parallel import Job
from shadowsim.engine.run_state import RunState
from shadowsim.engine.simulate import CHUNK

MILLION = 1_000_000
PARTS = 10
SHORT_RUNS = 10  # before each part: a third of a second
GROWTH = 1.10  # from a million to a billion
WEEK_MB = 400.0
WEEK_S = 604_800.0

# On Linux ru_maxrss includes the memory of the parent process, so VmHWM is read there.
PEAK = """
import re, resource, sys
from pathlib import Path
from shadowsim import Scenario, simulate
result = simulate(Scenario.from_dict({document!r}), workers=1)
status = Path("/proc/self/status")
if status.exists():
    peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text())[1]) * 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
frames = (result.windows, result.latency, result.requests)
print(peak, sum(int(frame.memory_usage(deep=True).sum()) for frame in frames), len(result.windows) // 2)
"""


class Run:
    """A run of the kernel, timed part by part."""

    def __init__(self, n_requests: int) -> None:
        scenario = plain_case(n_requests)
        arrivals = arrivals_of(scenario)
        self.job = Job(columns(scenario, arrivals), arrivals, CHUNK, scenario.sample_requests, 0)
        self.state: RunState = self.job.new_state()
        self.window = 0

    def advance(self, parts: int = 1) -> tuple[int, float]:
        """Simulate one of `parts` equal parts, in kernel calls as long as those of `simulate`.

        Returns
        -------
        tuple of int and float
            Number of requests, and processor time per request in ns.
        """
        before, n = self.state.arrived, self.job.columns.n_windows
        last = min(self.window + -(-n // parts), n)
        began = process_time()
        while self.window < last:
            self.window = min(self.window + self.job.step, last)
            self.state.advance(self.window)
        came = self.state.arrived - before
        return came, 1e9 * (process_time() - began) / came


@pytest.mark.parametrize(
    "n_requests", [10 * MILLION, *(pytest.param(n * MILLION, marks=pytest.mark.long) for n in (100, 1000))]
)
def test_time_per_request(benchmark: BenchmarkFixture, table: Callable[[str, str, str], None], n_requests: int) -> None:
    simulate(plain_case(60_000), workers=1)  # compiles
    long, parts, short_ns = Run(n_requests), [], []

    def short_runs() -> None:
        short_ns.append(statistics.fmean(Run(MILLION).advance()[1] for _ in range(SHORT_RUNS)))

    benchmark.pedantic(lambda: parts.append(long.advance(PARTS)), setup=short_runs, rounds=PARTS)
    n, long_ns = sum(n for n, _ in parts), [ns for _, ns in parts]
    ratios = [a / b for a, b in zip(long_ns, short_ns, strict=True)]
    ratio = statistics.median(ratios)
    benchmark.extra_info.update(requests=n, ratio_to_a_million=ratio, ratios=ratios)
    goal = f", goal < {GROWTH:g} {'met' if ratio < GROWTH else 'missed'}" if n_requests == 1000 * MILLION else ""
    table(
        f"kernel, {n_requests // MILLION:,} million requests, 1 core",
        f"{ratio:.3f} x a million's time per request ({min(ratios):.3f} to {max(ratios):.3f}){goal}",
        f"{statistics.median(long_ns):.1f} ns against {statistics.median(short_ns):.1f} ns, {PARTS} pairs",
    )
    assert long.window == long.job.columns.n_windows
    # Four standard errors of a Poisson count.
    assert abs(n - n_requests) < 4 * n_requests**0.5


def peak_mb(scenario: Scenario) -> tuple[float, float, int]:
    """Return the peak memory of a process that runs a scenario and its frames' size in MB, and its windows."""
    code = PEAK.format(document=scenario.to_dict())
    out = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, timeout=600)
    peak, frames, windows = map(int, out.stdout.split())
    return peak / 1e6, frames / 1e6, windows


@pytest.mark.parametrize(
    ("times", "seconds"),
    [pytest.param(10, WEEK_S / 70, id="short"), pytest.param(100, WEEK_S, id="full", marks=pytest.mark.long)],
)
def test_memory(
    benchmark: BenchmarkFixture, table: Callable[[str, str, str], None], times: int, seconds: float
) -> None:
    """A billion requests need as much memory as ten million in the same number of windows; a week needs its frames."""
    few, few_frames, windows = peak_mb(plain_case(10 * MILLION))
    many, many_frames, same_windows = peak_mb(plain_case(times * 10 * MILLION, period_s=60.0 * times))
    week, week_frames, week_windows = benchmark.pedantic(
        peak_mb, args=(plain_case(round(1000 * seconds)),), rounds=1, iterations=1
    )
    benchmark.extra_info.update(ten_million_mb=few, many_mb=many, week_mb=week)
    table(
        f"peak memory, {times * 10:,} million requests",
        f"{many - few:+.1f} MB against ten million's {few:.0f} MB, in {windows} windows each",
        f"frames {few_frames:.1f} and {many_frames:.1f} MB",
    )
    table(
        f"peak memory, {seconds / 86_400:.1f} days at 1,000 requests/s",
        f"{week:.0f} MB, goal {WEEK_MB:.0f} MB {'met' if week < WEEK_MB else 'missed'}",
        f"frames {week_frames:.1f} MB, {week_windows:,} windows",
    )
    assert windows == same_windows
    assert week_windows == seconds / 60
