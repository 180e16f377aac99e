"""Reads the lines of logs one by one, decompressed, and counts the damaged ones.

A log may have been cut short, or two programs may have written into it. A line that cannot be read is counted and the
place and cause of the first are kept, and reading goes on. When more lines are damaged than are not, the file is taken
for something else and refused.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from shadowsim.errors import InputError, SerializationError, shown
from shadowsim.json_files import read_json
from shadowsim.scenario.log_forms import delimiter_of
from shadowsim.scenario.table_files import DAMAGED_ERRORS, open_text

_CHUNK_CHARS = 1 << 20
_BETWEEN = re.compile(r"[\s,]*")


class LogLines:
    """Iterates over the lines of files that are not blank, without their ends.

    Attributes
    ----------
    files : tuple of Path
    number : int
        The number of the last line in its file, from 1.
    n_lines : int
        Lines seen so far, in all files.
    n_damaged : int
        Lines that were called damaged.
    first_damaged : str
        The place and cause of the first of them, or "".
    """

    def __init__(self, files: Sequence[Path]):
        self.files = tuple(files)
        self.number = self.n_lines = self.n_damaged = 0
        self.first_damaged = ""
        self._file = self.files[0]

    def __iter__(self) -> Iterator[str]:
        """Yield the lines; a compressed file that is cut short ends there, which counts as one damaged line."""
        for file in self.files:
            self._file, self.number = file, 0
            try:
                with open_text(file, errors="replace") as text:
                    for line in text:
                        self.number += 1
                        if line.strip():
                            self.n_lines += 1
                            yield line.rstrip("\r\n")
            except DAMAGED_ERRORS as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise InputError(str(file), f"cannot be read: {error.strerror}") from None
                self.number += 1
                self.n_lines += 1
                self.damaged(f"the compressed file ends too early or is damaged ({' '.join(str(error).split())[:80]})")

    def damaged(self, why: str, since: int | None = None) -> None:
        """Count the last line as damaged, or all from the line `since`; `why` says what is wrong with it."""
        self.n_damaged += 1 if since is None else max(self.number - since + 1, 1)
        if not self.first_damaged:
            self.first_damaged = f"line {self.number if since is None else since} of {self._file.name}: {why}"

    def refuse_unless_read(self, n_read: int, form: str) -> None:
        """Raise `InputError` when nothing was read, or more lines are damaged than were read."""
        name = shown(self._file) if len(self.files) == 1 else f"{shown(self.files[0])} and {len(self.files) - 1} more"
        cause = f"; the first that cannot be read is {self.first_damaged}" if self.first_damaged else ""
        if n_read == 0:
            raise InputError(name, f"looks like {form}, and holds no requests{cause}")
        if self.n_damaged > n_read:
            what = f"looks like {form}, but {self.n_damaged:,} of its {self.n_lines:,} lines cannot be read as such"
            raise InputError(name, f"{what}{cause}")


def json_objects(lines: LogLines) -> Iterator[dict[str, Any]]:
    """Yield the object in each line; count other lines as damaged."""
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            lines.damaged(f"it is no JSON ({getattr(error, 'msg', 'too deep or too many digits')})")
            continue
        if isinstance(value, dict):
            yield value
        else:
            lines.damaged("it is JSON, but no object")


def json_array(lines: LogLines) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON array, with few of them in memory at a time; its breaking off counts as damage."""
    decoder = json.JSONDecoder()
    source = iter(lines)
    held, at = "", 0

    def more() -> bool:
        """Read on, at least as much as is held, so that a huge object is not tried often."""
        nonlocal held, at
        held, at = held[at:], 0
        pieces, n, least = [held], 0, max(_CHUNK_CHARS, len(held))
        while n < least and (line := next(source, None)) is not None:
            pieces.append(line + "\n")
            n += len(line) + 1
        held = "".join(pieces)
        return n > 0

    more()
    at = held.index("[") + 1
    while True:
        at = _BETWEEN.match(held, at).end()  # type: ignore[union-attr]
        if held[at : at + 1] == "]":
            return
        try:
            value, at = decoder.raw_decode(held, at)
        except (ValueError, RecursionError) as error:
            if not more():
                lines.damaged(f"the array of objects breaks off ({getattr(error, 'msg', 'too deep')})")
                return
            continue
        if isinstance(value, dict):
            yield value
        else:
            lines.damaged("an element of the array is no object")
        if at > _CHUNK_CHARS:
            held, at = held[at:], 0


def csv_rows(lines: LogLines) -> tuple[list[str], Iterator[list[str]]]:
    """Return the names of the columns, and an iterator over the rows; rows of another length count as damaged."""
    source = iter(lines)
    first = next(source)
    delimiter = delimiter_of(first)
    names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter))]
    return names, _rows(lines, source, delimiter, len(names))


def _rows(lines: LogLines, source: Iterator[str], delimiter: str, n_fields: int) -> Iterator[list[str]]:
    reader = csv.reader((line + "\n" for line in source), delimiter=delimiter)
    while True:
        since = lines.number + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            lines.damaged(f"it is no CSV ({error})", since)
            continue
        if len(row) == n_fields:
            yield row
        else:
            lines.damaged(f"it has {len(row)} fields, and the header names {n_fields}", since)


def json_document(file: Path) -> dict[str, Any]:
    """Return the object that a whole file is; NaN and Infinity, which Python's json module writes, are accepted."""
    try:
        with open_text(file, errors="replace") as text:
            return read_json(text.read(), shown(file), non_finite=True)
    except DAMAGED_ERRORS as error:
        raise InputError(shown(file), f"cannot be read ({' '.join(str(error).split())[:120]})") from None
    except SerializationError as error:
        raise InputError(shown(file), str(error).removeprefix(f"{shown(file)}: ")) from None
