"""What steps worked on, by the tokens that were seen, is exact, and step times are those of the batcher."""

from __future__ import annotations

import numpy as np
import pytest
from served_logs import STEP, token_log

import shadowsim as ss
from shadowsim.measuring.token_log import token_log as log_of
from shadowsim.measuring.token_steps import seen_steps


@pytest.mark.parametrize("rate_per_s", [2.0, 9.0])
def test_each_step_is_known_exactly(rate_per_s):
    """Tokens are sent up to a quarter of the shortest step late, which changes nobody's step."""
    measurement = token_log(rate_per_s, seed=1, sent_s=0.0)
    steps = seen_steps(log_of(measurement.requests, measurement.token_times))
    modelled_s = sum(value * steps.columns[key] for key, value in STEP.items())
    np.testing.assert_allclose(steps.measured_s, modelled_s, rtol=1e-6)
    least_s = STEP["base_s"] + STEP["per_sequence_s"]
    late = token_log(rate_per_s, seed=1, sent_s=0.25 * least_s)
    seen = seen_steps(log_of(late.requests, late.token_times))
    for key in STEP:
        np.testing.assert_array_equal(seen.columns[key], steps.columns[key])


def test_step_times_are_found_where_single_steps_vary():
    """Steps vary by 30 %, so that they cannot be counted between first and last tokens.

    Each coefficient is within four of its standard errors, and the time of a step of four sequences within 1 %.
    """
    calibration = ss.calibrate(token_log(9.0, n=3_000, seed=2, scv=0.09, sent_s=0.0004))
    step = calibration.service["tokens"]["step"]
    for key, value in STEP.items():
        one = calibration[f"tokens.step.{key}"]
        error = (one.high - one.low) / (2.0 * 1.96)
        assert abs(step[key] - value) < 4.0 * error
    of_four = step["base_s"] + 4 * step["per_sequence_s"] + 400 * step["per_kv_token_s"]
    assert of_four == pytest.approx(0.0012 + 4 * 0.00066 + 400e-6, rel=0.01)
    assert "Each step between two tokens was seen, of 100 % of the answers." in str(calibration)


def test_answers_whose_tokens_were_not_all_seen_count_as_running():
    """Of every third answer the tokens come in pairs: its own steps are left out, and those of others stay exact."""
    measurement = token_log(9.0, seed=3, sent_s=0.0)
    times = measurement.token_times
    number = times.groupby("row").cumcount()
    pairs = (times["row"] % 3 == 0) & (number % 2 == 1)
    steps = seen_steps(log_of(measurement.requests, times[~pairs]))
    of_two = {key: value for key, value in STEP.items() if key != "per_kv_token_s"}
    modelled_s = sum(value * steps.columns[key] for key, value in of_two.items())
    read_s = STEP["per_kv_token_s"] * steps.columns["per_kv_token_s"]
    # how far such answers are is not known to a token: they are taken to come evenly
    np.testing.assert_allclose(steps.measured_s, modelled_s + read_s, rtol=0.02)


def test_without_tokens_there_are_no_steps():
    measurement = token_log(2.0, n=300, seed=4)
    assert seen_steps(log_of(measurement.requests)).measured_s.size == 0
