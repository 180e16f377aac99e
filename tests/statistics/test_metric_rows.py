"""metric_rows: the outcome that a row's interval has."""

import math

import pytest

from shadowsim.statistics.metric_rows import outcome_of, row_of
from shadowsim.statistics.terms import BETTER, NOT_ENOUGH, SAME, WORSE, Terms

TERMS = Terms(alpha=0.05)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.95, 1.05, SAME),
        (1.02, 1.09, SAME),  # certain, and certainly small
        (0.91, 0.99, SAME),
        (1.02, 1.30, WORSE),
        (1.15, 1.30, WORSE),
        (0.70, 0.97, BETTER),
        (0.95, 1.12, NOT_ENOUGH),
        (0.50, 2.00, NOT_ENOUGH),
        (math.nan, math.nan, NOT_ENOUGH),
    ],
)
def test_a_latency_is_judged_by_its_ratio(low, high, outcome):
    row = row_of("p99", "s", [2.0, 2.0], [10, 10], TERMS)
    row |= {"ratio_low": low, "ratio_high": high, "low": 2.0 * (low - 1.0), "high": 2.0 * (high - 1.0)}
    assert outcome_of(row, TERMS) == outcome
    assert row["margin"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (-0.0005, 0.0009, SAME),
        (0.0001, 0.0009, SAME),
        (0.0001, 0.0020, WORSE),
        (-0.0020, -0.0001, BETTER),
        (-0.0005, 0.0011, NOT_ENOUGH),
    ],
)
def test_a_share_is_judged_in_points(low, high, outcome):
    row = row_of("error_rate", "share", [0.01, 0.01], [10, 10], TERMS) | {"low": low, "high": high}
    assert row["margin"] == pytest.approx(0.001)
    assert outcome_of(row, TERMS) == outcome


def test_a_row_without_an_interval_is_not_enough_data():
    row = row_of("p99", "s", [0.0, 1.0], [5, 0], TERMS)
    assert (row["n_source"], row["n_shadow"], row["difference"], row["outcome"]) == (5, 0, 1.0, NOT_ENOUGH)
    assert math.isnan(row["ratio"])
    assert math.isnan(row["low"])
