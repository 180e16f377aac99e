"""Exports of CloudWatch: units, statistics by label, several files, and what periods cannot tell."""

import json

import numpy as np
import pytest

from shadowsim import read_measurement
from shadowsim.errors import InputError

MINUTES = ["2026-11-29T01:02:00+00:00", "2026-11-29T01:00:00Z", "2026-11-29T02:01:00+01:00"]  # in no order


def statistics(label, points):
    return json.dumps({"Label": label, "Datapoints": points}, indent=4)


INVOCATIONS = statistics(
    "Invocations", [{"Timestamp": t, "Sum": 60.0 * (i + 1), "Unit": "None"} for i, t in enumerate(MINUTES)]
)
LATENCY = statistics(
    "ModelLatency",
    [
        {
            **{"Timestamp": t, "SampleCount": 60.0 * (i + 1), "Average": 20_000.0 * (i + 1), "Maximum": 90_000.0},
            "ExtendedStatistics": {"p99": 80_000.0 + i, "p99.9": 88_000.0, "p75": 30_000.0},
            "Unit": "Microseconds",
        }
        for i, t in enumerate(MINUTES)
    ],
)


def read(tmp_path, *texts):
    files = []
    for i, text in enumerate(texts):
        files.append(tmp_path / f"export-{i}")
        files[-1].write_text(text)
    return read_measurement(files)


def test_counts_and_latencies_of_two_files_are_joined(tmp_path):
    measured = read(tmp_path, INVOCATIONS, LATENCY)
    windows = measured.windows
    assert windows["time_s"].tolist() == [0.0, 60.0, 120.0]
    assert windows["period_s"].tolist() == [60.0] * 3
    assert windows["Invocations"].tolist() == [120.0, 180.0, 60.0]
    assert windows["ModelLatency_p99"].tolist() == [80_001.0, 80_002.0, 80_000.0]
    assert windows["ModelLatency_p99_9"].tolist() == [88_000.0] * 3
    assert windows["ModelLatency_p75"].tolist() == [30_000.0] * 3
    assert measured.started.isoformat() == "2026-11-29T01:00:00+00:00"
    assert (measured.n_requests, measured.span_s, measured.rate_per_s) == (360, 180.0, 2.0)
    # 60 x 20 + 120 x 40 + 180 x 60 ms over 360
    assert measured.mean_latency_s() == pytest.approx(0.0466667, rel=1e-5)
    assert measured.quantile(0.99) is None
    assert any("Percentiles are those of single periods" in sentence for sentence in measured.lacks)
    assert read_measurement(tmp_path).windows.equals(windows)  # the folder of both


def test_the_unit_is_the_one_said(tmp_path):
    milliseconds = LATENCY.replace("Microseconds", "Milliseconds")
    assert read(tmp_path, milliseconds).windows["ModelLatency_Average"].max() == 60_000_000.0
    assert read(tmp_path, milliseconds).windows["ModelLatency_SampleCount"].max() == 180.0
    with pytest.raises(InputError, match="must give ModelLatency in Microseconds, Milliseconds, Seconds, got 'Bytes'"):
        read(tmp_path, LATENCY.replace("Microseconds", "Bytes"))


def data(*series):
    results = [
        {
            "Id": f"m{i}",
            "Label": label,
            "Timestamps": MINUTES[: len(values)],
            "Values": values,
            "StatusCode": "Complete",
        }
        for i, (label, values) in enumerate(series)
    ]
    return json.dumps({"MetricDataResults": results, "Messages": []})


def test_get_metric_data_by_label(tmp_path):
    text = data(
        ("Invocations", [1.0, 2.0, 3.0]),
        ("AllTraffic ModelLatency p99.9", [1e5, 2e5, 3e5]),
        ("ModelLatency Average", [1e4, 2e4]),
        ("Invocation5XXErrors Sum", [0.0, 1.0, 0.0]),
        ("CPUUtilization Average", [50.0, 50.0, 50.0]),
    )
    measured = read(tmp_path, text)
    assert measured.windows["ModelLatency_p99_9"].tolist() == [2e5, 3e5, 1e5]
    np.testing.assert_array_equal(measured.windows["ModelLatency_Average"], [2e4, np.nan, 1e4])
    assert measured.error_shares() == pytest.approx({"error_5xx": 1 / 6})
    said = " ".join(measured.lacks)
    assert "'Invocations' does not name its statistic, and was taken for a Sum" in said
    assert "'CPUUtilization Average' is none that is read" in said
    assert "latencies were taken for microseconds" in said


def test_series_that_are_not_clear_are_refused(tmp_path):
    with pytest.raises(InputError, match='does not name its statistic: give it a Label such as "ModelLatency p99"'):
        read(tmp_path, data(("ModelLatency", [1.0, 2.0])))
    with pytest.raises(
        InputError, match=r"several series of Invocations Sum \('A Invocations Sum' and 'B Invocations Sum'\)"
    ):
        read(tmp_path, data(("A Invocations Sum", [1.0]), ("B Invocations Sum", [1.0])))
    with pytest.raises(
        InputError, match="has two values of Invocations Sum at one time: keep the series of one variant"
    ):
        read(tmp_path, INVOCATIONS, INVOCATIONS.replace("60.0", "61.0"))
    with pytest.raises(InputError, match="holds no values of Invocations"):
        read(tmp_path, data(("CPUUtilization Average", [1.0])))
    with pytest.raises(InputError, match="has a data point that cannot be read: KeyError"):
        read(tmp_path, statistics("Invocations", [{"Sum": 1.0}]))


def test_a_label_behind_a_day_of_data_points(tmp_path):
    points = [{"Timestamp": f"2026-11-29T{h:02d}:{m:02d}:00Z", "Sum": 1.0} for h in range(24) for m in range(60)]
    text = json.dumps({"Datapoints": points, "Label": "Invocations"}, indent=4)
    assert len(text) > 65_536
    assert read(tmp_path, text).rate_per_s == 1 / 60


def test_one_period_and_no_invocations(tmp_path):
    text = statistics("ModelLatency", [json.loads(LATENCY)["Datapoints"][0]])
    measured = read(tmp_path, text)
    assert measured.quantiles == {0.75: 0.03, 0.99: 0.08, 0.999: 0.088}
    assert measured.n_requests == 60
    said = " ".join(measured.lacks)
    assert "one period alone, which was taken for a minute" in said
    assert "taken for the SampleCount of ModelLatency" in said


TABLES = {
    "one line": "timestamp,Invocations Sum,ModelLatency p99\n2026-11-29 01:00:00,60,80000\n2026-11-29 01:01:00,120,\n",
    "several lines": (
        '"Full label","ranker AllTraffic Invocations","ranker AllTraffic ModelLatency"\n'
        '"Label","Invocations","ModelLatency"\n'
        '"Period","60","60"\n"Statistic","Sum","p99"\n'
        '"2026/11/29 01:00:00","60","80000"\n"2026/11/29 01:01:00","120",""\n'
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_name_their_columns_above_the_first_time(tmp_path, name):
    measured = read(tmp_path, TABLES[name])
    assert measured.windows["Invocations"].tolist() == [60.0, 120.0]
    np.testing.assert_array_equal(measured.windows["ModelLatency_p99"], [80_000.0, np.nan])
    assert "Times name no zone and were read as UTC." in measured.lacks


def test_damaged_rows_of_a_table(tmp_path):
    measured = read(tmp_path, TABLES["one line"] + "oops\n2026-11-29 01:02:00,many,1\n")
    assert measured.n_damaged == 2
    assert measured.first_damaged.startswith("line 4 of export-0")
    assert len(measured.windows) == 2
