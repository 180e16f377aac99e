"""Services from windows: mean and workers of the server that made them, or the reason why they stay open."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from served_logs import fifo_log

import shadowsim as ss
from shadowsim.errors import InputError
from shadowsim.measuring.measurement import Measurement


def windows(workers, loads, n=4_000):
    """One window per load, as CloudWatch has it."""
    rows = []
    for i, load in enumerate(loads):
        arrival, latency = fifo_log("lognormal", workers, load, n=n, seed=i)
        micros = latency * 1e6
        rows.append(
            {
                "time_s": 0.0,
                "period_s": arrival[-1],
                "Invocations": n,
                "ModelLatency_Average": micros.mean(),
                **{f"ModelLatency_{name}": np.quantile(micros, p) for name, p in (("p50", 0.5), ("p99", 0.99))},
            }
        )
    return Measurement("CloudWatch export", windows=pd.DataFrame(rows), lacks=("It has no single requests.",))


def test_windows_of_many_rates():
    calibration = ss.calibrate(windows(2, np.linspace(0.1, 0.8, 24)))
    # the wait is an approximation, good to some per cent
    assert calibration["time.mean_s"].value == pytest.approx(0.02, rel=0.05)
    assert calibration["workers"].low <= 2 <= calibration["workers"].high
    assert calibration["workers"].high <= 3
    assert "There are no single requests" in calibration.notes[0]
    assert calibration.notes[-1] == "It has no single requests."


def test_windows_of_one_rate_leave_workers_open():
    workers = ss.calibrate(windows(4, [0.3] * 12))["workers"]
    assert "the rate hardly varies" in workers.why_not


def test_windows_at_low_load_leave_workers_open():
    workers = ss.calibrate(windows(8, np.linspace(0.05, 0.3, 12)))["workers"]
    assert "latency hardly grows with the rate" in workers.why_not


def test_quantiles_alone_are_the_service():
    measurement = Measurement("wrk2 histogram", quantiles={0.5: 0.02, 0.9: 0.04, 0.99: 0.08})
    calibration = ss.calibrate(measurement)
    assert calibration.service == {
        "time": {"law": "empirical", "quantiles_s": {"0.5": 0.02, "0.9": 0.04, "0.99": 0.08}}
    }
    assert not calibration["workers"].is_identified


def test_bad_windows_are_refused():
    one = windows(2, [0.3])
    for measurement, arguments, message in [
        (one, {}, "measurements: must have at least 10 windows"),
        (one, {"reserve": 0.3}, "reserve: must be left out for a CloudWatch export"),
        (Measurement("x", windows=one.windows.drop(columns="period_s")), {}, "measurements: must have windows with"),
        (Measurement("x", quantiles={0.5: 1.0}), {}, "measurements: must have at least two quantiles"),
    ]:
        with pytest.raises(InputError) as error:
            ss.calibrate(measurement, **arguments)
        assert str(error.value).startswith(message)
