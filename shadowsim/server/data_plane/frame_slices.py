"""Encodes frames of any length piece by piece, so that no piece holds the interpreter's lock for long.

A frame of a live experiment can have four million rows, which take gigabytes and many seconds to encode at once, and
pandas keeps the lock meanwhile. Here each piece is a few thousand rows: they are put in order, built and encoded in a
thread, and sent before the next piece is begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# By form. At 2,048 rows the event loop is held for up to 12 ms by Parquet, but for 20 ms by JSON, whose encoding takes
# as long again as the building of the frame. Half as many rows give 15 ms, and take two fifths more time in all.
SLICE_ROWS = {"json": 1_024, "parquet": 2_048}
GROUP_ROWS = 65_536  # of a Parquet file


async def encoded(frames: Iterator[pd.DataFrame], form: str) -> AsyncIterator[bytes]:
    """Yield the bytes of slices of a frame, as one Parquet file or as one JSON list of objects.

    Parameters
    ----------
    frames : iterator of DataFrame
        At least one, all of the same columns; each is made in a thread.
    form : {"json", "parquet"}
    """
    pieces = _json(frames) if form == "json" else _parquet(frames)
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        if piece:
            yield piece


def slices(frame: pd.DataFrame, form: str) -> Iterator[pd.DataFrame]:
    """Yield a frame in slices of the length for a form."""
    n_rows = SLICE_ROWS[form]
    for begin in range(0, max(len(frame), 1), n_rows):
        yield frame.iloc[begin : begin + n_rows]


def _json(frames: Iterator[pd.DataFrame]) -> Iterator[bytes]:
    separator = b"["
    for frame in frames:
        rows = frame.to_json(orient="records").encode()[1:-1]
        yield separator + rows if rows else b""
        separator = b"," if rows else separator
    yield b"[]" if separator == b"[" else b"]"


class _Written:
    """A file for pyarrow whose bytes are taken away as they come."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        """Return what was written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _parquet(frames: Iterator[pd.DataFrame]) -> Iterator[bytes]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    first = next(frames)
    file, schema = _Written(), pa.Schema.from_pandas(first, preserve_index=False)
    with ParquetWriter(pa.PythonFile(file, mode="w"), schema) as writer:
        tables = [pa.Table.from_pandas(first, schema=schema, preserve_index=False)]
        for frame in frames:
            if sum(map(len, tables)) >= GROUP_ROWS:
                writer.write_table(pa.concat_tables(tables))
                tables.clear()
            tables.append(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
            yield file.take()
        writer.write_table(pa.concat_tables(tables))
    yield file.take()
