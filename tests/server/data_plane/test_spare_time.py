"""Spare time: copies begin when a loop has nothing else to do, and are shed when it has more to do than time."""

import asyncio
import math
from random import Random
from time import perf_counter, sleep

import pytest
import virtual_time
from serving import Container, serving, until

from shadowsim.frames import SERVER_LAG
from shadowsim.scenario.reading import Mirroring
from shadowsim.server.data_plane import spare_time as spare_time_module
from shadowsim.server.data_plane.backends import Answer, Call
from shadowsim.server.data_plane.mirror import CopyLimits, RequestMirror
from shadowsim.server.data_plane.spare_time import (
    AT_ONCE,
    ROUND_S,
    SAMPLE_S,
    TURN_S,
    SpareTime,
    Turns,
    needed_core_s,
    rest,
)

MOST_S = 0.1


class Work:
    """Pieces of work that wait for spare time: how each ended, by number, and after how long."""

    def __init__(self, needed_s=lambda: math.nan):
        self.spare_time, self.ends = SpareTime(needed_s), {}

    def add(self, most_s=MOST_S):
        loop, number = asyncio.get_running_loop(), len(self.ends)
        began, self.ends[number] = loop.time(), None

        def ended(how):
            self.ends[number] = how, loop.time() - began

        self.spare_time.wait(lambda: ended("started"), lambda: ended("shed"), most_s)

    def how(self):
        return [end and end[0] for end in self.ends.values()]


def take(seconds):
    """Do work that takes a time of the virtual clock."""
    asyncio.get_running_loop()._selector.now_s += seconds


async def rounds(n, seconds, work=None):
    """Do something in each of n rounds of the loop, so that it is never idle; begin work in each if some is given."""
    for _ in range(n):
        if work is not None:
            work.add()
        take(seconds)
        await asyncio.sleep(0)


def test_an_idle_loop_starts_work_at_once_and_no_more_than_some_pieces_in_a_round():
    """What a piece of work sets going comes before the next pieces."""

    async def run():
        spare_time, events, loop = SpareTime(), [], asyncio.get_running_loop()

        def start():
            events.append("started")
            loop.call_soon(events.append, "goes on")

        for _ in range(AT_ONCE + 1):
            spare_time.wait(start, lambda: events.append("shed"), MOST_S)
        await asyncio.sleep(0.0)
        assert loop.time() == 0.0
        await asyncio.sleep(1.0)
        return events

    events = virtual_time.run(run())
    assert events == ["started"] * AT_ONCE + ["goes on"] * AT_ONCE + ["started", "goes on"]


@pytest.mark.parametrize("round_s", [0.0002, 0.003, ROUND_S])
def test_a_loop_that_always_has_other_work_sheds_what_has_waited(round_s):
    async def run():
        work = Work()
        work.add()
        n_before = len(work.ends)
        while work.how() == [None]:
            assert not work.spare_time.is_busy
            await rounds(1, round_s)
        assert work.spare_time.is_busy  # what would come now would be shed, too
        await rounds(100, round_s)
        assert work.spare_time.is_busy
        await asyncio.sleep(1.0)
        assert not work.spare_time.is_busy
        work.add()
        await asyncio.sleep(1.0)
        return work, n_before

    work, n_before = virtual_time.run(run())
    assert work.how() == ["shed", "started"]
    assert MOST_S - 1e-9 <= work.ends[0][1] <= MOST_S + 2 * round_s
    assert n_before == 1


def test_one_long_round_sheds_nothing():
    """As that of a collection of garbage, after which there is a backlog of other work."""

    async def run():
        work = Work()
        for _ in range(3):
            work.add()
        take(30.0)
        await rounds(5, 0.001)
        assert work.how() == [None] * 3
        await asyncio.sleep(1.0)
        return work

    assert virtual_time.run(run()).how() == ["started"] * 3


def test_a_loop_with_time_to_spare_delays_copies_by_little_and_sheds_none():
    """Callers come 300 times a second, in clusters, and take 40 % of the loop's time."""

    async def run():
        work, random, loop = Work(), Random(1), asyncio.get_running_loop()

        def call():
            work.add()
            take(0.0004)
            loop.call_later(0.001, take, 0.0009)  # its answer

        at_s = 0.0
        for _ in range(3_000):
            at_s += random.expovariate(300.0)
            loop.call_at(at_s, call)
        await asyncio.sleep(at_s + 1.0)
        return work

    work = virtual_time.run(run())
    assert work.how() == ["started"] * 3_000
    waited_s = sorted(waited_s for _, waited_s in work.ends.values())
    # other work is ready 40 % of the time, in runs of a few pieces of 0.9 ms at most
    assert waited_s[1_500] < 0.001
    assert waited_s[-1] < MOST_S / 5


def test_callers_wait_for_copies_that_have_begun_alone():
    """In every 10 ms callers take 6 ms and there are ten copies of 1 ms each: there is time for four of these."""

    async def run():
        work, late_s, loop = Work(), [], asyncio.get_running_loop()
        wait = work.spare_time.wait
        work.spare_time.wait = lambda start, *more: wait(lambda: (start(), loop.call_soon(take, 0.001)), *more)

        def call(due_s):
            late_s.append(loop.time() - due_s)
            for _ in range(10):
                if not work.spare_time.is_busy:
                    work.add()
            for _ in range(6):
                loop.call_soon(take, 0.001)

        for k in range(1, 501):
            loop.call_at(0.01 * k, call, 0.01 * k)
        await asyncio.sleep(10.0)
        return late_s, work.how()

    late_s, how = virtual_time.run(run())
    assert max(late_s) <= AT_ONCE * 0.001 + 1e-9
    assert None not in how
    assert how.count("shed")
    assert abs(how.count("started") - 4 * 500) <= AT_ONCE + 10 * MOST_S / 0.01  # and those that wait in the end


@pytest.mark.parametrize(("share", "how"), [(0.5, "started"), (0.9, "started"), (1.0, "shed")])
def test_a_thread_that_always_needs_a_core_sheds_copies_though_its_loop_is_idle(share, how):
    """It needs all of the time for some samples, then a share of it, then little."""

    async def run():
        needed_s = 0.0
        work = Work(lambda: needed_s)

        async def need(share, samples=10):
            nonlocal needed_s
            for _ in range(samples * 100):
                await asyncio.sleep(0.01 * SAMPLE_S)
                needed_s += 0.01 * SAMPLE_S * share
                if work.spare_time.is_busy:
                    work.ends[len(work.ends)] = "shed", 0.0
                else:
                    work.add()
            await asyncio.sleep(0.01 * SAMPLE_S)

        await need(0.3)
        assert set(work.how()) == {"started"}
        await need(share)
        since = len(work.ends)
        await need(share)
        assert work.spare_time.is_busy == (how == "shed")
        last = set(work.how()[since:])
        await asyncio.sleep(2 * SAMPLE_S)
        assert not work.spare_time.is_busy
        await need(0.3)
        assert work.how()[-1] == "started"
        return last

    assert virtual_time.run(run()) == {how}


@pytest.mark.skipif(math.isnan(needed_core_s()), reason="the system does not tell")
def test_a_thread_is_known_to_need_a_core_while_it_computes_and_not_while_it_sleeps():
    def needed_by(work):
        before = needed_core_s()
        work()
        return needed_core_s() - before

    def compute():
        end_s = perf_counter() + 0.2
        while perf_counter() < end_s:
            pass

    # A tick of the scheduler, 10 ms at most, is not in the figure at either end.
    assert needed_by(compute) > 0.2 - 0.02
    assert needed_by(lambda: sleep(0.2)) < 0.15  # it wakes up, and may have to wait for a core


@pytest.mark.parametrize(("pause", "how"), [(rest, "started"), (lambda: asyncio.sleep(0), "shed")])
def test_long_work_that_rests_between_its_pieces_leaves_time(pause, how):
    async def run():
        work = Work()
        work.add()
        for _ in range(50):
            take(0.005)
            await pause()
        return work

    assert virtual_time.run(run()).how() == [how]


def test_a_drain_starts_what_waits_and_sheds_it_after_its_time():
    async def run(seconds):
        work = Work()
        work.add(most_s=1_000.0)
        busy = asyncio.create_task(rounds(20, seconds))
        await work.spare_time.drain(0.05)
        await busy
        return work.how()

    assert virtual_time.run(run(0.001)) == ["started"]
    assert virtual_time.run(run(0.01)) == ["shed"]


def test_copies_are_lost_to_an_overloaded_loop_and_nothing_is_sent():
    class Pool:
        n_invoked = 0

        async def invoke(self, call, timeout_s, receiver=None):
            self.n_invoked += 1
            return 0, Answer("answered", 0.1, 200)

    async def run():
        pool, causes, spare_time = Pool(), [], SpareTime()
        mirror = RequestMirror(Mirroring(), CopyLimits(max_wait_s=MOST_S), Random(1), spare_time)
        for _ in range(100):
            mirror.copy(pool, Call(b"xyz"), lambda *_: None, causes.append)
            await rounds(1, 0.005)
        assert (causes, pool.n_invoked) == ([SERVER_LAG] * 100, 0)
        assert (mirror.n_unanswered, mirror.n_unanswered_bytes) == (0, 0)
        await asyncio.sleep(1.0)
        mirror.copy(pool, Call(b"xyz"), lambda *_: None, causes.append)
        await mirror.drain(5.0)
        return len(causes), pool.n_invoked

    assert virtual_time.run(run()) == (100, 1)


def test_callers_of_a_busy_server_get_their_answers_and_copies_are_shed(tmp_path):
    containers = {"source": Container(), "shadow": Container()}
    with serving(tmp_path, containers, copy_limits=CopyLimits()) as server:
        server.experiment()
        spare_time, loop, is_on = server.app.spare_time, server.loop.loop, True

        def work():
            sleep(0.005)
            if is_on:
                loop.call_soon(work)

        def n_lost():
            windows = [row for row in server.frame("test", "windows") if row["role"] == "shadow"]
            return sum(row["copies_lost_server_lag"] for row in windows)

        loop.call_soon_threadsafe(work)
        server.invoke(Body=b"x")
        until(lambda: spare_time.is_busy)
        for _ in range(7):
            assert server.invoke(Body=b"x")["Body"].read() == b"x"
        until(lambda: n_lost() == 8)
        lines = server.get("/metrics")
        assert b'cause="server_lag",endpoint="endpoint",role="shadow",variant="Shadow-01"} 8.0' in lines
        assert not containers["shadow"].requests
        is_on = False
        until(lambda: not spare_time.is_busy)
        server.invoke(Body=b"x")
        until(lambda: len(containers["shadow"].requests) == 1)


def test_long_work_in_short_pieces_rests_after_each_turn(monkeypatch):
    used_s = 0.0
    monkeypatch.setattr(spare_time_module, "thread_time", lambda: used_s)

    async def run():
        nonlocal used_s
        turns, rested = Turns(), []
        for i in range(20):
            used_s += 0.3 * TURN_S
            before = asyncio.get_running_loop().time()
            await turns.pause()
            if asyncio.get_running_loop().time() > before:
                rested.append(i)
        return rested

    assert virtual_time.run(run()) == [3, 7, 11, 15, 19]
