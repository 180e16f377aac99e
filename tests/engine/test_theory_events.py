"""The theory of batches, outages and retries against Markov chains that are solved directly, and against the oracle.

A chain is truncated where less than 1e-12 of its time lies, so results agree to 1e-9.
"""

import math
from types import SimpleNamespace

import naive_events as events
import numpy as np
import pytest
import theory_events as theory
from cases import scenario, service

from shadowsim.engine import _event_kernel as e
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns


def stationary(rates):
    """The stationary law of a chain from {(state, state): rate}, as {state: probability}."""
    states = sorted({state for pair in rates for state in pair})
    at = {state: n for n, state in enumerate(states)}
    balance = np.zeros((len(states), len(states)))
    for (a, b), rate in rates.items():
        balance[at[b], at[a]] += rate
        balance[at[a], at[a]] -= rate
    balance[-1] = 1.0  # sum(p) = 1 replaces one equation
    return dict(zip(states, np.linalg.solve(balance, np.eye(len(states))[-1]), strict=True))


@pytest.mark.parametrize("rates", [(0.8, 1.0, 0.05, 0.5), (3.0, 1.0, 0.5, 0.2), (0.2, 2.0, 1e-3, 1e-2)])
def test_m_m_1_with_disasters(rates):
    arrival, rate, disaster, repair = rates
    t = theory.m_m_1_with_disasters(*rates)
    most = math.ceil(math.log(1e-14) / math.log(t.ratio))
    chain = {(-1, 0): repair}  # -1: down
    for n in range(most + 1):
        chain[n, -1] = disaster
        if n < most:
            chain[n, n + 1], chain[n + 1, n] = arrival, rate
    p = stationary(chain)
    assert 1.0 - p[-1] == pytest.approx(t.up, rel=1e-9)
    for n in range(5):
        assert p[n] == pytest.approx(t.up * (1.0 - t.ratio) * t.ratio**n, rel=1e-9)
    accepted = arrival * (1.0 - p[-1])
    answered = rate * sum(p[n] for n in range(1, most + 1))
    present = sum(n * p[n] for n in range(most + 1))
    assert answered / accepted == pytest.approx(t.answered, rel=1e-9)
    assert disaster * present / accepted == pytest.approx(1.0 - t.answered, rel=1e-9)
    # Little's law holds for all accepted; those that fail leave after as long a time as those answered: the earlier of
    # two exponential clocks does not depend on which it was
    assert present / accepted == pytest.approx(t.mean_latency_s, rel=1e-9)


@pytest.mark.parametrize(("arrival", "most"), [(0.7, 1), (1.5, 2), (0.3, 4), (7.2, 8)])
def test_m_m_1_in_batches(arrival, most):
    t = theory.m_m_1_in_batches(arrival, 1.0, most)
    waiting = math.ceil(math.log(1e-14) / math.log(t.ratio))
    chain = {(-1, 0): arrival, (0, -1): 1.0}  # -1: idle; n: busy, n wait
    for n in range(waiting):
        chain[n, n + 1] = arrival
        chain[n + 1, max(n + 1 - most, 0)] = 1.0
    p = stationary(chain)
    assert p[-1] == pytest.approx(t.idle, rel=1e-9)
    for n in range(4):
        assert p[n] == pytest.approx((1.0 - t.idle) * (1.0 - t.ratio) * t.ratio**n, rel=1e-9)
    assert sum(n * p[n] for n in range(waiting + 1)) / arrival == pytest.approx(t.mean_wait_s, rel=1e-9)
    assert arrival / (1.0 - p[-1]) == pytest.approx(t.mean_size, rel=1e-9)
    if most == 1:
        assert t.mean_wait_s == pytest.approx(arrival / (1.0 - arrival))  # M/M/1


def test_batches_that_do_not_keep_up_are_refused():
    with pytest.raises(ValueError, match=r"arrival: must be above 0 and below most x service = 2.0, got 2.0"):
        theory.m_m_1_in_batches(2.0, 1.0, 2)


def test_blocked_requests():
    for arrival, workers, room in ((0.5, 1, 0), (2.0, 3, 2), (9.0, 2, 4)):
        chain = {}
        for n in range(workers + room):
            chain[n, n + 1], chain[n + 1, n] = arrival, float(min(n + 1, workers))
        p = stationary(chain)
        assert theory.blocked(arrival, 1.0, workers, room) == pytest.approx(p[workers + room], rel=1e-9)


def orbit_rate(arrival, retry, room, most):
    """Rate of attempts of M/M/1 with `room` places to wait if a refused request is made once more, at rate `retry`."""
    chain = {}
    for j in range(most + 1):  # requests that will be made again
        for n in range(room + 2):
            if n < room + 1:
                chain[(n, j), (n + 1, j)], chain[(n + 1, j), (n, j)] = arrival, 1.0
                if j:
                    chain[(n, j), (n + 1, j - 1)] = retry * j
            else:
                if j < most:
                    chain[(n, j), (n, j + 1)] = arrival
                if j:
                    chain[(n, j), (n, j - 1)] = retry * j
    p = stationary(chain)
    return arrival + retry * sum(j * share for (_, j), share in p.items())


def test_retries_after_long_backoffs():
    """The chain with an orbit approaches the fixed point, and its distance is proportional to the rate of retries."""
    limit = theory.rate_with_retries(1.0, lambda rate: theory.blocked(rate, 1.0, 1, 1), 2)
    p = theory.blocked(limit, 1.0, 1, 1)
    assert limit == pytest.approx(1.0 + p, rel=1e-12)
    off = [limit - orbit_rate(1.0, retry, 1, most) for retry, most in ((0.02, 70), (0.01, 110), (0.005, 190))]
    assert abs(off[-1]) < 1e-3 * limit
    # halved with the rate, up to a term of the second order, which is halved too
    ratios = [off[0] / off[1], off[1] / off[2]]
    assert ratios == pytest.approx([2.0, 2.0], abs=0.1)
    assert abs(ratios[1] - 2.0) < 0.7 * abs(ratios[0] - 2.0)


def test_the_rate_with_retries_has_simple_limits():
    assert theory.rate_with_retries(3.0, lambda rate: 0.0, 5) == 3.0
    assert theory.rate_with_retries(3.0, lambda rate: 1.0, 5) == 15.0
    assert theory.rate_with_retries(2.0, lambda rate: 0.5, 3) == 2.0 * 1.75


def test_a_pool_that_retries_can_overload_has_two_rates():
    def failed(rate):
        return 0.0 if rate < 2.0 else 0.9

    assert theory.rate_with_retries(1.0, failed, 3) == 1.0
    assert theory.rate_with_retries(1.0, failed, 3, from_above=True) == pytest.approx(1.0 + 0.9 + 0.81)


# ---- The oracle ----
# Windows of at least 100 relaxation times are as good as independent; the mean of a figure over them must lie within
# four of its standard errors of the exact value. One seed, never changed.


def windows(dynamics, arrival, window_s, n_windows, seed=7, **of_service):
    """Attempts of the source, by window; the first window, which starts empty, is left out."""
    horizon_s = window_s * n_windows
    s = scenario(
        {"process": "poisson", "rate_per_s": arrival},
        service("exponential", 1.0, **of_service),
        horizon_s=horizon_s,
        period_s=window_s,
        seed=seed,
        share=0,
        endpoint={"timeout_s": 3600.0},
    )
    arrivals = arrivals_of(s)
    c = events.with_dynamics(columns(s, arrivals), dynamics, events.PLAIN)
    history = events.simulate(c, arrivals)[0]
    rows = [[] for _ in range(n_windows)]
    for a in history.attempts:
        rows[int(a.arrival // window_s)].append(a)
    return SimpleNamespace(attempts=rows[1:], history=history, c=c)


def errors_from(values, expected):
    values = np.array(values)
    return (values.mean() - expected) / (values.std(ddof=1) / math.sqrt(len(values)))


@pytest.mark.slow
def test_the_oracles_outages():
    rates = (0.7, 1.0, 0.05, 0.2)
    t = theory.m_m_1_with_disasters(*rates)
    dynamics = events.dynamics(outages=events.outages(mtbf_s=20.0, mttr_s=5.0))
    run = windows(dynamics, rates[0], 500.0, 21)
    n = [len(w) for w in run.attempts]
    share = [sum(a.status != "unavailable" for a in w) / len(w) for w in run.attempts]
    assert min(n) > 250
    assert abs(errors_from(share, t.up)) < 4.0
    served = [[a for a in w if a.status != "unavailable"] for w in run.attempts]
    share = [sum(a.status == "answered" for a in w) / len(w) for w in served]
    assert abs(errors_from(share, t.answered)) < 4.0
    latency = [np.mean([a.latency for a in w if a.status == "answered"]) for w in served]
    assert abs(errors_from(latency, t.mean_latency_s)) < 4.0
    # an M/M/1 that is never down would be far away
    assert abs(errors_from(latency, 1.0 / 0.3)) > 4.0


@pytest.mark.slow
def test_the_oracles_batches():
    t = theory.m_m_1_in_batches(2.5, 1.0, 4)
    run = windows(events.dynamics(e.Batching(4, 0.0, np.ones(4))), 2.5, 200.0, 21)
    waits = [np.mean([a.start - a.arrival for a in w]) for w in run.attempts]
    assert abs(errors_from(waits, t.mean_wait_s)) < 4.0
    idle = [1.0 - busy / 200.0 for busy in run.history.busy_s[1:]]
    assert abs(errors_from(idle, t.idle)) < 4.0
    smaller = theory.m_m_1_in_batches(2.5, 1.0, 3)
    assert abs(errors_from(waits, smaller.mean_wait_s)) > 4.0


@pytest.mark.slow
def test_the_oracles_retries():
    retries = e.Retries(3, 2000.0, 4000.0, math.inf, -1, 0, 0, 1, e.ON_REFUSED)
    # backoffs of 1000 and 2000 s on average, at most 6000 s together: the rate is stationary from then on
    window_s, skip = 500.0, 12
    run = windows(events.dynamics(retries=retries), 1.0, window_s, 32, queue_limit=1)
    rate = theory.rate_with_retries(1.0, lambda r: theory.blocked(r, 1.0, 1, 1), 3)
    late = run.attempts[skip:]
    assert abs(errors_from([len(w) / window_s for w in late], rate)) < 4.0
    refused = [sum(a.status == "refused" for a in w) / len(w) for w in late]
    assert abs(errors_from(refused, theory.blocked(rate, 1.0, 1, 1))) < 4.0
    assert abs(errors_from(refused, theory.blocked(1.0, 1.0, 1, 1))) > 4.0
