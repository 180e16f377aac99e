"""Parses the effect that a plan looks for, and finds the service times that cause it.

An effect is `METRIC +X`, where METRIC is one of `compare`, and X is in its unit:

===========================  =========================================================================================
mean, p50, p90, p95, p99,    `+5%` of the source's, or `+20ms` (us, ms, s, min)
p99.9
error_rate, error_rate_4xx,  `+0.5%`: half a percentage point, since a share of errors may well be 0
error_rate_5xx
share(latency > T)           `+1%`: one percentage point; the slo_miss of `compare(slo_s=T)`
===========================  =========================================================================================

Services in tokens also have:

================================  ====================================================================================
ttft mean, ttft p50, ... p99.9    of the time from arrival to the first token, as for latency: `ttft p99 +10%`
tpot mean, tpot p50, ... p99.9    of the time per token after it
share(ttft > T), share(tpot > T)  `+1%`: one percentage point; ttft_slo_miss and tpot_slo_miss of `compare`
goodput(ttft <= T, tpot <= U)     `-2%`: two percentage points fewer requests within both limits
================================  ====================================================================================

`-5%` is a shadow that is better; of a goodput, `+5%`.

The service factor is the factor on all service times of the shadow that makes its latency r times as long. Because
requests wait for each other, latency grows faster than the service times that cause it: with service times x times as
long, on the same arrivals, every latency is at least x times as long. So the factor lies between 1 and r, and is found
there by bisection and interpolation (Brent, 1973). All simulations have the same arrivals and the same draws of
service; only the factor differs, so that the noise of a metric, which is far larger than a small effect, nearly
cancels.

A service in tokens has no service times: the factor is on all times of its step model, and the whole schedule follows,
batches and waits included. This is so for the time to the first token, too: a slower prefill alone would also delay
the tokens of the sequences that wait for it, and step models that were fitted to load stages have none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache

from scipy.optimize import brentq  # type: ignore[import-untyped]

from shadowsim.errors import InputError, did_you_mean
from shadowsim.frames import LATENCY_MEASURE, PERCENTILES, SHORT_NAMES
from shadowsim.quantities import TIME_UNITS
from shadowsim.scenario.tokens import Goodput

PRECISION = 1e-3  # of the way from 1 to r
ERROR_RATES = ("error_rate", "error_rate_4xx", "error_rate_5xx")
_SHARES = ("slo_miss", "goodput_miss")
_QUANTILES = {f"p{100 * q:g}": q for q in PERCENTILES.values()}
_KNOWN = ("mean", *_QUANTILES, *ERROR_RATES, "share(latency > T)")
_OF_TOKENS = ("ttft mean", "ttft p99", "tpot mean", "tpot p95", "share(ttft > T)", "share(tpot > T)",
              "goodput(ttft <= T, tpot <= U)")  # fmt: skip
_MEASURES = {short: measure for measure, short in SHORT_NAMES.items()}
_TEXT = re.compile(
    r"((?:share|goodput)\s*\([^)]*\)|(?:ttft|tpot)[\s.]+[^\s+-]+|\S*?)\s*([+-])\s*(\d+\.?\d*|\.\d+)\s*([^\s\d.]*)",
    re.IGNORECASE,
)
_STEPS = 10  # of growing length, until the factor is bracketed
_LIMIT = r"(\d+\.?\d*|\.\d+)\s*([^\s\d.),]*)\s*"
_SHARE = re.compile(rf"share\s*\(\s*(latency|ttft|tpot)\s*>\s*{_LIMIT}\)")
_GOODPUT = re.compile(rf"goodput\s*\(\s*ttft\s*<=\s*{_LIMIT},\s*tpot\s*<=\s*{_LIMIT}\)")


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect; `str()` gives back its text.

    Attributes
    ----------
    metric : str
        The metric's name in `compare` without that of the measure: slo_miss for shares, goodput_miss for a goodput.
    amount : float
        How much greater the shadow's metric is than the source's; negative for a shadow that is better.
    relative : bool
        Whether the amount is a fraction of the source's metric; else it is in seconds, or a share.
    at : float or None
        A quantile's level, 0..1; the T of a share, in seconds.
    text : str
        The effect as it was written; not part of equality.
    measure : str
        Of `frames.MEASURES`: what a mean, a quantile or a share is of.
    pair : Goodput or None
        The limits of a goodput.
    """

    metric: str
    amount: float
    relative: bool
    at: float | None = None
    text: str = field(compare=False, default="")
    measure: str = LATENCY_MEASURE
    pair: Goodput | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def is_share(self) -> bool:
        """Whether the metric is a share of the requests, not a time."""
        return self.of_errors or self.metric in _SHARES

    @property
    def of_tokens(self) -> bool:
        """Whether only services in tokens have the metric."""
        return self.measure != LATENCY_MEASURE or self.pair is not None

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
    metric, at, measure, pair = _metric(name.lower(), text)
    is_time = metric not in (*ERROR_RATES, *_SHARES)
    units = {"%": "0.01"} | (TIME_UNITS if is_time else {})
    if not unit or unit not in units:
        what = "a percentage or a time, such as +5% or +20ms" if is_time else "percentage points, such as +0.5%"
        change = f"{sign}{number}"
        choices = f"{change}%, {change}ms or {change}s" if is_time else f"{change}%"
        near = "" if unit else f"; {name} {choices}?"
        raise InputError("effect", f"needs {what}", text, hint=near)
    size = float(Decimal(number) * Decimal(units[unit]))
    is_more = (sign == "+") == (pair is None)  # less goodput is more that miss it
    effect = Effect(metric, size if is_more else -size, is_time and unit == "%", at, text.strip(), measure, pair)
    if size == 0.0:
        raise InputError("effect", "must not be 0, which no test can find", text)
    if (effect.relative or effect.is_share) and not -1.0 < effect.amount <= (1.0 if effect.is_share else 100.0):
        raise InputError("effect", "must be above -100%, and at most 100 points or 10000%", text)
    return effect


def _metric(name: str, text: str) -> tuple[str, float | None, str, Goodput | None]:
    """Return the fields of an effect that its metric decides: metric, at, measure and pair."""
    measure, of_time = LATENCY_MEASURE, name
    if parts := re.fullmatch(r"(ttft|tpot)[\s.]+(.*)", name):
        measure, of_time = _MEASURES[parts[1]], parts[2]
    if of_time in _QUANTILES:
        return of_time, _QUANTILES[of_time], measure, None
    if of_time == "mean" or name in ERROR_RATES:
        return of_time, None, measure, None
    if share := _SHARE.fullmatch(name):
        limit_s = _limit_s(share[2], share[3], f"share({share[1]} > {{}})", text)
        return "slo_miss", limit_s, _MEASURES.get(share[1], LATENCY_MEASURE), None
    if limits := _GOODPUT.fullmatch(name):
        ttft_s, tpot_s = (
            _limit_s(limits[i], limits[i + 1], f"{short} <= {{}}", text) for i, short in ((1, "ttft"), (3, "tpot"))
        )
        return "goodput_miss", None, LATENCY_MEASURE, Goodput(ttft_s, tpot_s)
    known = (*_KNOWN, *_OF_TOKENS)
    raise InputError("effect", f"must begin with one of {', '.join(known)}", text, hint=did_you_mean(name, known))


def _limit_s(number: str, unit: str, written: str, text: str) -> float:
    """Return a limit in seconds; `written` is how it stands in the effect, for the hint of a unit that is missing."""
    if not unit:
        near = f"; {written.format(f'{number}ms')} or {written.format(f'{number}s')}?"
        raise InputError("effect", "needs a unit", text, hint=near)
    limit_s = float(Decimal(number) * Decimal(TIME_UNITS[unit])) if unit in TIME_UNITS else 0.0
    if not limit_s > 0.0:
        raise InputError("effect", "must have limits > 0, such as 200ms", text)
    return limit_s


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

    @cache
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
