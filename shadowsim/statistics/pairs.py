"""What belongs together, compared one by one: a request and its copy, a period of the source and the shadow's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from shadowsim.frames import MOST_SECTIONS, PERCENTILES, ROLES
from shadowsim.statistics import estimates as statistics
from shadowsim.statistics.batch_means import Deviations, choose
from shadowsim.statistics.contrasts import LEAST_BEYOND, Terms, row_of, verdict_of
from shadowsim.statistics.estimates import Estimate
from shadowsim.statistics.samples import Floats, Values
from shadowsim.statistics.sections import arrivals_cut


def period_rows(windows: pd.DataFrame, terms: Terms) -> Iterator[dict[str, Any]]:
    """The percentiles of each period, source against shadow, and the median of what they differ by."""
    n = [windows.loc[windows["role"] == role, "Invocations"].sum() if "Invocations" in windows else 0 for role in ROLES]
    for name, q in PERCENTILES.items():
        if f"ModelLatency_{name}" not in windows:
            continue
        table = windows.pivot_table(index="time_s", columns="role", values=f"ModelLatency_{name}", dropna=False)
        table = table.reindex(columns=list(ROLES)).dropna() / 1e6
        source, shadow = (table[role].to_numpy(np.float64) for role in ROLES)
        medians = [float(np.median(x)) if x.size else math.nan for x in (source, shadow)]
        row = row_of(f"p{100 * q:g}", "s", medians, n, terms)
        row["method"] = f"windows, median of {len(table)} differences of their p{100 * q:g}"
        if len(table):
            apart = _median(shadow - source, terms.alpha)
            times = _median(shadow / source, terms.alpha)
            row |= {"difference": apart.value, "low": apart.low, "high": apart.high, "n_eff": apart.n_eff}
            row |= {"ratio": times.value, "ratio_low": times.low, "ratio_high": times.high}
            row["verdict"] = verdict_of(row, terms)
        yield row


def _median(values: Floats, alpha: float) -> Estimate:
    n_sections = min(MOST_SECTIONS, values.size)
    sample = Values(values, np.arange(values.size) * n_sections // values.size, n_sections)
    batches = choose(statistics.beyond(sample, 0.5))
    if batches is None:
        return Estimate(sample.quantile(0.5), math.nan, math.nan, values.size, math.nan)
    return statistics.quantile(sample, 0.5, batches, alpha)


def paired_rows(requests: pd.DataFrame, terms: Terms) -> Iterator[dict[str, Any]]:
    """What copied requests took more in the shadow than in the source, each by itself, in order of arrival."""
    kept = requests.loc[requests["latency_s"].notna(), ["request", "role", "arrival_s", "latency_s"]]
    source, shadow = (kept[kept["role"] == role].drop(columns="role") for role in ROLES)
    pairs = source.merge(shadow, on="request", suffixes=("_source", "_shadow")).sort_values("arrival_s_source")
    if pairs.empty:
        return
    x, y = (pairs[f"latency_s_{role}"].to_numpy(np.float64) for role in ROLES)
    arrival = pairs["arrival_s_source"].to_numpy(np.float64)
    sample = Values(y - x, arrivals_cut(arrival, float(requests["arrival_s"].max()) or 1.0), MOST_SECTIONS)
    total = sample.totals()
    worth = statistics.n_effective(sample, 0.5)
    for metric, q in (("paired_mean", None), ("paired_p5", 0.05), ("paired_p50", 0.5), ("paired_p95", 0.95)):
        middle = np.mean if q is None else np.median
        row = row_of(metric, "s", [float(middle(x)), float(middle(y))], [x.size, x.size], terms)
        row |= {"ratio": math.nan, "method": "pairs"}
        if q is None:
            deviations = Deviations(total - sample.values.mean() * sample.n_by_section, sample.n_by_section)
        else:
            deviations = statistics.beyond(sample, q)
            row["difference"] = sample.quantile(q)
        batches = choose(deviations)
        if batches is not None and worth * min(q or 0.1, 1.0 - (q or 0.1)) >= LEAST_BEYOND:
            found = (
                statistics.mean(total, sample.n_by_section, sample.variance(), batches, terms.alpha)
                if q is None
                else statistics.quantile(sample, q, batches, terms.alpha)
            )
            row |= {"low": found.low, "high": found.high, "n_eff": found.n_eff, "method": f"pairs, {batches}"}
            row["verdict"] = verdict_of(row, terms)
        if q in (0.05, 0.95):
            row |= {"source": math.nan, "shadow": math.nan, "margin": math.nan, "verdict": ""}
        yield row
