"""What no page of AWS says, and what the server takes for it: each a choice, with the default that seems likeliest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from shadowsim.aws.lifecycle import EXPERIMENT, Table
from shadowsim.errors import InputError


@dataclass(frozen=True, slots=True)
class Undocumented:
    """What no page of AWS says, and what we take for it.

    Attributes
    ----------
    deploy_in : {"Starting", "Creating"}
        When an experiment's variants are put behind its endpoint. With "Creating" they stand there, without copies,
        from then on.
    stop_before_start, delete_before_start : bool
        Whether an experiment that is Created can be stopped, and deleted.
    desired_state : {"Cancelled", "Completed"}
        What StopInferenceExperiment without DesiredState ends in.
    duplicate_name : {"ResourceInUse", "ConflictException"}
        The error for an experiment's name that is taken.
    made_endpoint : {"keep", "delete"}
        What becomes, at the scheduled end, of an endpoint that the experiment made. Kept, it serves the source.
    shadow_weight : {"relative", "absolute"}
        Whether the share of a configuration's shadow variant is its weight over the production variant's, or its own.
    running_update : {"ValidationException", "ConflictException"}
        The error for an update of what cannot change once copies are made.
    captured_percentage : int
        0..100: of the requests, what an experiment's DataStorageConfig captures.
    event_id : {"own", "shared"}
        Whether a request and its copy are captured under event ids of their own, or under one.
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
        """The experiment's table with the transitions that these choices leave out left out."""
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
