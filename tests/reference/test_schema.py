"""The schema of a scenario says what the reader says: both refuse the same, but for rules across keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from itertools import islice
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from schema_checks import faults, validator

from shadowsim import Scenario, ShadowsimError, default_scenario, scenario_schema
from shadowsim.aws.contract import instance_types
from shadowsim.aws.instances import matching_types
from shadowsim.reference.schema import ACROSS_KEYS
from shadowsim.scenario.paths import edited, value_at

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "scenarios").glob("*.json"))
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 0.5, 23.75, 1e9, 2**40, 2**70, "x", "", "5ms", "5 parsecs", "auto", "none"),
    *([], [1], [2, 1], ["x"], [None], {}, {"x": 1}),
]
UNKNOWN = "surprise"

# What the reader refuses and a schema cannot say: by the sentence that says so, what the reader's errors look like.
BY_THE_READER = {
    0: [r"must be an integer from .* got (1e\+?09|1000000000\.0)", r"must be a finite number"],
    1: [r"must be a finite number [<>].*got '5ms'", r"must be a finite number [<>].*got '"],
    2: [
        r"must rise:", r"must be 0: the first step", r"where the step before begins", r"must be a finite number > ",
        r"must be a finite number >= ", r"must be at least `m", r"must be an integer from \d+ to",
    ],
    3: [
        r"error_4xx \+ error_5xx", r"base_s \+ per_sequence_s", r"must have an scv", r"must have a finite mean",
        r"must have a mean", r"must have a number > 0 among", r"windows", r"requests in a window", r"workers",
        r"outages", r"jumps", r"must hold all tokens", r"must be a mean that", r"must have a rate > 0",
    ],
    4: [r"at most one factor", r"one for each of", r"must be after the end", r"must differ from the pairs"],
    5: [r"is not a variant", r"every variant needs a service", r"is not a known key; did you mean (AllTraffic|Shadow)",
        r"is not a known key; known are (AllTraffic|Source)"],
    6: [r"is required, since neither", r"InstanceCount", r"must name instances", r"at most one factor for each"],
    7: [
        r"needs trace traffic", r"the trace has no column", r"there is no file", r"no column of", r"has no rows",
        r"no column", r"must be a file", r"cannot be read", r"does not fit|strptime|must be s, ms", r"trace column",
        r"no time|not a time|hold no times|rows? .*time", r"needs the column to use", r"must be 1 for a trace",
        r"span_s|time_column|time_unit|count_column",
    ],
    8: [r"needs traffic\.sessions", r"needs traffic\.request_bytes", r"needs a service with `tokens`",
        r"warmup_s: must be (at most|a number of seconds)|needs at least \d+ windows"],
    9: [r"must be the same in every block"],
    10: [r"^Value ", r"validation error"],
    11: [],
}  # fmt: skip


def documents() -> Iterator[tuple[str, dict[str, object]]]:
    """Yield scenarios that have every key between them, each with the block that is of interest."""
    base = default_scenario().to_dict()
    base["run"] = {"horizon_s": 600}
    for file in GOLDEN:
        document = json.loads(file.read_text())
        for block in document:
            yield block, document
    yield (
        "experiment",
        edited(
            base | {"traffic": {"process": "poisson", "rate_per_s": 5}},
            "experiment",
            base["experiment"]
            | {"Description": "d", "Schedule": {"StartTime": "2030-01-01T00:00:00Z", "EndTime": 1893628800}}
            | {
                "DataStorageConfig": {
                    "Destination": "s3://bucket/x",
                    "ContentType": {"JsonContentTypes": ["text/json"]},
                }
            }
            | {"Tags": [{"Key": "team", "Value": "x"}], "KmsKey": "key"},
        ),
    )
    for path, example in examples():
        yield path, with_example(base, path, example)
    full = {"warmup_s": "1min", "precision": {"relative": 0.1}, "replications": 2}
    yield "run", base | {"traffic": {"process": "poisson", "rate_per_s": 5}, "run": {"horizon_s": "1h", **full}}
    yield "endpoint", base | {"endpoint": {"routing": {"Shadow-01": "RANDOM"}, "overhead_s": "1ms"}}
    traffic = {"process": "poisson", "rate_per_s": 5, "request_bytes": 10, "sessions": 4}
    yield "mirror", base | {"traffic": traffic, "mirror": {"rule": "hash", "max_body_bytes": 5, "max_per_s": 3}}
    types = {"ml.g5.xlarge": {"time": 1, "workers": 1}, "ml.m5.xlarge": {"time": 2, "cpu_per_request_s": None}}
    yield "services", edited(base, "services.Shadow-01.by_instance_type", types)


def examples() -> Iterator[tuple[str, object]]:
    """Yield each example of the schema, with the path that it stands at."""
    schema = scenario_schema()
    seen = []

    def walk(node: object, path: str) -> Iterator[tuple[str, object]]:
        if not isinstance(node, dict):
            return
        for example in node.get("examples", ()):
            if (path, example) not in seen:
                seen.append((path, example))
                yield path, example
        name = node.get("$ref", "").removeprefix("#/$defs/")
        if name.startswith(("law_", "service", "traffic")) and not path.startswith("traffic.0"):
            yield from walk(schema["$defs"][name], path)
        for part in (*node.get("anyOf", ()), *node.get("allOf", ()), node.get("then")):
            yield from walk(part, path)
        for key, inner in node.get("properties", {}).items():
            if key != "by_instance_type":  # whose blocks are services, too
                yield from walk(inner, f"{path}.{key}" if path else key)
        yield from walk(node.get("items"), f"{path}.0")
        yield from walk(node.get("additionalProperties"), f"{path}.*")

    yield from walk(schema, "")


def with_example(base: dict[str, object], path: str, example: object) -> dict[str, object]:
    """Return a scenario that has an example at its place."""
    document = deepcopy(base)
    trace = {"process": "trace", "path": "builtin:trace_small"}
    document["traffic"] = {"process": "poisson", "rate_per_s": 5}
    path = path.replace("services.*", "services.Shadow-01")
    if path.startswith("traffic.resample"):
        document["traffic"] = trace
    if path.startswith("traffic.profile"):
        document["traffic"] = {"process": "poisson"}
    if path == "traffic.retries":
        document["traffic"]["retries"] = example
        return document
    if ".tokens" in path:
        tokens = {"prompt": 50, "output": 10, "max_sequences": 8, "max_step_tokens": 512, "kv_tokens": 8192,
                  "step": {"base_s": "8ms"}}  # fmt: skip
        at = path.partition(".tokens")[0]
        document = edited(document, at, {"tokens": tokens})
    if path in ("services.Shadow-01.outages.0", "run.goodput.0"):
        path, example = path.removesuffix(".0"), [example]
    if path == "run.goodput":
        document["services"]["Shadow-01"] = {"tokens": {"prompt": 50, "output": 10, "max_sequences": 8,
            "max_step_tokens": 512, "kv_tokens": 8192, "step": {"base_s": "8ms"}}}  # fmt: skip
    if path.startswith("mirror") or (isinstance(example, dict) and "hashes" in example):
        document["traffic"] = {"process": "poisson", "rate_per_s": 5, "sessions": 3}
    document = edited(document, path, example)
    if path.endswith(".scaling"):
        document = edited(document, f"{path}.max", 10)
    return document


def read(document: object) -> str:
    """Return why the reader refuses a scenario, "" when it does not."""
    try:
        Scenario.from_dict(document, GOLDEN[0].parent)  # type: ignore[arg-type]
    except ShadowsimError as error:
        return str(error)
    return ""


def changes(document: dict[str, object], block: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield scenarios with one thing changed below a path, and what."""

    def paths(value: object, path: str) -> Iterator[str]:
        yield path
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from paths(inner, f"{path}.{key}")
        if isinstance(value, list):
            for i, inner in enumerate(value[:2]):
                yield from paths(inner, f"{path}.{i}")

    for path in paths(value_at(document, block), block):
        for value in VALUES:
            yield f"{path} = {value!r}", edited(document, path, value)
        here = value_at(document, path)
        if isinstance(here, dict):
            yield f"{path} with an unknown key", edited(document, path, {**here, UNKNOWN: 1})
            yield f"{path} with an unknown null", edited(document, path, {**here, UNKNOWN: None})
            for key in here:
                yield f"{path} without {key}", edited(document, path, {k: v for k, v in here.items() if k != key})


def all_changes() -> Iterator[tuple[str, dict[str, object]]]:
    for block, document in documents():
        here = block.replace("services.*", "services.Shadow-01").removesuffix(".0")
        if value_at(document, here) is not None:
            yield from changes(document, here)


def excused(error: str) -> bool:
    return all(
        any(re.search(pattern, line) for patterns in BY_THE_READER.values() for pattern in patterns)
        for line in error.splitlines()
        if not re.fullmatch(r"\d+ errors:", line)
    )


def check(cases: Iterator[tuple[str, dict[str, object]]]) -> tuple[int, int]:
    """Check that schema and reader agree; return how often both refused, and how often the reader alone did."""
    both = alone = 0
    wrong = []
    for what, document in cases:
        error, said = read(document), faults(document)
        if bool(error) == bool(said):
            both += bool(error)
        elif error and excused(error):
            alone += 1
        else:
            wrong.append((what, error[:200], said[:2]))
    assert not wrong, "\n".join(map(str, wrong[:40])) + f"\n{len(wrong)} in all"
    return both, alone


def test_it_is_a_schema_of_its_dialect():
    schema = scenario_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(schema)) == schema
    assert set(BY_THE_READER) == set(range(len(ACROSS_KEYS)))


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_golden_scenarios_are_valid(file):
    assert faults(json.loads(file.read_text())) == []


def test_every_example_is_valid_for_both():
    base = default_scenario().to_dict() | {"run": {"horizon_s": 600}}
    found = list(examples())
    assert len(found) > 25
    for path, example in found:
        document = with_example(base, path, example)
        error = read(document)
        assert faults(document) == [], (path, example)
        assert not error or "trace" in error, (path, example, error)


def test_every_key_says_something():
    """A sentence each, that ends with a full stop; a default or what holds instead for each that may be left out."""

    def walk(node: object, path: str) -> Iterator[tuple[str, dict[str, object]]]:
        if isinstance(node, dict):
            for key, inner in node.get("properties", {}).items() if isinstance(node.get("properties"), dict) else ():
                yield f"{path}.{key}", inner
            for key, inner in node.items():
                yield from walk(inner, path if key in ("properties", "then", "items") else f"{path}.{key}")
        if isinstance(node, list):
            for inner in node:
                yield from walk(inner, path)

    keys = [(path, key) for path, key in walk(scenario_schema(), "") if "description" in key]
    assert len(keys) > 150
    for path, key in keys:
        assert key["description"].endswith("."), path


def test_types_of_instances_are_those_that_the_catalogue_knows():
    assert set(scenario_schema()["$defs"]["ProductionVariantInstanceType"]["enum"]) == set(instance_types())
    assert {kind.name for kind in matching_types("*")} == set(instance_types())


def test_both_refuse_the_same():
    both, alone = check(islice(all_changes(), 0, None, 97))
    assert both > 5 * alone > 0


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_both_refuse_the_same_for_all_changes(part):
    both, alone = check(islice(all_changes(), part, None, 4))
    assert both > 5 * alone > 0


def test_errors_of_the_validator_name_the_key():
    document = edited(default_scenario().to_dict(), "services.Shadow-01.workers", -1)
    [error] = validator().iter_errors(document)
    assert error.json_path == "$.services['Shadow-01'].workers"
