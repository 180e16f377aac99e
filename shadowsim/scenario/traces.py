"""Reads trace files: recorded arrivals, with the columns that were recorded beside them.

A trace is a table with one row per request, or per interval with a count of requests. trace_times.py says how arrivals
are read; every other numeric column (token counts, bytes) can be used by a linear law. A column may also hold lists of
whole numbers, such as the hashes of a prompt's blocks; `NAME[i]` is number i of each list, from 0, or the last of a
shorter one. Rows need not be in order. Times are kept as integer nanoseconds until the first of them has been
subtracted: a float64 of seconds since 1970 resolves only a quarter of a microsecond.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from shadowsim.arrays import Floats, Ints
from shadowsim.errors import InputError, did_you_mean
from shadowsim.scenario.log_forms import no_table
from shadowsim.scenario.table_files import MOST_NUMBER, line_of, listing, number_lists, read_table, sizes
from shadowsim.scenario.trace_times import TimeOptions, read_times

_ELEMENT = re.compile(r"(.*)\[(\d+)\]", re.ASCII)  # one number of a column of lists


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One pass of a trace: arrivals in order, and the columns beside them.

    The trace is played `repeat` times: request i comes at `arrival_s[i % n] + (i // n) * pass_s`, and its columns are
    those of row i % n.

    Attributes
    ----------
    arrival_s : ndarray of float64, shape (n,)
        Seconds from the start of the trace, non-decreasing: the first request arrives then, or within the first unit
        of coarse times. Read-only, as are all arrays here.
    columns : mapping of str to ndarray of float64, shape (n,)
        Every numeric column of the file but the time and the count, in the order of the arrivals.
    row : ndarray of int64, shape (n,)
        The file's row (from 0, the header left out) of each request.
    flaws : mapping of str to (int, object)
        For each column that cannot be used as a size: the first row (counted from 1, the header left out) that holds no
        finite number >= 0, and its value. It is an error only when the column is used.
    pass_s : float
        How long a pass lasts: from its first to its last arrival and one mean gap more, or to the end of its last unit
        or interval; 0 for one request, or several at one moment.
    file : Path
        Where it was read, for errors.
    reading : str
        How the file was read, in one sentence.
    repeat : int
        How many passes.
    lists : mapping of str to ndarray of int64, shape (n, longest)
        Columns that hold lists of whole numbers; -1 after the end of a list. `NAME[i]` names their numbers i.
    """

    arrival_s: Floats
    columns: Mapping[str, Floats]
    row: Ints
    flaws: Mapping[str, tuple[int, object]]
    pass_s: float
    file: Path
    reading: str
    repeat: int = 1
    lists: Mapping[str, Ints] = field(default_factory=dict)

    @property
    def n_requests(self) -> int:
        """How many requests come, in all passes."""
        return len(self.arrival_s) * self.repeat

    @property
    def span_s(self) -> float:
        """When the last request of all comes."""
        return float(self.arrival_s[-1]) + (self.repeat - 1) * self.pass_s

    @property
    def length_s(self) -> float:
        """How long all passes last; nothing that is measured counts time after it."""
        return self.repeat * self.pass_s

    def n_before(self, horizon_s: float) -> int:
        """Return how many requests come before a moment."""
        passes = np.arange(self.repeat) * self.pass_s
        return int(np.searchsorted(self.arrival_s, horizon_s - passes).sum())

    def column(self, name: str, path: str, others: Iterable[str] = ()) -> Floats:
        """Return a column of sizes, or raise `InputError` naming `path`, the columns, or the row that is wrong.

        `others` are names that are no columns and could have been meant.
        """
        if name in self.lists:
            raise InputError(path, f"trace column {name} holds lists; name one of its numbers, as {name}[0]")
        if name in self.flaws:
            row, value = self.flaws[name]
            where = self._place_of_row(row - 1)
            raise InputError(path, f"needs finite numbers >= 0 in trace column {name}, which fails in {where}", value)
        if name not in self.columns:
            known = [*self.columns, *self.lists]
            hint = did_you_mean(name, [*known, *others])
            raise InputError(path, f"the trace has no column {name!r}; it has {listing(known)}{hint}")
        return self.columns[name]

    def whole_numbers(self, name: str, path: str) -> Floats:
        """Return a column of whole numbers, such as those of sessions, or raise `InputError` as `column` does.

        `NAME[i]` is number i, from 0, of each list in a column, or the last of a shorter list.
        """
        element = _ELEMENT.fullmatch(name)
        if element and element[1] in self.lists:
            return self._element(element[1], int(element[2]), path)
        # one of a column that is no column of lists because of one row
        values = self.column(element[1] if element and element[1] in self.flaws else name, path)
        bad = (values != np.floor(values)) | (values > MOST_NUMBER)
        if bad.any():
            i = int(np.argmax(bad))
            constraint = f"needs whole numbers in trace column {name}, which fails in {self.place(i)}"
            raise InputError(path, constraint, float(values[i]))
        return values

    def _element(self, name: str, i: int, path: str) -> Floats:
        lists = self.lists[name]
        if i >= lists.shape[1]:
            raise InputError(path, f"the longest list in trace column {name} has {lists.shape[1]}, from [0] on", i)
        last = np.minimum((lists >= 0).sum(axis=1) - 1, i)
        if (last < 0).any():
            where = self.place(int(np.argmax(last < 0)))
            raise InputError(path, f"needs a list with a number in trace column {name}, which fails in {where}")
        values: Floats = lists[np.arange(len(lists)), last].astype(np.float64)
        return values

    def place(self, i: int) -> str:
        """Return where request i of a pass stands in the file, for errors: "line 7"."""
        return self._place_of_row(int(self.row[i]))

    def _place_of_row(self, row: int) -> str:
        line = line_of(self.file, row)
        return f"row {row + 1}" if line is None else f"line {line}"


def read_trace(file: Path, options: TimeOptions, speed: float, repeat: int, path: str) -> Trace:
    """Read a trace, played `speed` times as fast and `repeat` times over.

    Parameters
    ----------
    file : Path
        CSV, JSON lines or a JSON array (also compressed, by its suffix), or Parquet.
    how : TimeOptions
        What the scenario says of its times.
    speed : float
        2.0 halves all times.
    repeat : int
        Times that the trace is played, `pass_s` after each other, so that the rate of the whole is that of the trace.
    path : str
        What errors name: the path of the block in the scenario.

    Raises
    ------
    InputError
        When the file is missing, not a table, empty, has no column of times or a row without a readable time, or has no
        row per request.
    """
    stamp = _stamp(file, f"{path}.path")
    once = _read_once(file.resolve(), *stamp, options, path)
    if repeat > 1 and once.pass_s == 0.0:
        raise InputError(f"{path}.repeat", "must be 1 for a trace whose requests all come at one time", repeat)
    arrival_s, pass_s = _frozen(once.arrival_s / speed), once.pass_s / speed
    return Trace(arrival_s, once.columns, once.row, once.flaws, pass_s, once.file, once.reading, repeat, once.lists)


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
def _read_once(file: Path, mtime_ns: int, size: int, options: TimeOptions, path: str) -> Trace:
    form = no_table(file)
    if form is not None:
        what = f"{file} is no table but {form}: `shadowsim measured {file} -o trace.csv` makes a trace of it"
        raise InputError(f"{path}.path", what)
    table = read_table(file, f"{path}.path")
    reading = read_times(table, file, options, path)
    columns: dict[str, Floats] = {}
    flaws: dict[str, tuple[int, object]] = {}
    lists: dict[str, Ints] = {}
    for name in map(str, table.columns):
        if name not in reading.used:
            numbers, flaw = number_lists(table[name])
            if numbers is not None:
                lists[name] = numbers[reading.row]
                lists[name].flags.writeable = False
                continue
            values, other = sizes(table[name])
            flaw = flaw or other
            if values is not None:
                columns[name] = _frozen(values[reading.row])
            if flaw is not None:
                flaws[name] = flaw
    row = reading.row.copy()
    row.flags.writeable = False
    arrival_s = _frozen(reading.arrival_s)
    return Trace(arrival_s, columns, row, flaws, reading.pass_s, file, reading.sentence, lists=lists)


def _frozen(values: Floats) -> Floats:
    values.flags.writeable = False
    return values
