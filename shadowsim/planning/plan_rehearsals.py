"""A shadow test played through many times before it is paid for.

A rehearsal is the experiment as it would be: the source and the shadow get the same arrivals, the copy rule chooses the
share, and each side's service has draws of its own. It is then judged as `compare` judges a run, on the same
sections. Only the frames in between are left out, which would take longer than a small simulation does.

Hundreds of rehearsals of a week cannot be simulated in half a minute. What stands in for a long experiment is a shorter
one with the same mixture of loads: steady traffic for less time, or a rate profile run through faster, in steps, while
the rates stay as they are. That is right as long as a section remains long against the memory of a queue
(`least_s`); the figures of the experiment then have the same scatter but for its length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtr  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.engine import _kernel as k
from shadowsim.engine import parallel
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import Columns, columns
from shadowsim.engine.replicate import replication
from shadowsim.engine.simulate import CHUNK
from shadowsim.errors import InputError
from shadowsim.planning.load import CYCLES, demand, memory_s
from shadowsim.planning.plan_effects import Effect
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.traffic import Traffic
from shadowsim.statistics import estimates, sequential_looks
from shadowsim.statistics.batch_means import traffic_moments
from shadowsim.statistics.comparison import MIN_BEYOND, RowBuilder
from shadowsim.statistics.samples import Buckets
from shadowsim.statistics.sections import Sections, SideSections
from shadowsim.statistics.terms import Terms

Advance = Callable[[int], object]

STEPS = 1000  # of a profile that is run through faster: ten in a section
MEMORIES = 10  # relaxation times of the queue in a section
_NO_MARGIN = 1e-9  # whether a difference matters is not asked
_ERRORS = {
    "error_rate_4xx": (k.R_ERROR_4XX,),
    "error_rate_5xx": (k.R_ERROR_5XX, k.R_REFUSED),
    "error_rate": (k.R_ERROR_4XX, k.R_ERROR_5XX, k.R_REFUSED, k.R_TIMED_OUT),
}


@dataclass(frozen=True, slots=True)
class RehearsalResult:
    """What a rehearsal showed of a metric.

    Attributes
    ----------
    source, shadow : float
        Its estimates, in its unit.
    low, high : float
        The interval of their difference. Of several looks the highest low and the lowest high: the test finds a
        shadow that is worse when the interval of some look lies above 0. NaN where no look had one.
    short : bool
        Whether an interval is missing for want of requests, of which a longer test has more. Under a profile it is
        missing because sections move with the traffic however they are joined, which length does not cure.
    n_copies : float
        Requests of the shadow.
    """

    source: float
    shadow: float
    low: float
    high: float
    short: bool
    n_copies: float


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A rehearsal's scenario and what the kernel needs of it, but for the seed.

    Attributes
    ----------
    scenario : Scenario
    prepared : Columns
        Made once: its tables take longer than the rest of a small run.
    effect : Effect
        Whose metric is looked at.
    levels : tuple of float
        Of the interval, a look each.
    """

    scenario: Scenario
    prepared: Columns
    effect: Effect
    levels: tuple[float, ...]

    @classmethod
    def of(cls, scenario: Scenario, effect: Effect, levels: tuple[float, ...]) -> Rehearsal:
        """Set a stage for a scenario."""
        return cls(scenario, columns(scenario, arrivals_of(scenario)), effect, levels)

    def with_shadow(self, scale: float, error: float = 0.0) -> Rehearsal:
        """Return the stage with the shadow's service times multiplied, and with so many more of its answers errors.

        Errors are those of the effect's metric, on top of the source's.

        Raises
        ------
        InputError
            When its share of errors would not be one.
        """
        pool, source = self.prepared.shadow, self.prepared.source
        pool = pool._replace(mean_s=pool.mean_s * scale, work_s=pool.work_s * scale)
        if self.effect.of_errors:
            of_4xx = self.effect.metric == "error_rate_4xx"
            errors = source.error_4xx + (error if of_4xx else 0.0), source.error_5xx + (0.0 if of_4xx else error)
            if min(errors) < 0.0 or sum(errors) > 1.0:
                what = f"takes the shadow's shares of errors to {errors[0]:g} (4XX) and {errors[1]:g} (5XX)"
                raise InputError("effect", what, str(self.effect))
            pool = pool._replace(error_4xx=errors[0], error_5xx=errors[1])
        return replace(self, prepared=replace(self.prepared, shadow=pool))

    def sections(self, r: int, advance: Advance = lambda _: None) -> Sections:
        """Simulate replication `r` and return its sections, as `compare` has them of its frames."""
        seeded = replication(self.scenario, r)
        feed = arrivals_of(seeded)
        job = parallel.Job(replace(self.prepared, seed=np.uint64(seeded.seed)), feed, CHUNK, 0, 0)
        done = parallel.run(job, 1, None, advance)
        edges = k.bucket_edges()
        sides = [_side(tally, edges) for tally in done.tallies]
        return Sections(sides[0], sides[1], "sections")

    def outcome(self, r: int, advance: Advance = lambda _: None) -> RehearsalResult:
        """Simulate replication `r` and judge it."""
        whole = self.sections(r, advance)
        n, looks = whole.source.n.size, len(self.levels)
        found = [judged(_first(whole, n * (i + 1) // looks), self.effect, level) for i, level in enumerate(self.levels)]
        lows, highs = ([row[key] for row, _ in found if not math.isnan(row[key])] for key in ("low", "high"))
        last, short = found[-1]
        return RehearsalResult(
            last["source"],
            last["shadow"],
            max(lows, default=math.nan),
            min(highs, default=math.nan),
            short and not lows and all(part.profile is None for part in self.scenario.traffic.streams),
            float(whole.shadow.requests.sum()),
        )


def levels_of(alpha: float, looks: int) -> tuple[float, ...]:
    """Return the level of the interval at each of some looks, which have `alpha` together.

    Raises
    ------
    InputError
        When `looks` is not an integer from 1 to 100.
    """
    if isinstance(looks, bool) or not isinstance(looks, int):
        raise InputError("looks", f"must be an integer from 1 to {sequential_looks.MOST_LOOKS}", looks)
    return (alpha,) if looks == 1 else tuple(float(2.0 * ndtr(-z)) for z in sequential_looks.bounds(looks, alpha))


def judged(sections: Sections, effect: Effect, level: float) -> tuple[dict[str, Any], bool]:
    """Return the row of `compare` on an effect's metric, and whether the requests were too few for an interval."""
    sides = (sections.source, sections.shadow)
    worth = [estimates.n_effective(s.sample, 0.5, None, s.moments) if s.sample else None for s in sides]
    least = min((w for w in worth if w is not None), default=math.inf)
    how = RowBuilder(sections.method, None, least, Terms(_NO_MARGIN, _NO_MARGIN, level))
    return _row(how, sides, effect, worth), least * effect.tail < MIN_BEYOND


def _row(
    how: RowBuilder, sides: Sequence[SideSections], effect: Effect, worth: Sequence[float | None]
) -> dict[str, Any]:
    moments = [s.moments for s in sides]
    if effect.of_errors:
        return how.share(effect.metric, [(s.errors[effect.metric], s.requests) for s in sides], worth, moments)
    if effect.metric == "mean":
        return how.mean(effect.metric, sides)
    assert effect.at is not None
    if effect.metric == "slo_miss":
        hits = [s.sample.n_above(effect.at) if s.sample else np.zeros(s.n.size) for s in sides]
        return how.share(effect.metric, [(h, s.n) for h, s in zip(hits, sides, strict=True)], worth, moments)
    return how.quantile(effect.metric, sides, effect.at)


def shorter(scenario: Scenario, whole_s: float, length_s: float, n_windows: int) -> Scenario:
    """Return what stands in for the first `whole_s` of a scenario, and lasts `length_s` in so many windows.

    A part of the traffic with a profile is run through `whole_s / length_s` times faster, its rates in steps; of all
    others the first `length_s` are taken. At full length a profile is left alone where it says its own rates.
    """
    changes: dict[str, object] = {"horizon_s": length_s, "run.period_s": length_s / n_windows}
    changes["run.sample_requests"] = 0
    for part in scenario.traffic.streams:
        same = length_s == whole_s and (part.rate_per_s is None or whole_s == scenario.horizon_s)
        if part.profile is None or same:
            continue
        rates = _rates(scenario, part, whole_s)
        steps = [{"from_s": i * length_s / STEPS, "rate_per_s": float(rate)} for i, rate in enumerate(rates)]
        changes |= {f"{part.path}.profile": {"kind": "steps", "steps": steps}, f"{part.path}.rate_per_s": None}
    return scenario.replace(changes)


def mean_rate(scenario: Scenario, whole_s: float) -> float:
    """Return the mean rate of the first `whole_s` seconds, which may go past the horizon."""
    parts = scenario.traffic.streams
    return math.fsum(
        part.mean_rate(whole_s, scenario.start)
        if part.profile is None
        else float(_rates(scenario, part, whole_s).mean())
        for part in parts
    )


def least_s(scenario: Scenario, n_sections: int) -> float:
    """Return how long a stand-in has to be for a queue to forget its past well within a section.

    A section lasts `MEMORIES` relaxation times of the slower pool at its highest load. A modulated rate has `CYCLES` of
    its cycles in all.
    """
    sojourns = [sum(part.mean_sojourn_s) for part in scenario.traffic.streams]
    found = [CYCLES * max(sojourns) / (MEMORIES * n_sections)]
    for role in ("source", "shadow"):
        n = scenario.side(role).n_instances
        found.append(memory_s(scenario, role, demand(scenario, role), n))
    return MEMORIES * n_sections * max(found)


def _rates(scenario: Scenario, part: Traffic, whole_s: float) -> Floats:
    """Return the rates of a part with a profile in the middles of equal steps, as its horizon scales them."""
    raw = replace(part, rate_per_s=None)
    scaled, bare = (p.mean_rate(scenario.horizon_s, scenario.start) for p in (part, raw))
    middle = (np.arange(STEPS) + 0.5) * (whole_s / STEPS)
    rates: Floats = np.interp(middle, *raw.knots(whole_s, scenario.start)) * (scaled / bare if bare else 1.0)
    return rates


def _side(tally: k.Tally, edges: Floats) -> SideSections:
    """One variant of a run, from what the kernel counted; window w of W is in section w n // W of n."""
    n_windows, n_sections = len(tally.rows), len(tally.sections)
    least, greatest = tally.rows[:, k.R_LATENCY_MIN], tally.rows[:, k.R_LATENCY_MAX]
    begin = -(-np.arange(n_sections) * n_windows // n_sections)
    rows = np.add.reduceat(tally.rows[:, : k.R_LATENCY_SUM + 1], begin, axis=0)
    requests = rows[:, k.R_REQUESTS]
    answered = requests - rows[:, k.R_REFUSED]
    sample = None
    some = tally.rows[:, k.R_REQUESTS] > tally.rows[:, k.R_REFUSED]
    if some.any():
        ends = least[some].min(), greatest[some].max()
        first, last = np.clip(np.searchsorted(edges, ends, side="right") - 1, 0, edges.size - 2)
        counts = tally.sections[:, first : last + 1]
        sample = Buckets(edges[first : last + 1], edges[first + 1 : last + 2], counts, ends)
    errors = {name: rows[:, list(of)].sum(axis=1) for name, of in _ERRORS.items()}
    moments = traffic_moments(tally.rows[:, k.R_REQUESTS] - tally.rows[:, k.R_REFUSED], n_sections)
    return SideSections(sample, rows[:, k.R_LATENCY_SUM], answered, requests, errors, moments)


def _first(sections: Sections, n: int) -> Sections:
    """Return the first `n` sections of a run, as a look in between has them."""
    if n == sections.source.n.size:
        return sections
    sides = []
    for side in (sections.source, sections.shadow):
        assert side.total_s is not None
        sample = side.sample
        if isinstance(sample, Buckets):
            counts = sample.counts[:n]
            sample = Buckets(sample.low_s, sample.high_s, counts, sample.extremes_s) if counts.any() else None
        errors = {name: hits[:n] for name, hits in side.errors.items()}
        moments = None if side.moments is None else side.moments[:n]
        sides.append(SideSections(sample, side.total_s[:n], side.n[:n], side.requests[:n], errors, moments))
    return Sections(sides[0], sides[1], sections.method)
