"""Lists behaviour that AWS does not document, as options with the likeliest default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from shadowsim.aws.lifecycle import EXPERIMENT, Table
from shadowsim.errors import InputError


@dataclass(frozen=True, slots=True)
class Undocumented:
    """The options for behaviour that no AWS page documents.

    Attributes
    ----------
    deploy_in : {"Starting", "Creating"}
        The status in which an experiment's variants are put behind its endpoint. With "Creating" they are there from
        the creation on, and get no copies before the start.
    stop_before_start, delete_before_start : bool
        Whether a Created experiment can be stopped, and deleted.
    desired_state : {"Cancelled", "Completed"}
        The final status after StopInferenceExperiment without DesiredState.
    duplicate_name : {"ResourceInUse", "ConflictException"}
        The error when an experiment's name is taken.
    made_endpoint : {"keep", "delete"}
        Whether an endpoint that the experiment created is kept at the scheduled end, serving the source, or deleted.
    shadow_weight : {"relative", "absolute"}
        Whether the share of a configuration's shadow variant is its weight over the production variant's weight, or
        its weight alone.
    running_update : {"ValidationException", "ConflictException"}
        The error for an update of a member that cannot change once copies are made.
    captured_percentage : int
        0..100: the share of requests that an experiment's DataStorageConfig captures.
    event_id : {"own", "shared"}
        Whether a request and its copy are captured under separate event ids, or under the same one.
    unknown_operation : {400, 404}
        The HTTP status of UnknownOperationException.
    """

    deploy_in: Literal["Starting", "Creating"] = "Starting"
    stop_before_start: bool = True
    delete_before_start: bool = True
    desired_state: Literal["Cancelled", "Completed"] = "Cancelled"
    duplicate_name: Literal["ResourceInUse", "ConflictException"] = "ResourceInUse"
    made_endpoint: Literal["keep", "delete"] = "keep"
    shadow_weight: Literal["relative", "absolute"] = "relative"
    running_update: Literal["ValidationException", "ConflictException"] = "ValidationException"
    captured_percentage: int = 100
    event_id: Literal["own", "shared"] = "own"
    unknown_operation: Literal[400, 404] = 400

    def __post_init__(self) -> None:
        for name, values in CHOICES.items():
            if getattr(self, name) not in values:
                listed = (
                    "a whole number from 0 to 100" if values is _PERCENT else f"one of {', '.join(map(str, values))}"
                )
                raise InputError(name, f"must be {listed}", getattr(self, name))

    @property
    def table(self) -> Table:
        """The experiment's transition table, without the transitions that these options forbid."""
        forbidden = {"Stop": not self.stop_before_start, "Delete": not self.delete_before_start}
        created = {event: to for event, to in EXPERIMENT["Created"].items() if not forbidden.get(event)}
        return {**EXPERIMENT, "Created": created}


_PERCENT = range(101)
CHOICES: Mapping[str, Sequence[object]] = {
    "deploy_in": ("Starting", "Creating"),
    "stop_before_start": (True, False),
    "delete_before_start": (True, False),
    "desired_state": ("Cancelled", "Completed"),
    "duplicate_name": ("ResourceInUse", "ConflictException"),
    "made_endpoint": ("keep", "delete"),
    "shadow_weight": ("relative", "absolute"),
    "running_update": ("ValidationException", "ConflictException"),
    "captured_percentage": _PERCENT,
    "event_id": ("own", "shared"),
    "unknown_operation": (400, 404),
}
