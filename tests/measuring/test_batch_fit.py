"""Dynamic batchers: size, delay, workers and the time by size are those of the batcher that made the log."""

from __future__ import annotations

import numpy as np
import pytest
from served_logs import answered, batch_log, fifo_log, measured

import shadowsim as ss
from shadowsim.measuring.batch_fit import batches_of


def test_recovers_a_batcher():
    calibration = ss.calibrate(measured(*batch_log(n=8_000, seed=1, overhead_s=0.001)))
    batching = calibration.service["batching"]
    assert batching["max_size"] == 4
    # between the last request that a batch waited for and the first that it did not
    delay = calibration["batching.max_delay_s"]
    assert delay.low <= 0.004 <= delay.high
    assert batching["max_delay_s"] == pytest.approx(0.004, rel=0.02)
    assert calibration["workers"].value == 2
    marginal = calibration["batching.marginal"]
    assert marginal.low < 0.2 < marginal.high
    # some 4,000 batches with an scv of 0.25: 0.8 %, and as much again for the factors and the overhead
    assert calibration["time.mean_s"].value == pytest.approx(0.02, rel=0.05)
    assert any("answered in batches" in note for note in calibration.notes)


def test_without_delay():
    calibration = ss.calibrate(measured(*batch_log(max_delay_s=0.0, workers=1, n=4_000, seed=2)))
    assert calibration.service["batching"]["max_delay_s"] == 0.0
    assert calibration["workers"].value == 1


@pytest.mark.slow  # compiles the kernel of events
def test_predicts_another_load():
    calibration = ss.calibrate(measured(*batch_log(n=8_000, seed=3)))
    prediction = ss.predict(calibration, measured(*batch_log(n=4_000, rate_per_s=200.0, seed=4)), draws=30)
    # a right model: all measured quantiles within 10 % of the predicted ones, and within the band but once in twenty
    assert (prediction.table["error_pct"].abs() < 10.0).all()


def test_answers_one_by_one_are_no_batches():
    assert batches_of(answered(*fifo_log("exponential", 8, 0.8, n=4_000))) is None
    assert batches_of(answered(np.arange(10.0), np.full(10, 0.5))) is None
