"""Evaluates the expressions of metric math on metrics of one request.

A value is a number, a time series, or an array of time series. Series that meet have the same period, and their points
have the same places, so that a missing point is a NaN: what an operator makes of it is missing, too, as is a quotient
by zero. The functions are those of `FUNCTIONS`; METRICS and IF have rules of their own.

AWS does not document these, so they are assumed: an array's AVG, MAX, MIN, STDDEV and SUM leave out what is missing
at a moment; STDDEV divides by the number of points; FILL fills the whole span that was asked for, but LINEAR and REPEAT
nothing before the first point, and LINEAR nothing after the last; series of different periods do not meet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np

from shadowsim.errors import did_you_mean, shown
from shadowsim.server.data_plane.counts import MINUTE_S
from shadowsim.server.metrics.metric_math import (
    Array,
    Constant,
    ExpressionError,
    FunctionCall,
    Node,
    Operation,
    Reference,
)

MOST_WORK = 50_000_000  # values that the expressions of a request may touch: a fraction of a second
REPEAT, LINEAR = "REPEAT", "LINEAR"
_VALUES_AT_ONCE = 20_000  # more take longer than the event loop can spare, most of it to get new memory

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class GridSeries:
    """A time series on the periods of a request's span.

    Attributes
    ----------
    label : str
    period_s : int
    values : numpy.ndarray
        A value a period, NaN where there is no point.
    """

    label: str
    period_s: int
    values: np.ndarray


Value: TypeAlias = float | GridSeries | tuple[GridSeries, ...]


class Evaluation:
    """Evaluates the expressions of one request.

    Parameters
    ----------
    metrics : mapping of str to GridSeries
        The queries of the request that are metrics, by Id.
    n_periods : callable
        Returns the number of periods of a length in seconds that the request's span has.
    pause : callable
        Awaited before each operation, so that other work goes on.
    """

    def __init__(
        self,
        metrics: Mapping[str, GridSeries],
        n_periods: Callable[[int], int],
        pause: Callable[[], Awaitable[None]],
    ):
        self._metrics, self._n_periods, self._pause = metrics, n_periods, pause
        self._done: dict[str, Value] = dict(metrics)
        self._work = 0
        self._period_s = int(MINUTE_S)

    async def evaluate(self, identity: str, node: Node, period_s: int) -> Value:
        """Return the value of an expression, to which later ones can refer.

        Parameters
        ----------
        identity : str
            The Id of its query.
        node : Node
            Refers only to metrics and to expressions that were evaluated before.
        period_s : int
            Period of a series that is made of a number alone.

        Raises
        ------
        ExpressionError
        """
        self._period_s = period_s
        value = await self._value(node)
        self._done[identity] = value
        return value

    async def _value(self, node: Node) -> Value:
        await self._pause()
        match node:
            case Constant():
                if isinstance(node.value, str):
                    raise ExpressionError("a text can only be an argument of METRICS")
                return node.value
            case Reference():
                if node.name not in self._done:
                    raise ExpressionError(f"{node.name} can only be the second argument of FILL")
                return self._done[node.name]
            case Array():
                items = [_series_of(await self._value(item), "[]") for item in node.items]
                return tuple(series for item in items for series in item)
            case Operation():
                value = await self._value(node.operands[0])
                for operator, operand in zip(node.operators, node.operands[1:], strict=True):
                    value = await self._apart(self._operate, operator, value, await self._value(operand))
                    await self._pause()
                return value
            case FunctionCall():
                return await self._call(node)

    async def _call(self, node: FunctionCall) -> Value:
        name, given = node.name, len(node.arguments)
        if name == "METRICS":
            return self._selected(node.arguments)
        most, least = _ARGUMENTS.get(name, (0, 0))
        if not least <= given <= most:
            expected = str(least) if least == most else f"{least} to {most}"
            raise ExpressionError(f"Function '{name}' takes {expected} arguments, not {given}")
        if name == "FILL" and isinstance(node.arguments[1], Reference) and node.arguments[1].name in (REPEAT, LINEAR):
            return await self._apart(self._filled, await self._value(node.arguments[0]), node.arguments[1].name)
        arguments = [await self._value(argument) for argument in node.arguments]
        for argument in arguments:
            self._count(argument)
        match name:
            case "IF":
                return await self._apart(self._chosen, *arguments)
            case "FILL":
                return await self._apart(self._filled, *arguments)
            case "TIME_SERIES":
                if not isinstance(arguments[0], float):
                    raise ExpressionError("Function 'TIME_SERIES' takes a number")
                return self._constant(arguments[0], self._period_s)
        return await self._apart(FUNCTIONS[name], name, arguments[0])

    async def _apart(self, work: Callable[..., Value], *arguments: Any) -> Value:
        return await apart(sum(one.values.size for value in arguments for one in _series_in(value)), work, *arguments)

    def _selected(self, arguments: tuple[Node, ...]) -> Value:
        part = arguments[0].value if arguments and isinstance(arguments[0], Constant) else ""
        if len(arguments) > 1 or not isinstance(part, str) or (arguments and not isinstance(arguments[0], Constant)):
            raise ExpressionError("Function 'METRICS' takes nothing, or a text that Ids contain")
        selected = tuple(series for identity, series in self._metrics.items() if part in identity)
        _check_periods(selected)
        return selected

    def _operate(self, operator: str, left: Value, right: Value) -> Value:
        self._count(left)
        self._count(right)
        _check_periods((*_series_in(left), *_series_in(right)))
        if isinstance(left, tuple) and isinstance(right, tuple):
            raise ExpressionError(f"Operator '{operator}' does not take two arrays of time series")
        if isinstance(left, tuple):
            return tuple(_joined(operator, series, right, series) for series in left)
        if isinstance(right, tuple):
            return tuple(_joined(operator, left, series, series) for series in right)
        pattern = left if isinstance(left, GridSeries) else right
        if isinstance(pattern, GridSeries):
            return _joined(operator, left, right, pattern)
        return float(_clean(_OPERATORS[operator](np.array(left), np.array(right))))

    def _chosen(self, condition: Value, true: Value, false: Value = np.nan) -> Value:
        parts = (condition, true, false)
        if any(isinstance(part, tuple) for part in parts):
            raise ExpressionError("Function 'IF' does not take arrays of time series")
        _check_periods(tuple(series for part in parts for series in _series_in(part)))
        if isinstance(condition, float):
            return true if condition else false
        assert isinstance(condition, GridSeries)
        on, off = _numbers(true), _numbers(false)
        values = np.where(np.isnan(condition.values), np.nan, np.where(condition.values != 0.0, on, off))
        return replace(condition, values=values)

    def _filled(self, value: Value, by: Value | str) -> Value:
        if isinstance(value, float) or isinstance(by, tuple):
            raise ExpressionError("Function 'FILL' takes time series, and a number, a time series, REPEAT or LINEAR")
        if isinstance(value, tuple):
            return tuple(_filled_one(series, by) for series in value)
        return _filled_one(value, by)

    def _constant(self, value: float, period_s: int) -> GridSeries:
        series = GridSeries("", period_s, np.full(self._n_periods(period_s), value))
        self._count(series)
        return series

    def _count(self, value: Value) -> None:
        self._work += sum(series.values.size for series in _series_in(value))
        if self._work > MOST_WORK:
            what = f"the expressions of this request work on more than {MOST_WORK} values"
            raise ExpressionError(f"{what}; lengthen Period, or shorten the time range")


async def apart(n_values: int, work: Callable[..., _T], *arguments: Any) -> _T:
    """Return what numpy makes of so many values; of many in a thread, where it lets the event loop go on."""

    def quietly() -> _T:
        with np.errstate(all="ignore"):
            return work(*arguments)

    return await asyncio.to_thread(quietly) if n_values > _VALUES_AT_ONCE else quietly()


def check_names(node: Reference | FunctionCall, known: Mapping[str, object]) -> None:
    """Raise ExpressionError for a function or an Id that does not exist, or that is not supported."""
    if isinstance(node, Reference):
        if node.name not in known and node.name not in (REPEAT, LINEAR):
            raise ExpressionError(f"the Id '{shown(node.name)}' is not in MetricDataQueries")
    elif node.name in _UNSUPPORTED:
        raise ExpressionError(f"Function '{node.name}' is not supported")
    elif node.name not in _ARGUMENTS and node.name != "METRICS":
        raise ExpressionError(f"Function '{shown(node.name)}' not found{did_you_mean(node.name, _ARGUMENTS)}")


def _series_in(value: object) -> tuple[GridSeries, ...]:
    if isinstance(value, GridSeries):
        return (value,)
    return value if isinstance(value, tuple) else ()


def _series_of(value: Value, name: str) -> tuple[GridSeries, ...]:
    """Return the series of a value that must not be a number."""
    if isinstance(value, float):
        raise ExpressionError(f"'{name}' takes time series, not a number")
    return _series_in(value)


def _check_periods(series: tuple[GridSeries, ...]) -> None:
    periods = sorted({one.period_s for one in series})
    if len(periods) > 1:
        text = ", ".join(map(str, periods))
        raise ExpressionError(f"the metrics of an expression must have one Period; these have {text}")


def _clean(values: np.ndarray) -> np.ndarray:
    """Return values with NaN for what is not finite."""
    return np.where(np.isfinite(values), values, np.nan)


def _numbers(value: Value) -> np.ndarray | float:
    assert not isinstance(value, tuple)
    return value.values if isinstance(value, GridSeries) else value


def _joined(operator: str, left: Value, right: Value, pattern: GridSeries) -> GridSeries:
    return replace(pattern, values=_clean(_OPERATORS[operator](_numbers(left), _numbers(right))))


def _compared(compare: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Return a comparison whose result is 1 or 0, or missing where an operand is."""
    return lambda a, b: np.where(np.isnan(a) | np.isnan(b), np.nan, compare(a, b))


_OPERATORS: Mapping[str, Callable[..., np.ndarray]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "^": np.power,
    "==": _compared(np.equal),
    "!=": _compared(np.not_equal),
    "<=": _compared(np.less_equal),
    ">=": _compared(np.greater_equal),
    "<": _compared(np.less),
    ">": _compared(np.greater),
    "AND": _compared(np.logical_and),
    "OR": _compared(np.logical_or),
}


def _filled_one(series: GridSeries, by: Value | str) -> GridSeries:
    values, missing = series.values, np.isnan(series.values)
    places = np.arange(values.size)
    if by == REPEAT:
        latest = np.maximum.accumulate(np.where(missing, -1, places))
        filled = np.where(latest < 0, np.nan, values[latest])
    elif by == LINEAR:
        known = places[~missing]
        filled = values if not known.size else np.interp(places, known, values[known], left=np.nan, right=np.nan)
    else:
        _check_periods((series, *_series_in(by)))
        assert not isinstance(by, str)
        filled = np.where(missing, _numbers(by), values)
    return replace(series, values=filled)


def _mapped(work: Callable[[GridSeries], np.ndarray]) -> Callable[[str, Value], Value]:
    """Return a function that makes a series of each."""

    def call(name: str, value: Value) -> Value:
        series = tuple(replace(one, values=_clean(work(one))) for one in _series_of(value, name))
        return series if isinstance(value, tuple) else series[0]

    return call


def _elementwise(work: Callable[..., np.ndarray]) -> Callable[[str, Value], Value]:
    """Return a function of each value, also of a number."""
    of_series = _mapped(lambda series: work(series.values))

    def call(name: str, value: Value) -> Value:
        return float(_clean(work(np.array(value)))) if isinstance(value, float) else of_series(name, value)

    return call


def _reduced(work: Callable[[np.ndarray], np.ndarray]) -> Callable[[str, Value], Value]:
    """Return a function that makes a number of a series, and a series of an array of them."""

    def call(name: str, value: Value) -> Value:
        series = _series_of(value, name)
        if isinstance(value, tuple):
            if not series:
                return ()
            _check_periods(series)
            return replace(series[0], label="", values=work(np.array([one.values for one in series])))
        return float(work(series[0].values[:, None])[0])

    return call


def _total(values: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    return np.where(known.any(axis=0), np.where(known, values, 0.0).sum(axis=0), np.nan)


def _counted(values: np.ndarray) -> np.ndarray:
    return (~np.isnan(values)).sum(axis=0).astype(float)  # type: ignore[no-any-return]


def _mean(values: np.ndarray) -> np.ndarray:
    return _total(values) / _counted(values)  # type: ignore[no-any-return]


def _extreme(reduce: Callable[..., np.ndarray], other: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: _clean(reduce(np.where(np.isnan(values), other, values), axis=0, initial=other))


def _deviation(values: np.ndarray) -> np.ndarray:
    return np.sqrt(_mean((values - _mean(values)) ** 2))  # type: ignore[no-any-return]


def _steps(series: GridSeries) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the places of a series' points but the first, how much each adds to the one before, and in what time."""
    places = np.flatnonzero(~np.isnan(series.values))
    return places[1:], np.diff(series.values[places]), np.diff(places) * float(series.period_s)


def _of_steps(of: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[GridSeries], np.ndarray]:
    def work(series: GridSeries) -> np.ndarray:
        values = np.full(series.values.size, np.nan)
        places, added, seconds = _steps(series)
        values[places] = of(added, seconds)
        return values

    return work


def _running_sum(series: GridSeries) -> np.ndarray:
    missing = np.isnan(series.values)
    return np.where(missing, np.nan, np.where(missing, 0.0, series.values).cumsum())


def _period(name: str, value: Value) -> Value:
    if not isinstance(value, GridSeries):
        raise ExpressionError(f"Function '{name}' takes a time series")
    return float(value.period_s)


def _of_array(work: Callable[[tuple[GridSeries, ...]], Value]) -> Callable[[str, Value], Value]:
    def call(name: str, value: Value) -> Value:
        if not isinstance(value, tuple) or not value:
            raise ExpressionError(f"Function '{name}' takes an array of time series with at least one")
        return work(value)

    return call


def _without_empty(name: str, value: Value) -> Value:
    return tuple(series for series in _series_of(value, name) if not np.isnan(series.values).all())


# Those of one argument.
FUNCTIONS: Mapping[str, Callable[[str, Value], Value]] = {
    "ABS": _elementwise(np.abs),
    "AVG": _reduced(_mean),
    "CEIL": _elementwise(np.ceil),
    "DATAPOINT_COUNT": _reduced(_counted),
    "DIFF": _mapped(_of_steps(lambda added, seconds: added)),
    "DIFF_TIME": _mapped(_of_steps(lambda added, seconds: seconds)),
    "FIRST": _of_array(lambda series: series[0]),
    "FLOOR": _elementwise(np.floor),
    "LAST": _of_array(lambda series: series[-1]),
    "LOG": _elementwise(np.log),
    "LOG10": _elementwise(np.log10),
    "MAX": _reduced(_extreme(np.max, -np.inf)),
    "METRIC_COUNT": _of_array(lambda series: float(len(series))),
    "MIN": _reduced(_extreme(np.min, np.inf)),
    "PERIOD": _period,
    "RATE": _mapped(_of_steps(lambda added, seconds: added / seconds)),
    "REMOVE_EMPTY": _without_empty,
    "RUNNING_SUM": _mapped(_running_sum),
    "STDDEV": _reduced(_deviation),
    "SUM": _reduced(_total),
}
# By function, at most and at least.
_ARGUMENTS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(FUNCTIONS, (1, 1)),
    **{"FILL": (2, 2), "IF": (3, 2), "TIME_SERIES": (1, 1)},
}
# Those that AWS has besides.
_UNSUPPORTED = frozenset(
    {
        *("ANOMALY_DETECTION_BAND", "DATE", "DAY", "DB_PERF_INSIGHTS", "EPOCH", "HOUR", "INSIGHT_RULE_METRIC"),
        *("LAMBDA", "MINUTE", "MONTH", "SEARCH", "SERVICE_QUOTA", "SLICE", "SORT", "YEAR"),
    }
)
