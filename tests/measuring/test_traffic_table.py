"""A measurement becomes a trace that a scenario replays with the same arrivals."""

import log_samples as samples
import numpy as np
import pandas as pd
import pytest
from log_samples import Sent

from shadowsim import read_measurement, traffic_table
from shadowsim.errors import InputError
from shadowsim.measuring.measurement import Measurement
from shadowsim.measuring.traffic_table import write_trace
from shadowsim.scenario.traffic import parse_traffic

MANY = [Sent(37 * i, 20 + i % 7, 200, i, 100) for i in range(300)]


def replayed(file, **keys):
    return parse_traffic({"process": "trace", "path": file.name, **keys}, "traffic", file.parent).trace()


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_arrivals_and_sizes_come_back(tmp_path, suffix):
    (tmp_path / "log").write_text(samples.vegeta_json(MANY))
    measured = read_measurement(tmp_path / "log")
    assert write_trace(measured, tmp_path / f"trace{suffix}") == 300
    trace = replayed(tmp_path / f"trace{suffix}")
    np.testing.assert_allclose(trace.arrival_s, [r.arrival_ms / 1e3 for r in MANY], atol=1e-9)
    assert trace.columns["request_bytes"].tolist() == [r.sent for r in MANY]
    assert "seconds from the first of them, as its name says" in trace.reading


def test_whole_seconds_do_not_become_batches(tmp_path):
    """The service of 10 ms at 27 requests a second would queue if those of a second came at once."""
    (tmp_path / "log").write_text("".join(map(samples.combined, MANY)))
    write_trace(read_measurement(tmp_path / "log"), tmp_path / "trace.csv")
    gaps = np.diff(replayed(tmp_path / "trace.csv").arrival_s)
    assert np.mean(gaps < 1e-3) < 0.1  # 2.7 % of exponential gaps at 27 per second


def test_counts_of_periods_are_counted_by_the_trace(tmp_path):
    windows = pd.DataFrame({"time_s": [0.0, 60.0, 180.0], "period_s": 60.0, "Invocations": [60.0, 0.0, 30.0]})
    measured = Measurement("CloudWatch", windows=windows)
    assert traffic_table(measured)["Invocations"].tolist() == [60, 0, 30]
    write_trace(measured, tmp_path / "trace.csv")
    trace = replayed(tmp_path / "trace.csv")
    assert trace.n_requests == 90
    assert (trace.arrival_s < 60.0).sum() == 60
    assert trace.arrival_s[60] >= 180.0
    assert trace.pass_s == 240.0
    assert "counted by `Invocations`" in trace.reading


def test_what_makes_no_trace_is_refused(tmp_path):
    report = Measurement("wrk text", windows=pd.DataFrame({"time_s": [0.0], "period_s": [2.0], "Invocations": [700]}))
    with pytest.raises(InputError, match=r"wrk text: has no single requests .* its mean rate is 350 per second"):
        traffic_table(report)
    with pytest.raises(InputError, match=r"makes no trace$"):
        traffic_table(Measurement("x"))
    with pytest.raises(InputError, match=r"must end in \.csv, \.csv\.gz, \.parquet"):
        write_trace(report, tmp_path / "trace.txt")
