"""Computes the load of a pool, and how long a run must be to show what a long one would.

The load law: n instances receive rho = rate x share x E[S] / (n x workers) of their capacity. It gives the count at
which a search begins, and three facts that save simulation:

* Steady traffic (no profile, no trace) looks the same at any hour. A shorter run of whole periods has the same law once
  it is long against the queue's memory: `RELAXATIONS` relaxation times, (c_a^2 + c_s^2) / 2 x E[S] / (workers
  (1 - sqrt(rho))^2) each (Cohen, 1982), and `CYCLES` cycles of a modulated rate. The pool's empty start then shifts a
  mean by about one relaxation time of the run, half a per cent. A day's profile without weekends repeats itself: one
  day stands for whole days, and one week for whole weeks. All other traffic is run in full.
* While more work comes than a pool can do, a backlog grows by (rho(t) - 1) seconds per second; it is worked off when
  less comes. This fluid model is a lower bound of the expected backlog (a backlog is convex in its input: Jensen). If
  it alone is far beyond what a goal allows, nothing has to be simulated.
* No pool answers faster than its service: a goal that the service time alone misses is missed by every count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.planning.slo import Goal, figure_of_service, figure_of_waits
from shadowsim.scenario.relaxation import relaxation_s, trace_columns, work_moments
from shadowsim.scenario.scaling import INVOCATIONS
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.token_times import TimesAlone, least_work_share, times_alone, typical_requests
from shadowsim.statistics.warm_up import LEAST_WINDOWS

RELAXATIONS = 200  # relaxation times in a shortened run
LEAST_REQUESTS = 200_000  # of the pool, in a shortened run
BEYOND = 1_000  # requests beyond the furthest quantile of a shortened run
CYCLES = 30  # cycles of a modulated rate in a shortened run
MOST_REQUESTS = 20_000_000  # of the endpoint, in a shortened run: about a second of simulation
STEPS = 10_000  # of the expected rate over the horizon
_PROBABILITIES = (np.arange(20_000) + 0.5) / 40_000  # those below a half


@dataclass(frozen=True, slots=True)
class Demand:
    """The work that a scenario brings to a pool.

    Attributes
    ----------
    instances : float
        Mean offered load of one instance over the horizon: how many instances the work keeps busy.
    least_instances : float
        The same if the pool always served at the fastest of its slowdown factors and sizes of batches.
    peak_instances : float
        The same as `instances` at the highest expected rate.
    rate_per_s : float
        Mean rate of requests at the endpoint.
    share : float
        The pool's share of these requests, 0..1.
    service_s : Floats
        Service times without slowdown: 40,000 quantiles in equal steps of probability, or the values of a trace. For a
        service in tokens, latencies of typical requests that are alone.
    alone : TimesAlone or None
        Times of these requests, for a service in tokens.
    rates_per_s : Floats
        The expected rate at the endpoint in the middle of `STEPS` equal parts of the horizon; empty for a trace.
    step_s : float
        Length of such a part.
    """

    instances: float
    least_instances: float
    peak_instances: float
    rate_per_s: float
    share: float
    service_s: Floats
    alone: TimesAlone | None
    rates_per_s: Floats
    step_s: float

    def load(self, n: int) -> Floats:
        """Return the offered load of n instances in each step."""
        load: Floats = self.rates_per_s * (self.instances / self.rate_per_s / n)
        return load


def demand_of(scenario: Scenario, role: str) -> Demand:
    """Compute the work that a scenario brings to the source's or the shadow's pool.

    Batches, also those of requests in tokens, are counted as full, as they are under load. What prefix caches save is
    left out, but of the least number of instances. Retries are left out, which
    depend on the answers.
    """
    traffic = scenario.traffic
    rate, rates = traffic.mean_rate(scenario.horizon_s, scenario.start), _rates(scenario)
    side = scenario.side(role)
    mean_s, alone, computed = work_moments(scenario, role)[0], None, 1.0
    if side.service.tokens is not None:
        requests = typical_requests(side.service.tokens, trace_columns(scenario))
        alone = times_alone(side.service.tokens, requests)
        computed = least_work_share(side.service.tokens, requests, trace_columns(scenario))
        service_s = alone.latency_s
    elif side.service.time.kind == "linear":
        service_s = side.service.time.values(traffic.trace().columns)
    else:
        lower, upper = side.service.time.tails(_PROBABILITIES)
        service_s = np.concatenate([lower, upper[::-1]])
    all_busy = side.service.saturated_factor  # a pool under load has all workers busy
    busy = side.share * mean_s * all_busy / side.workers
    instances = rate * busy
    peak = float(max([rate, *rates])) + traffic.jump_per_s
    return Demand(
        instances=instances,
        least_instances=instances * computed * (side.service.fastest_factor / all_busy),
        peak_instances=peak * busy,
        rate_per_s=rate,
        share=side.share,
        service_s=service_s,
        alone=alone,
        rates_per_s=rates,
        step_s=scenario.horizon_s / STEPS,
    )


def with_headroom(scenario: Scenario, headroom_pct: float) -> Scenario:
    """Return the scenario with its traffic's rate raised by a percentage; see `with_factor`."""
    return with_factor(scenario, 1.0 + headroom_pct / 100.0)


def with_factor(scenario: Scenario, factor: float) -> Scenario:
    """Return the scenario with its traffic's rate multiplied by a factor.

    A trace is played faster by that factor, and the run is shorter accordingly: it holds the same requests.
    """
    if factor == 1.0:
        return scenario
    changes = dict[str, object]()
    for stream in scenario.traffic.streams:
        if stream.process == "trace":
            changes |= {f"{stream.path}.speed": stream.speed * factor, "run.horizon_s": scenario.horizon_s / factor}
        else:
            changes[f"{stream.path}.rate_per_s"] = stream.mean_rate(scenario.horizon_s, scenario.start) * factor
    return scenario.replace(changes)


def count_settings(scenario: Scenario, role: str, n: int) -> dict[str, object]:
    """Return the settings that give a variant n instances, or as near as its scaling policy allows.

    Listed outages of instances that it then has not would do nothing, and are left out.
    """
    service = scenario.side(role).service
    if service.scaling is not None:
        return {f"{role}.instance_count": min(max(n, service.scaling.least), service.scaling.most)}
    settings: dict[str, object] = {f"{role}.instance_count": n}
    listed = () if service.outages is None else service.outages.listed
    if any(outage.instance >= n for outage in listed):
        settings[f"{role}.outages"] = [asdict(outage) for outage in listed if outage.instance < n]
    return settings


def instances_at_peak(scenario: Scenario, role: str, demand: Demand) -> int:
    """Return InstanceCount; for a scaling policy on requests what it wants at the highest rate, else its max."""
    side = scenario.side(role)
    policy = side.service.scaling
    if policy is None:
        return side.n_instances
    if policy.metric != INVOCATIONS or not demand.instances:
        return policy.most
    per_minute = 60.0 * demand.rate_per_s * demand.share * (demand.peak_instances / demand.instances)
    return min(max(math.ceil(per_minute / policy.target), policy.least), policy.most)


def takes_its_time(scenario: Scenario) -> bool:
    """Whether a pool scales or fails, or callers retry, so that a run cannot stand for a longer or slower one."""
    return scenario.traffic.retries is not None or any(s.scaling or s.outages for s in scenario.services.values())


def repeating_s(scenario: Scenario) -> float:
    """Return the length of a run that stands for the whole one: a period if traffic is steady, else a day or a week.

    No shorter run does if a pool scales or fails, or callers retry: its state is not the same at every hour.
    """
    return scenario.horizon_s if takes_its_time(scenario) else cycle_s(scenario)


def cycle_s(scenario: Scenario) -> float:
    """Return after which time the traffic repeats itself: a period if it is steady, a day, a week, or the horizon."""
    length = max(scenario.period_s, *(stream.cycle_s for stream in scenario.traffic.streams))
    return length if length < scenario.horizon_s and _stands_for_all(scenario, length) else scenario.horizon_s


@dataclass(frozen=True, slots=True)
class RunLength:
    """How long a count of instances is simulated.

    Attributes
    ----------
    short_s : float
        Enough requests for the figures, but perhaps not for the queue to forget that it began empty. Until it does,
        backlogs grow in law (Loynes, 1962): a goal that a short run misses, a long one misses, too.
    long_s : float
        Enough for both, or as much as can be afforded.
    enough : bool
        Whether `long_s` is as long as it should be.
    """

    short_s: float
    long_s: float
    enough: bool = True


def run_length(scenario: Scenario, role: str, demand: Demand, n: int, furthest_quantile: float) -> RunLength:
    """Return how long n instances are simulated.

    Parameters
    ----------
    furthest_quantile : float
        The furthest quantile that the run must show, 0..1.
    """
    horizon, cycle = scenario.horizon_s, repeating_s(scenario)
    if cycle > scenario.period_s:
        return RunLength(cycle, cycle)
    requests = max(LEAST_REQUESTS, BEYOND / (1.0 - furthest_quantile))
    short = max(requests / max(demand.rate_per_s * demand.share, 1e-9), CYCLES * scenario.traffic.modulation_s)
    long = min(max(short, RELAXATIONS * pool_relaxation_s(scenario, role, demand, n)), horizon)
    affordable = MOST_REQUESTS / demand.rate_per_s
    short_s, long_s = (min(math.ceil(min(x, affordable) / cycle) * cycle, horizon) for x in (short, long))
    return RunLength(short_s, long_s, long <= affordable)


def with_length(scenario: Scenario, horizon_s: float, changes: Mapping[str, object]) -> Scenario:
    """Return a scenario with changes and another length, which is longer by a warm-up of a given number of seconds.

    An automatic warm-up is left out where the run has too few windows for its rule: such a run is long against the
    queue's memory, and its empty start is no more than half a per cent of a mean.
    """
    warmup_s = scenario.warmup_s
    if isinstance(warmup_s, str):
        period_s = changes.get("run.period_s", scenario.period_s)
        assert isinstance(period_s, float)
        few = math.ceil(horizon_s / period_s) < LEAST_WINDOWS
        return scenario.replace({**changes, "horizon_s": horizon_s} | ({"run.warmup_s": None} if few else {}))
    more_s = math.ceil(warmup_s / scenario.period_s) * scenario.period_s if horizon_s < scenario.horizon_s else 0.0
    return scenario.replace({**changes, "horizon_s": min(horizon_s + more_s, scenario.horizon_s)})


def pool_relaxation_s(scenario: Scenario, role: str, demand: Demand, n: int) -> float:
    """Return the relaxation time of n instances at their highest expected load; infinite when overloaded."""
    busiest = demand.peak_instances / n if scenario.traffic.jump_per_s else None
    return relaxation_s(scenario, role, max([demand.instances / n, *demand.load(n)]), busiest)


def fluid_waits_s(demand: Demand, n: int) -> Floats:
    """Return the waits of n instances in the fluid model, at the steps of the rate.

    The reflection of the net input: its sum, minus the lowest value below 0 that the sum has had.
    """
    total = np.cumsum((demand.load(n) - 1.0) * demand.step_s)
    waits: Floats = total - np.minimum(np.minimum.accumulate(total), 0.0) if total.size else total
    return waits


def figure_in_fluid(goal: Goal, demand: Demand, n: int, timeout_s: float) -> float:
    """Return a goal's figure with n instances in the fluid model, where service takes no time but makes up the load."""
    waits = fluid_waits_s(demand, n)
    utilisation = float(np.where(waits > 0.0, 1.0, demand.load(n)).mean())
    return figure_of_waits(goal, waits, demand.rates_per_s, utilisation, timeout_s)


def figure_without_waits(goal: Goal, scenario: Scenario, role: str, demand: Demand) -> float:
    """Return a goal's figure if no request ever waited."""
    service = scenario.side(role).service
    latencies = np.minimum(demand.service_s * service.least_latency_factor, scenario.timeout_s)
    error_rate = service.error_4xx + service.error_5xx
    return figure_of_service(goal, latencies, error_rate, demand.alone, scenario.timeout_s)


def _rates(scenario: Scenario) -> Floats:
    """Return the expected rate in the middle of each step; empty where a trace takes part."""
    middle = np.asarray((np.arange(STEPS) + 0.5) * (scenario.horizon_s / STEPS), np.float64)
    total = np.zeros(STEPS)
    for stream in scenario.traffic.streams:
        rates = stream.rates_at(middle, scenario.horizon_s, scenario.start)
        if rates is None:
            return np.empty(0)
        total += rates
    return total


def _stands_for_all(scenario: Scenario, length: float) -> bool:
    """Whether a run has whole periods and the horizon has whole such runs, or the traffic is steady."""
    n = length / scenario.period_s
    return length == scenario.period_s or (n == round(n) and scenario.horizon_s % length == 0.0)
