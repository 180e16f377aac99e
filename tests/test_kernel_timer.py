"""Kernel timers: an exact loop does what any loop does, waits no shorter than asked, and sleeps while it waits."""

import asyncio
import os
from time import monotonic, process_time, sleep

import pytest

from shadowsim.kernel_timer import KernelTimer, exact_loop, has_kernel_timers

SLEEP_S = 0.3


@pytest.fixture
def run():
    with asyncio.Runner(loop_factory=exact_loop) as runner:
        yield runner.run


def test_no_timer_comes_early_and_all_come_in_order(run):
    async def waits():
        loop, came = asyncio.get_running_loop(), []
        moments = [loop.time() + s for s in (0.0104, 0.0101, 0.0001, 0.0, 0.0302)]
        done = loop.create_future()
        for moment in moments:
            loop.call_at(moment, lambda m=moment: came.append((m, loop.time())))
        loop.call_at(max(moments) + 0.001, done.set_result, None)
        await done
        return moments, came

    moments, came = run(waits())
    assert [planned for planned, _ in came] == sorted(moments)
    assert all(at >= planned for planned, at in came)


def test_files_and_other_threads_wake_a_loop_that_waits(run):
    async def waits():
        reader, writer = os.pipe()
        loop = asyncio.get_running_loop()
        seen = loop.create_future()
        loop.add_reader(reader, lambda: seen.done() or seen.set_result(os.read(reader, 10)))
        await asyncio.to_thread(os.write, writer, b"x")
        read = await asyncio.wait_for(seen, 20.0)
        loop.remove_reader(reader)
        for fd in (reader, writer):
            os.close(fd)
        return read

    assert run(waits()) == b"x"


def test_a_timer_that_was_due_does_not_keep_the_loop_awake(run):
    """After a timer it waits without one: for a thread, and without using its core meanwhile."""

    async def waits():
        await asyncio.sleep(0.002)
        began = process_time()
        await asyncio.to_thread(sleep, SLEEP_S)
        return process_time() - began

    assert run(waits()) < 0.5 * SLEEP_S


@pytest.mark.skipif(not has_kernel_timers(), reason="needs timerfd")
def test_a_kernel_timer_is_moved_and_stopped():
    timer = KernelTimer()
    try:
        timer.set(monotonic() - 1.0)
        assert len(os.read(timer.fd, 8)) == 8
        timer.set(monotonic() - 1.0)
        timer.set(monotonic() + 1000.0)
        with pytest.raises(BlockingIOError):
            os.read(timer.fd, 8)
        timer.set(monotonic() - 1.0)
        timer.stop()
        with pytest.raises(BlockingIOError):
            os.read(timer.fd, 8)
    finally:
        timer.close()
