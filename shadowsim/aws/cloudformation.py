"""Resolves references in CloudFormation templates, as far as they are known before a deployment.

Parameters have their Default, or the values that the caller gives. Ref, Fn::Sub, Fn::Join, Fn::Select, Fn::Split,
Fn::FindInMap and Fn::If with its conditions are computed; Fn::GetAtt gives a property that the other resource spells
out, such as a model's ModelName. All else becomes an `Unresolved` value, which is refused where it is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shadowsim.errors import InputError, shown

_VARIABLE = re.compile(r"\$\{(!?)([^}]+)\}")
_NO_VALUE = object()
_MOST_DEEP = 100


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A value that is not known before a deployment.

    Attributes
    ----------
    name : str
        What it refers to, as `parameters` may give it: "Role.Arn", "AWS::Region", "role_arn".
    """

    name: str

    def __str__(self) -> str:
        return self.name


def is_resource(value: object) -> bool:
    """Return whether a value is a CloudFormation resource, by its Type."""
    kind = value.get("Type") if isinstance(value, Mapping) else None
    return isinstance(kind, str) and kind.startswith(("AWS::", "Custom::"))


def resources_of(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the resources of a template by name; None for another document. A single resource has the name ""."""
    if is_resource(document):
        return {"": document}
    resources = document.get("Resources", document)
    if isinstance(resources, Mapping) and resources:
        if "Resources" in document and any(map(is_resource, resources.values())):
            return {name: resource for name, resource in resources.items() if is_resource(resource)}
        if all(map(is_resource, resources.values())):
            return resources
    return {} if "AWSTemplateFormatVersion" in document else None


@dataclass(frozen=True, slots=True)
class Template:
    """A template, and the values that the caller gives for its parameters and for what else it refers to.

    Attributes
    ----------
    document, resources : mapping
    given : mapping of str to object
    defaults : dict of str to object
        The parameters that had their Default, as far as values were resolved.
    """

    document: Mapping[str, Any]
    resources: Mapping[str, Any]
    given: Mapping[str, object]
    defaults: dict[str, object] = field(default_factory=dict)

    def is_made(self, name: str) -> bool:
        """Return whether a resource is made: it has no Condition, or one that holds or is not known."""
        condition = self.resources[name].get("Condition")
        return condition is None or self._condition({"Condition": condition}, 0) is not False

    def properties(self, name: str) -> dict[str, Any]:
        """Return the properties of a resource, with references resolved or `Unresolved`."""
        properties = self.resources[name].get("Properties")
        resolved = self._value(properties if isinstance(properties, Mapping) else {}, 0)
        return resolved if isinstance(resolved, dict) else {}

    def notes(self) -> tuple[str, ...]:
        """Return a sentence on the Defaults that stood for parameters."""
        used = ", ".join(f"{name} = {shown(value)}" for name, value in self.defaults.items())
        return (f"parameters of the template have their Default: {used}.",) if used else ()

    def _section(self, name: str) -> Mapping[str, Any]:
        section = self.document.get(name)
        return section if isinstance(section, Mapping) else {}

    def _value(self, value: Any, depth: int) -> Any:
        if depth > _MOST_DEEP:
            raise InputError("template", f"has references that go round, or more than {_MOST_DEEP} deep")
        if isinstance(value, Mapping):
            if len(value) == 1:
                [(name, argument)] = value.items()
                if name in ("Ref", "Condition") or str(name).startswith("Fn::"):
                    return self._function(str(name), argument, depth + 1)
            members = {key: self._value(item, depth + 1) for key, item in value.items()}
            return {key: item for key, item in members.items() if item is not _NO_VALUE}
        if isinstance(value, list):
            items = [self._value(item, depth + 1) for item in value]
            return [item for item in items if item is not _NO_VALUE]
        return value

    def _function(self, name: str, argument: Any, depth: int) -> Any:
        if name == "Ref" and isinstance(argument, str):
            return self._named(argument)
        if name == "Fn::GetAtt":
            parts = argument.split(".", 1) if isinstance(argument, str) else argument
            if isinstance(parts, list) and len(parts) == 2 and all(isinstance(part, str) for part in parts):
                return self._attribute(parts[0], parts[1], depth)
        if name == "Fn::Sub":
            return self._sub(argument, depth)
        if name == "Fn::If" and isinstance(argument, list) and len(argument) == 3:
            holds = self._condition({"Condition": argument[0]}, depth)
            return holds if isinstance(holds, Unresolved) else self._value(argument[1 if holds else 2], depth)
        if name.startswith("Fn::"):
            inside = self._value(argument, depth)
            unknown = _first_unresolved(inside)
            known = unknown if unknown is not None else _computed(name, inside, self._section("Mappings"))
            if known is not None:
                return known
        return self.given.get(name, Unresolved(f"{name} {shown(argument)}"))

    def _named(self, name: str) -> Any:
        if name in self.given:
            return self.given[name]
        if name == "AWS::NoValue":
            return _NO_VALUE
        parameter = self._section("Parameters").get(name)
        if not isinstance(parameter, Mapping) or "Default" not in parameter:
            return Unresolved(name)
        default = self.defaults[name] = parameter["Default"]
        is_list = str(parameter.get("Type", "")).startswith(("List<", "CommaDelimitedList"))
        return [part.strip() for part in default.split(",")] if is_list and isinstance(default, str) else default

    def _attribute(self, resource: str, attribute: str, depth: int) -> Any:
        name = f"{resource}.{attribute}"
        if name in self.given:
            return self.given[name]
        properties = self.resources.get(resource, {}).get("Properties")
        if isinstance(properties, Mapping) and attribute in properties:
            return self._value(properties[attribute], depth)
        return Unresolved(name)

    def _sub(self, argument: Any, depth: int) -> Any:
        text, own = argument if isinstance(argument, list) and len(argument) == 2 else (argument, {})
        if not isinstance(text, str) or not isinstance(own, Mapping):
            return Unresolved(f"Fn::Sub {shown(argument)}")
        own = {key: self._value(item, depth) for key, item in own.items()}
        values: dict[str, Any] = {}
        for literal, name in _VARIABLE.findall(text):
            if literal:
                continue
            resource, dot, attribute = name.partition(".")
            found = self._attribute(resource, attribute, depth) if dot else self._named(name)
            values[name] = own.get(name, found)
            if isinstance(values[name], Unresolved):
                return values[name]
        return _VARIABLE.sub(lambda m: f"${{{m[2]}}}" if m[1] else str(values[m[2]]), text)

    def _condition(self, condition: Any, depth: int) -> bool | Unresolved:
        if depth > _MOST_DEEP or not isinstance(condition, Mapping) or len(condition) != 1:
            return Unresolved(f"condition {shown(condition)}")
        [(name, argument)] = condition.items()
        if name == "Condition":
            return self._condition(self._section("Conditions").get(argument), depth + 1)
        if name == "Fn::Equals" and isinstance(argument, list) and len(argument) == 2:
            both = self._value(argument, depth + 1)
            unknown = _first_unresolved(both)
            return str(both[0]) == str(both[1]) if unknown is None else unknown
        if name in ("Fn::Not", "Fn::And", "Fn::Or") and isinstance(argument, list):
            parts = [self._condition(part, depth + 1) for part in argument]
            unknown = _first_unresolved(parts)
            if unknown is not None:
                return unknown
            return not parts[0] if name == "Fn::Not" else all(parts) if name == "Fn::And" else any(parts)
        return Unresolved(f"condition {shown(condition)}")


def _computed(name: str, argument: Any, mappings: Mapping[str, Any]) -> Any:
    """Return the value of a function whose arguments are known, None where it has none."""
    match name, argument:
        case "Fn::Join", [str() as separator, list() as parts]:
            return separator.join(map(str, parts))
        case "Fn::Split", [str() as separator, str() as text] if separator:
            return text.split(separator)
        case "Fn::Select", [index, list() as parts] if str(index).isdecimal() and int(index) < len(parts):
            return parts[int(index)]
        case "Fn::FindInMap", [table, row, column, *_]:
            rows = mappings.get(table)
            cells = rows.get(str(row)) if isinstance(rows, Mapping) else None
            return cells.get(str(column)) if isinstance(cells, Mapping) else None
    return None


def _first_unresolved(values: Any) -> Unresolved | None:
    if isinstance(values, Unresolved):
        return values
    inside: Sequence[Any] = list(values.values()) if isinstance(values, Mapping) else values
    if not isinstance(inside, list):
        return None
    return next((unknown for value in inside if (unknown := _first_unresolved(value)) is not None), None)
