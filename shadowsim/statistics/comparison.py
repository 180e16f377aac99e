"""compare(frames): whether the shadow is worse than the source, better, the same, or nobody can say yet.

Each metric gets a row with an estimate, an interval, what both rest on, and one of four verdicts:

* "no difference larger than X": the whole interval lies within plus or minus X, the stated margin. Also when it lies
  to one side of 0: a difference that is certain and certainly too small to matter is no reason to stop.
* "worse" or "better": the interval lies on one side of 0 and reaches beyond the margin. Less is better of every metric.
* "not enough data": it holds 0 and reaches beyond the margin, or the run is too short for an interval at all.

The margin of a latency is relative, and judged on the interval of the ratio; that of a share is in percentage points.

A CloudWatch export gives percentiles of periods, which no arithmetic turns into the percentile of all requests: not
their mean, nor any weighting of them. Means and error rates of such an export are exact; its percentiles are compared
period by period, source against shadow, and what is said is the median of these differences. It answers whether the
shadow's p99 of a period is usually higher, not what its p99 is; one bad hour in a day does not move it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr  # type: ignore[import-untyped]

from shadowsim.errors import InputError
from shadowsim.frames import PERCENTILES
from shadowsim.statistics import estimates as statistics
from shadowsim.statistics import sequential_looks as sequential
from shadowsim.statistics.batch_means import Batches
from shadowsim.statistics.contrasts import Contrast, Terms
from shadowsim.statistics.pairs import paired_rows, period_rows
from shadowsim.statistics.sections import ERRORS, Sections, frames_of, sections_of

COLUMNS = (
    *("metric", "unit", "source", "shadow", "difference", "low", "high", "ratio", "ratio_low", "ratio_high"),
    *("n_source", "n_shadow", "n_eff", "margin", "verdict", "method"),
    *("source_low", "source_high", "shadow_low", "shadow_high"),
)


def compare(
    frames: object,
    *,
    margin_pct: float = 10.0,
    margin_points: float = 0.1,
    confidence: float = 0.95,
    slo_s: float | None = None,
    look: int | None = None,
    looks: int | None = None,
    spending: str = "obrien-fleming",
    method: str | None = None,
) -> pd.DataFrame:
    """Compare the shadow with the source.

    Parameters
    ----------
    frames : Result, mapping, object, path, or a list of these
        Whatever holds some of the frames `windows`, `latency` and `requests`; the directory of a saved result; or
        independent runs of one scenario, as `replicate` gives them.
    margin_pct : float
        A difference of latency that does not matter, in per cent of the source's.
    margin_points : float
        A difference of error rates and of the SLO-miss share that does not matter, in percentage points.
    confidence : float
        Of the intervals; of all looks together when `looks` is given.
    slo_s : float, optional
        Adds the share of answers that take longer, in seconds.
    look, looks : int, optional
        This is look number `look` of `looks` planned ones, which are equally far apart: the interval is as wide as it
        must be for the verdicts of all of them together to be wrong no more often than 1 - confidence.
    spending : str
        How the looks share the level: "obrien-fleming" or "pocock".
    method : str, optional
        "sections": the `latency` frame's sections. "replications": independent runs, at least ten.
        "requests": the `requests` frame, whole and in order. "windows": the `windows` frame alone.
        By default the first of them that the frames allow; fewer than ten runs are cut into sections one after another.

    Returns
    -------
    DataFrame
        A row a metric: mean, p50, p90, p95, p99, p99.9 (of ModelLatency), error_rate_4xx, error_rate_5xx, error_rate
        (all answers but 2XX), slo_miss, and where `requests` holds both variants' rows of a request, paired_mean,
        paired_p5, paired_p50 and paired_p95 of shadow minus source over the copied requests. Columns:

        metric, unit : "s" or "share"
        source, shadow, difference, ratio : float
            `ratio` is NaN for paired rows and for a source of 0.
        low, high, ratio_low, ratio_high : float
            Intervals of the difference and of the ratio; NaN where the run is too short for one.
        source_low, source_high, shadow_low, shadow_high : float
            Intervals of each side by itself.
        n_source, n_shadow : int
            Requests.
        n_eff : float
            How many independent requests the lesser of both sides is worth; NaN if unknown.
        margin : float
            In the unit of the row.
        verdict : str
            See above; "" for paired_p5 and paired_p95, which differ from 0 for equal variants, too.
        method : str
            How the interval was had, and of how many groups.

    Raises
    ------
    InputError
        When a parameter or the frames cannot be used.
    """
    terms = terms_of(margin_pct, margin_points, confidence, slo_s, look, looks, spending)
    runs = frames_of(frames)
    sections = sections_of(runs, method)
    rows = list(metric_rows(sections, terms, slo_s))
    if sections.how == "windows":
        rows[1:1] = period_rows(runs[0]["windows"], terms)
    if len(runs) == 1 and "requests" in runs[0]:
        rows += paired_rows(runs[0]["requests"], terms)
    if not rows:
        raise InputError("frames", "hold nothing that could be compared")
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"n_source": "int64", "n_shadow": "int64"})


def terms_of(
    margin_pct: float,
    margin_points: float,
    confidence: float,
    slo_s: float | None = None,
    look: int | None = None,
    looks: int | None = None,
    spending: str = "obrien-fleming",
) -> Terms:
    """Check what a comparison is asked for, as `compare` describes it."""
    if slo_s is not None:
        _number("slo_s", slo_s, 0.0, math.inf)
    return Terms(
        _number("margin_pct", margin_pct, 0.0, math.inf),
        _number("margin_points", margin_points, 0.0, 100.0),
        _level(_number("confidence", confidence, 0.0, 1.0), look, looks, spending),
    )


def _number(name: str, value: object, above: float, below: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not above < float(value) < below:
        raise InputError(name, f"must be > {above:g}" + (f" and < {below:g}" if below < math.inf else ""), value)
    return float(value)


def _level(confidence: float, look: int | None, looks: int | None, spending: str) -> float:
    """Two-sided level of the intervals: a look's bound, said as the level that a single test would need for it."""
    if look is None and looks is None:
        return 1.0 - confidence
    if look is None or looks is None:
        name = "look" if look is None else "looks"
        raise InputError(name, "must be given together with " + ("looks" if look is None else "look"), None)
    bounds = sequential.bounds(looks, 1.0 - confidence, spending)
    if not isinstance(look, int) or not 1 <= look <= looks:
        raise InputError("look", f"must be an integer from 1 to looks, which is {looks}", look)
    return 2.0 * float(ndtr(-bounds[look - 1]))


def metric_rows(
    sections: Sections, terms: Terms, slo_s: float | None, together: bool = True
) -> Iterator[dict[str, Any]]:
    """Metrics of each side by itself, compared; `together` as for `Contrast`."""
    sides = (sections.source, sections.shadow)
    # of independent runs, each is a batch
    batches = Batches(min(s.n.size for s in sides)) if sections.independent else None
    worth = [statistics.n_effective(s.sample, 0.5, batches, s.moments) if s.sample else None for s in sides]
    least = min((w for w in worth if w is not None), default=math.inf)
    moments = [s.moments for s in sides]
    how = Contrast(sections.how, batches, least, terms, together)
    if all(s.total_s is not None for s in sides):
        yield how.mean("mean", sides)
    if any(s.sample for s in sides):
        yield from (how.quantile(f"p{100 * q:g}", sides, q) for q in PERCENTILES.values())
    for name in ERRORS:
        if all(name in s.errors for s in sides):
            yield how.share(name, [(s.errors[name], s.requests) for s in sides], worth, moments)
    if slo_s is not None and any(s.sample for s in sides):
        hits = [s.sample.n_above(slo_s) if s.sample else np.zeros(s.n.size) for s in sides]
        yield how.share("slo_miss", [(h, s.n) for h, s in zip(hits, sides, strict=True)], worth, moments)
