"""Samples in buckets and single values against sorted lists and loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.statistics.samples import Buckets, Values

COUNTS = st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=1, max_size=6).filter(
    lambda rows: sum(map(sum, rows)) > 0
)
EDGES = np.array([0.0, 1.0, 3.0, 4.0, 8.0])
P = st.floats(0.0, 1.0)


def buckets(counts):
    return Buckets(EDGES[:-1], EDGES[1:], np.array(counts, np.int64))


@given(COUNTS, P)
def test_a_bucket_quantile_has_p_of_the_answers_below_it(counts, p):
    sample = buckets(counts)
    assert sample.n_above(sample.quantile(p)).sum() == pytest.approx((1 - p) * sample.n, abs=1e-9 * sample.n)


@given(COUNTS, P)
def test_bucket_deviations_are_those_above_less_what_belongs_there(counts, p):
    sample = buckets(counts)
    beyond = sample.beyond(p)
    assert beyond.sum() == pytest.approx(0.0, abs=1e-9 * sample.n)
    expected = [
        above - (1 - p) * sum(row) for above, row in zip(sample.n_above(sample.quantile(p)), counts, strict=True)
    ]
    assert beyond == pytest.approx(expected, abs=1e-9 * sample.n)


@given(COUNTS, st.floats(0.0, 9.0))
def test_above_a_limit_a_bucket_counts_in_proportion(counts, x):
    inside = np.clip((EDGES[1:] - x) / np.diff(EDGES), 0.0, 1.0)
    assert buckets(counts).n_above(x) == pytest.approx(np.array(counts) @ inside)


VALUES = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 7.0]), min_size=1, max_size=40)


@given(VALUES, P)
def test_values_quantile_is_numpys_inverted_distribution(values, p):
    values = np.array(values)
    sample = Values(values, np.zeros(values.size, np.int64), 1)
    # a rank that rounding lifts over an integer is the next value's
    assert sample.quantile(p) in {np.quantile(values, q, method="inverted_cdf") for q in (p, min(1.0, p + 1e-12))}


@given(VALUES, P, st.integers(1, 5))
def test_values_deviations_add_up_to_nothing_and_share_ties(values, p, n_sections):
    values = np.array(values)
    section = np.arange(values.size) * n_sections // values.size
    sample = Values(values, section, n_sections)
    indicator = sample.indicator(p)
    assert indicator.mean() == pytest.approx(1 - p, abs=1e-9)
    x = sample.quantile(p)
    assert np.all(indicator[values > x] == 1.0)
    assert np.all(indicator[values < x] == 0.0)
    expected = [sum(indicator[section == s]) - (1 - p) * sum(section == s) for s in range(n_sections)]
    assert sample.beyond(p) == pytest.approx(expected, abs=1e-9)


def test_sums_and_variance():
    sample = Values(np.array([1.0, 2.0, 4.0]), np.array([0, 0, 2]), 3)
    assert sample.totals().tolist() == [3.0, 0.0, 4.0]
    assert sample.n_above(1.0).tolist() == [1.0, 0.0, 1.0]
    assert sample.variance() == pytest.approx(np.var([1, 2, 4]))
    assert buckets([[1, 0, 0, 1], [0, 0, 2, 0]]).variance() == pytest.approx(np.var([0.5, 6.0, 3.5, 3.5]))
