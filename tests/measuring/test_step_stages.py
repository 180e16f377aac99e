"""Load stages: step times from means, and the prediction of another rate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shadowsim.errors import InputError
from shadowsim.measuring.step_stages import StageFit, fit_stages, mean_value_e2e_s, predict_highest

BASE_S, PER_SEQUENCE_S, BEFORE_S, OUTPUT = 0.012, 1e-4, 0.03, 200.0


def stages(rates=(2.0, 5.0, 10.0, 20.0), curve=0.0):
    """Return stages that obey base + s C (1 + curve C), found by going round from concurrency to time and back."""
    rows = []
    for rate in rates:
        e2e = BASE_S * OUTPUT
        for _ in range(10_000):
            concurrency = rate * e2e
            step = BASE_S + PER_SEQUENCE_S * concurrency * (1.0 + curve * concurrency)
            e2e = BEFORE_S + (0.5 + OUTPUT) * step
        rows.append((rate, OUTPUT, e2e, BEFORE_S + 1.5 * step, 1.1 * e2e, 1.5 * e2e))
    names = ("rate_per_s", "output_tokens", "e2e_s", "ttft_s", "e2e_s_p90", "e2e_s_p99")
    return dict(zip(names, np.array(rows).T, strict=True))


def test_stages_give_back_their_coefficients():
    fitted = fit_stages(stages(), "stages")
    assert fitted.coefficients.values == pytest.approx({"base_s": BASE_S, "per_sequence_s": PER_SEQUENCE_S}, rel=1e-9)
    assert fitted.before_s == pytest.approx(BEFORE_S, rel=1e-9)


def test_the_closed_form_is_the_fixed_point():
    fitted = fit_stages(stages(), "stages")
    for rate, e2e in zip(*(stages()[c] for c in ("rate_per_s", "e2e_s")), strict=True):
        assert mean_value_e2e_s(fitted, rate, OUTPUT) == pytest.approx(e2e, rel=1e-9)
    assert mean_value_e2e_s(fitted, 1.0 / (200.5 * PER_SEQUENCE_S) * 1.001, OUTPUT) == math.inf


def test_the_highest_rate_is_predicted_from_the_others():
    prediction = predict_highest(stages(), "stages")
    assert prediction is not None
    assert prediction.rate_per_s == 20.0
    for column in ("e2e_s", "ttft_s", "e2e_s_p90", "e2e_s_p99"):
        assert prediction.error(column) == pytest.approx(0.0, abs=1e-8)


def test_a_prediction_does_not_see_the_stage_that_it_predicts():
    whole, without = stages(), stages()
    for column in ("e2e_s", "ttft_s"):
        without[column] = np.where(without["rate_per_s"] == 20.0, 9.0, without[column])
    first, second = predict_highest(whole, "stages"), predict_highest(without, "stages")
    assert first is not None
    assert second is not None
    assert second.e2e_s == first.e2e_s
    assert second.error("e2e_s") == pytest.approx(first.e2e_s / 9.0 - 1.0)


def test_steps_that_bend_are_predicted_wrong():
    """Steps that grow less than in proportion are predicted too long."""
    prediction = predict_highest(stages(curve=-2e-3), "stages")
    assert prediction is not None
    assert prediction.error("e2e_s") > 0.02


def test_two_rates_fit_exactly_and_predict_nothing():
    two = stages((5.0, 10.0))
    assert fit_stages(two, "stages").coefficients.n_free == 0
    assert predict_highest(two, "stages") is None


def test_before_is_never_negative():
    fast = stages()
    fast["ttft_s"] = np.full(4, 0.001)
    fitted = fit_stages(fast, "stages")
    assert fitted.before_s == 0.0
    assert any(note.startswith("before_s is 0") for note in fitted.notes)


def test_unlike_prompts_are_said():
    def note(prompts) -> bool:
        fitted: StageFit = fit_stages(stages() | {"prompt_tokens": np.array(prompts)}, "stages")
        return any("Prompts per output token differ" in note for note in fitted.notes)

    assert note([500.0, 500.0, 500.0, 4000.0])
    assert not note([500.0, 505.0, 510.0, 500.0])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"ttft_s": 100.0}, "ttft_s below e2e_s in each stage, got 100.0"),
        ({"output_tokens": 1.0}, "output_tokens above 1 in each stage, got 1.0"),
    ],
)
def test_impossible_stages_are_refused(change, what):
    rows = stages()
    for column, value in change.items():
        rows[column][1] = value
    with pytest.raises(InputError, match=what):
        fit_stages(rows, "stages")
    with pytest.raises(InputError, match="two stages"):
        fit_stages(stages((5.0,)), "stages")
