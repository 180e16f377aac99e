"""The server's time: the wall clock's, scaled, and the same line of time after a restart.

With a scale of 3,600 an hour of schedule passes in a second. Scaled time begins as wall time when a store is made and
runs from there; it runs on while the server is down, never goes back, and takes up a new scale where the old one
ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import time

from shadowsim.errors import InputError

MAX_SCALE = 100_000.0  # a day and four hours a second
_LATEST_S = 221_845_392_000.0  # the year 9000: scaled time stops there, before the calendar does
Origin = tuple[float, float, float]  # wall time, scaled time, and the scale from there on


@dataclass(frozen=True, slots=True)
class Clock:
    """Scaled time as a function of wall time.

    Attributes
    ----------
    wall_s, scaled_s : float
        A moment in both times, seconds since 1970.
    scale : float
        Scaled seconds a wall second from then on.
    wall : callable
        The wall clock.
    """

    wall_s: float
    scaled_s: float
    scale: float = 1.0
    wall: Callable[[], float] = time

    def __post_init__(self) -> None:
        if not 0 < self.scale <= MAX_SCALE:
            raise InputError("--time-scale", f"must be > 0 and <= {MAX_SCALE:g}", self.scale)

    @classmethod
    def resumed(cls, origin: Origin | None, scale: float = 1.0, wall: Callable[[], float] = time) -> Clock:
        """Return the clock that goes on from what a store remembers (None: that begins now)."""
        if origin is None:
            began_s = wall()
            return cls(began_s, began_s, scale, wall)
        old = cls(*origin, wall)
        if scale == old.scale:
            return old
        wall_s = max(wall(), old.wall_s)
        return cls(wall_s, old.at(wall_s), scale, wall)

    @property
    def origin(self) -> Origin:
        """What a store must remember of this clock."""
        return self.wall_s, self.scaled_s, self.scale

    def now(self) -> float:
        """Return the scaled time now, in seconds since 1970."""
        return self.at(self.wall())

    def at(self, wall_s: float) -> float:
        """Return the scaled time of a wall time."""
        return min(self.scaled_s + (wall_s - self.wall_s) * self.scale, _LATEST_S)
