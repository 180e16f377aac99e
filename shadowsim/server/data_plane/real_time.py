"""Tells simulated instances that batch what time it is, by timers of the event loop."""

from __future__ import annotations

import asyncio
import math
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class _Machine(Protocol[T]):
    """An instance that is told the time: `enter` takes a request, `advance` returns those whose end is now known."""

    @property
    def next_s(self) -> float: ...

    def enter(self, request: T, /) -> bool: ...

    def advance(self, now: float) -> list[T]: ...


class RealTime(Generic[T]):
    """Tells an instance that batches what time it is, by one timer of the event loop."""

    def __init__(self, machine: _Machine[T]):
        self._machine = machine
        self._waiting: dict[int, asyncio.Future[None]] = {}  # by identity of a request
        self._timer: asyncio.TimerHandle | None = None

    async def serve(self, request: T, arrival: float, give_up: float) -> bool:
        """Wait until the end of a request is known, or its caller gives up; return False if there is no room for it."""
        if not self.enter(request, arrival):
            return False
        loop = asyncio.get_running_loop()
        decided = self._waiting[id(request)] = loop.create_future()
        self.advance(arrival)
        timer = loop.call_at(give_up, set_done, decided)
        try:
            await decided
        finally:
            timer.cancel()
            del self._waiting[id(request)]
        self.advance(loop.time())  # the timer of the caller may have fired before that of the instance
        return True

    def enter(self, request: T, arrival: float) -> bool:
        """Bring a request, and return whether there is room for it."""
        self.advance(arrival)
        is_in = self._machine.enter(request)
        self.advance(arrival)
        return is_in

    def advance(self, now: float) -> None:
        """Let everything happen up to a moment, and set the timer to what happens next."""
        for request in self._machine.advance(now):
            if (decided := self._waiting.get(id(request))) is not None:
                set_done(decided)
        next_s = self._machine.next_s
        if self._timer is not None:
            if self._timer.when() == next_s and not self._timer.cancelled():
                return
            self._timer.cancel()
            self._timer = None
        if next_s < math.inf:
            self._timer = asyncio.get_running_loop().call_at(next_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.advance(asyncio.get_running_loop().time())


async def until(loop: asyncio.AbstractEventLoop, moment: float) -> None:
    """Sleep until a moment of the loop's clock."""
    if moment > loop.time():
        done = loop.create_future()
        timer = loop.call_at(moment, set_done, done)
        try:
            await done
        finally:
            timer.cancel()


def set_done(done: asyncio.Future[None]) -> None:
    """Wake who waits for a future, if nothing has yet."""
    if not done.done():
        done.set_result(None)
