"""Inference experiments: what their seven actions refuse.

In this order: the rules across the request's own fields, all broken ones at once; then what must exist; then the
status, by the table of lifecycle.py; then quotas. What the actions do once accepted stands in events.py.

Inference experiments as Describe and List show them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from shadowsim.aws.contract import sentence
from shadowsim.aws.experiment import DEFAULT_DURATION, Experiment, iso_time
from shadowsim.aws.lifecycle import allowed
from shadowsim.errors import (
    ConflictError,
    RefusedError,
    ResourceInUseError,
    ResourceNotFoundError,
    ValidationError,
)
from shadowsim.server.control.models import model, refuse_tags, single_model
from shadowsim.server.control.pagination import Row, page
from shadowsim.server.state.account import Endpoint, ExperimentRecord, World
from shadowsim.server.state.destinations import parse_destination
from shadowsim.server.state.events import merged
from shadowsim.server.state.fleet import Body
from shadowsim.server.state.store import Store

_POOL = "infrastructureConfig.realTimeInferenceConfig"


def create(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer CreateInferenceExperiment."""
    name = body["Name"]
    refuse_tags(body)
    _refuse_broken(world, body, [*_schedule_rules(body, world.now_s), *_pool_rules(body, "modelVariants")])
    if name in world.experiments:
        text = f"Inference experiment {world.arn('inference-experiment', name)} already exists."
        by_choice = {"ResourceInUse": ResourceInUseError, "ConflictException": ConflictError}
        raise by_choice[world.choices.duplicate_name](text)
    _refuse_models(world, body)
    _refuse_endpoint(world, body)
    _refuse_above_quota(store, world, body)
    return _answer(world, name)


def start(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer StartInferenceExperiment."""
    found = experiment(world, body["Name"])
    refuse_status(world, found, "Start")
    return _answer(world, found.name)


def stop(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer StopInferenceExperiment."""
    found = experiment(world, body["Name"])
    broken = [*_action_rules(found, body), *_desired_rules(found, body), *_pool_rules(body, "desiredModelVariants")]
    if broken:
        raise ValidationError(broken)
    refuse_status(world, found, "Stop")
    if not found.deployed and "Promote" in body["ModelVariantActions"].values():
        constraint = "Member must not be Promote before the experiment has started"
        raise ValidationError([sentence(body["ModelVariantActions"], "modelVariantActions", constraint)])
    desired = body.get("DesiredModelVariants", ())
    for variant in desired:
        model(world, variant["ModelName"])
    if found.deployed and desired:
        _refuse_desired_above_quota(store, world, found, body)
    return _answer(world, found.name)


def update(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer UpdateInferenceExperiment."""
    found = experiment(world, body["Name"])
    after = merged(found.request, body)
    after.pop("Schedule", None)
    broken = [*_pool_rules(body, "modelVariants"), *_variant_rules(found, after, body)]
    if "Schedule" in body:
        times = {"StartTime": found.stage.start_s, "EndTime": found.stage.end_s}
        after["Schedule"] = {**times, **body["Schedule"]}
        broken += _schedule_rules(after, world.now_s)
    fixed = list(_live_rules(found, body)) if found.stage.live else []
    conflict = bool(fixed) and world.choices.running_update == "ConflictException"
    _refuse_broken(world, after, broken if conflict else broken + fixed)
    if conflict:
        raise ConflictError(str(ValidationError(fixed)))
    refuse_status(world, found, "Update")
    _refuse_models(world, after)
    if world.endpoints.get(found.endpoint_name) and not found.deployed:
        _refuse_source(world, after)
    if "ModelVariants" in body:
        _refuse_above_quota(store, world, after)
    return _answer(world, found.name)


def delete(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DeleteInferenceExperiment."""
    found = experiment(world, body["Name"])
    refuse_status(world, found, "Delete")
    return _answer(world, found.name)


def experiment(world: World, name: str) -> ExperimentRecord:
    """Return an experiment, or refuse: there is none of the name."""
    if name not in world.experiments:
        arn = world.arn("inference-experiment", name)
        raise ResourceNotFoundError(f"Could not find inference experiment {arn}.")
    return world.experiments[name]


def refuse_status(world: World, found: ExperimentRecord, action: str) -> None:
    """Refuse an action that the experiment's status does not allow."""
    try:
        allowed(world.choices.table, found.stage.status, action)
    except ConflictError as error:
        arn = world.arn("inference-experiment", found.name)
        raise ConflictError(f"Inference experiment {arn}: {error}.") from None


def _answer(world: World, name: str) -> dict[str, Any]:
    return {"InferenceExperimentArn": world.arn("inference-experiment", name)}


def _refuse_broken(world: World, body: Body, broken: list[str]) -> None:
    """Refuse with these violations, and all of the rules that hold for a request wherever it is read."""
    found: list[str] = []
    try:
        Experiment.from_request(body, datetime.fromtimestamp(world.now_s, UTC))
        if "DataStorageConfig" in body:
            parse_destination(body["DataStorageConfig"]["Destination"], "dataStorageConfig.destination")
    except ValidationError as error:
        found += error.violations
    found += [text for text in broken if text not in found]
    if found:
        raise ValidationError(found)


def _schedule_rules(body: Body, now: float) -> Iterator[str]:
    schedule = body.get("Schedule", {})
    start_s = schedule.get("StartTime", now)
    end_s = schedule.get("EndTime", start_s + DEFAULT_DURATION.total_seconds())
    if end_s <= now:
        path = "schedule.endTime" if "EndTime" in schedule else "schedule.startTime"
        given = schedule.get("EndTime", start_s)
        # The server's time may be scaled, and is no time that the caller could know.
        clock = iso_time(datetime.fromtimestamp(now, UTC).replace(microsecond=0))
        yield sentence(
            given, path, f"Member must leave the experiment's end later than now, {clock} by the server's clock"
        )


def _pool_rules(body: Body, member: str) -> Iterator[str]:
    for i, variant in enumerate(body.get(f"{member[0].upper()}{member[1:]}", ()), start=1):
        count = variant["InfrastructureConfig"]["RealTimeInferenceConfig"]["InstanceCount"]
        if count == 0:
            path = f"{member}.{i}.member.{_POOL}.instanceCount"
            yield sentence(count, path, "Member must have value greater than or equal to 1 for what is deployed")


def _live_rules(found: ExperimentRecord, body: Body) -> Iterator[str]:
    """Yield what cannot change any more once copies have begun."""
    while_running = "Member must not change once the experiment has started"
    start_s = body.get("Schedule", {}).get("StartTime")
    if start_s is not None and start_s != found.stage.start_s:
        yield sentence(start_s, "schedule.startTime", while_running)
    old = {variant["VariantName"]: variant for variant in found.request["ModelVariants"]}
    if any(old.get(variant["VariantName"]) != variant for variant in body.get("ModelVariants", ())):
        yield sentence(body["ModelVariants"], "modelVariants", while_running)
    config = body.get("ShadowModeConfig")
    if config is not None:
        if config["SourceModelVariantName"] != found.source_name:
            yield sentence(config["SourceModelVariantName"], "shadowModeConfig.sourceModelVariantName", while_running)
        name = config["ShadowModelVariants"][0]["ShadowModelVariantName"]
        if name != found.shadow_name:
            path = "shadowModeConfig.shadowModelVariants.1.member.shadowModelVariantName"
            yield sentence(name, path, while_running)


def _variant_rules(found: ExperimentRecord, after: Body, body: Body) -> Iterator[str]:
    models = {variant["VariantName"]: variant["ModelName"] for variant in found.request["ModelVariants"]}
    config = after["ShadowModeConfig"]
    named = [config["SourceModelVariantName"], config["ShadowModelVariants"][0]["ShadowModelVariantName"]]
    for i, variant in enumerate(body.get("ModelVariants", ()), start=1):
        if variant["VariantName"] not in named:
            constraint = f"Member must be a variant that shadowModeConfig names: [{', '.join(named)}]"
            yield sentence(variant["VariantName"], f"modelVariants.{i}.member.variantName", constraint)
        if models.get(variant["VariantName"], variant["ModelName"]) != variant["ModelName"]:
            constraint = "Member must not change; a variant with another model needs another name"
            yield sentence(variant["ModelName"], f"modelVariants.{i}.member.modelName", constraint)


def _action_rules(found: ExperimentRecord, body: Body) -> Iterator[str]:
    actions = body["ModelVariantActions"]
    names = (found.source_name, found.shadow_name)
    for name in actions:
        if name not in names:
            constraint = f"Map keys must name the experiment's variants: [{', '.join(names)}]"
            yield sentence(name, "modelVariantActions", constraint)
    source, shadow = (actions.get(name, "Retain") for name in names)
    if source == "Promote":
        constraint = "Member must not be Promote: this is the production variant"
        yield sentence(source, f"modelVariantActions.{found.source_name}.member", constraint)
    elif (source == "Remove") != (shadow == "Promote"):
        constraint = (
            "Member must leave exactly one production variant: Remove it when the shadow variant is promoted, and "
            "only then; a variant that is not named is retained"
        )
        yield sentence(actions, "modelVariantActions", constraint)


def _desired_rules(found: ExperimentRecord, body: Body) -> Iterator[str]:
    actions = body["ModelVariantActions"]
    seen: set[str] = set()
    for i, variant in enumerate(body.get("DesiredModelVariants", ()), start=1):
        name, path = variant["VariantName"], f"desiredModelVariants.{i}.member.variantName"
        if name not in (found.source_name, found.shadow_name) or actions.get(name) == "Remove":
            yield sentence(name, path, "Member must name a variant of the experiment that is not removed")
        if name in seen:
            yield sentence(name, path, "Member must be unique among the variants' names")
        seen.add(name)


def _refuse_models(world: World, body: Body) -> None:
    for variant in body["ModelVariants"]:
        single_model(world, variant["ModelName"])


def _refuse_endpoint(world: World, body: Body) -> None:
    name = body["EndpointName"]
    other = world.live_experiment(name)
    arn = world.arn("endpoint", name)
    if other is not None:
        its = world.arn("inference-experiment", other.name)
        raise ResourceInUseError(f"Endpoint {arn} is in use by inference experiment {its} ({other.stage.status}).")
    found = world.endpoints.get(name)
    if found is None:
        return
    if found.status != "InService" or found.fleet is None:
        raise ResourceInUseError(f"Endpoint {arn} must be InService, and is {found.status}.")
    if len(found.fleet.production) != 1:
        n = len(found.fleet.production)
        raise RefusedError(f"Endpoint {arn} must have exactly one production variant, and has {n}.")
    if any("AcceleratorType" in variant for variant in found.fleet.request["ProductionVariants"]):
        raise RefusedError(f"Endpoint {arn} has Elastic Inference, which shadow tests exclude.")
    _refuse_source(world, body)


def _refuse_source(world: World, body: Body) -> None:
    fleet = world.endpoints[body["EndpointName"]].fleet
    name = body["ShadowModeConfig"]["SourceModelVariantName"]
    if fleet is not None and fleet.production[0].name != name:
        constraint = f"Member must be the endpoint's production variant: [{fleet.production[0].name}]"
        raise ValidationError([sentence(name, "shadowModeConfig.sourceModelVariantName", constraint)])


def _refuse_above_quota(store: Store, world: World, body: Body) -> None:
    store.quotas.check(world, body["EndpointName"], _instances(body["ModelVariants"]))


def _refuse_desired_above_quota(store: Store, world: World, found: ExperimentRecord, body: Body) -> None:
    named = {variant["VariantName"]: variant for variant in found.request["ModelVariants"]}
    named |= {variant["VariantName"]: variant for variant in body["DesiredModelVariants"]}
    kept = [v for name, v in named.items() if body["ModelVariantActions"].get(name) != "Remove"]
    store.quotas.check(world, found.endpoint_name, _instances(kept))


def _instances(variants: list[Body]) -> Counter[str]:
    wanted: Counter[str] = Counter()
    for variant in variants:
        pool = variant["InfrastructureConfig"]["RealTimeInferenceConfig"]
        wanted[pool["InstanceType"]] += pool["InstanceCount"]
    return wanted


_AS_GIVEN = ("Name", "Type", "Description", "RoleArn", "DataStorageConfig", "ShadowModeConfig", "KmsKey")
_BY_STATUS = {"Creating": "Creating", "Created": "Creating", "Updating": "Updating", "Running": "InService"}


def describe(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DescribeInferenceExperiment."""
    found = experiment(world, body["Name"])
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
        for t in world.experiments.values()
        if body.get("Type", t.request["Type"]) == t.request["Type"]
    ]
    answer = page("ListInferenceExperiments", body, rows, store.key)
    return {"InferenceExperiments": answer.pop("Items"), **answer}


def _summary(found: ExperimentRecord) -> dict[str, Any]:
    given = {key: found.request[key] for key in ("Name", "Type", "Description", "RoleArn") if key in found.request}
    return {**given, **_progress(found)}


def _progress(found: ExperimentRecord) -> dict[str, Any]:
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


def _endpoint_metadata(found: ExperimentRecord, endpoint: Endpoint | None) -> dict[str, Any]:
    answer: dict[str, Any] = {"EndpointName": found.endpoint_name}
    if endpoint is not None:
        fleet = endpoint.fleet or (endpoint.deployment.fleet if endpoint.deployment else None)
        if fleet is not None:
            answer["EndpointConfigName"] = fleet.config_name
        answer["EndpointStatus"] = endpoint.status
        if endpoint.failure is not None:
            answer["FailureReason"] = endpoint.failure[:1024]
    return answer


def _variant_status(found: ExperimentRecord, endpoint: Endpoint | None, name: str) -> str:
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
