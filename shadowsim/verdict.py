"""Judges whether the figures of a run mean anything: STABLE, OVERLOADED or TOO SHORT.

A pool that receives more work than it can do has no steady state: its quantiles depend on the length of the run, not on
the pool. Every text and page therefore shows this verdict together with the quantiles.

* OVERLOADED: a pool's offered load (arriving work over the workers' time) reaches 1 for whole windows. If the rates of
  all streams are known, the expected load decides, without doubt; a modulated rate that jumps within windows counts
  with its mean. For a trace, a rate that jumps more rarely or a measured run the load of a single window is random, so
  the excess over a stretch of windows must exceed four standard errors (five of measured work, which is skewed). They
  allow for the dispersion of counts and of work: what varies from one window to the next is chance, what lasts longer
  is load. Where no load is known, a backlog that keeps growing while the workers are busy decides.
* TOO SHORT: fewer than 30 answers lie beyond p99, or the run is shorter than ten relaxation times of its pools.
* STABLE: neither.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shadowsim.arrays import Floats
from shadowsim.frames import PERCENTILES, SHORT_NAMES
from shadowsim.scenario.relaxation import relaxation_s, work_moments
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.traffic import Traffic
from shadowsim.text import OVERLOADED

TOO_SHORT = "TOO SHORT"
STATUSES = ("STABLE", TOO_SHORT, OVERLOADED)  # from good to grave
MIN_BEYOND_P99 = 30  # answers beyond p99 that an estimate of it needs
MIN_RELAXATIONS = 10  # relaxation times that a run must last
MIN_RELAXATIONS_OF_TAIL = 100  # that it must last for quantiles beyond p95
_MIN_BEYOND = 20  # answers beyond a quantile that is shown
UNCERTAIN = "uncertain"  # column of a sweep: the uncertain quantiles of a row, as `p99_s, p99_9_s`
_LAST_BODY = 0.95  # quantiles beyond are those of a tail
UNCERTAIN_RULE = (  # why a quantile is left out
    f"a quantile needs {MIN_RELAXATIONS} relaxation times of its pool, beyond p95 {MIN_RELAXATIONS_OF_TAIL}, and "
    f"{_MIN_BEYOND} answers beyond it"
)
MOST_RELAXATION_S = 3 * 86400.0  # so that ten last no longer than the longest shadow test, 30 days
_SLIVER = 1e-6  # of a window: what rounding leaves of a horizon after its last window has no load of its own
_CERTAIN = 4.0  # standard errors of counts
_CERTAIN_OF_WORK = 5.0  # standard errors of measured work, whose distribution is skewed
_JUST = 0.8  # load above which requests wait longer for each other than they are served
_SATURATED = 0.98  # utilisation of a pool that is never idle
_EXPONENTIAL_POISSON = 2.0  # relative dispersion of the work of Poisson requests with exponential times
_NO_CAPACITY = 1e6  # offered load where no instance serves
_UNSETTLED = (
    "still warms up in the second half of the run, by MSER-5: it is too short, and its figures leave out nothing"
)
_ENOUGH_PAIRS = 20  # pairs of neighbouring windows that show the dispersion by themselves


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
        Greatest offered load, as a share of capacity: of a window where the rate is known, else of a stretch of
        overload, or of a tenth of the run, beyond chance where requests are drawn; NaN if unknown.
    stretches : tuple of (float, float)
        Start and end of each stretch of overload, in seconds.
    instances_needed : int or None
        The smallest number of instances whose capacity exceeds the peak load; None if not overloaded or unknown, as for
        a pool that scales or fails. They
        only just keep up: `size` finds the number that meets a latency goal.
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

    def __repr__(self) -> str:
        return f"<Verdict {self}>"

    def __str__(self) -> str:
        reasons = [p.why for p in self.pools if p.status == self.status]
        return f"{self.status}: " + " ".join(reasons)


def verdict(windows: pd.DataFrame, scenario: Scenario | None = None, unsettled: Collection[str] = ()) -> Verdict:
    """Judge a run by its `WINDOWS` frame, and by its scenario if there is one.

    Pools of the roles `unsettled`, whose warm-up does not end in the first half of the run, are TOO SHORT.
    """
    pools = tuple(
        _judge(part.reset_index(drop=True), str(role), scenario)
        for role, part in sorted(windows.groupby("role"), reverse=True)
    )
    pools = tuple(
        replace(p, status=TOO_SHORT, why=f"{p.variant} {_UNSETTLED}.")
        if p.role in unsettled and p.status == STATUSES[0]
        else p
        for p in pools
    )
    return Verdict(max((p.status for p in pools), key=STATUSES.index), pools)


def _judge(part: pd.DataFrame, role: str, scenario: Scenario | None) -> PoolVerdict:
    variant, n_instances = str(part["variant"].iloc[0]), int(part["instance_count"].iloc[0])
    load, dispersion = _load(part, role, scenario)
    changes = _changes(scenario, role)
    if dispersion is None:
        length = np.diff(_edges(part, scenario))
        load = np.where(length > _SLIVER * length.max(), load, 0.0)
        intervals, peak = _marked_intervals(load >= 1.0), float(load.max())
    else:
        n = part["Invocations"].to_numpy(np.float64)
        full = np.isclose(np.diff(_edges(part, scenario)), _period_s(part, scenario))
        interval = _greatest_excess(load)
        if scenario is None or scenario.traffic.traces:
            dispersion = max(dispersion, _window_dispersion(load, n, full, interval))
        of_work = scenario is None or scenario.side(role).service.follows_trace
        n_errors = _CERTAIN_OF_WORK if of_work else _CERTAIN
        intervals = [interval] if _excess_in_errors(interval, load, n, dispersion) > n_errors else []
        drawn = scenario is None or not scenario.traffic.is_recorded  # a trace brings what it brings
        tenths = _peak_of_tenths(load, n, dispersion if drawn else 0.0)
        peak = max([float(load[a:b].mean()) for a, b in intervals], default=tenths)
    intervals = intervals or _growing_backlog(part)
    if intervals:
        edge = _edges(part, scenario)
        stretches = tuple((float(edge[a]), float(edge[b])) for a, b in intervals)
        needed = None if math.isnan(peak) or changes else max(math.floor(peak * n_instances), n_instances) + 1
        why = _overload_text(variant, peak, stretches, n_instances, needed)
        return PoolVerdict(role, variant, OVERLOADED, peak, stretches, needed, why)
    short = _too_short(part, role, scenario, peak)
    if short:
        return PoolVerdict(role, variant, "TOO SHORT", peak, (), None, f"{variant} {short}.")
    known = "" if math.isnan(peak) else f" (offered load at most {peak:.2f} of capacity)"
    return PoolVerdict(role, variant, "STABLE", peak, (), None, f"{variant} keeps up{known}.")


def uncertain_quantiles(
    windows: pd.DataFrame, scenario: Scenario, unsettled: Collection[str] = ()
) -> dict[str, frozenset[str]]:
    """Return by variant the quantiles of a run that say little of a long one, as columns of `Result.summary`.

        No text, page or card shows such a quantile, unless its interval stands beside it. They are

    * all of a run of less than `MIN_RELAXATIONS` relaxation times of the pool, and those beyond p95 of a run of less
      than `MIN_RELAXATIONS_OF_TAIL`, where the standard deviation of p99 is a sixth of it (M/M/4);
    * those with fewer than 20 answers beyond;
    * all of a pool whose warm-up does not end in the first half of the run.

    `UNCERTAIN_RULE` says it in words. Quantiles of an OVERLOADED pool are shown with a mark, since no run is long
    enough.
    """
    uncertain = {}
    for pool in verdict(windows, scenario).pools:
        part = windows[windows["role"] == pool.role]
        n, length = int(part["Invocations"].sum()), _length_s(part, scenario)
        relaxation = relaxation_s(scenario, pool.role, pool.peak_load, _busiest_load(part, pool.role, scenario))
        in_tokens = scenario.side(pool.role).service.tokens is not None
        prefixes = ["", *(f"{short}_" for short in SHORT_NAMES.values())] if in_tokens else [""]
        uncertain[pool.variant] = frozenset(
            f"{prefix}{name}_s"
            for name, q in PERCENTILES.items()
            for prefix in prefixes
            if pool.status != OVERLOADED
            and (
                pool.role in unsettled
                or n * (1.0 - q) < _MIN_BEYOND
                or length < relaxation * (MIN_RELAXATIONS if q <= _LAST_BODY else MIN_RELAXATIONS_OF_TAIL)
            )
        )
    return uncertain


def is_uncertain_in(frame: pd.DataFrame, quantile: str) -> pd.Series[bool]:
    """Return for each row of a sweep whether its column `uncertain` names a quantile, such as p99_s.

    Rows of frames without that column name none.
    """
    if UNCERTAIN not in frame:
        return pd.Series(False, index=frame.index)
    names = frame[UNCERTAIN].fillna("").astype(str)  # pandas reads empty texts of a CSV file as NaN
    return names.map(lambda text: quantile in text.split(", ")).astype(bool)


def _edges(part: pd.DataFrame, scenario: Scenario | None) -> Floats:
    """Return the starts of the windows and the end of the last: the horizon, or one period after its start."""
    start = part["time_s"].to_numpy(np.float64)
    end = scenario.horizon_s if scenario is not None else start[-1] + (start[1] - start[0] if start.size > 1 else 0.0)
    return np.append(start, end)


def _length_s(part: pd.DataFrame, scenario: Scenario | None) -> float:
    edge = _edges(part, scenario)
    return float(edge[-1] - edge[0])


def _period_s(part: pd.DataFrame, scenario: Scenario | None) -> float:
    """Return the length of all windows but the last, which may be shorter."""
    edge = _edges(part, scenario)
    return float(edge[1] - edge[0])


def _load(part: pd.DataFrame, role: str, scenario: Scenario | None) -> tuple[Floats, float | None]:
    """Return the offered load of each window, and the least relative dispersion of measured load.

    The dispersion is the variance of a window's load over the square of its mean, times its number of requests: that of
    the number of requests plus the SCV of their work. It is None where the load is expected and not measured.

    With a scenario only the number of requests is measured, since their mean work is known, but for times that follow
    a trace's columns, and where prefix caches save an unknown part of it. That of a service with slowdowns or batches
    is the work of a saturated instance, whose workers are all busy and whose batches are full: it decides whether a
    backlog grows.
    """
    measured = part["offered_load"].to_numpy(np.float64)
    if scenario is None:
        return measured, _EXPONENTIAL_POISSON
    side, traffic = scenario.side(role), scenario.traffic
    period_s = _period_s(part, scenario)
    known = all(stream.has_knots or _jumps_within(stream, period_s) for stream in traffic.streams)
    caches = side.service.tokens is not None and side.service.tokens.prefix is not None
    # how many attempts a request takes is not known, nor what is computed of it
    known = known and traffic.retries is None and not caches
    dispersion = None if known else _dispersion_of_counts(part, role, scenario)
    if dispersion is not None and (side.service.follows_trace or caches):
        return measured, dispersion + work_moments(scenario, role)[1]
    edge = _edges(part, scenario)
    capacity_s = np.diff(edge) * _serving(part) * side.workers
    mean_s = work_moments(scenario, role)[0] * side.service.saturated_factor
    if dispersion is None:
        n = _expected_requests(edge, scenario) * side.share
    else:
        n = part["Invocations"].to_numpy(np.float64)
    none_serves = np.where(n > 0.0, _NO_CAPACITY, 0.0)
    load: Floats = np.divide(n * mean_s, capacity_s, out=none_serves, where=capacity_s > 0.0)
    return load, dispersion


def _serving(part: pd.DataFrame) -> Floats:
    """Return the mean number of instances that serve by window."""
    name = "serving_instance_count" if "serving_instance_count" in part.columns else "instance_count"
    return part[name].to_numpy(np.float64)


def _changes(scenario: Scenario | None, role: str) -> bool:
    """Return whether the pool's instances scale or fail, so that no one number of instances is what it has."""
    service = scenario.side(role).service if scenario else None
    return service is not None and bool(service.scaling or service.outages)


def _expected_requests(edge: Floats, scenario: Scenario) -> Floats:
    """Return the expected number of source requests between edges, for streams whose rates or mean rates are known."""
    n = np.zeros(edge.size - 1)
    for stream in scenario.traffic.streams:
        if not stream.has_knots:
            n += np.diff(edge) * stream.mean_rate(scenario.horizon_s, scenario.start)
            continue
        time_s, rate = stream.knots(scenario.horizon_s, scenario.start)
        count = np.concatenate([[0.0], np.cumsum(0.5 * (rate[1:] + rate[:-1]) * np.diff(time_s))])
        n += np.diff(_integral(edge, time_s, rate, count))
    return n


def _dispersion_of_counts(part: pd.DataFrame, role: str, scenario: Scenario) -> float:
    """Return variance / mean of the number of requests in a window, as far as the traffic tells.

    A copied share p of requests with dispersion d has dispersion 1 + p (d - 1).
    """
    streams, period_s = scenario.traffic.streams, _period_s(part, scenario)
    rates = [stream.mean_rate(scenario.horizon_s, scenario.start) for stream in streams]
    if not math.fsum(rates):
        return 1.0
    pairs = [_dispersion_of_stream(s, period_s, len(part)) * rate for s, rate in zip(streams, rates, strict=True)]
    return 1.0 + scenario.side(role).share * (math.fsum(pairs) / math.fsum(rates) - 1.0)


def _jumps_within(stream: Traffic, period_s: float) -> bool:
    """Return whether a modulated rate changes within windows of this length, so that only its mean is load."""
    return bool(stream.rates_per_s) and min(stream.mean_sojourn_s) < period_s


def _dispersion_of_stream(stream: Traffic, period_s: float, n_windows: int) -> float:
    """Return the dispersion of a stream's counts apart from what `_window_dispersion` measures.

    A modulated rate whose states last a window or longer changes the load, and counts are Poisson given the rate. The
    gaps of a trace tell its dispersion only where its windows are too few to do so, since pauses add to it.
    """
    if stream.process == "trace":
        scv = stream.scv
        return 1.0 if scv is None else scv if n_windows <= _ENOUGH_PAIRS else min(scv, 1.0)
    if stream.rates_per_s and not _jumps_within(stream, period_s):
        return 1.0
    if stream.gap_law is not None:
        return stream.gap_law.scv
    return 1.0 if stream.dispersion is None else stream.dispersion


def _busiest_load(part: pd.DataFrame, role: str, scenario: Scenario) -> float | None:
    """Return the offered load in the busiest state of a modulated rate; None if no rate is modulated."""
    if not scenario.traffic.jump_per_s:
        return None
    side, (mean_s, _) = scenario.side(role), work_moments(scenario, role)
    rate_per_s = scenario.traffic.mean_rate(scenario.horizon_s, scenario.start) + scenario.traffic.jump_per_s
    workers = float(_serving(part).mean()) * side.workers
    return rate_per_s * side.share * mean_s * side.service.slowest_factor / workers


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


def _greatest_excess(load: Floats) -> tuple[int, int]:
    """Return the windows [a, b) of the greatest total excess over capacity (Bentley, 1984); (0, 0) if there is none."""
    excess = np.nan_to_num(load - 1.0, nan=-1.0)
    greatest, start, total, interval = 0.0, 0, 0.0, (0, 0)
    for i, x in enumerate(excess):
        if total <= 0.0:
            start, total = i, 0.0
        total += x
        if total > greatest:
            greatest, interval = total, (start, i + 1)
    return interval


def _excess_in_errors(interval: tuple[int, int], load: Floats, n: Floats, dispersion: float) -> float:
    """Return the excess of an interval's load over capacity, in standard errors; 0 for an empty interval.

    A window's load has the variance dispersion x load^2 / n. The interval is the best of many, but its excess counts
    from 1 and not from the mean load: at a mean load of 1 chance makes a stretch exceed four standard errors once in
    30,000 times, and below that far more rarely.
    """
    a, b = interval
    if a == b:
        return 0.0
    busy = n[a:b] > 0
    excess = float(np.nan_to_num(load[a:b] - 1.0, nan=-1.0).sum())
    error = math.sqrt(dispersion * float(np.sum(load[a:b][busy] ** 2 / n[a:b][busy])))
    return excess / error if error > 0.0 else math.inf


def _window_dispersion(load: Floats, n: Floats, full: NDArray[np.bool_], interval: tuple[int, int]) -> float:
    """Return the relative dispersion of load that differences between neighbouring windows show; 0 for too few windows.

    Such differences contain little of a trend (von Neumann, 1941). Those across the ends of the interval, which are
    steps if there is an overload, are left out, unless it is a single window, which would then not be seen at all.
    """
    pair = full[1:] & full[:-1] & np.isfinite(load[1:] + load[:-1])
    a, b = interval
    if b - a > 1:
        pair[[i - 1 for i in interval if 0 < i < load.size]] = False
    total, per_request = (load[1:] + load[:-1])[pair].sum(), np.nansum(load) / max(n.sum(), 1.0)
    return float((np.diff(load)[pair] ** 2).sum() / (per_request * total)) if total > 0.0 else 0.0


def _peak_of_tenths(load: Floats, n: Floats, dispersion: float) -> float:
    """Return the greatest mean load of a tenth of the run, beyond what chance adds to the greatest; NaN if unknown.

    It is at least the mean load of the run.
    """
    known = np.isfinite(load)
    if not known.any():
        return float("nan")
    tenths = np.array_split(np.flatnonzero(known), min(10, int(known.sum())))
    greatest = max(tenths, key=lambda tenth: float(load[tenth].mean()))
    # Blom's approximation of the expected greatest of k standard normals: 1.55 of ten, 0 of one
    chance = NormalDist().inv_cdf((len(tenths) - 0.375) / (len(tenths) + 0.25))
    peak = float(load[greatest].mean())
    error = peak * math.sqrt(dispersion / max(float(n[greatest].sum()), 1.0))
    return max(float(load[known].mean()), peak - chance * error)


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
        none_copied = scenario is not None and role == "shadow" and scenario.share == 0.0
        why = ", since 0 % of the requests are copied; a longer run would not help" if none_copied else ""
        return f"received no requests{why}"
    if n < 100 * MIN_BEYOND_P99:
        return f"received {n:,} requests, {n // 100:,} of them beyond p99; an estimate of p99 needs {MIN_BEYOND_P99}"
    if scenario is None or math.isnan(peak):
        return ""
    relaxation = relaxation_s(scenario, role, peak, _busiest_load(part, role, scenario))
    if relaxation > MOST_RELAXATION_S:
        return f"is at {peak:.3f} of capacity, where no run is long enough: add an instance or lower the rate"
    if relaxation * MIN_RELAXATIONS > _length_s(part, scenario):
        return (
            f"has a relaxation time of {relaxation:.3g} s at {peak:.3f} of its capacity; "
            f"the run should last at least {MIN_RELAXATIONS} times as long"
        )
    return ""


def _overload_text(
    variant: str, peak: float, stretches: tuple[tuple[float, float], ...], n_instances: int, needed: int | None
) -> str:
    what = f" receives {peak:,.2f} times the capacity of the instances that serve"
    if peak >= _NO_CAPACITY:
        what = " receives requests while no instance serves"
    if needed is not None:
        what = f" receives {peak:,.2f} times its capacity"
    elif math.isnan(peak):
        what = "'s backlog keeps growing"
    begin, end = stretches[0]
    first = "" if len(stretches) == 1 else f", the first of {len(stretches)} such stretches"
    text = f"{variant}{what} from {clock(begin)} to {clock(end)}{first}."
    if needed is None:
        return text
    load = peak * n_instances / needed
    just = "just " if load > _JUST else ""
    return (
        f"{text} It would need {needed:,} instances (it has {n_instances:,}), which {just}keep up (load {load:.2f}); "
        "for a latency goal run `shadowsim size`."
    )


def clock(seconds: float) -> str:
    """Return the time since the start of a run as text: "1 d 06:30:00", "00:02:05"."""
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    # Always with seconds: "01:00" alone may be an hour or a minute.
    time = f"{hours:02}:{rest // 60:02}:{rest % 60:02}"
    return f"{days} d {time}" if days else time
