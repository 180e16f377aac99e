"""Checks that `validate`, Experiment and Scenario accept the requests that boto3 sends and the server accepts."""

import json
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator
from commands import good, refused, run
from hypothesis import given, settings
from hypothesis import strategies as st
from rehearsed_account import (
    DAY,
    MODEL,
    SHADOW,
    SOURCE,
    T0,
    client,
    experiment,
    new_account,
    shadow_mode_config,
    variant,
)

from shadowsim import Experiment, Scenario, ValidationError
from shadowsim.aws.contract import as_time
from shadowsim.errors import SerializationError, ShadowsimError
from shadowsim.server.control.actions import handle

CREATE = MODEL.operation_model("CreateInferenceExperiment")
SERIALIZER = create_serializer("json", include_validation=False)
NOW_S = T0 + 2.0  # of a new account
NOW = datetime.fromtimestamp(NOW_S, UTC)
EAST = timezone(timedelta(hours=5, minutes=30))

# A moment in every form that botocore's parser takes.
FORMS = {
    "integer": int,
    "float": float,
    "fraction": lambda s: s + 0.75,
    "text of an integer": lambda s: str(int(s)),
    "text of a float": lambda s: f"{s:.3f}",
    "datetime": lambda s: datetime.fromtimestamp(s, UTC),
    "datetime elsewhere": lambda s: datetime.fromtimestamp(s, EAST),
    "datetime without a zone": lambda s: datetime.fromtimestamp(s, UTC).replace(tzinfo=None),
    "ISO": lambda s: datetime.fromtimestamp(s, UTC).isoformat(),
    "ISO, Z": lambda s: f"{datetime.fromtimestamp(s, UTC):%Y-%m-%dT%H:%M:%SZ}",
    "ISO, basic": lambda s: f"{datetime.fromtimestamp(s, UTC):%Y%m%dT%H%M%SZ}",
    "ISO elsewhere": lambda s: datetime.fromtimestamp(s, EAST).isoformat(),
    "ISO without a zone": lambda s: datetime.fromtimestamp(s, UTC).replace(tzinfo=None).isoformat(sep=" "),
    "ISO, nanoseconds": lambda s: f"{datetime.fromtimestamp(s, UTC):%Y-%m-%dT%H:%M:%S}.123456789Z",
    "day": lambda s: f"{datetime.fromtimestamp(s, UTC):%Y-%m-%d}",
    "digits of a day, which are seconds": lambda s: f"{datetime.fromtimestamp(s, UTC):%Y%m%d}",
    "digits of a time": lambda s: f"{datetime.fromtimestamp(s, UTC):%Y%m%d%H%M%S}",
    "words": lambda s: f"{datetime.fromtimestamp(s, UTC):%b %d %Y}",
    "words and a time": lambda s: f"{datetime.fromtimestamp(s, UTC):%d %B %Y %H:%M:%S} GMT",
    "mail": lambda s: format_datetime(datetime.fromtimestamp(s, UTC), usegmt=True),
}
NO_TIMES = ["", "soon", "2026-13-01", "1e20", "nan", float("nan"), float("inf"), 1e300, [], {}, True, "2027-W03-5"]


def by_boto3(request):
    """Return whether boto3 sends a request, and the server accepts what it sends."""
    try:
        if ParamValidator().validate(request, CREATE.input_shape).has_errors():
            return False
    except RuntimeError:  # of a time beyond the calendar
        return False
    body = SERIALIZER.serialize_to_request(request, CREATE)["body"]
    account = new_account()
    try:
        handle("CreateInferenceExperiment", body, NOW_S, account.store)
    except (ValidationError, SerializationError):  # botocore takes true for an integer
        return False
    return True


def by_experiment(request, refuse_past=True):
    try:
        Experiment.from_request(request, NOW, refuse_past=refuse_past)
    except ShadowsimError:
        return False
    return True


def by_validate(request):
    text = json.dumps(request, default=lambda time: time.isoformat())
    done = run("validate", "-", "--now", NOW.isoformat(), stdin=text)
    assert done.exit_code in (0, 2)
    return done.exit_code == 0


def by_scenario(request):
    try:
        Scenario.of(request, 10.0)
    except ShadowsimError:
        return False
    return True


def agree(request):
    """Check that all take a request, or none does; return whether they do."""
    accepted = by_boto3(request)
    assert by_experiment(request) == accepted
    if "NaN" not in (text := json.dumps(request, default=str)) and "Infinity" not in text:
        assert by_validate(request) == accepted
    return accepted


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_time_is_botocores(form):
    value = FORMS[form](T0 + 3 * DAY + 3600.0)
    body = SERIALIZER.serialize_to_request({"Schedule": {"StartTime": value}}, CREATE)["body"]
    assert as_time(value).timestamp() == json.loads(body)["Schedule"]["StartTime"]


moments = st.builds(
    lambda days, hours, seconds: NOW_S + days * DAY + hours * 3600.0 + seconds,
    st.sampled_from([-31, -30, -8, -7, -1, 0, 1, 2, 7, 29, 30, 31]),
    st.integers(-1, 1),
    st.integers(-1, 1),
)
times = st.one_of(
    st.builds(lambda form, s: FORMS[form](s), st.sampled_from(sorted(FORMS)), moments), st.sampled_from(NO_TIMES)
)


@settings(max_examples=60)
@given(st.fixed_dictionaries({}, optional={"StartTime": times, "EndTime": times}))
def test_schedules(schedule):
    request = experiment(Schedule=schedule)
    accepted = agree(request)
    if "StartTime" in schedule:  # an EndTime alone counts from the scenario's own clock
        assert by_scenario(request) == by_experiment(request, refuse_past=False)
        assert by_scenario(request) or not accepted


SOME_TEXT = st.sampled_from(["", "a", "a b", "AllTraffic", "x" * 64, "ü", 5, None])
CHANGES = {
    ("Name",): SOME_TEXT,
    ("Type",): st.sampled_from(["ShadowMode", "shadow", ""]),
    ("Description",): st.sampled_from(["", "x" * 1024, "x" * 1025, "line\nline", 1]),
    ("RoleArn",): st.sampled_from(["", "arn:aws:iam::1:role/a", "arn:aws:iam::111122223333:role/a", "x" * 30]),
    ("EndpointName",): st.sampled_from(["live", "", "a_b", 1]),
    ("ModelVariants", 0, "InfrastructureConfig", "RealTimeInferenceConfig", "InstanceCount"): st.sampled_from(
        [-1, 0, 1, 2, 2.0, "2", True, 2**31]
    ),
    ("ModelVariants", 1, "InfrastructureConfig", "RealTimeInferenceConfig", "InstanceType"): st.sampled_from(
        ["ml.inf1.xlarge", "ml.inf2.xlarge", "m5.large", "ml.m5.large", ""]
    ),
    ("ModelVariants", 1, "VariantName"): st.sampled_from([SOURCE, SHADOW, "other", ""]),
    ("ModelVariants",): st.sampled_from([[], [variant(SOURCE, "old")], [variant(SOURCE, "old")] * 3, {}, "x"]),
    ("ShadowModeConfig",): st.sampled_from(
        [shadow_mode_config(p) for p in (-1, 0, 100, 101, 0.5, "5")] + [shadow_mode_config(5, SOURCE), {}]
    ),
    ("DataStorageConfig",): st.sampled_from(
        [{"Destination": d} for d in ("s3://bucket/a", "s3://b/../c", "s3://B", "https://b/c", "http://x", "s3://")]
        + [{"Destination": "https://bucket.s3.amazonaws.com/a", "ContentType": {"CsvContentTypes": []}}, {}]
    ),
    ("Tags",): st.sampled_from(
        [
            [{"Key": "a", "Value": "b"}],
            [{"Key": "aws:a", "Value": "b"}],
            [{"Key": "a", "Value": "b"}] * 2,
            [{"Key": "a"}],
            [{"Key": str(i), "Value": ""} for i in range(51)],
            [],
        ]
    ),
    ("KmsKey",): st.sampled_from(["", "alias/a", "x" * 2049]),
    ("Unknown",): st.just(1),
}


def changed(request, steps, value):
    """Return a copy with a value at its place; None takes the member away."""
    step, *rest = steps
    copy = list(request) if isinstance(request, list) else dict(request)
    if rest:
        copy[step] = changed(copy[step], rest, value)
    elif value is None:
        del copy[step]
    else:
        copy[step] = value
    return copy


def test_the_unchanged_request_is_accepted():
    assert agree(experiment())
    assert by_scenario(experiment())


@pytest.mark.parametrize("steps", CHANGES, ids=lambda steps: ".".join(map(str, steps)))
def test_other_members(steps):
    @settings(max_examples=12)
    @given(CHANGES[steps])
    def check(value):
        request = changed(experiment(), steps, value)
        assert by_scenario(request) == agree(request)

    check()


PAST = {"StartTime": "2020-12-01T00:00:00Z", "EndTime": "2020-12-03T00:00:00Z"}


def test_a_past_schedule_is_refused_by_validate_and_the_server_and_noted_by_scenarios(tmp_path):
    request = experiment(Schedule=PAST)
    line = "Value '2020-12-03T00:00:00Z' at 'schedule.endTime' failed to satisfy constraint: "
    line += "Member must leave the experiment's end later than now, which is 2027-01-15T08:00:02Z"
    with pytest.raises(ValidationError) as caught:
        Experiment.from_request(request, NOW, refuse_past=True)
    assert caught.value.violations == (line,)
    sagemaker = client(new_account())
    with pytest.raises(sagemaker.exceptions.ClientError, match=r"end later than now, which is 2027-01-15T08:00:02Z"):
        sagemaker.create_inference_experiment(**request)
    file = tmp_path / "request.json"
    file.write_text(json.dumps(request))
    done = run("validate", file, "--now", NOW_S)
    assert (done.exit_code, done.stdout) == (2, line + "\n")
    assert "later than now" in run("validate", file).stdout
    assert good("validate", file, "--now", "Dec 2 2020").startswith("valid\n")
    assert refused("validate", file, "--now", "soon") == (
        "--now: must be a time such as 2026-12-01T00:00:00Z, got 'soon'"
    )

    note = "experiment.Schedule: ended at 2020-12-03T00:00:00Z, before now; SageMaker would refuse it."
    scenario = Scenario.of(request, 10.0)
    assert scenario.assumed["experiment.Schedule"] == note
    assert Experiment.from_request(request) == scenario.experiment
    future = {"StartTime": "2099-12-01T00:00:00Z", "EndTime": "2099-12-03T00:00:00Z"}
    assert "experiment.Schedule" not in scenario.replace({"experiment.Schedule": future}).assumed
    text = good("simulate", file, "--rate", 1, "--set", "horizon_s=120", "-q", "-o", tmp_path / "run")
    assert note in " ".join(text.split())

    saved = tmp_path / "scenario.json"
    scenario.save(saved)
    assert Scenario.load(saved) == scenario
    assert "later than now" in run("validate", saved).stdout
    assert good("validate", saved, "--now", "2020-12-02").startswith("valid\n")
