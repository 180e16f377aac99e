"""Which requests are copied and what a copy is lost to. What a bad shadow does to the caller: test_server_runtime."""

import asyncio
from math import floor, sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.server.data_plane.backends import Answer, Call
from shadowsim.server.data_plane.mirror import Mirroring, RequestMirror


class InstancePool:
    """A shadow that answers when it is let, or fails inside."""

    def __init__(self, error=None):
        self.open, self.error = asyncio.Event(), error

    async def invoke(self, call, timeout_s):
        await self.open.wait()
        if self.error:
            raise self.error
        return 0, Answer("answered", 0.1, 200)


@given(st.integers(0, 100), st.integers(1, 300))
def test_the_counter_copies_where_the_share_s_floor_grows(percentage, n):
    mirror = RequestMirror(Mirroring(rule="counter"), Random(1))
    got = [mirror.chooses(percentage, "") for _ in range(n)]
    assert got == [floor(i * percentage / 100) > floor((i - 1) * percentage / 100) for i in range(1, n + 1)]


@pytest.mark.parametrize("rule", ["coin", "hash"])
@pytest.mark.parametrize("percentage", [0, 1, 37.5, 100])
def test_coin_and_hash_copy_the_share(rule, percentage):
    mirror, n = RequestMirror(Mirroring(rule=rule), Random(3)), 20_000
    copied = sum(mirror.chooses(percentage, f"session-{i}") for i in range(n))
    p = percentage / 100
    assert abs(copied - n * p) <= 4 * sqrt(n * p * (1 - p))  # four standard errors; exact at 0 and 1


def test_a_hash_is_sticky_and_grows_with_the_share():
    mirror = RequestMirror(Mirroring(rule="hash"), Random(3))
    chosen = [{s for s in map(str, range(500)) if mirror.chooses(p, s)} for p in (10, 10, 40)]
    assert chosen[0] == chosen[1]
    assert chosen[0] < chosen[2]


def lost_of(settings, n, n_bytes=1, before=None):
    """What each of n copies at once is lost to, "" for none."""

    async def run():
        mirror, pool, out = RequestMirror(settings, Random(1)), InstancePool(), []
        for _ in range(n):
            causes = []
            mirror.copy(pool, Call(b"x" * n_bytes), lambda *_: None, causes.append)
            out.append(causes[0] if causes else "")
        pool.open.set()
        await mirror.drain(5.0)
        assert (mirror.n_unanswered, mirror.n_unanswered_bytes) == (0, 0)
        return out

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("settings", "n_bytes", "kept", "cause"),
    [
        (Mirroring(), 1, 5, ""),
        (Mirroring(max_body_bytes=9), 10, 0, "max_body_bytes"),
        (Mirroring(max_body_bytes=10), 10, 5, ""),
        (Mirroring(max_in_flight=2), 1, 2, "max_in_flight"),
        (Mirroring(max_in_flight=0), 1, 0, "max_in_flight"),
        (Mirroring(max_per_s=3), 1, 3, "max_per_s"),
        (Mirroring(max_per_s=0), 1, 0, "max_per_s"),
        (Mirroring(max_copies=4), 1, 4, "max_in_flight"),
        (Mirroring(max_copies_bytes=25), 10, 2, "max_in_flight"),
    ],
)
def test_what_copies_are_lost_to(settings, n_bytes, kept, cause):
    assert lost_of(settings, 5, n_bytes) == [""] * kept + [cause] * (5 - kept)


def test_a_second_later_there_is_room_again(monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    mirror = RequestMirror(Mirroring(max_per_s=2), Random(1))
    assert [mirror._cause(1) for _ in range(3)] == ["", "", "max_per_s"]
    now = 101.001
    assert [mirror._cause(1) for _ in range(3)] == ["", "", "max_per_s"]


def test_a_defect_behind_a_copy_is_an_answer_and_no_error(caplog):
    async def run():
        mirror, pool, answers = RequestMirror(Mirroring(), Random(1)), InstancePool(RuntimeError("a defect")), []
        pool.open.set()
        mirror.copy(pool, Call(b""), lambda instance, answer, ended: answers.append(answer), lambda cause: None)
        await mirror.drain(5.0)
        return answers

    (answer,) = asyncio.run(run())
    assert answer.outcome == "broken"
    assert "a copy failed inside the server" in caplog.text


def test_a_drain_gives_up_what_takes_too_long():
    async def run():
        mirror = RequestMirror(Mirroring(), Random(1))
        mirror.copy(InstancePool(), Call(b""), lambda *_: None, lambda cause: None)
        await mirror.drain(0.01)
        return mirror.n_unanswered

    assert asyncio.run(run()) == 0


def test_a_copy_that_is_given_up_is_lost():
    class GivingUp(InstancePool):
        async def invoke(self, call, timeout_s):
            return 0, Answer("given_up", 0.1)

    async def run():
        mirror, done, lost = RequestMirror(Mirroring(), Random(1)), [], []
        mirror.copy(GivingUp(), Call(b"x"), lambda *_: done.append(1), lost.append)
        await mirror.drain(5.0)
        return done, lost, mirror.n_unanswered

    assert asyncio.run(run()) == ([], ["max_in_flight"], 0)
