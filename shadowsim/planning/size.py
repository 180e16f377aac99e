"""Finds how few instances, of which type, meet the goals, and what they cost.

`size` is the public function, and makes the rows; size_search.py searches one pool and type.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import pandas as pd

from shadowsim.aws.instances import lookup
from shadowsim.engine.simulate import announce_runs, simulate
from shadowsim.errors import InputError
from shadowsim.frames import ROLES
from shadowsim.option_defaults import HEADROOM_PCT, MAX_INSTANCES
from shadowsim.planning.costs import Prices, PriceSource, read_prices
from shadowsim.planning.load import with_headroom, with_length
from shadowsim.planning.sheet import FIXED, NOT_MEASURED, Sheet
from shadowsim.planning.size_policies import Design, PolicySearch, fixed_pool, settings_of
from shadowsim.planning.size_rows import (
    Row,
    beside_policies,
    blank,
    dearness,
    fixed_row,
    frame_of,
    policy_row,
    tried_counts,
)
from shadowsim.planning.size_search import FIRST_LOOK, CountFound, Search
from shadowsim.planning.slo import Slo, parse_slo, with_goodput
from shadowsim.quantities import integer, number
from shadowsim.scenario.scenario import Scenario
from shadowsim.statistics.terms import CONFIDENCE

_RUNS_OF_A_SEARCH = 10  # or so, for an announcement


def size(
    scenario: Scenario | Mapping[str, Any] | str | os.PathLike[str],
    slo: str | Slo,
    instance_types: Collection[str] | None = None,
    variants: Sequence[str] = ("shadow",),
    headroom_pct: float = HEADROOM_PCT,
    *,
    confidence: float = CONFIDENCE,
    max_instances: int = MAX_INSTANCES,
    max_replications: int = 12,
    rate_per_s: float | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    prices: PriceSource | Prices = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Find the fewest instances that meet goals, for each instance type, and the cheapest scaling policy.

    A variant with `scaling` gets three rows per type: the fixed count, the policy of the least cost that meets the
    goals (size_policies.py), and AWS's rule of thumb, whether it meets them or not.

    Parameters
    ----------
    scenario : Scenario, mapping, JSON text or path
        A scenario, or a plain CreateInferenceExperiment request, which needs `rate_per_s`.
    slo : str or Slo
        Goals, such as "p99 <= 200ms and error_rate < 0.1%" (slo.py); at least one for each of `variants`.
    instance_types : collection of str, optional
        By default the variant's own and those of its service's `by_instance_type`. Others are listed as not measured.
    variants : sequence of {"source", "shadow"}
        The roles whose instances are counted. The source comes first; the shadow is then sized beside the cheapest
        source.
    headroom_pct : float
        The percentage by which the traffic's rate is raised first.
    confidence : float
        Confidence needed to call an answer certain.
    max_instances : int
        Upper limit of instances to try.
    max_replications : int
        Upper limit of runs per count; an answer that is still open after these is given as uncertain.
    rate_per_s : float, optional
        Mean rate of the traffic, in requests per second.
    workers, executor, progress
        As for `simulate`, for each run.
    prices : mapping of str to float, path or Prices, optional
        US dollars per hour by instance type, in place of the catalogue's (`read_prices`).

    Returns
    -------
    DataFrame
        One row per (role, type), or (role, type, pool): the source's first, then the cheapest first, at equal costs
        that with the fewest instances; unknown prices, missed goals and types without an answer come last. The columns
        are

        role, instance_type : str
        instance_count : int
            Missing where no count meets the goals or the type is not measured. A policy begins with it.
        pool : str
            fixed, policy, or rule of thumb; like the next five only where a variant has `scaling`.
        target : float
        min, max : int
            Of a policy; missing for a fixed count.
        billed_instances : float
            Mean number that is charged for: all that exist, also while they start, drain or are down.
        met : bool
            Whether the goals are met; otherwise a row with a count always meets them.
        p99_s, p99_s_error, ... : float
            Each goal's figure and its standard error; times in seconds. The error is that between replications, or of
            a single run, by its sections.
        utilisation : float
        price_usd_per_h : float
        cost_usd : float
            Of these instances, or the mean number that a policy has, for the length of the Schedule.
        binding : str
            The goal that decides.
        one_fewer : str
            What one instance fewer would do, as count or as a policy's `min`.
        one_lost, zone_lost : str
            Of a fixed count: what the pool does while one instance is down, or a third of them, as those of one of
            three zones; and how many instances hold the goals then.
        certain : bool
        quota : str
            The default quotas that the test would exceed, the other variant included.
        replications : int
            Runs of the answer.
        simulated_h : float
            Length of one of them.
        note : str

    Raises
    ------
    InputError, ValidationError
        When the scenario, the goals, a type or a number cannot be used.

    Examples
    --------
    >>> import shadowsim as ss
    >>> traffic = {"process": "poisson", "rate_per_s": 500}
    >>> scenario = ss.default_scenario().replace({"traffic": traffic, "horizon_s": "1h"})
    >>> frame = ss.size(scenario, "p99 <= 100ms")
    >>> frame[["instance_type", "instance_count", "certain"]].to_dict("records")
    [{'instance_type': 'ml.m5.xlarge', 'instance_count': 2, 'certain': True}]
    >>> frame["one_fewer"][0]
    'overloaded, receives up to 1.25 times its capacity: at least p99 60.0 s, against p99 <= 100ms'
    """
    goals, price_list = parse_slo(slo), read_prices(prices)
    alpha = (1.0 - number(confidence, "confidence", above=0.5, most=0.9999)) / 2.0
    number(headroom_pct, "headroom_pct", above=-100.0)
    integer(max_instances, "max_instances", least=1)
    integer(max_replications, "max_replications", least=FIRST_LOOK)
    _check(goals, variants)
    sized = with_goodput(Scenario.of(scenario, rate_per_s=rate_per_s), goals)
    search_of = partial(
        Search.of,
        slo=goals,
        simulate=partial(simulate, workers=workers, executor=executor, progress=progress),
        alpha=alpha,
        max_instances=max_instances,
        max_replications=max_replications,
    )
    rows: list[Row] = []
    tried: list[Row] = []
    for role in ROLES:
        if role not in variants:
            continue
        answers = []
        for kind in _types(sized, role, instance_types):
            if kind not in _measured_types(sized, role):
                answers.append(blank(role, kind, price_list, NOT_MEASURED))
                continue
            busier = with_headroom(sized.replace({f"{role}.instance_type": kind}), headroom_pct)
            search = search_of(fixed_pool(busier, role), role)
            if progress and executor is None:
                length_s = search.length(busier.side(role).n_instances).long_s
                announce_runs([with_length(busier, length_s, {})], _RUNS_OF_A_SEARCH, guessed=True)
            fewest = search.fewest()
            row = fixed_row(search, fewest, sized, price_list)
            if busier.side(role).service.scaling is None:
                answers.append(row)
            else:
                answers += [beside_policies(row), *_policy_rows(search_of(busier, role), fewest, sized, price_list)]
            tried += tried_counts(search, sized, price_list)
        answers.sort(key=dearness)
        best = answers[0]
        if role == "source" and best["instance_count"] is not pd.NA:
            sized = _with_answer(sized, role, best)
        rows += answers
    sheet = Sheet(frame_of(rows))
    sheet.attrs |= {"tried": tried, "goals": str(goals), "duration_s": sized.experiment.duration_s}
    return sheet


def _policy_rows(search: Search, fewest: CountFound, sized: Scenario, prices: Prices) -> list[Row]:
    """Return the rows of the cheapest policy and of the rule of thumb; none where no fixed count meets the goals."""
    if fewest.n is None:
        return []
    policies = PolicySearch.of(search, fewest.n)
    return [policy_row(policies, found, sized, prices) for found in (policies.cheapest(), policies.rule_of_thumb())]


def _with_answer(scenario: Scenario, role: str, best: Row) -> Scenario:
    """Return the scenario with the pool of a row."""
    typed = scenario.replace({f"{role}.instance_type": best["instance_type"]})
    if best.get("pool", FIXED) == FIXED:
        return fixed_pool(typed, role).replace({f"{role}.instance_count": best["instance_count"]})
    design = Design(best["target"], best["min"], best["max"], best["instance_count"])
    return typed.replace(settings_of(role, design))


def _check(slo: Slo, variants: Sequence[str]) -> None:
    if isinstance(variants, str) or not variants or any(role not in ROLES for role in variants):
        raise InputError("variants", "must be some of source and shadow", variants)
    for role in variants:
        if not slo.of(role):
            raise InputError("slo", f"has no goal for the {role}, whose instances are to be counted", str(slo))
    for goal in slo.goals:
        if goal.role not in variants:
            what = f"has a goal for the {goal.role}, whose instances are not counted (variants)"
            raise InputError("slo", what, str(goal))


def _measured_types(scenario: Scenario, role: str) -> list[str]:
    """Return the types that have a service model, the variant's own first."""
    side = scenario.side(role)
    return list(dict.fromkeys([side.variant.pool.instance_type, *side.service.by_instance_type]))


def _types(scenario: Scenario, role: str, wanted: Collection[str] | None) -> list[str]:
    if isinstance(wanted, str):
        wanted = [wanted]
    names = _measured_types(scenario, role) if wanted is None else [lookup(kind).name for kind in wanted]
    if not names:
        raise InputError("instance_types", "must name at least one type")
    return list(dict.fromkeys(names))
