"""Finds the greatest rate of the traffic that the given pools hold within goals, with an interval.

`capacity` is the public function, and makes the rows; capacity_search.py searches one pool.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import pandas as pd

from shadowsim.engine.replicate import replicate, replication
from shadowsim.engine.simulate import simulate
from shadowsim.errors import InputError
from shadowsim.frames import ROLES
from shadowsim.option_defaults import CAPACITY_REPLICATIONS
from shadowsim.planning.capacity_search import GreatestRate, RateSearch
from shadowsim.planning.sheet import Sheet
from shadowsim.planning.slo import Slo, parse_slo, with_goodput
from shadowsim.quantities import integer, number
from shadowsim.result import Result
from shadowsim.scenario.scenario import Scenario
from shadowsim.statistics.terms import CONFIDENCE

MOST_REPLICATIONS = 1_000
Row = dict[str, Any]
_FIRST = ["role", "instance_type", "instance_count", "rate_per_s", "low_per_s", "high_per_s", "factor"]
_LAST = ["utilisation", "binding", "limit_per_s", "replications", "simulated_h", "note"]


def capacity(
    scenario: Scenario | Mapping[str, Any] | str | os.PathLike[str],
    slo: str | Slo,
    *,
    confidence: float = CONFIDENCE,
    replications: int = CAPACITY_REPLICATIONS,
    rate_per_s: float | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Find the greatest rate of the traffic at which the given pools meet goals.

    The whole traffic is multiplied by a factor: all streams, and all of a profile. A trace is not thinned but played
    faster or slower: it keeps its requests and their order, and its bursts get shorter. The share that is copied to the
    shadow stays.

    Parameters
    ----------
    scenario : Scenario, mapping, JSON text or path
        A scenario, or a plain CreateInferenceExperiment request, which needs `rate_per_s`.
    slo : str or Slo
        Goals, such as "p99 <= 200ms and error_rate < 0.1%" (slo.py). One that a lower rate can only hurt, such as
        "utilisation >= 50%", must hold at the greatest rate for the rest.
    confidence : float
        Of the interval.
    replications : int
        Independent runs at the greatest rate, from which the interval comes; at least 3.
    rate_per_s : float, optional
        Mean rate of the traffic, in requests per second.
    workers, executor, progress
        As for `replicate`.

    Returns
    -------
    DataFrame
        One row per role that has goals, that with the lowest rate first: it is the answer for all goals. The columns
        are

        role, instance_type : str
        instance_count : int
        rate_per_s, low_per_s, high_per_s : float
            The greatest mean rate of requests at the endpoint, also for the shadow, and its interval
            (capacity_search.py); NaN where no rate holds. The upper end is infinite where every rate that was tried
            holds.
        factor : float
            The rate over that of the scenario.
        p99_s, p99_s_error, ... : float
            Each goal's figure at this rate and its standard error, between replications; times in seconds.
        utilisation, utilisation_error : float
        binding : str
            The goal that decides, or "stability".
        limit_per_s : float
            Stability limit: from this rate on queues grow without end. NaN where requests can be lost, so that there is
            none, or nothing was searched.
        replications : int
        simulated_h : float
            Length of one of them.
        note : str
            Why no rate holds, or what the figures rest on.

    Raises
    ------
    InputError, ValidationError
        When the scenario, the goals or a number cannot be used.

    Examples
    --------
    >>> import shadowsim as ss
    >>> traffic = {"process": "poisson", "rate_per_s": 500}
    >>> scenario = ss.default_scenario().replace({"traffic": traffic, "horizon_s": "1h"})
    >>> frame = ss.capacity(scenario, "p99 <= 100ms")
    >>> frame[["role", "binding"]].to_dict("records")
    [{'role': 'shadow', 'binding': 'p99 <= 100ms'}]
    >>> bool(frame["low_per_s"][0] < frame["rate_per_s"][0] < frame["high_per_s"][0] < frame["limit_per_s"][0] == 800.0)
    True
    """
    goals = parse_slo(slo)
    alpha = 1.0 - number(confidence, "confidence", above=0.5, most=0.9999)
    integer(replications, "replications", least=3, most=MOST_REPLICATIONS)
    base = with_goodput(Scenario.of(scenario, rate_per_s=rate_per_s), goals)
    roles = [role for role in ROLES if goals.of(role)]
    limiting = [goal for goal in goals.goals if goal.more_instances_help]
    for role in roles:
        if not any(goal.role == role for goal in limiting):
            text = " and ".join(map(str, goals.of(role)))
            raise InputError("slo", "needs a goal that a higher rate breaks, such as an upper limit of p99", text)

    def run(busier: Scenario, n: int) -> Sequence[Result]:
        if n == 1:
            return [simulate(replication(busier, 0), workers=workers, executor=executor, progress=progress)]
        return replicate(busier, n, workers=workers, executor=executor, progress=progress)

    rows, tried = list[Row](), list[Row]()
    for role in roles:
        search = RateSearch.of(
            base, role, goals.of(role), run, n_replications=replications, alpha=alpha, n_goals=len(limiting)
        )
        rows.append(_row(search, search.greatest()))
        tried += _tried(search)
    rows.sort(key=lambda row: (not math.isnan(row["rate_per_s"]), row["rate_per_s"]))
    figures = [key for row in rows for key in row if key not in (*_FIRST, *_LAST)]
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys([*_FIRST, *figures, *_LAST])))
    sheet = Sheet(frame.astype({"instance_count": "Int64", "replications": "Int64"}))
    sheet.attrs |= {"tried": tried, "goals": str(goals), "confidence": confidence}
    return sheet


def _row(search: RateSearch, found: GreatestRate) -> Row:
    pool, rate = search.scenario.side(search.role).variant.pool, search.demand.rate_per_s
    row: Row = {
        "role": search.role,
        "instance_type": pool.instance_type,
        "instance_count": pool.instance_count,
        "rate_per_s": found.factor * rate,
        "low_per_s": found.low * rate,
        "high_per_s": found.high * rate,
        "factor": found.factor,
        "limit_per_s": found.limit * rate,
        "binding": found.binding,
        "replications": pd.NA,
        "note": found.note,
    }
    if found.point is None:
        return row
    point, notes = found.point, [found.note] if found.note else []
    for goal, value, error in zip(search.figures, point.mean, point.error, strict=True):
        row |= {goal.column: float(value), f"{goal.column}_error": float(error)}
    traffic = search.scenario.traffic
    if not search.enough:
        notes.append(f"runs of {point.horizon_s / 3600.0:.3g} h are shorter than its queues' memory asks for")
    if traffic.is_recorded:
        notes.append("every run has the same trace, so that the interval says nothing of other days (traffic.resample)")
    return row | {
        "replications": len(point.values),
        "simulated_h": point.horizon_s / 3600.0,
        "note": "; ".join(notes),
    }


def _tried(search: RateSearch) -> list[Row]:
    """Return one record per rate that was tried, in order."""
    rows = []
    for factor, point in sorted((search.earlier | search.tried).items()):
        row: Row = {"role": search.role, "rate_per_s": factor * search.demand.rate_per_s}
        for goal, value, error in zip(search.figures, point.mean, point.error, strict=True):
            row |= {goal.column: float(value), f"{goal.column}_error": float(error)}
        rows.append(row | {"replications": len(point.values)})
    return rows
