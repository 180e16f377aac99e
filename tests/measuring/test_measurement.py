"""Figures of a measurement: what is not known is None and never a guess."""

import numpy as np
import pandas as pd
import pytest

from shadowsim.measuring.measurement import Measurement


def requests(arrival_s, latency_s=0.02, status="answered"):
    frame = pd.DataFrame({"arrival_s": np.asarray(arrival_s, float)})
    return frame.assign(latency_s=latency_s, status=status)


def test_gaps_of_known_streams():
    """SCV of an exponential is 1 with a standard error of about sqrt(8 / n)."""
    even = Measurement("x", requests=requests(np.arange(50) / 10))
    assert even.gap_scv == pytest.approx(0.0, abs=1e-12)
    assert even.rate_per_s == pytest.approx(10.0)
    arrival_s = np.cumsum(np.random.default_rng(1).exponential(0.1, 20_000))
    assert Measurement("x", requests=requests(arrival_s)).gap_scv == pytest.approx(1.0, abs=4 * np.sqrt(8 / 20_000))
    assert Measurement("x", requests=requests(arrival_s), resolution_s=1.0).gap_scv is None


def test_nothing_is_known_of_nothing():
    measured = Measurement("x")
    known = [measured.n_requests, measured.span_s, measured.rate_per_s, measured.gap_scv, measured.quantile(0.5)]
    assert [*known, measured.mean_latency_s()] == [None] * 6
    assert measured.error_shares() == {}
    one = Measurement("x", requests=requests([0.0]))
    assert (one.n_requests, one.span_s, one.rate_per_s, one.gap_scv) == (1, 0.0, None, None)
    unknown = Measurement("x", windows=pd.DataFrame({"time_s": [0.0], "period_s": [None], "Invocations": [5]}))
    assert (unknown.n_requests, unknown.span_s, unknown.rate_per_s) == (5, None, None)


def test_means_over_periods_are_weighted_by_their_requests():
    windows = pd.DataFrame({"time_s": [0.0, 60.0, 120.0], "period_s": 60.0, "ModelLatency_Average": [1e4, 3e4, np.nan]})
    assert Measurement("x", windows=windows).mean_latency_s() is None  # without weights
    weighted = windows.assign(Invocations=[100, 300, 50])
    assert Measurement("x", windows=weighted).mean_latency_s() == pytest.approx(0.025)


def test_quantiles_lie_between_close_ones_alone():
    measured = Measurement("x", quantiles={0.5: 0.010, 0.9: 0.0105, 0.99: 0.05})
    assert measured.quantile(0.9) == 0.0105
    assert measured.quantile(0.7) == pytest.approx(0.01025)
    assert [measured.quantile(q) for q in (0.4, 0.95, 0.999)] == [None] * 3


def test_errors_by_kind():
    measured = Measurement("x", requests=requests(range(4), status=["answered", "error_5xx", "timed_out", "answered"]))
    assert measured.error_shares() == {"error_5xx": 0.25, "timed_out": 0.25}
