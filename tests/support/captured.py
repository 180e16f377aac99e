"""Writes capture files in SageMaker's layout, for the tests that read them."""

import json
from datetime import UTC, datetime, timedelta

from shadowsim.captures.record import CaptureRecord, key_of, line_of, payload_of

START = datetime(2026, 1, 19, 19, 27, 57, tzinfo=UTC)
UNIQUE = "0b7bfd33-c8a7-4adf-a09a-98fd0af79974"


def json_payload(value):
    return payload_of(json.dumps(value).encode(), "application/json", (), ("application/json",))


def record(inference_id, answer=None, request=None, after_s=0, **members):
    """Return a record with JSON bodies; None is a side that is not captured."""
    return CaptureRecord(
        event_id=f"event-{inference_id}",
        inference_id=inference_id,
        inference_time=START + timedelta(seconds=after_s),
        request=None if request is None else json_payload(request),
        response=None if answer is None else json_payload(answer),
        **members,
    )


def write(root, variant, records, moment=START, unique=UNIQUE, torn=""):
    """Write one file of a variant below `root`; return the variant's folder."""
    file = root / key_of("endpoint", variant, moment, unique)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line_of(r)}\n" for r in records) + torn)
    return root / "endpoint" / variant
