"""Histograms: the same buckets and quantiles as the compiled ones, and quantiles against sorted lists."""

import math

import numpy as np
import pytest
from cases import scenario, service
from hypothesis import given
from hypothesis import strategies as st

from shadowsim import simulate
from shadowsim.engine import _kernel as k
from shadowsim.frames import PERCENTILES
from shadowsim.histogram import (
    BUCKETS_LOG2,
    LOWEST_S,
    N_BUCKETS,
    bucket_of,
    buckets_of,
    edge_of,
    edges_of,
    keys_of,
    place_of,
    quantile_within,
    quantiles,
)

COUNTS = st.lists(st.integers(0, 5), min_size=1, max_size=8).filter(any)


@given(st.floats(0.0, 1e9))
def test_buckets_are_the_kernels(latency_s):
    assert (BUCKETS_LOG2, N_BUCKETS, LOWEST_S) == (k.BUCKETS_LOG2, k.BUCKETS, k.BUCKET_LOWEST_S)
    bucket = bucket_of(latency_s)
    assert bucket == k.bucket_of(latency_s)
    assert edge_of(bucket) == k.bucket_edges()[bucket]
    assert buckets_of(np.array([latency_s, 0.0, latency_s])).tolist() == [bucket, 0, bucket]


def test_quantiles_of_a_window_are_the_kernels_to_the_bit():
    """Up to 100 windows, each is a section of the latency frame."""
    run = simulate(scenario({"process": "poisson", "rate_per_s": 20.0}, service("lognormal", 0.1, 4), horizon_s=900.0))
    windows = run.windows.set_index(["role", "time_s"]).sort_index()
    n = 0
    for (role, section), part in run.latency.groupby(["role", "section"]):
        window = windows.loc[role].iloc[section]
        columns = [part[name].to_numpy(float) for name in ("low_s", "high_s", "count")]
        values = np.array(quantiles(*columns, list(PERCENTILES.values()))) * 1e6
        least, greatest = window["ModelLatency_Minimum"], window["ModelLatency_Maximum"]
        expected = [window[f"ModelLatency_{name}"] for name in PERCENTILES]
        assert np.clip(values, least, greatest).tolist() == expected
        n += 1
    assert n == 2 * run.windows["time_s"].nunique() > 20


@given(st.lists(st.floats(1e-5, 100.0), min_size=1, max_size=40), st.floats(0.0, 1.0))
def test_counts_by_bucket_and_counts_between_edges_have_the_same_quantiles(latencies, q):
    buckets, count = np.unique([bucket_of(x) for x in latencies], return_counts=True)
    edges = k.bucket_edges()
    (value,) = quantiles(edges[buckets], edges[buckets + 1], count.astype(float), [q])
    counts = dict(zip(buckets.tolist(), count.tolist(), strict=True))
    assert quantile_within(counts, q, 0.0, math.inf) == pytest.approx(value, rel=1e-14)
    exact = sorted(latencies)[max(0, math.ceil(q * len(latencies)) - 1)]
    assert value == pytest.approx(exact, rel=1 / 128)
    assert quantile_within(counts, q, min(latencies), max(latencies)) == pytest.approx(exact, rel=1 / 128)


def test_nothing_has_no_quantile():
    assert np.isnan(quantiles(np.array([0.0]), np.array([1.0]), np.array([0.0]), [0.5, 1.0])).all()
    assert math.isnan(quantile_within({}, 0.5, 0.0, 1.0))


@given(COUNTS, st.floats(0.0, 1.0))
def test_a_place_is_never_an_empty_bucket(counts, q):
    upto = np.cumsum(counts)
    place = place_of(upto, q * upto[-1])
    assert counts[place] > 0
    assert upto[place] - counts[place] <= q * upto[-1] <= upto[place]


@given(st.floats(0.0, allow_infinity=True))
def test_every_number_lies_in_the_bucket_of_its_key(x):
    low, high = edges_of(int(keys_of(np.array([x]))[0]))
    assert low <= x
    assert x < high or math.isinf(x)


def test_a_latencys_bucket_is_its_key_counted_from_the_lowest():
    latencies = np.array([LOWEST_S, 0.001, 0.1, 1.0, 60.0])
    keys = keys_of(latencies).astype(int) - int(keys_of(np.array([LOWEST_S]))[0])
    assert keys.tolist() == [bucket_of(x) for x in latencies]
