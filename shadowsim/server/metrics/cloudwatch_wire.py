"""Wire formats of CloudWatch: parameters, tokens, refusals, and the older query protocol.

A token holds the place after which its page continues, and a digest of the request that it was given for. It tells its
owner nothing new, and is refused for another request.

In the query protocol, a request is a form: `Dimensions.member.1.Name=EndpointName` is the member Name of the first item
of Dimensions. The answer is that of JSON as XML elements: items of a list are called member, and those of a map are
entries of key and value.
"""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4
from xml.sax.saxutils import escape

from shadowsim.aws.contract import as_time
from shadowsim.errors import SerializationError, ShadowsimError, json_kind, shown
from shadowsim.server.data_plane.counts import MINUTE_S

NAMESPACE = "http://monitoring.amazonaws.com/doc/2010-08-01/"
FORM = "application/x-www-form-urlencoded"
_NUMBERS, _FLAGS, _MAPS = ("Period", "MaxDatapoints"), ("ReturnData",), ("ExtendedStatistics",)
_TIMES = ("Timestamp", "Timestamps")
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # not even as character references
_MOST_FIELDS, _MOST_PARTS = 10_000, 12
_ITEMS_AT_ONCE, _PIECE_CHARACTERS = 1000, 16_384
_MOST_SPAN_MINUTES = 700_000  # 15 months
_STATISTICS = ("SampleCount", "Average", "Sum", "Minimum", "Maximum")
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100(?:\.0{1,10})?)", re.ASCII)


class InvalidParameterError(ShadowsimError, ValueError):
    """A parameter that CloudWatch refuses."""

    code = "InvalidParameterValue"
    http_status = 400


class MissingParameterError(ShadowsimError, ValueError):
    """A required parameter that is missing."""

    code = "MissingParameter"
    http_status = 400


class TooManyPointsError(ShadowsimError, ValueError):
    """A request for more data points than one answer may hold."""

    code = "InvalidParameterCombination"
    http_status = 400


class MetricDataError(ShadowsimError, ValueError):
    """A request that GetMetricData refuses; it has one code for all reasons."""

    code = "ValidationError"
    http_status = 400


def span_of(body: Mapping[str, Any], period_s: int) -> tuple[int, int, int]:
    """Return the first requested minute, the one after the last, and the length of a period in minutes.

    Parameters
    ----------
    body : mapping
        With StartTime and EndTime.
    period_s : int
    """
    start, end = time_of(body, "StartTime"), time_of(body, "EndTime")
    if period_s < MINUTE_S or period_s % MINUTE_S:
        raise InvalidParameterError("The parameter Period must be a multiple of 60.")
    if start >= end:
        raise InvalidParameterError("The parameter StartTime must be less than the parameter EndTime.")
    first, last = math.floor(start / MINUTE_S), math.ceil(end / MINUTE_S)
    if last - first > _MOST_SPAN_MINUTES:
        raise InvalidParameterError("The parameters StartTime and EndTime must be at most 15 months apart.")
    return first, last, int(period_s // MINUTE_S)


def check_statistic(statistic: str, *, plain: bool = True, percentiles: bool = True) -> str:
    """Return a statistic if it is allowed, else raise InvalidParameterError."""
    if (plain and statistic in _STATISTICS) or (percentiles and _PERCENTILE.fullmatch(statistic)):
        return statistic
    allowed = [*(_STATISTICS if plain else ()), *(["p0 to p100"] if percentiles else [])]
    raise InvalidParameterError(f"The value {shown(statistic)} is not a statistic of [{', '.join(allowed)}].")


def token_after(place: object, question: list[Any]) -> str:
    """Return the token of the page after a place."""
    return urlsafe_b64encode(json.dumps([_digest(question), place]).encode()).decode()


def place_in(token: object, question: list[Any], *types: Any) -> Any:
    """Return the place in a token, checked for its types; None without a token. Refuse tokens of other requests."""
    if token is None:
        return None
    try:
        digest, place = json.loads(urlsafe_b64decode(str(token).encode("ascii")))
        is_own = isinstance(place, list) and len(place) == len(types) and digest == _digest(question)
        if is_own and all(isinstance(v, type_) and v is not True for v, type_ in zip(place, types, strict=True)):
            return place
    except (ValueError, TypeError, RecursionError):
        pass
    raise InvalidParameterError("The parameter NextToken is not one that was given for the same request.")


def _digest(question: list[Any]) -> str:
    return sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:32]


def dimensions_of(owner: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameter Dimensions as values by name."""
    return {need(d, "Name", str): need(d, "Value", str) for d in list_of(owner, "Dimensions", dict)}


def time_of(owner: Mapping[str, Any], name: str) -> float:
    """Return a required timestamp in seconds since 1970."""
    if owner.get(name) is None:
        raise MissingParameterError(f"The parameter {name} is required.")
    moment: datetime | None = as_time(owner[name])
    if moment is None:
        raise InvalidParameterError(f"The parameter {name} must be a timestamp.")
    return moment.astimezone(UTC).timestamp()


def need(owner: Mapping[str, Any], name: str, expected: type) -> Any:
    """Return a required parameter of a type."""
    value = owner.get(name)
    if value is None:
        raise MissingParameterError(f"The parameter {name} is required.")
    if not isinstance(value, expected) or isinstance(value, bool):
        raise InvalidParameterError(f"The parameter {name} must not be {json_kind(value)}.")
    return value


def list_of(owner: Mapping[str, Any], name: str, expected: type) -> list[Any]:
    """Return an optional list of items of a type; empty if it is missing."""
    values = owner.get(name)
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, expected) for value in values):
        raise InvalidParameterError(f"The parameter {name} must be a list.")
    return values


def is_form(headers: Mapping[str, str]) -> bool:
    """Return whether a request uses the query protocol."""
    return "X-Amz-Target" not in headers and headers.get("Content-Type", "").partition(";")[0].strip().lower() == FORM


async def answer_form(
    body: bytes, handle: Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
) -> tuple[int, Iterator[bytes]]:
    """Answer a form with an HTTP status and XML, which is made piece by piece.

    Parameters
    ----------
    body : bytes
    handle : callable
        Gets the action and its request as parsed JSON, and returns the answer as JSON, or raises ShadowsimError.
    """
    try:
        request = parse_form(body)
        action = str(request.pop("Action", ""))
        result = await handle(action, request)
    except ShadowsimError as error:
        refusal = {"Error": {"Type": "Sender", "Code": error.code, "Message": str(error)}, "RequestId": str(uuid4())}
        return error.http_status, pieces(_element("ErrorResponse", refusal, f' xmlns="{NAMESPACE}"'))
    answer = {f"{action}Result": result, "ResponseMetadata": {"RequestId": str(uuid4())}}
    return 200, pieces(_element(f"{action}Response", answer, f' xmlns="{NAMESPACE}"'))


def json_pieces(document: object) -> Iterator[bytes]:
    """Yield JSON piece by piece: a long answer takes longer to encode than the event loop can spare."""
    return pieces(_json_texts(document))


def _json_texts(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield "{"
        for i, (key, item) in enumerate(value.items()):
            yield f"{', ' if i else ''}{json.dumps(key)}: "
            yield from _json_texts(item)
        yield "}"
    elif isinstance(value, list):
        yield "["
        if value and isinstance(value[0], Mapping):
            for i, item in enumerate(value):
                yield ", " if i else ""
                yield from _json_texts(item)
        else:
            for i in range(0, len(value), _ITEMS_AT_ONCE):
                yield (", " if i else "") + json.dumps(value[i : i + _ITEMS_AT_ONCE])[1:-1]
        yield "]"
    else:
        yield json.dumps(value)


def pieces(texts: Iterable[str], n_characters: int = _PIECE_CHARACTERS) -> Iterator[bytes]:
    """Yield texts joined to pieces, each of which ends once it has more than so many characters."""
    piece, n = [], 0
    for text in texts:
        piece.append(text)
        n += len(text)
        if n > n_characters:
            yield "".join(piece).encode()
            piece, n = [], 0
    yield "".join(piece).encode()


def parse_form(body: bytes) -> dict[str, Any]:
    """Parse a form into the request that JSON would give.

    Raises
    ------
    SerializationError
        The body is not a form, or its names contradict each other.
    """
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise SerializationError("The body is not a form.") from None
    request: dict[str, Any] = {}
    for name, value in fields:
        parts = name.split(".")
        owner = request
        for part in parts[:-1]:
            owner = owner.setdefault(part, {})
            if not isinstance(owner, dict) or len(parts) > _MOST_PARTS:
                raise SerializationError("The form's names contradict each other.")
        owner[parts[-1]] = value
    parsed: dict[str, Any] = _as_json("", request)
    return parsed


def _as_json(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        items = value.get("member")
        if isinstance(items, dict) and all(key.isdecimal() and len(key) < 10 for key in items):
            return [_as_json("", items[key]) for key in sorted(items, key=int)]
        return {key: _as_json(key, item) for key, item in value.items()}
    if name in _NUMBERS and value.isascii() and value.isdecimal() and len(value) < 10:
        return int(value)
    return value == "true" if name in _FLAGS else value


def _element(tag: str, value: object, attributes: str = "", name: str = "") -> Iterator[str]:
    """Yield the texts of an element; `name` is that of the member whose value it holds, by default the tag."""
    name = name or tag
    yield f"<{tag}{attributes}>"
    if isinstance(value, Mapping):
        for key, item in value.items():
            if name in _MAPS:
                yield from _element("entry", {"key": key, "value": item})
            else:
                yield from _element(key, item)
    elif isinstance(value, list):
        for item in value:
            yield from _element("member", item, name=name)
    elif name in _TIMES:
        assert isinstance(value, int | float)
        yield datetime.fromtimestamp(value, UTC).isoformat().replace("+00:00", "Z")
    else:
        yield escape(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", str(value)))
    yield f"</{tag}>"
