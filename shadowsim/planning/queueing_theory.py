"""Computes what queueing theory says of a pool: its mean wait and latency, where a formula holds.

An instance under RANDOM routing is a queue of its own: its arrivals are those of the endpoint, each kept with the share
that is copied to the variant over the number of instances. Three formulas hold for it:

* M/G/1, Pollaczek-Khinchine (1930, 1932): W = rho E[S] (1 + c_s^2) / (2 (1 - rho)). Exact.
* M/M/c, Erlang's C (1917): W = C(c, c rho) E[S] / (c (1 - rho)). Exact.
* G/G/c, Allen-Cunneen (Allen, Probability, Statistics and Queueing Theory, 1990): Erlang's wait times
  (c_a^2 + c_s^2) / 2. An approximation; the arrivals of an instance that gets a share p of a renewal process have
  c_a^2 = 1 + p (scv - 1).

There is none for a choice by the load (LEAST_OUTSTANDING_REQUESTS with more than one instance), for rates that change,
traces, limits of queues and copies, slowdown, and pools that batch, scale, fail or are retried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from shadowsim.frames import ROLES, US_PER_S
from shadowsim.result import Result
from shadowsim.scenario.scenario import Scenario


@dataclass(frozen=True, slots=True)
class QueueingModel:
    """A formula for an instance of a pool.

    Attributes
    ----------
    name : str
        The queue in Kendall's notation, with the formula's name.
    exact : bool
        Whether the formula is exact.
    wait_s, service_s : float
        Mean wait and mean service time, seconds.
    """

    name: str
    exact: bool
    wait_s: float
    service_s: float


def queueing_model(scenario: Scenario, role: str) -> QueueingModel | None:
    """Return the formula that holds for a pool of a scenario; None where there is none, or the pool is overloaded.

    Parameters
    ----------
    scenario : Scenario
    role : {"source", "shadow"}
    """
    side = scenario.side(role)
    service, law = side.service, side.service.time
    simple = not side.evented and service.queue_limit is None and not service.slowdown and law.kind != "linear"
    if role == "shadow":
        limits = (scenario.max_in_flight, scenario.max_body_bytes, scenario.max_per_s)
        independent = scenario.mirror_rule == "coin" and scenario.mirror_instant == "arrival"
        simple = simple and independent and limits == (None, None, None)
    if not simple or (side.routing != "RANDOM" and side.n_instances > 1):
        return None
    scv = _arrivals_scv(scenario)
    if scv is None:
        return None
    kept = side.share / side.n_instances
    arrivals_scv = 1.0 + kept * (scv - 1.0)
    c, rate = side.workers, scenario.traffic.mean_rate(scenario.horizon_s, scenario.start) * kept
    load = rate * law.mean / c
    if not 0.0 < load < 1.0:
        return None
    poisson = arrivals_scv == 1.0
    erlang_s = erlang_c(c, c * load) * law.mean / (c * (1.0 - load))
    if poisson and law.kind == "exponential":
        return QueueingModel(f"M/M/{c} (Erlang C)", True, erlang_s, law.mean)
    wait_s = erlang_s * 0.5 * (arrivals_scv + law.scv)
    if poisson and c == 1:  # the same formula, which then is exact
        return QueueingModel("M/G/1 (Pollaczek-Khinchine)", True, wait_s, law.mean)
    queue = f"{'M' if poisson else 'G'}/G/{c}"
    return QueueingModel(f"{queue} (Allen-Cunneen's approximation)", False, wait_s, law.mean)


def erlang_c(servers: int, offered: float) -> float:
    """Return the probability that a request waits in M/M/c (Erlang, 1917), for an offered load below `servers`.

    Through Erlang's B by its recursion, which does not overflow.
    """
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
    return servers * blocked / (servers - offered * (1.0 - blocked))


def theory(result: Result) -> pd.DataFrame:
    """Compare the figures of a run with those of queueing theory: one row per variant and figure that has a formula.

    A variant whose requests timed out has none, since their latencies are cut off.

    Returns
    -------
    DataFrame
        Columns variant, role, figure (wait_mean_s or mean_s), model, exact, theory, simulated, standard_error (NaN
        where the run has none), in seconds.
    """
    summary: dict[Any, dict[Any, Any]] = result.summary().to_dict("index")
    rows = []
    for role in ROLES:
        model = queueing_model(result.scenario, role)
        part = result.windows[result.windows["role"] == role]
        cut_off = part["ModelLatency_Maximum"].max() / US_PER_S >= result.scenario.timeout_s
        if model is None or cut_off or not len(part):
            continue
        variant = str(part["variant"].iloc[0])
        for figure, value in (("wait_mean_s", model.wait_s), ("mean_s", model.wait_s + model.service_s)):
            rows.append(
                {
                    "variant": variant,
                    "role": role,
                    "figure": figure,
                    "model": model.name,
                    "exact": model.exact,
                    "theory": value,
                    "simulated": summary[variant][figure],
                    "standard_error": summary[variant][f"{figure}_error"],
                }
            )
    columns = ["variant", "role", "figure", "model", "exact", "theory", "simulated", "standard_error"]
    return pd.DataFrame(rows, columns=columns)


def _arrivals_scv(scenario: Scenario) -> float | None:
    """Return the scv of the times between requests at a flat rate; None for rates that change, and superpositions."""
    streams = scenario.traffic.streams
    if any(s.profile is not None or s.process in ("trace", "mmpp") for s in streams):
        return None
    if all(s.process == "poisson" for s in streams):
        return 1.0
    return streams[0].scv if len(streams) == 1 else None
