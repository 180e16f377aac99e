"""Builds the frames `windows`, `latency` and `requests` from the kernel's counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from shadowsim.arrays import Floats
from shadowsim.engine import _event_kernel as e
from shadowsim.engine import _kernel as k
from shadowsim.engine.columns import Columns
from shadowsim.engine.event_run import EventSide
from shadowsim.engine.parallel import RunCounts
from shadowsim.errors import SimulationError
from shadowsim.frames import (
    ACTIONS,
    EVENT_REQUESTS,
    EVENT_WINDOWS,
    FIRST_TOKEN,
    LATENCY,
    LATENCY_MEASURE,
    LOST_CAUSES,
    OUTAGE,
    PER_TOKEN,
    PERCENTILES,
    PREFIX_HIT,
    PREFIX_QUERIED,
    PREFIX_REQUESTS,
    REQUESTS,
    ROLES,
    SCALE_IN,
    SCALE_OUT,
    TIME_COLUMNS,
    TOKEN_LATENCY,
    TOKEN_REQUESTS,
    TOKEN_WINDOWS,
    US_PER_S,
    WINDOWS,
    Column,
    build,
    goodput_column,
    repeated,
)
from shadowsim.scenario.scenario import Scenario
from shadowsim.scenario.tokens import MOST_GOODPUT

STATUSES = np.array(["answered", "error_4xx", "error_5xx", "timed_out", "refused", "unavailable", "failed"])


def windows_frame(scenario: Scenario, c: Columns, counts: RunCounts) -> pd.DataFrame:
    """Return the `WINDOWS` frame from both variants' rows, source before shadow in each window."""
    source, shadow = (t.rows for t in counts.tallies)
    # copies lost to the body limit are counted in the source's rows
    lost = source[:, k.R_LOST_BODY], shadow[:, k.R_LOST_IN_FLIGHT], shadow[:, k.R_LOST_PER_S]
    evented = c.source_dynamics.evented or c.shadow_dynamics.evented
    token_columns = _token_schema(c)
    schema = WINDOWS + (EVENT_WINDOWS if evented else ()) + token_columns
    parts = []
    for role, rows in zip(ROLES, (source, shadow), strict=True):
        columns = _window_columns(scenario, c, role, rows, lost)
        if evented:
            columns |= _event_columns(c, role, rows)
        if token_columns:
            columns |= _token_columns(token_columns, c, rows, counts.evented.get(role))
        parts.append(build(schema, columns))
    window_by_window = np.arange(len(parts) * c.n_windows).reshape(len(parts), -1).T.ravel()
    return pd.concat(parts, ignore_index=True).take(window_by_window).reset_index(drop=True)


def _window_columns(
    scenario: Scenario, c: Columns, role: str, rows: Floats, lost_copies: Sequence[Floats]
) -> dict[str, Any]:
    pool = c.pool(role)
    start = np.arange(c.n_windows) * c.period_s
    length = np.minimum(start + c.period_s, c.horizon_s) - start
    n, accepted = rows[:, k.R_REQUESTS], count_accepted(rows)
    any_accepted = accepted > 0
    if c.dynamics(role).evented:
        started, serving = rows[:, e.R_STARTED], rows[:, e.R_SERVING_S] / length
        capacity, worked = rows[:, e.R_UP_S] * pool.n_workers, rows[:, e.R_BUSY_S]
    else:
        started, serving = accepted, np.full(n.size, float(pool.n_instances))
        capacity, backlog = length * pool.n_instances * pool.n_workers, rows[:, k.R_BACKLOG]
        worked = rows[:, k.R_WORK] + np.concatenate([[0.0], backlog[:-1]]) - backlog

    def if_answered(values: Floats) -> Floats:
        return np.where(any_accepted, values, np.nan)

    def concurrent(column: int) -> Floats:
        return np.where(np.isfinite(rows[:, column]), rows[:, column], np.nan)

    failed_5xx = rows[:, k.R_ERROR_5XX] + rows[:, k.R_REFUSED]
    unavailable, lost_with_instance = (
        (rows[:, e.R_UNAVAILABLE], rows[:, e.R_FAILED]) if c.dynamics(role).evented else (0.0, 0.0)
    )
    lost = dict(zip(LOST_CAUSES, lost_copies, strict=True))
    copies = n.astype(np.int64) if role == "shadow" else pd.NA
    sized = c.request.mean >= 0 or c.source_answer.mean >= 0
    size = (rows[:, k.R_REQUEST_BYTES] + rows[:, k.R_RESPONSE_BYTES]).astype(np.int64)
    return {
        "time_s": start,
        "variant": scenario.side(role).variant.name,
        "role": role,
        "instance_count": pool.n_instances,
        "Invocations": n.astype(np.int64),
        "InvocationsPerInstance": _ratio(n, serving),
        "ModelLatency_SampleCount": accepted.astype(np.int64),
        "ModelLatency_Average": _ratio(rows[:, k.R_LATENCY_SUM], accepted) * US_PER_S,
        "ModelLatency_Minimum": if_answered(rows[:, k.R_LATENCY_MIN]) * US_PER_S,
        "ModelLatency_Maximum": if_answered(rows[:, k.R_LATENCY_MAX]) * US_PER_S,
        **{f"ModelLatency_{p}": if_answered(rows[:, k.R_QUANTILES + i]) * US_PER_S for i, p in enumerate(PERCENTILES)},
        "OverheadLatency_Average": np.where(n > 0, scenario.overhead_s * US_PER_S, np.nan),
        "Invocation4XXErrors": rows[:, k.R_ERROR_4XX].astype(np.int64),
        "Invocation5XXErrors": (failed_5xx + unavailable).astype(np.int64),
        "InvocationModelErrors": (
            rows[:, k.R_ERROR_4XX] + failed_5xx + rows[:, k.R_TIMED_OUT] + lost_with_instance
        ).astype(np.int64),
        "ConcurrentRequestsPerModel_Minimum": concurrent(k.R_CONCURRENT_MIN),
        "ConcurrentRequestsPerModel_Maximum": concurrent(k.R_CONCURRENT_MAX),
        "wait_mean_s": _ratio(rows[:, k.R_WAIT_SUM], started),
        "utilisation": np.clip(_ratio(worked, capacity), 0.0, 1.0),  # rounding alone could pass the bounds
        "offered_load": _ratio(rows[:, k.R_WORK] + rows[:, k.R_REFUSED_WORK], capacity),
        "copies_made": copies,
        **{f"copies_lost_{cause}": n.astype(np.int64) if role == "shadow" else pd.NA for cause, n in lost.items()},
        "captured_records": n.astype(np.int64) if scenario.capture else 0,
        "captured_bytes": (size if sized else pd.NA) if scenario.capture else 0,
    }


def _event_columns(c: Columns, role: str, rows: Floats) -> dict[str, Any]:
    """Return the columns that only evented runs have; for a pool without events they say that nothing changes."""
    pool, dynamics = c.pool(role), c.dynamics(role)
    if not dynamics.evented:
        none = {column.name: pd.NA if column.dtype == "Int64" else np.nan for column in EVENT_WINDOWS}
        return none | dict.fromkeys([column.name for column in EVENT_WINDOWS[:3]], pool.n_instances)
    length = np.diff(np.minimum(np.arange(c.n_windows + 1) * c.period_s, c.horizon_s))
    retried = dynamics.retries.max_attempts > 1
    calls = rows[:, e.R_CALLS]

    def number(column: int, known: bool = True) -> Any:
        return rows[:, column].astype(np.int64) if known else pd.NA

    return {
        "desired_instance_count": number(e.R_DESIRED),
        "serving_instance_count": rows[:, e.R_SERVING_S] / length,
        "existing_instance_count": rows[:, e.R_EXISTING_S] / length,
        "requests_unavailable": number(e.R_UNAVAILABLE),
        "requests_failed": number(e.R_FAILED),
        "retries": number(e.R_RETRIES, retried),
        "batches": number(e.R_BATCHES),
        "batch_size_mean": _ratio(rows[:, e.R_BATCHED], rows[:, e.R_BATCHES]),
        "calls": number(e.R_CALLS, retried),
        "calls_answered": number(e.R_CALLS_ANSWERED, retried),
        "call_latency_mean_s": _ratio(rows[:, e.R_CALL_SUM], calls) if retried else np.nan,
    }


def _token_schema(c: Columns) -> tuple[Column, ...]:
    """Return the columns of windows that a run has for services in tokens.

    Those are the pairs' in `run.goodput`, and where a variant has prefix caches, theirs.
    """
    if not (c.in_tokens("source") or c.in_tokens("shadow")):
        return ()
    others = {goodput_column(i) for i in range(len(c.goodput_s), MOST_GOODPUT)}
    if not _any_prefix(c):
        others |= {PREFIX_QUERIED, PREFIX_HIT}
    return tuple(column for column in TOKEN_WINDOWS if column.name not in others)


def _any_prefix(c: Columns) -> bool:
    return any(c.dynamics(role).prefix is not None for role in ROLES)


def _token_columns(schema: tuple[Column, ...], c: Columns, rows: Floats, side: EventSide | None) -> dict[str, Any]:
    """Return the columns of a variant in tokens; those of another are missing."""
    tally = None if side is None else side.token_tally
    if side is None or tally is None:
        return {column.name: pd.NA if column.dtype == "Int64" else np.nan for column in schema}
    samples = rows[:, e.R_SAMPLES]
    prefix = {}
    if _any_prefix(c):
        counted = {PREFIX_QUERIED: e.R_PREFIX_QUERIED, PREFIX_HIT: e.R_PREFIX_HIT}
        prefix = {
            name: pd.NA if side.prefixes is None else rows[:, column].astype(np.int64)
            for name, column in counted.items()
        }

    def greatest(column: int) -> Floats:
        return np.where(samples > 0, rows[:, column], np.nan)

    return {
        **_time_columns(TIME_COLUMNS[FIRST_TOKEN], tally.first_token.rows[:-1]),
        **_time_columns(TIME_COLUMNS[PER_TOKEN], tally.per_token.rows[:-1]),
        "output_tokens": rows[:, e.R_OUTPUT_TOKENS].astype(np.int64),
        "prefill_tokens": rows[:, e.R_PREFILL_TOKENS].astype(np.int64),
        "preemptions": rows[:, e.R_PREEMPTIONS].astype(np.int64),
        **prefix,
        "running_sequences_mean": _ratio(rows[:, e.R_RUNNING], samples),
        "running_sequences_maximum": greatest(e.R_RUNNING_MAX),
        "cache_use_mean": _ratio(rows[:, e.R_CACHE], samples),
        "cache_use_maximum": greatest(e.R_CACHE_MAX),
        **{goodput_column(i): tally.met[:-1, i].astype(np.int64) for i in range(len(c.goodput_s))},
    }


def _time_columns(name: str, rows: Floats) -> dict[str, Any]:
    """Return the columns of windows for a time that is measured per request, from its rows."""
    n = rows[:, k.R_REQUESTS]

    def if_any(values: Floats) -> Floats:
        return np.where(n > 0, values, np.nan) * US_PER_S

    return {
        f"{name}_SampleCount": n.astype(np.int64),
        f"{name}_Average": _ratio(rows[:, k.R_LATENCY_SUM], n) * US_PER_S,
        f"{name}_Minimum": if_any(rows[:, k.R_LATENCY_MIN]),
        f"{name}_Maximum": if_any(rows[:, k.R_LATENCY_MAX]),
        **{f"{name}_{p}": if_any(rows[:, k.R_QUANTILES + i]) for i, p in enumerate(PERCENTILES)},
    }


def actions_frame(scenario: Scenario, evented: Mapping[str, EventSide]) -> pd.DataFrame:
    """Return the `ACTIONS` frame of evented sides, by role: scaling actions and outages in order of time."""
    sides = [(role, evented[role].actions) for role in ROLES if role in evented]
    rows = np.concatenate([np.zeros((0, e.ACTION_WIDTH)), *(actions for _, actions in sides)])
    role_index = np.repeat([ROLES.index(role) for role, _ in sides], [len(actions) for _, actions in sides])
    order = np.argsort(rows[:, e.A_TIME_S], kind="stable")
    rows, role_index = rows[order], role_index.astype(np.intp)[order]
    before, after = rows[:, e.A_BEFORE], rows[:, e.A_AFTER]
    kind = np.where(np.isnan(after), 2, np.where(after > before, 0, 1))
    return build(
        ACTIONS,
        {
            "time_s": rows[:, e.A_TIME_S],
            "variant": repeated([scenario.side(role).variant.name for role in ROLES], role_index),
            "role": repeated(ROLES, role_index),
            "action": repeated((SCALE_OUT, SCALE_IN, OUTAGE), kind),
            "desired_before": _whole(before),
            "desired_after": _whole(after),
            "decided_s": rows[:, e.A_DECIDED_S],
            "metric_value": rows[:, e.A_METRIC],
            "instance": _whole(rows[:, e.A_INSTANCE]),
            "serving_after": rows[:, e.A_SERVING],
            "done_s": rows[:, e.A_DONE_S],
        },
    )


def _whole(values: Floats) -> Any:
    """Return whole numbers as integers, and NaN as missing."""
    return pd.array(values, dtype="Float64").astype("Int64")


def count_accepted(rows: Floats) -> Floats:
    """Return the number of requests with a ModelLatency by window."""
    accepted: Floats = rows[:, k.R_REQUESTS] - rows[:, k.R_REFUSED]
    if rows.shape[1] > k.R_WIDTH:
        accepted = accepted - rows[:, e.R_UNAVAILABLE] - rows[:, e.R_FAILED]
    return accepted


def _ratio(total: Floats, n: Floats) -> Floats:
    """Return total / n, and NaN where n is 0."""
    out: Floats = np.divide(total, n, out=np.full(total.size, np.nan), where=n > 0)
    return out


def latency_frame(scenario: Scenario, counts: RunCounts) -> pd.DataFrame:
    """Return the `LATENCY` frame: the buckets of each section that are not empty, one measure after the other."""
    latencies = [tally.sections for tally in counts.tallies]
    none = np.zeros_like(latencies[0])
    tallies = [counts.evented[role].token_tally if role in counts.evented else None for role in ROLES]
    measures = {LATENCY_MEASURE: latencies}
    if any(tallies):
        measures[FIRST_TOKEN] = [none if tally is None else tally.first_token.sections for tally in tallies]
        measures[PER_TOKEN] = [none if tally is None else tally.per_token.sections for tally in tallies]
    parts = [_buckets_frame(scenario, sections) for sections in measures.values()]
    if len(parts) == 1:
        return parts[0]
    both = pd.concat(parts, ignore_index=True)
    measure = repeated(list(measures), np.repeat(np.arange(len(parts)), [len(part) for part in parts]))
    return build(LATENCY + TOKEN_LATENCY, {name: both[name] for name in both.columns} | {"measure": measure})


def _buckets_frame(scenario: Scenario, sections: Sequence[k.Ints]) -> pd.DataFrame:
    """Return the `LATENCY` frame of one measure, from the histograms of source and shadow by section."""
    edges = k.bucket_edges()
    counts = np.stack(sections, axis=1)
    section, role_index, bucket = np.nonzero(counts)
    names = [scenario.side(role).variant.name for role in ROLES]
    return build(
        LATENCY,
        {
            "section": section,
            "variant": repeated(names, role_index),
            "role": repeated(ROLES, role_index),
            "low_s": edges[bucket],
            "high_s": edges[bucket + 1],
            "count": counts[section, role_index, bucket],
        },
    )


def requests_frame(
    scenario: Scenario, c: Columns, n_sampled: int, samples: Sequence[k.Sample], tally: k.Tally
) -> pd.DataFrame:
    """Return the `REQUESTS` frame: the first `n_sampled` requests in the samples' order, with their copies.

    `tally` is the source's: the requests of the run are numbered by its windows' counts.
    """
    arrived = tally.rows[:, k.R_REQUESTS].copy()
    if c.source_dynamics.evented:
        arrived -= tally.rows[:, e.R_RETRIES]
    before = np.concatenate([[0], np.cumsum(arrived.astype(np.int64))])
    source, shadow = (_numbered(sample, before) for sample in samples)
    first = source[source[:, k.S_WIDTH] == 0] if source.shape[1] > k.S_WIDTH + 1 else source
    chosen = first[np.lexsort((first[:, -1], first[:, k.S_ORDER]))[:n_sampled], -1]
    source, shadow = source[np.isin(source[:, -1], chosen)], shadow[np.isin(shadow[:, -1], chosen)]
    parts = [_request_columns(scenario, c, role, rows) for role, rows in zip(ROLES, (source, shadow), strict=True)]
    evented = c.source_dynamics.evented or c.shadow_dynamics.evented
    if evented:
        for part, rows in zip(parts, (source, shadow), strict=True):
            part["attempt"] = _attempts(rows)
    in_tokens = c.in_tokens("source") or c.in_tokens("shadow")
    if in_tokens:
        for role, part, rows in zip(ROLES, parts, (source, shadow), strict=True):
            part |= _token_times(c, role, rows)
            if _any_prefix(c):
                cached = rows[:, e.S_CACHED] if c.dynamics(role).prefix is not None else np.full(len(rows), np.nan)
                part["cached_tokens"] = _whole(cached)
    both = {name: _concatenated([part[name] for part in parts]) for name in parts[0]}
    keys = [np.asarray(both["role"]) == "shadow", np.asarray(both["request"])]
    order = np.lexsort([np.asarray(both["attempt"]), *keys] if "attempt" in both else keys)
    schema = REQUESTS + (EVENT_REQUESTS if evented else ())
    schema += TOKEN_REQUESTS if in_tokens else ()
    schema += PREFIX_REQUESTS if _any_prefix(c) else ()
    return build(schema, {name: values[order] for name, values in both.items()})


def _token_times(c: Columns, role: str, rows: Floats) -> dict[str, Any]:
    """Return the columns of requests of a variant in tokens; those of another are missing."""
    if not c.in_tokens(role):
        unknown = pd.array([pd.NA] * len(rows), dtype="Int64")
        return {"first_token_s": np.full(len(rows), np.nan), "prompt_tokens": unknown, "output_tokens": unknown}
    return {
        "first_token_s": rows[:, e.S_FIRST_TOKEN],
        "prompt_tokens": _whole(rows[:, e.S_PROMPT]),
        "output_tokens": _whole(rows[:, e.S_OUTPUT]),
    }


def _numbered(sample: k.Sample, before: k.Ints) -> Floats:
    """Return a sample's rows, ordered by the number of the request in the run, which is added as a last column."""
    rows = sample.rows[: int(sample.n[0])]
    request = before[rows[:, k.S_WINDOW].astype(np.int64)] + rows[:, k.S_NUMBER].astype(np.int64)
    return np.column_stack([rows, request])[np.argsort(request)]


def _attempts(rows: Floats) -> k.Ints:
    """Return the numbers of attempts; those of a pool without events are first ones."""
    if rows.shape[1] > k.S_WIDTH + 1:
        return rows[:, e.S_ATTEMPT].astype(np.int64)
    return np.zeros(len(rows), np.int64)


def _concatenated(parts: list[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return pd.concat([pd.Series(p) for p in parts], ignore_index=True).array


def _request_columns(scenario: Scenario, c: Columns, role: str, rows: Floats) -> dict[str, Any]:
    pool = c.pool(role)
    window, number, request = (rows[:, i].astype(np.int64) for i in (k.S_WINDOW, k.S_NUMBER, -1))
    arrival, start, service = rows[:, k.S_ARRIVAL], rows[:, k.S_START], rows[:, k.S_SERVICE]
    attempt = _attempts(rows)
    if c.dynamics(role).evented:
        status, latency = rows[:, e.S_STATUS].astype(np.int64), rows[:, e.S_LATENCY]
    else:
        latency = (start + service) - arrival
        status = np.zeros(latency.size, np.int64)
        if pool.error_4xx + pool.error_5xx > 0:
            u = _by_window(c, pool.error, window, number, attempt, k.uniform_all)
            status = np.where(u <= pool.error_4xx, 1, np.where(u <= pool.error_4xx + pool.error_5xx, 2, 0))
        status[latency > pool.timeout_s] = 3
        status[start < 0] = 4
        latency = np.where(start < 0, np.nan, np.minimum(latency, pool.timeout_s))
    never = ~(start >= 0)  # it never started
    answer = _bytes(c, c.source_answer if role == "source" else c.shadow_answer, window, number, attempt, request)
    if answer is not None:
        answer[status >= 3] = pd.NA
    return {
        "request": request,
        "inference_id": np.char.add("sim-", request.astype(str)),
        "variant": np.full(latency.size, scenario.side(role).variant.name),
        "role": np.full(latency.size, role),
        "arrival_s": arrival,
        "instance": rows[:, k.S_INSTANCE].astype(np.int64),
        "wait_s": np.where(never, np.nan, start - arrival),
        "service_s": np.where(never, np.nan, service),
        "latency_s": latency,
        "status": STATUSES[status],
        "request_bytes": _bytes(c, c.request, window, number, np.zeros_like(attempt), request),
        "response_bytes": answer,
    }


def _by_window(
    c: Columns, column: int, window: k.Ints, number: k.Ints, attempt: k.Ints, draws: Any, *law: Any
) -> Floats:
    """Return the draws of single attempts, recomputed from their windows and numbers."""
    out = np.empty(window.size)
    edges = np.flatnonzero((np.diff(window) != 0) | (np.diff(attempt) != 0)) + 1
    with np.errstate(over="ignore"):  # hash arithmetic wraps, uncompiled too
        for lo, hi in zip([0, *edges], [*edges, window.size], strict=True):
            if hi > lo:
                # a compiled function returns a plain int
                draws(
                    np.uint64(k.key(c.seed, column + e.ATTEMPT * int(attempt[lo]), int(window[lo]))),
                    number[lo:hi],
                    *law,
                    out[lo:hi],
                )
    return out


def _bytes(c: Columns, payload: k.Payload, window: k.Ints, number: k.Ints, attempt: k.Ints, request: k.Ints) -> Any:
    if payload.mean < 0:
        return pd.array([pd.NA] * window.size, dtype="Int64")
    if payload.by_request.size:
        size = payload.by_request[request % payload.by_request.size]
    else:
        size = _by_window(c, payload.column, window, number, attempt, k.draw_all, payload.table, payload.mean)
    return pd.array(np.floor(size + 0.5).astype(np.int64), dtype="Int64")


def check_conserved(tallies: Sequence[k.Tally], arrived: int) -> None:
    """Check that every request was counted: arrived = answered + refused + timed out + failed, in rows and buckets.

    Raises
    ------
    SimulationError
        When one was not, which is a defect in shadowsim.
    """
    source = tallies[0].rows[:, k.R_REQUESTS].sum()
    if source != arrived:
        raise SimulationError(f"{arrived} requests arrived, {source:.0f} were counted")
    for role, tally in zip(ROLES, tallies, strict=True):
        accepted = count_accepted(tally.rows).sum()
        if tally.sections.sum() != accepted:
            raise SimulationError(f"{role}: {accepted:.0f} latencies are due, {tally.sections.sum()} were counted")
