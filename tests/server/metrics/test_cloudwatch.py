"""CloudWatch's actions through boto3: pages, spans, units, statistics and refusals; metrics of counts."""

import asyncio
import base64
import copy
import json
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.loaders import Loader
from botocore.model import ServiceModel
from hypothesis import given, settings
from hypothesis import strategies as st
from rehearsed_account import misfits
from served import endpoint, served
from serving import serving

from shadowsim.errors import ShadowsimError
from shadowsim.server.data_plane.counts import Series
from shadowsim.server.data_plane.live import cores_of
from shadowsim.server.metrics import cloudwatch as actions
from shadowsim.server.metrics.cloudwatch_wire import InvalidParameterError, MetricDataError, token_after
from shadowsim.server.metrics.metric_statistics import INSTANCES, SAGEMAKER

MODEL = ServiceModel(Loader().load_service_model("cloudwatch", "service-2"), "cloudwatch")
N = 10  # minutes, a request in each
T0 = datetime(2026, 1, 1, tzinfo=UTC)
SPAN = {"StartTime": T0, "EndTime": T0 + timedelta(minutes=N)}
BOTH = [{"Name": "EndpointName", "Value": "e-000"}, {"Name": "VariantName", "Value": "v"}]


def filled():
    live = endpoint("e-000")
    series = live.series["v"] = Series()
    for i in range(N):
        series.sample(T0.timestamp() + 60 * i, [1, 0], 4)
        series.add(served(T0.timestamp() + 60 * i, 0.001 * (i + 1), wait_s=0.0, service_s=0.001 * (i + 1)))
    return live


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("serving")) as server:
        server.app.endpoints.by_name["e-000"] = filled()
        yield server


@pytest.fixture(scope="module")
def cloudwatch(server):
    """boto3's client; each answer is checked against its shape."""
    client = boto3.Session().client(
        "cloudwatch", endpoint_url=server.url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y"
    )

    def check(http_response, model, **_):
        if http_response.status_code == 200:
            assert (
                list(misfits(MODEL.operation_model(model.name).output_shape, json.loads(http_response.content))) == []
            )

    client.meta.events.register("after-call.cloudwatch", check)
    return client


def handle(*arguments):
    return asyncio.run(actions.handle(*arguments))


def query(identity="a", stat="Sum", name="ModelLatency", namespace=SAGEMAKER, period=60, dimensions=BOTH, **more):
    metric = {"Namespace": namespace, "MetricName": name, "Dimensions": dimensions}
    return {"Id": identity, "MetricStat": {"Metric": metric, "Period": period, "Stat": stat, **more}}


def statistics(cloudwatch, **changes):
    request = {
        "Namespace": SAGEMAKER,
        "MetricName": "ModelLatency",
        "Dimensions": BOTH,
        "Period": 60,
        **SPAN,
        **changes,
    }
    if "ExtendedStatistics" not in request:
        request.setdefault("Statistics", ["Sum"])
    return cloudwatch.get_metric_statistics(**request)["Datapoints"]


@pytest.mark.parametrize("order", ["TimestampAscending", "TimestampDescending"])
def test_data_come_in_pages_with_each_point_once(cloudwatch, order):
    queries = [query("a"), query("b", "p99"), query("c", dimensions=BOTH[:1]), query("d", name="Invocations")]
    pages = cloudwatch.get_paginator("get_metric_data").paginate(
        MetricDataQueries=queries, ScanBy=order, MaxDatapoints=4, **SPAN
    )
    points_of, n_pages = {}, 0
    for page in pages:
        n_pages += 1
        assert sum(len(result["Values"]) for result in page["MetricDataResults"]) <= 4
        for result in page["MetricDataResults"]:
            points_of.setdefault(result["Id"], []).extend(zip(result["Timestamps"], result["Values"], strict=True))
    assert n_pages == -(-3 * N // 4)
    times = [T0 + timedelta(minutes=i) for i in range(N)]
    expected = times if order == "TimestampAscending" else times[::-1]
    assert {name: [t for t, _ in points] for name, points in points_of.items()} == {
        "a": expected, "b": expected, "c": [], "d": expected
    }  # fmt: skip
    assert dict(points_of["a"]) == pytest.approx({t: 1000.0 * (i + 1) for i, t in enumerate(times)})


def test_a_minute_that_ends_between_two_pages_repeats_nothing(server, cloudwatch):
    request = {"MetricDataQueries": [query()], "MaxDatapoints": 3, "StartTime": T0, "EndTime": T0 + timedelta(hours=1)}
    first = cloudwatch.get_metric_data(**request)
    assert first["MetricDataResults"][0]["StatusCode"] == "PartialData"
    live = server.app.endpoints.by_name["e-000"]
    live.series["v"].add(served(T0.timestamp() + 60 * N))
    second = cloudwatch.get_metric_data(**request, NextToken=first["NextToken"])
    times = [t for page in (first, second) for t in page["MetricDataResults"][0]["Timestamps"]]
    assert times == [T0 + timedelta(minutes=N - 1 - i) for i in range(6)]
    del live.series["v"].periods[max(live.series["v"].periods)]


def test_queries_without_return_data_are_left_out(cloudwatch):
    queries = [{**query("a"), "ReturnData": False}, query("b")]
    assert [r["Id"] for r in cloudwatch.get_metric_data(MetricDataQueries=queries, **SPAN)["MetricDataResults"]] == [
        "b"
    ]


def test_another_unit_has_no_data(cloudwatch):
    assert len(statistics(cloudwatch, Unit="Microseconds")) == N
    assert statistics(cloudwatch, Unit="Seconds") == []
    for unit, n in (("Microseconds", N), ("Seconds", 0)):
        (result,) = cloudwatch.get_metric_data(MetricDataQueries=[query(Unit=unit)], **SPAN)["MetricDataResults"]
        assert len(result["Values"]) == n


@pytest.mark.parametrize(
    "changes",
    [
        {"Dimensions": BOTH[:1]},
        {"Dimensions": []},
        {"Dimensions": [*BOTH, {"Name": "Host", "Value": "x"}]},
        {"Dimensions": [BOTH[0], {"Name": "VariantName", "Value": "other"}]},
        {"MetricName": "Other"},
        {"Namespace": "AWS/EC2"},
        {"Namespace": INSTANCES},
        {"StartTime": T0 - timedelta(hours=1), "EndTime": T0},
    ],
)
def test_unknown_metrics_and_dimensions_have_no_data(cloudwatch, changes):
    assert statistics(cloudwatch, **changes) == []


def test_periods_begin_with_the_start_and_end_before_the_end(cloudwatch):
    points = statistics(
        cloudwatch, Period=180, StartTime=T0 + timedelta(minutes=1, seconds=59), Statistics=["SampleCount"]
    )
    assert [(p["Timestamp"] - T0).total_seconds() / 60 for p in points] == [1, 4, 7]
    assert [p["SampleCount"] for p in points] == [3, 3, 3]


def test_unknown_percentiles_are_left_out(cloudwatch):
    assert statistics(cloudwatch, MetricName="OverheadLatency", ExtendedStatistics=["p99"]) == []
    points = statistics(cloudwatch, MetricName="OverheadLatency", Statistics=["Sum"], ExtendedStatistics=["p99"])
    assert len(points) == N
    assert all("ExtendedStatistics" not in point for point in points)
    points = statistics(cloudwatch, ExtendedStatistics=["p0", "p99.9", "p100.0"])
    assert all(len(point["ExtendedStatistics"]) == 3 for point in points)


def test_cpu_is_the_sum_over_cores_with_one_sample_per_instance(cloudwatch):
    points = statistics(
        cloudwatch, Namespace=INSTANCES, MetricName="CPUUtilization", Statistics=["Average", "SampleCount"]
    )
    assert [point["SampleCount"] for point in points] == [2.0] * N  # instances
    # moments are seconds since 1970, whose floats are 2^-22 s apart
    expected = pytest.approx([100 * 0.001 * (i + 1) / 60 / 2 for i in range(N)], abs=100 * 2**-22 / 60)
    assert [point["Average"] for point in points] == expected
    assert {point["Unit"] for point in points} == {"Percent"}


@pytest.mark.parametrize(("instance_type", "cores"), [("ml.m5.xlarge", 4), ("ml.g5.xlarge", None)])
def test_which_workers_are_cores(tmp_path, instance_type, cores):
    with serving(tmp_path) as server:
        sagemaker = server.client("sagemaker")
        image = {"Image": "111122223333.dkr.ecr.us-east-1.amazonaws.com/model:1"}
        sagemaker.create_model(ModelName="m", PrimaryContainer=image)
        variant = {"VariantName": "v", "ModelName": "m", "InstanceType": instance_type, "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="c")
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="endpoint", WaiterConfig={"Delay": 1})
        server.invoke(Body=b"x")
        (pool,) = server.app.endpoints.by_name["endpoint"].serving()
        assert cores_of(pool) == cores


def test_too_many_points_are_refused_by_the_span_as_aws_does(cloudwatch):
    with pytest.raises(cloudwatch.exceptions.InvalidParameterCombinationException) as caught:
        statistics(cloudwatch, StartTime=T0 - timedelta(days=1), EndTime=T0 + timedelta(minutes=1))
    assert "You have requested up to 1441 datapoints, which exceeds the limit of 1440. You may" in str(caught.value)
    assert (
        len(
            statistics(
                cloudwatch, StartTime=T0 - timedelta(days=1) + timedelta(minutes=N), EndTime=T0 + timedelta(minutes=N)
            )
        )
        == N
    )


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"Period": 59}, "InvalidParameterValue", "Period must be a multiple of 60"),
        ({"Statistics": ["p99"]}, "InvalidParameterValue", "p99 is not a statistic of [SampleCount"),
        ({"Statistics": ["sum"]}, "InvalidParameterValue", "sum is not a statistic"),
        ({"ExtendedStatistics": ["Sum"]}, "InvalidParameterValue", "Sum is not a statistic of [p0 to p100]"),
        ({"ExtendedStatistics": ["p101"]}, "InvalidParameterValue", "p101 is not"),
        ({"ExtendedStatistics": [f"p{i}" for i in range(11)]}, "InvalidParameterValue", "size greater than 10"),
        ({"Statistics": 6 * ["Sum"]}, "InvalidParameterValue", "size greater than 5"),
        (
            {"StartTime": T0, "EndTime": T0},
            "InvalidParameterValue",
            "StartTime must be less than the parameter EndTime",
        ),
    ],
)
def test_refused_statistics(cloudwatch, changes, code, words):
    with pytest.raises(ClientError) as caught:
        statistics(cloudwatch, **changes)
    assert caught.value.response["Error"]["Code"] == code
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("queries", "more", "words"),
    [
        ([query("A")], {}, "MetricDataQueries.member.1.Id is not matching the expected pattern ^[a-z][a-zA-Z0-9_]*$."),
        ([query(), query()], {}, "are not unique"),
        ([query()] * 501, {}, "1 to 500 queries"),
        ([query()], {"MaxDatapoints": 100_801}, "MaxDatapoints must be 1 to 100800"),
        ([query(stat="tm99")], {}, "tm99 is not a statistic"),
        ([query(period=30)], {}, "Period must be a multiple of 60"),
        ([query()], {"NextToken": "x"}, "NextToken is not one that was given"),
        ([{"Id": "a"}], {}, "MetricStat is required"),
    ],
)
def test_refused_data_queries(cloudwatch, queries, more, words):
    with pytest.raises(ClientError) as caught:
        cloudwatch.get_metric_data(MetricDataQueries=queries, **SPAN, **more)
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert words in str(caught.value)


def test_metrics_are_listed_in_pages_that_survive_changes():
    endpoints = {f"e-{i:03d}": endpoint(f"e-{i:03d}") for i in range(150)}
    for live in endpoints.values():
        live.series["v"] = Series()
    first = handle("ListMetrics", {}, endpoints)
    endpoints["e-0000"] = endpoints.pop("e-000")  # endpoints of the first page appear and disappear
    second = handle("ListMetrics", {"NextToken": first["NextToken"]}, endpoints)
    third = handle("ListMetrics", {"NextToken": second["NextToken"]}, endpoints)
    assert "NextToken" not in third
    names = [(m["Dimensions"][0]["Value"], m["MetricName"]) for page in (first, second, third) for m in page["Metrics"]]
    assert len(names) == len(set(names)) == 8 * 150
    assert [len(page["Metrics"]) for page in (first, second)] == [500, 500]


def test_metrics_are_listed_by_filters(cloudwatch):
    def names(**request):
        pages = cloudwatch.get_paginator("list_metrics").paginate(**request)
        return sorted((m["Namespace"], m["MetricName"]) for page in pages for m in page["Metrics"])

    assert len(names(Dimensions=[{"Name": "EndpointName", "Value": "e-000"}])) == 9
    assert names(Namespace=INSTANCES) == names(MetricName="CPUUtilization") == [(INSTANCES, "CPUUtilization")]
    assert names(Dimensions=[{"Name": "Other"}]) == names(Namespace="AWS/EC2") == []


@pytest.mark.parametrize(
    "place",
    [[], [0], ["a", 1.0], [0, "x"], [0, 1.0, 2], {"a": 1}, None, [True, None], ["a", "b", "c", "d"], [-5, None]],
)
@pytest.mark.parametrize("action", ["ListMetrics", "GetMetricData"])
def test_a_forged_place_is_no_defect(action, place):
    """A token with a right digest gets an answer or a refusal."""
    endpoints = {"e-000": filled()}
    body = {"MetricDataQueries": [query()], "StartTime": 0, "EndTime": 1e6, "MaxDatapoints": 1}
    body = body if action == "GetMetricData" else {}
    question = [action, {k: v for k, v in body.items() if k != "MaxDatapoints"}]
    try:
        handle(action, {**body, "NextToken": token_after(place, question)}, endpoints)
    except (InvalidParameterError, MetricDataError):
        return
    assert place in ([-5, None], ["a", "b", "c", "d"])


@pytest.mark.parametrize("token", ["", "a", "é", base64.b64encode(b"[" * 10_000).decode(), 5, ["x"], {}])
def test_tokens_of_any_kind_are_refused(token):
    for action, body in (("ListMetrics", {}), ("GetMetricData", {"MetricDataQueries": [query()], **SPAN})):
        with pytest.raises(ValueError, match="NextToken"):
            handle(action, {**body, "NextToken": token}, {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
WHOLE = {
    "GetMetricStatistics": {
        "Namespace": SAGEMAKER, "MetricName": "ModelLatency", "Dimensions": BOTH, "Period": 60, "Unit": "Microseconds",
        "StartTime": T0.timestamp(), "EndTime": T0.timestamp() + 600, "Statistics": ["Sum"],
        "ExtendedStatistics": ["p99"],
    },
    "GetMetricData": {
        "MetricDataQueries": [{**query(Unit="Microseconds"), "Label": "x", "ReturnData": True, "Expression": None}],
        "StartTime": T0.timestamp(), "EndTime": T0.timestamp() + 600, "ScanBy": "TimestampAscending",
        "MaxDatapoints": 3, "NextToken": None,
    },
    "ListMetrics": {"Namespace": SAGEMAKER, "MetricName": "ModelLatency", "Dimensions": BOTH, "NextToken": None},
}  # fmt: skip
ODD = st.sampled_from([-1, 0, 2**70, 1e300, float("nan"), "", "\ud800", "\n", [{}], [None], {"Name": None}, [[]], True])


def places(value, steps=()):
    """Yield the steps to every value inside a request."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in inner:
        yield (*steps, step)
        yield from places(item, (*steps, step))


@pytest.mark.parametrize("action", WHOLE)
@settings(max_examples=150)
@given(data=st.data())
def test_requests_that_are_wrong_in_a_few_places_are_answered_or_refused(action, data):
    body = copy.deepcopy(WHOLE[action])
    for steps in data.draw(st.lists(st.sampled_from(sorted(places(body), key=str)), max_size=2)):
        owner = body
        try:
            for step in steps[:-1]:
                owner = owner[step]
            owner[steps[-1]] = data.draw(JSON | ODD)
        except (TypeError, KeyError, IndexError):
            pass  # an earlier replacement removed this place
    refusal = None
    try:
        answer = handle(action, body, {"e-000": filled()})
    except ShadowsimError as error:
        refusal = error
    if refusal is None:
        json.dumps(answer, allow_nan=False)
        assert list(misfits(MODEL.operation_model(action).output_shape, answer)) == []
    else:
        assert 400 <= refusal.http_status < 500
        assert str(refusal).isprintable()
