"""Builds the row of each metric from the sections of both sides: estimates, intervals and outcome.

A row has one of four outcomes:

* same ("no difference larger than X"): the whole interval lies within plus or minus X, the margin. This includes
  intervals on one side of 0: a difference that is certainly too small to matter is no reason to stop.
* worse or better: the interval lies on one side of 0 and reaches beyond the margin. Less is better of every metric.
* not_enough ("not enough data"): the interval contains 0 and reaches beyond the margin, or the run is too short for an
  interval. A modulated rate must have had ten cycles.

A shadow near saturation forgets its past so slowly that its p99 has no interval, however bad it is. Then the row has a
one-sided answer where the other side has data: the shadow's p99 exceeds x exactly if more than 1 % of its answers take
longer than x. That share is a mean of zeros and ones, which has an interval long before the quantile has one, since far
more than 1 % of the answers of a much slower shadow lie beyond the source's p99. The row is "worse, by at least 40 %;
how much more is unknown" if the difference exceeds the margin, and the greatest x that the shadow's p99 certainly
exceeds lies above the upper end of the source's; both ends are at half the level, so that the answer as a whole is
wrong no more often than a two-sided one. A source that lacks data gives "better" in the same way. The bound of a mean
is that of latencies which are cut off at the greatest of the other side.

The margin of a latency is relative, and is compared with the interval of the ratio; that of a share is in percentage
points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.frames import LATENCY_MEASURE, PERCENTILES, ROLES, SHORT_NAMES
from shadowsim.statistics import estimates
from shadowsim.statistics.batch_means import UNKNOWN, Batches, Course, Deviations, uncorrelated_batches
from shadowsim.statistics.estimates import Estimate
from shadowsim.statistics.sections import ERRORS, Sections, SideSections
from shadowsim.statistics.terms import BETTER, NOT_ENOUGH, SAME, WORSE, Terms

MIN_BEYOND = 20  # independent answers beyond a quantile; with fewer, its interval is too narrow
MIN_CYCLES = 10  # of a modulated rate; batches of fewer seem uncorrelated by chance
_PEAK = 0.9  # quantile that tells of the peak of traffic with a profile
_MEAN_TAIL = 0.1  # the upper tenth of latencies determines their mean
_STEP = 1.001  # precision of the end of a one-sided answer; a bucket is 0.8 % wide
TOKEN_QUANTILES = (0.5, 0.95, 0.99)  # that rows of tokens' times are of; fewer, since two more times are in a table
_QUANTILE_METRICS = frozenset(
    [f"p{100 * q:g}" for q in PERCENTILES.values()]
    + [f"{short}_p{100 * q:g}" for short in SHORT_NAMES.values() for q in PERCENTILES.values()]
)
_INTERVALS = ("low", "high", "ratio_low", "ratio_high", "source_low", "source_high", "shadow_low", "shadow_high")


def metric_rows(
    sections: Sections, terms: Terms, limits_s: Mapping[str, float], same_arrivals: bool = True
) -> Iterator[dict[str, Any]]:
    """Yield the rows of all metrics but the paired ones.

    Parameters
    ----------
    sections : Sections
    terms : Terms
    limits_s : mapping of str to float
        From `limits_of`.
    same_arrivals : bool
        As for `RowBuilder`.
    """
    sides = (sections.source, sections.shadow)
    # each independent run is a batch
    batches = Batches(min(s.n.size for s in sides)) if sections.independent else None
    n_eff, courses = effective_sizes(sections, LATENCY_MEASURE, batches), [s.course for s in sides]
    builder = RowBuilder.of(sections, batches, n_eff, terms, same_arrivals)
    yield from _time_rows(builder, sides, "", PERCENTILES.values())
    late = {"slo_miss": (builder, sides)}
    for measure in SHORT_NAMES:
        if of_time := sections.of(measure):
            times = RowBuilder.of(of_time, batches, effective_sizes(sections, measure, batches), terms, same_arrivals)
            late[f"{prefix_of(measure)}slo_miss"] = times, (of_time.source, of_time.shadow)
            yield from _time_rows(times, (of_time.source, of_time.shadow), prefix_of(measure), TOKEN_QUANTILES)
    for name in sides[0].errors:
        if name in sides[1].errors:
            counts = [(s.errors[name], s.requests) for s in sides]
            yield builder.share(name, counts, n_eff, courses, of_tail=name not in ERRORS)
    for name, (of_late, pair) in late.items():
        if name in limits_s and any(s.sample for s in pair):
            yield of_late.late(name, pair, limits_s[name])


def _time_rows(
    builder: RowBuilder, sides: Sequence[SideSections], prefix: str, quantiles: Iterable[float]
) -> Iterator[dict[str, Any]]:
    if all(s.total_s is not None for s in sides):
        yield builder.mean(f"{prefix}mean", sides)
    if any(s.sample for s in sides):
        yield from (builder.quantile(f"{prefix}p{100 * q:g}", sides, q) for q in quantiles)


def prefix_of(measure: str) -> str:
    """Return the beginning of the names of the metrics of one of `frames.MEASURES`: "", "ttft_" or "tpot_"."""
    return f"{SHORT_NAMES[measure]}_" if measure in SHORT_NAMES else ""


def effective_sizes(sections: Sections, measure: str, batches: Batches | None = None) -> list[float | None]:
    """Return for each side the effective sample size by which the tails of one of `frames.MEASURES` are judged.

    Times of tokens have at most that of latencies, which tells how often the pool forgot its past: most first tokens
    wait for nothing, and tell little of it.
    """
    measured = [sections]
    if measure != LATENCY_MEASURE:
        of_time = sections.of(measure)
        assert of_time is not None
        measured.append(of_time)
    by_side = [[n_effective_of_tails(s.side(role), batches) for s in measured] for role in ROLES]
    return [least_effective(*sizes) for sizes in by_side]


def least_effective(*sizes: float | None) -> float | None:
    """Return the least effective sample size, None where one is None, as it is without latencies."""
    known = [n for n in sizes if n is not None]
    return min(known) if len(known) == len(sizes) else None


def n_effective_of_tails(side: SideSections, batches: Batches | None = None) -> float | None:
    """Return the effective sample size by which a side's tails are judged; None without latencies.

    It is that at the median, which tells how often the queue forgot its past. Where traffic follows a profile, most of
    the day the median tells of a queue that is nearly empty, while the tails are those of the peak: the size at p90
    then counts, if it is less.

    `batches` are independent runs, which tell nothing of the course of their traffic.
    """
    if side.sample is None:
        return None
    depths = (0.5,) if batches or side.course.is_steady else (0.5, _PEAK)
    course = replace(side.course, share_cv=0.0)  # the choice of sessions tells nothing of the queue's memory
    return min(estimates.n_effective(side.sample, q, batches, course) for q in depths)


@dataclass(frozen=True, slots=True)
class RowBuilder:
    """Computes rows from the sections of both sides.

    Attributes
    ----------
    method : str
        One of `sections.METHODS`.
    batches : Batches or None
        The way to join sections; None to choose it for each metric.
    n_eff_tails : sequence of float or None
        Effective sample size of each side from `n_effective_of_tails`. It tells how often the queue forgot its past,
        much more reliably than the visits to a tail do: a run whose tail happens to look calm must not be trusted.
    terms : Terms
    same_arrivals : bool
        Whether both sides had the same arrivals, so that their errors are correlated.
    """

    method: str
    batches: Batches | None
    n_eff_tails: Sequence[float | None]
    terms: Terms
    same_arrivals: bool = True

    @classmethod
    def of(
        cls,
        sections: Sections,
        batches: Batches | None,
        n_eff_tails: Sequence[float | None],
        terms: Terms,
        same_arrivals: bool = True,
    ) -> RowBuilder:
        """Return the builder for sections; with too few cycles of a modulated rate nothing is known of latencies."""
        if sections.cycles < MIN_CYCLES and not sections.independent:
            n_eff_tails = [None if n is None else 0.0 for n in n_eff_tails]
        return cls(sections.method, batches, n_eff_tails, terms, same_arrivals)

    def has_data(self, tail: float) -> tuple[bool, ...]:
        """Return for each side whether enough independent answers lie in a tail that holds this share of all."""
        return tuple(n is None or n * tail >= MIN_BEYOND for n in self.n_eff_tails)

    def _most_in_tail(self, q: float) -> list[float | None]:
        """Return for each side the greatest effective sample size of the quantile at q that is believed.

        A run may have enough data by luck. Near the limit, the tail therefore has no more independent answers than all
        of the run has; twice as far from it, where luck matters less, twice as many, and so on.
        """
        if q <= _PEAK:
            return [None, None]
        return [None if n is None else n * n * _tail(q) / MIN_BEYOND for n in self.n_eff_tails]

    def quantile(self, metric: str, sides: Sequence[SideSections], q: float) -> dict[str, Any]:
        """Return the row of the quantile at q."""
        samples = [s.sample for s in sides]
        if samples[0] is None or samples[1] is None:
            values = [s.quantile(q) if s else math.nan for s in samples]
            return self._row(metric, values, [s.n if s else 0 for s in samples])
        courses = [s.course for s in sides]
        deviations = [estimates.beyond(s, q, m) for s, m in zip(samples, courses, strict=True) if s]
        batches = self._batches(deviations) if all(self.has_data(_tail(q))) else None
        if batches is not None:
            alpha = self.terms.alpha
            pair = [
                estimates.quantile(s, q, batches, alpha, m, most)
                for s, m, most in zip(samples, courses, self._most_in_tail(q), strict=True)
                if s
            ]
            row = self._compared(metric, "s", pair, deviations, batches)
            if not math.isnan(row["low"]):
                return row
        row = self._row(metric, [s.quantile(q) for s in samples if s], [s.n for s in samples if s])
        return row | self._one_sided(row, sides, q)

    def _one_sided(self, row: Mapping[str, Any], sides: Sequence[SideSections], q: float | None) -> dict[str, Any]:
        """Return what a one-sided answer adds to the row of the quantile at q, or of the mean; nothing without one.

        A difference that seems to lie within the margin has none: it need not reach beyond.
        """
        if abs(row["difference"]) <= row["margin"]:
            return {}
        outcome = WORSE if row["difference"] > 0.0 else BETTER
        return self._bounded(sides, outcome, q) or {}

    def _bounded(self, sides: Sequence[SideSections], outcome: str, q: float | None) -> dict[str, Any] | None:
        """Return the columns of a one-sided answer with this outcome; None if it is not certain.

        The two ends that it compares are at half the level each (Bonferroni).
        """
        i_known = 0 if outcome == WORSE else 1
        known, unknown = sides[i_known], sides[1 - i_known]
        if not known.sample or not unknown.sample or not self.has_data(_tail(q))[i_known]:
            return None
        most = None if q is None else self._most_in_tail(q)[i_known]
        interval, bound = (
            self._estimate(known, q, alpha, most) for alpha in (self.terms.alpha, 0.5 * self.terms.alpha)
        )
        if interval is None or bound is None or math.isnan(bound.high):
            return None
        if self.same_arrivals:  # then long queues of the one are long queues of the other, too
            bound = bound._replace(high=bound.high - bound.skew_high)
        least = (
            self._least_mean(unknown, known.sample.quantile(1.0))
            if q is None
            else self._least_quantile(unknown, q, bound.high, self.n_eff_tails[1 - i_known])
        )
        if least is None or least <= bound.high:
            return None
        name, other = ROLES if outcome == WORSE else reversed(ROLES)
        row: dict[str, Any] = {"outcome": outcome, "method": f"{self.method}, one-sided"}
        row |= {f"{name}_low": interval.low, f"{name}_high": interval.high, f"{other}_low": least}
        if outcome == WORSE:
            row |= {"low": least - bound.high, "ratio_low": least / bound.high}
            return row | {"high": math.inf, "ratio_high": math.inf, "shadow_high": math.inf}
        row |= {"high": bound.high - least, "ratio_high": bound.high / least}
        return row | {"low": -math.inf, "ratio_low": 0.0, "source_high": math.inf}

    def _estimate(self, side: SideSections, q: float | None, alpha: float, most: float | None) -> Estimate | None:
        """Return the quantile at q of a side, or its mean, by batches of this side alone; None if there are none."""
        sample = side.sample
        assert sample is not None
        if q is not None:
            batches = self._batches([estimates.beyond(sample, q, side.course)])
            return estimates.quantile(sample, q, batches, alpha, side.course, most) if batches else None
        assert side.total_s is not None
        return self._mean(side, side.total_s, side.n, alpha)

    def _mean(self, side: SideSections, total: Floats, n: Floats, alpha: float) -> Estimate | None:
        batches = self._batches([Deviations(total - total.sum() / n.sum() * n, n, side.course)])
        return estimates.mean(total, n, math.nan, batches, alpha, side.course) if batches else None

    def _least_mean(self, side: SideSections, cap_s: float) -> float | None:
        """Return a lower bound of the mean, at half the level: that of latencies which are cut off at a cap.

        The mean of these is no greater, and has an interval where the mean has none: no rare latency can change it.
        """
        assert side.sample is not None
        capped = self._mean(side, side.sample.capped_totals(cap_s), side.sample.n_by_section, 0.5 * self.terms.alpha)
        return capped.low if capped else None

    def _least_quantile(self, side: SideSections, q: float, above_s: float, max_n_eff: float | None) -> float | None:
        """Return the greatest latency that the quantile certainly exceeds, at half the level; None if not `above_s`."""
        sample = side.sample
        assert sample is not None

        def exceeds(x_s: float) -> bool:
            hits = sample.n_above(x_s)
            n, n_hits = sample.n_by_section, hits.sum()
            if n_hits <= (1.0 - q) * sample.n:
                return False
            batches = self._batches([Deviations(hits - n_hits / sample.n * n, n, side.course)])
            most = sample.n if max_n_eff is None else max_n_eff
            return batches is not None and (
                estimates.share(hits, n, most, batches, 0.5 * self.terms.alpha, side.course).low > 1.0 - q
            )

        low, high = above_s, sample.quantile(q)
        if not exceeds(low):
            return None
        while high > low * _STEP:  # the quantile itself is not exceeded
            middle = math.sqrt(low * high)
            low, high = (middle, high) if exceeds(middle) else (low, middle)
        return low

    def mean(self, metric: str, sides: Sequence[SideSections]) -> dict[str, Any]:
        """Return the row of the mean latency."""
        n, total = [s.n for s in sides], [s.total_s for s in sides if s.total_s is not None]
        if not all(x.sum() > 0 for x in n):
            values = [t.sum() / x.sum() if x.sum() else math.nan for t, x in zip(total, n, strict=True)]
            return self._row(metric, values, [x.sum() for x in n])
        values = [t.sum() / x.sum() for t, x in zip(total, n, strict=True)]
        courses = [s.course for s in sides]
        deviations = [Deviations(t - v * x, x, m) for t, v, x, m in zip(total, values, n, courses, strict=True)]
        batches = self._batches(deviations) if all(self.has_data(_tail(None))) else None
        if batches is None:
            row = self._row(metric, values, [x.sum() for x in n])
            return row | self._one_sided(row, sides, None)
        variance = [s.sample.variance() if s.sample else math.nan for s in sides]
        pair = [
            estimates.mean(t, x, v, batches, self.terms.alpha, m)
            for t, x, v, m in zip(total, n, variance, courses, strict=True)
        ]
        return self._compared(metric, "s", pair, deviations, batches)

    def share(
        self,
        metric: str,
        counts: Sequence[tuple[Floats, Floats]],
        max_n_eff: Sequence[float | None],
        courses: Sequence[Course],
        of_tail: bool = False,
    ) -> dict[str, Any]:
        """Return the row of a share.

        Parameters
        ----------
        metric : str
        counts : sequence of (ndarray, ndarray)
            For each side, the hits and the requests of each section.
        max_n_eff : sequence of float or None
            For each side, the effective sample size of few hits at most; None for the number of requests.
        courses : sequence of Course
            For each side, what is known of its traffic.
        of_tail : bool
            Whether hits are requests that waited long, so that the effective sample size limits many hits, too.
        """
        if not all(n.sum() > 0 for _, n in counts):
            values = [hits.sum() / n.sum() if n.sum() else math.nan for hits, n in counts]
            return self._row(metric, values, [n.sum() for _, n in counts], "share")
        deviations = [
            Deviations(hits - hits.sum() / n.sum() * n, n, m) for (hits, n), m in zip(counts, courses, strict=True)
        ]
        batches = self._batches(deviations)
        pair = [
            estimates.share(hits, n, float(n.sum()) if most is None else most, batches, self.terms.alpha, m, of_tail)
            for (hits, n), most, m in zip(counts, max_n_eff, courses, strict=True)
        ]
        row = self._compared(metric, "share", pair, deviations, batches)
        if min(hits.sum() for hits, _ in counts) < estimates.FEW_HITS:
            row["method"] = f"{self.method}, by count"  # at least one side
        return row

    def late(self, metric: str, sides: Sequence[SideSections], limit_s: float) -> dict[str, Any]:
        """Return the row of the share of answers that take longer than a limit.

        A share needs the data of the quantile at its depth. Where a side has fewer, the quantile at the furthest depth
        that has them bounds its share: a limit beyond it is missed no more often. Such a bound is no interval, and the
        row has it only if it suffices for an outcome. If no depth has enough data, the answer is one-sided, or there is
        none.
        """
        counts = [(s.sample.n_above(limit_s) if s.sample else np.zeros(s.n.size), s.n) for s in sides]
        if not all(n.sum() > 0 for _, n in counts):
            return self.share(metric, counts, self.n_eff_tails, [UNKNOWN, UNKNOWN])
        values = [float(hits.sum() / n.sum()) for hits, n in counts]
        depths = [MIN_BEYOND / n if n else 1.0 for n in self.n_eff_tails]  # the furthest that have data
        if all(depth <= min(p, 1.0 - p) for p, depth in zip(values, depths, strict=True)):
            courses = [s.course for s in sides]
            deviations = [Deviations(h - p * n, n, m) for (h, n), p, m in zip(counts, values, courses, strict=True)]
            if batches := self._batches(deviations):
                pair = [
                    estimates.share(hits, n, _finite(most, n), batches, self.terms.alpha, m, of_tail=True)
                    for (hits, n), m, most in zip(counts, courses, self.n_eff_tails, strict=True)
                ]
                return self._compared(metric, "share", pair, deviations, batches)
        row = self._row(metric, values, [n.sum() for _, n in counts], "share")
        known = [
            self._late_share(*x, self.terms.alpha) for x in zip(sides, counts, depths, self.n_eff_tails, strict=True)
        ]
        if known[0] and known[1]:
            low, high = estimates.difference(known[0], known[1], 0.0)
            bounded = row | {"low": low, "high": high, "n_eff": min(known[0].n_eff, known[1].n_eff)}
            bounded |= {"source_low": known[0].low, "source_high": known[0].high}
            bounded |= {"shadow_low": known[1].low, "shadow_high": known[1].high}
            bounded |= dict(zip(("ratio_low", "ratio_high"), estimates.ratio(known[0], known[1], 0.0), strict=True))
            bounded |= {"outcome": outcome_of(bounded, self.terms), "method": f"{self.method}, bounded"}
            return row if bounded["outcome"] == NOT_ENOUGH else bounded
        bounds = [
            self._late_share(s, c, depth if k else 0.0, most if k else None, 0.5 * self.terms.alpha)
            for s, c, depth, k, most in zip(sides, counts, depths, known, self.n_eff_tails, strict=True)
        ]
        if not (known[0] or known[1]) or not bounds[0] or not bounds[1] or abs(row["difference"]) <= row["margin"]:
            return row
        if known[0] and bounds[1].low > bounds[0].high:
            row |= {"outcome": WORSE, "low": bounds[1].low - bounds[0].high, "high": math.inf}
        elif known[1] and bounds[0].low > bounds[1].high:
            row |= {"outcome": BETTER, "low": -math.inf, "high": bounds[1].high - bounds[0].low}
        else:
            return row
        return row | {"method": f"{self.method}, one-sided"}

    def _late_share(
        self, side: SideSections, counts: tuple[Floats, Floats], depth: float, most: float | None, alpha: float
    ) -> Estimate | None:
        """Return a side's share above a limit, bounded at a depth if it lies further out; None without data."""
        hits, n = counts
        assert side.sample is not None
        value = float(hits.sum() / n.sum())
        if depth > 0.5:
            return None
        nearest = min(max(value, depth), 1.0 - depth)
        if nearest != value:
            hits = side.sample.beyond(1.0 - nearest) + nearest * side.sample.n_by_section
        batches = self._batches([Deviations(hits - nearest * n, n, side.course)])
        if batches is None:
            return None
        share = estimates.share(hits, n, _finite(most, n), batches, alpha, side.course, of_tail=True)
        low, high = 0.0 if nearest > value else share.low, 1.0 if nearest < value else share.high
        return share._replace(value=value, low=low, high=high)

    def _batches(self, deviations: Sequence[Deviations]) -> Batches | None:
        return self.batches or uncorrelated_batches(*deviations)

    def _compared(
        self,
        metric: str,
        unit: str,
        pair: Sequence[Estimate],
        deviations: Sequence[Deviations],
        batches: Batches | None,
    ) -> dict[str, Any]:
        source, shadow = pair
        rho = batches.correlation(*deviations) if batches and self.same_arrivals else 0.0
        row = self._row(metric, [e.value for e in pair], [e.n for e in pair], unit)
        low, high = estimates.difference(source, shadow, rho)
        if not math.isnan(low + high):  # with one end only, there is no interval
            row["low"], row["high"] = low, high
            row["ratio_low"], row["ratio_high"] = estimates.ratio(source, shadow, rho)
        row["source_low"], row["source_high"] = source.low, source.high
        row["shadow_low"], row["shadow_high"] = shadow.low, shadow.high
        row["n_eff"] = min(e.n_eff for e in pair)
        row["method"] = f"{self.method}, {batches}" if batches else self.method
        return row | {"outcome": outcome_of(row, self.terms)}

    def _row(self, metric: str, values: Sequence[float], n: Sequence[float], unit: str = "s") -> dict[str, Any]:
        return row_of(metric, unit, values, n, self.terms) | {"method": self.method}


def _finite(max_n_eff: float | None, n: Floats) -> float:
    """Return the greatest effective sample size that is possible: the number of requests, if nothing else is known."""
    return float(n.sum()) if max_n_eff is None else max_n_eff


def _tail(q: float | None) -> float:
    """Return the share of the answers that lie beyond a quantile, or that determine the mean."""
    return _MEAN_TAIL if q is None else min(q, 1.0 - q)


def row_of(metric: str, unit: str, values: Sequence[float], n: Sequence[float], terms: Terms) -> dict[str, Any]:
    """Return a row with the values of both sides but without an interval, so that its outcome is not_enough."""
    source, shadow = (float(v) for v in values)
    margin = terms.margin_pct / 100.0 * source if unit == "s" else terms.margin_points / 100.0
    unknown = dict.fromkeys((*_INTERVALS, "n_eff"), math.nan)
    return unknown | {
        "metric": metric,
        "unit": unit,
        "source": source,
        "shadow": shadow,
        "difference": shadow - source,
        "ratio": shadow / source if source else math.nan,
        "n_source": int(n[0]),
        "n_shadow": int(n[1]),
        "margin": margin,
        "outcome": NOT_ENOUGH,
    }


def outcome_of(row: Mapping[str, Any], terms: Terms) -> str:
    """Return the outcome of a row's interval, as the module describes it."""
    low, high, margin = row["low"], row["high"], row["margin"]
    if math.isnan(low) or math.isnan(high):
        return NOT_ENOUGH
    if not math.isnan(row["ratio_low"]) and row["unit"] == "s":
        within = (
            1.0 - terms.margin_pct / 100.0 < row["ratio_low"] and row["ratio_high"] < 1.0 + terms.margin_pct / 100.0
        )
    else:
        within = -margin < low and high < margin
    if within:
        return SAME
    return WORSE if low > 0.0 else BETTER if high < 0.0 else NOT_ENOUGH


def is_one_sided(row: Mapping[Any, Any]) -> bool:
    """Return whether a row has a one-sided answer, as the module describes it."""
    return math.isinf(row["low"]) or math.isinf(row["high"])


def is_uncertain(row: Mapping[Any, Any]) -> bool:
    """Return whether a row is of a quantile that has no interval; texts and pages leave out its values."""
    return row["metric"] in _QUANTILE_METRICS and math.isnan(row["low"])


def verdict_of(row: Mapping[str, Any], terms: Terms) -> str:
    """Return a row's outcome in words, with the least difference of a one-sided answer."""
    if is_one_sided(row):
        least, unit = min(abs(row["low"]), abs(row["high"])), "points"
        if row["unit"] == "s":
            least, unit = row["ratio_low"] - 1.0 if row["outcome"] == WORSE else 1.0 - row["ratio_high"], "%"
        return f"{row['outcome']}, by at least {100.0 * least:.3g} {unit}; how much more is unknown"
    return terms.verdict(row["outcome"], row["unit"])
