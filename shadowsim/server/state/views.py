"""Connects the two planes: describes endpoints to the data plane, and takes its /ping results.

The descriptions are frozen. The data plane calls `endpoint_view` as often as it likes (a look-up while nothing changes)
and rebuilds its pools only when `version` changes. `models_to_ping` returns the backends that the control plane waits
for, and `record_ping` takes the results. All times are the server's scaled time, in seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shadowsim.errors import UnknownEndpointError, shown
from shadowsim.server.state.fleet import CaptureView, ShadowView, VariantView
from shadowsim.server.state.store import Store

__all__ = [
    "CaptureView",
    "EndpointView",
    "Probe",
    "ShadowView",
    "VariantView",
    "endpoint_view",
    "models_to_ping",
    "record_ping",
]

_PING_LIMIT_S = 240.0  # SageMaker's default
_LIMIT_MEMBER = "ContainerStartupHealthCheckTimeoutInSeconds"


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint as it serves now; during an update that is with its old fleet.

    Attributes
    ----------
    status : str
        EndpointStatus as AWS names it ("InService", "Updating", ...).
    version : int
        Changes whenever anything else here changes; never used again, not even by a new endpoint of the same name.
    production : tuple of VariantView
        Empty while the first fleet is being deployed, and if that fails.
    routing : mapping of str to str
        How each variant, the shadow included, picks an instance.
    experiment : str or None
        The live experiment on this endpoint, from its creation to its end.
    experiment_s : float or None
        The experiment's creation time, which distinguishes successive experiments of the same name.
    """

    name: str
    status: str
    version: int
    production: tuple[VariantView, ...] = ()
    shadow: ShadowView | None = None
    captures: tuple[CaptureView, ...] = ()
    routing: Mapping[str, str] = field(default_factory=dict)
    experiment: str | None = None
    experiment_s: float | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """A backend that must answer /ping before its endpoint's new fleet can serve.

    Attributes
    ----------
    endpoint : str
    deployment : int
        The number of the endpoint's deployment; `record_ping` ignores the probe of a deployment that was given up.
    variant : VariantView
    limit_s : float
        How long the backend may fail to answer, in wall seconds since the data plane first saw the probe.
    """

    endpoint: str
    deployment: int
    variant: VariantView
    limit_s: float


def endpoint_view(store: Store, name: str, now: float) -> EndpointView:
    """Return the view of an endpoint at a moment.

    Raises
    ------
    UnknownEndpointError
        There is no endpoint of this name; the message is InvokeEndpoint's.
    """
    world = store.world_at(now)
    endpoint = world.endpoints.get(name)
    if endpoint is None:
        raise UnknownEndpointError(f"Endpoint {shown(name)} of account {world.account} not found.")
    experiment, fleet = world.live_experiment(name), endpoint.fleet
    live, live_s = (experiment.name, experiment.created_s) if experiment else (None, None)
    if fleet is None:
        return EndpointView(name, endpoint.status, endpoint.version, experiment=live, experiment_s=live_s)
    return EndpointView(
        name,
        endpoint.status,
        endpoint.version,
        production=fleet.production,
        shadow=fleet.shadow,
        captures=fleet.captures,
        routing=fleet.routing,
        experiment=live,
        experiment_s=live_s,
    )


def models_to_ping(store: Store, now: float) -> tuple[Probe, ...]:
    """Return a probe for each backend that a deployment waits for (models with real backends only)."""
    probes = []
    for endpoint in store.world_at(now).endpoints.values():
        deployment = endpoint.deployment
        if deployment is not None and endpoint.status in ("Creating", "Updating"):
            request = deployment.fleet.request
            variants = [*request["ProductionVariants"], *request.get("ShadowProductionVariants", ())]
            limits = {variant["VariantName"]: float(variant.get(_LIMIT_MEMBER, _PING_LIMIT_S)) for variant in variants}
            probes += [
                Probe(endpoint.name, deployment.number, view, limits[view.name])
                for view in deployment.fleet.variants
                if view.name in deployment.pending
            ]
    return tuple(probes)


def record_ping(store: Store, probe: Probe, now: float, failure: str | None = None) -> None:
    """Record that a probe's backend answered, or the reason why it did not within its limit.

    A failure makes a new endpoint Failed, rolls an updated one back, and cancels the live experiment. A probe whose
    deployment was given up is ignored.

    Raises
    ------
    StoreError
        The event cannot be written; the deployment goes on waiting.
    """
    if probe in models_to_ping(store, now):
        body = {
            "endpoint": probe.endpoint,
            "deployment": probe.deployment,
            "variant": probe.variant.name,
            "failure": failure,
        }
        store.accept("Ping", body, now)
