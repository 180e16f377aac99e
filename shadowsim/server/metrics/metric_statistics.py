"""Defines the metrics of variants, and their statistics by period.

A metric has the dimensions EndpointName and VariantName. Counts are kept per minute of the wall clock, and a period is
a multiple of a minute.

Namespace `AWS/SageMaker` holds the metrics of requests and copies. Latencies are in microseconds. ModelLatency has
percentiles, OverheadLatency has none; they are exact to within a bucket of 0.8 %. A minute without requests has zeros.

FirstChunkLatency, FirstChunkModelLatency and FirstChunkOverheadLatency are the time to the first part of streamed
answers: at the caller, at the model, and the difference; they have percentiles, too. MidStreamErrors is 1 for a stream
that failed after its first part, else 0. AWS names these for bidirectional streams and does not define them further.
That they are published for the other streams, and that nobody reads a copy's parts, so that its FirstChunkLatency is
its model's, is assumed.

Namespace `/aws/sagemaker/Endpoints` holds CPUUtilization: the sum over cores (0 to 100 x vCPU), with one sample per
instance and minute. It is not measured but follows from the busy time of simulated workers: if an instance has as many
workers as vCPUs and no accelerator, a busy worker is a busy core. Work of the platform and the container is left out. A
minute is published once it is over; the first one counts as if the variant had served throughout it. Containers behind
URLs have no such metric, and accelerators, memory and disks have none at all.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shadowsim.frames import US_PER_S
from shadowsim.histogram import quantile_within
from shadowsim.period_counts import PeriodCounts, TimeCounts
from shadowsim.server.data_plane.counts import MINUTE_S, Series
from shadowsim.server.data_plane.live import LiveEndpoint
from shadowsim.server.data_plane.spare_time import Turns

SAGEMAKER, INSTANCES = "AWS/SageMaker", "/aws/sagemaker/Endpoints"
DIMENSIONS = ("EndpointName", "VariantName")
_MERGED_AT_ONCE = 64  # minutes of a long period


@dataclass(frozen=True, slots=True)
class StatisticSet:
    """A metric's samples over a period, in CloudWatch's statistics.

    Attributes
    ----------
    n : int
        Number of samples.
    total, least, most : float
        Sum, minimum and maximum.
    counts : mapping of int to int
        Latencies by bucket, for percentiles; empty for other metrics.
    """

    n: int
    total: float
    least: float
    most: float
    counts: Mapping[int, int] = field(default_factory=dict)

    def value(self, statistic: str) -> float | None:
        """Return a statistic such as "Average" or "p99"; None for a percentile without counts by bucket."""
        match statistic:
            case "SampleCount":
                return float(self.n)
            case "Sum":
                return self.total
            case "Average":
                return self.total / self.n
            case "Minimum":
                return self.least
            case "Maximum":
                return self.most
        if not self.counts:
            return None
        q, least_s, most_s = float(statistic[1:]) / 100.0, self.least / US_PER_S, self.most / US_PER_S
        return quantile_within(self.counts, q, least_s, most_s) * US_PER_S


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of CloudWatch.

    Attributes
    ----------
    unit : str
    of_minute : callable
        Returns the statistics of a minute's counts; None without samples.
    when_over : bool
        Whether a minute has statistics only once it is over.
    """

    unit: str
    of_minute: Callable[[PeriodCounts], StatisticSet | None]
    when_over: bool = False


def _flags(count: int, n: int) -> StatisticSet:
    """Return a metric that is 1 for some of n requests and 0 for the others; a single 0 without requests."""
    return StatisticSet(max(n, 1), float(count), float(n > 0 and count == n), float(count > 0))


def _per_instance(period: PeriodCounts) -> StatisticSet:
    one = period.n_per_instance / period.n if period.n else 0.0
    return StatisticSet(max(period.n, 1), period.n_per_instance, one, one)


def _times(times: TimeCounts) -> StatisticSet | None:
    total, least, most = (x * US_PER_S for x in (times.total_s, times.least_s, times.most_s))
    return StatisticSet(times.n, total, least, most, times.buckets()) if times.n else None


def _concurrent(period: PeriodCounts) -> StatisticSet | None:
    extremes = period.concurrent_min, period.concurrent_max
    return StatisticSet(period.n_concurrent, period.concurrent_sum, *extremes) if period.n_concurrent else None


def _first_chunk(name: str) -> Callable[[PeriodCounts], StatisticSet | None]:
    def of_minute(period: PeriodCounts) -> StatisticSet | None:
        return None if period.streams is None else _times(getattr(period.streams, name))

    return of_minute


def _cores(period: PeriodCounts) -> StatisticSet | None:
    if period.n_cores is None or not period.n_instances:
        return None
    # A minute in which a pool was replaced has the work of both fleets, hence the minimum.
    worked = [*period.worked.values(), *[0.0] * (period.n_instances - len(period.worked))]
    busy = [min(worked_s / MINUTE_S, period.n_cores) * 100.0 for worked_s in worked]
    return StatisticSet(len(busy), math.fsum(busy), min(busy), max(busy))


# By namespace and name, in the order of AWS's documentation.
METRICS: Mapping[tuple[str, str], Metric] = {
    (SAGEMAKER, "Invocations"): Metric("None", lambda p: _flags(p.n, p.n)),
    (SAGEMAKER, "InvocationsPerInstance"): Metric("None", _per_instance),
    (SAGEMAKER, "ModelLatency"): Metric("Microseconds", lambda p: _times(p.latency)),
    (SAGEMAKER, "OverheadLatency"): Metric("Microseconds", lambda p: _times(p.overhead)),
    (SAGEMAKER, "Invocation4XXErrors"): Metric("None", lambda p: _flags(p.errors_4xx, p.n)),
    (SAGEMAKER, "Invocation5XXErrors"): Metric("None", lambda p: _flags(p.errors_5xx, p.n)),
    (SAGEMAKER, "InvocationModelErrors"): Metric("None", lambda p: _flags(p.model_errors, p.n)),
    (SAGEMAKER, "ConcurrentRequestsPerModel"): Metric("None", _concurrent),
    (SAGEMAKER, "FirstChunkLatency"): Metric("Microseconds", _first_chunk("caller")),
    (SAGEMAKER, "FirstChunkModelLatency"): Metric("Microseconds", _first_chunk("model")),
    (SAGEMAKER, "FirstChunkOverheadLatency"): Metric("Microseconds", _first_chunk("overhead")),
    (SAGEMAKER, "MidStreamErrors"): Metric(
        "None", lambda p: None if p.streams is None else _flags(p.streams.broken, p.streams.n)
    ),
    (INSTANCES, "CPUUtilization"): Metric("Percent", _cores, when_over=True),
}


_OF_STREAMS = {key for key in METRICS if key[1].startswith("FirstChunk") or key[1] == "MidStreamErrors"}


def metrics_of(series: Series) -> list[tuple[str, str]]:
    """Return the namespace and name of each metric of a variant."""
    return [
        key
        for key in METRICS
        if (series.knows_streams if key in _OF_STREAMS else key[0] == SAGEMAKER or series.knows_cores)
    ]


async def statistics_of(
    metric: tuple[str, str],
    dimensions: Mapping[str, str],
    unit: object,
    span: tuple[int, int, int],
    endpoints: Mapping[str, LiveEndpoint],
    now_s: float,
    turns: Turns,
) -> AsyncIterator[tuple[float, StatisticSet]]:
    """Yield the start of each period with samples and a metric's statistics, in order; other work goes on meanwhile.

    Parameters
    ----------
    metric : (str, str)
        Namespace and name.
    dimensions : mapping of str to str
        Those but EndpointName and VariantName have no data.
    unit : object
        The metric's own or None; any other has no data.
    span : (int, int, int)
        As for `by_period`: first, last, length.
    endpoints : mapping of str to LiveEndpoint
        By name.
    now_s : float
        Seconds since 1970.
    turns : Turns
        Of the request.
    """
    live = endpoints.get(dimensions.get("EndpointName", ""))
    series = live.series.get(dimensions.get("VariantName", "")) if live else None
    if metric not in METRICS or series is None or set(dimensions) != set(DIMENSIONS):
        return
    if unit in (None, METRICS[metric].unit):
        async for at_s, statistics in by_period(series, METRICS[metric], *span, now_s, turns):
            yield at_s, statistics


async def by_period(
    series: Series, metric: Metric, first: int, last: int, length: int, now_s: float, turns: Turns
) -> AsyncIterator[tuple[float, StatisticSet]]:
    """Yield the start of each period with samples and a metric's statistics, in order; other work goes on meanwhile.

    Parameters
    ----------
    series : Series
        Counts per minute.
    metric : Metric
    first, last : int
        Minutes since 1970, without the last one.
    length : int
        Length of a period in minutes; the first period begins with `first`.
    now_s : float
        Seconds since 1970.
    turns : Turns
        Of the request.
    """
    parts: list[StatisticSet] = []
    current = -1
    end = min(last, math.floor(now_s / MINUTE_S)) if metric.when_over else last
    for number in sorted(n for n in series.periods if first <= n < end):
        await turns.pause()
        period = series.periods.get(number)  # the oldest may go meanwhile
        statistics = metric.of_minute(period) if period is not None else None
        if statistics is None:
            continue
        group = (number - first) // length
        if group != current:
            if parts:
                yield (first + current * length) * MINUTE_S, _merge(parts)
            current, parts = group, []
        parts.append(statistics)
        if len(parts) == _MERGED_AT_ONCE:  # a long period does not hold all its minutes
            parts = [_merge(parts)]
    if parts:
        yield (first + current * length) * MINUTE_S, _merge(parts)


def _merge(parts: Sequence[StatisticSet]) -> StatisticSet:
    if len(parts) == 1:
        return parts[0]
    counts: dict[int, int] = {}
    for part in parts:
        for bucket, count in part.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
    least, most = min(part.least for part in parts), max(part.most for part in parts)
    return StatisticSet(sum(part.n for part in parts), math.fsum(part.total for part in parts), least, most, counts)
