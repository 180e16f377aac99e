"""The live batcher of tokens against the oracle of the simulator: the same times to the bit, on the same draws."""

import math

import naive_events as events
import naive_tokens
import numpy as np
import pytest
from cases import scenario, service
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from token_cases import listed, server, servers

from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns
from shadowsim.scenario.service import parse_service
from shadowsim.scenario.tokens import Prefix, StepModel, Tokens
from shadowsim.server.data_plane.continuous_batcher import ContinuousBatcher, TokenSequence


def tokens_of(served):
    """A scenario's tokens with an oracle's numbers; their laws are not used."""
    law = parse_service({"time": {"law": "deterministic", "mean_s": 1.0}}, "services").time
    coefficients = (getattr(served, name) for name in StepModel.__dataclass_fields__)
    prefix = Prefix(served.prefix_length, served.cache_tokens, 1) if served.prefix_groups else None
    return Tokens(
        law, law, served.max_sequences, served.max_step_tokens, served.kv_tokens, StepModel(*coefficients),
        block_tokens=served.block_tokens, before_s=served.before_s, after_s=served.after_s, chunked=served.chunked,
        on_timeout="abort" if served.abort else "finish", prefix=prefix,
    )  # fmt: skip


@st.composite
def runs(draw):
    served = draw(servers().filter(lambda s: s.prefix_groups or not s.cache_tokens))  # a live server has no trace
    traced = max(x.by_request.size for x in (served.prompt, served.output)) > 1
    process = "constant" if traced else draw(st.sampled_from(["poisson", "constant"]))
    s = scenario(
        {"process": process, "rate_per_s": draw(st.sampled_from([0.3, 1.0, 3.0]))}, service(), source_instances=1,
        horizon_s=100.0, period_s=60.0, seed=draw(st.integers(0, 2**32)),
        endpoint={"timeout_s": draw(st.sampled_from([2.0, 10.0, 60.0])), "routing": "RANDOM"},
    )  # fmt: skip
    arrivals = arrivals_of(s)
    c = columns(s, arrivals)
    limit = draw(st.sampled_from([-1, -1, 0, 3]))
    object.__setattr__(c, "source", c.source._replace(queue_limit=limit))
    return events.with_dynamics(c, events.dynamics(), events.PLAIN), arrivals, served, None if limit < 0 else limit


def live(history, tokens, limit, timeout_s):
    """The same requests, brought to a live batcher in order of arrival; None for the refused."""
    batcher, all_finished, out = ContinuousBatcher(tokens, limit), [], {}
    all_told = []
    for a in sorted(history.attempts, key=lambda a: (a.arrival, a.window, a.in_window)):
        s = history.sequences[a.number, a.attempt]
        sequence = TokenSequence(a.arrival, s.prompt, s.output, s.group, give_up_s=a.arrival + timeout_s)
        sequence.told = (told := []).append
        all_told.append((sequence, told))
        all_finished += batcher.advance(a.arrival)
        out[a.number] = sequence if batcher.enter(sequence) else None
    all_finished += batcher.advance(1e12)
    assert batcher.next_s == math.inf
    assert (batcher.n_running, batcher.cache_use) == (0, 0.0)
    for sequence, told in all_told:  # whose ends are those of the oracle
        assert told == sorted(told)
        assert len(told) == sequence.produced
        if told:
            assert told[0] == sequence.first_s
        if not math.isnan(sequence.last_s):
            assert told[-1] == sequence.last_s
    assert len(all_finished) == len(set(map(id, all_finished)))
    assert {id(s) for s in all_finished} == {id(s) for s in out.values() if s is not None and not math.isnan(s.last_s)}
    return out


def check(case):
    c, arrivals, served, limit = case
    history, _ = naive_tokens.simulate(c, arrivals, served)[:2]
    lived = live(history, tokens_of(served), limit, c.source.timeout_s)
    assert {a.number for a in history.attempts if a.status == "refused"} == {n for n, s in lived.items() if s is None}
    for (number, _), s in history.sequences.items():
        if lived[number] is None:
            continue
        mine = lived[number]
        expected = [s.attempt.start, s.first, s.last, s.produced, s.preemptions]
        np.testing.assert_array_equal(
            [mine.start_s, mine.first_s, mine.last_s, mine.produced, mine.preemptions], np.array(expected, float)
        )
    assert sum(s.prefilled for s in lived.values() if s) == sum(history.prefill_by_window)
    if all(s is None or s.last_s <= c.horizon_s for s in lived.values()):
        # Work is the time of steps, divided among their sequences. The oracle's books end at the horizon.
        assert sum(s.work_s for s in lived.values() if s) == pytest.approx(sum(history.busy_s), rel=1e-9)


@settings(max_examples=10, phases=[Phase.generate])
@given(runs())
def test_every_step_ends_when_the_simulator_s_does(case):
    check(case)


@pytest.mark.slow
@settings(max_examples=300, phases=[Phase.generate])
@given(runs())
def test_every_step_ends_when_the_simulator_s_does_in_many_more_runs(case):
    check(case)


def test_an_idle_batcher_waits_for_nothing():
    batcher = ContinuousBatcher(tokens_of(server(listed(3), listed(2))))
    assert batcher.next_s == math.inf
    assert batcher.advance(1e9) == []


def test_steps_and_their_work_by_hand():
    """Steps of 1 s: alone in three, the first of which ends before the second comes, and together in two."""
    batcher = ContinuousBatcher(tokens_of(server(listed(3), listed(4))))
    first, second = TokenSequence(0.0, 3, 4), TokenSequence(1.5, 3, 3)
    assert batcher.enter(first)
    assert batcher.advance(1.5) == []
    assert (first.first_s, first.produced, batcher.next_s, batcher.n_running) == (1.0, 1, 2.0, 1)
    assert batcher.enter(second)
    assert batcher.advance(4.0) == [first]
    assert batcher.advance(10.0) == [second]
    assert (first.last_s, second.start_s, second.first_s, second.last_s) == (4.0, 2.0, 3.0, 5.0)
    assert (first.work_s, second.work_s) == (3.0, 2.0)
