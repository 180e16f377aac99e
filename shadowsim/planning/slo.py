"""Service level objectives: goals in words, and whether a run meets them.

A goal is `[source.|shadow.]METRIC OP VALUE`, and several are joined by `and`; without a role it is the shadow's:

==================  ==================================================================================================
p50 ... p99.9       quantile of ModelLatency, any between 0 and 100
mean                mean of ModelLatency
wait_mean           mean wait in an instance's queue
share(wait > T)     share of the requests that wait longer than T
share(latency > T)  share of the requests whose ModelLatency is above T
error_rate          answers but 2XX, time-outs and refusals included, over requests
utilisation         share of the workers' time spent working
==================  ==================================================================================================

OP is one of <=, <, >=, >. A time is a number of seconds up to 60, or has a unit: `300us`, `200ms`, `1.5s`, `2min`; a
share is a number from 0 to 1 or a percentage: `5%`. A figure is that of the whole run. A refused request has no latency
and no wait: it counts in `error_rate` alone, so a pool that may refuse needs a goal for that, too.

How far off a figure of one run may be is estimated from its sections, at most 100 groups of whole windows. A figure is
a ratio R = sum x_s / sum n_s over S sections; the residuals e_s = x_s - R n_s give its variance by second differences,
S / (6 (S - 2)) sum (e_(s-1) - 2 e_s + e_(s+1))^2 / (sum n_s)^2 (after Wolter, Introduction to Variance Estimation,
2007, section 8.2). They are blind to what changes slowly: the course of a day is the same each day, and no error. A
jump of the rate makes them too large. Sections must be long against the memory of a queue, or they are too small; where
it must be certain, there are replications.

* mean, wait_mean, error_rate, utilisation: from the windows, every request.
* share(latency > T): from the latency frame, every request, straight inside the bucket of T.
* a quantile: of the indicator of being above it, carried over by the distribution itself, [Q(q + e) - Q(q - e)] / 2
  (Woodruff, 1952).
* share(wait > T): from the requests of the run's sample, in sections of their arrival.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shadowsim import frames
from shadowsim.arrays import Floats
from shadowsim.errors import InputError, nearest
from shadowsim.frames import MOST_SECTIONS, ROLES
from shadowsim.result import Result
from shadowsim.scenario.defaults import TIMEOUT_S

LEAST_SECTIONS = 10  # fewer say nothing about their own scatter
TIMES = ("mean", "wait_mean")
SHARES = ("error_rate", "utilisation")
_KNOWN = ("p50", "p90", "p95", "p99", "p99.9", *TIMES, *SHARES, "share(wait > T)", "share(latency > T)")
# Decimal, since neither 0.01 x 5 nor 99.9 / 100 is the float that 0.05 or 0.999 is.
TIME_UNITS = {"": "1", "s": "1", "ms": "0.001", "us": "0.000001", "µs": "0.000001", "μs": "0.000001", "min": "60"}
_SHARE_UNITS = {"": "1", "%": "0.01"}
_GOAL = re.compile(r"((?:\w+\.)?share\s*\([^)]*\)|[^<>=()]+?)\s*(<=|>=|<|>)\s*(.+)", re.DOTALL)
_SHARE_OF = re.compile(r"share\s*\(\s*(\w+)\s*>\s*(.+?)\s*\)")
_VALUE = re.compile(r"((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?)\s*([^\s\d.]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal; `str()` gives back its text.

    Attributes
    ----------
    role : str
        source or shadow.
    metric : str
        quantile, mean, wait_mean, share_wait, share_latency, error_rate or utilisation.
    at : float or None
        A quantile's level, 0..1; the T of a share, in seconds.
    op : str
        <=, <, >= or >.
    limit : float
        In seconds, or a share.
    text : str
        As it was written; not part of equality.
    """

    role: str
    metric: str
    at: float | None
    op: str
    limit: float
    text: str = field(compare=False, default="")

    def __str__(self) -> str:
        return self.text

    @property
    def is_time(self) -> bool:
        """Whether it speaks of seconds, not of a share."""
        return self.metric == "quantile" or self.metric in TIMES

    @property
    def caps(self) -> bool:
        """Whether the figure must stay below its limit."""
        return self.op in ("<=", "<")

    @property
    def column(self) -> str:
        """Name of its figure as a column: p99_s, wait_mean_s, utilisation, share(wait > 0.1 s)."""
        if self.at is None:
            return f"{self.metric}_s" if self.is_time else self.metric
        if self.metric == "quantile":
            return f"p{100 * self.at:g}_s".replace(".", "_")
        return f"share({self.metric.removeprefix('share_')} > {self.at:g} s)"

    def margin(self, value: float) -> float:
        """Return how far inside the limit a value is, in its own unit; below 0 outside."""
        return self.limit - value if self.caps else value - self.limit

    def met(self, value: float) -> bool:
        """Return whether a value meets the goal; an unknown one (NaN) does not."""
        margin = self.margin(value)
        return margin >= 0.0 if self.op in ("<=", ">=") else margin > 0.0

    def said(self, value: float) -> str:
        """Return a value of this goal's metric as a sentence has it: "p99 0.213 s", "error_rate 0.31 %"."""
        name = self.text.removeprefix(f"{self.role}.")
        found = _GOAL.fullmatch(name)
        name = found[1].strip() if found else self.column
        return f"{name} {value:.4g} s" if self.is_time else f"{name} {100 * value:.3g} %"


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
        """Return what a run says about each goal.

        Returns
        -------
        DataFrame
            A row a goal: goal (its text), role, variant, value, standard_error, limit (all in seconds or as shares),
            margin (how far inside the limit, negative outside), met. value and standard_error are NaN where the run
            cannot say, and a goal of unknown value is not met.
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
    """Read goals from a text; see the module for its grammar.

    Raises
    ------
    InputError
        What cannot be read, with the nearest metric where one is misspelt.
    """
    if isinstance(text, Slo):
        return text
    if not isinstance(text, str) or not text.strip():
        raise InputError("slo", 'must be a text such as "p99 <= 200ms and error_rate < 1%"', text)
    return Slo(tuple(_goal(part.strip()) for part in re.split(r"\s+and\s+", text.strip(), flags=re.IGNORECASE)))


def measure(goal: Goal, result: Result) -> tuple[float, float]:
    """Return a goal's figure of a run and its standard error, NaN where the run cannot say; see the module."""
    match goal.metric:
        case "quantile":
            return _quantile(result, goal)
        case "share_latency":
            return _ratio(*_above(result, goal.role, _number(goal.at)))
        case "share_wait":
            return _ratio(*_waits_above(result, goal.role, _number(goal.at)))
    windows = result.windows[result.windows["role"] == goal.role]
    n = windows["Invocations"].to_numpy(np.float64)
    answered = windows["ModelLatency_SampleCount"].to_numpy(np.float64)
    length = np.diff(np.append(windows["time_s"].to_numpy(np.float64), result.scenario.horizon_s))
    value, weight = {
        "mean": (windows["ModelLatency_Average"].to_numpy(np.float64) / 1e6, answered),
        "wait_mean": (windows["wait_mean_s"].to_numpy(np.float64), answered),
        "error_rate": (windows["InvocationModelErrors"].to_numpy(np.float64) / np.maximum(n, 1.0), n),
        "utilisation": (windows["utilisation"].to_numpy(np.float64), length),
    }[goal.metric]
    section = _sections(np.arange(len(weight)), len(weight))
    # A window without requests has no mean, and no weight.
    total = _sums(section, np.where(weight > 0.0, value, 0.0) * weight)
    return _ratio(total, _sums(section, weight))


def _goal(text: str) -> Goal:
    found = _GOAL.fullmatch(text)
    if not found:
        raise InputError("slo", "must be METRIC OP VALUE with one of <=, <, >=, > (several joined by `and`)", text)
    left, op, right = found[1].strip(), found[2], found[3].strip()
    head, dot, rest = left.partition(".")
    role, name = (head.lower(), rest.strip()) if dot and head.lower() in ROLES else ("shadow", left)
    metric, at = _metric(name.lower(), left)
    is_time = metric == "quantile" or metric in TIMES
    return Goal(role, metric, at, op, _value(right, is_time, text), text)


def _metric(name: str, written: str) -> tuple[str, float | None]:
    if name in TIMES or name in SHARES:
        return name, None
    level = re.fullmatch(r"p(\d+(?:\.\d+)?)", name)
    if level:
        q = float(Decimal(level[1]) / 100)
        if not 0.0 < q < 1.0:
            raise InputError("slo", "must have a quantile above p0 and below p100 (p99.9 has a point)", written)
        return "quantile", q
    share = _SHARE_OF.fullmatch(name)
    if share and share[1] in ("wait", "latency"):
        return f"share_{share[1]}", _value(share[2], True, written)
    known = [*_KNOWN, *(f"{role}.{metric}" for role in ROLES for metric in _KNOWN)]
    near = nearest(written, known) or f"; known are {', '.join(_KNOWN)}"
    raise InputError("slo", "is not a metric", written, hint=near)


def _value(text: str, is_time: bool, goal: str) -> float:
    found, units = _VALUE.fullmatch(text), TIME_UNITS if is_time else _SHARE_UNITS
    if not found or found[2] not in units:
        what = "a time such as 0.2, 200ms, 1.5s or 300us" if is_time else "a share such as 0.05 or 5%"
        raise InputError("slo", f"needs {what}, in {goal!r}", text)
    value = float(Decimal(found[1]) * Decimal(units[found[2]]))
    if not math.isfinite(value) or (not is_time and value > 1.0):
        what = "must be finite" if is_time else "must be a share from 0 to 1, or from 0% to 100%"
        raise InputError("slo", what, text)
    if is_time and not found[2] and value > TIMEOUT_S:  # milliseconds were meant
        raise InputError("slo", f"needs a unit when it is above {TIMEOUT_S:g}, as in 200ms or 120s", goal)
    return value


def _number(at: float | None) -> float:
    assert at is not None
    return at


def _sections(index: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the section of each window, as the latency frame cuts them."""
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
    bend = np.diff(x - ratio * n, 2)
    return ratio, math.sqrt(len(n) / (6.0 * len(bend)) * math.fsum(bend**2)) / total


def _above(result: Result, role: str, threshold_s: float) -> tuple[Floats, Floats]:
    """Return, by section, how many latencies are above a threshold, and how many there are."""
    part = result.latency[result.latency["role"] == role]
    low, high = part["low_s"].to_numpy(np.float64), part["high_s"].to_numpy(np.float64)
    count, section = part["count"].to_numpy(np.float64), part["section"].to_numpy(np.int64)
    width = np.where(np.isfinite(high), high - low, 1.0)
    share = np.clip((low + width - threshold_s) / width, 0.0, 1.0)
    n_sections = min(MOST_SECTIONS, result.scenario.n_windows)
    return _sums(section, count * share, n_sections), _sums(section, count, n_sections)


def _quantile(result: Result, goal: Goal) -> tuple[float, float]:
    q, variant = _number(goal.at), result.scenario.side(goal.role).variant.name
    value = float(result.quantile(q).get(variant, math.nan))
    if math.isnan(value):
        return value, math.nan
    _, error = _ratio(*_above(result, goal.role, value))
    if not (q - error > 0.0 and q + error < 1.0):  # too few beyond it, or no sections
        return value, math.nan
    part = result.latency[result.latency["role"] == goal.role]
    low, high = (float(frames.quantile(part, level).iloc[0]) for level in (q - error, q + error))
    return value, (high - low) / 2.0


def _waits_above(result: Result, role: str, threshold_s: float) -> tuple[Floats, Floats]:
    """Return, by section, how many requests of the sample waited longer, and how many are in it."""
    part = result.requests[(result.requests["role"] == role) & result.requests["wait_s"].notna()]
    n_windows, period_s = result.scenario.n_windows, result.scenario.period_s
    window = (part["arrival_s"].to_numpy(np.float64) / period_s).astype(np.int64)
    section = _sections(np.minimum(window, n_windows - 1), n_windows)
    n_sections = min(MOST_SECTIONS, n_windows)
    late = part["wait_s"].to_numpy(np.float64) > threshold_s
    return _sums(section, late.astype(np.float64), n_sections), _sums(section, np.ones(len(late)), n_sections)
