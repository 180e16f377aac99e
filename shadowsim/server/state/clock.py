"""Computes the server's time: a scaled wall clock that survives restarts.

With a scale of 3,600, an hour of a schedule passes in a second. Scaled time equals wall time when a store is created
and runs from there, also while the server is down. It never goes back: it is the later of what the wall clock tells and
of the last moment told, which a steady clock advances. So a wall clock that is set back stops nothing, and one that is
set forward again adds nothing. A new scale applies from the moment at which the old one ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, time

from shadowsim.errors import InputError

MAX_SCALE = 100_000.0  # 28 hours per second
_LATEST_S = 221_845_392_000.0  # the year 9000; datetime ends with 9999
Origin = tuple[float, float, float]  # wall time, scaled time, and the scale from then on


@dataclass(slots=True)
class Clock:
    """Scaled time: by the wall clock, or by a steady clock from a moment told, whichever is later.

    Attributes
    ----------
    wall_s, scaled_s : float
        The origin: one moment in both times, in seconds since 1970.
    scale : float
        Scaled seconds per wall second from then on.
    wall, steady : callable
        The wall clock, and one that is never set.
    """

    wall_s: float
    scaled_s: float
    scale: float = 1.0
    wall: Callable[[], float] = time
    steady: Callable[[], float] = monotonic
    _anchor: tuple[float, float] = field(init=False, repr=False)  # one moment in steady and in scaled time

    def __post_init__(self) -> None:
        self._anchor = self.steady(), self.scaled_s
        if not 0 < self.scale <= MAX_SCALE:
            raise InputError("--time-scale", f"must be > 0 and <= {MAX_SCALE:g}", self.scale)

    @classmethod
    def resumed(
        cls,
        origin: Origin | None,
        scale: float = 1.0,
        wall: Callable[[], float] = time,
        steady: Callable[[], float] = monotonic,
        reached_s: float = float("-inf"),
    ) -> Clock:
        """Return the clock that continues from the origin that a store has kept.

        Parameters
        ----------
        origin : tuple of float or None
            None for a clock that starts now.
        scale : float
            The scale from now on.
        wall, steady : callable
        reached_s : float
            The latest scaled moment known to have passed; the clock does not start before it.
        """
        wall_s = wall()
        if origin is None:
            return cls(wall_s, wall_s, scale, wall, steady)
        clock = cls(*origin, wall, steady)
        begin_s = max(clock.at(wall_s), clock.scaled_s, reached_s)
        if scale != clock.scale:  # else a new origin would only add a rounding error at each restart
            # a wall clock that was set back shows less than at `begin_s`, and may be set forward again
            begin_wall_s = max(wall_s, clock.wall_s + (begin_s - clock.scaled_s) / clock.scale)
            clock = cls(begin_wall_s, begin_s, scale, wall, steady)
        clock._anchor = steady(), begin_s
        return clock

    @classmethod
    def alongside(cls, origin: Origin, anchor: tuple[float, float]) -> Clock:
        """Return the clock that another process of this machine runs, from its origin and anchor."""
        clock = cls(*origin)
        clock._anchor = anchor
        return clock

    @property
    def anchor(self) -> tuple[float, float]:
        """One moment in steady and in scaled time, from which the clock runs on if the wall clock is set back."""
        return self._anchor

    @property
    def origin(self) -> Origin:
        """What a store must keep to resume this clock."""
        return self.wall_s, self.scaled_s, self.scale

    def now(self) -> float:
        """Return the scaled time now, in seconds since 1970."""
        by_wall_s, steady_s = self.at(self.wall()), self.steady()
        anchor_steady_s, anchor_s = self._anchor
        by_steady_s = anchor_s + (steady_s - anchor_steady_s) * self.scale
        if by_wall_s > by_steady_s:
            self._anchor = steady_s, by_wall_s
        return min(max(by_wall_s, by_steady_s), _LATEST_S)

    def at(self, wall_s: float) -> float:
        """Convert a wall time to scaled time."""
        return min(self.scaled_s + (wall_s - self.wall_s) * self.scale, _LATEST_S)
