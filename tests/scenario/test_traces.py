import gzip
import os

import cases
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowsim import simulate
from shadowsim.errors import InputError
from shadowsim.scenario.traffic import parse_traffic

NANOSECOND = 1e-9


def traced(file, **keys):
    return parse_traffic({"process": "trace", "path": file.name, **keys}, "traffic", file.parent)


def written(folder, text, name="t.csv"):
    file = folder / name
    file.write_text(text)
    return file


def test_azure_trace(azure_trace):
    trace = traced(azure_trace).trace()
    assert trace.n_requests == 8819
    assert trace.arrival_s[0] == 0.0
    assert trace.span_s == 3435.948056  # 18:17:03.9799600 to 19:14:19.9280160
    assert sorted(trace.columns) == ["ContextTokens", "GeneratedTokens"]
    assert trace.columns["ContextTokens"][:3].tolist() == [4808, 3180, 110]
    assert traced(azure_trace, speed=2.0).trace().span_s == 3435.948056 / 2


def test_azure_trace_simulated(azure_trace):
    """Every request comes once and is copied once; twice as fast, they come in half the time and wait longer."""
    time = {"law": "linear", "base_s": 0.02, "ContextTokens": 1e-5, "GeneratedTokens": 2e-3}
    traffic = {"process": "trace", "path": str(azure_trace)}
    once = cases.scenario(traffic, {"time": time, "workers": 1}, share=100, horizon_s=None)
    assert once.horizon_s == 2 * once.replace({"traffic.speed": 2.0}).horizon_s == pytest.approx(3436.3377, rel=1e-7)
    runs = [simulate(s, progress=False) for s in (once, once.replace({"traffic.speed": 2.0}))]
    for result in runs:
        assert result.summary()["requests"].tolist() == [8819, 8819]
        assert result.windows.groupby("role")["Invocations"].sum().to_dict() == {"source": 8819, "shadow": 8819}
        assert result.windows.groupby("role")["copies_made"].sum()["shadow"] == 8819
        assert (result.requests["role"] == "shadow").sum() == 8819
    first, second = (r.requests[r.requests["role"] == "source"].sort_values("arrival_s") for r in runs)
    assert second["arrival_s"].max() == first["arrival_s"].max() / 2 == 3435.948056 / 2
    slow, fast = (r.summary()["wait_mean_s"] for r in runs)
    assert (fast > slow).all()
    assert (slow > 0).all()


def test_shipped_trace():
    trace = parse_traffic({"process": "trace", "path": "builtin:trace_small"}).trace()
    assert trace.n_requests == 500
    assert 600 < trace.span_s < 700
    assert set(trace.columns) == {"ContextTokens", "GeneratedTokens"}
    assert not trace.flaws
    with pytest.raises(InputError, match=r"traffic\.path: there is no file .*trace_big\.csv"):
        parse_traffic({"process": "trace", "path": "builtin:trace_big"}).trace()


@pytest.mark.parametrize(
    ("header", "times"),
    [
        ("TIMESTAMP", ["2023-11-16 18:17:03.9799600", "2023-11-16 18:17:04.2299601"]),
        ("timestamp", ["2023-11-16T18:17:03.97996Z", "2023-11-16T19:17:04.2299601+01:00"]),
        ("inferenceTime", ["2023-11-16T18:17:03.979960000", "2023-11-16T18:17:04.229960100"]),
        ("ts", ["1700158623979960000", "1700158624229960100"]),
        ("arrival_ns", ["5", "250000105"]),
        ("time", ["1700158623979960", "1700158624229960.1"]),
        ("time_us", ["0", "250000.1"]),
        ("arrived_at", ["1700158623979.96", "1700158624229.9601"]),
        ("arrival_ms", ["3.5", "253.5001"]),
        ("Date", ["1700158623.97996", "1700158624.2299601"]),
        ("arrival_s", ["0.25", "0.5000001"]),
        ("@timestamp", ["2023-11-16 18:17:03.97996", "2023-11-16 18:17:04.2299601"]),
        ("  Time_S ", [" 0.25", " 0.5000001"]),
    ],
)
def test_time_formats(tmp_path, header, times):
    trace = traced(written(tmp_path, f"id,{header}\n7,{times[1]}\n8,{times[0]}\n")).trace()
    # A float64 of seconds since 1970 resolves 0.24 us; integers and texts are kept to the nanosecond.
    exact = "." not in times[1] or "-" in times[1] or float(times[1]) < 1e9
    assert trace.arrival_s[0] == 0.0
    assert trace.arrival_s[1] == pytest.approx(0.2500001, abs=NANOSECOND if exact else 3e-7)
    assert trace.columns["id"].tolist() == [8, 7]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=30))
def test_any_order_is_sorted_stably_with_its_columns(tmp_path_factory, ns):
    file = tmp_path_factory.mktemp("trace") / "t.csv"
    pd.DataFrame({"arrival_ns": ns, "row": range(len(ns))}).to_csv(file, index=False)
    trace = traced(file, within="together").trace()
    order = sorted(range(len(ns)), key=lambda i: (ns[i], i))
    assert trace.columns["row"].tolist() == order
    assert trace.arrival_s.tolist() == [(ns[i] - min(ns)) / 1e9 for i in order]


def test_the_origin_is_subtracted_before_float64(tmp_path):
    trace = traced(written(tmp_path, "ts\n1700000000000000001\n1700000000000000002\n1700000000000000004\n")).trace()
    assert trace.arrival_s.tolist() == [0.0, 1e-9, 3e-9]


def test_compressed_csv_and_parquet_read_alike(tmp_path):
    table = pd.DataFrame(
        {"timestamp": pd.to_datetime(["2024-01-01 00:00:01", "2024-01-01 00:00:00"]), "tokens": [3, 4]}
    )
    plain = written(tmp_path, table.to_csv(index=False))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    table.to_parquet(tmp_path / "t.parquet")
    zoned = table.assign(timestamp=table["timestamp"].dt.tz_localize("Europe/Berlin"))
    zoned.set_index("timestamp").to_parquet(tmp_path / "indexed.parquet")
    for name in ("t.csv", "t.csv.gz", "t.parquet", "indexed.parquet"):
        trace = traced(tmp_path / name).trace()
        assert trace.arrival_s.tolist() == [0.0, 1.0]
        assert trace.columns["tokens"].tolist() == [4.0, 3.0]


def test_a_column_without_a_name_is_no_trouble(tmp_path):
    trace = traced(written(tmp_path, "time,n,,\n1,2,,\n2,3,,\n")).trace()
    assert trace.columns["n"].tolist() == [2, 3]


def test_speed_and_repeat(tmp_path):
    file = written(tmp_path, "time,tokens\n10,1\n11,2\n14,3\n")
    trace = traced(file, speed=2.0, repeat=3).trace()
    assert trace.arrival_s.tolist() == [0.0, 0.5, 2.0]
    assert trace.pass_s == 3.0  # the span of 2 and a mean gap of 1
    assert (trace.repeat, trace.n_requests, trace.span_s) == (3, 9, 8.0)
    assert [trace.n_before(t) for t in (0.0, 0.1, 3.0, 3.1, 8.0, 9.0)] == [0, 1, 3, 4, 8, 9]
    assert traced(file, speed=2.0, repeat=3).mean_rate(9.0) == 1.0
    same = written(tmp_path, "time\n5\n5\n", "same.csv")
    assert traced(same).trace().span_s == 0.0
    with pytest.raises(InputError, match=r"traffic\.repeat: must be 1"):
        traced(same, repeat=2).trace()


def test_an_edited_file_is_read_again(tmp_path):
    file = written(tmp_path, "time\n0\n1\n")
    traffic = traced(file)
    assert traffic.trace().columns is traffic.trace().columns
    written(tmp_path, "time\n0\n1\n2\n")
    assert traffic.trace().n_requests == 3
    written(tmp_path, "time\n0\n1\n3\n")  # of the same size
    os.utime(file, ns=(1, 1))
    assert traffic.trace().span_s == 3.0


def test_cached_arrays_cannot_be_written(tmp_path):
    trace = traced(written(tmp_path, "time,n\n0,1\n1,2\n")).trace()
    for values in (trace.arrival_s, trace.columns["n"]):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 5.0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("time,n\n", "has no rows"),
        ("when,n\n1,2\n", "no column known as a time; name the column of the arrivals in time_column; it has"),
        (" time ,n\n1,2\n,3\n", "must have a time in column time, which is empty in line 3"),
        ("timestamp,n\n2024-01-01,1\n\n,2\n", "must have a time in column timestamp, which is empty in line 4"),
        ("timestamp,n\n2024-01-01,1\n  ,2\n", "must have a time in column timestamp, which is empty in line 3"),
        ("time,n\n1,2\nabc,3\n5,5\n", "line 3, got 'abc'"),
        ("timestamp\n2024-01-01\nnow\n", "line 3, got 'now'"),
        ("timestamp\n2024-01-01\n2024-13-01\n", "line 3, got '2024-13-01'"),
        (
            "timestamp\n16/11/2023 18:17\n",
            "line 2, got '16/11/2023 18:17'; any other date needs its strptime format",
        ),
        ("time,n, n\n1,2,3\n", "must not have two columns of one name, got 'n'"),
        ("time,Time,time\n1,2,3\n", "must not have two columns of one name, got 'time'"),
        ("timestamp\n0001-01-01\n2024-01-01\n", "column timestamp"),
        ("time\n1\ninf\n", "line 3, got inf"),
        ("time\nTrue\n", "holds no times"),
        ("arrival_s\n0\n1e10\n", "285 years"),
        ("time,n\n1,2,3\n4,5,6\n", "line 2 has 3 fields, and the header names 2"),
        ("time,n\n1,2\n\n4,5,6\n", "line 4 has 3 fields, and the header names 2"),
        ('time,n\n1,"2\n', "cannot be read"),
        ("time\0\1\2", "neither text nor Parquet, nor compressed as gzip, bzip2, xz, Zstandard or zip"),
        ("PAR1 and then nothing", "damaged Parquet"),
    ],
)
def test_bad_files_name_file_and_row(tmp_path, text, why):
    file = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        traced(file).trace()
    assert caught.value.path == "traffic.path"
    assert str(file) in str(caught.value)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_paths(tmp_path):
    (tmp_path / "rubbish.csv").write_bytes(bytes(range(1, 256)) * 20)
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"time\n" + b"1\n" * 5000)[:40])
    (tmp_path / "no.csv.gz").write_bytes(b"\x1f\x8bnothing")
    (tmp_path / "plain.csv.gz").write_text("time\n1\n")
    pq.write_table(pa.table([[1], [2], [3]], names=["time", "n", "n"]), tmp_path / "twice.parquet")
    pq.write_table(pa.table([[1], [2], [3]], names=["time", "n", "n "]), tmp_path / "alike.parquet")
    names = [file.name for file in tmp_path.iterdir() if file.name != "plain.csv.gz"]
    for name in (*names, "none.csv", "plain.csv.gz/none.csv", "null\0.csv", "."):
        with pytest.raises(InputError) as caught:
            parse_traffic({"process": "trace", "path": name}, "traffic", tmp_path).trace()
        assert caught.value.path == "traffic.path"
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_compression_is_that_of_the_content_whatever_the_name(tmp_path):
    (tmp_path / "plain.csv.gz").write_text("time\n1\n2\n")
    (tmp_path / "zipped.csv").write_bytes(gzip.compress(b"time\n1\n2\n"))
    for name in ("plain.csv.gz", "zipped.csv"):
        assert traced(tmp_path / name).trace().n_requests == 2


def test_named_time_column(tmp_path):
    file = written(tmp_path, "when,time\n3,x\n1,y\n")
    assert traced(file, time_column="when").trace().span_s == 2.0
    with pytest.raises(
        InputError, match=r"traffic\.time_column: .* has no column 'wen'; it has when, time; did you mean when\?"
    ):
        traced(file, time_column="wen").trace()


def test_a_flawed_column_is_an_error_only_when_used(tmp_path):
    trace = traced(written(tmp_path, "time,a,b,c,d\n1,1,x,-1,True\n0,,y,2,True\n")).trace()
    assert trace.flaws.keys() == {"a", "b", "c", "d"}
    for name, line in (("a", 3), ("b", 2), ("c", 2), ("d", 2)):
        with pytest.raises(
            InputError, match=rf"here: needs finite numbers >= 0 in trace column {name}, .* line {line}, got"
        ):
            trace.column(name, "here")
    with pytest.raises(InputError, match="here: the trace has no column 'e'; it has a, c"):
        trace.column("e", "here")


def test_sizes_are_float64(tmp_path):
    trace = traced(written(tmp_path, "time,n\n0,1\n1,2\n")).trace()
    assert trace.columns["n"].dtype == np.float64
    assert trace.arrival_s.dtype == np.float64


@pytest.mark.parametrize(
    "text",
    [
        "time,hashes\n1,3 4 5\n0, 7\n2,\n",
        'time,hashes\n1,"[3, 4, 5]"\n0,[7]\n2,[]\n',
        '{"time": 1, "hashes": [3, 4, 5]}\n{"time": 0, "hashes": [7]}\n{"time": 2}\n',
    ],
)
def test_columns_of_lists(tmp_path, text):
    trace = traced(written(tmp_path, text, "t")).trace()
    assert trace.lists["hashes"].tolist() == [[7, -1, -1], [3, 4, 5], [-1, -1, -1]]
    assert "hashes" not in trace.columns
    for name, why in (
        ("hashes", r"column hashes holds lists; name one of its numbers, as hashes\[0\]"),
        ("hashes[3]", r"the longest list in trace column hashes has 3, from \[0\] on, got 3"),
        ("hashes[1]", "needs a list with a number in trace column hashes, which fails in"),
        ("hash", "it has hashes; did you mean hashes"),
    ):
        with pytest.raises(InputError, match=f"here: .*{why}"):
            trace.whole_numbers(name, "here")


def test_a_column_of_lists_is_one_in_each_row(tmp_path):
    texts = '{"time": 0, "size": "3"}\n{"time": 1, "size": "4"}\n'
    assert not traced(written(tmp_path, texts)).trace().lists  # numbers as texts
    trace = traced(written(tmp_path, "time,hashes\n0,3 4\n1,3 x\n", "u.csv")).trace()
    assert not trace.lists
    with pytest.raises(InputError, match="needs finite numbers >= 0 in trace column hashes, which fails in line 3"):
        trace.whole_numbers("hashes[0]", "here")
