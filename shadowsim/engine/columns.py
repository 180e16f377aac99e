"""Converts a scenario into the numbers that the kernel reads.

After this step a service time is a table of quantiles or a trace's column, whatever its law was. Tables are built once,
and can be sent to workers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shadowsim.arrays import Floats
from shadowsim.engine import _event_kernel as events
from shadowsim.engine import _kernel as k
from shadowsim.engine import _prefix_kernel as prefixes
from shadowsim.engine import _token_kernel as tokens
from shadowsim.engine.arrivals import ArrivalStream
from shadowsim.engine.law_tables import law_table
from shadowsim.engine.resampling import trace_of
from shadowsim.frames import MOST_SECTIONS
from shadowsim.scenario.laws import Law
from shadowsim.scenario.outages import OutagePlan
from shadowsim.scenario.retries import RetryPolicy
from shadowsim.scenario.routing import LEAST_OUTSTANDING, RANDOM
from shadowsim.scenario.scaling import CONCURRENCY, INVOCATIONS
from shadowsim.scenario.scenario import Scenario, Side
from shadowsim.scenario.tokens import full_batch, prefix_names, token_lengths
from shadowsim.scenario.traces import Trace

_NONE = np.empty(0)
_ROUTINGS = {RANDOM: k.RANDOM, LEAST_OUTSTANDING: k.LEAST_OUTSTANDING}
_RULES = {"coin": k.COIN, "counter": k.COUNTER, "hash": k.HASH}
_INSTANTS = {"arrival": k.AT_ARRIVAL, "response": k.AT_RESPONSE}
_METRICS = {INVOCATIONS: events.INVOCATIONS, CONCURRENCY: events.CONCURRENCY}
_CAUSES = {
    "timeout": events.ON_TIMEOUT,
    "unavailable": events.ON_UNAVAILABLE,
    "outage": events.ON_OUTAGE,
    "refused": events.ON_REFUSED,
    "model_error": events.ON_MODEL_ERROR,
}


@dataclass(frozen=True, slots=True)
class Columns:
    """The kernel's inputs from a scenario, which do not change during a run.

    Attributes
    ----------
    source_dynamics, shadow_dynamics : Dynamics
        What makes a pool need events: batches, scaling, outages; retries are the source's.
    request, source_answer, shadow_answer : Payload
        Sizes of payloads, also for runs without capture.
    forgets : bool
        Whether both pools soon forget their initial state, so that the run can be cut in time.
    """

    n_windows: int
    n_sections: int
    period_s: float
    horizon_s: float
    seed: np.uint64
    mirror: k.Mirror
    source: k.Pool
    shadow: k.Pool
    source_dynamics: events.Dynamics
    shadow_dynamics: events.Dynamics
    request: k.Payload
    source_answer: k.Payload
    shadow_answer: k.Payload
    forgets: bool
    goodput_s: Floats

    def pool(self, role: str) -> k.Pool:
        """Return the source's or the shadow's pool."""
        return self.source if role == "source" else self.shadow

    def in_tokens(self, role: str) -> bool:
        """Return whether the source or the shadow serves requests in tokens."""
        return self.dynamics(role).scheduler.max_sequences > 0

    def dynamics(self, role: str) -> events.Dynamics:
        """Return what makes the source's or the shadow's pool need events."""
        return self.source_dynamics if role == "source" else self.shadow_dynamics


def columns(scenario: Scenario, arrivals: ArrivalStream) -> Columns:
    """Return a scenario's columns; this builds the tables of its laws."""
    traffic = scenario.traffic
    recorded = trace_of(scenario) if traffic.process == "trace" else None
    trace: Mapping[str, Floats] = recorded.columns if recorded is not None else {}
    peak = arrivals.peak_per_s
    source, shadow = (
        _pool(scenario, "source", recorded, peak),
        _pool(scenario, "shadow", recorded, peak * scenario.share),
    )
    return Columns(
        n_windows=scenario.n_windows,
        n_sections=min(MOST_SECTIONS, scenario.n_windows),
        period_s=scenario.period_s,
        horizon_s=scenario.horizon_s,
        seed=np.uint64(scenario.seed),
        mirror=_mirror(scenario, recorded),
        source=source,
        shadow=shadow,
        source_dynamics=_dynamics(scenario.side("source"), traffic.retries, recorded),
        shadow_dynamics=_dynamics(scenario.side("shadow"), None, recorded),
        request=_payload(traffic.request_bytes, k.REQUEST_BYTES, trace),
        source_answer=_payload(traffic.response_bytes, k.SOURCE_RESPONSE_BYTES, trace),
        shadow_answer=_payload(traffic.response_bytes, k.SHADOW_RESPONSE_BYTES, trace),
        goodput_s=np.array([(pair.ttft_s, pair.tpot_s) for pair in scenario.goodput]).reshape(-1, 2),
        forgets=not scenario.evented and source.routing == shadow.routing == k.RANDOM,
    )


def _pool(scenario: Scenario, role: str, recorded: Trace | None, peak_per_s: float) -> k.Pool:
    trace = recorded.columns if recorded is not None else {}
    side = scenario.side(role)
    service, law = side.service, None if side.service.tokens else side.service.time
    work = law.values(trace) if law is not None and law.kind == "linear" else _NONE
    drawn = law is not None and not work.size
    lengths = _lengths(side, recorded)
    if lengths.prompt_by_request.size or lengths.output_by_request.size:
        # requests in tokens have no time of their own; a column says that copies need the numbers of their requests
        work = max(lengths.prompt_by_request, lengths.output_by_request, key=len)
    names = _prefix(side, recorded)
    if names is not None and names.by_request.size:
        work = names.length_by_request.astype(np.float64)
    source = role == "source"
    return k.Pool(
        n_instances=side.n_instances,
        n_workers=side.workers,
        queue_limit=-1 if service.queue_limit is None else service.queue_limit,
        timeout_s=scenario.timeout_s,
        mean_s=law.mean if law is not None and drawn else float(work.mean()) if work.size else 0.0,
        table=law_table(law) if law is not None and drawn else _NONE,
        work_s=work,
        slowdown=np.array(service.slowdown or (), np.float64),
        wake_s=0.0 if service.wake is None else service.wake.most_s,
        wake_half_s=0.0 if service.wake is None else service.wake.half_s,
        error_4xx=service.error_4xx,
        error_5xx=service.error_5xx,
        routing=k.RANDOM if side.n_instances == 1 and not side.evented else _ROUTINGS[side.routing],
        buckets_per_s=max(8.0 * peak_per_s, 1e-3),  # hardly ever two requests in a bucket of the timing wheel
        service=k.SOURCE_SERVICE if source else k.SHADOW_SERVICE,
        route=k.SOURCE_ROUTE if source else k.SHADOW_ROUTE,
        error=k.SOURCE_ERROR if source else k.SHADOW_ERROR,
    )


def _dynamics(side: Side, retries: RetryPolicy | None, trace: Trace | None) -> events.Dynamics:
    """Return what makes a pool need events; `retries` are those of its requests, which copies do not have."""
    changes = _scaling(side), _outages(side), _retries(retries)
    return events.Dynamics(
        side.evented, _batching(side), *changes, _scheduler(side), _lengths(side, trace), _prefix(side, trace)
    )


def _scheduler(side: Side) -> tokens.Scheduler:
    served = side.service.tokens
    if served is None:
        return tokens.NO_SCHEDULER
    return tokens.Scheduler(
        max_sequences=served.max_sequences,
        max_step_tokens=served.max_step_tokens,
        blocks=served.blocks,
        block_tokens=served.block_tokens,
        base_s=served.step.base_s,
        prefill_s=served.step.per_prefill_token_s,
        sequence_s=served.step.per_sequence_s,
        kv_s=served.step.per_kv_token_s,
        pair_s=served.step.per_prefill_pair_s,
        prompt_s=served.step.per_prompt_s,
        before_s=served.before_s,
        after_s=served.after_s,
        chunked=served.chunked,
        aborts=served.on_timeout == "abort",
    )


def _lengths(side: Side, trace: Trace | None) -> tokens.Lengths:
    served = side.service.tokens
    if served is None:
        return tokens.NO_LENGTHS

    def drawn(key: str) -> tuple[Floats, float, Floats]:
        law, by_request = getattr(served, key), token_lengths(served, key, trace)
        return (_NONE, 0.0, by_request) if by_request.size else (law_table(law), law.mean, by_request)

    (prompt, prompt_mean, prompts), (output, output_mean, outputs) = drawn("prompt"), drawn("output")
    return tokens.Lengths(
        prompt_table=prompt,
        prompt_mean=prompt_mean,
        prompt_by_request=prompts,
        output_table=output,
        output_mean=output_mean,
        output_by_request=outputs,
        output_column=tokens.SOURCE_OUTPUT if side.role == "source" else tokens.SHADOW_OUTPUT,
        mean_batch=full_batch(served, trace.columns if trace is not None else {}),
    )


def _prefix(side: Side, trace: Trace | None) -> prefixes.PrefixNames | None:
    served = side.service.tokens
    if served is None or served.prefix is None:
        return None
    prefix, b = served.prefix, served.block_tokens
    # a trace's are read-only, which would be another type, and the kernel compiled for it
    by_request = np.require(prefix_names(served, trace), requirements="W")
    lengths = (by_request >= 0).sum(axis=1) * prefix.name_tokens
    if by_request.size:
        # at most as many blocks as have different names
        ends = np.arange(1, by_request.shape[1] + 1) * prefix.name_tokens // b
        each = np.diff(ends, prepend=0)
        distinct = sum(int(n) * np.unique(column).size for n, column in zip(each, by_request.T, strict=True))
    else:
        distinct = (prefix.groups or 0) * (prefix.name_tokens // b)
    return prefixes.PrefixNames(
        groups=prefix.groups or 0,
        length=prefix.name_tokens,
        by_request=by_request,
        length_by_request=lengths,
        name_tokens=prefix.name_tokens,
        block_tokens=b,
        most_blocks=min(prefix.cache_tokens // b, distinct),
    )


def _batching(side: Side) -> events.Batching:
    batcher = side.service.batching
    if batcher is None:
        return events.Batching(0, 0.0, _NONE)
    return events.Batching(batcher.max_size, batcher.max_delay_s, np.array(batcher.factors))


def _scaling(side: Side) -> events.Scaling:
    policy, n = side.service.scaling, side.n_instances
    if policy is None:
        return events.Scaling(events.NO_SCALING, 0.0, n, n, 0.0, 0.0, 0, 0, 0.0, 0.0)
    return events.Scaling(
        metric=_METRICS[policy.metric],
        target=policy.target,
        least=policy.least,
        most=policy.most,
        out_cooldown_s=policy.out_cooldown_s,
        in_cooldown_s=policy.in_cooldown_s,
        out_points=policy.out_points,
        in_points=policy.in_points,
        delay_s=policy.delay_s,
        cold_start_s=side.service.cold_start_s or 0.0,
    )


def _outages(side: Side) -> events.Outages:
    plan = side.service.outages or OutagePlan()
    return events.Outages(
        instance=np.array([outage.instance for outage in plan.listed], np.int64),
        at_s=np.array([outage.at_s for outage in plan.listed], np.float64),
        for_s=np.array([outage.for_s for outage in plan.listed], np.float64),
        mtbf_s=plan.mtbf_s,
        mttr_s=plan.mttr_s,
        column=events.SOURCE_OUTAGE if side.role == "source" else events.SHADOW_OUTAGE,
    )


def _retries(policy: RetryPolicy | None) -> events.Retries:
    if policy is None:
        return events.Retries(1, 0.0, 0.0, math.inf, -1, 0, 0, 1, 0)
    return events.Retries(
        max_attempts=policy.max_attempts,
        base_s=policy.backoff_base_s,
        cap_s=math.inf if policy.backoff_cap_s is None else policy.backoff_cap_s,
        timeout_s=policy.timeout_s,
        quota=-1 if policy.quota is None else policy.quota,
        cost=policy.cost,
        timeout_cost=policy.timeout_cost,
        n_clients=policy.clients,
        causes=sum(_CAUSES[cause] for cause in policy.on),
    )


def _mirror(scenario: Scenario, trace: Trace | None) -> k.Mirror:
    def cap(value: float | None) -> float:
        return -1.0 if value is None else value

    sessions = scenario.traffic.sessions
    by_request = np.empty(0, np.int64)
    if isinstance(sessions, str) and trace is not None:
        by_request = trace.whole_numbers(sessions, "traffic.sessions").astype(np.int64)
    return k.Mirror(
        rule=_RULES[scenario.mirror_rule],
        instant=_INSTANTS[scenario.mirror_instant],
        coin=np.uint64(round(scenario.share * 2**32)),
        percent=scenario.experiment.sampling_percentage,
        n_sessions=sessions if isinstance(sessions, int) else 0,
        session_by_request=by_request,
        max_body_bytes=float(cap(scenario.max_body_bytes)),
        max_in_flight=int(cap(scenario.max_in_flight)),
        max_per_s=int(cap(scenario.max_per_s)),
    )


def _payload(law: Law | None, column: int, trace: Mapping[str, Floats]) -> k.Payload:
    if law is None:
        return k.Payload(-1.0, _NONE, _NONE, column)
    if law.kind == "linear":
        return k.Payload(0.0, _NONE, law.values(trace), column)
    if law.mean == 0.0:
        return k.Payload(0.0, np.ones(2 * k.TABLE_HALF), _NONE, column)
    return k.Payload(law.mean, law_table(law), _NONE, column)
