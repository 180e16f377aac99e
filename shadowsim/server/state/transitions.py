"""Advances the account to a moment: makes the transitions of endpoints and experiments that are due.

Of transitions due at the same moment those of endpoints come first, then those of experiments, each in order of their
names: so an experiment is Running only once its fleet serves.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from heapq import heappop, heappush

from shadowsim.aws.lifecycle import ENDPOINT, after_event, next_clock_event, next_status
from shadowsim.errors import RefusedError, SimulationError
from shadowsim.server.state.account import (
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

# An experiment makes at most five transitions by itself; each takes its endpoint through at most three.
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
        for _ in range(_MAX_EVENTS_EACH * (len(world.endpoints) + 2 * len(world.experiments) + 1)):
            at_s, rank, name = _next_due(world)
            world.due_s = at_s
            if at_s > now:
                break
            world.now_s = max(world.now_s, at_s)  # after transitions were made shorter: due now, not in the past
            if rank == ENDPOINT_RANK:
                _step_endpoint(world, world.endpoints[name])
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
    if name not in world.endpoints:
        world.add_tags("endpoint", name, {})
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
    except RefusedError as error:
        step_experiment(world, experiment, "failure", world.now_s, str(error))
        return
    _add_config(world, fleet)
    if experiment.deployed and old is not None:  # keep instance counts that were scaled during the experiment
        counts = {view.name: {"DesiredInstanceCount": view.instance_count} for view in old.variants}
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
            return
        case "RollingBack":
            status = next_status(ENDPOINT, endpoint.status, "rolled back")
            fleet = deployment.fallback if deployment else endpoint.fleet
        case _:
            status = next_status(ENDPOINT, endpoint.status, "deployed")
            fleet = deployment.fleet if deployment else endpoint.fleet
    world.put_new_version(replace(endpoint, status=status, since_s=now, modified_s=now, fleet=fleet, deployment=None))


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
    world.add_tags("endpoint-config", fleet.config_name, {})
