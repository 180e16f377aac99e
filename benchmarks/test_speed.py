"""How fast the engine is. Ratios within one run mean something, absolute times do not: machines are shared.

Every timed call returns all three frames.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from pytest_benchmark.fixture import BenchmarkFixture

from shadowsim import Scenario, default_scenario, simulate

PAIRS = 7
N_REQUESTS = 60_000_000


def plain(n_requests: int) -> Scenario:
    """Build the C program's case: 8 x 4 workers at 1,000 requests/s, lognormal 20 ms of SCV 0.284, half to 4 x 4."""
    s = default_scenario()
    law = {"law": "lognormal", "mean_s": 0.02, "scv": 0.284}
    return s.replace(
        {
            "traffic": {"process": "poisson", "rate_per_s": 1000.0},
            "source.time": law,
            "shadow.time": law,
            "source.instance_count": 8,
            "shadow.instance_count": 4,
            "horizon_s": n_requests / 1000.0,
        }
    )


def test_against_the_c_program(
    benchmark: BenchmarkFixture, limit: Callable[[int], float], table: Callable[[str, str, str], None]
) -> None:
    """The plain case on one core, in turn with a C program that does the same: the median of the pairs' ratios."""
    scenario = plain(N_REQUESTS)
    simulate(plain(60_000))  # compiled
    c_rates: list[float] = []
    result = benchmark.pedantic(
        simulate, args=(scenario,), setup=lambda: c_rates.append(limit(N_REQUESTS)), rounds=PAIRS
    )
    n = int(result.summary()["requests"].iloc[0])
    rates = [n / seconds for seconds in benchmark.stats.stats.data]
    ratios = [ours / c for ours, c in zip(rates, c_rates, strict=True)]
    ratio = statistics.median(ratios)
    benchmark.extra_info.update(requests=n, ratio_to_c=ratio, ratios=ratios)
    ns = 1e9 / statistics.median(rates)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    table("plain case, 1 core", f"{ratio:.2f} of C ({spread})", f"{ns:.1f} ns a source request, {PAIRS} pairs")
    assert ratio >= 0.5


def test_the_built_in_day(benchmark: BenchmarkFixture, table: Callable[[str, str, str], None]) -> None:
    """What `shadowsim simulate` does: 34.6 million requests of a simulated day."""
    result = benchmark.pedantic(simulate, args=(default_scenario(),), rounds=3, warmup_rounds=1)
    n = int(result.summary()["requests"].iloc[0])
    seconds = statistics.median(benchmark.stats.stats.data)
    benchmark.extra_info.update(requests=n, ns_a_request=seconds / n * 1e9)
    table("built-in day, 1 core", f"{n / seconds / 1e6:.1f} million requests/s", f"{n:,} requests in {seconds:.2f} s")
