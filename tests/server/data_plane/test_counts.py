"""Counts of requests by period, their buckets and quantiles, and the work of instances."""

import pytest
from served import served

from shadowsim.histogram import quantile_within
from shadowsim.server.data_plane.counts import Series


def test_packed_periods_lose_nothing_and_take_late_answers():
    series = Series(0.0)
    for minute in range(20):
        for i in range(50):
            series.add(served(minute * 60.0, latency_s=0.001 * (i + 1)))
    assert series.periods[0].latency._packed is not None
    series.add(served(0.0, latency_s=0.2))
    counts = series.periods[0].latency.buckets()
    assert sum(counts.values()) == series.periods[0].n == 51
    assert quantile_within(counts, 1.0, 0.0, 1.0) == pytest.approx(0.2, rel=0.008)


def test_work_is_counted_in_the_periods_of_service():
    series = Series(0.0)
    series.add(served(50.0, wait_s=5.0, service_s=100.0, latency_s=105.0))
    assert [series.periods[i].worked_s for i in range(3)] == [5.0, 60.0, 35.0]
