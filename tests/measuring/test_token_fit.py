"""Step times from first and last tokens: they are those of the batcher that made the log."""

from __future__ import annotations

import numpy as np
import pytest
from served_logs import STEP, measured, token_log

import shadowsim as ss
from shadowsim.errors import InputError
from shadowsim.scenario.service import parse_service


@pytest.mark.parametrize("rate_per_s", [2.0, 9.0])
def test_recovers_step_times(rate_per_s):
    calibration = ss.calibrate(token_log(rate_per_s, seed=1))
    tokens = calibration.service["tokens"]
    # steps are counted, so that only the clock limits them
    for key, value in STEP.items():
        assert tokens["step"][key] == pytest.approx(value, rel=0.02)
    assert tokens["before_s"] == pytest.approx(0.001, rel=0.05)
    assert "per_prefill_pair_s" not in tokens["step"]
    assert "per_prompt_s" not in tokens["step"]
    parse_service(calibration.service, "service")


def test_what_each_prompt_adds_is_found():
    step = ss.calibrate(token_log(9.0, seed=1, per_prompt_s=0.003)).service["tokens"]["step"]
    for key, value in (STEP | {"per_prompt_s": 0.003}).items():
        assert step[key] == pytest.approx(value, rel=0.03)


def test_places_are_found_where_requests_wait_for_them():
    assert ss.calibrate(token_log(11.0, seed=2))["tokens.max_sequences"].value == 8
    at_low_load = ss.calibrate(token_log(1.0, n=600, seed=3))["tokens.max_sequences"]
    assert "hardly any request waited for a place" in at_low_load.why_not


def test_noise_of_clocks_leaves_the_step_times():
    log = token_log(6.0, seed=4)
    rng = np.random.default_rng(5)
    requests = log.requests
    noise = rng.normal(0.0, 0.0002, len(requests))  # a tenth of the least step
    first = np.maximum(requests["first_token_s"] + noise, 1e-6)
    last = np.maximum(requests["latency_s"] + rng.normal(0.0, 0.0002, len(requests)), first)
    columns = {name: requests[name] for name in ("prompt_tokens", "output_tokens")}
    noisy = measured(requests["arrival_s"], last, first_token_s=first, **columns)
    step = ss.calibrate(noisy).service["tokens"]["step"]
    # a step of four sequences
    modelled = step["base_s"] + 4 * step["per_sequence_s"] + 400 * step.get("per_kv_token_s", 0.0)
    assert modelled == pytest.approx(0.0012 + 4 * 0.00066 + 400e-6, rel=0.05)
    assert step["per_prefill_token_s"] == pytest.approx(0.00034, rel=0.05)


def test_a_machine_that_varies_and_stands_still_leaves_the_step_times():
    """Each half second goes by a fifth faster or slower; of 1 % of them the machine takes 2 s more, in one go.

    Of 1 % of the answers all tokens come at once.
    """
    requests = token_log(6.0, seed=4).requests
    rng, part_s = np.random.default_rng(6), 0.5
    arrival = requests["arrival_s"].to_numpy()
    parts = int((arrival.max() + 60.0) / part_s)
    takes_s = part_s * rng.gamma(25.0, 1.0 / 25.0, parts) + 2.0 * (rng.random(parts) < 0.01)
    at_s, ends_s = part_s * np.arange(parts + 1), np.concatenate(([0.0], np.cumsum(takes_s)))
    begin, first, last = (
        np.interp(arrival + requests[name] if name else arrival, at_s, ends_s)
        for name in ("", "first_token_s", "latency_s")
    )
    at_once = rng.random(len(arrival)) < 0.01
    first = np.where(at_once, last - 0.00005, first)
    columns = {name: requests[name] for name in ("prompt_tokens", "output_tokens")}
    run = measured(begin, last - begin, first_token_s=first - begin, **columns)
    step = ss.calibrate(run).service["tokens"]["step"]
    modelled = step["base_s"] + 4 * step["per_sequence_s"] + 400 * step.get("per_kv_token_s", 0.0)
    # Odd answers count as 2.5 standard deviations of a fifth, 0.5 % of the mean for each per cent of them. Those at
    # which a stall falls are (half a second and their own time, 0.2 s) over half a second: 1.4 %.
    assert modelled == pytest.approx(0.0012 + 4 * 0.00066 + 400e-6, rel=0.05)


def test_intervals_allow_for_a_drift():
    """The log is taken to have run on a clock that goes slower and faster by 10 %, in 20 parts of the same length."""
    still = token_log(6.0, seed=4).requests
    arrival = still["arrival_s"].to_numpy()
    edges = np.linspace(0.0, 1.01 * float((arrival + still["latency_s"]).max()), 21)
    slower = np.exp(0.1 * np.random.default_rng(8).standard_normal(20))
    ends = np.concatenate(([0.0], np.cumsum(slower * np.diff(edges))))
    begin, first, last = (
        np.interp(arrival + still[name] if name else arrival, edges, ends)
        for name in ("", "first_token_s", "latency_s")
    )
    columns = {name: still[name] for name in ("prompt_tokens", "output_tokens")}
    drifting = ss.calibrate(measured(begin, last - begin, first_token_s=first - begin, **columns))
    assert any("The server drifts" in note for note in drifting.notes)
    calm = ss.calibrate(measured(arrival, still["latency_s"], first_token_s=still["first_token_s"], **columns))
    assert not any("drifts" in note for note in calm.notes)
    bases = [[draw.service["tokens"]["step"]["base_s"] for draw in one.draws] for one in (calm, drifting)]
    calm_spread, spread = (np.std(np.log(values)) for values in bases)
    assert calm_spread < 0.02
    # Two runs differ by sqrt(2) 0.1; nine differences tell of a standard deviation to a quarter of it, and each of the
    # ten blocks has two of the levels, which leaves a half to all of their spread.
    assert spread == pytest.approx(0.1, rel=0.75)


@pytest.mark.slow  # compiles the kernel of tokens
def test_predicts_another_load():
    calibration = ss.calibrate(token_log(9.0, seed=6))
    prediction = ss.predict(calibration, token_log(7.0, seed=7), draws=20)
    assert prediction.verdict == "right"
    assert set(prediction.table["measure"]) == {"latency", "first token"}
    slower = ss.predict(calibration, token_log(7.0, seed=7, slower=1.1), draws=20)
    assert slower.verdict == "not right"
    low = ss.calibrate(token_log(1.0, n=600, seed=8))
    assert ss.predict(low, token_log(11.0, seed=9), draws=20).verdict == "cannot tell"


def test_answers_of_one_token_are_refused():
    log = token_log(2.0, n=300, seed=10).requests
    columns = {"first_token_s": log["first_token_s"], "prompt_tokens": 10, "output_tokens": 1}
    with pytest.raises(InputError, match="two output tokens or more"):
        ss.calibrate(measured(log["arrival_s"], log["first_token_s"], **columns))
