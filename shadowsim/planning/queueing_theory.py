"""Computes what queueing theory says of a pool: its mean wait and latency, where a formula holds.

An instance under RANDOM routing is a queue of its own: its arrivals are those of the endpoint, each kept with the share
that is copied to the variant over the number of instances. Three formulas hold for it:

* M/G/1, Pollaczek-Khinchine (1930, 1932): W = rho E[S] (1 + c_s^2) / (2 (1 - rho)). Exact.
* M/M/c, Erlang's C (1917): W = C(c, c rho) E[S] / (c (1 - rho)). Exact.
* G/G/c, Allen-Cunneen (Allen, Probability, Statistics and Queueing Theory, 1990): Erlang's wait times
  (c_a^2 + c_s^2) / 2. An approximation; the arrivals of an instance that gets a share p of a renewal process have
  c_a^2 = 1 + p (scv - 1).

There is none for a choice by the load (LEAST_OUTSTANDING_REQUESTS with more than one instance), for rates that change,
traces, limits of queues and copies, slowdown, wake, tokens, and pools that batch, scale, fail or are retried.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from shadowsim.frames import ROLES
from shadowsim.result import Result
from shadowsim.scenario.scenario import Scenario
from shadowsim.text import OVERLOADED


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
    wait_share : float
        Share of the requests that wait; NaN where no formula is exact.
    """

    name: str
    exact: bool
    wait_s: float
    service_s: float
    wait_share: float


def queueing_model(scenario: Scenario, role: str) -> QueueingModel | None:
    """Return the formula that holds for a pool of a scenario; None where there is none, or the pool is overloaded.

    Parameters
    ----------
    scenario : Scenario
    role : {"source", "shadow"}
    """
    side = scenario.side(role)
    service = side.service
    plain = service.queue_limit is None and not service.slowdown and service.wake is None
    simple = not side.evented and plain and not service.follows_trace
    if role == "shadow":
        limits = (scenario.max_in_flight, scenario.max_body_bytes, scenario.max_per_s)
        independent = scenario.mirror_rule == "coin" and scenario.mirror_instant == "arrival"
        simple = simple and independent and limits == (None, None, None)
    if not simple or (side.routing != "RANDOM" and side.n_instances > 1):
        return None
    law, scv = service.time, _arrivals_scv(scenario)
    if scv is None:
        return None
    kept = side.share / side.n_instances
    arrivals_scv = 1.0 + kept * (scv - 1.0)
    c, rate = side.workers, scenario.traffic.mean_rate(scenario.horizon_s, scenario.start) * kept
    load = rate * law.mean / c
    if not 0.0 < load < 1.0:
        return None
    poisson = arrivals_scv == 1.0
    waiting = erlang_c(c, c * load)
    erlang_s = waiting * law.mean / (c * (1.0 - load))
    if poisson and law.kind == "exponential":
        return QueueingModel(f"M/M/{c} (Erlang C)", True, erlang_s, law.mean, waiting)
    wait_s = erlang_s * 0.5 * (arrivals_scv + law.scv)
    if poisson and c == 1:  # the same formula, which then is exact
        return QueueingModel("M/G/1 (Pollaczek-Khinchine)", True, wait_s, law.mean, load)
    queue = f"{'M' if poisson else 'G'}/G/{c}"
    return QueueingModel(f"{queue} (Allen-Cunneen's approximation)", False, wait_s, law.mean, math.nan)


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

    The mean latency of a variant whose requests timed out has none, since latencies are cut off.

    Returns
    -------
    DataFrame
        Columns variant, role, figure (wait_mean_s, mean_s, or wait_share: the share of the requests that wait, which
        the run's sample of requests tells), model, exact, theory, simulated, standard_error (NaN where the run has
        none).
    """
    models = {role: queueing_model(result.scenario, role) for role in ROLES}
    rows: list[tuple[object, ...]] = []
    summary = result.summary() if any(models.values()) else pd.DataFrame(columns=["role"])  # which takes longest
    for variant, role in zip(summary.index, summary["role"], strict=True):
        model = models[role]
        if model is None or summary["verdict"][variant] == OVERLOADED:
            continue
        figures = {"wait_mean_s": model.wait_s}
        if summary["maximum_s"][variant] < result.scenario.timeout_s:
            figures["mean_s"] = model.wait_s + model.service_s
        for figure, value in figures.items():
            simulated, error = summary[figure][variant], summary[f"{figure}_error"][variant]
            rows.append((variant, role, figure, model.name, model.exact, value, simulated, error))
        if not math.isnan(model.wait_share):
            simulated, error = _wait_share(result, role)
            rows.append((variant, role, "wait_share", model.name, model.exact, model.wait_share, simulated, error))
    columns = ["variant", "role", "figure", "model", "exact", "theory", "simulated", "standard_error"]
    return pd.DataFrame(rows, columns=columns)


def _wait_share(result: Result, role: str) -> tuple[float, float]:
    """Return the share of a run's sampled requests that waited, and its standard error: they lie far apart."""
    sample = result.settled.requests
    waits = sample.loc[(sample["role"] == role) & sample["wait_s"].notna(), "wait_s"]
    if waits.empty:
        return math.nan, math.nan
    p = float((waits > 0.0).mean())
    return p, math.sqrt(p * (1.0 - p) / len(waits))


def _arrivals_scv(scenario: Scenario) -> float | None:
    """Return the scv of the times between requests at a flat rate; None for rates that change, and superpositions."""
    streams = scenario.traffic.streams
    if any(s.profile is not None or s.process in ("trace", "mmpp") for s in streams):
        return None
    if all(s.process == "poisson" for s in streams):
        return 1.0
    return streams[0].scv if len(streams) == 1 else None
