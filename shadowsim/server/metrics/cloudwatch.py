"""Answers CloudWatch's actions on the metrics of variants: statistics, data and lists.

As in AWS, the dimension EndpointName alone has no data. A page's token holds the metric or the moment after which the
next page begins, so that endpoints and minutes that appear meanwhile are neither skipped nor repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any

from shadowsim.errors import UnknownOperationError, shown
from shadowsim.server.data_plane.live import LiveEndpoint
from shadowsim.server.data_plane.spare_time import Turns
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
from shadowsim.server.metrics.metric_data import metric_data
from shadowsim.server.metrics.metric_statistics import DIMENSIONS, METRICS, metrics_of, statistics_of

TARGET = "GraniteServiceVersion20100801"
_MOST_POINTS, _PER_PAGE = 1440, 500
_MOST_PLAIN, _MOST_EXTENDED = 5, 10  # statistics of a request


async def handle(
    action: str, body: Mapping[str, Any], endpoints: Mapping[str, LiveEndpoint], now_s: float | None = None
) -> dict[str, Any]:
    """Answer one of CloudWatch's actions; other work goes on meanwhile.

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
        return await _statistics(body, endpoints, now_s)
    if action == "GetMetricData":
        try:
            return await metric_data(body, endpoints, now_s)
        except (InvalidParameterError, MissingParameterError) as error:  # it has one code for all reasons
            raise MetricDataError(str(error)) from None
    if action == "ListMetrics":
        return await _list(body, endpoints)
    what = "is not supported; GetMetricStatistics, GetMetricData and ListMetrics are"
    raise UnknownOperationError(f"{shown(action)} {what}")


async def _statistics(body: Mapping[str, Any], endpoints: Mapping[str, LiveEndpoint], now_s: float) -> dict[str, Any]:
    metric = need(body, "Namespace", str), need(body, "MetricName", str)
    plain, extended = list_of(body, "Statistics", str), list_of(body, "ExtendedStatistics", str)
    if not plain and not extended:
        raise MissingParameterError("At least one of the parameters Statistics and ExtendedStatistics must be given.")
    for name, given, most in (("Statistics", plain, _MOST_PLAIN), ("ExtendedStatistics", extended, _MOST_EXTENDED)):
        if len(given) > most:
            raise InvalidParameterError(f"The collection {name} must not have a size greater than {most}.")
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
    points, turns = [], Turns()
    span = first, last, length
    by_period = statistics_of(metric, dimensions_of(body), body.get("Unit"), span, endpoints, now_s, turns)
    async for time_s, statistics in by_period:
        percentiles = {}
        for statistic in extended:
            await turns.pause()
            if (value := statistics.value(statistic)) is not None:
                percentiles[statistic] = value
        if plain or percentiles:
            point = {"Timestamp": time_s, "Unit": unit, **{s: statistics.value(s) for s in plain}}
            points.append(point | ({"ExtendedStatistics": percentiles} if percentiles else {}))
    return {"Label": metric[1], "Datapoints": points}


async def _list(body: Mapping[str, Any], endpoints: Mapping[str, LiveEndpoint]) -> dict[str, Any]:
    wanted = {}
    for dimension in list_of(body, "Dimensions", dict):
        wanted[need(dimension, "Name", str)] = dimension.get("Value")
    question = ["ListMetrics", {name: value for name, value in body.items() if name != "NextToken"}]
    after = place_in(body.get("NextToken"), question, str, str, str, str) or []
    keys = [key for key in sorted(METRICS) if key == (body.get("Namespace", key[0]), body.get("MetricName", key[1]))]
    matching: list[tuple[str, str, str, str]] = []
    turns = Turns()
    for endpoint, live in sorted(endpoints.items()):
        if len(matching) > _PER_PAGE:
            break
        if [endpoint] < after[:1]:
            continue
        await turns.pause()
        for variant, series in sorted(live.series.items()):
            values = dict(zip(DIMENSIONS, (endpoint, variant), strict=True))
            if all(name in values and value in (None, values[name]) for name, value in wanted.items()):
                known = metrics_of(series)
                places = [(endpoint, variant, *key) for key in keys if key in known]
                matching += [place for place in places if [*place] > after]
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
