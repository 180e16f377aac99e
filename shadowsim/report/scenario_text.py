"""Describes a scenario in a few lines, and instance types as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shadowsim.aws.instances import InstanceType, duration_text
from shadowsim.scenario.routing import DEFAULT_ROUTING
from shadowsim.text import grid, rate, trimmed_number, trimmed_time, wrapped
from shadowsim.verdict import clock

if TYPE_CHECKING:
    from shadowsim.aws.experiment import Variant
    from shadowsim.scenario.laws import Law
    from shadowsim.scenario.retries import RetryPolicy
    from shadowsim.scenario.scenario import Scenario
    from shadowsim.scenario.service import Service
    from shadowsim.scenario.tokens import Prefix, Tokens


def scenario_text(scenario: Scenario) -> str:
    """Return a scenario's name and length, its traffic, one line per pool, and one for each thing that changes them."""
    s, e = scenario, scenario.experiment
    length = _length_text(s.horizon_s)
    rows = [
        ("run", f"{e.name}: {length} in windows of {trimmed_time(s.period_s)}, seed {s.seed}"),
        ("traffic", _traffic_text(s)),
        ("source", _pool_text(s, e.source, s.source_workers)),
        ("shadow", _pool_text(s, e.shadow, s.shadow_workers) + f", gets {e.sampling_percentage} % of the requests"),
    ]
    rows += event_rows(s)
    unusual = _unusual(s)
    if unusual:
        rows.append(("copies", unusual))
    return "\n".join(wrapped(text, f"{label:<9}", " " * 9) for label, text in rows)


def instances_table(types: Sequence[InstanceType]) -> str:
    """Return instance types as a table; a question mark or "unknown" stands for a figure that is not known."""
    rows = [("type", "vCPU", "GiB", "accelerators", "USD/h", "as of")]
    for t in types:
        n = t.accelerator_count
        # The table fits 80 columns only without the makers' names.
        model = (t.accelerator or "accelerator").partition(" ")[2] or t.accelerator
        accelerators = "?" if n is None else f"{n} x {model}" if n else "-"
        price = "unknown" if t.price_usd_per_h is None else f"{t.price_usd_per_h:.4f}"
        as_of = (t.price_as_of or "").partition(" ")[0]  # without a remark such as "(undated)"
        rows.append((t.name, _known(t.vcpus), _known(t.memory_gib), accelerators, price, as_of))
    return grid(rows, left=(0, 3, 5))


def _known(figure: float | None) -> str:
    return "?" if figure is None else trimmed_number(figure)


def _traffic_text(scenario: Scenario) -> str:
    traffic = scenario.traffic
    mean = traffic.mean_rate(scenario.horizon_s, scenario.start)
    if traffic.process == "trace":
        n = traffic.trace().n_before(scenario.horizon_s)
        file = traffic.file.name if traffic.file else ""
        faster = "" if traffic.speed == 1.0 else f" at {trimmed_number(traffic.speed)} times its speed"
        played = "" if traffic.repeat == 1 else f", played {traffic.repeat:,} times"
        drawn = "" if traffic.resample is None else "in blocks that are drawn from it, about "
        return f"trace {file}{faster}{played}: {drawn}{n:,} requests, {rate(mean)} in the mean"
    kind = traffic.title
    if traffic.profile is None:
        return f"{kind}, {rate(mean)}"
    peak = float(traffic.knots(scenario.horizon_s, scenario.start)[1].max())
    return f"{kind}, {rate(mean)} in the mean and {trimmed_number(peak)} at the peak"


def _pool_text(scenario: Scenario, variant: Variant, workers: int) -> str:
    service = scenario.services[variant.name]
    pool = variant.pool
    text = f"{variant.name}: {pool.instance_count:,} x {pool.instance_type}, "
    if service.tokens is not None:
        return text + tokens_text(service.tokens)
    law = service.time
    time = law.kind if math.isnan(law.mean) else f"{law.kind} {trimmed_time(law.mean)}"
    noun = "worker" if workers == 1 else "workers"
    return text + f"{workers} {noun} each, service {time}"


def tokens_text(tokens: Tokens) -> str:
    """Return how many sequences an instance runs, of which lengths."""
    room = f"up to {tokens.max_sequences:,} sequences with {tokens.kv_tokens:,} cached tokens"
    lengths = f"prompts of {_length_law_text(tokens.prompt)} and answers of {_length_law_text(tokens.output)}"
    prefix = "" if tokens.prefix is None else f", and remembers {_prefix_text(tokens.prefix)}"
    return f"{room}, {lengths}{prefix}"


def _prefix_text(prefix: Prefix) -> str:
    if prefix.hashes:
        named = f"by the trace's {' and '.join(prefix.hashes)}, one for {prefix.hash_tokens:,} tokens"
    elif prefix.session is not None:
        named = f"{prefix.length:,} a group, numbered by the trace's {prefix.session}"
    else:
        named = f"{prefix.length:,} for each of {prefix.groups:,} groups"
    return f"{prefix.cache_tokens:,} tokens that prompts begin with ({named})"


def _length_law_text(law: Law) -> str:
    if law.kind == "linear":
        return f"the trace's {' and '.join(law.columns)}"
    drawn = "" if law.kind == "deterministic" else f"{law.kind} "
    return f"{drawn}{trimmed_number(law.mean)} tokens"


def event_rows(scenario: Scenario) -> list[tuple[str, str]]:
    """Return label and text of what changes pools or repeats requests: batching, scaling, outages, retries."""
    variants = scenario.experiment.source, scenario.experiment.shadow
    rows = []
    for label, describe in (("batching", _batching_text), ("scaling", _scaling_text), ("outages", _outages_text)):
        texts = {variant.name: describe(scenario.services[variant.name]) for variant in variants}
        if len(set(texts.values())) == 1:
            texts = {"both variants": next(iter(texts.values()))}
        rows += [(label, f"{name}: {text}") for name, text in texts.items() if text]
    if scenario.traffic.retries is not None:
        rows.append(("retries", _retries_text(scenario.traffic.retries)))
    return rows


def _batching_text(service: Service) -> str:
    batcher = service.batching
    if batcher is None:
        return ""
    size = batcher.max_size
    wait = f"the oldest waits up to {trimmed_time(batcher.max_delay_s)} for more" if batcher.max_delay_s else "no wait"
    full = f"a full batch takes {trimmed_number(batcher.factors[-1])} times as long as one request"
    return f"up to {size} {'request' if size == 1 else 'requests'} in a batch, {wait}; {full}"


def _scaling_text(service: Service) -> str:
    policy = service.scaling
    if policy is None:
        return ""
    late = [f"serves {_length_text(service.cold_start_s)} later" if service.cold_start_s else "serves at once"]
    if policy.delay_s:
        late.append(f"decisions take effect after {_length_text(policy.delay_s)}")
    return (
        f"{policy.least:,} to {policy.most:,} instances, to hold {trimmed_number(policy.target)} {policy.metric}; "
        f"a new one {', '.join(late)}"
    )


def _outages_text(service: Service) -> str:
    plan = service.outages
    if plan is None:
        return ""
    if not plan.listed:
        return f"each instance fails every {_length_text(plan.mtbf_s)} for {_length_text(plan.mttr_s)} in the mean"
    first = plan.listed[0]
    text = f"instance {first.instance} fails at {clock(first.at_s)} for {_length_text(first.for_s)}"
    n = len(plan.listed)
    return text if n == 1 else f"{n:,} are listed, in the first of which {text}"


def _retries_text(policy: RetryPolicy) -> str:
    cap = "" if policy.backoff_cap_s is None else f", at most {trimmed_time(policy.backoff_cap_s)}"
    waits = f"waits of up to {trimmed_time(policy.backoff_base_s)}, doubled each time{cap}"
    clients = "one client" if policy.clients == 1 else f"each of {policy.clients:,} clients"
    quota = "no quota" if policy.quota is None else f"a quota of {policy.quota:,} tokens for {clients}"
    return (
        f"callers: up to {policy.max_attempts} attempts per request, {waits}; they give up after "
        f"{trimmed_time(policy.timeout_s)}; {quota}"
    )


def _length_text(length_s: float) -> str:
    return duration_text(length_s) if length_s >= 60.0 else trimmed_time(length_s)


def _unusual(s: Scenario) -> str:
    """Describe copying and routing where they differ from a coin at arrival, no caps and random routing."""
    parts = []
    if (s.mirror_rule, s.mirror_instant) != ("coin", "arrival"):
        parts.append(f"by {s.mirror_rule} at the {s.mirror_instant}")
    caps = {"bytes of body": s.max_body_bytes, "in flight": s.max_in_flight, "per second": s.max_per_s}
    parts += [f"at most {trimmed_number(cap)} {unit}" for unit, cap in caps.items() if cap is not None]
    if set(s.routing.values()) != {DEFAULT_ROUTING}:
        parts.append("routing " + ", ".join(f"{name} {strategy}" for name, strategy in s.routing.items()))
    return "; ".join(parts)
