"""Measures how late the server's event loop runs, so that its delays are not taken for a container's.

A loop that has too much to do, or that one piece of work has held up, sees everything late: connections that were made
long ago, answers that have arrived, and the timers of time-outs. A time-out by the wall clock would then expire
although the container was quick. So the loop's own time stands still while the loop is late, and time-outs run on it.

The lag is measured by a timer that is due every TICK_S. Its delay, beyond the JITTER_S of any timer, is time in which
the loop did not come to what was due.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

TICK_S, JITTER_S = 0.05, 0.001


class LoopClock:
    """The own time of an event loop, and its lag; before `start`, the loop counts as never late."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = math.inf
        self._total_s = 0.0

    def start(self) -> None:
        """Begin to measure the running loop."""
        self._loop = asyncio.get_running_loop()
        self._arm(self._loop.time())

    def stop(self) -> None:
        """Stop measuring."""
        if self._timer is not None:
            self._timer.cancel()
        self._due_s = math.inf

    @property
    def total_s(self) -> float:
        """Seconds for which the loop was late since the start."""
        return self._total_s + self._overdue_s(self._loop.time() if self._loop else 0.0)

    def within(self, limit_s: float) -> Within:
        """Return a context that ends with TimeoutError after a time of the loop's own clock."""
        return Within(self, limit_s)

    def _overdue_s(self, now: float) -> float:
        return max(now - self._due_s - JITTER_S, 0.0)

    def _arm(self, now: float) -> None:
        assert self._loop is not None
        self._due_s = now + TICK_S
        self._timer = self._loop.call_at(self._due_s, self._tick)

    def _tick(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        self._total_s += self._overdue_s(now)
        self._arm(now)


class Within:
    """A time limit on the work of a task, like `asyncio.timeout`, by a loop's own time."""

    __slots__ = ("_cancelling", "_clock", "_end_s", "_expired", "_limit_s", "_loop", "_task", "_timer")

    def __init__(self, clock: LoopClock, limit_s: float):
        self._clock, self._limit_s = clock, limit_s
        self._expired = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._end_s = self._now() + self._limit_s
        self._timer = self._loop.call_later(self._limit_s, self._fire)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _now(self) -> float:
        return self._loop.time() - self._clock.total_s

    def _fire(self) -> None:
        left_s = self._end_s - self._now()
        if left_s > JITTER_S:  # the loop was late: what has arrived meanwhile is looked at first
            self._timer = self._loop.call_later(left_s, self._fire)
        else:
            self._expired = True
            self._task.cancel()
