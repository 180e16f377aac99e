"""Starts copies when loop and machine have nothing else to do, and sheds those that wait for too long.

Callers and copies share a loop. A copy waits in a queue, and each round of the loop looks whether anything else is
ready to run: a request that has arrived, an answer, a timer. If nothing is, the first AT_ONCE copies of the queue
begin. So no caller waits for a copy that has not begun, and a loop that has more to do than time makes no copies.

A copy that has waited for its limit is shed. From then on the loop is busy: further copies are shed at once, which
costs the least, until there is a round with nothing else to do. The wait is measured in rounds of the loop, each of
which counts as ROUND_S at most. So one long round sheds nothing: that of a garbage collection, of an import, or of a
machine that does other work.

A loop may find time for copies on a machine that has none: callers' programs, containers and the server wait for a core
in turn, and the loop for all of them. So where the system tells, the thread's own need of a core is looked at. If it
ran, or waited to run, for nearly all of two samples, of SAMPLE_S each, copies are shed until it has needed less again;
one long round is in one sample.

Long work that is done piece by piece would keep the loop from ever being idle. Between its pieces it rests (`rest`), or
if these are shorter than a rest, after some of them (`Turns`).
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from time import thread_time
from typing import NamedTuple

from shadowsim.core_time import core_time

AT_ONCE = 4  # copies: a millisecond or two of the loop's time, for which a caller may have to wait
ROUND_S = 0.01
REST_S = 0.001  # the least that the loop's timers tell apart
TURN_S = 0.002  # of the processor's time
SAMPLE_S = 0.1
ALWAYS, OFTEN = 0.97, 0.9  # of that time: copies are shed above the one, and begin again below the other
_STEP_S = 0.005


class _Waiting(NamedTuple):
    start: Callable[[], None]
    shed: Callable[[], None]
    due_s: float  # by the clock of waiting


def needed_core_s() -> float:
    """Return how long this thread has run, or waited for a core; NaN where the system does not tell."""
    return sum(core_time())


class SpareTime:
    """The time of one event loop that is left beside its other work.

    Parameters
    ----------
    needed_s : callable
        Returns how long the loop's thread has run, or waited for a core.

    Attributes
    ----------
    is_busy : bool
        Whether work was shed since there was last nothing else to do; what would come now would be shed, too.
    """

    def __init__(self, needed_s: Callable[[], float] = needed_core_s) -> None:
        self.is_busy = False
        self._needed_s, self._sampled_s, self._needed_before_s = needed_s, -math.inf, math.nan
        self._share, self._needs_core = 0.0, False
        self._queue: deque[_Waiting] = deque()
        self._is_looking = False
        self._looked_s = self._waited_s = 0.0

    def wait(self, start: Callable[[], None], shed: Callable[[], None], most_s: float) -> None:
        """Start work when nothing else is to do; work that has waited for `most_s` is shed."""
        if not self._is_looking:
            loop = asyncio.get_running_loop()
            self._is_looking, self._looked_s = True, loop.time()
            loop.call_soon(self._look, loop)
        self._queue.append(_Waiting(start, shed, self._waited_s + most_s))

    async def drain(self, timeout_s: float) -> None:
        """Wait until all has been started or shed, and shed what has waited for a time."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        while self._queue and loop.time() < end_s:
            await asyncio.sleep(_STEP_S)
        while self._queue:
            self._queue.popleft().shed()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at the queue, as the first work of a round of the loop."""
        queue, now = self._queue, loop.time()
        self._waited_s += min(now - self._looked_s, ROUND_S)
        self._looked_s = now
        if self._always_needs_core(now):
            self.is_busy = True
            loop.call_later(SAMPLE_S, self._look, loop)  # first: it looks again whatever becomes of the copies
            while queue:
                queue.popleft().shed()
            return
        try:
            if not loop._ready:  # type: ignore[attr-defined]  # asyncio says nowhere else whether a loop is idle
                self.is_busy = False
                for _ in range(min(AT_ONCE, len(queue))):
                    queue.popleft().start()
            else:
                while queue and queue[0].due_s <= self._waited_s:
                    self.is_busy = True
                    queue.popleft().shed()
        finally:
            self._is_looking = bool(queue) or self.is_busy
            if self._is_looking:
                loop.call_soon(self._look, loop)

    def _always_needs_core(self, now: float) -> bool:
        """Return whether the thread hardly ever had nothing to do, as of the last two samples."""
        if now - self._sampled_s >= SAMPLE_S:
            needed_s = self._needed_s()
            share = (needed_s - self._needed_before_s) / (now - self._sampled_s)
            self._needs_core = share > OFTEN if self._needs_core else min(share, self._share) > ALWAYS
            self._share, self._sampled_s, self._needed_before_s = share, now, needed_s
        return self._needs_core


async def rest() -> None:
    """Let other work have the loop, copies as well, between two pieces of long work."""
    await asyncio.sleep(REST_S)


class Turns:
    """The turns of long work that is done in short pieces: it rests whenever one has taken TURN_S."""

    def __init__(self) -> None:
        self._end_s = thread_time() + TURN_S

    async def pause(self) -> None:
        """Rest if the turn is over; to be awaited after each piece."""
        if thread_time() >= self._end_s:
            await rest()
            self._end_s = thread_time() + TURN_S
