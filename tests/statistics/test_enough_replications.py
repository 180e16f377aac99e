"""How many runs a wanted precision needs; benchmarks/test_stopping.py measures the coverage."""

import math

import numpy as np
import pytest

from shadowsim.statistics.enough_replications import LEAST, look

T96 = {10: 2.3984, 20: 2.2047}  # Student's two-sided 4 % points with n - 1 degrees of freedom


def values(n, scatter, mean=1.0):
    """Return n figures with exactly this mean and standard deviation."""
    x = np.tile([1.0, -1.0], n // 2)
    return (mean + scatter * x / x.std(ddof=1))[:, None]


@pytest.mark.parametrize("n", [10, 20])
def test_the_half_width_is_students_at_96_percent(n):
    assert look(values(n, 0.1, -2.0), 0.5).relative[0] == pytest.approx(T96[n] * 0.1 / math.sqrt(n) / 2.0, rel=1e-4)


def test_there_are_at_least_ten_runs():
    for n in (1, 2, 8):
        few = look(values(n, 0.0) if n > 1 else np.ones((1, 1)), 0.5)
        assert (few.needed, few.reached) == (LEAST, False)


def test_runs_are_added_by_what_the_scatter_asks_for_at_most_twice_as_many():
    width = T96[10] * 0.1 / math.sqrt(10)
    assert look(values(10, 0.1), 1.001 * width) == (10, 10, pytest.approx((width,), rel=1e-4), True, "")
    assert look(values(10, 0.1), width / 1.2).needed == math.ceil(10 * 1.2**2)
    assert look(values(10, 0.1), width / 10.0).needed == 20
    assert look(values(10, 0.1), 0.9999 * width).needed == 11


def test_the_less_precise_side_decides():
    both = np.hstack([values(10, 0.001), values(10, 0.1)])
    assert not look(both, 0.05).reached
    assert look(both[:, :1], 0.05).reached


@pytest.mark.parametrize(("figures", "why"), [(np.zeros((10, 1)), "it is 0"), (np.full((10, 1), math.nan), "no such")])
def test_a_figure_without_a_relative_precision_ends_it(figures, why):
    last = look(figures, 0.1)
    assert (last.needed, last.reached) == (10, False)
    assert why in last.why
