"""Mean waits against queueing theory.

A batch is a window of at least 100 relaxation times of the queue, so batch means are as good as independent; the mean
of 64 of them (the first, which starts empty, left out) must lie within four of its standard errors of the exact value,
and must not when the mean service time is 1 % longer at a load of 0.95: the test can tell. One seed, never changed.
"""

import math

import numpy as np
import pytest
from cases import scenario, service

from shadowsim import simulate

BATCHES = 64
LOADS = [0.5, 0.8, 0.95]
SCV = 2.0


def erlang_c_wait(load, workers):
    """Mean wait of M/M/c in service times (Erlang, 1917)."""
    a = load * workers
    below = sum(a**n / math.factorial(n) for n in range(workers))
    top = a**workers / math.factorial(workers) / (1 - load)
    return top / (below + top) / (workers * (1 - load))


def pollaczek_khinchine(load, scv):
    """Mean wait of M/G/1 in service times (Pollaczek, 1930; Khinchine, 1932)."""
    return load * (1 + scv) / (2 * (1 - load))


def batch_s(load, workers, scv):
    """100 relaxation times, (1 + SCV) / 2 / (c (1 - sqrt(load))^2) each for a mean service of 1 s, and 1,000 s more."""
    return 1000.0 + 100.0 * (1 + scv) / 2 / (workers * (1 - math.sqrt(load)) ** 2)


# name: (service, workers, SCV, mean wait in service times)
QUEUES = {
    "M/M/1": (service("exponential", 1.0, 1), 1.0, lambda load: pollaczek_khinchine(load, 1.0)),
    "M/M/4": (service("exponential", 1.0, 4), 1.0, lambda load: erlang_c_wait(load, 4)),
    "M/D/1": (service("deterministic", 1.0, 1), 0.0, lambda load: pollaczek_khinchine(load, 0.0)),
    "M/G/1 lognormal": (service("lognormal", 1.0, 1, scv=SCV), SCV, lambda load: pollaczek_khinchine(load, SCV)),
    "M/G/1 gamma": (service("gamma", 1.0, 1, scv=SCV), SCV, lambda load: pollaczek_khinchine(load, SCV)),
}
AMPLE = service("deterministic", 0.01, 64)


def waits(load, block, scv, *, role="source", share=50, instances=1, longer=1.0):
    """Batch means of the wait, in seconds, of a pool whose mean service time is `longer` seconds."""
    block = block | {"time": block["time"] | {"mean_s": longer}}
    period = batch_s(load, block["workers"], scv)
    rate = load * block["workers"] * instances
    pools = (AMPLE, block) if role == "shadow" else (block, AMPLE)
    s = scenario(
        {"process": "poisson", "rate_per_s": rate * (100 / share if role == "shadow" else 1)},
        *pools,
        share=share,
        **{f"{role}_instances": instances},
        endpoint={"timeout_s": 1e9},
        horizon_s=(BATCHES + 1) * period,
        period_s=period,
        seed=2026,
        sample_requests=0,
    )
    w = simulate(s).windows
    w = w[w["role"] == role].iloc[1:]
    assert len(w) == BATCHES
    # a ratio estimator: batches hold nearly, not quite, the same number of requests
    return w["wait_mean_s"].to_numpy() * (w["Invocations"] / w["Invocations"].mean()).to_numpy()


def errors_from(batches, expected):
    """How many standard errors the mean of batch means is away from the expectation."""
    return (batches.mean() - expected) / (batches.std(ddof=1) / math.sqrt(len(batches)))


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("queue", QUEUES)
def test_mean_wait(queue, load):
    block, scv, wait = QUEUES[queue]
    assert abs(errors_from(waits(load, block, scv), wait(load))) < 4


@pytest.mark.parametrize("queue", QUEUES)
def test_a_service_longer_by_one_percent_is_seen(queue):
    block, scv, wait = QUEUES[queue]
    assert errors_from(waits(0.95, block, scv, longer=1.01), wait(0.95)) > 4


@pytest.mark.parametrize("load", LOADS)
def test_the_shadow_of_a_coin_is_an_m_g_1_at_its_share_of_the_rate(load):
    block, scv, wait = QUEUES["M/G/1 lognormal"]
    assert abs(errors_from(waits(load, block, scv, role="shadow", share=30), wait(load))) < 4


def test_the_shadows_test_has_power_too():
    block, scv, wait = QUEUES["M/G/1 lognormal"]
    assert errors_from(waits(0.95, block, scv, role="shadow", share=30, longer=1.01), wait(0.95)) > 4


def test_random_routing_over_instances_is_as_many_queues():
    block, scv, wait = QUEUES["M/M/4"]
    assert abs(errors_from(waits(0.8, block, scv, instances=5), wait(0.8))) < 4


def test_batches_are_long_enough_to_be_independent():
    """Lag-1 correlation of the batch means within what 64 independent ones show (four standard errors of 1/8)."""
    for queue in QUEUES:
        block, scv, _ = QUEUES[queue]
        b = waits(0.95, block, scv)
        assert abs(np.corrcoef(b[:-1], b[1:])[0, 1]) < 4 / math.sqrt(BATCHES)
