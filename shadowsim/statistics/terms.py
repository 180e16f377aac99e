"""Terms of a comparison: margins, confidence, and the codes of its outcomes. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

MARGIN_PCT = 10.0
MARGIN_POINTS = 0.1
CONFIDENCE = 0.95
DEFAULT_SPENDING = "obrien-fleming"

WORSE, BETTER, SAME, NOT_ENOUGH = "worse", "better", "same", "not_enough"
OUTCOMES = (WORSE, BETTER, SAME, NOT_ENOUGH)
NOT_JUDGED = ""  # a row without a verdict
NOT_ENOUGH_DATA = "not enough data"


@dataclass(frozen=True, slots=True)
class Terms:
    """Margins of a comparison, and the level of its intervals.

    Attributes
    ----------
    margin_pct : float
        A difference of latency that does not matter, in per cent of the source's.
    margin_points : float
        A difference of shares that does not matter, in percentage points.
    alpha : float
        Two-sided level of each interval; with several looks less than 1 - confidence.
    """

    margin_pct: float = MARGIN_PCT
    margin_points: float = MARGIN_POINTS
    alpha: float = 1.0 - CONFIDENCE

    def margin_text(self, unit: str) -> str:
        """Return the margin of a metric in "s" or "share": "10 %", "0.1 points"."""
        return f"{self.margin_pct:g} %" if unit == "s" else f"{self.margin_points:g} points"

    def verdict(self, outcome: str, unit: str) -> str:
        """Return the sentence for an outcome; "" for `NOT_JUDGED`."""
        if outcome == SAME:
            return f"no difference larger than {self.margin_text(unit)}"
        return NOT_ENOUGH_DATA if outcome == NOT_ENOUGH else outcome
