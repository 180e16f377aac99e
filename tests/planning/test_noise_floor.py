"""noise_floor: a shadow equal to the source, and the differences that runs show."""

import numpy as np
import pytest
from cases import scenario, service

from shadowsim import InputError, noise_floor
from shadowsim.planning.noise_floor import as_aa_test


def case(share=50, source_instances=2, mirror=None, endpoint=None, **run):
    return scenario(
        {"process": "poisson", "rate_per_s": 200.0},
        service("lognormal", 0.01, 2),
        service("exponential", 0.05, 4),
        source_instances=source_instances,
        share=share,
        mirror=mirror,
        endpoint=endpoint,
        **({"horizon_s": 100.0, "period_s": 1.0} | run),
    )


@pytest.mark.parametrize(
    ("changes", "share", "instances"),
    [
        ({}, 50, 1),
        ({"share": 100}, 100, 2),
        ({"share": 25, "source_instances": 4}, 25, 1),
        ({"share": 30}, 100, 2),  # 0.6 instances
        ({"share": 0}, 100, 2),
        ({"mirror": {"rule": "counter"}}, 100, 2),
        ({"endpoint": {"routing": "LEAST_OUTSTANDING_REQUESTS"}}, 100, 2),
    ],
)
def test_the_shadows_instances_are_as_busy_as_the_sources(changes, share, instances):
    equal = as_aa_test(case(**changes))
    assert equal.share == share / 100
    assert equal.experiment.shadow.pool.instance_count == instances
    assert equal.shadow_service == equal.source_service
    assert equal.shadow_workers == equal.source_workers
    assert len(set(equal.routing.values())) == 1
    source = 200.0 / equal.experiment.source.pool.instance_count
    assert 200.0 * equal.share / instances == source


def test_the_floor_has_the_differences_of_equal_variants():
    d = noise_floor(case(), replications=4, slo_s="20ms", margin_pct=30.0, workers=1).set_index("metric")
    assert {"mean", "p50", "p99", "error_rate", "slo_miss"} <= set(d.index)
    assert not any(str(m).startswith("paired") for m in d.index)  # no requests are kept
    p50 = d.loc["p50"]
    assert 0.0 < p50["typical"] <= p50["most"] < 0.1 * p50["value"]
    assert p50["typical_pct"] == pytest.approx(100 * p50["typical"] / p50["value"])
    assert d[["worse", "better", "same", "not_enough"]].sum(axis=1).tolist() == pytest.approx([1.0] * len(d))
    assert p50["same"] == 1.0
    assert d.loc["p99.9", "not_enough"] == 1.0
    assert d.loc["error_rate", "typical"] == 0.0
    assert np.isnan(d.loc["error_rate", "typical_pct"])
    assert set(d["n"]) == {4}
    assert (set(d["sampling_percentage"]), set(d["instance_count"])) == ({50}, {1})
    # as many copies as the real test has: half of 20,000
    assert p50["n_shadow"] == pytest.approx(10_000, abs=4 * np.sqrt(20_000 / 4 / 4) + 4 * np.sqrt(20_000 / 4) / 2)


def test_without_copies_there_is_no_noise_to_measure():
    with pytest.raises(InputError, match="sampling_percentage: must be > 0: nothing is copied"):
        noise_floor(case(share=0), replications=2)


def test_more_requests_have_a_lower_floor():
    few, many = (
        noise_floor(case(horizon_s=h, period_s=h / 100), replications=6).set_index("metric") for h in (20.0, 500.0)
    )
    # twenty-five times the requests: a fifth of the noise, and six runs of each place a median to within a factor of 2
    assert many.loc["mean", "typical"] < 0.5 * few.loc["mean", "typical"]


def test_one_run_is_refused():
    with pytest.raises(InputError, match="replications: must be a whole number >= 2, got 1"):
        noise_floor(case(), replications=1)


@pytest.mark.parametrize(
    "block",
    [
        {"scaling": {"metric": "InvocationsPerInstance", "target": 6000, "min": 1, "max": 4}},
        {"outages": [{"instance": 0, "at_s": 10.0, "for_s": 20.0}]},
        {"outages": {"mtbf_s": 1000.0, "mttr_s": 10.0}},
    ],
)
def test_a_pool_that_scales_or_fails_has_no_smaller_equal(block):
    """One instance of two that is down is half of the pool; the only one of a pool for half of the requests is all."""
    s = case()
    name = s.experiment.source.name
    equal = as_aa_test(s.replace({f"services.{name}": {**s.document["services"][name], **block}}))
    assert (equal.share, equal.experiment.shadow.pool.instance_count) == (1.0, 2)
    assert equal.shadow_service == equal.source_service
