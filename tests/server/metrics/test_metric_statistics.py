"""Metrics of counts: statistics, periods, and which metrics a variant has."""

import asyncio

import pytest
from served import served

from shadowsim.server.data_plane.counts import Series
from shadowsim.server.data_plane.spare_time import Turns
from shadowsim.server.metrics.metric_statistics import INSTANCES, METRICS, SAGEMAKER, by_period, metrics_of

FAR_S = 1e12


def statistics_of(series, name, namespace=SAGEMAKER, length=1, now_s=FAR_S):
    async def answer():
        periods = by_period(series, METRICS[namespace, name], 0, 100, length, now_s, Turns())
        return {at_s: statistics async for at_s, statistics in periods}

    return asyncio.run(answer())


def test_a_period_joins_its_minutes():
    series = Series()
    latencies = [0.01, 0.02, 0.03, 0.05]
    for i, latency_s in enumerate(latencies):
        series.add(served(60.0 * i, latency_s, "answered" if i else "error_5xx"))
    by_start = statistics_of(series, "ModelLatency", length=3)
    assert list(by_start) == [0.0, 180.0]
    first = by_start[0.0]
    assert [first.value(s) for s in ("SampleCount", "Sum", "Average", "Minimum", "Maximum")] == pytest.approx(
        [3, 60_000, 20_000, 10_000, 30_000]
    )
    assert first.value("p50") == pytest.approx(20_000, rel=0.008)  # a bucket's width
    assert (first.value("p0"), first.value("p100")) == pytest.approx((10_000, 30_000), rel=0.008)
    assert statistics_of(series, "Invocation5XXErrors", length=100)[0.0].value("Average") == 0.25
    assert statistics_of(series, "InvocationsPerInstance", length=100)[0.0].value("Sum") == 2.0


def test_a_quiet_minute_has_zeros_and_no_latency():
    series = Series()
    series.sample(30.0, [0, 0], None)
    by_name = {name: statistics_of(series, name, namespace) for namespace, name in METRICS}
    zeros = {name for name, by in by_name.items() if by and by[0.0].value("Sum") == 0.0}
    assert zeros == {
        "Invocations", "InvocationsPerInstance", "Invocation4XXErrors", "Invocation5XXErrors", "InvocationModelErrors",
        "ConcurrentRequestsPerModel",
    }  # fmt: skip
    streamed = {"FirstChunkLatency", "FirstChunkModelLatency", "FirstChunkOverheadLatency", "MidStreamErrors"}
    assert set(by_name) - zeros - streamed == {"ModelLatency", "OverheadLatency", "CPUUtilization"}
    assert not any(by_name[name] for name in set(by_name) - zeros)


def test_percentiles_are_model_latency_s_alone():
    series = Series()
    series.add(served(0.0))
    series.sample(0.0, [1], None)
    by_name = {name: statistics_of(series, name, namespace) for namespace, name in METRICS}
    known = {name for name, by in by_name.items() if by and by[0.0].value("p99") is not None}
    assert known == {"ModelLatency"}


def test_a_busy_worker_is_a_busy_core_where_workers_are_cores():
    series = Series()
    series.sample(0.0, [0, 0], 4)
    for instance, service_s in ((0, 30.0), (0, 60.0), (1, 15.0)):
        series.add(served(0.0, service_s, instance=instance, wait_s=0.0, service_s=service_s))
    (cpu,) = statistics_of(series, "CPUUtilization", INSTANCES, now_s=60.0).values()
    assert [cpu.value(s) for s in ("SampleCount", "Minimum", "Maximum", "Average")] == [2.0, 25.0, 150.0, 87.5]
    assert statistics_of(series, "CPUUtilization", INSTANCES, now_s=59.0) == {}  # the minute is not over
    assert (INSTANCES, "CPUUtilization") in metrics_of(series)


def test_no_core_is_busier_than_it_can_be():
    """In a minute in which a pool is replaced, both fleets work."""
    series = Series()
    series.sample(0.0, [0], 1)
    for _ in range(3):
        series.add(served(0.0, 60.0, wait_s=0.0, service_s=60.0))
    assert statistics_of(series, "CPUUtilization", INSTANCES)[0.0].value("Maximum") == 100.0


def test_unknown_cores_have_no_figures():
    series = Series()
    series.sample(0.0, [0], None)
    series.add(served(0.0, 30.0, wait_s=0.0, service_s=30.0))
    assert statistics_of(series, "CPUUtilization", INSTANCES) == {}
    assert {namespace for namespace, _ in metrics_of(series)} == {SAGEMAKER}
