r"""Checks requests against botocore's service model and returns every violation in AWS's words.

Rules of the file
-----------------
*One source.* botocore ships the service models that boto3 itself is generated from, here SageMaker's and Application
Auto Scaling's. Patterns, lengths, ranges, enumerations and required members are read from there at run time and nowhere
else, for every action and every shape, so that an upgrade of botocore upgrades the contract. The model is read straight
from botocore's own data folder: no session, no credentials, no region, and none of the user's private models in
`~/.aws/models`. botocore's loader would import an HTTP client and take a tenth of a second, longer than reading and
checking together, so the model's entries are used directly: a `Shape` is an entry of the model with its name, its
service, and whatever a reference to it adds. The tests compare every entry with botocore's loader.

*Every violation.* boto3 checks types, required members and minimum lengths, and leaves patterns, enumerations and
maxima to the service. Here the whole request is walked, in the order of its shape; only a value of the wrong type
stops the walk, because nothing inside it can be checked. Two broken constraints of one value are two violations.

*AWS's sentence.* "Value 'x' at 'modelVariants.1.member.modelName' failed to satisfy constraint: Member must ...":
member names begin in lower case, list items count from 1, a missing member is null, without quotes. A null for an
optional member counts as not given, as it does on the wire. Four departures from AWS make messages clearer: an
offending item of a list or map of scalars is reported at its own path (AWS folds all of them into one sentence
about the whole list); a value of the wrong type is a violation like any other (AWS answers SerializationException and
stops); an enumeration of many values is cut short, with the nearest value named; values are shortened and their
control characters escaped, so that a violation is one line on any terminal.

Theory
------
The constraints are those of a service written in Java and are read as Java reads them. A pattern must match the whole
value, whether it is written with anchors or not; `\d` and `\w` are ASCII; `\p{L}` is a Unicode class, for which the
package `regex` stands in for `re`. A pattern that not even `regex` can read (four shapes write ranges as UTF-16
surrogate pairs; no action on inference experiments uses them) is not enforced. An `integer` has 32 bits, a `long` 64;
JSON's 2.0, "2" and true are not integers. `min` and `max` are a range for numbers, a length for strings, lists and
maps. A timestamp is whatever botocore's parser takes: seconds since 1970 as a number or as text, a date as text (ISO
8601, "Dec 1 2026"), or a datetime; without an offset it is UTC.

These constraints are added here, since the model lacks them: SamplingPercentage must not be negative,
DesiredWeightsAndCapacities has at most 100 items, a cooldown is not negative, and lists and maps of Application Auto
Scaling have at most 50 entries.

*Bounded work.* A list or map that is longer than its maximum breaks that constraint, and what is beyond the maximum is
not looked at; a text above its maximum and 10,000 characters is not matched with its pattern; the walk ends at
MOST_VIOLATIONS. So a request of megabytes takes no longer than one of kilobytes.
"""

from __future__ import annotations

import gzip
import html
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from itertools import islice
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from shadowsim.errors import MOST_VIOLATIONS, InputError, SerializationError, did_you_mean, json_kind, shown

if TYPE_CHECKING:
    from regex import Pattern

Unknown = Literal["refuse", "ignore"]
Shape = Mapping[str, Any]  # "shape" is its name, "service" that of botocore's folder
SAGEMAKER, AUTO_SCALING = "sagemaker", "application-autoscaling"
_SPOKEN = {SAGEMAKER: "SageMaker", AUTO_SCALING: "Application Auto Scaling"}

_ADDED_MINIMUM = {"Percentage": 0, "Cooldown": 0}
_ADDED_MAXIMUM = {
    "DesiredWeightAndCapacityList": 100,
    **dict.fromkeys(("MetricDimensions", "StepAdjustments", "TagMap", "TargetTrackingMetricDataQueries"), 50),
    **dict.fromkeys(("TargetTrackingMetricDimensions", "PredictiveScalingMetricSpecifications"), 50),
    **dict.fromkeys(("PredictiveScalingMetricDataQueries", "PredictiveScalingMetricDimensions"), 50),
}
_RANGES = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "structure": ("an object", (Mapping,)),
    "map": ("an object", (Mapping,)),
    "list": ("a list", (list, tuple)),
    "string": ("a string", (str,)),
    "boolean": ("a boolean", (bool,)),
    "integer": ("an integer", (int,)),
    "long": ("an integer", (int,)),
    "float": ("a finite number", (int, float)),
    "double": ("a finite number", (int, float)),
}
_JSON_TYPES = {
    **{"structure": "object", "map": "object", "list": "array", "string": "string", "boolean": "boolean"},
    **{"integer": "integer", "long": "integer", "float": "number", "double": "number"},
}
_VALUES = ("minimum", "maximum")
_BOUNDS = {
    **{"map": ("minProperties", "maxProperties"), "list": ("minItems", "maxItems"), "boolean": _VALUES},
    **{"string": ("minLength", "maxLength"), "integer": _VALUES, "long": _VALUES, "float": _VALUES, "double": _VALUES},
}
# Deeper than any real request: shapes that contain themselves (Search's filters) must end before Python's stack does.
_MAX_DEPTH = 50
_MAX_ENUM_SHOWN = 12
_MOST_MATCHED = 10_000  # characters


def violations(name: str, request: object, *, unknown: Unknown = "refuse", service: str = SAGEMAKER) -> list[str]:
    """Return every violation of a request, up to MOST_VIOLATIONS, one sentence each, in the order of the shape.

    Parameters
    ----------
    name : str
        A SageMaker action ("CreateInferenceExperiment", for its input) or the name of a shape.
    request : object
        The request as JSON gives it, or as keyword arguments for boto3. Any object is safe to pass.
    unknown : {"refuse", "ignore"}
        Whether a member that the shape does not know is a violation, which names the nearest known member, or is
        ignored, as on the wire.
    service : str
        `SAGEMAKER` or `AUTO_SCALING`.

    Raises
    ------
    InputError
        The service has no such action or shape.
    """
    return list(islice(_walk(_shape(name, service), request, "", unknown, 0), MOST_VIOLATIONS))


def parsed(name: str, body: object, service: str = SAGEMAKER) -> dict[str, Any]:
    """Return a request as the service reads it from the wire: without nulls and unknown members, times in seconds.

    A list or map above its maximum is cut after the first item too many, which suffices for `violations` to refuse it.

    Parameters
    ----------
    name : str
        A SageMaker action.
    body : object
        The decoded JSON.
    service : str
        `SAGEMAKER` or `AUTO_SCALING`.

    Raises
    ------
    SerializationError
        A value has the wrong type. The message names the first one, where the service stops reading.
    """
    return _parsed(_shape(name, service), body, "")  # type: ignore[no-any-return]


def json_schema(name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a request as JSON Schema (2020-12), as `violations` reads it.

    Patterns that JSON Schema's implementations read in different ways (those with Unicode classes) are left out. A time
    is a number or a text.

    Parameters
    ----------
    name : str
        A SageMaker action, or the name of a shape.
    definitions : dict
        Receives the schemas of the shapes inside by their names, to which `#/$defs/NAME` refers.
    """
    return _schema_of(_shape(name), definitions)


def is_required(name: str, path: Sequence[str | int]) -> bool:
    """Return whether a member of an action's input or of a shape, or an item of a list, must be where it stands."""
    shape, required = _shape(name), True
    for key in path:
        required = isinstance(key, int) or key in shape.get("required", ())
        shape = _resolved(shape["member"] if isinstance(key, int) else shape["members"][key], shape["service"])
    return required


def recased(name: str, document: object) -> Any:
    """Return a document in snake case, as Terraform writes it, with the members of an action's input or of a shape.

    What the shape does not know is left out, and a list of one stands for an object, as blocks of Terraform do.
    """
    return _recased(_shape(name), document)


def _recased(shape: Shape, value: Any) -> Any:
    if shape["type"] == "structure":
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(value, Mapping):
            return value if value != [] else None
        names = {member.lower(): member for member in shape.get("members", {})}
        members = {}
        for key, item in value.items():
            member = names.get(str(key).replace("_", "").lower())
            inner = None if member is None else _recased(_resolved(shape["members"][member], shape["service"]), item)
            if member is not None and inner is not None:
                members[member] = inner
        return members
    if shape["type"] == "list" and isinstance(value, list):
        return [_recased(_resolved(shape["member"], shape["service"]), item) for item in value]
    return value


def with_numbers(name: str, document: object) -> Any:
    """Return a document with numbers for texts of numbers where the shape has numbers, as CloudFormation reads them."""
    return _with_numbers(_shape(name), document)


def _with_numbers(shape: Shape, value: Any) -> Any:
    if isinstance(value, Mapping) and shape["type"] == "structure":
        known = shape.get("members", {})
        return {
            k: _with_numbers(_resolved(known[k], shape["service"]), item) if k in known else item
            for k, item in value.items()
        }
    if isinstance(value, list) and shape["type"] == "list":
        return [_with_numbers(_resolved(shape["member"], shape["service"]), item) for item in value]
    if isinstance(value, str) and _JSON_TYPES.get(shape["type"]) in ("integer", "number"):
        try:
            return int(value) if _JSON_TYPES[shape["type"]] == "integer" else float(value)
        except ValueError:
            return value
    return value


def sentence(value: object, path: str, constraint: str) -> str:
    """Return AWS's sentence for one violation; None is written as null, an empty path as the request itself."""
    quoted = "null" if value is None else f"'{shown(value)}'"
    return f"Value {quoted} at '{path or 'request'}' failed to satisfy constraint: {constraint}"


def instance_types() -> tuple[str, ...]:
    """Return the instance types that a model variant can name, in the model's order."""
    return tuple(_shape("ProductionVariantInstanceType")["enum"])


def members_of(name: str) -> tuple[str, ...]:
    """Return the names of the members of an action's input, or of a shape, in the model's order."""
    return tuple(_shape(name)["members"])


def actions() -> tuple[str, ...]:
    """Return all actions of SageMaker, in the model's order."""
    return tuple(_model(SAGEMAKER)["operations"])


def as_time(value: object) -> datetime | None:
    """Return a timestamp as a datetime in UTC, or None when it is not a time.

    Parameters
    ----------
    value : object
        Seconds since 1970 (a number, or its text), a date as text, or a datetime. Without an offset: UTC.
    """
    try:
        if isinstance(value, str):
            value = _read_time(value)
        elif isinstance(value, Real) and not isinstance(value, bool):  # numpy's numbers, too
            value = datetime.fromtimestamp(float(value), UTC)
        if not isinstance(value, datetime):
            return None
        t = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        # Rebuilt, because subclasses (pandas.Timestamp) carry more; pandas.NaT fails here with a ValueError.
        return datetime(t.year, t.month, t.day, t.hour, t.minute, t.second, t.microsecond, UTC)
    except (ValueError, TypeError, AttributeError, OverflowError, OSError):  # AttributeError: dateutil on some texts
        return None


def _read_time(text: str) -> datetime:
    """Return the time that botocore.utils.parse_timestamp reads, without loading botocore's HTTP client."""
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except ValueError:  # no number, or beyond the calendar: 20261201120000 is a date
        from dateutil import parser  # type: ignore[import-untyped]

        time: datetime = parser.parse(text, tzinfos={"GMT": UTC})
        return time


def _walk(shape: Shape, value: object, path: str, unknown: Unknown, depth: int) -> Iterator[str]:
    wrong = _wrong_type(shape["type"], value)
    if wrong:
        yield sentence(value, path, wrong)
    elif depth > _MAX_DEPTH:
        yield sentence(value, path, f"Member must not be nested more than {_MAX_DEPTH} levels deep")
    elif isinstance(value, Mapping) and shape["type"] == "structure":
        yield from _members(shape, value, path, unknown, depth)
    else:
        for constraint in _constraints(shape, value):
            yield sentence(value, path, constraint)
        if isinstance(value, Mapping):
            yield from _entries(shape, value, path, unknown, depth)
        elif isinstance(value, list | tuple):
            yield from _items(shape, value, path, unknown, depth)


def _schema_of(shape: Shape, definitions: dict[str, Any]) -> dict[str, Any]:
    kind = shape["type"]
    if kind == "structure":
        required = shape.get("required", ())
        members = {}
        for name, member in shape.get("members", {}).items():
            said = _text_of(member.get("documentation", ""))
            inner = _reference(member, shape["service"], definitions)
            members[name] = said | (inner if name in required else {"anyOf": [inner, {"type": "null"}]})
        needed = {"required": list(required)} if required else {}
        return {"type": "object", "properties": members, **needed, "additionalProperties": False}
    if kind == "timestamp":
        return {"type": ["number", "string"], "description": "Seconds since 1970, or a date such as 2026-12-01T00:00Z."}
    low, high = _RANGES.get(kind, (None, None))
    low = shape.get("min", _ADDED_MINIMUM.get(shape["shape"], low))
    high = shape.get("max", _ADDED_MAXIMUM.get(shape["shape"], high))
    least, most = _BOUNDS[kind]
    schema: dict[str, Any] = {"type": _JSON_TYPES[kind]}
    schema |= {} if low is None else {least: low}
    schema |= {} if high is None else {most: high}
    schema |= {"enum": shape["enum"]} if "enum" in shape else {}
    if "\\p" not in shape.get("pattern", "\\p"):
        schema["pattern"] = f"^(?:{shape['pattern'].removeprefix('^').removesuffix('$')})$"
    if kind == "list":
        schema["items"] = _reference(shape["member"], shape["service"], definitions)
    if kind == "map":
        schema["propertyNames"] = _reference(shape["key"], shape["service"], definitions)
        schema["additionalProperties"] = _reference(shape["value"], shape["service"], definitions)
    return schema


def _reference(member: Mapping[str, Any], service: str, definitions: dict[str, Any]) -> dict[str, Any]:
    name = member["shape"]
    if name not in definitions:
        definitions[name] = {}  # a shape may contain itself
        definitions[name] = _schema_of(_resolved({"shape": name}, service), definitions)
    return {"$ref": f"#/$defs/{name}"}


def _text_of(documentation: str) -> dict[str, str]:
    """Return the first sentence of a member's documentation, which is HTML, as a description."""
    text = html.unescape(" ".join(re.sub(r"<[^>]+>", " ", documentation).split()))
    first = re.split(r"(?<=\.)\s", text, maxsplit=1)[0].replace(" .", ".")
    return {"description": first} if first else {}


def _parsed(shape: Shape, value: Any, path: str) -> Any:
    wrong = None if value is None and path else _wrong_type(shape["type"], value)
    if wrong:
        raise SerializationError(f"{path or 'request'}: {wrong}")
    match value, shape["type"]:
        case Mapping(), "structure":
            members = {}
            for key, member in shape.get("members", {}).items():
                if value.get(key) is not None:
                    inner = f"{path}{'.' if path else ''}{key[0].lower()}{key[1:]}"
                    members[key] = _parsed(_resolved(member, shape["service"]), value[key], inner)
            return members
        case Mapping(), _:
            entry = _resolved(shape["value"], shape["service"])
            entries = islice(value.items(), _most_items(shape, surplus=1))
            return {key: _parsed(entry, item, f"{path}.{shown(key)}.member") for key, item in entries}
        case list() | tuple(), _:
            item_shape = _resolved(shape["member"], shape["service"])
            items = islice(value, _most_items(shape, surplus=1))
            return [_parsed(item_shape, item, f"{path}.{i}.member") for i, item in enumerate(items, start=1)]
        case _, "timestamp":
            time = as_time(value)
            return None if time is None else time.timestamp()
    return value


def _members(shape: Shape, value: Mapping[Any, object], path: str, unknown: Unknown, depth: int) -> Iterator[str]:
    inside = f"{path}." if path else ""
    members = shape.get("members", {})
    for name, member in members.items():
        inner = f"{inside}{name[0].lower()}{name[1:]}"
        if value.get(name) is not None:
            yield from _walk(_resolved(member, shape["service"]), value[name], inner, unknown, depth + 1)
        elif name in shape.get("required", ()):
            yield sentence(None, inner, "Member must not be null")
    if shape.get("union") and sum(value.get(name) is not None for name in members) != 1:
        yield sentence(value, path, f"Member must set exactly one of [{', '.join(members)}]")
    if unknown == "refuse":
        for key in value:
            if key not in members:
                near = did_you_mean(shown(key), members)
                # The key keeps its case: in lower case it could read like a known member.
                yield sentence(value[key], f"{inside}{shown(key)}", f"Member must be known to {shape['shape']}{near}")


def _entries(shape: Shape, value: Mapping[Any, object], path: str, unknown: Unknown, depth: int) -> Iterator[str]:
    keys, values = (_resolved(shape[part], shape["service"]) for part in ("key", "value"))
    for key, entry in islice(value.items(), _most_items(shape)):
        wrong = _wrong_type("string", key)
        for constraint in [wrong] if wrong else _constraints(keys, key):
            yield sentence(key, path, f"Map keys must satisfy constraint: [{constraint}]")
        yield from _item(values, entry, f"{path}.{shown(key)}.member", unknown, depth)


def _items(shape: Shape, value: Sequence[object], path: str, unknown: Unknown, depth: int) -> Iterator[str]:
    member = _resolved(shape["member"], shape["service"])
    for i, item in enumerate(islice(value, _most_items(shape)), start=1):
        yield from _item(member, item, f"{path}.{i}.member", unknown, depth)


def _most_items(shape: Shape, surplus: int = 0) -> int | None:
    """Return the number of items of a list or map that are looked at, None for all."""
    most = shape.get("max", _ADDED_MAXIMUM.get(shape["shape"]))
    return None if most is None else most + surplus


def _item(shape: Shape, value: object, path: str, unknown: Unknown, depth: int) -> Iterator[str]:
    if value is None:
        yield sentence(None, path, "Member must not be null")
    else:
        yield from _walk(shape, value, path, unknown, depth + 1)


def _constraints(shape: Shape, value: Any) -> Iterator[str]:
    if isinstance(value, int | float):
        low, high = _RANGES.get(shape["type"], (None, None))
        size, noun = value, "value"
        low = shape.get("min", _ADDED_MINIMUM.get(shape["shape"], low))
        high = shape.get("max", high)
    elif isinstance(value, str | list | tuple | Mapping):
        size, noun = len(value), "length"
        low, high = shape.get("min"), shape.get("max", _ADDED_MAXIMUM.get(shape["shape"]))
    else:
        return
    if "enum" in shape and value not in shape["enum"]:
        yield f"Member must satisfy enum value set: {_enum_text(shape['enum'], value)}"
    if high is not None and size > high:
        yield f"Member must have {noun} less than or equal to {high}"
    if low is not None and size < low:
        yield f"Member must have {noun} greater than or equal to {low}"
    is_matched = high is None or size <= max(high, _MOST_MATCHED)  # a longer text is refused anyway
    if "pattern" in shape and isinstance(value, str) and is_matched:
        pattern = _pattern(shape["pattern"])
        if pattern is not None and pattern.fullmatch(value) is None:
            yield f"Member must satisfy regular expression pattern: {shape['pattern']}"


def _enum_text(known: list[str], value: str) -> str:
    if len(known) <= _MAX_ENUM_SHOWN:
        return f"[{', '.join(known)}]"
    without_prefix = [name for name in known if name.endswith(value)]  # m5.xlarge for ml.m5.xlarge
    prefix = "" if str(value).startswith("ml.") or not known[0].startswith("ml.") else "ml."  # EC2's names lack it
    near = did_you_mean(prefix + shown(value), without_prefix or known)
    return f"[{', '.join(known[:3])}, ... {len(known)} in all]{near}"


def _wrong_type(type_name: str, value: object) -> str | None:
    """Return the constraint that a value of the wrong type breaks, or None."""
    if type_name == "timestamp":
        wanted = "a time: seconds since 1970, a date such as 2026-12-01T00:00:00Z, or a datetime"
        return None if as_time(value) is not None else f"Member must be {wanted}"
    wanted, types = _TYPES[type_name]
    valid = isinstance(value, types) and isinstance(value, bool) == (type_name == "boolean")
    if isinstance(value, float) and not math.isfinite(value):
        valid = False
    return None if valid else f"Member must be {wanted}, not {json_kind(value)}"


def preload() -> None:
    """Read the service models now, which takes a tenth of a second, and not with the first request."""
    for service in _SPOKEN:
        _model(service)


@cache
def _model(service: str) -> dict[str, Any]:
    folder = files("botocore") / "data" / service
    newest = max(version.name for version in folder.iterdir())  # a date
    model: dict[str, Any] = json.loads(gzip.decompress((folder / newest / "service-2.json.gz").read_bytes()))
    return model


@cache
def _shape(name: str, service: str = SAGEMAKER) -> Shape:
    model = _model(service)
    operations, shapes = model["operations"], model["shapes"]
    if "input" in operations.get(name, {}):
        return _resolved(operations[name]["input"], service)
    if name not in shapes:
        near = did_you_mean(name, [*operations, *shapes])
        raise InputError("action", f"must be an action or a shape of {_SPOKEN[service]}", name, hint=near)
    return _resolved({"shape": name}, service)


def _resolved(reference: Mapping[str, Any], service: str) -> Shape:
    return {**_model(service)["shapes"][reference["shape"]], **reference, "service": service}


@cache
def _pattern(source: str) -> Pattern[str] | None:
    import regex

    try:
        return regex.compile(source, 0 if r"\p" in source else regex.ASCII)
    except regex.error:
        return None
