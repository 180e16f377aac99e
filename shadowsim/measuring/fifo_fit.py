"""Finds the workers, overhead and slowdown of FIFO instances by likelihood.

For c workers the services follow from arrivals and finishes (fifo_starts.py). The finishes are a triangular function of
the services with derivative 1, so that the likelihood of a run is the product of the services' density. With too few
workers services come out short or negative, with too many they contain waits; either way their distribution is wider
than it is with the right number, whose likelihood is the greatest whatever the law. The density is estimated from the
services themselves (a Gaussian kernel that widens with long services; Silverman, 1986), with a small share for
anything at all, so that a single odd answer decides nothing.

The overhead d is the difference between requests that did not wait, which show service + d, and those that did, which
show the service alone; services do not depend on the queue. It is the weighted mean of the differences of their
quantiles, which are weighted as the covariance of order statistics demands. Where services slow down with busy workers,
the overhead is the one with the greatest likelihood: it adds to all services, and a slowdown multiplies them.

The number of workers, and whether they slow each other down, are chosen by BIC (Schwarz, 1978); numbers that are less
than `CLEAR` below in log likelihood remain possible.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shadowsim.arrays import Floats, Ints
from shadowsim.measuring.fifo_starts import Answered, Starts, blocked_until, idle_time, in_flight, starts
from shadowsim.measuring.wake_fit import WakeFit, fit_wake

CLEAR = 4.0  # of log likelihood: odds of 50
FEW = 30  # fewer values tell no quantiles
_ODD = 1e-4  # share of answers that the density leaves to anything at all
_LEAST_WIDTH = 1e-3  # of the kernel, relative: clocks and timers are no finer
MOST_REQUESTS = 100_000  # that are used
_EACH = 12  # numbers of workers that are all tried; above, steps of an eighth
_ROUNDS = 12
_MIDDLE = np.array([0.2, 0.35, 0.5, 0.65, 0.8])
_GRID = 9  # overheads that are tried at first, and how often the interval around the best is halved
_REFINED = 7
_TWO_ERRORS = 2.0  # of log likelihood, which two standard errors from the greatest have lost
_NEAR, _STRAIGHT = 8.0, 0.25  # of log likelihood: where it may be taken for a parabola, and how far it may be off
_MOST_SHARE = 0.98  # of the shortest latency that may be overhead: a delay without service would fit constant latencies
_GLANCED, _GLANCES = 20_000, 5  # requests, and overheads, with which numbers of workers are compared at first
_FINALISTS = 3
_HOPELESS, _FAR = 6, 100.0  # numbers in succession that are so far below the best end the search
_PER_WIDTH = 4  # cells of the grid in a kernel's standard deviation
SHAPES = CONSTANT, LINEAR, FREE = "constant", "linear", "free"  # of the slowdown by busy workers
_ROUGH = 1.35  # weights from an estimated density are not the best ones: simulated errors are 1.05 to 1.45 times theirs
_PROFILED = 1.5  # likewise of a likelihood whose density is estimated: 78 to 93 % of its intervals of 95 % hold
_SMOOTH = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 9.0
_DEPTHS = np.concatenate(([0.002, 0.005, 0.01, 0.02, 0.035], np.arange(0.05, 0.96, 0.025), [0.97, 0.985]))


@dataclass(frozen=True, slots=True)
class Overhead:
    """The time outside the service: its estimate and standard error, in seconds; NaN without one."""

    value_s: float
    error_s: float

    @property
    def is_known(self) -> bool:
        """Whether some requests waited, and others did not."""
        return not math.isnan(self.error_s)


UNKNOWN_OVERHEAD = Overhead(0.0, math.nan)


@dataclass(frozen=True, slots=True, eq=False)
class WorkerFit:
    """What one number of workers, with or without slowdown, makes of a run.

    Attributes
    ----------
    workers : int
    overhead : Overhead
    shape : str
        That of the slowdown: one of `SHAPES`.
    groups : ndarray of int64, shape (levels,)
        Which numbers of busy workers share a factor; of a batcher, which sizes of a batch.
    factors : ndarray of float64, shape (levels,)
        The factor on a service for 1, 2, ... busy workers, or requests in a batch.
    score : float
        Log likelihood less half of log n for each parameter.
    starts : Starts
    """

    workers: int
    overhead: Overhead
    shape: str
    groups: Ints
    factors: Floats
    score: float
    starts: Starts

    @property
    def factor_of_each(self) -> Floats:
        """The factor of each request's service."""
        return self.factors[self.starts.busy - 1]


@dataclass(frozen=True, slots=True, eq=False)
class FifoFit:
    """The number of workers, as far as a run tells it.

    Attributes
    ----------
    best : WorkerFit
    alternatives : tuple of WorkerFit
        Fits of the numbers of workers that the run does not exclude, the best among them, from the fewest on.
    most_in_flight : int
        The most requests at one instance at a time. As many workers, or more, never let a request wait.
    wake : WakeFit or None
        What services take longer after idleness; it is no part of `Starts.service_s`.
    """

    best: WorkerFit
    alternatives: tuple[WorkerFit, ...]
    most_in_flight: int
    wake: WakeFit | None = None

    @property
    def possible(self) -> tuple[int, ...]:
        """Numbers of workers that the run does not exclude, among those tried."""
        return tuple(fit.workers for fit in self.alternatives)

    @property
    def is_bounded(self) -> bool:
        """Whether the run excludes that no request ever waited."""
        return self.most_in_flight not in self.possible

    @property
    def is_identified(self) -> bool:
        """Whether one number of workers remains."""
        return len(self.possible) == 1 and self.is_bounded


def fit_fifo(answered: Answered, width: float = 0.0) -> tuple[Answered, FifoFit]:
    """Fit the workers of each instance, and what depends on their number, and on how long an instance was idle.

    Parameters
    ----------
    answered : Answered
        At least two requests, of which the first `MOST_REQUESTS` are used.
    width : float
        The relative width below which services are not told apart, such as that of rounded latencies.

    Returns
    -------
    Answered, FifoFit
        The requests, with what they took longer after idleness, and the fit.
    """
    fit = _fit_awake(answered, width)
    wake = fit_wake(answered, fit.best.overhead.value_s)
    if wake is not None:
        idle_s = idle_time(answered, fit.best.overhead.value_s)
        woken = replace(answered, wake_s=wake.curve.added_s(idle_s))
        again = _fit_awake(woken, width)
        if again.best.score - math.log(len(answered)) > fit.best.score:
            return woken, replace(again, wake=wake)
    return answered, fit


def _fit_awake(answered: Answered, width: float) -> FifoFit:
    """Return the fit of the workers, with services as long as they would have been had no instance ever been idle."""
    few = answered.rows(slice(0, _GLANCED))
    many = answered.rows(slice(0, MOST_REQUESTS))
    most = int(in_flight(many).max()) + 1
    glances = _glances(few, most, width)
    fits: dict[int, WorkerFit] = {}

    def attempt(numbers: Sequence[int]) -> int:
        new = [c for c in numbers if 1 <= c <= most and c not in fits]
        fits.update({c: fit_workers(many, c, width) for c in new})
        return len(new)

    attempt(sorted(glances, key=lambda c: glances[c], reverse=True)[:_FINALISTS])
    while True:
        best = max(fits.values(), key=lambda fit: fit.score)
        tried = sorted({*fits, *glances})
        at = tried.index(best.workers)
        between = [(best.workers + tried[i]) // 2 for i in (at - 1, at + 1) if 0 <= i < len(tried)]
        if not attempt([best.workers - 1, best.workers + 1, *between]):
            break
    attempt([most])
    alternatives = [fit for _, fit in sorted(fits.items()) if fit.score > best.score - CLEAR]
    return FifoFit(best, tuple(alternatives), most)


def fit_workers(answered: Answered, workers: int, width: float) -> WorkerFit:
    """Return the best fit of a number of workers, with the shape of the slowdown that it needs."""
    blocked = blocked_until(answered, workers)

    def begin(overhead_s: float) -> Starts:
        return starts(answered, blocked, in_flight(answered, overhead_s), workers, overhead_s)

    plain = overhead_of(answered, blocked)
    return fit_shapes(
        answered, begin, workers, workers, width, lambda score: likeliest_overhead(answered.latency_s, score), plain
    )


def fit_shapes(
    answered: Answered,
    begin: Callable[[float], Starts],
    workers: int,
    levels: int,
    width: float,
    overhead_by: Callable[[Callable[[float], float]], Overhead],
    plain: Overhead | None = None,
) -> WorkerFit:
    """Return the fit with the best score, of those with factors that are all 1, on a line, or free.

    Parameters
    ----------
    answered : Answered
    begin : callable
        Returns the starts for an overhead in seconds.
    workers, levels : int
        The number of workers, and that of the levels (busy workers, sizes of a batch) that may have factors.
    width : float
        Of the kernel, at least.
    overhead_by : callable
        Returns the overhead for which a score is greatest.
    plain : Overhead, optional
        The overhead where all factors are 1; by default it is found by the score, too.
    """

    def fit(overhead: Overhead, shape: str) -> WorkerFit:
        return _fit(answered, begin(overhead.value_s), workers, levels, overhead, shape, width)

    def likeliest(shape: str) -> Overhead:
        return overhead_by(lambda d_s: fit(Overhead(d_s, math.nan), shape).score)

    fits = [fit(likeliest(CONSTANT) if plain is None else plain, CONSTANT)]
    if levels > 1:
        overhead = likeliest(LINEAR)
        fits += [fit(overhead, LINEAR), fit(overhead, FREE)]
    return max(fits, key=lambda fit: fit.score)


def overhead_of(answered: Answered, blocked_s: Floats) -> Overhead:
    """Return the overhead that makes the services of requests that waited and of others alike, without slowdown."""
    most_s, d, new = most_overhead(answered.latency_s), 0.0, UNKNOWN_OVERHEAD
    for _ in range(_ROUNDS):
        waited = blocked_s > answered.arrival_s + d
        new = shift(answered.awake_s[~waited], answered.finish_s[waited] - blocked_s[waited])
        if not new.is_known:
            break
        before, d = d, min(max(new.value_s, 0.0), most_s)
        if abs(d - before) <= 1e-2 * new.error_s:
            break
    return Overhead(d if new.is_known else 0.0, new.error_s)


def likeliest_overhead(latency_s: Floats, score: Callable[[float], float]) -> Overhead:
    """Return the overhead with the greatest score, and its error from the score's curvature there."""
    tried = {float(d): score(float(d)) for d in np.linspace(0.0, most_overhead(latency_s), _GRID)}
    for _ in range(_REFINED):
        at = sorted(tried)
        i = at.index(max(tried, key=lambda d: tried[d]))
        for j in (i - 1, i + 1):
            if 0 <= j < len(at):
                middle = 0.5 * (at[i] + at[j])
                tried[middle] = score(middle)
    best = max(tried, key=lambda d: tried[d])
    if tried[best] - tried[0.0] < CLEAR:
        # Nothing is gained by an overhead: how far it may reach is where the score has fallen.
        beyond = [d for d in tried if d > best and tried[d] < tried[best] - CLEAR]
        return Overhead(0.0, 0.5 * min(beyond)) if beyond else UNKNOWN_OVERHEAD
    low, high = _reaches(best, tried, _NEAR)
    if math.isnan(low + high):
        known = [reach for reach in _reaches(best, tried, _TWO_ERRORS) if not math.isnan(reach)]
        return Overhead(best, 0.5 * _PROFILED * sum(known) / len(known) if known else best)
    # The score is rough, since the kernel follows the sample: a parabola through many points is smoother than it.
    near = np.linspace(best - low, best + high, _GRID)
    scores = np.array([score(d) for d in near.tolist()]) - tried[best]
    x = (near - best) / (low + high)
    curve, slope, top = np.polyfit(x, scores, 2)
    rest = scores - np.polyval((curve, slope, top), x)
    vertex = best - 0.5 * slope / curve * (low + high) if curve < 0.0 else math.nan
    if near[0] < vertex < near[-1] and float(np.abs(rest).max()) < _STRAIGHT * _NEAR:
        return Overhead(float(vertex), float(_PROFILED * (low + high) / math.sqrt(-2.0 * curve)))
    low, high = _reaches(
        best, tried | dict(zip(near.tolist(), (scores + tried[best]).tolist(), strict=True)), _TWO_ERRORS
    )
    return Overhead(best, 0.25 * _PROFILED * (low + high))


def _reaches(best: float, tried: Mapping[float, float], fall: float) -> tuple[float, float]:
    """Return how far below and above the best a score has fallen by so much; NaN where it never has."""
    at = np.array(sorted(tried))
    below = np.maximum(tried[best] - np.array([tried[d] for d in at.tolist()]), 0.0)
    i = int(np.searchsorted(at, best))

    def reach(side: Floats, drop: Floats) -> float:
        far = np.flatnonzero(drop >= fall)
        if not far.size:
            return math.nan
        j = int(far[0])
        before, after = math.sqrt(drop[j - 1]), math.sqrt(drop[j])  # straight for a parabola
        share = (math.sqrt(fall) - before) / (after - before)
        return float(abs(side[j - 1] + share * (side[j] - side[j - 1]) - best))

    return reach(at[i::-1], below[i::-1]), reach(at[i:], below[i:])


def most_overhead(latency_s: Floats) -> float:
    """Return the longest overhead that leaves nearly all latencies a service."""
    return _MOST_SHARE * float(np.quantile(latency_s, 0.001))


def _glances(answered: Answered, most: int, width: float) -> dict[int, float]:
    """Return scores by numbers of workers, from 1 on until more of them only make it worse."""
    glances: dict[int, float] = {}
    for workers in _ladder(most):
        glances[workers] = _glance(answered, workers, width)
        last = list(glances.values())[-_HOPELESS:]
        if len(last) == _HOPELESS and max(last) < max(glances.values()) - _FAR:
            break
    return glances


def _glance(answered: Answered, workers: int, width: float) -> float:
    """Return about the greatest score that a number of workers may have."""
    blocked = blocked_until(answered, workers)
    overheads = [(overhead_of(answered, blocked), CONSTANT)]
    if workers > 1:
        overheads += [
            (Overhead(d, math.nan), LINEAR) for d in np.linspace(0.0, most_overhead(answered.latency_s), _GLANCES)
        ]
    scores = []
    for overhead, shape in overheads:
        begun = starts(answered, blocked, in_flight(answered, overhead.value_s), workers, overhead.value_s)
        scores.append(_fit(answered, begun, workers, workers, overhead, shape, width).score)
    return max(scores)


def shift(longer: Floats, shorter: Floats) -> Overhead:
    """Return by how much one sample is greater than another of the same shape, by generalised least squares.

    The covariance of the quantiles at u and v is (min(u, v) - u v) / (f(u) f(v)) (1/n + 1/m), f being the density at
    the quantile; its inverse is tridiagonal.
    """
    n, m = len(longer), len(shorter)
    if min(n, m) < FEW:
        return UNKNOWN_OVERHEAD
    depths = _DEPTHS[(np.minimum(_DEPTHS, 1.0 - _DEPTHS) * min(n, m)) >= 2.0]
    high, low = np.quantile(longer, depths), np.quantile(shorter, depths)
    n_all, middle = n + m, float(np.median(low))
    shape = np.sort((high * n + (low + float(np.median(high - low))) * m) / n_all)
    least = 1e-6 * abs(middle) + 1e-12
    width = np.empty(len(depths))
    width[1:-1] = shape[2:] - shape[:-2]
    width[0], width[-1] = shape[1] - shape[0], shape[-1] - shape[-2]
    probability = np.empty(len(depths))
    probability[1:-1] = depths[2:] - depths[:-2]
    probability[0], probability[-1] = depths[1] - depths[0], depths[-1] - depths[-2]
    density = probability / np.maximum(width, least)
    if len(density) > len(_SMOOTH):  # rough densities would pretend to know more
        padded = np.pad(density, len(_SMOOTH) // 2, mode="edge")
        density = np.convolve(padded, _SMOOTH, mode="valid")
    edges = np.concatenate(([0.0], depths, [1.0]))

    def product(x: Floats, y: Floats) -> float:
        """X B^-1 y of the Brownian bridge's covariance B: the increments are independent, but add up to 0."""
        dx, dy = np.diff(np.concatenate(([0.0], x, [0.0]))), np.diff(np.concatenate(([0.0], y, [0.0])))
        return float((dx * dy / np.diff(edges)).sum())

    information = product(density, density)
    value = product(density, density * (high - low)) / information
    return Overhead(value, _ROUGH * math.sqrt((1.0 / n + 1.0 / m) / information))


def slowdown_groups(busy: Ints, workers: int) -> Ints:
    """Return which factor holds for 1, 2, ... busy workers: each its own, or neighbours together where few are seen."""
    counts = np.bincount(busy - 1, minlength=workers)[:workers]
    groups, group, held = np.zeros(workers, np.int64), 0, 0
    edge = 1.0
    for b in range(workers):
        if held >= FEW and b + 1 > edge:
            group, held = group + 1, 0
            edge = (b + 1) * (1.0 if workers <= _EACH else 1.25)
        groups[b] = group
        held += int(counts[b])
    if held < FEW and group:
        groups[groups == group] = group - 1
    return groups


def _fit(
    answered: Answered, begun: Starts, workers: int, levels: int, overhead: Overhead, shape: str, width: float
) -> WorkerFit:
    groups = np.zeros(levels, np.int64) if shape == CONSTANT else slowdown_groups(begun.busy, levels)
    factors = busy_factors(begun, groups, shape)
    n_parameters = overhead.is_known + {CONSTANT: 0, LINEAR: 1, FREE: int(groups.max())}[shape]
    scale, longest = float(np.quantile(answered.latency_s, 0.25)), float(answered.latency_s.max())
    likelihood = log_likelihood(begun.service_s, factors[begun.busy - 1], scale, longest, max(width, _LEAST_WIDTH))
    score = likelihood - 0.5 * n_parameters * math.log(len(answered))
    return WorkerFit(workers, overhead, shape, groups, factors, score, begun)


def busy_factors(begun: Starts, groups: Ints, shape: str) -> Floats:
    """Return the factor on a service for 1, 2, ... busy workers, that of the fewest that were seen being 1.

    Services multiply, so that the logarithms of their quantiles differ by the logarithms of the factors, whatever the
    law; their mean over quantiles in the middle depends little on an overhead that is slightly off.
    """
    workers, n = len(groups), int(groups.max()) + 1
    if shape == CONSTANT or workers == 1 or (shape == FREE and n == 1):
        return np.ones(workers)
    each = np.arange(workers) if shape == LINEAR else groups
    levels, total = _levels(begun.service_s, each[begun.busy - 1], int(each.max()) + 1)
    if (total > 0.0).sum() < 2:
        return np.ones(workers)
    if shape == LINEAR:
        return np.asarray(1.0 + _slope(levels, total) * np.arange(workers), np.float64)
    numbers = np.arange(workers)
    middles = np.array([numbers[groups == g].mean() for g in range(n)])
    levels = np.where(total > 0.0, levels, levels[0])
    return np.asarray(np.exp(np.interp(numbers, middles, levels - levels[0])), np.float64)


def _levels(service_s: Floats, group: Ints, n: int) -> tuple[Floats, Floats]:
    """Return the mean logarithm of the middle quantiles of each group, and the group's size, 0 if one is not positive.

    The quantiles are those of `np.quantile`, of all groups at once: a fit asks for some hundreds.
    """
    ordered, sizes = service_s[np.lexsort((service_s, group))], np.bincount(group, minlength=n)
    seen = np.flatnonzero(sizes)
    first, last = (np.cumsum(sizes) - sizes)[seen, None], (np.cumsum(sizes) - 1)[seen, None]
    place = (last - first) * _MIDDLE
    below = np.floor(place).astype(np.int64)
    part = place - below
    low, high = ordered[first + below], ordered[np.minimum(first + below + 1, last)]
    quantiles = np.where(part < 0.5, low + (high - low) * part, high - (high - low) * (1.0 - part))
    positive = (quantiles > 0.0).all(axis=1)
    levels, total = np.zeros(n), np.zeros(n)
    levels[seen[positive]] = np.log(quantiles[positive]).mean(axis=1)
    total[seen[positive]] = sizes[seen[positive]]
    return levels, total


def _slope(means: Floats, weights: Floats) -> float:
    """Return k of the line 1 + k (b - 1) whose logarithm is nearest to the means, but for a constant."""
    from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

    steps, total = np.arange(len(means)), weights.sum()

    def misfit(k: float) -> float:
        rest = means - np.log1p(k * steps)
        return float(weights @ (rest - weights @ rest / total) ** 2)

    least = -0.9 / max(len(means) - 1, 1)
    return float(minimize_scalar(misfit, bounds=(least, 4.0), method="bounded", options={"xatol": 1e-6}).x)


def log_likelihood(service_s: Floats, factors: Floats, scale_s: float, longest_s: float, width: float) -> float:
    """Return the log likelihood of services under their own density.

    The kernel works on x = service / (factor scale) up to 2, and on 2 + 2 log(x / 2) beyond, so that it widens with
    long services only; it is no narrower than `width`.
    """
    possible: NDArray[np.bool_] = service_s > -width * scale_s
    odd = _ODD / longest_s
    impossible = float((~possible).sum()) * math.log(odd)
    if not possible.any():
        return impossible
    factor = factors[possible]
    x = service_s[possible] / (factor * scale_s)
    stretch = np.maximum(0.5 * x, 1.0)
    moved = np.where(x > 2.0, 2.0 + 2.0 * np.log(stretch), x)
    density = _kernel_density(moved, width) / (stretch * factor * scale_s)
    return impossible + float(np.log((1.0 - _ODD) * density + odd).sum())


def _kernel_density(x: Floats, least_width: float) -> Floats:
    """Return a Gaussian kernel estimate of the density of values >= 0 at themselves, reflected at 0, on a grid."""
    x = np.abs(x)  # none is below 0 by more than the kernel's width
    low, middle, high = np.quantile(x, (0.25, 0.5, 0.75))
    spread = min(float(x.std()), float(high - low) / 1.349 or math.inf)
    h = max(0.9 * spread * len(x) ** -0.2, least_width)
    step = h / _PER_WIDTH
    if middle > step:
        step = middle / math.ceil(middle / step)  # services that are all alike then lie on the grid, wherever they are
    at = x / step
    cell = at.astype(np.int64)
    part = at - cell
    counts = np.bincount(cell, 1.0 - part, int(cell.max()) + 2)
    counts += np.bincount(cell + 1, part, len(counts))
    counts[0] *= 2.0
    reach = 5 * _PER_WIDTH
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / h) ** 2)
    padded = np.concatenate([np.zeros(max(reach + 1 - len(counts), 0)), counts[reach:0:-1], counts, np.zeros(reach)])
    smooth = np.convolve(padded, kernel / (kernel.sum() * step * len(x)), mode="valid")
    return np.asarray(smooth[cell] * (1.0 - part) + smooth[cell + 1] * part, np.float64)


def _ladder(most: int) -> list[int]:
    numbers = list(range(1, min(most, _EACH) + 1))
    while numbers[-1] < most:
        numbers.append(min(max(numbers[-1] + 1, numbers[-1] * 9 // 8), most))
    return numbers
