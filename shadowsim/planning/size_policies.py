"""Finds the cheapest scaling policy that meets goals: its target, min and max.

MAX_RPS is the highest rate of Poisson traffic at which one instance, alone and steady, meets the goals. A candidate's
target is a share of it: that many requests per minute and instance, or the requests that are then present in the
instance (their mean, by simulation). AWS's rule of thumb is a share of 0.5, with any min and max; here these come from
the traffic's lowest and highest minute. All else of a policy (metric, data points, cooldowns, delay and cold start) is
the scenario's own.

For each share, `min` is the smallest that meets the goals. It is at least what the policy wants in the quietest minute,
below which a min does nothing, and the search begins at what a late scale-out leaves unserved: the instances that each
minute needs at MAX_RPS, where the policy has not yet had time to ask for them (its data points, `delay_s`,
`cold_start_s`). Figures fall with `min`, up to chance, so that it can be bisected. `max` is what the policy wants in
the busiest minute, and three standard deviations of its count more. The pool begins with what it wants at t = 0.

A higher share and a smaller `min` cost less and serve worse, so that what meets the goals has a border, a stairway. The
search reaches it at a share of 0.7 and follows it to both sides, where a policy can still cost less than the cheapest
so far. One that costs as much as the fixed count that meets the goals is no answer.

Every candidate is simulated over the horizon with the scenario's seed (common random numbers); a cycle of the traffic
stands for a horizon of more than `MOST_REQUESTS` requests. The cheapest is replicated like a fixed count. Charged for
are all instances that exist, also while they start, drain or are down: from the moment that a scale-out takes effect,
`delay_s` after its decision, until a scale-in has drained them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from shadowsim.arrays import Floats
from shadowsim.frames import billed_instances, lengths_s
from shadowsim.planning.load import LEAST_REQUESTS, MOST_REQUESTS, Demand, cycle_s
from shadowsim.planning.sheet import POLICY, RULE_OF_THUMB
from shadowsim.planning.size_search import MET, MISSED, DesignTried, Search, settled
from shadowsim.planning.slo import Goal, measure
from shadowsim.result import Result
from shadowsim.scenario.relaxation import trace_columns
from shadowsim.scenario.routing import splits_independently
from shadowsim.scenario.scaling import INVOCATIONS, ScalingPolicy
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.token_times import typical_requests
from shadowsim.text import significant
from shadowsim.verdict import clock

SAFETY_FACTOR = 0.5  # AWS's, for a target to begin with
FIRST_SHARES = (0.7, 0.5, 0.35)  # of MAX_RPS, for which a min is sought until one is found
LEAST_SHARE, SHARE_STEP, HIGHEST_SHARE = 0.35, 0.05, 1.2
HIGHEST_LOAD = 0.98  # of one instance, at which MAX_RPS is sought, and of targets
_LOAD_STEP = 0.04  # from there down to the first load that meets the goals
_HALVINGS = 4  # of that step
_WINDOWS = 100  # of a run of one instance
_QUANTILES = 1000  # of the times of a trace
_DEVIATIONS = 3.0  # of the busiest minute's count
_FIGURES = 3  # of a rate, a target


class Design(NamedTuple):
    """A scaling policy's free numbers, and the instances that it begins with."""

    target: float
    least: int
    most: int
    start: int


@dataclass(frozen=True, slots=True)
class PolicyFound:
    """The result of a search for a policy.

    Attributes
    ----------
    kind : str
        `POLICY` or `RULE_OF_THUMB`.
    design : Design or None
        None when there is none.
    tried : DesignTried
        What is known of it; of the best that misses the goals if there is none.
    met, certain : bool
        Whether it meets the goals, and whether that is certain.
    one_fewer : str
        What one instance fewer as `min` would do.
    note : str
    """

    kind: str
    design: Design | None
    tried: DesignTried
    met: bool
    certain: bool
    one_fewer: str = ""
    note: str = ""


_NOTHING = DesignTried(np.empty((0, 0)), np.empty(0), math.nan)


@dataclass(slots=True)
class PolicySearch:
    """A search for the policy of one pool and type.

    Attributes
    ----------
    search : Search
        Its scenario's variant scales, and has the instance type in question.
    fixed : int
        The fewest instances that meet the goals without scaling.
    horizon_s : float
        Length of a run.
    per_minute : ndarray of float64
        Requests that come to the pool in each minute of a run.
    max_rps : float
        NaN if one instance meets the goals at no rate.
    tried : dict of Design to DesignTried
    too_small : dict of Design to text
        When each had fewer instances than its requests needed at MAX_RPS, in its first run.
    targets : dict of float to float
        Targets for ConcurrentRequestsPerModel by share of MAX_RPS.
    shares : dict of Design to float
        The share of MAX_RPS of each policy.
    cheapest_billed, over_asked : float
        Mean number of instances of the cheapest policy so far that meets the goals, and that over what it asked for.
    """

    search: Search
    fixed: int
    horizon_s: float
    per_minute: Floats = field(default_factory=lambda: np.empty(0))
    max_rps: float = math.nan
    tried: dict[Design, DesignTried] = field(default_factory=dict)
    too_small: dict[Design, str] = field(default_factory=dict)
    targets: dict[float, float] = field(default_factory=dict)
    shares: dict[Design, float] = field(default_factory=dict)
    cheapest_billed: float = math.nan
    over_asked: float = math.nan

    @classmethod
    def of(cls, search: Search, fixed: int) -> PolicySearch:
        """Set up the search for the policy of a scenario's variant beside the `fixed` count that meets the goals."""
        policies = cls(search, fixed, policy_run_s(search.scenario))
        policies.per_minute = policies._count_minutes()
        policies.max_rps = policies._find_max_rps()
        return policies

    @property
    def role(self) -> str:
        """The role whose pool scales."""
        return self.search.role

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The role's goals."""
        return self.search.goals

    @property
    def policy(self) -> ScalingPolicy:
        """The scenario's own policy, of which all but target, min and max is kept."""
        scaling = self.search.scenario.side(self.role).service.scaling
        assert scaling is not None
        return scaling

    @property
    def lateness_s(self) -> float:
        """From a rise of the traffic at a full minute until the instances for it serve."""
        service = self.search.scenario.side(self.role).service
        return self.policy.out_points * self.policy.point_s + self.policy.delay_s + (service.cold_start_s or 0.0)

    def cheapest(self) -> PolicyFound:
        """Find the policy of the least cost that meets the goals and costs less than the fixed count."""
        if math.isnan(self.max_rps):
            return self._no_rate(POLICY)
        shares = np.arange(LEAST_SHARE, self._highest_share + 1e-9, SHARE_STEP).round(6).tolist()
        for first in FIRST_SHARES:
            i = min(int(np.searchsorted(shares, first)), len(shares) - 1)
            least = self._smallest_min(shares[i])
            if least is not None:
                self._try_higher(shares, i, least)
                self._try_lower(shares, i, least - 1)
                break
        return self._settled() or self._none_found()

    def rule_of_thumb(self) -> PolicyFound:
        """Simulate AWS's rule of thumb: MAX_RPS x 0.5 x 60, with min and max from the traffic."""
        note = "AWS's target: MAX_RPS x 0.5 x 60"
        if self.policy.metric != INVOCATIONS:
            note = "AWS's rule is for InvocationsPerInstance: the requests present at MAX_RPS x 0.5"
        if math.isnan(self.max_rps):
            return self._no_rate(RULE_OF_THUMB)
        design = self._design(SAFETY_FACTOR, self._least_min(SAFETY_FACTOR))
        state = self._settle(design)
        tried = self.try_design(design)
        met = tried.meets(self.goals)
        certain = state == (MET if met else MISSED)
        note = f"{note}; MAX_RPS is {self.max_rps:g}/s"
        if not met:
            note += f"; {tried.missed_text(self.goals)}{self._small_text(design)}"
        return PolicyFound(RULE_OF_THUMB, design, tried, met, certain, note=note)

    def billed(self, design: Design) -> float:
        """Return the mean number of instances of a policy that are charged for."""
        return float(self.try_design(design).mean[-1])

    def try_design(self, design: Design, n_replications: int = 1) -> DesignTried:
        """Return what is known of a policy after at least so many replications."""
        tried = self.tried.get(design)
        if tried is None:
            values, errors = self._replicate(design, 0)
            tried = DesignTried(values[None, :], errors, self.horizon_s)
        n_done = len(tried.values)
        if n_done < n_replications:
            more = [self._replicate(design, r)[0] for r in range(n_done, n_replications)]
            tried = replace(tried, values=np.vstack([tried.values, *more]))
        self.tried[design] = tried
        return tried

    def _settle(self, design: Design) -> str:
        search = self.search
        return settled(partial(self.try_design, design), self.goals, search.alpha, search.max_replications)

    @property
    def _highest_share(self) -> float:
        """The highest share of MAX_RPS that is tried: with a choice of instances they do more than one alone."""
        most = HIGHEST_LOAD * self._capacity / self.max_rps
        splits = splits_independently(self.search.scenario.side(self.role).routing)
        return min(most, HIGHEST_SHARE) if splits else most

    @property
    def _capacity(self) -> float:
        """Requests per second that one instance can do at most."""
        return self.search.demand.rate_per_s * self.search.demand.share / self.search.demand.instances

    def _replicate(self, design: Design, r: int) -> Floats:
        result = self.search.run(settings_of(self.role, design), self.horizon_s, r)
        windows = result.windows[result.windows["role"] == self.role]
        if r == 0:
            self.too_small[design] = self._stretches(windows)
        billed = billed_instances(windows, result.scenario.horizon_s)
        return np.array([*(measure(goal, result) for goal in self.search.figures), (billed, math.nan)]).T

    def _count_minutes(self) -> Floats:
        """Return the requests of each minute of the fixed count's run, whose windows may be longer than minutes."""
        flat = fixed_pool(self.search.scenario, self.role, ("scaling", "outages"))
        alone = replace(self.search, scenario=flat)
        result = alone.run({f"{self.role}.instance_count": self.fixed}, self.horizon_s, 0)
        windows = result.windows[result.windows["role"] == self.role]
        count = np.append(0.0, np.cumsum(windows["Invocations"].to_numpy(np.float64)))
        if self.horizon_s < 60.0:  # no minute is full
            return count[-1:] * (60.0 / self.horizon_s)
        edge = np.append(0.0, np.cumsum(lengths_s(windows, self.horizon_s)))
        minutes = np.arange(0.0, self.horizon_s + 30.0, 60.0)
        return np.asarray(np.diff(np.interp(minutes, edge, count)), np.float64)

    def _find_max_rps(self) -> float:
        """Return the highest rate at which one instance meets the goals with an upper limit, to three figures."""

        def meets(load: float) -> bool:
            result = self._one_instance(load * self._capacity)
            return all(goal.met(measure(goal, result)[0]) for goal in self.search.helped_goals)

        load, step = HIGHEST_LOAD, _LOAD_STEP
        while load > 0.0 and not meets(load):
            load -= step
        if load <= 0.0:
            return math.nan
        for _ in range(_HALVINGS if load < HIGHEST_LOAD else 0):
            step /= 2.0
            load += step if meets(load + step) else 0.0
        return float(significant(load * self._capacity, _FIGURES).replace(",", ""))

    def _one_instance(self, rate_per_s: float) -> Result:
        """Simulate one instance at a rate: the same draws at every rate, since windows have as many requests."""
        length_s = LEAST_REQUESTS / rate_per_s
        one = one_instance(self.search.scenario, self.role, self.search.demand)
        alone = replace(self.search, scenario=one)
        return alone.run({"traffic.rate_per_s": rate_per_s, "run.period_s": length_s / _WINDOWS}, length_s, 0)

    def _target(self, share: float) -> float:
        """Return the target that holds an instance at a share of MAX_RPS."""
        rate = share * self.max_rps
        if self.policy.metric == INVOCATIONS:
            return round(rate * 60.0, 6)
        if share not in self.targets:
            result = self._one_instance(rate)
            mean_s = float(result.summary().set_index("role")["mean_s"][self.role])
            self.targets[share] = float(significant(rate * mean_s, _FIGURES).replace(",", ""))
        return self.targets[share]

    def _wanted(self, share: float, per_minute: Floats) -> Floats:
        """Return the instances for counts of a minute, each at a share of MAX_RPS."""
        wanted: Floats = np.ceil(per_minute / (60.0 * share * self.max_rps) - 1e-9)
        return np.maximum(wanted, 1.0)

    def _least_min(self, share: float) -> int:
        """Return what a policy wants in the quietest minute: a smaller min does nothing."""
        return min(int(self._wanted(share, self.per_minute).min()), self.search.max_instances)

    def _design(self, share: float, least: int) -> Design:
        most = self._wanted(share, np.array([self.per_minute.max() + _DEVIATIONS * math.sqrt(self.per_minute.max())]))
        # A backlog adds to requests present, and a pool that could not grow to the fixed count could not work it off.
        most_needed = int(most[0]) if self.policy.metric == INVOCATIONS else max(int(most[0]), self.fixed)
        bound = max(min(most_needed, self.search.max_instances), least)
        first = int(self._wanted(share, self.per_minute[:5].mean(keepdims=True))[0])
        design = Design(self._target(share), least, bound, min(max(first, least), bound))
        self.shares[design] = share
        return design

    def _guessed_min(self, share: float) -> int:
        """Return the instances of the busiest minute in which a policy has not had time to ask for what is needed."""
        late = math.ceil(self.lateness_s / 60.0) + 1
        known = np.concatenate([np.repeat(self.per_minute[:1], late), self.per_minute[:-late]])[: self.per_minute.size]
        # A scale-in takes a quarter of an hour, and so the most of the minutes before counts.
        held = pd.Series(self._wanted(share, known)).rolling(self.policy.in_points, min_periods=1).max().to_numpy()
        needed = np.ceil(self.per_minute / (60.0 * self.max_rps))
        return int(needed[needed > held].max(initial=0.0))

    def _smallest_min(self, share: float) -> int | None:
        """Return the smallest min that meets the goals at a share and is below the fixed count; None for none."""
        low, high = self._least_min(share) - 1, self.fixed
        least, answer = max(self._guessed_min(share), low + 1), None
        while high - low > 1:
            least = min(max(least, low + 1), high - 1)
            if self._meets(share, least):
                high = answer = least
                least -= 1
            else:
                low = least
                least = low + 1 if answer is None else (low + high) // 2
        return answer

    def _try_higher(self, shares: Sequence[float], i: int, least: int) -> None:
        """Try shares above `shares[i]`, which meets the goals with the min `least`, with this and with greater mins."""
        while least < self.fixed:
            cheaper = [j for j in range(i + 1, len(shares)) if self._promises_less(shares[j], least)]
            if not cheaper:  # greater mins cost more
                return
            i = max(self._highest_that_meets(shares, cheaper, least), i)
            least += 1

    def _try_lower(self, shares: Sequence[float], i: int, least: int) -> None:
        """Try shares below `shares[i]`, which misses the goals with the min `least`, with this and smaller mins."""
        while i > 0 and least >= self._least_min(shares[i - 1]):
            cheaper = [j for j in range(i) if self._promises_less(shares[j], least)]
            if cheaper:
                i = self._highest_that_meets(shares, cheaper, least) + 1
            least -= 1

    def _highest_that_meets(self, shares: Sequence[float], among: Sequence[int], least: int) -> int:
        """Return the greatest of successive indices whose share meets the goals; the one before the first for none."""
        low, high = among[0] - 1, among[-1] + 1
        while high - low > 1:
            j = (low + high) // 2
            low, high = (j, high) if self._meets(shares[j], least) else (low, j)
        return low

    def _meets(self, share: float, least: int) -> bool:
        """Simulate a policy, and return whether it meets the goals; remember the cheapest that does."""
        design = self._design(share, least)
        met = self.try_design(design).meets(self.goals)
        if met and (math.isnan(self.cheapest_billed) or self.billed(design) < self.cheapest_billed):
            self.cheapest_billed = self.billed(design)
            self.over_asked = self.cheapest_billed / self._asked(share, least)
        return met

    def _promises_less(self, share: float, least: int) -> bool:
        """Whether a policy should cost less than the cheapest so far, by the instances that its target asks for."""
        return self._asked(share, least) * self.over_asked < self.cheapest_billed

    def _asked(self, share: float, least: int) -> float:
        """Return the mean number of instances that a target and a min ask for, fractions included."""
        return float(np.maximum(self.per_minute / (60.0 * share * self.max_rps), least).mean())

    def _settled(self) -> PolicyFound | None:
        """Replicate the cheapest policies that were tried until one of them meets the goals; None for none."""
        for _ in range(len(self.tried)):
            able = [design for design, tried in self.tried.items() if tried.meets(self.goals)]
            able = [design for design in able if self.billed(design) < self.fixed]
            if not able:
                return None
            best = min(able, key=self.billed)
            state = self._settle(best)
            if self.try_design(best).meets(self.goals) and best == min(able, key=self.billed):
                return PolicyFound(POLICY, best, self.try_design(best), True, state == MET, self._one_fewer_text(best))
        return None

    def _one_fewer_text(self, design: Design) -> str:
        wanted = self._least_min(self.shares[design])
        if design.least <= wanted:
            return f"a smaller min changes nothing: {wanted} are wanted in the quietest minute"
        smaller = self._design(self.shares[design], design.least - 1)
        missed = self.try_design(smaller).missed_text(self.goals)
        return f"min {smaller.least}: {missed or 'meets the goals, too'}{self._small_text(smaller)}"

    def _no_rate(self, kind: str) -> PolicyFound:
        return PolicyFound(kind, None, _NOTHING, False, True, note="one instance meets the goals at no rate")

    def _none_found(self) -> PolicyFound:
        noun = "instance" if self.fixed == 1 else "instances"
        note = f"no policy meets the goals and costs less than {self.fixed:,} {noun}"
        missed = [design for design, tried in self.tried.items() if not tried.meets(self.goals)]
        if missed:
            nearest = max(missed, key=lambda design: (design.least, -self.billed(design)))
            figures = self.try_design(nearest).missed_text(self.goals)
            note += f"; target {nearest.target:g}, min {nearest.least}: {figures}{self._small_text(nearest)}"
        return PolicyFound(POLICY, None, _NOTHING, False, False, note=note)

    def _small_text(self, design: Design) -> str:
        """Return when a policy's pool was too small, and why; "" if it was not."""
        stretches = self.too_small[design]
        if not stretches:
            return ""
        policy, service = self.policy, self.search.scenario.side(self.role).service
        point = "60 s" if policy.metric == INVOCATIONS else "10 s"
        why = (
            f"{policy.out_points} x {point} + delay {policy.delay_s:g} s + cold start {service.cold_start_s or 0.0:g} s"
        )
        late = "late" if design.most > design.least else "no"
        return f", too small {stretches} ({late} scale-outs: {why} = {self.lateness_s:g} s)"

    def _stretches(self, windows: pd.DataFrame) -> str:
        """Return the stretches of windows in which instances got more than MAX_RPS each, beyond chance."""
        n, length = windows["Invocations"].to_numpy(np.float64), lengths_s(windows, self.horizon_s)
        most = windows["serving_instance_count"].to_numpy(np.float64) * self.max_rps * length
        mark = n > most + _DEVIATIONS * np.sqrt(most)
        edge = np.flatnonzero(np.diff(np.concatenate([[False], mark, [False]]).astype(np.int8)))
        if not edge.size:
            return ""
        start = np.append(windows["time_s"].to_numpy(np.float64), self.horizon_s)
        first = f"from {clock(start[edge[0]])} to {clock(start[edge[1]])}"
        n_more = edge.size // 2 - 1
        more = f" and in {n_more} more {'stretch' if n_more == 1 else 'stretches'}" if n_more else ""
        return f"{first}{more}, {length[mark].sum() / 60.0:.3g} min in all"


def settings_of(role: str, design: Design) -> dict[str, object]:
    """Return the settings that give a variant a policy."""
    settings: dict[str, object] = {f"{role}.instance_count": design.start}
    names = {"target": design.target, "min": design.least, "max": design.most}
    return settings | {f"{role}.scaling.{name}": value for name, value in names.items()}


def no_policy_text(frame: pd.DataFrame) -> str:
    """Return why a frame of `size` has no policy that meets the goals of a role; "" if each role has one."""
    texts = []
    for role, rows in frame.groupby("role", sort=False):
        if not ((rows["pool"] == POLICY) & rows["met"]).any():
            notes = dict.fromkeys(note for note in rows.loc[rows["pool"] != RULE_OF_THUMB, "note"] if note)
            texts.append(f"No scaling policy of the {role} meets its goals: {'; '.join(notes)}.")
    return " ".join(texts)


def with_cheapest_policy(scenario: Scenario, frame: pd.DataFrame) -> Scenario:
    """Return the scenario with the cheapest policies of a frame of `size` that meet the goals, for its roles."""
    for role, rows in frame[(frame["pool"] == POLICY) & frame["met"]].groupby("role"):
        best = rows.iloc[0]
        design = Design(float(best["target"]), *(int(best[name]) for name in ("min", "max", "instance_count")))
        scenario = scenario.replace({f"{role}.instance_type": best["instance_type"]})
        scenario = scenario.replace(settings_of(str(role), design))
    return scenario


def fixed_pool(scenario: Scenario, role: str, keys: Sequence[str] = ("scaling",)) -> Scenario:
    """Return the scenario without the scaling of a variant, or without other keys of its service."""
    for key in keys:
        # A key may stand in the service, and again for its instance type.
        while getattr(scenario.side(role).service, key) is not None:
            scenario = scenario.replace({f"{role}.{key}": None} | _enough_for_outages(scenario, role, key))
    return scenario


def _enough_for_outages(scenario: Scenario, role: str, key: str) -> dict[str, object]:
    """Return the InstanceCount that a pool without scaling needs, to have all instances whose outages are listed."""
    side = scenario.side(role)
    listed = () if side.service.outages is None or key != "scaling" else side.service.outages.listed
    needed = 1 + max((outage.instance for outage in listed), default=-1)
    return {f"{role}.instance_count": needed} if needed > side.n_instances else {}


def policy_run_s(scenario: Scenario) -> float:
    """Return the length of a policy's run: the horizon, or a cycle of the traffic if that has too many requests.

    No cycle stands for all where instances fail or callers retry.
    """
    rate = scenario.traffic.mean_rate(scenario.horizon_s, scenario.start)
    fails = scenario.traffic.retries is not None or any(service.outages for service in scenario.services.values())
    if fails or rate * scenario.horizon_s <= MOST_REQUESTS:
        return scenario.horizon_s
    cycle = cycle_s(scenario)
    if cycle > scenario.period_s:
        return cycle
    affordable = math.ceil(MOST_REQUESTS / rate / scenario.period_s) * scenario.period_s
    return min(affordable, scenario.horizon_s)


def one_instance(scenario: Scenario, role: str, demand: Demand) -> Scenario:
    """Return a scenario in which one instance of the role's pool, that neither scales nor fails, gets all requests."""
    changes: dict[str, object] = {"run.sample_requests": 0, "sampling_percentage": 0}
    side = scenario.side(role)
    if side.service.follows_trace:  # of the columns of a trace, which steady traffic has not
        if side.service.tokens is None:
            changes[f"{role}.time"] = _law_of(demand.service_s, "quantiles_s")
        else:
            requests = typical_requests(side.service.tokens, trace_columns(scenario))
            changes |= {f"{role}.tokens.{key}": _law_of(x, "quantiles_tokens") for key, x in requests._asdict().items()}
    if role == "shadow":
        free = {"rule": "coin", "instant": "arrival", "max_in_flight": None, "max_body_bytes": None, "max_per_s": None}
        changes |= {f"mirror.{key}": value for key, value in free.items()}
        changes["sampling_percentage"] = 100
    changes["traffic"] = {"process": "poisson", "rate_per_s": 1.0}
    fixed = fixed_pool(scenario, role, ("scaling", "outages"))
    return fixed.replace(changes | {f"{role}.instance_count": 1})


def _law_of(values: Floats, key: str) -> dict[str, object]:
    """Return an empirical law of values, with its quantiles under `key`."""
    levels = (np.arange(_QUANTILES) + 1.0) / _QUANTILES
    quantiles = np.quantile(values, levels)
    return {"law": "empirical", key: {f"{q:g}": float(x) for q, x in zip(levels, quantiles, strict=True)}}
