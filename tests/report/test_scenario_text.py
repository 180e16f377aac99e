"""Scenarios and instance types as text."""

from cases import scenario, service

from shadowsim import simulate
from shadowsim.aws.instances import InstanceType
from shadowsim.report.run_text import summary_table
from shadowsim.report.scenario_text import instances_table, scenario_text


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
    scaling = {"metric": "InvocationsPerInstance", "target": 1500, "min": 1, "max": 9}
    changed = plain.replace(
        {
            "source.batching": {"max_size": 8, "marginal": 0.1},
            "source.outages": [{"instance": 0, "at_s": 1, "for_s": 1}],
            "shadow.scaling": scaling,
            "shadow.outages": {"mtbf_s": "1d", "mttr_s": "90s"},
            "traffic.retries": "legacy",
        }
    )
    text, before = (" ".join(scenario_text(s).split()) for s in (changed, plain))
    assert "50 requests/s, up to 5 attempts each source" in text
    assert "service exponential 1 s, in batches of up to 8, 1 outage shadow" in text
    assert "scales from 1 to 9 at 1,500 InvocationsPerInstance, an instance fails every 1 day for 1 min 30 s in" in text
    assert not any(word in before for word in ("attempts", "batches", "scales", "outage", "fails"))
