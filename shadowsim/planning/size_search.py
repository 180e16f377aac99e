"""The search for the fewest instances that meet goals, by trials of counts.

Where more instances are never worse, the fewest are found by bracket and bisection: RANDOM routing gives each of n + 1
FIFO instances a thinner stream than each of n, and a FIFO queue's waits can only fall when arrivals are taken away
(Kiefer and Wolfowitz, 1955: the workload vector is monotone in its input); LEAST_OUTSTANDING_REQUESTS with one instance
more has one more place to choose from. So figures fall with the count, up to chance, and goals "at most" are met from
some count on; goals "at least" (a utilisation) are then looked at there, since more instances only lower them. Two
things break this: a slowdown that does not rise with the number of busy workers, which makes company welcome, and
`mirror.max_in_flight`, by which a slower shadow is sent less. Then every count is tried in turn, `SCANNED` of them.

A search begins where the load law says and tries counts once each; then the answer and the count below it are made
certain, by replications where a run does not do (trials.py). What is simulated is the whole horizon or as much as
stands for it (demand.py). The load law's verdict is taken without a simulation in one case only: where the backlog of
an overload, without any chance, is already more than twice what a goal allows.

How sure a number of simulated days is that goals are met: replications, added until it is.

Replication r has the same seed for every count of instances (common random numbers: the same requests come, and take
the same work), so that counts differ by what the count does. One run is enough where its figures are `CLEAR` standard
errors from their limits, by its own sections (slo.py): their errors may be some tens of per cent off, not that far.
Else there are replications, whose figures are independent, and Student's t says how far off their mean is. It is looked
at after 3, 6, 12, ... of them; the chance of error is divided by the looks, and by the two statements that an answer
makes: this count meets all goals, one fewer does not.

"All goals are met" needs each goal's bound at the full level (intersection-union test: Berger, 1982), "a goal is
missed" is shown by the worst of k goals, at 1/k of it (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.planning.load import Demand, Length, backlog, floor, length_of, repeating_s
from shadowsim.planning.slo import Goal
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.service import Service

CLEAR = 10.0
FIRST_LOOK = 3
MET, MISSED, OPEN = "met", "missed", "open"


@dataclass(frozen=True, slots=True)
class CountTried:
    """What is known of one count of instances.

    Attributes
    ----------
    values : ndarray of float64, shape (replications, figures)
        A column a goal, and the utilisation.
    own_error : ndarray of float64, shape (figures,)
        Standard errors of the first replication, by its sections.
    horizon_s : float
        How long each replication is.
    enough : bool
        Whether that is as long as it should be.
    theory : bool
        Whether the values are the theory's of an overloaded pool, and nothing was simulated.
    """

    values: Floats
    own_error: Floats
    horizon_s: float
    enough: bool = True
    theory: bool = False

    @property
    def mean(self) -> Floats:
        """Means over replications, shape (figures,)."""
        return np.asarray(self.values.mean(axis=0), np.float64)

    @property
    def error(self) -> Floats:
        """Standard errors of the means, shape (figures,): between replications, of one by its sections."""
        n = len(self.values)
        if n < 2:
            return self.own_error
        return np.asarray(self.values.std(axis=0, ddof=1) / math.sqrt(n), np.float64)

    def meets(self, goals: Sequence[Goal]) -> bool:
        """Whether the means meet the goals, which are the first figures."""
        return all(goal.met(value) for goal, value in zip(goals, self.mean, strict=False))

    def state(self, goals: Sequence[Goal], level: float) -> str:
        """Return MET or MISSED if that is certain but for a chance of `level`, else OPEN."""
        if self.theory:
            return MISSED
        pairs = list(zip(goals, self.mean, self.error, strict=False))
        met, missed = self._bounds(level, max(len(goals), 1))
        # A figure that is the same in all replications (no error ever) has an error of 0, and is taken as it is.
        if all(goal.met(value) and goal.margin(value) >= met * error for goal, value, error in pairs):
            return MET if self.enough else OPEN
        lost = any(
            math.isnan(value) or (not goal.met(value) and -goal.margin(value) >= missed * error)
            for goal, value, error in pairs
        )
        return MISSED if lost else OPEN

    def _bounds(self, level: float, k: int) -> tuple[float, float]:
        """Return how many standard errors a margin must be on either side: for each goal, and for one of k."""
        n = len(self.values)
        return (CLEAR, CLEAR) if n < 2 else (-float(stdtrit(n - 1, level)), -float(stdtrit(n - 1, level / k)))


@dataclass(slots=True)
class Trials:
    """Counts of instances on trial.

    Attributes
    ----------
    once : callable
        (count, horizon_s, replication) -> figures and their standard errors, shape (2, figures).
    length : callable
        count -> how long a run must be.
    falling : tuple of Goal
        The goals "at most", which stand first among the figures.
    theory : callable
        count -> figures of an overloaded pool, or None if it has to be simulated.
    trials : dict of int to CountTried
        What has been tried.
    """

    once: Callable[[int, float, int], Floats]
    length: Callable[[int], Length]
    falling: Sequence[Goal]
    theory: Callable[[int], Floats | None]
    trials: dict[int, CountTried] = field(default_factory=dict)

    def trial(self, n: int, replications: int = 1) -> CountTried:
        """Return what is known of n instances after at least so many replications."""
        if n not in self.trials:
            self.trials[n] = self._first(n)
        found = self.trials[n]
        have = len(found.values)
        if not found.theory and have < replications:
            more = [self.once(n, found.horizon_s, r)[0] for r in range(have, replications)]
            found = replace(found, values=np.vstack([found.values, *more]))
            self.trials[n] = found
        return found

    def _first(self, n: int) -> CountTried:
        known = self.theory(n)
        if known is not None:
            return CountTried(known[None, :], np.full(len(known), math.nan), math.nan, theory=True)
        length = self.length(n)
        if length.short_s < length.long_s:
            value, error = self.once(n, length.short_s, 0)
            brief = CountTried(value[None, :], error, length.short_s)
            if brief.state(self.falling, 0.0) == MISSED:
                return brief
        value, error = self.once(n, length.long_s, 0)
        return CountTried(value[None, :], error, length.long_s, length.enough)

    def settle(self, counts: Sequence[int], goals: Sequence[Goal], level: float, most: int) -> list[str]:
        """Replicate counts until each is MET or MISSED, or has had `most` replications.

        Returns
        -------
        list of str
            MET, MISSED or OPEN, a count each.
        """
        looks = looks_of(most)
        states = [OPEN] * len(counts)
        for n_replications in (1, *looks):
            states = [
                state if state != OPEN else self.trial(n, n_replications).state(goals, level / len(looks))
                for n, state in zip(counts, states, strict=True)
            ]
            if OPEN not in states:
                break
        return states


def looks_of(most: int) -> list[int]:
    """Return after how many replications it is looked: 3, 6, 12, ... and `most`."""
    looks = [FIRST_LOOK]
    while looks[-1] < most:
        looks.append(min(2 * looks[-1], most))
    return looks


SCANNED = 64
SAMPLED = 100_000  # requests that a share of waits is counted in
AIMED_LOAD = 0.8  # of the peak, where a search begins
RAREST = 0.9999  # what a shortened run should be able to show
UTILISATION = Goal("shadow", "utilisation", None, "<=", 1.0, "utilisation <= 1")
_MOVES = 20


@dataclass(frozen=True, slots=True)
class Search:
    """A variant on one instance type, and what its counts should meet: goals "at most" come first."""

    scenario: Scenario
    role: str
    goals: tuple[Goal, ...]
    need: Demand

    @property
    def falling(self) -> tuple[Goal, ...]:
        """The goals "at most"."""
        return tuple(goal for goal in self.goals if goal.caps)

    @property
    def service(self) -> Service:
        """How the pool serves."""
        return self.scenario.side(self.role).service

    @property
    def capped(self) -> bool:
        """Whether the shadow's speed decides how many copies it gets."""
        return self.role == "shadow" and self.scenario.max_in_flight is not None

    @property
    def monotone(self) -> bool:
        """Whether figures can only fall with the count, up to chance."""
        factors = self.service.slowdown
        return not self.capped and list(factors) == sorted(factors)

    def length(self, n: int) -> Length:
        """Return for how long n instances are simulated."""
        rare = [goal.at or 0.0 if goal.metric == "quantile" else 1.0 - goal.limit for goal in self.goals]
        if all(goal.metric.endswith("mean") for goal in self.goals):
            rare = [0.0]
        return length_of(self.scenario, self.role, self.need, n, min(max(rare), RAREST))

    def overload(self, n: int) -> Floats | None:
        """Return the figures of a pool that has no hope, None for one that has to be simulated."""
        if self.service.queue_limit is not None or self.service.slowdown or self.capped:
            return None
        if not (self.need.load(n) > 1.0).any():
            return None
        least = [backlog(goal, self.need, n, self.scenario.timeout_s) for goal in (*self.goals, UTILISATION)]
        hopeless = any(goal.caps and x > 2.0 * goal.limit for goal, x in zip(self.goals, least, strict=False))
        return np.array(least) if hopeless else None

    def at(self, n: int, horizon_s: float) -> Scenario:
        """Return the scenario with n instances and a horizon."""
        waits = any(goal.metric == "share_wait" for goal in self.goals)
        changes = {f"{self.role}.instance_count": n, "horizon_s": horizon_s}
        return self.scenario.replace(changes | {"run.sample_requests": SAMPLED if waits else 0})


@dataclass(frozen=True, slots=True)
class CountFound:
    """How many instances; None with the reason for no number."""

    n: int | None
    certain: bool
    note: str = ""


def answer(search: Search, bench: Trials, level: float, most: int, runs: int) -> CountFound:
    """Return the fewest instances that meet all goals of a search.

    Parameters
    ----------
    search : Search
    bench : Trials
        Tries counts.
    level : float
        The chance of error in each of the answer's two statements.
    most : int
        Counts beyond are not tried.
    runs : int
        Replications of a count, at most.
    """
    if search.need.instances == 0.0:
        return CountFound(None, True, "no request reaches it: nothing to size")
    for goal in search.falling:
        least = floor(goal, search.scenario, search.role, search.need)
        if least > 1.01 * goal.limit:
            return CountFound(None, True, f"no count will do: {goal.said(least)} without any wait, against {goal}")
    return (_bisected if search.monotone else _scanned)(search, bench, level, most, runs)


def _bisected(search: Search, bench: Trials, level: float, most: int, runs: int) -> CountFound:
    falling, n = search.falling, _bracketed(search, bench, most)
    states = []
    for _ in range(_MOVES):
        if n > most:
            return CountFound(
                None, bench.settle([most], falling, level, runs) == [MISSED], _beyond(search, bench, most)
            )
        states = bench.settle([n], search.goals, level, runs)
        below = bench.settle([n - 1], falling, level, runs) if n > 1 else [MISSED]
        if not bench.trial(n).meets(falling):
            n += 1
        elif n > 1 and bench.trial(n - 1).meets(falling):
            n -= 1
        else:
            break
    trial = bench.trial(n)
    if not trial.meets(search.goals):
        note = f"no count will do: {n} instances are the fewest for the rest, and more only lower it"
        return CountFound(None, states == [MISSED] and below == [MISSED], f"{note}: {missed(trial, search.goals)}")
    return CountFound(n, states == [MET] and below == [MISSED])


def _bracketed(search: Search, bench: Trials, most: int) -> int:
    """Return the fewest instances that meet the goals "at most" in one replication, `most` + 1 for none."""
    low, high, step = 0, most + 1, 1
    n = min(max(math.ceil(search.need.peak_instances / AIMED_LOAD), 1), most)
    while high - low > 1:
        if bench.trial(n).meets(search.falling):
            high = n
        else:
            low = n
        # From the first count on, steps that double, until there is one on each side.
        if high > most:
            n = min(low + step, most)
        elif low == 0:
            n = max(high - step, 1)
        else:
            n = (low + high) // 2
        step *= 2
    return high


def _scanned(search: Search, bench: Trials, level: float, most: int, runs: int) -> CountFound:
    # Only the load that there is even when nobody is slowed down, and nothing is lost, rules counts out.
    service = search.service
    fastest = min(service.slowdown or (1.0,)) / (service.slowdown or (1.0,))[-1]
    lossy = search.capped or service.queue_limit is not None or repeating_s(search.scenario) != search.scenario.period_s
    first = 1 if lossy else min(max(math.floor(search.need.instances * fastest), 1), most)
    last, all_missed = min(first + SCANNED - 1, most), True
    for n in range(first, last + 1):
        (state,) = bench.settle([n], search.goals, level, runs)
        if bench.trial(n).meets(search.goals):
            return CountFound(n, state == MET and all_missed)
        all_missed = all_missed and state == MISSED
    return CountFound(None, all_missed, f"{first} to {last} instances were tried: {_beyond(search, bench, last)}")


def _beyond(search: Search, bench: Trials, most: int) -> str:
    return f"not with {most} instances: {missed(bench.trial(most), search.goals)}"


def missed(trial: CountTried, goals: Sequence[Goal]) -> str:
    """Return which goals a trial misses, and by which figures."""
    pairs = zip(goals, trial.mean, strict=False)
    return "; ".join(f"{goal.said(value)}, against {goal}" for goal, value in pairs if not goal.met(value))
