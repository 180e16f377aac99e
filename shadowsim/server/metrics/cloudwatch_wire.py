"""AWS's query protocol, which CloudWatch's clients spoke before they spoke JSON: a form in, XML out.

`Dimensions.member.1.Name=EndpointName` is the member Name of the first Dimensions. The answer is the one that JSON
would be, in elements: a list's items are called member, a map's are entries of key and value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4
from xml.etree import ElementTree

from shadowsim.errors import SerializationError, ShadowsimError

NAMESPACE = "http://monitoring.amazonaws.com/doc/2010-08-01/"
FORM = "application/x-www-form-urlencoded"
_NUMBERS, _FLAGS, _MAPS = ("Period", "MaxDatapoints"), ("ReturnData",), ("ExtendedStatistics",)
_TIMES = ("Timestamp", "Timestamps")
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # also not as a reference
_MOST_FIELDS, _MOST_PARTS = 10_000, 12


def is_form(headers: Mapping[str, str]) -> bool:
    """Return whether a request speaks the query protocol."""
    return "X-Amz-Target" not in headers and headers.get("Content-Type", "").partition(";")[0].strip().lower() == FORM


def answered(body: bytes, handle: Callable[[str, Mapping[str, Any]], Mapping[str, Any]]) -> tuple[int, bytes]:
    """Return the HTTP status and the XML that answer a form.

    Parameters
    ----------
    body : bytes
    handle : callable
        Gets the action and its request as JSON has it, and returns the answer as JSON has it, or raises ShadowsimError.
    """
    root: ElementTree.Element
    try:
        request = parsed(body)
        action = str(request.pop("Action", ""))
        found = handle(action, request)
    except ShadowsimError as error:
        root = ElementTree.Element("ErrorResponse", xmlns=NAMESPACE)
        _fill(root, {"Error": {"Type": "Sender", "Code": error.code, "Message": str(error)}, "RequestId": str(uuid4())})
        return error.http_status, ElementTree.tostring(root)
    root = ElementTree.Element(f"{action}Response", xmlns=NAMESPACE)
    _fill(root, {f"{action}Result": found, "ResponseMetadata": {"RequestId": str(uuid4())}})
    return 200, ElementTree.tostring(root)


def parsed(body: bytes) -> dict[str, Any]:
    """Return a form's request as JSON has it.

    Raises
    ------
    SerializationError
        It is no form, or its names do not fit together.
    """
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise SerializationError("The body is no form.") from None
    request: dict[str, Any] = {}
    for name, value in fields:
        parts = name.split(".")
        owner = request
        for part in parts[:-1]:
            owner = owner.setdefault(part, {})
            if not isinstance(owner, dict) or len(parts) > _MOST_PARTS:
                raise SerializationError("The form's names do not fit together.")
        owner[parts[-1]] = value
    found: dict[str, Any] = _as_json("", request)
    return found


def _as_json(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        items = value.get("member")
        if isinstance(items, dict) and all(key.isdecimal() and len(key) < 10 for key in items):
            return [_as_json("", items[key]) for key in sorted(items, key=int)]
        return {key: _as_json(key, item) for key, item in value.items()}
    if name in _NUMBERS and value.isascii() and value.isdecimal() and len(value) < 10:
        return int(value)
    return value == "true" if name in _FLAGS else value


def _fill(element: ElementTree.Element, value: Any, name: str = "") -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if name in _MAPS:
                _fill(ElementTree.SubElement(element, "entry"), {"key": key, "value": item})
            else:
                _fill(ElementTree.SubElement(element, key), item, key)
    elif isinstance(value, list):
        for item in value:
            _fill(ElementTree.SubElement(element, "member"), item, name)
    elif name in _TIMES:
        element.text = datetime.fromtimestamp(value, UTC).isoformat().replace("+00:00", "Z")
    else:
        element.text = _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", str(value))
