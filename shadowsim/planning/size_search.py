"""Searches for the fewest instances that meet goals, by simulating counts of them.

Where more instances are never worse, the search is a bisection. RANDOM routing gives each of n + 1 FIFO instances a
thinner stream than each of n, and the waits of a FIFO queue can only fall when arrivals are taken away (Kiefer and
Wolfowitz, 1955: the workload vector is monotone in its input); LEAST_OUTSTANDING_REQUESTS with one instance more has
one more place to choose from. So figures fall with the count, up to chance, and goals with an upper limit are met from
some count on; so is the lower limit of a goodput, which rises with the count. Other goals with a lower limit (of
utilisation) are then tested at that count, since more instances only lower their figures. Four things break this: a
slowdown that does not rise with the number of busy workers, which makes sharing an instance welcome; a wake, since more
instances are idle for longer; a batcher, whose batches fill more slowly on more instances; and `mirror.max_in_flight`,
under which a slower shadow is sent less. Then every count is tried in turn, up to `SCANNED` counts. Instances in tokens
are taken to be no worse with fewer sequences, whose steps take no longer.

The bisection starts at the count that the load law suggests, and runs each count once. The answer and the count below
it are then replicated until both are certain. A run lasts the whole horizon or as much as stands for it (load.py). One
kind of count is not simulated: that of an overload whose fluid backlog alone is more than twice what a goal allows.

Replication r has the same seed for every count of instances (common random numbers: the same requests come, and take
the same work), so that counts differ by what the count does. One run is enough where its figures are `CLEAR` standard
errors from their limits, by its own sections (slo.py): such an error may be wrong by some tens of per cent, not by that
much. Otherwise there are replications, whose figures are independent, and Student's t bounds their mean. It is tested
after 3, 6, 12, ... replications; the chance of error is divided by the number of these looks. An answer makes two
statements, each with that chance of error: this count meets all goals, and one fewer does not.

"All goals are met" needs each goal's bound at the full level (intersection-union test: Berger, 1982); "a goal is
missed" is shown by the worst of k goals, at 1/k of the level (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.engine.replicate import replication
from shadowsim.planning.load import (
    Demand,
    RunLength,
    count_settings,
    demand_of,
    figure_in_fluid,
    figure_without_waits,
    repeating_s,
    run_length,
    with_length,
)
from shadowsim.planning.sheet import NO_REQUEST, NO_REQUEST_IN_RUN
from shadowsim.planning.slo import Goal, Slo, measure
from shadowsim.result import Result
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.service import Service
from shadowsim.statistics.estimates import error_of_mean

AIMED_LOAD = 0.8  # of the peak, at the first count that is tried
SCANNED = 64  # counts that are tried where figures need not fall with the count
CLEAR = 10.0  # standard errors by which one run decides
FIRST_LOOK = 3  # replications
SAMPLED = 100_000  # requests of a run, for figures that need them
RAREST = 0.9999  # the furthest quantile that sets the length of a run
MET, MISSED, OPEN = "met", "missed", "open"
_NO_MATTER = {"time": {"law": "deterministic", "mean_s": 0.001}, "workers": 1}  # a source whose answers do not matter
_MOVES = 20  # of the answer of the bisection, while it is replicated


@dataclass(frozen=True, slots=True)
class CountFound:
    """The result of a search.

    Attributes
    ----------
    n : int or None
        The fewest instances that meet all goals; None when no count is known to.
    certain : bool
    note : str
        Why there is no count.
    """

    n: int | None
    certain: bool
    note: str = ""


@dataclass(slots=True)
class Search:
    """A search for the fewest instances of one pool and type: what it looks for, and the counts that it has tried.

    Attributes
    ----------
    scenario : Scenario
        Its variant has the instance type in question.
    role : str
        source or shadow.
    goals : tuple of Goal
        The role's; those that more instances help to meet come first.
    demand : Demand
        The work that comes to the pool.
    simulate : callable
        Scenario -> Result.
    alpha : float
        The chance of error of each of an answer's two statements.
    max_instances, max_replications : int
        Greater counts are not tried, and no count is run more often.
    tried : dict of int to DesignTried
    """

    scenario: Scenario
    role: str
    goals: tuple[Goal, ...]
    demand: Demand
    simulate: Callable[[Scenario], Result]
    alpha: float
    max_instances: int
    max_replications: int
    tried: dict[int, DesignTried] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        role: str,
        slo: Slo,
        simulate: Callable[[Scenario], Result],
        *,
        alpha: float,
        max_instances: int,
        max_replications: int,
    ) -> Search:
        """Set up the search for a role's pool in a scenario."""
        goals = tuple(sorted(slo.of(role), key=lambda goal: not goal.more_instances_help))
        scenario = without_other_side(scenario, role)
        demand = demand_of(scenario, role)
        return cls(scenario, role, goals, demand, simulate, alpha, max_instances, max_replications)

    def fewest(self) -> CountFound:
        """Find the fewest instances that meet all goals."""
        if self.demand.instances == 0.0:
            return CountFound(None, True, NO_REQUEST)
        for goal in self.helped_goals:
            best = figure_without_waits(goal, self.scenario, self.role, self.demand)
            if goal.margin(best) < -0.01 * goal.limit:
                note = f"no count will do: {goal.figure_text(best)} without any wait, against {goal}"
                return CountFound(None, True, note)
        found = self._fewest_by_bisection() if self._is_monotone else self._fewest_by_scan()
        if found.n is None and all(np.isnan(tried.mean[: len(self.goals)]).all() for tried in self.tried.values()):
            return CountFound(None, True, NO_REQUEST_IN_RUN)
        return found

    @property
    def helped_goals(self) -> tuple[Goal, ...]:
        """The goals that more instances can only help to meet."""
        return tuple(goal for goal in self.goals if goal.more_instances_help)

    @property
    def figures(self) -> tuple[Goal, ...]:
        """What is measured of a run: the goals, and the utilisation for information."""
        return (*self.goals, Goal(self.role, "utilisation", None, "<=", 1.0, "utilisation <= 1"))

    @property
    def _service(self) -> Service:
        return self.scenario.side(self.role).service

    @property
    def _speed_decides_demand(self) -> bool:
        """Whether the shadow's speed decides how many copies it gets."""
        return self.role == "shadow" and self.scenario.max_in_flight is not None

    @property
    def _is_monotone(self) -> bool:
        """Whether figures can only fall with the count, up to chance."""
        factors, steady = self._service.slowdown, self._service.batching is None and self._service.wake is None
        return not self._speed_decides_demand and steady and list(factors) == sorted(factors)

    def _fewest_by_bisection(self) -> CountFound:
        """Bisect by one run per count; then replicate the answer and the count below, which may move the answer."""
        n = self._bisected()
        state = state_below = OPEN
        for _ in range(_MOVES):
            if n > self.max_instances:
                state = self.settle(self.max_instances, self.helped_goals)
                return CountFound(None, state == MISSED, self._missed_note(self.max_instances))
            state = self.settle(n, self.goals)
            state_below = self.settle(n - 1, self.helped_goals) if n > 1 else MISSED
            if not self.try_count(n).meets(self.helped_goals):
                n += 1
            elif n > 1 and self.try_count(n - 1).meets(self.helped_goals):
                n -= 1
            else:
                break
        tried = self.try_count(n)
        if tried.meets(self.goals):
            return CountFound(n, state == MET and state_below == MISSED)
        note = f"no count will do: {n} instances are the fewest for the rest, and more only lower it"
        certain = state == state_below == MISSED
        return CountFound(None, certain, f"{note}: {tried.missed_text(self.goals)}")

    def _bisected(self) -> int:
        """Return the fewest instances that meet the helped goals in one run each, `max_instances` + 1 for none."""
        low, high, step = 0, self.max_instances + 1, 1
        n = min(max(math.ceil(self.demand.peak_instances / AIMED_LOAD), 1), self.max_instances)
        while high - low > 1:
            if self.try_count(n).meets(self.helped_goals):
                high = n
            else:
                low = n
            # Steps double from the first count on, until there is a count on each side.
            if high > self.max_instances:
                n = min(low + step, self.max_instances)
            elif low == 0:
                n = max(high - step, 1)
            else:
                n = (low + high) // 2
            step *= 2
        return high

    def _fewest_by_scan(self) -> CountFound:
        """Try one count after the other, from the least that the load law allows."""
        # The load law rules counts out only where no request is lost, and traffic is steady.
        may_lose = self._speed_decides_demand or self._service.queue_limit is not None
        is_steady = repeating_s(self.scenario) == self.scenario.period_s
        least = math.floor(self.demand.least_instances) if is_steady and not may_lose else 1
        first = min(max(least, 1), self.max_instances)
        last, all_missed = min(first + SCANNED - 1, self.max_instances), True
        for n in range(first, last + 1):
            state = self.settle(n, self.goals)
            if self.try_count(n).meets(self.goals):
                return CountFound(n, state == MET and all_missed)
            all_missed = all_missed and state == MISSED
        return CountFound(None, all_missed, f"{first} to {last} instances were tried: {self._missed_note(last)}")

    def _missed_note(self, n: int) -> str:
        return f"not with {n} instances: {self.try_count(n).missed_text(self.goals)}"

    def settle(self, n: int, goals: Sequence[Goal]) -> str:
        """Replicate a count until it is MET or MISSED, or OPEN after `max_replications`; return which."""
        return settled(lambda n_runs: self.try_count(n, n_runs), goals, self.alpha, self.max_replications)

    def try_count(self, n: int, n_replications: int = 1) -> DesignTried:
        """Return what is known of n instances after at least so many replications."""
        tried = self.tried.get(n) or self._first_run(n)
        n_done = len(tried.values)
        if n_done < n_replications and not tried.is_overload:
            more = [self.replicate(n, tried.horizon_s, r)[0] for r in range(n_done, n_replications)]
            tried = replace(tried, values=np.vstack([tried.values, *more]))
        self.tried[n] = tried
        return tried

    def _first_run(self, n: int) -> DesignTried:
        least = self.overload_figures(n)
        if least is not None:
            return DesignTried(least[None, :], np.full(len(least), math.nan), math.nan, is_overload=True)
        length = self.length(n)
        if length.short_s < length.long_s:
            values, errors = self.replicate(n, length.short_s, 0)
            short = DesignTried(values[None, :], errors, length.short_s)
            if short.state(self.helped_goals, 0.0) == MISSED:
                return short
        values, errors = self.replicate(n, length.long_s, 0)
        return DesignTried(values[None, :], errors, length.long_s, length.enough)

    def overload_figures(self, n: int) -> Floats | None:
        """Return lower bounds of the figures of a count that is hopelessly overloaded, None for any other count."""
        if self._service.queue_limit is not None or self._service.slowdown or self._speed_decides_demand:
            return None
        if self.scenario.side(self.role).evented:  # whose load the count alone does not tell
            return None
        if not (self.demand.load(n) > 1.0).any():
            return None
        least = [figure_in_fluid(goal, self.demand, n, self.scenario.timeout_s) for goal in self.figures]
        figures = zip(self.goals, least, strict=False)
        hopeless = any(goal.is_upper_limit and value > 2.0 * goal.limit for goal, value in figures)
        return np.array(least) if hopeless else None

    def length(self, n: int) -> RunLength:
        """Return how long n instances are simulated."""
        furthest = max(goal.furthest_quantile for goal in self.goals)
        return run_length(self.scenario, self.role, self.demand, n, min(furthest, RAREST))

    def replicate(self, n: int, horizon_s: float, r: int) -> Floats:
        """Simulate replication r of n instances.

        Returns
        -------
        ndarray of float64, shape (2, figures)
            The figures, and their standard errors by sections.
        """
        result = self.run(count_settings(self.scenario, self.role, n), horizon_s, r)
        return np.array([measure(goal, result) for goal in self.figures]).T

    def run(self, changes: Mapping[str, object], horizon_s: float, r: int) -> Result:
        """Simulate replication r of the scenario with changes, which keeps as many requests as the goals need."""
        sampled = SAMPLED if any(goal.is_of_sample for goal in self.goals) else 0
        settings = {**changes, "run.sample_requests": sampled}
        return self.simulate(replication(with_length(self.scenario, horizon_s, settings), r))


def without_other_side(scenario: Scenario, role: str) -> Scenario:
    """Return a scenario whose runs have the same figures of one role, and are as quick as can be."""
    if role == "source":
        # The source's figures do not depend on its shadow, which can be left out of the runs.
        return scenario.replace({"sampling_percentage": 0})
    if scenario.mirror_instant != "arrival" or scenario.traffic.retries is not None:
        return scenario
    # The shadow gets nothing but arrivals from the source, which may be as quick to simulate as can be.
    changes = {f"services.{scenario.experiment.source.name}": _NO_MATTER, "source.instance_count": 1}
    if scenario.shadow_service.tokens is None:
        changes["run.goodput"] = None  # which needs a service in tokens
    return scenario.replace(changes)


@dataclass(frozen=True, slots=True)
class DesignTried:
    """What is known of one count of instances, or of one scaling policy.

    Attributes
    ----------
    values : ndarray of float64, shape (replications, figures)
        One column per goal, the utilisation, and for a scaling policy the instances that are billed.
    own_error : ndarray of float64, shape (figures,)
        Standard errors of the first replication, by its sections.
    horizon_s : float
        Length of each replication.
    enough : bool
        Whether that is as long as it should be.
    is_overload : bool
        Whether nothing was simulated, and the values are lower bounds for an overloaded pool.
    """

    values: Floats
    own_error: Floats
    horizon_s: float
    enough: bool = True
    is_overload: bool = False

    @property
    def mean(self) -> Floats:
        """Means over replications, shape (figures,)."""
        return np.asarray(self.values.mean(axis=0), np.float64)

    @property
    def error(self) -> Floats:
        """Standard errors of the means, shape (figures,): between replications; of a single one, by its sections."""
        return self.own_error if len(self.values) < 2 else error_of_mean(self.values)

    def meets(self, goals: Sequence[Goal]) -> bool:
        """Whether the means meet the goals, which are the first figures."""
        return all(goal.met(value) for goal, value in zip(goals, self.mean, strict=False))

    def missed_text(self, goals: Sequence[Goal]) -> str:
        """Return the goals that the means miss, each with its figure; "" when all are met."""
        pairs = zip(goals, self.mean, strict=False)
        return "; ".join(f"{goal.figure_text(value)}, against {goal}" for goal, value in pairs if not goal.met(value))

    def state(self, goals: Sequence[Goal], alpha: float) -> str:
        """Return MET or MISSED if that is certain up to an error chance of `alpha`, else OPEN."""
        if self.is_overload:
            return MISSED
        figures = list(zip(goals, self.mean, self.error, strict=False))
        met_by, missed_by = self._margins_needed(alpha, max(len(goals), 1))
        # A figure that is the same in all replications (no error ever) has a standard error of 0, and decides.
        if all(goal.met(value) and goal.margin(value) >= met_by * error for goal, value, error in figures):
            return MET if self.enough else OPEN
        is_missed = any(
            math.isnan(value) or (not goal.met(value) and -goal.margin(value) >= missed_by * error)
            for goal, value, error in figures
        )
        return MISSED if is_missed else OPEN

    def _margins_needed(self, alpha: float, n_goals: int) -> tuple[float, float]:
        """Return the margins, in standard errors, that show "all goals are met" and "a goal is missed"."""
        n = len(self.values)
        if n < 2:
            return CLEAR, CLEAR
        return -float(stdtrit(n - 1, alpha)), -float(stdtrit(n - 1, alpha / n_goals))


def settled(runs_of: Callable[[int], DesignTried], goals: Sequence[Goal], alpha: float, max_replications: int) -> str:
    """Replicate a design until it is MET or MISSED, or OPEN after `max_replications`; return which.

    `runs_of` returns what is known of it after at least so many replications.
    """
    looks = looks_of(max_replications)
    state = OPEN
    for n_replications in (1, *looks):
        state = runs_of(n_replications).state(goals, alpha / len(looks))
        if state != OPEN:
            break
    return state


def looks_of(max_replications: int) -> list[int]:
    """Return after how many replications a count is tested: 3, 6, 12, ... and `max_replications`."""
    looks = [FIRST_LOOK]
    while looks[-1] < max_replications:
        looks.append(min(2 * looks[-1], max_replications))
    return looks
