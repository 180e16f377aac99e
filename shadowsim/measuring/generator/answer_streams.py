"""Reads streamed answers as they arrive: when each token came, and how many there were.

A stream of server-sent events has lines `data: {...}`, as OpenAI's API and most servers of language models send them.
An event counts as a token if it carries text; the `usage` that a server may send last replaces the count. The stream of
InvokeEndpointWithResponseStream is of AWS's event stream frames, whose payloads are the model's bytes in pieces: their
server-sent events, their lines of JSON, or else the pieces themselves are counted.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Mapping
from typing import Any, Protocol

from botocore.eventstream import EventStreamBuffer, ParserError

MOST_LINE_BYTES = 4 * 2**20
_DONE = b"[DONE]"
# An event of OpenAI's form that brings a text, and one that says more; to parse each takes five times as long. Inside a
# text these cannot stand, since its quotes are escaped.
_BRINGS_TEXT = re.compile(rb'"(?:text|content|reasoning_content)"\s*:\s*"[^"]|"tool_calls"\s*:\s*\[\s*[^\]\s]')
_SAYS_MORE = re.compile(rb'"(?:usage|error)"\s*:\s*[^n\s]')
_SSE = (b"data:", b"event:", b"id:", b"retry:", b":")


class StreamReader(Protocol):
    """What reads an answer.

    Attributes
    ----------
    first_token : float
        Moment of the first token; NaN before it.
    token_times : array of float
        Moments of all tokens; where several came at one moment, as often as they were events.
    output_tokens, prompt_tokens : int
        -1 if unknown.
    error : str
        What the stream says went wrong; "" for nothing.
    """

    first_token: float
    token_times: array[float]
    output_tokens: int
    prompt_tokens: int
    error: str

    def feed(self, data: bytes, now: float) -> None:
        """Read bytes that arrived at a moment."""

    def close(self) -> None:
        """Read what is left, at the end of the answer."""


class EventLines:
    """Reads server-sent events, or lines of JSON.

    Parameters
    ----------
    bare : bool
        Whether each line is JSON itself, without `data:` before it.
    most_line_bytes : int
        Longest line that is read.

    Attributes
    ----------
    last_token : float
        Moment of the last token; NaN before the first.
    """

    def __init__(self, bare: bool = False, most_line_bytes: int = MOST_LINE_BYTES):
        self.first_token, self.output_tokens, self.prompt_tokens, self.error = math.nan, 0, -1, ""
        self.token_times = array("d")
        self._rest, self._bare, self._usage = b"", bare, -1
        self._last = self.last_token = math.nan
        self._most_line_bytes = most_line_bytes

    def feed(self, data: bytes, now: float) -> None:
        """Read bytes that arrived at a moment."""
        self._last = now
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self._most_line_bytes:
            self.error, self._rest = "line too long", b""
        for line in lines:
            self._read(line, now)

    def close(self) -> None:
        """Read a last line without an end."""
        if self._rest:
            self._read(self._rest, self._last)
        if self._usage >= 0:
            self.output_tokens = self._usage

    def _read(self, line: bytes, now: float) -> None:
        line = line.strip()
        if not self._bare:
            if not line.startswith(b"data:"):
                return
            line = line[5:].strip()
        if not line or line == _DONE:
            return
        if b'"choices"' in line and not _SAYS_MORE.search(line):
            if _BRINGS_TEXT.search(line):
                self._count(now)
            return
        try:
            event = json.loads(line)
        except ValueError:  # a text, not JSON: some servers send bare tokens
            event = None
        if isinstance(event, Mapping):
            if event.get("error"):
                self.error = "error in the stream"
            self._note_usage(event.get("usage"))
            if not carries_text(event):
                return
        self._count(now)

    def _count(self, now: float) -> None:
        if not self.output_tokens:
            self.first_token = now
        self.last_token = now
        self.token_times.append(now)
        self.output_tokens += 1

    def _note_usage(self, usage: Any) -> None:
        output, prompt = usage_of(usage)
        self._usage = output if output >= 0 else self._usage
        self.prompt_tokens = prompt if prompt >= 0 else self.prompt_tokens


class EventStreamFrames:
    """Reads the frames of InvokeEndpointWithResponseStream."""

    def __init__(self) -> None:
        self.first_token, self.output_tokens, self.prompt_tokens, self.error = math.nan, 0, -1, ""
        self.token_times = array("d")
        self._buffer, self._n_parts = EventStreamBuffer(), 0
        self._lines: EventLines | None = None

    def feed(self, data: bytes, now: float) -> None:
        """Read bytes that arrived at a moment."""
        if self.error:
            return
        self._buffer.add_data(data)
        try:
            for message in self._buffer:
                headers: Mapping[str, Any] = message.headers  # type: ignore[assignment]
                if headers.get(":message-type") in ("exception", "error"):
                    name = headers.get(":exception-type") or headers.get(":error-code")
                    self.error = str(name or "exception in the stream")
                elif message.payload:
                    self._read(message.payload, now)
        except ParserError:
            self.error = "event stream cannot be read"

    def close(self) -> None:
        """Take the counts of the events inside, if there were any."""
        if self._lines is not None:
            self._lines.close()
            self.prompt_tokens = self._lines.prompt_tokens
            self.error = self.error or self._lines.error
            if self._lines.output_tokens:
                self.output_tokens, self.first_token = self._lines.output_tokens, self._lines.first_token
                self.token_times = self._lines.token_times

    def _read(self, payload: bytes, now: float) -> None:
        if not self._n_parts:
            start = payload.lstrip()
            self.first_token = now
            if start.startswith(_SSE):
                self._lines = EventLines()
            elif start.startswith(b"{"):
                self._lines = EventLines(bare=True)
        self._n_parts += 1
        self.token_times.append(now)
        self.output_tokens = self._n_parts
        if self._lines is not None:
            self._lines.feed(payload, now)


class WholeAnswer:
    """Reads the `usage` of an answer that comes in one piece; there is no first token to see."""

    def __init__(self) -> None:
        self.first_token, self.output_tokens, self.prompt_tokens, self.error = math.nan, -1, -1, ""
        self.token_times = array("d")
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes, now: float) -> None:
        """Keep the bytes, as far as an answer with a usage may be long."""
        self._size += len(data)
        if self._size <= MOST_LINE_BYTES:
            self._parts.append(data)

    def close(self) -> None:
        """Read the usage."""
        try:
            answer = json.loads(b"".join(self._parts)) if self._size <= MOST_LINE_BYTES else None
        except ValueError:
            answer = None
        if isinstance(answer, Mapping):
            self.output_tokens, self.prompt_tokens = usage_of(answer.get("usage"))


def usage_of(usage: Any) -> tuple[int, int]:
    """Return the tokens of the answer and of the prompt from OpenAI's `usage`; -1 for what it does not say."""
    if not isinstance(usage, Mapping):
        return -1, -1
    counts = [usage.get(name) for name in ("completion_tokens", "prompt_tokens")]
    output, prompt = (n if isinstance(n, int) and not isinstance(n, bool) and n >= 0 else -1 for n in counts)
    return output, prompt


def carries_text(event: Mapping[str, Any]) -> bool:
    """Return whether an event brings a token: in OpenAI's form one with text, in any other form each."""
    choices = event.get("choices")
    if choices is None:
        return not (event.get("usage") or event.get("error"))
    if not isinstance(choices, list):
        return False
    for choice in choices:
        if isinstance(choice, Mapping):
            delta = choice.get("delta")
            parts = delta if isinstance(delta, Mapping) else choice
            if any(parts.get(name) for name in ("text", "content", "reasoning_content", "tool_calls")):
                return True
    return False
