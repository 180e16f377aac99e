"""Pools that batch, scale, fail or are retried, through `simulate`, against theory and tables worked by hand.

A figure's mean over independent runs must lie within four of its standard errors of the exact value, and outside of
them for a theory that is wrong. The first half of a run, which starts empty, is left out; it is at least 100 relaxation
times. One seed, never changed.
"""

import math

import numpy as np
import pytest
import theory_events as theory
from cases import scenario, service

from shadowsim import simulate
from shadowsim.engine.replicate import replication

RUNS = 40


def runs(rate, figure, horizon_s=8000.0, retries="none", law="exponential", **of_service):
    """A figure of the second half of each of `RUNS` independent runs of a source with a mean service of 1 s."""
    s = scenario(
        {"process": "poisson", "rate_per_s": rate, "retries": retries},
        service(law, 1.0, **of_service),
        service("deterministic", 0.01),
        share=0,
        horizon_s=horizon_s,
        period_s=horizon_s / 2,
        endpoint={"timeout_s": 3600.0},
        sample_requests=0,
    )
    windows = [simulate(replication(s, r), workers=1).windows for r in range(RUNS)]
    return np.array([figure(w[w["role"] == "source"].iloc[1]) for w in windows])


def errors_from(values, expected):
    """The distance of a mean from the expected value, in its standard errors."""
    return (values.mean() - expected) / (values.std(ddof=1) / math.sqrt(len(values)))


@pytest.mark.slow
def test_m_m_1_with_disasters_and_repair():
    rates = (0.7, 1.0, 0.05, 0.2)
    t = theory.m_m_1_with_disasters(*rates)
    figures = runs(
        rates[0],
        lambda w: (
            1.0 - w["requests_unavailable"] / w["Invocations"],
            w["ModelLatency_SampleCount"] / (w["Invocations"] - w["requests_unavailable"]),
            w["ModelLatency_Average"] / 1e6,
        ),
        outages={"mtbf_s": 20.0, "mttr_s": 5.0},
    )
    for values, expected in zip(figures.T, (t.up, t.answered, t.mean_latency_s), strict=True):
        assert abs(errors_from(values, expected)) < 4.0
        # a standard error is at most 2.5 % of the figure
        assert abs(errors_from(values, 1.12 * expected)) > 4.0
    never_down = 1.0 / (1.0 - 0.7)
    assert abs(errors_from(figures[:, 2], never_down)) > 4.0


@pytest.mark.parametrize(
    ("rate", "most"), [*(pytest.param(*case, marks=pytest.mark.slow) for case in ((0.7, 1), (1.5, 2))), (2.5, 4)]
)
def test_m_m_1_in_batches(rate, most):
    t = theory.m_m_1_in_batches(rate, 1.0, most)
    figures = runs(
        rate,
        lambda w: (w["wait_mean_s"], 1.0 - w["utilisation"], w["batch_size_mean"]),
        batching={"max_size": most, "max_delay_s": 0.0, "marginal": 0.0},
    )
    assert abs(errors_from(figures[:, 0], t.mean_wait_s)) < 4.0
    assert abs(errors_from(figures[:, 1], t.idle)) < 4.0
    if most > 1:
        assert abs(errors_from(figures[:, 2], t.mean_size)) < 4.0
        larger = theory.m_m_1_in_batches(rate, 1.0, most + 1)
        assert abs(errors_from(figures[:, 0], larger.mean_wait_s)) > 4.0
    else:
        assert (figures[:, 2] == 1.0).all()


@pytest.mark.slow
def test_retries_after_long_backoffs_meet_the_fixed_point():
    """Backoffs of 500 and 1,000 s on average end within 3,000 s, so the second half of a run is stationary."""
    retries = {
        "mode": "standard", "max_attempts": 3, "backoff_base_s": 1000.0, "backoff_cap_s": 2000.0,
        "quota": 2**31 - 1, "cost": 0, "timeout_s": 3600.0, "on": ["refused"],
    }  # fmt: skip
    rate = theory.rate_with_retries(1.0, lambda r: theory.blocked(r, 1.0, 1, 1), 3)
    refused = theory.blocked(rate, 1.0, 1, 1)
    figures = runs(
        1.0,
        lambda w: (w["Invocations"] / 4000.0, w["Invocation5XXErrors"] / w["Invocations"]),
        retries=retries,
        queue_limit=1,
    )
    assert abs(errors_from(figures[:, 0], rate)) < 4.0
    assert abs(errors_from(figures[:, 1], refused)) < 4.0
    once_more = theory.rate_with_retries(1.0, lambda r: theory.blocked(r, 1.0, 1, 1), 2)
    assert abs(errors_from(figures[:, 0], once_more)) > 4.0
    assert abs(errors_from(figures[:, 1], theory.blocked(1.0, 1.0, 1, 1))) > 4.0


# ---- Batches at the ends of the load ----


def batched(rate, horizon_s, **batching):
    s = scenario(
        {"process": "constant", "rate_per_s": rate},
        service(
            "deterministic", 0.125, batching={"max_size": 8, "factors": [1.0 + i / 4 for i in range(8)]} | batching
        ),
        horizon_s=horizon_s,
        endpoint={"timeout_s": 3600.0},
    )
    requests = simulate(s, workers=1)
    return requests.windows.query("role == 'source'"), requests.requests.query("role == 'source'")


def test_a_request_alone_waits_for_the_whole_delay():
    _, requests = batched(0.25, 60.0, max_delay_s=0.5)
    assert len(requests) == 15
    assert (requests["wait_s"] == 0.5).all()  # all times are exact binary fractions
    assert (requests["latency_s"] == 0.625).all()


def test_saturated_batches_are_full():
    """Full batches of 8 take 0.34 s, 23 requests per second; 64 come."""
    windows, requests = batched(64.0, 60.0, max_delay_s=0.5)
    assert windows["batch_size_mean"].tolist() == [8.0]
    np.testing.assert_allclose(requests["service_s"], 0.125 * 2.75, rtol=1e-12)
    assert windows["utilisation"].iloc[0] == pytest.approx(1.0, abs=1 / 60)  # but for the wait for the first eight


# ---- Scaling ----


def steps(per_minute, scaling, instances=1, cold_start_s=0.0):
    """When the desired and the serving number change, to the second, as (second, number)."""
    profile = {
        "kind": "steps",
        "steps": [{"from_s": 60 * m, "rate_per_s": count / 60} for m, count in enumerate(per_minute)],
    }
    policy = {"metric": "InvocationsPerInstance", "target": 10, "min": 1, "max": 5}
    s = scenario(
        {"process": "constant", "profile": profile},
        service("deterministic", 0.125, scaling=policy | scaling, cold_start_s=cold_start_s),
        service("deterministic", 0.125),
        source_instances=instances,
        horizon_s=60.0 * len(per_minute),
        period_s=1.0,
    )
    windows = simulate(s, workers=1).windows.query("role == 'source'")
    counts = windows["Invocations"].to_numpy().reshape(-1, 60).sum(axis=1)
    assert counts.tolist() == per_minute
    # the desired number is that at a window's end; changes at a whole second are seen in the window that begins there
    return changes(windows["desired_instance_count"]), changes(windows["serving_instance_count"])


def changes(numbers):
    numbers = numbers.tolist()
    return [(t, n) for t, n in enumerate(numbers) if t == 0 or n != numbers[t - 1]]


# The tables are those that the oracle's tests work out minute by minute.
TABLES = {
    # high at 1, 2 and 3 min; low from 4 min on, for the 15th time at 18 min
    "three high, fifteen low": ([25] * 3 + [5] * 37, {}, 1, [(0, 1), (180, 3), (1080, 1)]),
    # out at 1 min, in effect at 150 s; its cooldown ends at 270 s, so in is decided at 300 s
    "cooldowns run from the effect": (
        [15] + [0] * 7,
        {"out_points": 1, "in_points": 1, "delay_s": 90, "scale_out_cooldown_s": 120},
        1,
        [(0, 1), (150, 2), (390, 1)],
    ),
    # a larger scale-out at 4 min, within the cooldown; that ends at 14 min
    "out within a cooldown, in after it": (
        [15] * 3 + [40] * 3 + [5] * 20,
        {"scale_out_cooldown_s": 600, "scale_in_cooldown_s": 360, "in_points": 2, "max": 4},
        1,
        [(0, 1), (180, 2), (240, 4), (840, 1)],
    ),
    # in at 2 min; the next one after six minutes more
    "in after the cooldown of in": (
        [15] * 3 + [5] * 12,
        {"scale_out_cooldown_s": 0, "scale_in_cooldown_s": 360, "in_points": 2},
        4,
        [(0, 4), (120, 2), (480, 1)],
    ),
    # the decision at 2 min asks for what that at 1 min does; that at 4 min is outdated when it takes effect
    "outdated decisions": (
        [15, 15, 5, 5, 5, 5],
        {"out_points": 1, "in_points": 1, "delay_s": 90, "scale_out_cooldown_s": 0, "scale_in_cooldown_s": 0},
        1,
        [(0, 1), (150, 2), (270, 1)],
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_scaling_steps_equal_the_table(name):
    per_minute, scaling, instances, expected = TABLES[name]
    assert steps(per_minute, scaling, instances) == (expected, expected)


def test_new_instances_serve_after_a_cold_start():
    scaling = {"out_points": 1, "in_points": 99, "delay_s": 90}
    desired, serving = steps([15, 25, 5, 5, 5, 5], scaling, cold_start_s=45.0)
    assert desired == [(0, 1), (150, 2), (210, 3)]
    assert serving == [(0, 1), (195, 2), (255, 3)]


def test_an_instance_that_drains_exists_until_it_is_empty():
    """In to 1 at 60 s, when each of two instances holds a request of 100 s."""
    s = scenario(
        {"process": "constant", "rate_per_s": 1 / 30},
        service(
            "deterministic", 100.0, 8,
            scaling={"metric": "InvocationsPerInstance", "target": 10, "min": 1, "max": 2, "in_points": 1},
        ),
        service("deterministic", 1.0),
        source_instances=2,
        horizon_s=300.0,
        period_s=1.0,
        endpoint={"routing": "LEAST_OUTSTANDING_REQUESTS", "timeout_s": 3600.0},
    )  # fmt: skip
    result = simulate(s, workers=1)
    windows = result.windows.query("role == 'source'")
    assert changes(windows["serving_instance_count"]) == [(0, 2), (60, 1)]
    requests = result.requests.query("role == 'source'")
    drained = requests[requests["instance"] == 1]
    assert drained["arrival_s"].max() < 60.0
    assert (drained["status"] == "answered").all()
    end_s = (drained["arrival_s"] + drained["latency_s"]).max()
    assert windows["existing_instance_count"].sum() == pytest.approx(300.0 + end_s)
