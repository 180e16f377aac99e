"""The seam between the planes: what the data path must do for an endpoint at a moment, as frozen descriptions.

The data path asks `endpoint_view` as often as it likes (a look-up when nothing changed) and rebuilds its pools only
when `version` differs from the one that it knows. It asks `models_to_ping` which backends control waits for, and
tells with `record_ping` how that went. All times are the server's scaled time, seconds since 1970.
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

_PING_LIMIT_S = 240.0  # SageMaker's, for a variant that says nothing else
_LIMIT = "ContainerStartupHealthCheckTimeoutInSeconds"


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint as it serves now; while it is updated that is its old fleet.

    Attributes
    ----------
    status : str
        AWS's ("InService", "Updating", ...).
    version : int
        Another one whenever anything here is another; never used again, also by an endpoint of the same name.
    production : tuple of VariantView
        Empty while the first fleet is being made, and when that failed.
    routing : mapping of str to {"RANDOM", "LEAST_OUTSTANDING_REQUESTS"}
        How each variant, the shadow's too, picks an instance.
    experiment : str or None
        The live experiment that has this endpoint, from its creation to its end.
    experiment_s : float or None
        When that was created: of two experiments of one name, which.
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
        Which fleet of the endpoint; one that was given up meanwhile makes a later `record_ping` void.
    variant : VariantView
    limit_s : float
        For how long it may fail, in seconds of the wall clock since the data path first saw the probe.
    """

    endpoint: str
    deployment: int
    variant: VariantView
    limit_s: float


def endpoint_view(store: Store, name: str, now: float) -> EndpointView:
    """Return what an endpoint is at a moment.

    Raises
    ------
    UnknownEndpointError
        There is none of this name: InvokeEndpoint's sentence.
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
    """Return the backends that deployments wait for: only models that the store was told to have real ones."""
    probes = []
    for endpoint in store.world_at(now).endpoints.values():
        deployment = endpoint.deployment
        if deployment is not None and endpoint.status in ("Creating", "Updating"):
            request = deployment.fleet.request
            every = [*request["ProductionVariants"], *request.get("ShadowProductionVariants", ())]
            limits = {given["VariantName"]: float(given.get(_LIMIT, _PING_LIMIT_S)) for given in every}
            probes += [
                Probe(endpoint.name, deployment.number, view, limits[view.name])
                for view in deployment.fleet.variants
                if view.name in deployment.pending
            ]
    return tuple(probes)


def record_ping(store: Store, probe: Probe, now: float, failure: str | None = None) -> None:
    """Record that a probe's backend answered, or why it did not within its limit.

    A failure makes a new endpoint Failed, takes an updated one back to what it was, and cancels the live experiment.
    A probe whose deployment was given up meanwhile is void, and nothing is recorded.

    Raises
    ------
    StoreError
        It cannot be written; the deployment goes on waiting.
    """
    if probe in models_to_ping(store, now):
        body = {
            "endpoint": probe.endpoint,
            "deployment": probe.deployment,
            "variant": probe.variant.name,
            "failure": failure,
        }
        store.accept("Ping", body, now)
