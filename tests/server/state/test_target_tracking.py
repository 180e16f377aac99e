"""Target tracking point by point, against the simulation's oracle on the same requests, and by hand."""

import heapq
import math

import naive_events as events
import pytest
from event_dynamics import scaling
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pool_runs import source_of

from shadowsim.engine import _event_kernel as e
from shadowsim.scenario.scaling import CONCURRENCY, INVOCATIONS, ScalingPolicy
from shadowsim.server.state.target_tracking import IN, OUT, Capacity, Decision, TargetTracker, joint_decision


def policy_of(s):
    metric = CONCURRENCY if s.metric == e.CONCURRENCY else INVOCATIONS
    return ScalingPolicy(
        metric, s.target, s.least, s.most, s.out_cooldown_s, s.in_cooldown_s, s.out_points, s.in_points, s.delay_s
    )


def replayed(history, s, n_instances):
    """The decisions and the effects of a policy that is told what the oracle saw at each tick."""
    policy, capacity = policy_of(s), Capacity(n_instances)
    tracker, due, made, steps = TargetTracker(policy), [], [], [(0.0, n_instances)]

    def settle(until):
        """Let effects and cold starts up to a moment happen, in order of time."""
        nonlocal capacity
        while True:
            effect_s = due[0][0] if due else math.inf
            moment = min(effect_s, *capacity.starting_s, math.inf)
            if moment > until:
                return
            if effect_s == moment:
                now, _, number, decision, before = heapq.heappop(due)
                if decision.direction == OUT:
                    changed = capacity.scaled_out(decision.wanted, now, s.cold_start_s, policy.out_cooldown_s)
                else:
                    changed = capacity.scaled_in(decision.wanted, before, now, policy.in_cooldown_s)
                made[number] += (changed is None,)
                capacity = changed or capacity
            else:
                capacity = capacity.served(moment)
            if capacity.n_serving != steps[-1][1]:
                steps.append((moment, capacity.n_serving))

    for tick, (now, present) in enumerate(history.samples):
        settle(now)
        if not tracker.is_point(tick):
            continue
        value = sum(present.values())
        if policy.metric == INVOCATIONS:
            value = sum(now - 60.0 <= a.arrival < now for a in history.attempts)
        for decision in tracker.look(tick, value, capacity.n_serving, capacity.desired):
            if capacity.may(decision, now):
                effect_s = now + policy.delay_s
                kind = (OUT, IN).index(decision.direction)
                heapq.heappush(due, (effect_s, kind, len(made), decision, capacity.desired))
                made.append((decision.direction, now, effect_s, decision.wanted))
    return made, steps


POLICIES = st.builds(
    scaling,
    metric=st.sampled_from([e.INVOCATIONS, e.CONCURRENCY]),
    target=st.sampled_from([0.7, 1.0, 3.0, 10.0]),
    least=st.integers(1, 2),
    most=st.integers(3, 6),
    out=st.sampled_from([0.0, 60.0, 90.0]),
    into=st.sampled_from([0.0, 60.0, 150.0]),
    points=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    delay=st.sampled_from([0.0, 5.0, 90.0]),
    cold=st.sampled_from([0.0, 30.0, 45.5]),
)
HORIZON_S = 900.0


CASES = given(
    POLICIES,
    st.lists(st.integers(0, 40), min_size=15, max_size=15),
    st.sampled_from([0.125, 20.0, 70.0]),
    st.integers(1, 3),
)


def check_decisions(s, counts, work_s, n_instances):
    """On the same minutes and samples: when, to how many, dropped or not, and how many serve at each moment."""
    if n_instances < s.least:
        n_instances = s.least
    arrivals = [60.0 * m + 59.0 * i / n for m, n in enumerate(counts) for i in range(n)] or [1.0]
    dynamics = events.dynamics(scaling=s)
    history = source_of(
        arrivals, [work_s], dynamics, horizon_s=HORIZON_S, source_instances=n_instances, pool={"n_workers": 50}
    )
    made, steps = replayed(history, s, n_instances)
    expected = [(a.kind, a.decided, a.effect, a.wanted) for a in history.actions]
    assert [m[:4] for m in made] == expected
    for m, a in zip(made, history.actions, strict=True):
        assert m[4:] in ((), (a.dropped,))  # () takes effect after the last tick
    last_s = history.samples[-1][0]
    assert [x for x in steps if x[0] <= last_s] == [x for x in history.steps if x[0] <= last_s]


@settings(max_examples=8, deadline=None)
@example(scaling(), [25] * 3 + [5] * 12, 0.125, 1)
@example(scaling(e.CONCURRENCY, 1.0, points=(1, 1), out=0.0, into=0.0, delay=5.0), [12, 12, 0, 0, 6], 40.0, 1)
@CASES
def test_decisions_are_the_simulation_s(s, counts, work_s, n_instances):
    check_decisions(s, counts, work_s, n_instances)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@CASES
def test_decisions_are_the_simulation_s_in_many_cases(s, counts, work_s, n_instances):
    check_decisions(s, counts, work_s, n_instances)


def test_a_scale_in_drops_starting_instances_first():
    capacity = Capacity(2, (100.0, 110.0))
    assert capacity.desired == 4
    assert capacity.scaled_in(3, 4, 50.0, 60.0) == Capacity(2, (100.0,), 0.0, 110.0)
    assert capacity.scaled_in(1, 4, 50.0, 60.0) == Capacity(1, (), 0.0, 110.0)
    assert capacity.scaled_in(1, 3, 50.0, 60.0) is None
    assert capacity.served(100.0) == Capacity(3, (110.0,))
    assert capacity.served(99.0) is capacity


def test_cooldowns_hold_back_scale_ins_alone():
    capacity = Capacity(1).scaled_out(3, 100.0, 0.0, 300.0)
    assert capacity == Capacity(1, (100.0, 100.0), 400.0)
    assert not capacity.may(Decision(IN, 1, 0.0), 399.0)
    assert capacity.may(Decision(IN, 1, 0.0), 400.0)
    assert capacity.may(Decision(OUT, 4, 9.0), 101.0)
    assert capacity.scaled_out(3, 101.0, 0.0, 300.0) is None


@pytest.mark.parametrize(
    ("asked", "joint"),
    [
        ([], None),
        ([[], []], None),
        ([[(OUT, 3)], [(OUT, 5)], [(IN, 1)]], (OUT, 5)),
        ([[(IN, 2)], [(IN, 3)]], (IN, 3)),
        ([[(IN, 2)], []], None),
    ],
)
def test_of_several_policies_the_largest_capacity_wins(asked, joint):
    decided = joint_decision([[Decision(*d, 0.0) for d in decisions] for decisions in asked])
    assert decided == (joint and Decision(*joint, 0.0))
