"""Pairs: requests with their copies, and periods of an export."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from shadowsim.statistics.contrasts import NOT_ENOUGH, Terms
from shadowsim.statistics.pairs import paired_rows, period_rows

TERMS = Terms(margin_pct=10.0, margin_points=0.1, alpha=0.05)


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
    assert mean["verdict"] == "no difference larger than 10 %"
    assert mean["n_source"] == mean["n_shadow"]


def test_intervals_of_pairs_cover():
    n, hits = 80, {"paired_mean": 0, "paired_p50": 0, "paired_p95": 0}
    true = {"paired_mean": 0.0, "paired_p50": 0.0, "paired_p95": 1.6449 * np.sqrt(2) * 0.05}
    for seed in range(n):
        rows = by_metric(paired_rows(requests(np.random.default_rng(seed), n=2000), TERMS))
        for metric in hits:
            hits[metric] += rows[metric]["low"] <= true[metric] <= rows[metric]["high"]
    for metric, found in hits.items():
        assert binom.ppf(0.001, n, 0.92) <= found, metric


def test_quantiles_of_the_differences_have_no_verdict():
    rows = by_metric(paired_rows(requests(np.random.default_rng(2)), TERMS))
    assert rows["paired_p5"]["difference"] == pytest.approx(-rows["paired_p95"]["difference"], rel=0.2)
    assert rows["paired_p5"]["verdict"] == rows["paired_p95"]["verdict"] == ""
    assert rows["paired_p50"]["verdict"] == "no difference larger than 10 %"


def test_refused_requests_and_those_without_a_copy_are_no_pairs():
    frame = requests(np.random.default_rng(3), n=100)
    frame.loc[frame["role"] == "shadow", "latency_s"] = np.nan
    assert list(paired_rows(frame, TERMS)) == []


def test_few_pairs_are_not_enough():
    rows = by_metric(paired_rows(requests(np.random.default_rng(4), n=15), TERMS))
    assert rows["paired_mean"]["verdict"] == NOT_ENOUGH
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
    assert row["verdict"] == "worse"
    assert row["ratio"] == pytest.approx(np.median((shadow / source)[3:]), rel=0.01)
    assert row["n_source"] == 20_000


def test_one_bad_hour_does_not_move_the_median():
    rng = np.random.default_rng(6)
    source = 1e5 * (1 + 0.01 * rng.standard_normal(144))
    shadow = 1e5 * (1 + 0.01 * rng.standard_normal(144))
    shadow[60:66] *= 50
    (row,) = period_rows(windows(source, shadow), TERMS)
    assert row["verdict"] == "no difference larger than 10 %"
    assert row["n_source"] == 0  # an export need not hold it


def test_few_periods_are_not_enough():
    (row,) = period_rows(windows([1e5] * 5, [2e5] * 5), TERMS)
    assert row["verdict"] == NOT_ENOUGH
    assert row["ratio"] == 2.0
    (row,) = period_rows(windows([1e5] * 5, [np.nan] * 5), TERMS)
    assert row["verdict"] == NOT_ENOUGH
    assert np.isnan(row["shadow"])
