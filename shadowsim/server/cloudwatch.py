"""CloudWatch as boto3 asks for it: `GetMetricStatistics`, `GetMetricData` and `ListMetrics` on the endpoints' figures.

Namespace `AWS/SageMaker`, dimensions EndpointName and VariantName, both of them, as in AWS: with EndpointName alone
there is no data. Figures are kept by the minute of the wall clock; a period is any multiple of a minute. Latencies are
in microseconds, percentiles exact to within a bucket of 0.8 %. The namespace `/aws/sagemaker/Endpoints`, which measures
processors and memory of instances, is empty: nothing here has either.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shadowsim.contract import as_time
from shadowsim.errors import ShadowsimError, UnknownOperationError, kind
from shadowsim.server.live import LiveEndpoint
from shadowsim.server.series import MINUTE_S, Series, Tally, quantile

NAMESPACE = "AWS/SageMaker"
DIMENSIONS = ("EndpointName", "VariantName")
TARGET = "GraniteServiceVersion20100801"
_MOST_POINTS, _MOST_QUERIES, _MOST_SPAN_MINUTES = 1440, 500, 700_000  # 15 months
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)")
_US = 1e6


class InvalidParameterError(ShadowsimError, ValueError):
    """A parameter that CloudWatch refuses."""

    code = "InvalidParameterValue"
    http_status = 400


class MissingParameterError(ShadowsimError, ValueError):
    """A parameter that is not there."""

    code = "MissingParameter"
    http_status = 400


class TooManyPointsError(ShadowsimError, ValueError):
    """More data points than one answer holds."""

    code = "InvalidParameterCombination"
    http_status = 400


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
    counts: Mapping[int, int]


def _flags(count: int, n: int) -> Figures | None:
    """A metric that is 1 for some of n requests and 0 for the others; 0 once where there were none."""
    return Figures(max(n, 1), float(count), float(n > 0 and count == n), float(count > 0), {})


def _sampled(n: int, total: float, least: float, most: float, unit: float, counts: Mapping[int, int]) -> Figures | None:
    return Figures(n, total * unit, least * unit, most * unit, counts) if n else None


# What each metric is over one minute: its figures, None where it has no sample then. Unit by unit as AWS has them.
METRICS: Mapping[str, tuple[str, Callable[[Tally], Figures | None]]] = {
    "Invocations": ("None", lambda t: Figures(max(t.n, 1), float(t.n), float(t.n > 0), float(t.n > 0), {})),
    "InvocationsPerInstance": ("None", lambda t: Figures(max(t.n, 1), t.n_per_instance, *_each(t), {})),
    "ModelLatency": (
        "Microseconds",
        lambda t: _sampled(t.n_latency, t.latency_sum, t.latency_min, t.latency_max, _US, t.seen_counts()),
    ),
    "OverheadLatency": (
        "Microseconds",
        lambda t: _sampled(t.n_overhead, t.overhead_sum, t.overhead_min, t.overhead_max, _US, {}),
    ),
    "Invocation4XXErrors": ("None", lambda t: _flags(t.errors_4xx, t.n)),
    "Invocation5XXErrors": ("None", lambda t: _flags(t.errors_5xx, t.n)),
    "InvocationModelErrors": ("None", lambda t: _flags(t.model_errors, t.n)),
    "ConcurrentRequestsPerModel": (
        "None",
        lambda t: _sampled(t.n_concurrent, t.concurrent_sum, t.concurrent_min, t.concurrent_max, 1.0, {}),
    ),
}


def _each(tally: Tally) -> tuple[float, float]:
    one = tally.n_per_instance / tally.n if tally.n else 0.0
    return one, one


def handle(action: str, body: Mapping[str, Any], endpoints: Mapping[str, LiveEndpoint]) -> dict[str, Any]:
    """Answer an action of CloudWatch.

    Parameters
    ----------
    action : str
    body : mapping
        The request, as JSON has it.
    endpoints : mapping of str to LiveEndpoint
        By endpoint.

    Raises
    ------
    ShadowsimError
        With CloudWatch's codes.
    """
    if action == "GetMetricStatistics":
        return _statistics(body, endpoints)
    if action == "GetMetricData":
        return _data(body, endpoints)
    if action == "ListMetrics":
        return _list(body, endpoints)
    raise UnknownOperationError(f"{action} is not rehearsed: GetMetricStatistics, GetMetricData and ListMetrics are")


def _statistics(body: Mapping[str, Any], endpoints: Mapping[str, LiveEndpoint]) -> dict[str, Any]:
    namespace, name = _need(body, "Namespace", str), _need(body, "MetricName", str)
    statistics = [*_list_of(body, "Statistics", str), *_list_of(body, "ExtendedStatistics", str)]
    if not statistics:
        raise MissingParameterError("At least one of the parameters Statistics and ExtendedStatistics must be given.")
    for statistic in statistics:
        _check_statistic(statistic)
    points = _points(namespace, name, _dimensions(body), body, endpoints)
    if len(points) > _MOST_POINTS:
        raise TooManyPointsError(
            f"You have requested up to {len(points)} datapoints, which exceeds the limit of {_MOST_POINTS}."
        )
    unit = METRICS[name][0] if name in METRICS else "None"
    if body.get("Unit", unit) != unit:
        points = {}
    out = []
    for time_s, figures in points.items():
        point: dict[str, Any] = {"Timestamp": time_s, "Unit": unit}
        point |= {s: _value(figures, s) for s in statistics if not s.startswith("p")}
        extended = {s: _value(figures, s) for s in statistics if s.startswith("p")}
        out.append(point | ({"ExtendedStatistics": extended} if extended else {}))
    return {"Label": name, "Datapoints": out}


def _data(body: Mapping[str, Any], endpoints: Mapping[str, LiveEndpoint]) -> dict[str, Any]:
    queries = _list_of(body, "MetricDataQueries", dict)
    if not queries:
        raise MissingParameterError("The parameter MetricDataQueries must contain a query.")
    if len(queries) > _MOST_QUERIES:
        raise InvalidParameterError(f"The parameter MetricDataQueries must have at most {_MOST_QUERIES} queries.")
    results = []
    for query in queries:
        identity = _need(query, "Id", str)
        if query.get("Expression") is not None:
            raise InvalidParameterError(f"Query {identity}: expressions are not rehearsed, MetricStat is.")
        stat = _need(query, "MetricStat", dict)
        metric = _need(stat, "Metric", dict)
        namespace, name = _need(metric, "Namespace", str), _need(metric, "MetricName", str)
        statistic = _check_statistic(_need(stat, "Stat", str))
        span = {"Period": stat.get("Period"), "StartTime": body.get("StartTime"), "EndTime": body.get("EndTime")}
        points = list(_points(namespace, name, _dimensions(metric), span, endpoints).items())
        if body.get("ScanBy", "TimestampDescending") != "TimestampAscending":
            points.reverse()
        if query.get("ReturnData") is False:
            continue
        results.append(
            {
                "Id": identity,
                "Label": query.get("Label") or name,
                "Timestamps": [time_s for time_s, _ in points],
                "Values": [_value(figures, statistic) for _, figures in points],
                "StatusCode": "Complete",
            }
        )
    return {"MetricDataResults": results, "Messages": []}


def _list(body: Mapping[str, Any], endpoints: Mapping[str, LiveEndpoint]) -> dict[str, Any]:
    wanted = {}
    for given in _list_of(body, "Dimensions", dict):
        wanted[_need(given, "Name", str)] = given.get("Value")
    found = []
    if body.get("Namespace", NAMESPACE) == NAMESPACE:
        for endpoint, live in sorted(endpoints.items()):
            for variant in sorted(live.series):
                values = dict(zip(DIMENSIONS, (endpoint, variant), strict=True))
                if all(name in values and value in (None, values[name]) for name, value in wanted.items()):
                    dimensions = [{"Name": name, "Value": value} for name, value in values.items()]
                    found += [
                        {"Namespace": NAMESPACE, "MetricName": name, "Dimensions": dimensions}
                        for name in METRICS
                        if body.get("MetricName", name) == name
                    ]
    begin = _start_of(body.get("NextToken"), len(found))
    page = found[begin : begin + 500]
    more = {"NextToken": str(begin + 500)} if begin + 500 < len(found) else {}
    return {"Metrics": page, **more}


def _start_of(token: object, n: int) -> int:
    if token is None:
        return 0
    if isinstance(token, str) and token.isascii() and token.isdecimal() and len(token) < 10 and int(token) < n:
        return int(token)
    raise InvalidParameterError("The parameter NextToken is not one of this server's.")


def _points(
    namespace: str,
    name: str,
    dimensions: Mapping[str, str],
    span: Mapping[str, Any],
    endpoints: Mapping[str, LiveEndpoint],
) -> dict[float, Figures]:
    """The metric's figures by the start of each period that has some, in order."""
    start, end, period_s = _time(span, "StartTime"), _time(span, "EndTime"), _need(span, "Period", int)
    if period_s < MINUTE_S or period_s % MINUTE_S:
        raise InvalidParameterError("The parameter Period must be a multiple of 60.")
    if start >= end:
        raise InvalidParameterError("The parameter StartTime must be less than the parameter EndTime.")
    first, last = math.floor(start / MINUTE_S), math.ceil(end / MINUTE_S)
    if last - first > _MOST_SPAN_MINUTES:
        raise InvalidParameterError("The parameters StartTime and EndTime must be at most 15 months apart.")
    live = endpoints.get(dimensions.get("EndpointName", ""))
    series = live.series.get(dimensions.get("VariantName", "")) if live else None
    if namespace != NAMESPACE or name not in METRICS or series is None or set(dimensions) != set(DIMENSIONS):
        return {}
    return _periods(series, METRICS[name][1], first, last, int(period_s // MINUTE_S))


def _periods(
    series: Series, figures_of: Callable[[Tally], Figures | None], first: int, last: int, length: int
) -> dict[float, Figures]:
    grouped: dict[int, list[Figures]] = {}
    for number in sorted(n for n in series.tallies if first <= n < last):
        figures = figures_of(series.tallies[number])
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


def _value(figures: Figures, statistic: str) -> float:
    match statistic:
        case "SampleCount":
            return float(figures.n)
        case "Sum":
            return figures.total
        case "Average":
            return figures.total / figures.n
        case "Minimum":
            return figures.least
        case "Maximum":
            return figures.most
    q = float(statistic[1:]) / 100.0
    if not figures.counts:  # of what is counted, only the mean is known
        return figures.total / figures.n
    return quantile(figures.counts, q, figures.least / _US, figures.most / _US) * _US


def _check_statistic(statistic: str) -> str:
    if statistic not in ("SampleCount", "Sum", "Average", "Minimum", "Maximum") and not _PERCENTILE.fullmatch(
        statistic
    ):
        raise InvalidParameterError(f"The value {statistic} is not a statistic: Sum, Average, ... or p0 to p100.")
    return statistic


def _dimensions(owner: Mapping[str, Any]) -> dict[str, str]:
    return {_need(d, "Name", str): _need(d, "Value", str) for d in _list_of(owner, "Dimensions", dict)}


def _time(owner: Mapping[str, Any], name: str) -> float:
    if owner.get(name) is None:
        raise MissingParameterError(f"The parameter {name} is required.")
    moment: datetime | None = as_time(owner[name])
    if moment is None:
        raise InvalidParameterError(f"The parameter {name} must be a timestamp.")
    return moment.astimezone(UTC).timestamp()


def _need(owner: Mapping[str, Any], name: str, of: type) -> Any:
    value = owner.get(name)
    if value is None:
        raise MissingParameterError(f"The parameter {name} is required.")
    if not isinstance(value, of) or isinstance(value, bool):
        raise InvalidParameterError(f"The parameter {name} must not be {kind(value)}.")
    return value


def _list_of(owner: Mapping[str, Any], name: str, of: type) -> list[Any]:
    values = owner.get(name)
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, of) for value in values):
        raise InvalidParameterError(f"The parameter {name} must be a list.")
    return values
