"""Chooses the designs of a plan: a pool for each share, and the rehearsed part of each duration.

A share s of the traffic gets at least s times the source's workers. Under RANDOM routing with a coin, and where s times
the source's instances is a whole number, each instance then sees just what an instance of the source sees.

The whole duration is rehearsed if that can be afforded, else a segment. Of steady traffic any segment will do, and one
serves all durations. A day's profile is run through faster (plan_rehearsals.py), with as many sections as the test has,
since `compare` joins sections by how they vary with the traffic. Where a pool scales or fails, or callers retry,
nothing can be run through faster: the beginning of the test is rehearsed at its own speed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from shadowsim.aws.instances import duration_text
from shadowsim.errors import InputError
from shadowsim.frames import MOST_SECTIONS, ROLES
from shadowsim.option_defaults import SAMPLING_PERCENTAGES
from shadowsim.planning.load import count_settings, demand_of, repeating_s, takes_its_time
from shadowsim.planning.plan_effects import Effect
from shadowsim.planning.plan_rehearsals import least_length_s, mean_rate, stand_in
from shadowsim.quantities import number, parse_duration
from shadowsim.scenario.paths import plain
from shadowsim.scenario.rates import DAY_S, WEEK_S
from shadowsim.scenario.routing import splits_independently
from shadowsim.scenario.scenario import Scenario

HOUR_S = 3600.0
DURATIONS_S = (HOUR_S, 6.0 * HOUR_S, DAY_S)  # and the Schedule's length
LONGEST_S = 30.0 * DAY_S  # SageMaker's limit
MOST_REQUESTS = 200_000_000  # in all rehearsals together: some five seconds on two cores
EVENTED_COST = 8  # times as long takes a request of a pool that is simulated event by event
TOKENS_COST, SEQUENCE_COST = 25, 2  # one in tokens, and for each sequence that runs beside it
TOKENS_PATIENCE = 2  # times as long may rehearsals of these take, so that an hour of a trace is rehearsed in full
MOST_WINDOWS = 1500  # a day of minutes; beyond, sections differ by hardly one window in a hundred
STRETCH = 4.0  # times as many requests where a queue's memory or a far tail asks for them
LEAST_COPIES = 100.0  # in the tail that determines the metric
_PERIOD_S = 60.0  # for the length of a cycle


class Segment(NamedTuple):
    """The part of a test that is rehearsed.

    Attributes
    ----------
    covered_s : float
        Length of the scenario's part that a rehearsal stands for, from t = 0.
    length_s : float
        Length of a rehearsal.
    n_windows : int
        As many as the test has, where rates change: sections of 14 and of 15 windows look different to `compare`.
    mixture : float
        Equal for segments with the same mixture of rates: 0 for steady traffic, the length of the cycle where
        `covered_s` is a whole number of cycles, else `covered_s`.
    is_time_invariant : bool
        Whether it does not matter when the test begins: traffic is steady, or the test has whole cycles.
    is_long_enough : bool
        Whether the rehearsal is long against the queue's memory, or as long as the test.
    """

    covered_s: float
    length_s: float
    n_windows: int
    mixture: float
    is_time_invariant: bool
    is_long_enough: bool

    def of(self, scenario: Scenario) -> Scenario:
        """Return the scenario of a rehearsal."""
        return stand_in(scenario, self.covered_s, self.length_s, self.n_windows)

    def longer(self, length_s: float) -> Segment:
        """Return the segment with rehearsals of at least that length, or of what there is."""
        if self.mixture == 0.0:
            length_s = max(length_s, self.length_s)
            return self._replace(covered_s=length_s, length_s=length_s)
        return self._replace(length_s=max(self.length_s, min(length_s, self.covered_s)))


def at_share(scenario: Scenario, percentage: int) -> Scenario:
    """Return the scenario with a share and the pool that it needs."""
    pool = count_settings(scenario, "shadow", _instances_needed(scenario, percentage))
    return scenario.replace({"sampling_percentage": percentage} | pool)


def in_production(scenario: Scenario) -> Scenario:
    """Return the scenario with a shadow that gets all requests when they arrive, as the source does."""
    mirror = {"rule": "coin", "instant": "arrival", "max_in_flight": None, "max_body_bytes": None, "max_per_s": None}
    return at_share(scenario, 100).replace({f"mirror.{key}": value for key, value in mirror.items()})


def same_model(scenario: Scenario) -> bool:
    """Whether both variants' instances have the same service, workers and routing."""
    return (
        scenario.source_service == scenario.shadow_service
        and scenario.source_workers == scenario.shadow_workers
        and len(set(scenario.routing.values())) == 1
    )


def sees_same_arrivals(scenario: Scenario) -> bool:
    """Whether the arrivals at an instance of the shadow have the same law as those at an instance of the source."""
    source, shadow = scenario.experiment.source, scenario.experiment.shadow
    share, routing = scenario.experiment.sampling_percentage, scenario.routing[source.name]
    capped = any(x is not None for x in (scenario.max_in_flight, scenario.max_body_bytes, scenario.max_per_s))
    thinned = splits_independently(routing) and scenario.mirror_rule == "coin" and not changes_instances(scenario)
    return (
        same_model(scenario)
        and scenario.mirror_instant == "arrival"
        and not capped
        and shadow.pool.instance_count * 100 == source.pool.instance_count * share
        and (thinned or share == 100)
    )


def changes_instances(scenario: Scenario) -> bool:
    """Whether a pool scales or fails: then a share of it is no smaller copy of the whole."""
    return any(service.scaling or service.outages for service in scenario.services.values())


def load_ratio(scenario: Scenario) -> float:
    """Return the traffic per worker of the shadow over that per worker of the source."""
    source, shadow = scenario.experiment.source.pool, scenario.experiment.shadow.pool
    workers = source.instance_count * scenario.source_workers, shadow.instance_count * scenario.shadow_workers
    return scenario.share * workers[0] / workers[1]


def check_keeps_up(scenario: Scenario) -> None:
    """Raise `InputError` when the source is overloaded: its latencies then depend on the length of the run."""
    demand, scaling = demand_of(scenario, "source"), scenario.source_service.scaling
    n = scenario.experiment.source.pool.instance_count if scaling is None else scaling.most
    load = max([demand.instances / n, *demand.load(n)])
    if load >= 1.0 and scenario.source_service.queue_limit is None:
        what = f"must have a source that keeps up: it receives {load:.2f} times its capacity"
        raise InputError("scenario", what)


def shares_of(shares: Sequence[int] | None) -> list[int]:
    """Return the sampling percentages, each once, in order."""
    if shares is None:
        return list(SAMPLING_PERCENTAGES)
    if isinstance(shares, str) or not isinstance(shares, Iterable):
        raise InputError("shares", "must be a list of sampling percentages", shares)
    percentages = {number(share, "shares", least=1.0, most=100.0) for share in map(plain, shares)}
    for share in percentages:
        if not share.is_integer():
            raise InputError("shares", "must hold integers from 1 to 100 (per cent)", share)
    if not percentages:
        raise InputError("shares", "must hold at least one sampling percentage")
    return sorted(map(int, percentages))


def durations_of(durations: Sequence[float | str] | None, scenario: Scenario) -> list[float]:
    """Return the durations in seconds, each once, in order."""
    end = scenario.horizon_s if scenario.traffic.traces else LONGEST_S
    if durations is None:
        longest = min(scenario.experiment.duration_s, end)
        return [*(d for d in DURATIONS_S if scenario.period_s <= d < longest), longest]
    if isinstance(durations, str) or not isinstance(durations, Iterable):
        raise InputError("durations", 'must be a list of seconds, or of texts such as "6h"', durations)
    found = {parse_duration(plain(duration), "durations") for duration in durations}
    if not found:
        raise InputError("durations", "must hold at least one")
    for seconds in sorted(found):
        if not scenario.period_s <= seconds <= end:
            last = "where the traffic's trace ends" if scenario.traffic.traces else "SageMaker's longest"
            what = f"must be from a period of {scenario.period_s:g} s to {end:g} s, {last}"
            raise InputError("durations", what, seconds)
    return sorted(found)


def choose_segments(
    production: Scenario, durations_s: Sequence[float], shares: Sequence[int], replications: int, effect: Effect
) -> dict[float, Segment]:
    """Choose the segment that is rehearsed for each duration.

    Parameters
    ----------
    production : Scenario
        From `in_production`.
    durations_s : sequence of float
    shares : sequence of int
    replications : int
        Rehearsals of each (share, duration) with the effect; there are as many without.
    effect : Effect
    """
    cycle = _cycle_s(production)
    is_steady, in_real_time = cycle == 0.0, takes_its_time(production)
    n_segments = 1 if is_steady else len(durations_s)
    n_requests = MOST_REQUESTS / request_cost(production)
    affordable = n_requests / (2.0 * replications * len(shares) * n_segments)
    segments = {}
    for duration_s in durations_s:
        n_windows = _n_windows(math.ceil(duration_s / production.period_s), is_steady)
        rate = max(mean_rate(production, duration_s), 1e-9)
        length, memory = affordable / rate, least_length_s(production, min(n_windows, MOST_SECTIONS))
        tail = LEAST_COPIES / (effect.tail * min(shares) / 100.0 * rate)
        length = min(max(length, min(STRETCH * length, max(memory, tail))), duration_s)
        is_time_invariant = is_steady or duration_s % cycle == 0.0
        covered = length if is_steady or in_real_time else duration_s
        if in_real_time:
            n_windows = _n_windows(math.ceil(length / production.period_s), is_steady)
        segments[duration_s] = Segment(
            covered_s=covered,
            length_s=length,
            n_windows=n_windows,
            mixture=cycle if is_time_invariant else covered,
            is_time_invariant=is_time_invariant,
            is_long_enough=length >= min(memory, duration_s),
        )
    return segments


def request_cost(scenario: Scenario) -> float:
    """Return how many times as long a request may take to be simulated as one that only waits and is served.

    In tokens it takes longer the more sequences run: by Little's law as many as come while a request is alone, which is
    less than under load.
    """
    if not scenario.evented:
        return 1.0
    running = 0.0
    for role in ROLES:
        demand, side = demand_of(scenario, role), scenario.side(role)
        if side.service.tokens is not None:
            mean = demand.rate_per_s * demand.share * float(demand.service_s.mean()) / side.n_instances
            running = max(running, min(mean, side.service.tokens.max_sequences))
    if not running:
        return EVENTED_COST
    return max(EVENTED_COST, TOKENS_COST + SEQUENCE_COST * running) / TOKENS_PATIENCE


def check_tokens(scenario: Scenario, effect: Effect) -> None:
    """Raise `InputError` for an effect on tokens of a scenario where a variant has none."""
    for role in ROLES:
        side = scenario.side(role)
        if effect.of_tokens and side.service.tokens is None:
            raise InputError("effect", f"needs services in tokens, which {side.variant.name} is not", str(effect))


def limitation_notes(test: Scenario, segment: Segment, k: float) -> list[str]:
    """Return notes on what a test cannot show, which part of a day it covers, and how its rehearsals differ from it.

    Parameters
    ----------
    test : Scenario
        From `at_share`.
    segment : Segment
    k : float
        Length of the test over that of a rehearsal.
    """
    share, load = test.experiment.sampling_percentage, load_ratio(test)
    has_profile = any(stream.profile is not None for stream in test.traffic.streams)
    notes = []
    if changes_instances(test):
        if share < 100:
            notes.append(
                "a pool for a share of the traffic scales and fails otherwise than one for all of it: "
                "even equal models may differ"
            )
    elif load < 0.995:
        notes.append(
            f"the shadow's workers get {100 * load:.0f} % of the load of the source's: "
            "the test does not show the shadow under full load"
        )
    elif same_model(test) and not sees_same_arrivals(test):
        notes.append(
            "copies arrive at the shadow's instances in another pattern than requests at the source's: "
            "even equal models may differ"
        )
    if share < 100:
        notes.append(f"the shadow gets {share} % of the traffic: the test does not show a pool for all of it")
    if not segment.is_time_invariant and has_profile:
        start = test.start.isoformat(" ", "minutes") if test.start else "Monday 00:00"
        notes.append(f"the traffic has a profile, and the test begins at {start}")
    if k != 1.0 and takes_its_time(test):
        notes.append(
            f"only the first {duration_text(segment.length_s)} were rehearsed, at their own speed: "
            "scaling, outages and retries take their time"
        )
    elif k != 1.0 and has_profile:
        notes.append(
            "compare may find too little data even in so long a test, because its sections vary with the traffic"
        )
    if k != 1.0 and test.traffic.traces:
        notes.append("only the beginning of the trace was rehearsed")
    if not segment.is_long_enough:
        notes.append("approximate: the memory of the queues is longer than the rehearsals' sections")
    return notes


def _n_windows(n: int, is_steady: bool) -> int:
    """Return the number of windows of a rehearsal for a test of `n`: as many, where rates change between them."""
    return min(n, MOST_SECTIONS) if is_steady or n > MOST_WINDOWS else n


def _instances_needed(scenario: Scenario, percentage: int) -> int:
    """Return how many instances give the shadow the source's workers per request, rounded up."""
    source = scenario.experiment.source.pool.instance_count * scenario.source_workers
    return max(1, -(-source * percentage // (100 * scenario.shadow_workers)))


def _cycle_s(scenario: Scenario) -> float:
    """Return after which time the traffic repeats itself: 0 for steady traffic, infinity for never."""
    calendar = 4.0 * WEEK_S
    cycle = repeating_s(scenario.replace({"horizon_s": calendar, "run.period_s": _PERIOD_S, "run.warmup_s": None}))
    return 0.0 if cycle == _PERIOD_S else math.inf if cycle == calendar else cycle
