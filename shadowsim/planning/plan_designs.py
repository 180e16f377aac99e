"""Designs of a shadow test: a share and the pool that it needs, and what of a duration is rehearsed.

The pool: a share s of the traffic gets at least s times the source's workers. Under RANDOM routing with a coin, and
where that is a whole number of instances, each of them then sees just what an instance of the source sees.

What is rehearsed: the whole duration, if that can be afforded; else a segment. Of steady traffic any will do, and one
for all durations. A day's profile is run through faster (rehearsals.py), and keeps as many sections as the test has,
since `compare` joins sections by how they follow the traffic.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from shadowsim.errors import InputError
from shadowsim.frames import MOST_SECTIONS
from shadowsim.planning.load import DAY_S, WEEK_S, demand_of, repeating_s
from shadowsim.planning.plan_effects import Effect
from shadowsim.planning.plan_rehearsals import least_s, mean_rate, shorter
from shadowsim.scenario.fields import number
from shadowsim.scenario.paths import plain
from shadowsim.scenario.scenario import Scenario

SHARES = (10, 25, 50, 100)
HOUR_S = 3600.0
DURATIONS_S = (HOUR_S, 6.0 * HOUR_S, DAY_S)  # and the Schedule's
LONGEST_S = 30.0 * DAY_S  # SageMaker's
MOST_REQUESTS = 200_000_000  # of all rehearsals together: some five seconds on two cores
MOST_WINDOWS = 1500  # a day of minutes; of more, sections differ by hardly a window in a hundred
STRETCH = 4.0  # times as many where a queue's memory or a far tail asks for them
LEAST_COPIES = 100.0  # in the tail that makes the metric
_PERIOD_S = 60.0
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)\s*(s|min|h|d)")
_UNITS = {"s": 1.0, "min": 60.0, "h": HOUR_S, "d": DAY_S}


class Segment(NamedTuple):
    """What is rehearsed of a test.

    Attributes
    ----------
    whole_s : float
        Which part of the scenario, from t = 0.
    length_s : float
        How long a rehearsal of it is.
    n_windows : int
        As many as the test has, where rates change: sections of 14 and of 15 windows look different to `compare`.
    mixture : float
        What two segments have in common that see the same mixture of rates: 0 for steady traffic, the length of the
        cycle where `whole_s` is so many whole ones, else `whole_s`.
    cycles : bool
        Whether it is steady, or whole cycles: it does not matter when it begins.
    enough : bool
        Whether it is long against the queue's memory, or whole.
    """

    whole_s: float
    length_s: float
    n_windows: int
    mixture: float
    cycles: bool
    enough: bool

    def of(self, scenario: Scenario) -> Scenario:
        """Return the scenario of a rehearsal."""
        return shorter(scenario, self.whole_s, self.length_s, self.n_windows)

    def longer(self, length_s: float) -> Segment:
        """Return the segment with rehearsals of at least that length, if there is as much of it."""
        if self.mixture == 0.0:
            length_s = max(length_s, self.length_s)
            return self._replace(whole_s=length_s, length_s=length_s)
        return self._replace(length_s=max(self.length_s, min(length_s, self.whole_s)))


def at_share(scenario: Scenario, percentage: int) -> Scenario:
    """Return the scenario with a share and the pool that it needs."""
    return scenario.replace({"sampling_percentage": percentage, "shadow.instance_count": _pool(scenario, percentage)})


def in_production(scenario: Scenario) -> Scenario:
    """Return the scenario with a shadow that gets all requests, as they come, as the source does."""
    mirror = {"rule": "coin", "instant": "arrival", "max_in_flight": None, "max_body_bytes": None, "max_per_s": None}
    return at_share(scenario, 100).replace({f"mirror.{key}": value for key, value in mirror.items()})


def same_model(scenario: Scenario) -> bool:
    """Whether the shadow's instances serve as the source's do, and are routed to in the same way."""
    return (
        scenario.source_service == scenario.shadow_service
        and scenario.source_workers == scenario.shadow_workers
        and len(set(scenario.routing.values())) == 1
    )


def sees_same_arrivals(scenario: Scenario) -> bool:
    """Whether an instance of the shadow sees just the arrivals that one of the source sees, in law."""
    source, shadow = scenario.experiment.source, scenario.experiment.shadow
    share, routing = scenario.experiment.sampling_percentage, scenario.routing[source.name]
    capped = any(x is not None for x in (scenario.max_in_flight, scenario.max_body_bytes, scenario.max_per_s))
    thinned = routing == "RANDOM" and scenario.mirror_rule == "coin"
    return (
        same_model(scenario)
        and scenario.mirror_instant == "arrival"
        and not capped
        and shadow.pool.instance_count * 100 == source.pool.instance_count * share
        and (thinned or share == 100)
    )


def load_ratio(scenario: Scenario) -> float:
    """Return how much of the traffic comes to a worker of the shadow, over that of one of the source."""
    source, shadow = scenario.experiment.source.pool, scenario.experiment.shadow.pool
    workers = source.instance_count * scenario.source_workers, shadow.instance_count * scenario.shadow_workers
    return scenario.share * workers[0] / workers[1]


def keeps_up(scenario: Scenario) -> None:
    """Raise `InputError` when more comes to the source than it can do: its latencies say how long the run was."""
    demand, n = demand_of(scenario, "source"), scenario.experiment.source.pool.instance_count
    load = max([demand.instances / n, *demand.load(n)])
    if load >= 1.0 and scenario.source_service.queue_limit is None:
        what = f"must have a source that keeps up: it is offered {load:.2f} times what it can do"
        raise InputError("scenario", what)


def shares_of(shares: Sequence[int] | None) -> list[int]:
    """Return the sampling percentages, each once, in order."""
    if shares is None:
        return list(SHARES)
    if isinstance(shares, str) or not isinstance(shares, Iterable):
        raise InputError("shares", "must be a list of sampling percentages", shares)
    found = {number(share, "shares", least=1.0, most=100.0) for share in map(plain, shares)}
    for share in found:
        if not share.is_integer():
            raise InputError("shares", "must hold integers from 1 to 100 (per cent)", share)
    if not found:
        raise InputError("shares", "must hold at least one sampling percentage")
    return sorted(map(int, found))


def durations_of(durations: Sequence[float | str] | None, scenario: Scenario) -> list[float]:
    """Return the durations in seconds, each once, in order."""
    end = scenario.horizon_s if scenario.traffic.traces else LONGEST_S
    if durations is None:
        longest = min(scenario.experiment.duration_s, end)
        return [*(d for d in DURATIONS_S if scenario.period_s <= d < longest), longest]
    if isinstance(durations, str) or not isinstance(durations, Iterable):
        raise InputError("durations", 'must be a list of seconds, or of texts such as "6h"', durations)
    found = {_seconds(duration) for duration in durations}
    if not found:
        raise InputError("durations", "must hold at least one")
    for seconds in sorted(found):
        if not scenario.period_s <= seconds <= end:
            last = "where the traffic's trace ends" if scenario.traffic.traces else "SageMaker's longest"
            what = f"must be from a period of {scenario.period_s:g} s to {end:g} s, {last}"
            raise InputError("durations", what, seconds)
    return sorted(found)


def _seconds(duration: float | str) -> float:
    if not isinstance(duration, str):
        return number(plain(duration), "durations", above=0.0)
    found = _DURATION.fullmatch(duration.strip())
    if not found:
        raise InputError("durations", "must be seconds, or have a unit as 90min, 6h or 7d", duration)
    return float(found[1]) * _UNITS[found[2]]


def segments(
    production: Scenario, durations_s: Sequence[float], shares: Sequence[int], replications: int, effect: Effect
) -> dict[float, Segment]:
    """Choose what is rehearsed of each duration.

    Parameters
    ----------
    production : Scenario
        As `in_production` makes it.
    durations_s : sequence of float
    shares : sequence of int
    replications : int
        Rehearsals of each (share, duration), with the effect and as many without.
    effect : Effect
    """
    cycle = _cycle_s(production)
    kinds = 1 if cycle == 0.0 else len(durations_s)
    affordable = MOST_REQUESTS / (2.0 * replications * len(shares) * kinds)
    found = {}
    for duration_s in durations_s:
        n = _windows(math.ceil(duration_s / production.period_s), cycle == 0.0)
        rate = max(mean_rate(production, duration_s), 1e-9)
        length, memory = affordable / rate, least_s(production, min(n, MOST_SECTIONS))
        tail = LEAST_COPIES / (effect.tail * min(shares) / 100.0 * rate)
        length = min(max(length, min(STRETCH * length, max(memory, tail))), duration_s)
        whole = length if cycle == 0.0 else duration_s
        cycles = cycle == 0.0 or duration_s % cycle == 0.0
        mixture = cycle if cycles else duration_s
        found[duration_s] = Segment(whole, length, n, mixture, cycles, length >= min(memory, duration_s))
    return found


def limits_of(test: Scenario, segment: Segment, k: float) -> list[str]:
    """Return what a test cannot tell, from when a part of a day is, and what was left out of its rehearsals.

    Parameters
    ----------
    test : Scenario
        As `at_share` makes it.
    segment : Segment
    k : float
        How many times as long as a rehearsal it is.
    """
    share, n = test.experiment.sampling_percentage, test.experiment.shadow.pool.instance_count
    parts = test.traffic.streams
    load, said, with_profile = load_ratio(test), [], any(part.profile is not None for part in parts)
    if load < 0.995:
        said.append(f"the shadow's workers get {load:.0%} of the load of the source's: not how it does under all of it")
    elif same_model(test) and not sees_same_arrivals(test):
        said.append(f"copies reach {n} instances otherwise than requests the source: equal models may differ")
    if share < 100:
        said.append(f"the shadow sees {share} % of the traffic: not how a pool for all of it does")
    if not segment.cycles and with_profile:
        start = test.start.isoformat(" ", "minutes") if test.start else "Monday 00:00"
        said.append(f"of traffic with a profile, from {start} on")
    if k != 1.0 and with_profile:
        said.append("compare may still find not enough data in so long a test, as its sections follow the traffic")
    if k != 1.0 and test.traffic.traces:
        said.append("rehearsed on the beginning of the trace alone")
    if not segment.enough:
        said.append("approximate: queues are remembered for longer than the rehearsals' sections")
    return said


def _windows(n: int, steady: bool) -> int:
    """Return how many windows of `n` a rehearsal has; where rates change, those that differ in number matter."""
    return min(n, MOST_SECTIONS) if steady or n > MOST_WINDOWS else n


def _pool(scenario: Scenario, percentage: int) -> int:
    source = scenario.experiment.source.pool.instance_count * scenario.source_workers
    return max(1, -(-source * percentage // (100 * scenario.shadow_workers)))


def _cycle_s(scenario: Scenario) -> float:
    """Return after which time the traffic repeats itself: 0 for steady, infinity for never."""
    calendar = 4.0 * WEEK_S
    cycle = repeating_s(scenario.replace({"horizon_s": calendar, "run.period_s": _PERIOD_S}))
    return 0.0 if cycle == _PERIOD_S else math.inf if cycle == calendar else cycle
