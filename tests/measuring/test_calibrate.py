"""Calibrations: what made a log is found, intervals cover it, and what the data leave open is said with its reason."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from served_logs import fifo_latencies, fifo_log, measured, services

import shadowsim as ss
from shadowsim.errors import InputError
from shadowsim.measuring.calibration import Calibration
from shadowsim.measuring.drift import drift_of
from shadowsim.scenario.service import parse_service


@pytest.fixture(scope="module")
def calibrated():
    return ss.calibrate(measured(*fifo_log(n=12_000, seed=1, overhead_s=0.002)))


def test_recovers_what_made_the_log(calibrated):
    # a mean of 12,000 with an scv of 0.5 is known to 0.7 %, and the overhead's error adds as much
    assert calibrated["time.mean_s"].value == pytest.approx(0.02, rel=0.03)
    assert calibrated["time.p99_s"].value == pytest.approx(0.0716, rel=0.05)
    assert calibrated.service["workers"] == calibrated["workers"].value == 4
    assert calibrated.service["time"]["law"] == "lognormal"
    assert "slowdown" not in calibrated.service
    assert calibrated["slowdown[4]"].low < 1.0 < calibrated["slowdown[4]"].high
    assert calibrated["endpoint.overhead_s"].low < 0.002 < calibrated["endpoint.overhead_s"].high
    assert calibrated.unidentified == ()


def test_the_block_is_a_service_of_a_scenario(calibrated):
    scenario = ss.default_scenario().to_dict()
    scenario["services"]["AllTraffic"] = dict(calibrated.service)
    scenario["endpoint"] |= calibrated.endpoint
    assert ss.Scenario.from_dict(scenario).side("source").workers == 4
    for draw in calibrated.draws:
        parse_service(draw.service, "draw")


def test_saves_and_loads(calibrated, tmp_path):
    file = tmp_path / "service.json"
    calibrated.save(file)
    loaded = Calibration.load(file)
    assert loaded.to_dict() == calibrated.to_dict()
    assert str(loaded) == str(calibrated)
    assert len(loaded.table) == len(calibrated.parameters)


def test_says_what_low_load_leaves_open():
    calibration = ss.calibrate(measured(*fifo_log("gamma", 4, 0.1, n=3_000, seed=2)))
    assert math.isinf(calibration["workers"].high)
    assert "wait" in calibration["workers"].why_not
    assert "not identifiable: workers" in str(calibration)
    overhead = calibration["endpoint.overhead_s"]
    assert overhead.value is None
    assert "hardly any request waited" in overhead.why_not


def test_says_what_saturation_leaves_open():
    calibration = ss.calibrate(measured(*fifo_log("gamma", 2, 1.6, n=3_000, seed=3, overhead_s=0.001)))
    assert calibration["workers"].value == 2
    assert "nearly all requests waited" in calibration["endpoint.overhead_s"].why_not
    assert "nearly all services were seen with 2 busy workers" in calibration["slowdown[2]"].why_not


def test_a_drifting_server_is_noted():
    arrival, latency = fifo_log("gamma", 1, 0.3, n=4_000, seed=4)
    drift = 1.0 + 0.8 * np.sin(np.arange(4_000) / 300.0)
    notes = ss.calibrate(measured(arrival * 3.0, latency * drift)).notes
    assert any("neighbouring requests are alike" in note for note in notes)
    assert any("The server drifts" in note for note in notes)


@pytest.mark.slow
def test_intervals_allow_for_a_drift():
    rng = np.random.default_rng(5)
    service = services("gamma", 8_000, rng)
    assert drift_of(service) == 0.0
    slow = np.exp(0.1 * np.repeat(rng.standard_normal(20), 400))
    # Two runs differ by sqrt(2) 0.1; each of ten blocks holds two of the twenty levels, and nine differences tell of a
    # standard deviation to a quarter of it.
    assert drift_of(service * slow) == pytest.approx(0.1, rel=0.75)
    arrival = np.cumsum(rng.exponential(0.2, 8_000))
    still, drifting = (
        ss.calibrate(measured(arrival, fifo_latencies(arrival, one, 1))) for one in (service, service * slow)
    )
    assert abs(drifting["time.mean_s"].high / drifting["time.mean_s"].value - 1.0) > 0.05
    assert abs(still["time.mean_s"].high / still["time.mean_s"].value - 1.0) < 0.03


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("gap_s", [0.1, 0.01])
def test_latencies_that_are_all_equal(gap_s):
    arrival_s = np.cumsum(np.random.default_rng(0).exponential(gap_s, 500))
    calibration = ss.calibrate(measured(arrival_s, np.full(500, 0.02)))
    assert calibration.service["time"]["law"] == "deterministic"
    # What is not service is overhead, whose size nothing shows.
    assert calibration["time.mean_s"].value + calibration.overhead_s == pytest.approx(0.02)
    assert not any("drift" in note for note in calibration.notes)


def test_whole_seconds_leave_the_law_alone(tmp_path):
    # As logs of nginx and k6 have them: times in steps of 1 s, of requests that take 20 ms.
    rng = np.random.default_rng(1)
    at_s, took_s = np.cumsum(rng.exponential(0.05, 2_000)), services("gamma", 2_000, rng)
    line = '1.2.3.4 - - [28/Nov/2026:10:{:02}:{:02} +0000] "POST /invocations HTTP/1.1" 200 9 "-" "-" rt={:.3f}\n'
    log = tmp_path / "access.log"
    log.write_text("".join(line.format(*divmod(int(t), 60), took) for t, took in zip(at_s, took_s, strict=True)))
    calibration = ss.calibrate(log)
    mean = calibration["time.mean_s"]
    assert mean.low < 0.02 < mean.high
    assert mean.high - mean.low < 0.0015  # 2 x 1.96 standard errors are 0.9 ms
    assert set(calibration.service) == {"time"}
    assert {one.name for one in calibration.unidentified} == {"workers", "slowdown", "endpoint.overhead_s"}
    assert "steps of 1.00 s" in calibration["workers"].why_not
    assert len(calibration.draws) > 10


def test_shares_of_errors():
    arrival, latency = fifo_log(n=2_000, seed=5)
    status = np.where(np.arange(2_000) % 50 == 0, "error_5xx", "answered")
    calibration = ss.calibrate(measured(arrival, latency, status=status))
    assert calibration.service["error_5xx"] == 0.02
    assert calibration["error_5xx"].low < 0.02 < calibration["error_5xx"].high
    assert "error_4xx" not in calibration.service


def test_requests_without_answer_are_said():
    arrival, latency = fifo_log(n=2_000, seed=6)
    latency[::100] = np.nan
    calibration = ss.calibrate(measured(arrival, latency))
    assert calibration.n_requests == 1_980
    assert any("1.0 % of the requests had no answer" in note for note in calibration.notes)


def test_calibrates_a_simulated_run_of_two_instances(tmp_path):
    scenario = ss.default_scenario().replace(
        {
            "traffic": {"process": "poisson", "rate_per_s": 210.0},
            "source.instance_count": 2,
            "services.AllTraffic": {"time": {"law": "gamma", "mean_s": 0.02, "scv": 0.25}, "workers": 3},
            "horizon_s": 60,
            "run.sample_requests": 20_000,
        }
    )
    ss.simulate(scenario).save(tmp_path)
    calibration = ss.calibrate(tmp_path)
    assert calibration.n_instances == 2
    assert calibration.service["workers"] == 3
    assert calibration["time.mean_s"].low < 0.02 < calibration["time.mean_s"].high


def test_a_sample_of_requests_is_no_run_of_single_requests(tmp_path):
    scenario = ss.default_scenario().replace({"horizon_s": 60, "run.sample_requests": 100})
    ss.simulate(scenario).save(tmp_path)
    with pytest.raises(InputError, match=r"must have at least 10 windows .*kept a sample of 100, which is no traffic"):
        ss.calibrate(tmp_path)


BAD = [
    ({"latency_s": [0.1]}, "is none of these: "),
    ({"arrival_s": [0.0], "latency_s": [0.1]}, "must have at least 200 answered requests, got 1"),
    (
        {"arrival_s": [0.0, 1.0], "latency_s": [0.1, -2.0]},
        "must have a number, 0 or more, in column latency_s, in line 3, got -2.0",
    ),
    ({"arrival_s": [0.0, None], "latency_s": [0.1, 0.1]}, "must have a number in column arrival_s, in line 3"),
    (
        {"arrival_s": [0.0, 1.0], "latency_s": ["a", "b"]},
        "must have a number, 0 or more, in column latency_s, in line 2",
    ),
]


@pytest.mark.parametrize(("columns", "message"), BAD)
def test_bad_tables_are_refused(columns, message, tmp_path):
    pd.DataFrame(columns).to_csv(tmp_path / "requests.csv", index=False)
    with pytest.raises(InputError) as error:
        ss.calibrate(tmp_path / "requests.csv")
    assert message in str(error.value)


def test_bad_parameters_are_refused():
    log = measured(*fifo_log(n=300))
    for arguments, message in [
        ({"reserve": 1.5}, "reserve: must be a share above 0 and below 1, got 1.5"),
        ({"instances": 0}, "instances: must be"),
        ({"instances": 3}, "instances: must be 1 where no column `instance` tells"),
    ]:
        with pytest.raises(InputError) as error:
            ss.calibrate(log, **arguments)
        assert str(error.value).startswith(message)


@pytest.mark.slow
@pytest.mark.parametrize(("law", "workers", "load", "slowest"), [("gamma", 2, 0.5, 1.0), ("gamma", 3, 0.6, 1.5)])
def test_intervals_cover(law, workers, load, slowest):
    """benchmarks/test_calibration.py has 200 repetitions."""
    truths = {"time.mean_s": 0.02, "endpoint.overhead_s": 0.002, f"slowdown[{workers}]": slowest}
    hits = dict.fromkeys(truths, 0)
    for seed in range(40):
        slowdown = np.linspace(1.0, slowest, workers)
        log = fifo_log(law, workers, load, n=4_000, seed=seed, slowdown=slowdown, overhead_s=0.002)
        calibration = ss.calibrate(measured(*log))
        assert calibration["workers"].value == workers
        for name, truth in truths.items():
            hits[name] += calibration[name].low <= truth <= calibration[name].high
    # 0.95 of 40, less three standard errors of a share of 0.9
    assert min(hits.values()) >= 38 - 3.0 * math.sqrt(0.9 * 0.1 * 40)


def test_answers_together_by_chance_are_no_batcher():
    arrival, latency = fifo_log("gamma", 4, 0.6, n=4_000, seed=7)
    finish = np.ceil((arrival + latency) / 0.0005) * 0.0005  # timers that tick
    calibration = ss.calibrate(measured(arrival, finish - arrival))
    assert "batching" not in calibration.service
    assert calibration["workers"].value == 4
