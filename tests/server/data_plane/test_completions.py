"""Requests in OpenAI's form: whatever stands in them, they can be read and answered."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.server.data_plane.completions import CHAT, MOST_TOKENS, PLAIN, Completion, completion_request

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
NAMES = ["stream", "stream_options", "max_tokens", "max_completion_tokens", "ignore_eos", "model", "messages"]


@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING), st.sampled_from([CHAT, PLAIN]), st.integers(1, 50))
def test_any_object_is_a_request(body, path, drawn):
    request = completion_request(path, body)
    assert request.is_streamed == (body.get("stream") is True)
    assert 1 <= request.length(drawn) <= MOST_TOKENS
    whole = Completion(request).whole(" token", 3, 2)
    if request.is_streamed:
        *events, done, rest = whole.split(b"\n\n")
        assert (done, rest) == (b"data: [DONE]", b"")
        assert len(events) == (3 if request.has_usage else 2)
    else:
        events = [b"data: " + whole]
        assert json.loads(whole)["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    for event in events:
        assert json.loads(event[6:])["object"].startswith("chat.completion" if path == CHAT else "text_completion")


@pytest.mark.parametrize(("limit", "length"), [(10**400, MOST_TOKENS), (3, 3), (0, 7), (-1, 7), (True, 7), (2.5, 7)])
def test_a_limit_is_a_positive_whole_number(limit, length):
    request = completion_request(CHAT, {"max_tokens": limit, "ignore_eos": True})
    assert request.length(7) == length
