"""Pools for shares, and what of a duration is rehearsed."""

import math

import pytest
from cases import scenario, service

from shadowsim import InputError
from shadowsim.planning import plan_designs
from shadowsim.planning.plan_designs import (
    at_share,
    check_keeps_up,
    choose_segments,
    durations_of,
    in_production,
    load_ratio,
    sees_same_arrivals,
    shares_of,
)
from shadowsim.planning.plan_effects import parse_effect

POISSON = {"process": "poisson", "rate_per_s": 100.0}
DAY = {"process": "poisson", "profile": {"kind": "diurnal", "base_per_s": 50.0, "peak_per_s": 150.0}}
P99 = parse_effect("p99 +5%")
HOUR_S, DAY_S = 3600.0, 86_400.0


def case(traffic=POISSON, **more):
    defaults = {"source": service("exponential", 0.02, 2), "source_instances": 4, "horizon_s": DAY_S, "period_s": 60.0}
    return scenario(traffic, **(defaults | more))


@pytest.mark.parametrize(
    ("percentage", "instances", "ratio", "same"),
    [(25, 1, 1.0, True), (10, 1, 0.4, False), (30, 2, 0.6, False), (75, 3, 1.0, True), (100, 4, 1.0, True)],
)
def test_a_share_gets_as_many_workers_as_its_part_of_the_traffic(percentage, instances, ratio, same):
    test = at_share(case(), percentage)
    assert test.experiment.shadow.pool.instance_count == instances
    assert test.experiment.sampling_percentage == percentage
    assert load_ratio(test) == pytest.approx(ratio)
    assert sees_same_arrivals(test) is same


def test_a_shadow_of_more_workers_needs_fewer_instances():
    assert at_share(case(shadow=service("exponential", 0.02, 8)), 100).experiment.shadow.pool.instance_count == 1
    assert at_share(case(shadow=service("exponential", 0.02, 1)), 50).experiment.shadow.pool.instance_count == 4


@pytest.mark.parametrize(
    "more",
    [
        {"endpoint": {"routing": "LEAST_OUTSTANDING_REQUESTS"}},
        {"mirror": {"rule": "counter"}},
        {"mirror": {"instant": "response"}},
        {"mirror": {"max_in_flight": 9}},
        {"shadow": service("exponential", 0.021, 2)},
        {"shadow": service("exponential", 0.02, 4)},
    ],
)
def test_other_copies_or_models_are_not_alike(more):
    test = at_share(case(**more), 50)
    assert not sees_same_arrivals(test)
    production = in_production(case(**more))
    assert sees_same_arrivals(production) is ("shadow" not in more)


def test_a_source_that_does_not_keep_up_is_refused():
    check_keeps_up(case({"process": "poisson", "rate_per_s": 390.0}))
    with pytest.raises(InputError, match=r"scenario: must have a source that keeps up: it receives 1\.02 times"):
        check_keeps_up(case({"process": "poisson", "rate_per_s": 410.0}))
    peak = {"process": "poisson", "profile": {"kind": "diurnal", "base_per_s": 50.0, "peak_per_s": 500.0}}
    with pytest.raises(InputError, match=r"receives 1\.25 times"):
        check_keeps_up(case(peak))
    check_keeps_up(case(peak, source=service("exponential", 0.02, 2, queue_limit=5)))


def test_what_can_be_afforded_is_rehearsed_in_full():
    segments = choose_segments(in_production(case()), [600.0, HOUR_S], [50], 10, P99)
    assert [(s.length_s, s.n_windows, s.is_long_enough) for s in segments.values()] == [
        (600.0, 10, True),
        (HOUR_S, 60, True),
    ]


def test_of_steady_traffic_one_segment_does_for_all_longer_durations(monkeypatch):
    monkeypatch.setattr(plan_designs, "MOST_REQUESTS", 2 * 10 * 1_000_000)
    segments = choose_segments(in_production(case()), [HOUR_S, DAY_S, 7 * DAY_S], [50], 10, P99)
    assert segments[HOUR_S].length_s == HOUR_S
    assert segments[DAY_S] == segments[7 * DAY_S]
    assert (segments[DAY_S].length_s, segments[DAY_S].n_windows) == (pytest.approx(10_000.0), 100)
    longer = segments[DAY_S].longer(20_000.0)
    assert (longer.covered_s, longer.length_s) == (20_000.0, 20_000.0)


def test_traffic_with_a_profile_has_a_segment_for_each_duration(monkeypatch):
    monkeypatch.setattr(plan_designs, "MOST_REQUESTS", 2 * 10 * 4 * 1_000_000)
    segments = choose_segments(in_production(case(DAY)), [6 * HOUR_S, DAY_S, 1.5 * DAY_S, 7 * DAY_S], [50], 10, P99)
    assert [s.covered_s for s in segments.values()] == [6 * HOUR_S, DAY_S, 1.5 * DAY_S, 7 * DAY_S]
    assert [s.mixture for s in segments.values()] == [6 * HOUR_S, DAY_S, 1.5 * DAY_S, DAY_S]
    assert all(s.length_s < s.covered_s and s.is_long_enough for s in segments.values())
    assert segments[DAY_S].longer(math.inf).length_s == DAY_S


def test_long_memories_and_far_tails_ask_for_more(monkeypatch):
    monkeypatch.setattr(plan_designs, "MOST_REQUESTS", 2 * 10 * 10_000)
    plain = choose_segments(in_production(case()), [7 * DAY_S], [50], 10, parse_effect("mean +5%"))[7 * DAY_S]
    assert plain.length_s == pytest.approx(100.0)
    tail = choose_segments(in_production(case()), [7 * DAY_S], [50], 10, P99)[7 * DAY_S]
    assert tail.length_s * 50.0 * 0.01 == pytest.approx(100.0)
    busy = case({"process": "poisson", "rate_per_s": 399.0})
    far = choose_segments(in_production(busy), [7 * DAY_S], [50], 10, parse_effect("mean +5%"))[7 * DAY_S]
    assert far.length_s == pytest.approx(plan_designs.STRETCH * 10_000 / 399.0)  # bounded
    assert not far.is_long_enough


def test_requests_in_tokens_cost_more_the_more_run_at_once():
    served = {"prompt": 100, "output": 200, "max_sequences": 32, "max_step_tokens": 2048, "kv_tokens": 100_000,
              "step": {"base_s": 0.01}}  # fmt: skip
    assert plan_designs.request_cost(case()) == 1.0

    def cost(rate_per_s):
        traffic = {"process": "poisson", "rate_per_s": rate_per_s}
        return plan_designs.request_cost(case(traffic, source={"tokens": served}, source_instances=2))

    # a request alone takes 2 s
    costs = [(25.0 + 2.0 * running) / plan_designs.TOKENS_PATIENCE for running in (0.5, 5.0, 32.0)]
    assert [cost(rate) for rate in (0.5, 5.0, 500.0)] == pytest.approx(costs)


def test_shares_and_durations_are_read():
    assert shares_of(None) == [10, 25, 50, 100]
    assert shares_of([100, 5.0, 5]) == [5, 100]
    assert durations_of(["1d", "90min", 5400, "2.5h"], case()) == [5400.0, 9000.0, DAY_S]
    assert durations_of(None, case()) == [HOUR_S, 6 * HOUR_S, DAY_S, 7 * DAY_S]
    schedule = {"StartTime": "2025-03-01T00:00:00Z", "EndTime": "2025-03-01T02:00:00Z"}
    assert durations_of(None, case().replace({"experiment.Schedule": schedule})) == [HOUR_S, 2 * HOUR_S]
    trace = {"process": "trace", "path": "builtin:trace_small"}
    assert durations_of(None, case(trace, horizon_s=600.0)) == [600.0]


@pytest.mark.parametrize(
    ("parse", "values", "message"),
    [
        (shares_of, [0], "shares: must be a finite number >= 1 and <= 100, got 0"),
        (shares_of, [12.5], "shares: must hold integers"),
        (shares_of, ["10"], "shares: must be a finite number"),
        (shares_of, [], "shares: must hold at least one"),
        (shares_of, 10, "shares: must be a list"),
        (durations_of, ["7 weeks"], "durations: must be seconds, or have a unit"),
        (durations_of, "7d", "durations: must be a list"),
        (durations_of, ["31d"], "durations: must be from a period of 60 s to 2.592e"),
        (durations_of, [59], "durations: must be from a period of 60 s"),
        (durations_of, [math.nan], "durations: must be a finite number"),
    ],
)
def test_shares_and_durations_that_are_none_are_refused(parse, values, message):
    with pytest.raises(InputError, match=message):
        parse(values, *([case()] if parse is durations_of else []))


WHOLE = plan_designs.Segment(1.0, 1.0, 1, 0.0, True, True)


def limits(percentage, segment=WHOLE, k=1.0, **more):
    return plan_designs.limitation_notes(at_share(case(**more), percentage), segment, k)


def test_notes_say_what_a_test_cannot_show():
    assert limits(100) == []
    assert limits(50) == ["the shadow gets 50 % of the traffic: the test does not show a pool for all of it"]
    assert limits(10)[0] == (
        "the shadow's workers get 40 % of the load of the source's: the test does not show the shadow under full load"
    )
    assert limits(50, mirror={"rule": "counter"})[0] == (
        "copies arrive at the shadow's instances in another pattern than requests at the source's: "
        "even equal models may differ"
    )
    part = plan_designs.Segment(HOUR_S, 60.0, 60, HOUR_S, False, False)
    assert limits(100, part, 60.0, traffic=DAY) == [
        "the traffic has a profile, and the test begins at Monday 00:00",
        "compare may find too little data even in so long a test, because its sections vary with the traffic",
        "approximate: the memory of the queues is longer than the rehearsals' sections",
    ]


SCALING = {"metric": "InvocationsPerInstance", "target": 2000, "min": 2, "max": 6}


def a_changing(**keys):
    block = service("exponential", 0.02, 2) | keys
    return case(DAY).replace({"services.Source": block, "services.Shadow": block, "shadow.instance_count": 4})


@pytest.mark.parametrize(
    "s",
    [
        a_changing(scaling=SCALING),
        a_changing(outages=[{"instance": 3, "at_s": 600.0, "for_s": 60.0}]),
        a_changing(batching={"max_size": 2, "max_delay_s": 0.01, "marginal": 0.5}).replace(
            {"traffic.retries": "legacy"}
        ),
    ],
)
def test_what_takes_its_time_is_rehearsed_at_its_own_speed(s, monkeypatch):
    """Alarms, repairs and back-off last as long in a rehearsal as in the test: its beginning stands for it."""
    monkeypatch.setattr(plan_designs, "MOST_REQUESTS", 2 * 10 * 100 * HOUR_S * plan_designs.EVENTED_COST)
    segment = choose_segments(in_production(s), [DAY_S], [50], 10, P99)[DAY_S]
    assert HOUR_S <= segment.covered_s == segment.length_s < DAY_S
    assert not segment.is_time_invariant
    rehearsed = segment.of(in_production(s))
    assert rehearsed.horizon_s == segment.length_s
    # the rates of the day's beginning, and not those of a day in an hour
    assert rehearsed.traffic.mean_rate(HOUR_S, None) == pytest.approx(s.traffic.mean_rate(HOUR_S, None), rel=0.05)
    notes = plan_designs.limitation_notes(at_share(s, 50), segment, DAY_S / segment.length_s)
    assert any("were rehearsed, at their own speed" in note for note in notes)


def test_the_pool_of_a_share_scales_within_its_policy_and_has_no_outages_of_others():
    scaled = a_changing(scaling=SCALING)
    assert at_share(scaled, 10).experiment.shadow.pool.instance_count == 2  # the policy's min
    assert not sees_same_arrivals(at_share(scaled, 50))
    assert sees_same_arrivals(at_share(scaled, 100))
    failing = a_changing(outages=[{"instance": i, "at_s": 600.0, "for_s": 60.0} for i in (0, 3)])
    assert [outage.instance for outage in at_share(failing, 50).shadow_service.outages.listed] == [0]
    notes = plan_designs.limitation_notes(at_share(failing, 50), plan_designs.Segment(1, 1, 1, 1, True, True), 1.0)
    assert any("scales and fails otherwise than one for all of it" in note for note in notes)
