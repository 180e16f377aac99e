"""k6's points: whole seconds, what is in no row of a request, and what cannot be told."""

import log_samples as samples
import numpy as np
import pytest
from log_samples import START_MS, Sent

from shadowsim import read_measurement
from shadowsim.errors import InputError

MANY = [Sent(37 * i, 20 + i % 7) for i in range(300)]


def read(tmp_path, text):
    file = tmp_path / "out"
    file.write_text(text)
    return read_measurement(file)


def test_whole_seconds_are_spread_within_them_and_said(tmp_path):
    """The default of k6's CSV. Each end lies in its own second, arrivals before it by the exact duration."""
    measured = read(tmp_path, samples.k6_csv(MANY, lambda ms: str((START_MS + ms) // 1000)))
    assert measured.resolution_s == 1.0
    assert any("steps of 1 s" in sentence for sentence in measured.lacks)
    assert measured.gap_scv is None
    frame = measured.requests
    first = measured.started.timestamp()
    ends = np.floor(np.sort(frame["arrival_s"] + frame["latency_s"] + first) + 1e-6)
    assert ends.tolist() == sorted((START_MS + r.arrival_ms + r.latency_ms) // 1000 for r in MANY)
    # 27 requests a second, placed uniformly: their mean place is 0.5 with a standard error of 0.29 / sqrt(300).
    places = (frame["arrival_s"] + frame["latency_s"] + first) % 1.0
    assert places[places.index < 290].mean() == pytest.approx(0.5, abs=4 * 0.29 / 17)
    assert read(tmp_path, samples.k6_csv(MANY, lambda ms: str((START_MS + ms) // 1000))).requests.equals(frame)


def test_other_time_formats_are_told_by_their_digits(tmp_path):
    stamps = {
        1e-3: lambda ms: str(START_MS + ms),
        1e-6: lambda ms: str((START_MS + ms) * 1_000),
        1e-9: lambda ms: str((START_MS + ms) * 1_000_000),
        1e-4: lambda ms: samples.iso(ms, digits=4),
    }
    for resolution_s, stamp in stamps.items():
        measured = read(tmp_path, samples.k6_csv(MANY, stamp))
        assert measured.resolution_s == pytest.approx(resolution_s)
        gaps = np.diff(measured.requests["arrival_s"])
        np.testing.assert_allclose(gaps, 0.037, atol=1e-9)


def test_first_bytes_time_outs_and_dropped_iterations(tmp_path):
    text = samples.k6_csv([Sent(0, 40), Sent(100, 60_000, 0), Sent(200, 40)]).replace(
        ",,1212,", ",request timeout,1050,"
    )
    text += f"dropped_iterations,{START_MS},2.000000" + "," * 16 + "\n"
    measured = read(tmp_path, text)
    assert measured.requests["status"].tolist() == ["answered", "timed_out", "answered"]
    assert measured.requests["first_byte_s"].tolist()[::2] == pytest.approx([0.03, 0.23])
    assert np.isnan(measured.requests["latency_s"][1])
    assert measured.open_loop is True
    assert "dropped 2 iterations" in measured.lacks[0]
    assert read(tmp_path, samples.k6_csv(MANY)).open_loop is None


def test_rows_of_one_metric_alone(tmp_path):
    lines = samples.k6_csv(MANY).splitlines(keepends=True)
    for metric, known in (("http_req_duration", True), ("http_reqs", False)):
        measured = read(tmp_path, "".join([lines[0], *(line for line in lines if line.startswith(metric + ","))]))
        assert measured.n_requests == len(MANY)
        assert measured.has_latencies == known


def test_points_without_a_status_are_refused(tmp_path):
    with pytest.raises(InputError, match="has no status in any point"):
        read(tmp_path, "metric_name,timestamp,metric_value\nhttp_reqs,1795914728,1\n")
    with pytest.raises(InputError, match="has no status in any point"):
        read(tmp_path, samples.k6_json(MANY).replace('"status"', '"other"'))


def test_zeros_that_go_leaves_out_do_not_make_times_coarse(tmp_path):
    text = samples.k6_json([Sent(r.arrival_ms + 413, 1000) for r in MANY]).replace(".000Z", "Z")
    assert text.count(':10Z"') == 9  # all points of the first request
    assert read(tmp_path, text).resolution_s < 1.0
