"""vegeta's report, and results without an answer."""

import json

import pytest

from shadowsim import read_measurement
from shadowsim.errors import InputError

REPORT = {
    "latencies": {
        **{"total": 237_119_463_000, "mean": 2_371_194_000, "50th": 2_854_306_000, "90th": 3_228_223_000},
        **{"95th": 3_478_629_000, "99th": 3_530_000_000, "max": 3_660_505_000, "min": 1_949_582_000},
    },
    "bytes_in": {"total": 606_700, "mean": 6067},
    "bytes_out": {"total": 0, "mean": 0},
    "earliest": "2026-11-29T01:10:39.947614362+02:00",
    "latest": "2026-11-29T01:10:49.847614362+02:00",
    "end": "2026-11-29T01:10:53.0+02:00",
    "duration": 9_900_000_000,
    "wait": 3_660_505_000,
    "requests": 100,
    "rate": 10.1,
    "throughput": 7.37,
    "success": 0.9,
    "status_codes": {"200": 90, "404": 3, "503": 6, "0": 1},
    "errors": [],
}


def test_a_report_gives_quantiles_and_one_period(tmp_path):
    file = tmp_path / "r"
    file.write_text(json.dumps(REPORT))
    measured = read_measurement(file)
    assert measured.quantiles == {0.5: 2.854306, 0.9: 3.228223, 0.95: 3.478629, 0.99: 3.53}
    assert (measured.n_requests, measured.span_s, measured.open_loop) == (100, 9.9, True)
    assert measured.rate_per_s == pytest.approx(10.101, abs=1e-3)
    assert measured.mean_latency_s() == 2.371194
    assert measured.error_shares() == {"error_4xx": 0.03, "error_5xx": 0.06, "other": 0.01}
    assert measured.started.isoformat() == "2026-11-28T23:10:39.947614+00:00"
    assert measured.quantile(0.97) == pytest.approx((3.478629 + 3.53) / 2)  # close enough to be interpolated
    assert measured.quantile(0.6) is None
    file.write_text(json.dumps(REPORT | {"duration": None}, indent=2))
    with pytest.raises(InputError, match="is no report of vegeta's"):
        read_measurement(file)


def test_results_without_an_answer(tmp_path):
    file = tmp_path / "r"
    time_out = 'Get ""http://h/"": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
    rows = [
        f'1795914728587000000,0,30000000000,0,0,"{time_out}",,,0,GET,http://h/,',
        "1795914728687000000,0,1000000,0,0,dial tcp 127.0.0.1:9: connect: connection refused,,,1,GET,http://h/,",
        "1795914728787000000,429,1000000,0,5,429 Too Many Requests,eA==,,2,GET,http://h/,",
    ]
    file.write_text("\n".join(rows) + "\n")
    measured = read_measurement(file)
    assert measured.requests["status"].tolist() == ["timed_out", "failed", "error_4xx"]
    assert measured.requests["latency_s"].isna().tolist() == [True, True, False]
