"""Reads the data files that a scenario names (CSV or Parquet), and recorded arrivals from them.

A file's path is relative to the scenario, or `builtin:NAME` of the package. pandas is imported by the functions that
need it.

A trace is a table with one row per request. One column holds its time; every other numeric column (token counts,
bytes) can be used by a linear law. Rows need not be in order. Times are integer nanoseconds until the first one has
been subtracted, because a float64 of seconds since 1970 resolves only a quarter of a microsecond.

Times are recognised in this order:

* a Parquet timestamp, with or without zone;
* ISO 8601 text with any number of digits after the second; without a zone it is UTC;
* numbers. A column name that ends in `_s`, `_ms`, `_us` or `_ns` gives the unit. Otherwise the magnitude does: when the
  largest number is below 1e11 they are seconds (since 1970 or since anything else), below 1e14 milliseconds, below
  1e17 microseconds, else nanoseconds. For times since 1970 that is unambiguous from 1973 to the year 5138.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from lzma import LZMAError
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shadowsim.arrays import Floats, Ints
from shadowsim.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd


COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
BUILTIN = "builtin:"


def resolve(path: str, base_dir: Path) -> Path:
    """Return the file of a path in a scenario: relative to `base_dir`, or `builtin:NAME` of the package."""
    if path.startswith(BUILTIN):
        return Path(str(files("shadowsim.scenario") / "data" / f"{path.removeprefix(BUILTIN)}.csv"))
    return base_dir / path


def read_table(file: Path, path: str) -> pd.DataFrame:
    """Read a CSV or Parquet file with at least one row, or raise `InputError` naming `path` and the file."""
    import pandas as pd

    try:
        with file.open("rb") as stream:
            head = stream.read(4096)
        if head.startswith(b"PAR1"):
            table = pd.read_parquet(file)
            # A named index was a column before pandas wrote the file.
            table = table.reset_index() if table.index.names != [None] else table
            names = list(map(str, table.columns))
        elif b"\0" in head and file.suffix not in COMPRESSED:
            problem = f"is neither CSV nor Parquet, but binary; compressed CSV ends in {', '.join(COMPRESSED)}"
            raise InputError(path, f"{file} {problem}")
        else:
            # pandas would rename the second of two columns with one name.
            names = pd.read_csv(file, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0].to_list()
            # index_col=False: if rows are longer than the header, pandas would otherwise take the first column for an
            # index; now it warns, and the warning is made an error.
            with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
                table = pd.read_csv(file, index_col=False, low_memory=False)
    except FileNotFoundError:
        raise InputError(path, f"there is no file {file}") from None
    except IsADirectoryError:
        raise InputError(path, f"must be a file, and {file} is a directory") from None
    except pd.errors.EmptyDataError:
        raise InputError(path, f"{file} cannot be read as CSV or Parquet: it is empty") from None
    except InputError:
        raise
    # EOFError, zlib's and lzma's errors: compressed files that are truncated or not compressed.
    except (OSError, ValueError, EOFError, LZMAError, zlib.error, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(path, f"{file} cannot be read as CSV or Parquet ({reason})") from None
    if table.empty:
        raise InputError(path, f"{file} has no rows")
    names = [name.strip() for name in names]
    twice = next((name for i, name in enumerate(names) if name in names[:i] and name), None)
    if twice is not None:
        raise InputError(path, f"{file} must not have two columns of one name", twice)
    table.columns = table.columns.map(str).str.strip()
    return table


def sizes(column: pd.Series[Any]) -> tuple[Floats | None, tuple[int, object] | None]:
    """Return a column as float64 (None when it is not numeric), and its first row without a finite number >= 0."""
    import pandas as pd
    from pandas.api import types

    numeric = types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype)
    # Texts that are not numbers, dates and truth values become NaN, which marks the row to report.
    readable = column if numeric else pd.to_numeric(column.astype(str), errors="coerce")
    values: Floats = readable.to_numpy(np.float64, na_value=np.nan)
    bad = ~(np.isfinite(values) & (values >= 0.0))
    if not numeric and not bad.any():
        bad[0] = True
    row = int(np.argmax(bad))
    return (values if numeric else None), ((row + 1, column.iloc[row]) if bad[row] else None)


def listing(names: Iterable[str]) -> str:
    """Return names for an error message, shortened when they are many or long."""
    names = [name if len(name) <= 40 else name[:37] + "..." for name in names]
    shown = ", ".join(repr(name) if not name.isprintable() else name for name in names[:12])
    return (shown or "none") + (f" and {len(names) - 12} more" if len(names) > 12 else "")


# In order of preference, lower case, without a unit's suffix.
TIME_COLUMNS = (
    "timestamp",
    "arrival",
    "arrived_at",
    "arrival_time",
    "time",
    "datetime",
    "date",
    "ts",
    "inferencetime",
    "request_time",
    "start_time",
)
NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One pass of a trace: arrivals in order, and the columns beside them.

    The trace is played `repeat` times: request i comes at `arrival_s[i % n] + (i // n) * pass_s`, and its columns are
    those of row i % n.

    Attributes
    ----------
    arrival_s : ndarray of float64, shape (n,)
        Seconds from the first arrival, which is at 0.0; non-decreasing. Read-only, as are all arrays here.
    columns : mapping of str to ndarray of float64, shape (n,)
        Every numeric column of the file but the time, in the order of the arrivals.
    flaws : mapping of str to (int, object)
        For each column that cannot be used as a size: the first row (counted from 1, the header left out) that holds no
        finite number >= 0, and its value. It is an error only when the column is used.
    pass_s : float
        Length of a pass: from its first to its last arrival, and one mean gap more.
    repeat : int
        Number of passes.
    """

    arrival_s: Floats
    columns: Mapping[str, Floats]
    flaws: Mapping[str, tuple[int, object]]
    pass_s: float
    repeat: int = 1

    @property
    def n_requests(self) -> int:
        """Number of requests in all passes."""
        return len(self.arrival_s) * self.repeat

    @property
    def span_s(self) -> float:
        """Time of the last request of the last pass."""
        return float(self.arrival_s[-1]) + (self.repeat - 1) * self.pass_s

    def n_before(self, horizon_s: float) -> int:
        """Return the number of requests before the horizon."""
        passes = np.arange(self.repeat) * self.pass_s
        return int(np.searchsorted(self.arrival_s, horizon_s - passes).sum())

    def column(self, name: str, path: str, others: Iterable[str] = ()) -> Floats:
        """Return a column of sizes, or raise `InputError` naming `path`, and the known columns or the first bad row.

        `others` are names to suggest beside those of columns.
        """
        if name in self.flaws:
            row, value = self.flaws[name]
            raise InputError(path, f"needs finite numbers >= 0 in trace column {name}, which fails in row {row}", value)
        if name not in self.columns:
            known = list(self.columns)
            hint = nearest(name, [*known, *others])
            raise InputError(path, f"the trace has no column {name!r}; it has {listing(known)}{hint}")
        return self.columns[name]


def read_trace(file: Path, time_column: str | None, speed: float, repeat: int, path: str) -> Trace:
    """Read a trace, to be played `speed` times as fast and `repeat` times in a row.

    Parameters
    ----------
    file : Path
        CSV (also compressed, by its suffix) or Parquet.
    time_column : str or None
        The column with the times; None for one with a usual name (`TIME_COLUMNS`, in any case).
    speed : float
        2.0 halves all times.
    repeat : int
        Number of passes. A pass lasts one mean gap longer than its span, so that the rate over all passes is that of
        the trace.
    path : str
        Path of the block in the scenario, for errors.

    Raises
    ------
    InputError
        When the file is missing, not a table, empty, has no such column or one twice, or a row without a readable time.
    """
    stamp = _stamp(file, f"{path}.path")
    once = _read_once(file.resolve(), *stamp, time_column, path)
    if repeat > 1 and once.pass_s == 0.0:
        raise InputError(f"{path}.repeat", "must be 1 for a trace whose requests all come at one time", repeat)
    return Trace(_frozen(once.arrival_s / speed), once.columns, once.flaws, once.pass_s / speed, repeat)


def _stamp(file: Path, path: str) -> tuple[int, int]:
    try:
        status = file.stat()
    except FileNotFoundError:
        raise InputError(path, f"there is no file {file}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise InputError(path, f"{file} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    return status.st_mtime_ns, status.st_size


# A scenario asks for its trace more than once, and a sweep makes many scenarios over one file. Keyed by the file's
# state, so that an edited file is read again; two, so that memory stays bounded.
@lru_cache(maxsize=2)
def _read_once(file: Path, mtime_ns: int, size: int, time_column: str | None, path: str) -> Trace:
    at = f"{path}.path"
    table = read_table(file, at)
    name = _time_column(list(table.columns), time_column, file, path)
    ns = _nanoseconds(table[name], name, file, at)
    order = np.argsort(ns, kind="stable")
    arrival_s = (ns[order] - ns[order[0]]).astype(np.float64) / 1e9
    columns: dict[str, Floats] = {}
    flaws: dict[str, tuple[int, object]] = {}
    for other in table.columns:
        if other != name:
            values, flaw = sizes(table[other])
            if values is not None:
                columns[other] = _frozen(values[order])
            if flaw is not None:
                flaws[other] = flaw
    n, span_s = len(arrival_s), float(arrival_s[-1])
    return Trace(_frozen(arrival_s), columns, flaws, span_s + span_s / max(n - 1, 1))


def _time_column(names: list[str], wanted: str | None, file: Path, path: str) -> str:
    if wanted is not None:
        if wanted not in names:
            problem = f"has no column {wanted!r}; it has {listing(names)}{nearest(wanted, names)}"
            raise InputError(f"{path}.time_column", f"{file} {problem}")
        return wanted
    stems = {_stem(name)[0]: name for name in reversed(names)}
    for usual in TIME_COLUMNS:
        if usual in stems:
            return stems[usual]
    problem = f"has no column known as a time; name one in time_column; it has {listing(names)}"
    raise InputError(f"{path}.path", f"{file} {problem}")


def _stem(name: str) -> tuple[str, str | None]:
    """Return a time column's name in lower case without its unit, and the unit: `Arrival_ms` is arrival and ms."""
    name = name.lower().removeprefix("@")  # as CloudWatch Logs and Elasticsearch write it
    stem, _, unit = name.rpartition("_")
    return (stem, unit) if stem and unit in NS else (name, None)


def _nanoseconds(column: pd.Series[Any], name: str, file: Path, path: str) -> Ints:
    """Return the times as int64 nanoseconds from some origin."""
    import pandas as pd
    from pandas.api import types

    original = column
    if not types.is_numeric_dtype(column.dtype) and not types.is_datetime64_any_dtype(column.dtype):
        texts = column.astype(str).str.strip()
        numbers = pd.to_numeric(texts, errors="coerce")
        column = numbers if numbers.notna().sum() * 2 > len(numbers) else _dates(texts)
    if types.is_bool_dtype(column.dtype):
        raise InputError(path, f"{file} column {name} holds no times")
    bad = column.isna().to_numpy()
    if types.is_float_dtype(column.dtype):
        bad = ~np.isfinite(column.to_numpy(np.float64, na_value=np.nan))
    if bad.any():
        row = int(np.argmax(bad))
        constraint = f"must have a time in column {name}, ISO 8601 or a number, which fails in row {row + 1}"
        raise InputError(path, f"{file} {constraint}", original.iloc[row])
    if types.is_numeric_dtype(column.dtype):
        values = column.to_numpy()
        unit = _stem(name)[1] or _unit(float(np.abs(values.astype(np.float64)).max()))
        return _scaled(values, NS[unit], file, path)
    dated = column.dt.tz_convert("UTC").dt.tz_localize(None) if column.dt.tz is not None else column
    try:
        ns = np.asarray(dated.astype("datetime64[ns]").astype("int64"), dtype=np.int64)
    except (ValueError, OverflowError):
        raise InputError(path, f"{file} column {name} has a time outside the years 1678 to 2261") from None
    return ns


def _dates(texts: pd.Series[str]) -> pd.Series[Any]:
    """Return ISO 8601 texts as times, NaT where there is none; pandas alone would also take "now" and "today"."""
    import pandas as pd

    texts = texts.where(texts.str.match(r"\d{4}-\d\d-\d\d"))
    return pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")


def _unit(largest: float) -> str:
    return "s" if largest < 1e11 else "ms" if largest < 1e14 else "us" if largest < 1e17 else "ns"


def _scaled(values: NDArray[np.generic], factor: int, file: Path, path: str) -> Ints:
    """Return numbers of a unit of `factor` ns as integers of ns from the least of them."""
    least, most = values.min(), values.max()
    if (float(most) - float(least)) * factor >= 9e18 or float(most) >= 9e18:
        raise InputError(path, f"{file} spans more than 285 years; is the unit of its times right?")
    if np.issubdtype(values.dtype, np.integer):
        ticks: Ints = values.astype(np.int64)
        return np.asarray((ticks - ticks.min()) * factor)
    floats = values.astype(np.float64)
    floor = np.floor(floats)
    # The integer part is exact; only the fraction, of at most 1e9 ns, is rounded.
    ns: Ints = (floor - floor.min()).astype(np.int64) * factor + np.rint((floats - floor) * factor).astype(np.int64)
    return ns


def _frozen(values: Floats) -> Floats:
    values.flags.writeable = False
    return values
