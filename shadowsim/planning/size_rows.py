"""Makes the rows of `size`: of a fixed count, of a scaling policy, and of what has no answer.

An instance that is down for long leaves the pool that one fewer would be: both routings choose among those that serve.
So `one_lost` and `zone_lost` tell the figures of smaller pools. A variant's instances are spread over three zones, the
largest of which has a third of them, rounded up. What the failing instances hold is lost at that moment besides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from shadowsim.aws.instances import quota_note
from shadowsim.planning.costs import Prices
from shadowsim.planning.sheet import FIXED, POOL_COLUMNS, comparable_usd
from shadowsim.planning.size_policies import PolicyFound, PolicySearch
from shadowsim.planning.size_search import CountFound, DesignTried, Search
from shadowsim.planning.slo import Goal
from shadowsim.scenario.scenario import Scenario

ZONES = 3
Row = dict[str, Any]
_FIRST = ["role", "instance_type", "instance_count"]
_LAST = [
    *("utilisation", "price_usd_per_h", "cost_usd", "binding", "one_fewer", "one_lost", "zone_lost", "certain"),
    *("quota", "replications", "simulated_h", "note"),
]


def blank(role: str, kind: str, prices: Prices, note: str) -> Row:
    """Return the row of a type without an answer."""
    return {
        "role": role,
        "instance_type": kind,
        "instance_count": pd.NA,
        "price_usd_per_h": prices.of(kind).usd_per_h,
        "binding": "",
        "one_fewer": "",
        "one_lost": "",
        "zone_lost": "",
        "certain": False,
        "quota": "",
        "note": note,
    }


def fixed_row(search: Search, fewest: CountFound, scenario: Scenario, prices: Prices) -> Row:
    """Return the row of a type whose counts were searched."""
    kind = _type(search.scenario, search.role)
    row = blank(search.role, kind, prices, fewest.note) | {"certain": fewest.certain}
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
        **dict(_figures(search.goals, answer)),
        "instance_count": n,
        "utilisation": answer.mean[len(search.goals)],
        "cost_usd": n * scenario.experiment.duration_s / 3600.0 * price.usd_per_h,
        "binding": str(_tightest(one_fewer or answer, search.goals)),
        "one_fewer": _one_fewer_text(search, one_fewer, n),
        "one_lost": _lost_text(search, n, 1, n + 1, "one down"),
        "zone_lost": _lost_text(search, n, -(-n // ZONES), -(-n * ZONES // (ZONES - 1)), "a third down"),
        "quota": _quota(search.role, kind, n, scenario),
        "replications": len(answer.values),
        "simulated_h": answer.horizon_s / 3600.0,
        "note": "; ".join(notes),
    }


def policy_row(search: PolicySearch, found: PolicyFound, scenario: Scenario, prices: Prices) -> Row:
    """Return the row of a scaling policy: the cheapest that meets the goals, or that of the rule of thumb."""
    kind = _type(search.search.scenario, search.role)
    price = prices.of(kind)
    row = blank(search.role, kind, prices, found.note) | {"pool": found.kind, "certain": found.certain}
    if found.design is None:
        return row
    design, tried = found.design, found.tried
    notes = [note for note in (found.note, price.origin if math.isnan(price.usd_per_h) else "") if note]
    return {
        **row,
        **dict(_figures(search.goals, tried)),
        "instance_count": design.start,
        "target": design.target,
        "min": design.least,
        "max": design.most,
        "billed_instances": tried.mean[-1],
        "met": found.met,
        "utilisation": tried.mean[len(search.goals)],
        "cost_usd": tried.mean[-1] * scenario.experiment.duration_s / 3600.0 * price.usd_per_h,
        "binding": str(_tightest(tried, search.goals)),
        "one_fewer": found.one_fewer,
        "quota": _quota(search.role, kind, design.most, scenario),
        "replications": len(tried.values),
        "simulated_h": tried.horizon_s / 3600.0,
        "note": "; ".join(notes),
    }


def beside_policies(row: Row) -> Row:
    """Return the row of a fixed count with the columns that tell it from scaling policies."""
    answered = row["instance_count"] is not pd.NA
    billed = {"billed_instances": float(row["instance_count"])} if answered else {}
    return row | {"pool": FIXED, "met": answered} | billed


def tried_counts(search: Search, scenario: Scenario, prices: Prices) -> list[Row]:
    """Return one record per count that was tried, in order; an overloaded pool's figures may be lower bounds."""
    kind = _type(search.scenario, search.role)
    usd = scenario.experiment.duration_s / 3600.0 * prices.of(kind).usd_per_h
    return [
        {"role": search.role, "instance_type": kind, "instance_count": n}
        | dict(_figures(search.goals, tried))
        | {"cost_usd": n * usd}
        for n, tried in sorted(search.tried.items())
    ]


def dearness(row: Row) -> tuple[bool, bool, bool, float, object]:
    """Return a sort key: by cost, at equal costs by count; then unknown costs, missed goals, and no answer."""
    if row["instance_count"] is pd.NA:
        return True, True, True, 0.0, 0
    cost = float(row["cost_usd"])
    known = 0.0 if math.isnan(cost) else comparable_usd(cost)
    return False, not row.get("met", True), math.isnan(cost), known, row["instance_count"]


def frame_of(rows: list[Row]) -> pd.DataFrame:
    """Return rows as the frame of `size`; columns of policies are there if a variant scales."""
    pool = list(POOL_COLUMNS) if any("pool" in row for row in rows) else []
    figures = [key for row in rows for key in row if key not in (*_FIRST, *pool, *_LAST)]
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys([*_FIRST, *pool, *figures, *_LAST])))
    reals = [*figures, "utilisation", "price_usd_per_h", "cost_usd", "simulated_h"]
    dtypes: dict[str, Any] = dict.fromkeys(reals, float)
    if pool:
        dtypes |= {"target": float, "billed_instances": float, "min": "Int64", "max": "Int64", "met": bool}
        frame = frame.fillna({"met": False, "pool": FIXED})
    return frame.astype(dtypes | {"instance_count": "Int64", "replications": "Int64", "certain": bool})


def _type(scenario: Scenario, role: str) -> str:
    return scenario.side(role).variant.pool.instance_type


def _figures(goals: Sequence[Goal], tried: DesignTried) -> Iterator[tuple[str, float]]:
    """Yield the columns of the goals' figures and standard errors with their values."""
    for goal, value, error in zip(goals, tried.mean, tried.error, strict=False):
        yield goal.column, float(value)
        yield f"{goal.column}_error", float(error)


def _quota(role: str, kind: str, n: int, scenario: Scenario) -> str:
    """Return the default quotas that both variants' instances exceed."""
    other = scenario.side("source" if role == "shadow" else "shadow")
    scaling, pool = other.service.scaling, other.variant.pool
    needed: dict[str, int] = {kind: n}
    needed[pool.instance_type] = needed.get(pool.instance_type, 0) + (scaling.most if scaling else pool.instance_count)
    return quota_note(needed)


def _tightest(tried: DesignTried, goals: Sequence[Goal]) -> Goal:
    """Return the goal with the least margin, relative to its limit."""
    figures = zip(goals, tried.mean, strict=False)
    return min(figures, key=lambda figure: figure[0].margin(figure[1]) / (figure[0].limit or 1e-12))[0]


def _one_fewer_text(search: Search, one_fewer: DesignTried | None, n: int) -> str:
    if one_fewer is None:
        return "one instance is the least"
    return _missed_text(search, one_fewer, n - 1) or "meets the goals, too"


def _missed_text(search: Search, tried: DesignTried, n: int) -> str:
    """Return the goals that n instances miss, "" for none."""
    missed = tried.missed_text(search.goals)
    if tried.is_overload:
        load = search.demand.peak_instances / n
        return f"overloaded, receives up to {load:.3g} times its capacity: at least {missed}"
    return missed


def _lost_text(search: Search, n: int, n_lost: int, enough: int, when: str) -> str:
    """Return what a pool of n instances does while some of them are down, and how many hold the goals then."""
    left = n - n_lost
    hold = f"{enough:,} instances hold the goals with {when}"
    if left < 1:
        return f"{n_lost} of {n}: every request fails until the repair; {hold}"
    tried, before = search.try_count(left), search.try_count(n)
    goal = _tightest(tried, search.goals)
    i = search.goals.index(goal)
    change = f"{n_lost} of {n}: {goal.figure_text(before.mean[i])} becomes {goal.figure_text(tried.mean[i])}"
    missed = _missed_text(search, tried, left)
    if not missed:
        return f"{change}, which the goals allow"
    return f"{n_lost} of {n}: {missed}, from {goal.figure_text(before.mean[i])}; {hold}"
