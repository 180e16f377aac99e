"""Decides when target tracking changes a number of instances, point by point.

A tick comes every 10 s, numbered from 0. The points of InvocationsPerInstance are the ticks at full minutes, and a
point is the number of requests that came in the minute before. The points of ConcurrentRequestsPerModel are all ticks,
and a point is the number of requests present; a scale-in counts the means of six ticks, at full minutes. At a tick a
scale-out or scale-in takes effect first, then cold starts end, then the tick is looked at.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shadowsim.scenario.scaling import CONCURRENCY, MINUTE_S, TICK_S, ScalingPolicy

TICKS_A_MINUTE = int(MINUTE_S / TICK_S)
LOW = 0.9  # of the target
OUT, IN = "out", "in"


@dataclass(frozen=True, slots=True)
class Decision:
    """A change of the number of instances that a policy asks for.

    Attributes
    ----------
    direction : {"out", "in"}
    wanted : int
        The number of instances.
    value : float
        The point that decided: requests in a minute, or present.
    """

    direction: str
    wanted: int
    value: float


class TargetTracker:
    """The two alarms of a policy: how many points in succession were high and low.

    Parameters
    ----------
    policy : ScalingPolicy
    """

    def __init__(self, policy: ScalingPolicy):
        self.policy = policy
        self._n_high = self._n_low = 0
        self._present: deque[float] = deque(maxlen=TICKS_A_MINUTE)

    def is_point(self, tick: int) -> bool:
        """Return whether a tick is a point of the policy's metric."""
        return self.policy.metric == CONCURRENCY or (tick > 0 and tick % TICKS_A_MINUTE == 0)

    def look(self, tick: int, value: float, n_serving: int, desired: int) -> list[Decision]:
        """Return what the policy asks for after a point, cooldowns aside: nothing, a scale-out, or a scale-in.

        Parameters
        ----------
        tick : int
            For which `is_point` holds; none may be left out.
        value : float
            Requests in the minute before, or present.
        n_serving, desired : int
            Instances that serve, and all that are wanted so far.
        """
        self._present.append(value)
        if not tick:
            return []
        minute = tick % TICKS_A_MINUTE == 0
        low_value = value
        if self.policy.metric == CONCURRENCY:
            low_value = sum(self._present) / len(self._present)  # fewer than six where it began
        self._n_high = self._n_high + 1 if value > self.policy.target * n_serving else 0
        if minute:
            self._n_low = self._n_low + 1 if low_value < (LOW * self.policy.target) * n_serving else 0
        wanted = self.wanted(value)
        if self._n_high >= self.policy.out_points and wanted > desired:
            decisions = [Decision(OUT, wanted, value)]
            if self.policy.metric != CONCURRENCY:
                return decisions
        else:
            decisions = []
        wanted = self.wanted(low_value)
        if minute and self._n_low >= self.policy.in_points and wanted < desired:
            decisions.append(Decision(IN, wanted, low_value))
        return decisions

    def wanted(self, value: float) -> int:
        """Return the least number of instances, within the policy's bounds, for which a point is at most the target."""
        target = self.policy.target
        n = math.ceil(value / target)
        while (n - 1) * target >= value:
            n -= 1
        while n * target < value:
            n += 1
        return min(max(n, self.policy.least), self.policy.most)


@dataclass(frozen=True, slots=True)
class Capacity:
    """The instances of a pool that scales.

    Attributes
    ----------
    n_serving : int
    starting_s : tuple of float
        When each starting instance will serve, ascending.
    out_until_s, in_until_s : float
        Ends of the cooldowns of scale-outs and of scale-ins.
    """

    n_serving: int
    starting_s: tuple[float, ...] = ()
    out_until_s: float = 0.0
    in_until_s: float = 0.0

    @property
    def desired(self) -> int:
        """All instances that are wanted: those that serve, and those that start."""
        return self.n_serving + len(self.starting_s)

    def may(self, decision: Decision, now: float) -> bool:
        """Return whether the cooldowns allow a decision: a scale-in waits for both, a scale-out for none."""
        return decision.direction == OUT or now >= max(self.out_until_s, self.in_until_s)

    def served(self, now: float) -> Capacity:
        """Return the capacity once all starting instances serve whose cold starts have ended."""
        n = sum(moment <= now for moment in self.starting_s)
        return replace(self, n_serving=self.n_serving + n, starting_s=self.starting_s[n:]) if n else self

    def scaled_out(self, wanted: int, now: float, cold_start_s: float, cooldown_s: float) -> Capacity | None:
        """Return the capacity with new instances; None if as many are wanted already, so that nothing happens."""
        n_new = wanted - self.desired
        if n_new <= 0:
            return None
        starting_s = (*self.starting_s, *[now + cold_start_s] * n_new)
        return replace(self, starting_s=starting_s, out_until_s=now + cooldown_s)

    def scaled_in(self, wanted: int, desired_before: int, now: float, cooldown_s: float) -> Capacity | None:
        """Return the capacity with fewer instances, starting ones dropped first.

        Parameters
        ----------
        wanted : int
        desired_before : int
            `desired` at the decision; another one by now makes nothing happen, and the result None.
        now, cooldown_s : float
        """
        if desired_before != self.desired:
            return None
        n_starting = max(min(len(self.starting_s), wanted - self.n_serving), 0)
        return replace(
            self,
            n_serving=min(self.n_serving, wanted),
            starting_s=self.starting_s[:n_starting],
            in_until_s=now + cooldown_s,
        )


def joint_decision(asked: Sequence[Sequence[Decision]]) -> Decision | None:
    """Return what several policies of one pool do together: the largest scale-out, else a scale-in that all ask for.

    Parameters
    ----------
    asked : sequence of sequences of Decision
        What each policy asks for; one that may not scale in is left out of it, unless it asks for a scale-out.
    """
    outs = [d for decisions in asked for d in decisions if d.direction == OUT]
    if outs:
        return max(outs, key=lambda decision: decision.wanted)
    ins = [d for decisions in asked for d in decisions if d.direction == IN]
    return max(ins, key=lambda decision: decision.wanted) if ins and len(ins) == len(asked) else None
