"""Pools of instances: picks a variant, and one of its instances, for each request.

The rules are the simulator's. RANDOM picks instance (z n) >> 32 of n, for a draw z of 32 bits.
LEAST_OUTSTANDING_REQUESTS picks, of the t instances tied for the fewest unanswered requests, number (z t) >> 32 in
index order. A request counts until its caller has the whole answer, so not beyond its time-out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from shadowsim.scenario.routing import LEAST_OUTSTANDING
from shadowsim.server.data_plane.backends import Answer, Backend, Call, Receiver
from shadowsim.server.state.views import VariantView


class VariantPool:
    """The instances of one variant.

    Attributes
    ----------
    variant : VariantView
    routing : str
        A name in `routing.ROUTINGS`.
    outstanding : list of int
        Unanswered requests per serving instance.
    n_arrived : int
        Requests so far.
    copies : bool
        Whether the variant is a shadow.
    n_workers : int or None
        Workers per instance; None if unknown.
    overhead_s : float
        What an answer takes at least beyond its latency; whole ones are the caller's to hold back.
    """

    def __init__(self, variant: VariantView, routing: str, backend: Backend, random: Random, copies: bool = False):
        self.variant, self.routing, self.copies = variant, routing, copies
        self.outstanding = [0] * variant.instance_count
        self.n_arrived = 0
        self.n_workers, self.overhead_s = backend.n_workers, backend.overhead_s
        self._backend, self._random = backend, random
        self._numbers = list(range(variant.instance_count))  # of the serving instances, ascending; never used again
        self._next_number = variant.instance_count
        self._draining: dict[int, int] = {}  # unanswered requests of instances that get no more

    async def invoke(self, call: Call, timeout_s: float, receiver: Receiver | None = None) -> tuple[int, Answer]:
        """Answer a call, streamed if there is a receiver; return the instance's index and its answer."""
        place = pick(self.outstanding, self.routing, self._random.getrandbits(32))
        self.outstanding[place] += 1
        self.n_arrived += 1
        instance = self._numbers[place]
        try:
            return instance, await self._backend.invoke(instance, call, timeout_s, receiver)
        finally:
            if place < len(self._numbers) and self._numbers[place] == instance:
                self.outstanding[place] -= 1
            else:
                self._drain(instance, self._draining[instance] - 1)

    def resize(self, n_instances: int) -> None:
        """Change the number of serving instances: new ones are idle, and the newest drain first."""
        while len(self._numbers) < n_instances:
            self._backend.add_instance(self._next_number)
            self._numbers.append(self._next_number)
            self.outstanding.append(0)
            self._next_number += 1
        while len(self._numbers) > n_instances:
            self._drain(self._numbers.pop(), self.outstanding.pop())

    def in_flight(self) -> list[int]:
        """Return the unanswered requests per instance, of those that serve and then of those that drain."""
        return [*self.outstanding, *self._draining.values()]

    def _drain(self, instance: int, n_left: int) -> None:
        if n_left:
            self._draining[instance] = n_left
        else:
            self._draining.pop(instance, None)
            self._backend.remove_instance(instance)

    def batches(self) -> Sequence[tuple[int, float]]:
        """Return of each instance in tokens the running sequences and its cache use; nothing for other services."""
        return self._backend.batches()


def pick(outstanding: Sequence[int], routing: str, z: int) -> int:
    """Return the index of the instance that takes a request, for a draw z in 0 .. 2**32 - 1."""
    if routing != LEAST_OUTSTANDING:
        return z * len(outstanding) >> 32
    least = min(outstanding)
    tied = [i for i, n in enumerate(outstanding) if n == least]
    return tied[z * len(tied) >> 32]


def pick_variant(pools: Mapping[str, VariantPool], draw: float) -> VariantPool:
    """Return the pool that takes a request, by weight (evenly if all are 0), for a draw in [0, 1)."""
    candidates = list(pools.values())
    if len(candidates) == 1:
        return candidates[0]
    weights = [pool.variant.weight for pool in candidates]
    if not any(weights):
        weights = [1.0] * len(weights)
    left = draw * sum(weights)
    for pool, weight in zip(candidates, weights, strict=True):
        left -= weight
        if left < 0.0:
            return pool
    return next(pool for pool, weight in zip(reversed(candidates), reversed(weights), strict=True) if weight)
