"""A comparison's row in words: signs, units, and what is missing."""

import math

import pytest

from shadowsim.report.changes import change, interval, signed

NAN = math.nan
LATENCY = {"unit": "s", "difference": 0.002, "low": 0.001, "high": 0.003}
RATIO = {"ratio": 1.1, "ratio_low": 1.05, "ratio_high": 1.15}
NO_RATIO = dict.fromkeys(RATIO, NAN)


@pytest.mark.parametrize(
    ("row", "said", "between"),
    [
        (LATENCY | RATIO, "+10.0 %", "+5.00 to +15.0"),
        (LATENCY | NO_RATIO, "+2.00 ms", "+1.00 to +3.00"),
        (LATENCY | NO_RATIO | {"difference": -2.0, "low": -3.0, "high": -1.0}, "-2.00 s", "-3.00 to -1.00"),
        ({"unit": "share", "difference": 0.01, "low": 0.0, "high": 0.02} | NO_RATIO, "+1.00 pt", "0 to +2.00"),
        (LATENCY | RATIO | {"ratio_low": NAN}, "+10.0 %", "-"),
        (LATENCY | {"ratio": math.inf, "ratio_low": 1.0, "ratio_high": math.inf}, "-", "0 to +inf"),
    ],
)
def test_a_change_and_its_interval(row, said, between):
    assert (change(row), interval(row)) == (said, between)


@pytest.mark.parametrize(("x", "text"), [(12.06, "+12.1"), (-0.314, "-0.31"), (0.0, "0"), (-math.inf, "-inf")])
def test_numbers_with_signs(x, text):
    assert signed(x) == text
