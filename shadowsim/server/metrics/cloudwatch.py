"""CloudWatch as boto3 asks for it: `GetMetricStatistics`, `GetMetricData` and `ListMetrics` on figures.py's metrics.

A metric has dimensions EndpointName and VariantName, both of them, as in AWS: with EndpointName alone there is no
data. Figures are kept by the minute of the wall clock; a period is any multiple of a minute. A token says after which
metric or moment its page goes on, so that nothing is left out or shown twice when endpoints and minutes come meanwhile.

CloudWatch's metrics of a variant: what each is over some minutes, from what was counted in them.

Namespace `AWS/SageMaker`: what callers and copies met. Latencies are in microseconds; percentiles, which only
ModelLatency has, are exact to within a bucket of 0.8 %. A minute without requests has zeros.

Namespace `/aws/sagemaker/Endpoints`: CPUUtilization, the sum over cores (0 to 100 x vCPU), one sample an instance and
minute. Nothing here has a processor to measure, but a simulated instance knows how long each of its workers was busy;
where an instance has as many workers as vCPUs and no accelerator, a busy worker is a busy core, and that is what is
said. What a platform and a container need besides is not in it. A minute is published once it is over; the first one
counts as if the variant had been there all along. Containers behind URLs, accelerators, memory and disks have no
figures: nothing here knows them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Any

from shadowsim.errors import UnknownOperationError, shown
from shadowsim.histogram import quantile_within
from shadowsim.server.data_plane.counts import MINUTE_S, PeriodCounts, Series
from shadowsim.server.data_plane.live import LiveEndpoint
from shadowsim.server.metrics.cloudwatch_wire import (
    InvalidParameterError,
    MetricDataError,
    MissingParameterError,
    TooManyPointsError,
    checked,
    dimensions_of,
    list_of,
    need,
    opened,
    sealed,
    span_of,
)

SAGEMAKER, INSTANCES = "AWS/SageMaker", "/aws/sagemaker/Endpoints"
_US = 1e6


@dataclass(frozen=True, slots=True)
class Figures:
    """A metric over a period.

    Attributes
    ----------
    n : int
        Its samples.
    total, least, most : float
    counts : mapping of int to int
        Latencies by bucket, for percentiles; empty for other metrics.
    """

    n: int
    total: float
    least: float
    most: float
    counts: Mapping[int, int] = field(default_factory=dict)

    def value(self, statistic: str) -> float | None:
        """Return a statistic, "Average" or "p99"; None for a percentile where only sums are known."""
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
        return quantile_within(self.counts, float(statistic[1:]) / 100.0, self.least / _US, self.most / _US) * _US


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its unit, and its figures over a minute, None where it has no sample then.

    Attributes
    ----------
    whole : bool
        Whether a minute has none before it is over.
    """

    unit: str
    figures: Callable[[PeriodCounts], Figures | None]
    whole: bool = False


def _flags(count: int, n: int) -> Figures:
    """A metric that is 1 for some of n requests and 0 for the others; 0 once where there were none."""
    return Figures(max(n, 1), float(count), float(n > 0 and count == n), float(count > 0))


def _per_instance(tally: PeriodCounts) -> Figures:
    one = tally.n_per_instance / tally.n if tally.n else 0.0
    return Figures(max(tally.n, 1), tally.n_per_instance, one, one)


def _sampled(n: int, total: float, least: float, most: float, unit: float, counts: Mapping[int, int]) -> Figures | None:
    return Figures(n, total * unit, least * unit, most * unit, counts) if n else None


def _cores(tally: PeriodCounts) -> Figures | None:
    if tally.n_cores is None or not tally.n_instances:
        return None
    # Of a pool that was replaced within the minute, both fleets worked.
    busy = [min(tally.worked.get(i, 0.0) / MINUTE_S, tally.n_cores) * 100.0 for i in range(tally.n_instances)]
    return Figures(len(busy), math.fsum(busy), min(busy), max(busy))


# By namespace and name, in the order of AWS's page.
METRICS: Mapping[tuple[str, str], Metric] = {
    (SAGEMAKER, "Invocations"): Metric("None", lambda t: _flags(t.n, t.n)),
    (SAGEMAKER, "InvocationsPerInstance"): Metric("None", _per_instance),
    (SAGEMAKER, "ModelLatency"): Metric(
        "Microseconds",
        lambda t: _sampled(t.n_latency, t.latency_sum, t.latency_min, t.latency_max, _US, t.seen_counts()),
    ),
    (SAGEMAKER, "OverheadLatency"): Metric(
        "Microseconds",
        lambda t: _sampled(t.n_overhead, t.overhead_sum, t.overhead_min, t.overhead_max, _US, {}),
    ),
    (SAGEMAKER, "Invocation4XXErrors"): Metric("None", lambda t: _flags(t.errors_4xx, t.n)),
    (SAGEMAKER, "Invocation5XXErrors"): Metric("None", lambda t: _flags(t.errors_5xx, t.n)),
    (SAGEMAKER, "InvocationModelErrors"): Metric("None", lambda t: _flags(t.model_errors, t.n)),
    (SAGEMAKER, "ConcurrentRequestsPerModel"): Metric(
        "None", lambda t: _sampled(t.n_concurrent, t.concurrent_sum, t.concurrent_min, t.concurrent_max, 1.0, {})
    ),
    (INSTANCES, "CPUUtilization"): Metric("Percent", _cores, whole=True),
}


def of_series(series: Series) -> list[tuple[str, str]]:
    """Return namespace and name of each metric that a variant has."""
    return [key for key in METRICS if key[0] == SAGEMAKER or series.knows_cores]


def by_period(series: Series, metric: Metric, first: int, last: int, length: int, now_s: float) -> dict[float, Figures]:
    """Return a metric's figures by the start of each period that has some, in order.

    Parameters
    ----------
    series : Series
        By the minute.
    metric : Metric
    first, last : int
        Minutes since 1970, the last one left out.
    length : int
        Of a period, in minutes; the first begins with `first`.
    now_s : float
        Seconds since 1970.
    """
    grouped: dict[int, list[Figures]] = {}
    end = min(last, math.floor(now_s / MINUTE_S)) if metric.whole else last
    for number in sorted(n for n in series.tallies if first <= n < end):
        figures = metric.figures(series.tallies[number])
        if figures is not None:
            grouped.setdefault((number - first) // length, []).append(figures)
    return {(first + group * length) * MINUTE_S: _joined(parts) for group, parts in grouped.items()}


def _joined(parts: Sequence[Figures]) -> Figures:
    counts: dict[int, int] = {}
    for part in parts:
        for bucket, count in part.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
    least, most = min(part.least for part in parts), max(part.most for part in parts)
    return Figures(sum(part.n for part in parts), math.fsum(part.total for part in parts), least, most, counts)


DIMENSIONS = ("EndpointName", "VariantName")
TARGET = "GraniteServiceVersion20100801"
_MOST_POINTS, _MOST_QUERIES = 1440, 500
_MOST_PAGE_POINTS, _PER_PAGE = 100_800, 500
_ORDERS = ("TimestampAscending", "TimestampDescending")
_ID = re.compile(r"[a-z][a-zA-Z0-9_]*")


def handle(
    action: str, body: Mapping[str, Any], endpoints: Mapping[str, LiveEndpoint], now_s: float | None = None
) -> dict[str, Any]:
    """Answer an action of CloudWatch.

    Parameters
    ----------
    action : str
    body : mapping
        The request, as JSON has it.
    endpoints : mapping of str to LiveEndpoint
        By endpoint.
    now_s : float, optional
        Seconds since 1970; by default the wall clock's.

    Raises
    ------
    ShadowsimError
        With CloudWatch's codes.
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
    what = "is not rehearsed: GetMetricStatistics, GetMetricData and ListMetrics are"
    raise UnknownOperationError(f"{shown(action)} {what}")


def _statistics(body: Mapping[str, Any], endpoints: Mapping[str, LiveEndpoint], now_s: float) -> dict[str, Any]:
    metric = need(body, "Namespace", str), need(body, "MetricName", str)
    plain, extended = list_of(body, "Statistics", str), list_of(body, "ExtendedStatistics", str)
    if not plain and not extended:
        raise MissingParameterError("At least one of the parameters Statistics and ExtendedStatistics must be given.")
    for statistic in plain:
        checked(statistic, percentiles=False)
    for statistic in extended:
        checked(statistic, plain=False)
    first, last, length = span_of(body, need(body, "Period", int))
    n = -((first - last) // length)
    if n > _MOST_POINTS:
        raise TooManyPointsError(
            f"You have requested up to {n} datapoints, which exceeds the limit of {_MOST_POINTS}. You may reduce the "
            "datapoints requested by increasing Period, or decreasing the time range."
        )
    unit = METRICS[metric].unit if metric in METRICS else "None"
    points = []
    found = _points(metric, dimensions_of(body), body.get("Unit"), (first, last, length), endpoints, now_s)
    for time_s, figures in found.items():
        percentiles = {s: value for s in extended if (value := figures.value(s)) is not None}
        if plain or percentiles:
            point = {"Timestamp": time_s, "Unit": unit, **{s: figures.value(s) for s in plain}}
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
    begin, after_s = opened(body.get("NextToken"), question, int, float | None) or (0, None)
    parsed = [_query(query, i, body) for i, query in enumerate(queries, start=1)]
    if len({query.get("Id") for query in queries}) < len(queries):
        raise InvalidParameterError("The values for parameter Id in MetricDataQueries are not unique.")
    results: list[dict[str, Any]] = []
    for i, (query, metric, dimensions, statistic, span) in enumerate(parsed[begin:], start=begin):
        if query.get("ReturnData") is False:
            continue
        found = _points(metric, dimensions, query["MetricStat"].get("Unit"), span, endpoints, now_s)
        values = [(time_s, value) for time_s, f in found.items() if (value := f.value(statistic)) is not None]
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
            # With no room left for a first value, the next page begins with all of this query's.
            last_s = part[-1][0] if part else after_s if i == begin else None
            return {"MetricDataResults": results, "Messages": [], "NextToken": sealed([i, last_s], question)}
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
        raise InvalidParameterError(f"Query {identity}: expressions are not rehearsed, MetricStat is.")
    stat = need(query, "MetricStat", dict)
    metric = need(stat, "Metric", dict)
    key = need(metric, "Namespace", str), need(metric, "MetricName", str)
    statistic = checked(need(stat, "Stat", str))
    return query, key, dimensions_of(metric), statistic, span_of(body, need(stat, "Period", int))


def _list(body: Mapping[str, Any], endpoints: Mapping[str, LiveEndpoint]) -> dict[str, Any]:
    wanted = {}
    for given in list_of(body, "Dimensions", dict):
        wanted[need(given, "Name", str)] = given.get("Value")
    question = ["ListMetrics", {name: value for name, value in body.items() if name != "NextToken"}]
    after = opened(body.get("NextToken"), question, str, str, str, str) or []
    found = []
    for endpoint, live in sorted(endpoints.items()):
        for variant in sorted(live.series):
            values = dict(zip(DIMENSIONS, (endpoint, variant), strict=True))
            if not all(name in values and value in (None, values[name]) for name, value in wanted.items()):
                continue
            for key in sorted(of_series(live.series[variant])):
                asked = body.get("Namespace", key[0]), body.get("MetricName", key[1])
                if asked == key and [endpoint, variant, *key] > after:
                    found.append((endpoint, variant, *key))
    metrics = [
        {
            "Namespace": namespace,
            "MetricName": name,
            "Dimensions": [
                {"Name": DIMENSIONS[0], "Value": endpoint},
                {"Name": DIMENSIONS[1], "Value": variant},
            ],
        }
        for endpoint, variant, namespace, name in found[:_PER_PAGE]
    ]
    more = {"NextToken": sealed(found[_PER_PAGE - 1], question)} if len(found) > _PER_PAGE else {}
    return {"Metrics": metrics, **more}


def _points(
    metric: tuple[str, str],
    dimensions: Mapping[str, str],
    unit: object,
    span: tuple[int, int, int],
    endpoints: Mapping[str, LiveEndpoint],
    now_s: float,
) -> dict[float, Figures]:
    """The metric's figures by the start of each period that has some, in order."""
    live = endpoints.get(dimensions.get("EndpointName", ""))
    series = live.series.get(dimensions.get("VariantName", "")) if live else None
    if metric not in METRICS or series is None or set(dimensions) != set(DIMENSIONS):
        return {}
    if unit not in (None, METRICS[metric].unit):
        return {}
    return by_period(series, METRICS[metric], *span, now_s)
