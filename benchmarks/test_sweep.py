"""Measures the speed of sweeps, and the time that they add to their simulations."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from time import perf_counter, process_time

from pytest_benchmark.fixture import BenchmarkFixture

from shadowsim import Scenario, default_scenario, simulate, sweep

GOAL_S = 180.0  # on two cores
PAIRS = 3


def day(horizon_s: float = 86_400.0) -> Scenario:
    """Return a day at 200 requests/s: 17 million requests and their copies."""
    traffic = {"process": "poisson", "rate_per_s": 200.0}
    return default_scenario().replace({"traffic": traffic, "horizon_s": horizon_s})


def test_a_hundred_days(benchmark: BenchmarkFixture, table: Callable[[str, str, str], None]) -> None:
    """Time ten shares times ten pools on all cores."""
    grid = {"sampling_percentage": range(10, 101, 10), "shadow.instance_count": range(1, 11)}
    simulate(day(3600.0), workers=1)  # compiles
    cpu_s = -process_time()
    frame = benchmark.pedantic(sweep, args=(day(), grid), rounds=1)
    cpu_s += process_time()
    seconds = benchmark.stats.stats.data[0]
    n_requests = int(frame.loc[frame["role"] == "source", "requests"].sum())
    benchmark.extra_info.update(requests=n_requests, requests_per_s=n_requests / seconds, cpu_s=cpu_s)
    met = "met" if seconds <= GOAL_S else "missed"
    table(
        f"sweep of 100 days at 200 requests/s, {os.cpu_count()} cores",
        f"{seconds:.0f} s, goal {GOAL_S:.0f} s {met}",
        f"{n_requests / seconds / 1e6:.1f} million source requests/s, {cpu_s:.0f} s of processor time",
    )
    assert len(frame) == 200


def test_overhead_of_a_sweep(benchmark: BenchmarkFixture, table: Callable[[str, str, str], None]) -> None:
    """Time twenty cells of an hour on one thread, in turn with one `simulate` per cell, which makes no summary."""
    base = day(3600.0).replace({"run.sample_requests": 0})
    grid = {"sampling_percentage": range(5, 101, 5)}
    bare: list[float] = []

    def time_simulate() -> None:
        cells = [base.replace({"sampling_percentage": share}) for share in grid["sampling_percentage"]]
        began = perf_counter()
        for cell in cells:
            simulate(cell, workers=1)
        bare.append(perf_counter() - began)

    time_simulate()  # compiles
    bare.clear()
    benchmark.pedantic(sweep, args=(base, grid), kwargs={"workers": 1}, setup=time_simulate, rounds=PAIRS)
    ratios = [swept / alone for swept, alone in zip(benchmark.stats.stats.data, bare, strict=True)]
    added_ms = statistics.median(w - b for w, b in zip(benchmark.stats.stats.data, bare, strict=True)) / 20 * 1e3
    benchmark.extra_info.update(ratios=ratios, added_ms_per_cell=added_ms)
    table(
        "sweep of 20 hours at 200 requests/s, 1 core",
        f"{statistics.median(ratios):.2f} x simulate alone ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{added_ms:.0f} ms per cell for its summary and verdict, {PAIRS} pairs",
    )
