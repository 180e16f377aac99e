"""How an experiment changes the configuration behind its endpoint, and what its end leaves there.

Both are configurations in AWS's own form, which are deployed like any other; so what an experiment does could be done
by hand with UpdateEndpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shadowsim.server.state.fleet import Body, Fleet, VariantView


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
