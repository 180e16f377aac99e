"""The live dynamic batcher against the oracle of the simulator: the same batches, on the same draws."""

import math

import naive_events as events
import numpy as np
import pytest
from cases import scenario, service
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from shadowsim.engine import _event_kernel as e
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns
from shadowsim.scenario.batching import Batcher
from shadowsim.server.data_plane.dynamic_batcher import BatchedRequest, DynamicBatcher


@st.composite
def runs(draw):
    size, delay_s = draw(st.sampled_from([1, 2, 5])), draw(st.sampled_from([0.0, 0.5, 2.0]))
    batcher = Batcher(size, delay_s, tuple(1.0 + 0.25 * n for n in range(size)))
    s = scenario(
        {"process": draw(st.sampled_from(["poisson", "constant"])), "rate_per_s": draw(st.sampled_from([0.5, 2.0]))},
        service(), source_instances=1, horizon_s=60.0, period_s=60.0, seed=draw(st.integers(0, 2**32)),
        endpoint={"timeout_s": 60.0, "routing": "RANDOM"},
    )  # fmt: skip
    arrivals = arrivals_of(s)
    c = columns(s, arrivals)
    limit, slowdown = draw(st.sampled_from([-1, 0, 3])), draw(st.sampled_from([(), (1.0, 1.5)]))
    workers = draw(st.sampled_from([1, 2]))
    source = c.source._replace(queue_limit=limit, n_workers=workers, slowdown=np.array(slowdown))
    object.__setattr__(c, "source", source)
    dynamics = events.dynamics(e.Batching(size, delay_s, np.array(batcher.factors)))
    live = DynamicBatcher(batcher, workers, None if limit < 0 else limit, slowdown)
    return events.with_dynamics(c, dynamics, events.PLAIN), arrivals, live


def check(case):
    c, arrivals, batcher = case
    history = events.simulate(c, arrivals)[0]
    started, requests = [], {}
    attempts = sorted(history.attempts, key=lambda a: (a.arrival, a.window, a.in_window))
    for a in attempts:
        request = BatchedRequest(a.arrival, a.drawn)
        started += batcher.advance(a.arrival)
        requests[a.number] = request if batcher.enter(request) else None
    started += batcher.advance(1e9)
    assert batcher.next_s == math.inf
    assert sorted(map(id, started)) == sorted(id(r) for r in requests.values() if r is not None)
    for a in attempts:
        request = requests[a.number]
        assert (request is None) == (a.status == "refused")
        if request is not None:
            assert (request.start_s, request.end_s) == (a.start, a.start + a.service)


@settings(max_examples=10, phases=[Phase.generate])
@given(runs())
def test_batches_start_and_end_as_the_simulator_s_do(case):
    check(case)


@pytest.mark.slow
@settings(max_examples=300, phases=[Phase.generate])
@given(runs())
def test_batches_start_and_end_as_the_simulator_s_do_in_many_more_runs(case):
    check(case)
