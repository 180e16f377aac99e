"""Served requests, a live endpoint and captured invocations, for tests of counts, metrics and captures."""

import math

from shadowsim.scenario.reading import Mirroring
from shadowsim.server.data_plane.backends import CUSTOM_ATTRIBUTES, Answer, Call
from shadowsim.server.data_plane.captures import Invocation
from shadowsim.server.data_plane.counts import ServedRequest
from shadowsim.server.data_plane.live import LiveEndpoint
from shadowsim.server.data_plane.mirror import CopyLimits, RequestMirror
from shadowsim.server.state.views import CaptureView, EndpointView

BOTH = frozenset({"Input", "Output"})
TYPES = {"csv_content_types": ("text/csv",), "json_content_types": ("application/json",)}


def served(
    arrival_s, latency_s=0.01, outcome="answered", instance=0, wait_s=math.nan, service_s=math.nan, is_copy=False,
    tokens=None,
):  # fmt: skip
    status, work = 200 if outcome == "answered" else 500, {"work_s": service_s, "offered_s": service_s}
    answer = Answer(outcome, latency_s, status, b"", {}, wait_s, service_s, tokens=tokens, **work)
    return ServedRequest(
        request=0,
        inference_id="",
        arrival_s=arrival_s,
        instance=instance,
        n_instances=2,
        answer=answer,
        overhead_s=0.001,
        request_bytes=10,
        is_copy=is_copy,
    )


def endpoint(name):
    return LiveEndpoint(EndpointView(name, "InService", 1), RequestMirror(Mirroring(), CopyLimits(), None))


def view(destination="s3://bucket/some/prefix", percentage=100, modes=BOTH, **more):
    return CaptureView(destination, percentage, modes, **{**TYPES, **more})


def take(captures, *views, body=b"1,2", content_type="text/csv", attributes=None, outcome="answered", **changes):
    """Let a writer capture an invocation, and return the bytes that it captured."""
    headers = {"Content-Type": content_type, CUSTOM_ATTRIBUTES: attributes}
    fields = {
        "endpoint": "endpoint",
        "variant": "AllTraffic",
        "production": True,
        "call": Call(body, {name: value for name, value in headers.items() if value}),
        "answer": Answer(outcome, 0.0, 200, b'{"y": 1}', {"Content-Type": "application/json"}),
        "arrival_s": 1_800_000_000.0,
    }
    return captures.take(views, Invocation(**{**fields, **changes}))
