"""Encodes messages of AWS's event stream, in which InvokeEndpointWithResponseStream answers.

A message has a prelude (its length, that of its headers, and a checksum of both), headers, a payload and a checksum of
all before it. Numbers are big-endian, checksums are CRC-32. Every header here is a text, which is type 7.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from zlib import crc32

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_TEXT = 7
_FRAMING_BYTES = 16  # the prelude with its checksum, and the last checksum


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return an encoded message.

    Parameters
    ----------
    headers : mapping of str to str
        Names of at most 255 bytes, values of at most 32,767.
    payload : bytes
    """
    fields = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", _TEXT, len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", _FRAMING_BYTES + len(fields) + len(payload), len(fields))
    before = b"".join((prelude, struct.pack("!I", crc32(prelude)), fields, payload))
    return before + struct.pack("!I", crc32(before))


def payload_part(part: bytes) -> bytes:
    """Return the event that carries a part of the model's answer."""
    kind = {":event-type": "PayloadPart", ":content-type": "application/octet-stream", ":message-type": "event"}
    return message(kind, part)


def stream_exception(name: str, text: str, error_code: str | None = None) -> bytes:
    """Return the exception that ends a stream: `ModelStreamError` with its error code, or `InternalStreamFailure`."""
    kind = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    body = {"Message": text} if error_code is None else {"Message": text, "ErrorCode": error_code}
    return message(kind, json.dumps(body).encode())
