"""Scenarios and instance types as text."""

from cases import scenario, service

from shadowsim import simulate
from shadowsim.aws.instances import InstanceType
from shadowsim.report.run_text import summary_table
from shadowsim.report.scenario_text import instances_table, scenario_text

SCALING = {"metric": "InvocationsPerInstance", "target": 1500, "min": 1, "max": 9}


def test_instances_show_unknown_figures():
    types = [InstanceType("ml.new.large"), InstanceType("ml.odd.large", 2, 0.5, "Chip", 1, 8.0, 113.068, "", "price x")]
    rows = [line.split() for line in instances_table(types).splitlines()[1:]]
    assert rows == [
        ["ml.new.large", "?", "?", "?", "unknown"],
        ["ml.odd.large", "2", "0.5", "1", "x", "Chip", "113.0680", "x"],
    ]


def test_lost_copies_and_unusual_copying_are_described():
    counted = scenario(
        {"process": "poisson", "rate_per_s": 50.0},
        service(mean_s=0.1, workers=4),
        share=100,
        mirror={"rule": "counter", "instant": "response", "max_in_flight": 2},
        endpoint={"routing": {"Shadow": "LEAST_OUTSTANDING_REQUESTS"}},
    )
    result = simulate(counted)
    lost = int(result.windows["copies_lost_max_in_flight"].sum())
    assert lost > 100
    assert f"copies lost: {lost:,} to mirror.max_in_flight" in summary_table(result)
    text = " ".join(scenario_text(counted).split())
    assert "copies by counter at the response; at most 2 in flight; routing Source RANDOM, Shadow LEAST_" in text


def test_pools_that_change_are_described():
    plain = scenario({"process": "poisson", "rate_per_s": 50.0}, service(), service())
    changed = plain.replace(
        {
            "source.batching": {"max_size": 8, "marginal": 0.1},
            "source.outages": [{"instance": 0, "at_s": 1, "for_s": 1}],
            "shadow.scaling": SCALING,
            "shadow.outages": {"mtbf_s": "1d", "mttr_s": "90s"},
            "traffic.retries": "legacy",
        }
    )
    text, before = (" ".join(scenario_text(s).split()) for s in (changed, plain))
    assert "batching Source: up to 8 requests in a batch, no wait; a full batch takes 1.7 times as long as one" in text
    assert "scaling Shadow: 1 to 9 instances, to hold 1,500 InvocationsPerInstance; a new one serves at once" in text
    assert "outages Source: instance 0 fails at 00:00:01 for 1 s" in text
    assert "outages Shadow: each instance fails every 1 day for 1 min 30 s in the mean" in text
    assert "retries callers: up to 5 attempts per request, waits of up to 1 s, doubled each time; they give" in text
    assert not any(label in before for label in ("batching", "scaling", "outages", "retries"))


def test_what_both_variants_have_is_said_once():
    twice = scenario({"process": "poisson", "rate_per_s": 50.0, "retries": "standard"}, service()).replace(
        {f"{role}.batching": {"max_size": 4, "max_delay_s": "5ms", "marginal": 0} for role in ("source", "shadow")}
        | {"source.scaling": SCALING | {"delay_s": 60}, "source.cold_start_s": 240}
        | {"source.outages": [{"instance": 1, "at_s": 9, "for_s": 60}, {"instance": 0, "at_s": 8, "for_s": 60}]}
    )
    text = " ".join(scenario_text(twice).split())
    assert "batching both variants: up to 4 requests in a batch, the oldest waits up to 5 ms for more;" in text
    assert "a new one serves 4 min later, decisions take effect after 1 min" in text
    assert "2 are listed, in the first of which instance 0 fails at 00:00:08 for 1 min" in text
    assert "doubled each time, at most 20 s; they give up after 60 s; a quota of 500 tokens for one client" in text
