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

    A batcher serves batches of `max_size` near its capacity. Its departures are then those of a queue with E[S] divided
    by that size (times the factor of a full batch), but come `max_size` at a time, which multiplies c_s^2 by it. It
    remembers at least one batch and its delay. That instances fail or their number changes is left out: this is the
    relaxation time of the queue, not of the pool's size.

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
    batcher, at_once = side.service.batching, 1
    if batcher is not None:
        at_once = batcher.max_size
    dispersion = max(scenario.traffic.dispersion or 1.0, 1.0)
    if busiest_load is not None and busiest_load < 1.0:
        load, dispersion = busiest_load, 1.0
    services = 1.0 / (1.0 - math.sqrt(load)) ** 2 if load < 1.0 else math.inf
    if side.service.queue_limit is not None:
        services = min(services, (side.service.queue_limit + side.workers * at_once + 1.0) ** 2)
    slowest_s = mean_s * side.service.slowest_factor
    queue_s = (dispersion + at_once * min(scv, MOST_SCV)) / 2.0 * slowest_s / side.workers * services
    return queue_s if batcher is None else max(queue_s, slowest_s * at_once) + batcher.max_delay_s


def work_moments(scenario: Scenario, role: str) -> tuple[float, float]:
    """Return mean (seconds) and SCV of a variant's service times; those of a linear law come from the trace's rows."""
    law = scenario.side(role).service.time
    if law.kind != "linear":
        return law.mean, law.scv
    work_s = law.values(scenario.traffic.trace().columns)
    mean_s = float(work_s.mean())
    return mean_s, float(work_s.var()) / mean_s**2 if mean_s > 0.0 else 0.0
