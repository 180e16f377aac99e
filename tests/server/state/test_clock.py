"""Tests that scaled time is continuous across scales and restarts."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.errors import InputError
from shadowsim.server.state.clock import MAX_SCALE, Clock


def test_scaled_time_begins_as_wall_time():
    wall = [100.0]
    clock = Clock.resumed(None, 60.0, lambda: wall[0])
    assert clock.now() == 100.0
    wall[0] = 101.0
    assert clock.now() == 160.0


@given(st.lists(st.tuples(st.floats(0, 1e4), st.sampled_from([0.5, 1.0, 60.0, 3600.0])), min_size=1, max_size=6))
def test_restarts_change_nothing_but_the_pace(steps):
    """After each wait the time is the sum of the waits, each times its scale."""
    wall, expected, origin, pace = [1e9], 1e9, None, None
    for wait, scale in steps:
        wall[0] += wait
        expected += wait * (pace or 0.0) if origin else wait
        clock = Clock.resumed(origin, scale, lambda: wall[0])
        assert clock.now() == pytest.approx(expected, abs=1e-3)  # float64 near 1e9 x 3,600 s resolves 2e-7
        origin, pace = clock.origin, scale


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=8), st.booleans(), st.sampled_from([1.0, 60.0]))
def test_a_wall_clock_that_is_set_back_neither_turns_time_back_nor_stops_it(steps, restarting, scale):
    """Steps forward of the wall clock count, steps back do not, within a run and between two."""
    wall, expected = [1e9], 1e9
    clock = Clock.resumed(None, scale, lambda: wall[0])
    for step in steps:
        wall[0] += step
        expected += max(step, 0.0) * scale
        assert clock.now() == pytest.approx(expected, abs=1e-3)
        if restarting:
            clock = Clock.resumed(clock.origin, scale, lambda: wall[0], clock.now())


def test_time_goes_on_from_the_last_moment_that_is_known():
    """The clock starts at the last moment known, though the wall clock was set back between two runs."""
    origin = Clock.resumed(None, 10.0, lambda: 1000.0).origin
    for scale in (10.0, 2.0):
        wall = [500.0]
        clock = Clock.resumed(origin, scale, lambda wall=wall: wall[0], reached_s=3000.0)
        assert clock.now() == 3000.0
        wall[0] += 7.0
        assert clock.now() == 3000.0 + 7.0 * scale


def test_scaled_time_ends_before_the_calendar():
    clock = Clock(0.0, 0.0, MAX_SCALE, lambda: 1e12)
    assert datetime.fromtimestamp(clock.now(), UTC) == datetime(9000, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), MAX_SCALE * 2])
def test_wrong_scales_are_refused(scale):
    with pytest.raises(InputError, match="--time-scale: must be > 0"):
        Clock.resumed(None, scale)
