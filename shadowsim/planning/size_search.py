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
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shadowsim.planning.load import Demand, Length, backlog, floor, length_of, repeating_s
from shadowsim.planning.slo import Goal
from shadowsim.planning.trials import MET, MISSED, Bench, Trial
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.service import Service

Floats = NDArray[np.float64]

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
        found: Service = getattr(self.scenario, f"{self.role}_service")
        return found

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
class Answer:
    """How many instances; None with the reason for no number."""

    n: int | None
    certain: bool
    note: str = ""


def answer(search: Search, bench: Bench, level: float, most: int, runs: int) -> Answer:
    """Return the fewest instances that meet all goals of a search.

    Parameters
    ----------
    search : Search
    bench : Bench
        Tries counts.
    level : float
        The chance of error in each of the answer's two statements.
    most : int
        Counts beyond are not tried.
    runs : int
        Replications of a count, at most.
    """
    if search.need.instances == 0.0:
        return Answer(None, True, "no request reaches it: nothing to size")
    for goal in search.falling:
        least = floor(goal, search.scenario, search.role, search.need)
        if least > 1.01 * goal.limit:
            return Answer(None, True, f"no count will do: {goal.said(least)} without any wait, against {goal}")
    return (_bisected if search.monotone else _scanned)(search, bench, level, most, runs)


def _bisected(search: Search, bench: Bench, level: float, most: int, runs: int) -> Answer:
    falling, n = search.falling, _bracketed(search, bench, most)
    states = []
    for _ in range(_MOVES):
        if n > most:
            return Answer(None, bench.settle([most], falling, level, runs) == [MISSED], _beyond(search, bench, most))
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
        return Answer(None, states == [MISSED] and below == [MISSED], f"{note}: {missed(trial, search.goals)}")
    return Answer(n, states == [MET] and below == [MISSED])


def _bracketed(search: Search, bench: Bench, most: int) -> int:
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


def _scanned(search: Search, bench: Bench, level: float, most: int, runs: int) -> Answer:
    # Only the load that there is even when nobody is slowed down, and nothing is lost, rules counts out.
    service = search.service
    fastest = min(service.slowdown or (1.0,)) / (service.slowdown or (1.0,))[-1]
    lossy = search.capped or service.queue_limit is not None or repeating_s(search.scenario) != search.scenario.period_s
    first = 1 if lossy else min(max(math.floor(search.need.instances * fastest), 1), most)
    last, all_missed = min(first + SCANNED - 1, most), True
    for n in range(first, last + 1):
        (state,) = bench.settle([n], search.goals, level, runs)
        if bench.trial(n).meets(search.goals):
            return Answer(n, state == MET and all_missed)
        all_missed = all_missed and state == MISSED
    return Answer(None, all_missed, f"{first} to {last} instances were tried: {_beyond(search, bench, last)}")


def _beyond(search: Search, bench: Bench, most: int) -> str:
    return f"not with {most} instances: {missed(bench.trial(most), search.goals)}"


def missed(trial: Trial, goals: Sequence[Goal]) -> str:
    """Return which goals a trial misses, and by which figures."""
    pairs = zip(goals, trial.mean, strict=False)
    return "; ".join(f"{goal.said(value)}, against {goal}" for goal, value in pairs if not goal.met(value))
