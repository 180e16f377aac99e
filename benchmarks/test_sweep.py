"""Measures the speed of sweeps, and the time that they add to their simulations."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from time import perf_counter, process_time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from shadowsim import Scenario, default_scenario, simulate, sweep

GOAL_S = 180.0  # on two cores
PAIRS = 3


def day(horizon_s: float = 86_400.0) -> Scenario:
    """Build a day at 200 requests/s: 17 million requests, and their copies."""
    traffic = {"process": "poisson", "rate_per_s": 200.0}
    return default_scenario().replace({"traffic": traffic, "horizon_s": horizon_s})


@pytest.mark.parametrize(
    "horizon_s", [pytest.param(3600.0, id="hours"), pytest.param(86_400.0, id="days", marks=pytest.mark.long)]
)
def test_a_hundred_runs(benchmark: BenchmarkFixture, table: Callable[[str, str, str], None], horizon_s: float) -> None:
    """Sweep ten shares times ten pools on all cores."""
    grid = {"sampling_percentage": range(10, 101, 10), "shadow.instance_count": range(1, 11)}
    simulate(day(3600.0), workers=1)  # compiled
    cpu_s = -process_time()
    frame = benchmark.pedantic(sweep, args=(day(horizon_s), grid), rounds=1)
    cpu_s += process_time()
    seconds = benchmark.stats.stats.data[0]
    n_requests = int(frame.loc[frame["role"] == "source", "requests"].sum())
    benchmark.extra_info.update(requests=n_requests, requests_per_s=n_requests / seconds, cpu_s=cpu_s)
    goal = f", goal {GOAL_S:.0f} s {'met' if seconds <= GOAL_S else 'missed'}" if horizon_s == 86_400.0 else ""
    table(
        f"sweep of 100 runs of {horizon_s / 3600.0:.0f} h at 200 requests/s, {os.cpu_count()} cores",
        f"{seconds:.0f} s{goal}",
        f"{n_requests / seconds / 1e6:.1f} million source requests/s, {cpu_s:.0f} s of processor time",
    )
    assert len(frame) == 200


def test_time_that_a_sweep_adds(benchmark: BenchmarkFixture, table: Callable[[str, str, str], None]) -> None:
    """Sweep twenty cells of an hour on one thread, in turn with `simulate` for each, which makes no summary."""
    base = day(3600.0).replace({"run.sample_requests": 0})
    grid = {"sampling_percentage": range(5, 101, 5)}
    simulate_s: list[float] = []

    def simulate_all() -> None:
        cells = [base.replace({"sampling_percentage": share}) for share in grid["sampling_percentage"]]
        began = perf_counter()
        for cell in cells:
            simulate(cell, workers=1)
        simulate_s.append(perf_counter() - began)

    simulate_all()  # compiled
    simulate_s.clear()
    benchmark.pedantic(sweep, args=(base, grid), kwargs={"workers": 1}, setup=simulate_all, rounds=PAIRS)
    pairs = list(zip(benchmark.stats.stats.data, simulate_s, strict=True))
    ratios = [swept / simulated for swept, simulated in pairs]
    added_s = statistics.median(swept - simulated for swept, simulated in pairs)
    added_ms = added_s / len(grid["sampling_percentage"]) * 1e3
    benchmark.extra_info.update(ratios=ratios, added_ms_per_cell=added_ms)
    table(
        "sweep of 20 hours at 200 requests/s, 1 core",
        f"{statistics.median(ratios):.2f} x simulate alone ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{added_ms:.0f} ms per cell for its summary and verdict, {PAIRS} pairs",
    )
