"""Checks that only valid requests become experiments, and that `to_request` gives them back."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.serialize import create_serializer
from botocore.stub import Stubber
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowsim.aws.experiment import DataStorage, Experiment, InstancePool, Schedule, Variant
from shadowsim.errors import InputError, SerializationError, ValidationError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
START, END = "2026-01-01T06:00:00Z", "2026-01-03T06:00:00Z"
CREATE = ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker").operation_model(
    "CreateInferenceExperiment"
)


def variant(name: str, instance_type: str = "ml.m5.xlarge", count: int = 2) -> dict[str, Any]:
    pool = {"InstanceType": instance_type, "InstanceCount": count}
    infrastructure = {"InfrastructureType": "RealTimeInference", "RealTimeInferenceConfig": pool}
    return {"ModelName": f"model-of-{name}", "VariantName": name, "InfrastructureConfig": infrastructure}


def small(**more: Any) -> dict[str, Any]:
    """The required members, and `more`."""
    shadow = {"ShadowModelVariantName": "Shadow-01", "SamplingPercentage": 50}
    return {
        "Name": "bert-v2",
        "Type": "ShadowMode",
        "RoleArn": "arn:aws:iam::123456789012:role/SageMaker",
        "EndpointName": "bert",
        "ModelVariants": [variant("AllTraffic", count=4), variant("Shadow-01")],
        "ShadowModeConfig": {"SourceModelVariantName": "AllTraffic", "ShadowModelVariants": [shadow]},
    } | more


def full() -> dict[str, Any]:
    types = {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json", "application/jsonlines"]}
    return small(
        Schedule={"StartTime": START, "EndTime": END},
        Description="a new model",
        DataStorageConfig={"Destination": "s3://bucket/prefix", "KmsKey": "alias/a", "ContentType": types},
        KmsKey="alias/b",
        Tags=[{"Key": "team", "Value": "ml"}, {"Key": "cost center", "Value": ""}],
    )


def read(request: Any, now: datetime = NOW) -> Experiment:
    return Experiment.from_request(request, now=now)


def broken(request: Any, now: datetime = NOW) -> list[tuple[str, str]]:
    """The violations of a request as (path, constraint)."""
    with pytest.raises(ValidationError) as caught:
        read(request, now)
    parts = [v.split("' failed to satisfy constraint: Member must ", 1) for v in caught.value.violations]
    return [(path.rpartition(" at '")[2], constraint) for path, constraint in parts]


def test_every_part_is_read():
    e = read(full())
    assert (e.name, e.type, e.endpoint_name) == ("bert-v2", "ShadowMode", "bert")
    assert e.role_arn == "arn:aws:iam::123456789012:role/SageMaker"
    assert e.source == Variant("AllTraffic", "model-of-AllTraffic", InstancePool("ml.m5.xlarge", 4))
    assert e.shadow == Variant("Shadow-01", "model-of-Shadow-01", InstancePool("ml.m5.xlarge", 2))
    assert e.sampling_percentage == 50
    assert e.schedule == Schedule(NOW + 6 * HOUR, NOW + 2 * DAY + 6 * HOUR)
    types = (("text/csv",), ("application/json", "application/jsonlines"))
    assert e.storage == DataStorage("s3://bucket/prefix", "alias/a", *types)
    assert (e.description, e.kms_key) == ("a new model", "alias/b")
    assert e.tags == (("team", "ml"), ("cost center", ""))


def test_the_source_is_the_variant_that_is_named_not_the_first():
    request = small(ModelVariants=[variant("Shadow-01"), variant("AllTraffic")])
    e = read(request)
    assert (e.source.name, e.shadow.name) == ("AllTraffic", "Shadow-01")
    assert e == read(small(ModelVariants=[variant("AllTraffic"), variant("Shadow-01")]))


def test_what_is_not_given_is_absent():
    e = read(small())
    assert (e.schedule, e.storage, e.description, e.kms_key, e.tags) == (Schedule(), None, None, None, ())
    assert e.to_request() == small()
    nothing = {"Schedule": {}, "Description": None, "Tags": [], "DataStorageConfig": None, "KmsKey": None}
    assert read(small(**nothing)) == e


def test_frozen_hashable_picklable():
    e = read(full())
    assert hash(e) == hash(read(full(), NOW + DAY))
    assert pickle.loads(pickle.dumps(e)) == e
    with pytest.raises(FrozenInstanceError):
        e.name = "other"  # type: ignore[misc]


def test_every_source_gives_the_same_experiment(tmp_path):
    path = tmp_path / "request.json"
    path.write_text(json.dumps(full()))
    times = {"StartTime": NOW + 6 * HOUR, "EndTime": (NOW + 2 * DAY + 6 * HOUR).replace(tzinfo=None)}
    epoch = {"StartTime": 1767247200, "EndTime": 1767420000.0}
    sources = [full(), json.dumps(full()), path, str(path), full() | {"Schedule": times}, full() | {"Schedule": epoch}]
    assert {read(source) for source in sources} == {read(full())}


# to_request


REQUESTS = {
    "full": full(),
    "small": small(),
    "start alone": small(Schedule={"StartTime": START}),
    "end alone": small(Schedule={"EndTime": END}),
    "datetimes": small(Schedule={"StartTime": NOW, "EndTime": NOW + 1.5 * DAY}),
    "microseconds": small(Schedule={"StartTime": "2026-01-01T00:00:00.000001Z"}),
    "no content types": small(DataStorageConfig={"Destination": "https://bucket.s3.amazonaws.com/c"}),
    "empty description": small(Description=""),
    "one instance": small(ModelVariants=[variant("AllTraffic", count=1), variant("Shadow-01", "ml.inf2.xlarge")]),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_round_trip_and_boto3_takes_it_unchanged(name):
    e = read(REQUESTS[name])
    request = e.to_request()
    assert read(request) == e
    assert read(json.dumps(request)) == e
    assert not ParamValidator().validate(request, CREATE.input_shape).has_errors()
    client = boto3.client("sagemaker", region_name="eu-west-1", aws_access_key_id="test", aws_secret_access_key="test")
    with Stubber(client) as stub:
        arn = "arn:aws:sagemaker:eu-west-1:123456789012:inference-experiment/bert-v2"
        stub.add_response("create_inference_experiment", {"InferenceExperimentArn": arn}, request)
        client.create_inference_experiment(**request)


def test_to_request_gives_back_what_was_given():
    assert read(full()).to_request() == full()


def test_boto3_puts_the_same_instants_on_the_wire():
    body = create_serializer("json").serialize_to_request(read(full()).to_request(), CREATE)["body"]
    assert json.loads(body)["Schedule"] == {"StartTime": 1767247200, "EndTime": 1767420000}
    assert read(body) == read(full())


# Schedule


@pytest.mark.parametrize(
    ("schedule", "start", "duration"),
    [
        (None, NOW, 7 * DAY),
        ({}, NOW, 7 * DAY),
        ({"StartTime": START}, NOW + 6 * HOUR, 7 * DAY),
        ({"EndTime": END}, NOW, 2 * DAY + 6 * HOUR),
        ({"StartTime": START, "EndTime": END}, NOW + 6 * HOUR, 2 * DAY),
        (
            {"StartTime": "2020-01-01T00:00:00", "EndTime": "2020-01-01T01:00:00"},
            datetime(2020, 1, 1, tzinfo=UTC),
            HOUR,
        ),
        ({"StartTime": NOW, "EndTime": NOW + 30 * DAY}, NOW, 30 * DAY),
        ({"EndTime": NOW + HOUR}, NOW, HOUR),
    ],
)
def test_what_the_schedule_leaves_out_is_sagemakers(schedule, start, duration):
    e = read(small(Schedule=schedule))
    assert e.window() == (start, start + duration)
    assert e.duration_s == duration.total_seconds()
    assert (e.schedule.start is not None) == bool(schedule and "StartTime" in schedule)


@pytest.mark.parametrize("schedule", [None, {"EndTime": END}, {"StartTime": START}])
def test_the_same_request_is_the_same_experiment_tomorrow(schedule):
    today, tomorrow = (read(small(Schedule=schedule), now) for now in (NOW, NOW + DAY))
    assert today == tomorrow
    assert hash(today) == hash(tomorrow)
    assert today.window(NOW + DAY) == tomorrow.window()


def test_a_pickled_experiment_keeps_its_duration():
    e = read(small(Schedule={"EndTime": END}))
    assert pickle.loads(pickle.dumps(e)).duration_s == e.duration_s == 54 * 3600


def test_the_wall_clock_is_now_by_default():
    before = datetime.now(UTC)
    start, end = Experiment.from_request(small()).window()
    assert before <= start <= datetime.now(UTC)
    assert end - start == 7 * DAY


def test_now_must_be_a_time():
    with pytest.raises(TypeError, match="now must be a datetime"):
        Experiment.from_request(small(), now="noon")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schedule", "path", "constraint"),
    [
        ({"StartTime": END, "EndTime": START}, "schedule.endTime", "be later than startTime"),
        ({"StartTime": START, "EndTime": START}, "schedule.endTime", "be later than startTime"),
        (
            {"StartTime": NOW, "EndTime": NOW + HOUR - timedelta(seconds=1)},
            "schedule.endTime",
            "be at least 1 hour later",
        ),
        (
            {"StartTime": NOW, "EndTime": NOW + 30 * DAY + timedelta(seconds=1)},
            "schedule.endTime",
            "be at most 30 days",
        ),
        ({"EndTime": NOW - DAY}, "schedule.endTime", "be later than the start, which without startTime is now"),
        ({"EndTime": NOW + HOUR / 2}, "schedule.endTime", "be at least 1 hour later than the start, which"),
        ({"EndTime": NOW + 31 * DAY}, "schedule.endTime", "be at most 30 days later than the start, which"),
        ({"StartTime": "9999-12-30T00:00:00Z"}, "schedule.startTime", "leave 7 days before the calendar ends"),
    ],
)
def test_schedules_that_cannot_be(schedule, path, constraint):
    ((place, sentence),) = broken(small(Schedule=schedule))
    assert place == path
    assert sentence.startswith(constraint)


def test_a_time_that_is_none_is_reported_once():
    assert [w for w, _ in broken(small(Schedule={"StartTime": "soon", "EndTime": NOW - DAY}))] == ["schedule.startTime"]


# Names, tags, types


def names(source: str = "A", shadow: str = "B", variants: tuple[str, ...] = ("A", "B")) -> dict[str, Any]:
    request = small(ModelVariants=[variant(name) for name in variants])
    shadows = [{"ShadowModelVariantName": shadow, "SamplingPercentage": 10}]
    return request | {"ShadowModeConfig": {"SourceModelVariantName": source, "ShadowModelVariants": shadows}}


SOURCE = "shadowModeConfig.sourceModelVariantName"
SHADOW = "shadowModeConfig.shadowModelVariants.1.member.shadowModelVariantName"
UNIQUE = ("modelVariants.2.member.variantName", "be unique among the variants' names")
DIFFER = (SHADOW, "differ from sourceModelVariantName")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (names(source="C"), [(SOURCE, "name exactly one of modelVariants [A, B]")]),
        (names(shadow="b"), [(SHADOW, "name exactly one of modelVariants [A, B]")]),
        (names(shadow="A"), [DIFFER]),
        (names(shadow="A", variants=("A",)), [DIFFER]),
        (names(variants=("A",)), [(SHADOW, "name exactly one of modelVariants [A]")]),
        (names(shadow="A", variants=("A", "A")), [UNIQUE, DIFFER]),
        (names(variants=("A", "A")), [UNIQUE, (SHADOW, "name exactly one of modelVariants [A, A]")]),
    ],
)
def test_the_variants_rules(request_, expected):
    assert broken(request_) == expected


def test_a_rule_that_cannot_be_evaluated_is_silent():
    request = names(source="C")
    del request["ModelVariants"][1]["VariantName"]
    assert [w for w, _ in broken(request)] == ["modelVariants.2.member.variantName"]
    request["ModelVariants"] = "A, B"
    assert [w for w, _ in broken(request)] == ["modelVariants"]


def test_tag_keys_are_unique():
    tags = [{"Key": k, "Value": "v"} for k in ("a", "b", "A", "a", "b")]
    unique = "be unique among the tags' keys"
    assert broken(small(Tags=tags)) == [("tags.4.member.key", unique), ("tags.5.member.key", unique)]


def test_inf1_is_refused_and_inf2_is_not():
    request = small(ModelVariants=[variant("AllTraffic"), variant("Shadow-01", "ml.inf1.xlarge")])
    path = "modelVariants.2.member.infrastructureConfig.realTimeInferenceConfig.instanceType"
    assert broken(request) == [(path, "not be an Inf1 type, which shadow tests exclude")]
    read(small(ModelVariants=[variant("AllTraffic"), variant("Shadow-01", "ml.inf2.xlarge")]))


def test_all_rules_and_the_shape_at_once():
    tags = [{"Key": "a", "Value": "v"}] * 2
    request = names(shadow="A", source="A", variants=("A", "A")) | {"Tags": tags, "Schedule": {"EndTime": 5}}
    pool = request["ModelVariants"][0]["InfrastructureConfig"]["RealTimeInferenceConfig"]
    pool |= {"InstanceType": "ml.inf1.xlarge", "InstanceCount": -1}
    request |= {"RoleArn": "nope", "Nome": 1}
    pool_path = "modelVariants.1.member.infrastructureConfig.realTimeInferenceConfig"
    assert [where for where, _ in broken(request)] == [
        "roleArn",
        "roleArn",
        f"{pool_path}.instanceCount",
        "Nome",
        UNIQUE[0],
        SHADOW,
        f"{pool_path}.instanceType",
        "schedule.endTime",
        "tags.2.member.key",
    ]


def test_five_violations_are_five():
    request = small(Name="-", Type="Shadow", Description=5)
    request["ShadowModeConfig"]["ShadowModelVariants"][0]["SamplingPercentage"] = 101
    del request["EndpointName"]
    with pytest.raises(ValidationError, match=r"^5 validation errors detected: Value '-' at 'name' failed") as caught:
        read(request)
    assert len(caught.value.violations) == 5
    assert caught.value.code == "ValidationException"


def test_nothing_is_only_what_is_required():
    assert [where for where, _ in broken({})] == [
        "name",
        "type",
        "roleArn",
        "endpointName",
        "modelVariants",
        "shadowModeConfig",
    ]


# Whatever is given


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, steps: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    here = [steps] if steps else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return here + [place for key, inner in items for place in places(inner, (*steps, key))]


@given(JSON.filter(lambda value: not isinstance(value, str)))
@settings(deadline=None)
def test_arbitrary_json_is_refused_in_words(value):
    with pytest.raises((ValidationError, SerializationError)):
        read(value)


@given(st.text())
@settings(deadline=None)
def test_arbitrary_text_is_refused_in_words(text):
    with pytest.raises((ValidationError, SerializationError, InputError)):
        read(text)


@given(place=st.sampled_from(places(full())), value=JSON | st.sampled_from(["A", "Shadow-01", 0, 1767247200, [], ""]))
@settings(max_examples=400, deadline=None)
def test_a_full_request_with_one_arbitrary_part_is_valid_and_round_trips_or_is_refused(place, value):
    request = copy.deepcopy(full())
    inner = request
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    try:
        e = read(request)
    except ValidationError:
        return
    assert read(e.to_request()) == e
    assert not ParamValidator().validate(e.to_request(), CREATE.input_shape).has_errors()


def test_import_is_light():
    heavy = ["botocore", "boto3", "regex", "pandas", "numpy", "numba", "aiohttp", "plotly"]
    code = f"import sys, shadowsim.aws.experiment; print(*(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
