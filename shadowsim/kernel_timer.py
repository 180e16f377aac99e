"""Waits with timers of the kernel (timerfd, Linux), exact to some hundredths of a millisecond.

An event loop waits in whole milliseconds, so that its timers are late by half a millisecond in the mean, which is much
beside answers of some milliseconds. `exact_loop` makes a loop whose timers are as exact as the kernel's.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import selectors
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable
from time import monotonic

_MONOTONIC, _ABSOLUTE = 1, 1  # CLOCK_MONOTONIC and TFD_TIMER_ABSTIME of <sys/timerfd.h>
_NONBLOCK, _CLOEXEC = getattr(os, "O_NONBLOCK", 0), getattr(os, "O_CLOEXEC", 0)
_SPARE_S = 0.002  # by which a loop would wait longer than its timer, to be woken by the timer alone


class KernelTimer:
    """A timer whose file descriptor can be read from a moment on.

    Attributes
    ----------
    fd : int

    Raises
    ------
    OSError
        The system has no such timers.
    """

    def __init__(self) -> None:
        self._set_ns, self.fd = _timer()

    def set(self, at_s: float) -> None:
        """Set it to a moment of the monotonic clock; what was due before is taken back."""
        self._set_ns(self.fd, max(int(at_s * 1e9), 1))

    def stop(self) -> None:
        """Switch it off."""
        self._set_ns(self.fd, 0)

    def close(self) -> None:
        """Give it back to the system."""
        os.close(self.fd)


def has_kernel_timers() -> bool:
    """Return whether the system has timers that can be waited for as for a file."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        KernelTimer().close()
    except (OSError, AttributeError):  # a system that looks like Linux, without timerfd
        return False
    return True


def exact_loop() -> AbstractEventLoop:
    """Return a new event loop with exact timers; where the system has none, the usual one."""
    if not has_kernel_timers():
        return asyncio.new_event_loop()
    return asyncio.SelectorEventLoop(_exact_selector())


def _exact_selector() -> selectors.BaseSelector:
    from select import EPOLLIN

    class ExactSelector(selectors.EpollSelector):
        """Waits for files, and no longer than asked: a timer ends the wait."""

        def __init__(self) -> None:
            super().__init__()
            self._timer, self._is_set = KernelTimer(), False
            self._selector.register(self._timer.fd, EPOLLIN)  # type: ignore[attr-defined]

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """Return the files that are ready."""
            if timeout is not None and timeout > 0.0:
                self._timer.set(monotonic() + timeout)
                self._is_set = True
                return super().select(timeout + _SPARE_S)
            if self._is_set and timeout is None:
                self._timer.stop()
                self._is_set = False
            return super().select(timeout)

        def close(self) -> None:
            """Close the timer, too."""
            self._timer.close()
            super().close()

    return ExactSelector()


class _TimeSpec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("it_interval", _TimeSpec), ("it_value", _TimeSpec))


def _timer() -> tuple[Callable[[int, int], None], int]:
    """Return a function that sets a timer to a moment in nanoseconds (0: off), and the timer's file descriptor."""
    if sys.version_info >= (3, 13):
        flags = os.TFD_NONBLOCK | os.TFD_CLOEXEC

        def set_ns(fd: int, at_ns: int) -> None:
            os.timerfd_settime_ns(fd, flags=os.TFD_TIMER_ABSTIME, initial=at_ns)

        return set_ns, os.timerfd_create(_MONOTONIC, flags=flags)
    libc = ctypes.PyDLL(
        None, use_errno=True
    )  # keeps the interpreter's lock, which another thread may not give back soon
    fd = libc.timerfd_create(_MONOTONIC, _NONBLOCK | _CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "no timerfd")
    spec = _TimerSpec()

    def set_spec(fd: int, at_ns: int) -> None:
        spec.it_value.tv_sec, spec.it_value.tv_nsec = divmod(at_ns, 1_000_000_000)
        libc.timerfd_settime(fd, _ABSOLUTE, ctypes.byref(spec), None)

    return set_spec, fd
