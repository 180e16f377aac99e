"""Validates and answers the actions on endpoints and endpoint configurations.

These actions belong to the older part of SageMaker's API: a name that does not exist, or that exists already, is a
ValidationException. A configuration that SageMaker would accept and this server cannot serve (serverless,
asynchronous, pools of several instance types, prefix-aware routing) is refused by CreateEndpointConfig, with the
member's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from shadowsim.aws.contract import sentence
from shadowsim.aws.destinations import parse_destination
from shadowsim.aws.experiment import excluded_type
from shadowsim.errors import RefusedError, ResourceInUseError, ValidationError
from shadowsim.scenario.routing import DEFAULT_ROUTING, ROUTINGS
from shadowsim.server.control.models import find_model, find_single_model, refuse_tags
from shadowsim.server.control.pagination import page
from shadowsim.server.state.account import Endpoint, ResourceRecord, World
from shadowsim.server.state.events import configured_fleet
from shadowsim.server.state.fleet import Body, Fleet, VariantView
from shadowsim.server.state.store import Store
from shadowsim.server.state.transitions import refuse_scaled_variants

_LISTS = ("ProductionVariants", "ShadowProductionVariants")
# Valid to SageMaker, but not supported here.
_UNSUPPORTED = ("ServerlessConfig", "InstancePools")


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
    find = find_single_model if body.get("ShadowProductionVariants") else find_model
    for variant in _variants(body):
        find(world, variant["ModelName"])
    if name in world.configs:
        raise RefusedError(f'Cannot create already existing endpoint configuration "{arn}".')
    return {"EndpointConfigArn": arn}


def describe_endpoint_config(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DescribeEndpointConfig."""
    record = find_config(world, body["EndpointConfigName"])
    config = {key: value for key, value in record.request.items() if key != "Tags"}
    for key in _LISTS:
        if key in config:  # AWS reports the weight also where the request left it out
            config[key] = [{"InitialVariantWeight": 1.0, **variant} for variant in config[key]]
    arn = world.arn("endpoint-config", record.name)
    return {**config, "EndpointConfigName": record.name, "EndpointConfigArn": arn, "CreationTime": record.created_s}


def list_endpoint_configs(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer ListEndpointConfigs."""
    summary = lambda r: {  # noqa: E731
        "EndpointConfigName": r.name,
        "EndpointConfigArn": world.arn("endpoint-config", r.name),
        "CreationTime": r.created_s,
    }
    answer = page("ListEndpointConfigs", body, world.configs.values(), store.key, summary)
    return {"EndpointConfigs": answer.pop("Items"), **answer}


def delete_endpoint_config(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DeleteEndpointConfig; endpoints deployed from it go on serving."""
    find_config(world, body["EndpointConfigName"])
    return {}


def find_config(world: World, name: str) -> ResourceRecord:
    """Return the endpoint configuration of a name; raise AWS's RefusedError if there is none."""
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
        constraint = "Member must be null: asynchronous inference is not supported"
        yield sentence(body["AsyncInferenceConfig"], "asyncInferenceConfig", constraint)


def _exclusion_rules(variant: Body, path: str) -> Iterator[str]:
    yield from excluded_type(variant.get("InstanceType"), f"{path}.instanceType")
    if "AcceleratorType" in variant:
        constraint = "Member must be null: shadow tests exclude Elastic Inference"
        yield sentence(variant["AcceleratorType"], f"{path}.acceleratorType", constraint)


def _variant_rules(variant: Body, path: str) -> Iterator[str]:
    for member in _UNSUPPORTED:
        if member in variant:
            inner = f"{path}.{member[0].lower()}{member[1:]}"
            yield sentence(variant[member], inner, "Member must be null: only instances of one type are supported")
    for member in ("ModelName", "InstanceType", "InitialInstanceCount"):
        if member not in variant and not any(other in variant for other in _UNSUPPORTED):
            yield sentence(None, f"{path}.{member[0].lower()}{member[1:]}", "Member must not be null")
    strategy = variant.get("RoutingConfig", {}).get("RoutingStrategy", DEFAULT_ROUTING)
    if strategy not in ROUTINGS:
        constraint = f"Member must be a supported strategy: [{', '.join(ROUTINGS)}]"
        yield sentence(strategy, f"{path}.routingConfig.routingStrategy", constraint)


def create_endpoint(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer CreateEndpoint."""
    name = body["EndpointName"]
    arn = world.arn("endpoint", name)
    refuse_tags(body)
    if name in world.endpoints:
        raise RefusedError(f'Cannot create already existing endpoint "{arn}".')
    _refuse_live_experiment(world, name)
    find_config(world, body["EndpointConfigName"])
    _refuse_fleet_above_quota(store, world, name, configured_fleet(world, body))
    return {"EndpointArn": arn}


def describe_endpoint(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DescribeEndpoint."""
    endpoint = find_endpoint(world, body["EndpointName"])
    fleet, deployment = endpoint.fleet, endpoint.deployment
    described = fleet or (deployment.fleet if deployment else None)
    answer: dict[str, Any] = {
        "EndpointName": endpoint.name,
        "EndpointArn": world.arn("endpoint", endpoint.name),
        "EndpointStatus": endpoint.status,
        "CreationTime": endpoint.created_s,
        "LastModifiedTime": endpoint.modified_s,
    }
    if described is not None:
        answer["EndpointConfigName"] = described.config_name
    if endpoint.failure is not None:
        answer["FailureReason"] = endpoint.failure[:1024]
    if fleet is not None:
        intended = endpoint.intended or fleet
        answer |= _fleet_summary(fleet, intended)
    if deployment is not None and endpoint.status == "Updating":
        answer["PendingDeploymentSummary"] = {
            "EndpointConfigName": deployment.fleet.config_name,
            "StartTime": endpoint.since_s,
            **_pending_summary(deployment.fleet),
        }
    return answer


def list_endpoints(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer ListEndpoints."""
    summary = lambda e: {  # noqa: E731
        "EndpointName": e.name,
        "EndpointArn": world.arn("endpoint", e.name),
        "CreationTime": e.created_s,
        "LastModifiedTime": e.modified_s,
        "EndpointStatus": e.status,
    }
    answer = page(
        "ListEndpoints", body, world.endpoints.values(), store.key, summary, modified="modified_s", status="status"
    )
    return {"Endpoints": answer.pop("Items"), **answer}


def update_endpoint(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer UpdateEndpoint."""
    endpoint = find_endpoint(world, body["EndpointName"])
    _refuse_live_experiment(world, endpoint.name)
    find_config(world, body["EndpointConfigName"])
    _refuse_in_progress(world, endpoint)
    fleet = configured_fleet(world, body)
    refuse_scaled_variants(world, endpoint.name, fleet)
    _refuse_fleet_above_quota(store, world, endpoint.name, fleet)
    return {"EndpointArn": world.arn("endpoint", endpoint.name)}


def update_endpoint_weights_and_capacities(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer UpdateEndpointWeightsAndCapacities, which is also allowed while an experiment runs on the endpoint."""
    endpoint = find_endpoint(world, body["EndpointName"])
    broken = []
    views = {view.name: view for view in endpoint.fleet.variants} if endpoint.fleet else {}
    seen: set[str] = set()
    for i, change in enumerate(body["DesiredWeightsAndCapacities"], start=1):
        path = f"desiredWeightsAndCapacities.{i}.member"
        name, count = change["VariantName"], change.get("DesiredInstanceCount")
        if endpoint.fleet is not None and name not in views:
            constraint = f"Member must name a variant of the endpoint: [{', '.join(views)}]"
            broken.append(sentence(name, f"{path}.variantName", constraint))
        if name in seen:
            broken.append(sentence(name, f"{path}.variantName", "Member must be unique among the changes"))
        if count == 0:
            constraint = "Member must have value greater than or equal to 1, because a variant needs an instance"
            broken.append(sentence(count, f"{path}.desiredInstanceCount", constraint))
        if "ServerlessUpdateConfig" in change:
            constraint = "Member must be null: serverless variants are not supported"
            broken.append(sentence(change["ServerlessUpdateConfig"], f"{path}.serverlessUpdateConfig", constraint))
        seen.add(name)
    if broken:
        raise ValidationError(broken)
    _refuse_in_progress(world, endpoint)
    changes = {change["VariantName"]: change for change in body["DesiredWeightsAndCapacities"]}
    if endpoint.fleet is not None:
        _refuse_fleet_above_quota(
            store, world, endpoint.name, endpoint.fleet.scaled(changes, world.choices.shadow_weight)
        )
    return {"EndpointArn": world.arn("endpoint", endpoint.name)}


def delete_endpoint(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DeleteEndpoint."""
    endpoint = find_endpoint(world, body["EndpointName"])
    _refuse_live_experiment(world, endpoint.name)
    if endpoint.status == "Deleting":
        _refuse_in_progress(world, endpoint)
    return {}


def find_endpoint(world: World, name: str) -> Endpoint:
    """Return the endpoint of a name; raise AWS's RefusedError if there is none."""
    if name not in world.endpoints:
        raise RefusedError(f'Could not find endpoint "{world.arn("endpoint", name)}".')
    return world.endpoints[name]


def _refuse_in_progress(world: World, endpoint: Endpoint) -> None:
    if endpoint.status != "InService":
        text = "Cannot update failed endpoint" if endpoint.status == "Failed" else "Cannot update in-progress endpoint"
        raise RefusedError(f'{text} "{world.arn("endpoint", endpoint.name)}".')


def _refuse_live_experiment(world: World, name: str) -> None:
    experiment = world.live_experiment(name)
    if experiment is not None:
        arn, other_arn = world.arn("endpoint", name), world.arn("inference-experiment", experiment.name)
        raise ResourceInUseError(
            f"Endpoint {arn} is in use by inference experiment {other_arn} ({experiment.stage.status})."
        )


def _refuse_fleet_above_quota(store: Store, world: World, name: str, fleet: Fleet) -> None:
    wanted: Counter[str] = Counter()
    for view in fleet.variants:
        wanted[view.instance_type] += view.desired_count
    store.quotas.check(world, name, wanted)


def _fleet_summary(fleet: Fleet, intended: Fleet) -> dict[str, Any]:
    desired = {view.name: view for view in intended.variants}
    answer: dict[str, Any] = {
        "ProductionVariants": [_variant_summary(fleet, v, desired.get(v.name, v)) for v in fleet.production]
    }
    if fleet.shadow:
        view = fleet.shadow.variant
        answer["ShadowProductionVariants"] = [_variant_summary(fleet, view, desired.get(view.name, view))]
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


def _variant_summary(fleet: Fleet, view: VariantView, desired: VariantView) -> dict[str, Any]:
    return {
        "VariantName": view.name,
        **_deployed_images(view),
        "CurrentWeight": view.weight,
        "DesiredWeight": desired.weight,
        "CurrentInstanceCount": view.instance_count,
        "DesiredInstanceCount": desired.desired_count,
        "RoutingConfig": {"RoutingStrategy": fleet.routing[view.name]},
    }


def _pending_summary(fleet: Fleet) -> dict[str, Any]:
    def summary(view: VariantView) -> dict[str, Any]:
        without_instances = _variant_summary(fleet, replace(view, instance_count=0, starting_s=()), view)
        return {**without_instances, "InstanceType": view.instance_type, "VariantStatus": [{"Status": "Creating"}]}

    answer: dict[str, Any] = {"ProductionVariants": [summary(view) for view in fleet.production]}
    if fleet.shadow:
        answer["ShadowProductionVariants"] = [summary(fleet.shadow.variant)]
    return answer


def _deployed_images(view: VariantView) -> dict[str, Any]:
    image = view.container.get("Image")
    return {} if image is None else {"DeployedImages": [{"SpecifiedImage": image, "ResolvedImage": image}]}
