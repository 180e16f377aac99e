"""CloudWatch's metrics of variants, and the actions that read them.

The actions are `GetMetricStatistics`, `GetMetricData` and `ListMetrics`. A metric has the dimensions EndpointName and
VariantName. As in AWS, EndpointName alone has no data. Counts are kept per minute of the wall clock, and a period is a
multiple of a minute. A page's token holds the metric or the moment after which the next page begins, so that endpoints
and minutes that appear meanwhile are neither skipped nor repeated.

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
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Any

from shadowsim.errors import UnknownOperationError, shown
from shadowsim.frames import US_PER_S
from shadowsim.histogram import quantile_within
from shadowsim.period_counts import PeriodCounts, TimeCounts
from shadowsim.server.data_plane.counts import MINUTE_S, Series
from shadowsim.server.data_plane.live import LiveEndpoint
from shadowsim.server.metrics.cloudwatch_wire import (
    InvalidParameterError,
    MetricDataError,
    MissingParameterError,
    TooManyPointsError,
    check_statistic,
    dimensions_of,
    list_of,
    need,
    place_in,
    span_of,
    token_after,
)

SAGEMAKER, INSTANCES = "AWS/SageMaker", "/aws/sagemaker/Endpoints"
DIMENSIONS = ("EndpointName", "VariantName")
TARGET = "GraniteServiceVersion20100801"
_MOST_POINTS, _MOST_QUERIES = 1440, 500
_MOST_PAGE_POINTS, _PER_PAGE = 100_800, 500
_ORDERS = ("TimestampAscending", "TimestampDescending")
_ID = re.compile(r"[a-z][a-zA-Z0-9_]*")


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
    busy = [min(period.worked.get(i, 0.0) / MINUTE_S, period.n_cores) * 100.0 for i in range(period.n_instances)]
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


def by_period(
    series: Series, metric: Metric, first: int, last: int, length: int, now_s: float
) -> dict[float, StatisticSet]:
    """Return a metric's statistics by the start of each period with samples, in order.

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
    """
    grouped: dict[int, list[StatisticSet]] = {}
    end = min(last, math.floor(now_s / MINUTE_S)) if metric.when_over else last
    for number in sorted(n for n in series.periods if first <= n < end):
        statistics = metric.of_minute(series.periods[number])
        if statistics is not None:
            grouped.setdefault((number - first) // length, []).append(statistics)
    return {(first + group * length) * MINUTE_S: _merge(parts) for group, parts in grouped.items()}


def _merge(parts: Sequence[StatisticSet]) -> StatisticSet:
    counts: dict[int, int] = {}
    for part in parts:
        for bucket, count in part.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
    least, most = min(part.least for part in parts), max(part.most for part in parts)
    return StatisticSet(sum(part.n for part in parts), math.fsum(part.total for part in parts), least, most, counts)


def handle(
    action: str, body: Mapping[str, Any], endpoints: Mapping[str, LiveEndpoint], now_s: float | None = None
) -> dict[str, Any]:
    """Answer one of CloudWatch's actions.

    Parameters
    ----------
    action : str
    body : mapping
        The request as parsed JSON.
    endpoints : mapping of str to LiveEndpoint
        By name.
    now_s : float, optional
        Seconds since 1970; by default the wall clock's.

    Raises
    ------
    ShadowsimError
        The request is refused, with CloudWatch's codes.
    """
    now_s = time() if now_s is None else now_s
    if action == "GetMetricStatistics":
        return _statistics(body, endpoints, now_s)
    if action == "GetMetricData":
        try:
            return _data(body, endpoints, now_s)
        except (InvalidParameterError, MissingParameterError) as error:
            raise MetricDataError(str(error)) from None
    if action == "ListMetrics":
        return _list(body, endpoints)
    what = "is not supported; GetMetricStatistics, GetMetricData and ListMetrics are"
    raise UnknownOperationError(f"{shown(action)} {what}")


def _statistics(body: Mapping[str, Any], endpoints: Mapping[str, LiveEndpoint], now_s: float) -> dict[str, Any]:
    metric = need(body, "Namespace", str), need(body, "MetricName", str)
    plain, extended = list_of(body, "Statistics", str), list_of(body, "ExtendedStatistics", str)
    if not plain and not extended:
        raise MissingParameterError("At least one of the parameters Statistics and ExtendedStatistics must be given.")
    for statistic in plain:
        check_statistic(statistic, percentiles=False)
    for statistic in extended:
        check_statistic(statistic, plain=False)
    first, last, length = span_of(body, need(body, "Period", int))
    n = -((first - last) // length)
    if n > _MOST_POINTS:
        raise TooManyPointsError(
            f"You have requested up to {n} datapoints, which exceeds the limit of {_MOST_POINTS}. You may reduce the "
            "datapoints requested by increasing Period, or decreasing the time range."
        )
    unit = METRICS[metric].unit if metric in METRICS else "None"
    points = []
    by_start = _points(metric, dimensions_of(body), body.get("Unit"), (first, last, length), endpoints, now_s)
    for time_s, statistics in by_start.items():
        percentiles = {s: value for s in extended if (value := statistics.value(s)) is not None}
        if plain or percentiles:
            point = {"Timestamp": time_s, "Unit": unit, **{s: statistics.value(s) for s in plain}}
            points.append(point | ({"ExtendedStatistics": percentiles} if percentiles else {}))
    return {"Label": metric[1], "Datapoints": points}


def _data(body: Mapping[str, Any], endpoints: Mapping[str, LiveEndpoint], now_s: float) -> dict[str, Any]:
    queries = list_of(body, "MetricDataQueries", dict)
    if not 0 < len(queries) <= _MOST_QUERIES:
        raise InvalidParameterError(f"The parameter MetricDataQueries must have 1 to {_MOST_QUERIES} queries.")
    most = _MOST_PAGE_POINTS if body.get("MaxDatapoints") is None else need(body, "MaxDatapoints", int)
    if not 0 < most <= _MOST_PAGE_POINTS:
        raise InvalidParameterError(f"The parameter MaxDatapoints must be 1 to {_MOST_PAGE_POINTS}.")
    order = "TimestampDescending" if body.get("ScanBy") is None else body["ScanBy"]
    if order not in _ORDERS:
        raise InvalidParameterError(f"The parameter ScanBy must be one of [{', '.join(_ORDERS)}].")
    ascending = order == _ORDERS[0]
    question = ["GetMetricData", {k: v for k, v in body.items() if k not in ("NextToken", "MaxDatapoints")}]
    begin, after_s = place_in(body.get("NextToken"), question, int, float | None) or (0, None)
    parsed = [_query(query, i, body) for i, query in enumerate(queries, start=1)]
    if len({query.get("Id") for query in queries}) < len(queries):
        raise InvalidParameterError("The values for parameter Id in MetricDataQueries are not unique.")
    results: list[dict[str, Any]] = []
    for i, (query, metric, dimensions, statistic, span) in enumerate(parsed[begin:], start=begin):
        if query.get("ReturnData") is False:
            continue
        by_start = _points(metric, dimensions, query["MetricStat"].get("Unit"), span, endpoints, now_s)
        values = [(time_s, value) for time_s, s in by_start.items() if (value := s.value(statistic)) is not None]
        values = values if ascending else values[::-1]
        if i == begin and after_s is not None:
            values = [(t, value) for t, value in values if (t > after_s if ascending else t < after_s)]
        part = values[:most]
        most -= len(part)
        result = {
            "Id": query["Id"],
            "Label": metric[1] if query.get("Label") is None else query["Label"],
            "Timestamps": [time_s for time_s, _ in part],
            "Values": [value for _, value in part],
            "StatusCode": "PartialData" if len(part) < len(values) else "Complete",
        }
        results.append(result)
        if len(part) < len(values):
            # Without room for a first value, the next page begins with all values of this query.
            last_s = part[-1][0] if part else after_s if i == begin else None
            return {"MetricDataResults": results, "Messages": [], "NextToken": token_after([i, last_s], question)}
    return {"MetricDataResults": results, "Messages": []}


def _query(
    query: Mapping[str, Any], number: int, body: Mapping[str, Any]
) -> tuple[Mapping[str, Any], tuple[str, str], dict[str, str], str, tuple[int, int, int]]:
    """Return a query, its metric and dimensions, its statistic, and its span."""
    identity = need(query, "Id", str)
    if not _ID.fullmatch(identity) or len(identity) > 255:
        where = f"MetricDataQueries.member.{number}.Id"
        what = f"is not matching the expected pattern ^{_ID.pattern}$."
        raise InvalidParameterError(f"The value {shown(identity)} for parameter {where} {what}")
    if query.get("Label") is not None:
        need(query, "Label", str)
    if query.get("Expression") is not None:
        raise InvalidParameterError(f"Query {identity}: expressions are not supported, MetricStat is.")
    stat = need(query, "MetricStat", dict)
    metric = need(stat, "Metric", dict)
    key = need(metric, "Namespace", str), need(metric, "MetricName", str)
    statistic = check_statistic(need(stat, "Stat", str))
    return query, key, dimensions_of(metric), statistic, span_of(body, need(stat, "Period", int))


def _list(body: Mapping[str, Any], endpoints: Mapping[str, LiveEndpoint]) -> dict[str, Any]:
    wanted = {}
    for dimension in list_of(body, "Dimensions", dict):
        wanted[need(dimension, "Name", str)] = dimension.get("Value")
    question = ["ListMetrics", {name: value for name, value in body.items() if name != "NextToken"}]
    after = place_in(body.get("NextToken"), question, str, str, str, str) or []
    matching = []
    for endpoint, live in sorted(endpoints.items()):
        for variant in sorted(live.series):
            values = dict(zip(DIMENSIONS, (endpoint, variant), strict=True))
            if not all(name in values and value in (None, values[name]) for name, value in wanted.items()):
                continue
            for key in sorted(metrics_of(live.series[variant])):
                asked = body.get("Namespace", key[0]), body.get("MetricName", key[1])
                if asked == key and [endpoint, variant, *key] > after:
                    matching.append((endpoint, variant, *key))
    metrics = [
        {
            "Namespace": namespace,
            "MetricName": name,
            "Dimensions": [
                {"Name": DIMENSIONS[0], "Value": endpoint},
                {"Name": DIMENSIONS[1], "Value": variant},
            ],
        }
        for endpoint, variant, namespace, name in matching[:_PER_PAGE]
    ]
    more = {"NextToken": token_after(matching[_PER_PAGE - 1], question)} if len(matching) > _PER_PAGE else {}
    return {"Metrics": metrics, **more}


def _points(
    metric: tuple[str, str],
    dimensions: Mapping[str, str],
    unit: object,
    span: tuple[int, int, int],
    endpoints: Mapping[str, LiveEndpoint],
    now_s: float,
) -> dict[float, StatisticSet]:
    """Return the metric's statistics by the start of each period with samples, in order."""
    live = endpoints.get(dimensions.get("EndpointName", ""))
    series = live.series.get(dimensions.get("VariantName", "")) if live else None
    if metric not in METRICS or series is None or set(dimensions) != set(DIMENSIONS):
        return {}
    if unit not in (None, METRICS[metric].unit):
        return {}
    return by_period(series, METRICS[metric], *span, now_s)
