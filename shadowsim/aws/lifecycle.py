"""The life of an inference experiment, and of the endpoint under it: two tables, and what the clock does with them.

Rules of the file
-----------------
*Tables, not code.* `EXPERIMENT` and `ENDPOINT` say {status: {event: next status}}. An event that the table does not
name for a status is a conflict there; nothing else decides what is allowed when. Events that begin with a capital are
actions (`Start` is StartInferenceExperiment or what it is for an endpoint); the others come from the clock or from a
backend.

*Status is a function of the accepted events and the clock.* Nothing is stored when a transition ends, and no thread
waits for it: `status` folds the events, and lets the clock bring between them what is due. A server that was killed
and comes back a week later finds every experiment where its schedule has taken it.

*Transitions last.* Creating, Starting, Updating and Stopping take `transition_s` each, and longer only while a real
backend has not yet answered /ping. A moment that passes meanwhile is not lost: an EndTime that falls into an update
ends the experiment as soon as the update is applied, and a StartTime that has passed starts it at once.

Theory
------
An experiment without Schedule is one whose StartTime is its creation: it is Creating, then Starting, and Created for
no time at all. Updating returns to where it came from, and Stopping ends in the state that was desired; so that a
table of pairs can say it, these clock events come in two kinds each. There is no Failed: what fails is Cancelled, with
the reason (the service model has no other word). An endpoint is Failed only while it has never served; an update that
fails rolls back. What is deleted has no status; the tables call it Deleted.

Where AWS documents nothing, the table is the widest; a server may be told to leave transitions out of it.

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
    """Where an experiment stands.

    Attributes
    ----------
    status : str
    since_s : float
        When it came to that status.
    start_s, end_s : float
        Its schedule; what the request leaves open is filled in.
    ends_as : {"Completed", "Cancelled"}
        What Stopping ends in.
    live : bool
        Whether it has been Running.
    held_until_s : float
        Before this moment the transition does not end: infinity while a backend has not answered /ping.
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
    """Something accepted that changes an experiment's status.

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
    """Return an experiment's status at a moment.

    Parameters
    ----------
    first : Stage
        As it was created.
    events : iterable of Event
        All that was accepted since, in order of time; those after `now` have not happened yet.
    now, transition_s : float
        Seconds.

    Raises
    ------
    ConflictError
        An event is not allowed in the status that it met: it was never accepted.
    """
    stage = first
    for event in events:
        if event.at_s > now:
            break
        stage = advanced(stage, event.at_s, transition_s)
        stage = after(stage, event.name, event.at_s, table, **dict(event.changes))
    return advanced(stage, now, transition_s).status


def advanced(stage: Stage, now: float, transition_s: float) -> Stage:
    """Return where the clock alone takes an experiment by `now`."""
    for _ in range(len(EXPERIMENT)):  # the clock never meets a status twice
        due = following(stage, transition_s)
        if due is None or due[0] > now:
            break
        stage = after(stage, due[1], due[0])
    return stage


def following(stage: Stage, transition_s: float) -> tuple[float, str] | None:
    """Return when the clock changes an experiment's status next, and by which event; None for never."""
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


def after(stage: Stage, event: str, at_s: float, table: Table = EXPERIMENT, **changes: Any) -> Stage:
    """Return where an event takes an experiment.

    Start moves the schedule's start to its moment, and the end so that no experiment is longer than 30 days.

    Raises
    ------
    ConflictError
        The table has no such event for the status.
    """
    to = allowed(table, stage.status, event)
    if event == "Start":
        changes = {"start_s": at_s, "end_s": min(stage.end_s, at_s + _LONGEST_S), **changes}
    live = stage.live or to == "Running"
    held = {"held_until_s": float("-inf"), **changes}
    return replace(stage, status=to, since_s=at_s, live=live, **held)


def allowed(table: Table, status: str, event: str) -> str:
    """Return where an event leads from a status, or raise ConflictError with the statuses that allow it."""
    to = table.get(status, {}).get(event)
    if to is None:
        where = " or ".join(s for s, events in table.items() if event in events)
        raise ConflictError(f"{event} is not allowed in status {status}; it is in {where}")
    return to


def diagram(table: Table) -> str:
    """Return a table as lines of "status ─ event ─▶ status", aligned."""
    width = max(map(len, table)) + 1
    reach = max(len(event) for events in table.values() for event in events) + 2
    lines = []
    for state, events in table.items():
        for i, (event, to) in enumerate(events.items()):
            name = f"{state} " if i == 0 else ""
            rule = "─" * (reach - len(event))
            lines.append(f"{name:{'─' if i == 0 else ' '}<{width}}─ {event} {rule}▶ {to}")
    return "\n".join(lines)
