"""Checks the catalogue, errors for unknown types, and the description of an experiment."""

from __future__ import annotations

import csv
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shadowsim.aws import instances
from shadowsim.aws.contract import instance_types
from shadowsim.aws.experiment import Experiment
from shadowsim.aws.instances import InstanceType, catalogue, duration_text, experiment_text, lookup, matching_types
from shadowsim.errors import InputError

CSV = Path(instances.__file__).with_name("instances.csv")
START = "2026-01-01T00:00:00Z"


def experiment(source: str, shadow: str, **more: Any) -> Experiment:
    def variant(name: str, instance_type: str, count: int) -> dict[str, Any]:
        pool = {"InstanceType": instance_type, "InstanceCount": count}
        infrastructure = {"InfrastructureType": "RealTimeInference", "RealTimeInferenceConfig": pool}
        return {"ModelName": f"model-{name}", "VariantName": name, "InfrastructureConfig": infrastructure}

    shadows = [{"ShadowModelVariantName": "New", "SamplingPercentage": 25}]
    request = {
        "Name": "bert-v2",
        "Type": "ShadowMode",
        "RoleArn": "arn:aws:iam::123456789012:role/SageMaker",
        "EndpointName": "bert",
        "ModelVariants": [variant("Old", source, 4), variant("New", shadow, 2)],
        "ShadowModeConfig": {"SourceModelVariantName": "Old", "ShadowModelVariants": shadows},
    }
    return Experiment.from_request(request | more, now=datetime(2026, 1, 1, tzinfo=UTC))


def described(e: Experiment) -> dict[str, str]:
    lines = experiment_text(e).splitlines()
    return {line[:16].strip(): line[16:] for line in lines}


def test_every_row_of_the_file_is_a_type():
    with CSV.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert list(catalogue()) == [row["instance_type"] for row in rows]
    assert len(catalogue()) == len(rows) == 271
    for row in rows:
        t = catalogue()[row["instance_type"]]
        texts = (row["price_usd_per_h"], row["accelerator"], row["accelerator_memory_gib"], row["source"], row["as_of"])
        values = (t.price_usd_per_h, t.accelerator, t.accelerator_memory_gib, t.source, t.as_of)
        assert values == tuple(float(v) if k in (0, 2) and v else v or None for k, v in enumerate(texts))
        assert (t.price_usd_per_h is None) == (t.price_as_of is None) == ("price[" not in t.source)
        assert t.source
        assert t.as_of.startswith("spec ")
        assert t.vcpus > 0
        assert t.memory_gib > 0
        assert (t.accelerator is None) == (t.accelerator_count == 0)
    assert sum(t.price_usd_per_h is not None for t in catalogue().values()) == 59


def test_known_figures():
    m5 = lookup("ml.m5.xlarge")
    assert (m5.vcpus, m5.memory_gib, m5.accelerator, m5.accelerator_count, m5.workers) == (4, 16.0, None, 0, 4)
    g5 = lookup("ml.g5.12xlarge")
    assert (g5.accelerator, g5.accelerator_count, g5.vcpus, g5.workers) == ("NVIDIA A10G", 4, 48, 4)
    assert lookup("ml.t2.medium").price_usd_per_h == 0.056
    assert lookup("ml.t2.medium").price_as_of == "2023-10"
    assert lookup("ml.t2.large").price_usd_per_h is None


@pytest.mark.filterwarnings("default")
def test_the_catalogue_and_botocore_are_compared():
    """Reported, not failed: what botocore knows depends on its version."""
    known = set(instance_types())
    for where, names in [
        ("botocore", known - set(catalogue())),
        ("instances.csv", set(catalogue()) - known),
    ]:
        if names:
            warnings.warn(f"only {where} knows {', '.join(sorted(names))}", stacklevel=1)
    assert known & set(catalogue())


@pytest.mark.parametrize(
    ("name", "meant"),
    [("ml.m5.xlrge", "ml.m5.xlarge"), ("m5.xlarge", "ml.m5.xlarge"), ("ml.g5.12xlage", "ml.g5.12xlarge")],
)
def test_a_miss_names_the_nearest_type(name, meant):
    with pytest.raises(InputError) as caught:
        lookup(name)
    assert str(caught.value) == f"instance_type: {name} is not a SageMaker hosting type; did you mean {meant}?"


@pytest.mark.parametrize("name", ["", "zzzzzz", "\x1b[31m", "ml." * 1000])
def test_a_miss_near_nothing_is_one_line(name):
    with pytest.raises(InputError, match="is not a SageMaker hosting type") as caught:
        lookup(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


def test_a_type_that_only_botocore_knows_is_valid_and_unknown(monkeypatch):
    monkeypatch.setattr(instances, "instance_types", lambda: ("ml.m5.xlarge", "ml.z9.xlarge"))
    t = lookup("ml.z9.xlarge")
    assert t == InstanceType("ml.z9.xlarge")
    assert (t.workers, t.price_usd_per_h, t.price_as_of) == (None, None, None)
    assert t in matching_types("ml.z9*")
    assert [t.vcpus for t in (lookup("ml.m5.xlarge"), *matching_types("ml.m5.xlarge"))] == [4, 4]


def test_every_type_that_botocore_knows_can_be_looked_up():
    assert {lookup(name).name for name in instance_types()} == set(instance_types())


def test_matching_is_sorted_by_family_and_size():
    sizes = ["xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge", "48xlarge"]
    assert [t.name for t in matching_types("ml.g5*")] == [f"ml.g5.{size}" for size in sizes]
    assert [t.name for t in matching_types("ML.G5*")] == [t.name for t in matching_types("ml.g5*")]
    assert [t.name for t in matching_types("ml.m8g.*")][:4] == [
        f"ml.m8g.{s}" for s in ("medium", "large", "xlarge", "2xlarge")
    ]
    families = list(dict.fromkeys(t.name.split(".")[1] for t in matching_types("ml.[cg]*")))
    order = ["c4", "c5", "c5d", "c6g", "c6gd", "c6gn", "c6i", "c6in", "c7g", "c7i", "c8g", "g4dn", "g5", "g6", "g6e"]
    assert [family for family in families if family in order] == order
    assert {t.name for t in matching_types("*")} == set(catalogue()) | set(instance_types())


@pytest.mark.parametrize(
    ("pattern", "family"),
    [
        ("ml.g55*", "ml.g5.*"),
        ("m5.*", "ml.m5.*"),
        ("ml.p4dd.24xlarge", "ml.p4d.*"),
        ("ml.m5.3xlarge", "ml.m5.*"),
    ],
)
def test_an_empty_match_names_the_nearest_family(pattern, family):
    with pytest.raises(InputError, match="must match a SageMaker hosting type") as caught:
        matching_types(pattern)
    assert f"; did you mean {family}?" in str(caught.value)


def test_the_description_is_one_screen_with_the_cost():
    types = {"JsonContentTypes": ["application/json"]}
    e = experiment(
        "ml.m5.xlarge",
        "ml.g5.xlarge",
        Schedule={"StartTime": START, "EndTime": "2026-01-03T02:30:00Z"},
        Description="a new\x1b model",
        DataStorageConfig={"Destination": "s3://bucket/prefix", "ContentType": types},
        Tags=[{"Key": "team", "Value": "ml"}],
    )
    text = described(e)
    assert text["experiment"] == "bert-v2 (ShadowMode)"
    assert text["description"] == r"a new\x1b model"
    assert text["source"] == "Old: model model-Old on 4 x ml.m5.xlarge"
    assert text["shadow"] == "New: model model-New on 2 x ml.g5.xlarge"
    assert text["share"].startswith("25 %")
    assert text["schedule"] == "from 2026-01-01T00:00:00Z to 2026-01-03T02:30:00Z: 2 days 2 h 30 min"
    assert text["storage"] == "s3://bucket/prefix; JSON: application/json; all else in base64"
    assert text["tags"] == "team=ml"
    assert text["instance-hours"] == "202.0 source + 101.0 shadow = 303.0"
    m5, g5 = lookup("ml.m5.xlarge"), lookup("ml.g5.xlarge")
    source, shadow = 202 * m5.price_usd_per_h, 101 * g5.price_usd_per_h
    assert text["cost of source"].startswith(f"{source:,.2f} USD at {m5.price_usd_per_h:g} USD per hour")
    assert text["cost of shadow"].endswith(f"an example of {g5.price_as_of}")
    assert text["total cost"].startswith(f"{source + shadow:,.2f} USD")
    assert len(text) < 24
    assert all(len(line) <= 140 for line in experiment_text(e).splitlines())


def test_a_price_that_is_not_known_is_said_to_be_unknown():
    e = experiment("ml.m5.xlarge", "ml.t2.large")
    text = described(e)
    assert text["cost of shadow"] == "unknown: there is no price for ml.t2.large"
    assert text["total cost"] == "unknown"
    assert "USD" in text["cost of source"]


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        ({}, "from its creation, for SageMaker's default of 7 days"),
        ({"StartTime": START}, "from 2026-01-01T00:00:00Z, for SageMaker's default of 7 days"),
        ({"EndTime": "2026-01-02T00:00:00Z"}, "from its creation to 2026-01-02T00:00:00Z: 1 day, counted from now"),
    ],
)
def test_the_schedule_tells_given_from_default(schedule, text):
    assert described(experiment("ml.m5.large", "ml.m5.large", Schedule=schedule))["schedule"] == text


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0, "0 s"),
        (59.6, "1 min"),
        (3600, "1 h"),
        (86400, "1 day"),
        (604800, "7 days"),
        (183661.2, "2 days 3 h 1 min 1 s"),
    ],
)
def test_durations_in_words(duration_s, text):
    assert duration_text(duration_s) == text


def test_the_catalogue_cannot_be_changed():
    with pytest.raises(TypeError):
        catalogue()["ml.m5.xlarge"] = lookup("ml.m5.large")  # type: ignore[index]


def test_import_and_a_hit_are_light():
    heavy = ["botocore", "boto3", "regex", "pandas", "numpy", "numba"]
    code = (
        f"import sys, shadowsim.aws.instances as i; i.lookup('ml.m5.large'); print(*(set({heavy}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
