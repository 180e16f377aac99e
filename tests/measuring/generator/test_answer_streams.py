"""Streamed answers: first tokens, counts of tokens, usages, frames of AWS's event stream, errors within."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading import frame, part

from shadowsim.measuring.generator.answer_streams import (
    EventLines,
    EventStreamFrames,
    WholeAnswer,
    carries_text,
    usage_of,
)


def event(text=None, **more):
    choices = {} if text is None else {"choices": [{"text": text}]}
    return b"data: " + json.dumps(choices | more).encode() + b"\n\n"


def read(reader, pieces):
    """Feed pieces at the times 1, 2, ... and end."""
    for now, data in enumerate(pieces, start=1):
        reader.feed(data, float(now))
    reader.close()
    return reader


def test_events_with_text_are_tokens():
    stream = [b": ping\n\n", event(""), event("a"), event("b") + event("c"), b"data: [DONE]\n\n"]
    reader = read(EventLines(), stream)
    assert (reader.first_token, reader.output_tokens, reader.prompt_tokens) == (3.0, 3, -1)
    assert reader.token_times.tolist() == [3.0, 4.0, 4.0]


def test_chat_deltas_count_and_roles_do_not():
    deltas = [{"role": "assistant"}, {"content": "x"}, {"reasoning_content": "y"}, {}]
    stream = [b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n" for delta in deltas]
    reader = read(EventLines(), stream)
    assert (reader.first_token, reader.output_tokens) == (2.0, 2)


def test_a_usage_replaces_the_count():
    usage = {"completion_tokens": 40, "prompt_tokens": 7}
    reader = read(EventLines(), [event("several tokens"), event(choices=[], usage=usage)])
    assert (reader.first_token, reader.output_tokens, reader.prompt_tokens) == (1.0, 40, 7)


def test_events_may_be_torn_anywhere():
    whole = event("a") + event("b") + event(usage={"completion_tokens": 2, "prompt_tokens": 1})
    pieces = [whole[i : i + 1] for i in range(len(whole))]
    reader = read(EventLines(), pieces)
    assert (reader.output_tokens, reader.prompt_tokens) == (2, 1)
    assert reader.first_token == len(event("a")) - 1  # when its line was complete


def test_errors_in_a_stream_are_errors():
    assert read(EventLines(), [event("a"), event(error={"message": "out of memory"})]).error == "error in the stream"
    assert read(EventLines(), [b"data: x" * 700_000]).error == "line too long"


def test_payload_parts_count_as_tokens_without_events_in_them():
    reader = read(EventStreamFrames(), [part(b"Hello"), part(b" world"), part(b"")])
    assert (reader.first_token, reader.output_tokens, reader.error) == (1.0, 2, "")


def test_events_in_payload_parts_count():
    whole = event("") + event("a") + event("b")
    reader = read(EventStreamFrames(), [part(whole[:20]), part(whole[20:])])
    assert (reader.first_token, reader.output_tokens) == (2.0, 2)
    lines = read(EventStreamFrames(), [part(b'{"token": 1}\n{"tok'), part(b'en": 2}\n{"token": 3}')])
    assert (lines.first_token, lines.output_tokens) == (1.0, 3)


def test_frames_may_be_torn_anywhere():
    whole = part(b"one") + part(b"two")
    assert read(EventStreamFrames(), [whole[i : i + 1] for i in range(len(whole))]).output_tokens == 2


def test_exceptions_and_broken_frames_are_errors():
    broken = bytearray(part(b"one"))
    broken[-1] ^= 1
    assert read(EventStreamFrames(), [bytes(broken)]).error == "event stream cannot be read"
    failure = frame(b"{}", message_type="exception", exception_type="ModelStreamError")
    assert read(EventStreamFrames(), [part(b"a"), failure]).error == "ModelStreamError"


def test_the_usage_of_a_whole_answer():
    answer = json.dumps({"usage": {"completion_tokens": 3, "prompt_tokens": 5}}).encode()
    reader = read(WholeAnswer(), [answer[:10], answer[10:]])
    assert (reader.output_tokens, reader.prompt_tokens) == (3, 5)
    assert math.isnan(reader.first_token)
    assert read(WholeAnswer(), [b"\xff"]).output_tokens == -1


@pytest.mark.parametrize("usage", [None, [], {"completion_tokens": True}, {"completion_tokens": -4}, {}])
def test_odd_usages_say_nothing(usage):
    assert usage_of(usage) == (-1, -1)


PARTS = st.dictionaries(
    st.sampled_from(["content", "text", "role", "reasoning_content", "refusal"]),
    st.none() | st.text(max_size=5) | st.sampled_from(['"content":"x"', '\\"text": "a']),
    max_size=3,
)


@given(PARTS, st.booleans(), st.none() | st.just([]) | st.just([{"id": "a"}]), st.booleans())
def test_events_are_told_apart_as_by_their_parsed_form(said, is_chat, tools, is_compact):
    said = said | ({} if tools is None else {"tool_calls": tools})
    choice = {"index": 0, "finish_reason": None, **({"delta": said} if is_chat else said)}
    parsed = {"id": "c", "choices": [choice], "usage": None}
    text = json.dumps(parsed, separators=(",", ":") if is_compact else None, ensure_ascii=is_compact)
    assert read(EventLines(), [b"data: " + text.encode() + b"\n"]).output_tokens == carries_text(parsed)
