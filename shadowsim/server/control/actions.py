"""SageMaker's control plane without its HTTP: an action and its body in, the answer's body out.

An action is checked in the order in which AWS checks it: does it exist; is its body of the right types
(SerializationException); does it keep the service model's constraints (ValidationException, all violations at once,
from contract.py); then what its own module refuses. Until it is accepted nothing has changed, and whatever a client
sends ends in an answer or in an error with a 4xx status.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shadowsim.aws.contract import parsed, violations
from shadowsim.errors import UnknownOperationError, ValidationError, nearest, shown
from shadowsim.json_files import read_json
from shadowsim.server.control import endpoints, experiments, models
from shadowsim.server.state.account import World
from shadowsim.server.state.events import EFFECTS
from shadowsim.server.state.fleet import Body
from shadowsim.server.state.store import Store

# What each action refuses and answers. Those that events.py has an effect for change the world when accepted.
ACTIONS: dict[str, Callable[[Store, World, Body], dict[str, Any]]] = {
    "CreateInferenceExperiment": experiments.create,
    "DescribeInferenceExperiment": experiments.describe,
    "ListInferenceExperiments": experiments.list_all,
    "StartInferenceExperiment": experiments.start,
    "StopInferenceExperiment": experiments.stop,
    "UpdateInferenceExperiment": experiments.update,
    "DeleteInferenceExperiment": experiments.delete,
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


def handle(action: str, body: object, now: float, store: Store) -> dict[str, Any]:
    """Do an action and return its answer.

    Parameters
    ----------
    action : str
        As `X-Amz-Target` names it after "SageMaker.".
    body : mapping, str or bytes
        The request, read or as it came; members that the service model does not know are ignored. "" is {}.
    now : float
        The store's scaled time, seconds since 1970; never before an earlier call's, or that one's is taken.
    store : Store
        Read, and written when the action is accepted, which is on the disk when this returns.

    Returns
    -------
    dict
        Plain JSON; times are seconds since 1970.

    Raises
    ------
    ShadowsimError
        With AWS's code and a 4xx status: nothing has changed. Only StoreError, for a disk that is full, has a 5xx one.
    """
    answer = ACTIONS.get(action)
    if answer is None:
        hint = nearest(action, ACTIONS)
        raise UnknownOperationError(f"{shown(action)} is not an action that is rehearsed here{hint}")
    store.throttle.admit(action)
    if isinstance(body, str | bytes | bytearray):
        body = read_json(body.encode() if isinstance(body, str) else body, "body") if body else {}
    request = parsed(action, body)
    broken = violations(action, request)
    if broken:
        raise ValidationError(broken)
    world = store.world_at(now)
    answered = answer(store, world, request)
    if action in EFFECTS:
        store.accept(action, request, now)
    return answered
