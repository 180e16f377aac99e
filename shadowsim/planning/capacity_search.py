"""Searches one pool for the greatest rate of the traffic at which it meets its goals.

All rates are tried with the same draws (common random numbers), so that a figure changes with the rate because of the
rate. The search has two stages.

1. In replication 0 the rate is found by the regula falsi (Illinois variant: Dowell and Jarratt, 1971) on a goal's
   *closeness*: limit / figure - 1 for a time, log(limit / figure) for a share that must be small, limit - figure for a
   utilisation. In M/M/1 the first is linear in the rate for the mean and for every quantile of the latency, and the
   second for the share of requests that are late; in other queues they are nearly so.
2. All replications are run at that rate, f. Their figures are independent, so that m +- t s / sqrt(n) is Student's
   interval of the mean figure at f. The rates at which its two ends meet the limit are the interval of the greatest
   rate, which then holds the true rate exactly if the figure's interval at the true rate holds the limit: a test is
   inverted, and nothing is assumed of how replications' own rates would scatter. The ends are carried to the limit
   along the closeness, whose slope comes from two rates. An end that is further than `FAR` from f is simulated, too,
   and interpolated. If the estimate is further from f than `NEAR` and a quarter of the interval, stage 2 is
   repeated there.

With several goals the answer is the least of their rates. Its lower end is the least of their lower ends at the full
level: it is too high only if the end of the goal that decides is. Its upper end is the least of their upper ends at 1/k
of the level for k goals (Bonferroni), since any of them may be too low.

The upper bracket is the stability limit: the rate at which the offered load is 1 (load.py). Beyond it queues grow
without end, and a goal that a run meets there is met by its end alone. For services in tokens the load law is an
estimate; their limit is measured by what an overloaded run works off. Where requests can be lost, no rate is too high,
and `LOSING` times the load of 1 is the highest that is tried. The lower bracket is a rate of 0, at which no request
waits. Where figures need not grow with the rate (a batcher, whose batches fill sooner; scaling; a slowdown that is not
sorted; a wake, which busy instances are spared; a limit of copies in flight), rates are tried from the top down, and
the first that holds is the lower bracket.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.planning.load import (
    Demand,
    RunLength,
    demand_of,
    figure_without_waits,
    instances_at_peak,
    repeating_s,
    run_length,
    with_factor,
    with_length,
)
from shadowsim.planning.size_search import AIMED_LOAD, RAREST, SAMPLED, without_other_side
from shadowsim.planning.slo import Goal, measure
from shadowsim.result import Result
from shadowsim.scenario.relaxation import trace_columns
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.service import Service
from shadowsim.scenario.token_times import typical_requests
from shadowsim.statistics.estimates import critical, error_of_mean
from shadowsim.text import rate

STABILITY = "stability"  # what decides where the goals hold up to the stability limit
NONE, TOP = "none", "top"  # ends of stage 1 without a root
NEAR_LIMIT = 0.99  # of the stability limit; goals that hold there are said to hold up to it
LOSING = 16.0  # loads of 1: the highest rate where requests can be lost
SATURATED = 2.0  # estimated stability limits: a rate that overloads a service in tokens
SATURATED_WINDOWS = 40
SCANNED_PARTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)  # of the highest rate
LEAST_PART = 1e-3  # of the highest rate: no lower one is tried
REACH = 1.2  # how far a rate that holds is raised while no higher one is known to miss; 2 where requests can be lost
CLOSE = 0.01  # relative change of the rate at which stage 1 ends
FAR, MOST_FAR = 0.05, 0.5  # relative distances between which an end of the interval is simulated
SLOPE_STEPS = (0.03, 0.1, 0.3)  # relative distance of two rates that give a slope
MOST_TRIED = 40  # rates of stage 1
NEAR = 2e-3  # relative distance over which the slope carries the estimate, whatever the interval
MOST_MOVES = 8  # repetitions of stage 2
MOST_STEP = 0.1  # relative step between the first two of them; later steps may be longer
MOST_CLOSE = 1e3
_LITTLE = 1e-6  # added to shares before their logarithms are taken


@dataclass(frozen=True, slots=True)
class RatePoint:
    """What the runs at one rate gave.

    Attributes
    ----------
    values : ndarray of float64, shape (replications, figures)
        One column per goal, those that limit the rate first; then the utilisation.
    horizon_s : float
        Length of a run.
    """

    values: Floats
    horizon_s: float

    @property
    def mean(self) -> Floats:
        """Means over replications, shape (figures,)."""
        return np.asarray(self.values.mean(axis=0), np.float64)

    @property
    def error(self) -> Floats:
        """Standard errors of the means by the scatter of the replications, shape (figures,); NaN for a single one."""
        return np.full(self.values.shape[1], math.nan) if len(self.values) < 2 else error_of_mean(self.values)


@dataclass(frozen=True, slots=True)
class GreatestRate:
    """The answer of a search; rates are factors on the traffic of the scenario.

    Attributes
    ----------
    factor, low, high : float
        The greatest rate and its interval; NaN where no rate holds.
    point : RatePoint or None
        All replications at that rate, or as near to it as matters.
    binding : str
        The goal that decides, or `STABILITY`; "" where nothing that was tried does, or no rate holds.
    note : str
    limit : float
        Stability limit; NaN where there is none.
    """

    factor: float
    low: float
    high: float
    point: RatePoint | None
    binding: str
    note: str = ""
    limit: float = math.nan


@dataclass(slots=True)
class RateSearch:
    """A search for the greatest rate of one pool: what it looks for, and the rates that it has tried.

    Attributes
    ----------
    scenario : Scenario
    role : str
        source or shadow.
    limiting, others : tuple of Goal
        The role's goals that a lower rate can only help to meet, and those that it can only hurt.
    run : callable
        (scenario, n) -> results of its first n replications.
    n_replications : int
    alpha : float
        Level of the interval, two-sided.
    n_goals : int
        Number of goals among which the level of upper ends is divided.
    demand : Demand
        The work that comes to the pool at a factor of 1.
    tried, earlier : dict of float to RatePoint
        Rates, and those of stage 1 if its runs were shorter.
    enough : bool
        Whether runs are as long as they should be.
    top : float
        The highest rate that is tried.
    """

    scenario: Scenario
    role: str
    limiting: tuple[Goal, ...]
    others: tuple[Goal, ...]
    run: Callable[[Scenario, int], Sequence[Result]]
    n_replications: int
    alpha: float
    n_goals: int
    demand: Demand
    tried: dict[float, RatePoint] = field(default_factory=dict)
    earlier: dict[float, RatePoint] = field(default_factory=dict)
    enough: bool = True
    top: float = math.inf
    _fixed_s: float | None = None

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        role: str,
        goals: Sequence[Goal],
        run: Callable[[Scenario, int], Sequence[Result]],
        *,
        n_replications: int,
        alpha: float,
        n_goals: int,
    ) -> RateSearch:
        """Set up the search for a role's pool in a scenario."""
        limiting = tuple(goal for goal in goals if goal.more_instances_help)
        others = tuple(goal for goal in goals if not goal.more_instances_help)
        scenario = without_other_side(scenario, role)
        demand = demand_of(scenario, role)
        return cls(scenario, role, limiting, others, run, n_replications, alpha, n_goals, demand)

    @property
    def figures(self) -> tuple[Goal, ...]:
        """What is measured of a run: the goals, and the utilisation for information."""
        return (*self.limiting, *self.others, Goal(self.role, "utilisation", None, "<=", 1.0, "utilisation <= 1"))

    def greatest(self) -> GreatestRate:
        """Find the greatest rate at which all goals are met."""
        if self.demand.instances == 0.0:
            return _none("no request reaches it: nothing to find")
        for goal in self.limiting:
            best = figure_without_waits(goal, self.scenario, self.role, self.demand)
            if goal.margin(best) < -0.01 * goal.limit:
                return _none(f"no rate holds: {goal.figure_text(best)} without any wait, against {goal}")
        limit = math.nan if self._loses else self._load_of_1()
        self.top = LOSING * self._load_of_1() if self._loses else NEAR_LIMIT * limit
        factor, end = self._root(self.top)
        if end == NONE:
            return self._missed_at(min(self.tried))
        self._fix_length(factor)
        found = self._up_to(factor, limit) if end == TOP else self._settled(factor)
        high = max(found.high, found.factor)
        high = high if math.isnan(limit) else min(high, max(limit, found.factor))
        found = replace(found, low=min(found.low, found.factor), high=high)
        return replace(self._without_hurt_goals(found), limit=limit)

    # The pool

    @property
    def _service(self) -> Service:
        return self.scenario.side(self.role).service

    @property
    def _loses(self) -> bool:
        """Whether requests can be lost, which keeps queues short at any rate."""
        tokens, shadow = self._service.tokens, self.role == "shadow"
        caps = (self.scenario.max_in_flight, self.scenario.max_body_bytes, self.scenario.max_per_s)
        aborts = tokens is not None and tokens.on_timeout == "abort"
        return self._service.queue_limit is not None or aborts or (shadow and caps != (None, None, None))

    @property
    def _is_monotone(self) -> bool:
        """Whether figures can only grow with the rate, up to chance."""
        service, factors = self._service, list(self._service.slowdown)
        capped = self.role == "shadow" and self.scenario.max_in_flight is not None
        steady = service.batching is None and service.scaling is None and service.wake is None
        return steady and factors == sorted(factors) and not capped

    def _load_of_1(self) -> float:
        """Return the factor that makes the offered load 1, with as many instances as there may be."""
        scaling = self._service.scaling
        n = self.scenario.side(self.role).n_instances if scaling is None else scaling.most
        estimate = n / self.demand.instances
        measured = self._service.tokens is not None and scaling is None and not self._loses
        return self._served(estimate) if measured else estimate

    def _served(self, estimate: float) -> float:
        """Return the factor that a service in tokens keeps up with, by the tokens that it makes while overloaded."""
        tokens = self._service.tokens
        assert tokens is not None
        per_request = float(typical_requests(tokens, trace_columns(self.scenario)).output.mean())
        factor = served = SATURATED * estimate
        for _ in range(MOST_MOVES):
            busier = with_factor(self.scenario, factor)
            horizon_s = self._run_length(busier).short_s
            settings = {"run.sample_requests": 0, "run.period_s": horizon_s / SATURATED_WINDOWS}
            (result,) = self.run(with_length(busier, horizon_s, settings), 1)
            windows = result.windows[result.windows["role"] == self.role]
            # Instances are filling in the first windows.
            made = windows["output_tokens"].to_numpy(np.float64)[SATURATED_WINDOWS // 4 :]
            per_s = made.sum() / (len(made) * horizon_s / SATURATED_WINDOWS)
            served = per_s / per_request / (self.demand.rate_per_s * self.demand.share)
            if served < 0.9 * factor:
                break
            factor *= SATURATED
        return served

    # Runs

    def _point(self, factor: float, n: int = 1) -> RatePoint:
        """Return what the first n replications, at least, give at a rate."""
        known = self.tried.get(factor)
        if known is not None and len(known.values) >= n:
            return known
        busier = with_factor(self.scenario, factor)
        horizon_s = self._fixed_s or self._run_length(busier).short_s
        sampled = SAMPLED if any(goal.is_of_sample for goal in self.figures) else 0
        results = self.run(with_length(busier, horizon_s, {"run.sample_requests": sampled}), n)
        values = np.array([[measure(goal, result)[0] for goal in self.figures] for result in results])
        point = self.tried[factor] = RatePoint(values, horizon_s)
        return point

    def _run_length(self, busier: Scenario) -> RunLength:
        demand = demand_of(busier, self.role)
        furthest = max(goal.furthest_quantile for goal in self.limiting)
        n = instances_at_peak(busier, self.role, demand)
        return run_length(busier, self.role, demand, n, min(furthest, RAREST))

    def _fix_length(self, factor: float) -> None:
        """Set one length for all runs of stage 2, where the traffic is steady; otherwise it is that of the traffic."""
        busier = with_factor(self.scenario, factor)
        length = self._run_length(busier)
        self.enough = length.enough
        if repeating_s(busier) <= busier.period_s:
            self._fixed_s = length.long_s
            self.earlier, self.tried = self.tried, {}

    def _closeness(self, factor: float) -> float:
        """Return the least closeness of the goals in replication 0; negative where one is missed."""
        return self._least(self._point(factor).values[0])

    def _least(self, figures: Sequence[float] | Floats) -> float:
        return min(closeness(goal, float(x)) for goal, x in zip(self.limiting, figures, strict=False))

    # Stage 1

    def _root(self, top: float) -> tuple[float, str]:
        """Return the rate at which replication 0 meets its goals just so, and "".

        Or 0 and `NONE` where no rate that was tried holds, or the highest rate and `TOP` where it holds.
        """
        best = [figure_without_waits(goal, self.scenario, self.role, self.demand) for goal in self.limiting]
        worst = [math.inf if goal.is_time else float(goal.is_upper_limit) for goal in self.limiting]
        low, y_low = 0.0, max(self._least(best), 0.0)
        high, y_high = top, self._least(worst)
        if not self._is_monotone:
            low, high = self._scanned(top)
            if low == 0.0:
                return 0.0, NONE
            if high > top:
                return top, TOP
            y_low, y_high = self._closeness(low), self._closeness(high)
        peak = instances_at_peak(self.scenario, self.role, self.demand) / self.demand.peak_instances
        factor, last = (min(AIMED_LOAD * peak, top), 0) if low == 0.0 else (0.0, 0)
        for _ in range(MOST_TRIED):
            if factor == 0.0:
                # Until a rate is missed, one soon above the peak's capacity is thought to be.
                reach = high if high in self.tried else min(high, max(peak, (2.0 if self._loses else REACH) * low))
                factor = low + (reach - low) * max(y_low, 1e-3) / (max(y_low, 1e-3) - y_high)
                if reach == top and factor > (1.0 - FAR) * top:
                    factor = top
                near = low if factor - low < high - factor else high
                if near in self.tried and abs(factor - near) <= CLOSE * factor and high in self.tried:
                    return factor, ""
                if factor < top:
                    inset = 0.02 * (high - low)
                    factor = min(max(factor, low + inset), high - inset)
            y = self._closeness(factor)
            if y >= 0.0:
                if factor == top:
                    return top, TOP
                y_high = 0.5 * y_high if last == 1 and high in self.tried else y_high
                low, y_low, last = factor, y, 1
            else:
                if factor < LEAST_PART * top:
                    return 0.0, NONE
                y_low = 0.5 * y_low if last == -1 else y_low
                high, y_high, last = factor, y, -1
            factor = 0.0
        return low, ""

    def _scanned(self, top: float) -> tuple[float, float]:
        """Try rates from the top down; return the first that holds (0: none) and the one before it (infinity: none)."""
        above = math.inf
        for part in SCANNED_PARTS:
            if self._closeness(part * top) >= 0.0:
                return part * top, above
            above = part * top
        return 0.0, above

    # Stage 2

    def _settled(self, factor: float) -> GreatestRate:
        """Run all replications at a rate, and invert the intervals of the figures there; repeat it at the estimate."""
        held, missed, indices = 0.0, math.inf, range(len(self.limiting))
        for move in range(MOST_MOVES):
            point = self._point(factor, self.n_replications)
            rates = [self._met_from(factor, i, 0.0) for i in indices]
            best = min(rates)
            low, high = (self._end(factor, sign) for sign in (1.0, -1.0))
            if best > 0.0 and abs(best - factor) <= max(NEAR * factor, 0.25 * min(high - best, best - low)):
                binding = str(self.limiting[rates.index(best)])
                low, high = self._simulated(low, factor, 1.0), self._simulated(high, factor, -1.0)
                return GreatestRate(best, low, high, point, binding)
            if self._least(point.mean) >= 0.0:
                held = max(held, factor)
            else:
                missed = min(missed, factor)
            if missed - held <= CLOSE * held or missed < LEAST_PART * self.top:
                break
            step = min((move + 1) * MOST_STEP, 0.5)
            best = min(max(best, (1.0 - step) * factor), (1.0 + step) * factor)
            factor = best if held < best < missed else 0.5 * (held + min(missed, self.top))
        return self._at_a_jump(held, missed) if held else self._missed_at(missed)

    def _at_a_jump(self, held: float, missed: float) -> GreatestRate:
        """Return the answer where the figures jump from met to missed: between rates at which that is certain."""
        indices = range(len(self.limiting))
        settled = [factor for factor, point in self.tried.items() if len(point.values) >= self.n_replications]
        met = [x for x in settled if x <= held and all(self._shifted(x, i, 1.0) >= 0.0 for i in indices)]
        not_met = [x for x in settled if x >= missed and any(self._shifted(x, i, -1.0) < 0.0 for i in indices)]
        ys = [self._shifted(missed if missed < math.inf else held, i, 0.0) for i in indices]
        binding, point = str(self.limiting[ys.index(min(ys))]), self.tried[held]
        note = "the figures jump near this rate, which is the highest tried that holds"
        return GreatestRate(held, max(met, default=0.0), min(not_met, default=math.inf), point, binding, note)

    def _end(self, factor: float, sign: float) -> float:
        """Return the lower (sign 1) or upper end (sign -1) of the interval of the greatest rate."""
        return min(self._met_from(factor, i, sign) for i in range(len(self.limiting)))

    def _simulated(self, end: float, factor: float, sign: float) -> float:
        """Return an end of the interval, interpolated where it is far."""
        if not FAR < abs(end / factor - 1.0) <= MOST_FAR or end > self.top:
            return end
        self._point(end, self.n_replications)
        here, there = (min(self._shifted(x, i, sign) for i in range(len(self.limiting))) for x in (factor, end))
        return factor + (end - factor) * here / (here - there) if (here - there) * (end - factor) > 0.0 else end

    def _met_from(self, factor: float, i: int, sign: float) -> float:
        """Return the rate at which figure i, or an end of its interval, meets its limit, along the slope of a rate."""
        y, slope = self._shifted(factor, i, sign), self._slope(factor, i)
        if slope == 0.0:  # it does not react to the rate
            return math.inf if y >= 0.0 else 0.0
        return float(max(factor - y / slope, 0.0))

    def _shifted(self, factor: float, i: int, sign: float) -> float:
        """Return the closeness of the mean figure i (sign 0), or of the end of its interval on the worse (1) side."""
        point, goal = self.tried[factor], self.limiting[i]
        n, among = len(point.values), self.n_goals if sign < 0.0 else 1
        half = critical(self.alpha / among, n - 1) * point.error[i] if sign else 0.0
        worse = sign if goal.is_upper_limit else -sign
        return closeness(goal, point.mean[i] + worse * half)

    def _slope(self, factor: float, i: int) -> float:
        """Return the change of a goal's closeness with the rate, at a rate; 0 where it does not fall with it."""
        for step in SLOPE_STEPS:
            near = [x for x in self.tried if 0.3 * step <= abs(x / factor - 1.0) <= 2.0 * step]
            other = min(near, key=lambda x: abs(abs(x / factor - 1.0) - step)) if near else factor * (1.0 - step)
            n = min(len(self._point(other).values), len(self.tried[factor].values))
            ys = [closeness(self.limiting[i], float(self.tried[x].values[:n, i].mean())) for x in (factor, other)]
            slope = (ys[0] - ys[1]) / (factor - other)
            if slope < 0.0:
                return slope
        return 0.0

    # Ends of the search

    def _up_to(self, top: float, limit: float) -> GreatestRate:
        """Return the answer where the goals hold at the highest rate that is tried."""
        point = self._point(top, self.n_replications)
        if self._least(point.mean) < 0.0:
            return self._settled(top)
        if math.isnan(limit):
            return GreatestRate(top, top, math.inf, point, "", "the goals hold at every rate that was tried")
        note = "the goals hold up to the stability limit, beyond which queues grow without end"
        return GreatestRate(limit, top, limit, point, STABILITY, note)

    def _without_hurt_goals(self, found: GreatestRate) -> GreatestRate:
        """Return the answer; that there is none if a goal is missed that lower rates can only hurt."""
        if found.point is None:
            return found
        figures = zip(self.others, found.point.mean[len(self.limiting) :], strict=False)
        missed = "; ".join(f"{goal.figure_text(x)}, against {goal}" for goal, x in figures if not goal.met(x))
        if not missed:
            return found
        return _none(f"no rate holds: at {self._text(found.factor)}, the greatest for the rest, {missed}")

    def _missed_at(self, factor: float) -> GreatestRate:
        pairs = zip(self.limiting, self.tried[factor].mean, strict=False)
        missed = "; ".join(f"{goal.figure_text(x)}, against {goal}" for goal, x in pairs if not goal.met(x))
        return _none(f"no rate that was tried holds: at {self._text(factor)} {missed}")

    def _text(self, factor: float) -> str:
        return rate(float(f"{factor * self.demand.rate_per_s:.4g}"))


def closeness(goal: Goal, value: float) -> float:
    """Return how far inside its limit a figure is, on a scale on which it is about linear in the rate; see the module.

    Negative where the goal is missed; -1 for an unknown figure.
    """
    if math.isnan(value):
        return -1.0
    if goal.is_time:
        return goal.limit / value - 1.0 if value > 0.0 else MOST_CLOSE
    if goal.metric == "utilisation":
        return goal.limit - value
    bad, limit = (value, goal.limit) if goal.is_upper_limit else (1.0 - value, 1.0 - goal.limit)
    return math.log((limit + _LITTLE) / (max(bad, 0.0) + _LITTLE))


def _none(note: str) -> GreatestRate:
    return GreatestRate(math.nan, math.nan, math.nan, None, "", note)
