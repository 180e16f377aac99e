"""Captures of two variants, paired by inference id in bounded memory.

Captures are read twice, a line at a time. In between, memory holds 28 bytes a record: a digest of its inference id, the
number of its file and its offset there; some 65 bytes more while two sides are joined. Bodies are never held.

An id should stand once on a side. A caller that retries sends it again, so the earliest record of an id is the one that
is paired; later ones are counted as duplicates.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from shadowsim.captures.folders import CaptureFile, Reading, Source, capture_files, refuse_empty, scan
from shadowsim.captures.record import CaptureRecord, record_of
from shadowsim.errors import InputError, SerializationError

Ints = NDArray[np.int64]

_ID_BYTES = 16  # two of 10^9 ids share a digest with a probability of 10^-21
_OPEN_FILES = 16


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """Where the records of a variant lie.

    Attributes
    ----------
    files : tuple of CaptureFile
    reading : Reading
        What was met when they were read.
    variant : str or None
        As their folder names it.
    ids : ndarray of bytes, shape (n,)
        Digests of the inference ids, of the records that have one, in the order of files and lines.
    file, offset : ndarray of int, shape (n,)
        Where each record lies.
    n_without_id : int
    """

    files: tuple[CaptureFile, ...]
    reading: Reading
    variant: str | None
    ids: NDArray[np.bytes_]
    file: NDArray[np.int32]
    offset: Ints
    n_without_id: int


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Which records belong together.

    Attributes
    ----------
    source, shadow : ndarray of int64, shape (n,)
        Numbers of records in the two indexes, in the source's order.
    n_ids : tuple of (int, int)
        How many different ids the source and the shadow have.
    """

    source: Ints
    shadow: Ints
    n_ids: tuple[int, int]


def index_captures(captures: Source, role: str) -> Index:
    """Read captures of one variant and note where each record lies.

    Parameters
    ----------
    captures : path
        A folder, searched recursively, or a file.
    role : str
        What errors call it.

    Raises
    ------
    InputError
        When there are no captures, captures of several variants, or no record has an inference id.
    """
    files, reading = capture_files(captures), Reading()
    variants = sorted({(f.endpoint or "", f.variant or "") for f in files})
    if len(variants) > 1:
        found = ", ".join("/".join(filter(None, v)) or "none" for v in variants[:4])
        raise InputError(role, f"must be captures of one variant; {captures} has {found}")
    ids, file, offset, n_without_id = bytearray(), array("i"), array("q"), 0
    for number, place, record in scan(files, reading):
        if record.inference_id is None:
            n_without_id += 1
            continue
        ids += _digest(record.inference_id)
        file.append(number)
        offset.append(place)
    refuse_empty(captures, reading)
    if not file:
        what = f"must have inference ids (InvokeEndpoint's InferenceId): none of {reading.n_records:,} records"
        raise InputError(role, f"{what} in {captures} has one")
    return Index(
        files,
        reading,
        variants[0][1] or None,
        np.frombuffer(ids, dtype=f"S{_ID_BYTES}"),
        np.frombuffer(file, dtype=np.int32),
        np.frombuffer(offset, dtype=np.int64),
        n_without_id,
    )


def pair(source: Index, shadow: Index) -> Pairs:
    """Join two indexes on the inference id, the earliest record of each id on either side."""
    found = [np.unique(side.ids, return_index=True) for side in (source, shadow)]
    (source_ids, source_first), (shadow_ids, shadow_first) = found
    _, i, j = np.intersect1d(source_ids, shadow_ids, assume_unique=True, return_indices=True)
    a, b = source_first[i], shadow_first[j]
    order = np.argsort(a)
    return Pairs(a[order], b[order], (source_ids.size, shadow_ids.size))


def read_pairs(source: Index, shadow: Index, pairs: Pairs) -> Iterator[tuple[CaptureRecord, CaptureRecord]]:
    """Yield the two records of every pair.

    Raises
    ------
    InputError
        When a file cannot be read again, or is not what it was.
    """
    with ExitStack() as stack:
        one, other = (_Lines(side, stack) for side in (source, shadow))
        # Blocks: a Python int for each of millions of pairs would be more than their index.
        for begin in range(0, pairs.source.size, 4096):
            block = slice(begin, begin + 4096)
            for i, j in zip(pairs.source[block].tolist(), pairs.shadow[block].tolist(), strict=True):
                yield one.record(i), other.record(j)


class _Lines:
    """The lines of an index, in any order; a few files stay open."""

    def __init__(self, index: Index, stack: ExitStack):
        self._index = index
        self._open: dict[int, BinaryIO] = {}
        stack.callback(self._close)

    def record(self, i: int) -> CaptureRecord:
        number = int(self._index.file[i])
        name = str(self._index.files[number].path)
        try:
            stream = self._stream(number)
            stream.seek(int(self._index.offset[i]))
            record = record_of(stream.readline())
        except OSError as error:
            raise InputError(name, f"cannot be read: {error.strerror or error}") from None
        except SerializationError:
            record = None
        if record is None or record.inference_id is None or _stripped(record.inference_id) != self._index.ids[i]:
            raise InputError(name, "must not change while it is read, but has")
        return record

    def _stream(self, number: int) -> BinaryIO:
        if number not in self._open:
            if len(self._open) >= _OPEN_FILES:  # files are in order of time: the one opened first is done with
                self._open.pop(next(iter(self._open))).close()
            self._open[number] = self._index.files[number].path.open("rb")
        return self._open[number]

    def _close(self) -> None:
        for stream in self._open.values():
            stream.close()


def _digest(inference_id: str) -> bytes:
    return blake2b(inference_id.encode("utf-8", "surrogatepass"), digest_size=_ID_BYTES).digest()


def _stripped(inference_id: str) -> bytes:
    return _digest(inference_id).rstrip(b"\0")  # as numpy gives back bytes of a fixed length
