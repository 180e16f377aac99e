"""Shares numbers among processes: who serves, requests per experiment, the invocation quota, replays.

All are cells of eight bytes in one block of memory that the supervisor makes and every process maps. A process's own
row is written by this process alone. What several write is guarded by a lock of the system's on a part of the block,
which is released when its holder is killed; a change is one cell, or its order leaves nothing wrong in between.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from hashlib import blake2b
from time import monotonic, monotonic_ns

_CELL = 8
_ROWS, _ROW_CELLS = 256, 8
_NUMBERS = 1024  # experiments whose requests are numbered; the one that was idle for longest gives way
_SEEN_CELLS = 1 << 21  # of each of two tables of replays, which are full at three quarters
_NUMBERS_AT = _ROWS * _ROW_CELLS
_BUCKET_AT = _NUMBERS_AT + 3 * _NUMBERS
_SEEN_AT = 32_768  # cells; the beginning of a page
N_BYTES = _CELL * (_SEEN_AT + 2 * _SEEN_CELLS)
_GENERATION, _SERVING, _REPORTED, _TAKEN, _KEPT = range(5)


def make_block() -> int:
    """Return a file descriptor of a new block; untouched parts of it take no memory."""
    block = os.memfd_create("shadowsim")
    os.ftruncate(block, N_BYTES)
    return block


class SharedMemory:
    """The block, as one process sees it.

    Parameters
    ----------
    block : int
        File descriptor.
    """

    def __init__(self, block: int):
        self._block = block
        self._map = mmap.mmap(block, N_BYTES)
        view = memoryview(self._map)
        self._cells, self._reals = view.cast("q"), view.cast("d")
        self._numbers, self._bucket, self._seen = (_Lock(block, place) for place in range(3))

    def row(self, number: int) -> ProcessRow:
        """Return the row of a process."""
        return ProcessRow(self._cells, number * _ROW_CELLS)

    def next_number(self, key: int) -> int:
        """Return how many numbers were given for a key before, and give one."""
        cells = self._cells
        with self._numbers:
            oldest, oldest_ns = 0, 1 << 62
            for probe in range(_NUMBERS):
                at = _NUMBERS_AT + 3 * ((key + probe) % _NUMBERS)
                if cells[at] in (key, 0):
                    break
                if cells[at + 1] < oldest_ns:
                    oldest, oldest_ns = at, cells[at + 1]
            else:
                at = oldest
            if cells[at] != key:
                cells[at + 2], cells[at] = 0, key
            number = cells[at + 2]
            cells[at + 1], cells[at + 2] = monotonic_ns(), number + 1
        return number

    def take_token(self, per_s: float, burst: float) -> bool:
        """Take a token of the bucket for invocations, which is full at first, and return whether there was one."""
        cells, at = self._reals, _BUCKET_AT
        with self._bucket:
            now = monotonic()
            tokens = burst if not cells[at + 1] else min(cells[at] + (now - cells[at + 1]) * per_s, burst)
            is_taken = tokens >= 1.0
            cells[at], cells[at + 1] = tokens - is_taken, now
        return is_taken

    def add(self, digest: bytes, now: float, kept_s: float) -> bool:
        """Remember a request for `kept_s` at least, and return whether it is new.

        Two tables take turns: one fills for `kept_s`, while the other still answers. A table that fills sooner, by a
        million and a half of requests, takes its turn sooner.
        """
        key = int.from_bytes(digest[:8], "little", signed=True) or 1
        cells, state_at = self._cells, _BUCKET_AT + 2
        with self._seen:
            present, n, began_ms = cells[state_at], cells[state_at + 1], cells[state_at + 2]
            now_ms, kept_ms = int(now * 1e3), int(kept_s * 1e3)
            if now_ms - began_ms > kept_ms or n >= _SEEN_CELLS * 3 // 4:
                present = 1 - present
                self._clear(present)
                if now_ms - began_ms > 2 * kept_ms:
                    self._clear(1 - present)
                cells[state_at], cells[state_at + 1], cells[state_at + 2] = present, 0, now_ms
            if self._slot(1 - present, key)[1]:
                return False
            at, is_there = self._slot(present, key)
            if is_there:
                return False
            cells[at] = key
            cells[state_at + 1] += 1
        return True

    def _slot(self, table: int, key: int) -> tuple[int, bool]:
        """Return the cell of a key in a table, and whether it is there."""
        cells, begin = self._cells, _SEEN_AT + table * _SEEN_CELLS
        place = key % _SEEN_CELLS
        while cells[begin + place] not in (key, 0):
            place = (place + 1) % _SEEN_CELLS
        return begin + place, cells[begin + place] == key

    def _clear(self, table: int) -> None:
        """Empty a table, and give its memory back."""
        self._map.madvise(mmap.MADV_REMOVE, _CELL * (_SEEN_AT + table * _SEEN_CELLS), _CELL * _SEEN_CELLS)


class _Lock:
    """A lock of the system's on one byte of a file, among processes."""

    __slots__ = ("_file", "_place")

    def __init__(self, file: int, place: int):
        self._file, self._place = file, place

    def __enter__(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, self._place)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._place)


class ProcessRow:
    """The numbers of one process, which outlive it.

    Attributes
    ----------
    generation : int
        How often it was started.
    is_serving : int
        1 while it answers by the account, and so must hear of each event.
    n_reported : int
        Counts that it has made for the control process, or is about to make, since its first start.
    n_taken, n_kept : int
        Captured lines that the control process has taken, and those of them that its journal has.
    """

    __slots__ = ("_at", "_cells")

    def __init__(self, cells: memoryview, at: int):
        self._cells, self._at = cells, at

    def _get(self, field: int) -> int:
        value: int = self._cells[self._at + field]
        return value

    def _set(self, field: int, value: int) -> None:
        self._cells[self._at + field] = value

    generation = property(lambda self: self._get(_GENERATION), lambda self, n: self._set(_GENERATION, n))
    is_serving = property(lambda self: self._get(_SERVING), lambda self, n: self._set(_SERVING, n))
    n_reported = property(lambda self: self._get(_REPORTED), lambda self, n: self._set(_REPORTED, n))
    n_taken = property(lambda self: self._get(_TAKEN), lambda self, n: self._set(_TAKEN, n))
    n_kept = property(lambda self: self._get(_KEPT), lambda self, n: self._set(_KEPT, n))


def key_of(*parts: object) -> int:
    """Return the key of a thing by what names it; not 0."""
    digest = blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1
