"""How much of the copies' answers is read: a second, and at once.

A shadow may answer without end, and as fast as this process can read. Left alone, reading it would be all that the
event loop does, in more and more memory, and callers would wait. So copies' answers have an allowance together; a copy
that would pass it is given up. Answers of up to some hundred kilobytes come in one piece with their headers: of them,
nothing is saved by giving up, and they only count.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

BYTES_PER_S, BURST_BYTES, HELD_BYTES = 64 * 2**20, 16 * 2**20, 32 * 2**20


class Intake:
    """An allowance of bytes.

    Parameters
    ----------
    per_s, burst : float
        Bytes a second, and what may come at once after a quiet time.
    most_held : float
        Bytes of answers that are not complete.
    clock : callable
        Seconds on any steady clock.

    Attributes
    ----------
    n_held : int
        Bytes of answers that are being read; whoever reads one takes away what it has counted when it ends.
    """

    def __init__(
        self,
        per_s: float = BYTES_PER_S,
        burst: float = BURST_BYTES,
        most_held: float = HELD_BYTES,
        clock: Callable[[], float] = perf_counter,
    ):
        self.n_held = 0
        self._per_s, self._burst, self._most_held, self._clock = per_s, burst, most_held, clock
        self._left, self._since_s = burst, clock()

    def count(self, n_bytes: int) -> None:
        """Count bytes that were read."""
        now = self._clock()
        self._left = min(self._left + (now - self._since_s) * self._per_s, self._burst) - n_bytes
        self._since_s = now

    def allows(self, n_bytes: int) -> bool:
        """Count bytes of an answer that is being read, and return whether more of it may be."""
        self.count(n_bytes)
        self.n_held += n_bytes
        return self._left >= 0.0 and self.n_held <= self._most_held
