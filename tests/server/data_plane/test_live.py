"""Live endpoints: which of them are kept, and when their views are followed."""

import asyncio

import pytest

from shadowsim.errors import UnknownEndpointError
from shadowsim.scenario.reading import Mirroring
from shadowsim.server.data_plane.live import KEPT_DELETED, BackendSources, LiveEndpoints
from shadowsim.server.data_plane.mirror import CopyLimits
from shadowsim.server.state.fleet import VariantView
from shadowsim.server.state.views import EndpointView


def live_endpoints(view):
    return LiveEndpoints(
        view=view,
        sources=BackendSources(),
        mirroring=Mirroring(),
        copy_limits=CopyLimits(),
        routing={},
        clock=lambda: 0.0,
    )


@pytest.mark.parametrize("is_revised", [False, True])
def test_a_version_that_was_seen_is_followed_again_only_if_it_may_mean_something_else(is_revised):
    n_instances = [1]

    def view(name):
        return EndpointView(name, "InService", 7, (VariantView("v", "model", "ml.m5.xlarge", n_instances[0]),))

    endpoints = live_endpoints(view)
    endpoints.endpoint("e")
    n_instances[0] = 3
    endpoints.expire(is_revised=is_revised)
    assert len(endpoints.endpoint("e").pools["v"].outstanding) == (3 if is_revised else 1)


def test_deleted_endpoints_are_forgotten_but_the_last():
    names = [f"e-{i}" for i in range(KEPT_DELETED + 10)]
    present = {*names}

    def view(name):
        if name not in present:
            raise UnknownEndpointError("not found")
        return EndpointView(name, "InService", 1)

    endpoints = live_endpoints(view)
    kept = endpoints.endpoint("e-3")
    for name in names:
        endpoints.endpoint(name)
    present = {"e-3", "e-7"}
    asyncio.run(endpoints.forget_deleted())
    assert sorted(endpoints.by_name) == sorted({"e-3", "e-7", *names[-KEPT_DELETED:]})
    assert endpoints.by_name["e-3"] is kept
