"""Reads tables from files: CSV of the common dialects, Parquet, JSON lines and JSON arrays of objects.

The dialect is read off the file and never asked for: compression by its first bytes, UTF-8 or UTF-16 text, fields
apart by comma, semicolon, tab or bar, a decimal comma where fields are apart by semicolons. The one table without
a line of column names that is understood is vegeta's (`vegeta encode --to csv`); any other is refused. An error names
the line of the file, blank lines counted.

pandas is imported by the functions that need it.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from shadowsim.arrays import Floats, Ints
from shadowsim.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

BUILTIN = "builtin:"
# The first bytes of compressed files.
_GZIP, _BZIP2, _XZ, _ZSTANDARD, _ZIP = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\3\4"
# Columns of `vegeta encode --to csv`, the only table without names that is common; older versions write fewer.
VEGETA = (
    *("timestamp_ns", "code", "latency_ns", "bytes_out", "bytes_in", "error", "body", "attack"),
    *("seq", "method", "url", "headers"),
)
_LEAST_VEGETA = 9
MOST_NUMBER = 2**53  # integers that float64 holds
_DELIMITERS = ",;\t|"
_SAMPLE_LINES = 20
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_DATE = re.compile(r"\[?\d{1,4}[-/]\w{2,3}[-/]\d{2,4}[T :]?.*|\d{8}T\d{6}.*")
_LIST = re.compile(r"\s*(\d+(\s+\d+)*|\[\s*(\d+(\s*,\s*\d+|\s+\d+)*)?\s*\])\s*", re.ASCII)
_DIGITS = re.compile(r"\d+", re.ASCII)
DAMAGED_ERRORS = (EOFError, OSError, lzma.LZMAError, zlib.error, zipfile.BadZipFile)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV file is written.

    Attributes
    ----------
    encoding : str
    delimiter, decimal : str
    names : tuple of str or None
        The columns of a file whose first line holds data; None where the first line names them.
    """

    encoding: str
    delimiter: str
    decimal: str
    names: tuple[str, ...] | None


def resolve(path: str, base_dir: Path) -> Path:
    """Return the file that a path in a scenario means: relative to the scenario, or `builtin:NAME` of the package."""
    if path.startswith(BUILTIN):
        return Path(str(files("shadowsim.scenario") / "data" / f"{path.removeprefix(BUILTIN)}.csv"))
    return base_dir / path


def read_table(file: Path, path: str) -> pd.DataFrame:
    """Read a table with at least one row and no two columns of one name.

    Parameters
    ----------
    file : Path
        CSV, JSON lines or a JSON array, also compressed; or Parquet.
    path : str
        Where the scenario names the file, for errors.

    Raises
    ------
    InputError
        When the file is missing, empty, damaged, none of these, or has a line that does not fit; with that line.
    """
    try:
        with file.open("rb") as stream:
            parquet = stream.read(4) == b"PAR1"
        table = _read_parquet(file, path) if parquet else _read_text(file, path)
    except FileNotFoundError:
        raise InputError(path, f"there is no file {file}") from None
    except IsADirectoryError:
        raise InputError(path, f"must be a file, and {file} is a directory") from None
    except UnicodeDecodeError as error:
        what = f"is not text in {error.encoding.upper()}: its byte {error.start + 1} cannot be read; save it as UTF-8"
        raise InputError(path, f"{file} {what}") from None
    except DAMAGED_ERRORS as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:120]
        raise InputError(path, f"{file} cannot be read; is it cut short or damaged? ({reason})") from None
    if table.empty:
        raise InputError(path, f"{file} has no rows")
    names = list(table.columns)
    twice = next((name for i, name in enumerate(names) if name and name in names[:i]), None)
    if twice is not None:
        raise InputError(path, f"{file} must not have two columns of one name", twice)
    return table


def line_of(file: Path, row: int) -> int | None:
    """Return the line (from 1) of a text file that holds a row (from 0) of its table; None for a file without lines."""
    with file.open("rb") as stream:
        if stream.read(4) == b"PAR1":
            return None
    with open_text(file) as text:
        first = _first_character(text)
        if first == "[":
            return None
        if first == "{":
            lines = (number for number, line in enumerate(text, 1) if line.strip())
            return next(islice(lines, row, None), None)
    dialect = _dialect(file, "")
    skipped = row if dialect.names else row + 1
    return next(islice((number for number, _ in _records(file, dialect)), skipped, None), None)


def sizes(column: pd.Series[Any]) -> tuple[Floats | None, tuple[int, object] | None]:
    """Return a column as float64 (None when it is not numeric) and its first row that is no finite number >= 0."""
    import pandas as pd
    from pandas.api import types

    numeric = types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype)
    # Texts that are no numbers, dates and truth values become NaN, and so the row to show.
    readable = column if numeric else pd.to_numeric(column.astype(str), errors="coerce")
    values: Floats = readable.to_numpy(np.float64, na_value=np.nan)
    bad = ~(np.isfinite(values) & (values >= 0.0))
    if not numeric and not bad.any():
        bad[0] = True
    row = int(np.argmax(bad))
    return (values if numeric else None), ((row + 1, column.iloc[row]) if bad[row] else None)


def number_lists(column: pd.Series[Any]) -> tuple[Ints | None, tuple[int, object] | None]:
    """Return a column of lists of whole numbers, and its first row (from 1) that holds none, with its value.

    A list is a JSON array, or a text with numbers apart by blanks, in brackets or not; an empty cell is an empty list.

    Returns
    -------
    lists : ndarray of int64, shape (n, longest)
        A row's numbers, then -1; None for a column whose first cell that is not empty is no list.
    flaw : (int, object) or None
    """
    from pandas.api import types

    if types.is_numeric_dtype(column.dtype):
        return None, None
    cells = column.tolist()
    kinds = (str, list, np.ndarray)
    first = next((cell for cell in cells if isinstance(cell, kinds) or cell == cell), None)
    if not isinstance(first, kinds) or (isinstance(first, str) and not _LIST.fullmatch(first)):
        return None, None
    lists: list[list[int]] = []
    for i, cell in enumerate(cells):
        numbers: list[Any] = []
        if isinstance(cell, str):
            if cell.strip() and not _LIST.fullmatch(cell):
                return None, (i + 1, cell)
            numbers = [int(digits) for digits in _DIGITS.findall(cell)]
        elif isinstance(cell, kinds):
            numbers = list(cell)
        elif cell is not None and cell == cell:  # a missing cell is NaN
            return None, (i + 1, cell)
        if not all(isinstance(x, (int, np.integer)) and 0 <= x <= MOST_NUMBER for x in numbers):
            return None, (i + 1, cell)
        lists.append(numbers)
    longest = max(map(len, lists))
    if longest == 1 and isinstance(first, str) and "[" not in first:
        return None, None  # single numbers as texts
    table = np.full((len(lists), longest), -1, np.int64)
    for row, numbers in zip(table, lists, strict=True):
        row[: len(numbers)] = numbers
    return (table, None) if longest else (None, None)


def listing(names: Iterable[str]) -> str:
    """Return names for an error's sentence, cut short when they are many or long."""
    names = [name if len(name) <= 40 else name[:37] + "..." for name in names]
    shown = ", ".join(repr(name) if not name.isprintable() else name for name in names[:12])
    return (shown or "none") + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _read_parquet(file: Path, path: str) -> pd.DataFrame:
    import pandas as pd

    try:
        table = pd.read_parquet(file)
    except (OSError, ValueError) as error:  # pyarrow's errors are among both
        raise InputError(path, f"{file} is damaged Parquet ({str(error).splitlines()[0][:120]})") from None
    # A named index was a column of the table that was saved.
    table = table.reset_index() if table.index.names != [None] else table
    table.columns = table.columns.map(str).str.strip()
    return table


def _read_text(file: Path, path: str) -> pd.DataFrame:
    with open_text(file) as text:
        first = _first_character(text)
        if not first:
            raise InputError(path, f"{file} is empty")
        if first in "{[":
            return _read_json(text, first, file, path)
    return _read_csv(file, path)


def _first_character(text: IO[str]) -> str:
    """Return the first character that is no blank, and go back to the start."""
    first = next((line.lstrip()[0] for line in text if line.strip()), "")
    text.seek(0)
    return first


def _read_json(text: IO[str], first: str, file: Path, path: str) -> pd.DataFrame:
    import pandas as pd

    def refused(line: int, what: str) -> InputError:
        return InputError(path, f"{file} line {line} {what}")

    rows: list[dict[str, Any]] = []
    if first == "[":
        try:
            values = json.load(text)
        except ValueError as error:
            raise refused(getattr(error, "lineno", 1), f"is no JSON ({getattr(error, 'msg', error)})") from None
        numbered: Iterable[tuple[int, Any]] = ((i, value) for i, value in enumerate(values, 1))
    else:
        numbered = _json_lines(text, refused)
    for number, value in numbered:
        if not isinstance(value, dict):
            where = "line" if first == "{" else "element"
            raise InputError(path, f"{file} must hold objects with a time each; {where} {number} is none", value)
        if "captureData" in value:
            what = "holds SageMaker's captures; `shadowsim measured FOLDER -o trace.csv` makes a trace of them"
            raise InputError(path, f"{file} {what}")
        rows.append({str(key).strip(): inner for key, inner in value.items()})
    return pd.DataFrame(rows)


def _json_lines(text: IO[str], refused: Any) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text, 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                what = "is no JSON object on a line of its own"
                raise refused(number, f"{what} ({getattr(error, 'msg', error)})") from None


def _read_csv(file: Path, path: str) -> pd.DataFrame:
    import pandas as pd

    dialect = _dialect(file, path)
    options: dict[str, Any] = {"sep": dialect.delimiter, "decimal": dialect.decimal, "low_memory": False}
    names = dialect.names
    if names is None:
        _, header = next(_records(file, dialect))
        names = tuple(name.strip() or f"column {i}" for i, name in enumerate(header, 1))
    # Columns are read by number: pandas would rename one that has the name of another, and take the first column for an
    # index where lines are longer than the header.
    numbers, longer = list(range(len(names))), pd.errors.ParserWarning
    try:
        skipped = _lines_before_data(file, dialect)
        with open_text(file, dialect.encoding) as text, warnings.catch_warnings(action="error", category=longer):
            for _ in range(skipped):
                text.readline()
            table: pd.DataFrame = pd.read_csv(text, header=None, names=numbers, index_col=False, **options)
    except pd.errors.EmptyDataError:
        raise InputError(path, f"{file} has no rows") from None
    except (longer, ValueError) as error:  # pandas' ParserError is a ValueError
        if isinstance(error, UnicodeDecodeError):
            raise
        _refuse_ragged(file, dialect, len(names), path)
        raise InputError(path, f"{file} cannot be read as CSV ({' '.join(str(error).split())[:120]})") from None
    table.columns = pd.Index(names)
    return table


def _lines_before_data(file: Path, dialect: Dialect) -> int:
    """Return how many lines stand before the first row: those of the header, and blank ones before it."""
    if dialect.names is not None:
        return 0
    number, _ = next(_records(file, dialect))
    return number


def _refuse_ragged(file: Path, dialect: Dialect, n_names: int, path: str) -> None:
    for number, fields in _records(file, dialect):
        if len(fields) > n_names:
            what = f"has {len(fields)} fields, and the header names {n_names}"
            raise InputError(path, f"{file} line {number} {what}") from None


def _records(file: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not blank with the number of its last line."""
    with open_text(file, dialect.encoding) as text:
        reader = csv.reader(text, delimiter=dialect.delimiter)
        for fields in reader:
            if fields:
                yield reader.line_num, fields


def _dialect(file: Path, path: str) -> Dialect:
    with open_text(file) as text:
        encoding = text.encoding
        lines = list(islice((line.rstrip("\r\n") for line in text if line.strip()), _SAMPLE_LINES))
    if any("\0" in line for line in lines):
        what = "is neither text nor Parquet, nor compressed as gzip, bzip2, xz, Zstandard or zip"
        raise InputError(path, f"{file} {what}")
    delimiter = _delimiter(lines)
    fields = [next(csv.reader([line], delimiter=delimiter), []) for line in lines]
    comma = delimiter == ";" and any(re.fullmatch(r"\s*-?\d+,\d+\s*", field) for row in fields[1:] for field in row)
    return Dialect(encoding, delimiter, "," if comma else ".", _names_of_headerless(fields[0], file, path))


def _delimiter(lines: list[str]) -> str:
    """Return the delimiter that cuts the header and every sampled line into as many fields, comma first."""

    def counts(mark: str) -> list[int]:
        return [len(next(csv.reader([line], delimiter=mark), [])) for line in lines]

    fitting = [mark for mark in _DELIMITERS if (n := counts(mark))[0] > 1 and len(set(n)) == 1]
    present = [mark for mark in _DELIMITERS if mark in lines[0]]
    return next(iter([*fitting, *present]), ",")


def _names_of_headerless(first: list[str], file: Path, path: str) -> tuple[str, ...] | None:
    """Return vegeta's columns for a row of its, None for a line of names; refuse any other line of data."""
    fields = [field.strip() for field in first]
    numbers = [bool(_NUMBER.fullmatch(field)) for field in fields]
    if _LEAST_VEGETA <= len(fields) <= len(VEGETA) and all(numbers[:5]) and len(fields[0]) >= 18:
        return VEGETA[: len(fields)]
    if all(number or bool(_DATE.fullmatch(field)) for number, field in zip(numbers, fields, strict=True)):
        what = "names no columns: its first line holds data; add a line with a name for each column"
        raise InputError(path, f"{file} {what}", ",".join(fields)[:60])
    return None


@contextmanager
def open_text(file: Path, encoding: str | None = None, errors: str = "strict") -> Iterator[io.TextIOWrapper]:
    """Open a file as text: decompressed, in the encoding that its first bytes show, line ends as they are."""
    with open_binary(file) as stream:
        head = stream.read(4096)
        stream.seek(0)
        with io.TextIOWrapper(stream, encoding=encoding or _encoding(head), errors=errors, newline="") as text:
            yield text


def _encoding(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    # Without a mark, every second byte of ASCII text in UTF-16 is 0.
    if len(head) >= 4 and b"\0" not in head[0:4:2] and head[1:4:2] == b"\0\0":
        return "utf-16-le"
    if len(head) >= 4 and b"\0" not in head[1:4:2] and head[0:4:2] == b"\0\0":
        return "utf-16-be"
    return "utf-8-sig"


def open_binary(file: Path) -> IO[bytes]:
    """Open a file, decompressed when its first bytes are those of gzip, bzip2, xz, Zstandard or zip."""
    with file.open("rb") as stream:
        head = stream.read(6)
    if head.startswith(_GZIP):
        return gzip.open(file)  # type: ignore[return-value]
    if head.startswith(_BZIP2):
        return bz2.open(file)
    if head.startswith(_XZ):
        return lzma.open(file)
    if head.startswith(_ZIP):
        with zipfile.ZipFile(file) as archive:
            return io.BytesIO(archive.read(archive.namelist()[0]))
    if head.startswith(_ZSTANDARD):
        try:
            import zstandard
        except ImportError:
            raise OSError("to read Zstandard, pip install zstandard") from None
        with zstandard.open(file, "rb") as packed:
            return io.BytesIO(packed.read())
    return file.open("rb")
