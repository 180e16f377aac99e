"""compare: outcomes of runs whose truth is known, and the effect of each parameter."""

import math

import numpy as np
import pandas as pd
import pytest
from aa_pairs import alike, exact
from cases import scenario, service
from scipy.stats import binom, norm

from shadowsim import InputError, compare, simulate
from shadowsim.statistics import sequential_looks
from shadowsim.statistics.comparison import COLUMNS, paired_rows, period_rows
from shadowsim.statistics.terms import BETTER, NOT_ENOUGH, NOT_JUDGED, SAME, WORSE, Terms

METRICS = ["mean", "p50", "p90", "p95", "p99", "p99.9", "error_rate_4xx", "error_rate_5xx", "error_rate"]


def row(frame, metric):
    return frame.set_index("metric").loc[metric]


@pytest.fixture(scope="module")
def run():
    return simulate(alike("exponential", 0.5, 200_000, 1, slower=1.3, sample_requests=5000))


@pytest.mark.slow
@pytest.mark.parametrize(("load", "n", "runs"), [(0.5, 20_000, 30), (0.8, 200_000, 20)])
def test_a_a_runs_of_a_queue_cover_the_truth(load, n, runs):
    """The full table is a benchmark; here 90 % is the promise, and chance is allowed one in a thousand.

    Intervals that take requests for independent cover a quarter of the runs at a load of 0.8.
    """
    true, hits, has, alarms = exact(0.99, load), 0, 0, 0
    for seed in range(runs):
        p99 = row(simulate(alike("exponential", load, n, seed)).compare(), "p99")
        alarms += p99["outcome"] in (WORSE, BETTER)
        if not np.isnan(p99["low"]):
            has += 1
            hits += p99["low"] <= 0.0 <= p99["high"]
            hits += p99["source_low"] <= true <= p99["source_high"]
            hits += p99["shadow_low"] <= true <= p99["shadow_high"]
    assert has >= binom.ppf(0.001, runs, 0.9)
    # the three intervals of a run are not independent: as many as there are runs are
    assert hits / 3 >= binom.ppf(0.001, has, 0.9)
    assert alarms <= binom.ppf(0.999, runs, 0.07)


def test_a_busy_queue_of_few_requests_is_not_judged():
    p99 = row(simulate(alike("exponential", 0.9, 20_000, 1)).compare(), "p99")
    assert p99["outcome"] == NOT_ENOUGH
    assert np.isnan(p99["low"])
    assert p99["source"] > 0.0


def test_a_slower_shadow_is_worse(run):
    d = run.compare(slo_s=0.4)
    assert tuple(d.columns) == COLUMNS
    assert d["metric"].tolist()[:10] == [*METRICS, "slo_miss"]
    assert set(d["outcome"][:5]) == {WORSE}
    p99 = row(d, "p99")
    assert p99["ratio_low"] <= exact(0.99, 0.65, 0.13) / exact(0.99, 0.5) <= p99["ratio_high"]
    assert p99["n_eff"] < p99["n_source"] == run.windows.loc[run.windows["role"] == "source", "Invocations"].sum()
    assert row(d, "slo_miss")["outcome"] == WORSE
    pd.testing.assert_frame_equal(compare(run, slo_s="400ms"), d)
    pd.testing.assert_frame_equal(run.compare(slo_s="0.4s"), d)
    assert row(d, "error_rate")["verdict"] == "no difference larger than 0.1 points"
    assert row(d, "paired_mean")["outcome"] == WORSE
    assert d.loc[d["unit"] == "s", "margin"].iloc[0] == pytest.approx(0.1 * d["source"].iloc[0])


def test_and_a_faster_one_is_better():
    d = simulate(alike("exponential", 0.5, 100_000, 1, slower=0.8)).compare()
    assert row(d, "p99")["outcome"] == BETTER
    assert row(d, "p99")["high"] < 0.0


def test_the_margin_decides_what_is_the_same(run):
    assert row(run.compare(margin_pct=100.0), "p99")["verdict"] == "no difference larger than 100 %"
    assert row(compare(run, margin_pct=1.0), "p99")["outcome"] == WORSE


def test_errors_are_counted_and_few_are_not_overlooked():
    """Kayenta passes a variant with a few errors against one with none."""
    bad = service(mean_s=0.003, error_5xx=0.003)
    s = scenario({"process": "poisson", "rate_per_s": 100.0}, service(mean_s=0.003), bad, share=100, horizon_s=200.0,
                 period_s=2.0)  # fmt: skip
    d = simulate(s).compare()
    rate = row(d, "error_rate_5xx")
    assert rate["source"] == 0.0
    assert rate["outcome"] == WORSE
    assert rate["low"] < 0.003 < rate["high"]
    assert rate["method"] == "sections, by count"
    assert row(d, "error_rate_4xx")["outcome"] == SAME
    d = simulate(s.replace({"horizon_s": 4.0, "run.period_s": 0.04})).compare()
    assert row(d, "error_rate_5xx")["outcome"] == NOT_ENOUGH


def test_a_constant_latency_is_equal_to_itself():
    traffic = {"process": "constant", "rate_per_s": 50.0}
    s = scenario(traffic, service("deterministic", 0.01), share=100, horizon_s=100.0, period_s=1.0)
    p99 = row(simulate(s).compare(), "p99")
    assert (p99["difference"], p99["low"], p99["high"]) == (0.0, 0.0, 0.0)
    assert p99["outcome"] == SAME


def test_traffic_with_a_day_is_judged():
    profile = {"kind": "diurnal", "base_per_s": 4.0, "peak_per_s": 16.0, "peak_hour": 15}
    s = scenario({"process": "poisson", "profile": profile}, service("lognormal", 0.2, 4), share=100, horizon_s=86400.0,
                 period_s=300.0, sample_requests=0)  # fmt: skip
    d = simulate(s).compare()
    assert set(d["outcome"][:5]) == {SAME}
    assert d["method"].str.contains("trend removed").sum() >= 3


def test_a_week_is_judged_by_what_its_days_do_not_repeat():
    """The built-in scenario's days, at a tenth of its rate: seven of them are a few batches each."""
    profile = {"kind": "diurnal", "base_per_s": 4.0, "peak_per_s": 16.0, "peak_hour": 15}
    s = scenario({"process": "poisson", "profile": profile}, service("lognormal", 0.2, 4), share=100,
                 horizon_s=7 * 86400.0, period_s=600.0, sample_requests=0)  # fmt: skip
    p99 = row(simulate(s).compare(), "p99")
    assert p99["outcome"] == SAME
    assert p99["low"] < 0.0 < p99["high"]
    assert p99["method"].endswith("trend removed")


def test_looks_widen_the_interval_as_their_bounds_say(run):
    plain = row(run.compare(), "p50")
    for look in (1, 4, 7):
        looked = row(run.compare(look=look, looks=7), "p50")
        bound = sequential_looks.bounds(7)[look - 1]
        # Student's value at a bound's level grows faster than the bound
        assert looked["high"] - looked["low"] >= (plain["high"] - plain["low"]) * bound / norm.ppf(0.975) * 0.99
    pocock = row(run.compare(look=1, looks=7, spending="pocock"), "p50")
    early = row(run.compare(look=1, looks=7), "p50")
    assert pocock["high"] - pocock["low"] < early["high"] - early["low"]
    assert row(run.compare(look=1, looks=1), "p50")["low"] == pytest.approx(plain["low"], rel=1e-6)


def test_a_higher_confidence_is_a_wider_interval(run):
    assert row(run.compare(confidence=0.99), "p99")["low"] < row(run.compare(), "p99")["low"]


def test_requests_in_order_and_sections_say_the_same():
    one = simulate(alike("exponential", 0.5, 20_000, 3, sample_requests=30_000))
    sections, requests = one.compare(), compare({"requests": one.requests})
    assert row(sections, "p99")["method"].startswith("sections")
    assert row(requests, "p99")["method"].startswith("requests")
    for metric in ("mean", "p50", "p99"):
        a, b = row(sections, metric), row(requests, metric)
        assert a["difference"] == pytest.approx(b["difference"], abs=0.008 * a["source"] + 1e-12)
        # both estimate one width from about 30 batches, the other also from lags
        assert (b["high"] - b["low"]) / (a["high"] - a["low"]) == pytest.approx(1.0, abs=0.6)


def test_an_export_of_windows_is_compared_by_periods(run):
    columns = [c for c in run.windows if not c.startswith(("copies", "captured", "wait", "util", "offered"))]
    d = compare({"windows": run.windows[columns]})
    assert d["metric"].tolist() == METRICS
    assert row(d, "mean")["difference"] == row(run.compare(), "mean")["difference"]
    assert np.isnan(row(d, "mean")["n_eff"])
    assert row(d, "p99")["method"] == "windows, median of 100 differences of their p99"
    assert row(d, "p99")["outcome"] == WORSE


def test_replications_are_their_own_sections():
    runs = [simulate(alike("exponential", 0.5, 20_000, seed, slower=1.3)) for seed in range(12)]
    d = compare(runs)
    assert set(d["method"][:5]) == {"replications, 12 groups"}
    assert row(d, "p90")["outcome"] == WORSE
    assert row(compare(runs[:3]), "p90")["method"].startswith("sections")


def test_a_saved_run_is_the_run(run, tmp_path):
    pd.testing.assert_frame_equal(compare(run.save(tmp_path / "run")), run.compare())


def test_no_copies_are_not_enough_data():
    s = scenario(
        {"process": "poisson", "rate_per_s": 20.0}, service(mean_s=0.01), share=0, horizon_s=100.0, period_s=1.0
    )
    d = simulate(s).compare(slo_s=0.1)
    assert d["metric"].tolist() == [*METRICS, "slo_miss"]
    assert set(d["outcome"]) == {NOT_ENOUGH}
    assert set(d["n_shadow"]) == {0}
    assert d["shadow"].isna().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"margin_pct": 0.0}, "margin_pct: must be > 0, got 0"),
        ({"margin_pct": float("nan")}, "margin_pct: must be > 0, got nan"),
        ({"margin_points": 100.0}, "margin_points: must be > 0 and < 100, got 100"),
        ({"confidence": 1.0}, "confidence: must be > 0 and < 1, got 1"),
        ({"slo_s": -1.0}, "slo_s: must be > 0, got -1"),
        ({"look": 1}, "looks: must be given together with `look`"),
        ({"looks": 5}, "look: must be given together with `looks`"),
        ({"look": 6, "looks": 5}, "look: must be an integer from 1 to looks, which is 5, got 6"),
        ({"look": 1, "looks": 5, "spending": "all"}, "spending: must be one of"),
        ({"method": "bootstrap"}, "method: must be one of sections, replications, requests, windows, got 'bootstrap'"),
    ],
)
def test_invalid_arguments_are_refused(run, arguments, message):
    with pytest.raises(InputError, match=message):
        run.compare(**arguments)


def test_frames_without_figures_are_refused():
    with pytest.raises(InputError, match="frames: hold nothing that could be compared"):
        compare({"windows": pd.DataFrame({"role": ["source", "shadow"], "time_s": [0.0, 0.0]})})


TERMS = Terms(alpha=0.05)


def requests(rng, n=4000, slower=0.0, copied=0.5):
    """Requests whose latency is set by their payload, far more than by who answers them; some are copied."""
    payload = rng.exponential(1.0, n)
    rows = []
    for role, extra in (("source", 0.0), ("shadow", slower)):
        latency = 1.0 + payload + extra + 0.05 * rng.standard_normal(n)
        kept = np.ones(n, bool) if role == "source" else rng.random(n) < copied
        number = np.arange(n)[kept]
        rows.append(
            pd.DataFrame({"request": number, "role": role, "arrival_s": number * 1.0, "latency_s": latency[kept]})
        )
    return pd.concat(rows, ignore_index=True)


def by_metric(rows):
    return {row["metric"]: row for row in rows}


def test_a_pair_shows_what_two_samples_cannot():
    rows = by_metric(paired_rows(requests(np.random.default_rng(1), slower=0.02), TERMS))
    mean = rows["paired_mean"]
    assert mean["low"] > 0.0  # payloads alone have a standard error of 0.02
    # the difference of two draws of 0.05
    expected = 2 * 1.96 * np.sqrt(2) * 0.05 / np.sqrt(mean["n_source"])
    assert mean["high"] - mean["low"] == pytest.approx(expected, rel=0.5)  # 20 degrees of freedom and fewer
    assert mean["outcome"] == SAME
    assert mean["n_source"] == mean["n_shadow"]


@pytest.mark.slow
def test_intervals_of_pairs_cover():
    n, hits = 80, {"paired_mean": 0, "paired_p50": 0, "paired_p95": 0}
    true = {"paired_mean": 0.0, "paired_p50": 0.0, "paired_p95": 1.6449 * np.sqrt(2) * 0.05}
    for seed in range(n):
        rows = by_metric(paired_rows(requests(np.random.default_rng(seed), n=2000), TERMS))
        for metric in hits:
            hits[metric] += rows[metric]["low"] <= true[metric] <= rows[metric]["high"]
    for metric, n_hits in hits.items():
        assert binom.ppf(0.001, n, 0.92) <= n_hits, metric


def test_quantiles_of_the_differences_have_no_verdict():
    rows = by_metric(paired_rows(requests(np.random.default_rng(2)), TERMS))
    assert rows["paired_p5"]["difference"] == pytest.approx(-rows["paired_p95"]["difference"], rel=0.2)
    assert rows["paired_p5"]["outcome"] == rows["paired_p95"]["outcome"] == NOT_JUDGED
    assert rows["paired_p50"]["outcome"] == SAME


def test_refused_requests_and_those_without_a_copy_are_no_pairs():
    frame = requests(np.random.default_rng(3), n=100)
    frame.loc[frame["role"] == "shadow", "latency_s"] = np.nan
    assert list(paired_rows(frame, TERMS)) == []


def test_few_pairs_are_not_enough():
    rows = by_metric(paired_rows(requests(np.random.default_rng(4), n=15), TERMS))
    assert rows["paired_mean"]["outcome"] == NOT_ENOUGH
    assert np.isnan(rows["paired_mean"]["low"])


def windows(p99_source, p99_shadow, **more):
    time = np.arange(len(p99_source)) * 60.0
    parts = [
        pd.DataFrame({"time_s": time, "role": role, "ModelLatency_p99": values} | more)
        for role, values in (("source", p99_source), ("shadow", p99_shadow))
    ]
    return pd.concat(parts, ignore_index=True)


def test_percentiles_of_periods_are_compared_period_by_period():
    rng = np.random.default_rng(5)
    source = 1e5 * np.exp(np.sin(np.arange(200) / 30.0))  # a slow wave that both ride
    shadow = source * (1.2 + 0.05 * rng.standard_normal(200))
    shadow[:3] = np.nan  # periods without copies
    (row,) = period_rows(windows(source, shadow, Invocations=100), TERMS)
    assert row["method"] == "windows, median of 197 differences of their p99"
    assert row["ratio_low"] < 1.2 < row["ratio_high"]
    assert row["ratio_high"] - row["ratio_low"] < 0.05
    assert row["outcome"] == WORSE
    assert row["ratio"] == pytest.approx(np.median((shadow / source)[3:]), rel=0.01)
    assert row["n_source"] == 20_000


def test_one_bad_hour_does_not_move_the_median():
    rng = np.random.default_rng(6)
    source = 1e5 * (1 + 0.01 * rng.standard_normal(144))
    shadow = 1e5 * (1 + 0.01 * rng.standard_normal(144))
    shadow[60:66] *= 50
    (row,) = period_rows(windows(source, shadow), TERMS)
    assert row["outcome"] == SAME
    assert row["n_source"] == 0  # an export need not hold it


def test_few_periods_are_not_enough():
    (row,) = period_rows(windows([1e5] * 5, [2e5] * 5), TERMS)
    assert row["outcome"] == NOT_ENOUGH
    assert row["ratio"] == 2.0
    (row,) = period_rows(windows([1e5] * 5, [np.nan] * 5), TERMS)
    assert row["outcome"] == NOT_ENOUGH
    assert np.isnan(row["shadow"])


@pytest.fixture(scope="module")
def near_saturation():
    """A shadow at 96 % of its capacity, whose p99 is five times the source's and has no interval of its own."""
    return simulate(alike("exponential", 0.8, 200_000, 1, slower=1.2))


def test_a_shadow_without_an_interval_is_worse_by_at_least_something(near_saturation):
    d = near_saturation.compare()
    p99 = row(d, "p99")
    assert (p99["outcome"], p99["high"], p99["ratio_high"], p99["shadow_high"]) == (WORSE, *[math.inf] * 3)
    true = exact(0.99, 0.96, 0.12) / exact(0.99, 0.8)
    assert 1.5 < p99["ratio_low"] < true
    least = 100 * (p99["ratio_low"] - 1)
    assert p99["verdict"] == f"worse, by at least {least:.3g} %; how much more is unknown"
    # the answer uses an end of the source's that lies above its value
    assert 0.0 < p99["low"] < p99["shadow_low"] - p99["source"]
    assert p99["source_low"] < exact(0.99, 0.8) < p99["source_high"]
    assert p99["method"] == "sections, one-sided"
    assert row(d, "p50")["high"] < math.inf


def test_a_source_without_an_interval_makes_the_shadow_better(near_saturation):
    """The sides exchanged: the same answer from the other side."""
    exchange = {"source": "shadow", "shadow": "source"}
    frames = {n: getattr(near_saturation, n).replace({"role": exchange}) for n in ("windows", "latency")}
    p99, mirrored = row(near_saturation.compare(), "p99"), row(compare(frames), "p99")
    assert (mirrored["outcome"], mirrored["low"], mirrored["ratio_low"]) == (BETTER, -math.inf, 0.0)
    assert mirrored["high"] == -p99["low"]
    assert mirrored["ratio_high"] == pytest.approx(1 / p99["ratio_low"])
    least = 100 * (1 - mirrored["ratio_high"])
    assert mirrored["verdict"] == f"better, by at least {least:.3g} %; how much more is unknown"


def test_a_mean_without_an_interval_is_bounded_by_latencies_that_are_cut_off():
    d = simulate(alike("exponential", 0.5, 200_000, 1, slower=1.95)).compare()
    mean = row(d, "mean")
    assert (mean["outcome"], mean["method"]) == (WORSE, "sections, one-sided")
    assert 1.0 < mean["ratio_low"] < mean["ratio"]


@pytest.mark.slow
def test_equal_variants_have_no_one_sided_answers():
    """Sides that have data or not by chance; a false answer has half the level on each side at most."""
    n, n_one_sided, n_silent = 60, 0, 0
    for seed in range(n):
        d = simulate(alike("exponential", 0.8, 60_000, seed)).compare()
        p99 = row(d, "p99")
        n_silent += bool(np.isnan(p99["low"]))
        n_one_sided += np.isinf(d[["low", "high"]]).any(axis=None)
    assert 0.1 * n < n_silent < 0.9 * n
    assert n_one_sided <= binom.ppf(0.999, n, 0.05)


@pytest.mark.parametrize(("load", "q"), [(0.9, 0.95), (0.8, 0.99)])
def test_a_share_above_a_limit_has_data_where_the_quantile_at_its_depth_has_them(load, q):
    """A run of 20,000 requests has few independent answers in these tails, though far more than thirty of them."""
    d = simulate(alike("exponential", load, 20_000, 1)).compare(slo_s=exact(q, load))
    quantile, share = row(d, f"p{100 * q:g}"), row(d, "slo_miss")
    assert share["source"] > 30 / 20_000
    assert {quantile["outcome"], share["outcome"]} == {NOT_ENOUGH}
    assert np.isnan([quantile["low"], share["low"], share["source_low"]]).all()


def test_a_limit_far_beyond_all_answers_is_missed_by_neither(run):
    """Nothing is known at its depth, but no quantile at a lesser depth exceeds it."""
    never = row(run.compare(slo_s=10.0, margin_points=0.2), "slo_miss")
    assert (never["source"], never["shadow"], never["outcome"]) == (0.0, 0.0, SAME)
    assert never["method"] == "sections, bounded"
    assert -0.002 < never["low"] < 0.0 < never["high"] < 0.002


def test_a_limit_that_the_source_hardly_ever_misses_and_a_busy_shadow_often_does(near_saturation):
    often = row(near_saturation.compare(slo_s=exact(0.99999, 0.8)), "slo_miss")
    assert (often["outcome"], often["method"]) == (WORSE, "sections, bounded")
    assert 0.05 < often["low"] < often["difference"]


def test_the_share_of_a_shadow_near_saturation_is_bounded_from_below():
    d = simulate(alike("exponential", 0.5, 20_000, 2, slower=1.99)).compare(slo_s=exact(0.95, 0.5))
    late = row(d, "slo_miss")
    assert (late["outcome"], late["method"], late["high"]) == (WORSE, "sections, one-sided", math.inf)
    assert 0.0 < late["low"] < late["difference"]
    assert late["verdict"] == f"worse, by at least {100 * late['low']:.3g} points; how much more is unknown"


@pytest.mark.slow
@pytest.mark.parametrize(("load", "changes"), [(0.8, (1.06, 1.14, 1.20)), (0.5, (1.85, 1.95))])
def test_p99_is_called_worse_no_less_often_the_worse_it_is(load, changes):
    runs, powers = 40, []
    for slower in changes:
        found = [
            row(simulate(alike("exponential", load, 200_000, seed, slower)).compare(), "p99") for seed in range(runs)
        ]
        powers.append(np.mean([r["outcome"] == WORSE for r in found]))
    # a true power of 95 % shows at least this, but for one case in a thousand
    assert min(powers) >= binom.ppf(0.001, runs, 0.95) / runs


def modulated(seed, sojourns, n=60_000):
    """About n requests whose rate jumps between 10 and 30 per second: loads of 0.25 and 0.75."""
    s = alike("exponential", 0.5, n, seed)
    traffic = {"process": "mmpp", "rates_per_s": [10.0, 30.0], "mean_sojourn_s": [s.horizon_s / sojourns] * 2}
    return s.replace({"traffic": traffic})


def test_a_modulated_rate_needs_ten_cycles():
    d = simulate(modulated(1, 12)).compare(slo_s=0.5)
    assert set(d.loc[~d["metric"].str.startswith("error"), "outcome"]) == {NOT_ENOUGH}
    assert d.loc[~d["metric"].str.startswith("error"), "source_low"].isna().all()


@pytest.mark.slow
def test_one_side_of_a_modulated_rate_covers_the_value_of_a_long_run():
    """A modulation that was taken for a trend covered 70 % with 12 sojourns, and 38 % with 4."""
    long = simulate(modulated(1, 40 * 100, 60_000 * 100))
    source = long.windows[long.windows["role"] == "source"]
    true = np.average(source["ModelLatency_Average"], weights=source["Invocations"]) / 1e6
    n, hits, has = 40, 0, 0
    for seed in range(n):
        d = simulate(modulated(seed, 40)).compare()
        mean = row(d, "mean")
        assert not d["method"].str.contains("trend").any()
        has += not np.isnan(mean["low"])
        hits += mean["source_low"] <= true <= mean["source_high"]
    assert has > 0.8 * n
    assert hits >= binom.ppf(0.001, has, 0.9)
