import math
from itertools import chain, pairwise, repeat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowsim.scenario.rates import mmpp_dispersion, mmpp_knots, mmpp_rate, mmpp_scv, time_shares

RATES, SOJOURNS = (3.0, 50.0, 0.0), (2.0, 0.5, 7.0)


def blocks(seed, size):
    """Endless draws, the same whatever the size of a block."""
    draws = np.random.default_rng(seed).random((20_000, 2))
    for at in range(0, len(draws), size):
        yield -np.log1p(-draws[at : at + size, 0]), 1.0 - draws[at : at + size, 1]


def walked(rates, sojourns, horizon, start, exponentials, uniforms):
    """The path, one jump after the other."""
    total, state = sum(sojourns), 0
    while state < len(rates) - 1 and start > sum(sojourns[: state + 1]) / total:
        state += 1
    path, now = [], 0.0
    for e, u in zip(exponentials, uniforms, strict=True):
        end = now + e * sojourns[state]
        if min(end, horizon) > now:
            path += [(now, rates[state]), (min(end, horizon), rates[state])]
        if end >= horizon:
            return path
        others = [*range(state + 1, len(rates)), *range(state)]
        state, now = others[min(int(u * len(others)), len(others) - 1)], end
    raise AssertionError("too few draws")


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1e3), st.floats(0.01, 50)), min_size=2, max_size=6),
    st.floats(0.001, 300.0),
    st.floats(0.0, 1.0, exclude_min=True),
    st.integers(1, 400),
    st.integers(0, 5),
)
def test_a_path_is_the_one_of_a_walk_however_its_draws_are_cut(states, horizon, start, size, seed):
    rates, sojourns = zip(*states, strict=True)
    time, rate = mmpp_knots(rates, sojourns, horizon, start, chain(blocks(seed, size), blocks(seed + 9, 20_000)))
    e, u = (np.concatenate(x) for x in zip(*blocks(seed, 20_000), *blocks(seed + 9, 20_000), strict=True))
    assert list(zip(time.tolist(), rate.tolist(), strict=True)) == walked(rates, sojourns, horizon, start, e, u)


def test_knots_cover_exactly_the_horizon():
    time, rate = mmpp_knots(RATES, SOJOURNS, 100.0, 0.5, blocks(1, 100))
    assert (time[0], time[-1]) == (0.0, 100.0)
    assert np.array_equal(time[1:-1:2], time[2::2])
    assert (np.diff(time)[::2] > 0).all()
    assert np.array_equal(rate[::2], rate[1::2])
    assert all(a != b for a, b in pairwise(rate[::2]))


def test_sojourns_that_do_not_move_the_clock_are_no_knots():
    exponentials = np.array([0.0, 1.0, 0.0, 0.0, 1e-300, 5.0])
    time, rate = mmpp_knots((1.0, 2.0), (1.0, 1.0), 3.0, 1.0, [(exponentials, np.ones(6))])
    assert time.tolist() == [0.0, 1.0, 1.0, 3.0]
    assert rate.tolist() == [1.0, 1.0, 1.0, 1.0]


def test_draws_that_end_too_early_are_told():
    with pytest.raises(ValueError, match=r"the draws end at 4 s of 9 s"):
        mmpp_knots((1.0, 2.0), (1.0, 1.0), 9.0, 0.5, [(np.ones(4), np.ones(4))])


def test_the_first_state_has_the_shares_of_time():
    starts = (np.arange(9500) + 0.5) / 9500
    endless = (np.array([1e9]), np.array([0.5]))
    first = [mmpp_knots((1.0, 2.0, 3.0), SOJOURNS, 1.0, u, repeat(endless))[1][0] for u in starts]
    assert np.bincount(np.array(first, int))[1:].tolist() == [2000, 500, 7000]
    assert mmpp_knots(RATES, SOJOURNS, 1.0, 1.0, repeat(endless))[1][0] == RATES[-1]


def test_shares_of_time_solve_the_balance_equations():
    n, sojourn = 4, np.array([0.5, 2.0, 7.0, 30.0])
    generator = np.full((n, n), 1.0 / (n - 1)) / sojourn[:, np.newaxis]
    np.fill_diagonal(generator, -1.0 / sojourn)
    share = time_shares(sojourn)
    assert share.sum() == pytest.approx(1.0, rel=1e-15)
    np.testing.assert_allclose(share @ generator, 0.0, atol=1e-16)
    assert time_shares([1e308, 1e308]).tolist() == [0.5, 0.5]


def test_two_states_have_closed_forms():
    """Heffes and Lucantoni, IEEE JSAC 4, 1986: index of dispersion; scv of the stationary gaps of a two-state MMPP."""
    (a, b), (p, q) = (3.0, 50.0), (1 / 2.0, 1 / 0.5)
    scv = 1 + 2 * p * q * (a - b) ** 2 / ((p + q) ** 2 * (a * b + a * q + b * p))
    assert mmpp_scv((a, b), (2.0, 0.5)) == pytest.approx(scv, rel=1e-13)
    dispersion = 1 + 2 * (a - b) ** 2 * p * q / ((p + q) ** 2 * (a * q + b * p))
    assert mmpp_dispersion((a, b), (2.0, 0.5)) == pytest.approx(dispersion, rel=1e-13)


def test_equal_rates_are_poisson_and_on_off_gaps_are_hyperexponential():
    assert mmpp_scv((5.0, 5.0, 5.0), SOJOURNS) == pytest.approx(1.0, rel=1e-13)
    assert mmpp_dispersion((5.0, 5.0, 5.0), SOJOURNS) == pytest.approx(1.0, rel=1e-13)
    # Kuczura, BSTJ 52, 1973: an interrupted Poisson process is a renewal process, so that both numbers are its scv.
    assert mmpp_scv((5.0, 0.0), (2.0, 7.0)) == pytest.approx(mmpp_dispersion((5.0, 0.0), (2.0, 7.0)), rel=1e-13)
    assert mmpp_rate((5.0, 0.0), (2.0, 8.0)) == pytest.approx(1.0, rel=1e-15)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_moments_do_not_depend_on_the_unit_of_time(scale):
    rates, sojourns = [r / scale for r in RATES], [s * scale for s in SOJOURNS]
    assert mmpp_scv(rates, sojourns) == pytest.approx(mmpp_scv(RATES, SOJOURNS), rel=1e-12)
    assert mmpp_dispersion(rates, sojourns) == pytest.approx(mmpp_dispersion(RATES, SOJOURNS), rel=1e-12)


def test_gaps_and_counts_of_drawn_arrivals_have_the_moments():
    """200 independent runs; tolerances of 5 standard errors of their mean, which also show what is told apart."""
    rng, gaps, counts, horizon = np.random.default_rng(4), [], [], 1000.0
    for seed in range(200):
        time, rate = mmpp_knots(RATES, SOJOURNS, horizon, 1.0 - rng.random(), blocks(seed, 512))
        width = np.diff(time)[::2]
        n = rng.poisson(width * rate[::2])
        times = np.sort(np.repeat(time[::2], n) + rng.random(n.sum()) * np.repeat(width, n))
        gap = np.diff(times)
        gaps.append((gap.size, gap.sum(), (gap**2).sum()))
        counts.append(times.size)
    expected = mmpp_rate(RATES, SOJOURNS) * horizon
    error = math.sqrt(mmpp_dispersion(RATES, SOJOURNS) * expected / 200)
    assert abs(np.mean(counts) - expected) < 5 * error
    # The variance of 200 counts has a relative standard error of sqrt(2 / 199) = 0.1.
    assert np.var(counts, ddof=1) / expected == pytest.approx(mmpp_dispersion(RATES, SOJOURNS), rel=0.5)
    per_run = np.array([squares / n * (n / total) ** 2 - 1 for n, total, squares in gaps])
    n, total, squares = np.sum(gaps, axis=0)
    pooled = squares / n * (n / total) ** 2 - 1
    assert abs(pooled - mmpp_scv(RATES, SOJOURNS)) < 5 * per_run.std() / math.sqrt(200)
    assert 5 * per_run.std() / math.sqrt(200) < 0.2 * pooled
