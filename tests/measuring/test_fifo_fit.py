"""Workers, overhead and slowdown by likelihood: they are those of the server that made the log."""

from __future__ import annotations

import numpy as np
import pytest
from served_logs import answered, fifo_log

from shadowsim.measuring.fifo_fit import LINEAR, fit_fifo, shift

# A worker that waits only now and then is found from few waits; 6,000 requests have hundreds at these loads.
CASES = [("exponential", 1, 0.5), ("lognormal", 2, 0.7), ("deterministic", 3, 0.6), ("uniform", 8, 0.8)]


@pytest.mark.parametrize(
    ("law", "workers", "load"), [CASES[0], CASES[2], *(pytest.param(*CASES[i], marks=pytest.mark.slow) for i in (1, 3))]
)
def test_workers_and_overhead(law, workers, load):
    _, fit = fit_fifo(answered(*fifo_log(law, workers, load, n=6_000, seed=1, overhead_s=0.002)))
    assert fit.is_identified
    assert fit.best.workers == workers
    # four standard errors of the estimate, and the clock's resolution
    assert fit.best.overhead.value_s == pytest.approx(0.002, abs=4.0 * fit.best.overhead.error_s + 1e-6)
    assert (fit.best.factors == 1.0).all()


def test_slowdown():
    slowdown = np.linspace(1.0, 1.6, 3)
    _, fit = fit_fifo(answered(*fifo_log("gamma", 3, 0.6, n=8_000, seed=2, slowdown=slowdown, overhead_s=0.002)))
    best = fit.best
    assert best.workers == 3
    assert best.shape == LINEAR
    # the scv of 0.25 leaves a standard error of about 1.5 % in a ratio of some 1,500 services
    np.testing.assert_allclose(best.factors, slowdown, rtol=0.06)
    assert best.overhead.value_s == pytest.approx(0.002, abs=4.0 * best.overhead.error_s)


def test_where_nobody_waits_workers_are_open():
    arrival = np.arange(3_000) * 0.05
    latency = np.random.default_rng(3).gamma(4.0, 0.005, 3_000)
    _, fit = fit_fifo(answered(arrival, np.minimum(latency, 0.049)))
    assert not fit.is_bounded
    assert not fit.is_identified
    assert not fit.best.overhead.is_known


def test_shift_is_found_within_its_error():
    rng = np.random.default_rng(4)
    errors = []
    for _ in range(100):
        found = shift(rng.gamma(4.0, 1.0, 2_000) + 0.5, rng.gamma(4.0, 1.0, 500))
        errors.append((found.value_s - 0.5) / found.error_s)
    # of 100 standard normal errors the deviation is within 0.72 and 1.28, at four of its errors
    assert abs(np.mean(errors)) < 0.5  # and shifted by a third of an error in samples of 500
    assert 0.7 < np.std(errors) < 1.3
