"""Terms: the sentences of the outcomes."""

import inspect

import pytest

import shadowsim as ss
from shadowsim.errors import InputError
from shadowsim.statistics.terms import (
    CONFIDENCE,
    MARGIN_PCT,
    MARGIN_POINTS,
    NOT_JUDGED,
    OUTCOMES,
    Terms,
    limits_of,
    terms_of,
)


def test_each_outcome_has_its_sentence():
    terms = Terms(margin_pct=2.5, margin_points=0.05)
    assert [terms.verdict(outcome, "s") for outcome in (*OUTCOMES, NOT_JUDGED)] == [
        "worse", "better", "no difference larger than 2.5 %", "not enough data", "",
    ]  # fmt: skip
    assert terms.verdict("same", "share") == "no difference larger than 0.05 points"


@pytest.mark.parametrize(
    "function", [ss.compare, ss.Result.compare, ss.compare_runs, ss.assert_no_regression, ss.noise_floor]
)
def test_all_comparisons_have_the_same_defaults(function):
    defaults = {"margin_pct": MARGIN_PCT, "margin_points": MARGIN_POINTS, "confidence": CONFIDENCE}
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in defaults if name in parameters} == {
        name: value for name, value in defaults.items() if name in parameters
    }
    assert {"margin_points", "confidence"} <= set(parameters)


def test_arguments_become_terms_and_seconds():
    assert terms_of(5.0, 0.2, 0.9) == Terms(5.0, 0.2, 1.0 - 0.9)
    last = terms_of(5.0, 0.2, 0.95, look=3, looks=3)
    assert 0.0 < last.alpha < 1.0 - 0.95  # the looks before have spent a part of the level
    assert terms_of(5.0, 0.2, 0.95, look=1, looks=3).alpha < last.alpha
    assert [limits_of(x) for x in (None, 0.2, "200ms")] == [{}, {"slo_miss": 0.2}, {"slo_miss": 0.2}]
    assert limits_of(None, "1s", 0.05) == {"ttft_slo_miss": 1.0, "tpot_slo_miss": 0.05}


def test_a_limit_of_no_time_is_refused():
    with pytest.raises(InputError, match="slo_s: must be > 0, got '0ms'"):
        limits_of("0ms")
    with pytest.raises(InputError, match="tpot_slo_s: must be > 0, got 0"):
        limits_of(None, None, 0)
