"""Parses service level objectives and measures them in runs.

A goal is `[source.|shadow.]METRIC OP VALUE`. Several goals are joined by `and`. A goal without a role is the shadow's.

==================  ==================================================================================================
p50 ... p99.9       quantile of ModelLatency; any percentage between 0 and 100
mean                mean of ModelLatency
wait_mean           mean wait in an instance's queue
share(wait > T)     share of the requests that wait longer than T
share(latency > T)  share of the requests whose ModelLatency is above T
error_rate          requests without an answer 2xx over requests: errors, time-outs, refusals, lost with an instance,
                    or while none served
utilisation         share of the workers' time spent working
==================  ==================================================================================================

Services in tokens also have:

===============================  =====================================================================================
ttft.p50 ..., ttft.mean          time from arrival to the first token; only of requests that had it in time
tpot.p50 ..., tpot.mean          time per token after the first; only of answered requests of at least two tokens
share(ttft > T), share(tpot > T)  share of these requests whose time is above T
goodput(ttft <= T, tpot <= U)    share of all requests that are answered within both limits
===============================  =====================================================================================

Whether a request meets both limits of a goodput is counted while it is simulated: `with_goodput` adds the pairs that
goals name to the scenario's `run.goodput`, and a run without such a pair is refused.

OP is one of <=, <, >=, >. A time has a unit, unless it is 0: `300us`, `200ms`, `1.5s`, `2min`; a share is a number from
0 to 1 or a percentage: `5%`. Figures are those of the whole run. A refused request has no
latency and no wait: it counts in `error_rate` alone, so a pool that may refuse requests needs a goal for that, too.

The standard error of a figure is estimated from the run's sections, at most 100 groups of whole windows. A figure is a
ratio R = sum x_s / sum n_s over S sections; the residuals e_s = x_s - R n_s give its variance by second differences,
S / (6 (S - 2)) sum (e_(s-1) - 2 e_s + e_(s+1))^2 / (sum n_s)^2 (after Wolter, Introduction to Variance Estimation,
2007, section 8.2). Second differences ignore slow changes: the course of a day is the same each day, and no error. A
jump of the rate makes the estimate too large. Sections that are short against the memory of a queue make it too small;
replications give an error without that assumption.

* mean, wait_mean, error_rate, utilisation and goodput come from the windows, which hold every request.
* share(latency > T) comes from the latency frame, which holds every request; inside the bucket of T it is interpolated.
* A quantile's error is that of the share above it, e, carried over by the distribution: [Q(q + e) - Q(q - e)] / 2
  (Woodruff, 1952).
* share(wait > T) comes from the run's sample of requests, in sections of their arrival.

Everything that depends on the metric is in this module; `match` statements end in `assert_never`, so that the type
checker lists what a new metric needs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, assert_never

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shadowsim import frames
from shadowsim.arrays import Floats
from shadowsim.errors import InputError, did_you_mean
from shadowsim.frames import MOST_SECTIONS, ROLES, US_PER_S
from shadowsim.quantities import TIME_UNITS
from shadowsim.result import Result
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.token_times import TimesAlone
from shadowsim.scenario.tokens import Goodput
from shadowsim.text import time_text

Metric = Literal["quantile", "mean", "wait_mean", "share_wait", "share_latency", "error_rate", "utilisation", "goodput"]

LEAST_SECTIONS = 10  # fewer say nothing about their own scatter
_TIMES: tuple[Metric, ...] = ("quantile", "mean", "wait_mean")  # in seconds; all others are shares
_WITHOUT_PARAMETER: tuple[Metric, ...] = ("mean", "wait_mean", "error_rate", "utilisation")
_KNOWN = ("p50", "p90", "p95", "p99", "p99.9", *_WITHOUT_PARAMETER, "share(wait > T)", "share(latency > T)",
          "ttft.p99", "tpot.p95", "share(ttft > T)", "goodput(ttft <= T, tpot <= U)")  # fmt: skip
_MEASURES = {"latency": frames.LATENCY_MEASURE} | {short: measure for measure, short in frames.SHORT_NAMES.items()}
# Decimal, since neither 0.01 x 5 nor 99.9 / 100 is the float that 0.05 or 0.999 is.
_SHARE_UNITS = {"": "1", "%": "0.01"}
_GOAL = re.compile(r"((?:\w+\.)?(?:share|goodput)\s*\([^)]*\)|[^<>=()]+?)\s*(<=|>=|<|>)\s*(.+)", re.DOTALL)
_SHARE_ABOVE = re.compile(r"share\s*\(\s*(\w+)\s*>\s*(.+?)\s*\)")
_GOODPUT = re.compile(r"goodput\s*\(\s*ttft\s*<=\s*([^,]+?)\s*,\s*tpot\s*<=\s*(.+?)\s*\)")
_VALUE = re.compile(r"((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?)\s*([^\s\d.]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal; `str()` gives back its text.

    Attributes
    ----------
    role : str
        source or shadow.
    metric : str
        quantile, mean, wait_mean, share_wait, share_latency, error_rate, utilisation or goodput.
    at : float or None
        A quantile's level, 0..1; the T of a share, in seconds; None for a metric without a parameter.
    op : str
        <=, <, >= or >.
    limit : float
        In seconds, or a share.
    text : str
        The goal as it was written; not part of equality.
    measure : str
        Of `frames.MEASURES`: what a quantile, a mean or a share_latency is of.
    pair : Goodput or None
        The limits of a goodput.
    """

    role: str
    metric: Metric
    at: float | None
    op: str
    limit: float
    text: str = field(compare=False, default="")
    measure: str = frames.LATENCY_MEASURE
    pair: Goodput | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def is_time(self) -> bool:
        """Whether the figure is in seconds, not a share."""
        return self.metric in _TIMES

    @property
    def is_upper_limit(self) -> bool:
        """Whether the figure must stay below the limit."""
        return self.op in ("<=", "<")

    @property
    def more_instances_help(self) -> bool:
        """Whether more instances can only help to meet it."""
        return self.is_upper_limit != (self.metric == "goodput")

    @property
    def of_tokens(self) -> bool:
        """Whether only services in tokens have the figure."""
        return self.measure != frames.LATENCY_MEASURE or self.metric == "goodput"

    @property
    def parameter(self) -> float:
        """`at`, for a metric that has a parameter."""
        assert self.at is not None
        return self.at

    @property
    def furthest_quantile(self) -> float:
        """The furthest quantile that a run must be long enough to show, 0..1; 0 for a mean."""
        match self.metric:
            case "quantile":
                return self.parameter
            case "share_wait" | "share_latency" | "error_rate":
                return 1.0 - self.limit
            case "goodput":
                return self.limit
            case "mean" | "wait_mean" | "utilisation":
                return 0.0
            case _:
                assert_never(self.metric)

    @property
    def is_of_sample(self) -> bool:
        """Whether the figure is measured from the run's sample of requests, not from its windows or histograms."""
        return self.metric == "share_wait"

    @property
    def column(self) -> str:
        """Name of the figure's column: p99_s, wait_mean_s, utilisation, share(wait > 0.1 s)."""
        if self.pair is not None:
            return f"goodput(ttft <= {self.pair.ttft_s:g} s, tpot <= {self.pair.tpot_s:g} s)"
        short = frames.SHORT_NAMES.get(self.measure, "")
        prefix = f"{short}_" if short else ""
        if self.at is None:
            return f"{prefix}{self.metric}_s" if self.is_time else self.metric
        if self.metric == "quantile":
            return f"{prefix}p{100 * self.at:g}_s".replace(".", "_")
        return f"share({short or self.metric.removeprefix('share_')} > {self.at:g} s)"

    def margin(self, value: float) -> float:
        """Return how far inside the limit a value is, in the metric's unit; negative outside."""
        return self.limit - value if self.is_upper_limit else value - self.limit

    def met(self, value: float) -> bool:
        """Return whether a value meets the goal; an unknown one (NaN) does not."""
        margin = self.margin(value)
        return margin >= 0.0 if self.op in ("<=", ">=") else margin > 0.0

    def figure_text(self, value: float) -> str:
        """Return a value with the metric's name and unit: "p99 213 ms", "error_rate 0.31 %"."""
        written = _GOAL.fullmatch(self.text.removeprefix(f"{self.role}."))
        name = written[1].strip() if written else self.column
        return f"{name} {time_text(value)}" if self.is_time else f"{name} {100 * value:.3g} %"


@dataclass(frozen=True, slots=True)
class Slo:
    """Goals that must all be met, made by `parse_slo`; `str()` gives back their text."""

    goals: tuple[Goal, ...]

    def __str__(self) -> str:
        return " and ".join(map(str, self.goals))

    def of(self, role: str) -> tuple[Goal, ...]:
        """Return the goals of one role."""
        return tuple(goal for goal in self.goals if goal.role == role)

    def evaluate(self, result: Result) -> pd.DataFrame:
        """Measure each goal in a run.

        Returns
        -------
        DataFrame
            One row per goal: goal (its text), role, variant, value, standard_error, limit (all in seconds or as
            shares), margin (how far inside the limit, negative outside), met. value and standard_error are NaN where
            the run has too little data; a goal whose value is NaN is not met.
        """
        rows = []
        for goal in self.goals:
            value, error = measure(goal, result)
            rows.append(
                {
                    "goal": str(goal),
                    "role": goal.role,
                    "variant": result.scenario.side(goal.role).variant.name,
                    "value": value,
                    "standard_error": error,
                    "limit": goal.limit,
                    "margin": goal.margin(value),
                    "met": goal.met(value),
                }
            )
        return pd.DataFrame(rows)


def parse_slo(text: str | Slo) -> Slo:
    """Parse goals; the module's docstring has the grammar.

    Raises
    ------
    InputError
        When the text cannot be parsed; a misspelt metric is answered with the nearest known one.
    """
    if isinstance(text, Slo):
        return text
    if not isinstance(text, str) or not text.strip():
        raise InputError("slo", 'must be a text such as "p99 <= 200ms and error_rate < 1%"', text)
    return Slo(tuple(_goal(part.strip()) for part in re.split(r"\s+and\s+", text.strip(), flags=re.IGNORECASE)))


def measure(goal: Goal, result: Result) -> tuple[float, float]:
    """Return a goal's figure of a run and its standard error; NaN where the run has too little data."""
    result = result.settled
    _check_tokens(goal, result.scenario)
    windows, name = result.windows[result.windows["role"] == goal.role], frames.TIME_COLUMNS[goal.measure]
    n = windows["Invocations"].to_numpy(np.float64)
    answered = windows[f"{name}_SampleCount"].to_numpy(np.float64)
    match goal.metric:
        case "quantile":
            return _quantile(result, goal)
        case "share_latency":
            return _ratio(*_latencies_above(result, goal, goal.parameter))
        case "share_wait":
            return _ratio(*_waits_above(result, goal.role, goal.parameter))
        case "mean":
            return _mean_of_windows(windows[f"{name}_Average"].to_numpy(np.float64) / US_PER_S, answered)
        case "wait_mean":
            return _mean_of_windows(windows["wait_mean_s"].to_numpy(np.float64), answered)
        case "error_rate":
            return _mean_of_windows(frames.failures(windows) / np.maximum(n, 1.0), n)
        case "utilisation":
            return _mean_of_windows(*frames.weighted_utilisation(windows, result.scenario.horizon_s))
        case "goodput":
            met = windows[frames.goodput_column(_pair_index(goal, result.scenario))].to_numpy(np.float64)
            return _mean_of_windows(met / np.maximum(n, 1.0), n)
        case _:
            assert_never(goal.metric)


def with_goodput(scenario: Scenario, slo: Slo | None) -> Scenario:
    """Return the scenario with the pairs of limits that goals name in `run.goodput`, so that runs count them.

    Raises
    ------
    InputError
        When a goal for tokens is of a variant without `tokens`.
    """
    goals = slo.goals if slo is not None else ()
    for goal in goals:
        _check_tokens(goal, scenario)
    return with_pairs(scenario, [goal.pair for goal in goals if goal.pair is not None])


def with_pairs(scenario: Scenario, pairs: Sequence[Goodput]) -> Scenario:
    """Return the scenario with these pairs of limits in `run.goodput`, besides its own."""
    wanted = list(dict.fromkeys([*scenario.goodput, *pairs]))
    if len(wanted) == len(scenario.goodput):
        return scenario
    return scenario.replace({"run.goodput": [{"ttft_s": pair.ttft_s, "tpot_s": pair.tpot_s} for pair in wanted]})


def _check_tokens(goal: Goal, scenario: Scenario) -> None:
    side = scenario.side(goal.role)
    if goal.of_tokens and side.service.tokens is None:
        raise InputError("slo", f"needs a service in tokens, which {side.variant.name} is not", str(goal))


def _pair_index(goal: Goal, scenario: Scenario) -> int:
    """Return the number of a goodput's pair in `run.goodput`, from 0."""
    if goal.pair in scenario.goodput:
        return scenario.goodput.index(goal.pair)
    listed = ", ".join(f"(ttft <= {pair.ttft_s:g}s, tpot <= {pair.tpot_s:g}s)" for pair in scenario.goodput) or "none"
    what = "must be a pair of limits that the run counted, those in its run.goodput"
    raise InputError("slo", what, str(goal), hint=f"; it has {listed}")


def figure_of_waits(goal: Goal, waits_s: Floats, requests: Floats, utilisation: float, timeout_s: float) -> float:
    """Return a goal's figure where requests wait and then are served in no time.

    Parameters
    ----------
    waits_s, requests : ndarray of float64, shape (steps,)
        The wait at each step of time, and how many requests come then.
    utilisation : float
        Of the workers, 0..1.
    timeout_s : float
        Latencies are cut there, and requests that wait longer are errors.
    """
    # no token after the first has to wait
    latency = np.zeros(waits_s.size) if goal.measure == frames.PER_TOKEN else np.minimum(waits_s, timeout_s)
    match goal.metric:
        case "quantile":
            order = np.argsort(latency)
            below = np.cumsum(requests[order])
            return float(latency[order][np.searchsorted(below, goal.parameter * below[-1])])
        case "mean":
            return float(np.average(latency, weights=requests))
        case "wait_mean":
            return float(np.average(waits_s, weights=requests))
        case "share_wait":
            return float(np.average(waits_s > goal.parameter, weights=requests))
        case "share_latency":
            return float(np.average(latency > goal.parameter, weights=requests))
        case "error_rate":
            return float(np.average(waits_s > timeout_s, weights=requests))
        case "utilisation":
            return utilisation
        case "goodput":
            assert goal.pair is not None
            return float(np.average(waits_s <= goal.pair.ttft_s, weights=requests))
        case _:
            assert_never(goal.metric)


def figure_of_service(
    goal: Goal, latencies_s: Floats, error_rate: float, alone: TimesAlone | None = None, timeout_s: float = math.inf
) -> float:
    """Return a goal's figure where no request waits, and the pool is as good as idle.

    Parameters
    ----------
    latencies_s : ndarray of float64
        Service times, all equally likely.
    error_rate : float
        Share of the responses that are errors.
    alone : TimesAlone or None
        Times of these requests, of a service in tokens.
    timeout_s : float
        Requests that take longer are errors, and have no times of tokens from then on.
    """
    times_s = latencies_s
    if alone is not None and goal.measure != frames.LATENCY_MEASURE:
        is_first = goal.measure == frames.FIRST_TOKEN
        times_s, until_s = (alone.first_token_s,) * 2 if is_first else (alone.per_token_s, alone.latency_s)
        times_s = times_s[(until_s <= timeout_s) & ~np.isnan(times_s)]
        if not times_s.size:
            return math.nan
    match goal.metric:
        case "quantile":
            return float(np.quantile(times_s, goal.parameter))
        case "mean":
            return float(times_s.mean())
        case "share_latency":
            return float((times_s > goal.parameter).mean())
        case "goodput":
            assert alone is not None
            assert goal.pair is not None
            late = (alone.first_token_s > goal.pair.ttft_s) | (alone.per_token_s > goal.pair.tpot_s)
            return float((~late & (alone.latency_s <= timeout_s)).mean()) * (1.0 - error_rate)
        case "error_rate":
            return error_rate
        case "wait_mean" | "share_wait" | "utilisation":
            return 0.0
        case _:
            assert_never(goal.metric)


def _goal(text: str) -> Goal:
    match = _GOAL.fullmatch(text)
    if not match:
        raise InputError("slo", "must be METRIC OP VALUE with one of <=, <, >=, > (several joined by `and`)", text)
    left, op, right = match[1].strip(), match[2], match[3].strip()
    head, dot, rest = left.partition(".")
    role, name = (head.lower(), rest.strip()) if dot and head.lower() in ROLES else ("shadow", left)
    pair = _pair(name.lower(), left)
    if pair is not None:
        return Goal(role, "goodput", None, op, _value(right, False, text), text, pair=pair)
    measure = frames.LATENCY_MEASURE
    short, dot, rest = name.lower().partition(".")
    if dot and short in frames.SHORT_NAMES.values():
        measure, name = _MEASURES[short], rest.strip()
        if not re.fullmatch(r"mean|p\d.*", name):
            raise InputError("slo", "must be a quantile or the mean of a time, as in ttft.p99 or tpot.mean", left)
    elif share := _SHARE_ABOVE.fullmatch(name.lower()):
        measure = _MEASURES.get(share[1], measure)
    metric, at = _metric(name.lower(), left)
    return Goal(role, metric, at, op, _value(right, metric in _TIMES, text), text, measure)


def _pair(name: str, written: str) -> Goodput | None:
    """Return the limits of a goodput; None for another metric."""
    limits = _GOODPUT.fullmatch(name)
    if limits is not None:
        ttft_s, tpot_s = (_value(limit, True, written) for limit in limits.groups())
        if min(ttft_s, tpot_s) > 0.0:
            return Goodput(ttft_s, tpot_s)
    if name.startswith("goodput"):
        raise InputError("slo", "must have two limits > 0, as in goodput(ttft <= 500ms, tpot <= 50ms)", written)
    return None


def _metric(name: str, written: str) -> tuple[Metric, float | None]:
    for metric in _WITHOUT_PARAMETER:
        if name == metric:
            return metric, None
    level = re.fullmatch(r"p(\d+(?:\.\d+)?)", name)
    if level:
        q = float(Decimal(level[1]) / 100)
        if not 0.0 < q < 1.0:
            raise InputError("slo", "must have a quantile above p0 and below p100 (p99.9 has a point)", written)
        return "quantile", q
    share = _SHARE_ABOVE.fullmatch(name)
    if share and share[1] in ("wait", *_MEASURES):
        return "share_wait" if share[1] == "wait" else "share_latency", _value(share[2], True, written)
    known = [*_KNOWN, *(f"{role}.{metric}" for role in ROLES for metric in _KNOWN)]
    near = did_you_mean(written, known) or f"; known are {', '.join(_KNOWN)}"
    raise InputError("slo", "is not a metric", written, hint=near)


def _value(text: str, is_time: bool, goal: str) -> float:
    match, units = _VALUE.fullmatch(text), TIME_UNITS if is_time else _SHARE_UNITS
    if is_time and match and not match[2]:
        if Decimal(match[1]) == 0:
            return 0.0
        before, _, after = goal.rpartition(text)
        raise InputError("slo", "needs a unit", goal, hint=f"; {before}{text}ms or {text}s{after}?")
    if not match or match[2] not in units:
        what = "a time such as 200ms, 1.5s or 300us" if is_time else "a share such as 0.05 or 5%"
        raise InputError("slo", f"needs {what}, in {goal!r}", text)
    value = float(Decimal(match[1]) * Decimal(units[match[2]]))
    if not math.isfinite(value) or (not is_time and value > 1.0):
        what = "must be finite" if is_time else "must be a share from 0 to 1, or from 0% to 100%"
        raise InputError("slo", what, text)
    return value


def _mean_of_windows(values: Floats, weights: Floats) -> tuple[float, float]:
    """Return a weighted mean over windows and its standard error."""
    section = _sections(np.arange(len(weights)), len(weights))
    # A window without requests has no mean, and no weight.
    total = _sums(section, np.where(weights > 0.0, values, 0.0) * weights)
    return _ratio(total, _sums(section, weights))


def _sections(index: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the section of each of `n` windows, divided as in the latency frame."""
    return index * min(MOST_SECTIONS, n) // n


def _sums(section: NDArray[np.int64], values: Floats, n_sections: int = 0) -> Floats:
    return np.bincount(section, values, n_sections).astype(np.float64)


def _ratio(x: Floats, n: Floats) -> tuple[float, float]:
    """Return sum x / sum n over sections and its standard error by second differences."""
    total = math.fsum(n)
    if total <= 0.0:
        return math.nan, math.nan
    ratio = math.fsum(x) / total
    if len(n) < LEAST_SECTIONS:
        return ratio, math.nan
    second_differences = np.diff(x - ratio * n, 2)
    variance = len(n) / (6.0 * len(second_differences)) * math.fsum(second_differences**2)
    return ratio, math.sqrt(variance) / total


def _latencies_above(result: Result, goal: Goal, threshold_s: float) -> tuple[Floats, Floats]:
    """Return, by section, how many of a goal's times are above a threshold, and how many there are."""
    buckets = _buckets(result, goal)
    low, high = buckets["low_s"].to_numpy(np.float64), buckets["high_s"].to_numpy(np.float64)
    count, section = buckets["count"].to_numpy(np.float64), buckets["section"].to_numpy(np.int64)
    width = np.where(np.isfinite(high), high - low, 1.0)
    share = np.clip((low + width - threshold_s) / width, 0.0, 1.0)
    n_sections = result.n_sections
    return _sums(section, count * share, n_sections), _sums(section, count, n_sections)


def _buckets(result: Result, goal: Goal) -> pd.DataFrame:
    latency = frames.of_measure(result.latency, goal.measure)
    return latency[latency["role"] == goal.role]


def _quantile(result: Result, goal: Goal) -> tuple[float, float]:
    q, variant = goal.parameter, result.scenario.side(goal.role).variant.name
    value = float(result.quantile(q, goal.measure).get(variant, math.nan))
    if math.isnan(value):
        return value, math.nan
    _, error = _ratio(*_latencies_above(result, goal, value))
    if not (q - error > 0.0 and q + error < 1.0):  # too few beyond it, or no sections
        return value, math.nan
    buckets = _buckets(result, goal)
    low, high = (float(frames.quantile(buckets, level, goal.measure).iloc[0]) for level in (q - error, q + error))
    return value, (high - low) / 2.0


def _waits_above(result: Result, role: str, threshold_s: float) -> tuple[Floats, Floats]:
    """Return, by section, how many requests of the sample waited longer than a threshold, and how many it has."""
    sample = result.requests[(result.requests["role"] == role) & result.requests["wait_s"].notna()]
    n_windows, period_s = result.scenario.n_windows, result.scenario.period_s
    window = (sample["arrival_s"].to_numpy(np.float64) / period_s).astype(np.int64)
    section = _sections(np.minimum(window, n_windows - 1), n_windows) - result.left_out.first_section
    n_sections = result.n_sections
    late = sample["wait_s"].to_numpy(np.float64) > threshold_s
    return _sums(section, late.astype(np.float64), n_sections), _sums(section, np.ones(len(late)), n_sections)
