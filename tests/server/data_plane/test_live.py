"""Live endpoints: which of them are kept."""

import asyncio

from shadowsim.errors import UnknownEndpointError
from shadowsim.scenario.reading import Mirroring
from shadowsim.server.data_plane.live import KEPT_DELETED, BackendSources, LiveEndpoints
from shadowsim.server.data_plane.mirror import CopyLimits
from shadowsim.server.state.views import EndpointView


def test_deleted_endpoints_are_forgotten_but_the_last():
    names = [f"e-{i}" for i in range(KEPT_DELETED + 10)]
    present = {*names}

    def view(name):
        if name not in present:
            raise UnknownEndpointError("not found")
        return EndpointView(name, "InService", 1)

    endpoints = LiveEndpoints(
        view=view,
        sources=BackendSources(),
        mirroring=Mirroring(),
        copy_limits=CopyLimits(),
        routing={},
        clock=lambda: 0.0,
    )
    kept = endpoints.endpoint("e-3")
    for name in names:
        endpoints.endpoint(name)
    present = {"e-3", "e-7"}
    asyncio.run(endpoints.forget_deleted())
    assert sorted(endpoints.by_name) == sorted({"e-3", "e-7", *names[-KEPT_DELETED:]})
    assert endpoints.by_name["e-3"] is kept
