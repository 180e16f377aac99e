"""What a log says, for people and for machines."""

import json

import log_samples as samples
from log_samples import Sent

from shadowsim import read_measurement
from shadowsim.measuring.overview import overview_object, overview_text


def test_text_and_object_say_the_same(tmp_path):
    file = tmp_path / "log"
    sent = [Sent(100 * i, 20 if i else 50, 200 if i % 10 else 503) for i in range(400)]
    file.write_text(samples.vegeta_json(sent) + "broken\n")
    measured = read_measurement(file)
    text = overview_text(measured)
    assert text.startswith(
        "vegeta JSON lines\n"
        "  arrivals 400 requests in 39.9 s from 2026-11-29 01:12:08 UTC: 10 requests/s\n"
        "  gaps     SCV "
    )
    assert "\n  latency  mean 20.1 ms, p50 20.0 ms, p90 20.0 ms, p95 20.0 ms\n" in text  # p99 of 400 has four beyond it
    assert "\n  errors   error_5xx 10.00 %\n" in text
    assert "\n  loop     open: requests came at their own times\n" in text
    assert "\n  damaged  1 of 401 lines; the first is line 401 of log: it is no JSON" in text
    assert "\n  lacks    Latencies count from when" in text
    assert max(map(len, text.splitlines())) <= 80
    said = json.loads(json.dumps(overview_object(measured)))
    assert (said["form"], said["requests"], said["damaged"]) == ("vegeta JSON lines", 400, 1)
    assert said["p99_s"] == 0.02
    assert said["errors"] == {"error_5xx": 0.1}


def test_what_is_not_known_is_said(tmp_path):
    file = tmp_path / "log"
    file.write_text(samples.WRK2[samples.WRK2.index("       Value") : samples.WRK2.index("-----")])
    text = overview_text(read_measurement(file, latency_unit="ms"))
    assert "  arrivals 39,566 requests\n" in text
    assert "  errors   not known\n" in text
    file.write_text("".join(map(samples.combined, [Sent(0, 1), Sent(2000, 1)])))
    text = overview_text(read_measurement(file))
    assert "  latency  not known\n" in text
    assert "  errors   none\n" in text
    assert "gaps" not in text.partition("lacks")[0]
