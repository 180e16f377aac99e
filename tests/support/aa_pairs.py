"""Scenarios with an equal or a slightly slower shadow, and their true p99 from theory or a very long run."""

import math

from cases import scenario, service
from scipy.optimize import brentq

from shadowsim import simulate
from shadowsim.frames import quantile

WORKERS, MEAN_S = 4, 0.1
LAWS = {"exponential": {}, "lognormal": {"scv": 0.5}}


def alike(law, load, n, seed, slower=1.0, **run):
    """Return a scenario of about n requests, all copied, to two pools of four workers; the shadow may be slower."""
    rate = load * WORKERS / MEAN_S
    source, shadow = (service(law, MEAN_S * f, WORKERS, **LAWS[law]) for f in (1.0, slower))
    run = {"horizon_s": n / rate, "period_s": n / rate / 100, "seed": seed, "sample_requests": 0} | run
    return scenario({"process": "poisson", "rate_per_s": rate}, source, shadow, share=100, **run)


def beyond(t, load, mean_s=MEAN_S):
    """Return P(response time > t) of M/M/4: exponential service, after an exponential wait with Erlang's C."""
    a = load * WORKERS
    top = a**WORKERS / math.factorial(WORKERS) / (1 - load)
    c = top / (sum(a**n / math.factorial(n) for n in range(WORKERS)) + top)
    mu, theta = 1 / mean_s, WORKERS * (1 - load) / mean_s
    return (1 - c) * math.exp(-mu * t) + c * (mu * math.exp(-theta * t) - theta * math.exp(-mu * t)) / (mu - theta)


def exact(q, load, mean_s=MEAN_S):
    """Return the quantile of the response time of M/M/4; the load must not be 0.75, where the formula has a hole."""
    return brentq(lambda t: beyond(t, load, mean_s) - (1 - q), 0.0, 100.0 * mean_s)


def long_run(law, load, q, slower=1.0, n=30_000_000):
    """Return the quantile of the shadow in a very long run, with an error of a few parts in a thousand."""
    return float(quantile(simulate(alike(law, load, n, 1, slower)).latency, q)["Shadow"])
