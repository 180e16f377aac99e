"""Endpoints: what their actions refuse and answer.

These are the older part of SageMaker's API: what does not exist, or exists already, is a ValidationException here.

Endpoint configurations: what their actions refuse and answer.

A configuration that SageMaker would take and this server could not serve (serverless, asynchronous, pools of several
types, routing by prefix) is refused where it is made, by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from shadowsim.aws.contract import sentence
from shadowsim.aws.experiment import excluded_type
from shadowsim.errors import RefusedError, ResourceInUseError, ValidationError
from shadowsim.server.control.models import model, refuse_tags, single_model
from shadowsim.server.control.pagination import Row, page
from shadowsim.server.state.account import Endpoint, Record, World
from shadowsim.server.state.destinations import parse_destination
from shadowsim.server.state.events import configured
from shadowsim.server.state.fleet import Body, Fleet, VariantView
from shadowsim.server.state.store import Store

_LISTS = ("ProductionVariants", "ShadowProductionVariants")
_ROUTINGS = ("RANDOM", "LEAST_OUTSTANDING_REQUESTS")
# Valid to SageMaker, and nothing that this server could do.
_NOT_REHEARSED = ("ServerlessConfig", "InstancePools")


def create_endpoint_config(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer CreateEndpointConfig."""
    name = body["EndpointConfigName"]
    arn = world.arn("endpoint-config", name)
    refuse_tags(body)
    broken = list(_config_rules(body))
    if broken:
        raise ValidationError(broken)
    if "DataCaptureConfig" in body:
        parse_destination(body["DataCaptureConfig"]["DestinationS3Uri"], "dataCaptureConfig.destinationS3Uri")
    known = single_model if body.get("ShadowProductionVariants") else model
    for variant in _variants(body):
        known(world, variant["ModelName"])
    if name in world.configs:
        raise RefusedError(f'Cannot create already existing endpoint configuration "{arn}".')
    return {"EndpointConfigArn": arn}


def describe_endpoint_config(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DescribeEndpointConfig."""
    record = config(world, body["EndpointConfigName"])
    known = {key: value for key, value in record.request.items() if key != "Tags"}
    for key in _LISTS:
        if key in known:  # the weight that counts is said, as AWS does
            known[key] = [{"InitialVariantWeight": 1.0, **variant} for variant in known[key]]
    arn = world.arn("endpoint-config", record.name)
    return {**known, "EndpointConfigName": record.name, "EndpointConfigArn": arn, "CreationTime": record.created_s}


def list_endpoint_configs(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer ListEndpointConfigs."""
    rows = [
        Row(
            r.name,
            r.created_s,
            r.created_s,
            {
                "EndpointConfigName": r.name,
                "EndpointConfigArn": world.arn("endpoint-config", r.name),
                "CreationTime": r.created_s,
            },
        )
        for r in world.configs.values()
    ]
    answer = page("ListEndpointConfigs", body, rows, store.key)
    return {"EndpointConfigs": answer.pop("Items"), **answer}


def delete_endpoint_config(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DeleteEndpointConfig; what was deployed from it stays."""
    config(world, body["EndpointConfigName"])
    return {}


def config(world: World, name: str) -> Record:
    """Return a configuration, or refuse in AWS's words."""
    if name not in world.configs:
        raise RefusedError(f'Could not find endpoint configuration "{world.arn("endpoint-config", name)}".')
    return world.configs[name]


def _variants(body: Body) -> list[Body]:
    return [*body["ProductionVariants"], *body.get("ShadowProductionVariants", ())]


def _config_rules(body: Body) -> Iterator[str]:
    seen: set[str] = set()
    lists = {key: body.get(key, ()) for key in _LISTS}
    if lists["ShadowProductionVariants"]:
        for key, variants in lists.items():
            if len(variants) != 1:
                path = key[0].lower() + key[1:]
                constraint = "Member must have exactly one item when there are shadow variants"
                yield sentence(variants, path, constraint)
    for key, variants in lists.items():
        for i, variant in enumerate(variants, start=1):
            path = f"{key[0].lower()}{key[1:]}.{i}.member"
            name = variant["VariantName"]
            if name in seen:
                yield sentence(name, f"{path}.variantName", "Member must be unique among the variants' names")
            seen.add(name)
            yield from _variant_rules(variant, path)
            if lists["ShadowProductionVariants"]:
                yield from _exclusion_rules(variant, path)
    if "AsyncInferenceConfig" in body:
        constraint = "Member must be null: asynchronous inference is not rehearsed"
        yield sentence(body["AsyncInferenceConfig"], "asyncInferenceConfig", constraint)


def _exclusion_rules(variant: Body, path: str) -> Iterator[str]:
    yield from excluded_type(variant.get("InstanceType"), f"{path}.instanceType")
    if "AcceleratorType" in variant:
        constraint = "Member must be null: shadow tests exclude Elastic Inference"
        yield sentence(variant["AcceleratorType"], f"{path}.acceleratorType", constraint)


def _variant_rules(variant: Body, path: str) -> Iterator[str]:
    for member in _NOT_REHEARSED:
        if member in variant:
            inner = f"{path}.{member[0].lower()}{member[1:]}"
            yield sentence(variant[member], inner, "Member must be null: only instances of one type are rehearsed")
    for member in ("ModelName", "InstanceType", "InitialInstanceCount"):
        if member not in variant and not any(other in variant for other in _NOT_REHEARSED):
            yield sentence(None, f"{path}.{member[0].lower()}{member[1:]}", "Member must not be null")
    strategy = variant.get("RoutingConfig", {}).get("RoutingStrategy", "RANDOM")
    if strategy not in _ROUTINGS:
        constraint = f"Member must be one that is rehearsed: [{', '.join(_ROUTINGS)}]"
        yield sentence(strategy, f"{path}.routingConfig.routingStrategy", constraint)


def create_endpoint(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer CreateEndpoint."""
    name = body["EndpointName"]
    arn = world.arn("endpoint", name)
    refuse_tags(body)
    if name in world.endpoints:
        raise RefusedError(f'Cannot create already existing endpoint "{arn}".')
    _refuse_live_experiment(world, name)
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
    _refuse_live_experiment(world, found.name)
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
    _refuse_live_experiment(world, found.name)
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


def _refuse_live_experiment(world: World, name: str) -> None:
    experiment = world.live_experiment(name)
    if experiment is not None:
        arn, its = world.arn("endpoint", name), world.arn("inference-experiment", experiment.name)
        raise ResourceInUseError(f"Endpoint {arn} is in use by inference experiment {its} ({experiment.stage.status}).")


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
