"""Goals of services in tokens: their grammar, their figures in a run, and the instances that meet them."""

import math

import numpy as np
import pytest
from cases import scenario, service

import shadowsim as ss
from shadowsim import InputError
from shadowsim.frames import FIRST_TOKEN, PER_TOKEN
from shadowsim.planning.load import demand_of
from shadowsim.planning.slo import figure_of_service, measure, parse_slo, with_goodput
from shadowsim.scenario.relaxation import relaxation_s, work_moments
from shadowsim.scenario.tokens import Goodput

SERVED = {
    "prompt": {"law": "lognormal", "mean_tokens": 60, "scv": 0.5},
    "output": {"law": "gamma", "mean_tokens": 40, "scv": 0.7},
    "max_sequences": 16,
    "max_step_tokens": 64,
    "kv_tokens": 1200,
    "step": {"base_s": 0.02, "per_prefill_token_s": 0.0005, "per_sequence_s": 0.002},
}
POISSON = {"process": "poisson", "rate_per_s": 3.0}


def token_scenario(source=None, shadow=None, **more):
    run = {"horizon_s": 600.0, "period_s": 20.0} | more
    return scenario(POISSON, source or {"tokens": SERVED}, shadow, share=100, **run)


@pytest.mark.parametrize(
    ("text", "metric", "measured", "column"),
    [
        ("ttft.p99 <= 500ms", "quantile", FIRST_TOKEN, "ttft_p99_s"),
        ("source.tpot.p99.9 < 40ms", "quantile", PER_TOKEN, "tpot_p99_9_s"),
        ("tpot.mean <= 40ms", "mean", PER_TOKEN, "tpot_mean_s"),
        ("share(ttft > 1s) <= 1%", "share_latency", FIRST_TOKEN, "share(ttft > 1 s)"),
        ("Source.goodput(TTFT <= 1s, tpot<=50ms) >= 95%", "goodput", "latency", "goodput(ttft <= 1 s, tpot <= 0.05 s)"),
    ],
)
def test_the_grammar(text, metric, measured, column):
    (goal,) = parse_slo(f"{text} and p99 <= 1s").goals[:1]
    assert (goal.metric, goal.measure, goal.column) == (metric, measured, column)
    assert goal.role == ("source" if text.lower().startswith("source") else "shadow")
    assert str(goal) == text
    assert goal.more_instances_help
    assert goal.of_tokens
    assert goal.pair == (Goodput(1.0, 0.05) if metric == "goodput" else None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ttft <= 80ms", "is not a metric, got 'ttft'; did you mean ttft.p99"),
        ("ttft.wait_mean <= 1s", "must be a quantile or the mean of a time, as in ttft.p99"),
        ("tpot.p95 <= 16", "needs a unit"),
        ("ttft.p100 <= 16ms", "below p100"),
        ("goodput(ttft <= 1s) >= 95%", r"must have two limits > 0, as in goodput\(ttft <= 500ms, tpot <= 50ms\)"),
        ("goodput(ttft <= 0, tpot <= 1ms) >= 95%", "must have two limits > 0"),
        ("goodput(ttft <= 1s, tpot <= 50ms) >= 95ms", "needs a share"),
    ],
)
def test_what_is_refused(text, why):
    with pytest.raises(InputError, match=why):
        parse_slo(text)


def test_figures_are_those_of_the_requests():
    """All requests are in the sample; windows and histograms give the same."""
    slo = parse_slo("ttft.mean <= 1s and ttft.p95 <= 1s and share(ttft > 100ms) <= 5% and tpot.mean <= 1s and "
                    "goodput(ttft <= 120ms, tpot <= 30ms) >= 50%")  # fmt: skip
    result = ss.simulate(with_goodput(token_scenario(), slo))
    assert result.scenario.goodput == (Goodput(0.12, 0.03),)
    requests = result.requests[(result.requests["role"] == "shadow") & (result.requests["status"] == "answered")]
    first = requests["first_token_s"].to_numpy()
    more = requests["output_tokens"].to_numpy(float) - 1.0
    rest = requests["latency_s"].to_numpy() - first
    values = [measure(goal, result) for goal in slo.goals]
    expected = [first.mean(), np.quantile(first, 0.95), (first > 0.1).mean(), (rest[more > 0] / more[more > 0]).mean(),
                ((first <= 0.12) & (rest <= 0.03 * more)).mean()]  # fmt: skip
    n = len(requests)
    # a quantile is within a bucket of 0.8 %; a share of a histogram by the bucket in which its limit lies
    in_bucket = (np.abs(first / 0.1 - 1.0) < 0.008).mean()
    for (value, error), x, tolerance in zip(values, expected, [1e-9, 0.01 * expected[1], in_bucket, 1e-9, 1e-12],
                                            strict=True):  # fmt: skip
        assert value == pytest.approx(x, rel=0, abs=tolerance)
        assert 0.0 < error < 0.2 * value
    assert n == len(result.requests) / 2


def test_a_pair_that_the_run_did_not_count_is_refused():
    result = ss.simulate(token_scenario(horizon_s=60.0, goodput=[{"ttft_s": 1.0, "tpot_s": 0.05}]))
    slo = parse_slo("goodput(ttft <= 1s, tpot <= 60ms) >= 95%")
    with pytest.raises(InputError, match=r"must be a pair of limits that the run counted.*it has \(ttft <= 1s, tpot"):
        slo.evaluate(result)
    listed = parse_slo("goodput(ttft <= 1s, tpot <= 50ms) >= 95%")
    assert listed.evaluate(result)["value"][0] == result.summary()["goodput_share_1"].iloc[1]
    assert with_goodput(result.scenario, listed) is result.scenario


@pytest.mark.parametrize("text", ["shadow.ttft.p99 <= 1s", "goodput(ttft <= 1s, tpot <= 50ms) >= 95%"])
def test_a_variant_that_is_not_in_tokens_has_no_such_figures(text):
    s = token_scenario(shadow=service(mean_s=0.1), goodput=[{"ttft_s": 1.0, "tpot_s": 0.05}])
    with pytest.raises(InputError, match=r"^slo: needs a service in tokens, which Shadow is not, got"):
        ss.size(s, text)
    assert ss.size(s, "p50 <= 1s")["instance_count"][0] == 1  # though run.goodput is the source's alone


@pytest.mark.slow
def test_size_finds_the_instances():
    frame = ss.size(token_scenario().replace({"rate_per_s": 12.0}), "goodput(ttft <= 200ms, tpot <= 40ms) >= 95%")
    (row,) = frame.to_dict("records")
    assert row["certain"]
    n, column = row["instance_count"], "goodput(ttft <= 0.2 s, tpot <= 0.04 s)"
    assert n > 1
    assert row[column] >= 0.95
    pair = [{"ttft_s": 0.2, "tpot_s": 0.04}]
    changes = {"rate_per_s": 12.0, "shadow.instance_count": n - 1, "run.goodput": pair}
    fewer = ss.simulate(token_scenario().replace(changes))
    assert fewer.summary()["goodput_share_1"].iloc[1] < 0.95


@pytest.mark.parametrize(
    ("slo", "why"),
    [
        ("tpot.p50 <= 21ms", "tpot.p50 22.0 ms"),  # base_s + per_sequence_s
        ("goodput(ttft <= 10s, tpot <= 21ms) >= 50%", "without any wait"),
        ("ttft.p50 <= 20ms", "ttft.p50"),
    ],
)
def test_size_says_when_one_request_alone_misses(slo, why):
    frame = ss.size(token_scenario(), slo)
    assert frame["instance_count"].isna().all()
    assert frame["certain"].all()
    assert "no count will do" in frame["note"][0]
    assert why in frame["note"][0]


def test_times_alone_are_those_of_an_idle_endpoint():
    """One request in 100 s on average: the run's figures are those of typical requests alone, within 5 errors."""
    s = token_scenario(horizon_s=200_000.0, period_s=1000.0).replace({"rate_per_s": 0.01})
    result, demand = ss.simulate(s), demand_of(s, "source")
    for text in ("source.ttft.mean <= 1s", "source.tpot.p50 <= 1s", "source.mean <= 1s"):
        (goal,) = parse_slo(text).goals
        alone = figure_of_service(goal, demand.service_s, 0.0, demand.alone, s.timeout_s)
        value, error = measure(goal, result)
        assert value == pytest.approx(alone, rel=0.004 if goal.metric == "quantile" else 0.0, abs=5.0 * error)


def test_the_load_is_that_of_full_batches():
    """Offered load, demand and relaxation agree on the work of a request at a full batch."""
    s = token_scenario(horizon_s=6000.0)
    mean_s, scv = work_moments(s, "source")
    demand = demand_of(s, "source")
    assert demand.instances == pytest.approx(3.0 * mean_s)
    windows = ss.simulate(s).windows
    load = windows.loc[windows["role"] == "source", "offered_load"]
    error = mean_s * math.sqrt(3.0 * (1.0 + scv) / s.horizon_s)  # of a compound Poisson sum, over the time
    assert load.mean() == pytest.approx(demand.instances, abs=4.0 * error)
    assert relaxation_s(s, "source", 0.5) < relaxation_s(s, "source", 0.9) < math.inf


def with_a_prefix_cache():
    """A shadow whose prefix cache saves all but 8 of a prompt's 1,000 tokens, beside a source without one."""
    served = SERVED | {"prompt": 1000, "output": 2, "max_step_tokens": 2000, "kv_tokens": 16_016}
    served |= {"step": {"base_s": 0.001, "per_prefill_token_s": 0.001}}
    cached = served | {"prefix": {"length": 992, "groups": 1, "cache_tokens": 16_016}}
    return token_scenario({"tokens": served}, {"tokens": cached})


def test_the_least_demand_counts_on_what_prefix_caches_save():
    s = with_a_prefix_cache()
    demand, plain = (demand_of(s, role) for role in ("shadow", "source"))
    assert demand.instances == plain.instances > 3.0
    # of a prompt's 1,000 tokens 8 are left, and of steps' constant time the share of each of 16 sequences
    assert demand.least_instances == pytest.approx(3.0 * (0.008 + 2 * 0.001 / 16), rel=1e-9)
    assert demand.alone.first_token_s.max() == pytest.approx(0.001 + 0.008)
    assert plain.alone.first_token_s.max() == pytest.approx(0.001 + 1.0)


@pytest.mark.slow  # to compile
def test_size_counts_on_what_prefix_caches_save():
    """Without them one request alone takes 1 s to its first token, and three instances are needed."""
    s = with_a_prefix_cache()
    table = ss.size(s, "shadow.ttft.p95 <= 50ms")
    assert table["instance_count"][0] == 1
    assert table["ttft_p95_s"][0] <= 0.05
    result = ss.simulate(s)
    assert result.verdict.source.status == "OVERLOADED"
    assert result.verdict.shadow.status != "OVERLOADED"
