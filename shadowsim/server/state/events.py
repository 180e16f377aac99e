"""Applies accepted events to the account: an event is an action's request and when it was accepted.

Nothing is refused here: the action was checked before its event was written, against the same world. Besides the
actions there are three events of the server's own: "Configure", the options that the fold depends on; "Ping", the
result of a backend's health check; and "Scale", a scaling activity, with everything that it depends on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any
from uuid import UUID

from shadowsim.aws.experiment import DEFAULT_DURATION
from shadowsim.aws.lifecycle import Stage, after_event
from shadowsim.server.state import transitions
from shadowsim.server.state.account import ExperimentRecord, ResourceRecord, World
from shadowsim.server.state.fleet import Body, Fleet, fleet_of
from shadowsim.server.state.scaling import (
    KEPT_S,
    MOST_KEPT,
    ScalableTarget,
    ScalingActivity,
    TrackingPolicy,
    policy_key,
)
from shadowsim.server.state.undocumented import Undocumented


def apply(world: World, kind: str, body: Body, at_s: float) -> None:
    """Advance the world to a moment and apply an accepted event to it.

    Parameters
    ----------
    world : World
        Modified.
    kind : str
        An action, or an event of the server's own.
    body : mapping
        Its request, as returned by `contract.parsed`.
    at_s : float
        When it was accepted; must not decrease from event to event.
    """
    transitions.advance(world, at_s)
    EFFECTS[kind](world, body)
    transitions.reschedule(world, everything=kind == "Configure")
    transitions.advance(world, at_s)


def merged_request(old: Body, update: Body) -> dict[str, Any]:
    """Return an experiment's request after UpdateInferenceExperiment: the update's members replace the old ones.

    The result holds the variants that its ShadowModeConfig names; one in the update replaces the old one of its name.
    """
    request = {**old, **{key: value for key, value in update.items() if key not in ("Schedule", "ModelVariants")}}
    if "Schedule" in update:
        request["Schedule"] = {**old.get("Schedule", {}), **update["Schedule"]}
    if "ModelVariants" in update:
        config = request["ShadowModeConfig"]
        shadows = [shadow["ShadowModelVariantName"] for shadow in config["ShadowModelVariants"]]
        named = [config["SourceModelVariantName"], *shadows]
        updated = {variant["VariantName"] for variant in update["ModelVariants"]}
        kept = [v for v in old["ModelVariants"] if v["VariantName"] in named and v["VariantName"] not in updated]
        request["ModelVariants"] = [*kept, *(v for v in update["ModelVariants"] if v["VariantName"] in named)]
    return request


def _configure(world: World, body: Body) -> None:
    world.transition_s = body["transition_s"]
    world.probed = frozenset(body["probed"])
    world.choices = Undocumented(**body["choices"])
    for endpoint in list(world.endpoints.values()):  # a model without a real backend any more has nothing to ping
        deployment = endpoint.deployment
        for view in deployment.fleet.variants if deployment else ():
            if deployment and view.name in deployment.pending and world.probed.isdisjoint({view.model_name, "*"}):
                transitions.ping_answered(world, endpoint.name, deployment.number, view.name)


def _ping(world: World, body: Body) -> None:
    if body["failure"] is None:
        transitions.ping_answered(world, body["endpoint"], body["deployment"], body["variant"])
    else:
        transitions.ping_failed(world, body["endpoint"], body["deployment"], body["failure"])


def _create_model(world: World, body: Body) -> None:
    name = body["ModelName"]
    world.models[name] = ResourceRecord(name, body, world.now_s)
    world.add_tags("model", name, body)


def _delete_model(world: World, body: Body) -> None:
    del world.models[body["ModelName"]]
    world.remove_tags("model", body["ModelName"])


def _create_endpoint_config(world: World, body: Body) -> None:
    name = body["EndpointConfigName"]
    world.configs[name] = ResourceRecord(name, body, world.now_s)
    world.add_tags("endpoint-config", name, body)


def _delete_endpoint_config(world: World, body: Body) -> None:
    del world.configs[body["EndpointConfigName"]]
    world.remove_tags("endpoint-config", body["EndpointConfigName"])


def _create_endpoint(world: World, body: Body) -> None:
    transitions.deploy(world, body["EndpointName"], configured_fleet(world, body))
    world.add_tags("endpoint", body["EndpointName"], body)


def _update_endpoint(world: World, body: Body) -> None:
    endpoint = world.endpoints[body["EndpointName"]]
    fleet = configured_fleet(world, body)
    if body.get("RetainAllVariantProperties") and endpoint.fleet:
        excluded = {item["VariantPropertyType"] for item in body.get("ExcludeRetainedVariantProperties", ())}
        kept: dict[str, dict[str, Any]] = {view.name: {} for view in endpoint.fleet.variants}
        for view in endpoint.fleet.variants:
            if "DesiredInstanceCount" not in excluded:
                kept[view.name]["DesiredInstanceCount"] = view.desired_count
            if "DesiredWeight" not in excluded:
                kept[view.name]["DesiredWeight"] = view.weight
        fleet = fleet.scaled(kept, world.choices.shadow_weight)
        if "DataCaptureConfig" not in excluded:
            names = tuple(view.name for view in fleet.variants)
            captures = tuple(replace(view, variants=names) for view in endpoint.fleet.captures)
            fleet = replace(fleet, captures=captures)
    transitions.deploy(world, endpoint.name, fleet)


def _scale_endpoint(world: World, body: Body) -> None:
    endpoint = world.endpoints[body["EndpointName"]]
    if endpoint.fleet is not None:
        changes = {change["VariantName"]: change for change in body["DesiredWeightsAndCapacities"]}
        transitions.deploy(world, endpoint.name, endpoint.fleet.scaled(changes, world.choices.shadow_weight))


def _delete_endpoint(world: World, body: Body) -> None:
    transitions.delete_endpoint(world, world.endpoints[body["EndpointName"]])


def _add_tags(world: World, body: Body) -> None:
    arn = body["ResourceArn"]
    world.put_tags(arn, {**world.tags.get(arn, {}), **{tag["Key"]: tag["Value"] for tag in body["Tags"]}})


def _delete_tags(world: World, body: Body) -> None:
    arn, keys = body["ResourceArn"], set(body["TagKeys"])
    world.put_tags(arn, {key: value for key, value in world.tags.get(arn, {}).items() if key not in keys})


def _create_experiment(world: World, body: Body) -> None:
    name, now = body["Name"], world.now_s
    schedule = body.get("Schedule", {})
    start_s = schedule.get("StartTime", now)
    end_s = schedule.get("EndTime", start_s + DEFAULT_DURATION.total_seconds())
    experiment = ExperimentRecord(name, body, Stage("Creating", now, start_s, end_s), now, now)
    world.put_experiment(experiment)
    world.latest_experiment[experiment.endpoint_name] = name
    world.add_tags("inference-experiment", name, body)
    world.renew_version(experiment.endpoint_name)
    if world.choices.deploy_in == "Creating":
        transitions.begin_experiment(world, experiment, 0)


def _start_experiment(world: World, body: Body) -> None:
    transitions.step_experiment(world, world.experiments[body["Name"]], "Start", world.now_s)


def _stop_experiment(world: World, body: Body) -> None:
    experiment = world.experiments[body["Name"]]
    desired = {variant["VariantName"]: variant for variant in body.get("DesiredModelVariants", ())}
    ends_as = body.get("DesiredState", world.choices.desired_state)
    stage = replace(experiment.stage, ends_as=ends_as)
    experiment = replace(experiment, stage=stage, variant_actions=body["ModelVariantActions"], desired_variants=desired)
    transitions.step_experiment(world, experiment, "Stop", world.now_s, body.get("Reason"))


def _update_experiment(world: World, body: Body) -> None:
    experiment = world.experiments[body["Name"]]
    old = experiment.request
    experiment = replace(experiment, request=merged_request(old, body))
    times = body.get("Schedule", {})
    stage = replace(
        experiment.stage,
        start_s=times.get("StartTime", experiment.stage.start_s),
        end_s=times.get("EndTime", experiment.stage.end_s),
    )
    transitions.step_experiment(world, replace(experiment, stage=stage), "Update", world.now_s)
    served = ("ShadowModeConfig", "DataStorageConfig", "ModelVariants")
    if experiment.deployed and any(experiment.request.get(key) != old.get(key) for key in served):
        transitions.begin_experiment(
            world, world.experiments[experiment.name], experiment.percentage if stage.live else 0
        )


def _delete_experiment(world: World, body: Body) -> None:
    experiment = world.experiments.pop(body["Name"])
    after_event(experiment.stage, "Delete", world.now_s, world.choices.table)
    world.remove_tags("inference-experiment", experiment.name)
    world.renew_version(experiment.endpoint_name)


def _register_target(world: World, body: Body) -> None:
    resource = body["ResourceId"]
    _, endpoint, _, variant = resource.split("/")
    old = world.targets.get(resource)
    if old is None:
        world.n_changes += 1
        identity = _identity(world, f"{resource} {world.n_changes}")
        old = ScalableTarget(resource, endpoint, variant, 1, 1, world.now_s, identity)
    world.targets[resource] = replace(
        old,
        least=body.get("MinCapacity", old.least),
        most=body.get("MaxCapacity", old.most),
        role=body.get("RoleARN", old.role),
        suspended={**old.suspended, **body.get("SuspendedState", {})},
    )


def _deregister_target(world: World, body: Body) -> None:
    world.remove_target(body["ResourceId"])


def _put_policy(world: World, body: Body) -> None:
    resource, name = body["ResourceId"], body["PolicyName"]
    key = policy_key(resource, name)
    old = world.policies.get(key)
    if old is None:
        world.n_changes += 1
        old = TrackingPolicy(name, resource, body, world.now_s, _identity(world, f"{key} {world.n_changes}"))
    world.policies[key] = replace(old, request={**old.request, **body})


def _delete_policy(world: World, body: Body) -> None:
    del world.policies[policy_key(body["ResourceId"], body["PolicyName"])]


def _scale(world: World, body: Body) -> None:
    given = {name: value for name, value in body.items() if name != "delay_s"}
    activity = ScalingActivity(**given, created_s=world.now_s, effect_s=world.now_s + body["delay_s"])
    if activity.ended_s is not None:
        activity = replace(activity, ended_s=world.now_s)
    old = world.activities_of(activity.resource)
    n_surplus = len(old) + 1 - MOST_KEPT
    for i, past in enumerate(old):
        if past.ended_s is not None and (i < n_surplus or past.ended_s < world.now_s - KEPT_S):
            del world.activities[past.name]
    world.put_activity(activity)


def _identity(world: World, text: str) -> str:
    """Return an id in the form of AWS's, the same one after every restart."""
    return str(UUID(sha256(f"{world.account} {text}".encode()).hexdigest()[:32]))


def configured_fleet(world: World, body: Body) -> Fleet:
    """Return the fleet of the endpoint configuration that a request names."""
    config = world.configs[body["EndpointConfigName"]]
    return fleet_of(config.name, config.request, world.first_containers(config.request), world.choices.shadow_weight)


EFFECTS: dict[str, Callable[[World, Body], None]] = {
    "Configure": _configure,
    "Ping": _ping,
    "CreateModel": _create_model,
    "DeleteModel": _delete_model,
    "CreateEndpointConfig": _create_endpoint_config,
    "DeleteEndpointConfig": _delete_endpoint_config,
    "CreateEndpoint": _create_endpoint,
    "UpdateEndpoint": _update_endpoint,
    "UpdateEndpointWeightsAndCapacities": _scale_endpoint,
    "DeleteEndpoint": _delete_endpoint,
    "AddTags": _add_tags,
    "DeleteTags": _delete_tags,
    "CreateInferenceExperiment": _create_experiment,
    "StartInferenceExperiment": _start_experiment,
    "StopInferenceExperiment": _stop_experiment,
    "UpdateInferenceExperiment": _update_experiment,
    "DeleteInferenceExperiment": _delete_experiment,
    "RegisterScalableTarget": _register_target,
    "DeregisterScalableTarget": _deregister_target,
    "PutScalingPolicy": _put_policy,
    "DeleteScalingPolicy": _delete_policy,
    "Scale": _scale,
}
