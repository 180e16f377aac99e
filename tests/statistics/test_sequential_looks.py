"""Bounds of group-sequential tests against published tables and simulated walks."""

import numpy as np
import pytest
from scipy.stats import norm

from shadowsim import InputError
from shadowsim.statistics.sequential_looks import bounds, exit_probabilities, spent

# Lan-DeMets bounds for equally spaced looks, two-sided 5 % (Reboussin, DeMets, Kim and Lan, 2000)
PUBLISHED = {
    ("obrien-fleming", 2): [2.963, 1.969],
    ("obrien-fleming", 3): [3.710, 2.511, 1.993],
    ("obrien-fleming", 4): [4.333, 2.963, 2.359, 2.014],
    ("obrien-fleming", 5): [4.877, 3.357, 2.680, 2.290, 2.031],
    ("pocock", 2): [2.157, 2.201],
    ("pocock", 5): [2.438, 2.427, 2.410, 2.397, 2.386],
}
# Jennison and Turnbull (2000), tables 2.1 and 2.3: constants of Pocock's and of O'Brien and Fleming's own bounds
POCOCK = {
    0.05: {2: 2.178, 3: 2.289, 4: 2.361, 5: 2.413, 10: 2.555},
    0.01: {2: 2.772, 5: 2.986},
    0.1: {2: 1.875, 5: 2.122},
}
OBRIEN_FLEMING = {0.05: {2: 1.977, 3: 2.004, 4: 2.024, 5: 2.040, 10: 2.087}, 0.01: {2: 2.580, 5: 2.621}}


@pytest.mark.parametrize(("spending", "looks"), PUBLISHED)
def test_bounds_are_the_published_ones(spending, looks):
    # the tables have three digits
    assert bounds(looks, 0.05, spending) == pytest.approx(PUBLISHED[spending, looks], abs=6e-4)


def slack(bound):
    """Return the error of the level from rounding a bound to three digits: half a unit times the density, per look."""
    return 2 * len(bound) * 0.0005 * float(np.max(norm.pdf(bound)))


@pytest.mark.parametrize(("alpha", "looks"), [(a, k) for a, table in POCOCK.items() for k in table])
def test_pococks_constants_spend_the_level(alpha, looks):
    bound = np.full(looks, POCOCK[alpha][looks])
    assert exit_probabilities(bound).sum() == pytest.approx(alpha, abs=slack(bound))


@pytest.mark.parametrize(("alpha", "looks"), [(a, k) for a, table in OBRIEN_FLEMING.items() for k in table])
def test_obrien_and_flemings_constants_spend_the_level(alpha, looks):
    bound = OBRIEN_FLEMING[alpha][looks] * np.sqrt(looks / np.arange(1, looks + 1))
    assert exit_probabilities(bound).sum() == pytest.approx(alpha, abs=slack(bound))


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_simulated_walks_leave_as_often_as_is_spent(spending):
    n, looks, alpha = 400_000, 6, 0.2
    rng = np.random.default_rng(3)
    z = np.cumsum(rng.standard_normal((n, looks)), axis=1) / np.sqrt(np.arange(1, looks + 1))
    outside = np.abs(z) > bounds(looks, alpha, spending)
    upto = np.maximum.accumulate(outside, axis=1).mean(axis=0)
    expected = np.array([spent(spending, k / looks, alpha) for k in range(1, looks + 1)])
    assert np.all(np.abs(upto - expected) <= 4 * np.sqrt(expected * (1 - expected) / n) + 1e-9)


def test_one_look_is_a_plain_test():
    for spending in ("obrien-fleming", "pocock"):
        assert bounds(1, 0.05, spending) == pytest.approx([norm.ppf(0.975)], abs=1e-9)


def test_many_looks_spend_the_level_and_no_more():
    bound = bounds(100, 0.05, "pocock")
    assert exit_probabilities(bound).sum() == pytest.approx(0.05, abs=1e-9)
    assert np.isfinite(bounds(100, 0.05, "obrien-fleming")[0])
    assert spent("obrien-fleming", 1.0, 0.05) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"looks": 0}, "looks: must be an integer from 1 to 100, got 0"),
        ({"looks": 101}, "looks: must be an integer from 1 to 100, got 101"),
        ({"looks": 3, "alpha": 1.0}, "alpha: must be > 0 and < 1, got 1"),
        (
            {"looks": 3, "spending": "pococ"},
            "spending: must be one of obrien-fleming, pocock, got 'pococ'; did you mean",
        ),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        bounds(**arguments)


UNEQUAL = [0.001, 0.01, 0.05, 0.3, 0.31, 0.65, 1.0]


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_looks_at_any_distance_spend_what_is_due_to_each(spending):
    bound = bounds(UNEQUAL, 0.05, spending)
    expected = [spent(spending, t, 0.05) for t in UNEQUAL]
    assert exit_probabilities(bound, UNEQUAL).cumsum() == pytest.approx(expected, abs=1e-9)
    n, rng = 400_000, np.random.default_rng(4)
    steps = rng.standard_normal((n, len(UNEQUAL))) * np.sqrt(np.diff(UNEQUAL, prepend=0.0))
    outside = np.abs(np.cumsum(steps, axis=1) / np.sqrt(UNEQUAL)) > bound
    upto = np.maximum.accumulate(outside, axis=1).mean(axis=0)
    assert np.all(np.abs(upto - expected) <= 4 * np.sqrt(np.multiply(expected, np.subtract(1, expected)) / n) + 1e-9)


def test_fractions_in_equal_steps_are_a_number_of_looks():
    assert bounds([0.25, 0.5, 0.75, 1.0]) == pytest.approx(bounds(4), abs=1e-9)


@pytest.mark.parametrize(
    "looks", [[], [0.5, 0.5, 1.0], [0.0, 1.0], [0.5], [0.5, 1.5], [[0.5, 1.0]], [0.5, float("nan"), 1.0]]
)
def test_fractions_that_are_no_plan_are_refused(looks):
    with pytest.raises(InputError, match=r"^looks: must be"):
        bounds(looks)
