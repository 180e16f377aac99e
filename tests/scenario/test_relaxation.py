"""Relaxation times: exact for M/M/1, finite for heavy tails, and known for laws of a trace's columns."""

import math

import numpy as np
import pytest
from cases import scenario, service

from shadowsim import simulate
from shadowsim.scenario.relaxation import MOST_SCV, relaxation_s, work_moments

POISSON = {"process": "poisson", "rate_per_s": 1.0}
TRACE = {"process": "trace", "path": "builtin:trace_small"}


@pytest.mark.parametrize(("load", "workers"), [(0.25, 1), (0.81, 1), (0.81, 4)])
def test_of_exponential_services_it_is_cohens(load, workers):
    """1 / (mu (1 - sqrt(rho))^2) for M/M/1; several workers are like one that is as many times faster."""
    case = scenario(POISSON, service(mean_s=2.0, workers=workers))
    assert relaxation_s(case, "source", load) == pytest.approx(2.0 / workers / (1.0 - math.sqrt(load)) ** 2)


def test_a_linear_law_has_the_moments_of_its_rows():
    time = {"law": "linear", "base_s": 0.05, "GeneratedTokens": 0.004}
    case = scenario(TRACE, {"time": time, "workers": 4})
    work_s = 0.05 + 0.004 * case.traffic.trace().columns["GeneratedTokens"]
    mean_s, scv = work_moments(case, "shadow")
    assert mean_s == pytest.approx(np.mean(work_s))
    assert scv == pytest.approx(np.var(work_s) / np.mean(work_s) ** 2)
    assert 0.0 < relaxation_s(case, "shadow", 0.5) < math.inf


def test_an_infinite_variance_counts_as_the_greatest_that_a_run_shows():
    heavy = scenario(POISSON, {"time": {"law": "pareto", "shape": 1.5, "minimum_s": 1.0 / 3.0}, "workers": 1})
    assert work_moments(heavy, "source")[1] == math.inf
    assert relaxation_s(heavy, "source", 0.25) == pytest.approx((1.0 + MOST_SCV) / 2.0 / 0.25)


def test_a_busiest_state_below_capacity_counts_alone():
    case = scenario({"process": "mmpp", "rates_per_s": [0.1, 0.9], "mean_sojourn_s": 1000.0}, service())
    assert relaxation_s(case, "source", 0.5, 0.81) == pytest.approx(1.0 / 0.01)
    assert relaxation_s(case, "source", 0.5, 1.2) > 1000.0
    assert case.traffic.jump_per_s == pytest.approx(0.4)


def test_a_queue_with_an_end_forgets_when_it_has_turned_over():
    case = scenario(POISSON, service() | {"queue_limit": 3})
    assert relaxation_s(case, "source", 1.0) == pytest.approx(5.0**2)
    assert relaxation_s(scenario(POISSON), "source", 1.0) == math.inf


@pytest.mark.parametrize(("speed", "status"), [(1.5, "STABLE"), (3.0, "TOO SHORT")])
def test_a_run_of_linear_services_can_be_too_short(speed, status):
    """The trace brings 0.4 s of work 0.75 times per second; nearly at capacity its queue needs hours to forget."""
    linear = {"time": {"law": "linear", "base_s": 0.0, "GeneratedTokens": 0.01}, "workers": 1}
    played = TRACE | {"repeat": 30, "speed": speed}
    pool = simulate(scenario(played, linear, horizon_s=18_000.0 / speed, sample_requests=0)).verdict.source
    assert pool.status == status
    assert ("relaxation time" in pool.why) is (status == "TOO SHORT")


@pytest.mark.parametrize(("load", "status"), [(0.05, "STABLE"), (0.9, "TOO SHORT")])
def test_a_run_of_heavy_tailed_services_can_be_long_enough(load, status):
    heavy = {"time": {"law": "pareto", "shape": 1.9, "minimum_s": 0.0009 / 1.9}, "workers": 1}  # its mean is 1 ms
    case = scenario({"process": "poisson", "rate_per_s": 1000.0 * load}, heavy, sample_requests=0, horizon_s=90.0)
    assert simulate(case).verdict.source.status == status


@pytest.mark.parametrize("size", [1, 2, 4, 16])
@pytest.mark.parametrize("load", [0.8, 0.95, 0.99])
def test_a_batch_queue_near_capacity(size, load):
    """Batches that all take an exponential time: up by 1 at rate lambda, down by `size` at rate mu.

    Such a walk with a wall at 0 forgets at the rate lambda + mu - min over z of (lambda z + mu / z^size), as M/M/1 does
    at (sqrt(mu) - sqrt(lambda))^2 (Kingman, 1963). At the minimum z^(size + 1) = size mu / lambda. The approximation by
    two moments differs by less than 1 - sqrt(load).
    """
    mu, rate = 0.5, load * size * 0.5
    z = (size * mu / rate) ** (1.0 / (size + 1))
    exact_s = 1.0 / (rate + mu - rate * z - mu * z**-size)
    batched = service(mean_s=1.0 / mu) | {"batching": {"max_size": size, "marginal": 0.0, "max_delay_s": 0.25}}
    approximate_s = relaxation_s(scenario(POISSON, batched), "source", load)
    assert approximate_s - 0.25 == pytest.approx(exact_s, rel=1.0 - math.sqrt(load))
    if size == 1:
        assert approximate_s - 0.25 == pytest.approx(exact_s)


def test_a_batcher_remembers_at_least_a_batch_and_its_delay():
    batching = {"max_size": 10, "factors": [1.0, 2.0], "max_delay_s": 3.0}
    case = scenario(POISSON, service("deterministic", 0.5, 2, slowdown=[1.0, 1.5]) | {"batching": batching})
    assert relaxation_s(case, "source", 1e-9) == pytest.approx(0.5 * 1.5 * 2.0 + 3.0)
    limited = case.replace({"source.queue_limit": 7})
    assert relaxation_s(limited, "source", 1.0) == pytest.approx(0.5 * 0.5 * 1.5 * 0.2 / 2 * (7 + 20 + 1) ** 2 + 3.0)
