"""Calls a function at planned moments of the monotonic clock, to within a fraction of a millisecond.

Timers of an event loop wait in whole milliseconds. A kernel timer (timerfd, Linux) wakes the loop at the moment itself;
elsewhere the loop's own timers serve. The moments are absolute: a call that comes late does not shift those after it.
What is overdue is called at once, but only so many in a row, so that the loop also reads answers when it is behind.
"""

from __future__ import annotations

import ctypes
import os
import sys
from asyncio import AbstractEventLoop, Future, TimerHandle
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from shadowsim.arrays import Floats

MOST_IN_A_ROW = 32
_MONOTONIC, _ABSOLUTE = 1, 1  # CLOCK_MONOTONIC and TFD_TIMER_ABSTIME of <sys/timerfd.h>
_NONBLOCK, _CLOEXEC = getattr(os, "O_NONBLOCK", 0), getattr(os, "O_CLOEXEC", 0)


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
        self._set_ns, self._fd = _kernel_timer()
        self._loop = loop
        loop.add_reader(self._fd, ring)

    def set(self, at_s: float) -> None:
        """Call back at this moment; setting also takes back a call that is due."""
        self._set_ns(self._fd, max(int(at_s * 1e9), 1))  # 0 would switch it off

    def close(self) -> None:
        """Give the timer back to the system."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


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
    if not sys.platform.startswith("linux"):
        return LoopTimer
    try:
        _, fd = _kernel_timer()
    except (OSError, AttributeError):  # a system that looks like Linux, without timerfd
        return LoopTimer
    os.close(fd)
    return TimerFd


class _TimeSpec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("it_interval", _TimeSpec), ("it_value", _TimeSpec))


def _kernel_timer() -> tuple[Callable[[int, int], None], int]:
    """Return a function that sets a timer to a moment in nanoseconds, and the timer's file descriptor."""
    if sys.version_info >= (3, 13):
        flags = os.TFD_NONBLOCK | os.TFD_CLOEXEC

        def set_ns(fd: int, at_ns: int) -> None:
            os.timerfd_settime_ns(fd, flags=os.TFD_TIMER_ABSTIME, initial=at_ns)

        return set_ns, os.timerfd_create(_MONOTONIC, flags=flags)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.timerfd_create(_MONOTONIC, _NONBLOCK | _CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "no timerfd")
    spec = _TimerSpec()

    def set_spec(fd: int, at_ns: int) -> None:
        spec.it_value.tv_sec, spec.it_value.tv_nsec = divmod(at_ns, 1_000_000_000)
        libc.timerfd_settime(fd, _ABSOLUTE, ctypes.byref(spec), None)

    return set_spec, fd
