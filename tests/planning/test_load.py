"""The load law on paper, and how long a run must be."""

import math

import numpy as np
import pytest
from cases import scenario, service

from shadowsim import default_scenario, simulate
from shadowsim.planning.load import (
    LEAST_REQUESTS,
    MOST_REQUESTS,
    RELAXATIONS,
    demand_of,
    figure_in_fluid,
    figure_without_waits,
    fluid_waits_s,
    repeating_s,
    run_length,
    with_headroom,
    with_length,
)
from shadowsim.planning.slo import measure, parse_slo

WEEK = 604_800.0
FLAT = {"process": "poisson", "rate_per_s": 100.0}
DIURNAL = {"kind": "diurnal", "base_per_s": 10.0, "peak_per_s": 30.0}
TRACE = {"process": "trace", "path": "builtin:trace_small"}
MMPP = {"process": "mmpp", "rates_per_s": [10.0, 190.0], "mean_sojourn_s": [50.0, 50.0]}


def profiled(**profile):
    return {"process": "poisson", "profile": profile}


def test_the_load_law():
    s = scenario(FLAT, service("exponential", 0.2, 2), service("exponential", 0.1, 4, slowdown=[1.0, 1.5]), share=25)
    assert demand_of(s, "source").instances == pytest.approx(100 * 0.2 / 2)
    shadow = demand_of(s, "shadow")
    assert (shadow.instances, shadow.share) == (pytest.approx(25 * 0.1 * 1.5 / 4), 0.25)
    assert shadow.service_s.mean() == pytest.approx(0.1, rel=1e-3)
    day = demand_of(scenario(profiled(**DIURNAL), horizon_s=86_400.0), "source")
    assert (day.instances, day.peak_instances) == (pytest.approx(20.0), pytest.approx(30.0, rel=1e-4))
    linear = scenario(TRACE, service() | {"time": {"law": "linear", "GeneratedTokens": 0.01}}, horizon_s=700.0)
    s_mean = linear.traffic.trace().columns["GeneratedTokens"].mean() * 0.01
    assert demand_of(linear, "source").instances == pytest.approx(500 / linear.horizon_s * s_mean)


def test_full_batches_do_more():
    """200 requests per second of 0.1 s on 2 workers, whose 4 at once take twice as long, slowed down by 1.5."""
    batching = {"max_size": 4, "factors": [0.8, 0.8, 1.8, 2.0], "max_delay_s": 1}
    pool = service("deterministic", 0.1, 2, slowdown=[1.0, 1.5], batching=batching)
    s = scenario({"process": "poisson", "rate_per_s": 200.0}, pool)
    demand = demand_of(s, "source")
    assert demand.instances == pytest.approx(200 * 0.1 * 1.5 * (2.0 / 4) / 2)
    assert demand.least_instances == pytest.approx(200 * 0.1 * (0.8 / 2) / 2)
    (goal,) = parse_slo("p50 <= 1s").goals
    assert figure_without_waits(goal, s, "source", demand) == pytest.approx(0.08)


@pytest.mark.parametrize(
    ("changes", "length_s"),
    [
        ({"shadow.batching": {"max_size": 2, "marginal": 0}}, 60.0),
        ({"shadow.outages": {"mtbf_s": "1d", "mttr_s": 60}}, WEEK),
        ({"source.outages": [{"instance": 0, "at_s": "2d", "for_s": 60}]}, WEEK),
        ({"shadow.scaling": {"metric": "InvocationsPerInstance", "target": 9, "min": 1, "max": 2}}, WEEK),
        ({"traffic.retries": "legacy"}, WEEK),
    ],
)
def test_no_part_of_a_run_stands_for_pools_that_change(changes, length_s):
    assert repeating_s(scenario(FLAT, horizon_s=WEEK).replace(changes)) == length_s


@pytest.mark.parametrize("traffic", [FLAT, profiled(**DIURNAL), MMPP, TRACE, [FLAT, MMPP]])
def test_headroom_raises_the_mean_rate(traffic):
    s = scenario(traffic, horizon_s=86_400.0 if traffic != TRACE else 700.0)
    more = with_headroom(s, 25.0)
    assert more.traffic.mean_rate(more.horizon_s) == pytest.approx(1.25 * s.traffic.mean_rate(s.horizon_s))
    assert with_headroom(s, 0.0) is s


@pytest.mark.parametrize(
    ("traffic", "horizon_s", "length_s"),
    [
        (FLAT, WEEK, 60.0),
        (MMPP, WEEK, 60.0),
        ([FLAT, MMPP], WEEK, 60.0),
        (profiled(**DIURNAL), WEEK, 86_400.0),
        (profiled(**DIURNAL), 1.5 * 86_400.0, 1.5 * 86_400.0),
        (profiled(**DIURNAL, weekend_factor=0.5), 2 * WEEK, WEEK),
        (profiled(kind="linear", from_per_s=1.0, to_per_s=2.0, to_s=60.0), WEEK, WEEK),
        ([FLAT, TRACE], WEEK, WEEK),
    ],
)
def test_what_repeats_itself(traffic, horizon_s, length_s):
    assert repeating_s(scenario(traffic, horizon_s=horizon_s)) == length_s


def test_a_run_is_as_long_as_its_queue_remembers():
    s = scenario(FLAT, service("exponential", 0.1), share=50, horizon_s=WEEK)
    demand = demand_of(s, "shadow")
    short = LEAST_REQUESTS / 50.0
    assert run_length(s, "shadow", demand, 100, 0.5).long_s == pytest.approx(short, abs=60.0)
    memory = 0.1 / (1.0 - math.sqrt(1.0 / 1.05)) ** 2
    tight = run_length(s, "shadow", demand, 5, 0.5)
    assert (tight.short_s, tight.long_s) == (pytest.approx(short, abs=60.0), MOST_REQUESTS / 100.0 // 60 * 60 + 60)
    assert not tight.enough  # exactly at capacity: all of the week would not do
    near = with_headroom(s, -100.0 * (1.0 - 1.0 / 1.05))
    length = run_length(near, "shadow", demand_of(near, "shadow"), 5, 0.5)
    assert length.long_s == pytest.approx(RELAXATIONS * memory, rel=0.01)
    assert length.enough
    assert run_length(s, "shadow", demand, 100, 0.9999).short_s == pytest.approx(1e7 / 50.0, abs=60.0)
    bursts = scenario(MMPP, service("exponential", 0.1), horizon_s=WEEK)
    asked = demand_of(bursts, "source")
    assert (asked.instances, asked.peak_instances) == (pytest.approx(10.0), pytest.approx(19.0))
    calm, stormy = (run_length(bursts, "source", asked, n, 0.5) for n in (20, 15))
    assert calm.short_s == stormy.short_s == 3000.0  # 30 cycles of 100 s
    assert calm.long_s == pytest.approx(RELAXATIONS * 0.1 / (1.0 - math.sqrt(19.0 / 20.0)) ** 2, abs=60.0)
    # What a busy state leaves over is worked off in calm ones, with a dispersion of 1 + 2 (8100 / 100) 25 = 4051.
    assert (stormy.long_s, stormy.enough) == (pytest.approx(MOST_REQUESTS / 100.0, abs=60.0), False)
    refusing = scenario(FLAT, service("exponential", 0.1, queue_limit=3), horizon_s=WEEK)
    assert run_length(refusing, "source", demand_of(refusing, "source"), 1, 0.5).long_s < 3000.0


METRICS = "p90 and mean and wait_mean and share(wait > 4s) and share(latency > 4s) and error_rate and utilisation"


@pytest.mark.parametrize("timeout_s", [8.0, 1e9])
def test_the_backlog_of_an_overload_and_the_floor_below_it(timeout_s):
    """Forty requests of 0.05 s come in a second, where twenty can be done: waits grow as t, without any chance.

    The fluid has no single requests: one of 1200, 0.05 s.
    """
    fast = {"process": "constant", "rate_per_s": 40.0}
    s = scenario(fast, service("deterministic", 0.05), horizon_s=30.0, endpoint={"timeout_s": timeout_s})
    result, demand = simulate(s), demand_of(s, "source")
    for name in METRICS.split(" and "):
        (goal,) = parse_slo(f"source.{name} <= 0").goals
        least = figure_in_fluid(goal, demand, 1, timeout_s)
        assert measure(goal, result)[0] == pytest.approx(least, rel=2e-3, abs=0.06)
        assert figure_without_waits(goal, s, "source", demand) <= least + 1e-3


def test_a_backlog_is_worked_off_when_less_comes():
    """Two minutes at twice, four at half of what can be done: waits rise to 120 s and fall by half a second in one."""
    steps = [{"from_s": 0, "rate_per_s": 20.0}, {"from_s": 120, "rate_per_s": 5.0}]
    s = scenario(
        {"process": "poisson", "profile": {"kind": "steps", "steps": steps}}, service(mean_s=0.1), horizon_s=480.0
    )
    demand = demand_of(s, "source")
    waits = fluid_waits_s(demand, 1)
    moments = (np.arange(waits.size) + 0.5) * 480.0 / waits.size
    assert waits == pytest.approx(np.interp(moments, [0, 120, 360, 480], [0, 120, 0, 0]), abs=0.1)
    assert not fluid_waits_s(demand, 2).any()
    assert demand.peak_instances == 2.0
    (goal,) = parse_slo("source.wait_mean <= 1s").goals
    assert figure_in_fluid(goal, demand, 1, 60.0) == pytest.approx(
        (120 * 20 * 60 + 240 * 5 * 60) / (120 * 20 + 360 * 5), rel=1e-3
    )
    assert demand_of(scenario(TRACE, horizon_s=700.0), "source").rates_per_s.size == 0


def test_the_floor_is_the_service_alone():
    pool = service("lognormal", 0.1, slowdown=[0.5], scv=1.0) | {"error_4xx": 0.01, "error_5xx": 0.02}
    s = scenario(FLAT, pool, endpoint={"timeout_s": 0.2})
    demand = demand_of(s, "source")
    draws = np.minimum(
        0.5 * np.random.default_rng(1).lognormal(math.log(0.1) - math.log(2) / 2, math.sqrt(math.log(2)), 10**6), 0.2
    )
    exact = [np.quantile(draws, 0.9), draws.mean(), 0.0, 0.0, (draws > 0.1).mean(), 0.03, 0.0]
    names = METRICS.replace("> 4s", "> 0.1s").split(" and ")
    figures = [figure_without_waits(parse_slo(f"source.{name} <= 0").goals[0], s, "source", demand) for name in names]
    # a million draws: relative errors of some 0.002
    assert figures == pytest.approx(exact, rel=0.01)


def test_a_shortened_run_keeps_its_warm_up():
    steady = {"traffic": {"process": "poisson", "rate_per_s": 100}, "horizon_s": 86400}
    for asked, length_s, made_s, kept in ((90, 600, 720, 90.0), (0, 600, 600, 0.0), ("auto", 600, 600, 0.0),
                                          ("auto", 12_000, 12_000, "auto"), (90, 86_400, 86_400, 90.0)):  # fmt: skip
        made = with_length(default_scenario().replace({**steady, "run.warmup_s": asked}), length_s, {"seed": 3})
        assert (made.horizon_s, made.warmup_s, made.seed) == (made_s, kept, 3)
