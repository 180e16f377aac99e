"""A share of a count and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shadowsim.text import count, percent


@dataclass(frozen=True, slots=True)
class Share:
    """A share `n` of `of`, with bounds `low` and `high`; all three NaN of nothing."""

    n: int
    of: int
    share: float
    low: float
    high: float

    def cells(self) -> list[str]:
        """Return share, count and interval as texts."""
        bounds = f"{percent(self.low, 2)} to {percent(self.high, 2)}" if self.of else ""
        return [percent(self.share, 2), f"{count(self.n)} of {count(self.of)}", bounds]


def share_of(n: int, of: int, confidence: float) -> Share:
    """Return a share with the score interval of Wilson (1927, JASA 22, 209-212), for independent trials.

    Unlike the textbook's interval it stays inside 0 and 1, and says something of a share that is 0 or 1.
    """
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    if of == 0:
        return Share(0, 0, math.nan, math.nan, math.nan)
    interval = binomtest(n, of).proportion_ci(confidence, method="wilson")
    return Share(n, of, n / of, float(interval.low), float(interval.high))
