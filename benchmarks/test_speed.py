"""Measures the speed of the engine, as ratios within one run: absolute times mean little on shared machines.

Every timed call returns all three frames.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter, process_time

import pytest
from plain_case import plain_case
from pytest_benchmark.fixture import BenchmarkFixture

from shadowsim import Scenario, default_scenario, simulate

PAIRS = 5


CASES = [
    ("RANDOM", 8, 60_000_000, 0.8),
    ("LEAST_OUTSTANDING_REQUESTS", 8, 30_000_000, 0.3),
    ("LEAST_OUTSTANDING_REQUESTS", 512, 30_000_000, 0.22),
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


BATCHER = {"max_size": 32, "max_delay_s": 0.05, "marginal": 0.05}
ONE_BY_ONE = {"max_size": 1, "factors": [1.0]}
LONG_WORK = {"law": "lognormal", "mean_s": 0.04, "scv": 0.284}
POLICY = {"metric": "InvocationsPerInstance", "target": 8000, "min": 2, "max": 20}
OUTAGES = {"mtbf_s": 2000.0, "mttr_s": 60.0}
DAY = {"kind": "diurnal", "base_per_s": 500.0, "peak_per_s": 1500.0}
EVENTED: list[tuple[str, dict[str, object], float]] = [
    ("batches of 1", {"source.batching": ONE_BY_ONE, "shadow.batching": ONE_BY_ONE}, 3e6),
    (
        "batches of 32",
        {
            "traffic.rate_per_s": 4000.0,
            "source.time": LONG_WORK,
            "shadow.time": LONG_WORK,
            "horizon_s": 1000.0,
            "source.batching": BATCHER,
            "shadow.batching": BATCHER,
        },
        5e6,
    ),
    (
        "everything on",
        {
            "endpoint.routing": "LEAST_OUTSTANDING_REQUESTS",
            "traffic": {"process": "poisson", "profile": DAY, "retries": "standard"},
            "source.scaling": POLICY,
            "shadow.scaling": POLICY | {"min": 1, "max": 10},
            "source.outages": OUTAGES,
            "shadow.outages": OUTAGES,
        },
        3e6,
    ),
]


@pytest.mark.parametrize(("name", "changes", "goal"), EVENTED, ids=[case[0] for case in EVENTED])
def test_pools_with_events(
    benchmark: BenchmarkFixture,
    table: Callable[[str, str, str], None],
    name: str,
    changes: dict[str, object],
    goal: float,
) -> None:
    """Time one core in turn with the plain case, in processor time."""
    plain, evented = plain_case(20_000_000), plain_case(4_000_000).replace(changes)
    for scenario in (plain, evented):
        simulate(scenario.replace({"horizon_s": 61.0}), workers=1)  # compiles
    plain_ns, evented_ns = [], []

    def time_of(scenario: Scenario) -> float:
        began = process_time()
        result = simulate(scenario, workers=1)
        return 1e9 * (process_time() - began) / int(result.summary()["requests"].iloc[0])

    benchmark.pedantic(
        lambda: evented_ns.append(time_of(evented)), setup=lambda: plain_ns.append(time_of(plain)), rounds=PAIRS
    )
    ratio = statistics.median(a / b for a, b in zip(evented_ns, plain_ns, strict=True))
    rate = 1e9 / statistics.median(evented_ns)
    benchmark.extra_info.update(ratio_to_plain=ratio, requests_per_s=rate)
    table(
        f"events, {name}, 1 core",
        f"{rate / 1e6:.1f} million requests/s, goal {goal / 1e6:g} {'met' if rate >= goal else 'missed'}",
        f"{ratio:.1f} x the plain case's {statistics.median(plain_ns):.0f} ns, {PAIRS} pairs",
    )


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
