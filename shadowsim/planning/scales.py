"""By which factor service times have to grow for a latency to be so much longer.

Requests wait for each other, so that a latency grows faster than the service times that cause it: with all service
times x times as long, on the same arrivals, every latency is at least x times as long. So the factor that makes a
latency r times as long lies between 1 and r, and is found there by bisection and interpolation (Brent, 1973). All its
simulations have the same arrivals and the same draws of service: only the factor differs, so that the noise of a
metric, which is far larger than a small effect, nearly cancels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scipy.optimize import brentq  # type: ignore[import-untyped]

from shadowsim.errors import InputError
from shadowsim.planning.plan_effects import Effect

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
