"""Laws of samples: the one that made them, or a table of quantiles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from served_logs import LAWS, services

from shadowsim.measuring.law_fit import fit_law, quantile_table
from shadowsim.scenario.laws import parse_law


@pytest.mark.parametrize("name", LAWS)
def test_the_law_that_made_them(name):
    times = services(name, 20_000, np.random.default_rng(5))
    fit = fit_law(times)
    law = parse_law(fit.block, "time", "s")
    assert fit.is_named
    # an exponential is a gamma and a weibull of shape 1, too
    near = {"exponential": ("exponential", "gamma", "weibull")}
    assert law.kind in near.get(name, (name,))
    # scv <= 1 (0.33 for pareto): the standard error of a mean is at most 0.7 %
    assert law.mean == pytest.approx(times.mean(), rel=0.02)


def test_likelihoods_are_those_of_scipy():
    x = np.sort(services("gamma", 500, np.random.default_rng(6), mean_s=1.0))
    fit = fit_law(x)
    shape, _, scale = stats.gamma.fit(x, floc=0.0)
    assert fit.aic["gamma"] == pytest.approx(4.0 - 2.0 * stats.gamma.logpdf(x, shape, 0.0, scale).sum(), rel=1e-6)
    c, _, s = stats.weibull_min.fit(x, floc=0.0)
    assert fit.aic["weibull"] == pytest.approx(4.0 - 2.0 * stats.weibull_min.logpdf(x, c, 0.0, s).sum(), rel=1e-6)
    assert fit.ks == pytest.approx(stats.kstest(x, stats.gamma(shape, 0.0, scale).cdf).statistic, rel=1e-4)


def test_two_kinds_of_requests_make_a_table():
    rng = np.random.default_rng(7)
    times = np.concatenate([rng.gamma(50.0, 0.0002, 9_000), rng.gamma(50.0, 0.002, 1_000)])
    fit = fit_law(times)
    assert not fit.is_named
    assert "does not fit" in fit.sentence
    law = parse_law(fit.block, "time", "s")
    assert law.mean == pytest.approx(times.mean(), rel=0.01)
    assert law.tails(np.array([0.01]))[1][0] == pytest.approx(np.quantile(times, 0.99), rel=0.01)


def test_a_table_of_few_times_is_a_law():
    law = parse_law(quantile_table(np.array([0.1, 0.2, 0.4])), "time", "s")
    assert 0.1 < law.mean < 0.4
