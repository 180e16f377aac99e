"""How sure a number of simulated days is that goals are met: replications, added until it is.

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
from numpy.typing import NDArray
from scipy.special import stdtrit  # type: ignore[import-untyped]

from shadowsim.planning.load import Length
from shadowsim.planning.slo import Goal

Floats = NDArray[np.float64]

CLEAR = 10.0
FIRST_LOOK = 3
MET, MISSED, OPEN = "met", "missed", "open"


@dataclass(frozen=True, slots=True)
class Trial:
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
class Bench:
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
    trials : dict of int to Trial
        What has been tried.
    """

    once: Callable[[int, float, int], Floats]
    length: Callable[[int], Length]
    falling: Sequence[Goal]
    theory: Callable[[int], Floats | None]
    trials: dict[int, Trial] = field(default_factory=dict)

    def trial(self, n: int, replications: int = 1) -> Trial:
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

    def _first(self, n: int) -> Trial:
        known = self.theory(n)
        if known is not None:
            return Trial(known[None, :], np.full(len(known), math.nan), math.nan, theory=True)
        length = self.length(n)
        if length.short_s < length.long_s:
            value, error = self.once(n, length.short_s, 0)
            brief = Trial(value[None, :], error, length.short_s)
            if brief.state(self.falling, 0.0) == MISSED:
                return brief
        value, error = self.once(n, length.long_s, 0)
        return Trial(value[None, :], error, length.long_s, length.enough)

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
