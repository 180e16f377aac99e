"""Validates scenarios against the JSON Schema of a scenario, for several test modules and for the whole suite."""

from __future__ import annotations

from functools import cache, wraps
from typing import Any

from jsonschema import Draft202012Validator

from shadowsim.reference.schema import scenario_schema
from shadowsim.scenario.scenario import Scenario


@cache
def validator() -> Draft202012Validator:
    schema = scenario_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def faults(document: object) -> list[str]:
    """Return what the schema finds wrong."""
    return [f"{error.json_path}: {error.message[:200]}" for error in validator().iter_errors(document)]


def shape(value: object) -> object:
    """Return a document's keys and types, with its words: two of one shape differ in numbers only."""
    if isinstance(value, dict):
        return tuple((key, shape(item)) for key, item in value.items())
    if isinstance(value, list):
        return tuple(dict.fromkeys(map(shape, value)))
    return value if isinstance(value, str | bool) else type(value)


def with_small_letters(document: dict[str, Any]) -> dict[str, Any]:
    """Write presets' names as the schema has them, since the reader takes them in any case."""
    for service in document["services"].values():
        tokens = service.get("tokens")
        if tokens is not None and isinstance(tokens.get("step"), str):
            tokens["step"] = tokens["step"].lower()
    return document


def check_all_scenarios() -> None:
    """Let every scenario that is read be valid by the schema, too; one for each shape."""
    seen: set[int] = set()
    read = Scenario.from_dict.__func__  # type: ignore[attr-defined]

    @wraps(read)
    def checked(cls, document, *args, **kwargs):  # type: ignore[no-untyped-def]
        scenario = read(cls, document, *args, **kwargs)
        kept = scenario.to_dict()
        key = hash(shape(kept))
        if key not in seen:
            seen.add(key)
            wrong = faults(with_small_letters(kept))
            assert not wrong, wrong
        return scenario

    Scenario.from_dict = classmethod(checked)  # type: ignore[method-assign, assignment]
