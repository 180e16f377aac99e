"""Describes a scenario in a few lines, and instance types as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shadowsim.aws.instances import InstanceType, duration_text
from shadowsim.scenario.routing import DEFAULT_ROUTING
from shadowsim.text import grid, rate, trimmed_number, trimmed_time, wrapped

if TYPE_CHECKING:
    from shadowsim.aws.experiment import Variant
    from shadowsim.scenario.scenario import Scenario
    from shadowsim.scenario.service import Service


def scenario_text(scenario: Scenario) -> str:
    """Return a scenario's name and length, its traffic, and one line per pool."""
    s, e = scenario, scenario.experiment
    length = _length_text(s.horizon_s)
    rows = [
        ("run", f"{e.name}: {length} in windows of {trimmed_time(s.period_s)}, seed {s.seed}"),
        ("traffic", _traffic_text(s)),
        ("source", _pool_text(s, e.source, s.source_workers)),
        ("shadow", _pool_text(s, e.shadow, s.shadow_workers) + f", gets {e.sampling_percentage} % of the requests"),
    ]
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
    retried = traffic.retries
    again = "" if retried is None else f", up to {retried.max_attempts} attempts each"
    if traffic.process == "trace":
        n = traffic.trace().n_before(scenario.horizon_s)
        file = traffic.file.name if traffic.file else ""
        faster = "" if traffic.speed == 1.0 else f" at {trimmed_number(traffic.speed)} times its speed"
        played = "" if traffic.repeat == 1 else f", played {traffic.repeat:,} times"
        drawn = "" if traffic.resample is None else "in blocks that are drawn from it, about "
        return f"trace {file}{faster}{played}: {drawn}{n:,} requests, {rate(mean)} in the mean{again}"
    kind = traffic.title
    if traffic.profile is None:
        return f"{kind}, {rate(mean)}{again}"
    peak = float(traffic.knots(scenario.horizon_s, scenario.start)[1].max())
    return f"{kind}, {rate(mean)} in the mean and {trimmed_number(peak)} at the peak{again}"


def _pool_text(scenario: Scenario, variant: Variant, workers: int) -> str:
    service = scenario.services[variant.name]
    law = service.time
    time = law.kind if math.isnan(law.mean) else f"{law.kind} {trimmed_time(law.mean)}"
    pool, noun = variant.pool, "worker" if workers == 1 else "workers"
    text = f"{variant.name}: {pool.instance_count:,} x {pool.instance_type}, {workers} {noun} each, service {time}"
    return text + _events_text(service)


def _events_text(service: Service) -> str:
    """Describe how a service's instances batch, scale and fail; "" if they do not."""
    text, batcher, policy, plan = "", service.batching, service.scaling, service.outages
    if batcher is not None:
        text += f", in batches of up to {batcher.max_size}"
    if policy is not None:
        text += f", scales from {policy.least:,} to {policy.most:,} at {trimmed_number(policy.target)} {policy.metric}"
    if plan is not None and plan.listed:
        text += f", {len(plan.listed):,} outage{'s' if len(plan.listed) > 1 else ''}"
    elif plan is not None:
        text += f", an instance fails every {_length_text(plan.mtbf_s)} for {_length_text(plan.mttr_s)} in the mean"
    return text


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
