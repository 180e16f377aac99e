"""Resolves endpoint configurations to fleets, and derives the configurations that experiments deploy.

A fleet is an endpoint configuration with its models filled in. It is resolved once, at deployment: as on SageMaker,
deleting a model or a configuration later does not change what serves.

An experiment deploys ordinary configurations in AWS's form, one while it runs and one at its end; UpdateEndpoint could
deploy the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shadowsim.errors import RefusedError
from shadowsim.scenario.routing import DEFAULT_ROUTING

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VariantView:
    """A variant as it serves: a model on its instances.

    Attributes
    ----------
    name, model_name, instance_type : str
    instance_count : int
        At least 1.
    weight : float
        A production variant's share of requests is its weight over the sum of all weights. 0 is allowed; if all are
        0, the shares are equal.
    container : mapping
        The model's first container as recorded ("Image", "ModelDataUrl", "Environment", ...). Nothing that it names
        may be fetched.
    starting_s : tuple of float
        When each further instance will serve that scaling has started, ascending.
    """

    name: str
    model_name: str
    instance_type: str
    instance_count: int
    weight: float = 1.0
    container: Body = field(default_factory=dict)
    starting_s: tuple[float, ...] = ()

    @property
    def desired_count(self) -> int:
        """Instances that serve or are starting."""
        return self.instance_count + len(self.starting_s)


@dataclass(frozen=True, slots=True)
class ShadowView:
    """The variant that receives copies of requests.

    Attributes
    ----------
    variant : VariantView
    source_name : str
        The production variant whose requests are copied.
    sampling_percentage : float
        0..100; a whole number for an experiment, any number for the weights of an endpoint configuration.
    """

    variant: VariantView
    source_name: str
    sampling_percentage: float


@dataclass(frozen=True, slots=True)
class CaptureView:
    """The settings of data capture.

    Attributes
    ----------
    destination : str
        An S3 URI.
    sampling_percentage : int
        0..100, the share of requests captured.
    modes : frozenset of {"Input", "Output"}
    csv_content_types, json_content_types : tuple of str
    kms_key_id : str or None
        Recorded only: captures are not encrypted.
    variants : tuple of str or None
        The names of the captured variants, which may include the shadow; None stands for all production variants.
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
    """An endpoint configuration as it is deployed.

    Attributes
    ----------
    config_name : str
    request : mapping
        The CreateEndpointConfig request.
    production : tuple of VariantView
    shadow : ShadowView or None
    captures : tuple of CaptureView
    routing : mapping of str to str
        By variant name, the shadow's included.
    """

    config_name: str
    request: Body
    production: tuple[VariantView, ...]
    shadow: ShadowView | None = None
    captures: tuple[CaptureView, ...] = ()
    routing: Mapping[str, str] = field(default_factory=dict)

    @property
    def variants(self) -> tuple[VariantView, ...]:
        """All variants, the shadow last."""
        return (*self.production, self.shadow.variant) if self.shadow else self.production

    def serves_as(self, other: Fleet) -> bool:
        """Return whether this fleet serves requests, copies and captures exactly as another one does."""
        return (self.production, self.shadow, self.captures, self.routing) == (
            other.production,
            other.shadow,
            other.captures,
            other.routing,
        )

    def scaled(self, changes: Mapping[str, Body], shadow_weight: str) -> Fleet:
        """Return the fleet with the DesiredWeight and DesiredInstanceCount of `changes`, by variant name."""

        def scaled_view(view: VariantView) -> VariantView:
            change = changes.get(view.name, {})
            count, weight = change.get("DesiredInstanceCount"), change.get("DesiredWeight")
            return replace(
                view,
                instance_count=view.instance_count if count is None else count,
                starting_s=view.starting_s if count is None else (),
                weight=view.weight if weight is None else weight,
            )

        production = tuple(map(scaled_view, self.production))
        shadow = self.shadow
        if shadow:
            variant, percentage = scaled_view(shadow.variant), shadow.sampling_percentage
            if changes.get(variant.name, {}).get("DesiredWeight") is not None:
                percentage = _shadow_percentage(variant.weight, production[0].weight, shadow_weight)
            shadow = replace(shadow, variant=variant, sampling_percentage=percentage)
        return replace(self, production=production, shadow=shadow)

    def with_view(self, view: VariantView) -> Fleet:
        """Return the fleet with another view of the variant of its name."""
        production = tuple(view if old.name == view.name else old for old in self.production)
        shadow = self.shadow
        if shadow and shadow.variant.name == view.name:
            shadow = replace(shadow, variant=view)
        return replace(self, production=production, shadow=shadow)

    def settled(self, now: float) -> Fleet:
        """Return the fleet once all starting instances serve that do by a moment."""
        fleet = self
        for view in self.variants:
            n = sum(moment <= now for moment in view.starting_s)
            if n:
                left = view.starting_s[n:]
                fleet = fleet.with_view(replace(view, instance_count=view.instance_count + n, starting_s=left))
        return fleet


def fleet_of(config_name: str, request: Body, containers: Mapping[str, Body], shadow_weight: str) -> Fleet:
    """Return the fleet of an endpoint configuration.

    Parameters
    ----------
    config_name : str
    request : mapping
        The CreateEndpointConfig request.
    containers : mapping of str to mapping
        The first container of each model that exists.
    shadow_weight : {"relative", "absolute"}
        See `Undocumented`.

    Raises
    ------
    RefusedError
        A model does not exist.
    """
    production = tuple(_variant_view(variant, containers) for variant in request["ProductionVariants"])
    shadow = None
    for variant in request.get("ShadowProductionVariants", ()):
        view = _variant_view(variant, containers)
        percentage = _shadow_percentage(view.weight, production[0].weight, shadow_weight)
        shadow = ShadowView(view, production[0].name, percentage)
    variants = [*request["ProductionVariants"], *request.get("ShadowProductionVariants", ())]
    routing = {v["VariantName"]: v.get("RoutingConfig", {}).get("RoutingStrategy", DEFAULT_ROUTING) for v in variants}
    captures = _capture_views(request.get("DataCaptureConfig"), tuple(routing))
    return Fleet(config_name, request, production, shadow, captures, routing)


def _variant_view(variant: Body, containers: Mapping[str, Body]) -> VariantView:
    model = variant["ModelName"]
    if model not in containers:
        raise RefusedError(f'Could not find model "{model}".')
    weight = float(variant.get("InitialVariantWeight", 1.0))
    count = variant.get("InitialInstanceCount", 1)
    return VariantView(variant["VariantName"], model, variant["InstanceType"], count, weight, containers[model])


def _shadow_percentage(weight: float, production_weight: float, rule: str) -> float:
    share = weight / production_weight if rule == "relative" and production_weight > 0 else weight
    return round(min(share, 1.0) * 100, 9)  # without rounding a share of 0.29 gives 28.999999999999996


def _capture_views(config: Body | None, names: tuple[str, ...]) -> tuple[CaptureView, ...]:
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


def config_with_experiment(
    request: Body, before: Body | None, percentage: int, captured_percentage: int = 100
) -> dict[str, Any]:
    """Return the endpoint configuration that puts an experiment's variants behind its endpoint.

    Members that the experiment does not set are kept from the endpoint's configuration: the source's routing (also
    used for the shadow, so that only the models differ), the encryption key, and the capture settings.

    Parameters
    ----------
    request : mapping
        The CreateInferenceExperiment request.
    before : mapping or None
        The configuration behind the endpoint, if there is one.
    percentage, captured_percentage : int
        0..100: the shares of the source's requests that are copied, and that the experiment's DataStorageConfig
        captures.
    """
    shadow_name = request["ShadowModeConfig"]["ShadowModelVariants"][0]["ShadowModelVariantName"]
    variants = {v["VariantName"]: _variant_config(v) for v in request["ModelVariants"]}
    shadow = variants.pop(shadow_name)
    (new_source,) = variants.values()
    earlier = (before or {}).get("ProductionVariants", ())
    old_source: Body = next((v for v in earlier if v["VariantName"] == new_source["VariantName"]), {})
    source = {**old_source, **new_source}
    source["InitialVariantWeight"] = source.get("InitialVariantWeight", 1.0) or 1.0
    shadow["InitialVariantWeight"] = percentage / 100 * source["InitialVariantWeight"]
    if "RoutingConfig" in source:
        shadow["RoutingConfig"] = source["RoutingConfig"]
    body = {**(before or {}), "ProductionVariants": [source], "ShadowProductionVariants": [shadow]}
    if "KmsKey" in request:
        body["KmsKeyId"] = request["KmsKey"]
    if "DataStorageConfig" in request:
        body["DataCaptureConfig"] = _data_capture_config(request["DataStorageConfig"], captured_percentage)
    return body


def config_after_experiment(
    fleet: Fleet, before: Body | None, actions: Mapping[str, str], desired: Mapping[str, Body]
) -> dict[str, Any]:
    """Return the endpoint configuration that StopInferenceExperiment's actions result in.

    Parameters
    ----------
    fleet : Fleet
        The fleet that serves during the experiment.
    before : mapping or None
        The configuration before the experiment, whose capture settings are restored; None for no capture.
    actions : mapping of str to {"Promote", "Remove", "Retain"}
        By variant name; a variant that is not named is retained.
    desired : mapping of str to mapping
        DesiredModelVariants by variant name.
    """
    source, shadow = dict(fleet.request["ProductionVariants"][0]), None
    source |= _current_size(fleet.production[0])
    if fleet.shadow:
        shadow = {**fleet.request["ShadowProductionVariants"][0], **_current_size(fleet.shadow.variant)}
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
        variant.update(_variant_config(desired[variant["VariantName"]]) if variant["VariantName"] in desired else {})
    return body


def scheduled_end_actions(fleet: Fleet) -> dict[str, str]:
    """Return the actions at the end of a schedule: the source is retained, the shadow removed."""
    shadow = fleet.shadow.variant.name if fleet.shadow else ""
    return {fleet.production[0].name: "Retain", shadow: "Remove"}


def _variant_config(variant: Body) -> dict[str, Any]:
    pool = variant["InfrastructureConfig"]["RealTimeInferenceConfig"]
    return {
        "VariantName": variant["VariantName"],
        "ModelName": variant["ModelName"],
        "InstanceType": pool["InstanceType"],
        "InitialInstanceCount": pool["InstanceCount"],
    }


def _current_size(view: VariantView) -> dict[str, Any]:
    return {"InitialInstanceCount": view.desired_count, "InitialVariantWeight": view.weight}


def _data_capture_config(storage: Body, percentage: int) -> dict[str, Any]:
    # DataStorageConfig sets no capture options: both input and output are captured.
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
