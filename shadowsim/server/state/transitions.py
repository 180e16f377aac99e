"""What time brings, and what begins or fails with it: the world moved on to a moment, one due event after the other.

At equal moments endpoints come before experiments, each in order of their names: a fleet is there when the experiment
that stands on it is called Running.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from heapq import heappop, heappush

from shadowsim.aws.lifecycle import ENDPOINT, after, allowed, following
from shadowsim.errors import RefusedError, SimulationError
from shadowsim.server.state.account import (
    ENDPOINT_RANK,
    NEVER,
    EXPERIMENT_RANK,
    Deployment,
    Endpoint,
    ExperimentRecord,
    Record,
    World,
)
from shadowsim.server.state.fleet import Body, Fleet, fleet_of, reverting, with_experiment, without_experiment

# An experiment's clock brings at most five events, and each makes its endpoint go through three.
_MAX_EVENTS_EACH = 20


def advance(world: World, now: float) -> None:
    """Let the clock bring all that is due until `now`; time never goes back.

    Parameters
    ----------
    world : World
        Written.
    now : float
        Scaled seconds since 1970.
    """
    if now >= world.due_s:
        for _ in range(_MAX_EVENTS_EACH * (len(world.endpoints) + 2 * len(world.experiments) + 1)):
            at_s, rank, name = _next(world)
            world.due_s = at_s
            if at_s > now:
                break
            world.now_s = max(world.now_s, at_s)  # transitions that have become shorter are due now, not before
            if rank == ENDPOINT_RANK:
                _endpoint_due(world, world.endpoints[name])
            else:
                experiment = world.experiments[name]
                due = following(experiment.stage, world.transition_s)
                assert due is not None
                step_experiment(world, experiment, due[1], world.now_s)
        else:
            raise SimulationError(f"the clock of the rehearsed account does not come to rest at {now}")
    world.now_s = max(world.now_s, now)


def rescheduled(world: World, *, everything: bool = False) -> None:
    """Look again at what comes next: something was accepted, or how long transitions last (everything)."""
    if everything:
        world.changed |= {(ENDPOINT_RANK, name) for name in world.endpoints}
        world.changed |= {(EXPERIMENT_RANK, name) for name in world.experiments}
    world.due_s = _next(world)[0]


def deploy(world: World, name: str, fleet: Fleet, fallback: Fleet | None = None) -> Endpoint:
    """Begin to put a fleet behind an endpoint, which is made if there is none; what was in progress is given up.

    Parameters
    ----------
    world : World
        Written.
    name : str
        The endpoint's.
    fleet : Fleet
    fallback : Fleet, optional
        What serves if this fails: by default what serves now.
    """
    now = world.now_s
    old = world.endpoints.get(name) or Endpoint(name, "Creating", now, now, now, 0)
    if name not in world.endpoints:
        world.add("endpoint", name, {})
    serving = {(v.name, v.model_name, v.instance_type) for v in old.fleet.variants} if old.fleet else set()
    pending = frozenset(
        v.name
        for v in fleet.variants
        if not world.probed.isdisjoint({v.model_name, "*"}) and (v.name, v.model_name, v.instance_type) not in serving
    )
    held = NEVER if pending else now
    deployment = Deployment(world.n_changes + 1, fleet, pending, held, fallback or old.fleet)
    status = "Updating" if old.fleet else "Creating"
    return world.settled(replace(old, status=status, since_s=now, modified_s=now, deployment=deployment, failure=None))


def ping_answered(world: World, name: str, deployment: int, variant: str) -> None:
    """Take a variant from those whose backends a deployment waits for."""
    endpoint = world.endpoints.get(name)
    if endpoint is None or endpoint.deployment is None or endpoint.deployment.number != deployment:
        return
    pending = endpoint.deployment.pending - {variant}
    held = NEVER if pending else world.now_s
    deployment_now = replace(endpoint.deployment, pending=pending, held_until_s=held)
    world.put_endpoint(replace(endpoint, deployment=deployment_now))
    _hold(world, name, held)


def ping_failed(world: World, name: str, deployment: int, reason: str) -> None:
    """Fail a deployment, and cancel the experiment that it was for."""
    endpoint = world.endpoints.get(name)
    if endpoint is None or endpoint.deployment is None or endpoint.deployment.number != deployment:
        return
    now = world.now_s
    status = allowed(ENDPOINT, endpoint.status, "failure")
    world.settled(replace(endpoint, status=status, since_s=now, modified_s=now, failure=reason))
    experiment = world.live_experiment(name)
    if experiment is not None and experiment.stage.status not in ("Created", "Running"):
        step_experiment(world, experiment, "failure", now, reason)


def step_experiment(world: World, experiment: ExperimentRecord, event: str, at_s: float, reason: str | None = None) -> None:
    """Take an experiment one step on, and do for its endpoint what the step means.

    Parameters
    ----------
    world : World
        Written.
    experiment : ExperimentRecord
        With what an action brought already in its place.
    event : str
        Of the table in lifecycle.py.
    at_s : float
    reason : str, optional
        A new StatusReason.
    """
    stage = after(experiment.stage, event, at_s, world.choices.table)
    completed_s = None if stage.status not in ("Completed", "Cancelled") else at_s
    experiment = replace(experiment, stage=stage, modified_s=at_s, completed_s=completed_s, reason=reason or experiment.reason)
    if completed_s is not None:
        intended = _intended(world, experiment.endpoint_name)
        experiment = replace(experiment, left=frozenset(view.name for view in intended.variants) if intended else frozenset())
        world.touch(experiment.endpoint_name)
    world.put_experiment(experiment)
    if stage.status == "Starting":
        begin(world, experiment, experiment.percentage)
    elif stage.status == "Stopping":
        _finish(world, experiment)


def begin(world: World, experiment: ExperimentRecord, percentage: int) -> None:
    """Put an experiment's variants behind its endpoint, with a share of copies; cancel it when that is impossible."""
    name = experiment.endpoint_name
    made = experiment.made or (not experiment.deployed and name not in world.endpoints)
    old = _intended(world, name)
    before = experiment.before if experiment.deployed else old
    # What still serves an earlier fleet needs no model of that name any more.
    containers = {**_containers(old), **world.containers()} if experiment.deployed else world.containers()
    captured = world.choices.captured_percentage
    request = with_experiment(experiment.request, before.request if before else None, percentage, captured)
    try:
        fleet = fleet_of(_config_name(world, experiment), request, containers, world.choices.shadow_weight)
    except RefusedError as error:
        step_experiment(world, experiment, "failure", world.now_s, str(error))
        return
    _add_config(world, fleet)
    if experiment.deployed and old is not None:  # instances that were scaled meanwhile stay
        counts = {view.name: {"DesiredInstanceCount": view.instance_count} for view in old.variants}
        fleet = fleet.scaled(counts, world.choices.shadow_weight)
    deployed = deploy(world, name, fleet, before)
    world.put_experiment(replace(experiment, before=before, deployed=True, made=made))
    _hold(world, name, deployed.deployment.held_until_s if deployed.deployment else world.now_s)


def _finish(world: World, experiment: ExperimentRecord) -> None:
    name, choices = experiment.endpoint_name, world.choices
    endpoint, current = world.endpoints.get(name), _intended(world, name)
    if not experiment.deployed or endpoint is None or current is None:
        return
    scheduled = not experiment.actions
    if scheduled and experiment.made and choices.made_endpoint == "delete":
        delete_endpoint(world, endpoint)
        return
    if scheduled and experiment.before is not None:
        fleet = experiment.before
    else:
        before = experiment.before.request if experiment.before else None
        actions = experiment.actions or reverting(current)
        request = without_experiment(current, before, actions, experiment.desired)
        containers = {**_containers(current), **world.containers()}
        fleet = fleet_of(_config_name(world, experiment), request, containers, choices.shadow_weight)
        if experiment.before is not None and fleet.serves_as(experiment.before):
            fleet = experiment.before
        else:
            _add_config(world, fleet)
    # A backend that fails now must not leave the endpoint with a shadow that nothing watches any more.
    fallback = experiment.before or replace(current, shadow=None)
    deployed = deploy(world, name, fleet, fallback)
    _hold(world, name, deployed.deployment.held_until_s if deployed.deployment else world.now_s)


def delete_endpoint(world: World, endpoint: Endpoint) -> None:
    """Begin to delete an endpoint."""
    now = world.now_s
    status = allowed(ENDPOINT, endpoint.status, "Delete")
    world.settled(replace(endpoint, status=status, since_s=now, modified_s=now, deployment=None))


def _next(world: World) -> tuple[float, int, str]:
    """Return the moment, rank and name of what is due next, looking only at what has changed."""
    for rank, name in world.changed:
        at_s = _due_s(world, rank, name)
        if at_s < NEVER:
            heappush(world.agenda, (at_s, rank, name))
    world.changed.clear()
    while world.agenda:
        at_s, rank, name = world.agenda[0]
        if _due_s(world, rank, name) == at_s:
            return world.agenda[0]
        heappop(world.agenda)  # stale: what it became since then has an entry of its own
    return NEVER, 0, ""


def _due_s(world: World, rank: int, name: str) -> float:
    if rank == ENDPOINT_RANK:
        endpoint = world.endpoints.get(name)
        return _endpoint_due_s(endpoint, world.transition_s) if endpoint else NEVER
    experiment = world.experiments.get(name)
    due = following(experiment.stage, world.transition_s) if experiment else None
    return due[0] if due else NEVER


def _endpoint_due_s(endpoint: Endpoint, transition_s: float) -> float:
    done_s = endpoint.since_s + transition_s
    match endpoint.status:
        case "Creating" | "Updating":
            return max(done_s, endpoint.deployment.held_until_s) if endpoint.deployment else done_s
        case "RollingBack" | "Deleting":
            return done_s
    return NEVER


def _endpoint_due(world: World, endpoint: Endpoint) -> None:
    now, deployment = world.now_s, endpoint.deployment
    match endpoint.status:
        case "Deleting":
            del world.endpoints[endpoint.name]
            world.remove("endpoint", endpoint.name)
            return
        case "RollingBack":
            status = allowed(ENDPOINT, endpoint.status, "rolled back")
            fleet = deployment.fallback if deployment else endpoint.fleet
        case _:
            status = allowed(ENDPOINT, endpoint.status, "deployed")
            fleet = deployment.fleet if deployment else endpoint.fleet
    world.settled(replace(endpoint, status=status, since_s=now, modified_s=now, fleet=fleet, deployment=None))


def _hold(world: World, endpoint: str, until_s: float) -> None:
    """Let an experiment's transition last as long as its endpoint's."""
    experiment = world.live_experiment(endpoint)
    if experiment is not None and experiment.stage.status not in ("Created", "Running"):
        world.put_experiment(replace(experiment, stage=replace(experiment.stage, held_until_s=until_s)))


def _intended(world: World, endpoint: str) -> Fleet | None:
    """Return what an endpoint serves once nothing is in progress; what is being scaled counts as it will be."""
    found = world.endpoints.get(endpoint)
    return found.intended if found else None


def _containers(fleet: Fleet | None) -> dict[str, Body]:
    return {view.model_name: view.container for view in fleet.variants} if fleet else {}


def _config_name(world: World, experiment: ExperimentRecord) -> str:
    """Return an unused name, which a restart finds again: at most 63 characters of what the pattern allows."""
    digest = sha256(f"{experiment.name} {experiment.created_s!r} {world.n_changes}".encode()).hexdigest()[:12]
    return f"{experiment.name[:50].rstrip('-')}-{digest}"


def _add_config(world: World, fleet: Fleet) -> None:
    world.configs[fleet.config_name] = Record(fleet.config_name, fleet.request, world.now_s)
    world.add("endpoint-config", fleet.config_name, {})
