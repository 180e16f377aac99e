"""Checks that every constraint of the model is reported, and nothing else."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest
import regex
from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.aws import contract
from shadowsim.aws.contract import as_time, instance_types, parsed, sentence, violations
from shadowsim.errors import InputError, SerializationError, shown

MODEL = ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker")
CREATE = "CreateInferenceExperiment"


def variant(name: str, instance_type: str = "ml.m5.xlarge") -> dict[str, Any]:
    pool = {"InstanceType": instance_type, "InstanceCount": 2}
    infrastructure = {"InfrastructureType": "RealTimeInference", "RealTimeInferenceConfig": pool}
    return {"ModelName": "model", "VariantName": name, "InfrastructureConfig": infrastructure}


def full_request() -> dict[str, Any]:
    """Every member of the shape, each list with one item at least."""
    types = {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]}
    shadow = {"ShadowModelVariantName": "Shadow-01", "SamplingPercentage": 50}
    return {
        "Name": "bert-v2",
        "Type": "ShadowMode",
        "Schedule": {"StartTime": 1767225600, "EndTime": "2026-01-03T00:00:00Z"},
        "Description": "a new model",
        "RoleArn": "arn:aws:iam::123456789012:role/SageMaker",
        "EndpointName": "bert",
        "ModelVariants": [variant("AllTraffic"), variant("Shadow-01")],
        "DataStorageConfig": {"Destination": "s3://bucket/prefix", "KmsKey": "alias/a", "ContentType": types},
        "ShadowModeConfig": {"SourceModelVariantName": "AllTraffic", "ShadowModelVariants": [shadow]},
        "KmsKey": "alias/b",
        "Tags": [{"Key": "team", "Value": "ml"}],
    }


# One negative case for every constraint of every field, from an independent walk over the shape.

Steps = tuple[str | int, ...]
Change = Callable[[Any], Any]


def nodes(shape: Any, steps: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    yield steps, shape
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            yield from nodes(member, (*steps, name))
    elif shape.type_name == "list":
        yield from nodes(shape.member, (*steps, 0))


def aws_path(steps: Steps) -> str:
    return ".".join(f"{s + 1}.member" if isinstance(s, int) else s[0].lower() + s[1:] for s in steps)


def value_at(request: Any, steps: Steps) -> Any:
    for step in steps:
        request = request[step]
    return request


def changed(steps: Steps, value: Any) -> dict[str, Any]:
    request = full_request()
    value_at(request, steps[:-1])[steps[-1]] = value
    return request


def longer(value: Any, n: int) -> Any:
    return value + "a" * (n - len(value)) if isinstance(value, str) else (value * n)[:n]


def off_pattern(pattern: str) -> str:
    """A string of some 30 characters that the pattern refuses; its length breaks no rule of this request."""
    return next(s for s in ("!" * 30, "a\nb" * 10) if not regex.fullmatch(pattern, s))


def constraint_cases(steps: Steps, shape: Shape) -> Iterator[tuple[Any, str]]:
    value, rules = value_at(full_request(), steps), shape.metadata
    number = shape.type_name == "integer"
    noun = "value" if number else "length"
    if "max" in rules:
        too_much = rules["max"] + 1 if number else longer(value, rules["max"] + 1)
        yield too_much, f"Member must have {noun} less than or equal to {rules['max']}"
    low = rules.get("min", 0 if shape.name == "Percentage" else None)
    if low is not None and (number or low > 0):
        yield low - 1 if number else value[: low - 1], f"Member must have {noun} greater than or equal to {low}"
    if "pattern" in rules:
        yield off_pattern(rules["pattern"]), f"Member must satisfy regular expression pattern: {rules['pattern']}"
    if "enum" in rules:
        yield "nonsense", "Member must satisfy enum value set: ["


WRONG_TYPES: dict[str, list[Any]] = {
    "structure": ["text", [], 1],
    "list": ["text", {}, 1],
    "string": [1, True, [], {}],
    "integer": [2.0, 2.5, "2", True, [2], float("nan"), float("inf")],
    "timestamp": ["yesterday", True, [], float("nan"), float("inf"), 1e300, 10**400, "2026-13-01T00:00:00Z"],
}

INPUT = MODEL.operation_model(CREATE).input_shape
FIELDS = [(steps, shape) for steps, shape in nodes(INPUT) if steps]
NEGATIVES = [
    pytest.param(steps, bad, text, id=f"{aws_path(steps)}-{text[:60]}")
    for steps, shape in FIELDS
    for bad, text in constraint_cases(steps, shape)
]


def test_every_constraint_has_a_negative_case():
    counted = sum(
        len({"max", "pattern", "enum"} & shape.metadata.keys()) + (shape.metadata.get("min", 0) > 0)
        for _, shape in FIELDS
    )
    numbers_with_minimum = 2  # InstanceCount's 0 in the model, SamplingPercentage's 0 in contract.py
    assert len(NEGATIVES) == counted + numbers_with_minimum >= 50


@pytest.mark.parametrize(("steps", "bad", "text"), NEGATIVES)
def test_every_constraint_is_reported_at_its_path(steps, bad, text):
    sentences = violations(CREATE, changed(steps, bad))
    path = aws_path(steps)
    shown_value = str(bad) if isinstance(bad, int | str) and len(str(bad)) < 100 and str(bad).isprintable() else None
    assert [v for v in sentences if text in v]
    assert all(f" at '{path}' failed to satisfy constraint: Member must " in v for v in sentences)
    if shown_value is not None:
        assert all(v.startswith(f"Value '{shown_value}' at ") for v in sentences)


@pytest.mark.parametrize(
    ("steps", "bad"),
    [
        pytest.param(s, bad, id=f"{aws_path(s)}-{bad!r:.20}")
        for s, shape in FIELDS
        for bad in WRONG_TYPES[shape.type_name]
    ],
)
def test_every_wrong_type_is_one_violation_at_its_path(steps, bad):
    (violation,) = violations(CREATE, changed(steps, bad))
    assert f" at '{aws_path(steps)}' failed to satisfy constraint: Member must be a" in violation


@pytest.mark.parametrize("steps", [pytest.param(s, id=aws_path(s)) for s, _ in FIELDS])
def test_a_wrong_type_stops_the_wire_at_its_path(steps):
    shape = next(shape for s, shape in FIELDS if s == steps)
    for bad in WRONG_TYPES[shape.type_name]:
        with pytest.raises(SerializationError, match=rf"^{regex.escape(aws_path(steps))}: Member must be a"):
            parsed(CREATE, changed(steps, bad))


@pytest.mark.parametrize("body", [None, [], "text", 1, True])
def test_what_is_no_object_stops_the_wire(body):
    with pytest.raises(SerializationError, match="request: Member must be an object, not "):
        parsed(CREATE, body)


def test_the_wire_drops_nulls_and_unknown_members_and_reads_times():
    request = full_request() | {"Other": 1, "KmsKey": None}
    request["ModelVariants"][1]["New"] = {}
    request["Tags"].append(None)  # an item of a list is not dropped: the contract refuses it
    before = copy.deepcopy(request)
    expected = full_request()
    del expected["KmsKey"]
    expected["Schedule"] = {"StartTime": 1767225600.0, "EndTime": 1767398400.0}
    expected["Tags"].append(None)
    assert parsed(CREATE, request) == expected
    assert request == before


REQUIRED = [(*steps, name) for steps, shape in nodes(INPUT) for name in shape.metadata.get("required", [])]


@pytest.mark.parametrize("steps", [pytest.param(s, id=aws_path(s)) for s in REQUIRED])
@pytest.mark.parametrize("how", ["absent", "null"])
def test_every_required_member_is_missed(steps, how):
    request = changed(steps, None)
    if how == "absent":
        del value_at(request, steps[:-1])[steps[-1]]
    text = f"Value null at '{aws_path(steps)}' failed to satisfy constraint: Member must not be null"
    assert violations(CREATE, request) == [text]


@pytest.mark.parametrize("steps", [pytest.param(s, id=aws_path(s)) for s, _ in FIELDS])
def test_a_null_where_nothing_is_required_is_not_given(steps):
    parent = next(shape for s, shape in nodes(INPUT) if s == steps[:-1])
    needed = parent.type_name == "list" or steps[-1] in parent.required_members
    assert bool(violations(CREATE, changed(steps, None))) == needed


@pytest.mark.parametrize(
    ("steps", "value"),
    [
        pytest.param(s, v, id=f"{aws_path(s)}-{v!r:.10}")
        for s, shape in FIELDS
        for v in (
            [shape.metadata.get("min", 0), shape.metadata.get("max", 2**31 - 1)]
            if shape.type_name == "integer"
            else [longer(value_at(full_request(), s), shape.metadata["max"])]
            if "max" in shape.metadata
            else []
        )
    ],
)
def test_boundaries_are_inside(steps, value):
    assert violations(CREATE, changed(steps, value)) == []


def test_the_full_request_has_every_member_and_is_valid():
    assert violations(CREATE, full_request()) == []
    for steps, _ in FIELDS:
        value_at(full_request(), steps)


def test_null_is_not_quoted():
    assert sentence(None, "a", "Member must x") == "Value null at 'a' failed to satisfy constraint: Member must x"


def test_the_sentences_are_aws_own():
    request = full_request()
    request["ModelVariants"][0]["ModelName"] = "ENTER MODEL NAME"
    request["RoleArn"] = "nope"
    request["ShadowModeConfig"]["ShadowModelVariants"][0]["SamplingPercentage"] = 250
    del request["EndpointName"]
    assert violations(CREATE, request) == [
        "Value 'nope' at 'roleArn' failed to satisfy constraint: Member must have length greater than or equal to 20",
        "Value 'nope' at 'roleArn' failed to satisfy constraint: Member must satisfy regular expression pattern: "
        r"arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+",
        "Value null at 'endpointName' failed to satisfy constraint: Member must not be null",
        "Value 'ENTER MODEL NAME' at 'modelVariants.1.member.modelName' failed to satisfy constraint: Member must "
        r"satisfy regular expression pattern: [a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?",
        "Value '250' at 'shadowModeConfig.shadowModelVariants.1.member.samplingPercentage' failed to satisfy "
        "constraint: Member must have value less than or equal to 100",
    ]


def test_no_share_is_negative():
    steps = ("ShadowModeConfig", "ShadowModelVariants", 0, "SamplingPercentage")
    (violation,) = violations(CREATE, changed(steps, -1))
    assert violation.startswith("Value '-1' at 'shadowModeConfig.shadowModelVariants.1.member.samplingPercentage' ")
    assert violation.endswith("Member must have value greater than or equal to 0")


def test_integers_have_32_bits():
    steps = ("ModelVariants", 0, "InfrastructureConfig", "RealTimeInferenceConfig", "InstanceCount")
    (violation,) = violations(CREATE, changed(steps, 2**31))
    assert violation.endswith("Member must have value less than or equal to 2147483647")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, None),
        (0.5, None),
        (-0.5, "Member must have value greater than or equal to 0"),
        (float("nan"), "Member must be a finite number, not a float"),
        (float("inf"), "Member must be a finite number, not a float"),
        (True, "Member must be a finite number, not a boolean"),
    ],
)
def test_floats(value, text):
    start = f"Value '{shown(value)}' at 'request' failed to satisfy constraint: "
    assert violations("VariantWeight", value) == ([start + text] if text else [])


@pytest.mark.parametrize(
    ("steps", "value", "valid"),
    [
        (("Name",), "bert-v2\n", False),
        (("Name",), "x bert-v2", False),
        (("Name",), "-bert", False),
        (("Name",), "b--b", True),
        (("RoleArn",), "arn:aws:iam::١٢٣٤٥٦٧٨٩٠١٢:role/SageMaker", False),
        (("RoleArn",), "arn:aws-cn:iam::123456789012:role/service-role/SageMaker", True),
        (("Tags", 0, "Key"), "équipe à nous", True),
        (("Tags", 0, "Key"), "チーム", True),
        (("Tags", 0, "Value"), "", True),
        (("Tags", 0, "Key"), "a#b", False),
        (("Description",), "", True),
        (("Description",), "two\nlines", False),
        (("DataStorageConfig", "Destination"), "gs://bucket", False),
        (("DataStorageConfig", "ContentType", "JsonContentTypes", 0), "x/y+json", False),
    ],
)
def test_patterns_match_in_full_and_as_java_reads_them(steps, value, valid):
    assert (violations(CREATE, changed(steps, value)) == []) == valid


def test_unknown_members_are_named_with_the_nearest_known_one_or_ignored():
    request = full_request() | {"name": "x", "Zzz": {}}
    shadow = request["ShadowModeConfig"]["ShadowModelVariants"][0]
    shadow["SamplingPercent"] = 3
    request[7] = 8
    sentences = violations(CREATE, request)
    assert sentences == [
        "Value '3' at 'shadowModeConfig.shadowModelVariants.1.member.SamplingPercent' failed to satisfy constraint: "
        "Member must be known to ShadowModelVariantConfig; did you mean SamplingPercentage?",
        "Value 'x' at 'name' failed to satisfy constraint: "
        "Member must be known to CreateInferenceExperimentRequest; did you mean Name?",
        "Value '{}' at 'Zzz' failed to satisfy constraint: Member must be known to CreateInferenceExperimentRequest",
        "Value '8' at '7' failed to satisfy constraint: Member must be known to CreateInferenceExperimentRequest",
    ]
    assert violations(CREATE, request, unknown="ignore") == []


def test_a_long_enumeration_is_cut_short_and_names_the_nearest():
    steps = ("ModelVariants", 0, "InfrastructureConfig", "RealTimeInferenceConfig", "InstanceType")
    for misspelt in ("ml.m5.xlrge", "m5.xlarge"):
        (violation,) = violations(CREATE, changed(steps, misspelt))
        assert violation.endswith(f"... {len(instance_types())} in all]; did you mean ml.m5.xlarge?")
        assert len(violation) < 300


@pytest.mark.parametrize(
    ("action", "request_", "bad", "path"),
    [
        ("DescribeInferenceExperiment", {"Name": "a"}, {"Name": "a" * 121 + "-"}, "name"),
        ("DeleteInferenceExperiment", {"Name": "a"}, {}, "name"),
        ("StartInferenceExperiment", {"Name": "a"}, {"Name": "-"}, "name"),
        ("ListInferenceExperiments", {"MaxResults": 100, "SortBy": "Name"}, {"MaxResults": 0}, "maxResults"),
        ("ListInferenceExperiments", {"CreationTimeAfter": 1.5e9}, {"StatusEquals": "Failed"}, "statusEquals"),
        (
            "UpdateInferenceExperiment",
            {"Name": "a", "Description": "b"},
            {"Name": "a", "ModelVariants": []},
            "modelVariants",
        ),
        (
            "StopInferenceExperiment",
            {"Name": "a", "ModelVariantActions": {"Shadow-01": "Promote", "AllTraffic": "Remove"}},
            {"Name": "a", "ModelVariantActions": {}},
            "modelVariantActions",
        ),
        (
            "StopInferenceExperiment",
            {"Name": "a", "ModelVariantActions": {"A": "Retain"}, "DesiredState": "Completed"},
            {"Name": "a", "ModelVariantActions": {"A": "Keep"}},
            "modelVariantActions.A.member",
        ),
    ],
)
def test_the_other_actions(action, request_, bad, path):
    assert violations(action, request_) == []
    sentences = violations(action, bad)
    assert sentences
    assert all(f" at '{path}' failed" in v for v in sentences)


def test_maps():
    actions = {"bad key": None, 3: "Retain", "C": None}
    sentences = violations("StopInferenceExperiment", {"Name": "a", "ModelVariantActions": actions})
    assert sentences == [
        "Value '{bad key=null, 3=Retain, C=null}' at 'modelVariantActions' failed to satisfy constraint: "
        "Member must have length less than or equal to 2",
        "Value 'bad key' at 'modelVariantActions' failed to satisfy constraint: Map keys must satisfy constraint: "
        r"[Member must satisfy regular expression pattern: [a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?]",
        "Value null at 'modelVariantActions.bad key.member' failed to satisfy constraint: Member must not be null",
        "Value '3' at 'modelVariantActions' failed to satisfy constraint: Map keys must satisfy constraint: "
        "[Member must be a string, not an integer]",  # the third entry is one too many, and not looked at
    ]


def test_unions_set_exactly_one_member():
    union = next(n for n in MODEL.shape_names if MODEL.shape_for(n).metadata.get("union"))
    assert any("Member must set exactly one of [" in v for v in violations(union, {}))


def test_an_unknown_action_is_an_input_error():
    with pytest.raises(InputError, match=r"did you mean CreateInferenceExperiment\?"):
        violations("CreateInferenceExperiments", {})


def test_every_type_and_pattern_of_the_model_is_understood():
    types = {MODEL.shape_for(n).type_name for n in MODEL.shape_names}
    assert types <= {"structure", "list", "map", "string", "boolean", "integer", "long", "float", "double", "timestamp"}
    for action in MODEL.operation_names:
        if "InferenceExperiment" in action:
            for _, shape in nodes(MODEL.operation_model(action).input_shape):
                regex.compile(shape.metadata.get("pattern", ""))


def shape_facts(name: str, kind: str, entry: Any, members: Any) -> list[object]:
    """A shape's name, type, rules and member names, in order."""
    rules = [entry.get(key) for key in ("required", "min", "max", "pattern", "enum", "union")]
    return [name, kind, rules, list(members)]


def our_facts(shape: contract.Shape) -> list[object]:
    return shape_facts(shape["shape"], shape["type"], shape, shape.get("members", {}))


def botocore_facts(shape: Any) -> list[object]:
    return shape_facts(shape.name, shape.type_name, shape.metadata, getattr(shape, "members", {}))


def test_the_model_is_read_as_botocore_reads_it():
    """Every shape, every action's input, and every reference, since a reference may add to its shape."""
    for action in MODEL.operation_names:
        assert our_facts(contract._shape(action)) == botocore_facts(MODEL.operation_model(action).input_shape)
    for name in MODEL.shape_names:
        shape, other = contract._shape(name), MODEL.shape_for(name)
        assert our_facts(shape) == botocore_facts(other)
        for key, member in shape.get("members", {}).items():
            assert our_facts(contract._resolved(member, "sagemaker")) == botocore_facts(other.members[key])
        for part in ("member", "key", "value"):
            assert (part in shape) == hasattr(other, part)
            assert part not in shape or our_facts(contract._resolved(shape[part], "sagemaker")) == botocore_facts(
                getattr(other, part)
            )


def test_shapes_that_contain_themselves_end():
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"SubExpressions": [deep]}
    cyclic: dict[str, Any] = {}
    cyclic["SubExpressions"] = [cyclic]
    for request in (deep, cyclic):
        assert any("levels deep" in v for v in violations("SearchExpression", request))


@pytest.mark.parametrize("request_", [None, 1, "text", [], [{}], float("nan"), object(), b"{}"])
def test_what_is_no_object_is_one_violation(request_):
    (violation,) = violations(CREATE, request_)
    assert " at 'request' failed to satisfy constraint: Member must be an object, not " in violation


INSTANT = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        1767270600,
        1767270600.0,
        "2026-01-01T12:30:00Z",
        "2026-01-01T12:30:00",
        "2026-01-01T12:30:00.000+00:00",
        "2026-01-01T18:00:00+05:30",
        "20260101T123000Z",
        "1767270600",
        " 1767270600.0 ",
        "20260101123000",
        "Jan 1 2026 12:30",
        "Thu, 01 Jan 2026 12:30:00 GMT",
        INSTANT,
        INSTANT.replace(tzinfo=None),
        INSTANT.astimezone(timezone(timedelta(hours=-7))),
        pd.Timestamp("2026-01-01 12:30"),
        np.int64(1767270600),
    ],
)
def test_times(value):
    time = as_time(value)
    assert time == INSTANT
    assert type(time) is datetime
    assert time.tzinfo is UTC


@pytest.mark.parametrize(
    "value", ["", "now", "2026-13-01", None, True, {}, float("inf"), 1e20, pd.NaT, "0001-01-01T00:00+09:00"]
)
def test_what_is_no_time(value):
    assert as_time(value) is None


# Nothing crashes

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.datetimes(), st.just(object())
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner), max_leaves=8
)


@given(where=st.sampled_from(FIELDS), value=ANYTHING, key=st.text() | st.integers())
def test_no_object_crashes_it_and_every_violation_is_one_line(where, value, key):
    steps, _ = where
    request = changed(steps, value)
    request[key] = value
    for v in violations(CREATE, request) + violations("StopInferenceExperiment", {"ModelVariantActions": value}):
        assert v.isprintable()
        assert v.startswith("Value ")
        v.encode()


def test_import_is_light_and_needs_nothing_of_the_users(tmp_path):
    private_model = tmp_path / ".aws" / "models" / "sagemaker" / "2099-01-01" / "service-2.json"
    private_model.parent.mkdir(parents=True)
    private_model.write_text("{}")
    heavy = ["botocore", "boto3", "regex", "pandas", "numpy", "numba"]
    code = (
        "import sys, shadowsim.aws.contract as c\n"
        f"assert not set({heavy}) & set(sys.modules), set({heavy}) & set(sys.modules)\n"
        "assert c.violations('DescribeInferenceExperiment', {'Name': 'a'}) == []\n"
        "assert 'boto3' not in sys.modules and 'botocore.session' not in sys.modules\n"
    )
    env = {"HOME": str(tmp_path), "AWS_CONFIG_FILE": "/nonexistent", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_the_request_is_left_alone():
    request = full_request() | {"x": [1]}
    before = copy.deepcopy(request)
    violations(CREATE, request)
    assert request == before
