"""Compares shadowsim with other simulators on one M/M/8 queue at load 0.8, first come, first served.

Each peer (peers.py) takes turns with shadowsim, on as many customers as it can simulate in a second or two; the ratio
is the median of the pairs. shadowsim's time is that of `simulate` with all three frames. Every program must also be
correct: the mean wait of all its rounds lies within four standard errors of Erlang's.

The extra `bench` installs the peers. A missing one is skipped, or fails if CI is set.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from shadowsim import Result, Scenario, default_scenario, simulate

PROGRAMS = Path(__file__).with_name("peers.py")
SERVERS = 8
RATE = 6.4  # arrivals per mean service time
PAIRS = 5
N_OURS = 50_000_000


class Peer(NamedTuple):
    """A program: its `form` in peers.py, the `module` that it needs, and the ratio that shadowsim must `reach`."""

    name: str
    module: str
    form: str
    n_customers: int
    reach: float = 1.0

    def run(self, seed: int) -> tuple[float, float]:
        """Return customers per second, and their mean wait."""
        command = [sys.executable, str(PROGRAMS), self.form, str(self.n_customers), str(seed)]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
        seconds, wait = map(float, out.stdout.split())
        return self.n_customers / seconds, wait


PEERS = [
    Peer("salabim, one component per customer", "salabim", "salabim_component", 8_000),
    Peer("Ciw", "ciw", "ciw_network", 60_000),
    Peer("SimPy, one process per customer", "simpy", "simpy_process", 150_000, reach=400.0),
    Peer("SimPy, 8 processes and a Store", "simpy", "simpy_store", 200_000),
    Peer("salabim, 8 components and a deque", "salabim", "salabim_deque", 200_000),
    Peer("plain Python, heapq", "heapq", "heapq_loop", 3_000_000),
    Peer("cimba, 8 processes and a Store", "cimba", "cimba_store", 4_000_000, reach=10.0),
]


def theory() -> tuple[float, float]:
    """Return the mean wait, and sqrt(n) times the standard deviation of the mean wait of n customers.

    The waits of n customers add up to the area under the number waiting, f(x) = max(x - 8, 0) with x customers in the
    system, except for the last few. With mean wait w, the area minus w per arrival plus g(x) is a martingale if g
    solves Poisson's equation of the birth-death process, and its variance is the sum of its squared jumps. Only the
    steps g(x + 1) - g(x) are needed; they are sums over the states above x.
    """
    states = np.arange(1000)  # 0.8 ** 1000 is negligible
    departures = np.minimum(states, SERVERS)
    probability = np.cumprod(np.append(1.0, RATE / departures[1:]))
    probability /= probability.sum()
    waiting = np.maximum(states - SERVERS, 0)
    wait = float(probability @ waiting) / RATE
    above = np.cumsum((probability * (waiting - RATE * wait))[::-1])[::-1]
    step = np.append(above[1:], 0.0) / (RATE * probability)
    jumps = RATE * (step - wait) ** 2 + departures * np.append(0.0, step[:-1]) ** 2
    return wait, math.sqrt(float(probability @ jumps) / RATE)


def queue(seed: int, n: int = N_OURS) -> Scenario:
    """Return the queue as a scenario: one instance of 8 workers, no copies, windows of an hour."""
    return default_scenario().replace(
        {
            "traffic": {"process": "poisson", "rate_per_s": RATE},
            "source.instance_count": 1,
            "source.workers": SERVERS,
            "source.time": {"law": "exponential", "mean_s": 1.0},
            "sampling_percentage": 0,
            "endpoint.timeout_s": 1e6,
            "run.period_s": 3600.0,
            "horizon_s": n / RATE,
            "seed": seed,
        }
    )


def mean_wait(results: list[Result]) -> tuple[int, float]:
    """Return the number of customers in all runs, and their mean wait."""
    windows = pd.concat([result.windows for result in results])
    windows = windows[windows["Invocations"] > 0]
    n = windows["Invocations"].to_numpy(np.float64)
    return int(n.sum()), float(np.average(windows["wait_mean_s"], weights=n))


def standard_errors_off(n: int, wait: float) -> float:
    """Return the error of the mean wait of n customers in standard errors."""
    exact, sd = theory()
    return (wait - exact) / (sd / math.sqrt(n))


def test_the_tolerance_is_right() -> None:
    """The mean wait is Erlang's to six digits; its deviation is that of 4,000 runs, within four standard errors."""
    wait, sd = theory()
    assert wait == pytest.approx(0.286028, abs=5e-7)
    runs, n = 4_000, 10_000
    rng, every = np.random.default_rng(8), np.arange(runs)
    now, waited, free = np.zeros(runs), np.zeros(runs), np.zeros((runs, SERVERS))
    for _ in range(n):
        now += rng.standard_exponential(runs) / RATE
        first = free.argmin(axis=1)
        begin = np.maximum(now, free[every, first])
        waited += begin - now
        free[every, first] = begin + rng.standard_exponential(runs)
    assert np.std(waited / n, ddof=1) * math.sqrt(n) == pytest.approx(sd, rel=4 / math.sqrt(2 * runs))


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_peer(benchmark: BenchmarkFixture, table: Callable[[str, str, str], None], peer: Peer) -> None:
    """Both programs simulate the same queue in turns and are correct; the table shows the ratio of their speeds."""
    if find_spec(peer.module) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {peer.module}, of the extra bench")
    simulate(queue(0, 50_000))  # compiles
    rates: list[float] = []
    waits: list[float] = []
    results: list[Result] = []

    def run_the_peer() -> tuple[tuple[Scenario], dict[str, object]]:
        seed = len(rates) + 1
        rate, wait = peer.run(seed)
        rates.append(rate)
        waits.append(wait)
        return (queue(seed),), {}

    benchmark.pedantic(lambda scenario: results.append(simulate(scenario, workers=1)), setup=run_the_peer, rounds=PAIRS)
    n, our_wait = mean_wait(results)
    our_rates = [n / PAIRS / seconds for seconds in benchmark.stats.stats.data]
    ratios = [mine / theirs for mine, theirs in zip(our_rates, rates, strict=True)]
    ratio, rate, our_rate = statistics.median(ratios), statistics.median(rates), statistics.median(our_rates)
    share = results[0].scenario.share
    benchmark.extra_info.update(peer=peer.name, customers_per_s=rate, share=share, ratio=ratio, ratios=ratios)
    met = "met the goal" if ratio >= peer.reach else "missed the goal"
    table(
        peer.name,
        f"{ratio:,.0f} x ({min(ratios):,.0f} to {max(ratios):,.0f}), {met} of {peer.reach:g} x",
        f"{rate:,.0f} customers/s, shadowsim {our_rate / 1e6:.1f} million/s with {share:.0%} copied, {PAIRS} pairs",
    )
    assert abs(standard_errors_off(PAIRS * peer.n_customers, statistics.fmean(waits))) < 4
    assert abs(standard_errors_off(n, our_wait)) < 4
