"""Inference experiments as Describe and List show them."""

from __future__ import annotations

from typing import Any

from shadowsim.server.control.experiments import trial
from shadowsim.server.control.pagination import Row, page
from shadowsim.server.state.account import Endpoint, Trial, World
from shadowsim.server.state.fleet import Body
from shadowsim.server.state.store import Store

_AS_GIVEN = ("Name", "Type", "Description", "RoleArn", "DataStorageConfig", "ShadowModeConfig", "KmsKey")
_BY_STATUS = {"Creating": "Creating", "Created": "Creating", "Updating": "Updating", "Running": "InService"}


def describe(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DescribeInferenceExperiment."""
    found = trial(world, body["Name"])
    endpoint = world.endpoints.get(found.endpoint_name)
    return {
        "Arn": world.arn("inference-experiment", found.name),
        **{key: found.request[key] for key in _AS_GIVEN if key in found.request},
        **_progress(found),
        "EndpointMetadata": _endpoint_metadata(found, endpoint),
        "ModelVariants": [
            {**variant, "Status": _variant_status(found, endpoint, variant["VariantName"])}
            for variant in found.request["ModelVariants"]
        ],
    }


def list_all(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer ListInferenceExperiments."""
    rows = [
        Row(t.name, t.created_s, t.modified_s, _summary(t), t.stage.status)
        for t in world.trials.values()
        if body.get("Type", t.request["Type"]) == t.request["Type"]
    ]
    answer = page("ListInferenceExperiments", body, rows, store.key)
    return {"InferenceExperiments": answer.pop("Items"), **answer}


def _summary(found: Trial) -> dict[str, Any]:
    given = {key: found.request[key] for key in ("Name", "Type", "Description", "RoleArn") if key in found.request}
    return {**given, **_progress(found)}


def _progress(found: Trial) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "Status": found.stage.status,
        "Schedule": {"StartTime": found.stage.start_s, "EndTime": found.stage.end_s},
        "CreationTime": found.created_s,
        "LastModifiedTime": found.modified_s,
    }
    if found.reason is not None:
        answer["StatusReason"] = found.reason[:1024]
    if found.completed_s is not None:
        answer["CompletionTime"] = found.completed_s
    return answer


def _endpoint_metadata(found: Trial, endpoint: Endpoint | None) -> dict[str, Any]:
    answer: dict[str, Any] = {"EndpointName": found.endpoint_name}
    if endpoint is not None:
        fleet = endpoint.fleet or (endpoint.deployment.fleet if endpoint.deployment else None)
        if fleet is not None:
            answer["EndpointConfigName"] = fleet.config_name
        answer["EndpointStatus"] = endpoint.status
        if endpoint.failure is not None:
            answer["FailureReason"] = endpoint.failure[:1024]
    return answer


def _variant_status(found: Trial, endpoint: Endpoint | None, name: str) -> str:
    """Return a variant's own status: where it stands behind its endpoint, or was taken away from there."""
    status = found.stage.status
    kept = endpoint.intended if endpoint else None
    stays = kept is not None and name in {view.name for view in kept.variants}
    match status:
        case "Starting":
            serving = endpoint.fleet.variants if endpoint and endpoint.fleet else ()
            return "Updating" if name in {view.name for view in serving} else "Creating"
        case "Stopping":
            return "Updating" if stays else "Deleting"
        case "Completed" | "Cancelled":
            # Another experiment may have put a variant of the same name there since.
            return "InService" if stays and name in found.left else "Deleted"
    return _BY_STATUS[status]
