"""What is said on the way: that code is compiled, and how long all of it takes."""

from threading import Event

import numba
import numpy as np
import pytest

from shadowsim import default_scenario, simulate
from shadowsim.engine import _kernel as k
from shadowsim.engine import parallel
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns
from shadowsim.engine.parallel import Job
from shadowsim.engine.progress import LONG_S, STRETCH_S, Forecast, announce, progress_bar
from shadowsim.engine.replicate import replicate
from shadowsim.engine.run_state import is_compiled
from shadowsim.engine.simulate import announce_runs, compile_for, run
from shadowsim.planning.sweep import sweep

SHORT = default_scenario().replace({"horizon_s": 180})
BATCHED = SHORT.replace({"services.Shadow-01.batching": {"max_size": 4, "max_delay_s": 0.01, "marginal": 0.3}})
LIMITED = SHORT.replace({"services.AllTraffic.queue_limit": 5})
LEAST = SHORT.replace({"endpoint.routing": "LEAST_OUTSTANDING_REQUESTS"})
jitted = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


def job_of(scenario):
    arrivals = arrivals_of(scenario)
    return Job(columns(scenario, arrivals), arrivals, 64, 0, 0)


def forecast(total):
    """Return a forecast, the time, which a test sets, and what has been said."""
    said, now = [], [0.0]
    return Forecast(total, said.append, lambda: now[0]), now, said


def test_a_long_run_says_how_long_it_takes_once():
    done, now, said = forecast(100)
    now[0] = 0.9 * STRETCH_S
    done(1)
    assert said == []  # too early
    now[0] = 2.0 * STRETCH_S
    done(9)
    assert said == [f"takes about {20 * STRETCH_S:.0f} s in all"]
    now[0] = 50.0
    done(10)
    assert len(said) == 1


def test_a_short_run_says_nothing_however_it_goes_on():
    done, now, said = forecast(10)
    now[0] = STRETCH_S
    done(int(10 * STRETCH_S / LONG_S) + 1)
    now[0] = 1000.0
    done(1)
    assert said == []


def test_a_step_of_nothing_is_no_division_by_zero():
    done, now, said = forecast(10)
    now[0] = 100.0
    done(0)
    done(1)
    assert said == ["takes about 17 min in all"]


@pytest.mark.parametrize("many", [simulate, lambda s, progress: replicate(s, 2, progress=progress)])
def test_the_first_run_says_that_it_compiles(many, monkeypatch, capfd):
    needs = [8, 0]
    monkeypatch.setattr(parallel, "seconds_to_compile", lambda job: needs.pop(0))
    for expected in (1, 0):
        many(SHORT, progress=True)
        shown = capfd.readouterr()
        assert shown.out == ""
        assert shown.err.count("compiling for this kind of scenario, once on this machine (some 8 s)\n") == expected
        assert "windows" in shown.err
    many(SHORT, progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_sweep_compiles_for_both_ends_of_its_grid(monkeypatch, capfd):
    asked = []
    monkeypatch.setattr(parallel, "seconds_to_compile", lambda job: asked.append(job.columns.source.queue_limit) or 0)
    sweep(SHORT, {"services.AllTraffic.queue_limit": [None, 3, 5]}, progress=True)
    assert asked == [-1, 5]


def test_compiling_comes_after_its_announcement_and_simulates_nothing(monkeypatch):
    events = []
    monkeypatch.setattr(parallel, "seconds_to_compile", lambda job: 20)
    monkeypatch.setattr(parallel, "compile_kernel", lambda job: events.append("compiled"))
    compile_for(SHORT, events.append)
    assert events == ["compiling for this kind of scenario, once on this machine (some 20 s)", "compiled"]


@pytest.mark.parametrize("scenario", [SHORT, LEAST, LIMITED, BATCHED])
def test_a_compiled_kernel_is_recognised(scenario):
    job = job_of(scenario)
    parallel.compile_kernel(job)
    assert parallel.seconds_to_compile(job) == 0


@pytest.mark.parametrize(
    ("scenario", "general", "tracked"), [(SHORT, None, None), (LEAST, None, True), (LIMITED, True, True)]
)
def test_a_run_takes_the_variant_that_it_needs(scenario, general, tracked):
    state = job_of(scenario).new_state()
    assert state._arguments(0, k.BOTH_SIDES, state.arrivals.of_windows(0, 1))[2:4] == (general, tracked)


@jitted
def test_another_kind_of_scenario_is_not_taken_for_compiled():
    state = job_of(SHORT).new_state()
    state.compile()
    assert state.is_compiled
    state.reached = np.zeros(2, np.float32)
    assert not state.is_compiled


def test_what_cannot_be_told_is_taken_for_compiled():
    assert is_compiled(lambda: None)
    assert is_compiled(lambda: None, (1,))


class OneWindow:
    """A side that simulates a window of 100 requests in steps of 25, each once the one before has been reported."""

    def __init__(self):
        self.arrived, self.reported = 0, Event()

    def advance(self, last, sides):
        for _ in range(4):
            self.arrived += 25
            assert self.reported.wait(30.0)
            self.reported.clear()


def test_a_long_window_is_reported_in_parts(monkeypatch):
    monkeypatch.setattr(parallel, "LONG_WINDOW", 50)
    monkeypatch.setattr(parallel, "_LOOK_EVERY_S", 0.001)
    job = job_of(SHORT.replace({"traffic": {"process": "constant", "rate_per_s": 100 / 60.0}}))
    side, parts = OneWindow(), []

    def advance(part):
        if part > 0.0:
            parts.append(part)
            side.reported.set()

    parallel._advance_reporting(job, side, 1, k.BOTH_SIDES, advance, 1)
    assert parts == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("scenario", [SHORT, LEAST, BATCHED], ids=["plain", "least", "batched"])
@pytest.mark.parametrize("workers", [1, 2])
def test_to_report_in_parts_changes_nothing(scenario, workers, monkeypatch):
    plain, steps = run(scenario, workers), []
    monkeypatch.setattr(parallel, "LONG_WINDOW", 0)
    watched = run(scenario, workers, advance=steps.append)
    assert sum(steps) == pytest.approx(scenario.n_windows)
    for name in ("windows", "latency", "requests"):
        assert getattr(watched, name).equals(getattr(plain, name))


def test_a_bar_in_parts_shows_per_cent_though_there_is_one_window(capfd):
    with progress_bar(1, True, in_parts=True) as advance:
        advance(0.5)
    assert "0%|" in capfd.readouterr().err  # and no count of windows
    with progress_bar(1, True) as advance:
        advance(1)
    assert capfd.readouterr().err == ""


def test_many_runs_are_announced_with_a_rough_time(capfd):
    announce(2e9, 200.0, 40)
    assert capfd.readouterr().err == "about 2.00G requests in 40 runs: roughly 3 min\n"
    announce(2e9, 200.0, 10, guessed=True)
    assert capfd.readouterr().err.startswith("perhaps 2.00G requests in 10 runs")
    announce(2e9, 0.9 * LONG_S, 40)
    assert capfd.readouterr().err == ""
    week = default_scenario().replace({"horizon_s": "7d"})
    announce_runs([week], 50)
    assert "requests in 50 runs: roughly" in capfd.readouterr().err
    announce_runs([SHORT], 2)
    assert capfd.readouterr().err == ""
