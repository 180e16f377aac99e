"""Checks the status tables, their diagrams, and status as a function of events and time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.aws import lifecycle
from shadowsim.aws.contract import _shape
from shadowsim.aws.experiment import LONGEST
from shadowsim.aws.lifecycle import (
    ACTIONS,
    ENDPOINT,
    EXPERIMENT,
    TERMINAL,
    Event,
    Stage,
    advanced,
    after_event,
    diagram,
    next_clock_event,
    next_status,
    status,
)
from shadowsim.errors import ConflictError

FIRST = Stage("Creating", 0.0, 100.0, 200.0)


@pytest.mark.parametrize("table", [EXPERIMENT, ENDPOINT])
def test_the_diagrams_of_the_docstring_are_drawn_from_the_tables(table):
    drawn = "\n".join(f"    {line}" for line in diagram(table).splitlines())
    assert f"\n\n{drawn}\n" in lifecycle.__doc__


def test_the_statuses_are_the_service_models_own():
    experiment = {to for events in EXPERIMENT.values() for to in events.values()} | set(EXPERIMENT)
    assert experiment - {"Deleted"} == set(_shape("InferenceExperimentStatus")["enum"])
    endpoint = {to for events in ENDPOINT.values() for to in events.values()} | set(ENDPOINT)
    assert endpoint - {"Deleted"} <= set(_shape("EndpointStatus")["enum"])


@pytest.mark.parametrize("table", [EXPERIMENT, ENDPOINT])
def test_every_status_is_reached_and_every_life_can_end(table):
    reached = {"Creating"}
    for _ in table:
        reached |= {to for state in reached for to in table.get(state, {}).values()}
    assert reached == {*table, "Deleted"}
    ends = {"Deleted"}
    for _ in table:
        ends |= {state for state, events in table.items() if ends & set(events.values())}
    assert ends == reached


def test_the_clock_moves_what_it_moves_and_nothing_else():
    """Each status has exactly one event of the clock, or is at rest; and that event is in the table."""
    for state, events in EXPERIMENT.items():
        for live in (False, True):
            due = next_clock_event(Stage(state, 0.0, 1.0, 2.0, live=live), 1.0)
            assert (due is None) == (state in TERMINAL)
            assert due is None or due[1] in events


def test_a_schedule_from_its_creation_to_its_end():
    at = {0: "Creating", 1.9: "Creating", 2: "Created", 99: "Created", 100: "Starting", 102: "Running"}
    at |= {199.9: "Running", 200: "Stopping", 202: "Completed", 1e9: "Completed"}
    assert {t: status(FIRST, [], t, 2.0) for t in at} == at


def test_what_comes_due_during_a_transition_comes_right_after_it():
    late = Stage("Creating", 0.0, -5.0, 2.5)
    assert [status(late, [], t, 1.0) for t in (0.5, 1.0, 2.0, 2.5, 3.5)] == [
        "Creating",
        "Starting",
        "Running",
        "Stopping",
        "Completed",
    ]
    update = [Event(199.5, "Update")]
    assert [status(FIRST, update, t, 1.0) for t in (199.7, 200.4, 200.5, 201.5)] == [
        "Updating",
        "Updating",
        "Stopping",
        "Completed",
    ]


def test_an_update_returns_to_where_it_came_from():
    assert status(FIRST, [Event(50, "Update")], 51, 1.0) == "Created"
    assert status(FIRST, [Event(150, "Update")], 151, 1.0) == "Running"


def test_a_start_moves_the_schedule_and_cuts_it_to_thirty_days():
    longest = LONGEST.total_seconds()
    first = Stage("Created", 0.0, 1000.0, 1000.0 + longest)
    started = after_event(first, "Start", 10.0)
    assert (started.start_s, started.end_s) == (10.0, 10.0 + longest)
    assert after_event(FIRST, "Start", 10.0, {"Creating": {"Start": "Starting"}}).end_s == FIRST.end_s


def test_a_stop_ends_in_what_was_desired():
    for ends_as in ("Completed", "Cancelled"):
        assert status(FIRST, [Event(150, "Stop", (("ends_as", ends_as),))], 152, 1.0) == ends_as


def test_a_held_transition_waits_and_then_goes_on():
    held = Stage("Starting", 0.0, 0.0, 10.0, held_until_s=float("inf"))
    assert advanced(held, 1e9, 1.0) == held
    released = Stage("Starting", 0.0, 0.0, 10.0, held_until_s=5.0)
    assert advanced(released, 4.9, 1.0).status == "Starting"
    assert advanced(released, 5.0, 1.0) == Stage("Running", 5.0, 0.0, 10.0, live=True)


def test_what_the_table_does_not_name_is_a_conflict_that_says_where_it_is_allowed():
    for state, events in EXPERIMENT.items():
        for action in ACTIONS:
            if action in events:
                assert next_status(EXPERIMENT, state, action) == events[action]
            else:
                statuses = " or ".join(s for s, others in EXPERIMENT.items() if action in others)
                message = f"^{action} is not allowed in status {state}; it is in {statuses}$"
                with pytest.raises(ConflictError, match=message):
                    next_status(EXPERIMENT, state, action)


@given(st.lists(st.tuples(st.floats(0, 50), st.sampled_from(ACTIONS)), max_size=8), st.floats(0, 5), st.data())
def test_looking_on_the_way_changes_nothing(steps, transition_s, data):
    """Folding to a moment in one go is folding to any earlier moment and on from there."""
    stage, events, now = FIRST, [], 0.0
    for wait, action in steps:
        now += wait
        stage = advanced(stage, now, transition_s)
        if action in EXPERIMENT.get(stage.status, {}):
            events.append(Event(now, action))
            stage = after_event(stage, action, now)
    until = now + data.draw(st.floats(0, 300))
    between = data.draw(st.floats(now, until)) if until > now else now
    assert advanced(stage, until, transition_s) == advanced(advanced(stage, between, transition_s), until, transition_s)
    assert status(FIRST, events, until, transition_s) == advanced(stage, until, transition_s).status
