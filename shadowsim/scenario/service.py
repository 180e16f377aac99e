"""Service models: how long one request holds a worker of an instance, and how many workers there are.

An instance has `workers` parallel workers and one queue in front of them, first in, first out. A request takes its
drawn `time` on one worker, multiplied by a factor of `slowdown` for how many workers are busy when it starts: workers
that share memory bandwidth or an accelerator slow each other down. The factor stays as it was at the start. With a
`queue_limit`, a request that finds so many others waiting is refused at once.

`by_instance_type` says what differs on other instance types: {TYPE: {`time`, `workers`, ...}}. Where a variant runs on
such a type, that type's keys stand in place of the service's own, each as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from shadowsim.aws.instances import lookup
from shadowsim.errors import InputError
from shadowsim.scenario.fields import SERVICE_KEYS, SERVICE_LATER, Block
from shadowsim.scenario.laws import Law, parse_law

MAX_WORKERS = 65_536
MAX_QUEUE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Service:
    """How a variant's instances serve.

    Attributes
    ----------
    time : Law
        Seconds that a request holds a worker.
    workers : int or None
        Workers of one instance; None for those of its type: accelerators, or else vCPUs.
    queue_limit : int or None
        Requests that may wait on one instance; None for no limit.
    slowdown : tuple of float
        Factors on `time` of a request that starts when 1, 2, ... workers of its instance are busy, itself included; the
        last holds for more. Empty for none.
    error_4xx, error_5xx : float
        Shares of the served requests that are answered with such a status; together at most 1.
    by_instance_type : mapping of str to Service
        The service on each type that the block speaks of; theirs are empty.
    block : mapping
        The JSON object that this was made of.
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
    """Make a service model of its JSON object.

    Parameters
    ----------
    value : dict
        Its keys are those of `Service`, and `discipline`, which is "fifo".
    path : str
        Where it stands, for errors.
    base_dir : Path, optional
        What the files it names are relative to.
    instance_type : str, optional
        What the variant runs on: its keys of `by_instance_type` hold before the service's own.

    Raises
    ------
    InputError
        When a key is unknown or not built yet, or a value breaks its constraint; in a type's block whether or not it
        is the variant's type.
    """
    block = Block.of(value, path)
    block.only(SERVICE_KEYS, SERVICE_LATER)
    types = block.block("by_instance_type")
    shared = {key: item for key, item in block.values.items() if key != "by_instance_type"}
    measured = {}
    for name in types.values:
        own = types.block(name)
        own.only([key for key in SERVICE_KEYS if key != "by_instance_type"], SERVICE_LATER)
        try:
            lookup(name)
        except InputError as error:
            raise InputError(own.path, error.constraint) from None
        given = {key: item for key, item in own.values.items() if item is not None}
        measured[name] = _service(_Merged(path, shared | given, own), base_dir)
    if instance_type in measured:
        return replace(measured[instance_type], by_instance_type=measured, block=block.values)
    return replace(_service(Block(path, shared), base_dir), by_instance_type=measured, block=block.values)


@dataclass(frozen=True, slots=True)
class _Merged(Block):
    """A service's keys with those of one type in their place, each under the path at which it stands."""

    own: Block

    def at(self, key: str) -> str:
        return self.own.at(key) if self.own.has(key) else Block.at(self, key)


def _service(block: Block, base_dir: Path | None) -> Service:
    time = parse_law(block.need("time"), block.at("time"), "s", base_dir)
    workers = block.integer("workers", least=1, most=MAX_WORKERS) if block.has("workers") else None
    queue_limit = block.integer("queue_limit", least=0, most=MAX_QUEUE) if block.has("queue_limit") else None
    slowdown = block.numbers("slowdown", above=0.0) if block.has("slowdown") and block.values["slowdown"] != [] else ()
    block.choice("discipline", "fifo", ["fifo"], ["ps"])
    error_4xx = block.number("error_4xx", 0.0, least=0.0, most=1.0)
    error_5xx = block.number("error_5xx", 0.0, least=0.0, most=1.0)
    if error_4xx + error_5xx > 1.0:
        raise InputError(block.path, "must have error_4xx + error_5xx <= 1", error_4xx + error_5xx)
    return Service(time, workers, queue_limit, slowdown, error_4xx, error_5xx, block=block.values)
