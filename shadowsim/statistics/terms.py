"""Terms of a comparison, read from arguments: margins, confidence, and the codes of its outcomes.

Importing it loads nothing heavy, since the command line takes its defaults from here.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

from shadowsim.errors import InputError
from shadowsim.quantities import parse_duration

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


def terms_of(
    margin_pct: float,
    margin_points: float,
    confidence: float,
    look: int | None = None,
    looks: int | Sequence[float] | None = None,
    spending: str = DEFAULT_SPENDING,
) -> Terms:
    """Return the terms that arguments of `compare` describe.

    Raises
    ------
    InputError
        When an argument is out of its range.
    """
    return Terms(
        _number("margin_pct", margin_pct, 0.0, math.inf),
        _number("margin_points", margin_points, 0.0, 100.0),
        _level(_number("confidence", confidence, 0.0, 1.0), look, looks, spending),
    )


def limits_of(
    slo_s: float | str | None, ttft_slo_s: float | str | None = None, tpot_slo_s: float | str | None = None
) -> dict[str, float]:
    """Return those arguments of `compare` that are given, in seconds, by the row that each adds.

    Raises
    ------
    InputError
        When one is no time above 0, such as 0.2 or "200ms".
    """
    given = {"slo_s": slo_s, "ttft_slo_s": ttft_slo_s, "tpot_slo_s": tpot_slo_s}
    return {
        name.replace("slo_s", "slo_miss"): _limit_s(name, value) for name, value in given.items() if value is not None
    }


def check_limits(limits_s: Mapping[str, float], metrics: Container[str]) -> None:
    """Raise `InputError` for a limit of `limits_of` on tokens, where no variant that is compared has such a metric."""
    for metric in limits_s:
        if metric != "slo_miss" and metric not in metrics:
            name = metric.replace("slo_miss", "slo_s")
            raise InputError(name, "is for services in tokens, which these runs do not compare", limits_s[metric])


def _limit_s(name: str, value: float | str) -> float:
    if not isinstance(value, str):
        return _number(name, value, 0.0, math.inf)
    limit_s = parse_duration(value, name)
    if limit_s <= 0.0:
        raise InputError(name, "must be > 0", value)
    return limit_s


def _number(name: str, value: object, above: float, below: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not above < float(value) < below:
        raise InputError(name, f"must be > {above:g}" + (f" and < {below:g}" if below < math.inf else ""), value)
    return float(value)


def _level(confidence: float, look: int | None, looks: int | Sequence[float] | None, spending: str) -> float:
    """Return the two-sided level of the intervals; for a look, the level of a single test with the look's bound."""
    if look is None and looks is None:
        return 1.0 - confidence
    if look is None or looks is None:
        name = "look" if look is None else "looks"
        raise InputError(name, "must be given together with " + ("`looks`" if look is None else "`look`"))
    from scipy.special import ndtr  # type: ignore[import-untyped]  # imported late, since scipy loads slowly

    from shadowsim.statistics import sequential_looks

    bounds = sequential_looks.bounds(looks, 1.0 - confidence, spending)
    if not isinstance(look, int) or not 1 <= look <= bounds.size:
        raise InputError("look", f"must be an integer from 1 to looks, which is {bounds.size}", look)
    return 2.0 * float(ndtr(-bounds[look - 1]))
