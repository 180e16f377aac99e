"""The data files that a scenario names: tables in CSV or Parquet, as they are found and read.

A file is named relative to the scenario, or is one of the package's: `builtin:NAME`. pandas is imported by the
functions that need it.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterable
from importlib.resources import files
from lzma import LZMAError
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shadowsim.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
BUILTIN = "builtin:"


def resolve(path: str, base_dir: Path) -> Path:
    """Return the file that a path in a scenario means: relative to the scenario, or `builtin:NAME` of the package."""
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
            # A named index was a column to whoever wrote it.
            table = table.reset_index() if table.index.names != [None] else table
            names = list(map(str, table.columns))
        elif b"\0" in head and file.suffix not in COMPRESSED:
            what = f"is neither CSV nor Parquet, but binary; compressed CSV ends in {', '.join(COMPRESSED)}"
            raise InputError(path, f"{file} {what}")
        else:
            # pandas would rename a column that has the name of another.
            names = pd.read_csv(file, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0].to_list()
            # index_col=False: pandas would otherwise take the first column for an index when rows are longer than the
            # header; so it only warns, and a warning is made an error.
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
    # EOFError, zlib's and lzma's own errors: compressed files that are cut short or none.
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


def listing(names: Iterable[str]) -> str:
    """Return names for an error's sentence, cut short when they are many or long."""
    names = [name if len(name) <= 40 else name[:37] + "..." for name in names]
    shown = ", ".join(repr(name) if not name.isprintable() else name for name in names[:12])
    return (shown or "none") + (f" and {len(names) - 12} more" if len(names) > 12 else "")
