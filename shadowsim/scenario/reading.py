"""Reads the blocks of a scenario that depend on each other, and checks them against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import numpy as np

from shadowsim.aws.contract import as_time
from shadowsim.aws.experiment import LONGEST, SHORTEST, Experiment, Variant
from shadowsim.aws.instances import lookup
from shadowsim.errors import Collector, InputError, did_you_mean
from shadowsim.scenario.fields import Block
from shadowsim.scenario.keys import (
    Integer,
    Keys,
    Number,
    Parsed,
    Schema,
    Word,
    enumeration,
    list_form,
    nullable,
    optional,
)
from shadowsim.scenario.laws import Law
from shadowsim.scenario.paths import instance_count_path, value_at
from shadowsim.scenario.precision import (
    MOST_REPLICATIONS,
    Auto,
    parse_precision,
    parse_warmup,
    precision_form,
    warmup_form,
)
from shadowsim.scenario.routing import DEFAULT_ROUTING, LEAST_OUTSTANDING, RANDOM, ROUTINGS
from shadowsim.scenario.service import Service, parse_service
from shadowsim.scenario.tokens import MOST_GOODPUT, GoodputKeys, check_tokens, read_goodput
from shadowsim.scenario.traces import Trace
from shadowsim.scenario.traffic import Traffic

RULE, INSTANT = "coin", "arrival"
TIMEOUT_S = 60.0
MAX_IN_FLIGHT = 2**31 - 1
MAX_PER_S = 10_000_000  # as many times of copies are kept in memory
MAX_WINDOWS = 5_000_000
MAX_REQUESTS_PER_WINDOW = 1e9
MAX_POOL_WORKERS = 10_000_000
MAX_RANDOM_OUTAGES = 10_000_000  # expected in a run
_NO_LIMIT = "no limit"


def _routing_form() -> Schema:
    word = {"type": "string", **enumeration({name: _ROUTING_SAYS[name] for name in ROUTINGS})}
    by_variant = {"type": "object", "description": "By variant.", "additionalProperties": nullable(word)}
    return {"anyOf": [word, by_variant]}


_ROUTING_SAYS = {
    RANDOM: "evenly at random",
    LEAST_OUTSTANDING: "to the instance with the fewest requests in flight, ties at random",
}


class EndpointKeys(Keys):
    """Keys of the block `endpoint`."""

    title = "The endpoint before the variants' instances."
    routing = Parsed(
        "How requests are routed to the instances of a variant: one strategy for all, or an object by variant.",
        lambda block, key, base_dir: DEFAULT_ROUTING,  # `read_routing` reads it, since it needs the variants' names
        _routing_form,
        DEFAULT_ROUTING,
    )
    overhead_s = Number("OverheadLatency: what the endpoint adds to each request.", default=0.002, least=0.0)
    timeout_s = Number("The time after which a request fails.", default=TIMEOUT_S, above=0.0)
    examples = ({"routing": LEAST_OUTSTANDING, "overhead_s": "2ms"},)


class MirrorKeys(Keys):
    """Keys of the block `mirror`."""

    title = "Which requests are copied to the shadow, when, and the limits beyond which copies are lost."
    rule = Word(
        "The rule that chooses the requests to copy.",
        {
            "coin": "each by chance, seeded",
            "counter": "evenly: every second one for 50 %",
            "hash": "by their session, all or none of its requests; needs traffic.sessions",
        },
        default=RULE,
    )
    instant = Word(
        "When the copy leaves.",
        {"arrival": "when the request arrives", "response": "when it has been answered"},
        default=INSTANT,
    )
    max_in_flight = optional(
        Integer("No copy is made while so many are unanswered.", least=0, most=MAX_IN_FLIGHT), _NO_LIMIT
    )
    max_body_bytes = optional(
        Number("Longer bodies are not copied; needs traffic.request_bytes.", least=0.0), _NO_LIMIT
    )
    max_per_s = optional(Integer("Most copies within any second.", least=0, most=MAX_PER_S), _NO_LIMIT)
    examples = ({"rule": "hash", "max_in_flight": 100},)


class RunKeys(Keys):
    """Keys of the block `run`."""

    title = "How long is simulated, and what is kept."
    horizon_s = optional(
        Number("Length of the run.", above=0.0),
        "the Schedule's length, or else 7 days; with traces alone at most theirs",
    )
    period_s = Number("Length of a window of the frames.", default=60.0, above=0.0)
    seed = Integer("Seed of all random draws.", default=7, least=0, most=2**64 - 1)
    sample_requests = Integer(
        "Number of requests that the `requests` frame keeps.", default=10_000, least=0, most=2**53
    )
    replications = Integer(
        "Number of runs, with different seeds, that `replicate` makes.", default=1, least=1, most=MOST_REPLICATIONS
    )
    goodput = optional(
        Parsed(
            "Limits within which requests of services in tokens are counted as good.",
            lambda block, key, base_dir: read_goodput(block),
            list_form(GoodputKeys, longest=MOST_GOODPUT),
        ),
        "none",
    )
    warmup_s = Parsed[float | Auto](
        'The beginning of a run that its figures leave out: seconds, or "auto".',
        lambda block, key, base_dir: parse_warmup(block),
        warmup_form,
        0.0,
    )
    precision = optional(
        Parsed(
            "Half-width of 95 % intervals over the figure, which more replications are to reach: a number for the "
            "mean latency of both variants, or an object.",
            lambda block, key, base_dir: parse_precision(block),
            precision_form,
        ),
        "as many runs as `replications`",
    )
    examples = ({"horizon_s": "1d", "period_s": 60, "seed": 7},)


BLOCK_KEYS: Mapping[str, type[Keys]] = MappingProxyType(
    {"endpoint": EndpointKeys, "mirror": MirrorKeys, "run": RunKeys}
)


def read_experiment(document: Block) -> Experiment:
    """Return the experiment of a scenario; with an EndTime alone, it starts `horizon_s` earlier, if that is given."""
    run = document.block("run")
    request = Block.of(document.need("experiment"), "experiment").values
    schedule = request.get("Schedule")
    now = None
    if isinstance(schedule, Mapping) and schedule.get("StartTime") is None and run.has("horizon_s"):
        # With an EndTime alone, the run begins when the scenario is first read. The horizon tells how long before the
        # EndTime that was, so that a saved scenario can still be read when its EndTime has passed.
        end = as_time(schedule.get("EndTime"))
        length = timedelta(seconds=min(RunKeys.horizon_s.value(run, Path()) or 0.0, LONGEST.total_seconds()))
        now = end - max(length, SHORTEST) if end else None
    return Experiment.from_request(request, now)


def read_services(document: Block, experiment: Experiment, base_dir: Path) -> dict[str, Service]:
    """Return the service of every variant by its name, the source's first."""
    block = Block.of(document.need("services"), "services")
    names, errors, services = [experiment.source.name, experiment.shadow.name], Collector(), {}
    unknown = [name for name in block.values if name not in names]
    for name in unknown:
        with errors:
            raise InputError(block.at(name), f"is not a variant of the experiment{did_you_mean(name, names)}")
    for variant in (experiment.source, experiment.shadow):
        path = block.at(variant.name)
        if unknown and not block.has(variant.name):
            continue  # which may be the one that is misspelt
        with errors:
            if not block.has(variant.name):
                raise InputError(path, "is required: every variant needs a service")
            service = parse_service(block.values[variant.name], path, base_dir, variant.pool.instance_type)
            services[variant.name] = service
    errors.check()
    return services


def read_routing(endpoint: Block, experiment: Experiment) -> dict[str, str]:
    """Return the routing strategy of every variant: one for all, or an object with one for some variants."""
    names = (experiment.source.name, experiment.shadow.name)
    if not isinstance(endpoint.values.get("routing"), Mapping):
        return dict.fromkeys(names, endpoint.choice("routing", DEFAULT_ROUTING, tuple(ROUTINGS)))
    block = endpoint.block("routing")
    block.only(names)
    return {name: block.choice(name, DEFAULT_ROUTING, tuple(ROUTINGS)) for name in names}


@dataclass(frozen=True, slots=True)
class Mirroring:
    """Settings of a mirror: the rule and the instant of copying, and the limits beyond which copies are lost.

    Attributes
    ----------
    rule : str
        "coin", "counter" or "hash".
    instant : str
        "arrival" or "response".
    max_body_bytes, max_in_flight, max_per_s : float or int, or None
        Limits on a copied body, on unanswered copies and on copies per second; None for no limit.
    """

    rule: str = RULE
    instant: str = INSTANT
    max_body_bytes: float | None = None
    max_in_flight: int | None = None
    max_per_s: int | None = None


def read_mirror(mirror: Block) -> Mirroring:
    """Return the mirror's settings; `check_mirror` checks them against the traffic."""
    keys = MirrorKeys.read(mirror)
    return Mirroring(keys.rule, keys.instant, keys.max_body_bytes, keys.max_in_flight, keys.max_per_s)


def check_mirror(mirror: Mirroring, traffic: Traffic) -> None:
    """Raise `InputError` for a mirror that needs sessions or sizes that the traffic lacks."""
    errors = Collector()
    with errors:
        if mirror.rule == "hash" and traffic.sessions is None:
            raise InputError("mirror.rule", "needs traffic.sessions to hash", mirror.rule)
    with errors:
        if mirror.max_body_bytes is not None and traffic.request_bytes is None:
            constraint = "needs traffic.request_bytes to compare with"
            raise InputError("mirror.max_body_bytes", constraint, mirror.max_body_bytes)
    errors.check()


@dataclass(frozen=True, slots=True)
class EndpointTimes:
    """Times of an endpoint, in seconds.

    Attributes
    ----------
    overhead_s, timeout_s : float
        OverheadLatency, and the time after which a request fails.
    """

    overhead_s: float
    timeout_s: float


def read_endpoint(endpoint: Block) -> EndpointTimes:
    """Return the endpoint's times; `read_routing` reads its routing."""
    keys = EndpointKeys.read(endpoint)
    return EndpointTimes(keys.overhead_s, keys.timeout_s)


def horizon_of(run: Block, experiment: Experiment, traffic: Traffic, period_s: float) -> float:
    """Return the length of the run in seconds: `horizon_s`, or the default that scenario.py describes."""
    wanted_s = wanted_horizon_s(run, experiment)
    if not traffic.only_traces:
        return experiment.duration_s if wanted_s is None else wanted_s
    length_s = max(trace.length_s for trace in traffic.traces) or period_s  # one moment alone fills a window
    return length_s if wanted_s is None else min(length_s, wanted_s)


def wanted_horizon_s(run: Block, experiment: Experiment) -> float | None:
    """Return the length of the run that `horizon_s` or the Schedule asks for; None if neither is given."""
    if run.has("horizon_s"):
        return RunKeys.horizon_s.value(run, Path())
    schedule = experiment.schedule
    return None if schedule.start is None and schedule.end is None else experiment.duration_s


def workers_of(variant: Variant, service: Service) -> int:
    """Return the number of workers per instance of a variant, or raise `InputError` when it is not known.

    A service in tokens has one: its steps come one after the other.
    """
    if service.tokens is not None:
        return 1
    workers = service.workers or lookup(variant.pool.instance_type).workers
    if workers is None:
        constraint = f"is required, since neither accelerators nor vCPUs of {variant.pool.instance_type} are known"
        raise InputError(f"services.{variant.name}.workers", constraint)
    if len(service.slowdown) > workers:
        constraint = f"must have at most one factor for each of the {workers} workers"
        raise InputError(f"services.{variant.name}.slowdown", constraint, len(service.slowdown))
    return workers


def check_pool(variant: Variant, workers: int, document: Mapping[str, object]) -> None:
    """Raise `InputError` for a pool with more than `MAX_POOL_WORKERS` workers."""
    path, n = instance_count_path(document, variant.name), variant.pool.instance_count
    if n * workers > MAX_POOL_WORKERS:
        raise InputError(path, f"must give at most {MAX_POOL_WORKERS:,} workers, {workers} each", n)


def check_changes_of_pool(variant: Variant, service: Service, workers: int, horizon_s: float) -> None:
    """Raise `InputError` for scaling and outages that do not fit the variant's instances, or are too many."""
    n, errors, policy, plan = variant.pool.instance_count, Collector(), service.scaling, service.outages
    most = n if policy is None else policy.most
    if policy is not None:
        path = _service_path(variant, service, "scaling")
        with errors:
            if policy.least > n:
                raise InputError(f"{path}.min", f"must be at most the variant's InstanceCount of {n}", policy.least)
        with errors:
            if policy.most < n:
                raise InputError(f"{path}.max", f"must be at least the variant's InstanceCount of {n}", policy.most)
        with errors:
            if policy.most * workers > MAX_POOL_WORKERS:
                constraint = f"must give at most {MAX_POOL_WORKERS:,} workers, {workers} each"
                raise InputError(f"{path}.max", constraint, policy.most)
    if plan is not None:
        path = _service_path(variant, service, "outages")
        for outage in plan.listed if policy is None else ():
            with errors:
                if outage.instance >= n:
                    constraint = f"must name instances 0 to {n - 1} of a variant that has {n} and no scaling"
                    raise InputError(path, constraint, outage.instance)
        with errors:
            if most * horizon_s / (plan.mtbf_s + plan.mttr_s) > MAX_RANDOM_OUTAGES:
                constraint = f"must bring at most {MAX_RANDOM_OUTAGES:,} outages of {most:,} instances in the run"
                raise InputError(f"{path}.mtbf_s", constraint, plan.mtbf_s)
    errors.check()


def _service_path(variant: Variant, service: Service, key: str) -> str:
    """Return the path of a variant's key: that of its instance type where this overrides the service's."""
    path, instance_type = f"services.{variant.name}", variant.pool.instance_type
    of_type = value_at(service.block, f"by_instance_type.{instance_type}.{key}")
    return f"{path}.{key}" if of_type is None else f"{path}.by_instance_type.{instance_type}.{key}"


def check_windows(horizon_s: float, period_s: float) -> None:
    """Raise `InputError` for a period that cuts the horizon into more than `MAX_WINDOWS` windows."""
    if horizon_s / period_s > MAX_WINDOWS:
        limit = f"must cut the horizon of {horizon_s:g} s into at most {MAX_WINDOWS:,} windows"
        raise InputError("run.period_s", limit, period_s)


def check_warmup(
    warmup_s: float | Auto, horizon_s: float, period_s: float, traffic: Traffic, services: Mapping[str, Service]
) -> None:
    """Raise `InputError` for a warm-up that leaves nothing of the run, or whose end no rule can find."""
    if not warmup_s:
        return
    from shadowsim.frames import MOST_SECTIONS  # imported late, since pandas loads slowly
    from shadowsim.statistics.warm_up import LEAST_WINDOWS

    n_windows = math.ceil(horizon_s / period_s)
    if not isinstance(warmup_s, str):
        n_sections = min(MOST_SECTIONS, n_windows)
        last_s = period_s * math.ceil((n_sections - 1) * n_windows / n_sections)
        if warmup_s > last_s:
            constraint = f"must be at most {last_s:g} s, where the last of the run's {n_sections} sections begins"
            raise InputError("run.warmup_s", constraint, warmup_s)
        return
    reasons = [
        f"{name} {'scales' if service.scaling is not None else 'has listed outages'}"
        for name, service in services.items()
        if service.scaling is not None or (service.outages is not None and service.outages.listed)
    ]
    if any(stream.profile is not None for stream in traffic.streams):
        reasons.append("the traffic has a profile")
    if any(stream.process == "trace" and stream.resample is None for stream in traffic.streams):
        reasons.append("the traffic has a recorded trace")
    if reasons:
        constraint = f"must be a number of seconds, since the state is not the same at every hour: {', '.join(reasons)}"
        raise InputError("run.warmup_s", constraint, warmup_s)
    if n_windows < LEAST_WINDOWS:
        constraint = f"needs at least {LEAST_WINDOWS} windows (run.period_s), and the run has {n_windows}"
        raise InputError("run.warmup_s", constraint, warmup_s)


def check_rate(traffic: Traffic, horizon_s: float, period_s: float, start: datetime | None) -> None:
    """Raise `InputError` for synthetic traffic without requests, or with more than a window's counters can hold."""
    peak_per_s = math.fsum(stream.peak_drawn_rate(horizon_s, start) for stream in traffic.streams)
    window_s = min(period_s, horizon_s)
    if peak_per_s * window_s > MAX_REQUESTS_PER_WINDOW:
        limit = f"must bring at most {MAX_REQUESTS_PER_WINDOW:,.0f} requests in a window of {window_s:g} s"
        rate = f"; its peak rate is {peak_per_s:g} requests per second"
        raise InputError("traffic", limit, round(peak_per_s * window_s), hint=rate)


def check_columns(traffic: Traffic, services: Mapping[str, Service]) -> None:
    """Raise `InputError` for trace columns that are used but missing or unusable; this also reads the trace."""
    laws = {f"services.{name}.time": service.time_law for name, service in services.items()}
    laws |= {"traffic.request_bytes": traffic.request_bytes, "traffic.response_bytes": traffic.response_bytes}
    in_tokens = [service.tokens for service in services.values() if service.tokens is not None]
    for tokens in in_tokens:
        laws |= {f"{tokens.path}.prompt": tokens.prompt, f"{tokens.path}.output": tokens.output}
    traces = traffic.traces
    trace = traces[0] if traffic.process == "trace" else None
    if trace is not None and isinstance(traffic.sessions, str):
        trace.whole_numbers(traffic.sessions, "traffic.sessions")
    for path, law in laws.items():
        if law is not None and law.kind == "linear":
            if trace is None:
                alone = ", and no list," if traces else ""
                raise InputError(path, f"needs trace traffic{alone} for a law of trace columns", law.block)
            _check_linear(trace, law, path)
    for tokens in in_tokens:
        check_tokens(tokens, trace)


def _check_linear(trace: Trace, law: Law, path: str) -> None:
    is_object = isinstance(law.block, Mapping)
    for name in law.columns:
        # A misspelt base reads like a column.
        trace.column(
            name, f"{path}.{name}" if is_object else path, ["base_s", "base_bytes", "base_tokens"] if is_object else []
        )
    with np.errstate(over="ignore"):
        values = law.values(trace.columns)
    if not np.isfinite(values).all() or (path.endswith(".time") and not values.any()):
        raise InputError(path, "must give finite numbers, some of them > 0, over the trace", law.block)
