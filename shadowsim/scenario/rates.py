"""Computes arrival rates that change over time: by a profile, or between the states of an MMPP.

Profiles:

========  ==========================================================================================================
steps     `steps`: [{`from_s`: 0, `rate_per_s`}, ...]: each rate holds until the next begins; the first begins at 0
linear    from `from_per_s` at `from_s` (default 0) to `to_per_s` at `to_s` in a straight line, held before and after
diurnal   a raised cosine from `base_per_s` to `peak_per_s` at `peak_hour` (UTC, a multiple of 0.5, default 15), in
          straight lines between its half-hourly values; on Saturdays and Sundays times `weekend_factor` (default 1)
spikes    `base_per_s`, and `spikes`: [{`at_s`, `for_s`, and `rate_per_s` or `factor` of the base}, ...], in order
========  ==========================================================================================================

A profile gives its knots: times and rates of a piecewise-linear function over the horizon.

The rate of a Markov-modulated Poisson process (MMPP) jumps between states and stays in each for an exponential time.
State i brings requests at `rates_per_s[i]` for a sojourn of mean `mean_sojourn_s[i]`; the next state is any of the
others with equal probability. The chain of visited states is then doubly stochastic, so that all states are visited
equally often, and the share of time spent in each is its mean sojourn over the sum of all mean sojourns. The path is a
function of draws that the caller passes; this module draws nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.errors import InputError
from shadowsim.scenario.fields import Block
from shadowsim.scenario.keys import Alternatives, Keys, Number, Parsed, Schema, chosen_by, list_form, optional

Knots = tuple[Floats, Floats]

HALF_HOUR_S = 1_800
DAY_S, WEEK_S = 86_400.0, 604_800.0
# (1 + cos)/2 at the 48 half hours after the peak. libm's cosines differ in their last bit from one machine to the next;
# nine decimals do not, since none of the 48 is near a rounding boundary. Values half a day apart add up to 1, so that
# the mean is 1/2.
HALF_HOURS = np.array([(1.0 + round(math.cos(math.pi * i / 24), 9)) / 2.0 for i in range(48)])


@dataclass(frozen=True, slots=True)
class Steps:
    """Rates that hold until the next begins."""

    cycle_s: ClassVar[float] = math.inf
    from_s: tuple[float, ...]
    rate_per_s: tuple[float, ...]

    def knots(self, horizon_s: float, clock_s: float) -> Knots:
        """Return the knots of the rate over the horizon."""
        end = max(horizon_s, self.from_s[-1]) + 1.0
        time = np.repeat([*self.from_s, end], 2)[1:-1]
        return _cut(time, np.repeat(self.rate_per_s, 2), horizon_s)


@dataclass(frozen=True, slots=True)
class Linear:
    """A ramp between two held rates."""

    cycle_s: ClassVar[float] = math.inf
    from_per_s: float
    to_per_s: float
    from_s: float
    to_s: float

    def knots(self, horizon_s: float, clock_s: float) -> Knots:
        """Return the knots of the rate over the horizon."""
        time = np.array([-1.0, self.from_s, self.to_s, max(horizon_s, self.to_s) + 1.0])
        return _cut(time, np.repeat([self.from_per_s, self.to_per_s], 2), horizon_s)


@dataclass(frozen=True, slots=True)
class Diurnal:
    """A day's raised cosine, damped or raised on weekends."""

    base_per_s: float
    peak_per_s: float
    peak_hour: float
    weekend_factor: float

    @property
    def cycle_s(self) -> float:
        """Period after which the rate repeats."""
        return DAY_S if self.weekend_factor == 1.0 else WEEK_S

    def knots(self, horizon_s: float, clock_s: float) -> Knots:
        """Return the knots of the rate over the horizon, which begins `clock_s` after Monday 00:00."""
        half_hour = np.arange(clock_s // HALF_HOUR_S, math.ceil((clock_s + horizon_s) / HALF_HOUR_S) + 1).astype(
            np.int64
        )
        shape = HALF_HOURS[(half_hour - round(2 * self.peak_hour)) % 48]
        level = self.base_per_s + (self.peak_per_s - self.base_per_s) * shape
        factor = np.where(half_hour // 48 % 7 >= 5, self.weekend_factor, 1.0)
        before = np.where((half_hour - 1) // 48 % 7 >= 5, self.weekend_factor, 1.0)
        # A weekend begins and ends with a jump: two knots at that midnight.
        jump = np.flatnonzero(factor != before)
        time = np.insert(half_hour * float(HALF_HOUR_S) - clock_s, jump, half_hour[jump] * float(HALF_HOUR_S) - clock_s)
        return _cut(time, np.insert(level * factor, jump, level[jump] * before[jump]), horizon_s)


@dataclass(frozen=True, slots=True)
class Spikes:
    """A flat rate with spells of another."""

    cycle_s: ClassVar[float] = math.inf
    base_per_s: float
    at_s: tuple[float, ...]
    until_s: tuple[float, ...]
    rate_per_s: tuple[float, ...]

    def knots(self, horizon_s: float, clock_s: float) -> Knots:
        """Return the knots of the rate over the horizon."""
        end = max(horizon_s, self.until_s[-1]) + 1.0
        edges = [-1.0, *(t for spell in zip(self.at_s, self.until_s, strict=True) for t in spell), end]
        rates = [self.base_per_s, *(r for rate in self.rate_per_s for r in (rate, self.base_per_s))]
        return _cut(np.repeat(edges, 2)[1:-1], np.repeat(rates, 2), horizon_s)


Profile = Steps | Linear | Diurnal | Spikes


def _items(block: Block, key: str, base_dir: Path) -> list[Block]:
    return block.items(key)


class StepKeys(Keys):
    """Keys of a step."""

    title = "A rate that holds until the next step begins."
    from_s = Number("When it begins; 0 for the first, then rising.", least=0.0)
    rate_per_s = Number("Requests per second.", least=0.0)


class SpikeKeys(Keys):
    """Keys of a spike."""

    title = "A spell of another rate; spikes stand in order and do not overlap."
    at_s = Number("When it begins.", least=0.0)
    for_s = Number("How long it lasts.", above=0.0)
    rate_per_s = optional(Number("Requests per second.", least=0.0))
    factor = optional(Number("Or times the base.", least=0.0))
    rules = (Alternatives(("rate_per_s", "factor"), 1, 1, "must have either rate_per_s or factor"),)


class StepsKeys(Keys):
    """Keys of a profile of steps."""

    steps = Parsed("The steps; the first begins at 0.", _items, list_form(StepKeys))
    examples = ({"kind": "steps", "steps": [{"from_s": 0, "rate_per_s": 100}, {"from_s": "1h", "rate_per_s": 400}]},)


class LinearKeys(Keys):
    """Keys of a ramp."""

    from_per_s = Number("The rate before the ramp, in requests per second.", least=0.0)
    to_per_s = Number("The rate after it.", least=0.0)
    from_s = Number("When it begins.", default=0.0, least=0.0)
    to_s = Number("When it ends, after `from_s`.", above=0.0)
    examples = ({"kind": "linear", "from_per_s": 100, "to_per_s": 800, "to_s": "6h"},)


class DiurnalKeys(Keys):
    """Keys of a profile of days."""

    base_per_s = Number("The lowest rate of a day, in requests per second.", least=0.0)
    peak_per_s = Number("The highest; at least `base_per_s`.", least=0.0)
    peak_hour = Parsed(
        "The hour of the peak in UTC, a multiple of 0.5.",
        lambda block, key, base_dir: _peak_hour(block),
        lambda: {"type": "number", "minimum": 0.0, "maximum": 23.5, "multipleOf": 0.5},
        15.0,
    )
    weekend_factor = Number("Factor on Saturdays and Sundays.", default=1.0, least=0.0)
    examples = ({"kind": "diurnal", "base_per_s": 160, "peak_per_s": 640, "weekend_factor": 0.6},)


class SpikesKeys(Keys):
    """Keys of a profile of spikes."""

    base_per_s = Number("The rate elsewhere, in requests per second.", least=0.0)
    spikes = Parsed("The spells, in order.", _items, list_form(SpikeKeys))
    examples = ({"kind": "spikes", "base_per_s": 100, "spikes": [{"at_s": "2h", "for_s": "10min", "factor": 5}]},)


_PROFILES: Mapping[str, tuple[str, type[Keys]]] = MappingProxyType(
    {
        "steps": ("rates that hold until the next begins", StepsKeys),
        "linear": ("a ramp between two rates, which are held before and after", LinearKeys),
        "diurnal": ("a raised cosine over each day, in straight lines between its half-hourly values", DiurnalKeys),
        "spikes": ("a flat rate with spells of another", SpikesKeys),
    }
)


def profile_form() -> Schema:
    """Return the schema of `profile`."""
    kinds = {kind: (says, keys.schema({"kind": {"const": kind}})) for kind, (says, keys) in _PROFILES.items()}
    return chosen_by("kind", "The rate's course over time.", kinds)


def parse_profile(block: Block) -> Profile:
    """Return the profile that a JSON object describes, or raise `InputError`."""
    kind = block.choice("kind", None, tuple(_PROFILES))
    keys = _PROFILES[kind][1].read(block, known=["kind"])
    match keys:
        case StepsKeys():
            return _steps(keys.steps)
        case LinearKeys():
            block.number("to_s", above=keys.from_s)
            return Linear(keys.from_per_s, keys.to_per_s, keys.from_s, keys.to_s)
        case SpikesKeys():
            return _spikes(keys.base_per_s, keys.spikes)
        case DiurnalKeys():
            block.number("peak_per_s", least=keys.base_per_s)
            return Diurnal(keys.base_per_s, keys.peak_per_s, keys.peak_hour, keys.weekend_factor)
    raise AssertionError(kind)


def _peak_hour(block: Block) -> float:
    hour = block.number("peak_hour", least=0.0, most=23.5)
    if 2 * hour % 1:
        raise InputError(block.at("peak_hour"), "must be a multiple of 0.5", hour)
    return hour


def _steps(items: Sequence[Block]) -> Steps:
    steps = [StepKeys.read(item) for item in items]
    from_s = tuple(step.from_s for step in steps)
    if from_s[0] != 0.0:
        raise InputError(items[0].at("from_s"), "must be 0: the first step begins the run", from_s[0])
    for item, (earlier, later) in zip(items[1:], pairwise(from_s), strict=True):
        if later <= earlier:
            raise InputError(item.at("from_s"), f"must be > {earlier:g}, where the step before begins", later)
    return Steps(from_s, tuple(step.rate_per_s for step in steps))


def _spikes(base: float, items: Sequence[Block]) -> Spikes:
    free_s = 0.0
    at_s, until_s, rates = [], [], []
    for item in items:
        spike = SpikeKeys.read(item)
        at_s.append(item.number("at_s", least=free_s))
        free_s = spike.at_s + spike.for_s
        until_s.append(free_s)
        rates.append(base * (spike.factor or 0.0) if spike.rate_per_s is None else spike.rate_per_s)
    return Spikes(base, tuple(at_s), tuple(until_s), tuple(rates))


def _cut(time: Floats, rate: Floats, horizon_s: float) -> Knots:
    """Return the part of a piecewise-linear rate within [0, horizon]; the knots given reach over both ends."""
    # Of several knots at one time the first is the rate before it and the last the rate after it; others are idle.
    idle = np.zeros(len(time), bool)
    idle[1:-1] = (time[:-2] == time[1:-1]) & (time[1:-1] == time[2:])
    time, rate = time[~idle], rate[~idle]
    first = int(np.searchsorted(time, 0.0, side="right")) - 1
    last = int(np.searchsorted(time, horizon_s, side="left"))
    inside = slice(first + 1, last)
    begin = _between(time[first : first + 2], rate[first : first + 2], 0.0)
    end = _between(time[last - 1 : last + 1], rate[last - 1 : last + 1], horizon_s)
    return np.array([0.0, *time[inside], horizon_s]), np.array([begin, *rate[inside], end])


def _between(time: Floats, rate: Floats, t: float) -> float:
    share = (t - time[0]) / (time[1] - time[0])
    return float(rate[0] + (rate[1] - rate[0]) * share)


def time_shares(mean_sojourn_s: Sequence[float]) -> Floats:
    """Return the long-run share of time in each state, shape (n,)."""
    sojourn = np.array(mean_sojourn_s, np.float64) / max(mean_sojourn_s)  # sums of huge ones would overflow
    return np.asarray(sojourn / sojourn.sum())


def mmpp_rate(rates_per_s: Sequence[float], mean_sojourn_s: Sequence[float]) -> float:
    """Return the long-run mean rate in requests per second."""
    return float(time_shares(mean_sojourn_s) @ np.array(rates_per_s, np.float64))


def mmpp_scv(rates_per_s: Sequence[float], mean_sojourn_s: Sequence[float]) -> float:
    """Return variance / mean² of the times between arrivals, in the long run.

    Notes
    -----
    Q is the generator, R the diagonal matrix of the rates r, pi the shares of time, e a vector of ones. From an
    arrival on, the next comes after x with density exp((Q - R) x) R e, and the state just after an arrival is
    p = pi R / (pi r) (Fischer and Meier-Hellstern, The Markov-modulated Poisson process (MMPP) cookbook, Performance
    Evaluation 18, 1993, 149-171: the interval-stationary MMPP). Hence E[x^k] = k! p (R - Q)^-k e, since
    (R - Q) e = R e. With pi (R - Q) = pi R this is 1 / (pi r) for k = 1 and 2 pi (R - Q)^-1 e / (pi r) for k = 2.
    """
    pi, rate, generator = _matrices(rates_per_s, mean_sojourn_s)
    return float(2.0 * (pi @ rate) * (pi @ np.linalg.solve(np.diag(rate) - generator, np.ones(len(rate)))) - 1.0)


def mmpp_dispersion(rates_per_s: Sequence[float], mean_sojourn_s: Sequence[float]) -> float:
    """Return the limit of variance / mean of the number of arrivals within a long time.

    Notes
    -----
    Given the rate's path the count is Poisson, so that its variance is its mean plus the variance of the rate's
    integral, which grows with 2 times the integral of Cov(rate(0), rate(t)) = pi R (exp(Q t) - e pi) r over t > 0. The
    integral of exp(Q t) - e pi is (c e pi - Q)^-1 - e pi / c for any c > 0.
    """
    pi, rate, generator = _matrices(rates_per_s, mean_sojourn_s)
    mean, c = pi @ rate, -np.diag(generator).mean()
    inverse = np.linalg.solve(c * np.outer(np.ones(len(rate)), pi) - generator, rate - mean)
    return float(1.0 + 2.0 / mean * ((pi * rate) @ inverse))


def mmpp_knots(
    rates_per_s: Sequence[float],
    mean_sojourn_s: Sequence[float],
    horizon_s: float,
    start_uniform: float,
    draws: Iterable[tuple[Floats, Floats]],
) -> tuple[Floats, Floats]:
    """Return the rate along one path, as knots of a piecewise-linear (here constant) function.

    Parameters
    ----------
    rates_per_s, mean_sojourn_s : sequence of float, shape (n,)
        Of the n >= 2 states.
    horizon_s : float
        Where the path ends; > 0.
    start_uniform : float
        In (0, 1]: chooses the first state, each by its share of time, so that the path is stationary from the start.
    draws : iterable of (ndarray of float64, ndarray of float64), both of shape (k,)
        Blocks of any size k of unit exponentials, one per sojourn, and of uniforms in (0, 1], one per jump. Blocks are
        taken until the horizon is reached; their sizes do not change any bit. The expected number of sojourns is about
        horizon_s / mean(mean_sojourn_s).

    Returns
    -------
    time_s : ndarray of float64, shape (m,)
        Non-decreasing from exactly 0 to exactly `horizon_s`; a jump is two knots at one time, never at either end.
    rate_per_s : ndarray of float64, shape (m,)
        The rate there.

    Raises
    ------
    ValueError
        When the draws end before the path.
    """
    n, sojourn = len(rates_per_s), np.array(mean_sojourn_s, np.float64)
    below = np.cumsum(time_shares(mean_sojourn_s))
    state = min(int(np.searchsorted(below, start_uniform)), n - 1)  # the last sum may be rounded below 1
    ends, states, now_s = [], [], 0.0
    for exponential, uniform in draws:
        # One of the n - 1 others is a step of 1 .. n - 1 round the circle of states; a uniform may be 1.
        steps = 1 + np.minimum((uniform * (n - 1)).astype(np.int64), n - 2)
        visited = (state + np.concatenate([[0], np.cumsum(steps)])) % n
        # cumsum adds in order, not pairwise, so that the sums do not depend on where a block begins.
        passed = np.cumsum(np.concatenate([[now_s], exponential * sojourn[visited[:-1]]]))
        ends.append(passed[1:])
        states.append(visited[:-1])
        state, now_s = int(visited[-1]), float(passed[-1])
        if now_s >= horizon_s:
            break
    else:
        raise ValueError(f"the draws end at {now_s:g} s of {horizon_s:g} s")
    end = np.concatenate(ends)
    end = np.minimum(end[: int(np.searchsorted(end, horizon_s)) + 1], horizon_s)
    begin = np.concatenate([[0.0], end[:-1]])
    stays = begin < end  # a sojourn may be too short to move the clock
    rate = np.array(rates_per_s, np.float64)[np.concatenate(states)[: len(end)][stays]]
    return np.stack([begin[stays], end[stays]], axis=1).ravel(), np.repeat(rate, 2)


def _matrices(rates_per_s: Sequence[float], mean_sojourn_s: Sequence[float]) -> tuple[Floats, Floats, Floats]:
    """Return the shares of time (n,), the rates (n,) and the generator (n, n)."""
    n, leave = len(rates_per_s), 1.0 / np.array(mean_sojourn_s, np.float64)
    generator = np.outer(leave, np.full(n, 1.0 / (n - 1)))
    np.fill_diagonal(generator, -leave)
    return time_shares(mean_sojourn_s), np.array(rates_per_s, np.float64), generator
