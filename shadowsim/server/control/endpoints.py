"""Endpoints: what their actions refuse and answer.

These are the older part of SageMaker's API: what does not exist, or exists already, is a ValidationException here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from shadowsim.aws.contract import sentence
from shadowsim.errors import RefusedError, ResourceInUseError, ValidationError
from shadowsim.server.control.configs import config
from shadowsim.server.control.models import refuse_tags
from shadowsim.server.control.pagination import Row, page
from shadowsim.server.state.account import Endpoint, World
from shadowsim.server.state.events import configured
from shadowsim.server.state.fleet import Body, Fleet, VariantView
from shadowsim.server.state.store import Store


def create_endpoint(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer CreateEndpoint."""
    name = body["EndpointName"]
    arn = world.arn("endpoint", name)
    refuse_tags(body)
    if name in world.endpoints:
        raise RefusedError(f'Cannot create already existing endpoint "{arn}".')
    _refuse_live_trial(world, name)
    config(world, body["EndpointConfigName"])
    _refuse_above_quota(store, world, name, configured(world, body))
    return {"EndpointArn": arn}


def describe_endpoint(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DescribeEndpoint."""
    found = endpoint(world, body["EndpointName"])
    fleet, deployment = found.fleet, found.deployment
    named = fleet or (deployment.fleet if deployment else None)
    answer: dict[str, Any] = {
        "EndpointName": found.name,
        "EndpointArn": world.arn("endpoint", found.name),
        "EndpointStatus": found.status,
        "CreationTime": found.created_s,
        "LastModifiedTime": found.modified_s,
    }
    if named is not None:
        answer["EndpointConfigName"] = named.config_name
    if found.failure is not None:
        answer["FailureReason"] = found.failure[:1024]
    if fleet is not None:
        intended = found.intended or fleet
        answer |= _fleet_summary(fleet, intended)
    if deployment is not None and found.status == "Updating":
        answer["PendingDeploymentSummary"] = {
            "EndpointConfigName": deployment.fleet.config_name,
            "StartTime": found.since_s,
            **_pending_summary(deployment.fleet),
        }
    return answer


def list_endpoints(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer ListEndpoints."""
    rows = [
        Row(
            e.name,
            e.created_s,
            e.modified_s,
            {
                "EndpointName": e.name,
                "EndpointArn": world.arn("endpoint", e.name),
                "CreationTime": e.created_s,
                "LastModifiedTime": e.modified_s,
                "EndpointStatus": e.status,
            },
            e.status,
        )
        for e in world.endpoints.values()
    ]
    answer = page("ListEndpoints", body, rows, store.key)
    return {"Endpoints": answer.pop("Items"), **answer}


def update_endpoint(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer UpdateEndpoint."""
    found = endpoint(world, body["EndpointName"])
    _refuse_live_trial(world, found.name)
    config(world, body["EndpointConfigName"])
    _refuse_in_progress(world, found)
    _refuse_above_quota(store, world, found.name, configured(world, body))
    return {"EndpointArn": world.arn("endpoint", found.name)}


def update_endpoint_weights_and_capacities(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer UpdateEndpointWeightsAndCapacities, which is allowed also while an experiment has the endpoint."""
    found = endpoint(world, body["EndpointName"])
    broken = []
    views = {view.name: view for view in found.fleet.variants} if found.fleet else {}
    seen: set[str] = set()
    for i, change in enumerate(body["DesiredWeightsAndCapacities"], start=1):
        path = f"desiredWeightsAndCapacities.{i}.member"
        name, count = change["VariantName"], change.get("DesiredInstanceCount")
        if found.fleet is not None and name not in views:
            constraint = f"Member must name a variant of the endpoint: [{', '.join(views)}]"
            broken.append(sentence(name, f"{path}.variantName", constraint))
        if name in seen:
            broken.append(sentence(name, f"{path}.variantName", "Member must be unique among the changes"))
        if count == 0:
            constraint = "Member must have value greater than or equal to 1, for a variant must have an instance"
            broken.append(sentence(count, f"{path}.desiredInstanceCount", constraint))
        if "ServerlessUpdateConfig" in change:
            constraint = "Member must be null: serverless variants are not rehearsed"
            broken.append(sentence(change["ServerlessUpdateConfig"], f"{path}.serverlessUpdateConfig", constraint))
        seen.add(name)
    if broken:
        raise ValidationError(broken)
    _refuse_in_progress(world, found)
    changes = {change["VariantName"]: change for change in body["DesiredWeightsAndCapacities"]}
    if found.fleet is not None:
        _refuse_above_quota(store, world, found.name, found.fleet.scaled(changes, world.choices.shadow_weight))
    return {"EndpointArn": world.arn("endpoint", found.name)}


def delete_endpoint(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DeleteEndpoint."""
    found = endpoint(world, body["EndpointName"])
    _refuse_live_trial(world, found.name)
    if found.status == "Deleting":
        _refuse_in_progress(world, found)
    return {}


def endpoint(world: World, name: str) -> Endpoint:
    """Return an endpoint, or refuse in AWS's words."""
    if name not in world.endpoints:
        raise RefusedError(f'Could not find endpoint "{world.arn("endpoint", name)}".')
    return world.endpoints[name]


def _refuse_in_progress(world: World, found: Endpoint) -> None:
    if found.status != "InService":
        how = "Cannot update in-progress endpoint"
        if found.status == "Failed":
            how = "Cannot update failed endpoint"
        raise RefusedError(f'{how} "{world.arn("endpoint", found.name)}".')


def _refuse_live_trial(world: World, name: str) -> None:
    trial = world.live_trial(name)
    if trial is not None:
        arn, its = world.arn("endpoint", name), world.arn("inference-experiment", trial.name)
        raise ResourceInUseError(f"Endpoint {arn} is in use by inference experiment {its} ({trial.stage.status}).")


def _refuse_above_quota(store: Store, world: World, name: str, fleet: Fleet) -> None:
    wanted: Counter[str] = Counter()
    for view in fleet.variants:
        wanted[view.instance_type] += view.instance_count
    store.quotas.check(world, name, wanted)


def _fleet_summary(fleet: Fleet, intended: Fleet) -> dict[str, Any]:
    wanted = {view.name: view for view in intended.variants}
    answer: dict[str, Any] = {
        "ProductionVariants": [_variant_summary(fleet, v, wanted.get(v.name, v)) for v in fleet.production]
    }
    if fleet.shadow:
        view = fleet.shadow.variant
        answer["ShadowProductionVariants"] = [_variant_summary(fleet, view, wanted.get(view.name, view))]
    capture = fleet.request.get("DataCaptureConfig")
    if capture is not None:
        enabled = capture.get("EnableCapture", True)
        answer["DataCaptureConfig"] = {
            "EnableCapture": enabled,
            "CaptureStatus": "Started" if enabled else "Stopped",
            "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
            "DestinationS3Uri": capture["DestinationS3Uri"],
            "KmsKeyId": capture.get("KmsKeyId", ""),
        }
    return answer


def _variant_summary(fleet: Fleet, view: VariantView, wanted: VariantView) -> dict[str, Any]:
    return {
        "VariantName": view.name,
        **_images(view),
        "CurrentWeight": view.weight,
        "DesiredWeight": wanted.weight,
        "CurrentInstanceCount": view.instance_count,
        "DesiredInstanceCount": wanted.instance_count,
        "RoutingConfig": {"RoutingStrategy": fleet.routing[view.name]},
    }


def _pending_summary(fleet: Fleet) -> dict[str, Any]:
    def one(view: VariantView) -> dict[str, Any]:
        none_yet = _variant_summary(fleet, replace(view, instance_count=0), view)
        return {**none_yet, "InstanceType": view.instance_type, "VariantStatus": [{"Status": "Creating"}]}

    answer: dict[str, Any] = {"ProductionVariants": [one(view) for view in fleet.production]}
    if fleet.shadow:
        answer["ShadowProductionVariants"] = [one(fleet.shadow.variant)]
    return answer


def _images(view: VariantView) -> dict[str, Any]:
    image = view.container.get("Image")
    return {} if image is None else {"DeployedImages": [{"SpecifiedImage": image, "ResolvedImage": image}]}
