"""Advances the account to a moment: makes the transitions of endpoints and experiments that are due.

Of transitions due at the same moment those of endpoints come first, then those of experiments, then those of scaling
activities, each in order of their names: so an experiment is Running only once its fleet serves.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from heapq import heappop, heappush

from shadowsim.aws.lifecycle import ENDPOINT, after_event, next_clock_event, next_status
from shadowsim.errors import RefusedError, SimulationError
from shadowsim.server.state.account import (
    ACTIVITY_RANK,
    ENDPOINT_RANK,
    EXPERIMENT_RANK,
    NEVER,
    Deployment,
    Endpoint,
    ExperimentRecord,
    ResourceRecord,
    World,
)
from shadowsim.server.state.fleet import (
    Body,
    Fleet,
    config_after_experiment,
    config_with_experiment,
    fleet_of,
    scheduled_end_actions,
)
from shadowsim.server.state.scaling import FAILED, IN_PROGRESS, OVERRIDDEN, ScalableTarget, ScalingActivity
from shadowsim.server.state.target_tracking import OUT, Capacity

# An experiment or activity makes at most five transitions by itself; each takes its endpoint through at most three.
_MAX_EVENTS_EACH = 20


def advance(world: World, now: float) -> None:
    """Make all transitions due until `now`; an earlier `now` than before changes nothing.

    Parameters
    ----------
    world : World
        Written.
    now : float
        Scaled seconds since 1970.
    """
    if now >= world.due_s:
        for _ in range(
            _MAX_EVENTS_EACH * (len(world.endpoints) + 2 * len(world.experiments) + len(world.activities) + 1)
        ):
            at_s, rank, name = _next_due(world)
            world.due_s = at_s
            if at_s > now:
                break
            world.now_s = max(world.now_s, at_s)  # after transitions were made shorter: due now, not in the past
            if rank == ENDPOINT_RANK:
                _step_endpoint(world, world.endpoints[name])
            elif rank == ACTIVITY_RANK:
                _step_activity(world, world.activities[name])
            else:
                experiment = world.experiments[name]
                due = next_clock_event(experiment.stage, world.transition_s)
                assert due is not None
                step_experiment(world, experiment, due[1], world.now_s)
        else:
            raise SimulationError(f"the transitions of the account do not come to an end at {now}")
    world.now_s = max(world.now_s, now)


def reschedule(world: World, *, everything: bool = False) -> None:
    """Compute again when the next transition is due, for what has changed or for all (`everything`)."""
    if everything:
        world.changed |= {(ENDPOINT_RANK, name) for name in world.endpoints}
        world.changed |= {(EXPERIMENT_RANK, name) for name in world.experiments}
        world.changed |= {(ACTIVITY_RANK, name) for name in world.activities}
    world.due_s = _next_due(world)[0]


def deploy(world: World, name: str, fleet: Fleet, fallback: Fleet | None = None) -> Endpoint:
    """Begin to put a fleet behind an endpoint, created if there is none; replaces a deployment in progress.

    Parameters
    ----------
    world : World
        Modified.
    name : str
        The endpoint's name.
    fleet : Fleet
    fallback : Fleet, optional
        The fleet that serves if the deployment fails; by default the one that serves now.
    """
    now = world.now_s
    old = world.endpoints.get(name) or Endpoint(name, "Creating", now, now, now, 0)
    serving = {(v.name, v.model_name, v.instance_type) for v in old.fleet.variants} if old.fleet else set()
    pending = frozenset(
        v.name
        for v in fleet.variants
        if not world.probed.isdisjoint({v.model_name, "*"}) and (v.name, v.model_name, v.instance_type) not in serving
    )
    held = NEVER if pending else now
    deployment = Deployment(world.n_changes + 1, fleet, pending, held, fallback or old.fleet)
    status = "Updating" if old.fleet else "Creating"
    return world.put_new_version(
        replace(old, status=status, since_s=now, modified_s=now, deployment=deployment, failure=None)
    )


def ping_answered(world: World, name: str, deployment: int, variant: str) -> None:
    """Record that a variant's backend answered: its deployment no longer waits for it."""
    endpoint = world.endpoints.get(name)
    if endpoint is None or endpoint.deployment is None or endpoint.deployment.number != deployment:
        return
    pending = endpoint.deployment.pending - {variant}
    held = NEVER if pending else world.now_s
    world.put_endpoint(replace(endpoint, deployment=replace(endpoint.deployment, pending=pending, held_until_s=held)))
    _hold_experiment(world, name, held)


def ping_failed(world: World, name: str, deployment: int, reason: str) -> None:
    """Fail a deployment because a backend did not answer, and cancel the experiment that it was for."""
    endpoint = world.endpoints.get(name)
    if endpoint is None or endpoint.deployment is None or endpoint.deployment.number != deployment:
        return
    now = world.now_s
    status = next_status(ENDPOINT, endpoint.status, "failure")
    world.put_new_version(replace(endpoint, status=status, since_s=now, modified_s=now, failure=reason))
    experiment = world.live_experiment(name)
    if experiment is not None and experiment.stage.status not in ("Created", "Running"):
        step_experiment(world, experiment, "failure", now, reason)


def step_experiment(
    world: World, experiment: ExperimentRecord, event: str, at_s: float, reason: str | None = None
) -> None:
    """Take an experiment to its next status, and change its endpoint accordingly.

    Parameters
    ----------
    world : World
        Modified.
    experiment : ExperimentRecord
        The record, with the changes of the action already made.
    event : str
        An event of the table in aws/lifecycle.py.
    at_s : float
    reason : str, optional
        A new StatusReason.
    """
    stage = after_event(experiment.stage, event, at_s, world.choices.table)
    completed_s = None if stage.status not in ("Completed", "Cancelled") else at_s
    experiment = replace(
        experiment, stage=stage, modified_s=at_s, completed_s=completed_s, reason=reason or experiment.reason
    )
    if completed_s is not None:
        intended = _intended_fleet(world, experiment.endpoint_name)
        left = frozenset(view.name for view in intended.variants) if intended else frozenset()
        experiment = replace(experiment, variants_left=left)
        world.renew_version(experiment.endpoint_name)
    world.put_experiment(experiment)
    if stage.status == "Starting":
        begin_experiment(world, experiment, experiment.percentage)
    elif stage.status == "Stopping":
        _end_experiment(world, experiment)


def begin_experiment(world: World, experiment: ExperimentRecord, percentage: int) -> None:
    """Put an experiment's variants behind its endpoint, `percentage` % mirrored; cancel it if that is impossible."""
    name = experiment.endpoint_name
    created = experiment.created_endpoint or (not experiment.deployed and name not in world.endpoints)
    old = _intended_fleet(world, name)
    before = experiment.fleet_before if experiment.deployed else old
    captured = world.choices.captured_percentage
    request = config_with_experiment(experiment.request, before.request if before else None, percentage, captured)
    containers = world.first_containers(request)
    if experiment.deployed:  # its models may have been deleted since; they go on serving
        containers = {**_containers_of(old), **containers}
    try:
        fleet = fleet_of(_unused_config_name(world, experiment), request, containers, world.choices.shadow_weight)
        refuse_scaled_variants(world, name, fleet)
    except RefusedError as error:
        step_experiment(world, experiment, "failure", world.now_s, str(error))
        return
    _add_config(world, fleet)
    if experiment.deployed and old is not None:  # keep instance counts that were scaled during the experiment
        counts = {view.name: {"DesiredInstanceCount": view.desired_count} for view in old.variants}
        fleet = fleet.scaled(counts, world.choices.shadow_weight)
    deployed = deploy(world, name, fleet, before)
    world.put_experiment(replace(experiment, fleet_before=before, deployed=True, created_endpoint=created))
    _hold_experiment(world, name, deployed.deployment.held_until_s if deployed.deployment else world.now_s)


def _end_experiment(world: World, experiment: ExperimentRecord) -> None:
    name, choices = experiment.endpoint_name, world.choices
    endpoint, current = world.endpoints.get(name), _intended_fleet(world, name)
    if not experiment.deployed or endpoint is None or current is None:
        return
    scheduled = not experiment.variant_actions
    if scheduled and experiment.created_endpoint and choices.made_endpoint == "delete":
        delete_endpoint(world, endpoint)
        return
    if scheduled and experiment.fleet_before is not None:
        fleet = experiment.fleet_before
    else:
        before = experiment.fleet_before.request if experiment.fleet_before else None
        actions = experiment.variant_actions or scheduled_end_actions(current)
        request = config_after_experiment(current, before, actions, experiment.desired_variants)
        containers = {**_containers_of(current), **world.first_containers(request)}
        fleet = fleet_of(_unused_config_name(world, experiment), request, containers, choices.shadow_weight)
        if experiment.fleet_before is not None and fleet.serves_as(experiment.fleet_before):
            fleet = experiment.fleet_before
        else:
            _add_config(world, fleet)
    # If a backend fails now, the endpoint must not keep a shadow that no experiment controls.
    fallback = experiment.fleet_before or replace(current, shadow=None)
    deployed = deploy(world, name, fleet, fallback)
    _hold_experiment(world, name, deployed.deployment.held_until_s if deployed.deployment else world.now_s)


def delete_endpoint(world: World, endpoint: Endpoint) -> None:
    """Begin to delete an endpoint."""
    now = world.now_s
    status = next_status(ENDPOINT, endpoint.status, "Delete")
    world.put_new_version(replace(endpoint, status=status, since_s=now, modified_s=now, deployment=None))


def _next_due(world: World) -> tuple[float, int, str]:
    """Return the moment, rank and name of the next transition; looks up only resources that have changed."""
    for rank, name in world.changed:
        at_s = _due_s(world, rank, name)
        if at_s < NEVER:
            heappush(world.agenda, (at_s, rank, name))
    world.changed.clear()
    while world.agenda:
        at_s, rank, name = world.agenda[0]
        if _due_s(world, rank, name) == at_s:
            return world.agenda[0]
        heappop(world.agenda)  # stale: the resource has changed, and has a newer entry
    return NEVER, 0, ""


def _due_s(world: World, rank: int, name: str) -> float:
    if rank == ENDPOINT_RANK:
        endpoint = world.endpoints.get(name)
        return _endpoint_due_s(endpoint, world.transition_s) if endpoint else NEVER
    if rank == ACTIVITY_RANK:
        activity = world.activities.get(name)
        due_s = activity.due_s if activity else None
        return NEVER if due_s is None else due_s
    experiment = world.experiments.get(name)
    due = next_clock_event(experiment.stage, world.transition_s) if experiment else None
    return due[0] if due else NEVER


def _endpoint_due_s(endpoint: Endpoint, transition_s: float) -> float:
    done_s = endpoint.since_s + transition_s
    match endpoint.status:
        case "Creating" | "Updating":
            return max(done_s, endpoint.deployment.held_until_s) if endpoint.deployment else done_s
        case "RollingBack" | "Deleting":
            return done_s
    return NEVER


def _step_endpoint(world: World, endpoint: Endpoint) -> None:
    now, deployment = world.now_s, endpoint.deployment
    match endpoint.status:
        case "Deleting":
            del world.endpoints[endpoint.name]
            world.remove_tags("endpoint", endpoint.name)
            _remove_targets(world, endpoint.name, set())
            return
        case "RollingBack":
            status = next_status(ENDPOINT, endpoint.status, "rolled back")
            fleet = deployment.fallback if deployment else endpoint.fleet
        case _:
            status = next_status(ENDPOINT, endpoint.status, "deployed")
            fleet = deployment.fleet if deployment else endpoint.fleet
    fleet = fleet.settled(now) if fleet else None
    left = {view.name for view in fleet.variants} if fleet else set()
    _remove_targets(world, endpoint.name, left)
    world.put_new_version(replace(endpoint, status=status, since_s=now, modified_s=now, fleet=fleet, deployment=None))


def _remove_targets(world: World, endpoint: str, left: set[str]) -> None:
    """Remove the scalable targets of an endpoint's variants but those that are left."""
    for target in [target for target in world.targets.values() if target.endpoint == endpoint]:
        if target.variant not in left:
            world.remove_target(target.name)


def refuse_scaled_variants(world: World, endpoint: str, fleet: Fleet) -> None:
    """Raise RefusedError if a fleet lacks a variant that is a scalable target, or has it on another instance type."""
    before = _intended_fleet(world, endpoint)
    types = {view.name: view.instance_type for view in before.variants} if before else {}
    after = {view.name: view.instance_type for view in fleet.variants}
    scaled = [target.variant for target in world.targets.values() if target.endpoint == endpoint]
    changed = [name for name in scaled if after.get(name) != types.get(name)]
    if changed:
        raise RefusedError(
            f'The variant(s) "[{", ".join(changed)}]" must be deregistered as scalable targets with AWS Auto Scaling '
            "before they can be removed or have their instance type updated."
        )


def capacity_of(world: World, resource: str) -> Capacity | None:
    """Return the instances of a scalable target; None while its endpoint is not InService, or lacks the variant."""
    target = world.targets.get(resource)
    endpoint = world.endpoints.get(target.endpoint) if target else None
    if target is None or endpoint is None or endpoint.status != "InService" or endpoint.fleet is None:
        return None
    for view in endpoint.fleet.variants:
        if view.name == target.variant:
            return Capacity(view.instance_count, view.starting_s, target.out_until_s, target.in_until_s)
    return None


def _step_activity(world: World, activity: ScalingActivity) -> None:
    now = world.now_s
    target, capacity = world.targets.get(activity.resource), capacity_of(world, activity.resource)
    if activity.status == IN_PROGRESS:
        if target is not None and capacity is not None:
            _put_capacity(world, target, capacity.served(now))
        fleet = _intended_fleet(world, target.endpoint) if target else None
        counts = {view.name: view.desired_count for view in fleet.variants} if fleet else {}
        is_left = target is not None and counts.get(target.variant, 0) >= activity.wanted
        text = "The number of instances was changed again before these served."
        world.put_activity(activity.succeeded(now) if is_left else activity.ended(OVERRIDDEN, now, text))
        return
    if target is None or capacity is None:
        text = "The scalable target is gone, or its endpoint was being updated when the change was to take effect."
        world.put_activity(activity.ended(FAILED, now, text))
        return
    changed = activity.applied(capacity)
    if changed is None:
        text = "The number of instances was changed already when the change was to take effect."
        world.put_activity(activity.ended(OVERRIDDEN, now, text))
        return
    changed = changed.served(now)
    _put_capacity(world, target, changed)
    ready_s = activity.effect_s + activity.cold_start_s
    if activity.direction == OUT and ready_s > now:
        world.put_activity(replace(activity, status=IN_PROGRESS, ready_s=ready_s))
    else:
        world.put_activity(activity.succeeded(now))


def _put_capacity(world: World, target: ScalableTarget, capacity: Capacity) -> None:
    endpoint = world.endpoints[target.endpoint]
    assert endpoint.fleet is not None
    (view,) = (view for view in endpoint.fleet.variants if view.name == target.variant)
    changed = replace(view, instance_count=capacity.n_serving, starting_s=capacity.starting_s)
    if changed != view:
        world.put_new_version(replace(endpoint, fleet=endpoint.fleet.with_view(changed), modified_s=world.now_s))
    world.targets[target.name] = replace(target, out_until_s=capacity.out_until_s, in_until_s=capacity.in_until_s)


def _hold_experiment(world: World, endpoint: str, until_s: float) -> None:
    """Make an experiment's transition last as long as its endpoint's."""
    experiment = world.live_experiment(endpoint)
    if experiment is not None and experiment.stage.status not in ("Created", "Running"):
        world.put_experiment(replace(experiment, stage=replace(experiment.stage, held_until_s=until_s)))


def _intended_fleet(world: World, endpoint: str) -> Fleet | None:
    """Return the fleet that an endpoint will serve once nothing is in progress."""
    record = world.endpoints.get(endpoint)
    return record.intended if record else None


def _containers_of(fleet: Fleet | None) -> dict[str, Body]:
    return {view.model_name: view.container for view in fleet.variants} if fleet else {}


def _unused_config_name(world: World, experiment: ExperimentRecord) -> str:
    """Return an unused valid name of at most 63 characters, the same one after every restart."""
    digest = sha256(f"{experiment.name} {experiment.created_s!r} {world.n_changes}".encode()).hexdigest()[:12]
    return f"{experiment.name[:50].rstrip('-')}-{digest}"


def _add_config(world: World, fleet: Fleet) -> None:
    world.configs[fleet.config_name] = ResourceRecord(fleet.config_name, fleet.request, world.now_s)
