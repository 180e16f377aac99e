"""ALB's log: times of the target, requests that reached none, and old lines without a creation time."""

import log_samples as samples
import numpy as np
import pytest
from log_samples import Sent

from shadowsim import read_measurement


def test_requests_without_a_target_have_no_latency(tmp_path):
    file = tmp_path / "log"
    file.write_text(samples.alb([Sent(0, 30), Sent(10, 60_000, 504), Sent(20, 40, 460)]))
    measured = read_measurement(file)
    assert measured.requests["status"].tolist() == ["answered", "timed_out", "failed"]
    np.testing.assert_allclose(measured.requests["latency_s"], [0.03, np.nan, np.nan])
    assert measured.lacks[0].startswith("Latencies are target_processing_time, to the first byte")


def test_lines_of_before_2018_have_no_creation_time(tmp_path):
    file = tmp_path / "log"
    file.write_text(
        "http 2017-05-10T08:00:01.500000Z app/b/50dc 192.168.131.39:2817 10.0.0.1:80 0.001 0.400 0.099 200 200 34 366 "
        '"GET http://www.example.com:80/ HTTP/1.1" "curl/7.46.0" - - arn:aws:elasticloadbalancing:x "Root=1-5"\n'
    )
    measured = read_measurement(file)
    assert measured.started.isoformat() == "2017-05-10T08:00:01+00:00"
    assert measured.requests["latency_s"].tolist() == [0.4]
    assert any("1 lines have no request_creation_time" in sentence for sentence in measured.lacks)
    assert measured.requests["response_bytes"].tolist() == [366]
    assert measured.rate_per_s is None
    assert measured.quantile(0.5) == pytest.approx(0.4)
