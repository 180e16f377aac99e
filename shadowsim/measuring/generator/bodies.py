"""Reads or draws the bodies of requests: files, lines of JSON, rows of arrays, captures, random bytes.

=====================  ================================================================================================
a file                 the same body for every request
a folder               its files in the order of their names, one after the other and again from the first
FILE.jsonl             a line for each request
FILE.npy               a row of the array for each request, as an .npy file of one row
captures               the recorded requests of a folder of SageMaker's capture files, with their content types
random bytes           of sizes that are drawn by a law
=====================  ================================================================================================

Request i has body i modulo their number, so that the same run sends the same bodies.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shadowsim.arrays import Ints
from shadowsim.captures.folders import Reading, capture_files, refuse_empty, scan_records
from shadowsim.errors import InputError, shown

MOST_BYTES = 2**30  # of all bodies together, which are kept in memory
BINARY = "application/octet-stream"
_TYPES = {
    ".json": "application/json", ".jsonl": "application/json", ".csv": "text/csv", ".txt": "text/plain",
    ".npy": "application/x-npy", ".npz": "application/x-npz", ".parquet": "application/x-parquet",
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".xml": "application/xml",
}  # fmt: skip
_POOL_BYTES = 2**20  # random bytes, of which random bodies are pieces


@dataclass(frozen=True, slots=True)
class Bodies:
    """The bodies of a run.

    Attributes
    ----------
    contents : tuple of bytes
        In the order of requests; empty for random bytes.
    content_types : tuple of str
        One for each of `contents`, or a single one for all; "" for none.
    sizes : ndarray of int64
        Random bytes: the size for each request, in order; otherwise empty.
    pool : bytes
        Random bytes: what bodies are pieces of.
    """

    contents: tuple[bytes, ...] = (b"",)
    content_types: tuple[str, ...] = ("",)
    sizes: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    pool: bytes = b""
    _hashes: dict[int, str] = field(default_factory=dict, compare=False)

    def body(self, number: int) -> bytes:
        """Return the body of a request."""
        if not self.sizes.size:
            return self.contents[number % len(self.contents)]
        size = int(self.sizes[number % self.sizes.size])
        start = (number * 4099) % (len(self.pool) - size + 1)
        return self.pool[start : start + size]

    def content_type(self, number: int) -> str:
        """Return the content type of a request's body; "" for none."""
        return self.content_types[number % len(self.content_types)]

    def sha256(self, number: int) -> str:
        """Return the hash of a request's body, in hexadecimal; those of bodies that come again are kept."""
        if self.sizes.size:
            return hashlib.sha256(self.body(number)).hexdigest()
        place = number % len(self.contents)
        if place not in self._hashes:
            self._hashes[place] = hashlib.sha256(self.contents[place]).hexdigest()
        return self._hashes[place]


def read_bodies(source: str | os.PathLike[str]) -> Bodies:
    """Read bodies from a file or a folder; a folder with capture files gives the captured requests.

    Raises
    ------
    InputError
        There is no such file, it has no bodies, or they are larger than 1 GiB together.
    """
    path, name = Path(source), str(source)
    if path.is_dir():
        names = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        if names and all(p.suffix == ".jsonl" for p in names) and _are_captures(names[0]):
            return read_captured_bodies(path)
        files = [p for p in names if p.parent == path]
        if not files:
            raise InputError(name, "has no files to send")
        _check_size(name, sum(p.stat().st_size for p in files))
        return Bodies(tuple(map(_content, files)), tuple(_TYPES.get(p.suffix.lower(), BINARY) for p in files))
    kind = _TYPES.get(path.suffix.lower(), BINARY)
    if path.is_file():
        _check_size(name, path.stat().st_size)
    content = _content(path)
    if path.suffix.lower() == ".jsonl":
        if _are_captures(path):
            return read_captured_bodies(path)
        contents = tuple(line for line in content.splitlines() if line.strip())
        if not contents:
            raise InputError(name, "has no lines to send")
        return Bodies(contents, (kind,))
    if path.suffix.lower() == ".npy":
        return Bodies(_rows(content, name), (kind,))
    return Bodies((content,), (kind,))


def read_captured_bodies(source: str | os.PathLike[str]) -> Bodies:
    """Read the requests of SageMaker's capture files, in the order in which they were captured."""
    files, reading = capture_files(source), Reading()
    found, total = [], 0
    for _, _, record in scan_records(files, reading):
        if record.request is not None:
            when = record.inference_time.timestamp() if record.inference_time else 0.0
            found.append((when, record.request.body, record.request.content_type or ""))
            total += len(record.request.body)
            _check_size(str(source), total)
    refuse_empty(source, reading)
    if not found:
        raise InputError(str(source), "has captures of answers only, and no request to send")
    found.sort(key=lambda one: one[0])
    return Bodies(tuple(body for _, body, _ in found), tuple(kind for _, _, kind in found))


def random_bodies(sizes: Ints, seed: int) -> Bodies:
    """Return bodies of random bytes, which no compression makes shorter.

    Parameters
    ----------
    sizes : ndarray of int64, shape (n,)
        Of the requests, in order.
    seed : int
    """
    greatest = int(sizes.max(initial=0))
    _check_size("request_bytes", greatest)
    pool = np.random.default_rng(seed).bytes(_POOL_BYTES + greatest)
    return Bodies((), (BINARY,), sizes, pool)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError("body", f"{path} cannot be read: {error.strerror or error}") from None


def _check_size(name: str, total: int) -> None:
    if total > MOST_BYTES:
        raise InputError(name, f"must have at most {MOST_BYTES} bytes of bodies, which are kept in memory", total)


def _are_captures(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return b'"captureData"' in stream.read(2**16)
    except OSError:
        return False


def _rows(content: bytes, name: str) -> tuple[bytes, ...]:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(name, f"is not an .npy file ({shown(str(error))})") from None
    if array.ndim == 0 or not len(array):
        raise InputError(name, "must be an array with a row for each request, of shape", tuple(array.shape))
    rows, total = [], 0
    for i in range(len(array)):
        file = io.BytesIO()
        np.save(file, array[i : i + 1], allow_pickle=False)
        rows.append(file.getvalue())
        total += len(rows[-1])
        _check_size(name, total)
    return tuple(rows)
