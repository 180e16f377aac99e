"""Ranks: intervals that cover as often as they say, by counting all orders there are; and no difference overlooked."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, mannwhitneyu

from shadowsim.testing import ranks

VALUES = st.lists(st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(-100.0, 100.0)), min_size=1, max_size=12)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_a_medians_interval_is_the_narrowest_that_covers_often_enough(confidence):
    """Number of values below the median: binomial. The interval from the k-th fails with 2 P(B <= k - 1)."""
    for n in range(1, 60):
        found = ranks.median(np.arange(1.0, n + 1.0), confidence)
        k = 0
        while 2 * sum(binom.pmf(range(k + 1), n, 0.5)) <= 1 - confidence + 1e-12:
            k += 1
        assert (k, n + 1 - k) == (found.low, found.high) if k else np.isnan(found.low)
        assert found.value == (n + 1) / 2
    assert np.isnan(ranks.median(np.arange(5.0), 0.95).low)
    assert ranks.median(np.arange(6.0), 0.95).low == 0.0


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_shifts_interval_covers_as_often_as_it_says(confidence):
    """All orders of n and m values without a shift are alike: in how many of them does the interval hold 0?"""
    some = 0
    for n in range(1, 5):
        for m in range(n, 6):
            holds = []
            for places in combinations(range(n + m), n):
                x = np.array(places, float)
                y = np.array(sorted(set(range(n + m)) - set(places)), float)
                found = ranks.shift(x, y, confidence)
                # without an interval everything is possible
                holds.append(bool(np.isnan(found.low)) or found.low <= 0.0 <= found.high)
            assert np.mean(holds) >= confidence
            some += np.mean(holds) < 1.0
    assert some  # there are intervals at all


@given(VALUES, VALUES)
def test_the_shift_is_the_median_of_all_differences(x, y):
    x, y = np.array(x), np.array(y)
    differences = np.sort(np.subtract.outer(y, x).ravel())
    assert ranks.shift(x, y, 0.9).value == pytest.approx(np.median(differences), abs=1e-12)
    for k in {1, differences.size // 3 + 1, differences.size}:
        found = ranks._difference(np.sort(x), np.sort(y), k)
        assert found == pytest.approx(differences[k - 1], abs=1e-12)


def test_thousands_of_rounds_take_no_memory_of_their_pairs():
    rng = np.random.default_rng(1)
    x, y = rng.exponential(size=50_000), rng.exponential(size=60_000) + 0.1
    found = ranks.shift(x, y, 0.95)
    assert found.low < 0.1 < found.high  # one interval of 95 %, of a fixed seed
    assert found.high - found.low < 0.05


def test_p_is_mann_and_whitneys_and_of_equal_constants_one():
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([5.0, 6.0, 7.0, 8.0])
    assert ranks.p_value(x, y) == pytest.approx(2 / 70)  # 2 of the 70 orders
    assert ranks.p_value(x, y) == mannwhitneyu(x, y, method="exact").pvalue
    assert ranks.p_value(np.ones(5), np.ones(7)) == 1.0
    assert ranks.p_value(np.ones(5), np.full(7, 2.0)) < 0.01
