"""Goals: their grammar, their figures against the requests one by one, their errors against many runs."""

import dataclasses
import math

import numpy as np
import pytest
from cases import scenario, service
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from shadowsim import InputError, simulate
from shadowsim.planning.slo import Goal, figure_of_service, figure_of_waits, measure, parse_slo

POISSON = {"process": "poisson", "rate_per_s": 20.0}
EVERY = (
    "p50 <= 1s and p99.9 <= 1s and mean <= 1s and wait_mean <= 1s and share(wait > 20ms) <= 1 "
    "and share(latency > 100ms) <= 1 and error_rate <= 1 and utilisation <= 1"
)


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("p99 <= 0.2s", Goal("shadow", "quantile", 0.99, "<=", 0.2)),
        ("shadow.p99.9 < 200ms", Goal("shadow", "quantile", 0.999, "<", 0.2)),
        ("source.P50>=300us", Goal("source", "quantile", 0.5, ">=", 0.0003)),
        ("mean <= 1.5s", Goal("shadow", "mean", None, "<=", 1.5)),
        ("Source.wait_mean > 2 min", Goal("source", "wait_mean", None, ">", 120.0)),
        ("share(wait > 50ms) <= 5%", Goal("shadow", "share_wait", 0.05, "<=", 0.05)),
        ("source.share( latency>1s ) < .05", Goal("source", "share_latency", 1.0, "<", 0.05)),
        ("error_rate<=1e-3", Goal("shadow", "error_rate", None, "<=", 0.001)),
        ("utilisation >= 60 %", Goal("shadow", "utilisation", None, ">=", 0.6)),
    ],
)
def test_a_goal_is_read_and_given_back(text, goal):
    (parsed,) = parse_slo(text).goals
    assert parsed == goal
    assert str(parsed) == text
    with pytest.raises(dataclasses.FrozenInstanceError):
        parsed.limit = 1.0


def test_goals_are_joined_by_and():
    slo = parse_slo("  p99 <= 200ms and source.error_rate < 1% AND mean<1s ")
    assert [goal.role for goal in slo.goals] == ["shadow", "source", "shadow"]
    assert str(slo) == "p99 <= 200ms and source.error_rate < 1% and mean<1s"
    assert parse_slo(str(slo)) == parse_slo(slo) == slo
    assert [str(goal) for goal in slo.of("source")] == ["source.error_rate < 1%"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("p99", "METRIC OP VALUE"),
        ("p99 = 1", "METRIC OP VALUE"),
        ("", "must be a text"),
        (None, "must be a text"),
        ("p99 <= 1s and ", "needs a time"),
        ("and p99 <= 1s", "did you mean p99"),
        ("p99 <= 5%", "needs a time"),
        ("p99 <= -1s", "needs a time"),
        ("p99 <= nan", "needs a time"),
        ("p99 <= 1e400s", "must be finite"),
        ("p100 <= 1s", "below p100"),
        ("p0 <= 1s", "above p0"),
        ("error_rate <= 5ms", "needs a share"),
        ("error_rate <= 5", "share from 0 to 1"),
        ("utilization <= 5%", "did you mean utilisation?"),
        ("source.waitmean <= 1s", "did you mean source.wait_mean?"),
        ("shaddow.p99 <= 1s", "did you mean shadow.p99?"),
        ("share(wait < 1) <= 1", r"did you mean share\(wait > T\)?"),
        ("share(wait > 5%) <= 1", "needs a time"),
        ("cost <= 1", "known are p50"),
        ("p99 <= 50", r"slo: needs a unit, got 'p99 <= 50'; p99 <= 50ms or 50s\?"),
        ("p99 <= 0.2 and mean < 1s", r"got 'p99 <= 0.2'; p99 <= 0.2ms or 0.2s\?"),
        ("mean<1e-2", r"; mean<1e-2ms or 1e-2s\?"),
        ("source.wait_mean >= 5 ", r"; source.wait_mean >= 5ms or 5s\?"),
        ("p50 <= 50", r"; p50 <= 50ms or 50s\?"),
        ("share(wait > 5) < 5%", r"; share\(wait > 5ms or 5s\)\?"),
    ],
)
def test_what_cannot_be_read_is_one_line(text, why):
    with pytest.raises(InputError, match=why) as caught:
        parse_slo(text)
    assert caught.value.path == "slo"
    assert "\n" not in str(caught.value)


@given(st.sampled_from(["ms", "us", "s", "min"]), st.decimals(0, 1000, places=3))
def test_a_time_is_the_nearest_float_of_its_decimal(unit, number):
    (goal,) = parse_slo(f"p95 <= {number}{unit}").goals
    scale = {"s": 1, "ms": 1000, "us": 1_000_000}
    assert goal.limit == (float(number * 60) if unit == "min" else float(number / scale[unit]))


@given(
    st.sampled_from(["p50", "p99.9", "mean", "source.wait_mean", "share(wait > {})", "shadow.share(latency > {})"]),
    st.sampled_from(["<=", "<", ">=", ">"]),
    st.one_of(st.integers(1, 10**9), st.decimals("0.001", 1000, places=3)),
)
def test_a_time_without_a_unit_is_refused_wherever_it_stands(metric, op, number):
    text = f"{metric.format(number)} {op} 5%" if "{}" in metric else f"{metric} {op} {number}"
    with pytest.raises(InputError, match=rf"needs a unit, got .*{number}ms or {number}s\)?\?"):
        parse_slo(text)


def test_no_time_at_all_needs_no_unit():
    assert parse_slo("share(wait > 0) < 5% and wait_mean <= 0.0").goals[1].limit == 0.0


def test_met_at_its_limit_and_never_when_unknown():
    atmost, below, atleast, above = parse_slo("mean <= 1s and mean < 1s and mean >= 1s and mean > 1s").goals
    assert [g.met(1.0) for g in (atmost, below, atleast, above)] == [True, False, True, False]
    assert [g.met(1.5) for g in (atmost, below, atleast, above)] == [False, False, True, True]
    assert not any(g.met(math.nan) for g in (atmost, below, atleast, above))
    assert (atmost.margin(0.25), atleast.margin(0.25)) == (0.75, -0.75)


def busy(seed=1, *, horizon_s=2000.0, traffic=POISSON, **more):
    """An M/M/1 of load 0.6 beside a shadow that refuses and fails; sections of 20 s, relaxation in 2 s."""
    pool = service("exponential", 0.03, error_5xx=0.1)
    return scenario(
        traffic, pool, pool | {"queue_limit": 1, "workers": 2}, horizon_s=horizon_s, period_s=20.0, seed=seed, **more
    )


def test_figures_are_those_of_the_requests_one_by_one():
    result = simulate(busy())
    for role, rows in result.requests.groupby("role"):
        served = rows[rows["status"] != "refused"]
        latency, wait = served["latency_s"], served["wait_s"]
        exact = {
            "p50": (np.quantile(latency, 0.5), 0.008),
            "p99.9": (np.quantile(latency, 0.999), 0.02),  # about 40 beyond it: gaps between them are interpolated
            "mean": (latency.mean(), 1e-9),
            "wait_mean": (wait.mean(), 1e-9),
            "share(wait > 20ms)": ((wait > 0.02).mean(), 1e-9),
            # a bucket is 0.8 % wide, and the share falls by at most 1 / 0.03 s times its share a second
            "share(latency > 100ms)": ((latency > 0.1).mean(), 0.008 * 0.1 / 0.03),
            "error_rate": ((rows["status"] != "answered").mean(), 1e-9),
        }
        for name, (value, within) in exact.items():
            (goal,) = parse_slo(f"{role}.{name} <= 0").goals
            assert measure(goal, result)[0] == pytest.approx(value, rel=within)
        utilisation, _ = measure(parse_slo(f"{role}.utilisation <= 1").goals[0], result)
        n_workers = 2 if role == "shadow" else 1
        # what is worked after the horizon is cut off: a few requests of 40,000
        assert utilisation == pytest.approx(served["service_s"].sum() / (2000.0 * n_workers), rel=1e-3)


def test_an_unknown_metric_is_an_error_everywhere():
    """A metric that one of the functions has forgotten must not get another metric's figure."""
    goal, seconds = Goal("shadow", "backlog", None, "<=", 1.0), np.ones(3)
    result = simulate(busy(horizon_s=180.0))
    for figure in (
        lambda: measure(goal, result),
        lambda: figure_of_waits(goal, seconds, seconds, 0.5, 60.0),
        lambda: figure_of_service(goal, seconds, 0.1),
        lambda: goal.furthest_quantile,
    ):
        with pytest.raises(AssertionError, match="backlog"):
            figure()


def test_an_evaluation_has_one_row_per_goal():
    result = simulate(busy())
    evaluation = parse_slo("source.mean <= 1ms and error_rate >= 5% and share(wait > 0) < 1").evaluate(result)
    assert evaluation["goal"].to_list() == ["source.mean <= 1ms", "error_rate >= 5%", "share(wait > 0) < 1"]
    assert evaluation["variant"].to_list() == ["Source", "Shadow", "Shadow"]
    assert evaluation["met"].to_list() == [False, True, True]
    assert (evaluation["standard_error"] > 0).all()
    assert evaluation["margin"].to_list() == pytest.approx(
        [0.001 - evaluation["value"][0], evaluation["value"][1] - 0.05, 1 - evaluation["value"][2]]
    )


def test_a_shadow_without_requests_meets_nothing():
    evaluation = parse_slo(EVERY).evaluate(simulate(busy(share=0)))
    assert evaluation["value"].isna().drop(7).all()
    assert evaluation["met"].to_list() == [False] * 7 + [True]  # its utilisation is 0, and known


def test_without_sections_there_is_no_error():
    short = simulate(busy(horizon_s=180.0))
    assert parse_slo(EVERY).evaluate(short)["standard_error"].isna().all()
    assert parse_slo("mean <= 1s and p50 <= 1s").evaluate(short)["value"].notna().all()


DAY = {"process": "poisson", "profile": {"kind": "linear", "from_per_s": 2.0, "to_per_s": 25.0, "to_s": 2000.0}}


@pytest.mark.parametrize(
    ("traffic", "n"),
    [
        pytest.param(POISSON, 200, id="steady"),
        pytest.param(DAY, 200, id="rising"),
    ],
)
@pytest.mark.slow
def test_standard_errors_are_those_between_runs(traffic, n):
    """The mean of n estimated variances over the variance between the n runs is about F(D, n - 1).

    D is their degrees of freedom, at least 10 n: sections of a rising rate are unequal, and few of them dominate. The
    bounds hold 99.9 % of that F, a test of level 0.001 for each of eight figures; the lower one is 5 % lower, since
    sections of ten relaxation times are not independent, which lowers an estimated variance by about as much.
    """
    slo = parse_slo(EVERY.replace("p99.9", "p95").replace("p50", "source.p90").replace("mean", "source.mean", 1))
    runs = [slo.evaluate(simulate(busy(seed, traffic=traffic, sample_requests=4000))) for seed in range(n)]
    value = np.array([run["value"] for run in runs])
    error = np.array([run["standard_error"] for run in runs])
    ratio = (error**2).mean(axis=0) / value.var(axis=0, ddof=1)
    low, high = stats.f.ppf([0.0005, 0.9995], 10 * n, n - 1)
    assert ((0.95 * low < ratio) & (ratio < high)).all(), dict(zip(runs[0]["goal"], ratio, strict=True))


def test_requests_that_no_instance_served_are_errors_and_no_utilisation():
    """Down for two of ten minutes: a fifth of the requests fail, and the eight other minutes have a load of a half."""
    down = [{"instance": 0, "at_s": 120.0, "for_s": 120.0}]
    s = scenario({"process": "poisson", "rate_per_s": 100.0}, share=100, horizon_s=600.0)
    run = simulate(s.replace({"services.Shadow": service("deterministic", 0.005) | {"outages": down}}))
    goals = parse_slo("error_rate <= 1% and utilisation <= 60%")
    errors, used = goals.evaluate(run)["value"]
    assert errors == pytest.approx(0.2, abs=0.01)
    assert used == pytest.approx(0.5, abs=0.01)
    summary = run.summary().set_index("role").loc["shadow"]
    assert (summary["error_rate"], summary["utilisation"]) == pytest.approx((errors, used))
    compared = run.compare().set_index("metric")["shadow"]
    assert compared["error_rate"] == pytest.approx(errors)
    assert compared["error_rate_5xx"] == pytest.approx(errors, abs=0.001)
