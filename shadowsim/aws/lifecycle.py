"""Tabulates the statuses of an experiment and its endpoint, and applies events and the clock.

Rules of the file
-----------------
*Tables, not code.* `EXPERIMENT` and `ENDPOINT` are {status: {event: next status}}. An event that the table does not
name for a status is a conflict there; nothing else decides what is allowed. Events that begin with a capital are
actions (`Start` is StartInferenceExperiment, `Delete` is DeleteInferenceExperiment or DeleteEndpoint); the others come
from the clock or from a backend.

*Status is a function of the accepted events and the clock.* Nothing is stored when a transition ends, and no thread
waits for it: `status` folds the events, and between them applies what the clock has made due. A server that was killed
and restarted a week later finds every experiment where its schedule has taken it.

*Transitions last.* Creating, Starting, Updating and Stopping take `transition_s` each, and longer only while a real
backend has not yet answered /ping. A time that passes meanwhile is not lost: an EndTime that falls into an update ends
the experiment as soon as the update is applied, and a StartTime that has passed starts it at once.

Theory
------
An experiment without Schedule is one whose StartTime is its creation: it is Creating, then Starting, and Created for
no time at all. Updating returns to the status before it, and Stopping ends in the desired state; each of these clock
events therefore comes in two kinds, so that a table of pairs can express it. There is no status Failed: a failed
experiment is Cancelled, with the reason (the service model has no other word). An endpoint is Failed only while it has
never served; an update that fails rolls back. A deleted experiment or endpoint has no status; the tables call it
Deleted.

Where AWS documents nothing, the table allows most; a server can be configured to leave transitions out.

The experiment's table, drawn by `diagram`:

    Creating ── ready ─────────────────▶ Created
              ─ failure ───────────────▶ Cancelled
    Created ─── Start ─────────────────▶ Starting
              ─ start time ────────────▶ Starting
              ─ Update ────────────────▶ Updating
              ─ Stop ──────────────────▶ Stopping
              ─ Delete ────────────────▶ Deleted
    Starting ── began ─────────────────▶ Running
              ─ failure ───────────────▶ Cancelled
    Running ─── Update ────────────────▶ Updating
              ─ Stop ──────────────────▶ Stopping
              ─ end time ──────────────▶ Stopping
    Updating ── applied before start ──▶ Created
              ─ applied live ──────────▶ Running
              ─ failure ───────────────▶ Cancelled
    Stopping ── completed ─────────────▶ Completed
              ─ cancelled ─────────────▶ Cancelled
              ─ failure ───────────────▶ Cancelled
    Completed ─ Delete ────────────────▶ Deleted
    Cancelled ─ Delete ────────────────▶ Deleted

The endpoint's:

    Creating ──── deployed ─────▶ InService
                ─ failure ──────▶ Failed
                ─ Delete ───────▶ Deleting
    InService ─── Update ───────▶ Updating
                ─ Delete ───────▶ Deleting
    Updating ──── deployed ─────▶ InService
                ─ failure ──────▶ RollingBack
                ─ Delete ───────▶ Deleting
    RollingBack ─ rolled back ──▶ InService
                ─ Delete ───────▶ Deleting
    Failed ────── Delete ───────▶ Deleting
    Deleting ──── deleted ──────▶ Deleted
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from shadowsim.aws.experiment import LONGEST
from shadowsim.errors import ConflictError

Table = Mapping[str, Mapping[str, str]]

EXPERIMENT: Table = {
    "Creating": {"ready": "Created", "failure": "Cancelled"},
    "Created": {
        "Start": "Starting",
        "start time": "Starting",
        "Update": "Updating",
        "Stop": "Stopping",
        "Delete": "Deleted",
    },
    "Starting": {"began": "Running", "failure": "Cancelled"},
    "Running": {"Update": "Updating", "Stop": "Stopping", "end time": "Stopping"},
    "Updating": {"applied before start": "Created", "applied live": "Running", "failure": "Cancelled"},
    "Stopping": {"completed": "Completed", "cancelled": "Cancelled", "failure": "Cancelled"},
    "Completed": {"Delete": "Deleted"},
    "Cancelled": {"Delete": "Deleted"},
}
ENDPOINT: Table = {
    "Creating": {"deployed": "InService", "failure": "Failed", "Delete": "Deleting"},
    "InService": {"Update": "Updating", "Delete": "Deleting"},
    "Updating": {"deployed": "InService", "failure": "RollingBack", "Delete": "Deleting"},
    "RollingBack": {"rolled back": "InService", "Delete": "Deleting"},
    "Failed": {"Delete": "Deleting"},
    "Deleting": {"deleted": "Deleted"},
}
ACTIONS = ("Start", "Update", "Stop", "Delete")
TERMINAL = frozenset({"Completed", "Cancelled", "Deleted"})
_LONGEST_S = LONGEST.total_seconds()


@dataclass(frozen=True, slots=True)
class Stage:
    """An experiment's status, its schedule, and what the clock needs to move it on.

    Attributes
    ----------
    status : str
    since_s : float
        The time at which it entered that status.
    start_s, end_s : float
        Its schedule, with missing times filled in.
    ends_as : {"Completed", "Cancelled"}
        The status that Stopping ends in.
    live : bool
        Whether it has been Running.
    held_until_s : float
        The transition does not end before this time: infinity while a backend has not answered /ping.
    """

    status: str
    since_s: float
    start_s: float
    end_s: float
    ends_as: str = "Completed"
    live: bool = False
    held_until_s: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Event:
    """An accepted event that changes an experiment's status.

    Attributes
    ----------
    at_s : float
    name : str
        An action of the table, or "failure".
    changes : tuple of (str, value)
        Fields of the stage that the action sets, such as ("ends_as", "Completed") or ("end_s", 1e9).
    """

    at_s: float
    name: str
    changes: tuple[tuple[str, Any], ...] = ()


def status(first: Stage, events: Iterable[Event], now: float, transition_s: float, table: Table = EXPERIMENT) -> str:
    """Return an experiment's status at the time `now`.

    Parameters
    ----------
    first : Stage
        The experiment at its creation.
    events : iterable of Event
        All events accepted since, in order of time; those after `now` are not applied.
    now, transition_s : float
        Seconds.

    Raises
    ------
    ConflictError
        An event is not allowed in the status that it meets, so it cannot have been accepted.
    """
    stage = first
    for event in events:
        if event.at_s > now:
            break
        stage = advanced(stage, event.at_s, transition_s)
        stage = after_event(stage, event.name, event.at_s, table, **dict(event.changes))
    return advanced(stage, now, transition_s).status


def advanced(stage: Stage, now: float, transition_s: float) -> Stage:
    """Return the stage that the clock alone takes an experiment to by `now`."""
    for _ in range(len(EXPERIMENT)):  # the clock enters no status twice
        due = next_clock_event(stage, transition_s)
        if due is None or due[0] > now:
            break
        stage = after_event(stage, due[1], due[0])
    return stage


def next_clock_event(stage: Stage, transition_s: float) -> tuple[float, str] | None:
    """Return the time and name of the clock's next event for an experiment; None when there is none."""
    match stage.status:
        case "Creating":
            event = "ready"
        case "Created":
            return max(stage.start_s, stage.since_s), "start time"
        case "Starting":
            event = "began"
        case "Running":
            return max(stage.end_s, stage.since_s), "end time"
        case "Updating":
            event = "applied live" if stage.live else "applied before start"
        case "Stopping":
            event = stage.ends_as.lower()
        case _:
            return None
    at_s = max(stage.since_s + transition_s, stage.held_until_s)
    return None if at_s == float("inf") else (at_s, event)


def after_event(stage: Stage, event: str, at_s: float, table: Table = EXPERIMENT, **changes: Any) -> Stage:
    """Return the stage that an event takes an experiment to.

    Start moves the schedule's start to `at_s`, and the end so that the experiment lasts at most 30 days.

    Raises
    ------
    ConflictError
        The table has no such event for the status.
    """
    to = next_status(table, stage.status, event)
    if event == "Start":
        changes = {"start_s": at_s, "end_s": min(stage.end_s, at_s + _LONGEST_S), **changes}
    live = stage.live or to == "Running"
    held = {"held_until_s": float("-inf"), **changes}
    return replace(stage, status=to, since_s=at_s, live=live, **held)


def next_status(table: Table, status: str, event: str) -> str:
    """Return the status that an event leads to, or raise ConflictError with the statuses that allow the event."""
    to = table.get(status, {}).get(event)
    if to is None:
        statuses = " or ".join(s for s, events in table.items() if event in events)
        raise ConflictError(f"{event} is not allowed in status {status}; it is in {statuses}")
    return to


def diagram(table: Table) -> str:
    """Return a table as lines of "status ─ event ─▶ status", aligned."""
    width = max(map(len, table)) + 1
    event_width = max(len(event) for events in table.values() for event in events) + 2
    lines = []
    for state, events in table.items():
        for i, (event, to) in enumerate(events.items()):
            name = f"{state} " if i == 0 else ""
            rule = "─" * (event_width - len(event))
            lines.append(f"{name:{'─' if i == 0 else ' '}<{width}}─ {event} {rule}▶ {to}")
    return "\n".join(lines)
