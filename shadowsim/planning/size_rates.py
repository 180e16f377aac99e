"""Finds the highest steady rate at which one instance meets goals: MAX_RPS of AWS's load tests.

AWS's rule of thumb for a scaling policy is a target of MAX_RPS x 0.5 x 60 invocations per instance and minute (SageMaker
Developer Guide, "Load testing your auto scaling configuration"). The rate is found as AWS advises: one instance gets
more and more of the traffic, here by simulation, without profile, outages and retries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from shadowsim.planning.load import demand_of
from shadowsim.planning.size_search import Search
from shadowsim.planning.slo import Goal, measure
from shadowsim.scenario.scenario import Scenario

SAFETY_FACTOR = 0.5  # with which AWS advises to begin
_HALVINGS = 7  # the rate is found to within 1/128 of an instance's capacity
_LONG_S = 30 * 86400.0  # so that the length of a run is set by what it must show


@dataclass(frozen=True, slots=True)
class OneInstance:
    """What one instance can do.

    Attributes
    ----------
    rate_per_s : float
        The highest rate of requests that reach it at which it meets the goals, to within 1/128 of its capacity; 0 when
        there is none.
    present : float
        Mean number of requests waiting or in service at that rate.
    """

    rate_per_s: float
    present: float

    @property
    def rule_of_thumb(self) -> float:
        """AWS's target: invocations per instance and minute."""
        return self.rate_per_s * SAFETY_FACTOR * 60.0


def one_instance(search: Search) -> OneInstance:
    """Find what one instance of a pool can do."""
    share = search.demand.share
    capacity_per_s = search.demand.rate_per_s / search.demand.instances  # at the endpoint
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        load = (low + high) / 2.0
        if _at(search, load * capacity_per_s).try_count(1).meets(search.upper_limits):
            low = load
        else:
            high = load
    if low == 0.0:
        return OneInstance(0.0, 0.0)
    rate_per_s = low * capacity_per_s
    steady = _at(search, rate_per_s)
    mean_s = measure(
        Goal(search.role, "mean", None, "<=", math.inf), steady.run({}, steady.try_count(1).horizon_s, 0)
    )[0]
    return OneInstance(rate_per_s * share, rate_per_s * share * mean_s)


def _at(search: Search, rate_per_s: float) -> Search:
    """Return the search of one instance at a steady rate."""
    scenario = _steady(search.scenario, search.role, rate_per_s)
    return Search(
        scenario=scenario,
        role=search.role,
        goals=search.upper_limits,
        demand=demand_of(scenario, search.role),
        simulate=search.simulate,
        alpha=search.alpha,
        max_instances=1,
        max_replications=search.max_replications,
    )


def _steady(scenario: Scenario, role: str, rate_per_s: float) -> Scenario:
    """Return the scenario with one instance and that mean rate, without profile, outages and retries.

    A trace is played at the speed that has the rate, and a modulated rate keeps its jumps.
    """
    changes: dict[str, object] = {f"{role}.instance_count": 1, f"{role}.outages": None}
    factor = rate_per_s / scenario.traffic.mean_rate(scenario.horizon_s, scenario.start)
    horizon_s = _LONG_S
    for stream in scenario.traffic.streams:
        changes[f"{stream.path}.retries"] = "none"
        if stream.process == "trace":
            changes[f"{stream.path}.speed"] = stream.speed * factor
            horizon_s = min(horizon_s, scenario.horizon_s / factor)
        else:
            mean = stream.mean_rate(scenario.horizon_s, scenario.start)
            changes |= {f"{stream.path}.rate_per_s": mean * factor, f"{stream.path}.profile": None}
    return scenario.replace(changes | {"run.horizon_s": horizon_s})
