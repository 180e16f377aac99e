"""Measures the speed of the engine, as ratios within one run: absolute times mean little on shared machines.

Every timed call returns all three frames.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter

import pytest
from plain_case import plain_case
from pytest_benchmark.fixture import BenchmarkFixture

from shadowsim import default_scenario, simulate

PAIRS = 5


CASES = [
    ("RANDOM", 8, 60_000_000, 0.8),
    ("LEAST_OUTSTANDING_REQUESTS", 8, 30_000_000, 0.25),
    ("LEAST_OUTSTANDING_REQUESTS", 512, 30_000_000, 0.2),
]


@pytest.mark.parametrize(("routing", "instances", "n_requests", "goal"), CASES)
def test_against_the_c_program(
    benchmark: BenchmarkFixture,
    limit: Callable[[int], float],
    table: Callable[[str, str, str], None],
    routing: str,
    instances: int,
    n_requests: int,
    goal: float,
) -> None:
    """Time one core in turn with a C program that simulates the RANDOM case; the ratio is the median of the pairs."""
    scenario = plain_case(n_requests, routing, instances)
    simulate(plain_case(60_000), workers=1)  # compiles
    c_rates: list[float] = []
    result = benchmark.pedantic(
        simulate,
        args=(scenario,),
        kwargs={"workers": 1},
        setup=lambda: c_rates.append(limit(60_000_000)),
        rounds=PAIRS,
    )
    n = int(result.summary()["requests"].iloc[0])
    rates = [n / seconds for seconds in benchmark.stats.stats.data]
    ratios = [ours / c for ours, c in zip(rates, c_rates, strict=True)]
    ratio = statistics.median(ratios)
    benchmark.extra_info.update(requests=n, ratio_to_c=ratio, ratios=ratios)
    met = "met" if ratio >= goal else "missed"
    table(
        f"{routing}, {instances} instances, 1 core",
        f"{ratio:.2f} of C ({min(ratios):.2f} to {max(ratios):.2f}), goal {goal:g} {met}",
        f"{1e9 / statistics.median(rates):.1f} ns per source request, {PAIRS} pairs",
    )


@pytest.mark.parametrize(
    ("routing", "n_requests", "goal"),
    [("RANDOM", 60_000_000, 1.8), ("LEAST_OUTSTANDING_REQUESTS", 30_000_000, 1.25)],
)
def test_two_workers(
    benchmark: BenchmarkFixture, table: Callable[[str, str, str], None], routing: str, n_requests: int, goal: float
) -> None:
    """Time two workers in turn with one; the machine needs two free cores."""
    scenario = plain_case(n_requests, routing)
    simulate(plain_case(60_000), workers=1)  # compiles
    alone: list[float] = []

    def time_one_worker() -> None:
        began = perf_counter()
        simulate(scenario, workers=1)
        alone.append(perf_counter() - began)

    benchmark.pedantic(simulate, args=(scenario,), kwargs={"workers": 2}, setup=time_one_worker, rounds=PAIRS)
    ratios = [one / two for one, two in zip(alone, benchmark.stats.stats.data, strict=True)]
    ratio = statistics.median(ratios)
    benchmark.extra_info.update(ratio_to_one=ratio, ratios=ratios)
    met = "met" if ratio >= goal else "missed"
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    table(f"{routing}, 2 workers", f"{ratio:.2f} x one ({spread}), goal {goal:g} {met}", f"{PAIRS} pairs")


def test_the_built_in_day(benchmark: BenchmarkFixture, table: Callable[[str, str, str], None]) -> None:
    """Time what `shadowsim simulate` runs: a day of 34.6 million requests."""
    result = benchmark.pedantic(simulate, args=(default_scenario(),), kwargs={"workers": 1}, rounds=3, warmup_rounds=1)
    n = int(result.summary()["requests"].iloc[0])
    seconds = statistics.median(benchmark.stats.stats.data)
    benchmark.extra_info.update(requests=n, ns_per_request=seconds / n * 1e9)
    table("built-in day, 1 core", f"{n / seconds / 1e6:.1f} million requests/s", f"{n:,} requests in {seconds:.2f} s")


def test_a_whole_default_experiment(benchmark: BenchmarkFixture, table: Callable[[str, str, str], None]) -> None:
    """Time SageMaker's seven days at 1,000 requests/s: 604.8 million requests, half of them copied, all windows."""
    scenario = plain_case(604_800_000)
    simulate(plain_case(60_000), workers=1)  # compiles
    result = benchmark.pedantic(simulate, args=(scenario,), kwargs={"workers": 2}, rounds=1)
    n = int(result.summary()["requests"].iloc[0])
    seconds = benchmark.stats.stats.data[0]
    benchmark.extra_info.update(requests=n)
    met = "met" if seconds < 12.0 else "missed"
    table("a default week, 2 workers", f"{seconds:.1f} s, goal 12 s {met}", f"{n:,} requests, {result.how}")
