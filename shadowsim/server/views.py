"""The seam between the planes: what the data path must do for an endpoint at a moment, as frozen descriptions.

The data path asks `endpoint_view` as often as it likes (a look-up when nothing changed) and rebuilds its pools only
when `version` differs from the one that it knows. It asks `models_to_ping` which backends control waits for, and tells
with `record_ping` how that went. All times are the server's scaled time, seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Store = Any  # store.py's, which is being built


@dataclass(frozen=True, slots=True)
class VariantView:
    """A model on its instances, as they serve now.

    Attributes
    ----------
    name, model_name, instance_type : str
    instance_count : int
        At least 1.
    weight : float
        Of production variants: the share is this over the sum of all. 0 is allowed, also for all of them, which share
        evenly then.
    container : mapping
        The model's first container as recorded ("Image", "ModelDataUrl", "Environment", ...). Nothing that it names
        may ever be fetched.
    """

    name: str
    model_name: str
    instance_type: str
    instance_count: int
    weight: float = 1.0
    container: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShadowView:
    """The variant that gets copies.

    Attributes
    ----------
    source_name : str
        The production variant whose requests are copied.
    sampling_percentage : float
        0..100; whole for an experiment, any share for an endpoint configuration's weights.
    """

    variant: VariantView
    source_name: str
    sampling_percentage: float


@dataclass(frozen=True, slots=True)
class CaptureView:
    """What is captured, and where to.

    Attributes
    ----------
    destination : str
        An S3 URI.
    sampling_percentage : int
        0..100, of requests.
    modes : frozenset of {"Input", "Output"}
    csv_content_types, json_content_types : tuple of str
    kms_key_id : str or None
        Recorded, and nothing is encrypted.
    variants : tuple of str or None
        Names, the shadow's among them where it is captured; None is all production variants.
    """

    destination: str
    sampling_percentage: int
    modes: frozenset[str]
    csv_content_types: tuple[str, ...] = ()
    json_content_types: tuple[str, ...] = ()
    kms_key_id: str | None = None
    variants: tuple[str, ...] | None = None


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
    """

    name: str
    status: str
    version: int
    production: tuple[VariantView, ...] = ()
    shadow: ShadowView | None = None
    captures: tuple[CaptureView, ...] = ()
    routing: Mapping[str, str] = field(default_factory=dict)
    experiment: str | None = None


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
    raise NotImplementedError


def models_to_ping(store: Store, now: float) -> tuple[Probe, ...]:
    """Return the backends that deployments wait for: only models that the store was told to have real ones."""
    raise NotImplementedError


def record_ping(store: Store, probe: Probe, now: float, failure: str | None = None) -> None:
    """Record that a probe's backend answered, or why it did not within its limit.

    A failure makes a new endpoint Failed, takes an updated one back to what it was, and cancels the live experiment.
    """
    raise NotImplementedError
