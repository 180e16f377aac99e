"""Judges whether the figures of a run mean anything: STABLE, OVERLOADED or TOO SHORT.

A pool that receives more work than it can do has no steady state: its quantiles depend on the length of the run, not on
the pool. Every text and page therefore shows this verdict together with the quantiles.

* OVERLOADED: a pool's offered load (arriving work over the workers' time) reaches 1 for whole windows. For traffic with
  a known rate, the expected load decides, without doubt. For a trace or a measured run the load of a single window is
  random, so the excess over a stretch of windows must exceed four standard errors. Where no load is known, a backlog
  that keeps growing while the workers are busy decides.
* TOO SHORT: fewer than 30 answers lie beyond p99, or the run is shorter than ten relaxation times of its pools.
* STABLE: neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shadowsim.arrays import Floats
from shadowsim.scenario.relaxation import relaxation_s, work_moments
from shadowsim.scenario.scenario import Scenario
from shadowsim.text import OVERLOADED

STATUSES = ("STABLE", "TOO SHORT", OVERLOADED)  # from good to grave
MIN_BEYOND_P99 = 30  # answers beyond p99 that an estimate of it needs
MIN_RELAXATIONS = 10  # relaxation times that a run must last
_CERTAIN = 4.0  # standard errors
_SATURATED = 0.98  # utilisation of a pool that is never idle


@dataclass(frozen=True, slots=True)
class PoolVerdict:
    """The verdict of one pool.

    Attributes
    ----------
    role : str
        "source" or "shadow".
    variant : str
    status : str
        STABLE, OVERLOADED or TOO SHORT.
    peak_load : float
        Greatest offered load, as a share of capacity: of a window where the rate is known, else of a tenth of the run
        or of a stretch of overload; NaN if unknown.
    stretches : tuple of (float, float)
        Start and end of each stretch of overload, in seconds.
    instances_needed : int or None
        The smallest number of instances whose capacity exceeds the peak load; None if not overloaded or unknown.
    why : str
        The reason, in one or two sentences.
    """

    role: str
    variant: str
    status: str
    peak_load: float
    stretches: tuple[tuple[float, float], ...]
    instances_needed: int | None
    why: str

    @property
    def from_s(self) -> float | None:
        """Start of the first stretch of overload."""
        return self.stretches[0][0] if self.stretches else None

    @property
    def to_s(self) -> float | None:
        """End of the first stretch of overload."""
        return self.stretches[0][1] if self.stretches else None

    @property
    def n_stretches(self) -> int:
        """Number of stretches of overload."""
        return len(self.stretches)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of a run: `status` is the gravest of its pools. `str()` gives the reasons in sentences."""

    status: str
    pools: tuple[PoolVerdict, ...]

    @property
    def source(self) -> PoolVerdict:
        """The verdict of the source's pool."""
        return next(p for p in self.pools if p.role == "source")

    @property
    def shadow(self) -> PoolVerdict:
        """The verdict of the shadow's pool."""
        return next(p for p in self.pools if p.role == "shadow")

    def __str__(self) -> str:
        reasons = [p.why for p in self.pools if p.status == self.status]
        return f"{self.status}: " + " ".join(reasons)


def verdict(windows: pd.DataFrame, scenario: Scenario | None = None) -> Verdict:
    """Judge a run by its `WINDOWS` frame, and by its scenario if there is one."""
    pools = tuple(
        _judge(part.reset_index(drop=True), str(role), scenario)
        for role, part in sorted(windows.groupby("role"), reverse=True)
    )
    return Verdict(max((p.status for p in pools), key=STATUSES.index), pools)


def _judge(part: pd.DataFrame, role: str, scenario: Scenario | None) -> PoolVerdict:
    variant, n_instances = str(part["variant"].iloc[0]), int(part["instance_count"].iloc[0])
    load, certain = _load(part, role, scenario)
    if certain:
        intervals, peak = _marked_intervals(load >= 1.0), float(load.max())
    else:
        intervals = _significant_excess(load, part["Invocations"].to_numpy(np.float64))
        peak = max([float(load[a:b].mean()) for a, b in intervals], default=_peak_of_tenths(load))
    intervals = intervals or _growing_backlog(part)
    if intervals:
        edge = _edges(part, scenario)
        stretches = tuple((float(edge[a]), float(edge[b])) for a, b in intervals)
        needed = None if math.isnan(peak) else max(math.floor(peak * n_instances), n_instances) + 1
        why = _overload_text(variant, peak, stretches, n_instances, needed)
        return PoolVerdict(role, variant, OVERLOADED, peak, stretches, needed, why)
    short = _too_short(part, role, scenario, peak)
    if short:
        return PoolVerdict(role, variant, "TOO SHORT", peak, (), None, f"{variant} {short}.")
    known = "" if math.isnan(peak) else f" (offered load at most {peak:.2f} of capacity)"
    return PoolVerdict(role, variant, "STABLE", peak, (), None, f"{variant} keeps up{known}.")


def _edges(part: pd.DataFrame, scenario: Scenario | None) -> Floats:
    """Return the starts of the windows and the end of the last: the horizon, or one period after its start."""
    start = part["time_s"].to_numpy(np.float64)
    end = scenario.horizon_s if scenario is not None else start[-1] + (start[1] if start.size > 1 else 0.0)
    return np.append(start, end)


def _load(part: pd.DataFrame, role: str, scenario: Scenario | None) -> tuple[Floats, bool]:
    """Return the offered load of each window, and whether it is expected rather than measured."""
    measured = part["offered_load"].to_numpy(np.float64)
    if scenario is None or not scenario.traffic.has_knots or scenario.side(role).service.slowdown:
        return measured, False
    time_s, rate = scenario.traffic.knots(scenario.horizon_s, scenario.start)
    count = np.concatenate([[0.0], np.cumsum(0.5 * (rate[1:] + rate[:-1]) * np.diff(time_s))])
    edge = _edges(part, scenario)
    per_window = np.diff(_integral(edge, time_s, rate, count))
    side = scenario.side(role)
    workers = int(part["instance_count"].iloc[0]) * side.workers
    load: Floats = per_window * side.share * side.service.time.mean / (np.diff(edge) * workers)
    return load, True


def _busiest_load(part: pd.DataFrame, role: str, scenario: Scenario) -> float | None:
    """Return the offered load in the busiest state of a modulated rate; None if no rate is modulated."""
    if not scenario.traffic.jump_per_s:
        return None
    side, (mean_s, _) = scenario.side(role), work_moments(scenario, role)
    rate_per_s = scenario.traffic.mean_rate(scenario.horizon_s, scenario.start) + scenario.traffic.jump_per_s
    workers = int(part["instance_count"].iloc[0]) * side.workers
    return rate_per_s * side.share * mean_s * max(side.service.slowdown or (1.0,)) / workers


def _integral(t: Floats, time_s: Floats, rate: Floats, count: Floats) -> Floats:
    """Return the integral of the piecewise-linear rate up to each t."""
    at = np.clip(np.searchsorted(time_s, t, side="right") - 1, 0, time_s.size - 2)
    width = time_s[at + 1] - time_s[at]
    slope = np.divide(rate[at + 1] - rate[at], width, out=np.zeros(at.size), where=width > 0)
    x = t - time_s[at]
    integral: Floats = count[at] + x * (rate[at] + 0.5 * slope * x)
    return integral


def _marked_intervals(mark: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the intervals [a, b) of windows that are marked."""
    edge = np.flatnonzero(np.diff(np.concatenate([[False], mark, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edge[::2], edge[1::2], strict=True)]


def _significant_excess(load: Floats, n: Floats) -> list[tuple[int, int]]:
    """Return the interval of windows in which measured load exceeds capacity by more than chance explains, or none.

    The work of n requests has a standard error of sqrt(n E[S^2]), taken with SCV 1, so a window's load has variance
    2 load^2 / n. The interval is that of the greatest total excess (Bentley, 1984).
    """
    excess = np.nan_to_num(load - 1.0, nan=-1.0)
    greatest, start, total, interval = 0.0, 0, 0.0, (0, 0)
    for i, x in enumerate(excess):
        if total <= 0.0:
            start, total = i, 0.0
        total += x
        if total > greatest:
            greatest, interval = total, (start, i + 1)
    a, b = interval
    busy = n[a:b] > 0
    error = math.sqrt(float(np.sum(2.0 * load[a:b][busy] ** 2 / n[a:b][busy])))
    return [interval] if greatest > _CERTAIN * error and b > a else []


def _peak_of_tenths(load: Floats) -> float:
    """Return the greatest mean load of a tenth of the run; NaN if unknown."""
    parts = np.array_split(load, min(10, load.size))
    means = [float(np.mean(p)) for p in parts if not np.isnan(p).all()]
    return max(means) if means else float("nan")


def _growing_backlog(part: pd.DataFrame) -> list[tuple[int, int]]:
    """Return the interval of windows in which waits grow to the end of the run while workers are never idle, or none.

    The run is cut into ten parts; the mean wait must rise in each of the last four, to more than twice that before.
    """
    if len(part) < 10:
        return []
    cuts = np.linspace(0, len(part), 11).astype(int)
    wait = np.array([part["wait_mean_s"].iloc[a:b].mean() for a, b in pairwise(cuts)])
    busy = np.array([part["utilisation"].iloc[a:b].mean() for a, b in pairwise(cuts)])
    rises = bool(np.all(np.diff(wait[5:]) > 0)) and wait[-1] > 2.0 * wait[:6].mean()
    return [(int(cuts[6]), len(part))] if rises and bool(np.all(busy[6:] > _SATURATED)) else []


def _too_short(part: pd.DataFrame, role: str, scenario: Scenario | None, peak: float) -> str:
    """Return why the run is too short for a pool, to follow the variant's name; "" if it is not."""
    n = int(part["Invocations"].sum())
    if n == 0:
        return "received no requests"
    if n < 100 * MIN_BEYOND_P99:
        return f"received {n} requests, {n // 100} of them beyond p99; an estimate of p99 needs {MIN_BEYOND_P99}"
    if scenario is None or math.isnan(peak):
        return ""
    relaxation = relaxation_s(scenario, role, peak, _busiest_load(part, role, scenario))
    if relaxation * MIN_RELAXATIONS > _edges(part, scenario)[-1]:
        return (
            f"has a relaxation time of {relaxation:.3g} s at {peak:.3f} of its capacity; "
            f"the run should last at least {MIN_RELAXATIONS} times as long"
        )
    return ""


def _overload_text(
    variant: str, peak: float, stretches: tuple[tuple[float, float], ...], n_instances: int, needed: int | None
) -> str:
    what = "'s backlog keeps growing" if needed is None else f" receives {peak:.2f} times its capacity"
    begin, end = stretches[0]
    first = "" if len(stretches) == 1 else f", the first of {len(stretches)} such stretches"
    need = "" if needed is None else f" It would need {needed} instances (it has {n_instances})."
    return f"{variant}{what} from {clock(begin)} to {clock(end)}{first}.{need}"


def clock(seconds: float) -> str:
    """Return the time since the start of a run as text: "1 d 06:30", "00:02:05"."""
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    time = f"{hours:02}:{minutes:02}" + (f":{secs:02}" if secs or not (days or hours) else "")
    return f"{days} d {time}" if days else time
