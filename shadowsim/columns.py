"""A scenario as the numbers that the kernel reads.

The first of the two narrow waists: past this module nobody knows whether a request came from a Poisson process or a
trace file, or which law its service time follows. Tables and traces are built once, here, and can be shipped to
workers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shadowsim import _kernel as k
from shadowsim._kernel import Floats
from shadowsim.errors import SimulationError
from shadowsim.laws import Law
from shadowsim.scenario import Scenario
from shadowsim.service import Service

_NONE = np.empty(0)


@dataclass(frozen=True, slots=True)
class Columns:
    """What the kernel needs of a scenario, unchanging while it runs.

    Attributes
    ----------
    coin : uint64
        SamplingPercentage as a threshold of 32 bits.
    expected_requests : float
        Mean number of requests of the run; exact for a trace.
    request, source_answer, shadow_answer : Payload
        Sizes of payloads, whether or not the run captures them.
    """

    n_windows: int
    n_sections: int
    period_s: float
    horizon_s: float
    seed: np.uint64
    coin: np.uint64
    arrivals: k.Arrivals
    source: k.Pool
    shadow: k.Pool
    request: k.Payload
    source_answer: k.Payload
    shadow_answer: k.Payload
    expected_requests: float


def columns(scenario: Scenario) -> Columns:
    """Turn a scenario into columns: read its trace, build the tables of its laws."""
    traffic = scenario.traffic
    trace = traffic.trace().columns if traffic.process == "trace" else {}
    arrivals, expected = _arrivals(scenario)
    return Columns(
        n_windows=scenario.n_windows,
        n_sections=min(100, scenario.n_windows),
        period_s=scenario.period_s,
        horizon_s=scenario.horizon_s,
        seed=np.uint64(scenario.seed),
        coin=np.uint64(round(scenario.share * 2**32)),
        arrivals=arrivals,
        source=_pool(scenario, "source", trace),
        shadow=_pool(scenario, "shadow", trace),
        request=_payload(traffic.request_bytes, k.REQUEST_BYTES, trace),
        source_answer=_payload(traffic.response_bytes, k.SOURCE_RESPONSE_BYTES, trace),
        shadow_answer=_payload(traffic.response_bytes, k.SHADOW_RESPONSE_BYTES, trace),
        expected_requests=expected,
    )


def law_table(law: Law) -> Floats:
    """The law's quantiles at the kernel's tail probabilities, over its mean.

    Parameters
    ----------
    law : Law
        Any law but a linear one; its mean must be positive.

    Returns
    -------
    ndarray of float64, shape (2 TABLE_HALF,)
        The lower half, then the upper one. Its mean is 1 to within 1e-9, its second moment the law's to within 1e-4 of
        it, and a quantile is off by at most 2e-5 of itself or of the mean, whichever is greater: linear interpolation
        between knots is the only difference, and the mean is scaled out. The kinks of an empirical law are rounded off
        within a cell, 0.8 % of the tail probability.

    Notes
    -----
    Quantiles are rounded to 24 bits first: the last bits of exp and of inverse distribution functions differ between
    machines, and a table that differed would make every result differ.
    """
    halves = [(half / law.mean).astype(np.float32).astype(np.float64) for half in law.tails(k.table_tails())]
    mean = math.fsum(table_moment(half, 1) for half in halves)
    return np.concatenate([np.append(half, half[-1]) / mean for half in halves])


def table_moment(half: Floats, power: int) -> float:
    """Contribution of one half of a table (its knots, without the padding) to the first or second moment."""
    u = 2.0 * k.table_tails()
    width, a, b = np.diff(u), half[:-1], half[1:]
    value = (a + b) / 2.0 if power == 1 else (a * a + a * b + b * b) / 3.0
    return 0.5 * math.fsum(width * value)


def _arrivals(scenario: Scenario) -> tuple[k.Arrivals, float]:
    traffic = scenario.traffic
    if traffic.process == "trace":
        trace = traffic.trace()
        times = np.require(trace.arrival_s, np.float64, ["C", "W"])
        arrivals = k.Arrivals(k.TRACE, _NONE, _NONE, _NONE, times, trace.pass_s, trace.n_requests)
        return arrivals, float(trace.n_before(scenario.horizon_s))
    time_s, rate = traffic.knots(scenario.horizon_s, scenario.start)
    if time_s[-2] == time_s[-1]:
        time_s, rate = time_s[:-1], rate[:-1]
    area = 0.5 * (rate[1:] + rate[:-1]) * np.diff(time_s)
    count = np.concatenate([[0.0], np.cumsum(area)])
    process = {"poisson": k.POISSON, "constant": k.CONSTANT}[traffic.process]
    # two more than are due, so that the search for a window's first request always ends inside
    return k.Arrivals(process, time_s, rate, count, _NONE, 0.0, math.ceil(count[-1]) + 2), float(count[-1])


def _pool(scenario: Scenario, role: str, trace: Mapping[str, Floats]) -> k.Pool:
    variant = getattr(scenario.experiment, role)
    service: Service = getattr(scenario, f"{role}_service")
    law = service.time
    linear = law.kind == "linear"
    source = role == "source"
    return k.Pool(
        n_instances=variant.pool.instance_count,
        n_workers=getattr(scenario, f"{role}_workers"),
        queue_limit=-1 if service.queue_limit is None else service.queue_limit,
        timeout_s=scenario.timeout_s,
        mean_s=law.mean,
        table=_NONE if linear else law_table(law),
        work_s=law.values(trace) if linear else _NONE,
        error_4xx=service.error_4xx,
        error_5xx=service.error_5xx,
        service=k.SOURCE_SERVICE if source else k.SHADOW_SERVICE,
        route=k.SOURCE_ROUTE if source else k.SHADOW_ROUTE,
        error=k.SOURCE_ERROR if source else k.SHADOW_ERROR,
    )


def _payload(law: Law | None, column: int, trace: Mapping[str, Floats]) -> k.Payload:
    if law is None:
        return k.Payload(-1.0, _NONE, _NONE, column)
    if law.kind == "linear":
        return k.Payload(0.0, _NONE, law.values(trace), column)
    if law.mean == 0.0:
        return k.Payload(0.0, np.ones(2 * k.TABLE_HALF), _NONE, column)
    return k.Payload(law.mean, law_table(law), _NONE, column)


def new_state(pool: k.Pool, horizon_s: float) -> k.State:
    """An empty pool. Ticks beyond the horizon are counted in one spare row, which nobody reads."""
    n_ticks = math.ceil(horizon_s / k.CONCURRENCY_EVERY_S) + 2
    n = pool.n_instances
    return k.State(
        free_s=np.zeros(n * pool.n_workers),
        start_s=np.full(n * max(pool.queue_limit, 0), -1.0),
        start_at=np.zeros(n, np.int64),
        queued_change=np.zeros((n_ticks, n), np.int32),
        queued=np.zeros(n, np.int64),
    )


def new_tally(c: Columns) -> k.Tally:
    """Zeroed counts of one variant for a whole run."""
    return k.Tally(
        rows=np.zeros((c.n_windows, k.R_WIDTH)),
        sections=np.zeros((c.n_sections, k.BUCKETS), np.int64),
        bucket=np.zeros(k.BUCKETS, np.uint32),
    )


def new_scratch(chunk: int) -> k.Scratch:
    """Room for chunks of up to `chunk` requests."""

    def real() -> Floats:
        return np.empty(chunk)

    def selection() -> k.Int32s:
        return np.empty(chunk + 1, np.int32)  # one more: it writes before it knows whether it keeps

    number = np.arange(chunk, dtype=np.int32)
    return k.Scratch(
        reached=real(), number=number, offset=number.astype(np.uint64) * k.GOLDEN,
        arrival=real(), work=real(), start=real(), instance=selection(),
        shadow_number=selection(), shadow_offset=np.empty(chunk, np.uint64),
        shadow_arrival=real(), shadow_work=real(), shadow_start=real(), shadow_instance=selection(), kept=selection(),
    )  # fmt: skip


def new_sample(wanted: int, expected: float, widen: int = 0) -> k.Sample:
    """Room for a sample of `wanted` of about `expected` requests.

    A request enters when the 32 bits of its order are below the threshold: chosen so that fewer than `wanted`, or more
    than there is room for, come at most once in 10^15 runs; `widen` counts how often that has happened to this run.
    """
    if wanted == 0:
        return k.Sample(np.uint64(0), np.zeros((0, k.S_WIDTH)), np.zeros(1, np.int64))
    slack = 8.0 * 2.0**widen
    candidates = wanted + slack * math.sqrt(wanted) + 8.0 * slack
    low = expected - slack * math.sqrt(expected) - slack
    if candidates >= low:
        threshold, room = 2**32, expected + slack * math.sqrt(expected) + 8.0 * slack
    else:
        threshold = math.ceil(candidates / low * 2**32)
        room = candidates * expected / low + slack * math.sqrt(candidates) + 8.0 * slack
    if room > 2**31:
        raise SimulationError(f"a sample of {wanted} requests does not fit")
    return k.Sample(np.uint64(threshold), np.zeros((math.ceil(room), k.S_WIDTH)), np.zeros(1, np.int64))
