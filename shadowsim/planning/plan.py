"""plan(scenario, effect): which share, for how long, shows a difference, and what that costs.

The test is rehearsed (rehearsals.py): simulated many times, once with a shadow that is as good as the source, once with
one that is worse by the effect, and each time judged as `compare` would judge it.

* As good as the source: the shadow has the source's service model, or another one whose times are multiplied so that
  its metric is the source's. Worse by the effect: its service times are multiplied further. Because requests wait for
  each other, a latency that is 5 % longer needs service times that are less than 5 % longer. The factor is found by
  simulations with common random numbers, where all of the traffic is copied to as many workers as the source has: an
  effect is meant as it would be in production. Errors are added as such.
* A test of a share s needs s times the source's workers, rounded up to whole instances: fewer would be loaded more
  than in production. Where that is no whole number they are loaded less, and wait less than in production would the
  same model; the columns `seen_none_pct` and `seen_effect_pct` say what such a test sees of both.
* What is too long to be rehearsed in full is rehearsed for as long as can be afforded, and its power follows from the
  scatter of that (power.py). Such rows say "extrapolated".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from shadowsim.engine.executors import IN_FLIGHT, work_off
from shadowsim.engine.simulate import cores, progress_bar
from shadowsim.errors import InputError
from shadowsim.planning.costs import Prices, PriceSource, read_prices
from shadowsim.planning.plan_designs import (
    HOUR_S,
    Segment,
    at_share,
    durations_of,
    in_production,
    keeps_up,
    limits_of,
    same_model,
    sees_same_arrivals,
    segments,
    shares_of,
)
from shadowsim.planning.plan_effects import Effect, Scales, parse_effect, scales_of
from shadowsim.planning.plan_power import Shown, differences, estimated, source_of
from shadowsim.planning.plan_rehearsals import Rehearsal, RehearsalResult, levels_of, mean_rate
from shadowsim.planning.sheet import Sheet
from shadowsim.scenario.fields import check_whole, number
from shadowsim.scenario.scenario import Scenario
from shadowsim.statistics.terms import NOT_ENOUGH_DATA

COLUMNS = [
    *("sampling_percentage", "duration_s", "duration_h", "power", "power_error", "false_alarm", "false_alarm_error"),
    *("visible_pct", "seen_none_pct", "seen_effect_pct", "n_copies", "shadow_instances", "cost_usd", "reaches"),
    *("scale", "how", "simulated_h", "note"),
]
LEAST_RUNS, MOST_RUNS = 10, 10_000
SOLVING, SOLVING_REQUESTS = 8, 1_000_000  # runs that the factor on service times rests on, and requests of each

_NEEDED = {"reaches", "cost_usd", "shadow_instances", "duration_h", "duration_s"}  # by `recommend`


def plan(
    scenario: Scenario | Mapping[str, Any] | str | os.PathLike[str],
    effect: str | Effect = "p99 +5%",
    power: float = 0.8,
    alpha: float = 0.05,
    shares: Sequence[int] | None = None,
    durations: Sequence[float | str] | None = None,
    *,
    looks: int = 1,
    replications: int = 100,
    rate_per_s: float | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    prices: PriceSource | Prices = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Say what a shadow test would show at several shares and durations, and what it would cost.

    Parameters
    ----------
    scenario : Scenario, mapping, JSON text or path
        A scenario, or a plain CreateInferenceExperiment request, which needs `rate_per_s`. Its sampling percentage, its
        shadow's instance count and its horizon give way to those that are planned.
    effect : str
        What the shadow is to be worse by than the source: "p99 +5%", "mean +2ms", "error_rate +0.5%" (effects.py).
    power : float
        How often a test should find the effect.
    alpha : float
        Level of the test, two-sided: it finds a worse shadow when the interval of `compare(confidence=1 - alpha)` lies
        above 0. `compare` then says "worse" as long as its margin is well below the effect: set it so.
    shares : sequence of int, optional
        Sampling percentages, 1 to 100; by default 10, 25, 50 and 100.
    durations : sequence of float or str, optional
        Seconds, or "90min", "6h", "7d", at most 30 days; each begins at the scenario's t = 0. By default 1 and 6 hours,
        1 day, and the Schedule's length, which is 7 days without one.
    looks : int
        How often it is looked at, at equal distances: `compare(look=, looks=)` at each, until one finds something.
    replications : int
        How many tests are rehearsed with the effect, and as many without; at least 10.
    rate_per_s : float, optional
        Mean rate of the traffic, in requests a second.
    workers : int, optional
        On how many threads, by default one a core; for an executor, how many runs it is given at a time.
    executor : concurrent.futures.Executor, optional
        Runs the rehearsals instead of threads: a ProcessPoolExecutor, or a Dask client's `get_executor()`.
    prices : mapping of str to float, path or Prices, optional
        US dollars an hour by instance type, in place of the catalogue's (`read_prices`).
    progress : bool
        Show a progress bar over runs.

    Returns
    -------
    DataFrame
        A row a (share, duration), the same for the same scenario whoever ran it, with the columns

        sampling_percentage : int
        duration_s, duration_h : float
        power, power_error : float
            How often the test finds the effect, and the standard error of that; NaN where a rehearsal is too short for
            an interval.
        false_alarm, false_alarm_error : float
            How often it finds something, worse or better, in a shadow that is as good.
        visible_pct : float
            The smallest difference that it finds with the power asked for; like the next two in per cent of the
            source's metric, or in percentage points of a share. NaN when there is none.
        seen_none_pct, seen_effect_pct : float
            What the shadow truly differs by from the source in this test, without the effect and with it. They are 0
            and the effect where its instances are loaded as the source's, and the duration holds the same traffic as
            the longest.
        n_copies : float
            Expected.
        shadow_instances : int
            What the share needs.
        cost_usd : float
            Instances of both variants for the duration; NaN when a price is not known.
        reaches : bool
            Whether the power is reached.
        scale : float
            By how much longer the effect makes the shadow's service times; 1 for errors.
        how : str
            "simulated": rehearsals as long as the test; "extrapolated" from shorter ones.
        simulated_h : float
            How long each rehearsal was.
        note : str
            What the test cannot tell.

    Raises
    ------
    InputError, ValidationError
        When the scenario, the effect or a number cannot be used.
    """
    wanted, known = parse_effect(effect), read_prices(prices)
    number(power, "power", above=0.0, most=0.999)
    levels = levels_of(number(alpha, "alpha", above=0.0, most=0.5), looks)
    if (
        isinstance(replications, bool)
        or not isinstance(replications, int)
        or not LEAST_RUNS <= replications <= MOST_RUNS
    ):
        raise InputError("replications", f"must be an integer from {LEAST_RUNS} to {MOST_RUNS}", replications)
    if workers is not None:
        check_whole(workers, "workers", 1)
    whole = Scenario.of(scenario, rate_per_s=rate_per_s)
    percentages, lengths = shares_of(shares), durations_of(durations, whole)
    production = in_production(whole)
    keeps_up(production)
    chosen = segments(production, lengths, percentages, replications, wanted)
    longest = chosen[max(lengths)]
    total = 2 * replications * len(percentages) * len(set(chosen.values()))
    with progress_bar(total, progress, "runs") as advance:
        rehearse = partial(
            _rehearsed, workers=workers or (cores() if executor is None else IN_FLIGHT), executor=executor
        )
        scales = _scales(production, longest, wanted, range(replications, replications + SOLVING), rehearse)
        rows, runs = [], range(replications)
        for share in percentages:
            test = at_share(whole, share)
            shown: dict[Segment, tuple[Shown, Shown]] = {}
            for duration_s in lengths:
                segment = chosen[duration_s]
                if segment not in shown:
                    stage = Rehearsal.of(segment.of(test), wanted, levels)
                    none = rehearse(stage.with_shadow(scales.none), runs, advance)
                    with_it = rehearse(stage.with_shadow(scales.effect, wanted.amount), runs, advance)
                    shown[segment] = _show(
                        none, with_it, wanted, sees_same_arrivals(test), segment.mixture == longest.mixture
                    )
                rows.append(_row(test, duration_s, segment, shown[segment], wanted, power))
    frame = pd.DataFrame(rows).assign(cost_usd=lambda x: _costs(x, whole, known), scale=scales.effect / scales.none)
    return Sheet(frame[COLUMNS])


def recommend(frame: pd.DataFrame) -> pd.Series[Any] | None:
    """Return the cheapest row of a plan that reaches the power, None when none does.

    Of rows whose cost is not known, or is equal, the one of the fewest shadow instance-hours, then the shortest.

    Raises
    ------
    InputError
        When the frame is no plan.
    """
    if not isinstance(frame, pd.DataFrame) or not _NEEDED.issubset(frame.columns):
        raise InputError("frame", "must be what plan returned")
    found = frame[frame["reaches"]]
    if found.empty:
        return None
    hours = found["shadow_instances"] * found["duration_h"]
    order = found.assign(hours=hours).sort_values(["cost_usd", "hours", "duration_s"], kind="stable").index
    row: pd.Series[Any] = found.loc[order[0]]
    return row


def _rehearsed(
    stage: Rehearsal,
    runs: Sequence[int],
    advance: Callable[[int], object] = lambda _: None,
    *,
    workers: int,
    executor: Executor | None,
) -> list[RehearsalResult]:
    """Return the outcomes of some replications, in their order."""
    found: dict[int, RehearsalResult] = {}

    def done(r: int, outcome: RehearsalResult) -> None:
        found[r] = outcome
        advance(1)

    work_off(stage.outcome, runs, done, workers=workers, executor=executor)
    return [found[r] for r in runs]


def _scales(
    production: Scenario,
    segment: Segment,
    effect: Effect,
    runs: Sequence[int],
    rehearse: Callable[..., list[RehearsalResult]],
) -> Scales:
    """Return the factors on service times, found where all of the traffic is copied."""
    longer = segment.longer(SOLVING_REQUESTS / max(mean_rate(production, segment.whole_s), 1e-9))
    stage = Rehearsal.of(longer.of(production), effect, levels_of(0.05, 1))

    def both(scale: float) -> tuple[float, float]:
        found = rehearse(stage.with_shadow(scale), runs)
        return float(np.mean([x.source for x in found])), float(np.mean([x.shadow for x in found]))

    return scales_of(effect, both, same_model(production))


def _show(
    none: list[RehearsalResult], with_it: list[RehearsalResult], effect: Effect, equal: bool, like_longest: bool
) -> tuple[Shown, Shown]:
    """Return what was shown without the effect and with it, with what is known of the true differences.

    Without the effect an equal pool differs by nothing; with it by the effect, over the mixture of rates for which the
    factor was found, else by the mean of pairs with common random numbers. Other pools differ by what their rehearsals
    say.
    """
    if not equal:
        return Shown.of(none), Shown.of(with_it)
    if like_longest:
        return Shown.of(none, 0.0), Shown.of(with_it, effect.on(source_of(none)))
    return Shown.of(none, 0.0), Shown.of(with_it, *estimated(differences(with_it) - differences(none)))


def _row(
    test: Scenario, duration_s: float, segment: Segment, shown: tuple[Shown, Shown], effect: Effect, power: float
) -> dict[str, object]:
    none, with_it = shown
    k = duration_s / segment.length_s
    found = with_it.worse(k) if effect.amount > 0.0 else with_it.better(k)
    alarm = none.either(k)
    said = limits_of(test, segment, k)
    if with_it.undecided > 0.05:
        said.append(f"compare says {NOT_ENOUGH_DATA} of {with_it.undecided:.0%} of the rehearsals")
    pct = 100.0 if effect.is_share else 100.0 / with_it.source
    return {
        "sampling_percentage": test.experiment.sampling_percentage,
        "duration_s": duration_s,
        "duration_h": duration_s / HOUR_S,
        "power": found.value,
        "power_error": found.error,
        "false_alarm": alarm.value,
        "false_alarm_error": alarm.error,
        "visible_pct": with_it.visible(power, k, effect.amount) * pct,
        "seen_none_pct": none.true * pct,
        "seen_effect_pct": with_it.true * pct,
        "n_copies": with_it.n_copies * k,
        "shadow_instances": test.experiment.shadow.pool.instance_count,
        "reaches": found.value >= power,
        "how": "simulated" if k == 1.0 else "extrapolated",
        "simulated_h": segment.length_s / HOUR_S,
        "note": "; ".join(said),
    }


def _costs(frame: pd.DataFrame, scenario: Scenario, prices: Prices) -> pd.Series[float]:
    """Return the cost of the instances of both variants, NaN where a price is not known."""
    source, shadow = (variant.pool for variant in (scenario.experiment.source, scenario.experiment.shadow))
    per_h = source.instance_count * prices.of(source.instance_type).usd_per_h
    return frame["duration_h"] * (per_h + frame["shadow_instances"] * prices.of(shadow.instance_type).usd_per_h)
