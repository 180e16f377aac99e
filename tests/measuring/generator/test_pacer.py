"""The pacer: it calls once per moment, never early, in order, and ends when it is stopped or a call fails."""

import asyncio
from time import monotonic, sleep

import numpy as np
import pytest

from shadowsim.measuring.generator.pacer import MOST_IN_A_ROW, LoopTimer, Pacer, best_alarm

DEADLINE_S = 20.0
ALARMS = sorted({LoopTimer, best_alarm()}, key=lambda kind: kind.__name__)


def paced(due_s, call=lambda number: None, alarm=None, also=None):
    """Return the numbers of the calls and when they came, from the start of the run."""
    calls = []

    async def run():
        start = monotonic()

        def note(number):
            calls.append((number, monotonic() - start))
            call(number)

        pacer = Pacer(asyncio.get_running_loop(), start + np.asarray(due_s, float), note, alarm)
        if also is not None:
            also(pacer)
        async with asyncio.timeout(DEADLINE_S):
            await pacer.finished

    asyncio.run(run())
    return calls


@pytest.mark.parametrize("alarm", ALARMS)
def test_calls_once_for_each_moment_in_order_and_never_early(alarm):
    due = np.sort(np.random.default_rng(1).uniform(0.0, 0.3, 200))
    calls = paced(due, alarm=alarm)
    assert [number for number, _ in calls] == list(range(200))
    # the alarm may round a moment down by a nanosecond, but the pacer asks the clock before it calls
    assert all(at >= planned - 1e-6 for (_, at), planned in zip(calls, due, strict=True))


@pytest.mark.parametrize("alarm", ALARMS)
def test_a_late_call_does_not_shift_the_following(alarm):
    calls = paced([0.0, 0.01, 0.02, 0.25], lambda number: sleep(0.1 if number == 0 else 0.0), alarm)
    assert calls[1][1] >= 0.1
    assert calls[2][1] < 0.25 <= calls[3][1]  # caught up, not 0.1 s after each other


def test_reads_answers_also_while_it_is_behind():
    turns = []

    async def other():
        while True:
            turns.append(monotonic())
            await asyncio.sleep(0)

    async def run():
        task = asyncio.create_task(other())
        n = 20 * MOST_IN_A_ROW
        pacer = Pacer(asyncio.get_running_loop(), np.full(n, monotonic() - 1.0), lambda number: None)
        async with asyncio.timeout(DEADLINE_S):
            await pacer.finished
        task.cancel()

    asyncio.run(run())
    assert len(turns) >= 19


def test_ends_without_moments_and_when_stopped():
    assert paced([]) == []
    assert paced([5.0], also=lambda pacer: asyncio.get_running_loop().call_later(0.02, pacer.stop)) == []


def test_passes_on_what_a_call_raises():
    def fail(number):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        paced([0.0, 0.1], fail)
