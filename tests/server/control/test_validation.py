"""Breaks every constraint of every field of the seven actions once, and meets each at its edge.

The values come from this module's own walk over botocore's model objects, not from aws/contract.py.
"""

import copy

import pytest
import regex
from rehearsed_account import DAY, MODEL, ROLE, SHADOW, SOURCE, T0, experiment, new_account, shadow_mode_config, variant

from shadowsim.errors import ShadowsimError

SCHEDULE = {"StartTime": T0 + 10 * DAY, "EndTime": T0 + 12 * DAY}
STORAGE = {
    "Destination": "s3://bucket/prefix",
    "KmsKey": "alias/a",
    "ContentType": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
}
# Every member of every shape, lists and maps with at least one item; each request is valid.
FULL = {
    "CreateInferenceExperiment": experiment(
        "next",
        "other",
        Schedule=SCHEDULE,
        Description="a new model",
        DataStorageConfig=STORAGE,
        KmsKey="alias/b",
        Tags=[{"Key": "team", "Value": "ml"}],
    ),
    "DescribeInferenceExperiment": {"Name": "bert"},
    "ListInferenceExperiments": {
        "NameContains": "b",
        "Type": "ShadowMode",
        "StatusEquals": "Created",
        "CreationTimeAfter": T0,
        "CreationTimeBefore": T0 + DAY,
        "LastModifiedTimeAfter": T0,
        "LastModifiedTimeBefore": T0 + DAY,
        "SortBy": "Name",
        "SortOrder": "Ascending",
        "MaxResults": 5,
    },
    "StartInferenceExperiment": {"Name": "bert"},
    "StopInferenceExperiment": {
        "Name": "bert",
        "ModelVariantActions": {SOURCE: "Retain", SHADOW: "Retain"},
        "DesiredModelVariants": [variant(SOURCE, "old"), variant(SHADOW, "new")],
        "DesiredState": "Completed",
        "Reason": "enough",
    },
    "UpdateInferenceExperiment": {
        "Name": "bert",
        "Schedule": SCHEDULE,
        "Description": "changed",
        "ModelVariants": [variant(SOURCE, "old"), variant(SHADOW, "new")],
        "DataStorageConfig": STORAGE,
        "ShadowModeConfig": shadow_mode_config(10),
    },
    "DeleteInferenceExperiment": {"Name": "bert"},
}
# The sentences that may refuse a value that its shape allows: rules across fields, and things that do not exist.
NAMED_RULES = (
    "The account-level service limit",
    "Could not find inference experiment",
    "Could not find model",
    "Member must be a token that ListInferenceExperiments returned",
    "Member must be unique among",
    "Member must be a variant that shadowModeConfig names",
    "Member must differ from sourceModelVariantName",
    "Member must have value greater than or equal to 1, because each variant is deployed",
    "Member must leave exactly one production variant",
    "Member must name a variant of the experiment that is not removed",
    "Member must name an S3 bucket",
    "Member must have parts of at most 255 bytes of UTF-8 in its key",
    "Member must name exactly one of modelVariants",
    "Member must not be an Inf1 type",
    "Member must not be Promote",
    "Member must not change: a variant with a different model needs a different name",
    "Map keys must name the experiment's variants",
)


def nodes(shape, steps=()):
    """Yield every field below a shape and the steps to it; for a list its first item, for a map its first entry."""
    if steps:
        yield steps, shape
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            yield from nodes(member, (*steps, name))
    elif shape.type_name == "list":
        yield from nodes(shape.member, (*steps, 0))
    elif shape.type_name == "map":
        yield from nodes(shape.value, (*steps, SOURCE))


FIELDS = [
    (action, steps, shape)
    for action in FULL
    for steps, shape in nodes(MODEL.operation_model(action).input_shape)
    if steps != ("NextToken",)
]
FIELDS.append(
    (
        "ListInferenceExperiments",
        ("NextToken",),
        MODEL.operation_model("ListInferenceExperiments").input_shape.members["NextToken"],
    )
)


def aws_path(steps):
    return ".".join(
        f"{s + 1}.member" if isinstance(s, int) else f"{s}.member" if s == SOURCE else s[0].lower() + s[1:]
        for s in steps
    )


def value_at(body, steps):
    for step in steps:
        body = body[step]
    return body


def with_value(action, steps, value):
    body = copy.deepcopy(FULL[action])
    value_at(body, steps[:-1])[steps[-1]] = value
    return body


def of_length(shape, n):
    """Return a string of n characters that the shape's pattern allows."""
    begins = ("", "s3://", "s3://bucket/", f"{ROLE}/", "a/")
    candidates = (begin + "a" * (n - len(begin)) for begin in begins if len(begin) <= n)
    pattern = shape.metadata.get("pattern", ".*")
    return next((text for text in candidates if regex.fullmatch(pattern, text)), None)


def resized(value, n):
    """Return a list or map of n items like those of `value`."""
    if isinstance(value, list):
        return [copy.deepcopy(value[i % len(value)]) for i in range(n)]
    keys = [*value, *(f"X{i}" for i in range(n))]
    return {key: value.get(key, "Retain") for key in keys[:n]}


def sized(shape, value, n):
    match shape.type_name:
        case "string":
            return of_length(shape, n) if n > 0 else ""
        case "integer":
            return n
        case _:
            return resized(value, n)


def negatives():
    for action, steps, shape in FIELDS:
        rules = shape.metadata
        value = None if steps == ("NextToken",) else value_at(FULL[action], steps)
        number = shape.type_name == "integer"
        noun = "value" if number else "length"
        low = rules.get("min", 0 if shape.name == "Percentage" else None)
        if "max" in rules:
            too_much = rules["max"] + 1
            bad = "a" * too_much if shape.type_name == "string" else sized(shape, value, too_much)
            yield action, steps, bad, f"Member must have {noun} less than or equal to {rules['max']}"
        if low is not None and (number or low > 0):
            bad = "a" * (low - 1) if shape.type_name == "string" else sized(shape, value, low - 1)
            yield action, steps, bad, f"Member must have {noun} greater than or equal to {low}"
        if "pattern" in rules:
            bad = next(s for s in ("!" * 30, "a\nb" * 10) if not regex.fullmatch(rules["pattern"], s))
            yield action, steps, bad, f"Member must satisfy regular expression pattern: {rules['pattern']}"
        if "enum" in rules:
            yield action, steps, "nonsense", "Member must satisfy enum value set: ["
        if shape.type_name == "structure":
            for name in shape.required_members:
                bad = {key: item for key, item in value.items() if key != name}
                yield action, steps, bad, f"Value null at '{aws_path((*steps, name))}' failed to satisfy constraint"
    for action in FULL:
        for name in MODEL.operation_model(action).input_shape.required_members:
            yield action, (name,), None, f"Value null at '{aws_path((name,))}' failed to satisfy constraint"


def positives():
    for action, steps, shape in FIELDS:
        rules = shape.metadata
        value = None if steps == ("NextToken",) else value_at(FULL[action], steps)
        low = rules.get("min", 0 if shape.name == "Percentage" else None)
        for n in {low, rules.get("max")} - {None}:
            good = sized(shape, value, n)
            if shape.type_name != "string" or (good is not None and regex.fullmatch(rules.get("pattern", ".*"), good)):
                yield action, steps, good
        if shape.type_name == "integer" and "max" not in rules:
            yield action, steps, 2**31 - 1
        yield from ((action, steps, choice) for choice in rules.get("enum", ()))


def name_of(case):
    action, steps, value, *text = case
    return f"{action}-{aws_path(steps)}-{text[0][:40] if text else repr(value)[:20]}"


NEGATIVES, POSITIVES = list(negatives()), list(positives())


@pytest.fixture(scope="module")
def account():
    """Return an account with a Created experiment "bert"; no test changes it."""
    ready = new_account()
    ready.do("CreateInferenceExperiment", **experiment(Schedule=SCHEDULE))
    ready.wait(1)
    return ready


def test_the_cases_are_all_there():
    """There is one negative case per constraint, counted from the shapes in another way."""
    counted = 0
    for _, _, shape in FIELDS:
        rules = shape.metadata
        counted += len({"max", "pattern", "enum"} & rules.keys()) + len(getattr(shape, "required_members", ()))
        counted += "min" in rules and (shape.type_name == "integer" or rules["min"] > 0)
        counted += shape.name == "Percentage"
    counted += sum(len(MODEL.operation_model(action).input_shape.required_members) for action in FULL)
    assert len(NEGATIVES) == counted >= 160
    assert len(POSITIVES) > 900  # three enumerations of all instance types are among them


def test_what_is_full_is_valid(account):
    for action, body in FULL.items():
        fresh = new_account()
        fresh.do("CreateInferenceExperiment", **experiment(Schedule=SCHEDULE))
        fresh.wait(1)
        assert fresh.do(action, **body)


@pytest.mark.parametrize("case", [pytest.param(c, id=name_of(c)) for c in NEGATIVES])
def test_every_constraint_refuses_and_names_the_field(account, case):
    action, steps, bad, text = case
    error = account.refused(action, **with_value(action, steps, bad))
    assert (error.code, error.http_status) == ("ValidationException", 400)
    assert text in str(error)
    path = aws_path(steps)
    assert all(f"at '{path}" in violation for violation in error.violations if "null at" not in violation)


def edges(action, cases):
    """Meet the edges of an action's constraints, each with a fresh account, and return the rules that refused."""
    refused_by = set()
    for _, steps, good in (case for case in cases if case[0] == action):
        fresh = new_account()
        fresh.do("CreateInferenceExperiment", **experiment(Schedule=SCHEDULE))
        fresh.wait(1)
        try:
            fresh.do(action, **with_value(action, steps, good))
        except ShadowsimError as error:
            sentences = getattr(error, "violations", [str(error)])
            named = {next((rule for rule in NAMED_RULES if rule in sentence), sentence) for sentence in sentences}
            assert named <= set(NAMED_RULES), (steps, good)
            refused_by |= named
        fresh.store.close()
    return refused_by


@pytest.mark.parametrize("action", FULL)
def test_every_edge_is_accepted_but_for_a_named_rule(action):
    types = [i for i, case in enumerate(POSITIVES) if case[1][-1] == "InstanceType"]
    chosen = set(types[::23]) | {i for i, case in enumerate(POSITIVES) if case[2] == "ml.inf1.xlarge"}
    refused_by = edges(action, [case for i, case in enumerate(POSITIVES) if i not in types or i in chosen])
    if action == "CreateInferenceExperiment":
        assert "Member must not be an Inf1 type" in refused_by


@pytest.mark.slow
@pytest.mark.parametrize("action", FULL)
def test_every_edge_and_every_instance_type_is_accepted_but_for_a_named_rule(action):
    edges(action, POSITIVES)
