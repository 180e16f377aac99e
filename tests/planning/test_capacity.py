"""Greatest rates against queueing theory; answers that are none, or the stability limit; traces, shares and roles.

Each interval has the confidence 0.999: that one of these few answers misses its truth by chance is unlikely, and its
seed is fixed. How often intervals of 95 % cover is measured in benchmarks/test_capacity.py.
"""

import math

import pandas as pd
import pytest
from aa_pairs import exact
from cases import scenario, service
from scipy.optimize import brentq
from theory_events import blocked, m_m_1_in_batches

from shadowsim import InputError, capacity, simulate
from shadowsim.planning.capacity_search import closeness
from shadowsim.planning.load import with_factor
from shadowsim.planning.slo import measure, parse_slo

MEAN_S = 0.1
ENDLESS = {"timeout_s": 1e9}
DAY = 86_400.0


def poisson(rate_per_s):
    return {"process": "poisson", "rate_per_s": rate_per_s}


def steady(block, rate_per_s=3.0, horizon_s=5_000.0, **more):
    """Runs of some hundred relaxation times, whose empty start hardly matters."""
    return scenario(poisson(rate_per_s), block, block, horizon_s=horizon_s, endpoint=ENDLESS, **more)


def answer(s, slo, **options):
    return capacity(s, slo, **({"confidence": 0.999, "workers": 1} | options)).iloc[0]


def batcher(max_size, max_delay_s, marginal):
    batching = {"max_size": max_size, "max_delay_s": max_delay_s, "marginal": marginal}
    return service("exponential", MEAN_S) | {"batching": batching}


def one_sequence(output_tokens):
    """A service in tokens with steps of 10 ms that runs one request at a time, prompts of one token."""
    law = {"law": "deterministic"}
    block = {"prompt": law | {"mean_tokens": 1}, "output": law | {"mean_tokens": output_tokens}, "max_sequences": 1}
    return {"tokens": block | {"max_step_tokens": 16, "kv_tokens": 1024, "step": {"base_s": 0.01}}}


SINGLE, FOUR = service("exponential", MEAN_S), service("exponential", MEAN_S, 4)


@pytest.mark.parametrize(
    ("s", "slo", "truth"),
    [
        # the latency of M/M/1 is exponential with the rate mu - lambda
        (steady(SINGLE), "source.mean <= 500ms", 8.0),
        pytest.param(steady(SINGLE), "source.p95 <= 1s", 10.0 - math.log(20.0), marks=pytest.mark.slow),
        pytest.param(steady(SINGLE), "source.utilisation <= 60%", 6.0, marks=pytest.mark.slow),
        # the shadow's half of it
        pytest.param(steady(SINGLE, share=50), "mean <= 500ms", 16.0, marks=pytest.mark.slow),
        pytest.param(
            *(steady(FOUR, horizon_s=2_000.0), f"source.p95 <= {exact(0.95, 0.85)!r}s", 34.0), marks=pytest.mark.slow
        ),
        # a lost request has no latency and works nowhere: M/M/1/4
        (
            steady(SINGLE | {"queue_limit": 3}),
            "source.error_rate <= 2%",
            brentq(lambda rate: blocked(rate, 10.0, 1, 3) - 0.02, 0.1, 9.0),
        ),
        pytest.param(
            steady(batcher(4, 0.0, 0.0)),
            "source.wait_mean <= 200ms",
            brentq(lambda rate: m_m_1_in_batches(rate * MEAN_S, 1.0, 4).mean_wait_s - 2.0, 0.1, 39.0),
            marks=pytest.mark.slow,
        ),
        # M/D/1 with 10 tokens of 10 ms: the wait at load 0.8 is 0.8 / (2 x 0.2) services
        pytest.param(steady(one_sequence(10)), "source.mean <= 300ms", 8.0, marks=pytest.mark.slow),
    ],
)
def test_the_interval_holds_the_rate_of_theory(s, slo, truth):
    row = answer(s, slo)
    assert row["low_per_s"] < truth < row["high_per_s"]
    assert row["high_per_s"] - row["low_per_s"] < 0.15 * truth  # it says something
    assert (row["binding"], row["replications"], row["note"]) == (slo, 8, "")
    assert row["factor"] == pytest.approx(row["rate_per_s"] / 3.0)


def test_the_figures_are_those_at_the_greatest_rate():
    frame = capacity(steady(SINGLE), "source.p95 <= 1s and source.mean <= 2s", workers=1)
    (row,) = frame.to_dict("records")
    assert row["binding"] == "source.p95 <= 1s"
    assert abs(row["p95_s"] - 1.0) < 4 * row["p95_s_error"]
    assert abs(row["mean_s"] - 1.0 / math.log(20.0)) < 4 * row["mean_s_error"]
    assert abs(row["utilisation"] - row["rate_per_s"] * MEAN_S) < 4 * row["utilisation_error"]
    tried = pd.DataFrame(frame.attrs["tried"])
    assert tried["rate_per_s"].is_monotonic_increasing
    assert set(tried["replications"]) == {1, 8}


def test_with_several_goals_the_least_rate_counts_and_its_upper_end_is_wider():
    alone = answer(steady(SINGLE), "source.p95 <= 1s")
    both = answer(steady(SINGLE), "source.p95 <= 1s and source.mean <= 2s")
    assert both["rate_per_s"] == pytest.approx(alone["rate_per_s"], rel=1e-3)
    assert both["low_per_s"] == pytest.approx(alone["low_per_s"], rel=1e-3)
    assert both["high_per_s"] > alone["high_per_s"]  # either goal may err


def test_each_role_has_a_row_and_the_lowest_rate_is_the_answer():
    frame = capacity(steady(SINGLE, share=50), "mean <= 500ms and source.mean <= 500ms", workers=1)
    assert frame["role"].to_list() == ["source", "shadow"]
    assert frame["rate_per_s"].to_list() == pytest.approx([8.0, 16.0], rel=0.05)


def test_a_request_alone_may_miss_the_goal():
    row = answer(steady(SINGLE), "source.mean <= 90ms")
    assert math.isnan(row["rate_per_s"])
    assert row["note"] == "no rate holds: mean 100 ms without any wait, against source.mean <= 90ms"


def test_goals_that_hold_as_long_as_queues_do_not_grow():
    row = answer(steady(batcher(8, 0.05, 0.1), horizon_s=DAY), "source.mean <= 60s", replications=3)
    assert row["binding"] == "stability"
    # eight requests are served in 1.7 times the time of one
    assert row["rate_per_s"] == row["high_per_s"] == row["limit_per_s"] == pytest.approx(8 / 0.17)
    assert row["low_per_s"] == pytest.approx(0.99 * 8 / 0.17)
    assert "up to the stability limit" in row["note"]


def test_the_limit_of_a_service_in_tokens_is_measured():
    """Sixteen sequences whose steps take 10 ms and 1 ms for each: 16 tokens in 26 ms."""
    law = {"law": "deterministic"}
    tokens = {"prompt": law | {"mean_tokens": 1}, "output": law | {"mean_tokens": 100}, "max_sequences": 16}
    tokens |= {"max_step_tokens": 512, "kv_tokens": 2**20, "step": {"base_s": 0.01, "per_sequence_s": 0.001}}
    s = scenario(poisson(1.0), {"tokens": tokens}, horizon_s=500.0)
    assert answer(s, "source.p50 <= 3s", replications=3)["limit_per_s"] == pytest.approx(16 / 0.026 / 100, rel=0.01)


def test_where_requests_can_be_lost_no_rate_may_be_too_high():
    row = answer(steady(SINGLE | {"queue_limit": 3}), "source.mean <= 1s", replications=3)
    assert row["rate_per_s"] == row["low_per_s"] == pytest.approx(160.0)  # 16 times the capacity
    assert row["high_per_s"] == math.inf
    assert (row["binding"], row["note"]) == ("", "the goals hold at every rate that was tried")
    assert math.isnan(row["limit_per_s"])


@pytest.mark.slow
def test_a_batcher_may_need_a_rate_to_be_quick():
    """Alone, a request waits 1 s for others; batches of four fill sooner."""
    s = steady(batcher(4, 1.0, 0.0))
    row = answer(s, "source.mean <= 500ms")
    goal = parse_slo("source.mean <= 500ms").goals[0]
    factors = (0.02, row["factor"], 1.05 * row["factor"])
    figures = [measure(goal, simulate(with_factor(s, factor)))[0] for factor in factors]
    assert figures[0] > 1.0
    assert figures[1] == pytest.approx(0.5, rel=0.1)
    assert figures[2] > figures[1]
    none = answer(s, "source.mean <= 110ms", replications=3)
    assert none["note"].startswith("no rate that was tried holds: at 0.396 requests/s mean ")


def test_a_goal_that_a_lower_rate_only_hurts_must_hold_there():
    assert answer(steady(SINGLE), "source.mean <= 500ms and source.utilisation >= 70%")["rate_per_s"] > 7.5
    row = answer(steady(SINGLE), "source.mean <= 500ms and source.utilisation >= 90%")
    assert math.isnan(row["rate_per_s"])
    assert "the greatest for the rest, utilisation" in row["note"]
    with pytest.raises(InputError, match="slo: needs a goal that a higher rate breaks"):
        capacity(steady(SINGLE), "source.mean <= 500ms and utilisation >= 10%")


def test_all_streams_of_the_traffic_grow():
    """Two Poisson streams of 1 and 2 requests/s, of which one comes in spells: 3 in the mean."""
    spells = {"process": "poisson", "profile": {"kind": "steps", "steps": [{"from_s": 0, "rate_per_s": 1.0}]}}
    s = scenario([spells, poisson(2.0)], SINGLE, horizon_s=5_000.0, endpoint=ENDLESS)
    row = answer(s, "source.mean <= 500ms")
    assert row["low_per_s"] < 8.0 < row["high_per_s"]
    assert row["factor"] == pytest.approx(row["rate_per_s"] / 3.0)


def test_a_trace_is_played_faster():
    traffic = {"process": "trace", "path": "builtin:trace_small", "repeat": 3}
    block = {"time": {"law": "linear", "base_s": 0.05, "GeneratedTokens": 0.004}, "workers": 1}
    s = scenario(traffic, block, horizon_s=1_900.0)
    row = answer(s, "source.p95 <= 1s", replications=3)
    # nothing is drawn, so that all runs are the same
    assert row["low_per_s"] == row["rate_per_s"] == row["high_per_s"]
    assert "every run has the same trace" in row["note"]
    goal = parse_slo("source.p95 <= 1s").goals[0]
    speeds = [row["factor"] * x for x in (0.98, 1.02)]
    slower, faster = (simulate(s.replace({"traffic.speed": x, "horizon_s": 1_900.0 / x})) for x in speeds)
    assert measure(goal, slower)[0] <= 1.0 < measure(goal, faster)[0]
    assert slower.summary()["requests"].iloc[0] == faster.summary()["requests"].iloc[0]


@pytest.mark.slow
def test_pools_that_change_have_a_greatest_rate_too():
    """Only that the interval is narrow, and that the goal is met a little below it and missed a little above it."""
    scaling = {"metric": "InvocationsPerInstance", "target": 240, "min": 1, "max": 6}
    outages = {"mtbf_s": "2h", "mttr_s": "1m"}
    for more in ({"scaling": scaling}, {"outages": outages}):
        s = scenario(poisson(5.0), SINGLE | more, source_instances=3, horizon_s=14_400.0, endpoint=ENDLESS)
        row = answer(s, "source.p90 <= 800ms", confidence=0.95)
        assert row["high_per_s"] - row["low_per_s"] < 0.1 * row["rate_per_s"]
        goal = parse_slo("source.p90 <= 800ms").goals[0]
        low, high = (measure(goal, simulate(with_factor(s, x * row["factor"])))[0] for x in (0.9, 1.1))
        assert low < 0.8 < high


@pytest.mark.slow
def test_where_retries_tip_a_pool_over_the_figures_jump():
    traffic = poisson(5.0) | {"retries": {"mode": "legacy", "timeout_s": 1.0}}
    s = scenario(traffic, SINGLE, horizon_s=14_400.0)
    row = answer(s, "source.mean <= 300ms", confidence=0.95)
    # without retries the mean is 0.3 s at 6.7 requests/s
    assert 2.0 < row["low_per_s"] <= row["rate_per_s"] < row["high_per_s"]
    assert row["rate_per_s"] < 6.0
    assert "the figures jump near this rate" in row["note"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"slo": "p99 <= 1kg"}, "slo: needs a time"),
        ({"replications": 2}, "replications: must be an integer from 3 to 1000"),
        ({"confidence": 0.4}, "confidence: must be a finite number > 0.5"),
        ({"slo": "ttft.p99 <= 1s"}, "slo: needs a service in tokens"),
        ({"rate_per_s": 0.0}, "rate_per_s: must be a finite number > 0"),
    ],
)
def test_slips(options, says):
    with pytest.raises(InputError, match=says):
        capacity(steady(SINGLE), **({"slo": "p99 <= 1s"} | options))


def test_closeness_falls_with_the_figure_and_is_zero_at_the_limit():
    for text in ("p99 <= 200ms", "utilisation <= 50%", "error_rate <= 1%", "share(wait > 1s) <= 5%"):
        (goal,) = parse_slo(text).goals
        assert closeness(goal, goal.limit) == pytest.approx(0.0, abs=1e-12)
        assert closeness(goal, 0.5 * goal.limit) > 0.0 > closeness(goal, 2.0 * goal.limit)
    (goodput,) = parse_slo("goodput(ttft <= 1s, tpot <= 50ms) >= 95%").goals
    assert closeness(goodput, 0.99) > 0.0 > closeness(goodput, 0.9)
    assert closeness(goodput, math.nan) < 0.0
    assert closeness(parse_slo("p99 <= 0").goals[0], 0.0) >= 0.0
