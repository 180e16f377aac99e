"""Effects: by how much a shadow is to be worse than the source, in words.

An effect is `METRIC +X`, METRIC being one that `compare` has, and X in its unit:

===========================  =========================================================================================
mean, p50, p90, p95, p99,    `+5%` of the source's, or `+20ms` (us, ms, s, min)
p99.9
error_rate, error_rate_4xx,  `+0.5%`: half a percentage point, since a share of errors may well be 0
error_rate_5xx
share(latency > T)           `+1%`: likewise; the slo_miss of `compare(slo_s=T)`
===========================  =========================================================================================

`-5%` is a shadow that is better.

By which factor service times have to grow for a latency to be so much longer.

Requests wait for each other, so that a latency grows faster than the service times that cause it: with all service
times x times as long, on the same arrivals, every latency is at least x times as long. So the factor that makes a
latency r times as long lies between 1 and r, and is found there by bisection and interpolation (Brent, 1973). All its
simulations have the same arrivals and the same draws of service: only the factor differs, so that the noise of a
metric, which is far larger than a small effect, nearly cancels.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from scipy.optimize import brentq  # type: ignore[import-untyped]

from shadowsim.errors import InputError, nearest
from shadowsim.frames import PERCENTILES
from shadowsim.planning.slo import TIME_UNITS

ERROR_RATES = ("error_rate", "error_rate_4xx", "error_rate_5xx")
_QUANTILES = {f"p{100 * q:g}": q for q in PERCENTILES.values()}
_KNOWN = ("mean", *_QUANTILES, *ERROR_RATES, "share(latency > T)")
_TEXT = re.compile(r"(share\s*\([^)]*\)|\S*?)\s*([+-])\s*(\d+\.?\d*|\.\d+)\s*([^\s\d.]*)")
_SHARE = re.compile(r"share\s*\(\s*latency\s*>\s*(\d+\.?\d*|\.\d+)\s*([^\s\d.)]*)\s*\)")


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect; `str()` gives back its text.

    Attributes
    ----------
    metric : str
        Its name in `compare`: slo_miss for share(latency > T).
    amount : float
        What the shadow's metric is to be more by: below 0 for one that is better.
    relative : bool
        Whether that is a part of the source's metric; else it is in seconds, or a share.
    at : float or None
        A quantile's level, 0..1; the T of a share, in seconds.
    text : str
        As it was written; not part of equality.
    """

    metric: str
    amount: float
    relative: bool
    at: float | None = None
    text: str = field(compare=False, default="")

    def __str__(self) -> str:
        return self.text

    @property
    def is_share(self) -> bool:
        """Whether its metric is a share of the requests, not a time."""
        return self.of_errors or self.metric == "slo_miss"

    @property
    def of_errors(self) -> bool:
        """Whether its metric counts errors, and so leaves the service times alone."""
        return self.metric in ERROR_RATES

    @property
    def tail(self) -> float:
        """Which part of the answers makes the metric: a quantile those beyond it, a mean of latencies a tenth."""
        if self.is_share:
            return 1.0
        return 0.1 if self.at is None else min(self.at, 1.0 - self.at)

    def on(self, value: float) -> float:
        """Return the difference that it makes where the source's metric is `value`, in the metric's unit."""
        return self.amount * value if self.relative else self.amount


def parse_effect(text: str | Effect) -> Effect:
    """Read an effect from a text; see the module for its grammar.

    Raises
    ------
    InputError
        What cannot be read, with the nearest metric where one is misspelt.
    """
    if isinstance(text, Effect):
        return text
    found = _TEXT.fullmatch(text.strip()) if isinstance(text, str) else None
    if not found:
        raise InputError("effect", 'must be METRIC +X% or METRIC +Xms, such as "p99 +5%" or "error_rate +0.5%"', text)
    metric, at = _metric(found[1].lower(), text)
    times = metric not in (*ERROR_RATES, "slo_miss")
    units = {"%": "0.01"} | (TIME_UNITS if times else {})
    if not found[4] or found[4] not in units:
        what = "a percentage or a time, such as +5% or +20ms" if times else "percentage points, such as +0.5%"
        raise InputError("effect", f"needs {what}", text)
    size = float(Decimal(found[3]) * Decimal(units[found[4]]))
    effect = Effect(metric, size if found[2] == "+" else -size, times and found[4] == "%", at, text.strip())
    if size == 0.0:
        raise InputError("effect", "must not be 0, which no test can find", text)
    if (effect.relative or effect.is_share) and not -1.0 < effect.amount <= (1.0 if effect.is_share else 100.0):
        raise InputError("effect", "must be above -100%, and at most 100 points or 10000%", text)
    return effect


def _metric(name: str, text: str) -> tuple[str, float | None]:
    if name in _QUANTILES:
        return name, _QUANTILES[name]
    if name == "mean" or name in ERROR_RATES:
        return name, None
    share = _SHARE.fullmatch(name)
    if share and share[2] in TIME_UNITS:
        limit = float(Decimal(share[1]) * Decimal(TIME_UNITS[share[2]]))
        if limit > 0.0:
            return "slo_miss", limit
    near = nearest(name, _KNOWN)
    raise InputError("effect", f"must begin with one of {', '.join(_KNOWN)}", text, hint=near)


PRECISION = 1e-3  # of the way from 1 to r
_DOUBLINGS = 10


@dataclass(frozen=True, slots=True)
class Scales:
    """Factors on the shadow's service times: with which it is as good as the source, and worse by the effect."""

    none: float = 1.0
    effect: float = 1.0


def scales_of(effect: Effect, both: Callable[[float], tuple[float, float]], equal: bool) -> Scales:
    """Find the factors for an effect.

    Parameters
    ----------
    effect : Effect
    both : callable
        factor -> the source's metric and the shadow's, of simulations that differ by the factor alone.
    equal : bool
        Whether the shadow's model is the source's, and it is as good as it is.

    Raises
    ------
    InputError
        When no factor brings the effect about.
    """
    if effect.of_errors:
        return Scales()
    source, shadow = both(1.0)
    if not source > 0.0 and not effect.is_share:
        raise InputError("effect", "is on a metric that the scenario has no requests for", str(effect))

    def metric(scale: float) -> float:
        return both(scale)[1]

    none = 1.0 if equal else _scale(metric, 1.0, shadow, source, effect)
    start = shadow if equal else metric(none)
    return Scales(none, _scale(metric, none, start, start + effect.on(start), effect))


def _scale(metric: Callable[[float], float], at: float, value: float, target: float, effect: Effect) -> float:
    """Return the factor for which the metric is `target`; it is `value` at the factor `at`."""
    if value == target:
        return at
    if not target >= 0.0 or (effect.is_share and not target < 1.0):
        raise InputError("effect", f"cannot be: it takes the metric from {value:.4g} to {target:.4g}", str(effect))
    end = at * 2.0 if target > value else at / 2.0
    if not effect.is_share:
        end = at * target / value
    grown = at
    for _ in range(_DOUBLINGS):
        reached = metric(end)
        if (reached >= target) if target > value else (reached <= target):
            low, high = sorted((grown, end))
            span = PRECISION * (high - low)
            return float(brentq(lambda scale: metric(scale) - target, low, high, xtol=span, rtol=1e-12, maxiter=100))
        grown, end = end, end * end / at
    what = f"cannot be brought about by longer or shorter service times, which took the metric to {reached:.4g}"
    raise InputError("effect", f"{what} of {target:.4g}", str(effect))
