"""Terms: the sentences of the outcomes."""

import inspect

import pytest

import shadowsim as ss
from shadowsim.statistics.terms import CONFIDENCE, MARGIN_PCT, MARGIN_POINTS, NOT_JUDGED, OUTCOMES, Terms


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
