"""Two answers side by side: bodies as values, and their fields one by one.

A body is read by its content type, and by the encoding of its capture where the type says nothing: an experiment that
lists no content types stores JSON in base64, too.

* JSON, JSON lines: objects, lists, numbers, texts.
* CSV: a list of rows, a row being {column number: cell}, so that columns stay apart; a cell that reads as a number is
  one.
* application/x-npy: an array, never pickled objects.
* anything else, or what is not what it claims to be: bytes, equal or not.

A field has a path: `$.predictions[*].score`, places in a list being one field; `$[*][2]` is column 2 of a CSV body. To
ignore fields there is a subset of JSONPath (RFC 9535): names, `['names']`, places, `*` for all names or places.
JMESPath, which botocore brings along, selects values but cannot leave them out.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from io import BytesIO, StringIO
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from shadowsim.captures.record import CSV, JSON, Payload
from shadowsim.errors import InputError, shown

Steps = tuple[str | int | None, ...]  # None is the wildcard
Live = tuple[tuple[str, Steps], ...]  # paths as given, each with the steps that are still to come


class _Missing:
    """What one of two answers does not have."""


MISSING = _Missing()
_STEP = re.compile(
    r"""(?: \.? (?P<name> [^\W\d][\w-]* )   # .name, or a name at the start
          | \. (?P<any> \*)
          | \[ \s* (?: (?P<place> \d{1,9}) | (?P<all> \*) | '(?P<single> [^']* )' | "(?P<double> [^"]* )" ) \s* \] )""",
    re.VERBOSE,
)
_LINES = re.compile(r"(?:x-)?(?:json-?lines|jsonl|ndjson)$")
_ARRAY = 16  # numbers in a list from which an array is faster


class Field(NamedTuple):
    """What two answers have at one path: two numbers, two arrays of numbers, or anything else, equal or not.

    Things that are not numbers and are equal without being alike (two arrays of texts) are one object. `MISSING` stands
    for what one of the answers does not have.
    """

    path: str
    source: Any
    shadow: Any


class Ignored:
    """Fields to leave out.

    Parameters
    ----------
    paths : sequence of str
        `$.a.b`, `a.b`, `$.items[*].id`, `$['a b']`, `$[0]`.

    Attributes
    ----------
    used : set of str
        The paths that matched something so far: one that never does may be misspelt.

    Raises
    ------
    InputError
        When a path is not of that subset of JSONPath.
    """

    def __init__(self, paths: Sequence[str]):
        self.paths = tuple(paths)
        self.used: set[str] = set()
        self.live: Live = tuple((text, _steps(text)) for text in self.paths)

    def below(self, live: Live, step: str | int) -> Live | None:
        """Return what is left of some paths below a step; None when a path ends there, so that all below is ignored."""
        left = []
        for text, steps in live:
            if steps[0] is None or steps[0] == step:
                if len(steps) == 1:
                    self.used.add(text)
                    return None
                left.append((text, steps[1:]))
        return tuple(left)


def value_of(payload: Payload) -> Any:
    """Return a body as the value that it stands for, or as bytes."""
    kind = payload.media_type.partition("/")[2]
    try:
        if kind in ("x-npy", "npy"):
            # Only the array format: numpy.load would also open archives of arrays.
            return np.lib.format.read_array(BytesIO(payload.body), allow_pickle=False)
        if _LINES.match(kind):
            return [json.loads(line) for line in payload.body.decode().split("\n") if line.strip()]
        if kind == "json" or kind.endswith("+json"):
            return json.loads(payload.body.decode())
        if kind == "csv":
            return _rows(payload.body.decode())
        if payload.encoding == JSON:
            return json.loads(payload.body.decode())
        if payload.encoding == CSV:
            return _rows(payload.body.decode())
    # Broken headers of arrays raise many kinds of errors; a size that is not there asks for memory.
    except (ValueError, TypeError, SyntaxError, csv.Error, OSError, OverflowError, MemoryError, RecursionError):
        pass
    return payload.body


def fields_of(source: Any, shadow: Any, ignored: Ignored) -> Iterator[Field]:
    """Yield the fields of two answers.

    Parameters
    ----------
    source, shadow : object
        From `value_of`.
    ignored : Ignored
        Fields that are left out, whatever they hold and whether or not both answers have them.
    """
    stack: list[tuple[str, Any, Any, Live]] = [("$", source, shadow, ignored.live)]
    while stack:  # not recursive: an answer may be nested as deep as it likes
        path, a, b, live = stack.pop()
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            yield from _arrays(path, a, b, live, ignored)
        elif isinstance(a, dict) and isinstance(b, dict):
            for name in reversed(list({**a, **b})):
                left = ignored.below(live, name) if live else live
                if left is not None:
                    stack.append((path + _written(name), a.get(name, MISSING), b.get(name, MISSING), left))
        elif isinstance(a, list) and isinstance(b, list):
            arrays = None if live or len(a) != len(b) or len(a) < _ARRAY else _as_arrays(a, b)
            if arrays is not None:
                yield Field(f"{path}[*]", *arrays)
                continue
            for place, (one, other) in reversed(list(enumerate(zip_longest(a, b, fillvalue=MISSING)))):
                left = ignored.below(live, place) if live else live
                if left is not None:
                    stack.append((f"{path}[*]", one, other, left))
        else:
            yield Field(path, a, b)


def described(value: Any) -> str:
    """Return a value as a sentence shows it: short, on one line."""
    if value is MISSING:
        return "nothing"
    if isinstance(value, np.ndarray):
        first = ", ".join(shown(x) for x in value.flat[:6].tolist()) + (", ..." if value.size > 6 else "")
        return f"{value.dtype} array of shape {value.shape}: {first}"
    if isinstance(value, bytes):
        try:
            return f"'{shown(value.decode())}'"
        except UnicodeDecodeError:
            return f"{len(value)} bytes, {value[:16].hex()}{'...' if len(value) > 16 else ''}"
    return f"'{shown(value)}'" if isinstance(value, str) else shown(value)


def _steps(text: str) -> Steps:
    rest = text.strip().removeprefix("$")
    steps: list[str | int | None] = []
    at = 0
    while at < len(rest):
        found = _STEP.match(rest, at)
        # A name without a dot is the first of all: "a.b" is "$.a.b".
        if found is None or (found["name"] and rest[at] != "." and (at or text.strip().startswith("$"))):
            raise InputError("ignore", "must be a JSON path of names, places and *, as $.items[*].id", text)
        name = next((n for n in (found["name"], found["single"], found["double"]) if n is not None), None)
        steps.append(int(found["place"]) if found["place"] else name)
        at = found.end()
    if not steps:
        raise InputError("ignore", "must name a field below the root, as $.id", text)
    return tuple(steps)


def _written(name: str | int) -> str:
    if isinstance(name, int):
        return f"[{name}]"
    return f".{name}" if name.isidentifier() else f"[{name!r}]"


def _rows(text: str) -> list[dict[int, Any]]:
    return [dict(enumerate(map(_cell, row))) for row in csv.reader(StringIO(text, newline="")) if row]


def _cell(text: str) -> object:
    if "_" in text:  # Python would take 1_000 for a number
        return text
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def _as_arrays(a: list[Any], b: list[Any]) -> tuple[Any, Any] | None:
    """Return two lists as arrays when they hold nothing but numbers that arrays can hold."""
    if not {*map(type, a), *map(type, b)} <= {int, float}:
        return None
    one, other = np.asarray(a), np.asarray(b)
    return (one, other) if one.dtype.kind in "if" and other.dtype.kind in "if" else None


def _arrays(path: str, a: Any, b: Any, live: Live, ignored: Ignored) -> Iterator[Field]:
    if a.shape != b.shape or a.dtype.kind not in "biuf" or b.dtype.kind not in "biuf":
        texts = a.dtype.kind == b.dtype.kind == "U"  # whose types differ by the length of the longest
        same = a.shape == b.shape and (np.array_equal(a, b) if texts else _bits(a) == _bits(b))
        yield Field(path, a, a if same else b)
        return
    kept = np.ones(a.shape, dtype=bool)
    for text, steps in live:
        inside = all(s is None or (isinstance(s, int) and s < n) for s, n in zip(steps, a.shape, strict=False))
        if inside and len(steps) <= a.ndim:
            ignored.used.add(text)
            index: Any = tuple(slice(None) if s is None else s for s in steps)
            kept[index] = False
    yield Field(path + "[*]" * a.ndim, a[kept], b[kept])


def _bits(array: Any) -> tuple[Any, bytes]:
    return array.dtype, array.tobytes()
