"""Frames: their schemas, quantiles and reading."""

import numpy as np
import pandas as pd
import pytest
from cases import scenario, service
from hypothesis import given
from hypothesis import strategies as st

from shadowsim import InputError, simulate
from shadowsim.engine import _kernel as k
from shadowsim.frames import LATENCY, PERCENTILES, REQUESTS, SCHEMAS, WINDOWS, build, quantile, read, repeated


def test_the_kernels_quantiles_are_the_schemas():
    assert tuple(PERCENTILES.values()) == k.QUANTILES


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_column_is_named_once_and_explained(name):
    schema = SCHEMAS[name]
    assert len({c.name for c in schema}) == len(schema)
    for c in schema:
        assert c.meaning
        assert c.meaning[0] != " "
    assert {c.unit for c in schema} <= {"", "s", "us", "B"}
    assert all(c.unit == "s" for c in schema if c.name.endswith("_s") and not c.name.endswith("per_s"))


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_simulation_has_exactly_the_schema(name):
    frame = getattr(simulate(scenario({"process": "poisson", "rate_per_s": 5.0})), name)
    assert list(frame.columns) == [c.name for c in SCHEMAS[name]]
    assert isinstance(frame.index, pd.RangeIndex)
    for c in SCHEMAS[name]:
        if c.dtype != "str":
            assert str(frame[c.name].dtype) == c.dtype, c.name


def test_a_column_too_many_or_too_few_is_refused():
    full = {c.name: np.zeros(2) for c in LATENCY} | {"variant": ["a", "b"], "role": ["source", "shadow"]}
    assert len(build(LATENCY, full)) == 2
    with pytest.raises(KeyError, match="extra"):
        build(LATENCY, full | {"extra": 1})
    with pytest.raises(KeyError, match="count"):
        build(LATENCY, {n: v for n, v in full.items() if n != "count"})


@given(st.lists(st.floats(1e-5, 100.0), min_size=1, max_size=60), st.floats(0.0, 1.0))
def test_a_quantile_is_within_a_bucket_of_the_empirical_one(latencies, q):
    edges = k.bucket_edges()
    bucket = np.array([k.bucket_of(x) for x in latencies])
    frame = build(
        LATENCY,
        {
            "section": np.arange(len(latencies)) % 3,
            "variant": "v",
            "role": "source",
            "low_s": edges[bucket],
            "high_s": edges[bucket + 1],
            "count": 1,
        },
    )
    value = quantile(frame, q)["v"]
    exact = sorted(latencies)[max(0, int(np.ceil(q * len(latencies))) - 1)]
    assert value == pytest.approx(exact, rel=1 / 128)


def test_quantiles_come_source_first_whatever_the_names():
    s = scenario({"process": "poisson", "rate_per_s": 20.0}, service(mean_s=0.01), service(mean_s=0.1))
    r = simulate(s)
    median = r.quantile(0.5)
    assert median.index.tolist() == ["Source", "Shadow"]
    assert median["Source"] < median["Shadow"]
    exact = r.requests.groupby("variant")["latency_s"].quantile(0.5)
    assert median["Shadow"] == pytest.approx(exact["Shadow"], rel=0.02)


def test_quantiles_outside_the_unit_interval_are_refused():
    r = simulate(scenario({"process": "poisson", "rate_per_s": 5.0}))
    with pytest.raises(InputError, match=r"q: must be in \[0, 1\], as 0.99 for p99, got 95"):
        r.quantile(95)


def test_a_variant_without_requests_has_no_quantile():
    r = simulate(scenario({"process": "poisson", "rate_per_s": 5.0}, share=0))
    assert r.quantile(0.5).index.tolist() == ["Source"]
    assert np.isnan(r.summary().loc["Shadow", "p99_s"])


def test_reading_what_is_no_frame(tmp_path):
    with pytest.raises(InputError, match="is missing"):
        read(tmp_path / "windows.parquet", WINDOWS)
    (tmp_path / "windows.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(InputError, match="is not a Parquet file"):
        read(tmp_path / "windows.parquet", WINDOWS)
    pd.DataFrame({"request": [1]}).to_parquet(tmp_path / "requests.parquet")
    with pytest.raises(InputError, match="lacks the columns inference_id, variant"):
        read(tmp_path / "requests.parquet", REQUESTS)


def test_a_column_of_repeated_texts():
    column = repeated(["a", "b"], np.array([1, 0, 1]))
    assert list(column) == ["b", "a", "b"]
    assert column.dtype == pd.Series(["a"], dtype="str").dtype
