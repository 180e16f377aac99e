"""Simulated instances against a plain simulation, and draws against their laws; test_invoke has containers."""

import asyncio
import math
from time import monotonic

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.errors import InputError
from shadowsim.scenario.laws import parse_law
from shadowsim.scenario.service import parse_service
from shadowsim.server.data_plane.backends import Call, Simulated, SimulatedQueue, draws, outcome_of


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
    queue = SimulatedQueue(n_workers, limit, slowdown)
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
        backend = Simulated(service(), 1, 1, 7)
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
        backend = Simulated(service(queue_limit=1), 1, 1, 7)
        return await asyncio.gather(*(backend.invoke(0, Call(b""), 0.03) for _ in range(3)))

    first, second, third = asyncio.run(run())
    assert (first.outcome, second.outcome, third.outcome) == ("answered", "timed_out", "refused")
    assert second.latency_s == 0.03
    assert third.status == 503


@pytest.mark.parametrize(("share", "status"), [("error_4xx", 400), ("error_5xx", 500)])
def test_shares_of_errors(share, status):
    backend = Simulated(service(**{share: 1.0}), 1, 1, 7)
    answer = asyncio.run(backend.invoke(0, Call(b""), 60.0))
    assert (answer.outcome, answer.status) == (share, status)


def test_a_law_of_trace_columns_is_refused():
    linear = parse_service({"time": {"law": "linear", "base_s": 0.1, "tokens": 0.01}}, "services.x")
    with pytest.raises(InputError, match="no trace"):
        Simulated(linear, 1, 1, 7)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "answered"), (204, "answered"), (302, "error_5xx"), (404, "error_4xx"), (503, "error_5xx")],
)
def test_outcomes(status, outcome):
    assert outcome_of(status) == outcome
