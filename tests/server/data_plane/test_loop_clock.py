"""Tests that the loop's lag is measured, and never lets a time-out expire."""

import asyncio
import socket
from time import perf_counter, sleep

import pytest
from serving import Container

from shadowsim.server.data_plane import backends
from shadowsim.server.data_plane.backends import Call
from shadowsim.server.data_plane.connections import open_session
from shadowsim.server.data_plane.loop_clock import TICK_S, LoopClock


async def clock_of_late_loop(n_stalls, stall_s):
    clock = LoopClock()
    clock.start()
    for _ in range(n_stalls):
        await asyncio.sleep(TICK_S / 2)
        sleep(stall_s)
        await asyncio.sleep(0.001)  # until the timer was looked at
    clock.stop()
    return clock


def test_the_lag_of_an_unstarted_clock_is_zero():
    assert LoopClock().total_s == 0.0


def test_the_lag_is_measured():
    """A stall is late by its length, less the time to the next tick; the machine may only add to it."""
    clock = asyncio.run(clock_of_late_loop(3, 0.2))
    assert clock.total_s > 3 * (0.2 - TICK_S - 0.001)


@pytest.mark.parametrize("started", [False, True])
def test_a_limit_expires_by_the_loop_s_time(started):
    async def run():
        clock = LoopClock()
        if started:
            clock.start()
        began = perf_counter()
        with pytest.raises(TimeoutError):
            async with clock.within(0.1):
                await asyncio.sleep(60.0)
        assert perf_counter() - began > 0.099
        async with clock.within(60.0):
            await asyncio.sleep(0)
        return asyncio.current_task().cancelling()

    assert asyncio.run(run()) == 0


def test_a_stall_does_not_expire_a_limit():
    """What arrives during the stall is looked at before the time-out; what takes longer by itself still expires."""

    async def run(work_s):
        clock = LoopClock()
        clock.start()
        await asyncio.sleep(0)
        async with clock.within(0.2):
            sleep(0.5)
            await asyncio.sleep(work_s)
        return True

    assert asyncio.run(run(0.02))
    with pytest.raises(TimeoutError):
        asyncio.run(run(30.0))


def test_a_cancelled_task_is_not_timed_out():
    async def run():
        async def work():
            async with LoopClock().within(60.0):
                await asyncio.sleep(60.0)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


async def invoked(url, stall_s):
    """Return the answer of a container to a call, during which the loop stands still for a time."""
    clock = LoopClock()
    clock.start()
    async with open_session(loop_clock=clock) as session:
        backend = backends.Container([url], session, 100, clock)
        asyncio.get_running_loop().call_later(0.0005, sleep, stall_s)
        return await backend.invoke(0, Call(b"x"), 5.0)


def test_a_late_loop_is_not_a_container_that_cannot_be_connected_to():
    """The loop stands still for longer than CONNECT_S at many moments of the connection's making."""

    async def run():
        container = Container()
        await container.start()
        answers = [await invoked(container.url, 0.4) for _ in range(3)]
        await container.stop()
        return answers

    assert [answer.outcome for answer in asyncio.run(run())] == ["answered"] * 3


def test_a_container_that_does_not_accept():
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as listener,
        socket.socket() as first,
        socket.socket() as second,
    ):
        for other in (first, second):  # they fill the backlog
            other.setblocking(False)
            other.connect_ex(listener.getsockname())
        answer = asyncio.run(invoked(f"http://127.0.0.1:{listener.getsockname()[1]}", 0.0))
    assert answer.failure == "no connection within 0.25 s"
    assert 0.24 < answer.latency_s < 5.0
