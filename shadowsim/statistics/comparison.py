"""Compares shadow and source metric by metric: `compare`.

Each metric gets a row with both estimates, their difference with an interval, the effective sample size, and an
outcome; metric_rows.py computes it.

A CloudWatch export has percentiles per period, and neither their mean nor any weighting gives the percentile of all
requests. Means and error rates of an export are exact; its percentiles are compared period by period, and the result is
the median of the differences. It tells whether the shadow's p99 of a period is usually higher, not what its p99 is, and
one bad hour in a day does not move it.

Copied requests are also compared one by one with their copies: the rows `paired_...`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from shadowsim.arrays import Floats
from shadowsim.errors import InputError
from shadowsim.frames import LATENCY_MEASURE, MEASURES, MOST_SECTIONS, PERCENTILES, ROLES, TIME_COLUMNS, US_PER_S
from shadowsim.statistics import estimates
from shadowsim.statistics.batch_means import STEADY, UNKNOWN, Deviations, uncorrelated_batches
from shadowsim.statistics.estimates import Estimate
from shadowsim.statistics.loads import ATTRIBUTE, SESSIONS, Loads, loads_of, note_of_sessions
from shadowsim.statistics.metric_rows import (
    MIN_BEYOND,
    TOKEN_QUANTILES,
    metric_rows,
    outcome_of,
    prefix_of,
    row_of,
    verdict_of,
)
from shadowsim.statistics.samples import Values
from shadowsim.statistics.sections import arrivals_cut, frames_of, sections_of
from shadowsim.statistics.terms import (
    BETTER,
    CONFIDENCE,
    DEFAULT_SPENDING,
    MARGIN_PCT,
    MARGIN_POINTS,
    NOT_JUDGED,
    SAME,
    WORSE,
    Terms,
    check_limits,
    limits_of,
    terms_of,
)

COLUMNS = (
    *("metric", "unit", "source", "shadow", "difference", "low", "high", "ratio", "ratio_low", "ratio_high"),
    *("n_source", "n_shadow", "n_eff", "margin", "outcome", "verdict", "method"),
    *("source_low", "source_high", "shadow_low", "shadow_high"),
)


def compare(
    frames: object,
    *other_runs: object,
    margin_pct: float = MARGIN_PCT,
    margin_points: float = MARGIN_POINTS,
    confidence: float = CONFIDENCE,
    slo_s: float | str | None = None,
    ttft_slo_s: float | str | None = None,
    tpot_slo_s: float | str | None = None,
    look: int | None = None,
    looks: int | Sequence[float] | None = None,
    spending: str = DEFAULT_SPENDING,
    method: str | None = None,
) -> pd.DataFrame:
    """Compare the shadow with the source: one row per metric, with intervals and an outcome.

    Parameters
    ----------
    frames : Result, mapping, object, path, or a list of these
        Anything with some of the frames `windows`, `latency` and `requests`; the directory of a saved result; or
        independent runs of one scenario, as `replicate` returns them.
    *other_runs
        Not supported: `compare_runs` compares a run with another.
    margin_pct : float
        A difference of latency that does not matter, in per cent of the source's.
    margin_points : float
        A difference of error rates and of the SLO-miss share that does not matter, in percentage points.
    confidence : float
        Confidence level of the intervals; of all looks together when `looks` is given.
    slo_s : float or str, optional
        Adds the metric slo_miss: the share of answers that take longer than this, in seconds or as in "200ms".
    ttft_slo_s, tpot_slo_s : float or str, optional
        Add ttft_slo_miss and tpot_slo_miss, where both variants serve tokens: the share of first tokens that take
        longer than this, and of answers whose mean time between tokens is longer.
    look, looks : int, optional
        This is look number `look` of `looks` planned ones at equal distances; or `looks` are the parts of the whole
        test that the planned ones see, as in [0.1, 0.5, 1]. The intervals are wide enough for all looks together to be
        wrong no more often than 1 - confidence.
    spending : str
        Division of the level among the looks: "obrien-fleming" or "pocock".
    method : str, optional
        "sections": the `latency` frame's sections. "replications": independent runs, at least ten.
        "requests": the `requests` frame, complete and in order. "windows": the `windows` frame alone.
        By default the first of these that the frames allow; fewer than ten runs are cut into sections one after
        another.

    Returns
    -------
    DataFrame
        One row per metric: mean, p50, p90, p95, p99, p99.9 (of ModelLatency), error_rate_4xx, error_rate_5xx,
        error_rate (all answers other than 2XX), slo_miss, and if `requests` has both variants' rows of a request,
        paired_mean, paired_p5, paired_p50 and paired_p95 of shadow minus source over the copied requests. Where both
        variants serve tokens, also ttft_mean, ttft_p50, ttft_p95, ttft_p99 (time from arrival to the first token), the
        same of tpot (time per token after it), and for each pair of limits in `run.goodput` the share of requests that
        missed it: goodput_miss(ttft <= 0.5 s, tpot <= 0.05 s). Columns:

        metric, unit : "s" or "share"
        source, shadow, difference, ratio : float
            `ratio` is NaN for paired rows and for a source of 0.
        low, high, ratio_low, ratio_high : float
            Intervals of the difference and of the ratio; NaN where the run is too short for one. One-sided where one
            side lacks data: `high` and `ratio_high` are infinite for "worse", `low` is -infinite and `ratio_low` 0 for
            "better".
        source_low, source_high, shadow_low, shadow_high : float
            Intervals of each side alone.
        n_source, n_shadow : int
            Number of requests.
        n_eff : float
            Effective sample size of the smaller side; NaN if unknown, as for a one-sided answer.
        margin : float
            In the unit of the row.
        outcome : str
            "worse", "better", "same" or "not_enough"; "" for paired_p5 and paired_p95, which differ from 0 even for
            equal variants.
        verdict : str
            The outcome in words: "worse", "better", "no difference larger than 10 %", "not enough data", "", or for a
            one-sided answer "worse, by at least 40 %; how much more is unknown". Where the sides do not carry the same
            load, it says so: "better, at 42 % load against 83 %".
        method : str
            Method of the interval, with the number of batches.

        Where utilisations differ by more than 5 points, the frame's `attrs["load"]` holds those of both sides, whether
        their instances get the same number of requests, and a sentence. Where whole sessions are copied,
        `attrs["sessions"]` tells what that does to the intervals.

    Raises
    ------
    InputError
        When a parameter or the frames cannot be used.

    Examples
    --------
    >>> import shadowsim as ss
    >>> traffic = {"process": "poisson", "rate_per_s": 500}
    >>> scenario = ss.default_scenario().replace({"traffic": traffic, "horizon_s": "1h"})
    >>> table = ss.compare(ss.simulate(scenario), slo_s="100ms")
    >>> table.set_index("metric")["verdict"][["p99", "slo_miss"]].to_list()
    ['no difference larger than 10 %', 'no difference larger than 0.1 points']
    """
    if other_runs:
        raise InputError("compare", "compares both sides of one run; compare_runs(result, baseline) compares two runs")
    terms = terms_of(margin_pct, margin_points, confidence, look, looks, spending)
    limits_s = limits_of(slo_s, ttft_slo_s, tpot_slo_s)
    runs = frames_of(frames)
    sections = sections_of(runs, method)
    rows = list(metric_rows(sections, terms, limits_s))
    check_limits(limits_s, {row["metric"] for row in rows})
    if sections.method == "windows":
        at = 0
        for measure in MEASURES:
            at = next((i + 1 for i, row in enumerate(rows) if row["metric"] == f"{prefix_of(measure)}mean"), at)
            of_periods = list(period_rows(runs[0]["windows"], terms, measure))
            rows[at:at] = of_periods
            at += len(of_periods)
    if len(runs) == 1 and "requests" in runs[0]:
        rows += paired_rows(runs[0]["requests"], terms, sections.source.course.is_steady)
    if not rows:
        raise InputError("frames", "hold nothing that could be compared")
    for row in rows:
        row["verdict"] = verdict_of(row, terms)
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"n_source": "int64", "n_shadow": "int64"})
    if note := note_of_sessions(runs):
        table.attrs[SESSIONS] = note
    return _with_loads(table, loads_of(runs))


def _with_loads(table: pd.DataFrame, loads: Loads | None) -> pd.DataFrame:
    """Note unequal loads as an attribute of the frame, and after each verdict that says how the sides differ."""
    if loads is None:
        return table
    table.attrs[ATTRIBUTE] = loads.to_dict()
    if loads.qualifier:
        judged = table["outcome"].isin([WORSE, BETTER, SAME])
        table.loc[judged, "verdict"] += f", {loads.qualifier}"
    return table


def period_rows(windows: pd.DataFrame, terms: Terms, measure: str = LATENCY_MEASURE) -> Iterator[dict[str, Any]]:
    """Yield rows of percentiles that are known per period: the median of the periods' differences.

    `measure` is one of `frames.MEASURES`.
    """
    prefix, column = prefix_of(measure), TIME_COLUMNS[measure]
    n = [windows.loc[windows["role"] == role, "Invocations"].sum() if "Invocations" in windows else 0 for role in ROLES]
    for name, q in PERCENTILES.items():
        if f"{column}_{name}" not in windows or (prefix and q not in TOKEN_QUANTILES):
            continue
        table = windows.pivot_table(index="time_s", columns="role", values=f"{column}_{name}", dropna=False)
        table = table.reindex(columns=list(ROLES)).dropna() / US_PER_S
        if prefix and table.empty:  # a variant that serves no tokens
            continue
        source, shadow = (table[role].to_numpy(np.float64) for role in ROLES)
        medians = [float(np.median(x)) if x.size else math.nan for x in (source, shadow)]
        row = row_of(f"{prefix}p{100 * q:g}", "s", medians, n, terms)
        row["method"] = f"windows, median of {len(table)} differences of their p{100 * q:g}"
        if len(table):
            difference = _median(shadow - source, terms.alpha)
            ratio = _median(shadow / source, terms.alpha)
            row |= {"difference": difference.value, "low": difference.low, "high": difference.high}
            row |= {"ratio": ratio.value, "ratio_low": ratio.low, "ratio_high": ratio.high, "n_eff": difference.n_eff}
            row["outcome"] = outcome_of(row, terms)
        yield row


def _median(values: Floats, alpha: float) -> Estimate:
    n_sections = min(MOST_SECTIONS, values.size)
    sample = Values(values, np.arange(values.size) * n_sections // values.size, n_sections)
    batches = uncorrelated_batches(estimates.beyond(sample, 0.5))
    if batches is None:
        return Estimate(sample.quantile(0.5), math.nan, math.nan, values.size, math.nan)
    return estimates.quantile(sample, 0.5, batches, alpha)


def paired_rows(requests: pd.DataFrame, terms: Terms, steady: bool = False) -> Iterator[dict[str, Any]]:
    """Yield rows of the latency in the shadow minus that in the source over copied requests, in order of arrival.

    `steady` tells whether the traffic is known to have no profile.
    """
    course = STEADY if steady else UNKNOWN
    kept = requests.loc[requests["latency_s"].notna(), ["request", "role", "arrival_s", "latency_s"]]
    source, shadow = (kept[kept["role"] == role].drop(columns="role") for role in ROLES)
    pairs = source.merge(shadow, on="request", suffixes=("_source", "_shadow")).sort_values("arrival_s_source")
    if pairs.empty:
        return
    x, y = (pairs[f"latency_s_{role}"].to_numpy(np.float64) for role in ROLES)
    arrival = pairs["arrival_s_source"].to_numpy(np.float64)
    sample = Values(y - x, arrivals_cut(arrival, float(requests["arrival_s"].max()) or 1.0), MOST_SECTIONS)
    total = sample.totals()
    n_eff_median = estimates.n_effective(sample, 0.5, None, course)
    for metric, q in (("paired_mean", None), ("paired_p5", 0.05), ("paired_p50", 0.5), ("paired_p95", 0.95)):
        average = np.mean if q is None else np.median
        row = row_of(metric, "s", [float(average(x)), float(average(y))], [x.size, x.size], terms)
        row |= {"ratio": math.nan, "method": "pairs"}
        if q is None:
            deviations = Deviations(total - sample.values.mean() * sample.n_by_section, sample.n_by_section, course)
        else:
            deviations = estimates.beyond(sample, q, course)
            row["difference"] = sample.quantile(q)
        batches = uncorrelated_batches(deviations)
        if batches is not None and n_eff_median * min(q or 0.1, 1.0 - (q or 0.1)) >= MIN_BEYOND:
            estimate = (
                estimates.mean(total, sample.n_by_section, sample.variance(), batches, terms.alpha, course)
                if q is None
                else estimates.quantile(sample, q, batches, terms.alpha, course)
            )
            row |= {"low": estimate.low, "high": estimate.high, "n_eff": estimate.n_eff, "method": f"pairs, {batches}"}
            row["outcome"] = outcome_of(row, terms)
        if q in (0.05, 0.95):
            row |= {"source": math.nan, "shadow": math.nan, "margin": math.nan, "outcome": NOT_JUDGED}
        yield row
