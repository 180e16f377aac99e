"""What serves behind an endpoint: an endpoint configuration with its models filled in.

A fleet is resolved once, when it is deployed: a model or a configuration that is deleted later changes nothing that
serves, as on SageMaker. Everything is derived from configurations in AWS's own form.

How an experiment changes the configuration behind its endpoint, and what its end leaves there.

Both are configurations in AWS's own form, which are deployed like any other; so what an experiment does could be done
by hand with UpdateEndpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shadowsim.errors import RefusedError

Body = Mapping[str, Any]


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
    container: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShadowView:
    """The variant that gets copies.

    Attributes
    ----------
    variant : VariantView
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
class Fleet:
    """A configuration as it is deployed.

    Attributes
    ----------
    config_name : str
    request : mapping
        The configuration, as CreateEndpointConfig has it.
    """

    config_name: str
    request: Body
    production: tuple[VariantView, ...]
    shadow: ShadowView | None = None
    captures: tuple[CaptureView, ...] = ()
    routing: Mapping[str, str] = field(default_factory=dict)

    @property
    def variants(self) -> tuple[VariantView, ...]:
        """All of them, the shadow last."""
        return (*self.production, self.shadow.variant) if self.shadow else self.production

    def serves_as(self, other: Fleet) -> bool:
        """Whether callers and copies could tell this fleet from another."""
        parts = ("production", "shadow", "captures", "routing")
        return all(getattr(self, part) == getattr(other, part) for part in parts)

    def scaled(self, changes: Mapping[str, Body], shadow_weight: str) -> Fleet:
        """Return the fleet with DesiredWeight and DesiredInstanceCount as given by variant."""

        def one(view: VariantView) -> VariantView:
            change = changes.get(view.name, {})
            count, weight = change.get("DesiredInstanceCount"), change.get("DesiredWeight")
            return replace(
                view,
                instance_count=view.instance_count if count is None else count,
                weight=view.weight if weight is None else weight,
            )

        production = tuple(map(one, self.production))
        shadow = self.shadow
        if shadow:
            variant, percentage = one(shadow.variant), shadow.sampling_percentage
            if changes.get(variant.name, {}).get("DesiredWeight") is not None:
                percentage = _percentage(variant.weight, production[0].weight, shadow_weight)
            shadow = replace(shadow, variant=variant, sampling_percentage=percentage)
        return replace(self, production=production, shadow=shadow)


def fleet_of(config_name: str, request: Body, containers: Mapping[str, Body], shadow_weight: str) -> Fleet:
    """Return what a configuration deploys.

    Parameters
    ----------
    config_name : str
    request : mapping
        As CreateEndpointConfig has it.
    containers : mapping of str to mapping
        The first container of each model that exists.
    shadow_weight : {"relative", "absolute"}
        See `Undocumented`.

    Raises
    ------
    RefusedError
        A model does not exist.
    """
    production = tuple(_view(given, containers) for given in request["ProductionVariants"])
    shadow = None
    for given in request.get("ShadowProductionVariants", ()):
        view = _view(given, containers)
        percentage = _percentage(view.weight, production[0].weight, shadow_weight)
        shadow = ShadowView(view, production[0].name, percentage)
    every = [*request["ProductionVariants"], *request.get("ShadowProductionVariants", ())]
    routing = {v["VariantName"]: v.get("RoutingConfig", {}).get("RoutingStrategy", "RANDOM") for v in every}
    captures = _captures(request.get("DataCaptureConfig"), tuple(routing))
    return Fleet(config_name, request, production, shadow, captures, routing)


def _view(given: Body, containers: Mapping[str, Body]) -> VariantView:
    model = given["ModelName"]
    if model not in containers:
        raise RefusedError(f'Could not find model "{model}".')
    weight = float(given.get("InitialVariantWeight", 1.0))
    count = given.get("InitialInstanceCount", 1)
    return VariantView(given["VariantName"], model, given["InstanceType"], count, weight, containers[model])


def _percentage(weight: float, production: float, rule: str) -> float:
    share = weight / production if rule == "relative" and production > 0 else weight
    return round(min(share, 1.0) * 100, 9)  # 0.29 of 100 is 29, not 28.999999999999996


def _captures(config: Body | None, names: tuple[str, ...]) -> tuple[CaptureView, ...]:
    if config is None or not config.get("EnableCapture", True):
        return ()
    options = {option["CaptureMode"] for option in config["CaptureOptions"]}
    modes = {"Input", "Output"} if "InputAndOutput" in options else options
    types = config.get("CaptureContentTypeHeader", {})
    view = CaptureView(
        destination=config["DestinationS3Uri"],
        sampling_percentage=config["InitialSamplingPercentage"],
        modes=frozenset(modes),
        csv_content_types=tuple(types.get("CsvContentTypes", ())),
        json_content_types=tuple(types.get("JsonContentTypes", ())),
        kms_key_id=config.get("KmsKeyId"),
        variants=names,
    )
    return (view,)


def with_experiment(
    request: Body, before: Body | None, percentage: int, captured_percentage: int = 100
) -> dict[str, Any]:
    """Return the configuration that puts an experiment's variants behind its endpoint.

    The endpoint's own is kept where the experiment says nothing: the source's routing (the shadow gets the same, since
    what is compared is the models), encryption, capture unless the experiment has a capture of its own.

    Parameters
    ----------
    request : mapping
        CreateInferenceExperiment's.
    before : mapping or None
        The configuration behind the endpoint, if there is one.
    percentage, captured_percentage : int
        0..100, of the source's requests: what is copied, and what the experiment's DataStorageConfig captures.
    """
    shadow_name = request["ShadowModeConfig"]["ShadowModelVariants"][0]["ShadowModelVariantName"]
    given = {v["VariantName"]: _variant_request(v) for v in request["ModelVariants"]}
    shadow = given.pop(shadow_name)
    (own,) = given.values()
    earlier = (before or {}).get("ProductionVariants", ())
    old: Body = next((v for v in earlier if v["VariantName"] == own["VariantName"]), {})
    source = {**old, **own}
    source["InitialVariantWeight"] = source.get("InitialVariantWeight", 1.0) or 1.0
    shadow["InitialVariantWeight"] = percentage / 100 * source["InitialVariantWeight"]
    if "RoutingConfig" in source:
        shadow["RoutingConfig"] = source["RoutingConfig"]
    body = {**(before or {}), "ProductionVariants": [source], "ShadowProductionVariants": [shadow]}
    if "KmsKey" in request:
        body["KmsKeyId"] = request["KmsKey"]
    if "DataStorageConfig" in request:
        body["DataCaptureConfig"] = _capture_request(request["DataStorageConfig"], captured_percentage)
    return body


def without_experiment(
    fleet: Fleet, before: Body | None, actions: Mapping[str, str], desired: Mapping[str, Body]
) -> dict[str, Any]:
    """Return the configuration that StopInferenceExperiment's actions leave behind an endpoint.

    Parameters
    ----------
    fleet : Fleet
        What serves during the experiment.
    before : mapping or None
        The configuration from before; its capture comes back, and without one there is none.
    actions : mapping of str to {"Promote", "Remove", "Retain"}
        By variant; one that is not named is retained.
    desired : mapping of str to mapping
        DesiredModelVariants by variant.
    """
    source, shadow = dict(fleet.request["ProductionVariants"][0]), None
    source |= _now(fleet.production[0])
    if fleet.shadow:
        shadow = {**fleet.request["ShadowProductionVariants"][0], **_now(fleet.shadow.variant)}
        action = actions.get(shadow["VariantName"], "Retain")
        if action == "Promote":
            source, shadow = {**shadow, "InitialVariantWeight": 1.0}, None
        elif action == "Remove":
            shadow = None
    body = {**(before if before is not None else fleet.request), "ProductionVariants": [source]}
    body.pop("ShadowProductionVariants", None)
    if before is None:
        body.pop("DataCaptureConfig", None)
    if shadow is not None:
        body["ShadowProductionVariants"] = [shadow]
    for variant in [source, *([shadow] if shadow else [])]:
        variant.update(_variant_request(desired[variant["VariantName"]]) if variant["VariantName"] in desired else {})
    return body


def reverting(fleet: Fleet) -> dict[str, str]:
    """Return the actions that the end of a schedule takes: none is promoted, the shadow goes."""
    shadow = fleet.shadow.variant.name if fleet.shadow else ""
    return {fleet.production[0].name: "Retain", shadow: "Remove"}


def _variant_request(given: Body) -> dict[str, Any]:
    pool = given["InfrastructureConfig"]["RealTimeInferenceConfig"]
    return {
        "VariantName": given["VariantName"],
        "ModelName": given["ModelName"],
        "InstanceType": pool["InstanceType"],
        "InitialInstanceCount": pool["InstanceCount"],
    }


def _now(view: VariantView) -> dict[str, Any]:
    return {"InitialInstanceCount": view.instance_count, "InitialVariantWeight": view.weight}


def _capture_request(storage: Body, percentage: int) -> dict[str, Any]:
    # An experiment's storage has neither a share nor options: both sides.
    body: dict[str, Any] = {
        "EnableCapture": True,
        "InitialSamplingPercentage": percentage,
        "DestinationS3Uri": storage["Destination"],
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    }
    if "KmsKey" in storage:
        body["KmsKeyId"] = storage["KmsKey"]
    if "ContentType" in storage:
        body["CaptureContentTypeHeader"] = storage["ContentType"]
    return body
