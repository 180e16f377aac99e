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
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal

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
