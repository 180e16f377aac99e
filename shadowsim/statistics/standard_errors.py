"""Computes the standard errors of a run's figures, from the scatter of groups of its sections.

The errors are those of the intervals that `compare` gives (batch_means.py, estimates.py): each figure's sections are
joined until neighbouring groups are uncorrelated. A figure has none where they stay correlated, which means that the
run is too short for it, and a quantile also has none with fewer than twenty independent answers beyond it. A cycle of
a modulated rate must have come ten times.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from shadowsim.arrays import Floats
from shadowsim.frames import GOODPUT_COLUMNS, PERCENTILES, ROLES, SHORT_NAMES
from shadowsim.statistics import estimates
from shadowsim.statistics.batch_means import MIN_BATCHES, Course, Deviations, uncorrelated_batches
from shadowsim.statistics.metric_rows import MIN_BEYOND, MIN_CYCLES, least_effective, n_effective_of_tails
from shadowsim.statistics.samples import Sample
from shadowsim.statistics.sections import Frames, Sections, SideSections, frames_of, sections_of, window_sums

FIGURES = ("rate_per_s", "mean_s", *(f"{name}_s" for name in PERCENTILES), "wait_mean_s", "utilisation", "error_rate")
_PER_SECOND = ("output_tokens",)  # columns of windows whose sums are divided by the run's length


def standard_errors_of(run: object) -> pd.DataFrame:
    """Return the standard errors of a run's figures: one row per role, one column per name in `FIGURES`.

    A run of services in tokens also has columns for ttft_mean_s, ttft_p50_s, ... and tpot_... (all of `PERCENTILES`),
    output_tokens_per_s, and goodput_share_1 and so on.

    Parameters
    ----------
    run : Result, mapping or path
        What `compare` takes, of one run with its windows; its warm-up is left out.
    """
    frames = frames_of(run)[0]
    sections = sections_of([frames], "sections" if "latency" in frames else "windows")
    known = sections.cycles >= MIN_CYCLES
    figures = [*FIGURES, *_token_figures(frames, sections)]
    errors = {role: _errors(frames, role, sections.side(role), known) for role in ROLES}
    return pd.DataFrame(errors, index=figures).T


def _token_figures(frames: Frames, sections: Sections) -> list[str]:
    """Return the names of the figures that a run of services in tokens has besides `FIGURES`."""
    times = [s for m, s in SHORT_NAMES.items() if any(m in sections.side(role).times for role in ROLES)]
    names = [f"{short}_{name}_s" for short in times for name in ("mean", *PERCENTILES)]
    in_windows = frames.get("windows", pd.DataFrame()).columns
    names += [f"{column}_per_s" for column in _PER_SECOND if column in in_windows]
    return names + [_goodput_share(column) for column in GOODPUT_COLUMNS if column in in_windows]


def _goodput_share(column: str) -> str:
    """Return the figure of a column of windows that counts a pair of limits: goodput_1 is of goodput_share_1."""
    return column.replace("goodput", "goodput_share")


def _errors(frames: Frames, role: str, side: SideSections, known: bool) -> dict[str, float]:
    errors = dict.fromkeys(FIGURES, math.nan)
    if not known or not side.requests.sum():
        return errors
    sums = window_sums(frames, role)
    pairs = {
        "rate_per_s": (side.requests, sums["length_s"]),
        "wait_mean_s": (sums["wait_s"], side.n),
        "utilisation": (sums["busy_s"], sums["length_s"]),
    }
    if side.total_s is not None:
        pairs["mean_s"] = (side.total_s, side.n)
    if "error_rate" in side.errors:
        pairs["error_rate"] = (side.errors["error_rate"], side.requests)
    for column in GOODPUT_COLUMNS:
        if column in sums:
            pairs[_goodput_share(column)] = (sums[column], side.requests)
    for column in _PER_SECOND:
        if column in sums:
            pairs[f"{column}_per_s"] = (sums[column], sums["length_s"])
    for figure, (total, n) in pairs.items():
        errors[figure] = _error_of_ratio(total, n, side.course)
    n_eff = n_effective_of_tails(side)
    errors |= _errors_of_quantiles(side, n_eff, "")
    for measure, short in SHORT_NAMES.items():
        of_time = side.times.get(measure)
        if of_time is not None and of_time.total_s is not None:
            errors[f"{short}_mean_s"] = _error_of_ratio(of_time.total_s, of_time.n, of_time.course)
            errors |= _errors_of_quantiles(of_time, least_effective(n_eff, n_effective_of_tails(of_time)), f"{short}_")
    return errors


def _errors_of_quantiles(side: SideSections, n_eff: float | None, prefix: str) -> dict[str, float]:
    """Return the standard errors of the quantiles that have enough independent answers beyond them."""
    if side.sample is None or n_eff is None:
        return {}
    return {
        f"{prefix}{name}_s": _error_of_quantile(side.sample, q, side.course)
        for name, q in PERCENTILES.items()
        if n_eff * min(q, 1.0 - q) >= MIN_BEYOND
    }


def _error_of_ratio(total: Floats, n: Floats, course: Course) -> float:
    """Return the standard error of sum total / sum n over the sections."""
    if not n.sum() > 0.0 or n.size < MIN_BATCHES:
        return math.nan
    deviations = Deviations(total - total.sum() / n.sum() * n, n, course)
    if not np.any(deviations.sums):
        return 0.0
    batches = uncorrelated_batches(deviations)
    return batches.error(deviations)[0] / float(n.sum()) if batches is not None else math.nan


def _error_of_quantile(sample: Sample, q: float, course: Course) -> float:
    """Return half the distance between the quantiles one standard error of the share beyond above and below."""
    deviations = estimates.beyond(sample, q, course)
    batches = uncorrelated_batches(deviations)
    if batches is None:
        return math.nan
    error = batches.error(deviations)[0] / sample.n
    if not (q - error > 0.0 and q + error < 1.0):
        return math.nan
    return 0.5 * (sample.quantile(q + error) - sample.quantile(q - error))
