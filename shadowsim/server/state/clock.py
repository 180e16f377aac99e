"""Computes the server's time: a scaled wall clock that survives restarts.

With a scale of 3,600, an hour of a schedule passes in a second. Scaled time equals wall time when a store is created
and runs from there, also while the server is down. It never goes back, and a new scale applies from the moment at
which the old one ends. When the wall clock is set back, scaled time continues from where it was, without a jump and
without a pause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import time

from shadowsim.errors import InputError

MAX_SCALE = 100_000.0  # 28 hours per second
_LATEST_S = 221_845_392_000.0  # the year 9000; datetime ends with 9999
Origin = tuple[float, float, float]  # wall time, scaled time, and the scale from then on


@dataclass(slots=True)
class Clock:
    """Scaled time as a function of wall time; it gets a new origin whenever the wall clock is set back.

    Attributes
    ----------
    wall_s, scaled_s : float
        The origin: one moment in both times, in seconds since 1970.
    scale : float
        Scaled seconds per wall second from then on.
    wall : callable
        The wall clock.
    """

    wall_s: float
    scaled_s: float
    scale: float = 1.0
    wall: Callable[[], float] = time
    _seen_s: float = field(init=False, repr=False)  # the last wall time read

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
        """Return the clock that continues from the origin that a store has kept.

        Parameters
        ----------
        origin : tuple of float or None
            None for a clock that starts now.
        scale : float
            The scale from now on.
        wall : callable
        reached_s : float
            The latest scaled moment known to have passed; the clock does not start before it.
        """
        wall_s = wall()
        if origin is None:
            return cls(wall_s, wall_s, scale, wall)
        old = cls(*origin, wall)
        least_s = max(old.scaled_s, reached_s)
        if scale == old.scale and old.at(wall_s) >= least_s:
            old._seen_s = wall_s
            return old  # a new origin would add a rounding error at each restart
        return cls(wall_s, max(old.at(wall_s), least_s), scale, wall)

    @property
    def origin(self) -> Origin:
        """What a store must keep to resume this clock."""
        return self.wall_s, self.scaled_s, self.scale

    def now(self) -> float:
        """Return the scaled time now, in seconds since 1970."""
        wall_s = self.wall()
        if wall_s < self._seen_s:
            self.wall_s, self.scaled_s = wall_s, self.at(self._seen_s)
        self._seen_s = wall_s
        return self.at(wall_s)

    def at(self, wall_s: float) -> float:
        """Convert a wall time to scaled time."""
        return min(self.scaled_s + (wall_s - self.wall_s) * self.scale, _LATEST_S)
