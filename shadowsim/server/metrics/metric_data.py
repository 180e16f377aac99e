"""Answers GetMetricData: queries of metrics, and expressions on them.

An expression may refer to metrics and to other expressions, in any order, and METRICS() stands for all metrics of the
request. Its result is a time series, or an array of them: then each is a result, labelled by the expression and by
its metric. An expression of numbers alone can be referred to but not returned. A result has its points in pages; a
token holds the number of the result and the moment after which the next page begins.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np

from shadowsim.errors import shown
from shadowsim.server.data_plane.counts import MINUTE_S
from shadowsim.server.data_plane.live import LiveEndpoint
from shadowsim.server.data_plane.spare_time import Turns
from shadowsim.server.metrics.cloudwatch_wire import (
    InvalidParameterError,
    check_statistic,
    dimensions_of,
    list_of,
    need,
    place_in,
    span_of,
    token_after,
)
from shadowsim.server.metrics.metric_functions import Evaluation, GridSeries, Value, apart, check_names
from shadowsim.server.metrics.metric_math import ExpressionError, FunctionCall, Node, Reference, parse, references
from shadowsim.server.metrics.metric_statistics import statistics_of

_MOST_QUERIES, _MOST_PAGE_POINTS = 500, 100_800
_MOST_GRID_VALUES = 2_000_000  # of all metrics of a request with expressions: 16 MB
_ORDERS = ("TimestampAscending", "TimestampDescending")
_ID = re.compile(r"[a-z][a-zA-Z0-9_]*")

Points = tuple[Sequence[float], Sequence[float]] | tuple[np.ndarray, np.ndarray]  # times in order, and values


@dataclass(frozen=True, slots=True)
class _MetricQuery:
    identity: str
    label: str
    metric: tuple[str, str]
    dimensions: Mapping[str, str]
    unit: object
    statistic: str
    span: tuple[int, int, int]
    is_returned: bool

    @property
    def period_s(self) -> int:
        return self.span[2] * int(MINUTE_S)


@dataclass(frozen=True, slots=True)
class _ExpressionQuery:
    identity: str
    label: str
    node: Node
    period_s: int | None
    is_returned: bool


_Query = _MetricQuery | _ExpressionQuery


async def metric_data(body: Mapping[str, Any], endpoints: Mapping[str, LiveEndpoint], now_s: float) -> dict[str, Any]:
    """Answer GetMetricData; other work goes on meanwhile.

    Parameters
    ----------
    body : mapping
        The request as parsed JSON.
    endpoints : mapping of str to LiveEndpoint
        By name.
    now_s : float
        Seconds since 1970.

    Raises
    ------
    ShadowsimError
        The request is refused.
    """
    given = list_of(body, "MetricDataQueries", dict)
    if not 0 < len(given) <= _MOST_QUERIES:
        raise InvalidParameterError(f"The parameter MetricDataQueries must have 1 to {_MOST_QUERIES} queries.")
    most = _MOST_PAGE_POINTS if body.get("MaxDatapoints") is None else need(body, "MaxDatapoints", int)
    if not 0 < most <= _MOST_PAGE_POINTS:
        raise InvalidParameterError(f"The parameter MaxDatapoints must be 1 to {_MOST_PAGE_POINTS}.")
    order = "TimestampDescending" if body.get("ScanBy") is None else body["ScanBy"]
    if order not in _ORDERS:
        raise InvalidParameterError(f"The parameter ScanBy must be one of [{', '.join(_ORDERS)}].")
    question = ["GetMetricData", {k: v for k, v in body.items() if k not in ("NextToken", "MaxDatapoints")}]
    begin, after_s = place_in(body.get("NextToken"), question, int, float | None) or (0, None)
    turns, queries = Turns(), []
    for i, query in enumerate(given, start=1):
        queries.append(_query(query, i, body))
        await turns.pause()
    if len({query.identity for query in queries}) < len(queries):
        raise InvalidParameterError("The values for parameter Id in MetricDataQueries are not unique.")
    answering = _Answering(queries, body, endpoints, now_s, turns)
    await answering.evaluate_expressions()

    ascending, results, number = order == _ORDERS[0], [], -1
    for query in queries:
        if not query.is_returned:
            continue
        for place in range(answering.n_results(query)):
            number += 1
            if number < begin:
                continue
            await turns.pause()
            label, (all_times, all_values) = await answering.result(query, place)
            first, last = 0, len(all_times)
            if number == begin and after_s is not None:
                if ascending:
                    first = bisect_right(all_times, after_s)
                else:
                    last = bisect_left(all_times, after_s)
            n = min(last - first, most)
            most -= n
            part = slice(first, first + n) if ascending else slice(last - n, last)
            times, values = (_listed(points[part], ascending) for points in (all_times, all_values))
            result = {
                "Id": query.identity,
                "Label": label,
                "Timestamps": times,
                "Values": values,
                "StatusCode": "PartialData" if n < last - first else "Complete",
            }
            results.append(result)
            if n < last - first:
                # Without room for a first value, the next page begins with all values of this result.
                last_s = times[-1] if times else after_s if number == begin else None
                token = token_after([number, last_s], question)
                return {"MetricDataResults": results, "Messages": [], "NextToken": token}
    return {"MetricDataResults": results, "Messages": []}


class _Answering:
    """Computes the results of one request's queries, the metrics' when they are asked for."""

    def __init__(
        self,
        queries: Sequence[_Query],
        body: Mapping[str, Any],
        endpoints: Mapping[str, LiveEndpoint],
        now_s: float,
        turns: Turns,
    ):
        self._metrics = {query.identity: query for query in queries if isinstance(query, _MetricQuery)}
        self._expressions = {query.identity: query for query in queries if isinstance(query, _ExpressionQuery)}
        self._body, self._endpoints, self._now_s, self._turns = body, endpoints, now_s, turns
        self._read: dict[str, Points] = {}
        self._values: dict[str, Value] = {}

    async def evaluate_expressions(self) -> None:
        """Evaluate all expressions, each after those that it refers to."""
        if not self._expressions:
            return
        used = await self._needs()
        try:
            order = list(TopologicalSorter(used).static_order())
        except CycleError as error:
            circle = error.args[1][::-1]
            raise _in_expression(circle[0], f"circular reference: {' -> '.join(circle)}") from None
        metrics = [self._metrics[name] for name in self._metrics if any(name in needed for needed in used.values())]
        n_values = sum(-(-(query.span[1] - query.span[0]) // query.span[2]) for query in metrics)
        if n_values > _MOST_GRID_VALUES:
            raise InvalidParameterError(
                f"The metrics of expressions span {n_values} periods, and at most {_MOST_GRID_VALUES} together are "
                "supported. You may increase Period, or decrease the time range."
            )
        evaluation = Evaluation(
            {query.identity: await self._grid(query) for query in metrics},
            self._n_periods,
            self._turns.pause,
        )
        for identity in order:
            if (query := self._expressions.get(identity)) is None:
                continue
            try:
                self._values[identity] = value = await evaluation.evaluate(identity, query.node, self._period_s(query))
                if query.is_returned and isinstance(value, float):
                    what = "the result is a number, and only a time series can be returned"
                    raise ExpressionError(f"{what} (TIME_SERIES makes one of it, and ReturnData false returns nothing)")
            except ExpressionError as error:
                raise _in_expression(identity, str(error)) from None

    def n_results(self, query: _Query) -> int:
        """Return how many results a query has."""
        value = self._values.get(query.identity)
        return len(value) if isinstance(value, tuple) else 1

    async def result(self, query: _Query, place: int) -> tuple[str, Points]:
        """Return the label and the points of one result of a query, in order of time."""
        if isinstance(query, _MetricQuery):
            return query.label, await self._points(query)
        value = self._values[query.identity]
        assert not isinstance(value, float)
        series = value[place] if isinstance(value, tuple) else value
        label = f"{query.label} {series.label}".rstrip() if isinstance(value, tuple) else query.label
        first, _, _ = span_of(self._body, series.period_s)
        return label, await apart(series.values.size, _points_of, series, first)

    async def _needs(self) -> dict[str, set[str]]:
        """Return by expression the queries that it needs."""
        known: dict[str, object] = {**self._metrics, **self._expressions}
        used: dict[str, set[str]] = {}
        for identity, query in self._expressions.items():
            await self._turns.pause()
            needed = used[identity] = set()
            for named in references(query.node):
                try:
                    check_names(named, known)
                except ExpressionError as error:
                    raise _in_expression(identity, str(error)) from None
                if isinstance(named, Reference) and named.name in known:
                    needed.add(named.name)
                elif isinstance(named, FunctionCall) and named.name == "METRICS":
                    needed |= set(self._metrics)
        return used

    def _period_s(self, query: _ExpressionQuery) -> int:
        """Return the period of a series made of a number: the query's own, or else the first metric's."""
        return query.period_s or next((metric.period_s for metric in self._metrics.values()), int(MINUTE_S))

    def _n_periods(self, period_s: int) -> int:
        first, last, length = span_of(self._body, period_s)
        n = -((first - last) // length)
        if n > _MOST_GRID_VALUES:
            raise ExpressionError(f"a number as a series has {n} periods, and at most {_MOST_GRID_VALUES} can be used")
        return n

    async def _points(self, query: _MetricQuery) -> Points:
        if query.identity not in self._read:
            by_period = statistics_of(
                query.metric, query.dimensions, query.unit, query.span, self._endpoints, self._now_s, self._turns
            )
            times, values = [], []
            async for time_s, statistics in by_period:
                await self._turns.pause()
                if (value := statistics.value(query.statistic)) is not None:
                    times.append(time_s)
                    values.append(value)
            self._read[query.identity] = times, values
        return self._read[query.identity]

    async def _grid(self, query: _MetricQuery) -> GridSeries:
        first, last, length = query.span
        values = np.full(-((first - last) // length), np.nan)
        times, known = await self._points(query)
        values[np.rint((np.array(times) / MINUTE_S - first) / length).astype(np.int64)] = np.array(known)
        return GridSeries(query.label, query.period_s, values)


def _points_of(series: GridSeries, first: int) -> Points:
    known = np.flatnonzero(~np.isnan(series.values))
    return first * MINUTE_S + known * float(series.period_s), series.values[known]


def _listed(values: Sequence[float] | np.ndarray, ascending: bool) -> list[float]:
    found: list[float] = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return found if ascending else found[::-1]


def _in_expression(identity: str, what: str) -> ExpressionError:
    return ExpressionError(f"Error in expression '{identity}': {what}")


def _query(query: Mapping[str, Any], number: int, body: Mapping[str, Any]) -> _Query:
    where = f"MetricDataQueries.member.{number}"
    identity = need(query, "Id", str)
    if not _ID.fullmatch(identity) or len(identity) > 255:
        what = f"is not matching the expected pattern ^{_ID.pattern}$."
        raise InvalidParameterError(f"The value {shown(identity)} for parameter {where}.Id {what}")
    label = None if query.get("Label") is None else need(query, "Label", str)
    is_returned = query.get("ReturnData") is not False
    if query.get("Expression") is None:
        stat = need(query, "MetricStat", dict)
        metric = need(stat, "Metric", dict)
        key = need(metric, "Namespace", str), need(metric, "MetricName", str)
        statistic = check_statistic(need(stat, "Stat", str))
        span = span_of(body, need(stat, "Period", int))
        name = key[1] if label is None else label
        return _MetricQuery(identity, name, key, dimensions_of(metric), stat.get("Unit"), statistic, span, is_returned)
    if query.get("MetricStat") is not None:
        what = "are mutually exclusive and you have specified both."
        raise InvalidParameterError(f"The parameters {where}.Expression and {where}.MetricStat {what}")
    try:
        node = parse(need(query, "Expression", str))
    except ExpressionError as error:
        raise _in_expression(identity, str(error)) from None
    period_s = None if query.get("Period") is None else need(query, "Period", int)
    span_of(body, period_s or int(MINUTE_S))  # checks both
    return _ExpressionQuery(identity, identity if label is None else label, node, period_s, is_returned)
