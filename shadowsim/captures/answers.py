"""Parses captured answers into values and measures their differences field by field.

The contents of a pair decide its format, since many servers label JSON as text/html, text/plain or nothing: the first
format in which both bodies parse. Labels, or captures' encodings where the content type says nothing, only decide
between formats that both fit.

* npy, known by its first bytes: an array, never pickled objects.
* JSON, JSON lines: objects, lists, numbers, texts.
* CSV: a list of rows; a row is {column number: cell}, so that columns stay apart; a cell that reads as a number is one.
  Two bodies that are not both labelled as CSV are CSV only if their cells are numbers and texts at the same places of a
  full table with several cells: other texts hold commas, too.
* anything else, and bodies of more than `MAX_PARSED_BYTES`: bytes, equal or not.

A field has a path: in `$.predictions[*].score` all places of a list are one field; `$[*][2]` is column 2 of a CSV body.
Fields to ignore are written in a subset of JSONPath (RFC 9535): names, `['names']`, places, and `*` for all names or
places. (JMESPath, which botocore brings along, selects values but cannot leave them out.)

Numbers agree when |shadow - source| <= atol + rtol |source|, numpy.isclose's rule with the source as reference; NaN
agrees with NaN, an infinity with itself. Other values agree when they are equal. An integer and a float of one value
are equal; true and 1 are not. Integers that floats cannot hold are compared and subtracted exactly.

Memory is bounded for any number of pairs. Quantiles of |difference| come from log-linear buckets, 128 per factor of
two, and are within 0.4 % of the exact ones; means and the greatest difference are exact. A field holds the few thousand
buckets that its differences fill, and there are at most `MAX_FIELDS` fields.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from io import BytesIO, StringIO
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shadowsim.arrays import Floats
from shadowsim.captures.record import BASE64, CSV, JSON, CapturedPayload
from shadowsim.errors import InputError, shown
from shadowsim.histogram import edges_of, keys_of, place_of

if TYPE_CHECKING:
    import pandas as pd

Steps = tuple[str | int | None, ...]  # None is the wildcard
OpenPaths = tuple[tuple[str, Steps], ...]  # paths as given, each with its remaining steps


class _Missing:
    """The type of `MISSING`, which stands for a value that one of two answers lacks."""


MISSING = _Missing()
_STEP = re.compile(
    r"""(?: \.? (?P<name> [^\W\d][\w-]* )   # .name, or a name at the start
          | \. (?P<any> \*)
          | \[ \s* (?: (?P<place> \d{1,9}) | (?P<all> \*) | '(?P<single> [^']* )' | "(?P<double> [^"]* )" ) \s* \] )""",
    re.VERBOSE,
)
_LINES = re.compile(r"(?:x-)?(?:json-?lines|jsonl|ndjson)$")
_MIN_ARRAY = 16  # numbers in a list from which an array is faster
_MAX_EXACT = 2**53  # floats hold all integers up to here

FORMATS = ("auto", "json", "csv", "bytes")
MAX_PARSED_BYTES = 2**25  # more than an endpoint's largest answer of 25 MB
_LINES_LABEL = "JSON lines"
_NPY_MAGIC = b"\x93NUMPY"
# Broken array headers raise many kinds of errors; a wrong size can exhaust memory.
_NOT_PARSED = (ValueError, TypeError, SyntaxError, csv.Error, OSError, OverflowError, MemoryError, RecursionError)


class Field(NamedTuple):
    """The values of two answers at one path: two numbers, two arrays of numbers, or any other two values.

    Equal arrays that are not numbers are given as one object. `MISSING` stands for a value that one answer lacks.
    """

    path: str
    source: Any
    shadow: Any


class IgnoredFields:
    """The paths of fields to leave out of a comparison.

    Parameters
    ----------
    paths : sequence of str
        `$.a.b`, `a.b`, `$.items[*].id`, `$['a b']`, `$[0]`.

    Attributes
    ----------
    used : set of str
        The paths that have matched a field; one that never matches may be misspelt.

    Raises
    ------
    InputError
        A path is not in that subset of JSONPath.
    """

    def __init__(self, paths: Sequence[str]):
        self.paths = tuple(paths)
        self.used: set[str] = set()
        self.open_paths: OpenPaths = tuple((text, _steps(text)) for text in self.paths)

    def below(self, open_paths: OpenPaths, step: str | int) -> OpenPaths | None:
        """Return the paths that go on below a step; None when a path ends there, so that all below is ignored."""
        longer = []
        for text, steps in open_paths:
            if steps[0] is None or steps[0] == step:
                if len(steps) == 1:
                    self.used.add(text)
                    return None
                longer.append((text, steps[1:]))
        return tuple(longer)


def values_of(source: CapturedPayload, shadow: CapturedPayload, form: str = "auto") -> tuple[Any, Any]:
    """Return two bodies as the values that they encode in one format, or both as bytes.

    Parameters
    ----------
    source, shadow : CapturedPayload
    form : {"auto", "json", "csv", "bytes"}
        The format, by default the one that fits both; "json" includes JSON lines. Bodies that do not fit are bytes.
    """
    if max(len(source.body), len(shadow.body)) <= MAX_PARSED_BYTES:
        for parse in _parsers(source, shadow, form):
            try:
                values = parse(source.body, shadow.body)
            except _NOT_PARSED:
                continue
            if values is not None:
                return values
    return source.body, shadow.body


def fields_of(source: Any, shadow: Any, ignored: IgnoredFields) -> Iterator[Field]:
    """Yield the fields of two answers, in order.

    Parameters
    ----------
    source, shadow : object
        From `value_of`.
    ignored : IgnoredFields
        Fields to leave out, whatever their values and whether or not both answers have them.
    """
    stack: list[tuple[str, Any, Any, OpenPaths]] = [("$", source, shadow, ignored.open_paths)]
    while stack:  # not recursive, because an answer may be nested deeper than Python's stack
        path, a, b, open_paths = stack.pop()
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            yield from _array_fields(path, a, b, open_paths, ignored)
        elif isinstance(a, dict) and isinstance(b, dict):
            for name in reversed(list({**a, **b})):
                below = ignored.below(open_paths, name) if open_paths else open_paths
                if below is not None:
                    stack.append((path + _step_text(name), a.get(name, MISSING), b.get(name, MISSING), below))
        elif isinstance(a, list) and isinstance(b, list):
            arrays = None if open_paths or len(a) != len(b) or len(a) < _MIN_ARRAY else _as_arrays(a, b)
            if arrays is not None:
                yield Field(f"{path}[*]", *arrays)
                continue
            for place, items in reversed(list(enumerate(zip_longest(a, b, fillvalue=MISSING)))):
                below = ignored.below(open_paths, place) if open_paths else open_paths
                if below is not None:
                    stack.append((f"{path}[*]", *items, below))
        else:
            yield Field(path, a, b)


def value_text(value: Any) -> str:
    """Return a value as short text on one line."""
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
    position = 0
    while position < len(rest):
        step = _STEP.match(rest, position)
        # Only the first name may stand without a dot: "a.b" is "$.a.b".
        if step is None or (step["name"] and rest[position] != "." and (position or text.strip().startswith("$"))):
            raise InputError("ignore", "must be a JSON path of names, places and *, as $.items[*].id", text)
        name = next((n for n in (step["name"], step["single"], step["double"]) if n is not None), None)
        steps.append(int(step["place"]) if step["place"] else name)
        position = step.end()
    if not steps:
        raise InputError("ignore", "must name a field below the root, as $.id", text)
    return tuple(steps)


def _step_text(name: str | int) -> str:
    if isinstance(name, int):
        return f"[{name}]"
    return f".{name}" if name.isidentifier() else f"[{name!r}]"


Parser = Callable[[bytes, bytes], tuple[Any, Any] | None]


def _parsers(source: CapturedPayload, shadow: CapturedPayload, form: str) -> tuple[Parser, ...]:
    """Return the parsers to try, in order."""
    if form != "auto":
        return {"json": (_json_values, _json_lines), "csv": (_csv_values,), "bytes": ()}[form]
    if source.body.startswith(_NPY_MAGIC) and shadow.body.startswith(_NPY_MAGIC):
        return (_arrays,)
    labels = {_label(source), _label(shadow)}
    if _LINES_LABEL in labels:
        return _json_lines, _json_values, _csv_table
    if labels == {CSV} and not all(payload.body.lstrip()[:1] in (b"[", b"{") for payload in (source, shadow)):
        return (_csv_values,)  # a number alone is JSON, too
    return _json_values, _json_lines, _csv_values if labels == {CSV} else _csv_table


def _label(payload: CapturedPayload) -> str:
    """Return the format that a payload is said to have, "" when it is none that can be parsed."""
    kind = payload.media_type.partition("/")[2]
    if _LINES.match(kind):
        return _LINES_LABEL
    if kind == "json" or kind.endswith("+json"):
        return JSON
    return CSV if kind == "csv" else "" if payload.encoding == BASE64 else payload.encoding


def _arrays(source: bytes, shadow: bytes) -> tuple[Any, Any]:
    # Only the array format: numpy.load would also open archives of arrays.
    a, b = (np.lib.format.read_array(BytesIO(body), allow_pickle=False) for body in (source, shadow))
    return a, b


def _json_values(source: bytes, shadow: bytes) -> tuple[Any, Any]:
    return json.loads(_text(source)), json.loads(_text(shadow))


def _json_lines(source: bytes, shadow: bytes) -> tuple[Any, Any] | None:
    a, b = ([json.loads(line) for line in _text(body).split("\n") if line.strip()] for body in (source, shadow))
    return (a, b) if a and b else None


def _csv_values(source: bytes, shadow: bytes) -> tuple[Any, Any]:
    return list(_csv_rows(_text(source))), list(_csv_rows(_text(shadow)))


def _csv_table(source: bytes, shadow: bytes) -> tuple[Any, Any] | None:
    """Return two bodies as CSV if their cells are of the same kinds in a full table, else None."""
    tables: tuple[list[dict[int, Any]], list[dict[int, Any]]] = ([], [])
    numbers = n_cells = 0
    for a, b in zip_longest(_csv_rows(_text(source)), _csv_rows(_text(shadow))):
        if a is None or b is None:
            return None
        kinds = [isinstance(cell, str) for cell in a.values()]
        if kinds != [isinstance(cell, str) for cell in b.values()] or len(kinds) != len((tables[0] or [a])[0]):
            return None
        n_cells += len(kinds)
        numbers += len(kinds) - sum(kinds)
        if len(kinds) == 1 and numbers < n_cells:  # lines of text, one of them a number
            return None
        tables[0].append(a)
        tables[1].append(b)
    return tables if n_cells > 1 and numbers else None


def _text(body: bytes) -> str:
    return body.decode("utf-8-sig")


def _csv_rows(text: str) -> Iterator[dict[int, Any]]:
    return (dict(enumerate(map(_csv_cell, row))) for row in csv.reader(StringIO(text, newline="")) if row)


def _csv_cell(text: str) -> object:
    if "_" in text:  # Python would take 1_000 for a number
        return text
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return text
    # Digits beyond the floats, or more of them than Python converts to an integer, are not infinity.
    return text if math.isinf(number) and any(map(str.isdigit, text)) else number


def _as_arrays(a: list[Any], b: list[Any]) -> tuple[Any, Any] | None:
    """Return two lists as arrays if they hold only numbers that arrays of floats represent exactly, else None."""
    kinds = {*map(type, a), *map(type, b)}
    if not kinds <= {int, float}:
        return None
    arrays = np.asarray(a), np.asarray(b)
    if any(array.dtype.kind not in "if" for array in arrays):
        return None
    return None if int in kinds and any(_beyond_exact(array).any() for array in arrays) else arrays


def _beyond_exact(array: Any) -> NDArray[np.bool_]:
    """Return where numbers are so large that an integer among them might not be a float."""
    beyond: NDArray[np.bool_] = array > _MAX_EXACT
    return beyond if array.dtype.kind in "bu" else beyond | (array < -_MAX_EXACT)


def _array_fields(path: str, a: Any, b: Any, open_paths: OpenPaths, ignored: IgnoredFields) -> Iterator[Field]:
    if a.shape != b.shape or a.dtype.kind not in "biuf" or b.dtype.kind not in "biuf":
        texts = a.dtype.kind == b.dtype.kind == "U"  # their dtype depends on the longest text
        same = a.shape == b.shape and (np.array_equal(a, b) if texts else _dtype_and_bytes(a) == _dtype_and_bytes(b))
        yield Field(path, a, a if same else b)
        return
    kept = np.ones(a.shape, dtype=bool)
    for text, steps in open_paths:
        inside = all(s is None or (isinstance(s, int) and s < n) for s, n in zip(steps, a.shape, strict=False))
        if inside and len(steps) <= a.ndim:
            ignored.used.add(text)
            index: Any = tuple(slice(None) if s is None else s for s in steps)
            kept[index] = False
    yield Field(path + "[*]" * a.ndim, a[kept], b[kept])


def _dtype_and_bytes(array: Any) -> tuple[Any, bytes]:
    return array.dtype, array.tobytes()


MAX_FIELDS = 200  # answers with ever new names would otherwise make a field of each
OTHERS = "(other fields)"
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_BATCH = 4096  # numbers that are collected before they are counted


class Differences:
    """Differences between answers, added pair by pair.

    Parameters
    ----------
    rtol, atol : float
        Tolerances for numbers, relative to the source and absolute.
    """

    def __init__(self, rtol: float, atol: float):
        self.rtol, self.atol = rtol, atol
        self._fields: dict[str, _FieldDifferences] = {}

    def add(self, fields: Iterable[Field]) -> str:
        """Add the fields of a pair; return a sentence on the first disagreement, "" when the answers agree."""
        why = ""
        unequal: set[_FieldDifferences] = set()
        for path, source, shadow in fields:
            field = self._field(path)
            n_values, n_unequal, values = field.compare(source, shadow, self.rtol, self.atol)
            field.n_values += n_values
            if n_unequal:
                field.n_unequal += n_unequal
                # A field comes several times in a pair, once per place of a list.
                field.n_pairs_unequal += field not in unequal
                unequal.add(field)
                why = why or f"{path}: source {value_text(values[0])}, shadow {value_text(values[1])}"
        return why

    def frame(self) -> pd.DataFrame:
        """Return one row per field, in the order in which they first occurred.

        Columns: `path`; `n_values` compared, and `n_unequal` among them beyond tolerance; `n_pairs_unequal`, the pairs
        with such a value; `n_numbers`, the values that are finite numbers on both sides; over these `bias` (mean of
        shadow minus source), `abs_mean`, `abs_p50`, `abs_p90`, `abs_p99`, `abs_max` of |shadow - source|, and
        `relative_...` likewise of |shadow - source| / |source| (infinite where the source is 0 and the shadow is not).
        These are missing for a field without numbers.
        """
        import pandas as pd

        rows = [{"path": path, **field.row()} for path, field in self._fields.items()]
        names = ["path", *_FieldDifferences().row()]
        return pd.DataFrame(rows, columns=names).astype(
            {name: "str" if name == "path" else "int64" if name.startswith("n_") else "float64" for name in names}
        )

    def _field(self, path: str) -> _FieldDifferences:
        if path not in self._fields:
            path = path if len(self._fields) < MAX_FIELDS else OTHERS
            if path not in self._fields:
                self._fields[path] = _FieldDifferences()
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
        found, counts = np.unique(keys_of(values), return_counts=True)
        self.buckets.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))

    def row(self, name: str) -> dict[str, float]:
        row = {f"{name}_mean": self.total / self.n if self.n else math.nan}
        row |= {f"{name}_{p}": self._quantile(q) for p, q in QUANTILES.items()}
        return row | {f"{name}_max": self.greatest if self.n else math.nan}

    def _quantile(self, q: float) -> float:
        """Return the least number with at least a share `q` of all at or below it, to within its bucket."""
        if not self.n:
            return math.nan
        keys = sorted(self.buckets)
        upto = np.cumsum([self.buckets[key] for key in keys])
        low, high = edges_of(keys[place_of(upto, math.ceil(q * self.n))])
        # The lowest bucket holds 0, the highest infinity, which nothing lies above.
        middle = low if low == 0.0 or not math.isfinite(high) else (low + high) / 2.0
        return min(middle, self.greatest)


class _FieldDifferences:
    """The counts and differences of one field."""

    __slots__ = ("absolute", "bias", "n_pairs_unequal", "n_unequal", "n_values", "relative", "waiting")

    def __init__(self) -> None:
        self.n_values = self.n_unequal = self.n_pairs_unequal = 0
        self.bias = 0.0
        self.absolute, self.relative = _Spread(), _Spread()
        self.waiting: list[tuple[float, float]] = []  # differences, absolute and relative

    def compare(self, source: Any, shadow: Any, rtol: float, atol: float) -> tuple[int, int, tuple[Any, Any]]:
        """Measure two values; return the numbers of values and of disagreements, and the first two that disagree."""
        kinds = type(source), type(shadow)
        if kinds[0] in (float, int) and kinds[1] in (float, int):
            difference = _difference(source, shadow)
            agree = _agree(source, shadow, difference, rtol, atol)
            if difference is not None:
                self.waiting.append((_clipped_float(difference), _relative(difference, source)))
                if len(self.waiting) >= _BATCH:
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
        if {source.dtype.kind, shadow.dtype.kind} & set("iu"):
            inexact = _beyond_exact(source) | _beyond_exact(shadow)
            if inexact.any():
                return self._compare_exactly(source, shadow, inexact, rtol, atol)
        x, y = source.astype(np.float64), shadow.astype(np.float64)
        with np.errstate(all="ignore"):
            equal = (source == shadow) | ((x != x) & (y != y))
            limit = atol + rtol * np.abs(x)
            near = (np.abs(y - x) <= limit) & (limit > 0.0)  # without tolerance no two long doubles are one
        unequal = np.flatnonzero(~(equal | (near & np.isfinite(x) & np.isfinite(y))))
        self._measure(x, y)
        first = (source.flat[unequal[0]].item(), shadow.flat[unequal[0]].item()) if unequal.size else (source, shadow)
        return source.size, unequal.size, first

    def _compare_exactly(
        self, source: Any, shadow: Any, inexact: NDArray[np.bool_], rtol: float, atol: float
    ) -> tuple[int, int, tuple[Any, Any]]:
        """Compare arrays with integers that floats cannot hold; these one by one, as Python's integers."""
        pairs = zip(source[inexact].tolist(), shadow[inexact].tolist(), strict=True)
        results = [
            self.compare(source[~inexact], shadow[~inexact], rtol, atol),
            *(self.compare(a, b, rtol, atol) for a, b in pairs),
        ]
        first = next((values for _, n_unequal, values in results if n_unequal), (source, shadow))
        return source.size, sum(n_unequal for _, n_unequal, _ in results), first

    def row(self) -> dict[str, float]:
        self._count()
        counts = {"n_values": self.n_values, "n_unequal": self.n_unequal, "n_pairs_unequal": self.n_pairs_unequal}
        n = self.absolute.n
        figures = {"n_numbers": n, "bias": self.bias / n if n else math.nan}
        return counts | figures | self.absolute.row("abs") | self.relative.row("relative")

    def _count(self) -> None:
        if self.waiting:
            differences = np.array(self.waiting, dtype=np.float64)
            self.waiting.clear()
            self._add(differences[:, 0], differences[:, 1])

    def _measure(self, source: Floats, shadow: Floats) -> None:
        finite = np.isfinite(source) & np.isfinite(shadow)
        x, y = source[finite], shadow[finite]
        if not x.size:
            return
        with np.errstate(all="ignore"):  # the difference of two huge numbers is infinite
            difference = y - x
            relative = np.where(difference == 0.0, 0.0, np.abs(difference) / np.abs(x))
        self._add(difference, relative)

    def _add(self, difference: Floats, relative: Floats) -> None:
        with np.errstate(all="ignore"):
            self.bias += float(difference.sum())
            self.absolute.add(np.abs(difference))
            self.relative.add(np.abs(relative))


def _difference(source: float, shadow: float) -> float | Fraction | None:
    """Return shadow minus source, exact where an integer is not a float; None for numbers that are not finite."""
    if not (_is_finite(source) and _is_finite(shadow)):
        return None
    if max(abs(source), abs(shadow)) <= _MAX_EXACT or type(source) is type(shadow) is float:
        return float(shadow) - float(source)
    return Fraction(shadow) - Fraction(source)


def _relative(difference: float | Fraction, source: float) -> float:
    """Return |difference| / |source|: infinite for a source of 0, and 0 for equal numbers."""
    if difference == 0 or source == 0:
        return 0.0 if difference == 0 else math.inf
    if isinstance(difference, Fraction):
        return _clipped_float(abs(difference / Fraction(source)))
    return abs(difference) / abs(source)


def _agree(source: float, shadow: float, difference: float | Fraction | None, rtol: float, atol: float) -> bool:
    if source == shadow or (source != source and shadow != shadow):
        return True
    if difference is None:
        return False
    if isinstance(difference, Fraction):
        return abs(difference) <= Fraction(atol) + Fraction(rtol) * abs(Fraction(source))
    return math.isfinite(difference) and abs(difference) <= atol + rtol * abs(source)


def _is_finite(number: float) -> bool:
    return isinstance(number, int) or math.isfinite(number)


def _clipped_float(number: float | Fraction) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
