"""Token bucket: tokens that a rate refills, up to a burst, and that requests or bytes use up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class TokenBucket:
    """A token bucket, full at first.

    Attributes
    ----------
    per_s : float
        Tokens that come per second.
    burst : float
        Tokens that it holds at most.
    clock : callable
        Seconds on any steady clock.
    """

    per_s: float
    burst: float
    clock: Callable[[], float]
    _tokens: float = field(init=False)
    _filled_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._tokens, self._filled_s = self.burst, self.clock()

    def take(self, n: float = 1.0) -> bool:
        """Take n tokens if there are as many, and return whether there were."""
        self._fill()
        if self._tokens < n:
            return False
        self._tokens -= n
        return True

    def overdraw(self, n: float) -> bool:
        """Take n tokens even if there are fewer, and return whether none are owed."""
        self._fill()
        self._tokens -= n
        return self._tokens >= 0.0

    @property
    def level(self) -> float:
        """Share of the burst that it holds; negative while tokens are owed."""
        self._fill()
        return self._tokens / self.burst

    def _fill(self) -> None:
        now = self.clock()
        self._tokens = min(self._tokens + (now - self._filled_s) * self.per_s, self.burst)
        self._filled_s = now
