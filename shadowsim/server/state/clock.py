"""The server's time: the wall clock's, scaled, and the same line of time after a restart.

With a scale of 3,600 an hour of schedule passes in a second. Scaled time begins as wall time when a store is made and
runs from there; it runs on while the server is down, never goes back, and takes up a new scale where the old one
ended. When the wall clock is set back, scaled time goes on from where it was: it neither follows nor waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import time

from shadowsim.errors import InputError

MAX_SCALE = 100_000.0  # a day and four hours a second
_LATEST_S = 221_845_392_000.0  # the year 9000: scaled time stops there, before the calendar does
Origin = tuple[float, float, float]  # wall time, scaled time, and the scale from there on


@dataclass(slots=True)
class Clock:
    """Scaled time as a function of wall time; another one each time that this is set back.

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
    _seen_s: float = field(init=False, repr=False)  # the wall time that was read last

    def __post_init__(self) -> None:
        self._seen_s = self.wall_s
        if not 0 < self.scale <= MAX_SCALE:
            raise InputError("--time-scale", f"must be > 0 and <= {MAX_SCALE:g}", self.scale)

    @classmethod
    def resumed(
        cls,
        origin: Origin | None,
        scale: float = 1.0,
        wall: Callable[[], float] = time,
        reached_s: float = float("-inf"),
    ) -> Clock:
        """Return the clock that goes on from what a store remembers.

        Parameters
        ----------
        origin : tuple of float or None
            None for a clock that begins now.
        scale : float
            From now on.
        wall : callable
        reached_s : float
            The last scaled moment that is known to have been; it is not before that one.
        """
        wall_s = wall()
        if origin is None:
            return cls(wall_s, wall_s, scale, wall)
        old = cls(*origin, wall)
        least_s = max(old.scaled_s, reached_s)
        if scale == old.scale and old.at(wall_s) >= least_s:
            old._seen_s = wall_s
            return old  # as it is, for each new beginning would round once more
        return cls(wall_s, max(old.at(wall_s), least_s), scale, wall)

    @property
    def origin(self) -> Origin:
        """What a store must remember of this clock."""
        return self.wall_s, self.scaled_s, self.scale

    def now(self) -> float:
        """Return the scaled time now, in seconds since 1970."""
        wall_s = self.wall()
        if wall_s < self._seen_s:
            self.wall_s, self.scaled_s = wall_s, self.at(self._seen_s)
        self._seen_s = wall_s
        return self.at(wall_s)

    def at(self, wall_s: float) -> float:
        """Return the scaled time of a wall time."""
        return min(self.scaled_s + (wall_s - self.wall_s) * self.scale, _LATEST_S)
