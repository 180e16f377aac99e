"""Finds the arrivals in a trace's table, and states how it read them.

A table of requests has one row per request, or one row per interval with a count of them. What is decided here is never
decided in silence: `ArrivalReading.sentence` names the column, the unit, the resolution, and what was spread.

**The column.** `time_column` names it. Otherwise a column with a usual name is taken. Some usual names are those of
durations elsewhere (`request_time` is one in nginx): such a column is taken only where no other has a time, and only
where its values look like arrivals. When in doubt, an error lists the columns.

**The unit.** `time_unit` says it, or the column's name (`arrival_ms`). Dates are ISO 8601 (also basic, also with a
comma before the fraction), or a web server's common log format; any other needs its strptime format in `time_unit`.
Numbers that are times from 1979 to 2099 in some unit, of a stream that may be one, have that unit. Others are a clock
of their own: the unit is taken that makes the mean rate most like that of a service, and the sentence tells what
another would mean.

**The resolution.** It is the greatest common divisor of the times. Where several requests have one time because it is
coarse, or because they were recorded in batches, they are spread over the unit, or up to the next time (`within`):

poisson   uniformly, by a hash of the row: as Poisson arrivals lie in an interval whose number of them is known
even      at equal distances, which loses the waits that Poisson arrivals have
together  not at all: they arrive at one moment
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shadowsim.arrays import Floats, Ints
from shadowsim.errors import InputError, did_you_mean
from shadowsim.scenario.table_files import line_of, listing

if TYPE_CHECKING:
    import pandas as pd

NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
UNITS = (*NS, "iso")
WITHIN = ("poisson", "even", "together")

# Usual names of arrivals in order of preference: lower case, without a unit's suffix, "_" for every other sign.
ARRIVAL_NAMES = (
    *("timestamp", "arrival", "arrived_at", "arrival_time", "arrival_timestamp", "datetime", "date", "ts"),
    *("inference_time", "msec", "time_iso8601", "time_local", "epoch"),
)
# Names of arrivals in some tables and of durations in others.
DOUBTFUL_NAMES = ("time", "start_time", "request_time")
# Names of columns that count requests, where the times are those of intervals.
COUNT_NAMES = ("invocations", "count", "requests", "n_requests", "request_count", "num_requests", "sample_count")
ID_NAMES = ("request_id", "inference_id", "trace_id", "x_request_id")

_UNIT_WORDS = {
    "s": ("s", "sec", "secs", "second", "seconds"),
    "ms": ("ms", "msec", "msecs", "milli", "millis", "millisecond", "milliseconds"),
    "us": ("us", "usec", "usecs", "micro", "micros", "microsecond", "microseconds"),
    "ns": ("ns", "nsec", "nsecs", "nano", "nanos", "nanosecond", "nanoseconds"),
}
_WORD_UNITS = {word: unit for unit, words in _UNIT_WORDS.items() for word in words}
_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_EPOCH_S = 3e8  # seconds since 1970 of a day in 1979: smaller numbers are a clock of their own
_LAST_S = 4.1e9  # of a day in 2099: larger numbers are of a smaller unit
_LONGEST_S, _LONGEST_GAP_S = 5 * 366 * 86_400.0, 7 * 86_400.0  # of a recorded stream of requests: 5 years, a week
_USUAL_PER_S = 10.0  # the rate that an ambiguous unit is judged by
_MOST_PER_S = 1e5  # a rate that no endpoint has: such values are durations
_FRACTION_GAP_S = 60.0  # numbers with fractions are seconds up to this mean gap
_BATCHED = 3.0  # times as many requests at one moment as its resolution explains
_MANY_TIMES = 10
_STEPS_NS = (60 * NS["s"], *(10**n for n in range(9, -1, -1)))
_FINEST_SPREAD_S = 1e-3  # ties within a finer unit delay nobody
MOST_ROWS = 50_000_000  # of a table of counts, one row per request

_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?")
_BASIC = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)([.,]\d+)?(Z|[+-]\d\d:?\d\d)?")
_COMMON_LOG = re.compile(r"\[?\d{1,2}/[A-Za-z]{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]?")


@dataclass(frozen=True, slots=True)
class TimeOptions:
    """What a scenario says of a trace's times; None leaves it to the table.

    Attributes
    ----------
    time_column, count_column : str or None
    time_unit : str or None
        s, ms, us, ns, iso, or a strptime format, which has a "%".
    within : str
        poisson, even or together.
    span_s : float or None
        Length of one pass in the trace's own clock.
    """

    time_column: str | None = None
    time_unit: str | None = None
    count_column: str | None = None
    within: str = "poisson"
    span_s: float | None = None


NO_TIME_OPTIONS = TimeOptions()


@dataclass(frozen=True, slots=True, eq=False)
class ArrivalReading:
    """When the requests of a table arrived.

    Attributes
    ----------
    arrival_s : ndarray of float64, shape (n,)
        Seconds from the start of the trace, non-decreasing.
    row : ndarray of int64, shape (n,)
        The table's row of each request.
    pass_s : float
        How long the trace lasts: from the start of its first unit to the end of its last, or from the first request to
        the last and one mean gap more; `span_s` where it is given. 0 for one request alone.
    sentence : str
        How the table was read.
    used : tuple of str
        The columns that were used.
    """

    arrival_s: Floats
    row: Ints
    pass_s: float
    sentence: str
    used: tuple[str, ...]


def read_times(table: pd.DataFrame, file: Path, options: TimeOptions, path: str) -> ArrivalReading:
    """Read the arrivals of a table.

    Raises
    ------
    InputError
        When there is no column of times or more than one that may be meant, a row has no time, the table has no row
        per request, or what the scenario says of it does not fit.
    """
    at = f"{path}.path"
    _refuse_other_tables(table, file, options, at)
    name, why = _time_column(table, file, options, path)
    clock = _clock(table[name], name, file, options, path)
    counted, counts = _counts(table, name, clock, file, options, path)
    row = np.repeat(np.arange(len(table)), counts) if counts is not None else np.arange(len(table))
    order = np.argsort(clock.ns[row], kind="stable")
    row = row[order]
    ns = clock.ns[row] - clock.ns.min()
    n, distinct = len(ns), np.unique(clock.ns) - clock.ns.min()  # intervals without requests count, too
    arrival_s = ns.astype(np.float64) / 1e9
    span_s = float(distinct[-1]) / 1e9
    width_s, ties = _width_s(distinct, n, clock, counts is not None, file, at)
    spread = ""
    if width_s.size:
        arrival_s = _spread(ns, distinct, row, width_s, options.within)
        pass_s, spread = span_s + float(width_s[-1]), _spread_words(options.within, ties)
    else:
        pass_s = span_s + span_s / max(n - 1, 1)
    if options.span_s is not None:
        if options.span_s < float(arrival_s[-1]) or options.span_s <= 0.0:
            what = f"must not be less than the time of the last request, {float(arrival_s[-1]):g} s"
            raise InputError(f"{path}.span_s", what, options.span_s)
        pass_s = options.span_s
    sentence = f"{file.name}: column `{name}`{why}, read as {clock.words}"
    if n > 1:
        sentence += f", resolution {_step_words(clock.resolution_ns(distinct))}"
    sentence += f", {n:,} request{'s' if n != 1 else ''} over {_span_words(pass_s)}"
    sentence += f", counted by `{counted}`" if counted else ""
    sentence += spread + clock.other(n, span_s) + "."
    return ArrivalReading(arrival_s, row, pass_s, sentence, (name, *([counted] if counted else [])))


# ---- Which column ----


def _stem(name: str) -> tuple[str, str | None]:
    """Return a column's name in lower case without the unit at its end, and that unit: `Arrival_ms`: arrival and ms."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip().removeprefix("@"))  # camel case
    words = re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")
    stem, _, last = words.rpartition("_")
    return (stem, _WORD_UNITS[last]) if stem and last in _WORD_UNITS else (words, None)


def _named(names: Sequence[str], usual: Sequence[str]) -> list[str]:
    """Return the columns that have a usual name, in the order of those; underscores do not count."""
    columns = {_stem(name)[0].replace("_", ""): name for name in reversed(names)}
    return [columns[name.replace("_", "")] for name in usual if name.replace("_", "") in columns]


def _time_column(table: pd.DataFrame, file: Path, options: TimeOptions, path: str) -> tuple[str, str]:
    """Return the column of the arrivals, and words on others that could be."""
    names = list(map(str, table.columns))
    if options.time_column is not None:
        if options.time_column not in names:
            what = f"has no column {options.time_column!r}; it has {listing(names)}"
            hint = did_you_mean(options.time_column, names)
            raise InputError(f"{path}.time_column", f"{file} {what}{hint}")
        return options.time_column, ""
    usual = _named(names, ARRIVAL_NAMES)
    if usual:
        others = f" (not {listing(f'`{name}`' for name in usual[1:])})" if len(usual) > 1 else ""
        return usual[0], others
    doubtful = _named(names, DOUBTFUL_NAMES)
    if len(doubtful) == 1 and not _like_durations(table[doubtful[0]], doubtful[0]):
        return doubtful[0], ""
    asked = f"name the column of the arrivals in time_column; it has {listing(names)}"
    if len(doubtful) > 1:
        what = f"has several columns that may be the arrivals ({listing(doubtful)})"
        raise InputError(f"{path}.time_column", f"{file} {what}; {asked}")
    if doubtful:
        what = f"column {doubtful[0]} may hold durations: its values are no clock that moves on at a possible rate"
        raise InputError(f"{path}.time_column", f"{file} {what}; {asked}")
    raise InputError(f"{path}.path", f"{file} has no column known as a time; {asked}")


def _like_durations(column: pd.Series[Any], name: str) -> bool:
    """Tell whether numbers are no clock: they do not move on from row to row, or by far too little."""
    import pandas as pd
    from pandas.api import types

    if not types.is_numeric_dtype(column.dtype):
        return False
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    values = values[np.isfinite(values)]
    if values.size < 4 or np.abs(values).min() >= _EPOCH_S:
        return False
    back = float((np.diff(values) < 0.0).mean())
    span_s = float(np.ptp(values)) * NS[_stem(name)[1] or "s"] / 1e9
    return 0.1 < back < 0.9 or values.size > _MOST_PER_S * span_s


def _refuse_other_tables(table: pd.DataFrame, file: Path, options: TimeOptions, at: str) -> None:
    """Refuse tables whose rows are no requests, by the names of their columns."""
    stems = {_stem(str(name))[0]: str(name) for name in table.columns}
    names = set(stems)

    def refused(what: str) -> InputError:
        return InputError(at, f"{file} {what}")

    if {"metric_name", "metric_value"} <= names:
        what = "is k6's output, with several rows per request"
        what = f"{what}; `shadowsim measured {file} -o trace.csv` makes a trace of it"
        metric = table[stems["metric_name"]]
        if (metric.astype(str) != "http_reqs").any():
            raise refused(what)
    message = stems.get("response_message")
    if message is not None and table[message].astype(str).str.startswith("Number of samples in transaction").any():
        what = "is JMeter's output with rows of transaction controllers, which are no requests"
        raise refused(f"{what}; `shadowsim measured {file} -o trace.csv` makes a trace without them")
    if options.count_column is None and "user_count" in names and any(name.startswith("requests") for name in names):
        what = "is locust's history, with one row per second and not per request; write its rates as a `steps` profile"
        raise refused(f"{what}, or name a column of counts per row in count_column")
    for name in _named(list(table.columns), ID_NAMES):
        n_rows, n_ids = int(table[name].notna().sum()), table[name].nunique()
        if n_ids > 1 and n_rows > 1.2 * n_ids:
            what = f"has several rows per request: {n_ids:,} different values of {name} in {n_rows:,} rows"
            raise refused(f"{what}; keep one row per request")


# ---- Which clock ----


@dataclass(frozen=True, slots=True, eq=False)
class _Clock:
    """A column's times as integers: `ns` from an origin, `floor_ns` what they are multiples of beside it."""

    ns: Ints
    words: str
    unit: str | None = None
    guessed: bool = False

    def resolution_ns(self, distinct: Ints) -> int:
        """Return the greatest common divisor of the distances between distinct times; 0 for one time alone.

        Few distances have large divisors by chance: of theirs only a usual step is taken.
        """
        if distinct.size < 2:
            return 0
        divisor = int(np.gcd.reduce(np.diff(distinct)))
        return divisor if distinct.size > _MANY_TIMES else next(s for s in _STEPS_NS if divisor % s == 0)

    def other(self, n: int, span_s: float) -> str:
        """Return what the next likely unit would have meant, where the unit was a guess."""
        if not self.guessed or self.unit is None or span_s <= 0.0:
            return ""
        other = "s" if self.unit != "s" else "ms"
        other_s = span_s * NS[other] / NS[self.unit]
        rates = [_rate_words((n - 1) / x) for x in (span_s, other_s)]
        return f" ({rates[0]}; as {_NAMES[other]} it would be {rates[1]} over {_span_words(other_s)}: set time_unit)"


def _clock(column: pd.Series[Any], name: str, file: Path, options: TimeOptions, path: str) -> _Clock:
    import pandas as pd
    from pandas.api import types

    at, unit = f"{path}.path", options.time_unit
    given = column
    if unit is not None and unit not in UNITS and "%" not in unit:
        what = f"must be {', '.join(UNITS)}, or a strptime format such as %m/%d/%Y %H:%M:%S"
        raise InputError(f"{path}.time_unit", what, unit)
    texts = not types.is_numeric_dtype(column.dtype) and not types.is_datetime64_any_dtype(column.dtype)
    words = "dates with a zone" if types.is_datetime64_any_dtype(column.dtype) else ""
    if texts:
        stripped = column.astype(str).str.strip()
        numbers = pd.to_numeric(stripped, errors="coerce")
        if unit in NS or (unit is None and numbers.notna().sum() * 2 > len(numbers)):
            column = numbers
        else:
            column, words = _dates(stripped, unit)
    elif (unit == "iso" or (unit is not None and "%" in unit)) and types.is_numeric_dtype(column.dtype):
        column, words = _dates(column.astype(str), unit)
    if types.is_bool_dtype(column.dtype):
        raise InputError(at, f"{file} column {name} holds no times")
    bad = column.isna().to_numpy()
    if types.is_float_dtype(column.dtype):
        bad = ~np.isfinite(column.to_numpy(np.float64, na_value=np.nan))
    if bad.any():
        row = int(np.argmax(bad))
        line = line_of(file, row)
        where = f"line {line}" if line is not None else f"row {row + 1}"
        if pd.isna(given.iloc[row]) or not str(given.iloc[row]).strip():
            raise InputError(at, f"{file} must have a time in column {name}, which is empty in {where}")
        what = f"must have a time in column {name}, ISO 8601, common log format or a number, which fails in {where}"
        hint = "; any other date needs its strptime format in time_unit" if texts else ""
        raise InputError(at, f"{file} {what}", given.iloc[row], hint=hint)
    if types.is_numeric_dtype(column.dtype):
        return _numbers(column.to_numpy(), name, unit, file, at)
    dated = column.dt.tz_convert("UTC").dt.tz_localize(None) if column.dt.tz is not None else column
    try:
        ns = np.asarray(dated.astype("datetime64[ns]").astype("int64"), dtype=np.int64)
    except (ValueError, OverflowError):
        raise InputError(at, f"{file} column {name} has a time outside the years 1678 to 2261") from None
    return _Clock(ns, words or "dates")


def _dates(texts: pd.Series[str], unit: str | None) -> tuple[pd.Series[Any], str]:
    """Return texts as times, NaT where there is none, and what they are; pandas alone would also take "now"."""
    import pandas as pd

    if unit is not None and "%" in unit:
        return pd.to_datetime(texts, format=unit, utc=True, errors="coerce"), f"dates written {unit}, UTC"
    first = next((text for text in texts if text), "")
    if _COMMON_LOG.fullmatch(first):
        return (
            pd.to_datetime(texts.str.strip("[]"), format="%d/%b/%Y:%H:%M:%S %z", utc=True, errors="coerce"),
            "dates in common log format",
        )
    basic = texts.str.fullmatch(_BASIC.pattern)
    if basic.any():
        texts = texts.where(~basic, texts.str.replace(_BASIC, r"\1-\2-\3T\4:\5:\6\7\8", regex=True))
    iso = texts.where(texts.str.fullmatch(_ISO.pattern)).str.replace(",", ".", regex=False)
    return pd.to_datetime(
        iso, format="ISO8601", utc=True, errors="coerce"
    ), "ISO 8601 dates (UTC unless they name a zone)"


def _numbers(values: NDArray[Any], name: str, unit: str | None, file: Path, at: str) -> _Clock:
    named = _stem(name)[1]
    known = unit or named
    whole = np.issubdtype(values.dtype, np.integer) or bool((values == np.floor(values)).all())
    size = np.abs(values.astype(np.float64))
    if known is not None:
        by = "" if unit else ", as its name says"
        origin = "since 1970" if float(size.min()) * NS[known] / 1e9 >= _EPOCH_S else "from the first of them"
        return _Clock(_scaled(values, NS[known], file, at), f"{_NAMES[known]} {origin}{by}", known)
    known = _unit_since_1970(size)
    if known is not None:
        return _Clock(_scaled(values, NS[known], file, at), f"{_NAMES[known]} since 1970", known)
    known = _likely_unit(float(np.ptp(values.astype(np.float64))), len(values), whole)
    origin = f"from {values.min():,.10g}"
    return _Clock(_scaled(values, NS[known], file, at), f"{_NAMES[known]} {origin}", known, guessed=True)


def _unit_since_1970(values: Floats) -> str | None:
    """Return the unit in which numbers are times of one stream from 1979 to 2099; None if there is none."""
    least, most = float(values.min()), float(values.max())
    for unit, size in NS.items():
        per_s = 1e9 / size
        span_s = (most - least) / per_s
        if least >= _EPOCH_S * per_s and most <= _LAST_S * per_s:
            # A clock in ns that began lately has such numbers, too, but its requests would be years apart.
            probable = span_s <= min(_LONGEST_S, _LONGEST_GAP_S * max(len(values) - 1, 1))
            return unit if probable else None
    return None


def _likely_unit(span: float, n: int, whole: bool) -> str:
    """Return the unit in which numbers that span so much bring requests at a rate most like a service's."""
    if n < _MANY_TIMES or span <= 0.0:
        return "s"
    if not whole and span / (n - 1) <= _FRACTION_GAP_S:
        return "s"
    per_unit = (n - 1) / span

    def unlikely(unit: str) -> float:
        return abs(math.log(per_unit * 1e9 / NS[unit] / _USUAL_PER_S))

    return min(NS, key=unlikely)


def _scaled(values: NDArray[Any], factor: int, file: Path, at: str) -> Ints:
    """Return numbers of a unit of `factor` ns as integers of ns; from the least of them where they are too large."""
    least, most = values.min(), values.max()
    if (float(most) - float(least)) * factor >= 9e18 or float(most) >= 9e18:
        raise InputError(at, f"{file} spans more than 285 years; is the unit of its times right (time_unit)?")
    if np.issubdtype(values.dtype, np.integer):
        ticks: Ints = values.astype(np.int64)
        return np.asarray((ticks - ticks.min()) * factor)
    floats = values.astype(np.float64)
    floor = np.floor(floats)
    # The whole part moves exactly as an integer; only the fraction, of at most 1e9 ns, is rounded: to the digits that
    # the text of such a number can have had.
    digit_ns = 10 ** max(math.ceil(math.log10(max(np.spacing(np.abs(floats).max()) * factor, 1e-9))), 0)
    fraction_ns = np.rint((floats - floor) * factor / digit_ns).astype(np.int64) * digit_ns
    ns: Ints = (floor - floor.min()).astype(np.int64) * factor + fraction_ns
    return ns


# ---- How many, and where within a unit ----


def _counts(
    table: pd.DataFrame, name: str, clock: _Clock, file: Path, options: TimeOptions, path: str
) -> tuple[str | None, Ints | None]:
    """Return the column that counts requests and its counts; (None, None) for a table with a row per request."""
    from pandas.api import types

    counted = options.count_column
    if counted is None:
        likely = _named([column for column in table.columns if column != name], COUNT_NAMES)
        if not likely or not _regular(clock.ns) or not _whole_numbers(table[likely[0]]):
            return None, None
        counted = likely[0]
    elif counted not in table.columns:
        names = list(map(str, table.columns))
        what = f"has no column {counted!r}; it has {listing(names)}{did_you_mean(counted, names)}"
        raise InputError(f"{path}.count_column", f"{file} {what}")
    column = table[counted]
    values = column.to_numpy(np.float64, na_value=np.nan) if types.is_numeric_dtype(column.dtype) else None
    wrong = np.ones(len(column), bool) if values is None else ~((values >= 0.0) & (values == np.floor(values)))
    if values is None or wrong.any():
        row = int(np.argmax(wrong))
        what = f"needs whole numbers of requests in column {counted}, which fails in row {row + 1}"
        raise InputError(f"{path}.count_column", f"{file} {what}", column.iloc[row])
    if not 1 <= values.sum() <= MOST_ROWS:
        what = f"must count 1 to {MOST_ROWS:,} requests; write more as a `steps` profile"
        raise InputError(f"{path}.count_column", f"{file} column {counted} {what}", int(values.sum()))
    return counted, values.astype(np.int64)


def _regular(ns: Ints) -> bool:
    """Tell whether times are those of intervals: all different, whole seconds apart, most of them equally far."""
    distinct = np.unique(ns)
    if distinct.size != len(ns) or len(ns) < 2:
        return False
    gaps = np.diff(distinct)
    least = int(gaps.min())
    return least % NS["s"] == 0 and bool((gaps % least == 0).all())


def _whole_numbers(column: pd.Series[Any]) -> bool:
    from pandas.api import types

    if not types.is_numeric_dtype(column.dtype) or types.is_bool_dtype(column.dtype):
        return False
    values = column.to_numpy(np.float64, na_value=np.nan)
    return bool(((values >= 0.0) & (values == np.floor(values))).all()) and float(values.max()) > 1.0


def _width_s(distinct: Ints, n: int, clock: _Clock, counted: bool, file: Path, at: str) -> tuple[Floats, str]:
    """Return over how long the requests of each distinct time are spread (empty: not at all), and why."""
    gaps = np.diff(distinct) / 1e9
    if counted:
        if not gaps.size:
            what = "counts the requests of one interval alone, whose length is unknown; it needs a row per interval"
            raise InputError(at, f"{file} {what}")
        return np.full(distinct.size, gaps.min()), f"over {_span_words(float(gaps.min()))}"
    if n == distinct.size or not gaps.size:
        return np.empty(0), ""
    step_s = clock.resolution_ns(distinct) / 1e9
    per_step = n * step_s / (gaps.sum() + step_s)
    explained = per_step / -math.expm1(-per_step)
    at_once = n / distinct.size
    if step_s >= 1.0 or at_once <= _BATCHED * explained:
        if step_s < _FINEST_SPREAD_S:
            return np.empty(0), ""
        return np.full(distinct.size, step_s), f"over {_step_words(round(step_s * 1e9))}"
    return np.append(gaps, np.median(gaps)), f"up to the next time, since {at_once:.3g} at once are batches"


def _spread(ns: Ints, distinct: Ints, row: Ints, width_s: Floats, within: str) -> Floats:
    """Return sorted arrivals, moved inside the intervals that begin with their times; reorder `row` with them."""
    unit = np.searchsorted(distinct, ns)
    start_s = distinct[unit] / 1e9
    if within == "together":
        return start_s
    first = np.searchsorted(ns, distinct)
    rank = np.arange(len(ns)) - first[unit]
    n_in_unit = np.bincount(unit, minlength=len(distinct))
    if within == "even":
        return np.asarray(start_s + width_s[unit] * rank / n_in_unit[unit])
    share = uniform_by_row(row, rank)
    order = np.lexsort((share, unit))
    row[:] = row[order]
    inside = np.minimum(share[order] * width_s[unit], np.nextafter(width_s[unit], 0.0))
    return np.asarray(start_s + inside)


def uniform_by_row(row: Ints, rank: Ints) -> Floats:
    """Return a number in [0, 1) for each request, a hash of its row and its number in it (splitmix64's finaliser)."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        z = (row.astype(np.uint64) * np.uint64(2_654_435_761) + rank.astype(np.uint64) + np.uint64(1)) * golden
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return np.asarray((z >> np.uint64(11)).astype(np.float64) * 2.0**-53)


# ---- Words ----


def _spread_words(within: str, ties: str) -> str:
    if within == "together":
        return ", not spread: those of one time arrive together"
    return f", spread {'evenly' if within == 'even' else 'at random'} {ties}"


def _step_words(step_ns: int) -> str:
    for unit, size in NS.items():
        if step_ns >= size:
            return f"{step_ns / size:.6g} {unit}"
    return "unknown"


def _span_words(seconds: float) -> str:
    for unit, size in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2.0 * size or (unit != "days" and seconds >= size):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _rate_words(per_s: float) -> str:
    return f"{per_s:.3g} requests/s"
