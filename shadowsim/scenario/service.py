"""Reads service models: how long a request holds a worker, how many workers there are, and limits.

An instance has `workers` parallel workers and one queue in front of them, first in, first out. A request takes its
drawn `time` on one worker, multiplied by the factor of `slowdown` for the number of workers that are busy when it
starts (workers that share memory bandwidth or an accelerator slow each other down). The factor does not change during
the service. With a `queue_limit`, a request that finds as many others waiting is refused at once.

Processors that had nothing to do are slower at first. With `wake` {`most_s`, `half_s`}, a request that finds its
instance idle for x seconds takes `most_s` x / (x + `half_s`) longer, and holds its worker for it.

Instances may serve several requests at once (`batching`, batching.py), or serve tokens instead of whole requests
(`tokens`, tokens.py). Their number may follow the traffic (`scaling` and `cold_start_s`, scaling.py), and they may fail
(`outages`, outages.py).

`by_instance_type` overrides keys on other instance types: {TYPE: {`time`, `workers`, ...}}. If a variant runs on such a
type, each of that type's keys replaces the service's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from shadowsim.aws.instances import lookup
from shadowsim.errors import Collector, InputError
from shadowsim.scenario.batching import Batcher, BatchingKeys, parse_batching
from shadowsim.scenario.fields import Block
from shadowsim.scenario.keys import (
    Integer,
    Keys,
    Number,
    Numbers,
    Parsed,
    Reserved,
    Schema,
    Word,
    given,
    nullable,
    object_form,
    optional,
)
from shadowsim.scenario.laws import Law, law_form, parse_law
from shadowsim.scenario.outages import OutagePlan, outages_form, parse_outages
from shadowsim.scenario.scaling import ScalingKeys, ScalingPolicy, parse_scaling
from shadowsim.scenario.tokens import TokenKeys, Tokens, parse_tokens

MAX_WORKERS = 65_536
MAX_QUEUE = 2**31 - 1
_NOT_WITH_TOKENS = ("time", "batching", "workers", "slowdown")
_NOT_WITH_WAKE = ("batching", "tokens", "scaling", "outages")


@dataclass(frozen=True, slots=True)
class Wake:
    """What a request takes longer that finds its instance idle: at most `most_s`, and half of it after `half_s`."""

    most_s: float
    half_s: float


class WakeKeys(Keys):
    """Keys of `wake`."""

    title = "What a request takes longer that finds its instance idle: most_s x idle / (idle + half_s)."
    most_s = Number("The most that it takes longer.", above=0.0)
    half_s = Number("After so long an idleness, half of it.", above=0.0)
    examples = ({"most_s": "2ms", "half_s": "20ms"},)


def parse_wake(block: Block) -> Wake:
    """Return what a service takes longer on an idle instance."""
    keys = WakeKeys.read(block)
    return Wake(keys.most_s, keys.half_s)


class ServiceKeys(Keys):
    """Keys of a service, but `by_instance_type`."""

    title = "How the instances of a variant serve: one queue, first in, first out, before `workers` workers."
    time = optional(
        Parsed(
            "How long a request holds a worker.",
            lambda block, key, base_dir: parse_law(block.values[key], block.at(key), "s", base_dir),
            law_form("s"),
        ),
        "required, unless there are `tokens`",
    )
    workers = optional(
        Integer("Requests that an instance serves at once.", least=1, most=MAX_WORKERS),
        "as many as its type has accelerators, or else vCPUs",
    )
    queue_limit = optional(
        Integer("Requests that may wait on an instance; others are refused.", least=0, most=MAX_QUEUE), "no limit"
    )
    slowdown = optional(
        Numbers(
            "Factors on the time of a request that starts when 1, 2, ... workers are busy; the last holds for more.",
            fewest=0,
            above=0.0,
        ),
        "none",
    )
    wake = optional(
        Parsed(
            "What a request takes longer that finds its instance idle; not with batches, tokens, scaling or outages.",
            lambda block, key, base_dir: parse_wake(block.block(key)),
            object_form(WakeKeys),
        ),
        "nothing",
    )
    error_4xx = Number(
        "Share of served requests that are answered with a 4XX status.", default=0.0, least=0.0, most=1.0
    )
    error_5xx = Number("The same with a 5XX status; at most 1 together.", default=0.0, least=0.0, most=1.0)
    discipline = Word("The order of service.", {"fifo": "first in, first out"}, default="fifo", later="ps")
    batching = optional(
        Parsed(
            "A dynamic batcher.",
            lambda block, key, base_dir: parse_batching(block.block(key)),
            object_form(BatchingKeys),
        ),
        "one request at a time on each worker",
    )
    tokens = optional(
        Parsed(
            "A continuous batcher, in place of `time`, `workers`, `batching` and `slowdown`.",
            lambda block, key, base_dir: parse_tokens(block.block(key), base_dir),
            object_form(TokenKeys),
        ),
        "a service in whole requests",
    )
    scaling = optional(
        Parsed(
            "How the number of instances follows the traffic.",
            lambda block, key, base_dir: parse_scaling(block.block(key)),
            object_form(ScalingKeys),
        ),
        "a fixed number",
    )
    cold_start_s = optional(Number("From a scale-out until the new instances serve.", least=0.0), "0")
    outages = optional(
        Parsed(
            "Failures of instances, with all requests that they hold: a list, or by chance.",
            lambda block, key, base_dir: parse_outages(block, key),
            outages_form,
        ),
        "none",
    )
    cpu_per_request_s = Reserved()
    examples = (
        {"time": {"law": "lognormal", "p50_s": "18ms", "p99_s": "60ms"}, "workers": 4},
        {"time": "20ms", "queue_limit": 100, "slowdown": [1.0, 1.1, 1.3]},
    )

    @classmethod
    def schema(cls, tag: Mapping[str, Schema] | None = None, null: Iterable[str] = ()) -> Schema:
        """Return its schema; beside `tokens` and `wake`, some keys must be left out."""
        without: Schema = {key: {"type": "null"} for key in _NOT_WITH_TOKENS} | {"slowdown": {"enum": [None, []]}}
        steady: Schema = {key: {"type": "null"} for key in _NOT_WITH_WAKE}
        own = super().schema(tag, null)
        rules = [
            {"if": given("tokens"), "then": {"properties": without}},
            {"if": given("wake"), "then": {"properties": steady}},
        ]
        return own | {"allOf": [*own.get("allOf", ()), *rules]}


def service_schema() -> Schema:
    """Return the schema of a service."""
    types = {
        "description": "Keys that replace the service's where the variant runs on an instance type.",
        "type": "object",
        "propertyNames": {"$ref": "#/$defs/ProductionVariantInstanceType"},
        "additionalProperties": nullable(ServiceKeys.schema()),
    }
    own = ServiceKeys.schema()
    own["properties"]["by_instance_type"] = nullable(types)
    some = {"by_instance_type": {"type": "object", "minProperties": 1}}
    of_type = {"required": list(some), "properties": some}
    return own | {"anyOf": [given("time"), given("tokens"), of_type]}


@dataclass(frozen=True, slots=True)
class Service:
    """The service model of a variant's instances.

    Attributes
    ----------
    time_law : Law or None
        Law of `time`; None with `tokens`.
    workers : int or None
        Workers per instance; None for as many as its type has accelerators, or else vCPUs.
    queue_limit : int or None
        Requests that may wait on one instance; None for no limit.
    slowdown : tuple of float
        Factors on `time` of a request that starts when 1, 2, ... workers of its instance are busy, including its own;
        the last holds for more. Empty for none.
    wake : Wake or None
        None where it makes no difference how long an instance was idle.
    error_4xx, error_5xx : float
        Shares of the served requests that are answered with a 4XX or a 5XX status; together at most 1.
    batching : Batcher or None
        None for one request at a time on each worker.
    tokens : Tokens or None
        None for a service in whole requests.
    scaling : ScalingPolicy or None
        None for a fixed number of instances.
    cold_start_s : float or None
        From a scale-out until the new instances serve; None if left out, which counts as 0.
    outages : OutagePlan or None
        None for instances that never fail.
    by_instance_type : mapping of str to Service
        The service on each type that the block lists, whose own `by_instance_type` is empty.
    block : mapping
        The JSON object that this was made from.
    """

    time_law: Law | None
    workers: int | None = None
    queue_limit: int | None = None
    slowdown: tuple[float, ...] = ()
    wake: Wake | None = None
    error_4xx: float = 0.0
    error_5xx: float = 0.0
    batching: Batcher | None = None
    tokens: Tokens | None = None
    scaling: ScalingPolicy | None = None
    cold_start_s: float | None = None
    outages: OutagePlan | None = None
    by_instance_type: Mapping[str, Service] = field(default_factory=dict)
    block: Mapping[str, object] = field(default_factory=dict)

    @property
    def time(self) -> Law:
        """Law of the seconds that a request holds a worker; a service in tokens has none."""
        assert self.time_law is not None
        return self.time_law

    @property
    def follows_trace(self) -> bool:
        """Whether the work of a request comes from columns of a trace."""
        return self.time.kind == "linear" if self.tokens is None else self.tokens.follows_trace

    @property
    def has_events(self) -> bool:
        """Whether its instances batch, scale or fail, so that they have to be simulated event by event."""
        return any(part is not None for part in (self.batching, self.tokens, self.scaling, self.outages))

    @property
    def saturated_factor(self) -> float:
        """A worker's time per request, in service times, while all workers are busy and batches are full."""
        return (self.slowdown or (1.0,))[-1] * (1.0 if self.batching is None else self.batching.full_share)

    @property
    def slowest_factor(self) -> float:
        """The same at the slowest of its slowdown factors."""
        return max(self.slowdown or (1.0,)) * (1.0 if self.batching is None else self.batching.full_share)

    @property
    def fastest_factor(self) -> float:
        """The least time of a worker per request, in service times, at any number of busy workers and size of batch."""
        return min(self.slowdown or (1.0,)) * (1.0 if self.batching is None else self.batching.least_share)

    @property
    def least_latency_factor(self) -> float:
        """The least that a service takes, in drawn times: at the fastest of slowdowns and sizes of batches."""
        return min(self.slowdown or (1.0,)) * (1.0 if self.batching is None else min(self.batching.factors))


def parse_service(value: object, path: str, base_dir: Path | None = None, instance_type: str | None = None) -> Service:
    """Return the service model that a JSON object describes.

    Parameters
    ----------
    value : dict
        Its keys are those of `Service`, and `discipline`, which is "fifo".
    path : str
        Where it stands, for errors.
    base_dir : Path, optional
        What its file paths are relative to.
    instance_type : str, optional
        The variant's type, whose keys in `by_instance_type` override the service's.

    Raises
    ------
    InputError
        When a key is unknown or not built yet, or a value breaks its constraint; the blocks of all types are checked.
    """
    block, errors = Block.of(value, path), Collector()
    with errors:
        block.only([*ServiceKeys.declared(), "by_instance_type"])
    types = block.block("by_instance_type")
    shared = {key: item for key, item in block.values.items() if key != "by_instance_type"}
    services = {}
    with errors:
        ServiceKeys.read(Block(path, shared), base_dir)  # also what the variant's type overrides
    if instance_type not in types.values:
        with errors:
            service = _service(Block(path, shared), base_dir)
    for name in types.values:
        with errors:
            override = types.block(name)
            override.only(ServiceKeys.declared())
            try:
                lookup(name)
            except InputError as error:
                raise InputError(override.path, error.constraint) from None
            keys = {key: item for key, item in override.values.items() if item is not None}
            services[name] = _service(_Merged(path, shared | keys, override), base_dir)
    errors.check()
    if instance_type in services:
        service = services[instance_type]
    return replace(service, by_instance_type=services, block=block.values)


@dataclass(frozen=True, slots=True)
class _Merged(Block):
    """A service's keys, overridden by those of one type, each with its own path."""

    override: Block

    def at(self, key: str) -> str:
        return self.override.at(key) if self.override.has(key) else Block.at(self, key)


def _service(block: Block, base_dir: Path | None) -> Service:
    errors = Collector()
    with errors:
        if not block.has("tokens"):
            block.need("time")
    with errors:
        keys = ServiceKeys.read(block, base_dir)
    with errors:
        if block.has("tokens"):
            _only_tokens(block)
    if block.has("wake"):
        for key in _NOT_WITH_WAKE:
            with errors:
                if block.has(key):
                    raise InputError(block.at("wake"), f"must be left out beside `{key}`", block.values["wake"])
    errors.check()
    if keys.error_4xx + keys.error_5xx > 1.0:
        raise InputError(block.path, "must have error_4xx + error_5xx <= 1", keys.error_4xx + keys.error_5xx)
    return Service(
        time_law=keys.time,
        workers=keys.workers,
        queue_limit=keys.queue_limit,
        slowdown=keys.slowdown or (),
        wake=keys.wake,
        error_4xx=keys.error_4xx,
        error_5xx=keys.error_5xx,
        batching=keys.batching,
        tokens=keys.tokens,
        scaling=keys.scaling,
        cold_start_s=keys.cold_start_s,
        outages=keys.outages,
        block=block.values,
    )


def _only_tokens(block: Block) -> None:
    """Raise `InputError` for keys that `tokens` has in its own way."""
    errors = Collector()
    for key in _NOT_WITH_TOKENS:
        with errors:
            if block.has(key) and block.values[key] != []:
                constraint = "must be left out beside `tokens`, whose `step` and `max_sequences` are in its place"
                raise InputError(block.at(key), constraint, block.values[key])
    errors.check()
