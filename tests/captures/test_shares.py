"""Shares and Wilson's interval."""

import math
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowsim.captures.shares import share_of


@settings(max_examples=40)
@given(st.integers(1, 10**7), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.999]))
def test_the_bounds_solve_wilsons_equation(of, part, confidence):
    """(share - p)^2 = z^2 p (1 - p) / n: a bound p is as far from the share as z of its own standard errors."""
    n = round(part * of)
    found = share_of(n, of, confidence)
    assert (found.n, found.of, found.share) == (n, of, n / of)
    assert 0.0 <= found.low <= found.share <= found.high <= 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    for p in (found.low, found.high):
        # Both sides are at most z^2 / n; the bounds are rounded to some 1e-15 of themselves.
        assert (found.share - p) ** 2 == pytest.approx(z * z * p * (1 - p) / of, rel=1e-6, abs=1e-14)


def test_a_published_interval():
    """81 of 263, from Newcombe (1998, Statistics in Medicine 17, table I), method 3."""
    found = share_of(81, 263, 0.95)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_of_nothing_nothing_is_known():
    found = share_of(0, 0, 0.95)
    assert all(map(math.isnan, (found.share, found.low, found.high)))
    assert found.cells() == ["-", "0 of 0", ""]
    assert share_of(1, 2, 0.95).cells() == ["50.00 %", "1 of 2", "9.45 % to 90.55 %"]
