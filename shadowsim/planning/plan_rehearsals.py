"""Rehearses a shadow test: simulates it many times, each time judged as `compare` would judge it.

A rehearsal is the experiment as it would be: the source and the shadow get the same arrivals, the copy rule chooses the
share, and each side's service has draws of its own. It is judged as `compare` judges a run, on the same sections. Only
the frames in between are left out, since making them would take longer than a small simulation.

Hundreds of rehearsals of a week cannot be simulated in half a minute. A shorter experiment with the same mixture of
loads stands in for a long one: steady traffic for less time, or a rate profile that is run through faster, in steps of
unchanged rates. That is right as long as a section remains long against the memory of a queue (`least_length_s`); the
figures of the experiment then have the same scatter except for its length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtr  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.engine import _event_kernel as e
from shadowsim.engine import _kernel as k
from shadowsim.engine import parallel
from shadowsim.engine._token_kernel import Scheduler
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import Columns, columns
from shadowsim.engine.event_run import EventSide
from shadowsim.engine.replicate import replication
from shadowsim.engine.run_frames import count_accepted
from shadowsim.engine.simulate import CHUNK
from shadowsim.errors import InputError
from shadowsim.frames import FIRST_TOKEN, ROLES
from shadowsim.planning.load import CYCLES, demand_of, instances_at_peak, pool_relaxation_s
from shadowsim.planning.plan_effects import Effect
from shadowsim.quantities import integer
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.traffic import Traffic
from shadowsim.statistics import sequential_looks
from shadowsim.statistics.batch_means import STEADY, Course, traffic_moments
from shadowsim.statistics.metric_rows import RowBuilder, effective_sizes
from shadowsim.statistics.samples import Buckets
from shadowsim.statistics.sections import Sections, SideSections, share_cv, with_share_cv
from shadowsim.statistics.terms import Terms

Advance = Callable[[float], object]

STEPS = 1000  # of a profile that is run through faster: ten per section
RELAXATIONS = 10  # relaxation times of the queue in a section
_NO_MARGIN = 1e-9  # rehearsals look for any difference, however small
_ERRORS = {
    "error_rate_4xx": (k.R_ERROR_4XX,),
    "error_rate_5xx": (k.R_ERROR_5XX, k.R_REFUSED),
    "error_rate": (k.R_ERROR_4XX, k.R_ERROR_5XX, k.R_REFUSED, k.R_TIMED_OUT),
}
_EVENT_ERRORS = {"error_rate_5xx": (e.R_UNAVAILABLE,), "error_rate": (e.R_UNAVAILABLE, e.R_FAILED)}  # besides


@dataclass(frozen=True, slots=True)
class RehearsalResult:
    """The result of a rehearsal for one metric.

    Attributes
    ----------
    source, shadow : float
        Estimates of the metric, in its unit.
    low, high : float
        The interval of their difference; of several looks, the highest low and the lowest high, since the test finds a
        shadow that is worse when the interval of any look lies above 0. NaN where no look had an interval.
    short : bool
        Whether the interval is missing for lack of requests, so that a longer test has one. Under a profile intervals
        are missing because sections vary with the traffic however they are joined, at any length.
    n_copies : float
        Requests of the shadow.
    billed : tuple of float
        Mean numbers of instances of both variants that are charged for, source first.
    """

    source: float
    shadow: float
    low: float
    high: float
    short: bool
    n_copies: float
    billed: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A rehearsal's scenario and the kernel's tables for it, which depend on no seed.

    Attributes
    ----------
    scenario : Scenario
    prepared : Columns
        Made once, because its tables take longer than the rest of a small run.
    effect : Effect
        Its metric is the one that is tested.
    levels : tuple of float
        Levels of the interval, one per look.
    """

    scenario: Scenario
    prepared: Columns
    effect: Effect
    levels: tuple[float, ...]

    @classmethod
    def of(cls, scenario: Scenario, effect: Effect, levels: tuple[float, ...]) -> Rehearsal:
        """Prepare the rehearsals of a scenario."""
        return cls(scenario, columns(scenario, arrivals_of(scenario)), effect, levels)

    def with_shadow(self, service_factor: float, added_errors: float = 0.0) -> Rehearsal:
        """Return the rehearsal of a shadow with other service times, or with other errors.

        Parameters
        ----------
        service_factor : float
            The shadow's service times are multiplied by it; of a service in tokens, all times of its step model.
        added_errors : float
            Added to the source's share of errors of the effect's metric; used for an effect on errors only.

        Raises
        ------
        InputError
            When the shares of errors would not lie between 0 and 1.
        """
        pool, source = self.prepared.shadow, self.prepared.source
        pool = pool._replace(mean_s=pool.mean_s * service_factor, work_s=pool.work_s * service_factor)
        dynamics = self.prepared.shadow_dynamics
        dynamics = dynamics._replace(scheduler=_slower(dynamics.scheduler, service_factor))
        if self.effect.of_errors:
            added = (added_errors, 0.0) if self.effect.metric == "error_rate_4xx" else (0.0, added_errors)
            errors = source.error_4xx + added[0], source.error_5xx + added[1]
            if min(errors) < 0.0 or sum(errors) > 1.0:
                what = f"takes the shadow's shares of errors to {errors[0]:g} (4XX) and {errors[1]:g} (5XX)"
                raise InputError("effect", what, str(self.effect))
            pool = pool._replace(error_4xx=errors[0], error_5xx=errors[1])
        return replace(self, prepared=replace(self.prepared, shadow=pool, shadow_dynamics=dynamics))

    def sections(self, r: int, advance: Advance = lambda _: None) -> tuple[Sections, tuple[float, float]]:
        """Simulate replication `r`.

        Returns
        -------
        Sections
            The same that `compare` takes from the frames of a run.
        tuple of float
            Mean numbers of instances that are charged for, source first.
        """
        seeded = replication(self.scenario, r)
        job = parallel.Job(replace(self.prepared, seed=np.uint64(seeded.seed)), arrivals_of(seeded), CHUNK, 0, 0)
        counts = parallel.run(job, 1, None, advance)
        edges = k.bucket_edges()
        steady = not seeded.traffic.has_course
        source, shadow = (
            self._side_sections(tally, counts.evented.get(role), edges, steady)
            for role, tally in zip(ROLES, counts.tallies, strict=True)
        )
        cycle_s = seeded.traffic.modulation_s
        shadow = with_share_cv(shadow, share_cv(seeded.document))
        cycles = seeded.horizon_s / cycle_s if cycle_s else math.inf
        billed = tuple(
            float(tally.rows[:, e.R_EXISTING_S].sum() / seeded.horizon_s)
            if self.prepared.dynamics(role).evented
            else float(seeded.side(role).n_instances)
            for role, tally in zip(ROLES, counts.tallies, strict=True)
        )
        return Sections(source, shadow, "sections", cycles=cycles), (billed[0], billed[1])

    def _side_sections(self, tally: k.Tally, side: EventSide | None, edges: Floats, steady: bool) -> SideSections:
        """Return one variant's sections from the kernel's counts."""
        sections = _sections_of(tally.rows, tally.sections, count_accepted(tally.rows), edges, steady)
        n_sections, requests = len(tally.sections), sections.requests
        more = _EVENT_ERRORS if tally.rows.shape[1] > k.R_WIDTH else {}
        errors = {
            name: _by_section(tally.rows[:, [*kinds, *more.get(name, ())]], n_sections).sum(axis=1)
            for name, kinds in _ERRORS.items()
        }
        tokens = None if side is None else side.token_tally
        if tokens is None or not self.effect.of_tokens:
            return replace(sections, errors=errors)
        if self.effect.pair is not None:
            met = tokens.met[:-1, self.scenario.goodput.index(self.effect.pair)]
            return replace(sections, errors=errors | {self.effect.metric: requests - _by_section(met, n_sections)})
        measured = tokens.first_token if self.effect.measure == FIRST_TOKEN else tokens.per_token
        rows = measured.rows[:-1]
        of_time = _sections_of(rows, measured.sections, rows[:, k.R_REQUESTS], edges, steady)
        return replace(sections, errors=errors, times={self.effect.measure: of_time})

    def run(self, r: int, advance: Advance = lambda _: None) -> RehearsalResult:
        """Simulate replication `r` and judge it."""
        sections, billed = self.sections(r, advance)
        n, n_looks = sections.source.n.size, len(self.levels)
        looks = [
            judge(_first_sections(sections, n * (i + 1) // n_looks), self.effect, level)
            for i, level in enumerate(self.levels)
        ]
        lows, highs = ([row[key] for row, _ in looks if not math.isnan(row[key])] for key in ("low", "high"))
        last, too_few = looks[-1]
        return RehearsalResult(
            source=last["source"],
            shadow=last["shadow"],
            low=max(lows, default=math.nan),
            high=min(highs, default=math.nan),
            short=too_few and not lows and all(stream.profile is None for stream in self.scenario.traffic.streams),
            n_copies=float(sections.shadow.requests.sum()),
            billed=billed,
        )


def levels_of(alpha: float, looks: int) -> tuple[float, ...]:
    """Return the level of the interval at each look, so that all looks together have level `alpha`.

    Raises
    ------
    InputError
        When `looks` is not an integer from 1 to 100.
    """
    integer(looks, "looks", least=1, most=sequential_looks.MOST_LOOKS)
    return (alpha,) if looks == 1 else tuple(float(2.0 * ndtr(-z)) for z in sequential_looks.bounds(looks, alpha))


def judge(sections: Sections, effect: Effect, level: float) -> tuple[dict[str, Any], bool]:
    """Return `compare`'s row for an effect's metric, and whether there were too few requests for an interval."""
    of_measure = sections.of(effect.measure)
    if of_measure is None:  # no request of a side had such a time
        return dict.fromkeys(("source", "shadow", "low", "high"), math.nan), True
    n_effective = effective_sizes(sections, effect.measure)
    builder = RowBuilder.of(of_measure, None, n_effective, Terms(_NO_MARGIN, _NO_MARGIN, level))
    sides = (of_measure.source, of_measure.shadow)
    return _metric_row(builder, sides, effect, n_effective), not all(builder.has_data(effect.tail))


def _metric_row(
    builder: RowBuilder, sides: Sequence[SideSections], effect: Effect, n_effective: Sequence[float | None]
) -> dict[str, Any]:
    courses = [side.course for side in sides]
    if effect.of_errors or effect.pair is not None:
        counts = [(side.errors[effect.metric], side.requests) for side in sides]
        return builder.share(effect.metric, counts, n_effective, courses, of_tail=effect.pair is not None)
    if effect.metric == "mean":
        return builder.mean(effect.metric, sides)
    assert effect.at is not None
    if effect.metric == "slo_miss":
        return builder.late(effect.metric, sides, effect.at)
    return builder.quantile(effect.metric, sides, effect.at)


def stand_in(scenario: Scenario, covered_s: float, length_s: float, n_windows: int) -> Scenario:
    """Return a scenario of `length_s` in `n_windows` windows that stands in for the first `covered_s` of another.

    A stream with a profile is run through `covered_s / length_s` times faster, its rates in steps; of all others the
    first `length_s` are taken. At full length a profile is left alone if it defines its rates itself.
    """
    changes: dict[str, object] = {"horizon_s": length_s, "run.period_s": length_s / n_windows}
    changes |= {"run.sample_requests": 0, "run.warmup_s": None}  # a real test is judged as a whole
    for stream in scenario.traffic.streams:
        is_unchanged = length_s == covered_s and (stream.rate_per_s is None or covered_s == scenario.horizon_s)
        if stream.profile is None or is_unchanged:
            continue
        rates = _rates(scenario, stream, covered_s)
        steps = [{"from_s": i * length_s / STEPS, "rate_per_s": float(rate)} for i, rate in enumerate(rates)]
        changes |= {f"{stream.path}.profile": {"kind": "steps", "steps": steps}, f"{stream.path}.rate_per_s": None}
    return scenario.replace(changes)


def mean_rate(scenario: Scenario, covered_s: float) -> float:
    """Return the mean rate of the first `covered_s` seconds, which may extend beyond the horizon."""
    return math.fsum(
        stream.mean_rate(covered_s, scenario.start)
        if stream.profile is None
        else float(_rates(scenario, stream, covered_s).mean())
        for stream in scenario.traffic.streams
    )


def least_length_s(scenario: Scenario, n_sections: int) -> float:
    """Return how long a stand-in must be for a queue to forget its past well within a section.

    A section lasts `RELAXATIONS` relaxation times of the slower pool at its highest load. A modulated rate has `CYCLES`
    of its cycles in all sections together.
    """
    memories_s = [CYCLES * scenario.traffic.modulation_s / (RELAXATIONS * n_sections)]
    for role in ROLES:
        demand = demand_of(scenario, role)
        n = instances_at_peak(scenario, role, demand)
        memories_s.append(pool_relaxation_s(scenario, role, demand, n))
    return RELAXATIONS * n_sections * max(memories_s)


def _rates(scenario: Scenario, stream: Traffic, covered_s: float) -> Floats:
    """Return the rates of a stream with a profile in the middle of equal steps, scaled as for its own horizon."""
    bare = replace(stream, rate_per_s=None)
    mean, bare_mean = (x.mean_rate(scenario.horizon_s, scenario.start) for x in (stream, bare))
    middle = (np.arange(STEPS) + 0.5) * (covered_s / STEPS)
    rates: Floats = np.interp(middle, *bare.knots(covered_s, scenario.start)) * (mean / bare_mean if bare_mean else 1.0)
    return rates


def _sections_of(rows: Floats, counts: k.Ints, n_measured: Floats, edges: Floats, steady: bool) -> SideSections:
    """Return sections, without errors, from a kernel's rows by window and histograms by section.

    Window w of W is in section w n // W of n.
    """
    n_sections = len(counts)
    least, greatest = rows[:, k.R_LATENCY_MIN], rows[:, k.R_LATENCY_MAX]
    sample, has_any = None, n_measured > 0
    if has_any.any():
        ends = least[has_any].min(), greatest[has_any].max()
        first, last = np.clip(np.searchsorted(edges, ends, side="right") - 1, 0, edges.size - 2)
        sample = Buckets(edges[first : last + 1], edges[first + 1 : last + 2], counts[:, first : last + 1], ends)
    return SideSections(
        sample=sample,
        total_s=_by_section(rows[:, k.R_LATENCY_SUM], n_sections),
        n=_by_section(n_measured, n_sections),
        requests=_by_section(rows[:, k.R_REQUESTS], n_sections),
        errors={},
        course=STEADY if steady else Course(traffic_moments(n_measured, n_sections)),
    )


def _by_section(values: Floats, n_sections: int) -> Floats:
    """Return sums of windows by section."""
    begin = -(-np.arange(n_sections) * len(values) // n_sections)
    sums: Floats = np.add.reduceat(values, begin, axis=0)
    return sums


def _slower(scheduler: Scheduler, factor: float) -> Scheduler:
    """Return a scheduler whose steps last `factor` times as long."""
    terms = ("base_s", "prefill_s", "sequence_s", "kv_s", "pair_s", "prompt_s")
    return scheduler._replace(**{term: getattr(scheduler, term) * factor for term in terms})


def _first_of(side: SideSections, n: int) -> SideSections:
    """Return the first `n` sections of a side."""
    assert side.total_s is not None
    sample = side.sample
    if isinstance(sample, Buckets):
        counts = sample.counts[:n]
        sample = Buckets(sample.low_s, sample.high_s, counts, sample.extremes_s) if counts.any() else None
    errors = {name: hits[:n] for name, hits in side.errors.items()}
    moments = side.course.moments
    course = replace(side.course, moments=None if moments is None else moments[:n])
    times = {measure: _first_of(of_time, n) for measure, of_time in side.times.items()}
    return SideSections(sample, side.total_s[:n], side.n[:n], side.requests[:n], errors, course, times)


def _first_sections(sections: Sections, n: int) -> Sections:
    """Return the first `n` sections of a run, which an early look has."""
    if n == sections.source.n.size:
        return sections
    source, shadow = (_first_of(side, n) for side in (sections.source, sections.shadow))
    return Sections(source, shadow, sections.method, cycles=sections.cycles * n / sections.source.n.size)
