"""Lists the capture files of a folder and reads them as records, a frame or arrivals.

Reading is tolerant, because a file may have been cut short while it was written or copied: a line that cannot be read
is counted, the place of the first is kept, and reading goes on. pandas is imported by the functions that need it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from shadowsim.captures.record import EVENT_VERSION, CaptureRecord, record_of
from shadowsim.errors import InputError, SerializationError
from shadowsim.json_files import path_of

if TYPE_CHECKING:
    import pandas as pd

Source = str | os.PathLike[str]

# Room for two bodies of 25 MB with six bytes per escaped character; a file without line ends must not fill the memory.
MAX_LINE_BYTES = 512 * 2**20
_ENDPOINT_AND_VARIANT = re.compile(r"(?:([^/]+)/)?([^/]+)/\d{4}/\d\d/\d\d/\d\d/[^/]+$")
_NO_TIME = np.iinfo(np.int64).min  # NaT


@dataclass(frozen=True, slots=True)
class CaptureFile:
    """A file of captures, with the endpoint and variant that its folders name (None if they name none)."""

    path: Path
    endpoint: str | None
    variant: str | None


@dataclass(slots=True)
class Reading:
    """Counts of lines read so far, and of flaws among them.

    Attributes
    ----------
    n_records : int
        Lines read as records.
    n_torn : int
        Last lines of files, without a line end, that cannot be read.
    n_broken : int
        Other lines that cannot be read.
    n_other_versions : int
        Records of another eventVersion; they are read all the same.
    first_flaw : str or None
        The place and cause of the first line that cannot be read.
    """

    n_records: int = 0
    n_torn: int = 0
    n_broken: int = 0
    n_other_versions: int = 0
    first_flaw: str | None = None


@dataclass(frozen=True, slots=True)
class Captures:
    """Captures as a frame, `records`, whose columns `read_captures` describes, and the counts of its `reading`."""

    records: pd.DataFrame
    reading: Reading


def capture_files(source: Source) -> tuple[CaptureFile, ...]:
    """Return one file, or all capture files below a folder, in order of time within a variant.

    Links to folders are not followed. In a folder only `.jsonl` files count.

    Raises
    ------
    InputError
        There are no such files, or a folder cannot be listed.
    """
    root, name = path_of(source, "captures"), str(source)
    if str(source).lower().startswith("s3://"):
        raise InputError(name, "must be a local folder: copy it first (aws s3 sync)")
    if root.is_file():
        return (_capture_file(root),)
    if not root.is_dir():
        raise InputError(name, "there is no such file or folder")

    def fail(error: OSError) -> None:
        raise InputError(str(error.filename), f"cannot be listed: {error.strerror}")

    paths = [Path(folder, file) for folder, _, names in os.walk(root, onerror=fail) for file in names]
    files = sorted(path for path in paths if path.suffix == ".jsonl")
    if not files:
        packed = any(path.name.endswith(".jsonl.gz") for path in paths)
        raise InputError(name, "has no capture files (.jsonl)" + ("; unpack its .jsonl.gz first" if packed else ""))
    return tuple(map(_capture_file, files))


def scan_records(files: Sequence[CaptureFile], reading: Reading) -> Iterator[tuple[int, int, CaptureRecord]]:
    """Yield every record with the number of its file and its offset there; count lines that cannot be read.

    Memory holds one line at a time.

    Raises
    ------
    InputError
        A file cannot be opened or read.
    """
    for number, file in enumerate(files):
        try:
            with file.path.open("rb") as stream:
                for offset, line in _lines(stream):
                    try:
                        record = record_of(line)
                    except SerializationError as error:
                        torn = not line.endswith(b"\n")
                        reading.n_torn += torn
                        reading.n_broken += not torn
                        where = f"{file.path}, at byte {offset}"
                        reading.first_flaw = reading.first_flaw or f"{where}: {error}"
                        continue
                    reading.n_records += 1
                    reading.n_other_versions += record.event_version != EVENT_VERSION
                    yield number, offset, record
        except OSError as error:
            raise InputError(str(file.path), f"cannot be read: {error.strerror or error}") from None


def read_captures(source: Source, *, bodies: bool = True) -> Captures:
    """Read a folder of captures, or one file, into a frame.

    Parameters
    ----------
    source : path
        Searched recursively for `.jsonl` files.
    bodies : bool
        False leaves out the bodies but not their sizes; memory then holds some hundred bytes per record.

    Returns
    -------
    Captures
        `records` has one row per record, in the order of files and lines: `variant` (from the folder), `inference_id`,
        `event_id`, `inference_time` (UTC, to the second), and for the `request` and the `response`: `_content_type`,
        `_encoding`, `_bytes` (size of the body), `_body` (bytes). Values that a line lacks are missing.

    Raises
    ------
    InputError
        There is no such file, no file with captures, or one that cannot be read.

    Examples
    --------
    >>> import json, shadowsim as ss
    >>> from pathlib import Path
    >>> def captured(variant, answer):
    ...     payload = {"observedContentType": "application/json", "mode": "OUTPUT", "data": answer, "encoding": "JSON"}
    ...     about = {"eventId": "e1", "inferenceId": "r1", "inferenceTime": "2026-12-01T00:00:00Z"}
    ...     file = Path("captures", "ranker", variant, "2026/12/01/00/00-00-000-a.jsonl")
    ...     file.parent.mkdir(parents=True, exist_ok=True)
    ...     line = {"captureData": {"endpointOutput": payload}, "eventMetadata": about, "eventVersion": "0"}
    ...     with file.open("w") as lines:
    ...         print(json.dumps(line), file=lines)
    ...     return Path("captures", "ranker", variant)
    >>> captures = ss.read_captures(captured("AllTraffic", "[1]"))
    >>> captures.records[["variant", "inference_id", "response_bytes"]].to_numpy().tolist()
    [['AllTraffic', 'r1', 3]]
    """
    import pandas as pd

    files, reading = capture_files(source), Reading()
    rows = [_record_row(record, files[number].variant, bodies) for number, _, record in scan_records(files, reading)]
    refuse_empty(source, reading)
    records = pd.DataFrame(rows)
    seconds = records["inference_time"].to_numpy(np.int64).astype("datetime64[s]")
    records["inference_time"] = pd.Series(seconds).dt.tz_localize("UTC")
    types = {name: "str" for name in records if str(name).endswith(("variant", "_id", "_type", "_encoding"))}
    types |= {name: "Int64" for name in records if str(name).endswith("_bytes")}
    return Captures(records.astype(types), reading)


def captured_arrivals(source: Source, *, seed: int = 0) -> pd.DataFrame:
    """Return the arrival times of captured requests, as a table that can be saved and used as a trace.

    Captures have times in whole seconds. The time within the second is drawn uniformly, which is the distribution of
    Poisson arrivals given their number in that second. Without it, all arrivals of a second would come at once and wait
    for each other.

    Parameters
    ----------
    source : path
        Captures of one variant. If capture samples requests, only the sampled share appears.
    seed : int
        Seed of the times within a second.

    Returns
    -------
    DataFrame
        `timestamp` (UTC, in order), `request_bytes`, `response_bytes`; one row per record.

    Raises
    ------
    InputError
        As for `read_captures`; or there are several variants, or a record without a time.

    Examples
    --------
    >>> import json, shadowsim as ss
    >>> from pathlib import Path
    >>> def captured(variant, answer):
    ...     payload = {"observedContentType": "application/json", "mode": "OUTPUT", "data": answer, "encoding": "JSON"}
    ...     about = {"eventId": "e1", "inferenceId": "r1", "inferenceTime": "2026-12-01T00:00:00Z"}
    ...     file = Path("captures", "ranker", variant, "2026/12/01/00/00-00-000-a.jsonl")
    ...     file.parent.mkdir(parents=True, exist_ok=True)
    ...     line = {"captureData": {"endpointOutput": payload}, "eventMetadata": about, "eventVersion": "0"}
    ...     with file.open("w") as lines:
    ...         print(json.dumps(line), file=lines)
    ...     return Path("captures", "ranker", variant)
    >>> ss.captured_arrivals(captured("AllTraffic", "[1]")).columns.tolist()
    ['timestamp', 'request_bytes', 'response_bytes']
    """
    columns = ["timestamp", "request_bytes", "response_bytes"]
    return arrivals_of(read_captures(source, bodies=False), source, seed=seed)[columns]


def arrivals_of(captures: Captures, source: Source, *, seed: int = 0) -> pd.DataFrame:
    """Return what `captured_arrivals` does, of captures that were read, and their `inference_id`.

    Errors name `source`.
    """
    records, name = captures.records, str(source)
    if records["variant"].nunique(dropna=False) > 1:
        variants = ", ".join(sorted(map(str, records["variant"].dropna().unique())))
        raise InputError(name, f"must hold one variant, not several ({variants}): a copy is no arrival")
    n_timeless = int(records["inference_time"].isna().sum())
    if n_timeless:
        raise InputError(name, "must have an inferenceTime in every record; records without one", n_timeless)
    within_second_ns = np.random.default_rng(seed).integers(0, 1_000_000_000, len(records)).astype("timedelta64[ns]")
    arrivals = records[["inference_id", "request_bytes", "response_bytes"]].copy()
    arrivals.insert(0, "timestamp", records["inference_time"].dt.as_unit("ns") + within_second_ns)
    return arrivals.sort_values("timestamp", kind="stable", ignore_index=True)


def refuse_empty(source: Source, reading: Reading) -> None:
    """Raise `InputError` when no record was read."""
    if reading.n_records == 0:
        cause = f"; the first line that cannot be read: {reading.first_flaw}" if reading.first_flaw else ""
        raise InputError(str(source), f"holds no captures{cause}")


def _capture_file(path: Path) -> CaptureFile:
    match = _ENDPOINT_AND_VARIANT.search(path.absolute().as_posix())
    endpoint, variant = match.groups() if match else (None, None)
    return CaptureFile(path, endpoint, variant)


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, each with its offset; a line that is too long is cut."""
    offset = 0
    while line := stream.readline(MAX_LINE_BYTES):
        n_bytes, rest = len(line), line
        while len(rest) == MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES)
            n_bytes += len(rest)
        if rest is not line:
            line = line[:1024] + b"\n"  # unreadable, but with a line end, so not torn
        if not line.isspace():
            yield offset, line
        offset += n_bytes


def _record_row(record: CaptureRecord, variant: str | None, bodies: bool) -> dict[str, object]:
    row: dict[str, object] = {
        "variant": variant,
        "inference_id": record.inference_id,
        "event_id": record.event_id,
        "inference_time": _NO_TIME if record.inference_time is None else int(record.inference_time.timestamp() // 1),
    }
    for side, payload in (("request", record.request), ("response", record.response)):
        row[f"{side}_content_type"] = payload and payload.content_type
        row[f"{side}_encoding"] = payload and payload.encoding
        row[f"{side}_bytes"] = None if payload is None else len(payload.body)
        if bodies:
            row[f"{side}_body"] = None if payload is None else payload.body
    return row
