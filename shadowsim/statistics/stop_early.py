"""Advises at a planned look whether to stop a test: what is certain, and what more data would add.

An outcome at a look is final: the bounds of sequential_looks.py make all looks together wrong no more often than one
test at its end would be. A metric that is undecided is judged by its predictive distribution (Spiegelhalter, Freedman
and Blackburn, 1986). With the estimate d at the part f of the data, and its standard error s, the estimate at a later
part g is normal around d with variance s^2 (1 - f / g), if nothing but the data is known of the true difference. The
interval's half width shrinks there by sqrt(f / g), since the effective sample size grows with the data, and changes
with the looks' bounds. That gives the chance of each outcome at every later look.

A quantile without an interval needs twenty independent answers beyond it. The effective sample size at the median
tells how many there are now, and so when there will be enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from scipy.special import ndtr  # type: ignore[import-untyped]

from shadowsim.arrays import Floats
from shadowsim.errors import InputError
from shadowsim.frames import PERCENTILES
from shadowsim.statistics.metric_rows import MIN_BEYOND, is_one_sided
from shadowsim.statistics.sequential_looks import bounds, fractions_of
from shadowsim.statistics.terms import BETTER, CONFIDENCE, DEFAULT_SPENDING, NOT_ENOUGH, SAME, WORSE

DECISIVE = ("p50", "p99", "ttft_p99", "error_rate")  # metrics that decide, as far as a table has them
ALL_DECIDED, ENDED, HOPELESS, GO_ON = "decided", "ended", "hopeless", "go_on"  # with WORSE, the advice's codes
LIKELY, UNLIKELY = 0.5, 0.1  # chances of a decision
_TAILS = {f"p{100 * q:g}": min(q, 1.0 - q) for q in PERCENTILES.values()}


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known of a metric at a look, and what later looks may find.

    Attributes
    ----------
    metric, unit, outcome, verdict : str
        As in the table of `compare`.
    value, low, high, margin : float
        Difference of the shadow, its interval, and what does not matter: of times as a part of the source's, of shares
        as a share.
    chances : mapping of str to float
        Chance of each outcome at the last look; empty if the metric is decided or has no interval.
    half_width : float
        Half the width of the interval at the last look, in the unit of `value`; NaN if unknown.
    next_look : int or None
        The first look at which a decision is likelier than not; of a quantile without an interval, the first look at
        which it has one. None if there is no such look, or it is unknown.
    answers : tuple of float or None
        Of a quantile without an interval: the independent answers so far, and those that it needs.
    """

    metric: str
    unit: str
    outcome: str
    verdict: str
    value: float
    low: float
    high: float
    margin: float
    chances: Mapping[str, float] = field(default_factory=dict)
    half_width: float = math.nan
    next_look: int | None = None
    answers: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """The metric in words: "errors", "first token p99"."""
        return (
            self.metric.replace("error_rate", "errors").replace("ttft_", "first token ").replace("tpot_", "per token ")
        )

    @property
    def chance(self) -> float:
        """Chance of any decision at the last look; NaN if unknown."""
        return 1.0 - self.chances[NOT_ENOUGH] if self.chances else math.nan

    @property
    def is_out_of_reach(self) -> bool:
        """Whether the whole test will hardly decide it."""
        return self.chance < UNLIKELY if self.chances else self.answers is not None and self.next_look is None


@dataclass(frozen=True, slots=True)
class StopAdvice:
    """Whether to stop a test early.

    Attributes
    ----------
    code : str
        "worse": a metric is worse; "decided": every metric has its outcome, and none is worse; "ended": this was the
        last look, and some are undecided; "hopeless": these will hardly be decided; "go_on".
    look, looks : int
        Number of this look, and of all.
    outlooks : tuple of Outlook
        Of the metrics that decide.
    """

    code: str
    look: int
    looks: int
    outlooks: tuple[Outlook, ...]

    @property
    def stops(self) -> bool:
        """Whether more data would change nothing that matters, or hardly anything."""
        return self.code != GO_ON

    @property
    def answer(self) -> str:
        """The advice in a sentence."""
        undecided = _listed([o.name for o in self.outlooks if o.outcome == NOT_ENOUGH])
        match self.code:
            case "worse":
                worse = _listed([o.name for o in self.outlooks if o.outcome == WORSE])
                return f"Yes: the shadow is certainly worse in {worse}; more data would not change that."
            case "decided":
                return f"Yes: {_listed([o.name for o in self.outlooks])} have their answer, and none is worse."
            case "ended":
                return f"The last look has been made, and {undecided} stayed undecided."
            case "hopeless":
                return f"More data would hardly help: {undecided} will most likely be undecided at the end, too."
        looks = [o.next_look for o in self.outlooks if o.outcome == NOT_ENOUGH]
        if not looks or None in looks:
            return f"Not yet: {undecided} undecided."
        return f"Not yet: {undecided} undecided; look {max(n for n in looks if n)} is likely to tell."

    def reasons(self, moment: Callable[[int], str]) -> list[str]:
        """Return a sentence per metric: its outcome, or what later looks may find.

        Parameters
        ----------
        moment : callable
            Returns when a look is, in words such as "in 3 hours".
        """
        return [_reason(outlook, moment, self.looks) for outlook in self.outlooks]


def stop_early(
    table: pd.DataFrame,
    look: int,
    looks: int | Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    spending: str = DEFAULT_SPENDING,
    metrics: Sequence[str] = DECISIVE,
) -> StopAdvice:
    """Advise whether a test can stop at a look.

    Parameters
    ----------
    table : DataFrame
        What `compare(frames, look=look, looks=looks)` returns, with the same `confidence` and `spending`.
    look : int
    looks : int or sequence of float
    confidence : float
    spending : str
    metrics : sequence of str
        Metrics that decide; those that the table lacks are left out.

    Raises
    ------
    InputError
        When the looks are no plan, or the table has none of the metrics.
    """
    fractions = fractions_of(looks)
    if not isinstance(look, int) or not 1 <= look <= fractions.size:
        raise InputError("look", f"must be an integer from 1 to looks, which is {fractions.size}", look)
    rows = {row["metric"]: row for row in table.to_dict("records")}
    if not set(metrics) & set(rows):
        raise InputError("metrics", f"must be some of {', '.join(map(str, rows))}", metrics)
    plan = _Plan(look - 1, fractions, bounds(looks, 1.0 - confidence, spending))
    outlooks = tuple(plan.outlook(rows[metric], rows) for metric in metrics if metric in rows)
    undecided = [o for o in outlooks if o.outcome == NOT_ENOUGH]
    if any(o.outcome == WORSE for o in outlooks):
        code = WORSE
    elif not undecided:
        code = ALL_DECIDED
    elif look == fractions.size:
        code = ENDED
    else:
        code = HOPELESS if all(o.is_out_of_reach for o in undecided) else GO_ON
    return StopAdvice(code, look, fractions.size, outlooks)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The looks of a test, and the index of the present one."""

    at: int
    fractions: Floats
    bounds: Floats

    def outlook(self, row: Mapping[Any, Any], rows: Mapping[Any, Mapping[Any, Any]]) -> Outlook:
        known = {name: row[name] for name in ("metric", "unit", "outcome", "verdict")}
        if row["unit"] == "s":
            value, low, high = (row[name] - 1.0 for name in ("ratio", "ratio_low", "ratio_high"))
            margin = row["margin"] / row["source"] if row["source"] else math.nan
        else:
            value, low, high, margin = (row[name] for name in ("difference", "low", "high", "margin"))
        known |= {"value": value, "low": low, "high": high, "margin": margin}
        if row["outcome"] != NOT_ENOUGH or is_one_sided(row):
            return Outlook(**known)
        if math.isnan(low) or math.isnan(high):
            return Outlook(**known, **self._until_interval(row["metric"], rows))
        below, above = value - low, high - value
        last = self.fractions.size - 1
        half_width = 0.5 * (below + above) * self._shrinking(last)
        if self.at == last:
            return Outlook(**known, half_width=half_width)
        later = range(self.at + 1, last + 1)
        undecided = (self._chances(j, value, below, above, margin)[NOT_ENOUGH] for j in later)
        likely = next((j + 1 for j, chance in zip(later, undecided, strict=True) if 1.0 - chance > LIKELY), None)
        chances = self._chances(last, value, below, above, margin)
        return Outlook(**known, chances=chances, half_width=half_width, next_look=likely)

    def _shrinking(self, j: int) -> float:
        """Return how much narrower an interval is at a later look."""
        at = self.at
        return float(self.bounds[j] / self.bounds[at] * math.sqrt(self.fractions[at] / self.fractions[j]))

    def _chances(self, j: int, value: float, below: float, above: float, margin: float) -> dict[str, float]:
        """Return the chance of each outcome at a later look, as the module describes it."""
        at, narrower = self.at, self._shrinking(j)
        error = 0.5 * (below + above) / self.bounds[at] * math.sqrt(1.0 - self.fractions[at] / self.fractions[j])
        below, above = below * narrower, above * narrower

        def between(low: float, high: float) -> float:
            return max(float(ndtr((high - value) / error) - ndtr((low - value) / error)), 0.0)

        same_low, same_high = below - margin, margin - above
        same = between(same_low, same_high)
        worse = between(below, math.inf) - between(max(below, same_low), same_high)
        better = between(-math.inf, -above) - between(same_low, min(-above, same_high))
        return {WORSE: worse, BETTER: better, SAME: same, NOT_ENOUGH: max(1.0 - worse - better - same, 0.0)}

    def _until_interval(self, metric: str, rows: Mapping[Any, Mapping[Any, Any]]) -> dict[str, Any]:
        """Return when a quantile has an interval, by the effective sample size at the median."""
        prefix, _, name = metric.rpartition("_")
        median = rows.get(f"{prefix}_p50" if prefix else "p50")
        if name not in _TAILS or median is None or not median["n_eff"] > 0.0:
            return {}
        needed = MIN_BEYOND / _TAILS[name]
        if median["n_eff"] >= needed:  # something else is missing
            return {}
        fraction = self.fractions[self.at] * needed / median["n_eff"]
        later = [j + 1 for j, f in enumerate(self.fractions) if f >= fraction]
        return {"answers": (float(median["n_eff"]), needed), "next_look": later[0] if later else None}


def _reason(outlook: Outlook, moment: Callable[[int], str], looks: int) -> str:
    name, until = outlook.name, outlook.next_look
    if outlook.outcome != NOT_ENOUGH:
        interval = "" if math.isinf(outlook.low) or math.isinf(outlook.high) else f", {_interval(outlook)}"
        return f"{name}: {outlook.verdict}{interval}."
    if outlook.answers is not None:
        has, needs = outlook.answers
        so_far = f"{name}: no interval yet, for lack of independent answers: {has:,.0f} of the {needs:,.0f} needed"
        return (
            f"{so_far}. The whole test is too short."
            if until is None
            else f"{so_far} by look {until}, {moment(until)}."
        )
    if math.isnan(outlook.low):
        return f"{name}: no interval yet."
    so_far = f"{name}: undecided, {_interval(outlook)}"
    if not outlook.chances:
        return f"{so_far}."
    ends = [f"{text} {100.0 * outlook.chances[code]:.0f} %" for code, text in _ENDINGS.items()]
    when = "" if until is None or until == looks else f" A decision is likely by look {until}, {moment(until)}."
    half = _signed(outlook.half_width)[0].removeprefix("+")
    return f"{so_far}. At the end it will be ± {half} {_unit(outlook)}; chances: {', '.join(ends)}.{when}"


_ENDINGS = {WORSE: "worse", BETTER: "better", SAME: "no difference that matters", NOT_ENOUGH: "undecided"}


def _interval(outlook: Outlook) -> str:
    return f"{' to '.join(_signed(outlook.low, outlook.high))} {_unit(outlook)}"


def _signed(*shares: float) -> list[str]:
    """Return shares in per cent with signs, all with as many decimals as the greatest needs for three digits."""
    most = max(abs(100.0 * x) for x in shares)
    decimals = min(max(2 - math.floor(math.log10(most)), 0), 6) if most > 0.0 else 0
    return [f"{100.0 * x:+.{decimals}f}" for x in shares]


def _unit(outlook: Outlook) -> str:
    return "%" if outlook.unit == "s" else "points"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
