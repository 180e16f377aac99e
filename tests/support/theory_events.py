"""Queueing theory of instances that batch or fail and of callers that retry.

Rates are per second. Arrivals are Poisson and services exponential, so that all results are exact in the stationary
state, unless a function says what it neglects.
"""

import math
from typing import NamedTuple


class WithDisasters(NamedTuple):
    up: float  # share of the time in which the server is up: also the share of requests that are not lost at once
    ratio: float  # while it is up, n requests are present with probability (1 - ratio) ratio^n
    answered: float  # share of those accepted that do not fail in a disaster
    mean_latency_s: float  # of those answered; it is exponential


def m_m_1_with_disasters(arrival, service, disaster, repair):
    """M/M/1 whose disasters remove all requests and close it for an exponential repair, in which arrivals are lost.

    Disasters come at a constant rate while it is up, busy or idle. Up and down alternate as an on-off process. While it
    is up the number present solves (arrival + service + disaster) p_n = arrival p_(n-1) + service p_(n+1), so it is
    geometric with the smaller root z of

        service z^2 - (arrival + service + disaster) z + arrival = 0

    (Towsley and Tripathi, 1991; Yechiali, 2007, with customers who do not wait while the system is down). A request
    that finds n would take an Erlang(n + 1) time, which is exponential with rate service (1 - z) over the geometric n;
    the disaster's exponential clock races it, so the share answered is that rate over the sum of both, and the latency
    of those answered is exponential with the sum.
    """
    b = arrival + service + disaster
    z = 2.0 * arrival / (b + math.sqrt(b * b - 4.0 * service * arrival))
    leave = service * (1.0 - z)
    return WithDisasters(repair / (disaster + repair), z, leave / (leave + disaster), 1.0 / (leave + disaster))


class Batched(NamedTuple):
    ratio: float  # n requests wait while the server is busy with probability busy (1 - ratio) ratio^n
    idle: float
    mean_wait_s: float
    mean_size: float  # of a batch


def m_m_1_in_batches(arrival, service, most):
    """M/M/1 that serves up to `most` waiting requests at once, in a time that does not depend on their number.

    A server that becomes free takes min(waiting, most) requests at once, and nobody joins a batch in service (Bailey,
    1954; Gross and Harris, "Fundamentals of Queueing Theory", partial-batch model). With n waiting while it is busy,
    (arrival + service) p_n = arrival p_(n-1) + service p_(n+most): p_n = A r^n, with the root r in (0, 1) of

        service r^(most+1) - (arrival + service) r + arrival = 0,

    which after division by 1 - r is service (r + ... + r^most) = arrival, and increases in r. It is idle with
    probability service A / arrival. The mean wait follows by Little's law.

    Raises ValueError unless arrival < most x service.
    """
    if not 0.0 < arrival < most * service:
        raise ValueError(f"arrival: must be above 0 and below most x service = {most * service}, got {arrival}")
    low, high = 0.0, 1.0
    for _ in range(200):
        r = (low + high) / 2.0
        if service * sum(r**n for n in range(1, most + 1)) < arrival:
            low = r
        else:
            high = r
    a = 1.0 / (1.0 / (1.0 - r) + service / arrival)
    busy = a / (1.0 - r)
    return Batched(r, service * a / arrival, busy * r / (1.0 - r) / arrival, arrival / (service * busy))


def blocked(arrival, service, workers, room):
    """Share of requests refused by M/M/c with `room` places to wait (Erlang, 1917, for no room)."""
    weight, total = 1.0, 1.0
    for n in range(1, workers + room + 1):
        weight *= arrival / (service * min(n, workers))
        total += weight
    return weight / total


def rate_with_retries(arrival, failed, max_attempts, from_above=False):
    """Return the rate of attempts if each request is made up to `max_attempts` times and backoffs are long.

    `failed(rate)` is the share of attempts that fail, and must not decrease in the rate. If backoffs are long against
    the pool's relaxation, retries come back as a Poisson stream that is independent of the pool's state, and the rate
    of attempts solves

        rate = arrival (1 + p + ... + p^(max_attempts - 1)),   p = failed(rate)

    (Cohen, 1957; Falin and Templeton, "Retrial Queues", 1997, low retrial rate). The right side does not decrease, so
    iteration from `arrival` reaches the least solution and iteration from arrival x max_attempts (`from_above`) the
    greatest; where they differ the pool is metastable.
    """
    rate = arrival * max_attempts if from_above else arrival
    while True:
        p = failed(rate)
        following = arrival * sum(p**n for n in range(max_attempts))
        if math.isclose(following, rate, rel_tol=1e-13):
            return following
        rate = following
