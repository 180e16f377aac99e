"""Simulates an overloaded pool with the instances that would just keep up, to tell their p99.

The verdict of a run knows how many instances a pool would need, and their load. Its quantiles take a run of their own,
which is as short as p99 allows.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path

from shadowsim.aws.instances import duration_text
from shadowsim.engine.simulate import simulate
from shadowsim.errors import InputError
from shadowsim.planning.load import MOST_REQUESTS, demand_of, run_length, with_length
from shadowsim.scenario.scenario import Scenario
from shadowsim.text import OVERLOADED, time_text
from shadowsim.verdict import PoolVerdict, Verdict

_QUANTILE = 0.99
_LEAST_WINDOWS = 100


def enough_texts(scenario: Scenario, verdict: Verdict) -> list[str]:
    """Return a sentence for each overloaded pool: its p99 with the instances that it would need.

    There is none for a pool whose need is unknown, or where such a run would take too many requests.
    """
    return [text for pool in verdict.pools if (text := _enough_text(scenario, pool))]


def _enough_text(scenario: Scenario, pool: PoolVerdict) -> str:
    n = pool.instances_needed
    if pool.status != OVERLOADED or n is None:
        return ""
    try:
        enough = scenario.replace({f"{pool.role}.instance_count": n, "run.sample_requests": 0})
        demand = demand_of(enough, pool.role)
        length = run_length(enough, pool.role, demand, n, _QUANTILE)
        if length.long_s * demand.rate_per_s > 2 * MOST_REQUESTS:
            return ""
        period_s = min(enough.period_s, length.long_s / _LEAST_WINDOWS)
        enough = with_length(enough, length.long_s, {"run.period_s": period_s})
        status, p99_s = _outcome(json.dumps(enough.to_dict(), sort_keys=True), enough.base_dir, pool.role)
    except InputError:
        return ""  # such as a pool that would be too large
    length_text = duration_text(length.long_s)
    with_n = f"With {n:,} instances {pool.variant}"
    if status == OVERLOADED:
        return f"{with_n} would still be {OVERLOADED} in a run of {length_text}."
    if math.isnan(p99_s):
        return f"{with_n} would be so busy that a run of {length_text} does not show its p99."
    return f"{with_n} would have a p99 of {time_text(p99_s)} in a run of {length_text}."


@lru_cache(maxsize=8)
def _outcome(document: str, base_dir: Path, role: str) -> tuple[str, float]:
    """Return a pool's status and its p99 in seconds; NaN if that is uncertain."""
    result = simulate(Scenario.from_dict(json.loads(document), base_dir))
    variant = result.scenario.side(role).variant.name
    status = next(pool.status for pool in result.verdict.pools if pool.role == role)
    uncertain = "p99_s" in result.uncertain[variant]
    return status, math.nan if uncertain else float(result.quantile(_QUANTILE)[variant])
