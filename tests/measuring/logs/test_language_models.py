"""Load tools for language models: tokens, units, time-outs, warm-up, older layouts and reports."""

import json

import log_samples as samples
import numpy as np
import pytest
from log_samples import Sent

from shadowsim import read_measurement
from shadowsim.errors import InputError

FEW = [Sent(0, 200), Sent(500, 300), Sent(700, 100, 503), Sent(900, 100, 0)]


def read(tmp_path, text):
    file = tmp_path / "out.json"
    file.write_text(text)
    return read_measurement(file)


@pytest.mark.parametrize("write", [samples.aiperf, samples.inference_perf])
def test_tokens_and_first_tokens(tmp_path, write):
    frame = read(tmp_path, write(FEW)).requests
    assert frame["prompt_tokens"].tolist() == [550] * 4
    assert frame["output_tokens"].dropna().tolist() == [9, 9]
    np.testing.assert_allclose(frame["first_token_s"], [0.1, 0.15, np.nan, np.nan], atol=1e-9)
    assert frame["status"].tolist() == ["answered", "answered", "error_5xx", "failed"]


def test_units_time_outs_and_warm_up_of_aiperf(tmp_path):
    records = [json.loads(line) for line in samples.aiperf(FEW).splitlines()]
    records[0]["metrics"]["request_latency"] = {"value": 200_000, "unit": "us"}
    records[1]["metadata"]["benchmark_phase"] = "warmup"
    records[2]["error"] = {"code": None, "type": "TimeoutError", "message": ""}
    records[3]["error"] = {"code": 499, "type": "RequestCancellationError", "message": ""}
    measured = read(tmp_path, "".join(json.dumps(record) + "\n" for record in records))
    assert measured.requests["status"].tolist() == ["answered", "timed_out", "failed"]
    assert measured.requests["latency_s"][0] == pytest.approx(0.2)
    assert "1 records of the warm-up were left out." in measured.lacks
    records[0]["metrics"]["request_latency"]["unit"] = "fortnights"
    damaged = read(tmp_path, "".join(json.dumps(record) + "\n" for record in records))
    assert "unknown unit fortnights" in damaged.first_damaged


def test_older_and_newer_layouts_of_inference_perf(tmp_path):
    records = json.loads(samples.inference_perf(FEW))
    for record in records:
        times = [record["start_time"] + 0.05, record["start_time"] + 0.07]
        record["info"] = {"input_tokens": 5, "output_tokens": 7, "output_token_times": times}
    of_tokens = read(tmp_path, json.dumps(records[::-1]))  # on one line, the last first
    frame = of_tokens.requests
    assert of_tokens.token_times["row"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert of_tokens.token_times["token_s"].tolist() == pytest.approx([0.05, 0.07] * 4)
    assert frame["output_tokens"].tolist() == [7] * 4
    assert frame["first_token_s"].tolist() == pytest.approx([0.05] * 4)
    for record in records:
        chunks = {"output_tokens": 7, "output_token_times": [], "chunk_times": [record["start_time"] + 0.02]}
        record["info"] = {"request_metrics": {"text": {"input_tokens": 5}}, "response_metrics": chunks}
    measured = read(tmp_path, json.dumps(records, indent=1))
    assert measured.requests["first_token_s"].tolist() == pytest.approx([0.02] * 4)
    assert any("first chunk" in sentence for sentence in measured.lacks)


def test_reports_of_inference_perf(tmp_path):
    latency = {"mean": 3.3, "min": 0.5, "p0.1": 0.6, "p10": 1.0, "median": 2.1, "p90": 5.9, "p99": 9.0, "max": 9.5}
    report = {
        "benchmark_time_seconds": 110.0,
        "load_summary": {"count": 483, "send_duration": 100.0, "requested_rate": 5.0, "achieved_rate": 4.83},
        "successes": {
            "count": 480,
            "latency": {"request_latency": latency, "time_to_first_token": {"mean": float("nan")}},
        },
        "failures": {"count": 3, "request_latency": {"mean": 9.9}},
    }
    measured = read(tmp_path, json.dumps(report, indent=2))
    assert measured.quantiles == {0.001: 0.6, 0.1: 1.0, 0.5: 2.1, 0.9: 5.9, 0.99: 9.0}
    assert (measured.n_requests, measured.rate_per_s, measured.open_loop) == (483, 4.83, True)
    report["load_summary"]["concurrency"] = 8
    assert read(tmp_path, json.dumps(report)).open_loop is False
    del report["load_summary"]
    measured = read(tmp_path, json.dumps(report))
    assert (measured.open_loop, measured.span_s) == (None, 110.0)
    del report["successes"]["latency"]
    with pytest.raises(InputError, match="is no report of inference-perf's: KeyError"):
        read(tmp_path, json.dumps(report))


def test_reports_of_aiperf(tmp_path):
    report = {
        "schema_version": "1.5",
        "request_latency": {
            "unit": "ms",
            "avg": 2620.7,
            "min": 2145.0,
            "max": 3411.0,
            "p50": 2568.0,
            "p99": 3371.0,
            "count": 20,
        },
        "request_count": {"unit": "requests", "avg": 20.0},
        "error_request_count": {"unit": "requests", "avg": 5.0},
        "start_time": "2026-11-29T01:00:00.500000+00:00",
        "end_time": "2026-11-29T01:00:10.500000+00:00",
    }
    measured = read(tmp_path, json.dumps(report))
    assert measured.quantiles == pytest.approx({0.5: 2.568, 0.99: 3.371})
    assert (measured.n_requests, measured.rate_per_s) == (25, 2.5)
    assert measured.error_shares() == {"other": 0.2}
    del report["end_time"]
    assert "nor how long it took" in read(tmp_path, json.dumps(report)).lacks[0]
