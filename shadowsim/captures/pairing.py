"""Pairs the captures of two variants by inference id, in bounded memory.

Captures are read twice, one line at a time. Between the readings, memory holds 28 bytes per record: a digest of its
inference id, the number of its file and its offset there; joining two sides takes some 65 bytes more. Bodies are not
kept.

An id should occur once per side. A caller that retries sends it again, so the earliest record of an id is paired, and
later ones are counted as duplicates.
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

from shadowsim.arrays import Ints
from shadowsim.captures.folders import CaptureFile, Reading, Source, capture_files, refuse_empty, scan_records
from shadowsim.captures.record import CaptureRecord, record_of
from shadowsim.errors import InputError, SerializationError

_ID_BYTES = 16  # two of 10^9 ids share a digest with a probability of 10^-21
_OPEN_FILES = 16


@dataclass(frozen=True, slots=True, eq=False)
class CaptureIndex:
    """The places of a variant's records.

    Attributes
    ----------
    files : tuple of CaptureFile
    reading : Reading
        Counts of the lines read.
    variant : str or None
        The name in the files' folder.
    ids : ndarray of bytes, shape (n,)
        Digests of inference ids, for the records that have one, in the order of files and lines.
    file, offset : ndarray of int, shape (n,)
        The number of each record's file, and the record's offset in bytes.
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
    """The records of two indexes that have the same inference id.

    Attributes
    ----------
    source, shadow : ndarray of int64, shape (n,)
        Numbers of records in the two indexes, in the source's order.
    n_ids : tuple of (int, int)
        The numbers of distinct ids of the source and of the shadow.
    """

    source: Ints
    shadow: Ints
    n_ids: tuple[int, int]


def index_captures(captures: Source, role: str) -> CaptureIndex:
    """Read captures of one variant and index the place of each record.

    Parameters
    ----------
    captures : path
        A folder, searched recursively, or a file.
    role : str
        The name of this side in errors.

    Raises
    ------
    InputError
        There are no captures, captures of several variants, or no record has an inference id.
    """
    files, reading = capture_files(captures), Reading()
    variants = sorted({(f.endpoint or "", f.variant or "") for f in files})
    if len(variants) > 1:
        names = ", ".join("/".join(filter(None, v)) or "none" for v in variants[:4])
        raise InputError(role, f"must be captures of one variant; {captures} has {names}")
    ids, file, offset, n_without_id = bytearray(), array("i"), array("q"), 0
    for number, place, record in scan_records(files, reading):
        if record.inference_id is None:
            n_without_id += 1
            continue
        ids += _digest(record.inference_id)
        file.append(number)
        offset.append(place)
    refuse_empty(captures, reading)
    if not file:
        constraint = "must have inference ids (InvokeEndpoint's InferenceId)"
        raise InputError(role, f"{constraint}: none of {reading.n_records:,} records in {captures} has one")
    return CaptureIndex(
        files,
        reading,
        variants[0][1] or None,
        np.frombuffer(ids, dtype=f"S{_ID_BYTES}"),
        np.frombuffer(file, dtype=np.int32),
        np.frombuffer(offset, dtype=np.int64),
        n_without_id,
    )


def pair_by_id(source: CaptureIndex, shadow: CaptureIndex) -> Pairs:
    """Join two indexes on the inference id, with the earliest record of each id on either side."""
    (source_ids, source_first), (shadow_ids, shadow_first) = (
        np.unique(side.ids, return_index=True) for side in (source, shadow)
    )
    _, i, j = np.intersect1d(source_ids, shadow_ids, assume_unique=True, return_indices=True)
    a, b = source_first[i], shadow_first[j]
    order = np.argsort(a)
    return Pairs(a[order], b[order], (source_ids.size, shadow_ids.size))


def read_pairs(
    source: CaptureIndex, shadow: CaptureIndex, pairs: Pairs
) -> Iterator[tuple[CaptureRecord, CaptureRecord]]:
    """Yield the two records of every pair.

    Raises
    ------
    InputError
        A file cannot be read again, or has changed.
    """
    with ExitStack() as stack:
        sources, shadows = (_RecordReader(side, stack) for side in (source, shadow))
        # In blocks, because Python integers for millions of pairs would take more memory than the index.
        for begin in range(0, pairs.source.size, 4096):
            block = slice(begin, begin + 4096)
            for i, j in zip(pairs.source[block].tolist(), pairs.shadow[block].tolist(), strict=True):
                yield sources.record(i), shadows.record(j)


class _RecordReader:
    """Reads the records of an index in any order; a few files stay open."""

    def __init__(self, index: CaptureIndex, stack: ExitStack):
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
        if record is None or record.inference_id is None or _stripped_digest(record.inference_id) != self._index.ids[i]:
            raise InputError(name, "must not change while it is read, but has")
        return record

    def _stream(self, number: int) -> BinaryIO:
        if number not in self._open:
            if len(self._open) >= _OPEN_FILES:  # files are in order of time: the one opened first is no longer needed
                self._open.pop(next(iter(self._open))).close()
            self._open[number] = self._index.files[number].path.open("rb")
        return self._open[number]

    def _close(self) -> None:
        for stream in self._open.values():
            stream.close()


def _digest(inference_id: str) -> bytes:
    return blake2b(inference_id.encode("utf-8", "surrogatepass"), digest_size=_ID_BYTES).digest()


def _stripped_digest(inference_id: str) -> bytes:
    return _digest(inference_id).rstrip(b"\0")  # numpy strips trailing zeros from bytes of a fixed length
