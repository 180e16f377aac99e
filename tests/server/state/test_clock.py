"""Tests that scaled time is continuous across scales and restarts."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.errors import InputError
from shadowsim.server.state.clock import MAX_SCALE, Clock


def test_scaled_time_begins_as_wall_time():
    wall = [100.0]
    clock = Clock.resumed(None, 60.0, lambda: wall[0], lambda: wall[0])
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
        clock = Clock.resumed(origin, scale, lambda: wall[0], lambda: wall[0])
        # float64 near 1e9 rounds by 2^-24: in each of 6 steps the wall's time and the origin's, times 3,600, is 2.6 ms
        assert clock.now() == pytest.approx(expected, abs=3e-3)
        origin, pace = clock.origin, scale


@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.floats(-1e5, 1e5), st.booleans()), min_size=1, max_size=8),
    st.sampled_from([1.0, 60.0]),
)
def test_time_never_goes_back_stops_or_runs_ahead(steps, scale):
    """It advances by at least what has passed, by more only if the wall clock is ahead, and not beyond the latter.

    Each step passes some time, sets the wall clock by an offset to the true time, and restarts the clock or not.
    """
    true_s, offset_s, ahead_s = 1e9, 0.0, 0.0
    clocks = {"wall": lambda: true_s + offset_s, "steady": lambda: true_s - 5e8}
    clock = Clock.resumed(None, scale, **clocks)
    before = clock.now()
    for passed_s, offset_s, restarting in steps:
        true_s += passed_s
        ahead_s = max(ahead_s, offset_s)
        now = clock.now()
        assert now >= before + passed_s * scale - 1e-3  # float64 near 1e9 resolves 1e-7, and scales add to it
        assert now <= 1e9 + (true_s - 1e9 + ahead_s) * scale + 1e-3
        if restarting:
            clock = Clock.resumed(clock.origin, scale, **clocks, reached_s=now)
            assert clock.now() >= now
        before = clock.now()


def test_a_wall_clock_that_is_set_back_and_forward_again_changes_nothing():
    """Neither a correction within a run nor one after a restart, with another scale, makes time a day later."""
    true_s, offset_s = 1e9, 0.0
    clocks = {"wall": lambda: true_s + offset_s, "steady": lambda: true_s}
    clock = Clock.resumed(None, 1.0, **clocks)
    offset_s = -86_400.0
    true_s += 10.0
    assert clock.now() == 1e9 + 10.0
    clock = Clock.resumed(clock.origin, 60.0, **clocks, reached_s=clock.now())
    true_s += 10.0
    assert clock.now() == 1e9 + 610.0
    offset_s = 0.0
    assert clock.now() == 1e9 + 610.0
    true_s += 1.0
    assert clock.now() == 1e9 + 670.0


def test_time_goes_on_from_the_last_moment_that_is_known():
    """The clock starts at the last moment known, though the wall clock was set back between two runs."""
    origin = Clock.resumed(None, 10.0, lambda: 1000.0).origin
    for scale in (10.0, 2.0):
        wall = [500.0]
        read = lambda wall=wall: wall[0]  # noqa: E731
        clock = Clock.resumed(origin, scale, read, read, reached_s=3000.0)
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
