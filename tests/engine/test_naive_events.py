"""The oracle of pools that batch, scale, fail or are retried: against cases worked by hand, and the plain oracle."""

import math
from types import SimpleNamespace

import naive
import naive_events as events
import numpy as np
import pytest
from cases import scenario, scenarios_for_events, service
from event_dynamics import ALL, BATCHINGS, OUTAGES, RETRIES, SCALINGS, retried, scaling
from hypothesis import given, settings
from pool_runs import run, source_of

from shadowsim.engine import _event_kernel as e
from shadowsim.engine import _kernel as k
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns


def each(history, *names):
    return [tuple(getattr(a, name) for name in names) for a in history.attempts]


# ---- Nothing evented ----


def check_plain(s):
    arrivals = arrivals_of(s)
    c = columns(s, arrivals)
    expected = naive.simulate(c, arrivals)
    histories = events.simulate(events.with_dynamics(c, events.PLAIN, events.PLAIN), arrivals)
    assert histories[2] == expected[2]
    for name, history, (requests, in_flight) in zip(("source", "shadow"), histories, expected, strict=False):
        pool = getattr(c, name)
        assert len(history.attempts) == len(requests)
        for a, r in zip(history.attempts, requests, strict=True):
            status = f"lost_{r.lost}" if r.lost else naive.status(c, pool, r)
            assert (a.number, a.arrival, a.status) == (r.number, r.arrival, status)
            if r.lost:
                continue
            assert a.instance == r.instance
            if r.refused:
                assert a.drawn == r.service
                assert math.isnan(a.start)
                assert math.isnan(a.latency)
            else:
                expected_times = (r.start, r.service, min(r.latency, pool.timeout_s), r.answered(pool.timeout_s))
                assert (a.start, a.service, a.latency, a.ended) == expected_times
        samples = {}
        for t, present in history.samples:
            assert list(present) == list(range(pool.n_instances))
            samples.setdefault(naive.window_of(c, t), []).extend(present.values())
        assert samples == in_flight
        assert history.steps == [(0.0, pool.n_instances)]
        assert history.actions == []
        for w in range(c.n_windows):
            begin, end = naive.bounds(c, w)
            served = [r for r in requests if not r.lost and not r.refused]
            worked = math.fsum(max(0.0, min(r.finish, end) - max(r.start, begin)) for r in served)
            assert history.busy_s[w] == pytest.approx(worked, abs=1e-9)
            assert history.serving_s[w] == history.existing_s[w] == pytest.approx((end - begin) * pool.n_instances)


@pytest.mark.slow
@settings(max_examples=15)
@given(scenarios_for_events())
def test_equals_the_plain_oracle_where_nothing_needs_events(s):
    check_plain(s)


@pytest.mark.slow
@settings(max_examples=20)
@given(scenarios_for_events())
def test_an_evented_pool_without_dynamics_differs_from_a_plain_one_by_rounding_only(s):
    """Time-outs by instants and by latencies may differ where a finish meets its deadline to the last bits."""
    arrivals = arrivals_of(s)
    c = columns(s, arrivals)
    plain = events.simulate(events.with_dynamics(c, events.PLAIN, events.PLAIN), arrivals)
    evented = events.simulate(events.with_dynamics(c, events.dynamics(), events.PLAIN), arrivals)
    limit = c.source.timeout_s
    for a, b in zip(plain[0].attempts, evented[0].attempts, strict=True):
        assert (a.start, a.service, a.instance) == pytest.approx((b.start, b.service, b.instance), nan_ok=True)
        assert a.latency == pytest.approx(b.latency, nan_ok=True)
        if not abs((a.start + a.service) - a.arrival - limit) < 1e-9:
            assert a.status == b.status


# ---- Batches ----


def batcher(max_size, max_delay_s, factors):
    return events.dynamics(e.Batching(max_size, max_delay_s, np.array(factors)))


def test_a_lone_request_waits_for_the_delay_and_is_served_as_a_batch_of_one():
    h = source_of([1.0], [0.5], batcher(4, 0.25, [3.0, 4.0, 5.0, 6.0]))
    assert each(h, "start", "service", "latency", "status") == [(1.25, 1.5, 1.75, "answered")]
    assert h.busy_s == [1.5]


def test_a_full_batch_starts_at_once_with_the_oldest_members_work():
    h = source_of([1.0, 1.125, 1.25], [0.5, 8.0, 1.0], batcher(2, 10.0, [1.0, 1.5]))
    # two make a batch at 1.125, of 0.5 x 1.5; the third waits until 11.25
    assert each(h, "start", "service", "latency") == [(1.125, 0.75, 0.875), (1.125, 0.75, 0.75), (11.25, 1.0, 11.0)]


def test_a_worker_that_becomes_free_takes_due_requests_only():
    # the first batch runs 1.0 .. 2.0 (delay 0); at 2.0 both that wait are due, since the delay is 0
    h = source_of([1.0, 1.25, 1.5], [1.0, 2.0, 4.0], batcher(8, 0.0, [1.0] * 8))
    assert each(h, "start", "service") == [(1.0, 1.0), (2.0, 2.0), (2.0, 2.0)]
    # delay 0.5: the first starts at 1.5, before the third arrives; its due time is 3.0, after the free instant 2.5
    h = source_of([1.0, 1.25, 2.5], [1.0, 2.0, 4.0], batcher(8, 0.5, [1.0] * 8))
    assert each(h, "start", "service") == [(1.5, 1.0), (1.5, 1.0), (3.0, 4.0)]


def test_workers_slow_batches_down_and_the_last_factors_hold():
    pool = {"n_workers": 2, "slowdown": np.array([1.0, 2.0])}
    h = source_of([1.0, 1.0, 1.0, 1.0], [1.0], batcher(2, 9.0, [1.0, 1.5]), pool=pool)
    assert each(h, "start", "service") == [(1.0, 1.5), (1.0, 1.5), (1.0, 3.0), (1.0, 3.0)]
    assert h.busy_s == [4.5]


def test_a_batcher_refuses_only_while_no_worker_is_free():
    # queue_limit 1: three wait at once, since the worker is free; then it is busy with one waiting
    pool = {"queue_limit": 1}
    h = source_of([1.0, 1.0, 1.0, 1.5, 1.75], [4.0], batcher(3, 0.25, [1.0] * 3), pool=pool)
    assert each(h, "start", "status")[:3] == [(1.0, "answered")] * 3
    assert each(h, "start", "status")[3] == (5.0, "answered")
    assert h.attempts[4].status == "refused"


def test_a_timed_out_member_stays_in_its_batch_and_is_not_outstanding():
    pool = {"timeout_s": 1.0}
    h = source_of([1.0, 1.75], [0.5, 0.5], batcher(2, 1.25, [1.0, 2.0]), pool=pool)
    # the first gives way at 2.0; the batch starts when the second fills it, at 1.75, and ends at 2.75
    assert each(h, "start", "service", "latency", "status", "ended") == [
        (1.75, 1.0, 1.0, "timed_out", 2.0),
        (1.75, 1.0, 1.0, "answered", 2.75),
    ]
    h = source_of([1.0, 4.0], [0.5, 0.25], batcher(2, 3.25, [1.0, 2.0]), pool=pool)
    # timed out before the start; the batch is full at 4.0 all the same, with the first one's work, and the second is
    # answered at its deadline
    assert each(h, "start", "service", "status") == [(4.0, 1.0, "timed_out"), (4.0, 1.0, "answered")]
    h = source_of([1.0, 4.0], [0.5, 0.25], batcher(2, 3.0, [1.0, 2.0]), pool=pool | {"timeout_s": 9.0})
    # due at 4.0, which precedes the arrival at 4.0
    assert each(h, "start", "service") == [(4.0, 0.5), (7.0, 0.25)]


# ---- Outages ----


def failing(*listed, **random):
    return events.dynamics(outages=events.outages(listed, **random))


def test_a_listed_outage_fails_what_is_in_the_instance():
    h = source_of([1.0, 2.0, 4.0, 7.0], [5.0, 1.0, 1.0, 1.0], failing((0, 3.0, 2.0)))
    assert each(h, "status", "ended", "start") == [
        ("failed", 3.0, 1.0),
        ("failed", 3.0, pytest.approx(math.nan, nan_ok=True)),
        ("unavailable", 4.0, pytest.approx(math.nan, nan_ok=True)),
        ("answered", 8.0, 7.0),
    ]
    assert math.isnan(h.attempts[0].latency)
    assert h.busy_s == [3.0]  # 1 .. 3, and 7 .. 8
    assert h.steps == [(0.0, 1), (3.0, 0), (5.0, 1)]
    assert h.serving_s == [58.0]
    assert h.existing_s == [60.0]


def test_at_one_instant_a_finish_precedes_an_outage_and_a_repair_precedes_an_arrival():
    h = source_of([1.0, 5.0], [2.0, 1.0], failing((0, 3.0, 2.0)))
    assert each(h, "status", "ended") == [("answered", 3.0), ("answered", 6.0)]
    h = source_of([3.0, 4.0], [1.0], failing((0, 3.0, 1.0)))
    assert each(h, "status", "ended") == [("unavailable", 3.0), ("answered", 5.0)]


def test_an_outage_precedes_the_start_of_a_batch_that_is_due():
    listed = events.outages([(0, 3.0, 1.0)])
    dynamics = events.dynamics(e.Batching(2, 2.0, np.ones(2)), outages=listed)
    h = source_of([1.0], [4.0], dynamics)
    assert h.attempts[0].status == "failed"
    assert math.isnan(h.attempts[0].start)
    assert h.busy_s == [0.0]


def test_an_outage_of_an_instance_that_is_down_or_absent_is_ignored():
    h = source_of([8.0], [1.0], failing((0, 3.0, 4.0), (0, 5.0, 9.0), (7, 1.0, 50.0)))
    assert h.steps == [(0.0, 1), (3.0, 0), (7.0, 1)]
    assert h.attempts[0].status == "answered"


def test_a_time_out_before_the_outage_stands():
    h = source_of([1.0, 2.0], [9.0], failing((0, 4.0, 1.0)), pool={"timeout_s": 2.5})
    assert each(h, "status", "ended") == [("timed_out", 3.5), ("failed", 4.0)]
    assert h.attempts[0].latency == 2.5


def test_random_outages_alternate_draws_of_up_and_repair_times_and_a_listed_one_takes_the_next():
    c = SimpleNamespace(seed=np.uint64(7))

    def draw(n):
        return k.neg_log(k.uniform(naive.z(c, e.SOURCE_OUTAGE, 0, n)))

    down = draw(0) * 20.0
    up = down + draw(1) * 5.0
    down_again = up + draw(2) * 20.0
    h = source_of([0.0], [1.0], failing(mtbf_s=20.0, mttr_s=5.0), horizon_s=400.0, seed=7)
    assert h.steps[:4] == [(0.0, 1), (down, 0), (up, 1), (down_again, 0)]
    # a listed one, in the first spell: it ends the spell, whose repair it fixes; the next up time is draw 2
    listed, for_s = down * 0.98, down * 0.01
    assert listed + for_s < down < listed + for_s + draw(2) * 20.0  # it is up when the superseded outage was due
    h = source_of([0.0], [1.0], failing((0, listed, for_s), mtbf_s=20.0, mttr_s=5.0), horizon_s=400.0, seed=7)
    next_down = (listed + for_s) + draw(2) * 20.0
    assert h.steps[:5] == [
        (0.0, 1),
        (listed, 0),
        (listed + for_s, 1),
        (next_down, 0),
        (next_down + draw(3) * 5.0, 1),
    ]


# ---- Scaling ----


def per_minute(counts):
    """Arrivals that are spread over each minute."""
    return [60.0 * m + 60.0 * (i + 0.5) / n for m, n in enumerate(counts) for i in range(n)]


def actions(history):
    return [(a.kind, a.decided / 60, a.effect / 60, a.wanted, a.desired, a.dropped) for a in history.actions]


def test_three_high_minutes_scale_out_and_fifteen_low_ones_scale_in():
    #          minutes 0-2 high: 25 > 10;  minute 3 on: 5 < 9 x 3, and 5 < 9 x 1
    counts = [25, 25, 25] + [5] * 37
    h = source_of(per_minute(counts), [0.125], events.dynamics(scaling=scaling()), horizon_s=2400.0)
    # high at 1, 2, 3 min: out to ceil(25/10) = 3 at 3 min; low from 4 min on: the 15th at 18 min, after the
    # cooldown's end at 8 min; then desired is 1, the least
    assert actions(h) == [("out", 3, 3, 3, 3, False), ("in", 18, 18, 1, 1, False)]
    assert h.steps == [(0.0, 1), (180.0, 3), (1080.0, 1)]
    assert h.serving_s[2] == 60.0
    assert h.serving_s[3] == 180.0
    assert h.serving_s[18] == 60.0
    assert h.existing_s == h.serving_s


def test_the_alarm_boundaries_are_strict():
    # 10 is not above the target of 10, and 9 is not below 0.9 x 10
    for count, n_actions in ((10, 0), (11, 1)):
        h = source_of(per_minute([count] * 9), [0.125], events.dynamics(scaling=scaling()), horizon_s=540.0)
        assert len(h.actions) == n_actions
    for count, n_actions in ((9, 0), (8, 1)):  # of two instances with a target of 5
        dynamics = events.dynamics(scaling=scaling(target=5.0, points=(3, 5), most=2, least=1))
        h = source_of(per_minute([count] * 6), [0.125], dynamics, horizon_s=360.0, source_instances=2)
        assert h.actions == []  # 8 is low, but two instances are wanted
        variant = SimpleNamespace(dynamics=dynamics, low_streak=0)
        events.Variant.note_low(variant, count, 2)
        assert variant.low_streak == n_actions
    variant = SimpleNamespace(dynamics=events.dynamics(scaling=scaling(target=13.0)), low_streak=0)
    events.Variant.note_low(variant, 117, 10)
    assert variant.low_streak == 1  # (0.9 x 13) x 10 is just above 117, 0.9 x 130 is not
    for n_minutes, n_actions in ((5, 0), (6, 1)):  # the fifth alarm at 5 min, which must be before the horizon
        h = source_of(
            [1.0], [0.125], events.dynamics(scaling=scaling(points=(3, 5))), horizon_s=60.0 * n_minutes,
            source_instances=2,
        )  # fmt: skip
        assert len(h.actions) == n_actions


def test_a_minute_holds_its_beginning_and_a_sample_precedes_the_arrivals_of_its_instant():
    h = source_of([0.0] * 11 + [60.0] * 11, [5.0], events.dynamics(scaling=scaling(points=(2, 99))), horizon_s=130.0)
    assert actions(h) == [("out", 2, 2, 2, 2, False)]
    assert [present[0] for t, present in h.samples if t in (0.0, 60.0)] == [0, 0]  # eleven took 55 s
    h = source_of([10.0], [5.0], events.dynamics())
    assert [present[0] for _, present in h.samples] == [0] * 6


def test_a_minute_at_the_target_ends_the_streak():
    h = source_of(per_minute([10, 11, 11, 11]), [0.125], events.dynamics(scaling=scaling()), horizon_s=250.0)
    assert actions(h) == [("out", 4, 4, 2, 2, False)]


def test_cooldowns_run_from_the_effect():
    # out to 2 decided at 1 min, effective at 2.5 min; the cooldown ends at 4.5 min, so in is decided at 5 min
    s = scaling(points=(1, 1), delay=90.0, out=120.0)
    h = source_of(per_minute([15, 0, 0, 0, 0]), [0.125], events.dynamics(scaling=s), horizon_s=330.0)
    assert actions(h)[:2] == [("out", 1, 2.5, 2, 2, False), ("in", 5, 6.5, 1, None, False)]


def test_at_one_instant_a_scale_out_takes_effect_before_a_scale_in():
    s = scaling(e.CONCURRENCY, target=1.0, points=(1, 1), out=0.0, into=0.0, delay=5.0)
    # at 60 s three are present: out to 3; the minute's mean is 0.5, below 0.9 x 2: in to 1, which is then outdated
    dynamics = events.dynamics(scaling=s)
    h = source_of([55.0] * 3, [10.0], dynamics, source_instances=2, horizon_s=70.0, pool={"n_workers": 3})
    assert [(a.kind, a.decided, a.wanted, a.desired, a.dropped) for a in h.actions] == [
        ("out", 60.0, 3, 3, False),
        ("in", 60.0, 1, 3, True),
    ]


def test_the_wanted_number_is_the_least_whose_capacity_suffices_and_is_clamped():
    for count, wanted in ((20, 2), (21, 3), (50, 5), (51, 5)):
        h = source_of(per_minute([count] * 4), [0.125], events.dynamics(scaling=scaling()), horizon_s=240.0)
        assert actions(h) == [("out", 3, 3, wanted, wanted, False)]
    variant = SimpleNamespace(dynamics=events.dynamics(scaling=scaling(target=0.7, most=999)))
    assert math.ceil(21 / 0.7) == 31
    assert events.Variant.wanted(variant, 21) == 30  # 30 x 0.7 is 21 in floating point
    assert math.ceil(63 / 0.7) == 90
    assert events.Variant.wanted(variant, 63) == 91  # 90 x 0.7 is just below 63
    variant = SimpleNamespace(dynamics=events.dynamics(scaling=scaling(target=0.1, least=4, most=99)))
    assert events.Variant.wanted(variant, 0) == 4


def test_a_larger_scale_out_passes_the_cooldown_and_a_scale_in_waits_for_both():
    s = scaling(out=600.0, into=360.0, points=(3, 2), most=4)
    counts = [15, 15, 15, 40, 40, 40] + [5] * 20
    h = source_of(per_minute(counts), [0.125], events.dynamics(scaling=s), horizon_s=1560.0)
    # out to 2 at 3 min; 40 > 20 at 4 min continues the streak (4 high minutes): out to 4 at once.
    # the out cooldown ends at 14 min; low since 7 min: in to 1 at 14 min
    assert actions(h) == [("out", 3, 3, 2, 2, False), ("out", 4, 4, 4, 4, False), ("in", 14, 14, 1, 1, False)]


def test_the_cooldown_of_a_scale_in_delays_the_next_one():
    counts = [15, 15, 15] + [5] * 12
    s = scaling(out=0.0, into=360.0, points=(3, 2))
    h = source_of(per_minute(counts), [0.125], events.dynamics(scaling=s), horizon_s=900.0, source_instances=4)
    # four instances: 15 < 36 is low at 1 and 2 min: in to 2 at 2 min; the cooldown ends at 8 min: in to 1
    assert actions(h) == [("in", 2, 2, 2, 2, False), ("in", 8, 8, 1, 1, False)]
    assert h.steps == [(0.0, 4), (120.0, 2), (480.0, 1)]


def test_the_delay_and_the_cold_start_come_in_succession():
    s = scaling(points=(1, 99), delay=90.0, cold=45.0)
    h = source_of(per_minute([15, 25, 5, 5, 5, 5]), [0.125], events.dynamics(scaling=s), horizon_s=360.0)
    # 15 at 1 min: out to 2 at 2.5 min, serving at 195 s; 25 at 2 min: out to 3 at 3.5 min, serving at 255 s
    assert actions(h) == [("out", 1, 2.5, 2, 2, False), ("out", 2, 3.5, 3, 3, False)]
    assert h.steps == [(0.0, 1), (195.0, 2), (255.0, 3)]
    assert h.serving_s == [60.0, 60.0, 60.0, 105.0, 165.0, 180.0]
    assert h.existing_s == [60.0, 60.0, 90.0, 150.0, 180.0, 180.0]  # since 150 s and 210 s


def test_a_second_decision_for_the_same_number_and_an_outdated_scale_in_are_dropped():
    s = scaling(points=(1, 1), delay=90.0, out=0.0, into=0.0)
    h = source_of(per_minute([15, 15, 5, 5, 5]), [0.125], events.dynamics(scaling=s), horizon_s=360.0)
    # 1 and 2 min: out to 2 (effect 2.5; 3.5 dropped). 3 min: n = 2, 5 < 18: in to 1, effect 4.5; the cooldowns are 0.
    # 4 min: again, effect 5.5, dropped since desired has become 1
    assert actions(h) == [
        ("out", 1, 2.5, 2, 2, False),
        ("out", 2, 3.5, 2, 2, True),
        ("in", 3, 4.5, 1, 1, False),
        ("in", 4, 5.5, 1, 1, True),
    ]


def test_an_effect_after_the_horizon_has_no_desired_number():
    s = scaling(points=(1, 1), delay=90.0)
    h = source_of(per_minute([15, 15]), [0.125], events.dynamics(scaling=s), horizon_s=119.0)
    assert [(a.decided, a.effect, a.desired) for a in h.actions] == [(60.0, 150.0, None)]
    assert h.steps == [(0.0, 1)]


def test_a_scale_in_drops_starting_instances_first_then_the_highest_numbers_which_drain():
    # instances 0 and 1 serve; 2 and 3 are requested at 1 min, and would start 100 s later.
    # low at 2 min: in to 1 drops 3, 2, and then drains 1
    s = scaling(target=10.0, points=(1, 1), out=0.0, into=0.0, cold=100.0)
    times = [1.0 + i for i in range(40)] + [70.0]
    work = [0.125] * 40 + [100.0]
    dynamics = events.dynamics(scaling=s)
    pool = {"routing": k.LEAST_OUTSTANDING, "n_workers": 1}
    times += [119.0]
    work += [30.0]
    h = source_of(times, work, dynamics, source_instances=2, horizon_s=240.0, pool=pool)
    assert [(a.kind, a.decided, a.wanted) for a in h.actions] == [("out", 60.0, 4), ("in", 120.0, 1)]
    assert h.steps == [(0.0, 2), (120.0, 1)]
    long, short = h.attempts[-2:]
    assert {long.instance, short.instance} == {0, 1}
    drained = next(a for a in (long, short) if a.instance == 1)
    assert drained.status == "answered"
    # two for the first minute, four for the second, one from then on, and the draining one until it is empty
    drain_s = drained.ended - 120.0
    assert math.fsum(h.existing_s) == 120.0 + 240.0 + 120.0 + drain_s
    assert h.serving_s == [120.0, 120.0, 60.0, 60.0]


def test_a_draining_instance_that_fails_is_gone_and_a_dropped_one_that_is_down_does_not_return():
    s = scaling(points=(3, 1), into=0.0)
    dynamics = events.dynamics(scaling=s, outages=events.outages([(1, 70.0, 5.0)]))
    pool = {"routing": k.LEAST_OUTSTANDING, "timeout_s": math.inf}
    h = source_of([55.0, 55.0], [90.0], dynamics, source_instances=2, horizon_s=180.0, pool=pool)
    # in to 1 at 60 s: instance 1 drains its request; it fails at 70 s and never returns
    by_instance = {a.instance: a for a in h.attempts}
    assert (by_instance[1].status, by_instance[1].ended) == ("failed", 70.0)
    assert by_instance[0].status == "answered"
    assert h.existing_s == [120.0, 70.0, 60.0]
    assert h.steps == [(0.0, 2), (60.0, 1)]
    dynamics = events.dynamics(scaling=s, outages=events.outages([(1, 50.0, 50.0)]))
    h = source_of([1.0], [0.125], dynamics, source_instances=2, horizon_s=180.0)
    assert h.steps == [(0.0, 2), (50.0, 1)]
    assert h.existing_s == [120.0, 60.0, 60.0]


def test_concurrency_scales_out_on_ticks_and_in_on_means_of_a_minute():
    s = scaling(e.CONCURRENCY, target=1.0, points=(2, 1), out=20.0, into=0.0)
    # three requests of 35 s from 5 s on: 3 present at 10, 20, 30; two ticks above 1 x 1: out to 3 at 20 s
    h = source_of([5.0, 5.0, 5.0], [35.0], events.dynamics(scaling=s), horizon_s=130.0, pool={"n_workers": 3})
    # present at 10 .. 60 s: 3 3 3 0 (a finish at 40 precedes the tick) 0 0: mean 1.5, wanted 2, below 0.9 x 3;
    # then 0 .. : at 120 s in to 1
    assert [sum(p.values()) for _, p in h.samples[:7]] == [0, 3, 3, 3, 0, 0, 0]
    assert [(a.kind, a.decided, a.wanted, a.desired) for a in h.actions] == [
        ("out", 20.0, 3, 3),
        ("in", 60.0, 2, 2),
        ("in", 120.0, 1, 1),
    ]
    assert h.samples[2][1] == {0: 3}  # sampled before the action
    assert h.samples[3][1] == {0: 3, 1: 0, 2: 0}


def test_without_a_serving_instance_any_request_is_high():
    s = scaling(points=(1, 99), most=3)
    dynamics = events.dynamics(scaling=s, outages=events.outages([(0, 0.0, 500.0)]))
    h = source_of(per_minute([25, 1]), [0.125], dynamics, horizon_s=120.0)
    assert each(h, "status") == [("unavailable",)] * 25 + [("answered",)]
    assert actions(h) == [("out", 1, 1, 3, 3, False)]
    assert h.steps == [(0.0, 0), (60.0, 2)]


# ---- Retries ----


def backoff(attempt, in_window=0, base=1.0, cap=20.0, seed=7):
    c = SimpleNamespace(seed=np.uint64(seed))
    u = k.uniform(naive.z(c, e.BACKOFF + 64 * attempt, 0, in_window))
    return u * min(base * 2.0**attempt, cap)


def test_a_chain_of_retries_follows_the_draws():
    dynamics = events.dynamics(outages=events.outages([(0, 0.0, 500.0)]), retries=retried(4, base=2.0, cap=5.0))
    h = source_of([3.0], [0.5], dynamics, seed=7)
    times = [3.0]
    for a in range(3):
        times.append(times[-1] + backoff(a, base=2.0, cap=5.0))
    assert each(h, "attempt", "arrival", "status") == [(a, t, "unavailable") for a, t in enumerate(times)]
    call = h.calls[0]
    assert (call.first_arrival, call.end, call.success, call.attempts) == (3.0, times[3], False, 4)


def test_a_retry_after_an_outage_succeeds_and_one_of_another_cause_is_not_made():
    listed = events.outages([(0, 3.0, 0.0)])
    h = source_of([1.0], [4.0], events.dynamics(outages=listed, retries=retried(causes=e.ON_OUTAGE)), seed=7)
    again = 3.0 + backoff(0)
    assert each(h, "attempt", "arrival", "status", "ended") == [
        (0, 1.0, "failed", 3.0),
        (1, again, "answered", again + 4.0),
    ]
    assert (h.calls[0].end, h.calls[0].success) == (again + 4.0, True)
    h = source_of([1.0], [4.0], events.dynamics(outages=listed, retries=retried(causes=ALL - e.ON_OUTAGE)), seed=7)
    assert each(h, "status") == [("failed",)]
    assert (h.calls[0].end, h.calls[0].success) == (3.0, False)


def test_a_callers_give_up_leaves_the_endpoints_books_alone():
    h = source_of([1.0], [6.0], events.dynamics(retries=retried(2, timeout=2.0, causes=e.ON_TIMEOUT)), seed=7)
    again = 3.0 + backoff(0)
    # one worker: the second attempt waits for the first, until 7, and its caller gives up too
    assert each(h, "arrival", "start", "status", "latency") == [
        (1.0, 1.0, "answered", 6.0),
        (again, 7.0, "answered", 13.0 - again),
    ]
    assert (h.calls[0].end, h.calls[0].success) == (again + 2.0, False)


def test_at_one_instant_an_answer_precedes_the_give_up_which_precedes_the_endpoints_time_out():
    h = source_of([1.0], [2.0], events.dynamics(retries=retried(2, timeout=2.0)), pool={"timeout_s": 2.0})
    assert each(h, "status") == [("answered",)]
    assert h.calls[0].success
    for causes, n in ((e.ON_TIMEOUT, 2), (e.ON_MODEL_ERROR, 1)):
        dynamics = events.dynamics(retries=retried(2, timeout=2.0, causes=causes))
        h = source_of([1.0], [3.0], dynamics, pool={"timeout_s": 2.0, "n_workers": 9})
        assert [a.status for a in h.attempts] == ["timed_out"] * n
    # the endpoint's own time-out, earlier than the caller's, is a model error
    for causes, n in ((e.ON_TIMEOUT, 1), (e.ON_MODEL_ERROR, 2)):
        dynamics = events.dynamics(retries=retried(2, timeout=2.5, causes=causes))
        h = source_of([1.0], [3.0], dynamics, pool={"timeout_s": 2.0, "n_workers": 9})
        assert len(h.attempts) == n
    # and an outage at the instant of a give-up comes too late for the caller
    dynamics = events.dynamics(
        outages=events.outages([(0, 3.0, 0.0)]), retries=retried(2, timeout=2.0, causes=e.ON_OUTAGE)
    )
    h = source_of([1.0], [6.0], dynamics)
    assert each(h, "status") == [("failed",)]


def test_a_retry_at_or_after_the_horizon_is_not_made_but_is_paid_for():
    dynamics = events.dynamics(retries=retried(2, base=1e9, cap=1e9, quota=7, causes=e.ON_REFUSED))
    h = source_of([1.0, 1.0], [2.0], dynamics, pool={"queue_limit": 0})
    assert each(h, "status") == [("answered",), ("refused",)]
    assert (h.calls[1].end, h.calls[1].success) == (1.0, False)
    assert h.tokens == [3]  # 7 - 5, + 1 for the first try that succeeded


def test_a_client_without_tokens_does_not_retry_and_successes_pay_back():
    # 12 tokens: two retries at 5; the third failure finds 2
    down = events.outages([(0, 10.0, 20.0)])
    dynamics = events.dynamics(outages=down, retries=retried(2, base=0.0, quota=12))
    times = [1.0, 2.0, 11.0, 12.0, 13.0, 40.0, 41.0]
    h = source_of(times, [0.125], dynamics)
    # delay 0: a retry at the same instant is unavailable, too
    assert [a.number for a in h.attempts] == [0, 1, 2, 2, 3, 3, 4, 5, 6]
    assert [a.attempt for a in h.attempts] == [0, 0, 0, 1, 0, 1, 0, 0, 0]
    assert h.tokens == [4]  # min(12, 12 + 1) twice, - 5, - 5, + 1, + 1
    # a success after a retry pays back what the retry cost: 10 after a time-out, 5 otherwise
    for work, timeout, causes, cost in ((3.0, 2.0, e.ON_TIMEOUT, 10), (3.0, math.inf, e.ON_OUTAGE, 5)):
        outage = events.outages([(0, 2.5, 0.0)] if causes == e.ON_OUTAGE else [])
        retries = retried(2, base=0.0, quota=12, timeout=timeout, causes=causes)
        h = source_of([1.0], [work], events.dynamics(outages=outage, retries=retries))
        assert len(h.attempts) == 2
        assert h.tokens == [12 if causes == e.ON_OUTAGE else 12 - cost]  # the second gives up too, and is not retried


def test_clients_have_separate_quotas():
    c = SimpleNamespace(seed=np.uint64(7))
    client = [(int(naive.z(c, e.CLIENT, 0, i)) >> 32) * 2 >> 32 for i in range(8)]
    down = events.dynamics(outages=events.outages([(0, 0.0, 99.0)]), retries=retried(2, base=0.0, quota=5, clients=2))
    h = source_of([1.0 + i for i in range(8)], [1.0], down, seed=7)
    firsts = [client.index(n) for n in (0, 1)]
    assert sorted(a.number for a in h.attempts if a.attempt == 1) == sorted(firsts)
    assert [h.calls[n].client for n in range(8)] == client
    assert h.tokens == [0, 0]


def test_at_one_instant_failures_take_tokens_by_instance_and_then_by_admission():
    two = {"routing": k.LEAST_OUTSTANDING}

    def retrying(times, dynamics, **of_pool):
        h = source_of(times, [2.0], dynamics, source_instances=2, pool=two | of_pool)
        assert {a.instance for a in h.attempts if a.attempt == 0} == {0, 1}
        return [h.attempts[a.number].instance for a in h.attempts if a.attempt], h

    one = retried(2, base=1.0, quota=5, timeout_cost=5)
    listed = events.outages([(1, 2.0, 9.0), (0, 2.0, 9.0)])
    assert retrying([1.0, 1.0], events.dynamics(outages=listed, retries=one))[0] == [0]
    assert retrying([1.0, 1.0], events.dynamics(retries=one), error_5xx=1.0)[0] == [0]
    _, h = retrying([1.0, 1.0], events.dynamics(retries=one._replace(timeout_s=1.0)))
    assert [a.number for a in h.attempts if a.attempt] == [0]
    _, h = retrying([1.0, 1.0], events.dynamics(retries=one), timeout_s=1.0)
    assert [a.number for a in h.attempts if a.attempt] == [0]


def test_every_attempt_draws_its_service_route_and_error():
    poisson = {"process": "poisson", "rate_per_s": 0.1}
    erring = {"error_4xx": 0.3, "error_5xx": 0.3}
    s = scenario(poisson, service("exponential", 0.5, **erring), source_instances=5, horizon_s=300.0)
    arrivals = arrivals_of(s)
    c = columns(s, arrivals)
    retries = retried(4, base=0.25, causes=e.ON_MODEL_ERROR)
    h = events.simulate(events.with_dynamics(c, events.dynamics(retries=retries), events.PLAIN), arrivals)[0]
    for a in h.attempts:

        def draw(column, a=a):
            return naive.z(c, column + 64 * a.attempt, a.window, a.in_window)

        assert a.drawn == k.draw(draw(k.SOURCE_SERVICE), c.source.table) * c.source.mean_s
        assert a.instance == (int(draw(k.SOURCE_ROUTE)) >> 32) * 5 >> 32
        u = k.uniform(draw(k.SOURCE_ERROR))
        assert a.status == ("error_4xx" if u <= 0.3 else "error_5xx" if u <= 0.6 else "answered")
    assert {a.attempt for a in h.attempts} == {0, 1, 2, 3}


def test_retries_arrive_after_the_first_attempts_of_their_instant():
    dynamics = events.dynamics(retries=retried(2, base=0.0, causes=e.ON_REFUSED))
    h = source_of([1.0, 1.0, 1.0], [2.0], dynamics, pool={"queue_limit": 0})
    assert each(h, "number", "attempt") == [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1)]


# ---- Copies ----


def test_copies_at_the_response_leave_when_the_attempt_ends_for_the_endpoint():
    dynamics = events.dynamics(outages=events.outages([(0, 5.0, 2.0)]))
    mirror = {"rule": "counter", "instant": "response"}
    source, shadow, _ = run([1.0, 3.0, 6.0], [1.5, 9.0, 1.0], dynamics, mirror=mirror, share=100)
    assert [a.status for a in source.attempts] == ["answered", "failed", "unavailable"]
    assert each(shadow, "number", "arrival") == [(0, 2.5), (1, 5.0), (2, 6.0)]
    assert each(shadow, "status")[0] == ("answered",)


def test_copies_of_one_instant_are_ordered_by_request_and_attempt():
    down = events.outages([(0, 0.0, 99.0)])
    dynamics = events.dynamics(outages=down, retries=retried(3, base=0.0))
    mirror = {"rule": "counter", "instant": "response"}
    source, shadow, _ = run([1.0, 1.0], [1.0], dynamics, mirror=mirror, share=100)
    assert each(source, "number", "attempt") == [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (1, 2)]
    assert each(shadow, "number", "attempt") == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    # at the arrival they follow the source's attempts
    source, shadow, _ = run([1.0, 1.0], [1.0], dynamics, mirror={"rule": "counter"}, share=100)
    assert each(shadow, "number", "attempt") == each(source, "number", "attempt")


def test_bodies_are_kept_back_in_the_window_of_the_attempt():
    down = events.outages([(0, 0.0, 99.0)])
    s = scenario(
        {"process": "poisson", "rate_per_s": 1.0, "request_bytes": 100},
        horizon_s=40.0,
        period_s=10.0,
        share=100,
        mirror={"max_body_bytes": 60},
    )
    arrivals = arrivals_of(s)
    dynamics = events.dynamics(outages=down, retries=retried(2, base=30.0, cap=30.0))
    source, shadow, kept_back = events.simulate(
        events.with_dynamics(columns(s, arrivals), dynamics, events.PLAIN), arrivals
    )
    assert shadow.attempts == []
    for w in range(4):
        assert kept_back.get(w, 0) == sum(10.0 * w <= a.arrival < 10.0 * (w + 1) for a in source.attempts)
    assert any(a.window != int(a.arrival // 10.0) for a in source.attempts)


def test_a_counter_counts_attempts_and_a_coin_is_tossed_for_each():
    down = events.outages([(0, 0.0, 99.0)])
    refusing = events.dynamics(outages=down, retries=retried(4, base=0.5, causes=e.ON_UNAVAILABLE))
    times = [1.0 + i for i in range(30)]
    source, shadow, _ = run(times, [0.125], refusing, mirror={"rule": "counter"}, share=50)
    assert len(source.attempts) == 120
    assert each(shadow, "number", "attempt", "arrival") == each(source, "number", "attempt", "arrival")[1::2]
    source, shadow, _ = run(times, [0.125], refusing, mirror={"rule": "coin"}, share=50)
    made = set(each(shadow, "number", "attempt"))
    of_request = [sum((n, a) in made for a in range(4)) for n in range(30)]
    assert len(set(of_request)) > 2  # attempts have coins of their own


def test_a_sessions_attempts_are_copied_together():
    down = events.dynamics(retries=retried(3, base=0.5), outages=events.outages([(0, 0.0, 99.0)]))
    case = {"mirror": {"rule": "hash"}, "share": 50}
    poisson = {"process": "poisson", "rate_per_s": 1.0, "sessions": 40}
    s = scenario(poisson, service("deterministic", 1.0), **case)
    arrivals = arrivals_of(s)
    c = events.with_dynamics(columns(s, arrivals), down, events.PLAIN)
    source, shadow, _ = events.simulate(c, arrivals)
    attempts = {}
    for a in shadow.attempts:
        attempts[a.number] = attempts.get(a.number, 0) + 1
    made = {}
    for a in source.attempts:
        made[a.number] = made.get(a.number, 0) + 1
    assert 0 < len(attempts) < len(made)
    assert all(made[n] == times for n, times in attempts.items())


def test_the_cap_per_second_counts_copies_of_less_than_a_second_ago():
    case = {"share": 100, "mirror": {"rule": "counter", "max_per_s": 1}}
    _, shadow, _ = run([1.0, 1.5, 2.0], [0.125], events.PLAIN, events.dynamics(), **case)
    assert each(shadow, "status") == [("answered",), ("lost_max_per_s",), ("answered",)]


def test_caps_count_draining_instances_and_lost_copies_do_not_reach_the_variant():
    s = scaling(points=(3, 1), into=0.0, least=1)
    dynamics = events.dynamics(scaling=s)
    pool = {"routing": k.LEAST_OUTSTANDING, "timeout_s": math.inf}
    case = {"share": 100, "mirror": {"rule": "counter", "max_in_flight": 2}, "pool": pool}
    times = [55.0, 55.0, 70.0]
    _, shadow, _ = run(times, [90.0], events.PLAIN, dynamics, shadow_instances=2, horizon_s=180.0, **case)
    assert each(shadow, "status") == [("answered",), ("answered",), ("lost_max_in_flight",)]
    assert shadow.steps == [(0.0, 2), (60.0, 1)]
    case = {"share": 100, "mirror": {"rule": "counter", "max_in_flight": 0}}
    dynamics = events.dynamics(scaling=scaling())
    _, shadow, _ = run(per_minute([25] * 4), [0.125], events.PLAIN, dynamics, horizon_s=240.0, **case)
    assert shadow.actions == []


# ---- Anything together ----


@pytest.mark.slow
@settings(max_examples=15)
@given(scenarios_for_events(), BATCHINGS, SCALINGS, OUTAGES, RETRIES)
def test_every_attempt_and_every_call_ends(s, batching, scaled, outages, retries):
    s = s.replace({"horizon_s": 150.0})
    arrivals = arrivals_of(s)
    source = events.dynamics(batching, scaled, outages, retries)
    shadow = source._replace(retries=events.NO_RETRIES, outages=outages._replace(column=e.SHADOW_OUTAGE))
    c = events.with_dynamics(columns(s, arrivals), source, shadow)
    histories = events.simulate(c, arrivals)[:2]
    for name, h in zip(("source", "shadow"), histories, strict=True):
        pool = getattr(c, name)
        assert all(a.status for a in h.attempts)
        for a in h.attempts:
            if a.status in ("answered", "error_4xx", "error_5xx"):
                assert a.arrival <= a.start <= a.ended == a.start + a.service
                assert 0.0 <= a.latency <= pool.timeout_s
            elif a.status == "timed_out":
                assert a.ended == a.arrival + pool.timeout_s
        for w in range(c.n_windows):
            assert h.serving_s[w] <= h.existing_s[w] + 1e-9
            assert h.busy_s[w] <= h.existing_s[w] * pool.n_workers + 1e-9
        ends = [t for t, _ in h.steps[1:]] + [c.horizon_s]
        area = math.fsum(n * (end - begin) for (begin, n), end in zip(h.steps, ends, strict=True))
        assert math.fsum(h.serving_s) == pytest.approx(area, abs=1e-6)
    calls, attempts = histories[0].calls, histories[0].attempts
    assert len(calls) == sum(a.attempt == 0 for a in attempts)
    assert sum(call.attempts for call in calls.values()) == len(attempts)
    for call in calls.values():
        assert call.end >= call.first_arrival
        assert call.success in (True, False)
        assert call.attempts <= retries.max_attempts
    assert all(t <= retries.quota and (retries.quota < 0 or t >= 0) for t in histories[0].tokens)
