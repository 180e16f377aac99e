"""Arrivals of a trace are read right or refused, and every reading is said."""

import bz2
import gzip
import json
import lzma
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from cases import scenario, service
from hypothesis import event, given, settings
from hypothesis import strategies as st

from shadowsim import Scenario, simulate
from shadowsim.errors import InputError
from shadowsim.scenario.traffic import parse_traffic

EPOCH = datetime(2024, 5, 10, tzinfo=UTC)


def written(folder, table, name="t.csv"):
    text = table if isinstance(table, str) else pd.DataFrame(table).to_csv(index=False)
    (folder / name).write_text(text)
    return folder / name


def trace_of(file, **keys):
    return parse_traffic({"process": "trace", "path": str(file), **keys}, "traffic").trace()


def refusal(file, **keys):
    with pytest.raises(InputError) as caught:
        trace_of(file, **keys)
    return str(caught.value)


# ---- The column ----


def test_nginx_request_time_is_a_duration(tmp_path):
    """One request per second for an hour; the durations of 20 to 29 ms are no arrivals."""
    rows = [(EPOCH + timedelta(seconds=i), 0.020 + i * 7 % 10 / 1000, 200) for i in range(3600)]
    table = pd.DataFrame(rows, columns=["time_iso8601", "request_time", "status"])
    trace = trace_of(written(tmp_path, table))
    assert trace.pass_s == 3600.0
    assert "column `time_iso8601`, read as ISO 8601 dates" in trace.reading
    alone = written(tmp_path, table[["request_time", "status"]], "alone.csv")
    text = refusal(alone)
    assert "column request_time may hold durations" in text
    assert "name the column of the arrivals in time_column; it has request_time, status" in text
    assert trace_of(alone, time_column="request_time").n_requests == 3600


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"id": [1, 2, 3, 4, 5], "time": [0.3, 0.1, 0.4, 0.1, 0.5]}, None),
        ({"start_time": [0.02, 0.021, 0.02, 0.03, 0.02], "n": [1, 2, 3, 4, 5]}, None),
        ({"time": [0.1, 0.2, 0.3, 0.4, 0.5], "start_time": [1, 2, 3, 4, 5]}, None),
        ({"time": [0.0, 0.5, 1.5, 1.75, 2.0], "latency": [0.1, 0.3, 0.2, 0.1, 0.4]}, "time"),
        ({"request_time": ["2024-05-10T00:00:00Z"] * 5, "n": [1, 2, 3, 4, 5]}, "request_time"),
        ({"duration": [5, 1, 2, 3, 4], "ts": [1, 2, 3, 4, 6]}, "ts"),
        ({"duration": [5, 1, 2, 3, 4]}, None),
        ({"latency_ms": [5, 1, 2, 3, 4]}, None),
        ({"time": np.arange(2000) * 1e-7}, None),  # ten million per second
        ({"time": [1715299200.5, 1715299200.1, 1715299200.4, 1715299200.2, 1715299200.3]}, "time"),
        ({"arrivalTime": [0, 1, 2], "startTime": [5, 6, 7]}, "arrivalTime"),
        ({"time_local": ["10/May/2024:00:00:00 +0000"] * 2, "msec": [1715299200.001, 1715299200.002]}, "msec"),
    ],
)
def test_a_doubtful_column_is_taken_only_where_it_is_no_duration(tmp_path, columns, chosen):
    file = written(tmp_path, columns)
    if chosen is None:
        text = refusal(file)
        assert "time_column" in text
        assert all(name in text for name in columns)
    else:
        assert f"column `{chosen}`" in trace_of(file).reading


# ---- The unit ----


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("2024-05-10 00:00:00,123", {}),  # log4j and Python's logging
        ("2024-05-10T00:00:00.123Z", {}),
        ("20240510T000000.123Z", {}),
        ("2024-05-10T02:00:00.123+02:00", {}),
        ("1715299200.123", {}),
        ("1715299200123", {}),
        ("1715299200123000", {}),
        ("05/10/2024 00:00:00.123", {"time_unit": "%m/%d/%Y %H:%M:%S.%f"}),
        ("123", {"time_unit": "ms"}),
        ("0.123", {"time_unit": "s"}),
    ],
)
def test_every_way_to_write_a_time(tmp_path, text, keys):
    later = {"123": "1373", "0.123": "1.373"}.get(text) or text.replace("00.123", "01.373").replace("00,123", "01,373")
    later = later.replace("1715299200123", "1715299201373").replace("1715299200.123", "1715299201.373")
    file = written(tmp_path, f'timestamp,n\n"{text}",1\n"{later}",2\n')
    assert trace_of(file, **keys).arrival_s.tolist() == pytest.approx([0.0, 1.25], abs=3e-7)


def test_common_log_format_and_dates_that_need_a_format(tmp_path):
    logged = written(tmp_path, "time_local\n[10/May/2024:00:00:00 +0000]\n[10/May/2024:02:00:05 +0200]\n")
    assert trace_of(logged).arrival_s.tolist() == [0.0, 5.0]
    american = written(tmp_path, "date,n\n05/10/2024,1\n05/11/2024,2\n", "us.csv")
    text = refusal(american)
    assert "fails in line 2" in text
    assert "any other date needs its strptime format in time_unit" in text
    assert trace_of(american, time_unit="%m/%d/%Y").span_s == 86_400.0
    assert "must be s, ms, us, ns, iso, or a strptime format" in refusal(american, time_unit="hours")


def test_a_relative_clock_has_the_likely_unit_and_says_what_the_other_would_be(tmp_path):
    """Mooncake's form: milliseconds from 0 in JSON lines, here 100 requests per second for two minutes."""
    lines = (json.dumps({"timestamp": 10 * i, "input_length": 7, "hash_ids": [1, 2]}) for i in range(12_000))
    trace = trace_of(written(tmp_path, "\n".join(lines), "t.jsonl"))
    assert trace.pass_s == pytest.approx(120.0)
    assert trace.reading == (
        "t.jsonl: column `timestamp`, read as milliseconds from 0, resolution 10 ms, 12,000 requests over 2 min "
        "(100 requests/s; as seconds it would be 0.1 requests/s over 33.3 h: set time_unit)."
    )
    assert trace.columns["input_length"].tolist() == [7.0] * 12_000
    seconds = trace_of(tmp_path / "t.jsonl", time_unit="s")
    assert seconds.pass_s == pytest.approx(120_000.0)
    assert "as milliseconds" not in seconds.reading
    named = written(tmp_path, {"timestamp_ms": range(0, 200, 10)}, "named.csv")
    assert "read as milliseconds from the first of them, as its name says" in trace_of(named).reading


def test_a_clock_in_ns_that_began_lately_is_no_date(tmp_path):
    """0.4 s to 1.4 s after its start in ns, which as seconds since 1970 would be 1982 to 2014."""
    trace = trace_of(written(tmp_path, {"timestamp": 400_000_000 + 10_000_000 * np.arange(100)}))
    assert trace.pass_s == pytest.approx(1.0)
    assert "read as nanoseconds from 400,000,000" in trace.reading
    assert "as seconds it would be 1e-07 requests/s" in trace.reading
    dated = trace_of(written(tmp_path, {"timestamp": 1_700_000_000 + 86_400 * np.arange(4)}, "days.csv"))
    assert "read as seconds since 1970, resolution" in dated.reading


# ---- Coarse times, batches and counts ----


def test_whole_seconds_are_spread_evenly_or_not_at_all(tmp_path):
    exact = np.arange(6000) / 10.0
    file = written(tmp_path, {"arrival_s": np.floor(exact).astype(int), "n": range(6000)})
    even = trace_of(file, within="even")
    assert even.arrival_s.tolist() == pytest.approx(exact.tolist(), abs=1e-9)
    assert even.pass_s == 600.0
    assert even.columns["n"].tolist() == list(range(6000))
    assert trace_of(file, within="together").arrival_s.tolist() == np.floor(exact).tolist()
    spread = trace_of(file)
    assert (np.floor(spread.arrival_s) == np.floor(exact)).all()
    assert (np.diff(spread.arrival_s) >= 0.0).all()
    assert "resolution 1 s, 6,000 requests over 10 min, spread at random over 1 s" in spread.reading
    assert spread.arrival_s.tolist() == trace_of(file).arrival_s.tolist()  # by row, and no other chance


def test_poisson_arrivals_cut_to_the_second_wait_as_before(tmp_path):
    """M/D/1 at load 0.5 with 10 ms: the mean latency is 15 ms (Pollaczek-Khinchine), by 60 batches of a minute."""
    rng = np.random.default_rng(5)
    exact = np.cumsum(rng.exponential(1 / 50, 180_000))
    file = written(tmp_path, {"timestamp_s": np.floor(exact[exact < 3600]).astype(int)})
    traffic = {"process": "trace", "path": str(file)}
    result = simulate(scenario(traffic, service("deterministic", 0.01), sample_requests=0, horizon_s=3600))
    source = result.windows[result.windows["role"] == "source"]
    mean_ms = source["ModelLatency_Average"].to_numpy() / 1e3
    error_ms = mean_ms.std(ddof=1) / np.sqrt(len(mean_ms))
    assert abs(mean_ms.mean() - 15.0) < 4.0 * error_ms
    assert error_ms < 0.2


def test_batches_are_spread_to_the_next_time(tmp_path):
    """Ten requests every three seconds, stamped to the millisecond."""
    starts = np.cumsum(np.random.default_rng(1).integers(2000, 4000, 100))
    file = written(tmp_path, {"timestamp_ms": np.repeat(starts, 10)})
    trace = trace_of(file)
    assert "spread at random up to the next time, since 10 at once are batches" in trace.reading
    inside = np.searchsorted(starts - starts[0], 1e3 * trace.arrival_s, side="right")
    assert np.bincount(inside)[1:].tolist() == [10] * 100
    assert trace.pass_s == pytest.approx((starts[-1] - starts[0] + np.median(np.diff(starts))) / 1e3)


def test_milliseconds_of_a_fast_stream_are_no_batches(tmp_path):
    exact = np.cumsum(np.random.default_rng(2).exponential(1 / 3000, 20_000))
    file = written(tmp_path, {"timestamp_ms": np.floor(1000 * exact).astype(int)})
    trace = trace_of(file)
    assert "spread at random over 1 ms" in trace.reading
    assert np.abs(np.sort(exact) - exact[0] - trace.arrival_s).max() < 2e-3


def test_a_table_of_counts_is_read_as_requests(tmp_path):
    """CloudWatch's Invocations per minute: 6,000 are 100 per second."""
    times = [EPOCH + timedelta(minutes=i) for i in range(60)]
    file = written(tmp_path, {"Timestamp": times, "Invocations": [6000] * 60})
    trace = trace_of(file)
    assert (trace.n_requests, trace.pass_s) == (360_000, 3600.0)
    assert np.bincount((trace.arrival_s // 60).astype(int)).tolist() == [6000] * 60
    assert "360,000 requests over 1 h, counted by `Invocations`, spread at random over 1 min" in trace.reading
    assert not trace.columns
    named = written(tmp_path, {"ts": [0, 10, 20], "served": [3, 0, 2], "tokens": [5, 6, 7]}, "named.csv")
    assert trace_of(named, count_column="served", time_unit="s", within="even").arrival_s.tolist() == pytest.approx(
        [0.0, 10 / 3, 20 / 3, 20.0, 25.0]
    )
    assert trace_of(named, count_column="served", time_unit="s").columns["tokens"].tolist() == [5, 5, 5, 7, 7]
    assert "has no column 'serve'" in refusal(named, count_column="serve")
    halves = written(tmp_path, {"ts": [0, 10], "served": [1.5, 2]}, "halves.csv")
    assert "whole numbers of requests in column served" in refusal(halves, count_column="served")
    lone = written(tmp_path, {"ts": [0], "served": [5]}, "lone.csv")
    assert "one interval alone" in refusal(lone, count_column="served")


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (
            {"metric_name": ["http_reqs", "http_req_duration"], "timestamp": [1, 1], "metric_value": [1, 2]},
            "k6's output",
        ),
        (
            {"timeStamp": [1, 2], "elapsed": [5, 9], "responseMessage": ["OK", "Number of samples in transaction : 1"]},
            "rows of transaction controllers",
        ),
        ({"Timestamp": [1, 2], "User Count": [5, 5], "Requests/s": [250.0, 251.0]}, "locust's history"),
        ({"timestamp": range(6), "request_id": list("aabbcc"), "metric": list("xyxyxy")}, "several rows per request"),
    ],
)
def test_rows_that_are_no_requests_are_refused(tmp_path, table, why):
    text = refusal(written(tmp_path, table))
    assert why in text
    assert any(word in text for word in ("keep", "steps", "shadowsim measured"))


# ---- The end ----


@pytest.mark.parametrize(
    ("load", "status"), [pytest.param(0.5, "TOO SHORT", marks=pytest.mark.slow), (2.0, "OVERLOADED")]
)
def test_the_length_of_a_trace_changes_no_rate_and_no_verdict(tmp_path, load, status):
    """1,000 requests per second, evenly spaced, of 5 to 100 s: nothing counts time after the last of them."""
    pool = service("deterministic", load / 1000)
    statuses, rates, loads = set(), set(), []
    for length_s in (5, 30, 31, 61, 100):
        file = written(tmp_path, {"arrival_s": np.arange(1000 * length_s) / 1000}, f"{length_s}.csv")
        for run in ({"horizon_s": None}, {"horizon_s": 7200}, {"horizon_s": None, "period_s": 7.0}):
            result = simulate(scenario({"process": "trace", "path": str(file)}, pool, sample_requests=0, **run))
            statuses.add(result.verdict.source.status)
            summary = result.summary().iloc[0]
            rates.add(round(summary["rate_per_s"], 6))
            loads.append(result.verdict.source.peak_load)
    assert rates == {1000.0}
    assert loads == pytest.approx([load] * len(loads), rel=0.01)
    assert statuses == {status if load > 1.0 else "STABLE"}


# ---- What a scenario says of it ----


def assumptions_of(file, run=None, **keys):
    document = scenario({"process": "trace", "path": str(file), **keys}, service("deterministic", 0.01)).to_dict()
    document["run"] = {"period_s": 60.0, **(run or {})}
    return Scenario.from_dict(document).assumptions


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("s", "seconds from the first of them, resolution 1 s"),
        ("ms", "milliseconds from the first of them, resolution 1 ms"),
        ("us", "microseconds from the first of them, resolution 1 us"),
        ("ns", "nanoseconds from the first of them, resolution 1 ns"),
    ],
)
def test_a_scenario_says_the_column_the_unit_and_the_resolution(tmp_path, unit, words):
    """Twelve requests, so far apart that one per unit would be 3 per second: 1, 2, 4, 7, ... units."""
    file = written(tmp_path, {"at": np.cumsum(range(12)), "n": range(12)})
    (sentence,) = assumptions_of(file, time_column="at", time_unit=unit)
    assert sentence.startswith(f"t.csv: column `at`, read as {words}, 12 requests over ")


def test_a_scenario_says_that_a_unit_was_found_and_what_the_other_would_mean(tmp_path):
    (sentence,) = assumptions_of(written(tmp_path, {"timestamp": range(0, 10_000, 100)}))
    assert "read as milliseconds from 0" in sentence
    assert "(10 requests/s; as seconds it would be 0.01 requests/s over 2.75 h: set time_unit)" in sentence


@pytest.mark.parametrize(
    ("within", "words"),
    [
        ("poisson", "resolution 1 s, 40 requests over 10 s, spread at random over 1 s."),
        ("even", "resolution 1 s, 40 requests over 10 s, spread evenly over 1 s."),
        ("together", "resolution 1 s, 40 requests over 10 s, not spread: those of one time arrive together."),
    ],
)
def test_a_scenario_says_how_coarse_times_are_spread(tmp_path, within, words):
    (sentence,) = assumptions_of(written(tmp_path, {"arrival_s": np.repeat(range(10), 4)}), within=within)
    assert sentence == f"t.csv: column `arrival_s`, read as seconds from the first of them, as its name says, {words}"


def test_a_scenario_says_that_ties_are_batches(tmp_path):
    starts = np.cumsum(np.random.default_rng(1).integers(2000, 4000, 50))
    (sentence,) = assumptions_of(written(tmp_path, {"timestamp_ms": np.repeat(starts, 12)}))
    assert sentence.endswith("spread at random up to the next time, since 12 at once are batches.")


def test_a_scenario_says_that_its_trace_ends_before_its_schedule(tmp_path):
    """30 s at 500 requests per second against a Schedule of 2 h: the figures are of the 30 s alone."""
    file = written(tmp_path, {"timestamp_s": np.arange(15_000) / 500})
    short = scenario({"process": "trace", "path": str(file)}, service("deterministic", 0.004))
    schedule = {"StartTime": "2030-01-01T00:00:00Z", "EndTime": "2030-01-01T02:00:00Z"}
    short = short.replace({"experiment.Schedule": schedule, "horizon_s": None, "sampling_percentage": 100})
    assert short.assumptions[1:] == (
        "The trace covers 30 s of 2 h; figures are of these 30 s (repeat plays it again).",
    )
    result = simulate(short)
    assert (result.verdict.status, result.verdict.source.peak_load) == ("OVERLOADED", pytest.approx(2.0))
    assert result.summary()["rate_per_s"].tolist() == pytest.approx([500.0, 500.0])
    again = short.replace({"traffic.repeat": 240})
    assert again.horizon_s == 7200.0
    assert len(again.assumptions) == 1


def test_a_scenario_says_that_its_run_ends_before_its_trace(tmp_path):
    file = written(tmp_path, {"timestamp_s": np.arange(100) / 10})
    assert assumptions_of(file, {"horizon_s": 4})[1:] == ("The run ends before its trace: 40 of 100 requests come.",)


# ---- Everything together ----

UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
COMPRESSED = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


def dates(ticks, unit, text="%Y-%m-%dT%H:%M:%S", mark=".", end="Z"):
    """Return ticks since EPOCH as dates with as many decimals as the unit has."""
    width = len(str(UNITS[unit])) - 1
    seconds, rest = np.divmod(ticks, UNITS[unit])
    return [
        f"{EPOCH + timedelta(seconds=int(s)):{text}}" + (f"{mark}{r:0{width}d}" if width else "") + end
        for s, r in zip(seconds, rest, strict=True)
    ]


def since_epoch(ticks, unit):
    return int(EPOCH.timestamp()) * UNITS[unit] + ticks


# How times are written: the column's name, its values, and what the scenario has to say of it.
CLOCKS = {
    "named": lambda x, u: (f"arrival_{u}", x, {}),
    "time_unit": lambda x, u: ("arrival", x, {"time_unit": u}),
    "time_column": lambda x, u: ("t", x, {"time_unit": u, "time_column": "t"}),
    "since 1970": lambda x, u: ("timestamp", since_epoch(x, u), {}),
    "decimals": lambda x, u: ("arrival_s", x / UNITS[u], {}),
    "decimals since 1970": lambda x, u: ("timestamp", int(EPOCH.timestamp()) + x / UNITS[u], {}),
    "ISO 8601": lambda x, u: ("timestamp", dates(x, u), {}),
    "ISO 8601 by key": lambda x, u: ("when", dates(x, u), {"time_unit": "iso", "time_column": "when"}),
    "ISO 8601 with an offset": lambda x, u: ("time_iso8601", dates(x, u, end="+00:00"), {}),
    "ISO 8601 basic": lambda x, u: ("@timestamp", dates(x, u, "%Y%m%dT%H%M%S"), {}),
    "logs": lambda x, u: ("timestamp", dates(x, u, "%Y-%m-%d %H:%M:%S", ",", ""), {}),
    "strptime": lambda x, u: (
        "date",
        dates(x, u, "%m/%d/%Y %H:%M:%S", ".", ""),
        {"time_unit": "%m/%d/%Y %H:%M:%S" + ("" if u == "s" else ".%f")},
    ),
    "dates": lambda x, u: ("timestamp", pd.to_datetime(since_epoch(x, u), unit=u, utc=True), {}),
}


def stored(folder, table, form):
    """Write a table as a file of some form."""
    csv, lines = table.to_csv(index=False), {"date_format": "iso", "date_unit": "ns", "double_precision": 15}
    match form:
        case "semicolons and decimal commas":
            return written(folder, table.to_csv(index=False, sep=";", decimal=","))
        case "tabs":
            return written(folder, table.to_csv(index=False, sep="\t"), "t.tsv")
        case "UTF-16":
            (folder / "t.csv").write_text(table.to_csv(index=False, sep="\t"), encoding="utf-16")
            return folder / "t.csv"
        case "byte order mark":
            (folder / "t.csv").write_text(csv, encoding="utf-8-sig")
            return folder / "t.csv"
        case "gzip" | "bzip2" | "xz":
            file = folder / f"t.csv.{ {'gzip': 'gz', 'bzip2': 'bz2', 'xz': 'xz'}[form] }"
            file.write_bytes(COMPRESSED[form](csv.encode()))
            return file
        case "JSON lines":
            return written(folder, table.to_json(orient="records", lines=True, **lines), "t.jsonl")
        case "JSON array":
            return written(folder, table.to_json(orient="records", **lines), "t.json")
        case "Parquet":
            table.to_parquet(folder / "t.parquet")
            return folder / "t.parquet"
    return written(folder, csv)


FORMS = [
    *("CSV", "semicolons and decimal commas", "tabs", "UTF-16", "byte order mark", "gzip", "bzip2", "xz"),
    *("JSON lines", "JSON array", "Parquet"),
]


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=15)
@given(
    rate=st.sampled_from([0.5, 3.0, 40.0, 700.0]),
    n=st.integers(20, 200),
    unit=st.sampled_from(list(UNITS)),
    clock=st.sampled_from(list(CLOCKS)),
    seed=st.integers(0, 2**32),
    shuffled=st.booleans(),
)
def test_known_arrivals_come_back_from_every_format(tmp_path_factory, form, rate, n, unit, clock, seed, shuffled):
    """Times are cut to whole units; what comes back is off by at most one unit, at either end.

    Seconds since 1970 with decimals have 53 bits, which is 1.2e-7 s at most, and are rounded to the microsecond: at
    both ends, 1.24e-6 s in all.
    """
    rng = np.random.default_rng(seed)
    exact_s = np.cumsum(rng.exponential(1 / rate, n))
    ticks = np.floor(exact_s * UNITS[unit]).astype(np.int64)
    rows = rng.permutation(n) if shuffled else np.arange(n)
    name, values, keys = CLOCKS[clock](ticks[rows], unit)
    table = pd.DataFrame({name: values, "row": rows})
    trace = trace_of(stored(tmp_path_factory.mktemp("forms"), table, form), **keys)
    unit_s = 1.0 / UNITS[unit]
    allowed_s = 1.0001 * unit_s + 1.3e-6
    # The trace's clock begins with its first unit.
    assert trace.arrival_s + ticks.min() * unit_s == pytest.approx(exact_s, abs=allowed_s)
    assert sorted(trace.columns["row"]) == list(range(n))
    by_row = np.empty(n)
    by_row[trace.columns["row"].astype(int)] = trace.arrival_s
    assert by_row + ticks.min() * unit_s == pytest.approx(exact_s, abs=allowed_s)


@settings(max_examples=60)
@given(
    rate=st.sampled_from([0.01, 0.5, 3.0, 40.0, 700.0]),
    n=st.integers(2, 200),
    unit=st.sampled_from(list(UNITS)),
    name=st.sampled_from(["timestamp", "time", "start_time", "ts"]),
    seed=st.integers(0, 2**32),
)
def test_a_clock_without_a_unit_is_read_right_or_asked_about_or_refused(tmp_path_factory, rate, n, unit, name, seed):
    exact_s = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, n))
    ticks = np.floor(exact_s * UNITS[unit]).astype(np.int64)
    file = written(tmp_path_factory.mktemp("guessed"), {name: ticks, "n": range(n)})
    try:
        trace = trace_of(file)
    except InputError as error:
        event(str(error).partition("t.csv ")[2][:40])
        if "time_column" in str(error) or "is the unit of its times right (time_unit)?" in str(error):
            return
        raise
    right = trace.arrival_s + ticks.min() / UNITS[unit] == pytest.approx(exact_s, abs=1.0001 / UNITS[unit] + 1.3e-6)
    assert right or "set time_unit" in trace.reading
