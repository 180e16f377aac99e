"""Measures the speed of services in tokens: requests per second, and what more tokens per request cost.

An endpoint steps some hundred times per request; the engine has a few events per request instead, so that its time per
request hardly depends on the number of tokens.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import process_time

from pytest_benchmark.fixture import BenchmarkFixture

from shadowsim import Scenario, default_scenario, simulate

PAIRS = 5
GOAL_PER_S, GOAL_RATIO = 100_000.0, 2.0
BATCH = 30  # sequences that run at once, about
BASE_S, SEQUENCE_S = 0.00627, 0.000125  # Llama-2-7b on an H100, of the presets
N_REQUESTS = 100_000
# half of a prompt is shared, by so many groups that a quarter of the look-ups find it
PREFIX = {"length": 256, "groups": 1000, "cache_tokens": 64_000}


def scenario_of(output: int, n_requests: int = N_REQUESTS) -> Scenario:
    """Return a source with about `BATCH` sequences of `output` tokens in the mean at once, and nothing copied."""
    tokens = {
        "prompt": {"law": "lognormal", "mean_tokens": 500, "scv": 0.5},
        "output": {"law": "exponential", "mean_tokens": output},
        "max_sequences": 256,
        "max_step_tokens": 8192,
        "kv_tokens": 2_000_000,
        "step": {"base_s": BASE_S, "per_prefill_token_s": 3e-6, "per_sequence_s": SEQUENCE_S},
    }
    rate = BATCH / (output * (BASE_S + SEQUENCE_S * BATCH))
    return default_scenario().replace(
        {
            "traffic": {"process": "poisson", "rate_per_s": rate},
            "services.AllTraffic": {"tokens": tokens},
            "source.instance_count": 1,
            "sampling_percentage": 0,
            "endpoint.timeout_s": 1e9,
            "horizon_s": n_requests / rate,
            "run.period_s": n_requests / rate / 100,
        }
    )


def seconds_per_request(scenario: Scenario) -> float:
    """Return the processor time of a run by its number of requests."""
    began = process_time()
    result = simulate(scenario, workers=1)
    return (process_time() - began) / int(result.summary(standard_errors=False)["requests"].iloc[0])


def test_tokens(benchmark: BenchmarkFixture, table: Callable[[str, str, str], None]) -> None:
    """Time 250 and 4,000 output tokens per request in turn, in processor time of one core."""
    few, many = scenario_of(250), scenario_of(4000)
    simulate(scenario_of(250, 1000), workers=1)  # compiles
    few_s, many_s = [], []

    benchmark.pedantic(
        lambda: many_s.append(seconds_per_request(many)),
        setup=lambda: few_s.append(seconds_per_request(few)),
        rounds=PAIRS,
    )
    rate = 1.0 / statistics.median(few_s)
    ratio = statistics.median(a / b for a, b in zip(many_s, few_s, strict=True))
    benchmark.extra_info.update(requests_per_s=rate, ratio=ratio)
    met = "met" if rate >= GOAL_PER_S else "missed"
    table(
        "tokens, 250 per answer, 30 at once, 1 core",
        f"{rate:,.0f} requests/s, goal {GOAL_PER_S:,.0f} {met}",
        f"4,000 per answer: {ratio:.2f} x the time, goal {GOAL_RATIO:g} {'met' if ratio <= GOAL_RATIO else 'missed'}",
    )


def test_prefixes(benchmark: BenchmarkFixture, table: Callable[[str, str, str], None]) -> None:
    """Time runs without and with a prefix cache in turn; with it, prompts take 16 look-ups and 16 entries each."""
    plain = scenario_of(250)
    cached = plain.replace({"source.tokens.prefix": PREFIX})
    for scenario in (plain, cached):
        simulate(scenario.replace({"horizon_s": scenario.horizon_s / 100}), workers=1)  # compiles
    plain_s, cached_s = [], []
    benchmark.pedantic(
        lambda: cached_s.append(seconds_per_request(cached)),
        setup=lambda: plain_s.append(seconds_per_request(plain)),
        rounds=PAIRS,
    )
    rate = 1.0 / statistics.median(cached_s)
    ratio = statistics.median(a / b for a, b in zip(cached_s, plain_s, strict=True))
    benchmark.extra_info.update(requests_per_s=rate, ratio=ratio)
    table("tokens with prefix caches, 1 core", f"{rate:,.0f} requests/s", f"{ratio:.2f} x the time without")
