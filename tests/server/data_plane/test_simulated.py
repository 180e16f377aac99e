"""Simulated instances against a plain simulation, and draws against their laws; test_invoke has containers."""

import asyncio
import math
from time import monotonic

import numpy as np
import pytest
import virtual_time
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.errors import InputError
from shadowsim.scenario.laws import parse_law
from shadowsim.scenario.service import parse_service
from shadowsim.server.data_plane.backends import Call
from shadowsim.server.data_plane.simulated import SimulatedQueue, check_simulable, simulated
from shadowsim.server.data_plane.simulated_answers import draws


def plain(arrivals, works, n_workers, limit, slowdown):
    """Serve requests first in, first out, by looking at all earlier ones; None for refused requests."""
    out = []
    for t, work in zip(arrivals, works, strict=True):
        before = [service for service in out if service is not None]
        full = limit is not None and sum(start > t for start, _ in before) >= limit
        if full and sum(end > t for _, end in before) >= n_workers:
            out.append(None)
            continue
        # No request starts before earlier ones: a worker is free once at most n - 1 of their services remain.
        ends = sorted((end for _, end in before), reverse=True)
        start = max(t, ends[n_workers - 1] if len(ends) >= n_workers else t)
        busy = 1 + sum(end > start for _, end in before)
        factor = slowdown[min(busy, len(slowdown)) - 1] if slowdown else 1.0
        out.append((start, start + work * factor))
    return out


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=40),
    st.integers(1, 4),
    st.none() | st.integers(0, 3),
    st.sampled_from([(), (1.0, 2.0), (1.0, 1.5, 2.0)]),
)
def test_an_instance_is_first_in_first_out(requests, n_workers, limit, slowdown):
    # whole and half numbers only: sums are exact, whatever their order
    arrivals = np.cumsum([gap for gap, _ in requests]).astype(float).tolist()
    works = [float(work) for _, work in requests]
    queue = SimulatedQueue(n_workers, service(queue_limit=limit, slowdown=list(slowdown)))
    services = [queue.enter(t, work) for t, work in zip(arrivals, works, strict=True)]
    assert services == plain(arrivals, works, n_workers, limit, slowdown)


@pytest.mark.parametrize(
    "block", [{"law": "exponential", "mean_s": 2.0}, {"law": "lognormal", "mean_s": 2.0, "scv": 0.5}]
)
def test_draws_have_the_law_s_mean_and_median(block):
    law, n = parse_law(block, "time", "s"), 40_000
    stream = draws(law, np.random.default_rng(5))
    x = np.array([next(stream) for _ in range(n)])
    deviation = law.mean * math.sqrt(law.scv)
    assert abs(x.mean() - law.mean) < 4 * deviation / math.sqrt(n)  # four standard errors
    median = law.tails(np.array([0.5]))[0][0]
    assert abs((x < median).mean() - 0.5) < 4 * 0.5 / math.sqrt(n)


def service(**more):
    return parse_service({"time": {"law": "deterministic", "mean_s": 0.02}, **more}, "services.x")


def test_a_worker_is_held_and_the_body_is_echoed():
    async def run():
        backend = simulated(service(), 1, 1, 7)
        call = Call(b"body", {"Content-Type": "a/b"})
        return await asyncio.gather(*(backend.invoke(0, call, 60.0) for _ in range(3)))

    began = monotonic()
    answers = asyncio.run(run())
    assert monotonic() - began > 0.06
    assert [a.body for a in answers] == [b"body"] * 3
    assert [a.headers for a in answers] == [{"Content-Type": "a/b"}] * 3
    assert [round(a.wait_s, 3) for a in answers] == [0.0, 0.02, 0.04]
    assert [a.latency_s for a in answers] == pytest.approx([a.wait_s + a.service_s for a in answers])


def test_a_full_queue_refuses_and_a_time_out_leaves_the_worker_at_work():
    async def run():
        backend = simulated(service(queue_limit=1), 1, 1, 7)
        return await asyncio.gather(*(backend.invoke(0, Call(b""), 0.03) for _ in range(3)))

    first, second, third = asyncio.run(run())
    assert (first.outcome, second.outcome, third.outcome) == ("answered", "timed_out", "refused")
    assert second.latency_s == 0.03
    assert third.status == 503


@pytest.mark.parametrize(("share", "status"), [("error_4xx", 400), ("error_5xx", 500)])
def test_shares_of_errors(share, status):
    backend = simulated(service(**{share: 1.0}), 1, 1, 7)
    answer = asyncio.run(backend.invoke(0, Call(b""), 60.0))
    assert (answer.outcome, answer.status) == (share, status)


def test_a_law_of_trace_columns_is_refused():
    linear = parse_service({"time": {"law": "linear", "base_s": 0.1, "tokens": 0.01}}, "services.x")
    with pytest.raises(InputError, match="no trace"):
        simulated(linear, 1, 1, 7)


TOKENS = {
    "prompt": 100, "output": 4, "max_sequences": 2, "max_step_tokens": 100, "kv_tokens": 1000,
    "step": {"base_s": 0.01, "per_prefill_token_s": 0.0002},
}  # fmt: skip


def in_tokens(**more):
    return parse_service({"tokens": TOKENS | more.pop("tokens", {}), **more}, "services.x")


def asked(backend, n, timeout_s=60.0):
    async def run():
        return await asyncio.gather(*(backend.invoke(0, Call(b"body"), timeout_s) for _ in range(n)))

    return virtual_time.run(run())


def test_tokens_come_when_the_model_says():
    """Steps of 30 ms, 29.8, 10.2 and 10: a decoding sequence leaves 99 tokens of a step to the next one's prompt."""
    first, second, third = asked(simulated(in_tokens(), 1, 1, 7), 3)
    assert [a.outcome for a in (first, second, third)] == ["answered"] * 3
    assert [a.body for a in (first, second, third)] == [b"body"] * 3
    assert first.tokens.first_token_s == pytest.approx(0.03)
    assert second.tokens.first_token_s == pytest.approx(0.07)
    assert first.latency_s == pytest.approx(0.08)
    assert third.wait_s == pytest.approx(0.08)
    assert first.tokens.per_token_s == pytest.approx((first.latency_s - first.tokens.first_token_s) / 3)
    assert (first.tokens.prompt, first.tokens.output, first.tokens.produced, first.tokens.prefilled) == (100, 4, 4, 100)
    # Alone in the batch for 30 ms, then with another for 50 ms: the instance was busy for as long as their shares say.
    assert first.work_s == pytest.approx(0.03 + 0.05 / 2)


@pytest.mark.parametrize("on_timeout", ["finish", "abort"])
def test_a_caller_who_gives_up_frees_its_place_where_the_model_says_so(on_timeout):
    backend = simulated(in_tokens(tokens={"on_timeout": on_timeout, "output": 1000, "kv_tokens": 4000}), 1, 1, 7)

    async def run():
        answer = await backend.invoke(0, Call(b""), 0.065)
        await asyncio.sleep(0.02)  # over the end of the step in progress
        return answer, backend.batches()

    answer, batches = virtual_time.run(run())
    assert (answer.outcome, answer.latency_s) == ("timed_out", 0.065)
    assert answer.tokens.first_token_s == pytest.approx(0.03)
    assert math.isnan(answer.tokens.per_token_s)
    assert [running for running, _ in batches] == ([0] if on_timeout == "abort" else [1])


def test_a_full_batch_with_a_full_queue_refuses():
    answers = asked(simulated(in_tokens(queue_limit=1), 1, 1, 7), 4)
    assert [a.outcome for a in answers] == ["answered", "answered", "answered", "refused"]


def test_a_request_that_never_fits_is_a_bad_one():
    (answer,) = asked(simulated(in_tokens(tokens={"prompt": 2000}), 1, 1, 7), 1)
    assert (answer.outcome, answer.status) == ("error_4xx", 400)
    assert b"2000 tokens" in answer.body


def test_a_batch_leaves_together():
    batching = {"max_size": 2, "max_delay_s": 0.05, "marginal": 0.5}
    answers = asked(simulated(service(batching=batching), 1, 1, 7), 3)
    assert [a.service_s for a in answers] == pytest.approx([0.03, 0.03, 0.02])
    assert [a.wait_s for a in answers] == pytest.approx([0.0, 0.0, 0.05])  # the last waits for a fourth
    assert [a.work_s for a in answers] == pytest.approx([0.015, 0.015, 0.02])


@pytest.mark.parametrize(
    ("block", "named"),
    [
        ({"outages": {"mtbf_s": 100, "mttr_s": 10}}, "outages"),
        ({"time": {"law": "linear", "base_s": 0.1, "tokens": 0.01}}, "time"),
    ],
)
def test_what_a_server_cannot_simulate_is_refused_by_name(block, named):
    with pytest.raises(InputError) as raised:
        check_simulable(service(**block), "services.x")
    assert raised.value.path == f"services.x.{named}"


@pytest.mark.parametrize(
    ("tokens", "named"),
    [
        ({"prompt": "ContextTokens"}, "prompt"),
        ({"output": "GeneratedTokens"}, "output"),
        ({"prefix": {"length": 32, "session": "user", "cache_tokens": 320}}, "prefix"),
    ],
)
def test_tokens_from_a_trace_are_refused_by_name(tokens, named):
    with pytest.raises(InputError) as raised:
        check_simulable(in_tokens(tokens=tokens), "services.x")
    assert raised.value.path == f"services.x.tokens.{named}"
