"""Dispatches control-plane actions: the name and body of a request in, the body of the answer out.

The checks run in AWS's order: the action exists; the body has the right types (SerializationException); it keeps the
constraints of the service model (ValidationException with all violations, from aws/contract.py); the action's
function accepts it. Nothing changes before all have passed. Any input ends in an answer or in an error with a 4xx
status.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shadowsim.aws.contract import AUTO_SCALING, SAGEMAKER, parsed, violations
from shadowsim.errors import UnknownOperationError, ValidationError, did_you_mean, shown
from shadowsim.json_files import read_json
from shadowsim.server.control import endpoints, experiments, models, scaling
from shadowsim.server.state.account import World
from shadowsim.server.state.events import EFFECTS
from shadowsim.server.state.fleet import Body
from shadowsim.server.state.store import Store

# Each function raises or returns the answer, and changes nothing: state/events.py holds the effects.
_Actions = dict[str, Callable[[Store, World, Body], dict[str, Any]]]
ACTIONS: _Actions = {
    "CreateInferenceExperiment": experiments.create_experiment,
    "DescribeInferenceExperiment": experiments.describe_experiment,
    "ListInferenceExperiments": experiments.list_experiments,
    "StartInferenceExperiment": experiments.start_experiment,
    "StopInferenceExperiment": experiments.stop_experiment,
    "UpdateInferenceExperiment": experiments.update_experiment,
    "DeleteInferenceExperiment": experiments.delete_experiment,
    "CreateModel": models.create_model,
    "DescribeModel": models.describe_model,
    "ListModels": models.list_models,
    "DeleteModel": models.delete_model,
    "CreateEndpointConfig": endpoints.create_endpoint_config,
    "DescribeEndpointConfig": endpoints.describe_endpoint_config,
    "ListEndpointConfigs": endpoints.list_endpoint_configs,
    "DeleteEndpointConfig": endpoints.delete_endpoint_config,
    "CreateEndpoint": endpoints.create_endpoint,
    "DescribeEndpoint": endpoints.describe_endpoint,
    "ListEndpoints": endpoints.list_endpoints,
    "UpdateEndpoint": endpoints.update_endpoint,
    "UpdateEndpointWeightsAndCapacities": endpoints.update_endpoint_weights_and_capacities,
    "DeleteEndpoint": endpoints.delete_endpoint,
    "AddTags": models.add_tags,
    "ListTags": models.list_tags,
    "DeleteTags": models.delete_tags,
}
SCALING_ACTIONS: _Actions = {
    "RegisterScalableTarget": scaling.register_scalable_target,
    "DeregisterScalableTarget": scaling.deregister_scalable_target,
    "DescribeScalableTargets": scaling.describe_scalable_targets,
    "PutScalingPolicy": scaling.put_scaling_policy,
    "DescribeScalingPolicies": scaling.describe_scaling_policies,
    "DeleteScalingPolicy": scaling.delete_scaling_policy,
    "DescribeScalingActivities": scaling.describe_scaling_activities,
}
_ACTIONS_OF = {SAGEMAKER: ACTIONS, AUTO_SCALING: SCALING_ACTIONS}
# What an answer holds that its action has made.
_COMPLETED = {"RegisterScalableTarget": scaling.registered, "PutScalingPolicy": scaling.policy_put}


def handle(action: str, body: object, now: float, store: Store, service: str = SAGEMAKER) -> dict[str, Any]:
    """Perform an action and return its answer.

    Parameters
    ----------
    action : str
        The part of `X-Amz-Target` after the last point.
    body : mapping, str or bytes
        The request, parsed or as JSON text; "" is {}. Members that the service model does not know are ignored.
    now : float
        The store's scaled time, seconds since 1970. Must not decrease; an earlier value is replaced by the latest one
        seen.
    store : Store
        Read; an accepted action that changes something is appended, and is on the disk when this returns.
    service : str
        `contract.SAGEMAKER` or `contract.AUTO_SCALING`.

    Returns
    -------
    dict
        Plain JSON; times are seconds since 1970.

    Raises
    ------
    ShadowsimError
        With AWS's code and a 4xx status; nothing has changed. Only StoreError, such as for a full disk, has a 5xx
        status.
    """
    answer_action = _ACTIONS_OF[service].get(action)
    if answer_action is None:
        hint = did_you_mean(action, _ACTIONS_OF[service])
        raise UnknownOperationError(f"{shown(action)} is not an action that this server supports{hint}")
    store.throttle.admit(action)
    if isinstance(body, str | bytes | bytearray):
        body = read_json(body.encode() if isinstance(body, str) else body, "body") if body else {}
    request = parsed(action, body, service)
    broken = violations(action, request, service=service)
    if broken:
        raise ValidationError(broken)
    world = store.world_at(now)
    answer = answer_action(store, world, request)
    if action in EFFECTS:
        store.accept(action, request, now)
        if action in _COMPLETED:
            answer = _COMPLETED[action](store, world, request, answer)
    return answer
