"""Answered requests and a live endpoint, for tests of what is counted of them."""

import math

from shadowsim.server.data_plane.backends import Answer
from shadowsim.server.data_plane.counts import Served
from shadowsim.server.data_plane.live import LiveEndpoint
from shadowsim.server.data_plane.mirror import Mirroring, RequestMirror
from shadowsim.server.state.views import EndpointView


def served(arrival_s, latency_s=0.01, outcome="answered", instance=0, wait_s=math.nan, service_s=math.nan):
    answer = Answer(outcome, latency_s, 200 if outcome == "answered" else 500, b"", {}, wait_s, service_s)
    return Served(0, "", arrival_s, instance, 2, answer, 0.001, 10)


def endpoint(name):
    return LiveEndpoint(EndpointView(name, "InService", 1), RequestMirror(Mirroring(), None))
