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

How far answers lie apart, field by field, over any number of pairs in bounded memory.

Numbers agree when |shadow - source| <= atol + rtol |source|, numpy.isclose's rule with the source for the reference;
NaN agrees with NaN, an infinity with itself. Everything else agrees when it is equal. An integer and a float of one
value are equal, true and 1 are not.

Quantiles of |difference| come from log-linear buckets, 128 to a factor of two, so they are within 0.4 % of the exact
ones; means and the greatest difference are exact. A field holds the few thousand buckets that its differences fill, and
there are at most `MAX_FIELDS` fields.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO, StringIO
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shadowsim.captures.record import CSV, JSON, CapturedPayload
from shadowsim.errors import InputError, shown

if TYPE_CHECKING:
    import pandas as pd

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


def value_of(payload: CapturedPayload) -> Any:
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


Floats = NDArray[np.float64]

MAX_FIELDS = 200  # answers keyed by names that never come twice would make a field of each
OTHERS = "(other fields)"
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_AT_ONCE = 4096  # numbers that wait to be counted together
_SHIFT = np.uint64(45)  # leaves the exponent and 7 bits of the mantissa


class Differences:
    """Differences of pairs of answers, added pair by pair.

    Parameters
    ----------
    rtol, atol : float
        Tolerances of numbers, relative to the source's and absolute.
    """

    def __init__(self, rtol: float, atol: float):
        self.rtol, self.atol = rtol, atol
        self._fields: dict[str, _Field] = {}

    def add(self, fields: Iterable[Field]) -> str:
        """Take the fields of a pair; return the first disagreement in a sentence, "" when the answers agree."""
        why = ""
        unequal: set[_Field] = set()
        for path, source, shadow in fields:
            known = self._field(path)
            n_values, n_unequal, values = known.take(source, shadow, self.rtol, self.atol)
            known.n_values += n_values
            if n_unequal:
                known.n_unequal += n_unequal
                # A field comes several times in a pair, once for each place of a list.
                known.n_pairs_unequal += known not in unequal
                unequal.add(known)
                why = why or f"{path}: source {described(values[0])}, shadow {described(values[1])}"
        return why

    def frame(self) -> pd.DataFrame:
        """Return a row a field, in the order in which they were met.

        Columns: `path`; `n_values` compared and `n_unequal` of them beyond tolerance; `n_pairs_unequal`, the pairs with
        such a value; `n_numbers`, those of the values that are finite numbers on both sides; over these `bias` (mean of
        shadow minus source), `abs_mean`, `abs_p50`, `abs_p90`, `abs_p99`, `abs_max` of |shadow - source|, and
        `relative_...` likewise of |shadow - source| / |source| (infinite where the source is 0 and the shadow is not).
        Missing without numbers.
        """
        import pandas as pd

        rows = [{"path": path, **field.row()} for path, field in self._fields.items()]
        names = ["path", *_Field().row()]
        return pd.DataFrame(rows, columns=names).astype(
            {name: "str" if name == "path" else "int64" if name.startswith("n_") else "float64" for name in names}
        )

    def _field(self, path: str) -> _Field:
        if path not in self._fields:
            path = path if len(self._fields) < MAX_FIELDS else OTHERS
            if path not in self._fields:
                self._fields[path] = _Field()
        return self._fields[path]


class _Spread:
    """Mean, greatest and quantiles of non-negative numbers."""

    __slots__ = ("buckets", "greatest", "n", "total")

    def __init__(self) -> None:
        self.n, self.total, self.greatest = 0, 0.0, 0.0
        self.buckets: Counter[int] = Counter()

    def add(self, values: Floats) -> None:
        self.n += values.size
        self.total += float(values.sum())
        self.greatest = max(self.greatest, float(values.max()))
        # The bits of positive floats are in the order of the floats.
        found, counts = np.unique(values.view(np.uint64) >> _SHIFT, return_counts=True)
        self.buckets.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))

    def row(self, name: str) -> dict[str, float]:
        row = {f"{name}_mean": self.total / self.n if self.n else math.nan}
        row |= {f"{name}_{p}": self._quantile(q) for p, q in QUANTILES.items()}
        return row | {f"{name}_max": self.greatest if self.n else math.nan}

    def _quantile(self, q: float) -> float:
        """Return the least number with at least a share `q` of all at or below it, to within its bucket."""
        if not self.n:
            return math.nan
        keys = np.array(sorted(self.buckets), dtype=np.uint64)
        below = np.cumsum([self.buckets[int(key)] for key in keys])
        key = keys[np.searchsorted(below, math.ceil(q * self.n))]
        low, high = (np.array([key, key + np.uint64(1)]) << _SHIFT).view(np.float64)
        # The lowest bucket holds 0, the highest infinity, which nothing lies above.
        middle = low if low == 0.0 or not math.isfinite(high) else (low + high) / 2.0
        return min(float(middle), self.greatest)


class _Field:
    """What is known of one field."""

    __slots__ = ("absolute", "bias", "n_pairs_unequal", "n_unequal", "n_values", "relative", "waiting")

    def __init__(self) -> None:
        self.n_values = self.n_unequal = self.n_pairs_unequal = 0
        self.bias = 0.0
        self.absolute, self.relative = _Spread(), _Spread()
        self.waiting: list[tuple[float, float]] = []

    def take(self, source: Any, shadow: Any, rtol: float, atol: float) -> tuple[int, int, tuple[Any, Any]]:
        """Return how many values there were, how many of them disagree, and the first two that do."""
        kinds = type(source), type(shadow)
        if kinds[0] in (float, int) and kinds[1] in (float, int):
            agree = _close(source, shadow, rtol, atol)
            self.waiting.append((_float(source), _float(shadow)))
            if len(self.waiting) >= _AT_ONCE:
                self._count()
            return 1, not agree, (source, shadow)
        if source is shadow:
            return 1, 0, (source, shadow)
        if np.ndarray not in kinds:
            return 1, kinds[0] is not kinds[1] or source != shadow, (source, shadow)
        if kinds[0] is not kinds[1] or {source.dtype.kind, shadow.dtype.kind} - set("biuf"):
            return 1, 1, (source, shadow)
        if source.shape != shadow.shape:
            return 1, 1, (source, shadow)
        one, other = source.astype(np.float64), shadow.astype(np.float64)
        with np.errstate(all="ignore"):
            equal = (source == shadow) | ((one != one) & (other != other))
            limit = atol + rtol * np.abs(one)
            near = (np.abs(other - one) <= limit) & (limit > 0.0)  # without tolerance 2**53 + 1 is not 2**53
        unequal = np.flatnonzero(~(equal | (near & np.isfinite(one) & np.isfinite(other))))
        self._measure(one, other)
        first = (source.flat[unequal[0]].item(), shadow.flat[unequal[0]].item()) if unequal.size else (source, shadow)
        return source.size, unequal.size, first

    def row(self) -> dict[str, float]:
        self._count()
        counts = {"n_values": self.n_values, "n_unequal": self.n_unequal, "n_pairs_unequal": self.n_pairs_unequal}
        n = self.absolute.n
        figures = {"n_numbers": n, "bias": self.bias / n if n else math.nan}
        return counts | figures | self.absolute.row("abs") | self.relative.row("relative")

    def _count(self) -> None:
        if self.waiting:
            pairs = np.array(self.waiting, dtype=np.float64)
            self.waiting.clear()
            self._measure(pairs[:, 0], pairs[:, 1])

    def _measure(self, source: Floats, shadow: Floats) -> None:
        finite = np.isfinite(source) & np.isfinite(shadow)
        one, other = source[finite], shadow[finite]
        if not one.size:
            return
        with np.errstate(all="ignore"):  # the difference of two huge numbers is infinite
            difference = other - one
            absolute = np.abs(difference)
            relative = np.where(absolute == 0.0, 0.0, absolute / np.abs(one))
            self.bias += float(difference.sum())
            self.absolute.add(absolute)
            self.relative.add(relative)


def _close(source: float, shadow: float, rtol: float, atol: float) -> bool:
    if source == shadow or (source != source and shadow != shadow):
        return True
    try:
        distance, size = abs(float(shadow - source)), abs(float(source))
    except OverflowError:  # an integer beyond the floats
        return False
    return math.isfinite(size) and math.isfinite(distance) and distance <= atol + rtol * size


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
