"""Reads requests in the form of OpenAI's API, and writes the completions of simulated models.

SageMaker has the path `/endpoints/NAME/openai/v1/chat/completions` and says that answers come as they are from the
container, streamed or not. Assumed are: the path at the container, which is `/v1/chat/completions` as model servers
have it; that `/completions` is passed on likewise; that an error of the container is a ModelError here, too; and that a
stream that breaks off just ends. The body is only looked at for `stream` and passes unchanged.

A simulated service in tokens answers as many tokens as are drawn, but at most `max_tokens` (or
`max_completion_tokens`), and exactly so many with `"ignore_eos": true`, as vLLM has it. The prompt has as many as are
drawn, whatever is in it. A simulated service of another kind counts no tokens: its `usage` is 0, and its answer comes
in one piece.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from time import time
from typing import Any
from uuid import uuid4

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
JSON, EVENTS = "application/json", "text/event-stream"
MOST_TOKENS = 2**31  # as the simulator cuts lengths
TOKEN = " token"  # the text of every simulated token
_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What a server of completions wants to know of a request.

    Attributes
    ----------
    is_chat, is_streamed : bool
    has_usage : bool
        Whether the stream ends with the usage.
    max_tokens : int or None
        Tokens of the answer at most; None for no limit.
    ignores_end : bool
        Whether the answer has so many tokens whatever it says.
    model : str
    """

    is_chat: bool
    is_streamed: bool = False
    has_usage: bool = False
    max_tokens: int | None = None
    ignores_end: bool = False
    model: str = ""

    def length(self, drawn: int) -> int:
        """Return the tokens of an answer for which some are drawn."""
        if self.max_tokens is None:
            return drawn
        return self.max_tokens if self.ignores_end else min(drawn, self.max_tokens)


def completion_request(path: str, body: Mapping[str, Any]) -> CompletionRequest:
    """Return the request in a parsed body; fields that are not as they should be count as not given."""
    options, model = body.get("stream_options"), body.get("model")
    limits = [body.get(name) for name in ("max_completion_tokens", "max_tokens")]
    given = [min(n, MOST_TOKENS) for n in limits if isinstance(n, int) and not isinstance(n, bool) and n > 0]
    return CompletionRequest(
        is_chat=path == CHAT,
        is_streamed=body.get("stream") is True,
        has_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
        max_tokens=given[0] if given else None,
        ignores_end=body.get("ignore_eos") is True,
        model=model if isinstance(model, str) else "",
    )


class Completion:
    """A simulated completion of a request."""

    def __init__(self, request: CompletionRequest):
        self._request = request
        kind = "chat.completion" if request.is_chat else "text_completion"
        self._head = {
            "id": f"{'chatcmpl' if request.is_chat else 'cmpl'}-{uuid4().hex}",
            "object": f"{kind}.chunk" if request.is_chat and request.is_streamed else kind,
            "created": int(time()),
            "model": request.model,
        }
        self._is_begun = False

    @property
    def content_type(self) -> str:
        """The content type of the answer."""
        return EVENTS if self._request.is_streamed else JSON

    def whole(self, text: str, prompt: int, output: int, is_cut: bool = False) -> bytes:
        """Return the answer in one piece; for a streamed one, all its events."""
        if self._request.is_streamed:
            return self.event(text) + self.last(prompt, output, is_cut)
        choice = {"index": 0, "finish_reason": _reason(is_cut), "logprobs": None}
        said = {"message": {"role": "assistant", "content": text}} if self._request.is_chat else {"text": text}
        return json.dumps({**self._head, "choices": [{**choice, **said}], "usage": _usage(prompt, output)}).encode()

    def event(self, text: str) -> bytes:
        """Return the event that brings a text."""
        delta = {"content": text} if self._is_begun else {"role": "assistant", "content": text}
        self._is_begun = True
        return self._event({"delta": delta} if self._request.is_chat else {"text": text}, None)

    def last(self, prompt: int, output: int, is_cut: bool) -> bytes:
        """Return the events that follow the last text."""
        end = self._event({"delta": {}} if self._request.is_chat else {"text": ""}, _reason(is_cut))
        if self._request.has_usage:
            end += _data({**self._head, "choices": [], "usage": _usage(prompt, output)})
        return end + _DONE

    def _event(self, said: Mapping[str, object], reason: str | None) -> bytes:
        return _data({**self._head, "choices": [{"index": 0, **said, "finish_reason": reason, "logprobs": None}]})


def _data(event: Mapping[str, object]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _reason(is_cut: bool) -> str:
    return "length" if is_cut else "stop"


def _usage(prompt: int, output: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
