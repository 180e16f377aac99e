"""The verdict of an interval."""

import math

import pytest

from shadowsim.statistics.contrasts import NOT_ENOUGH, Terms, row_of, verdict_of

TERMS = Terms(margin_pct=10.0, margin_points=0.1, alpha=0.05)
SAME_PCT, SAME_POINTS = "no difference larger than 10 %", "no difference larger than 0.1 points"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.95, 1.05, SAME_PCT),
        (1.02, 1.09, SAME_PCT),  # certain, and certainly small
        (0.91, 0.99, SAME_PCT),
        (1.02, 1.30, "worse"),
        (1.15, 1.30, "worse"),
        (0.70, 0.97, "better"),
        (0.95, 1.12, NOT_ENOUGH),
        (0.50, 2.00, NOT_ENOUGH),
        (math.nan, math.nan, NOT_ENOUGH),
    ],
)
def test_a_latency_is_judged_by_its_ratio(low, high, verdict):
    row = row_of("p99", "s", [2.0, 2.0], [10, 10], TERMS)
    row |= {"ratio_low": low, "ratio_high": high, "low": 2.0 * (low - 1.0), "high": 2.0 * (high - 1.0)}
    assert verdict_of(row, TERMS) == verdict
    assert row["margin"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.0005, 0.0009, SAME_POINTS),
        (0.0001, 0.0009, SAME_POINTS),
        (0.0001, 0.0020, "worse"),
        (-0.0020, -0.0001, "better"),
        (-0.0005, 0.0011, NOT_ENOUGH),
    ],
)
def test_a_share_is_judged_in_points(low, high, verdict):
    row = row_of("error_rate", "share", [0.01, 0.01], [10, 10], TERMS) | {"low": low, "high": high}
    assert row["margin"] == pytest.approx(0.001)
    assert verdict_of(row, TERMS) == verdict


def test_a_row_without_an_interval_is_not_enough_data():
    row = row_of("p99", "s", [0.0, 1.0], [5, 0], TERMS)
    assert (row["n_source"], row["n_shadow"], row["difference"], row["verdict"]) == (5, 0, 1.0, NOT_ENOUGH)
    assert math.isnan(row["ratio"])
    assert math.isnan(row["low"])
