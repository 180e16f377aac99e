"""Writes and parses lines of SageMaker's data capture: one line of JSON per invocation.

A file lies at `<destination>/<endpoint>/<variant>/yyyy/mm/dd/hh/MM-SS-mmm-<uuid>.jsonl`, by the UTC hour. Only the
folder names the variant: no member of a line does, and nothing marks a shadow's copy. A line holds

    {"captureData": {"endpointInput":  {"observedContentType", "mode": "INPUT",  "data", "encoding"},
                     "endpointOutput": {"observedContentType", "mode": "OUTPUT", "data", "encoding"}},
     "eventMetadata": {"eventId", "customAttributes", "inferenceId", "inferenceTime"}, "eventVersion": "0"}

with only the sides that are captured. Of the metadata, eventId and inferenceTime (in whole seconds) are always there. A
line has no latency and no status: latencies come from CloudWatch or from one's own runs.

`line_of` and `record_of` are inverses of each other.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from shadowsim.errors import SerializationError, json_kind

T = TypeVar("T")

CSV, JSON, BASE64 = "CSV", "JSON", "BASE64"
EVENT_VERSION = "0"


@dataclass(frozen=True, slots=True)
class CapturedPayload:
    """A captured request or answer.

    Attributes
    ----------
    body : bytes
        The body that passed the endpoint, decoded from the line. UTF-8 unless `encoding` is BASE64.
    content_type : str or None
        The Content-Type observed, with its parameters.
    encoding : str
        The body's form in the line: CSV or JSON (both as text), or BASE64.
    """

    body: bytes
    content_type: str | None = None
    encoding: str = BASE64

    @property
    def media_type(self) -> str:
        """The content type in lower case, without parameters; "" when there is none."""
        return _media_type(self.content_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureRecord:
    """One captured invocation.

    Attributes
    ----------
    event_id : str or None
        The service's id. It is not documented whether a copy has its source's id, so pair by `inference_id`.
    inference_id : str or None
        The caller's InferenceId; the copy carries it too.
    inference_time : datetime or None
        In UTC. Lines hold whole seconds.
    request, response : CapturedPayload or None
        None when that side is not captured.
    custom_attributes : tuple of str
    event_version : str
        "0" is the only known version.
    """

    event_id: str | None
    inference_id: str | None = None
    inference_time: datetime | None
    request: CapturedPayload | None = None
    response: CapturedPayload | None = None
    custom_attributes: tuple[str, ...] = ()
    event_version: str = EVENT_VERSION


def payload_of(
    body: bytes,
    content_type: str | None,
    csv_content_types: Collection[str] = (),
    json_content_types: Collection[str] = (),
) -> CapturedPayload:
    """Return a body with the encoding that SageMaker gives it.

    Bodies of listed content types, whatever the type's parameters and case, are stored as CSV or JSON text; all others
    in base64. A listed body that is not UTF-8 is stored in base64 too, since text would not preserve it.
    """
    media_type = _media_type(content_type)
    encoding = BASE64
    for name, listed in ((CSV, csv_content_types), (JSON, json_content_types)):
        if encoding == BASE64 and media_type and media_type in {t.lower() for t in listed}:
            encoding = name
    try:
        body.decode()
    except UnicodeDecodeError:
        encoding = BASE64
    return CapturedPayload(body, content_type, encoding)


def key_of(endpoint: str, variant: str, moment: datetime, unique: str) -> str:
    """Return the path below its destination of a file that begins at `moment` (with a zone); `unique` is a uuid4."""
    utc = moment.astimezone(UTC)
    return f"{endpoint}/{variant}/{utc:%Y/%m/%d/%H/%M-%S}-{utc.microsecond // 1000:03d}-{unique}.jsonl"


def line_of(record: CaptureRecord) -> str:
    """Return a record as SageMaker's line: compact JSON in ASCII, without a line end."""
    sides = {"endpointInput": ("INPUT", record.request), "endpointOutput": ("OUTPUT", record.response)}
    metadata: dict[str, object] = {"eventId": record.event_id}
    if record.custom_attributes:
        metadata["customAttributes"] = record.custom_attributes
    if record.inference_id is not None:
        metadata["inferenceId"] = record.inference_id
    if record.inference_time is not None:
        utc = record.inference_time.astimezone(UTC).replace(microsecond=0, tzinfo=None)
        metadata["inferenceTime"] = f"{utc.isoformat()}Z"  # strftime would not pad the year
    document = {
        "captureData": {
            name: _side_document(mode, payload) for name, (mode, payload) in sides.items() if payload is not None
        },
        "eventMetadata": metadata,
        "eventVersion": record.event_version,
    }
    return json.dumps(document, separators=(",", ":"))


def record_of(line: bytes | str) -> CaptureRecord:
    """Parse a line.

    Raises
    ------
    SerializationError
        The line is not JSON, or not a capture.
    """
    try:
        document = json.loads(line if isinstance(line, str) else line.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise SerializationError(f"broken JSON at column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise SerializationError(f"byte {error.start} is not UTF-8") from None
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits; a depth of a thousand levels
        raise SerializationError("JSON with too many digits or levels") from None
    if not isinstance(document, dict) or "captureData" not in document:
        raise SerializationError("is JSON, but holds no captureData")
    data = _member(document, "captureData", dict) or {}
    metadata = _member(document, "eventMetadata", dict) or {}
    attributes = _member(metadata, "customAttributes", list) or []
    return CaptureRecord(
        event_id=_member(metadata, "eventId", str),
        inference_id=_member(metadata, "inferenceId", str),
        inference_time=_time(_member(metadata, "inferenceTime", str)),
        request=_payload(_member(data, "endpointInput", dict)),
        response=_payload(_member(data, "endpointOutput", dict)),
        custom_attributes=tuple(map(str, attributes)),
        event_version=str(document.get("eventVersion", "")),
    )


def _media_type(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()


def _side_document(mode: str, payload: CapturedPayload) -> dict[str, object]:
    body = payload.body
    data = b64encode(body).decode() if payload.encoding == BASE64 else body.decode("utf-8", "surrogatepass")
    return {"observedContentType": payload.content_type, "mode": mode, "data": data, "encoding": payload.encoding}


def _payload(side: Mapping[str, Any] | None) -> CapturedPayload | None:
    if side is None:
        return None
    data, encoding = _member(side, "data", str), _member(side, "encoding", str)
    if data is None or encoding not in (CSV, JSON, BASE64):
        raise SerializationError("has no data in the encoding CSV, JSON or BASE64")
    try:
        # A lone surrogate, which JSON can write, is kept.
        body = b64decode(data, validate=True) if encoding == BASE64 else data.encode("utf-8", "surrogatepass")
    except ValueError as error:
        raise SerializationError(f"has data that is not base64: {error}") from None
    return CapturedPayload(body, _member(side, "observedContentType", str), encoding)


def _member(owner: Mapping[str, Any], name: str, expected: type[T]) -> T | None:
    value = owner.get(name)
    if value is not None and not isinstance(value, expected):
        raise SerializationError(f"has {json_kind(value)} for {name}")
    return value


def _time(text: str | None) -> datetime | None:
    """Return a time in UTC, or None for a text that is no time: the rest of the line is still useful."""
    try:
        moment = datetime.fromisoformat(text or "")
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # OverflowError: the first or last day of the calendar, in another zone
        return None
