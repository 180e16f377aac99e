"""Power from rehearsals: against normal theory, where rehearsals are normal."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from shadowsim.planning.plan_power import PowerEstimator
from shadowsim.planning.plan_rehearsals import RehearsalResult

N, SD, Z = 4000, 0.1, 1.96
BILLED = (1.0, 1.0)  # instances of source and shadow


def results(true, seed=1, missing=0, short=False):
    """Rehearsals of a source of 1 with normal errors and intervals of their right width."""
    d = true + SD * np.random.default_rng(seed).standard_normal(N)
    complete = [RehearsalResult(1.0, 1.0 + x, x - Z * SD, x + Z * SD, False, 500.0, BILLED) for x in d]
    without = [RehearsalResult(1.0, x.shadow, np.nan, np.nan, short, 500.0, BILLED) for x in complete[:missing]]
    return without + complete[missing:]


@pytest.mark.parametrize("k", [1.0, 4.0, 25.0])
@pytest.mark.parametrize("true", [0.0, 0.05, -0.05, 0.2])
def test_power_is_that_of_a_normal_test(true, k):
    estimator = PowerEstimator.of(results(true), true)
    worse, better = (float(ndtr(sign * true * np.sqrt(k) / SD - Z)) for sign in (1.0, -1.0))
    rates = estimator.worse(k), estimator.better(k), estimator.either(k)
    for rate, due in zip(rates, (worse, better, worse + better), strict=True):
        assert rate.value == pytest.approx(due, abs=4.0 * rate.error)
        assert rate.error >= np.sqrt(due * (1.0 - due) / N) * 0.9
        assert rate.error <= 2.0 * np.sqrt(max(due * (1.0 - due), 1.0 / N) / N)


@pytest.mark.parametrize("k", [1.0, 9.0])
def test_the_visible_difference_is_that_of_a_normal_test(k):
    due = (Z + ndtri(0.8)) * SD / np.sqrt(k)
    error = SD / np.sqrt(k) * np.sqrt(0.16 / N) / 0.28  # of a quantile: the normal density at 0.2 is 0.28
    assert PowerEstimator.of(results(0.1), 0.1).visible(0.8, k, 1.0) == pytest.approx(due, abs=4.0 * error)
    assert PowerEstimator.of(results(-0.1), -0.1).visible(0.8, k, -1.0) == pytest.approx(due, abs=4.0 * error)


def test_an_unknown_difference_makes_an_extrapolation_less_sure():
    known, guessed = PowerEstimator.of(results(0.02), 0.02), PowerEstimator.of(results(0.02))
    assert guessed.true == pytest.approx(0.02, abs=4.0 * SD / np.sqrt(N))
    assert guessed.true_error == pytest.approx(SD / np.sqrt(N), rel=0.1)
    assert guessed.worse(100.0).error > known.worse(100.0).error
    assert guessed.worse(1.0) == known.worse(1.0)


def test_not_enough_data_finds_nothing_unless_a_longer_test_has_more():
    lost, short = (PowerEstimator.of(results(0.3, missing=N // 4, short=s), 0.3) for s in (False, True))
    assert lost.undecided == short.undecided == 0.25
    for estimator, k, due in ((lost, 1.0, 0.75), (lost, 9.0, 0.75), (short, 1.0, 0.75), (short, 9.0, 1.0)):
        p = ndtr(0.3 * np.sqrt(k) / SD - Z) * due
        assert estimator.worse(k).value == pytest.approx(p, abs=4.0 * np.sqrt(p * (1.0 - p) / N) + 1e-3)
    assert np.isnan(lost.visible(0.8, 1.0, 1.0))
    assert short.visible(0.8, 9.0, 1.0) > 0.0


def test_of_rehearsals_that_are_mostly_too_short_nothing_follows():
    estimator = PowerEstimator.of(results(0.3, missing=N // 2 + 1, short=True), 0.3)
    assert np.isnan(estimator.worse(4.0).value)
    assert estimator.worse(1.0).value < 0.5
