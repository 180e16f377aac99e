"""Reads service models: how long a request holds a worker, how many workers there are, and limits.

An instance has `workers` parallel workers and one queue in front of them, first in, first out. A request takes its
drawn `time` on one worker, multiplied by the factor of `slowdown` for the number of workers that are busy when it
starts (workers that share memory bandwidth or an accelerator slow each other down). The factor does not change during
the service. With a `queue_limit`, a request that finds as many others waiting is refused at once.

`by_instance_type` overrides keys on other instance types: {TYPE: {`time`, `workers`, ...}}. If a variant runs on such a
type, each of that type's keys replaces the service's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from shadowsim.aws.instances import lookup
from shadowsim.errors import Collector, InputError
from shadowsim.scenario.fields import SERVICE_KEYS, SERVICE_LATER, Block
from shadowsim.scenario.laws import Law, parse_law

MAX_WORKERS = 65_536
MAX_QUEUE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Service:
    """The service model of a variant's instances.

    Attributes
    ----------
    time : Law
        Seconds that a request holds a worker.
    workers : int or None
        Workers per instance; None for as many as its type has accelerators, or else vCPUs.
    queue_limit : int or None
        Requests that may wait on one instance; None for no limit.
    slowdown : tuple of float
        Factors on `time` of a request that starts when 1, 2, ... workers of its instance are busy, including its own;
        the last holds for more. Empty for none.
    error_4xx, error_5xx : float
        Shares of the served requests that are answered with a 4XX or a 5XX status; together at most 1.
    by_instance_type : mapping of str to Service
        The service on each type that the block lists, whose own `by_instance_type` is empty.
    block : mapping
        The JSON object that this was made from.
    """

    time: Law
    workers: int | None = None
    queue_limit: int | None = None
    slowdown: tuple[float, ...] = ()
    error_4xx: float = 0.0
    error_5xx: float = 0.0
    by_instance_type: Mapping[str, Service] = field(default_factory=dict)
    block: Mapping[str, object] = field(default_factory=dict)


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
        block.only(SERVICE_KEYS, SERVICE_LATER)
    types = block.block("by_instance_type")
    shared = {key: item for key, item in block.values.items() if key != "by_instance_type"}
    services = {}
    if instance_type not in types.values:
        with errors:
            service = _service(Block(path, shared), base_dir)
    for name in types.values:
        with errors:
            override = types.block(name)
            override.only([key for key in SERVICE_KEYS if key != "by_instance_type"], SERVICE_LATER)
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
        time = parse_law(block.need("time"), block.at("time"), "s", base_dir)
    with errors:
        workers = block.integer("workers", least=1, most=MAX_WORKERS) if block.has("workers") else None
    with errors:
        queue_limit = block.cap("queue_limit", MAX_QUEUE)
    with errors:
        has_slowdown = block.has("slowdown") and block.values["slowdown"] != []
        slowdown = block.numbers("slowdown", above=0.0) if has_slowdown else ()
    with errors:
        block.choice("discipline", "fifo", ["fifo"], ["ps"])
    with errors:
        error_4xx = block.number("error_4xx", 0.0, least=0.0, most=1.0)
    with errors:
        error_5xx = block.number("error_5xx", 0.0, least=0.0, most=1.0)
    errors.check()
    if error_4xx + error_5xx > 1.0:
        raise InputError(block.path, "must have error_4xx + error_5xx <= 1", error_4xx + error_5xx)
    return Service(time, workers, queue_limit, slowdown, error_4xx, error_5xx, block=block.values)
