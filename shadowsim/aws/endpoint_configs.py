"""Turns an endpoint configuration with a shadow variant into the request of an equal experiment.

SageMaker copies requests without an experiment, too: an endpoint configuration has one of ProductionVariants and one of
ShadowProductionVariants, and the shadow's weight tells the share of copies. What an experiment needs beside that is
assumed, and said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shadowsim.errors import InputError

PLACEHOLDER_ROLE = "arn:aws:iam::111122223333:role/shadowsim"
_KINDS = ("ProductionVariants", "ShadowProductionVariants")


def has_shadow(config: Mapping[str, Any]) -> bool:
    """Return whether an endpoint configuration names shadow variants."""
    return bool(config.get("ShadowProductionVariants"))


def request_of_config(config: Mapping[str, Any], path: str) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """Return a request, what was assumed for it by path in the scenario, and the routing by variant.

    Raises
    ------
    InputError
        It has not one production and one shadow variant on instances; `path` names it.
    """
    source, shadow = (_only(config, kind, path) for kind in _KINDS)
    request: dict[str, Any] = {
        "Name": "shadow-variant",
        "Type": "ShadowMode",
        "RoleArn": PLACEHOLDER_ROLE,
        "EndpointName": "endpoint",
        "ModelVariants": [_variant(source, f"{path}.{_KINDS[0]}.0"), _variant(shadow, f"{path}.{_KINDS[1]}.0")],
        "ShadowModeConfig": {
            "SourceModelVariantName": source.get("VariantName"),
            "ShadowModelVariants": [
                {
                    "ShadowModelVariantName": shadow.get("VariantName"),
                    "SamplingPercentage": _share(source, shadow, path),
                }
            ],
        },
    }
    share = request["ShadowModeConfig"]["ShadowModelVariants"][0]["SamplingPercentage"]
    weights = " / ".join(f"{_weight(variant):g}" for variant in (shadow, source))
    assumed = {
        "experiment.Name": "experiment: an endpoint configuration has neither Name, EndpointName nor RoleArn; "
        "placeholders stand for them.",
        "experiment.ShadowModeConfig": f"experiment: {share} % are copied, the shadow's weight over production's "
        f"({weights}); AWS does not say whether it is relative.",
    }
    capture = config.get("DataCaptureConfig")
    if isinstance(capture, Mapping) and capture.get("DestinationS3Uri"):
        request["DataStorageConfig"] = {"Destination": capture["DestinationS3Uri"]}
    if any(variant.get("ManagedInstanceScaling") for variant in (source, shadow)):
        assumed["experiment.ModelVariants"] = "experiment: ManagedInstanceScaling is not used; `scaling` describes it."
    routing = {
        variant["VariantName"]: variant["RoutingConfig"]["RoutingStrategy"]
        for variant in (source, shadow)
        if isinstance(variant.get("RoutingConfig"), Mapping) and variant["RoutingConfig"].get("RoutingStrategy")
    }
    return request, assumed, routing


def _only(config: Mapping[str, Any], kind: str, path: str) -> Mapping[str, Any]:
    variants = config.get(kind)
    if not isinstance(variants, list) or len(variants) != 1 or not isinstance(variants[0], Mapping):
        n = len(variants) if isinstance(variants, list) else 0
        raise InputError(f"{path}.{kind}", "must have exactly one variant, as for every configuration with a shadow", n)
    return variants[0]


def _variant(variant: Mapping[str, Any], path: str) -> dict[str, Any]:
    if variant.get("ServerlessConfig"):
        raise InputError(f"{path}.ServerlessConfig", "is serverless; a shadow test needs variants on instances")
    if variant.get("InitialInstanceCount") is None or variant.get("InstanceType") is None:
        raise InputError(path, "needs InstanceType and InitialInstanceCount")
    pool = {"InstanceType": variant["InstanceType"], "InstanceCount": variant["InitialInstanceCount"]}
    return {
        "ModelName": variant.get("ModelName"),
        "VariantName": variant.get("VariantName"),
        "InfrastructureConfig": {"InfrastructureType": "RealTimeInference", "RealTimeInferenceConfig": pool},
    }


def _weight(variant: Mapping[str, Any]) -> float:
    weight = variant.get("InitialVariantWeight")
    return 1.0 if weight is None else float(weight)


def _share(source: Mapping[str, Any], shadow: Mapping[str, Any], path: str) -> int:
    for kind, variant in zip(_KINDS, (source, shadow), strict=True):
        weight = variant.get("InitialVariantWeight")
        where = f"{path}.{kind}.0.InitialVariantWeight"
        if weight is not None and (
            isinstance(weight, bool) or not isinstance(weight, int | float) or not weight >= 0.0
        ):
            raise InputError(where, "must be a number >= 0", weight)
    share = 100.0 * _weight(shadow) / _weight(source) if _weight(source) > 0.0 else -1.0
    if not 0.0 <= share <= 100.0:
        constraint = f"must be at most production's weight, {_weight(source):g}, which must be above 0"
        raise InputError(f"{path}.{_KINDS[1]}.0.InitialVariantWeight", constraint, _weight(shadow))
    return round(share)
