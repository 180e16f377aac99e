"""Says why a request failed: its status and cause, by the answer or the exception with which it ended."""

from __future__ import annotations

import errno
import json
import ssl
from collections.abc import Mapping

import aiohttp

from shadowsim.measuring.generator.load_records import (
    BROKEN,
    DROPPED,
    ERROR_4XX,
    ERROR_5XX,
    FAILED,
    NO_SOCKET,
    TIMED_OUT,
    UNAVAILABLE,
)

_MOST_MESSAGE = 200  # characters of an answer's message that are told
_OURS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM)


def model_failure(body: bytes) -> tuple[int, str]:
    """Return status and cause of a ModelError, which holds the status of the model's own answer; 0 for a time-out."""
    try:
        answer = json.loads(body)
        status = answer.get("OriginalStatusCode") if isinstance(answer, Mapping) else None
    except ValueError:
        status = None
    if status == 0:
        return TIMED_OUT, "model timed out (ModelError)"
    if isinstance(status, int) and 400 <= status < 500:
        return ERROR_4XX, f"model answered {status} (ModelError)"
    return ERROR_5XX, f"model answered {status} (ModelError)" if isinstance(status, int) else "HTTP 424"


def refusal(status: int, body: bytes) -> str:
    """Return the cause of an answer with an error status: "HTTP 400", with SageMaker's message where there is one."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    message = (answer.get("message") or answer.get("Message")) if isinstance(answer, Mapping) else None
    return (
        f"HTTP {status}: {' '.join(message.split())[:_MOST_MESSAGE]}" if isinstance(message, str) else f"HTTP {status}"
    )


def failure_of(error: Exception) -> tuple[int, str]:
    """Return status and cause of a request that ended with an exception."""
    system = error if isinstance(error, OSError) else error.__cause__
    code = system.errno if isinstance(system, OSError) else None
    if code in _OURS:
        return DROPPED, f"{NO_SOCKET} ({errno.errorcode[code]})"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return UNAVAILABLE, "host not found"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return UNAVAILABLE, "TLS failed"
    if isinstance(error, aiohttp.ClientConnectorError):
        if code == errno.ECONNREFUSED:
            return UNAVAILABLE, "connection refused"
        return UNAVAILABLE, f"cannot connect ({errno.errorcode.get(code or 0, 'unknown')})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return FAILED, "connection closed without an answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return BROKEN, "answer cut short"
    if isinstance(error, ConnectionError | aiohttp.ClientOSError):
        return FAILED, "connection reset"
    if isinstance(error, aiohttp.ClientResponseError):
        return BROKEN, "no HTTP answer"
    return FAILED, type(error).__name__
