"""Parses the effect that a plan looks for, and finds the service times that cause it.

An effect is `METRIC +X`, where METRIC is one of `compare`, and X is in its unit:

===========================  =========================================================================================
mean, p50, p90, p95, p99,    `+5%` of the source's, or `+20ms` (us, ms, s, min)
p99.9
error_rate, error_rate_4xx,  `+0.5%`: half a percentage point, since a share of errors may well be 0
error_rate_5xx
share(latency > T)           `+1%`: one percentage point; the slo_miss of `compare(slo_s=T)`
===========================  =========================================================================================

`-5%` is a shadow that is better.

The service factor is the factor on all service times of the shadow that makes its latency r times as long. Because
requests wait for each other, latency grows faster than the service times that cause it: with service times x times as
long, on the same arrivals, every latency is at least x times as long. So the factor lies between 1 and r, and is found
there by bisection and interpolation (Brent, 1973). All simulations have the same arrivals and the same draws of
service; only the factor differs, so that the noise of a metric, which is far larger than a small effect, nearly
cancels.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from scipy.optimize import brentq  # type: ignore[import-untyped]

from shadowsim.errors import InputError, did_you_mean
from shadowsim.frames import PERCENTILES
from shadowsim.quantities import TIME_UNITS

PRECISION = 1e-3  # of the way from 1 to r
ERROR_RATES = ("error_rate", "error_rate_4xx", "error_rate_5xx")
_QUANTILES = {f"p{100 * q:g}": q for q in PERCENTILES.values()}
_KNOWN = ("mean", *_QUANTILES, *ERROR_RATES, "share(latency > T)")
_TEXT = re.compile(r"(share\s*\([^)]*\)|\S*?)\s*([+-])\s*(\d+\.?\d*|\.\d+)\s*([^\s\d.]*)")
_STEPS = 10  # of growing length, until the factor is bracketed
_SHARE = re.compile(r"share\s*\(\s*latency\s*>\s*(\d+\.?\d*|\.\d+)\s*([^\s\d.)]*)\s*\)")


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect; `str()` gives back its text.

    Attributes
    ----------
    metric : str
        The metric's name in `compare`: slo_miss for share(latency > T).
    amount : float
        How much greater the shadow's metric is than the source's; negative for a shadow that is better.
    relative : bool
        Whether the amount is a fraction of the source's metric; else it is in seconds, or a share.
    at : float or None
        A quantile's level, 0..1; the T of a share, in seconds.
    text : str
        The effect as it was written; not part of equality.
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
        """Whether the metric is a share of the requests, not a time."""
        return self.of_errors or self.metric == "slo_miss"

    @property
    def of_errors(self) -> bool:
        """Whether the metric counts errors, so that service times stay as they are."""
        return self.metric in ERROR_RATES

    @property
    def tail(self) -> float:
        """Share of the responses that determine the metric: for a quantile those beyond it, for a mean a tenth."""
        if self.is_share:
            return 1.0
        return 0.1 if self.at is None else min(self.at, 1.0 - self.at)

    def on(self, value: float) -> float:
        """Return the difference from a source whose metric is `value`, in the metric's unit."""
        return self.amount * value if self.relative else self.amount


def parse_effect(text: str | Effect) -> Effect:
    """Parse an effect; the module's docstring has the grammar.

    Raises
    ------
    InputError
        When the text cannot be parsed; a misspelt metric is answered with the nearest known one.
    """
    if isinstance(text, Effect):
        return text
    match = _TEXT.fullmatch(text.strip()) if isinstance(text, str) else None
    if not match:
        raise InputError("effect", 'must be METRIC +X% or METRIC +Xms, such as "p99 +5%" or "error_rate +0.5%"', text)
    name, sign, number, unit = match.groups()
    metric, at = _metric(name.lower(), text)
    is_time = metric not in (*ERROR_RATES, "slo_miss")
    units = {"%": "0.01"} | (TIME_UNITS if is_time else {})
    if not unit or unit not in units:
        what = "a percentage or a time, such as +5% or +20ms" if is_time else "percentage points, such as +0.5%"
        change = f"{sign}{number}"
        choices = f"{change}%, {change}ms or {change}s" if is_time else f"{change}%"
        near = "" if unit else f"; {name} {choices}?"
        raise InputError("effect", f"needs {what}", text, hint=near)
    size = float(Decimal(number) * Decimal(units[unit]))
    effect = Effect(metric, size if sign == "+" else -size, is_time and unit == "%", at, text.strip())
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
    if share and not share[2]:
        raise InputError("effect", "needs a unit", text, hint=f"; share(latency > {share[1]}ms or {share[1]}s)?")
    if share and share[2] in TIME_UNITS:
        limit = float(Decimal(share[1]) * Decimal(TIME_UNITS[share[2]]))
        if limit > 0.0:
            return "slo_miss", limit
    near = did_you_mean(name, _KNOWN)
    raise InputError("effect", f"must begin with one of {', '.join(_KNOWN)}", text, hint=near)


@dataclass(frozen=True, slots=True)
class ServiceFactors:
    """Factors on the shadow's service times.

    Attributes
    ----------
    none : float
        Makes the shadow as good as the source.
    effect : float
        Makes it worse by the effect, or better.
    """

    none: float = 1.0
    effect: float = 1.0


def service_factors(
    effect: Effect, metrics: Callable[[float], tuple[float, float]], is_same_model: bool
) -> ServiceFactors:
    """Find the factors for an effect.

    Parameters
    ----------
    effect : Effect
    metrics : callable
        factor -> the source's metric and the shadow's, from simulations that differ in the factor alone.
    is_same_model : bool
        Whether the shadow has the source's model, so that it is as good without any factor.

    Raises
    ------
    InputError
        When no factor causes the effect.
    """
    if effect.of_errors:
        return ServiceFactors()
    source, shadow = metrics(1.0)
    if not source > 0.0 and not effect.is_share:
        raise InputError("effect", "is on a metric that the scenario has no requests for", str(effect))

    def shadow_metric(factor: float) -> float:
        return metrics(factor)[1]

    none = 1.0 if is_same_model else _factor_for(shadow_metric, 1.0, shadow, source, effect)
    start = shadow if is_same_model else shadow_metric(none)
    return ServiceFactors(none, _factor_for(shadow_metric, none, start, start + effect.on(start), effect))


def _factor_for(metric: Callable[[float], float], start: float, value: float, target: float, effect: Effect) -> float:
    """Return the factor at which the metric is `target`; at the factor `start` it is `value`."""
    if value == target:
        return start
    if not target >= 0.0 or (effect.is_share and not target < 1.0):
        raise InputError("effect", f"cannot be: it takes the metric from {value:.4g} to {target:.4g}", str(effect))
    end = start * 2.0 if target > value else start / 2.0
    if not effect.is_share:
        end = start * target / value
    previous = start
    for _ in range(_STEPS):
        reached = metric(end)
        if (reached >= target) if target > value else (reached <= target):
            low, high = sorted((previous, end))
            tolerance = PRECISION * (high - low)
            root = brentq(lambda factor: metric(factor) - target, low, high, xtol=tolerance, rtol=1e-12, maxiter=100)
            return float(root)
        previous, end = end, end * end / start
    what = f"cannot be caused by longer or shorter service times, which took the metric to {reached:.4g}"
    raise InputError("effect", f"{what} of {target:.4g}", str(effect))
