"""Reads dynamic batchers: an instance that serves several waiting requests at once.

`batching` in a service gives each instance a dynamic batcher, as Triton has it: one queue, first in, first out, for all
its workers. When a worker is free, and `max_size` requests wait or the oldest has waited for `max_delay_s`, the worker
takes the first of them, at most `max_size`. The batch holds the worker for the oldest request's drawn time, multiplied
by the slowdown and by the factor for the batch's size; all its requests are answered together::

    "batching": {"max_size": 8, "max_delay_s": "5ms", "marginal": 0.1}
    "batching": {"max_size": 4, "factors": [1.0, 1.1, 1.2, 1.5]}

===========  ==========================================================================================================
max_size     most requests in a batch
max_delay_s  how long the oldest may wait for the batch to fill; 0 if left out: whatever waits is taken at once
factors      on the time of a batch of 1, 2, ... requests; the last holds for more
marginal     instead: the factor is 1 + `marginal` x (size - 1), so that 0 is a batch that takes as long as one request
             and 1 is no gain from batching
===========  ==========================================================================================================

Either `factors` or `marginal` is required, unless `max_size` is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shadowsim.errors import InputError
from shadowsim.scenario.fields import Block
from shadowsim.scenario.keys import Alternatives, Integer, Keys, Number, Numbers, Schema, given, optional

MOST_IN_A_BATCH = 4096
MAX_FACTOR = 1e6


class BatchingKeys(Keys):
    """Keys of `batching`."""

    title = "A dynamic batcher: each worker takes several waiting requests at once."
    max_size = Integer("Most requests in a batch.", least=1, most=MOST_IN_A_BATCH)
    max_delay_s = Number(
        "How long the oldest request may wait for the batch to fill; 0 takes whatever waits.", default=0.0, least=0.0
    )
    factors = optional(
        Numbers(
            "Factors on the time of a batch of 1, 2, ... requests, at most `max_size`; the last holds for more.",
            longest=MOST_IN_A_BATCH,
            above=0.0,
            most=MAX_FACTOR,
        )
    )
    marginal = optional(
        Number(
            "In place of `factors`: the factor is 1 + marginal x (size - 1). 0 is a batch that takes as long as one "
            "request, 1 is no gain from batching.",
            least=0.0,
            most=MAX_FACTOR,
        )
    )
    rules = (Alternatives(("factors", "marginal"), 0, 1, "must be left out where `factors` are given", at="marginal"),)
    examples = (
        {"max_size": 8, "max_delay_s": "5ms", "marginal": 0.1},
        {"max_size": 4, "factors": [1.0, 1.1, 1.2, 1.5]},
    )

    @classmethod
    def schema(cls, tag: Mapping[str, Schema] | None = None, null: Iterable[str] = ()) -> Schema:
        """Return its schema; a batch of several requests needs to know how long it takes."""
        own, single = super().schema(tag, null), {"properties": {"max_size": {"const": 1}}}
        return own | {"allOf": [*own["allOf"], {"anyOf": [single, given("factors"), given("marginal")]}]}


@dataclass(frozen=True, slots=True)
class Batcher:
    """The dynamic batcher of each instance of a variant.

    Attributes
    ----------
    max_size : int
        Most requests in a batch.
    max_delay_s : float
        How long the oldest request may wait for its batch to fill.
    factors : tuple of float
        Factors on the service time of batches of 1, 2, ... `max_size` requests.
    """

    max_size: int
    max_delay_s: float
    factors: tuple[float, ...]

    @property
    def full_share(self) -> float:
        """A request's share of the time of a full batch, in service times of a single draw."""
        return self.factors[-1] / self.max_size

    @property
    def least_share(self) -> float:
        """The same for the size of batch that serves most requests per second."""
        return min(factor / size for size, factor in enumerate(self.factors, 1))


def parse_batching(block: Block) -> Batcher:
    """Return the batcher that a JSON object describes.

    Raises
    ------
    InputError
        When a key is unknown, or a value breaks its constraint.
    """
    keys = BatchingKeys.read(block)
    return Batcher(keys.max_size, keys.max_delay_s, _factors(block, keys))


def _factors(block: Block, keys: BatchingKeys) -> tuple[float, ...]:
    if keys.factors is not None:
        if len(keys.factors) > keys.max_size:
            constraint = f"must have at most one factor for each size up to {keys.max_size}"
            raise InputError(block.at("factors"), constraint, len(keys.factors))
        return keys.factors + keys.factors[-1:] * (keys.max_size - len(keys.factors))
    if keys.max_size > 1 and keys.marginal is None:
        raise InputError(block.path, "needs `factors` or `marginal`: how much longer a batch takes than one request")
    return tuple(1.0 + (keys.marginal or 0.0) * (size - 1) for size in range(1, keys.max_size + 1))
