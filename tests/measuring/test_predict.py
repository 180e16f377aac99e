"""Predictions: a right model is called right, one that is 10 % off is not, and too little data give no verdict."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from served_logs import fifo_log, measured

import shadowsim as ss
from shadowsim.errors import InputError
from shadowsim.measuring.measurement import Measurement


@pytest.fixture(scope="module")
def calibrated():
    return ss.calibrate(measured(*fifo_log("gamma", 2, 0.5, n=12_000, seed=1, overhead_s=0.002)))


def test_right(calibrated):
    log = measured(*fifo_log("gamma", 2, 0.6, n=12_000, seed=14, overhead_s=0.002))
    prediction = ss.predict(calibrated, log)
    assert prediction.verdict == "right"
    assert prediction.table["inside"].all()
    assert str(prediction).startswith("The model is right")
    assert prediction.curve["depth"].is_monotonic_increasing
    assert (prediction.curve["low_s"] < prediction.curve["high_s"]).all()
    # an interval of a queue's quantile contains it
    assert (prediction.table["measured_low_s"] <= prediction.table["measured_s"]).sum() >= 3


def test_what_requests_were_sent_late_is_predicted(calibrated):
    arrival, latency = fifo_log("gamma", 2, 0.6, n=4_000, seed=14, overhead_s=0.002)
    late = np.where(np.arange(4_000) % 2, 0.05, 0.0)  # two and a half services: requests overtake others
    log = measured(arrival - late, latency + late, sent_s=arrival)
    row, on_time = (ss.predict(calibrated, one, draws=20).table for one in (log, measured(arrival, latency)))
    assert row["inside"].all()
    np.testing.assert_allclose(row["error_pct"], on_time["error_pct"], atol=8.0)
    assert row["measured_s"].iloc[-1] > on_time["measured_s"].iloc[-1] + 0.03


def test_a_service_that_became_slower_is_not_right(calibrated):
    log = fifo_log("gamma", 2, 0.7, n=8_000, seed=2, overhead_s=0.002, mean_s=0.022)
    prediction = ss.predict(calibrated, measured(*log), draws=20)
    assert prediction.verdict == "not right"
    assert prediction.reason.startswith("measured p")
    assert "% above, outside the band" in prediction.reason


@pytest.mark.slow
def test_twice_the_workers(calibrated):
    log = measured(*fifo_log("gamma", 4, 0.7, n=8_000, seed=3, overhead_s=0.002))
    assert ss.predict(calibrated, log, workers=4, draws=20).verdict == "right"
    assert ss.predict(calibrated, log, draws=20).verdict == "not right"


def test_few_requests_cannot_tell(calibrated):
    log = measured(*fifo_log("gamma", 2, 0.8, n=300, seed=4, overhead_s=0.002))
    prediction = ss.predict(calibrated, log, draws=20)
    assert prediction.verdict == "cannot tell"
    assert "calibrate on more requests, or measure for longer" in prediction.reason


@pytest.mark.slow
def test_the_reserve_alone_is_compared():
    log = measured(*fifo_log("gamma", 2, 0.6, n=12_000, seed=5))
    calibration = ss.calibrate(log, reserve=0.4)
    prediction = ss.predict(calibration, log, draws=20)
    assert prediction.n_requests + calibration.n_requests == 12_000
    assert "Compared is the reserve, the last 40 % of the run." in prediction.notes
    same = ss.predict(ss.calibrate(log), log, draws=20)
    assert any("no test of it" in note for note in same.notes)


def test_unknown_workers_decide_nothing():
    calibration = ss.calibrate(measured(*fifo_log("gamma", 6, 0.1, n=3_000, seed=6)))
    prediction = ss.predict(calibration, measured(*fifo_log("gamma", 6, 0.9, n=3_000, seed=7)), draws=20)
    assert prediction.verdict == "cannot tell"
    assert "left workers open" in prediction.reason


def test_quantiles_alone_cannot_tell():
    calibration = ss.calibrate(Measurement("wrk2 histogram", quantiles={0.5: 0.02, 0.9: 0.04, 0.99: 0.08}))
    prediction = ss.predict(calibration, measured(*fifo_log("gamma", 2, 0.5, n=1_000, seed=6)), draws=20)
    assert prediction.verdict == "cannot tell"
    assert "left workers open" in prediction.reason


def test_a_service_block_alone_has_no_uncertainty(calibrated):
    log = measured(*fifo_log("gamma", 2, 0.5, n=2_000, seed=8))
    prediction = ss.predict(dict(calibrated.service), log, draws=20)
    assert any("no uncertainty of its own" in note for note in prediction.notes)


def test_requests_whose_tokens_are_not_known_are_left_out(tmp_path):
    """Those that never had an answer: a server reset their connections."""
    n, step_s = 200, 0.01
    output = 10.0 + np.arange(n) % 7
    frame = pd.DataFrame({"arrival_s": np.arange(n) * 0.5, "latency_s": output * step_s, "first_token_s": step_s})
    frame = frame.assign(prompt_tokens=20.0, output_tokens=output, status="answered")
    frame.loc[[5, 90], ["latency_s", "first_token_s", "prompt_tokens", "output_tokens"]] = np.nan
    frame.loc[[5, 90], "status"] = "failed"
    frame.to_csv(tmp_path / "measured.csv", index=False)
    lengths = {"law": "deterministic", "mean_tokens": 20}
    tokens = {"prompt": lengths, "output": lengths, "step": {"base_s": step_s}}
    room = {"max_sequences": 4, "max_step_tokens": 64, "kv_tokens": 4096}
    prediction = ss.predict({"tokens": tokens | room}, tmp_path / "measured.csv", draws=20)
    assert prediction.verdict == "right"
    assert any(note.startswith("1.0 % of the requests, of which prompt_tokens") for note in prediction.notes)
    frame.loc[1:, "output_tokens"] = np.nan
    frame.to_csv(tmp_path / "unknown.csv", index=False)
    with pytest.raises(InputError, match="two requests whose tokens are known"):
        ss.predict({"tokens": tokens | room}, tmp_path / "unknown.csv", draws=20)


def test_bad_input_is_refused(calibrated, tmp_path):
    log = measured(*fifo_log(n=300))
    for arguments, message in [
        ({"draws": 5}, "draws: must be"),
        ({"workers": 0}, "workers: must be"),
        ({"margin_pct": -1.0}, "margin_pct: must be a percentage >= 0"),
        ({"routing": "NEAREST"}, "endpoint.routing: must be"),
    ]:
        with pytest.raises(InputError) as error:
            ss.predict(calibrated, log, **arguments)
        assert str(error.value).startswith(message)
    with pytest.raises(InputError, match="there is no such file"):
        ss.predict(tmp_path / "none.json", log)
    with pytest.raises(InputError, match="is not a known key"):
        ss.predict({"service": dict(calibrated.service), "calibratoin": {}}, log)


def test_figure_and_page(calibrated, tmp_path):
    prediction = ss.predict(calibrated, measured(*fifo_log("gamma", 2, 0.5, n=2_000, seed=9)), draws=20)
    names = [trace.name for trace in prediction.plot().data]
    assert names[-2:] == ["predicted", "measured"]
    page = prediction.report(tmp_path / "page.html").read_text("utf-8")
    assert "Prediction of a measured run" in page
    assert np.isfinite(prediction.curve.drop(columns="measure").to_numpy()).all()


@pytest.mark.long  # test_right and test_a_service_that_became_slower_is_not_right are its short form
def test_false_alarms_and_what_is_found():
    alarms = found = 0
    for seed in range(40):
        calibration = ss.calibrate(measured(*fifo_log("gamma", 2, 0.5, n=12_000, seed=1_000 + seed, overhead_s=0.002)))
        log = fifo_log("gamma", 2, 0.7, n=8_000, seed=5_000 + seed, overhead_s=0.002)
        alarms += ss.predict(calibration, measured(*log), draws=40, seed=seed).verdict == "not right"
        if seed % 4 == 0:
            log = fifo_log("gamma", 2, 0.7, n=8_000, seed=9_000 + seed, overhead_s=0.002, mean_s=0.022)
            found += ss.predict(calibration, measured(*log), draws=40, seed=seed).verdict == "not right"
    # 5 % of 40, and three standard errors of that; a tenth more service is about 20 % more latency at this load
    assert alarms <= 2 + 3.0 * np.sqrt(0.05 * 0.95 * 40)
    assert found >= 9


def test_fewer_workers_take_the_first_factors_of_a_slowdown():
    service = {"time": {"law": "gamma", "mean_s": 0.02, "scv": 0.5}, "workers": 2, "slowdown": [1.0, 1.3]}
    log = measured(*fifo_log("gamma", 1, 0.4, n=1_000, seed=3))
    prediction = ss.predict({"service": service}, log, workers=1, draws=20)
    alone = ss.predict({"service": service | {"workers": 1, "slowdown": [1.0]}}, log, draws=20)
    assert prediction.table["predicted_s"].tolist() == alone.table["predicted_s"].tolist()
