"""Checks that capture lines are parsed as SageMaker writes them, and written so that they parse back."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from captured import json_payload, record
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.captures.record import CapturedPayload, CaptureRecord, key_of, line_of, payload_of, record_of
from shadowsim.errors import SerializationError

# The members, their order and their spelling are the service's; the values are made up.
LINE = (
    r'{"captureData":{"endpointInput":{"observedContentType":"application/json","mode":"INPUT",'
    r'"data":"{\"instances\": [{\"features\": [28, 2]}]}","encoding":"JSON"},'
    r'"endpointOutput":{"observedContentType":"text/csv; charset=utf-8","mode":"OUTPUT","data":"0.98,1\n",'
    r'"encoding":"CSV"}},"eventMetadata":{"eventId":"7ddb2d7c-4d6a-4e67-a68e-23870399829d","inferenceId":"order 17",'
    r'"inferenceTime":"2026-01-19T19:27:57Z"},"eventVersion":"0"}'
)


def test_a_line_of_the_service():
    parsed = record_of(LINE)
    assert parsed == CaptureRecord(
        event_id="7ddb2d7c-4d6a-4e67-a68e-23870399829d",
        inference_id="order 17",
        inference_time=datetime(2026, 1, 19, 19, 27, 57, tzinfo=UTC),
        request=CapturedPayload(b'{"instances": [{"features": [28, 2]}]}', "application/json", "JSON"),
        response=CapturedPayload(b"0.98,1\n", "text/csv; charset=utf-8", "CSV"),
    )
    assert line_of(parsed) == LINE
    assert record_of(f"\ufeff{LINE}\r\n".encode()) == parsed


bodies = st.binary(max_size=40) | st.text(max_size=20).map(str.encode)
types = st.sampled_from([None, "text/csv", "Application/JSON; charset=utf-8", "application/x-npy", ""])
payloads = st.builds(
    payload_of, bodies, types, st.just(("text/csv",)), st.sampled_from([(), ("application/json", "Text/X")])
)
records = st.builds(
    CaptureRecord,
    event_id=st.none() | st.text(),
    inference_id=st.none() | st.text(st.characters()),
    inference_time=st.none() | st.datetimes(timezones=st.just(UTC)).map(lambda t: t.replace(microsecond=0)),
    request=st.none() | payloads,
    response=st.none() | payloads,
    custom_attributes=st.lists(st.text(), max_size=2).map(tuple),
    event_version=st.text(max_size=2),
)


@given(records)
def test_what_is_written_is_read_again(one):
    line = line_of(one)
    assert line.isascii()
    assert line.isprintable()
    assert record_of(line) == record_of(f"{line}\n".encode()) == one


@given(records, st.data())
def test_a_torn_line_is_never_read(one, data):
    line = line_of(one)
    cut = line[: data.draw(st.integers(0, len(line) - 1))]
    with pytest.raises(SerializationError):
        record_of(cut)
    if cut:
        with pytest.raises(SerializationError):
            record_of(cut + line)


@pytest.mark.parametrize(
    ("content_type", "body", "encoding"),
    [
        ("text/csv", b"1,2", "CSV"),
        ("TEXT/CSV; charset=utf-8", b"1,2", "CSV"),
        ("application/json", b"{}", "JSON"),
        ("application/jsonlines", b"{}\n{}", "JSON"),
        ("application/x-npy", b"1,2", "BASE64"),
        (None, b"1,2", "BASE64"),
        ("", b"1,2", "BASE64"),
        ("text/csv", b"\xff", "BASE64"),  # as text it would be lost
    ],
)
def test_the_encoding_follows_the_content_type(content_type, body, encoding):
    payload = payload_of(body, content_type, ["text/csv"], ["application/json", "application/jsonlines"])
    assert payload == CapturedPayload(body, content_type, encoding)
    assert payload_of(body, content_type).encoding == "BASE64"


def test_only_the_sides_that_are_captured_are_written():
    document = json.loads(line_of(record("a", answer=1)))
    assert list(document["captureData"]) == ["endpointOutput"]
    document = json.loads(line_of(record("a", request=1, custom_attributes=("x", "y"))))
    assert list(document["captureData"]) == ["endpointInput"]
    assert list(document["eventMetadata"]) == ["eventId", "customAttributes", "inferenceId", "inferenceTime"]
    assert document["eventMetadata"]["customAttributes"] == ["x", "y"]


def test_times_are_written_in_utc_to_the_second():
    moment = datetime(2026, 1, 1, 0, 30, 0, 999_999, tzinfo=timezone(timedelta(hours=1)))
    one = CaptureRecord(event_id="e", inference_time=moment)
    assert '"inferenceTime":"2025-12-31T23:30:00Z"' in line_of(one)
    key = key_of("my-endpoint", "AllTraffic", moment, "0b7bfd33")
    assert key == "my-endpoint/AllTraffic/2025/12/31/23/30-00-999-0b7bfd33.jsonl"


def changed(**members):
    document = json.loads(line_of(record("a", answer={"score": 1}, request=[1])))
    for path, value in members.items():
        *owners, name = path.split("__")
        owner = document
        for step in owners:
            owner = owner[step]
        owner[name] = value
    return json.dumps(document)


def test_other_versions_are_read_as_far_as_they_go():
    line = changed(eventVersion="2", captureData__news={}, eventMetadata__inferenceTime="soon")
    parsed = record_of(line)
    assert (parsed.event_version, parsed.inference_time, parsed.inference_id) == ("2", None, "a")
    assert parsed.response == json_payload({"score": 1})
    assert record_of(changed(captureData__endpointOutput=None)).response is None
    bare = record_of('{"captureData":{}}')
    assert bare == CaptureRecord(event_id=None, inference_time=None, event_version="")
    assert record_of(changed(eventMetadata__inferenceTime="2026-01-01T00:00:00.25")).inference_time == datetime(
        2026, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC
    )
    assert record_of(changed(eventMetadata__inferenceTime="0001-01-01T00:00:00+23:00")).inference_time is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"captureData":{"endp', r"broken JSON at column \d+"),
        (b'{"captureData":"\xff"}', "byte 16 is not UTF-8"),
        (b'{"a":' + b"9" * 5000 + b"}", "too many digits"),
        (b"[" * 100_000, "too many digits or levels"),
        (b"17", "holds no captureData"),
        (b'{"groundTruthData":{"data":"1","encoding":"CSV"}}', "holds no captureData"),
        (changed(captureData=[1]), "has a list for captureData"),
        (changed(eventMetadata__inferenceId=7), "has an integer for inferenceId"),
        (changed(captureData__endpointOutput__data=7), "has an integer for data"),
        (changed(captureData__endpointOutput__encoding="GZIP"), "no data in the encoding CSV, JSON or BASE64"),
        (changed(captureData__endpointOutput__data=None), "no data in the encoding"),
        (changed(captureData__endpointOutput__encoding="BASE64"), "data that is not base64"),
        (
            changed(captureData__endpointOutput__encoding="BASE64", captureData__endpointOutput__data="YWJj*"),
            "data that is not base64",
        ),
    ],
)
def test_what_is_no_capture_says_why(line, why):
    with pytest.raises(SerializationError, match=why):
        record_of(line)
