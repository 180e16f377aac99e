"""Calls a function at planned moments of the monotonic clock, to within a fraction of a millisecond.

Timers of an event loop wait in whole milliseconds. A kernel timer (timerfd, Linux) wakes the loop at the moment itself;
elsewhere the loop's own timers serve. The moments are absolute: a call that comes late does not shift those after it.
What is overdue is called at once, but only so many in a row, so that the loop also reads answers when it is behind.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, TimerHandle
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from shadowsim.arrays import Floats
from shadowsim.kernel_timer import KernelTimer, has_kernel_timers

MOST_IN_A_ROW = 32


class Alarm(Protocol):
    """Something that calls back once, at a moment that can be moved."""

    def set(self, at_s: float) -> None:
        """Call back at this moment of the monotonic clock, at once if it is past, and at no earlier set one."""

    def close(self) -> None:
        """Never call back again."""


class TimerFd:
    """A kernel timer that the event loop watches; for Linux.

    Parameters
    ----------
    loop : AbstractEventLoop
    ring : callable
        Is called in the loop at the moment that was set.

    Raises
    ------
    OSError
        The system has no such timers.
    """

    def __init__(self, loop: AbstractEventLoop, ring: Callable[[], None]):
        self._loop, self._timer = loop, KernelTimer()
        self.set = self._timer.set
        loop.add_reader(self._timer.fd, ring)

    def close(self) -> None:
        """Give the timer back to the system."""
        self._loop.remove_reader(self._timer.fd)
        self._timer.close()


class LoopTimer:
    """The event loop's own timer, which is late by up to a millisecond or so."""

    def __init__(self, loop: AbstractEventLoop, ring: Callable[[], None]):
        self._loop, self._ring = loop, ring
        self._handle: TimerHandle | None = None

    def set(self, at_s: float) -> None:
        """Call back at this moment."""
        self.close()
        self._handle = self._loop.call_later(max(at_s - monotonic(), 0.0), self._ring)

    def close(self) -> None:
        """Cancel the timer."""
        if self._handle is not None:
            self._handle.cancel()


class Pacer:
    """Calls a function for each of a list of planned moments.

    Parameters
    ----------
    loop : AbstractEventLoop
    due_s : ndarray of float64, shape (n,)
        Moments of `time.monotonic`, ascending.
    call : callable
        Takes the number of a moment, 0 to n - 1; must return soon.
    alarm : callable, optional
        Makes the alarm; by default a kernel timer where there is one.

    Attributes
    ----------
    finished : Future
        Is done after the last call, or after `stop`; holds an exception that `call` raised.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        due_s: Floats,
        call: Callable[[int], None],
        alarm: Callable[[AbstractEventLoop, Callable[[], None]], Alarm] | None = None,
    ):
        self._due, self._call, self._next = due_s.tolist(), call, 0
        self.finished: Future[None] = loop.create_future()
        self._alarm = (alarm or best_alarm())(loop, self._ring)
        self._proceed()

    def stop(self) -> None:
        """Make no more calls."""
        if not self.finished.done():
            self._alarm.close()
            self.finished.set_result(None)

    def _ring(self) -> None:
        due, last = self._due, min(self._next + MOST_IN_A_ROW, len(self._due))
        try:
            while self._next < last and due[self._next] <= monotonic():
                self._next += 1
                self._call(self._next - 1)
        except Exception as error:
            if not self.finished.done():
                self._alarm.close()
                self.finished.set_exception(error)
        self._proceed()

    def _proceed(self) -> None:
        if self.finished.done():
            return
        if self._next < len(self._due):
            self._alarm.set(self._due[self._next])
        else:
            self.stop()


def best_alarm() -> Callable[[AbstractEventLoop, Callable[[], None]], Alarm]:
    """Return the most exact kind of alarm that the system has."""
    return TimerFd if has_kernel_timers() else LoopTimer
