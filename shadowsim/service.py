"""Service models: how long one request holds a worker of an instance, and how many workers there are.

An instance has `workers` parallel workers and one queue in front of them, first in, first out. A request takes its
drawn `time` on one worker, multiplied by a factor of `slowdown` for how many workers are busy when it starts: workers
that share memory bandwidth or an accelerator slow each other down. The factor stays as it was at the start. With a
`queue_limit`, a request that finds so many others waiting is refused at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shadowsim.errors import InputError
from shadowsim.laws import Law, parse_law
from shadowsim.paths import SERVICE_KEYS, SERVICE_LATER, Block

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
    block : mapping
        The JSON object that this was made of.
    """

    time: Law
    workers: int | None = None
    queue_limit: int | None = None
    slowdown: tuple[float, ...] = ()
    error_4xx: float = 0.0
    error_5xx: float = 0.0
    block: Mapping[str, object] = field(default_factory=dict)


def parse_service(value: object, path: str, base_dir: Path | None = None) -> Service:
    """Make a service model of its JSON object.

    Parameters
    ----------
    value : dict
        Its keys are those of `Service`, and `discipline`, which is "fifo".
    path : str
        Where it stands, for errors.
    base_dir : Path, optional
        What the files it names are relative to.

    Raises
    ------
    InputError
        When a key is unknown or not built yet, or a value breaks its constraint.
    """
    block = Block.of(value, path)
    block.only(SERVICE_KEYS, SERVICE_LATER)
    time = parse_law(block.need("time"), block.at("time"), "s", base_dir)
    workers = block.integer("workers", least=1, most=MAX_WORKERS) if block.has("workers") else None
    queue_limit = block.integer("queue_limit", least=0, most=MAX_QUEUE) if block.has("queue_limit") else None
    slowdown = block.numbers("slowdown", above=0.0) if block.has("slowdown") and block.values["slowdown"] != [] else ()
    block.choice("discipline", "fifo", ["fifo"], ["ps"])
    error_4xx = block.number("error_4xx", 0.0, least=0.0, most=1.0)
    error_5xx = block.number("error_5xx", 0.0, least=0.0, most=1.0)
    if error_4xx + error_5xx > 1.0:
        raise InputError(block.path, "must have error_4xx + error_5xx <= 1", error_4xx + error_5xx)
    return Service(time, workers, queue_limit, slowdown, error_4xx, error_5xx, block.values)
