"""Chooses a law for measured times: the best of the named ones, or a table of quantiles.

Each named law of scenario/laws.py is fitted by maximum likelihood; the best has the least AIC = 2 k - 2 log L (Akaike,
1974). Its Kolmogorov-Smirnov distance D is the greatest difference between its distribution function and the sample's.
The named law is kept while sqrt(n) D <= `KEPT`, the critical value at 5 % with fitted parameters being 0.9 to 1.1
(Stephens, 1974, Journal of the American Statistical Association 69). A sample that no named law fits is described by
its own quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.scenario.laws import MAX_SCV, PARETO_SHAPE, weibull_scv

KEPT = 1.1
ALIKE = 0.005  # times that spread less than this around their median, from p1 to p99, are called deterministic
_PRINTED = 7  # significant digits of numbers in blocks
_ROUNDS = 50
_POINTS = 48  # of a table, and the area between it and the sample's, relative to the mean, that needs no more
_CLOSE = 1e-4
_LEAST_BEYOND = 10  # values in the table's last piece


@dataclass(frozen=True, slots=True)
class NamedLaw:
    """A named law, fitted.

    Attributes
    ----------
    block : mapping of str to object
        As in a scenario.
    mean_s, scv : float
    n_parameters : int
    log_density : callable
        The logarithm of its density at times in seconds.
    below : callable
        Its distribution function.
    """

    block: Mapping[str, object]
    mean_s: float
    scv: float
    n_parameters: int
    log_density: Callable[[Floats], Floats]
    below: Callable[[Floats], Floats]

    @property
    def name(self) -> str:
        """As in a scenario."""
        return str(self.block["law"])


@dataclass(frozen=True, slots=True)
class LawFit:
    """The law of a sample.

    Attributes
    ----------
    best : NamedLaw or None
        The named law with the least AIC; None where the sample is all alike.
    aic : mapping of str to float
        By name of law.
    ks : float
        The best law's Kolmogorov-Smirnov distance; NaN without one.
    table : mapping of str to object
        The law of the sample's quantiles, as in a scenario.
    block : mapping of str to object
        The law to use.
    n : int
    """

    best: NamedLaw | None
    aic: Mapping[str, float]
    ks: float
    table: Mapping[str, object]
    block: Mapping[str, object]
    n: int

    @property
    def is_named(self) -> bool:
        """Whether `block` is a named law."""
        return self.block is not self.table

    @property
    def sentence(self) -> str:
        """What was chosen, and why."""
        if self.best is None:
            return "Service times are all alike: the law is deterministic."
        scaled = math.sqrt(self.n) * self.ks
        figures = f"its Kolmogorov-Smirnov distance is {self.ks:.4f}, sqrt(n) times it {scaled:.2f}"
        if self.is_named:
            return f"The law is {self.best.name}, the best named law by AIC; {figures} (kept up to {KEPT:g})."
        return (
            f"The law is a table of quantiles. The best named law by AIC, {self.best.name}, does not fit: {figures}, "
            f"more than {KEPT:g}."
        )


def fit_law(times_s: Floats) -> LawFit:
    """Fit laws to times.

    Parameters
    ----------
    times_s : ndarray of float64, shape (n,)
        Positive, in any order, n >= 2.
    """
    x = np.sort(times_s)
    low, middle, high = np.quantile(x, (0.01, 0.5, 0.99))
    if high - low <= ALIKE * middle:
        block = {"law": "deterministic", "mean_s": rounded(float(x.mean()))}
        return LawFit(None, {}, math.nan, quantile_table(x), block, len(x))
    laws = [law for fit in _FITS.values() if (law := fit(x)) is not None]
    aic = {law.name: 2.0 * law.n_parameters - 2.0 * float(law.log_density(x).sum()) for law in laws}
    best = min(laws, key=lambda law: aic[law.name])
    ks = distance(x, best.below)
    table = quantile_table(x)
    kept = math.sqrt(len(x)) * ks <= KEPT
    return LawFit(best, aic, ks, table, best.block if kept else table, len(x))


def refit(name: str, times_s: Floats) -> NamedLaw | None:
    """Return a named law fitted to times; None where they have no such law."""
    return _FITS[name](np.sort(times_s))


def distance(x: Floats, below: Callable[[Floats], Floats]) -> float:
    """Return the Kolmogorov-Smirnov distance between sorted values and a distribution function."""
    p, n = below(x), len(x)
    upto = np.arange(1, n + 1) / n
    return float(max((upto - p).max(), (p - upto + 1.0 / n).max()))


def quantile_table(x: Floats) -> dict[str, object]:
    """Return the empirical law of sorted times, as in a scenario.

    Its points join the sample's quantiles by straight lines. They are set one by one where the sample is farthest from
    the line, weighted by the share of requests that it concerns. The last piece has the mean of the times in it: the
    greatest of n times says little of where a law ends.
    """
    n = len(x)
    last = max(n - 1 - _LEAST_BEYOND, 1) if n > 2 else n - 1
    ends = [0, last]
    pieces = [_farthest(x, 0, last)]
    while len(ends) < _POINTS and pieces[0][0] < -_CLOSE * float(x.mean()):
        _, low, middle, high = heappop(pieces)
        ends.append(middle)
        for piece in ((low, middle), (middle, high)):
            heappush(pieces, _farthest(x, *piece))
    at = np.array(sorted(ends))
    top = max(2.0 * float(x[last:].mean()) - float(x[last]), float(x[last]))
    heights = np.maximum.accumulate([rounded(v) for v in (*x[at].tolist(), top)])
    depths = [f"{p:.6g}" for p in (*(at / (n - 1)).tolist(), 1.0)]
    points = dict(zip(depths, heights.tolist(), strict=True))  # equal depths keep the last
    return {"law": "empirical", "quantiles_s": points}


def _farthest(x: Floats, low: int, high: int) -> tuple[float, int, int, int]:
    """Return the area between sample and line within a piece, negative, and the place where they are farthest apart."""
    if high - low < 2:
        return 0.0, low, low, high
    line = np.linspace(x[low], x[high], high - low + 1)
    off = np.abs(x[low : high + 1] - line)
    return -float(off.sum()) / len(x), low, low + int(off.argmax()), high


def rounded(value: float) -> float:
    """Return a number with as many digits as blocks have."""
    return float(f"{value:.{_PRINTED}g}")


# ---- the named laws, each by maximum likelihood from sorted times; None where it cannot be ----


def _exponential(x: Floats) -> NamedLaw:
    mean = float(x.mean())
    return NamedLaw(
        {"law": "exponential", "mean_s": rounded(mean)},
        mean,
        1.0,
        1,
        lambda y: -y / mean - math.log(mean),
        lambda y: -np.expm1(-y / mean),
    )


def _lognormal(x: Floats) -> NamedLaw | None:
    from scipy.special import ndtr  # type: ignore[import-untyped]

    logs = np.log(x)
    mu, sigma = float(logs.mean()), float(logs.std())
    mean, scv = math.exp(mu + 0.5 * sigma**2), math.expm1(min(sigma**2, 700.0))
    if not 0.0 < scv <= MAX_SCV:
        return None
    constant = math.log(sigma * math.sqrt(2.0 * math.pi))

    def log_density(y: Floats) -> Floats:
        logs = np.log(y)
        return -0.5 * ((logs - mu) / sigma) ** 2 - logs - constant

    return NamedLaw(
        {"law": "lognormal", "mean_s": rounded(mean), "scv": rounded(scv)},
        mean,
        scv,
        2,
        log_density,
        lambda y: np.asarray(ndtr((np.log(y) - mu) / sigma), np.float64),
    )


def _gamma(x: Floats) -> NamedLaw | None:
    from scipy.special import digamma, gammainc, gammaln, polygamma

    mean = float(x.mean())
    gap = math.log(mean) - float(np.log(x).mean())
    if not gap > 0.0:
        return None
    shape = (3.0 - gap + math.sqrt((gap - 3.0) ** 2 + 24.0 * gap)) / (12.0 * gap)  # Minka's first guess, 2002
    for _ in range(_ROUNDS):
        step = (math.log(shape) - float(digamma(shape)) - gap) / (1.0 / shape - float(polygamma(1, shape)))
        shape = max(shape - step, 0.5 * shape)
        if abs(step) < 1e-12 * shape:
            break
    if not 1.0 / shape <= MAX_SCV:
        return None
    scale = mean / shape
    constant = float(gammaln(shape)) + shape * math.log(scale)
    return NamedLaw(
        {"law": "gamma", "mean_s": rounded(mean), "scv": rounded(1.0 / shape)},
        mean,
        1.0 / shape,
        2,
        lambda y: (shape - 1.0) * np.log(y) - y / scale - constant,
        lambda y: np.asarray(gammainc(shape, y / scale), np.float64),
    )


def _weibull(x: Floats) -> NamedLaw | None:
    logs = np.log(x)
    mean_log, top = float(logs.mean()), float(logs.max())
    shape = 1.2825 / max(float(logs.std()), 1e-6)  # the logarithm's standard deviation is pi / (sqrt(6) shape)
    for _ in range(_ROUNDS):
        power = np.exp(shape * (logs - top))
        total = float(power.sum())
        first = float(power @ logs) / total
        second = float(power @ (logs * logs)) / total - first**2
        step = (first - 1.0 / shape - mean_log) / (second + 1.0 / shape**2)
        shape = max(shape - step, 0.5 * shape)
        if abs(step) < 1e-10 * shape:
            break
    scv = weibull_scv(shape)
    if not 1e-5 < scv <= MAX_SCV:
        return None
    scale = math.exp(top + math.log(float(np.exp(shape * (logs - top)).mean())) / shape)
    mean = scale * math.gamma(1.0 + 1.0 / shape)

    def log_density(y: Floats) -> Floats:
        ratio = np.log(y / scale)
        return math.log(shape / scale) + (shape - 1.0) * ratio - np.exp(shape * ratio)

    return NamedLaw(
        {"law": "weibull", "mean_s": rounded(mean), "scv": rounded(scv)},
        mean,
        scv,
        2,
        log_density,
        lambda y: -np.expm1(-((y / scale) ** shape)),
    )


def _pareto(x: Floats) -> NamedLaw | None:
    least = float(x[0])
    logs = float(np.log(x / least).mean()) if least > 0.0 else math.inf
    if not logs > 0.0 or not 1.0 / logs >= PARETO_SHAPE:
        return None
    shape = 1.0 / logs
    return NamedLaw(
        {"law": "pareto", "shape": rounded(shape), "minimum_s": rounded(least)},
        least * shape / (shape - 1.0),
        1.0 / (shape * (shape - 2.0)) if shape > 2.0 else math.inf,
        2,
        lambda y: math.log(shape / least) - (shape + 1.0) * np.log(y / least),
        lambda y: -np.expm1(-shape * np.log(np.maximum(y / least, 1.0))),
    )


def _uniform(x: Floats) -> NamedLaw:
    low, high = float(x[0]), float(x[-1])
    mean = 0.5 * (low + high)
    return NamedLaw(
        {"law": "uniform", "low_s": rounded(low), "high_s": rounded(high)},
        mean,
        (high - low) ** 2 / 12.0 / mean**2,
        2,
        lambda y: np.full(len(y), -math.log(high - low)),
        lambda y: np.clip((y - low) / (high - low), 0.0, 1.0),
    )


_FITS: Mapping[str, Callable[[Floats], NamedLaw | None]] = {
    "exponential": _exponential,
    "lognormal": _lognormal,
    "gamma": _gamma,
    "weibull": _weibull,
    "pareto": _pareto,
    "uniform": _uniform,
}
