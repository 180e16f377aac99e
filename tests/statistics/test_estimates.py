"""Intervals against closed forms, scipy's Wilson intervals, and their promised coverage."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.signal import lfilter
from scipy.stats import binom, binomtest, norm

from shadowsim.statistics import estimates
from shadowsim.statistics.batch_means import Batches
from shadowsim.statistics.estimates import Estimate
from shadowsim.statistics.samples import Values

N = 20_000


def autoregressive(rng, phi, n=N):
    return lfilter([1.0], [1.0, -phi], rng.standard_normal(n))


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_the_autocorrelation_time_of_an_autoregression(phi):
    times = [estimates.autocorrelation_time(autoregressive(np.random.default_rng(s), phi)) for s in range(20)]
    time = (1 + phi) / (1 - phi)
    # the sum ends after about three times; the relative variance of one is 2 (2 lags + 1) / n (Sokal, 1997)
    error = math.sqrt(2 * (2 * 3 * time + 1) / N / 20)
    assert np.mean(times) == pytest.approx(time, rel=4 * error + 0.02)


def test_the_autocorrelation_time_is_at_least_one():
    assert estimates.autocorrelation_time(np.resize([1.0, -1.0], 1000)) == 1.0
    assert estimates.autocorrelation_time(np.ones(10)) == 1.0
    assert estimates.autocorrelation_time(np.ones(1)) == 1.0


def in_order(values):
    return Values(values, np.arange(values.size) * 100 // values.size, 100)


@pytest.mark.parametrize(
    ("phi", "q"),
    [(0.9, 0.99), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((0.0, 0.5), (0.0, 0.99), (0.9, 0.5)))],
)
def test_a_quantiles_interval_covers(phi, q):
    scale = 1 / math.sqrt(1 - phi**2)
    true = scale * norm.ppf(q)
    hits, n = 0, 150
    for seed in range(n):
        estimate = estimates.quantile(in_order(autoregressive(np.random.default_rng(seed), phi)), q, Batches(30), 0.05)
        hits += estimate.low <= true <= estimate.high
    # promised: 95 %; a method is allowed 92 % to 98 %, chance one in a thousand
    assert binom.ppf(0.001, n, 0.92) <= hits <= binom.ppf(0.999, n, 0.98)


def test_n_eff_of_independent_values_is_their_number():
    sample = in_order(np.random.default_rng(1).standard_normal(N))
    assert estimates.n_effective(sample, 0.9) == pytest.approx(N, rel=0.1)
    # fewer by the autocorrelation of the median's indicator: 1 + 2 sum of (2/pi) asin(phi^k)
    time = 1 + 2 * sum(2 / math.pi * math.asin(0.9**k) for k in range(1, 200))
    sample = in_order(autoregressive(np.random.default_rng(2), 0.9))
    assert estimates.n_effective(sample, 0.5) == pytest.approx(N / time, rel=0.3)


def test_an_interval_beyond_what_was_seen_has_no_end():
    estimate = estimates.quantile(in_order(np.random.default_rng(1).standard_normal(200)), 0.99, Batches(10), 0.05)
    assert math.isnan(estimate.high)
    assert estimate.low < estimate.value


@given(st.integers(0, 29), st.integers(30, 10**6))
def test_few_hits_have_wilsons_interval(hits, n):
    assume(hits <= n)
    estimate = estimates.share(np.array([float(hits)]), np.array([float(n)]), float(n), None, 0.05)
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)
    assert estimate.n_eff == n


def test_few_hits_have_at_most_the_effective_size_of_the_latencies():
    hits, n = np.zeros(100), np.full(100, 1000.0)
    wide = estimates.share(hits, n, 500.0, Batches(30), 0.05)
    assert wide.high == pytest.approx(binomtest(0, 500).proportion_ci(method="wilson").high)
    assert wide.low == 0.0
    assert math.isnan(estimates.share(hits, n, 0.0, None, 0.05).low)


def test_clustered_hits_have_a_small_effective_size():
    hits = np.zeros(100)
    hits[::10] = 100.0
    estimate = estimates.share(hits, np.full(100, 1000.0), 1e9, Batches(20), 0.05)
    assert estimate.value == 0.01
    assert estimate.n_eff < 0.1 * estimate.n


def test_a_means_interval_is_students():
    rng = np.random.default_rng(7)
    x = rng.exponential(1.0, (30, 1000))
    estimate = estimates.mean(x.sum(axis=1), np.full(30, 1000.0), float(x.var()), Batches(30), 0.05)
    half = estimates.critical(0.05, 29) * x.mean(axis=1).std(ddof=1) / math.sqrt(30)
    assert estimate.value == pytest.approx(x.mean())
    assert half <= estimate.high - estimate.value <= 1.1 * half  # a few degrees of freedom fewer
    assert math.isnan(estimates.mean(x.sum(axis=1), np.full(30, 1000.0), math.nan, Batches(30), 0.05).n_eff)


def test_a_skewed_estimates_longer_end_is_further_away():
    assert estimates.skewed(2.0, 0.0) == (2.0, 2.0)
    assert estimates.skewed(2.0, 0.3) == (2.0, pytest.approx(2.0 + 0.3 * (2 * 2.0**2 + 1) / 6))
    assert estimates.skewed(2.0, -0.3) == (pytest.approx(2.0 + 0.3 * (2 * 2.0**2 + 1) / 6), 2.0)
    assert estimates.skewed(2.0, 9.0) == (2.0, 3.0)


def test_means_of_skewed_batches_lie_below_the_truth_less_often():
    rng, n_runs = np.random.default_rng(11), 1000
    below = plain = 0
    for x in rng.gamma(0.2, 5.0, (n_runs, 30)):  # skewness 4.5, that of the mean 0.8
        estimate = estimates.mean(x, np.ones(30), math.nan, Batches(30), 0.05)
        below += estimate.high < 1.0
        plain += 2.0 * estimate.value - estimate.low < 1.0  # the lower end is Student's
    assert plain > binom.ppf(0.999, n_runs, 0.07)  # of 0.025
    assert below <= binom.ppf(0.999, n_runs, 0.05)
    assert below < plain


def test_a_calm_tail_has_no_more_independent_answers_than_are_known():
    sample = in_order(np.random.default_rng(12).exponential(1.0, N))
    free, limited = (estimates.quantile(sample, 0.99, Batches(30), 0.05, max_n_eff=most) for most in (None, 2000.0))
    assert free.n_eff > 10_000
    assert limited.n_eff == 2000.0
    assert limited.low < free.low < free.value < free.high < limited.high


POSITIVE = st.floats(0.1, 10.0)
ERRORS = st.floats(0.0, 2.0)
RHO = st.floats(-0.9, 0.9)


@st.composite
def drawn_estimates(draw):
    value = draw(POSITIVE)
    return Estimate(value, value - draw(st.floats(0.0, 0.9)) * value, value + draw(ERRORS), 1, 1.0)


@given(drawn_estimates(), drawn_estimates())
def test_independent_errors_add_in_squares(source, shadow):
    low, high = estimates.difference(source, shadow, 0.0)
    d = shadow.value - source.value
    assert d - low == pytest.approx(math.hypot(shadow.value - shadow.low, source.high - source.value))
    assert high - d == pytest.approx(math.hypot(shadow.high - shadow.value, source.value - source.low))


def test_errors_that_are_one_cancel():
    one = Estimate(2.0, 1.5, 2.5, 1, 1.0)
    assert estimates.difference(one, one, 1.0) == (0.0, 0.0)
    assert estimates.ratio(one, one, 1.0) == pytest.approx((1.0, 1.0))


@given(drawn_estimates(), drawn_estimates(), RHO)
def test_the_ratios_interval_ends_where_the_difference_to_that_multiple_does(source, shadow, rho):
    low, high = estimates.ratio(source, shadow, rho)
    assert low <= shadow.value / source.value * (1 + 1e-9)
    assert high >= shadow.value / source.value * (1 - 1e-9)
    for r, end in ((low, 0), (high, 1)):
        scaled = Estimate(r * source.value, r * source.low, r * source.high, 1, 1.0)
        if 0.0 < r < math.inf:
            assert estimates.difference(scaled, shadow, rho)[end] == pytest.approx(0.0, abs=1e-6 * (1 + r))


@given(drawn_estimates(), drawn_estimates(), RHO)
def test_the_ratio_lies_above_one_where_the_difference_lies_above_nothing(source, shadow, rho):
    low, high = estimates.difference(source, shadow, rho)
    ratio_low, ratio_high = estimates.ratio(source, shadow, rho)
    assume(min(abs(low), abs(high), abs(ratio_low - 1), abs(ratio_high - 1)) > 1e-9)
    assert (low > 0) == (ratio_low > 1)
    assert (high < 0) == (ratio_high < 1)


def test_skewness_that_both_sides_share_cancels():
    plain = Estimate(1.0, 0.9, 1.1, 1, 1.0)
    source, shadow = (Estimate(1.0, 0.9, 1.1 + x, 1, 1.0, 0.0, x) for x in (0.05, 0.04))
    for function in (estimates.difference, estimates.ratio):
        assert function(source, shadow, 1.0) == pytest.approx(function(plain, plain, 1.0))
        low, high = function(source, shadow, 0.0)
        assert low < function(plain, plain, 0.0)[0]
        assert high > function(plain, plain, 0.0)[1]
    assert estimates.difference(source, shadow, 0.0)[1] == pytest.approx(math.hypot(0.14, 0.1))


def test_there_is_no_ratio_to_zero():
    assert all(map(math.isnan, estimates.ratio(Estimate(0.0, 0.0, 0.1, 1, 1.0), Estimate(0.1, 0.0, 0.2, 1, 1.0), 0.0)))
