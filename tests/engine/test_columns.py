"""Tables of quantiles have the documented accuracy; scenarios become columns."""

import math
import pickle

import numpy as np
import pytest
from cases import scenario, service

from shadowsim import default_scenario, simulate
from shadowsim.engine import _event_kernel as events
from shadowsim.engine import _kernel as k
from shadowsim.engine import parallel
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns
from shadowsim.engine.law_tables import law_table, table_moment
from shadowsim.engine.run_state import new_sample
from shadowsim.scenario.laws import parse_law

LAWS = [
    {"law": "deterministic", "mean_s": 0.3},
    {"law": "exponential", "mean_s": 2.0},
    {"law": "lognormal", "mean_s": 0.02, "scv": 0.25},
    {"law": "lognormal", "mean_s": 0.02, "scv": 4.0},
    {"law": "lognormal", "p50_s": 0.018, "p99_s": 0.06},
    {"law": "gamma", "mean_s": 1.0, "scv": 0.1},
    {"law": "gamma", "mean_s": 1.0, "scv": 3.0},
    {"law": "empirical", "quantiles_s": {"0": 0.01, "0.5": 0.02, "0.99": 0.08, "1": 0.5}},
]
by_name = pytest.mark.parametrize("block", LAWS, ids=lambda b: "-".join(map(str, b.values())))


def halves(block):
    law = parse_law(block, "time", "s")
    table = law_table(law)
    return law, [half[:-1] for half in np.split(table, 2)]


@by_name
def test_moments_of_a_table(block):
    law, (lower, upper) = halves(block)
    mean = table_moment(lower, 1) + table_moment(upper, 1)
    second = table_moment(lower, 2) + table_moment(upper, 2)
    assert mean == pytest.approx(1.0, abs=1e-9)
    assert second == pytest.approx(1.0 + law.scv, rel=1e-4)


def test_a_table_moment_is_the_integral_of_its_interpolation():
    """Against a midpoint rule on what `draw` returns; its error is the tail beyond the outermost of its points."""
    _, (lower, upper) = halves(LAWS[2])
    v = k.table_tails()
    u = (np.arange(2_000_000) + 0.5) / 2_000_000
    for power in (1, 2):
        numeric = sum(0.5 * np.mean(np.interp(u / 2.0, v, half) ** power) for half in (lower, upper))
        exact = table_moment(lower, power) + table_moment(upper, power)
        assert numeric == pytest.approx(exact, rel=1e-5)


@by_name
def test_the_greatest_error_of_a_quantile(block):
    """At most 2e-5 of the quantile or of the mean, whichever is greater; a law with kinks has them rounded off."""
    law, (lower, upper) = halves(block)
    v = np.exp(np.random.default_rng(3).uniform(math.log(1e-6), math.log(0.5), 200_000))
    for half, exact in zip((lower, upper), law.tails(v), strict=True):
        error = np.abs(np.interp(v, k.table_tails(), half) - exact / law.mean) / np.maximum(exact / law.mean, 1.0)
        assert error.max() < (5e-3 if law.kind == "empirical" else 2e-5)


@by_name
def test_a_table_is_sorted_and_padded(block):
    law, (lower, upper) = halves(block)
    assert np.all(np.diff(lower) >= 0)
    assert np.all(np.diff(upper) <= 0)
    assert lower[-1] <= upper[-1]
    table = law_table(law)
    assert table.size == 2 * k.TABLE_HALF
    assert table[k.TABLE_HALF - 1] == table[k.TABLE_HALF - 2]


def test_the_built_in_scenario_as_columns():
    arrivals = arrivals_of(default_scenario())
    c = columns(default_scenario(), arrivals)
    assert (c.n_windows, c.n_sections) == (1440, 100)
    assert arrivals.expected_requests == pytest.approx(400 * 86400, rel=1e-12)
    assert int(c.mirror.coin) == 2**31
    assert (c.source.n_instances, c.shadow.n_instances, c.source.n_workers) == (4, 2, 4)
    assert c.source.queue_limit == -1
    assert arrivals.of_windows(0, 1440).knot_s[0] == 0.0
    assert arrivals.of_windows(0, 1440).knot_s[-1] == 86400.0


@pytest.mark.parametrize("wanted", [1, 10, 500, 990, 2000])
def test_a_sample_that_did_not_fit_is_drawn_again(wanted, monkeypatch):
    """The first try of `new_sample` is made too small, or to let too few in: the run is repeated, the frames agree."""
    s = scenario(
        {"process": "poisson", "rate_per_s": 50.0}, service(mean_s=0.001), horizon_s=20.0, sample_requests=wanted
    )
    expected = simulate(s).requests
    for spoil in (
        lambda x: x._replace(rows=x.rows[: min(wanted, 900) // 2]),
        lambda x: x._replace(threshold=np.uint64(int(x.threshold) // 1000)),
    ):
        calls = []

        def spoilt(wanted, expected, widen, attempts, evented, spoil=spoil, calls=calls):
            calls.append(widen)
            sample = new_sample(wanted, expected, widen, attempts, evented)
            return spoil(sample) if widen == 0 else sample

        monkeypatch.setattr(parallel, "new_sample", spoilt)
        assert simulate(s).requests.equals(expected)
        assert calls == [0, 0, 1, 1]


def test_room_for_a_sample_does_not_grow_with_the_run():
    assert new_sample(10_000, 1e12).rows.shape[0] < 13_000
    assert new_sample(0, 1e12).rows.shape[0] == 0


def dynamics(**changes):
    s = scenario({"process": "poisson", "rate_per_s": 50.0}, service(), service(), source_instances=2)
    s = s.replace({path.replace("__", "."): value for path, value in changes.items()})
    return columns(s, arrivals_of(s))


def test_a_plain_pool_needs_no_events():
    c = dynamics()
    assert c.forgets
    for role, column in (("source", events.SOURCE_OUTAGE), ("shadow", events.SHADOW_OUTAGE)):
        d = getattr(c, f"{role}_dynamics")
        assert (d.evented, d.batching.max_size, d.scaling.metric) == (False, 0, events.NO_SCALING)
        assert (d.outages.at_s.size, d.outages.mtbf_s, d.outages.column) == (0, math.inf, column)
        assert (d.retries.max_attempts, d.retries.causes) == (1, 0)


def test_a_batcher_as_columns():
    c = dynamics(shadow__batching={"max_size": 3, "max_delay_s": "5ms", "factors": [1.0, 1.5]})
    assert (c.source_dynamics.evented, c.shadow_dynamics.evented, c.forgets) == (False, True, False)
    assert c.shadow_dynamics.batching[:2] == (3, 0.005)
    assert c.shadow_dynamics.batching.factors.tolist() == [1.0, 1.5, 1.5]
    assert c.shadow_dynamics.batching.factors.dtype == np.float64


def test_a_policy_as_columns():
    policy = {"metric": "SageMakerVariantConcurrentRequestsPerModelHighResolution", "target": 5, "min": 1, "max": 8}
    policy |= {"scale_out_cooldown_s": 60, "scale_in_cooldown_s": 90, "out_points": 2, "in_points": 4, "delay_s": "2m"}
    c = dynamics(source__scaling=policy, source__cold_start_s="3m")
    assert (c.source_dynamics.evented, c.shadow_dynamics.evented, c.forgets) == (True, False, False)
    scaling = c.source_dynamics.scaling
    assert scaling == (events.CONCURRENCY, 5.0, 1, 8, 60.0, 90.0, 2, 4, 120.0, 180.0)
    least = dynamics(source__scaling={"metric": "InvocationsPerInstance", "target": 5, "min": 1, "max": 8})
    assert least.source_dynamics.scaling == (events.INVOCATIONS, 5.0, 1, 8, 300.0, 300.0, 3, 15, 0.0, 0.0)
    for name, value in scaling._asdict().items():
        whole = name in ("metric", "least", "most", "out_points", "in_points")
        assert type(value) is (int if whole else float), name  # numba compiles once for each combination of types


def test_outages_as_columns():
    listed = [{"instance": 1, "at_s": 9, "for_s": 2}, {"instance": 1, "at_s": 3, "for_s": 1}]
    listed += [{"instance": 0, "at_s": 9, "for_s": 4}]
    c = dynamics(source__outages=listed, shadow__outages={"mtbf_s": "1h", "mttr_s": 30})
    outages = c.source_dynamics.outages
    assert (outages.instance.tolist(), outages.at_s.tolist()) == ([1, 0, 1], [3.0, 9.0, 9.0])
    assert (outages.for_s.tolist(), outages.mtbf_s, outages.column) == ([1.0, 4.0, 2.0], math.inf, events.SOURCE_OUTAGE)
    assert (outages.instance.dtype, outages.at_s.dtype, outages.for_s.dtype) == (np.int64, np.float64, np.float64)
    random = c.shadow_dynamics.outages
    assert (random.at_s.size, *random[3:]) == (0, 3600.0, 30.0, events.SHADOW_OUTAGE)
    assert (c.source_dynamics.evented, c.shadow_dynamics.evented, c.forgets) == (True, True, False)


def test_retries_as_columns_make_both_pools_evented_and_are_the_sources():
    c = dynamics(traffic__retries="standard-2026")
    assert (c.source_dynamics.evented, c.shadow_dynamics.evented, c.forgets) == (True, True, False)
    on = events.ON_TIMEOUT | events.ON_UNAVAILABLE | events.ON_OUTAGE
    assert c.source_dynamics.retries == (3, 0.05, 20.0, 60.0, 500, 14, 14, 1, on)
    assert c.shadow_dynamics.retries == dynamics().source_dynamics.retries
    policy = {"mode": "legacy", "timeout_s": 5, "clients": 9, "on": ["refused", "model_error"]}
    legacy = dynamics(traffic__retries=policy).source_dynamics.retries
    assert legacy == (5, 1.0, math.inf, 5.0, -1, 5, 10, 9, events.ON_REFUSED | events.ON_MODEL_ERROR)
    assert not dynamics(traffic__retries="none").source_dynamics.evented


def test_evented_columns_can_be_sent_to_workers():
    c = dynamics(traffic__retries="legacy", shadow__batching={"max_size": 2, "marginal": 0})
    again = pickle.loads(pickle.dumps(c))
    assert again.source_dynamics.retries == c.source_dynamics.retries
    assert again.shadow_dynamics.batching.factors.tolist() == [1.0, 1.0]
