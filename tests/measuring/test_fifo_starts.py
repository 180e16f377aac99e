"""Reconstructed starts: they are those of the server that made the log."""

from __future__ import annotations

import numpy as np
import pytest
from served_logs import answered, fifo_latencies, services

from shadowsim.measuring.fifo_starts import blocked_until, in_flight, starts


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("overhead_s", [0.0, 0.004])
def test_services_are_those_that_were_drawn(workers, overhead_s):
    rng = np.random.default_rng(workers)
    arrival = np.cumsum(rng.exponential(0.02 / (0.8 * workers), 500))
    drawn = services("gamma", 500, rng)
    log = answered(arrival, fifo_latencies(arrival, drawn, workers, overhead_s=overhead_s))
    begun = starts(log, blocked_until(log, workers), in_flight(log, overhead_s), workers, overhead_s)
    np.testing.assert_allclose(begun.service_s, drawn, rtol=1e-9)
    np.testing.assert_allclose(begun.wait_s + begun.service_s + overhead_s, log.latency_s)
    assert begun.waited.any()
    assert set(begun.busy[begun.waited]) == {workers}


def test_instances_are_apart():
    arrival, drawn = np.arange(40) * 0.01, np.full(40, 0.015)
    own = np.arange(40) % 2
    latency = np.empty(40)
    for i in (0, 1):
        latency[own == i] = fifo_latencies(arrival[own == i], drawn[own == i], 1)
    log = answered(arrival, latency, own)
    assert log.n_instances == 2
    begun = starts(log, blocked_until(log, 1), in_flight(log), 1, 0.0)
    np.testing.assert_allclose(begun.service_s, drawn)
    assert not begun.waited.any()


def test_in_flight_counts_those_who_came_before():
    log = answered(np.array([0.0, 0.1, 0.2, 0.9]), np.array([1.0, 0.05, 0.1, 0.5]))
    assert in_flight(log).tolist() == [0, 1, 1, 1]
