"""Frames of load runs: schemas, latencies from planned times, every request counted, exact buckets, tokens."""

import math
from array import array

import numpy as np
import pytest

from shadowsim import frames
from shadowsim.histogram import bucket_of, edge_of
from shadowsim.measuring.generator.load_frames import load_frames
from shadowsim.measuring.generator.load_records import (
    ANSWERED,
    CUT,
    DROPPED,
    ERROR_4XX,
    ERROR_5XX,
    FAILED,
    STATUSES,
    TIMED_OUT,
    UNAVAILABLE,
    LoadRecords,
    merged,
)
from shadowsim.measuring.generator.load_schedule import load_scenario

ENDS = (ANSWERED, ANSWERED, ERROR_4XX, ERROR_5XX, TIMED_OUT, UNAVAILABLE, FAILED, DROPPED, CUT)


def rows(n=900, tokens=False):
    """Return rows of 9 s with every way to end, in turn."""
    records, rng = LoadRecords(), np.random.default_rng(2)
    for number, planned in enumerate(np.sort(rng.uniform(0.0, 9.0, n)).tolist()):
        row, status = records.begin(number, planned, lag_s=0.001), ENDS[number % len(ENDS)]
        if status != ANSWERED:
            records.fail(row, status, f"cause {status}")
        records.status[row] = status
        if status == DROPPED:
            continue
        records.sent[row] = planned + 0.001
        if status == CUT:
            continue
        records.first_byte[row] = planned + 0.002
        records.done[row] = planned + 0.003 + rng.exponential(0.02)
        if status == ANSWERED:
            records.response_bytes[row] = 7
            if tokens:
                records.first_token[row] = planned + 0.0025
                records.output_tokens[row] = number % 4
                records.keep_tokens(row, array("d", [planned + 0.0025 + 1e-5 * k for k in range(number % 4)]))
    return records.table()


@pytest.fixture(scope="module")
def scenario():
    return load_scenario(rate_per_s=100, duration_s=9, changes={"run.period_s": 2})


def test_frames_have_the_schemas_and_can_be_read_back(scenario, tmp_path):
    for tokens in (False, True):
        for name, frame in load_frames(scenario, rows(tokens=tokens), "load-").items():
            if name == "tokens":
                continue  # written by the run itself
            schema = {c.name: c.dtype for c in frames.SCHEMAS[name] + frames.OPTIONAL[name]}
            assert {str(column): str(frame[column].dtype) for column in frame} == {c: schema[c] for c in frame}
            frame.to_parquet(tmp_path / name)
            read = frames.read(tmp_path / name, frames.SCHEMAS[name], frames.OPTIONAL[name])
            assert list(read.columns) == list(frame.columns)


def test_every_request_is_counted_once(scenario):
    table = rows()
    made = load_frames(scenario, table)
    windows, requests, latency = made["windows"], made["requests"], made["latency"]
    n_by_end = {STATUSES[end]: 100 * ENDS.count(end) for end in ENDS}
    assert requests["status"].value_counts().to_dict() == n_by_end
    assert len(windows) == 5
    assert windows["requests_planned"].sum() == 900
    assert windows["requests_dropped"].sum() == 100
    assert windows["Invocations"].sum() == 800
    assert windows["Invocation4XXErrors"].sum() == 100
    assert windows["Invocation5XXErrors"].sum() == 200  # with those that met no service
    assert windows["InvocationModelErrors"].sum() == 500
    assert windows["ModelLatency_SampleCount"].sum() == latency["count"].sum() == 500
    assert requests["latency_s"].notna().sum() == 500
    assert np.array_equal(requests["arrival_s"], table["planned"])
    assert set(requests.loc[requests["status"] == "failed", "cause"]) == {f"cause {FAILED}"}
    assert set(requests.loc[requests["status"] == "answered", "cause"]) == {""}


def test_latency_counts_from_the_planned_time(scenario):
    table = rows()
    made = load_frames(scenario, table)
    latency = made["requests"]["latency_s"]
    assert np.array_equal(latency.dropna(), (table["done"] - table["planned"])[latency.notna()])
    first = made["requests"]["arrival_s"] < 2.0
    window = made["windows"].iloc[0]
    assert window["ModelLatency_Maximum"] == pytest.approx(latency[first].max() * 1e6)
    assert window["ModelLatency_p50"] == pytest.approx(latency[first].median() * 1e6, rel=0.05)
    assert window["generator_lag_p99_s"] == pytest.approx(0.001)


def test_buckets_are_those_of_the_histogram(scenario):
    made = load_frames(scenario, rows())
    counts = {}
    for x in made["requests"]["latency_s"].dropna():
        edge = edge_of(bucket_of(x))
        counts[edge] = counts.get(edge, 0) + 1
    assert made["latency"].groupby("low_s")["count"].sum().to_dict() == counts
    assert made["latency"]["section"].max() == 4


def test_tokens_have_their_own_times(scenario):
    made = load_frames(scenario, rows(tokens=True))
    requests, windows = made["requests"], made["windows"]
    answered = requests["status"] == "answered"
    assert np.allclose(requests.loc[answered, "first_token_s"], 0.0025)
    assert requests.loc[~answered, "first_token_s"].isna().all()
    assert windows["FirstChunkModelLatency_SampleCount"].sum() == answered.sum()
    two = answered & (requests["output_tokens"] >= 2)
    assert windows["TimePerOutputToken_SampleCount"].sum() == two.sum()
    each = (requests["latency_s"] - requests["first_token_s"]) / (requests["output_tokens"] - 1)
    exact = np.sort(each[two].to_numpy(float))
    measured = frames.quantile(made["latency"], 0.5, frames.PER_TOKEN).iloc[0]
    assert measured == pytest.approx(exact[math.ceil(0.5 * exact.size) - 1], rel=0.02)
    assert windows["output_tokens"].sum() == requests["output_tokens"].fillna(0).sum()
    tokens = made["tokens"]
    assert tokens.groupby("request").size().to_dict() == {
        int(r): int(n) for r, n in zip(requests["request"], requests["output_tokens"].fillna(0), strict=True) if n
    }
    assert np.allclose(tokens["token_s"], 0.0025 + 1e-5 * tokens.groupby("request").cumcount())


def test_rows_of_processes_are_put_together_exactly(scenario):
    table = rows(tokens=True)
    halves = []
    for start in (1, 0):
        part, names = {name: values[start::2] for name, values in table.columns.items()}, table.causes[::-1]
        to = np.array([names.index(cause) for cause in table.causes] + [-1])
        mine = np.isin(table.token_number, part["number"])
        tokens = table.token_number[mine], table.token_time[mine]
        halves.append(type(table)(part | {"cause": to[part["cause"]]}, names, *tokens))
    both = merged(halves)
    a, b = (load_frames(scenario, t) for t in (table, both))
    assert a["requests"].equals(b["requests"])
    assert a["tokens"].equals(b["tokens"])


def test_a_run_without_requests_has_frames(scenario):
    made = load_frames(scenario, LoadRecords().table())
    assert len(made["windows"]) == 5
    assert made["windows"]["Invocations"].sum() == 0
    assert len(made["requests"]) == len(made["latency"]) == 0
