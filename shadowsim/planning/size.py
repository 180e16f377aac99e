"""size(scenario, slo): how few instances, of which type, meet the goals, and what they cost."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from shadowsim.arrays import Floats
from shadowsim.aws.instances import lookup, quota_note
from shadowsim.engine.replicate import replication
from shadowsim.engine.simulate import simulate
from shadowsim.errors import InputError
from shadowsim.frames import ROLES
from shadowsim.planning.costs import Prices, PriceSource, read_prices
from shadowsim.planning.load import demand, raised
from shadowsim.planning.sheet import Sheet
from shadowsim.planning.size_search import (
    FIRST_LOOK,
    UTILISATION,
    CountFound,
    CountTried,
    Search,
    Trials,
    answer,
    missed,
)
from shadowsim.planning.slo import Goal, Slo, measure, parse_slo
from shadowsim.result import Result
from shadowsim.scenario.fields import check_whole, number
from shadowsim.scenario.scenario import Scenario


def size(
    scenario: Scenario | Mapping[str, Any] | str | os.PathLike[str],
    slo: str | Slo,
    instance_types: Collection[str] | None = None,
    variants: Sequence[str] = ("shadow",),
    headroom_pct: float = 0.0,
    *,
    confidence: float = 0.95,
    max_instances: int = 1000,
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
        Goals, such as "p99 <= 200ms and error_rate < 0.1%" (slo.py), for each of `variants` at least one.
    instance_types : collection of str, optional
        By default the variant's own and those of its service's `by_instance_type`. Another is listed as not measured.
    variants : sequence of {"source", "shadow"}
        Whose instances are counted. The source comes first, and the shadow is then sized beside the cheapest source.
    headroom_pct : float
        By how much the traffic's rate is raised first.
    confidence : float
        With which an answer is called certain.
    max_instances, max_replications : int
        Counts beyond this are not tried; and an answer that is not certain after so many runs of a count is given as
        uncertain.
    rate_per_s : float, optional
        Mean rate of the traffic, in requests a second.
    workers, executor, progress
        As for `simulate`, for each run.
    prices : mapping of str to float, path or Prices, optional
        US dollars an hour by instance type, in place of the catalogue's (`read_prices`).

    Returns
    -------
    DataFrame
        A row a (role, type), the source's first, then cheapest first, unknown prices and types without an answer last:
        role, instance_type, instance_count (missing where no count will do or nothing is known); for each goal its
        figure and its standard error (p99_s, p99_s_error; times in seconds), between replications or, of one, by its
        sections; utilisation; price_usd_per_h; cost_usd, of these instances for the length of the Schedule; binding,
        the goal that decides; one_fewer, what one instance less would do; certain; quota, the default quotas that the
        test would pass, other variant included; replications, of the answer; simulated_h, hours of one of them; note.

    Raises
    ------
    InputError, ValidationError
        When the scenario, the goals, a type or a number cannot be used.
    """
    wanted, known = parse_slo(slo), read_prices(prices)
    level = (1.0 - number(confidence, "confidence", above=0.5, most=0.9999)) / 2.0
    number(headroom_pct, "headroom_pct", above=-100.0)
    for name, value, least in (("max_instances", max_instances, 1), ("max_replications", max_replications, FIRST_LOOK)):
        check_whole(value, name, least)
    _check(wanted, variants)
    whole = Scenario.of(scenario, rate_per_s=rate_per_s)
    run = partial(simulate, workers=workers, executor=executor, progress=progress)
    rows: list[dict[str, object]] = []
    tried: list[dict[str, object]] = []
    for role in ROLES:
        if role not in variants:
            continue
        found = []
        for kind in _types(whole, role, instance_types):
            if kind not in _measured(whole, role):
                found.append(_blank(role, kind, known, "not measured: by_instance_type has no service for it"))
                continue
            search = _search(raised(whole.replace({f"{role}.instance_type": kind}), headroom_pct), role, wanted)

            bench = Trials(partial(_once, search, run), search.length, search.falling, search.overload)
            fewest = answer(search, bench, level, max_instances, max_replications)
            found.append(_row(search, bench, fewest, whole, known))
            tried += _tried(search, bench, whole, known)
        found.sort(key=_dearness)
        best = found[0]
        if role == "source" and best["instance_count"] is not pd.NA:
            changes = {f"source.{key}": best[key] for key in ("instance_type", "instance_count")}
            whole = whole.replace(changes)
        rows += found
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
            what = f"speaks of the {goal.role}, whose instances are not counted (variants)"
            raise InputError("slo", what, str(goal))


def _measured(scenario: Scenario, role: str) -> list[str]:
    """Return the types for which there is a service model, the variant's own first."""
    side = scenario.side(role)
    return list(dict.fromkeys([side.variant.pool.instance_type, *side.service.by_instance_type]))


def _types(scenario: Scenario, role: str, wanted: Collection[str] | None) -> list[str]:
    if isinstance(wanted, str):
        wanted = [wanted]
    names = _measured(scenario, role) if wanted is None else [lookup(kind).name for kind in wanted]
    if not names:
        raise InputError("instance_types", "must name at least one type")
    return list(dict.fromkeys(names))


def _search(scenario: Scenario, role: str, slo: Slo) -> Search:
    goals = tuple(sorted(slo.of(role), key=lambda goal: not goal.caps))
    if role == "source":
        # No bit of the source depends on its shadow, which can be left out of its runs.
        scenario = scenario.replace({"sampling_percentage": 0})
    return Search(scenario, role, goals, demand(scenario, role))


def _once(search: Search, run: Callable[[Scenario], Result], n: int, horizon_s: float, r: int) -> Floats:
    """Return the figures of one replication and their errors by its sections, shape (2, figures)."""
    result = run(replication(search.at(n, horizon_s), r))
    return np.array([measure(goal, result) for goal in (*search.goals, replace(UTILISATION, role=search.role))]).T


def _blank(role: str, kind: str, prices: Prices, note: str) -> dict[str, object]:
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


def _row(search: Search, bench: Trials, fewest: CountFound, whole: Scenario, prices: Prices) -> dict[str, object]:
    kind = search.scenario.side(search.role).variant.pool.instance_type
    row = _blank(search.role, kind, prices, fewest.note) | {"certain": fewest.certain}
    if fewest.n is None:
        return row
    n, trial, price = fewest.n, bench.trial(fewest.n), prices.of(kind)
    for goal, value, error in zip(search.goals, trial.mean, trial.error, strict=False):
        row |= {goal.column: value, f"{goal.column}_error": error}
    other = whole.side("source" if search.role == "shadow" else "shadow").variant.pool
    needed = {kind: n}
    needed[other.instance_type] = needed.get(other.instance_type, 0) + other.instance_count
    below = bench.trial(n - 1) if n > 1 else None
    runs = max(len(t.values) for t in (trial, below) if t)
    notes = [] if fewest.certain else [f"not certain after {runs} replications"]
    notes += [] if trial.enough else [f"of {trial.horizon_s / 3600.0:.3g} h, where its memory asks for longer ones"]
    notes += [price.origin] if math.isnan(price.usd_per_h) else []
    return row | {
        "instance_count": n,
        "utilisation": trial.mean[-1],
        "cost_usd": n * whole.experiment.duration_s / 3600.0 * price.usd_per_h,
        "binding": str(_tightest(below or trial, search.goals)),
        "one_fewer": _one_fewer(search, below, n),
        "quota": quota_note(needed),
        "replications": len(trial.values),
        "simulated_h": trial.horizon_s / 3600.0,
        "note": "; ".join(notes),
    }


def _tried(search: Search, bench: Trials, whole: Scenario, prices: Prices) -> list[dict[str, object]]:
    """Return a record a count that was tried, in order; an overloaded pool's figures may be the theory's."""
    kind = search.scenario.side(search.role).variant.pool.instance_type
    usd = whole.experiment.duration_s / 3600.0 * prices.of(kind).usd_per_h
    records = []
    for n, trial in sorted(bench.trials.items()):
        record: dict[str, object] = {"role": search.role, "instance_type": kind, "instance_count": n}
        for goal, value, error in zip(search.goals, trial.mean, trial.error, strict=False):
            record |= {goal.column: float(value), f"{goal.column}_error": float(error)}
        records.append(record | {"cost_usd": n * usd})
    return records


def _tightest(trial: CountTried, goals: Sequence[Goal]) -> Goal:
    """Return the goal with the least margin, relative to its limit."""
    return min(zip(goals, trial.mean, strict=False), key=lambda x: x[0].margin(x[1]) / (x[0].limit or 1e-12))[0]


def _one_fewer(search: Search, below: CountTried | None, n: int) -> str:
    if below is None:
        return "one instance is the least"
    if below.theory:
        load = search.need.peak_instances / (n - 1)
        return f"overloaded, up to {load:.3g} times what it can do: {missed(below, search.goals)} at least"
    return missed(below, search.goals) or "meets the goals, too"


def _dearness(row: Mapping[str, object]) -> tuple[bool, bool, float]:
    cost = float(row.get("cost_usd", math.nan))  # type: ignore[arg-type]
    return row["instance_count"] is pd.NA, math.isnan(cost), 0.0 if math.isnan(cost) else cost


def _frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    first = ["role", "instance_type", "instance_count"]
    last = ["utilisation", "price_usd_per_h", "cost_usd", "binding", "one_fewer", "certain", "quota", "replications"]
    last += ["simulated_h", "note"]
    figures = [key for row in rows for key in row if key not in (*first, *last)]
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys([*first, *figures, *last])))
    reals = [*figures, "utilisation", "price_usd_per_h", "cost_usd", "simulated_h"]
    dtypes: dict[str, Any] = dict.fromkeys(reals, float)
    return frame.astype(dtypes | {"instance_count": "Int64", "replications": "Int64", "certain": bool})
