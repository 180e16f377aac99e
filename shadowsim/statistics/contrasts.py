"""A row of a comparison: both sides' estimates of one metric, what they differ by, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shadowsim.statistics import estimates as statistics
from shadowsim.statistics.batch_means import Batches, Deviations, choose
from shadowsim.statistics.estimates import Estimate
from shadowsim.statistics.samples import Floats
from shadowsim.statistics.sections import Side

NOT_ENOUGH = "not enough data"
LEAST_BEYOND = 20  # independent answers beyond a quantile, without which its interval promises too much
_MEAN_LIKE = 0.9  # a mean of latencies is made by its upper tenth
_INTERVALS = ("low", "high", "ratio_low", "ratio_high", "source_low", "source_high", "shadow_low", "shadow_high")


@dataclass(frozen=True, slots=True)
class Terms:
    """What the comparison was asked for."""

    margin_pct: float
    margin_points: float
    alpha: float

    def said(self, unit: str) -> str:
        """The margin, as a verdict says it."""
        return f"{self.margin_pct:g} %" if unit == "s" else f"{self.margin_points:g} points"


@dataclass(frozen=True, slots=True)
class Contrast:
    """How estimates of both sides are had and compared.

    Attributes
    ----------
    name : str
    batches : Batches or None
        How sections are joined; None to find out for each metric.
    worth : float
        How many independent requests the lesser side's median rests on: how often the queue forgot its past, which is
        known far better than how often a tail was visited. A run whose tail happens to look calm would else be
        trusted for it.
    terms : Terms
    together : bool
        Whether both sides met the same arrivals, so that their errors move together; those of other runs do not.
    """

    name: str
    batches: Batches | None
    worth: float
    terms: Terms
    together: bool = True

    def quantile(self, metric: str, sides: Sequence[Side], q: float) -> dict[str, Any]:
        """The row of the quantile at q."""
        samples = [s.sample for s in sides]
        if samples[0] is None or samples[1] is None:
            values = [s.quantile(q) if s else math.nan for s in samples]
            return self._row(metric, values, [s.n if s else 0 for s in samples])
        moments = [s.moments for s in sides]
        deviations = [statistics.beyond(s, q, m) for s, m in zip(samples, moments, strict=True) if s]
        batches = self._batches(deviations) if self.worth * min(q, 1.0 - q) >= LEAST_BEYOND else None
        if batches is None:
            return self._row(metric, [s.quantile(q) for s in samples if s], [s.n for s in samples if s])
        alpha = self.terms.alpha
        estimates = [statistics.quantile(s, q, batches, alpha, m) for s, m in zip(samples, moments, strict=True) if s]
        return self._compared(metric, "s", estimates, deviations, batches)

    def mean(self, metric: str, sides: Sequence[Side]) -> dict[str, Any]:
        """The row of the mean latency."""
        n, total = [s.n for s in sides], [s.total_s for s in sides if s.total_s is not None]
        if not all(x.sum() > 0 for x in n):
            values = [t.sum() / x.sum() if x.sum() else math.nan for t, x in zip(total, n, strict=True)]
            return self._row(metric, values, [x.sum() for x in n])
        values = [t.sum() / x.sum() for t, x in zip(total, n, strict=True)]
        moments = [s.moments for s in sides]
        deviations = [Deviations(t - v * x, x, m) for t, v, x, m in zip(total, values, n, moments, strict=True)]
        batches = self._batches(deviations) if self.worth * (1.0 - _MEAN_LIKE) >= LEAST_BEYOND else None
        if batches is None:
            return self._row(metric, values, [x.sum() for x in n])
        variance = [s.sample.variance() if s.sample else math.nan for s in sides]
        estimates = [
            statistics.mean(t, x, v, batches, self.terms.alpha, m)
            for t, x, v, m in zip(total, n, variance, moments, strict=True)
        ]
        return self._compared(metric, "s", estimates, deviations, batches)

    def share(
        self,
        metric: str,
        counts: Sequence[tuple[Floats, Floats]],
        worth: Sequence[float | None],
        moments: Sequence[Floats | None],
    ) -> dict[str, Any]:
        """The row of a share: for each side the hits and the requests of each section, and its traffic's moments."""
        if not all(n.sum() > 0 for _, n in counts):
            values = [hits.sum() / n.sum() if n.sum() else math.nan for hits, n in counts]
            return self._row(metric, values, [n.sum() for _, n in counts], "share")
        deviations = [
            Deviations(hits - hits.sum() / n.sum() * n, n, m) for (hits, n), m in zip(counts, moments, strict=True)
        ]
        batches = self._batches(deviations)
        estimates = [
            statistics.share(hits, n, float(n.sum()) if w is None else w, batches, self.terms.alpha, m)
            for (hits, n), w, m in zip(counts, worth, moments, strict=True)
        ]
        row = self._compared(metric, "share", estimates, deviations, batches)
        if min(hits.sum() for hits, _ in counts) < statistics.FEW_HITS:
            row["method"] = f"{self.name}, by count"  # of at least one side
        return row

    def _batches(self, deviations: Sequence[Deviations]) -> Batches | None:
        return self.batches or choose(*deviations)

    def _compared(
        self,
        metric: str,
        unit: str,
        estimates: Sequence[Estimate],
        deviations: Sequence[Deviations],
        batches: Batches | None,
    ) -> dict[str, Any]:
        source, shadow = estimates
        rho = batches.correlation(*deviations) if batches and self.together else 0.0
        row = self._row(metric, [e.value for e in estimates], [e.n for e in estimates], unit)
        low, high = statistics.difference(source, shadow, rho)
        if not math.isnan(low + high):  # an interval of one end is none
            row["low"], row["high"] = low, high
            row["ratio_low"], row["ratio_high"] = statistics.ratio(source, shadow, rho)
        row["source_low"], row["source_high"] = source.low, source.high
        row["shadow_low"], row["shadow_high"] = shadow.low, shadow.high
        row["n_eff"] = min(e.n_eff for e in estimates)
        row["method"] = f"{self.name}, {batches}" if batches else self.name
        return row | {"verdict": verdict_of(row, self.terms)}

    def _row(self, metric: str, values: Sequence[float], n: Sequence[float], unit: str = "s") -> dict[str, Any]:
        return row_of(metric, unit, values, n, self.terms) | {"method": self.name}


def row_of(metric: str, unit: str, values: Sequence[float], n: Sequence[float], terms: Terms) -> dict[str, Any]:
    """A row with both sides' values, but no interval, and so not enough data."""
    source, shadow = (float(v) for v in values)
    margin = terms.margin_pct / 100.0 * source if unit == "s" else terms.margin_points / 100.0
    nothing = dict.fromkeys((*_INTERVALS, "n_eff"), math.nan)
    return nothing | {
        "metric": metric,
        "unit": unit,
        "source": source,
        "shadow": shadow,
        "difference": shadow - source,
        "ratio": shadow / source if source else math.nan,
        "n_source": int(n[0]),
        "n_shadow": int(n[1]),
        "margin": margin,
        "verdict": NOT_ENOUGH,
    }


def verdict_of(row: Mapping[str, Any], terms: Terms) -> str:
    """The verdict of a row's interval; see the module."""
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
        return f"no difference larger than {terms.said(row['unit'])}"
    return "worse" if low > 0.0 else "better" if high < 0.0 else NOT_ENOUGH
