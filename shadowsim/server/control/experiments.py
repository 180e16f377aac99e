"""Checks and answers the seven actions on inference experiments.

An action that changes an experiment is checked in this order: the rules across the fields of the request, all
violations in one error; whether what it names exists; whether the experiment's status allows it (the table in
aws/lifecycle.py); the quotas. state/events.py applies the action once it is accepted. Describe and List read the
records that result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from shadowsim.aws.contract import sentence
from shadowsim.aws.experiment import Experiment, pool_rules
from shadowsim.aws.lifecycle import next_status
from shadowsim.errors import (
    ConflictError,
    RefusedError,
    ResourceInUseError,
    ResourceNotFoundError,
    ValidationError,
)
from shadowsim.server.control.models import find_model, find_single_model
from shadowsim.server.control.pagination import page
from shadowsim.server.state.account import Endpoint, ExperimentRecord, World
from shadowsim.server.state.events import merged_request
from shadowsim.server.state.fleet import Body
from shadowsim.server.state.store import Store

_POOL = "infrastructureConfig.realTimeInferenceConfig"
_SUMMARY_MEMBERS = ("Name", "Type", "Description", "RoleArn")
_DESCRIBED_MEMBERS = (*_SUMMARY_MEMBERS, "DataStorageConfig", "ShadowModeConfig", "KmsKey")
_VARIANT_STATUS = {"Creating": "Creating", "Created": "Creating", "Updating": "Updating", "Running": "InService"}


def create_experiment(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer CreateInferenceExperiment."""
    name = body["Name"]
    _refuse_violations(world, body)
    if name in world.experiments:
        text = f"Inference experiment {world.arn('inference-experiment', name)} already exists."
        errors = {"ResourceInUse": ResourceInUseError, "ConflictException": ConflictError}
        raise errors[world.choices.duplicate_name](text)
    _refuse_models(world, body)
    _refuse_endpoint(world, body)
    _refuse_variants_above_quota(store, world, body)
    return _arn_answer(world, name)


def start_experiment(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer StartInferenceExperiment."""
    experiment = find_experiment(world, body["Name"])
    refuse_status(world, experiment, "Start")
    return _arn_answer(world, experiment.name)


def stop_experiment(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer StopInferenceExperiment."""
    experiment = find_experiment(world, body["Name"])
    broken = [
        *_action_rules(experiment, body),
        *_desired_rules(experiment, body),
        *pool_rules(body.get("DesiredModelVariants", ()), "desiredModelVariants"),
    ]
    if broken:
        raise ValidationError(broken)
    refuse_status(world, experiment, "Stop")
    if not experiment.deployed and "Promote" in body["ModelVariantActions"].values():
        constraint = "Member must not be Promote before the experiment has started"
        raise ValidationError([sentence(body["ModelVariantActions"], "modelVariantActions", constraint)])
    desired = body.get("DesiredModelVariants", ())
    for variant in desired:
        find_model(world, variant["ModelName"])
    if experiment.deployed and desired:
        _refuse_desired_above_quota(store, world, experiment, body)
    return _arn_answer(world, experiment.name)


def update_experiment(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer UpdateInferenceExperiment."""
    experiment = find_experiment(world, body["Name"])
    updated = merged_request(experiment.request, body)
    updated.pop("Schedule", None)
    broken = list(_updated_variant_rules(experiment, updated, body))
    if "Schedule" in body:
        times = {"StartTime": experiment.stage.start_s, "EndTime": experiment.stage.end_s}
        updated["Schedule"] = {**times, **body["Schedule"]}
    fixed = list(_fixed_once_live_rules(experiment, body)) if experiment.stage.live else []
    conflict = bool(fixed) and world.choices.running_update == "ConflictException"
    _refuse_violations(world, updated, broken if conflict else broken + fixed)
    if conflict:
        raise ConflictError(str(ValidationError(fixed)))
    refuse_status(world, experiment, "Update")
    _refuse_models(world, updated)
    if world.endpoints.get(experiment.endpoint_name) and not experiment.deployed:
        _refuse_source(world, updated)
    if "ModelVariants" in body:
        _refuse_variants_above_quota(store, world, updated)
    return _arn_answer(world, experiment.name)


def delete_experiment(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DeleteInferenceExperiment."""
    experiment = find_experiment(world, body["Name"])
    refuse_status(world, experiment, "Delete")
    return _arn_answer(world, experiment.name)


def find_experiment(world: World, name: str) -> ExperimentRecord:
    """Return the experiment of a name; raise ResourceNotFoundError if there is none."""
    if name not in world.experiments:
        arn = world.arn("inference-experiment", name)
        raise ResourceNotFoundError(f"Could not find inference experiment {arn}.")
    return world.experiments[name]


def refuse_status(world: World, experiment: ExperimentRecord, action: str) -> None:
    """Raise ConflictError if the experiment's status does not allow an action."""
    try:
        next_status(world.choices.table, experiment.stage.status, action)
    except ConflictError as error:
        arn = world.arn("inference-experiment", experiment.name)
        raise ConflictError(f"Inference experiment {arn}: {error}.") from None


def _arn_answer(world: World, name: str) -> dict[str, Any]:
    return {"InferenceExperimentArn": world.arn("inference-experiment", name)}


def _refuse_violations(world: World, body: Body, broken: Sequence[str] = ()) -> None:
    """Raise ValidationError with the violations of a whole CreateInferenceExperiment request and those in `broken`."""
    # from_request checks the shape again after actions.handle. An update needs this: its own shape was checked, that of
    # the merged request was not. A new request pays some 0.1 ms for it.
    violations: list[str] = []
    try:
        Experiment.from_request(body, datetime.fromtimestamp(world.now_s, UTC), refuse_past=True)
    except ValidationError as error:
        violations += error.violations
    violations += [text for text in broken if text not in violations]
    if violations:
        raise ValidationError(violations)


def _fixed_once_live_rules(experiment: ExperimentRecord, body: Body) -> Iterator[str]:
    """Yield a violation for each change that is not allowed once copies are being made."""
    constraint = "Member must not change once the experiment has started"
    start_s = body.get("Schedule", {}).get("StartTime")
    if start_s is not None and start_s != experiment.stage.start_s:
        yield sentence(start_s, "schedule.startTime", constraint)
    old = {variant["VariantName"]: variant for variant in experiment.request["ModelVariants"]}
    if any(old.get(variant["VariantName"]) != variant for variant in body.get("ModelVariants", ())):
        yield sentence(body["ModelVariants"], "modelVariants", constraint)
    config = body.get("ShadowModeConfig")
    if config is not None:
        if config["SourceModelVariantName"] != experiment.source_name:
            yield sentence(config["SourceModelVariantName"], "shadowModeConfig.sourceModelVariantName", constraint)
        name = config["ShadowModelVariants"][0]["ShadowModelVariantName"]
        if name != experiment.shadow_name:
            path = "shadowModeConfig.shadowModelVariants.1.member.shadowModelVariantName"
            yield sentence(name, path, constraint)


def _updated_variant_rules(experiment: ExperimentRecord, updated: Body, body: Body) -> Iterator[str]:
    models = {variant["VariantName"]: variant["ModelName"] for variant in experiment.request["ModelVariants"]}
    config = updated["ShadowModeConfig"]
    named = [config["SourceModelVariantName"], config["ShadowModelVariants"][0]["ShadowModelVariantName"]]
    for i, variant in enumerate(body.get("ModelVariants", ()), start=1):
        if variant["VariantName"] not in named:
            constraint = f"Member must be a variant that shadowModeConfig names: [{', '.join(named)}]"
            yield sentence(variant["VariantName"], f"modelVariants.{i}.member.variantName", constraint)
        if models.get(variant["VariantName"], variant["ModelName"]) != variant["ModelName"]:
            constraint = "Member must not change: a variant with a different model needs a different name"
            yield sentence(variant["ModelName"], f"modelVariants.{i}.member.modelName", constraint)


def _action_rules(experiment: ExperimentRecord, body: Body) -> Iterator[str]:
    actions = body["ModelVariantActions"]
    names = (experiment.source_name, experiment.shadow_name)
    for name in actions:
        if name not in names:
            constraint = f"Map keys must name the experiment's variants: [{', '.join(names)}]"
            yield sentence(name, "modelVariantActions", constraint)
    source, shadow = (actions.get(name, "Retain") for name in names)
    if source == "Promote":
        constraint = "Member must not be Promote: this is the production variant"
        yield sentence(source, f"modelVariantActions.{experiment.source_name}.member", constraint)
    elif (source == "Remove") != (shadow == "Promote"):
        constraint = (
            "Member must leave exactly one production variant: Remove it if and only if the shadow variant is "
            "promoted; a variant that is not named is retained"
        )
        yield sentence(actions, "modelVariantActions", constraint)


def _desired_rules(experiment: ExperimentRecord, body: Body) -> Iterator[str]:
    actions = body["ModelVariantActions"]
    seen: set[str] = set()
    for i, variant in enumerate(body.get("DesiredModelVariants", ()), start=1):
        name, path = variant["VariantName"], f"desiredModelVariants.{i}.member.variantName"
        if name not in (experiment.source_name, experiment.shadow_name) or actions.get(name) == "Remove":
            yield sentence(name, path, "Member must name a variant of the experiment that is not removed")
        if name in seen:
            yield sentence(name, path, "Member must be unique among the variants' names")
        seen.add(name)


def _refuse_models(world: World, body: Body) -> None:
    for variant in body["ModelVariants"]:
        find_single_model(world, variant["ModelName"])


def _refuse_endpoint(world: World, body: Body) -> None:
    name = body["EndpointName"]
    other = world.live_experiment(name)
    arn = world.arn("endpoint", name)
    if other is not None:
        other_arn = world.arn("inference-experiment", other.name)
        raise ResourceInUseError(
            f"Endpoint {arn} is in use by inference experiment {other_arn} ({other.stage.status})."
        )
    endpoint = world.endpoints.get(name)
    if endpoint is None:
        return
    if endpoint.status != "InService" or endpoint.fleet is None:
        raise ResourceInUseError(f"Endpoint {arn} must be InService, but is {endpoint.status}.")
    if len(endpoint.fleet.production) != 1:
        n = len(endpoint.fleet.production)
        raise RefusedError(f"Endpoint {arn} must have exactly one production variant, but has {n}.")
    if any("AcceleratorType" in variant for variant in endpoint.fleet.request["ProductionVariants"]):
        raise RefusedError(f"Endpoint {arn} uses Elastic Inference, which shadow tests exclude.")
    _refuse_source(world, body)


def _refuse_source(world: World, body: Body) -> None:
    fleet = world.endpoints[body["EndpointName"]].fleet
    name = body["ShadowModeConfig"]["SourceModelVariantName"]
    if fleet is not None and fleet.production[0].name != name:
        constraint = f"Member must be the endpoint's production variant: [{fleet.production[0].name}]"
        raise ValidationError([sentence(name, "shadowModeConfig.sourceModelVariantName", constraint)])


def _refuse_variants_above_quota(store: Store, world: World, body: Body) -> None:
    store.quotas.check(world, body["EndpointName"], _instances(body["ModelVariants"]))


def _refuse_desired_above_quota(store: Store, world: World, experiment: ExperimentRecord, body: Body) -> None:
    variants = {variant["VariantName"]: variant for variant in experiment.request["ModelVariants"]}
    variants |= {variant["VariantName"]: variant for variant in body["DesiredModelVariants"]}
    kept = [v for name, v in variants.items() if body["ModelVariantActions"].get(name) != "Remove"]
    store.quotas.check(world, experiment.endpoint_name, _instances(kept))


def _instances(variants: list[Body]) -> Counter[str]:
    wanted: Counter[str] = Counter()
    for variant in variants:
        pool = variant["InfrastructureConfig"]["RealTimeInferenceConfig"]
        wanted[pool["InstanceType"]] += pool["InstanceCount"]
    return wanted


def describe_experiment(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DescribeInferenceExperiment."""
    experiment = find_experiment(world, body["Name"])
    endpoint = world.endpoints.get(experiment.endpoint_name)
    return {
        "Arn": world.arn("inference-experiment", experiment.name),
        **{key: experiment.request[key] for key in _DESCRIBED_MEMBERS if key in experiment.request},
        **_status_members(experiment),
        "EndpointMetadata": _endpoint_metadata(experiment, endpoint),
        "ModelVariants": [
            {**variant, "Status": _variant_status(experiment, endpoint, variant["VariantName"])}
            for variant in experiment.request["ModelVariants"]
        ],
    }


def list_experiments(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer ListInferenceExperiments."""
    experiments: Iterable[ExperimentRecord] = world.experiments.values()
    if "Type" in body:
        experiments = [record for record in experiments if record.request["Type"] == body["Type"]]
    answer = page(
        *("ListInferenceExperiments", body, experiments, store.key, _summary),
        modified="modified_s",
        status="stage.status",
    )
    return {"InferenceExperiments": answer.pop("Items"), **answer}


def _summary(experiment: ExperimentRecord) -> dict[str, Any]:
    request_members = {key: experiment.request[key] for key in _SUMMARY_MEMBERS if key in experiment.request}
    return {**request_members, **_status_members(experiment)}


def _status_members(experiment: ExperimentRecord) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "Status": experiment.stage.status,
        "Schedule": {"StartTime": experiment.stage.start_s, "EndTime": experiment.stage.end_s},
        "CreationTime": experiment.created_s,
        "LastModifiedTime": experiment.modified_s,
    }
    if experiment.reason is not None:
        answer["StatusReason"] = experiment.reason[:1024]
    if experiment.completed_s is not None:
        answer["CompletionTime"] = experiment.completed_s
    return answer


def _endpoint_metadata(experiment: ExperimentRecord, endpoint: Endpoint | None) -> dict[str, Any]:
    answer: dict[str, Any] = {"EndpointName": experiment.endpoint_name}
    if endpoint is not None:
        fleet = endpoint.fleet or (endpoint.deployment.fleet if endpoint.deployment else None)
        if fleet is not None:
            answer["EndpointConfigName"] = fleet.config_name
        answer["EndpointStatus"] = endpoint.status
        if endpoint.failure is not None:
            answer["FailureReason"] = endpoint.failure[:1024]
    return answer


def _variant_status(experiment: ExperimentRecord, endpoint: Endpoint | None, name: str) -> str:
    """Return a variant's status: that of its deployment behind the endpoint, or of its removal."""
    status = experiment.stage.status
    intended = endpoint.intended if endpoint else None
    stays = intended is not None and name in {view.name for view in intended.variants}
    match status:
        case "Starting":
            serving = endpoint.fleet.variants if endpoint and endpoint.fleet else ()
            return "Updating" if name in {view.name for view in serving} else "Creating"
        case "Stopping":
            return "Updating" if stays else "Deleting"
        case "Completed" | "Cancelled":
            # Without the second condition a later experiment's variant of the same name would count.
            return "InService" if stays and name in experiment.variants_left else "Deleted"
    return _VARIANT_STATUS[status]
