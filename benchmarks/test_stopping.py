"""Measures how often intervals cover the truth whose number of runs a wanted precision decided.

    pytest -n 0 benchmarks/test_stopping.py

Figures of runs are drawn in place of simulated: it is the rule that is measured, and thousands of repetitions are
needed. A coverage of 95 % measured in N repetitions has the standard error sqrt(0.95 x 0.05 / N).
"""

import math

import numpy as np
import pytest

from shadowsim.statistics.enough_replications import look

N = 4000
ERROR = math.sqrt(0.95 * 0.05 / N)


def stopped(draw, relative, rng):
    """Return mean, half-width and number of runs after the rule has stopped."""
    values = draw(rng, 10)
    while True:
        last = look(values[:, None], relative)
        if last.needed == last.n:
            return values.mean(), last.relative[0] * abs(values.mean()), last.n
        values = np.concatenate([values, draw(rng, last.needed - last.n)])


def coverage(draw, relative):
    rng = np.random.default_rng(5)
    outcomes = [stopped(draw, relative, rng) for _ in range(N)]
    return float(np.mean([abs(mean - 1.0) <= half for mean, half, _ in outcomes])), np.mean([n for *_, n in outcomes])


@pytest.mark.slow
@pytest.mark.parametrize("relative", [0.08, 0.06, 0.05, 0.04, 0.03, 0.02])
def test_intervals_of_normal_figures_cover_the_truth(relative, record_property):
    covered, n = coverage(lambda rng, k: 1.0 + 0.1 * rng.normal(size=k), relative)
    record_property("coverage", covered)
    print(f"normal, {100 * relative:g} %: {100 * covered:.1f} % with {n:.0f} runs")
    assert covered > 0.95 - 4.0 * ERROR  # a rule without the allowance covers 93.5 % at worst, which fails here


@pytest.mark.slow
@pytest.mark.parametrize("relative", [0.08, 0.05, 0.02])
def test_skewness_costs_what_the_module_says(relative):
    # gamma of shape 4: skewness 1
    covered, n = coverage(lambda rng, k: 1.0 + 0.1 * (rng.gamma(4.0, 0.5, size=k) - 2.0), relative)
    print(f"skewed, {100 * relative:g} %: {100 * covered:.1f} % with {n:.0f} runs")
    assert covered > 0.93 - 4.0 * ERROR
