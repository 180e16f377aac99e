"""Computes the relaxation time of a pool: the time scale on which its queue forgets its past."""

from __future__ import annotations

import math
from collections.abc import Mapping

from shadowsim.arrays import Floats
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.token_times import typical_requests, work_s
from shadowsim.scenario.tokens import full_batch, mean_work_s

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

    An instance that serves tokens has its full batch near its capacity. Requests then leave it like those of a queue
    with their mean work as E[S], and it remembers as many of them as the batch holds.

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
    batcher, at_once, in_batch = side.service.batching, 1.0, 1.0
    if batcher is not None:
        at_once = in_batch = batcher.max_size
    elif side.service.tokens is not None:
        in_batch = full_batch(side.service.tokens, trace_columns(scenario))
    dispersion = max(scenario.traffic.dispersion or 1.0, 1.0)
    if busiest_load is not None and busiest_load < 1.0:
        load, dispersion = busiest_load, 1.0
    services = 1.0 / (1.0 - math.sqrt(load)) ** 2 if load < 1.0 else math.inf
    if side.service.queue_limit is not None:
        services = min(services, (side.service.queue_limit + side.workers * in_batch + 1.0) ** 2)
    slowest_s = mean_s * side.service.slowest_factor
    queue_s = (dispersion + at_once * min(scv, MOST_SCV)) / 2.0 * slowest_s / side.workers * services
    if batcher is None and side.service.tokens is None:
        return queue_s
    return max(queue_s, slowest_s * in_batch) + (0.0 if batcher is None else batcher.max_delay_s)


def work_moments(scenario: Scenario, role: str) -> tuple[float, float]:
    """Return mean (seconds) and SCV of a variant's service times; those of a linear law come from the trace's rows.

    A request in tokens has the time that it keeps an instance with a full batch busy.
    """
    service, columns = scenario.side(role).service, trace_columns(scenario)
    if service.tokens is not None:
        seconds = work_s(service.tokens, typical_requests(service.tokens, columns), columns)
        mean_s = mean_work_s(service.tokens, columns)
        return mean_s, float(seconds.var()) / mean_s**2
    if service.time.kind != "linear":
        return service.time.mean, service.time.scv
    seconds = service.time.values(columns)
    mean_s = float(seconds.mean())
    return mean_s, float(seconds.var()) / mean_s**2 if mean_s > 0.0 else 0.0


def trace_columns(scenario: Scenario) -> Mapping[str, Floats]:
    """Return the columns of a scenario's trace; none for other traffic."""
    return scenario.traffic.trace().columns if scenario.traffic.process == "trace" else {}
