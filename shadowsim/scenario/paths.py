"""Finds and changes values in a scenario's JSON document by dotted paths and their aliases.

A dotted path such as `run.seed` or `traffic.profile.steps.0.rate_per_s` is followed through objects and lists. Aliases
are short paths for the values that change most often. An edit only changes the document; the result is then validated
like a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import PurePath

import numpy as np

from shadowsim.errors import InputError, did_you_mean, json_kind
from shadowsim.scenario.fields import ALIASES, BLOCKS

VARIANT_ALIASES = {
    "instance_type": "InfrastructureConfig.RealTimeInferenceConfig.InstanceType",
    "instance_count": "InfrastructureConfig.RealTimeInferenceConfig.InstanceCount",
    "model_name": "ModelName",
}

SYNONYMS = {  # what people type, and the nearest by meaning, not by spelling
    **dict.fromkeys(("instances", "count", "n_instances", "replicas", "InitialInstanceCount"), "instance_count"),
    **dict.fromkeys(("instance", "type"), "instance_type"),
    **dict.fromkeys(("model", "name"), "model_name"),
    **dict.fromkeys(("service", "latency", "mean_s", "service_time"), "time"),
    **dict.fromkeys(("max_size", "batch_size", "max_batch_size", "max_delay_s", "batch"), "batching"),
    **dict.fromkeys(("prompt", "output", "step", "max_sequences", "max_step_tokens", "kv_tokens", "llm"), "tokens"),
    **dict.fromkeys(("autoscaling", "auto_scaling", "target", "min", "max", "policy"), "scaling"),
    **dict.fromkeys(("failures", "mtbf_s", "mttr_s"), "outages"),
    **dict.fromkeys(("startup_s", "warmup_s", "start_s"), "cold_start_s"),
    **dict.fromkeys(("share", "sampling", "percentage"), "sampling_percentage"),
    **dict.fromkeys(("rate", "rps", "qps"), "rate_per_s"),
    **dict.fromkeys(("duration", "duration_s", "length_s"), "horizon_s"),
}


def plain(value: object) -> object:
    """Return a deep copy in JSON's types: numpy's values as Python's, tuples as lists, times as ISO 8601."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def check_changes(changes: object) -> Mapping[str, object]:
    """Return `changes` when it is a mapping of paths to values."""
    if not isinstance(changes, Mapping):
        raise InputError(
            "changes", f'must be a mapping of paths to values, as {{"rate_per_s": 400}}, not {json_kind(changes)}'
        )
    wrong = next((path for path in changes if not isinstance(path, str)), None)
    if wrong is not None:
        raise InputError("changes", 'must have paths such as "rate_per_s" for keys', wrong)
    return changes


def edited(document: Mapping[str, object], path: str, value: object) -> dict[str, object]:
    """Return a copy of a JSON object with the value at a dotted path set.

    A key may itself contain dots (`time.quantiles_s.0.5`): the longest existing key wins. Missing objects on the way
    are created, and `"retries": "legacy"` becomes an object with that mode; list items must exist.

    Raises
    ------
    InputError
        When the path leads through a value that is neither an object nor a list, or past the end of a list.
    """
    result = _set(document, path.split("."), value, [])
    assert isinstance(result, dict)
    return result


def _set(node: object, parts: list[str], value: object, trail: list[str]) -> object:
    if not parts:
        return value
    here = ".".join(trail)
    node = _long_form(node, trail[-1] if trail else "")
    if isinstance(node, Mapping):
        n = next((n for n in range(len(parts), 1, -1) if ".".join(parts[:n]) in node), 1)
        key = ".".join(parts[:n])
        below = node.get(key)
        return {**node, key: _set({} if below is None else below, parts[n:], value, [*trail, key])}
    if isinstance(node, list):
        if not parts[0].isdecimal() or int(parts[0]) >= len(node):
            raise InputError(here, f"has {len(node)} items, numbered from 0", parts[0])
        i = int(parts[0])
        return [*node[:i], _set(node[i], parts[1:], value, [*trail, parts[0]]), *node[i + 1 :]]
    raise InputError(here, f"holds no object, so that {'.'.join(parts)} cannot be set in it", node)


def _long_form(node: object, key: str) -> object:
    """Return the object that a mode of retries stands for, so that its other keys can be set; or else `node`."""
    return {"mode": node} if key == "retries" and isinstance(node, str) else node


def value_at(document: object, path: str) -> object:
    """Return the value at a dotted path through objects and lists, or None if there is none.

    A key may contain dots, as for `edited`.
    """
    parts = path.split(".")
    while parts:
        n = 1
        if isinstance(document, list):
            document = dict(enumerate(document)).get(int(parts[0])) if parts[0].isdecimal() else None
        elif isinstance(document, Mapping):
            n = next((n for n in range(len(parts), 1, -1) if ".".join(parts[:n]) in document), 1)
            key = ".".join(parts[:n])
            document = document.get(key) if n == len(parts) else _long_form(document.get(key), key)
        else:
            return None
        parts = parts[n:]
    return document


def variant_path(document: Mapping[str, object], name: str) -> str:
    """Return the path of a variant within a valid scenario."""
    variants = value_at(document, "experiment.ModelVariants")
    assert isinstance(variants, list)
    return f"experiment.ModelVariants.{[variant['VariantName'] for variant in variants].index(name)}"


def instance_count_path(document: Mapping[str, object], name: str) -> str:
    """Return the path of a variant's InstanceCount as messages of AWS write it, which count members from 1."""
    number = int(variant_path(document, name).rpartition(".")[2]) + 1
    return f"modelVariants.{number}.member.infrastructureConfig.realTimeInferenceConfig.instanceCount"


def target_of(
    path: str, document: Mapping[str, object], names: Mapping[str, str], keys: Mapping[str, Sequence[str]]
) -> str:
    """Return the path in the scenario file that a path or an alias stands for.

    Parameters
    ----------
    path : str
        A full path or an alias.
    document : mapping
        A valid scenario.
    names : mapping of str to str
        The VariantName of the `source` and of the `shadow`.
    keys : mapping of str to sequence of str
        The keys of `endpoint`, `mirror` and `run`, and for `services` those of a service.

    Raises
    ------
    InputError
        When it is not a path of a scenario; keys within a block are left to that block's validation.
    """
    head, _, rest = path.partition(".")
    if path in ALIASES:
        return ALIASES[path]
    if head in BLOCKS:
        return path
    if head not in names:
        inside = [f"{block}.{head}" for block, known in keys.items() if head in known and block != "services"]
        inside += [SYNONYMS[head]] if SYNONYMS.get(head) in ALIASES else []
        hint = f"; did you mean {inside[0]}?" if inside else did_you_mean(head, [*ALIASES, *BLOCKS, *names])
        raise InputError(path, f"is not a path of a scenario{hint}")
    key = rest.partition(".")[0]
    if rest in VARIANT_ALIASES:
        return f"{variant_path(document, names[head])}.{VARIANT_ALIASES[rest]}"
    if key in keys["services"]:
        service = f"services.{names[head]}"
        pool = value_at(document, f"{variant_path(document, names[head])}.{VARIANT_ALIASES['instance_type']}")
        # A key that by_instance_type sets for the variant's type overrides the service's.
        of_type = f"{service}.by_instance_type.{pool}"
        return f"{of_type if value_at(document, f'{of_type}.{key}') is not None else service}.{rest}"
    words = (*VARIANT_ALIASES, *keys["services"])
    if SYNONYMS.get(key) in words:
        raise InputError(path, f"is not a path of a scenario; did you mean {head}.{SYNONYMS[key]}?")
    known = [f"{head}.{word}" for word in words]
    raise InputError(path, f"is not a path of a scenario{did_you_mean(f'{head}.{key}', known)}")


def parse_set(text: str) -> tuple[str, object]:
    """Return path and value of `PATH=VALUE`: the value is parsed as JSON, or else kept as text."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise InputError("--set", "must be PATH=VALUE", text)
    try:
        return path.strip(), json.loads(value)
    except (ValueError, RecursionError):  # not JSON; or thousands of digits or brackets
        return path.strip(), value
