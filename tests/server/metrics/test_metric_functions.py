"""Functions and operators of metric math, on series with missing points."""

import asyncio
import math

import numpy as np
import pytest

from shadowsim.server.metrics import metric_functions
from shadowsim.server.metrics.metric_functions import FUNCTIONS, Evaluation, GridSeries, check_names
from shadowsim.server.metrics.metric_math import ExpressionError, FunctionCall, Reference, parse, references

X = math.nan
A, B = [1.0, X, 4.0, 16.0], [2.0, 3.0, X, 0.0]
METRICS = {
    "a": GridSeries("A", 60, np.array(A)),
    "b": GridSeries("B", 60, np.array(B)),
    "long": GridSeries("L", 120, np.array([1.0, 2.0])),
    "none": GridSeries("N", 60, np.full(4, X)),
}


def value(text, *earlier, names=("a", "b", "none")):
    """Return the value of the last of some expressions, whose Ids are e0, e1, ...: a number, or lists."""
    evaluation = Evaluation({n: METRICS[n] for n in names}, lambda period_s: 240 // period_s, lambda: asyncio.sleep(0))

    async def run():
        for i, expression in enumerate((*earlier, text)):
            node = parse(expression)
            for named in references(node):
                check_names(named, METRICS | {f"e{j}": None for j in range(i)})
            result = await evaluation.evaluate(f"e{i}", node, 60)
        return result

    result = asyncio.run(run())
    if isinstance(result, GridSeries):
        return result.values.tolist()
    return [series.values.tolist() for series in result] if isinstance(result, tuple) else result


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # a missing operand, and a quotient by zero, are missing
        ("a + b", [3.0, X, X, 16.0]),
        ("a / b", [0.5, X, X, X]),
        ("100 * a - 1", [99.0, X, 399.0, 1599.0]),
        ("a ^ 0.5", [1.0, X, 2.0, 4.0]),
        ("-a", [-1.0, X, -4.0, -16.0]),
        ("a > 1", [0.0, X, 1.0, 1.0]),
        ("a > 1 AND a < 5", [0.0, X, 1.0, 0.0]),
        ("b == 0 OR b == 2", [1.0, 0.0, X, 1.0]),
        ("1 / 0", X),
        ("2 * 3 + 4 ^ 2", 22.0),
        # a series becomes a number, an array a series
        ("AVG(a)", 7.0),
        ("SUM(a)", 21.0),
        ("MIN(b)", 0.0),
        ("MAX(b)", 3.0),
        ("STDDEV(a)", pytest.approx(math.sqrt((36 + 9 + 81) / 3))),
        ("DATAPOINT_COUNT(a)", 3.0),
        ("PERIOD(a)", 60.0),
        ("AVG(none)", X),
        ("MAX(none)", X),
        ("SUM([a, b])", [3.0, 3.0, 4.0, 16.0]),
        ("AVG([a, b])", [1.5, 3.0, 4.0, 8.0]),
        ("MIN([a, b])", [1.0, 3.0, 4.0, 0.0]),
        ("MAX(METRICS())", [2.0, 3.0, 4.0, 16.0]),
        ("DATAPOINT_COUNT([a, b, none])", [2.0, 1.0, 1.0, 2.0]),
        ("METRIC_COUNT(METRICS('b'))", 1.0),
        ("FIRST(METRICS())", A),
        ("LAST([a, b])", B),
        # an array stays one
        ("METRICS() * 2", [[2.0, X, 8.0, 32.0], [4.0, 6.0, X, 0.0], [X] * 4]),
        ("a - [a, b]", [[0.0, X, 0.0, 0.0], [-1.0, X, X, 16.0]]),
        ("REMOVE_EMPTY(METRICS())", [A, B]),
        # per second, between successive points however far apart
        ("RATE(a)", [X, X, 3.0 / 120.0, 12.0 / 60.0]),
        ("RATE([b])", [[X, 1.0 / 60.0, X, -3.0 / 120.0]]),
        ("DIFF(a)", [X, X, 3.0, 12.0]),
        ("DIFF_TIME(a)", [X, X, 120.0, 60.0]),
        ("RUNNING_SUM(a)", [1.0, X, 5.0, 21.0]),
        ("FILL(a, 0)", [1.0, 0.0, 4.0, 16.0]),
        ("FILL(a, b)", [1.0, 3.0, 4.0, 16.0]),
        ("FILL(a, REPEAT)", [1.0, 1.0, 4.0, 16.0]),
        ("FILL(DIFF(a), REPEAT)", [X, X, 3.0, 12.0]),
        ("FILL(b, LINEAR)", [2.0, 3.0, 1.5, 0.0]),
        ("FILL(DIFF(a), LINEAR)", [X, X, 3.0, 12.0]),
        ("FILL(none, LINEAR)", [X] * 4),
        ("SUM(FILL([a, b], 0))", [3.0, 3.0, 4.0, 16.0]),
        ("IF(a > 1, a, 0)", [0.0, X, 4.0, 16.0]),
        ("IF(a > 1, b)", [X, X, X, 0.0]),
        ("IF(1, a, b)", A),
        ("IF(0, a, b)", B),
        ("ABS(-3)", 3.0),
        ("CEIL(a / 3)", [1.0, X, 2.0, 6.0]),
        ("FLOOR(a / 3)", [0.0, X, 1.0, 5.0]),
        ("LOG10(10 ^ a)", [1.0, X, 4.0, 16.0]),
        ("LOG(b)", [pytest.approx(math.log(2)), pytest.approx(math.log(3)), X, X]),
        ("TIME_SERIES(5)", [5.0] * 4),
    ],
)
def test_values(text, expected):
    found = value(text)
    assert _same(found, expected), found


def _same(found, expected):
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(_same, found, expected))
    return found == expected or (isinstance(expected, float) and math.isnan(expected) and math.isnan(found))


def test_expressions_build_on_expressions():
    assert value("e1 / AVG(e1)", "FILL(a, 0)", "e0 * 2") == pytest.approx([4 / 21, 0.0, 16 / 21, 64 / 21])


def test_functions_are_tested():
    """Each function stands in a case of `test_values`."""
    mark = next(m for m in test_values.pytestmark if m.name == "parametrize")
    texts = " ".join(text for text, _ in mark.args[1])
    assert [name for name in FUNCTIONS if f"{name}(" not in texts] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("c", "the Id 'c' is not in MetricDataQueries"),
        ("SEARCH('x', 'Sum', 60)", "Function 'SEARCH' is not supported"),
        ("AVERAGE(a)", "Function 'AVERAGE' not found"),
        ("sum(a)", "Function 'sum' not found"),
        ("SUM(a, b)", "Function 'SUM' takes 1 arguments, not 2"),
        ("IF(a)", "Function 'IF' takes 2 to 3 arguments, not 1"),
        ("SUM(5)", "'SUM' takes time series, not a number"),
        ("FILL(5, 0)", "'FILL' takes time series"),
        ("IF([a, b], 1, 2)", "'IF' does not take arrays"),
        ("METRICS() + METRICS()", "Operator '+' does not take two arrays"),
        ("METRIC_COUNT(a)", "'METRIC_COUNT' takes an array"),
        ("METRICS(a)", "Function 'METRICS' takes nothing, or a text"),
        ("'x' + a", "a text can only be an argument of METRICS"),
        ("TIME_SERIES(a)", "'TIME_SERIES' takes a number"),
        ("PERIOD([a])", "'PERIOD' takes a time series"),
    ],
)
def test_refused_expressions(text, words):
    with pytest.raises(ExpressionError) as caught:
        value(text)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["a + long", "SUM([a, long])", "IF(a, long, 0)", "FILL(a, long)", "SUM(METRICS())"])
def test_series_of_different_periods_do_not_meet(text):
    with pytest.raises(ExpressionError, match="must have one Period; these have 60, 120"):
        value(text, names=tuple(METRICS))


def test_work_is_bounded(monkeypatch):
    monkeypatch.setattr(metric_functions, "MOST_WORK", 40)
    assert value("a+a") is not None
    with pytest.raises(ExpressionError, match="work on more than 40 values"):
        value("+".join(["a"] * 20))


def test_keywords_are_no_values():
    with pytest.raises(ExpressionError, match="only be the second argument of FILL"):
        value("REPEAT + 1")
    check_names(Reference("REPEAT"), {})
    check_names(FunctionCall("METRICS", ()), {})
