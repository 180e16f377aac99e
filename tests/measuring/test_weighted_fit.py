"""Least squares of relative errors: coefficients within their standard errors, and what cannot be fitted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, t

from shadowsim.measuring.weighted_fit import fit_nonnegative

TRUE = {"base": 20.0, "size": 0.5, "context": 0.002}
SPREADS = (0.2, 0.01)  # relative, of group 0 and group 1
RUNS = 200


def case(seed: int, n: int = 40):
    """Return columns, times with noise, and groups: 20 % in group 0, which alone has no context, and 1 % in group 1."""
    random = np.random.default_rng(seed)
    group = np.repeat([0, 1], n)
    size = random.uniform(1.0, 200.0, 2 * n)
    columns = {"base": np.ones(2 * n), "size": size, "context": np.where(group == 1, random.uniform(0, 2e4, 2 * n), 0)}
    exact = sum(TRUE[name] * column for name, column in columns.items())
    return columns, exact * (1.0 + random.normal(size=2 * n) * np.take(SPREADS, group)), group


def test_exact_times_give_exact_coefficients():
    columns, _, group = case(0)
    fit = fit_nonnegative(columns, sum(TRUE[name] * column for name, column in columns.items()), group)
    assert fit.values == pytest.approx(TRUE, rel=1e-9)
    assert np.abs(fit.misses).max() < 1e-9
    assert fit.n_free == 77


def test_intervals_cover_the_truth_and_shorter_ones_do_not():
    """Of 95 % intervals at least 93 % cover, as estimated weights cost about one per cent; half as long ones fail."""
    hits = dict.fromkeys(TRUE, 0)
    halved = dict.fromkeys(TRUE, 0)
    for seed in range(RUNS):
        fit = fit_nonnegative(*case(seed))
        for name, true in TRUE.items():
            away = abs(fit.values[name] - true) / fit.errors[name] / t.ppf(0.975, fit.n_free)
            hits[name] += away < 1.0
            halved[name] += away < 0.5
    low, high = binom.ppf(0.0005, RUNS, 0.93), binom.ppf(0.9995, RUNS, 0.95)
    assert all(low <= n <= high for n in hits.values()), hits
    assert all(n < low for n in halved.values()), halved


def test_a_group_that_fits_badly_does_not_spoil_the_other():
    """The errors are about those of group 1 alone; those of both with one spread are several times larger."""
    columns, measured, group = case(1)
    fit = fit_nonnegative(columns, measured, group)
    alone = fit_nonnegative({k: v[group == 1] for k, v in columns.items()}, measured[group == 1], group[group == 1])
    together = fit_nonnegative(columns, measured, group * 0)
    for name in TRUE:
        assert fit.errors[name] == pytest.approx(alone.errors[name], rel=0.3)
        assert together.errors[name] > 3.0 * fit.errors[name]


def test_a_negative_coefficient_is_left_out_with_its_value():
    x = np.arange(1.0, 20.0)
    columns = {"base": np.ones(19), "x": x, "square": x**2}
    noise = 1.0 + 1e-3 * np.random.default_rng(0).normal(size=19)
    fit = fit_nonnegative(columns, (10.0 + x - 0.01 * x**2) * noise, np.zeros(19, int))
    value, error = fit.negative["square"]
    assert value == pytest.approx(-0.01, abs=4 * error)
    assert value < -4 * error
    assert fit.values["square"] == 0.0
    assert np.isnan(fit.errors["square"])


def test_a_column_that_is_a_sum_of_others_is_named():
    x = np.arange(1.0, 9.0)
    columns = {"base": np.ones(8), "x": x, "both": 3.0 + 2.0 * x, "twice": 2.0 * x, "square": x**2}
    fit = fit_nonnegative(columns, 5.0 + x + 0.1 * x**2, np.zeros(8, int))
    assert fit.dependent == {"both": ("base", "x"), "twice": ("x",)}
    assert fit.values == pytest.approx({"base": 5.0, "x": 1.0, "both": 0.0, "twice": 0.0, "square": 0.1}, abs=1e-8)


def test_columns_that_are_nearly_alike_are_said_to_be():
    random = np.random.default_rng(3)
    x = random.uniform(1.0, 10.0, 30)
    columns = {"base": np.ones(30), "x": x, "near": x + 0.01 * random.normal(size=30)}
    fit = fit_nonnegative(
        columns, (5.0 + x + columns["near"]) * (1.0 + 1e-5 * random.normal(size=30)), np.zeros(30, int)
    )
    assert list(fit.correlations) == [("near", "x")]
    assert fit.correlations["near", "x"] < -0.99


def test_without_a_degree_of_freedom_there_are_no_errors():
    fit = fit_nonnegative({"base": np.ones(2), "x": np.array([1.0, 2.0])}, np.array([3.0, 5.0]), np.zeros(2, int))
    assert fit.values == pytest.approx({"base": 1.0, "x": 2.0})
    assert fit.n_free == 0
    assert all(np.isnan(list(fit.errors.values())))
