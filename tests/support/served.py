"""Served requests and a live endpoint, for tests of counts and metrics."""

import math

from shadowsim.scenario.reading import Mirroring
from shadowsim.server.data_plane.backends import Answer
from shadowsim.server.data_plane.counts import ServedRequest
from shadowsim.server.data_plane.live import LiveEndpoint
from shadowsim.server.data_plane.mirror import CopyLimits, RequestMirror
from shadowsim.server.state.views import EndpointView


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
