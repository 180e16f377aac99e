"""Simulates one pool event by event: batches, auto scaling, outages and retries.

The faster loops of `_kernel` know a request's end when it arrives. Here they cannot: a batch waits for later arrivals,
an instance may fail, and a retry depends on the answer.
"""

from __future__ import annotations

from typing import NamedTuple

from shadowsim.engine._kernel import Floats, Ints

# ---- More columns of draws. Attempt a of a request (0: the first) uses column + ATTEMPT a for its service, route,
# error, response bytes and copy. ----
ATTEMPT = 64
SOURCE_OUTAGE, SHADOW_OUTAGE = 14, 15  # keyed by the instance's number in place of a window: up, repair, up, ...
CLIENT, BACKOFF = 16, 17  # which client makes a request; how long attempt a waits before it is made again

# ---- Metrics that a scaling policy follows ----
NO_SCALING, INVOCATIONS, CONCURRENCY = 0, 1, 2

# ---- Causes for which a caller retries, as bits ----
ON_TIMEOUT, ON_UNAVAILABLE, ON_OUTAGE, ON_REFUSED, ON_MODEL_ERROR = 1, 2, 4, 8, 16


class Batching(NamedTuple):
    """A dynamic batcher; `max_size` 0: none. `factors` (max_size,): on the service time of a batch of 1, 2, ..."""

    max_size: int
    max_delay_s: float
    factors: Floats


class Scaling(NamedTuple):
    """A target-tracking policy; `target` is per instance: invocations per minute, or concurrent requests."""

    metric: int
    target: float
    least: int
    most: int
    out_cooldown_s: float
    in_cooldown_s: float
    out_points: int
    in_points: int
    delay_s: float
    cold_start_s: float


class Outages(NamedTuple):
    """Failures of instances: those listed, ordered by time and instance, and random ones unless `mtbf_s` is inf."""

    instance: Ints
    at_s: Floats
    for_s: Floats
    mtbf_s: float
    mttr_s: float
    column: int


class Retries(NamedTuple):
    """The callers' retries; `max_attempts` 1: none.

    Attempt a + 1 is made u min(base_s 2^a, cap_s) after the answer to attempt a = 0, 1, ... `timeout_s`: when a caller
    gives up, inf: never. `quota`: tokens of each of `n_clients` clients, -1 for no limit; a retry costs `cost`, after a
    time-out `timeout_cost`. `causes`: the bits ON_... .
    """

    max_attempts: int
    base_s: float
    cap_s: float
    timeout_s: float
    quota: int
    cost: int
    timeout_cost: int
    n_clients: int
    causes: int


class Dynamics(NamedTuple):
    """What makes a pool need events; `evented` tells whether it does."""

    evented: bool
    batching: Batching
    scaling: Scaling
    outages: Outages
    retries: Retries
