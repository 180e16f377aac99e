"""Plans a shadow test: which share, for how long, shows a difference, and what that costs.

The test is rehearsed (plan_rehearsals.py): simulated many times, with a shadow that is as good as the source and with
one that is worse by the effect, and each time judged as `compare` would judge it.

* A shadow that is as good has the source's service model, or another one whose times are multiplied so that its metric
  is the source's. For one that is worse by the effect, service times are multiplied further. Because requests wait for
  each other, a latency that is 5 % longer needs service times that are less than 5 % longer. The factor is found by
  simulations with common random numbers (plan_effects.py), where all of the traffic is copied to as many workers as the
  source has: an effect is meant as it would be in production. Errors are added as such.
* A test of a share s gets s times the source's workers, rounded up to whole instances: with fewer they would be loaded
  more than in production. Where s times the source's instances is not a whole number they are loaded less, and requests
  wait less, than in production; the columns `seen_none_pct` and `seen_effect_pct` show what such a test sees of both
  shadows (plan_designs.py).
* A test that is too long to be rehearsed in full is rehearsed for as long as can be afforded, and its power follows
  from the scatter of these rehearsals (plan_power.py). Such rows say "extrapolated".
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from shadowsim.engine.executors import IN_FLIGHT, work_off
from shadowsim.engine.progress import print_notice, progress_bar
from shadowsim.engine.simulate import announce_runs, compile_for, cores
from shadowsim.option_defaults import ALPHA, EFFECT, LOOKS, POWER, REHEARSALS
from shadowsim.planning.costs import Prices, PriceSource, read_prices
from shadowsim.planning.plan_designs import (
    HOUR_S,
    Segment,
    at_share,
    check_keeps_up,
    check_tokens,
    choose_segments,
    durations_of,
    in_production,
    limitation_notes,
    request_cost,
    same_model,
    sees_same_arrivals,
    shares_of,
)
from shadowsim.planning.plan_effects import Effect, ServiceFactors, parse_effect, service_factors
from shadowsim.planning.plan_power import PowerEstimator, differences, mean_and_error, mean_source
from shadowsim.planning.plan_rehearsals import Rehearsal, RehearsalResult, levels_of, mean_rate
from shadowsim.planning.sheet import Sheet
from shadowsim.planning.slo import with_pairs
from shadowsim.quantities import integer, number
from shadowsim.scenario.scenario import Scenario
from shadowsim.statistics.terms import NOT_ENOUGH_DATA

COLUMNS = [
    *("sampling_percentage", "duration_s", "duration_h", "power", "power_error", "false_alarm", "false_alarm_error"),
    *("visible_pct", "seen_none_pct", "seen_effect_pct", "n_copies", "shadow_instances", "cost_usd", "reaches"),
    *("scale", "how", "simulated_h", "note"),
]
LEAST_RUNS, MOST_RUNS = 10, 10_000
# From which the service factor is found: runs, as many more as have no more requests in all, and requests of each.
SOLVING_RUNS, MOST_SOLVING_RUNS, SOLVING_REQUESTS = 8, 20, 1_000_000


def plan(
    scenario: Scenario | Mapping[str, Any] | str | os.PathLike[str],
    effect: str | Effect = EFFECT,
    power: float = POWER,
    alpha: float = ALPHA,
    shares: Sequence[int] | None = None,
    durations: Sequence[float | str] | None = None,
    *,
    looks: int = LOOKS,
    replications: int = REHEARSALS,
    rate_per_s: float | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    prices: PriceSource | Prices = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Compute the power and the cost of a shadow test at several shares and durations.

    Parameters
    ----------
    scenario : Scenario, mapping, JSON text or path
        A scenario, or a plain CreateInferenceExperiment request, which needs `rate_per_s`. Its sampling percentage, its
        shadow's instance count and its horizon are replaced by those that are planned.
    effect : str
        How much worse the shadow is than the source: "p99 +5%", "mean +2ms", "error_rate +0.5%", of services in tokens
        also "ttft p99 +10%", "tpot p95 +5%" (plan_effects.py).
    power : float
        How often a test should find the effect, as a share of tests.
    alpha : float
        Level of the test, two-sided: it finds a worse shadow when the interval of `compare(confidence=1 - alpha)` lies
        above 0. `compare` then says "worse" as long as its margin is well below the effect: set it so.
    shares : sequence of int, optional
        Sampling percentages, 1 to 100; by default 10, 25, 50 and 100.
    durations : sequence of float or str, optional
        Seconds, or "90min", "6h", "7d", at most 30 days; each begins at the scenario's t = 0. By default 1 and 6 hours,
        1 day, and the Schedule's length, which is 7 days without one.
    looks : int
        Number of looks at the test, at equal distances: `compare(look=, looks=)` at each, until one finds something.
    replications : int
        Number of tests rehearsed with the effect, and as many without; at least 10.
    rate_per_s : float, optional
        Mean rate of the traffic, in requests per second.
    workers : int, optional
        Number of threads, by default one per core; for an executor, the number of runs that it is given at a time.
    executor : concurrent.futures.Executor, optional
        Runs the rehearsals instead of threads: a ProcessPoolExecutor, or a Dask client's `get_executor()`.
    prices : mapping of str to float, path or Prices, optional
        US dollars per hour by instance type, in place of the catalogue's (`read_prices`).
    progress : bool
        Show a progress bar over runs.

    Returns
    -------
    DataFrame
        One row per (share, duration), the same for the same scenario on any number of threads and any executor, with
        the columns

        sampling_percentage : int
        duration_s, duration_h : float
        power, power_error : float
            How often the test finds the effect, and the standard error of that; NaN where a rehearsal is too short for
            an interval.
        false_alarm, false_alarm_error : float
            How often the test finds something, worse or better, in a shadow that is as good.
        visible_pct : float
            The smallest difference that the test finds with the power asked for; like the next two in per cent of the
            source's metric, or in percentage points of a share. NaN when there is none.
        seen_none_pct, seen_effect_pct : float
            The true difference between shadow and source in this test, without the effect and with it. They are 0
            and the effect where the shadow's instances are loaded as the source's, and the duration holds the same
            traffic as the longest.
        n_copies : float
            Expected number of copies.
        shadow_instances : int
            Instances that the share needs; a shadow that scales begins with them.
        cost_usd : float
            Cost of the instances of both variants for the duration; NaN when a price is not known. A variant that
            scales costs what it had in the mean of the rehearsals.
        reaches : bool
            Whether the power is reached.
        scale : float
            Factor by which the effect makes the shadow's service times longer, or the times of its steps; 1 for errors.
        how : str
            "simulated": rehearsals as long as the test; "extrapolated" from shorter ones.
        simulated_h : float
            Length of each rehearsal.
        note : str
            What the test cannot show.

    Raises
    ------
    InputError, ValidationError
        When the scenario, the effect or a number cannot be used.

    Examples
    --------
    >>> import shadowsim as ss
    >>> traffic = {"process": "poisson", "rate_per_s": 500}
    >>> scenario = ss.default_scenario().replace({"traffic": traffic, "horizon_s": "1h"})
    >>> frame = ss.plan(scenario, "p99 +20%", shares=[50], durations=["10min"], replications=10)
    >>> frame[["sampling_percentage", "duration_s", "power", "reaches"]].to_dict("records")
    [{'sampling_percentage': 50, 'duration_s': 600.0, 'power': 1.0, 'reaches': True}]
    >>> int(ss.recommend(frame)["shadow_instances"])
    2
    """
    effect, price_list = parse_effect(effect), read_prices(prices)
    number(power, "power", above=0.0, most=0.999)
    levels = levels_of(number(alpha, "alpha", above=0.0, most=0.5), looks)
    integer(replications, "replications", least=LEAST_RUNS, most=MOST_RUNS)
    if workers is not None:
        integer(workers, "workers", least=1)
    base = Scenario.of(scenario, rate_per_s=rate_per_s)
    check_tokens(base, effect)
    if effect.pair is not None:
        base = with_pairs(base, [effect.pair])
    percentages, lengths_s = shares_of(shares), durations_of(durations, base)
    production = in_production(base)
    check_keeps_up(production)
    segments = choose_segments(production, lengths_s, percentages, replications, effect)
    longest = segments[max(lengths_s)]
    n_runs = 2 * replications * len(percentages) * len(set(segments.values()))
    at_once = workers or (cores() if executor is None else IN_FLIGHT)
    rehearse = partial(_rehearse, workers=at_once, executor=executor)
    if progress and executor is None:
        compile_for(longest.of(base), print_notice)
        rehearsed = [segment.of(base) for segment in set(segments.values())]
        announce_runs(rehearsed, 2 * replications * len(percentages))
    with progress_bar(n_runs, progress, "runs") as advance:
        factors = _factors(production, longest, effect, replications, rehearse)
        rows, runs = [], range(replications)
        for percentage in percentages:
            test = at_share(base, percentage)
            estimators: dict[Segment, tuple[PowerEstimator, PowerEstimator]] = {}
            billed: dict[Segment, tuple[float, float]] = {}
            for duration_s in lengths_s:
                segment = segments[duration_s]
                if segment not in estimators:
                    rehearsal = Rehearsal.of(segment.of(test), effect, levels)
                    without = rehearse(rehearsal.with_shadow(factors.none), runs, advance)
                    with_effect = rehearse(rehearsal.with_shadow(factors.effect, effect.amount), runs, advance)
                    billed[segment] = _mean_billed(without)
                    estimators[segment] = _estimators(
                        without, with_effect, effect, sees_same_arrivals(test), segment.mixture == longest.mixture
                    )
                row = _row(test, duration_s, segment, estimators[segment], effect, power)
                rows.append(row | {"cost_usd": _cost_usd(test, duration_s, billed[segment], price_list)})
    frame = pd.DataFrame(rows)
    frame["scale"] = factors.effect / factors.none
    sheet = Sheet(frame[COLUMNS])
    sheet.attrs |= {"effect": str(effect), "power": power}
    return sheet


def _rehearse(
    rehearsal: Rehearsal,
    runs: Sequence[int],
    advance: Callable[[float], object] = lambda _: None,
    *,
    workers: int,
    executor: Executor | None,
) -> list[RehearsalResult]:
    """Return the results of several replications, in their order."""
    results: dict[int, RehearsalResult] = {}

    def done(r: int, result: RehearsalResult) -> None:
        results[r] = result
        advance(1)

    work_off(rehearsal.run, runs, done, workers=workers, executor=executor)
    return [results[r] for r in runs]


def _factors(
    production: Scenario,
    segment: Segment,
    effect: Effect,
    first_run: int,
    rehearse: Callable[..., list[RehearsalResult]],
) -> ServiceFactors:
    """Return the factors on service times, found where all of the traffic is copied."""
    enough_s = SOLVING_REQUESTS / request_cost(production) / max(mean_rate(production, segment.covered_s), 1e-9)
    longer = segment.longer(enough_s)
    n_runs = min(max(SOLVING_RUNS, int(SOLVING_RUNS * enough_s / longer.length_s)), MOST_SOLVING_RUNS)
    runs = range(first_run, first_run + n_runs)
    rehearsal = Rehearsal.of(longer.of(production), effect, levels_of(0.05, 1))

    def metrics(factor: float) -> tuple[float, float]:
        results = rehearse(rehearsal.with_shadow(factor), runs)
        return float(np.mean([x.source for x in results])), float(np.mean([x.shadow for x in results]))

    return service_factors(effect, metrics, same_model(production))


def _estimators(
    without: list[RehearsalResult],
    with_effect: list[RehearsalResult],
    effect: Effect,
    is_equal_pool: bool,
    is_longest_mixture: bool,
) -> tuple[PowerEstimator, PowerEstimator]:
    """Return estimators of power without the effect and with it, given what is known of the true differences.

    An equal pool without the effect differs by nothing. With the effect it differs by the effect, over the mixture of
    rates for which the factor was found; else by the mean of pairs with common random numbers. The true differences of
    other pools are estimated by their rehearsals.
    """
    if not is_equal_pool:
        return PowerEstimator.of(without), PowerEstimator.of(with_effect)
    none = PowerEstimator.of(without, 0.0)
    if is_longest_mixture:
        return none, PowerEstimator.of(with_effect, effect.on(mean_source(without)))
    return none, PowerEstimator.of(with_effect, *mean_and_error(differences(with_effect) - differences(without)))


def _row(
    test: Scenario,
    duration_s: float,
    segment: Segment,
    estimators: tuple[PowerEstimator, PowerEstimator],
    effect: Effect,
    power: float,
) -> dict[str, object]:
    none, with_effect = estimators
    k = duration_s / segment.length_s
    hits = with_effect.worse(k) if effect.amount > 0.0 else with_effect.better(k)
    alarms = none.either(k)
    notes = limitation_notes(test, segment, k)
    if math.isnan(hits.value):
        notes.append("rehearsals are too short for an interval: fewer shares or replications make them longer")
    if with_effect.undecided > 0.05:
        notes.append(f"compare says {NOT_ENOUGH_DATA} in {100 * with_effect.undecided:.0f} % of the rehearsals")
    pct = 100.0 if effect.is_share else 100.0 / with_effect.source
    return {
        "sampling_percentage": test.experiment.sampling_percentage,
        "duration_s": duration_s,
        "duration_h": duration_s / HOUR_S,
        "power": hits.value,
        "power_error": hits.error,
        "false_alarm": alarms.value,
        "false_alarm_error": alarms.error,
        "visible_pct": with_effect.visible(power, k, effect.amount) * pct,
        "seen_none_pct": none.true * pct,
        "seen_effect_pct": with_effect.true * pct,
        "n_copies": with_effect.n_copies * k,
        "shadow_instances": test.experiment.shadow.pool.instance_count,
        "reaches": hits.value >= power,
        "how": "simulated" if k == 1.0 else "extrapolated",
        "simulated_h": segment.length_s / HOUR_S,
        "note": "; ".join(notes),
    }


def _mean_billed(results: Sequence[RehearsalResult]) -> tuple[float, float]:
    """Return the mean numbers of instances of source and shadow that are charged for, over rehearsals."""
    source, shadow = np.mean([x.billed for x in results], axis=0).tolist()
    return source, shadow


def _cost_usd(scenario: Scenario, duration_s: float, billed: tuple[float, float], prices: Prices) -> float:
    """Return the cost of the instances of both variants, NaN where a price is not known."""
    pools = scenario.experiment.source.pool, scenario.experiment.shadow.pool
    usd_per_h = [prices.of(pool.instance_type).usd_per_h for pool in pools]
    return duration_s / HOUR_S * (billed[0] * usd_per_h[0] + billed[1] * usd_per_h[1])
