"""Batches: independent sections stay separate, memory joins them, and the trend of traffic is not an error."""

import numpy as np
import pytest
from scipy.stats import binom, skew

from shadowsim.statistics.batch_means import (
    MAX_BATCHES,
    MIN_BATCHES,
    STEADY,
    Batches,
    Course,
    Deviations,
    changes_gradually,
    traffic_moments,
    uncorrelated_batches,
)

SERIES, SECTIONS = 300, 100


def plain(x):
    return Deviations(x - x.mean(), np.ones(x.size))


def autoregressive(rng, phi):
    x = rng.standard_normal(SECTIONS)
    for i in range(1, SECTIONS):
        x[i] += phi * x[i - 1]
    return x


def test_independent_sections_are_joined_to_thirty_four_times_in_five():
    rng = np.random.default_rng(1)
    most = sum(
        uncorrelated_batches(plain(rng.standard_normal(SECTIONS))) == Batches(MAX_BATCHES) for _ in range(SERIES)
    )
    # the test is at 20 %, to first order in 1 / 30: the mean of r is -1 / 30, a fifth of its standard error
    assert binom.ppf(0.001, SERIES, 0.8) <= most <= binom.ppf(0.999, SERIES, 0.86)


def test_memory_joins_sections_until_none_are_left():
    rng = np.random.default_rng(2)
    batches = [uncorrelated_batches(plain(autoregressive(rng, 0.8))) for _ in range(SERIES)]
    # its time is 9 sections: thirty batches have correlation 0.5, ten of 0.3
    assert np.mean([b is not None and b.n > 20 for b in batches]) < 0.1
    # a random walk never forgets; ten batches of it have correlation 0.5, which ten numbers show three times in five
    walks = [uncorrelated_batches(plain(autoregressive(rng, 1.0))) for _ in range(SERIES)]
    assert np.mean([b is None for b in walks]) > 0.5
    assert np.mean([b is not None and b.trend for b in walks]) < 0.05


def test_the_error_of_independent_batches_is_that_of_their_sum():
    rng = np.random.default_rng(3)
    errors = [Batches(MAX_BATCHES).error(plain(rng.normal(0.0, 2.0, SECTIONS))) for _ in range(SERIES)]
    variance = np.mean([e**2 for e, _ in errors])
    expected = SECTIONS * 4.0  # in sections of unit weight; the sum itself is 0 by construction
    assert variance == pytest.approx(expected, rel=4 * np.sqrt(2 / (MAX_BATCHES - 1) / SERIES))
    df = np.array([d for _, d in errors])
    assert df.max() == MAX_BATCHES - 1
    assert np.median(df) > 20


def test_one_batch_that_holds_the_scatter_leaves_few_degrees_of_freedom():
    x = np.full(SECTIONS, 0.01)
    x[50] = 30.0
    _, df = Batches(20).error(plain(x))
    # 2 / (k - 1/n) with k nearly 1
    assert df == pytest.approx(2 / (1 - 1 / 20), rel=0.2)


def test_no_scatter_is_no_error():
    nothing = Deviations(np.zeros(SECTIONS), np.ones(SECTIONS))
    assert uncorrelated_batches(nothing) == Batches(MAX_BATCHES)
    assert Batches(MAX_BATCHES).error(nothing) == (0.0, MAX_BATCHES - 1)
    assert Batches(MAX_BATCHES).correlation(nothing, nothing) == 0.0


def day(rng, noise):
    """Sections of a day whose latency follows the traffic, with independent noise."""
    n = np.round(1000 * (2.5 - 1.5 * np.cos(2 * np.pi * np.arange(SECTIONS) / SECTIONS)))
    share = 0.01 / (1.0 - n / 5000.0) ** 2
    x = n * share + noise * np.sqrt(n) * rng.standard_normal(SECTIONS)
    return Deviations(x - x.sum() / n.sum() * n, n)


def test_what_follows_the_traffic_is_no_error():
    rng = np.random.default_rng(4)
    variances = []
    for _ in range(SERIES):
        deviations = day(rng, 0.1)
        batches = uncorrelated_batches(deviations)
        if batches is None or not batches.trend:
            continue
        variances.append(batches.error(deviations)[0] ** 2)
        level, _ = Batches(MIN_BATCHES).error(deviations)
        assert level > 10 * np.sqrt(variances[-1])  # which is what it would be without
    assert len(variances) > 0.9 * SERIES  # three tests at 20 % rarely fail together
    expected = 0.01 * day(rng, 0.0).n.sum()
    # 33 degrees of freedom of fifty differences, less seven that the polynomial takes of a hundred sections
    assert np.mean(variances) == pytest.approx(expected, rel=0.1 + 4 * np.sqrt(2 / 33 / SERIES))


WINDOWS, WEEK = 16, 2 * np.pi * 7  # windows of a section; the angle of seven days


def week(rng, noise):
    """Seven days of traffic in windows; deviations follow it within sections, with independent noise."""
    at = WEEK * (np.arange(SECTIONS * WINDOWS) + 0.5) / (SECTIONS * WINDOWS)
    requests = np.round(1000 * (2.5 - 1.5 * np.cos(at)))
    share = 0.01 / (1.0 - requests / 5000.0) ** 2
    n = requests.reshape(SECTIONS, -1).sum(axis=1)
    x = (requests * share).reshape(SECTIONS, -1).sum(axis=1) + noise * np.sqrt(n) * rng.standard_normal(SECTIONS)
    return Deviations(x - x.sum() / n.sum() * n, n, Course(traffic_moments(requests, SECTIONS)))


def test_what_follows_the_traffic_of_a_week_is_no_error():
    rng = np.random.default_rng(7)
    runs = [week(rng, 0.1) for _ in range(SERIES)]
    batches = [uncorrelated_batches(d) for d in runs]
    assert sum(b is not None and b.trend for b in batches) > 0.95 * SERIES  # three tests at 20 %, and three at 5 %
    fifty = Batches(50, trend=True)
    variances = [fifty.error(d)[0] ** 2 for d in runs]
    expected = 0.01 * week(rng, 0.0).n.sum()
    # 33 degrees of freedom of fifty differences; what the coefficients take is allowed for
    assert np.mean(variances) == pytest.approx(expected, rel=0.1 + 4 * np.sqrt(2 / 33 / SERIES))
    assert Batches(MIN_BATCHES).error(runs[0])[0] > 5 * np.sqrt(expected)  # which is what it would be with the days


def test_moments_begin_with_the_requests_and_are_those_of_each_block():
    rng = np.random.default_rng(8)
    d = week(rng, 0.0)
    assert d.course.moments[:, -1] == pytest.approx(d.n)
    slow = np.repeat(1000 * (2.5 - 1.5 * np.cos(WEEK / 7 * np.arange(SECTIONS) / SECTIONS)), WINDOWS)
    # where a section's windows are alike, its moments are the powers of its own rate
    z = (slow - slow.mean()) / slow.std()
    expected = WINDOWS * slow[::WINDOWS, None] * np.vander(z[::WINDOWS], 7)
    assert traffic_moments(slow, SECTIONS) == pytest.approx(expected)


def test_traffic_without_a_profile_has_no_moments():
    rng = np.random.default_rng(9)
    size = SECTIONS * WINDOWS
    assert traffic_moments(rng.poisson(5000.0, size).astype(float), SECTIONS) is None
    assert traffic_moments(np.zeros(size), SECTIONS) is None
    assert traffic_moments(np.full(size, 100.0), SECTIONS) is None
    # modulated at random, a state lasting ten windows: neighbours have correlation exp(-1/5) at most
    state = np.cumsum(rng.random(size) < 0.1) % 2
    assert traffic_moments(rng.poisson(np.where(state, 5000.0, 1000.0)).astype(float), SECTIONS) is None


def test_a_tail_that_only_the_peak_visits_is_still_judged():
    """Few of the batches hold most of the scatter, so that their correlation is less certain than their number says."""
    rng = np.random.default_rng(10)
    d = week(rng, 0.0)
    scale = np.sqrt(d.n) * (d.n / d.n.max()) ** 4
    batches = [uncorrelated_batches(d._replace(sums=x - x.sum() / d.n.sum() * d.n))
             for x in scale * rng.standard_normal((SERIES, SECTIONS))]  # fmt: skip
    assert np.mean([b is not None and b.trend for b in batches]) > 0.9


def test_few_sections_are_none():
    assert uncorrelated_batches(plain(np.random.default_rng(5).standard_normal(MIN_BATCHES - 1))) is None


def test_errors_that_move_together_correlate():
    rng = np.random.default_rng(6)
    common, own = rng.standard_normal((2, 10, SECTIONS)), rng.standard_normal((2, 10, SECTIONS))
    correlations = [
        Batches(MAX_BATCHES).correlation(plain(c + a), plain(c + b))
        for c, a, b in zip(common[0], own[0], own[1], strict=True)
    ]
    # half of the variance is common; the standard error of one is about (1 - 1/4) / sqrt(30)
    assert np.mean(correlations) == pytest.approx(0.5, abs=4 * 0.75 / np.sqrt(MAX_BATCHES * 10))


def test_batches_as_text():
    assert str(Batches(25)) == "25 groups"
    assert str(Batches(50, trend=True)) == "50 groups, traffic's trend removed"


def test_a_random_walk_of_steady_traffic_has_no_trend_to_remove():
    rng = np.random.default_rng(11)
    series = [plain(autoregressive(rng, 1.0)) for _ in range(SERIES)]
    series += [plain(np.linspace(0.0, 10.0, SECTIONS) + rng.standard_normal(SECTIONS))]
    assert uncorrelated_batches(series[-1]).trend
    assert not any(b and b.trend for b in (uncorrelated_batches(d._replace(course=STEADY)) for d in series))


@pytest.mark.parametrize("days", [0.5, 1, 7])
def test_a_day_changes_gradually_and_a_modulated_rate_jumps(days):
    rng = np.random.default_rng(12)
    at = 2 * np.pi * days * np.arange(SECTIONS * WINDOWS) / (SECTIONS * WINDOWS)
    assert changes_gradually(rng.poisson(1000 * (2.5 - 1.5 * np.cos(at))).astype(float), SECTIONS)
    assert changes_gradually(rng.poisson(1000 * (1.0 + at / at[-1])).astype(float), SECTIONS)
    for sojourns in (4, 12, 40):
        state = np.cumsum(rng.random(at.size) < sojourns / at.size) % 2
        state[: WINDOWS // 2] = 1 - state[-1]  # at least one jump
        assert not changes_gradually(rng.poisson(np.where(state, 3000.0, 1000.0)).astype(float), SECTIONS)
    assert not changes_gradually(rng.poisson(1000.0, at.size).astype(float), SECTIONS)


def test_the_skewness_of_a_sum_is_that_of_its_batches_over_the_root_of_their_number():
    x = np.random.default_rng(21).exponential(1.0, SECTIONS)
    batches = x.reshape(20, 5).sum(axis=1)
    assert Batches(20).skewness(plain(x)) == pytest.approx(skew(batches, bias=False) / np.sqrt(20), rel=0.1)
    assert Batches(20).skewness(plain(-x)) == -Batches(20).skewness(plain(x))
    assert Batches(20).skewness(plain(np.ones(SECTIONS))) == 0.0


def test_the_choice_of_sessions_adds_what_its_requests_change():
    rng = np.random.default_rng(22)
    n = rng.poisson(1000.0, SECTIONS).astype(float)
    sums = 3.0 * (n - n.mean())  # three deviations per request more
    plainly, chosen = (Batches(25).error(Deviations(sums, n, Course(share_cv=cv)))[0] for cv in (0.0, 0.05))
    assert chosen == pytest.approx(np.hypot(plainly, 3.0 * 0.05 * n.sum()))
    constant = Deviations(sums, np.full(SECTIONS, 1000.0), Course(share_cv=0.05))
    assert Batches(25).error(constant)[0] == pytest.approx(plainly)  # nothing tells how they change


def test_the_choice_of_sessions_is_no_error_of_the_source():
    rng = np.random.default_rng(23)
    n = rng.poisson(1000.0, SECTIONS).astype(float)
    d = Deviations(n - n.mean(), n)
    chosen = d._replace(course=Course(share_cv=0.05))
    assert Batches(25).correlation(d, d) == pytest.approx(1.0)
    ratio = Batches(25).error(d)[0] / Batches(25).error(chosen)[0]
    assert Batches(25).correlation(d, chosen) == pytest.approx(ratio)
