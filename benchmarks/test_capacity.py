"""Measures how often the interval of `capacity` covers a greatest rate that theory knows exactly.

    pytest -n 0 -m "long or not long" benchmarks/test_capacity.py

Each repetition has another seed. Runs are as long as some hundred relaxation times of the queue at the greatest rate,
so that its empty start moves a mean by less than half a per cent, and the rate by little of its interval. A coverage
measured in n repetitions has a binomial error, which the bounds allow for at a level of 0.1 %. The short form of few
repetitions finds gross faults; `SHADOWSIM_COVERAGE_RUNS` sets those of the long one, 200 by default.

* M/M/1: the latency is exponential with the rate mu - lambda (Kleinrock, Queueing Systems, 1975, section 5.12), so that
  the mean is T at mu - 1 / T, and p95 at mu - ln 20 / T.
* M/M/4 (Erlang C): solved for the rate. The latency's law is that of tests/support/aa_pairs.py.
* M/M/1 in batches: tests/support/theory_events.py.
* A service in tokens that runs one sequence at a time is M/D/1 for answers of one length (Pollaczek-Khinchine).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import theory_events
from aa_pairs import exact
from cases import scenario, service
from scipy.optimize import brentq
from scipy.stats import binom

from shadowsim import Scenario, capacity
from shadowsim.planning.queueing_theory import erlang_c

FEW, MANY = 8, int(os.environ.get("SHADOWSIM_COVERAGE_RUNS", "200"))
MEAN_S = 0.1


def steady(block: dict[str, Any], horizon_s: float) -> Scenario:
    traffic = {"process": "poisson", "rate_per_s": 3.0}
    run = {"horizon_s": horizon_s, "period_s": horizon_s / 100}
    return scenario(traffic, block, block, endpoint={"timeout_s": 1e9}, **run)


def mean_of_m_m_4(load: float) -> float:
    return MEAN_S + erlang_c(4, 4 * load) * MEAN_S / (4 * (1 - load))


def mean_of_batches(rate: float) -> float:
    return MEAN_S + MEAN_S * theory_events.m_m_1_in_batches(rate * MEAN_S, 1.0, 4).mean_wait_s


def a_sequence_at_a_time() -> dict[str, Any]:
    """Prompts of one token, and answers of 9 in 0.01 s each, but for the first that also takes 0.01 s: 0.1 s."""
    law = {"law": "deterministic"}
    step = {"base_s": 0.01, "per_prefill_token_s": 0.01}
    tokens = {"prompt": law | {"mean_tokens": 1}, "output": law | {"mean_tokens": 9}, "max_sequences": 1}
    return {"tokens": tokens | {"max_step_tokens": 16, "kv_tokens": 64, "step": step}}


BATCHES = service("exponential", MEAN_S) | {"batching": {"max_size": 4, "max_delay_s": 0.0, "marginal": 0.0}}
CASES: dict[str, tuple[Scenario, str, float]] = {
    "M/M/1, mean": (steady(service("exponential", MEAN_S), 5e3), "source.mean <= 500ms", 8.0),
    "M/M/1, p95": (steady(service("exponential", MEAN_S), 5e3), "source.p95 <= 1s", 10.0 - math.log(20.0)),
    "M/M/1, p99 at load 0.95": (
        steady(service("exponential", MEAN_S), 4e4),
        f"source.p99 <= {math.log(100.0) / 0.5!r}s",
        9.5,
    ),
    "M/M/4, mean": (
        steady(service("exponential", MEAN_S, 4), 2e3),
        f"source.mean <= {mean_of_m_m_4(0.85)!r}s",
        34.0,
    ),
    "M/M/4, p95": (steady(service("exponential", MEAN_S, 4), 2e3), f"source.p95 <= {exact(0.95, 0.85)!r}s", 34.0),
    "M/M/1 in batches of up to 4, mean": (
        steady(BATCHES, 5e3),
        "source.mean <= 300ms",
        brentq(lambda rate: mean_of_batches(rate) - 0.3, 0.01, 39.9),
    ),
    "tokens, one sequence (M/D/1), mean": (
        steady(a_sequence_at_a_time(), 5e3),
        f"source.mean <= {MEAN_S * (1.0 + 0.8 / (2.0 * 0.2))!r}s",
        8.0,
    ),
}


@pytest.mark.parametrize("n_runs", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.long)])
@pytest.mark.parametrize("case", CASES)
def test_the_interval_covers_the_greatest_rate(table: Callable[[str, str, str], None], case: str, n_runs: int) -> None:
    s, goal, truth = CASES[case]
    rows = [capacity(s.replace({"seed": 1000 + r}), goal, workers=1).iloc[0] for r in range(n_runs)]
    low, rate, high = (np.array([row[name] for row in rows]) for name in ("low_per_s", "rate_per_s", "high_per_s"))
    hits = int(((low <= truth) & (truth <= high)).sum())
    error = rate.mean() / truth - 1.0
    shown = (
        f"{hits / n_runs:.1%} of {n_runs}; mean error {error:+.2%}, half-width {((high - low) / 2 / truth).mean():.2%}"
    )
    table(f"capacity, {case}", shown, "95 %")
    assert binom.ppf(0.001, n_runs, 0.92) <= hits <= binom.ppf(0.999, n_runs, 0.98)
