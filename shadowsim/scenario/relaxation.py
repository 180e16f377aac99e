"""Computes the relaxation time of a pool: the time scale on which its queue forgets its past."""

from __future__ import annotations

import math

from shadowsim.scenario.scenario import Scenario

MOST_SCV = 100.0  # of service times: no run of a finite length shows more of a heavier tail


def relaxation_s(scenario: Scenario, role: str, load: float, busiest_load: float | None = None) -> float:
    """Return the relaxation time of an instance's queue, in seconds.

    It is (c_a^2 + c_s^2) / 2 x E[S] / (workers (1 - sqrt(load))^2), exact for M/M/1 (Cohen, The Single Server Queue,
    1982) and a heavy-traffic approximation for the rest. c_a^2 is the arrivals' limiting dispersion, at least 1; c_s^2
    the SCV of the service times, at most `MOST_SCV`. A queue that holds at most K requests forgets them in about K^2
    service times, whatever arrives.

    Parameters
    ----------
    scenario : Scenario
    role : {"source", "shadow"}
    load : float
        Offered load of the pool; 1 is its capacity.
    busiest_load : float, optional
        Offered load in the busiest state of a modulated rate. If it is below 1, it is used instead of `load`, and the
        modulation's dispersion is left out: the queue forgets within one state, in which there are no bursts.

    Returns
    -------
    float
        Infinity for an overloaded pool without a queue limit.
    """
    side = scenario.side(role)
    mean_s, scv = work_moments(scenario, role)
    dispersion = max(scenario.traffic.dispersion or 1.0, 1.0)
    if busiest_load is not None and busiest_load < 1.0:
        load, dispersion = busiest_load, 1.0
    services = 1.0 / (1.0 - math.sqrt(load)) ** 2 if load < 1.0 else math.inf
    if side.service.queue_limit is not None:
        services = min(services, (side.service.queue_limit + side.workers + 1.0) ** 2)
    slowest_s = mean_s * max(side.service.slowdown or (1.0,))
    return (dispersion + min(scv, MOST_SCV)) / 2.0 * slowest_s / side.workers * services


def work_moments(scenario: Scenario, role: str) -> tuple[float, float]:
    """Return mean (seconds) and SCV of a variant's service times; those of a linear law come from the trace's rows."""
    law = scenario.side(role).service.time
    if law.kind != "linear":
        return law.mean, law.scv
    work_s = law.values(scenario.traffic.trace().columns)
    mean_s = float(work_s.mean())
    return mean_s, float(work_s.var()) / mean_s**2 if mean_s > 0.0 else 0.0
