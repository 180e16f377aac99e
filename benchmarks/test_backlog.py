"""Compares the time per request of overloaded pools, with backlogs of 100 to a million, with that of stable pools.

A source of N instances with two workers each gets 240 % of its capacity, until as many requests as the backlog are in
flight and those that arrive are answered or time out at the same rate; the same pool at 80 % is timed in turn with it.
Only the kernel's calls are timed, in processor time; the run up to the full backlog is not.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import process_time
from typing import Any

import pytest
from plain_case import plain_case
from pytest_benchmark.fixture import BenchmarkFixture

from shadowsim import Scenario
from shadowsim.engine import _kernel as k
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns
from shadowsim.engine.event_run import EventSide, new_event_side
from shadowsim.engine.parallel import Job
from shadowsim.engine.run_state import RunState
from shadowsim.engine.simulate import CHUNK

CAPACITY_PER_S = 100.0  # of an instance: two workers, 20 ms
STABLE, OVERLOADED = 0.8, 2.4
PAIRS, REQUESTS = 5, 200_000
GOAL = 2.0
RANDOM, LEAST = {"endpoint.routing": "RANDOM"}, {"endpoint.routing": "LEAST_OUTSTANDING_REQUESTS"}
EVENTS = {"source.outages": {"mtbf_s": 1e12, "mttr_s": 1.0}}  # none comes, but the event loop runs
CASES: dict[str, dict[str, Any]] = {
    "RANDOM": RANDOM,
    "RANDOM, copies at response": RANDOM | {"mirror.instant": "response"},
    "RANDOM, queues limited": RANDOM | {"source.queue_limit": 10**6},
    "LEAST_OUTSTANDING": LEAST,
    "LEAST_OUTSTANDING, queues limited": LEAST | {"source.queue_limit": 10**6},
    "LEAST_OUTSTANDING, events": LEAST | EVENTS,
}


class Part:
    """A source in progress, timed in parts of some 200,000 requests."""

    def __init__(self, load: float, instances: int, timeout_s: float, changes: dict[str, Any]) -> None:
        rate = load * CAPACITY_PER_S * instances
        self.part_s, fill_s = REQUESTS / rate, 1.2 * timeout_s
        scenario = plain_case(1, instances=2).replace(
            {
                "traffic": {"process": "poisson", "rate_per_s": rate},
                "source.instance_count": instances,
                "source.workers": 2,
                "shadow.instance_count": 1,
                "endpoint.timeout_s": timeout_s,
                "run.sample_requests": 0,
                "run.period_s": self.part_s / 4,
                "horizon_s": fill_s + (PAIRS + 2) * self.part_s,
            }
            | changes
        )
        self.side = source_of(scenario)
        self.window = 0
        self.advance(fill_s + self.part_s)

    def advance(self, length_s: float) -> float:
        """Simulate so long, and return the processor time per request in ns."""
        before, began = self.side.arrived, process_time()
        self.window += round(length_s / self.part_s * 4)
        if isinstance(self.side, EventSide):
            self.side.advance(self.window)
        else:
            self.side.advance(self.window, k.SOURCE_SIDE)
        taken = process_time() - began
        self.side.hand_over()
        return 1e9 * taken / (self.side.arrived - before)


def source_of(scenario: Scenario) -> RunState | EventSide:
    arrivals = arrivals_of(scenario)
    job = Job(columns(scenario, arrivals), arrivals, CHUNK, 0, 0)
    if job.columns.source_dynamics.evented:
        return new_event_side(job.columns, "source", arrivals, CHUNK, job.new_samples()[0])
    return job.new_state()


@pytest.mark.parametrize("backlog", [10**2, 10**3, 10**4, 10**5, 10**6])
@pytest.mark.parametrize("instances", [1, 8])
@pytest.mark.parametrize("case", CASES)
def test_an_overloaded_pool(
    benchmark: BenchmarkFixture, table: Callable[[str, str, str], None], case: str, instances: int, backlog: int
) -> None:
    timeout_s = backlog / (OVERLOADED * CAPACITY_PER_S * instances)
    stable = Part(STABLE, instances, 60.0, CASES[case])
    overloaded = Part(OVERLOADED, instances, timeout_s, CASES[case])
    stable_ns, overloaded_ns = [], []
    benchmark.pedantic(
        lambda: overloaded_ns.append(overloaded.advance(overloaded.part_s)),
        setup=lambda: stable_ns.append(stable.advance(stable.part_s)),
        rounds=PAIRS,
    )
    ratios = [a / b for a, b in zip(overloaded_ns, stable_ns, strict=True)]
    ratio = statistics.median(ratios)
    benchmark.extra_info.update(backlog=backlog, ratio_to_stable=ratio, ratios=ratios)
    table(
        f"{case}, {instances} instance{'s' * (instances > 1)}, {backlog:,} in flight",
        f"{ratio:.2f} x a stable pool ({min(ratios):.2f} to {max(ratios):.2f}), goal {GOAL:g} "
        f"{'met' if ratio <= GOAL else 'missed'}",
        f"{statistics.median(overloaded_ns):.0f} ns against {statistics.median(stable_ns):.0f} ns, {PAIRS} pairs",
    )
    # What is in flight is known where it is tracked; its standard deviation is below the root of its mean.
    if isinstance(overloaded.side, RunState) and instances > 1 and "LEAST" in case:
        assert abs(int(overloaded.side.source.flight.counts[k.F_TOTAL]) - backlog) < 5 * backlog**0.5
