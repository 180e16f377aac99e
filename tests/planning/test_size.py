"""Counts of instances against queueing theory; frames, prices and quotas on paper; what has no answer."""

import math
import re

import numpy as np
import pytest
from cases import scenario, service

import shadowsim
from shadowsim import InputError, card, simulate, size
from shadowsim.planning.slo import measure, parse_slo
from shadowsim.plots import cost_frontier
from shadowsim.report.analysis_text import sizing_text

AMPLE = service("deterministic", 0.001, 64)
WEEK = 604_800.0
G5 = "ml.g5.xlarge"


def poisson(rate_per_s, **more):
    return {"process": "poisson", "rate_per_s": rate_per_s} | more


def a_pool(rate_per_s, block, *, share=100, horizon_s=WEEK, **more):
    """A shadow that gets `rate_per_s`, for a week."""
    return scenario(poisson(rate_per_s * 100 / share), AMPLE, block, share=share, horizon_s=horizon_s, **more)


def theory(metric, at, rate, mean_s):
    """Of one M/M/1, infinite for an overloaded one (Kleinrock, Queueing Systems, 1975: sections 3.2 and 5.12)."""
    load, decay = rate * mean_s, 1.0 / mean_s - rate
    if load >= 1.0:
        return 1.0 if metric == "share" else math.inf
    if metric == "quantile":  # the time in the system is exponential
        return -math.log1p(-at) / decay
    return load / decay if metric == "wait" else load * math.exp(-decay * at)


def generated(i):
    """Case i: a rate, a mean service, a goal, and the count that theory gives.

    The goal lies half way between the figures of that count and of one fewer (twice the former where the latter is
    infinite or there is none), so that no noise of a run decides: an exact answer can be asked for.
    """
    rng = np.random.default_rng([2027, i])
    n, load, mean_s = int(rng.integers(1, 13)), rng.uniform(0.45, 0.88), rng.uniform(0.005, 0.5)
    rate = n * load / mean_s
    metric = ("wait", "quantile", "share")[i % 3]
    at = {"quantile": rng.choice([0.5, 0.9, 0.99]), "share": mean_s * rng.uniform(0.5, 2.0), "wait": None}[metric]
    here = theory(metric, at, rate / n, mean_s)
    below = theory(metric, at, rate / (n - 1), mean_s) if n > 1 else math.inf
    goal = (here + below) / 2 if math.isfinite(below) else 2 * here
    text = {"wait": "wait_mean", "quantile": f"p{100 * (at or 0):g}", "share": f"share(wait > {at}s)"}[metric]
    fewest = next(k for k in range(1, 100) if theory(metric, at, rate / k, mean_s) <= goal)
    assert fewest == n
    return rate, mean_s, f"{text} <= {goal!r}{'' if metric == 'share' else 's'}", n


@pytest.mark.parametrize("i", [*range(2), *(pytest.param(i, marks=pytest.mark.slow) for i in range(2, 20))])
def test_the_count_is_that_of_theory(i):
    """RANDOM over n instances of one worker is n independent M/M/1, each at rate / n."""
    rate, mean_s, goal, n = generated(i)
    pool = a_pool(rate, service("exponential", mean_s), share=(100, 50, 20)[i % 3], endpoint={"timeout_s": 1e9})
    (row,) = size(pool, goal).to_dict("records")
    assert (row["instance_count"], row["certain"]) == (n, True)
    assert row["utilisation"] == pytest.approx(rate * mean_s / n, rel=0.02)


def test_the_source_is_sized_likewise_and_the_shadow_beside_it():
    rate, mean_s = 90.0, 0.1
    s = scenario(poisson(rate), service("exponential", mean_s), service("exponential", mean_s), horizon_s=WEEK)
    # p90 of n pools is ln 10 / (10 - 90 / n): 0.92 s with 12, 1.27 s with 11; the shadow has half: 6 and 5 (2.3 s)
    frame = size(s, "source.p90 <= 1.1s and shadow.p90 <= 1.5s", variants=("shadow", "source"))
    assert frame["role"].to_list() == ["source", "shadow"]
    assert frame["instance_count"].to_list() == [12, 6]
    assert frame["p90_s"].to_list() == pytest.approx([math.log(10) / 2.5] * 2, rel=0.05)
    assert frame["quota"][1].startswith("needs 18 x ml.m5.xlarge; default quota 0")


def test_a_row_on_paper():
    rate, mean_s = 25.0, 0.1
    s = a_pool(rate, service("exponential", mean_s)).replace({"source.instance_count": 3})
    frame = size(s, "mean <= 250ms and utilisation >= 30%", prices={"ml.m5.xlarge": 0.5})
    assert frame.columns.to_list() == [
        *("role", "instance_type", "instance_count", "mean_s", "mean_s_error", "utilisation_error", "utilisation"),
        *("price_usd_per_h", "cost_usd", "binding", "one_fewer", "one_lost", "zone_lost", "certain", "quota"),
        *("replications", "simulated_h", "note"),
    ]
    (row,) = frame.to_dict("records")
    # 1 / (10 - 25 / n): 0.27 s with 4, 0.2 s with 5
    assert (row["instance_count"], row["binding"], row["note"]) == (5, "mean <= 250ms", "")
    assert row["mean_s"] == pytest.approx(0.2, abs=4 * row["mean_s_error"])
    assert row["cost_usd"] == 5 * 168 * 0.5
    assert row["one_fewer"].startswith("mean 267 ms")
    assert row["one_fewer"].endswith("s, against mean <= 250ms")
    assert row["quota"] == (
        "needs 8 x ml.m5.xlarge; default quota 0; needs 8 instances on one endpoint; default quota 4"
    )
    assert 0 < row["simulated_h"] < 168


def test_what_the_loss_of_instances_costs():
    """RANDOM over n M/M/1 at 25 requests/s of 0.1 s: the mean is 1 / (10 - 25 / n), for those that are left."""
    rate, mean_s = 25.0, 0.1
    s = a_pool(rate, service("exponential", mean_s))
    (row,) = size(s, "mean <= 250ms").to_dict("records")
    assert row["instance_count"] == 5

    def mean_ms(text):
        return float(re.search(r"mean (\d+) ms, against", text)[1]) / 1000

    one, zone = row["one_lost"], row["zone_lost"]
    assert one.startswith("1 of 5: mean ")
    assert mean_ms(one) == pytest.approx(1 / (10 - rate / 4), rel=0.03)
    assert one.endswith("; 6 instances hold the goals with one down")
    before = float(re.search(r"from mean (\d+) ms", one)[1]) / 1000
    assert before == pytest.approx(1 / (10 - rate / 5), rel=0.02)
    assert zone.startswith("2 of 5: mean ")
    assert mean_ms(zone) == pytest.approx(1 / (10 - rate / 3), rel=0.05)
    assert zone.endswith("; 8 instances hold the goals with a third down")  # 8 - 3
    (alone,) = size(a_pool(2.0, service("exponential", 0.1)), "p50 <= 2s").to_dict("records")
    assert alone["one_lost"] == (
        "1 of 1: every request fails until the repair; 2 instances hold the goals with one down"
    )


@pytest.mark.slow
def test_a_pool_that_lost_instances_is_the_smaller_pool():
    """An outage from the start leaves the pool that fewer instances would be, by both routings."""
    for routing in ("RANDOM", "LEAST_OUTSTANDING_REQUESTS"):
        s = a_pool(25.0, service("exponential", 0.1), horizon_s=40_000.0, endpoint={"routing": routing})
        s = s.replace({"run.sample_requests": 0})
        two_down = [{"instance": i, "at_s": 0.0, "for_s": 1e6} for i in (1, 3)]
        lost = simulate(s.replace({"shadow.instance_count": 6, "shadow.outages": two_down}))
        fewer = simulate(s.replace({"shadow.instance_count": 4}))
        means = [run.summary().set_index("role")["mean_s"]["shadow"] for run in (lost, fewer)]
        errors = [measure(parse_slo("mean <= 1s").goals[0], run)[1] for run in (lost, fewer)]
        assert abs(means[0] - means[1]) < 4 * math.hypot(*errors)
        assert lost.summary().set_index("role")["error_rate"]["shadow"] == 0.0


def test_listed_outages_of_instances_that_a_count_has_not_are_left_out():
    """The fifth instance fails for an hour of eleven; counts up to four have none to fail."""
    s = a_pool(25.0, service("exponential", 0.1), horizon_s=40_000.0).replace({"shadow.instance_count": 5})
    failing = s.replace({"shadow.outages": [{"instance": 4, "at_s": 1000, "for_s": 3600}]})
    assert size(failing, "mean <= 300ms")["instance_count"][0] == size(s, "mean <= 300ms")["instance_count"][0] == 4


def test_one_fewer_may_be_overloaded_or_nothing():
    frame = size(a_pool(25.0, service("exponential", 0.1)), "p50 <= 2s")
    assert (frame["instance_count"][0], frame["certain"][0]) == (3, True)
    # waits grow by a quarter of a second in a second, to the time-out of a minute; half of a week is longer
    assert frame["one_fewer"][0] == (
        "overloaded, receives up to 1.25 times its capacity: at least p50 60.0 s, against p50 <= 2s"
    )
    frame = size(a_pool(2.0, service("exponential", 0.1)), "p50 <= 2s")
    assert (frame["instance_count"][0], frame["one_fewer"][0]) == (1, "one instance is the least")


def test_a_short_overload_may_be_allowed():
    """1.5 times what it can do, for a minute: waits grow to 30 s, half stay below 15 s."""
    s = a_pool(15.0, service("deterministic", 0.1), horizon_s=60.0)
    frame = size(s, "p50 <= 20s and share(wait > 40s) < 1%")
    assert frame["instance_count"][0] == 1
    assert frame["simulated_h"][0] == pytest.approx(60 / 3600)


TYPES = {
    "time": {"law": "exponential", "mean_s": 0.1},
    "workers": 1,
    "by_instance_type": {G5: {"time": {"law": "exponential", "mean_s": 0.01}}, "ml.t2.large": {"workers": 2}},
}


def test_types_cheapest_first_and_unknown_prices_last():
    s = a_pool(45.0, TYPES)
    frame = size(s, "mean <= 210ms", prices={"ml.m5.xlarge": 1.0, G5: 2.0})
    assert frame["instance_type"].to_list() == [G5, "ml.m5.xlarge", "ml.t2.large"]
    # g5: 1 / (100 - 45) s; m5: 1 / (10 - 45 / n) s, 0.229 with 8 and 0.2 with 9; t2: M/M/2, 0.229 with 3, 0.146 with 4
    assert frame["instance_count"].to_list() == [1, 9, 4]
    assert frame["cost_usd"][:2].is_monotonic_increasing
    assert math.isnan(frame["cost_usd"][2])
    assert math.isnan(frame["price_usd_per_h"][2])
    assert "there is no price for ml.t2.large" in frame["note"][2]


def test_a_type_without_a_service_is_not_measured():
    frame = size(a_pool(45.0, TYPES), "mean <= 300ms", ["ml.c5.xlarge", G5])
    assert frame["instance_type"].to_list() == [G5, "ml.c5.xlarge"]
    assert frame["instance_count"].isna().to_list() == [False, True]
    assert frame["certain"].to_list() == [True, False]
    assert frame["note"][1].startswith("not measured")
    with pytest.raises(InputError, match=r"did you mean ml\.c5\.xlarge"):
        size(a_pool(45.0, TYPES), "mean <= 1s", ["ml.c5.xlarg"])


def test_of_equal_costs_the_fewest_instances_come_first_in_frame_card_and_figure():
    """Seven at 0.1 and one at 0.7 cost the same, though 7 x 0.1 is not 0.7 in floating point."""
    pool = a_pool(45.0, service("exponential", 0.1) | {"by_instance_type": {G5: {"time": 0.001}}})
    frame = size(pool, "mean <= 300ms", ["ml.m5.xlarge", G5])
    n = int(frame.set_index("instance_type")["instance_count"]["ml.m5.xlarge"])
    frame = size(pool, "mean <= 300ms", ["ml.m5.xlarge", G5], prices={"ml.m5.xlarge": 0.1, G5: n / 10})
    assert frame["instance_type"].to_list() == [G5, "ml.m5.xlarge"]
    assert frame["cost_usd"][0] == pytest.approx(frame["cost_usd"][1])
    assert f"1 × {G5}" in str(card(frame)).split("<table")[0]
    names = [str(trace.name) for trace in cost_frontier(frame).data]
    assert any(name.startswith(f"<b>cheapest that does: 1 × {G5}") for name in names)


def test_the_instances_of_a_trace_are_those_of_its_own_rate(tmp_path):
    """500 requests of 4 ms per second keep two instances busy: 50 % of four, 67 % of three, though it lasts 10 s."""
    (tmp_path / "t.csv").write_text("timestamp_s\n" + "".join(f"{i / 500}\n" for i in range(5000)))
    traffic = {"process": "trace", "path": str(tmp_path / "t.csv")}
    pool = scenario(traffic, service("deterministic", 0.004), share=100, horizon_s=None)
    for run in ({}, {"run.horizon_s": 7200.0}, {"run.period_s": 7.0}):
        (row,) = size(pool.replace(run), "utilisation <= 60%").to_dict("records")
        assert (row["instance_count"], row["certain"]) == (4, True)
        assert row["utilisation"] == pytest.approx(0.5, rel=1e-3)
        assert row["one_fewer"].startswith("utilisation 66.")


def test_a_trace_of_which_nothing_is_copied(tmp_path):
    (tmp_path / "one.csv").write_text("timestamp_s\n0\n")
    traffic = {"process": "trace", "path": str(tmp_path / "one.csv")}
    empty = next(
        s for s in (scenario(traffic, share=1, seed=i) for i in range(9)) if simulate(s).quantile(0.5).size < 2
    )
    frame = size(empty, "p99 <= 10s")
    (row,) = frame.to_dict("records")
    assert row["note"] == "no request reaches it in the run: nothing to size"
    text = sizing_text(frame, parse_slo("p99 <= 10s"), 60.0)
    assert text.endswith("No type could be judged for the shadow: no request reaches it.")
    assert "nan" not in text


def test_what_no_count_can_do():
    pool = a_pool(45.0, service("exponential", 0.1, error_5xx=0.05))
    # p90 of the service alone is 0.1 ln 10
    for goal, why in (
        ("p90 <= 0.2s", "p90 230 ms"),
        ("mean < 0.09s", "mean 100 ms without any wait"),
        ("share(latency > 100ms) <= 30%", "share(latency > 100ms) 36.8 % without any wait"),
        ("error_rate < 1%", "error_rate 5 % without any wait"),
        ("p50 <= 1s and utilisation >= 99%", "5 instances are the fewest for the rest, and more only lower it: util"),
    ):
        (row,) = size(pool, goal).to_dict("records")
        assert row["note"].startswith("no count will do: ")
        assert why in row["note"]
        assert row["certain"]
    (row,) = size(pool, "p50 <= 90ms", max_instances=7).to_dict("records")
    assert row["note"].startswith("not with 7 instances: p50 ")
    (row,) = size(pool.replace({"sampling_percentage": 0}), "p50 <= 90ms").to_dict("records")
    assert "no request reaches it" in row["note"]


def test_a_goal_at_the_figure_itself_is_uncertain():
    """Theory's mean with 3 instances, which no number of runs tells from itself: at level 0.025 / 2 for either side."""
    s = a_pool(20.0, service("exponential", 0.1), horizon_s=6000.0)
    frame = size(s, f"mean <= {1 / (10 - 20 / 3)!r}s", max_replications=3)
    assert not frame["certain"][0]
    assert "not certain after 3 replications" in frame["note"][0]


def test_headroom_is_a_higher_rate():
    block = service("exponential", 0.1)
    goal = "mean <= 0.32s"  # 1 / (10 - rate / n): n >= rate / 6.875
    assert size(a_pool(22.0, block), goal, headroom_pct=50)["instance_count"][0] == 5
    assert size(a_pool(33.0, block), goal)["instance_count"][0] == 5
    assert size(a_pool(22.0, block), goal)["instance_count"][0] == 4


def test_a_falling_slowdown_is_scanned():
    """Alone, a request takes ten times as long: more instances are worse, until none shares one any more.

    The oracle tries every count, in full.
    """
    s = a_pool(20.0, service("deterministic", 0.02, 4, slowdown=[5.0, 2.0, 1.0]), horizon_s=2000.0)
    (goal,) = parse_slo("p50 <= 0.045s").goals
    figures = [measure(goal, simulate(s.replace({"shadow.instance_count": n})))[0] for n in range(1, 5)]
    assert [goal.met(x) for x in figures].index(True) + 1 == size(s, str(goal))["instance_count"][0]
    none = size(s, "p50 <= 0.021s and utilisation < 1%", max_instances=4)
    assert none["note"][0].startswith("1 to 4 instances were tried: not with 4 instances: p50")


def test_a_least_outstanding_pool_and_one_that_refuses():
    lor = {"routing": "LEAST_OUTSTANDING_REQUESTS"}
    block = service("exponential", 0.1)
    # alone, 1 / (10 - 40 / n): 0.233 with 7; with the choice of the shortest queue, fewer do
    many = size(a_pool(40.0, block), "mean <= 0.22s")["instance_count"][0]
    few = size(a_pool(40.0, block, endpoint=lor), "mean <= 0.22s")["instance_count"][0]
    assert (many, few) == (8, 5)
    # M/M/1/2: refused is a^2 / (1 + a + a^2) for a = 4 / n: 14.3 % with 8, 11.9 % with 9
    frame = size(a_pool(40.0, block | {"queue_limit": 1}), "error_rate <= 13%")
    assert frame["instance_count"][0] == 9


def test_the_built_in_scenario_in_full_for_a_day_not_for_a_week():
    week = shadowsim.default_scenario().replace({"traffic.rate_per_s": 2.0, "horizon_s": WEEK, "shadow.workers": 1})
    frame = size(week, "p99 <= 100ms")
    assert (frame["instance_count"][0], frame["simulated_h"][0]) == (1, 24.0)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"slo": "p99 <= 5%"}, "needs a time"),
        ({"slo": "source.p99 <= 1s"}, "has no goal for the shadow"),
        ({"slo": "source.p99 <= 1s and p99 <= 1s"}, "has a goal for the source, whose instances are not counted"),
        ({"variants": "shadow"}, "must be some of source and shadow"),
        ({"variants": ()}, "must be some of"),
        ({"variants": ("prod",)}, "must be some of"),
        ({"confidence": 1.0}, "confidence: must be a finite number"),
        ({"headroom_pct": -100}, "headroom_pct: must be"),
        ({"max_instances": 0}, "max_instances: must be a whole number >= 1"),
        ({"max_replications": 2}, "max_replications: must be a whole number >= 3"),
        ({"instance_types": []}, "must name at least one"),
    ],
)
def test_bad_input_is_one_error(arguments, why):
    with pytest.raises(InputError, match=why):
        size(a_pool(1.0, service()), **({"slo": "p99 <= 1s"} | arguments))
