"""Returns the JSON Schema (2020-12) of a scenario, made from the code that reads it.

An editor completes and checks a scenario by it. It says what a key means, its unit (`unit`), its default, or what holds
in its place if it is left out (`otherwise`), its range and its alternatives; `enumDescriptions` says what words mean.
Null counts as left out. What it cannot say, `ACROSS_KEYS` lists.
"""

from __future__ import annotations

from shadowsim.aws.contract import json_schema
from shadowsim.aws.experiment import LEAST_INSTANCES
from shadowsim.scenario.fields import BLOCKS
from shadowsim.scenario.keys import Schema, nullable
from shadowsim.scenario.laws import law_schema
from shadowsim.scenario.reading import BLOCK_KEYS
from shadowsim.scenario.service import service_schema
from shadowsim.scenario.traffic import traffic_schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REQUIRED = ("experiment", "traffic", "services")
ACROSS_KEYS = (
    "Numbers are finite, and those of integers are written without a fraction.",
    "Bounds hold for durations as text, too.",
    "Values that must rise, or be greater than another key's, do: steps, spikes, quantiles, p99 and p50, high and low, "
    "to_s and from_s, peak_per_s and base_per_s, max and min, kv_tokens and block_tokens, max_step_tokens and "
    "max_sequences.",
    "Sums and products keep their limits: error_4xx + error_5xx, base_s + per_sequence_s, the scv and the mean that a "
    "law's parameters give, windows of the horizon, requests of a window, workers of a pool, outages and jumps.",
    "Lists are as long as others ask: factors, slowdown, mean_sojourn_s; outages of an instance do not overlap; pairs "
    "of goodput differ.",
    "Services and routing name the experiment's variants, each of which has a service.",
    "Workers are given where those of the instance type are not known; scaling and outages fit InstanceCount.",
    "Columns of a trace, linear laws and a session's column need trace traffic that has them, and the files exist.",
    "The hash rule needs sessions, max_body_bytes request_bytes, goodput a service in tokens, warmup_s time enough.",
    "Blocks of a list of traffic have the same sizes, sessions and retries.",
    "An experiment keeps SageMaker's rules across fields: unique names, variants that exist, the length of the "
    "Schedule, dates that can be read, buckets, reserved tags, no Inf1 types.",
    "Names of presets may be in any case.",
)


def scenario_schema() -> Schema:
    """Return the JSON Schema of a scenario, as a new dict that `json.dumps` takes.

    Examples
    --------
    >>> import shadowsim as ss
    >>> ss.scenario_schema()["required"]
    ['experiment', 'traffic', 'services']
    """
    definitions: Schema = {f"law_{unit}": law_schema(unit) for unit in ("s", "bytes", "tokens")}
    experiment = json_schema("CreateInferenceExperiment", definitions)
    definitions["TaskCount"]["minimum"] = LEAST_INSTANCES
    definitions["service"] = service_schema()
    definitions["traffic"] = traffic_schema()["anyOf"][0]
    services = {
        "type": "object",
        "description": "How the instances of each variant serve, by VariantName.",
        "additionalProperties": {"$ref": "#/$defs/service"},
    }
    blocks: Schema = {
        "experiment": {"description": "The CreateInferenceExperiment request, as boto3 takes it."} | experiment,
        "traffic": traffic_schema() | {"anyOf": [{"$ref": "#/$defs/traffic"}, traffic_schema()["anyOf"][1]]},
        "services": services,
        **{name: nullable(keys.schema()) for name, keys in BLOCK_KEYS.items()},
    }
    return {
        "$schema": DIALECT,
        "title": "A scenario of shadowsim",
        "description": "An experiment, its traffic, and how its services serve. Keys in seconds (`_s`, but not "
        '`per_s`) also take durations with a unit, such as "30ms".',
        "$comment": "Beside what is said here: " + " ".join(ACROSS_KEYS),
        "type": "object",
        "properties": {name: blocks[name] for name in BLOCKS},
        "required": list(REQUIRED),
        "additionalProperties": False,
        "$defs": definitions,
    }
