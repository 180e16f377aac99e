"""GetMetricData's expressions, as boto3 sees them."""

import asyncio
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.exceptions import ClientError
from served import endpoint, served
from serving import serving

from shadowsim.server.data_plane.counts import Series
from shadowsim.server.metrics import metric_data
from shadowsim.server.metrics.metric_data import metric_data as answer

T0 = datetime(2026, 1, 1, tzinfo=UTC)
N = 6
SPAN = {"StartTime": T0, "EndTime": T0 + timedelta(minutes=N), "ScanBy": "TimestampAscending"}
BOTH = [{"Name": "EndpointName", "Value": "e"}, {"Name": "VariantName", "Value": "v"}]
COUNTS = [1, 2, 0, 4, 3, 1]  # requests in a minute; no sample of the third, which has no points


@pytest.fixture(scope="module")
def live():
    live = endpoint("e")
    series = live.series["v"] = Series()
    for minute, n in enumerate(COUNTS):
        for i in range(n):
            series.add(served(T0.timestamp() + 60 * minute + i, 0.01, "answered" if i else "error_5xx"))
    return live


@pytest.fixture(scope="module")
def cloudwatch(tmp_path_factory, live):
    with serving(tmp_path_factory.mktemp("serving")) as server:
        server.app.endpoints.by_name["e"] = live
        yield boto3.Session().client(
            "cloudwatch", endpoint_url=server.url, region_name="us-east-1", aws_access_key_id="x",
            aws_secret_access_key="y",
        )  # fmt: skip


def metric(identity, name, stat="Sum", period=60, **more):
    asked = {"Namespace": "AWS/SageMaker", "MetricName": name, "Dimensions": BOTH}
    return {"Id": identity, "MetricStat": {"Metric": asked, "Period": period, "Stat": stat}, **more}


CALLS = metric("calls", "Invocations", ReturnData=False)
ERRORS = metric("errors", "Invocation5XXErrors", ReturnData=False)


def data(cloudwatch, *queries, **more):
    return cloudwatch.get_metric_data(MetricDataQueries=list(queries), **{**SPAN, **more})["MetricDataResults"]


def minutes(result):
    return [(t - T0).total_seconds() / 60 for t in result["Timestamps"]]


def test_an_error_rate_is_a_series_of_its_own(cloudwatch):
    (result,) = data(cloudwatch, CALLS, ERRORS, {"Id": "rate", "Expression": "100 * errors / calls", "Label": "%"})
    assert (result["Id"], result["Label"], result["StatusCode"]) == ("rate", "%", "Complete")
    assert minutes(result) == [0, 1, 3, 4, 5]
    assert result["Values"] == pytest.approx([100 / n for n in COUNTS if n])


def test_expressions_are_evaluated_in_the_order_of_their_needs(cloudwatch):
    queries = [
        {"Id": "twice", "Expression": "2 * filled"},
        {"Id": "filled", "Expression": "FILL(calls, 0)", "ReturnData": False},
        CALLS,
        {"Id": "mean", "Expression": "AVG(calls)", "ReturnData": False},
        {"Id": "above", "Expression": "IF(calls > mean, calls)"},
    ]
    twice, above = data(cloudwatch, *queries)
    assert (twice["Label"], twice["Values"], minutes(twice)) == ("twice", [2.0 * n for n in COUNTS], list(range(N)))
    assert (minutes(above), above["Values"]) == ([3, 4], [4.0, 3.0])


def test_a_rate_is_per_second(cloudwatch):
    (result,) = data(cloudwatch, CALLS, {"Id": "r", "Expression": "RATE(calls)"})
    assert minutes(result) == [1, 3, 4, 5]
    assert result["Values"] == pytest.approx([1 / 60, 2 / 120, -1 / 60, -2 / 60])


def test_an_array_has_a_result_for_each_metric(cloudwatch):
    whole = {"Id": "all", "Expression": "METRICS() / 2", "Label": "half"}
    results = data(cloudwatch, CALLS, {**ERRORS, "Label": "bad"}, whole)
    assert [(r["Id"], r["Label"]) for r in results] == [("all", "half Invocations"), ("all", "half bad")]
    assert results[1]["Values"] == [0.5] * 5
    assert data(cloudwatch, CALLS, ERRORS, {"Id": "some", "Expression": "SUM(METRICS('err'))"})[0]["Values"] == [1] * 5


def test_results_of_expressions_come_in_pages(cloudwatch):
    queries = [CALLS, ERRORS, {"Id": "all", "Expression": "[calls, errors]"}, metric("last", "Invocations")]
    pages = cloudwatch.get_paginator("get_metric_data").paginate(MetricDataQueries=queries, MaxDatapoints=4, **SPAN)
    points = {}
    for page in pages:
        assert sum(len(result["Values"]) for result in page["MetricDataResults"]) <= 4
        for result in page["MetricDataResults"]:
            points.setdefault((result["Id"], result["Label"]), []).extend(result["Values"])
    counts = [n for n in COUNTS if n]
    assert points == {
        ("all", "all Invocations"): counts,
        ("all", "all Invocation5XXErrors"): [1.0] * 5,
        ("last", "Invocations"): counts,
    }


def test_a_number_becomes_a_series_of_its_query_s_period(cloudwatch):
    (minute,) = data(cloudwatch, CALLS, {"Id": "t", "Expression": "TIME_SERIES(7)"})
    assert minute["Values"] == [7.0] * N
    (longer,) = data(cloudwatch, CALLS, {"Id": "t", "Expression": "TIME_SERIES(7)", "Period": 120})
    assert minutes(longer) == [0, 2, 4]


def test_periods_begin_with_the_span_as_for_metrics(cloudwatch):
    two = metric("two", "Invocations", period=120)
    plain, doubled = data(cloudwatch, two, {"Id": "d", "Expression": "two * 2"})
    assert (minutes(plain), plain["Values"]) == ([0, 2, 4], [3.0, 4.0, 4.0])
    assert (minutes(doubled), doubled["Values"]) == ([0, 2, 4], [6.0, 8.0, 8.0])


@pytest.mark.parametrize(
    ("queries", "words"),
    [
        ([{"Id": "a", "Expression": "b * 2"}], "Error in expression 'a': the Id 'b' is not in MetricDataQueries"),
        ([CALLS, {"Id": "a", "Expression": "calls +"}], "Error in expression 'a': Invalid syntax"),
        ([CALLS, {"Id": "a", "Expression": "NO(calls)"}], "Error in expression 'a': Function 'NO' not found"),
        ([CALLS, {"Id": "a", "Expression": "AVG(calls)"}], "'a': the result is a number, and only a time series"),
        ([{"Id": "a", "Expression": "a + 1"}], "Error in expression 'a': circular reference: a -> a"),
        (
            [{"Id": "a", "Expression": "b"}, {"Id": "b", "Expression": "c"}, {"Id": "c", "Expression": "a"}],
            "circular reference",
        ),
        ([{**CALLS, "Expression": "1"}], "MetricDataQueries.member.1.MetricStat are mutually exclusive"),
        ([{"Id": "a", "Expression": "TIME_SERIES(1)", "Period": 30}], "Period must be a multiple of 60"),
        (
            [CALLS, metric("two", "Invocations", period=120), {"Id": "a", "Expression": "calls + two"}],
            "must have one Period; these have 60, 120",
        ),
    ],
)
def test_refused_expressions(cloudwatch, queries, words):
    with pytest.raises(ClientError) as caught:
        data(cloudwatch, *queries)
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert words in str(caught.value)


def test_the_values_of_a_request_are_bounded(live, monkeypatch):
    def ask(*queries):
        span = {"StartTime": T0.timestamp(), "EndTime": T0.timestamp() + 60 * N}
        body = {"MetricDataQueries": list(queries), **span}
        return asyncio.run(answer(body, {"e": live}, T0.timestamp() + 3600))

    monkeypatch.setattr(metric_data, "_MOST_GRID_VALUES", 2 * N)
    third = metric("more", "ModelLatency")
    assert ask(CALLS, ERRORS, third, {"Id": "a", "Expression": "calls + errors"})
    with pytest.raises(ValueError, match="span 18 periods, and at most 12"):
        ask(CALLS, ERRORS, third, {"Id": "a", "Expression": "SUM(METRICS())"})
    monkeypatch.setattr(metric_data, "_MOST_GRID_VALUES", N - 1)
    with pytest.raises(ValueError, match="has 6 periods"):
        ask({"Id": "a", "Expression": "TIME_SERIES(1)"})


def test_other_work_goes_on_while_much_is_read(live):
    """A month of minutes is read in many turns of the event loop."""
    month = endpoint("e")
    series = month.series["v"] = Series()
    for minute in range(5000):
        series.sample(T0.timestamp() + 60 * minute, [1], None)
    turns = 0

    async def run():
        nonlocal turns
        span = {"StartTime": T0.timestamp(), "EndTime": T0.timestamp() + 60 * 5000}
        work = asyncio.create_task(
            answer({"MetricDataQueries": [metric("a", "Invocations")], **span}, {"e": month}, 1e10)
        )
        while not work.done():
            turns += 1
            await asyncio.sleep(0)
        return work.result()

    assert len(asyncio.run(run())["MetricDataResults"][0]["Values"]) == 5000
    assert turns > 50
