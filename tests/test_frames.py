"""Frames: their schemas, quantiles and reading."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from cases import scenario, service
from hypothesis import given
from hypothesis import strategies as st

from shadowsim import InputError, Result, compare, simulate
from shadowsim.engine import _kernel as k
from shadowsim.frames import (
    FIRST_TOKEN,
    LATENCY,
    OPTIONAL,
    PER_TOKEN,
    PERCENTILES,
    REQUESTS,
    SCHEMAS,
    TOKEN_LATENCY,
    TOKEN_WINDOWS,
    WINDOWS,
    build,
    of_measure,
    quantile,
    read,
    repeated,
)
from shadowsim.planning.slo import measure, parse_slo
from shadowsim.plots.run import latency_distribution
from shadowsim.scenario.tokens import MOST_GOODPUT


def test_the_kernels_quantiles_are_the_schemas():
    assert tuple(PERCENTILES.values()) == k.QUANTILES


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_column_is_named_once_and_explained(name):
    schema = SCHEMAS[name] + OPTIONAL[name]
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


# ---- Times of tokens beside ModelLatency ----


def with_other_measures(latency):
    """A latency frame with the measures of tokens, at other times and in other numbers."""
    own = latency.assign(measure="latency")
    first = own.assign(measure=FIRST_TOKEN, low_s=own["low_s"] / 8, high_s=own["high_s"] / 8, count=own["count"] * 3)
    each = own.iloc[::2].assign(measure=PER_TOKEN, low_s=0.25, high_s=0.5)
    schema = LATENCY + TOKEN_LATENCY
    mixed = pd.concat([each, own, first], ignore_index=True)
    return build(schema, {c.name: mixed[c.name] for c in schema})


def test_other_measures_do_not_disturb_latencies(tmp_path):
    """Quantiles, summaries, comparisons, goals and plots are those of ModelLatency, also of a saved run."""
    plain = simulate(scenario({"process": "poisson", "rate_per_s": 50.0}, service(mean_s=0.01), period_s=1.0))
    mixed = replace(plain, latency=with_other_measures(plain.latency))
    assert len(mixed.latency) > 2 * len(plain.latency)
    mixed.save(tmp_path / "run")
    table = plain.compare()
    loaded = Result.load(tmp_path / "run")
    assert loaded.latency["measure"].value_counts().to_dict() == mixed.latency["measure"].value_counts().to_dict()
    for run in (mixed, loaded):
        pd.testing.assert_frame_equal(run.summary(), plain.summary())
        pd.testing.assert_frame_equal(run.compare(), table)
        pd.testing.assert_series_equal(run.quantile(0.99), plain.quantile(0.99))
        for text in ("shadow.p90 <= 1s", "share(latency > 20ms) <= 1%"):
            for goal in parse_slo(text).goals:
                assert measure(goal, run) == measure(goal, plain)
        assert latency_distribution(run.latency).to_json() == latency_distribution(plain.latency).to_json()
    pd.testing.assert_frame_equal(compare(tmp_path / "run"), table)


def test_quantiles_of_a_measure():
    plain = simulate(scenario({"process": "poisson", "rate_per_s": 50.0}, service(mean_s=0.01)))
    mixed = with_other_measures(plain.latency)
    pd.testing.assert_series_equal(quantile(mixed, 0.9), quantile(plain.latency, 0.9))
    pd.testing.assert_series_equal(quantile(mixed, 0.9, FIRST_TOKEN), quantile(plain.latency, 0.9) / 8)
    assert quantile(mixed, 0.5, PER_TOKEN)["Source"] == 0.375
    assert of_measure(plain.latency) is plain.latency
    assert quantile(plain.latency, 0.5, FIRST_TOKEN).empty
    with pytest.raises(InputError, match=r"^measure: must be one of latency, first_token, per_token, got 'ttft'"):
        quantile(mixed, 0.5, "ttft")


def test_there_is_a_column_for_each_pair_of_limits_that_a_scenario_may_list():
    columns = [c.name for c in TOKEN_WINDOWS if c.name.startswith("goodput_")]
    assert columns == [f"goodput_{i}" for i in range(1, MOST_GOODPUT + 1)]
