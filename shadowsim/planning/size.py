"""Finds how few instances, of which type, meet the goals, and what they cost.

`size` is the public function, and makes the rows; size_search.py searches one pool and type.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import pandas as pd

from shadowsim.aws.instances import lookup, quota_note
from shadowsim.engine.simulate import simulate
from shadowsim.errors import InputError
from shadowsim.frames import ROLES
from shadowsim.option_defaults import HEADROOM_PCT, MAX_INSTANCES
from shadowsim.planning.costs import Prices, PriceSource, read_prices
from shadowsim.planning.load import with_headroom
from shadowsim.planning.sheet import NOT_MEASURED, Sheet, comparable_usd
from shadowsim.planning.size_search import FIRST_LOOK, CountFound, CountTried, Search
from shadowsim.planning.slo import Goal, Slo, parse_slo
from shadowsim.quantities import integer, number
from shadowsim.scenario.scenario import Scenario
from shadowsim.statistics.terms import CONFIDENCE

Row = dict[str, object]


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
    """Find the fewest instances that meet goals, for each instance type.

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
        One row per (role, type): the source's first, then the cheapest first, at equal costs that with the fewest
        instances; unknown prices and types without an answer come last. The columns are

        role, instance_type : str
        instance_count : int
            Missing where no count meets the goals or the type is not measured.
        p99_s, p99_s_error, ... : float
            Each goal's figure and its standard error; times in seconds. The error is that between replications, or of
            a single run, by its sections.
        utilisation : float
        price_usd_per_h : float
        cost_usd : float
            Of these instances for the length of the Schedule.
        binding : str
            The goal that decides.
        one_fewer : str
            What one instance fewer would do.
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
    sized = Scenario.of(scenario, rate_per_s=rate_per_s)
    for role in variants:
        side = sized.side(role)
        if side.service.scaling is not None:
            constraint = "must be left out (null): a fixed number of instances is sought"
            raise InputError(f"services.{side.variant.name}.scaling", constraint)
    run = partial(simulate, workers=workers, executor=executor, progress=progress)
    rows: list[Row] = []
    tried: list[Row] = []
    for role in ROLES:
        if role not in variants:
            continue
        answers = []
        for kind in _types(sized, role, instance_types):
            if kind not in _measured_types(sized, role):
                answers.append(_blank(role, kind, price_list, NOT_MEASURED))
                continue
            busier = with_headroom(sized.replace({f"{role}.instance_type": kind}), headroom_pct)
            search = Search.of(
                busier, role, goals, run, alpha=alpha, max_instances=max_instances, max_replications=max_replications
            )
            answers.append(_answer(search, search.fewest(), sized, price_list))
            tried += _tried_counts(search, sized, price_list)
        answers.sort(key=_dearness)
        best = answers[0]
        if role == "source" and best["instance_count"] is not pd.NA:
            changes = {f"source.{key}": best[key] for key in ("instance_type", "instance_count")}
            sized = sized.replace(changes)
        rows += answers
    sheet = Sheet(_frame(rows))
    sheet.attrs["tried"] = tried
    return sheet


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


def _blank(role: str, kind: str, prices: Prices, note: str) -> Row:
    """Return the row of a type without an answer."""
    return {
        "role": role,
        "instance_type": kind,
        "instance_count": pd.NA,
        "price_usd_per_h": prices.of(kind).usd_per_h,
        "binding": "",
        "one_fewer": "",
        "certain": False,
        "quota": "",
        "note": note,
    }


def _answer(search: Search, fewest: CountFound, scenario: Scenario, prices: Prices) -> Row:
    """Return the row of a type that was searched."""
    kind = _type(search)
    row = _blank(search.role, kind, prices, fewest.note) | {"certain": fewest.certain}
    if fewest.n is None:
        return row
    n, answer, price = fewest.n, search.try_count(fewest.n), prices.of(kind)
    one_fewer = search.try_count(n - 1) if n > 1 else None
    n_runs = max(len(tried.values) for tried in (answer, one_fewer) if tried)
    notes = [] if fewest.certain else [f"not certain after {n_runs} replications"]
    if not answer.enough:
        notes.append(f"runs of {answer.horizon_s / 3600.0:.3g} h are shorter than its queues' memory asks for")
    notes += [price.origin] if math.isnan(price.usd_per_h) else []
    return {
        **row,
        **dict(_figures(search, answer)),
        "instance_count": n,
        "utilisation": answer.mean[-1],
        "cost_usd": n * scenario.experiment.duration_s / 3600.0 * price.usd_per_h,
        "binding": str(_tightest(one_fewer or answer, search.goals)),
        "one_fewer": _one_fewer_text(search, one_fewer, n),
        "quota": quota_note(_instances_needed(search.role, kind, n, scenario)),
        "replications": len(answer.values),
        "simulated_h": answer.horizon_s / 3600.0,
        "note": "; ".join(notes),
    }


def _tried_counts(search: Search, scenario: Scenario, prices: Prices) -> list[Row]:
    """Return one record per count that was tried, in order; an overloaded pool's figures may be lower bounds."""
    kind = _type(search)
    usd = scenario.experiment.duration_s / 3600.0 * prices.of(kind).usd_per_h
    return [
        {"role": search.role, "instance_type": kind, "instance_count": n}
        | dict(_figures(search, tried))
        | {"cost_usd": n * usd}
        for n, tried in sorted(search.tried.items())
    ]


def _type(search: Search) -> str:
    return search.scenario.side(search.role).variant.pool.instance_type


def _figures(search: Search, tried: CountTried) -> Iterator[tuple[str, float]]:
    """Yield the columns of the goals' figures and standard errors with their values."""
    for goal, value, error in zip(search.goals, tried.mean, tried.error, strict=False):
        yield goal.column, float(value)
        yield f"{goal.column}_error", float(error)


def _instances_needed(role: str, kind: str, n: int, scenario: Scenario) -> dict[str, int]:
    """Return the instances of both variants by type."""
    other = scenario.side("source" if role == "shadow" else "shadow").variant.pool
    needed = {kind: n}
    needed[other.instance_type] = needed.get(other.instance_type, 0) + other.instance_count
    return needed


def _tightest(tried: CountTried, goals: Sequence[Goal]) -> Goal:
    """Return the goal with the least margin, relative to its limit."""
    figures = zip(goals, tried.mean, strict=False)
    return min(figures, key=lambda figure: figure[0].margin(figure[1]) / (figure[0].limit or 1e-12))[0]


def _one_fewer_text(search: Search, one_fewer: CountTried | None, n: int) -> str:
    if one_fewer is None:
        return "one instance is the least"
    missed = one_fewer.missed_text(search.goals)
    if one_fewer.is_overload:
        load = search.demand.peak_instances / (n - 1)
        return f"overloaded, receives up to {load:.3g} times its capacity: at least {missed}"
    return missed or "meets the goals, too"


def _dearness(row: Row) -> tuple[bool, bool, float, object]:
    """Return a sort key: by cost, at equal costs by count; then unknown costs, then types without an answer."""
    if row["instance_count"] is pd.NA:
        return True, True, 0.0, 0
    cost = float(row["cost_usd"])  # type: ignore[arg-type]
    known = 0.0 if math.isnan(cost) else comparable_usd(cost)
    return False, math.isnan(cost), known, row["instance_count"]


def _frame(rows: list[Row]) -> pd.DataFrame:
    first = ["role", "instance_type", "instance_count"]
    last = ["utilisation", "price_usd_per_h", "cost_usd", "binding", "one_fewer", "certain", "quota", "replications"]
    last += ["simulated_h", "note"]
    figures = [key for row in rows for key in row if key not in (*first, *last)]
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys([*first, *figures, *last])))
    reals = [*figures, "utilisation", "price_usd_per_h", "cost_usd", "simulated_h"]
    dtypes: dict[str, Any] = dict.fromkeys(reals, float)
    return frame.astype(dtypes | {"instance_count": "Int64", "replications": "Int64", "certain": bool})
