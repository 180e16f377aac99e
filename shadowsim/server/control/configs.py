"""Endpoint configurations: what their actions refuse and answer.

A configuration that SageMaker would take and this server could not serve (serverless, asynchronous, pools of several
types, routing by prefix) is refused where it is made, by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shadowsim.aws.contract import sentence
from shadowsim.aws.experiment import excluded_type
from shadowsim.errors import RefusedError, ValidationError
from shadowsim.server.control.models import model, refuse_tags, single_model
from shadowsim.server.control.pagination import Row, page
from shadowsim.server.state.account import Record, World
from shadowsim.server.state.destinations import parse_destination
from shadowsim.server.state.fleet import Body
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
