"""Mirrors: the rules of copying and the limits of copies; test_invoke has shadows that misbehave."""

import asyncio
from math import floor, sqrt
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.scenario.reading import Mirroring
from shadowsim.server.data_plane.backends import Answer, Call
from shadowsim.server.data_plane.mirror import CopyLimits, RequestMirror


class VariantPool:
    """A shadow that answers once it is open, or raises an error."""

    def __init__(self, error=None):
        self.open, self.error = asyncio.Event(), error

    async def invoke(self, call, timeout_s, receiver=None):
        await self.open.wait()
        if self.error:
            raise self.error
        return 0, Answer("answered", 0.1, 200)


def mirror_of(mirroring=None, limits=None):
    return RequestMirror(mirroring or Mirroring(), limits or CopyLimits(), Random(3))


@given(st.integers(0, 100), st.integers(1, 300))
def test_the_counter_copies_when_the_floor_of_the_share_grows(percentage, n):
    mirror = mirror_of(Mirroring(rule="counter"))
    copied = [mirror.chooses(percentage, "") for _ in range(n)]
    assert copied == [floor(i * percentage / 100) > floor((i - 1) * percentage / 100) for i in range(1, n + 1)]


@pytest.mark.parametrize("rule", ["coin", "hash"])
@pytest.mark.parametrize("percentage", [0, 1, 37.5, 100])
def test_coin_and_hash_copy_the_share(rule, percentage):
    mirror, n = mirror_of(Mirroring(rule=rule)), 20_000
    copied = sum(mirror.chooses(percentage, f"session-{i}") for i in range(n))
    p = percentage / 100
    assert abs(copied - n * p) <= 4 * sqrt(n * p * (1 - p))  # four standard errors; exact at 0 and 1


def test_a_hash_is_sticky_and_grows_with_the_share():
    mirror = mirror_of(Mirroring(rule="hash"))
    chosen = [{s for s in map(str, range(500)) if mirror.chooses(p, s)} for p in (10, 10, 40)]
    assert chosen[0] == chosen[1]
    assert chosen[0] < chosen[2]


async def causes_of_loss(mirror, n, n_bytes=1):
    """Send n copies at once and return the limit that each is lost to, "" for one that is sent."""
    pool, causes = VariantPool(), []
    for _ in range(n):
        lost = []
        mirror.copy(pool, Call(b"x" * n_bytes), lambda *_: None, lost.append)
        causes.append(lost[0] if lost else "")
    pool.open.set()
    await mirror.drain(5.0)
    assert (mirror.n_unanswered, mirror.n_unanswered_bytes) == (0, 0)
    return causes


@pytest.mark.parametrize(
    ("mirroring", "n_bytes", "n_sent", "cause"),
    [
        (Mirroring(), 1, 5, ""),
        (Mirroring(max_body_bytes=9), 10, 0, "max_body_bytes"),
        (Mirroring(max_body_bytes=10), 10, 5, ""),
        (Mirroring(max_in_flight=2), 1, 2, "max_in_flight"),
        (Mirroring(max_in_flight=0), 1, 0, "max_in_flight"),
        (Mirroring(max_per_s=3), 1, 3, "max_per_s"),
        (Mirroring(max_per_s=0), 1, 0, "max_per_s"),
    ],
)
def test_limits_of_the_scenario(mirroring, n_bytes, n_sent, cause):
    causes = asyncio.run(causes_of_loss(mirror_of(mirroring), 5, n_bytes))
    assert causes == [""] * n_sent + [cause] * (5 - n_sent)


@pytest.mark.parametrize(("limits", "n_sent"), [(CopyLimits(max_copies=4), 4), (CopyLimits(max_copies_bytes=25), 2)])
def test_limits_of_the_server(limits, n_sent):
    causes = asyncio.run(causes_of_loss(mirror_of(limits=limits), 5, n_bytes=10))
    assert causes == [""] * n_sent + ["max_in_flight"] * (5 - n_sent)


def test_a_second_later_there_is_room_again(monkeypatch):
    now_s = 100.0
    mirror = mirror_of(Mirroring(max_per_s=2))

    async def run():
        nonlocal now_s
        before = await causes_of_loss(mirror, 3)
        now_s = 101.001
        return before, await causes_of_loss(mirror, 3)

    with monkeypatch.context() as patched:
        patched.setattr("asyncio_throttle.throttler.time", SimpleNamespace(monotonic=lambda: now_s))
        assert asyncio.run(run()) == (["", "", "max_per_s"], ["", "", "max_per_s"])


def test_a_defect_behind_a_copy_is_an_answer_and_no_error(caplog):
    async def run():
        mirror, pool, answers = mirror_of(), VariantPool(RuntimeError("a defect")), []
        pool.open.set()
        mirror.copy(pool, Call(b""), lambda instance, answer, ended: answers.append(answer), lambda cause: None)
        await mirror.drain(5.0)
        return answers

    (answer,) = asyncio.run(run())
    assert answer.outcome == "broken"
    assert "a copy failed inside the server" in caplog.text


def test_a_drain_cancels_late_copies():
    async def run():
        mirror = mirror_of()
        mirror.copy(VariantPool(), Call(b""), lambda *_: None, lambda cause: None)
        await mirror.drain(0.01)
        return mirror.n_unanswered

    assert asyncio.run(run()) == 0


def test_a_copy_that_is_given_up_is_lost():
    class GivingUp(VariantPool):
        async def invoke(self, call, timeout_s, receiver=None):
            return 0, Answer("given_up", 0.1)

    async def run():
        mirror, done, lost = mirror_of(), [], []
        mirror.copy(GivingUp(), Call(b"x"), lambda *_: done.append(1), lost.append)
        await mirror.drain(5.0)
        return done, lost, mirror.n_unanswered

    assert asyncio.run(run()) == ([], ["max_in_flight"], 0)
