"""Tables of quantiles have the documented accuracy; scenarios become columns."""

import math

import numpy as np
import pytest
from cases import scenario, service

from shadowsim import default_scenario, simulate
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

        def spoilt(wanted, expected, widen, spoil=spoil, calls=calls):
            calls.append(widen)
            sample = new_sample(wanted, expected, widen)
            return spoil(sample) if widen == 0 else sample

        monkeypatch.setattr(parallel, "new_sample", spoilt)
        assert simulate(s).requests.equals(expected)
        assert calls == [0, 0, 1, 1]


def test_room_for_a_sample_does_not_grow_with_the_run():
    assert new_sample(10_000, 1e12).rows.shape[0] < 13_000
    assert new_sample(0, 1e12).rows.shape[0] == 0
