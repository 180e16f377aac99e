"""An outage of ten seconds that retries keep alive under one generation of boto3, and what ends it.

A pool serves at most mu = workers / service time requests per second, first in, first out. Its callers wait for
`PATIENCE_S` and make up to A attempts. While the wait is longer than that, no attempt succeeds, although the workers
are busy all the time: every request is attempted A times, and the work of attempts whose callers have gone away is
done all the same. The rate of attempts R at a rate r of requests is thus a fixed point of

    R = r (1 + p(R) + ... + p(R)^(A-1)),    p(R) = 0 for R < mu, and 1 for R > mu:

R = r if r < mu, and R = A r if A r > mu. For mu / A < r < mu there are both, and what happened before decides between
them: the pool is metastable (Bronson et al., Metastable Failures in Distributed Systems, HotOS 2021). In the second
state the wait grows by A r / mu - 1 seconds per second, for ever; it shrinks only where A r < mu.

The outage pushes the pool from one state to the other if the callers come back together. Those of legacy do: their
four waits add up to 7.5 s in the mean and 15 s at most, so that about 7 s of the 10 s of requests are still to be
attempted at the repair, within the 8 s that the last wait takes at most. At 0.7 mu that is 0.7 (7 + 8) = 10.5 s of
work in 8 s, a wait of 2.5 s. Those of standard-2026 have given up after 0.15 s: 0.1 s of work is still to come.

Rates of waits have the error of the number of attempts: requests are Poisson, and each is A attempts, so that their
number in T seconds has the standard deviation A sqrt(r T), and the wait A sqrt(r T) / mu.
"""

import math

import pytest
from cases import scenario, service

from shadowsim import simulate

WORKERS, SERVICE_S, PATIENCE_S = 10, 0.1, 1.0
MU = WORKERS / SERVICE_S
RATE = 0.7 * MU
AT_S, FOR_S, PERIOD_S, HORIZON_S = 60.0, 10.0, 30.0, 900.0
ATTEMPTS = 5  # of legacy
LEGACY = {"mode": "legacy", "timeout_s": PATIENCE_S}
OUTAGE = {"instance": 0, "at_s": AT_S, "for_s": FOR_S}


def source(retries, later=None, outages=(OUTAGE,), **of_service):
    """The source's windows at RATE, and at another rate from `later` = (time, rate) on."""
    rates = [(0.0, RATE), *([later] if later else [])]
    profile = {"kind": "steps", "steps": [{"from_s": t, "rate_per_s": rate} for t, rate in rates]}
    s = scenario(
        {"process": "poisson", "profile": profile, "retries": retries},
        service("deterministic", SERVICE_S, WORKERS, outages=list(outages), **of_service),
        service("deterministic", SERVICE_S),
        share=0,
        horizon_s=HORIZON_S,
        period_s=PERIOD_S,
        endpoint={"timeout_s": 3600.0},
        sample_requests=0,
    )
    return simulate(s, workers=1).windows.query("role == 'source'").set_index("time_s")


def success(windows, from_s, to_s=HORIZON_S):
    """The share of the callers' requests that succeeded, of those that began between."""
    rows = windows.loc[from_s : to_s - PERIOD_S]
    return rows["calls_answered"].sum() / rows["calls"].sum()


def check_drift(windows, rate, from_s, to_s):
    """The wait changes as the fluid tells, within four standard errors; the state without retries is far from that."""
    drift = windows["wait_mean_s"].loc[to_s] - windows["wait_mean_s"].loc[from_s]
    error = ATTEMPTS * math.sqrt(rate * (to_s - from_s)) / MU
    expected = (ATTEMPTS * rate / MU - 1.0) * (to_s - from_s)
    assert abs(drift - expected) < 4.0 * error
    one_attempt_fewer = ((ATTEMPTS - 1) * rate / MU - 1.0) * (to_s - from_s)
    assert abs(drift - one_attempt_fewer) > 4.0 * error


def test_ten_seconds_become_minutes_under_legacy():
    windows = source(LEGACY)
    assert success(windows, 0.0, AT_S) > 0.99
    assert MU / ATTEMPTS < RATE < MU
    # nobody is answered in time until the end, though the instance is up and busy
    assert success(windows, 120.0) == 0.0
    assert windows["serving_instance_count"].loc[90.0:].eq(1.0).all()
    assert windows["utilisation"].loc[120.0:].min() > 0.999
    # each request is five attempts; the last ones of a request come at most 5 x 1 s + 15 s after the first
    rows = windows.loc[120.0:]
    calls, error = rows["calls"].sum(), ATTEMPTS * math.sqrt(2.0 * RATE * 20.0)
    assert abs(rows["Invocations"].sum() - ATTEMPTS * calls) < 4.0 * error < 0.1 * calls
    check_drift(windows, RATE, 120.0, 870.0)


@pytest.mark.parametrize(
    "retries",
    [
        "none",
        {"mode": "standard", "timeout_s": PATIENCE_S},
        {"mode": "standard-2026", "timeout_s": PATIENCE_S},
        LEGACY | {"quota": 500},
    ],
    ids=["none", "standard", "standard-2026", "legacy with a quota"],
)
def test_it_is_over_with_the_outage_under_other_generations(retries):
    """Quotas end it too: 500 tokens are at most 100 retries, and hence 1 s of work; 35 of standard-2026."""
    windows = source(retries)
    begun = windows.loc[AT_S : AT_S + PERIOD_S - 1.0]
    if retries != "none":
        lost = 1.0 - begun["calls_answered"].sum() / begun["calls"].sum()
        # ten of the thirty seconds fail, but for the few that are retried; the number is about Poisson
        assert abs(lost - FOR_S / PERIOD_S) < (100 + 4 * math.sqrt(FOR_S * RATE)) / (PERIOD_S * RATE)
        assert success(windows, 120.0) == 1.0
    assert windows["InvocationModelErrors"].loc[120.0:].sum() == 0
    assert windows["ModelLatency_Maximum"].loc[120.0:].max() < PATIENCE_S * 1e6


def test_it_ends_when_the_load_falls_below_a_fifth_of_what_the_pool_can_do():
    """Twice as little as before is not enough: 5 x 0.25 > 1 > 5 x 0.15."""
    fall_s = 120.0
    for share in (0.15, 0.25):
        rate = share * MU
        windows = source(LEGACY, later=(fall_s, rate))
        # 30 s later the retries of those who came before are over
        check_drift(windows, rate, fall_s + PERIOD_S, 450.0)
        if ATTEMPTS * rate < MU:
            wait = windows["wait_mean_s"].loc[fall_s + PERIOD_S]
            left_s = wait / (1.0 - ATTEMPTS * rate / MU)
            late_s = 4.0 * ATTEMPTS * math.sqrt(rate * left_s) / MU / (1.0 - ATTEMPTS * rate / MU)
            over_s = fall_s + 2.0 * PERIOD_S + left_s + late_s
            assert over_s < HORIZON_S - PERIOD_S
            assert success(windows, fall_s, fall_s + 0.5 * left_s) == 0.0
            assert success(windows, math.ceil(over_s / PERIOD_S) * PERIOD_S) == 1.0
        else:
            assert success(windows, fall_s) == 0.0


def test_a_short_queue_ends_it():
    """What cannot be answered in time is refused, which is not retried: 40 in the queue wait for at most 0.4 s."""
    limit = 40
    assert limit / MU + SERVICE_S < PATIENCE_S
    windows = source(LEGACY, queue_limit=limit)
    assert success(windows, 120.0) > 0.99
    assert windows["wait_mean_s"].loc[120.0:].max() < limit / MU


@pytest.mark.parametrize("most", [2, 5])
def test_scaling_out_ends_it_if_all_attempts_fit(most):
    """The policy counts attempts, A r = 3.5 mu. Two instances serve 2 mu, five 5 mu."""
    policy = {"metric": "InvocationsPerInstance", "target": 0.75 * MU * 60.0, "min": 1, "max": most}
    windows = source(LEGACY, scaling=policy)
    assert windows["desired_instance_count"].max() == most
    if most * MU > ATTEMPTS * RATE:
        # the first instance gets a fifth of at most 1.25 r (those that it does not answer in time come again), which
        # is 0.18 mu, and works off the 2.5 x 180 s that wait after three minutes in 450 / 0.82 s; then all are alike
        assert success(windows, 870.0) > 0.99
    else:
        assert success(windows, 420.0) == 0.0


def test_a_restart_does_not_end_it():
    """It drops the queue, but is an outage like the first."""
    windows = source(LEGACY, outages=[OUTAGE, OUTAGE | {"at_s": 420.0}])
    assert windows["requests_failed"].loc[120.0:390.0].sum() > 0  # of those that arrived then
    assert success(windows, 480.0) == 0.0
