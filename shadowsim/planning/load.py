"""How much work comes to a pool, and how long a run shows what a long one would.

The load law: a pool of n instances is offered rho = rate x share x E[S] / (n x workers) of what it can do. From it come
the count at which a search begins, and three facts that save simulation:

* Steady traffic (no profile, no trace) looks the same at any hour, so that a shorter run in whole periods has the same
  law once it is long against the queue's memory: `MEMORIES` relaxation times, (c_a^2 + c_s^2) / 2 x E[S] / (workers
  (1 - sqrt(rho))^2) each (Cohen, 1982), and `CYCLES` cycles of a modulated rate. The pool's empty start then shifts a
  mean by about one relaxation time in the run, half a per cent. A day's profile without weekends repeats itself: one
  day stands for whole days, one week for whole weeks. Everything else is run in full.
* While more comes than a pool can do, a backlog grows, by (rho(t) - 1) seconds in a second, and is worked off when less
  comes. That fluid is the least backlog that can be expected, whatever chance does (a backlog is convex in its input:
  Jensen). Where it alone is far beyond what a goal allows, nothing has to be simulated.
* No pool answers faster than its service: what the service time alone misses, no count of instances meets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.planning.slo import Goal
from shadowsim.scenario.rates import Diurnal
from shadowsim.scenario.relaxation import relaxation_s
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.traffic import Traffic

MEMORIES = 200
LEAST_REQUESTS = 200_000  # of the pool, in a shortened run
BEYOND = 1_000  # requests beyond the furthest quantile of a shortened run
CYCLES = 30  # of a modulated rate
MOST_REQUESTS = 20_000_000  # that come in a shortened run: about a second
STEPS = 10_000  # of the fluid over the horizon
DAY_S, WEEK_S = 86_400.0, 604_800.0
_GRID = (np.arange(20_000) + 0.5) / 40_000  # probabilities below a half


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of a pool.

    Attributes
    ----------
    instances : float
        Offered load of one instance, in the mean over the horizon: how many instances' time the work takes.
    peak_instances : float
        Likewise at the highest rate, where that is known.
    rate_per_s : float
        Requests that come to the endpoint, in the mean.
    share : float
        Of them that the pool gets, 0..1.
    work_s : Floats
        Service times, 40,000 quantiles in equal steps of probability, or the values of a trace.
    rates_per_s : Floats
        The expected rate at the endpoint in the middle of `STEPS` equal parts of the horizon; empty for a trace.
    step_s : float
        How long such a part is.
    """

    instances: float
    peak_instances: float
    rate_per_s: float
    share: float
    work_s: Floats
    rates_per_s: Floats
    step_s: float

    def load(self, n: int) -> Floats:
        """Return the offered load of n instances in each step."""
        found: Floats = self.rates_per_s * (self.instances / self.rate_per_s / n)
        return found


def demand(scenario: Scenario, role: str) -> Demand:
    """Return what a scenario asks of the source's or the shadow's pool."""
    traffic = scenario.traffic
    rate, rates = traffic.mean_rate(scenario.horizon_s, scenario.start), _rates(scenario)
    side = scenario.side(role)
    service, law = side.service, side.service.time
    if law.kind == "linear":
        work = law.values(traffic.trace().columns)
        mean = float(work.mean())
    else:
        lower, upper = law.tails(_GRID)
        work, mean = np.concatenate([lower, upper[::-1]]), law.mean
    # A pool under load has all workers busy.
    factor = service.slowdown[-1] if service.slowdown else 1.0
    busy = side.share * mean * factor / side.workers
    peak = float(max([rate, *rates])) + traffic.jump_per_s
    return Demand(rate * busy, peak * busy, rate, side.share, work, rates, scenario.horizon_s / STEPS)


def raised(scenario: Scenario, headroom_pct: float) -> Scenario:
    """Return the scenario with its traffic's rate raised by a percentage.

    A trace is played as much faster, and a run with one is as much shorter: it holds the same requests.
    """
    if headroom_pct == 0.0:
        return scenario
    factor, changes = 1.0 + headroom_pct / 100.0, dict[str, object]()
    for part in scenario.traffic.streams:
        if part.process == "trace":
            changes |= {f"{part.path}.speed": part.speed * factor, "run.horizon_s": scenario.horizon_s / factor}
        else:
            changes[f"{part.path}.rate_per_s"] = part.mean_rate(scenario.horizon_s, scenario.start) * factor
    return scenario.replace(changes)


def repeating_s(scenario: Scenario) -> float:
    """Return the length of a run that stands for the whole one: a period if traffic is steady, else a day or a week."""
    length = scenario.period_s
    for part in scenario.traffic.streams:
        length = max(length, _cycle_s(part))
    return length if length < scenario.horizon_s and _whole(scenario, length) else scenario.horizon_s


@dataclass(frozen=True, slots=True)
class Length:
    """For how long a count is simulated.

    Attributes
    ----------
    short_s : float
        Enough requests for the figures, but perhaps not for the queue to forget that it began empty. Until it does,
        backlogs grow in law (Loynes, 1962): what a short run misses, a long one misses, too.
    long_s : float
        Enough for both, or as much as can be afforded.
    enough : bool
        Whether `long_s` is as long as it should be.
    """

    short_s: float
    long_s: float
    enough: bool = True


def length_of(scenario: Scenario, role: str, need: Demand, n: int, furthest: float) -> Length:
    """Return for how long n instances are simulated.

    Parameters
    ----------
    furthest : float
        The furthest quantile that is asked for, 0..1.
    """
    whole, cycle = scenario.horizon_s, repeating_s(scenario)
    if cycle > scenario.period_s:
        return Length(cycle, cycle)
    sojourns = [sum(part.mean_sojourn_s) for part in scenario.traffic.streams]
    few = max(LEAST_REQUESTS, BEYOND / (1.0 - furthest)) / max(need.rate_per_s * need.share, 1e-9)
    short = max(few, CYCLES * max(sojourns))
    long = min(max(short, MEMORIES * memory_s(scenario, role, need, n)), whole)
    affordable = MOST_REQUESTS / need.rate_per_s
    short_s, long_s = (min(math.ceil(min(x, affordable) / cycle) * cycle, whole) for x in (short, long))
    return Length(short_s, long_s, long <= affordable)


def memory_s(scenario: Scenario, role: str, need: Demand, n: int) -> float:
    """Return the relaxation time of the pool of n instances at its highest expected load; infinite when overloaded."""
    busiest = need.peak_instances / n if scenario.traffic.jump_per_s else None
    return relaxation_s(scenario, role, max([need.instances / n, *need.load(n)]), busiest)


def fluid(need: Demand, n: int) -> Floats:
    """Return the waits that n instances would have without any chance, seconds, at the steps of the rate.

    The reflection of the net input: its sum, less the lowest that it has been below 0.
    """
    total = np.cumsum((need.load(n) - 1.0) * need.step_s)
    waits: Floats = total - np.minimum(np.minimum.accumulate(total), 0.0) if total.size else total
    return waits


def backlog(goal: Goal, need: Demand, n: int, timeout_s: float) -> float:
    """Return what a goal's figure would be with n instances, no chance, and no service time but in the load."""
    waits, weight = fluid(need, n), need.rates_per_s
    latency = np.minimum(waits, timeout_s)
    match goal.metric:
        case "quantile":
            order = np.argsort(latency)
            below = np.cumsum(weight[order])
            return float(latency[order][np.searchsorted(below, (goal.at or 0.0) * below[-1])])
        case "mean":
            return float(np.average(latency, weights=weight))
        case "wait_mean":
            return float(np.average(waits, weights=weight))
        case "share_wait":
            return float(np.average(waits > (goal.at or 0.0), weights=weight))
        case "share_latency":
            return float(np.average(latency > (goal.at or 0.0), weights=weight))
        case "error_rate":
            return float(np.average(waits > timeout_s, weights=weight))
    return float(np.where(waits > 0.0, 1.0, need.load(n)).mean())  # utilisation


def floor(goal: Goal, scenario: Scenario, role: str, need: Demand) -> float:
    """Return what a goal's figure would be if no request ever waited."""
    service = scenario.side(role).service
    latency = np.minimum(need.work_s * min(service.slowdown or (1.0,)), scenario.timeout_s)
    match goal.metric:
        case "quantile":
            return float(np.quantile(latency, goal.at or 0.0))
        case "mean":
            return float(latency.mean())
        case "share_latency":
            return float((latency > (goal.at or 0.0)).mean())
        case "error_rate":
            return service.error_4xx + service.error_5xx
    return 0.0


def _rates(scenario: Scenario) -> Floats:
    """Return the expected rate at the middles of the steps, none where a trace takes part."""
    middle = (np.arange(STEPS) + 0.5) * (scenario.horizon_s / STEPS)
    total = np.zeros(STEPS)
    for part in scenario.traffic.streams:
        if part.process == "trace":
            return np.empty(0)
        if part.has_knots:
            total += np.interp(middle, *part.knots(scenario.horizon_s, scenario.start))
        else:
            total += part.mean_rate(scenario.horizon_s, scenario.start)
    return total


def _cycle_s(part: Traffic) -> float:
    """Return after which time a part repeats itself; infinity for never."""
    if part.process == "trace":
        return math.inf
    if part.profile is None:
        return 0.0
    if isinstance(part.profile, Diurnal):
        return DAY_S if part.profile.weekend_factor == 1.0 else WEEK_S
    return math.inf


def _whole(scenario: Scenario, length: float) -> bool:
    """Whether a run of this length has whole periods, and the horizon has whole such runs, or is steady."""
    n = length / scenario.period_s
    return length == scenario.period_s or (n == round(n) and scenario.horizon_s % length == 0.0)
