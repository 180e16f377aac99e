"""Services in tokens, through `simulate`, at the limits where queueing theory knows them, and what no token escapes.

A figure's mean over independent runs must lie within four of its standard errors of the exact value, and outside of
them for a theory that is wrong. The first half of a run, which starts empty, is left out. One seed, never changed.
"""

import math

import numpy as np
import pytest
from cases import scenario

from shadowsim import simulate
from shadowsim.engine.replicate import replication

RUNS = 24


def law(kind, mean, **more):
    return {"law": kind, "mean_tokens": mean} | more


def served(prompt, output, step, **more):
    """A service in tokens whose cache and budget are as good as infinite."""
    limits = {"max_sequences": 60_000, "max_step_tokens": 2**26, "kv_tokens": 2**26}
    return {"tokens": limits | {"prompt": prompt, "output": output, "step": step} | more}


def of_source(rate, block, horizon_s, **more):
    return scenario(
        {"process": "poisson", "rate_per_s": rate},
        block,
        {"time": {"law": "deterministic", "mean_s": 0.01}, "workers": 1},
        share=0,
        horizon_s=horizon_s,
        endpoint={"timeout_s": 3600.0},
        **({"period_s": horizon_s / 2} | more),
    )


def second_halves(s, *figures):
    """Figures of the second window of each of `RUNS` independent runs, shape (figures, runs)."""
    runs = [simulate(replication(s, r), workers=1).windows for r in range(RUNS)]
    rows = [windows[windows["role"] == "source"].iloc[1] for windows in runs]
    return np.array([[figure(row) for row in rows] for figure in figures])


def errors_from(values, expected):
    """The distance of a mean from the expected value, in its standard errors."""
    return (values.mean() - expected) / (values.std(ddof=1) / math.sqrt(len(values)))


def rounded_exponential(mean):
    """Probabilities of 1, 2, ... of an exponential, rounded, at least 1; to 1e-17."""
    edges = np.concatenate([[0.0], np.arange(1, int(40 * mean)) + 0.5])
    return -np.diff(np.exp(-edges / mean), append=0.0)


def test_one_sequence_at_a_time_is_a_single_server_queue():
    """M/G/1: the mean wait is rate E[S^2] / (2 (1 - rho)) (Pollaczek-Khinchine); S = 3/8 + o / 4 seconds."""
    mean, rate = 40.0, 0.07
    p = rounded_exponential(mean)
    seconds = 0.375 + 0.25 * np.arange(1, p.size + 1)
    work, square = float(p @ seconds), float(p @ seconds**2)
    rho = rate * work
    assert 0.7 < rho < 0.75
    step = {"base_s": 0.25, "per_prefill_token_s": 0.125}
    block = served(law("deterministic", 3), law("exponential", mean), step, max_sequences=1)
    s = of_source(rate, block, 200_000.0, sample_requests=0)
    waits, busy = second_halves(s, lambda w: w["wait_mean_s"], lambda w: w["utilisation"])
    assert abs(errors_from(busy, rho)) < 4.0
    assert abs(errors_from(waits, rate * square / (2.0 * (1.0 - rho)))) < 4.0
    # services that are 4 % shorter are seen, and so is the deterministic service of the same mean
    assert abs(errors_from(waits, 0.96**2 * rate * square / (2.0 * (1.0 - 0.96 * rho)))) > 4.0
    assert abs(errors_from(waits, rate * work**2 / (2.0 * (1.0 - rho)))) > 4.0


def test_steps_of_equal_length_are_an_infinite_server():
    """Everyone waits for the next boundary, less than a step, and is answered after as many steps as tokens.

    While the instance is busy the boundary is a uniform part of a step away (Poisson arrivals see time averages), and
    it is idle for exp(-load) of the time, as M/G/infinity nearly is: with 20 running it never is.
    """
    step_s, mean, rate = 0.25, 20.0, 4.0
    block = served(law("exponential", 30), law("exponential", mean), {"base_s": step_s})
    s = of_source(rate, block, 4_000.0, sample_requests=10**6)
    requests = simulate(s, workers=1).requests.query("role == 'source'")
    assert len(requests) > 15_000
    steps, wait = requests["output_tokens"].to_numpy(float), requests["wait_s"].to_numpy(float)
    assert wait.min() >= 0.0
    assert wait.max() < step_s
    # times are differences of moments up to 4,000 s, whose last bit is 4.5e-13
    np.testing.assert_allclose(requests["latency_s"], wait + step_s * steps, rtol=0.0, atol=1e-11)
    np.testing.assert_allclose(requests["first_token_s"], wait + step_s, rtol=0.0, atol=1e-11)
    later = wait[requests["arrival_s"].to_numpy(float) > 100.0]
    # waits are independent: arrivals within a step are, given their number
    assert abs(later.mean() - step_s / 2.0) < 4.0 * step_s / math.sqrt(12.0 * later.size)
    expected = float(rounded_exponential(mean) @ np.arange(1, int(40 * mean) + 1))
    assert abs(steps.mean() - expected) < 4.0 * steps.std() / math.sqrt(steps.size)


@pytest.mark.parametrize("kind", ["deterministic", pytest.param("exponential", marks=pytest.mark.slow)])
def test_steps_that_grow_with_their_sequences_share_the_processor(kind):
    """M/G/1 processor sharing: E[latency] = E[S] / (1 - rho), whatever the law of S = o tokens of 1 / 1,000 s.

    A request waits for a step of up to n sequences, of which each is 0.1 % of the mean service: less than a standard
    error.
    """
    mean, rate = 1000.0, 0.6
    block = served(law("deterministic", 1), law(kind, mean), {"base_s": 1e-6, "per_sequence_s": 1.0 / mean})
    s = of_source(rate, block, 8_000.0, sample_requests=0)
    (latencies,) = second_halves(s, lambda w: w["ModelLatency_Average"] / 1e6)
    assert abs(errors_from(latencies, 1.0 / (1.0 - rate))) < 4.0
    # first in, first out is seen: 1 + rho (1 + c^2) / (2 (1 - rho)); for exponential services it is the same mean
    if kind == "deterministic":
        assert abs(errors_from(latencies, 1.0 + rate / (2.0 * (1.0 - rate)))) > 4.0
    assert abs(errors_from(latencies, 0.94 / (1.0 - 0.94 * rate))) > 4.0


@pytest.mark.parametrize(("kv_tokens", "block_tokens"), [(2**20, 16), (640, 16), (450, 3)])
def test_no_token_is_lost_or_made_twice(kv_tokens, block_tokens):
    """All are answered: outputs are made once; prompts are computed once, and again after preemptions."""
    block = served(
        law("uniform", 60, scv=0.3),
        law("uniform", 80, scv=0.3),
        {"base_s": 0.01, "per_prefill_token_s": 1e-4, "per_sequence_s": 1e-3, "per_kv_token_s": 1e-6},
        max_sequences=16,
        max_step_tokens=64,
        kv_tokens=kv_tokens,
        block_tokens=block_tokens,
    )
    # arrivals end long before the horizon, so that all tokens are made in some window
    profile = {"kind": "steps", "steps": [{"from_s": 0, "rate_per_s": 5.0}, {"from_s": 200.0, "rate_per_s": 0.0}]}
    s = of_source(1.0, block, 1_200.0, period_s=60.0, sample_requests=10**6).replace(
        {"traffic": {"process": "poisson", "profile": profile}}
    )
    result = simulate(s, workers=1)
    windows = result.windows.query("role == 'source'")
    requests = result.requests.query("role == 'source'")
    assert len(requests) == windows["Invocations"].sum() == windows["ModelLatency_SampleCount"].sum() > 900
    assert windows["output_tokens"].sum() == requests["output_tokens"].sum()
    prompts, computed = requests["prompt_tokens"].sum(), windows["prefill_tokens"].sum()
    if windows["preemptions"].sum() == 0:
        assert kv_tokens > 1_000
        assert computed == prompts
    else:
        assert kv_tokens < 1_000
        # a preempted sequence computes its prompt and what it had made so far again, less than its last token
        longest = (requests["prompt_tokens"] + requests["output_tokens"]).max()
        again = computed - prompts
        n = windows["preemptions"].sum()
        assert n <= again < n * longest
