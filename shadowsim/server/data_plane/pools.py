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
        Unanswered requests per instance.
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
        self.n_workers, self.overhead_s = backend.n_workers, backend.overhead_s
        self._backend, self._random = backend, random

    async def invoke(self, call: Call, timeout_s: float, receiver: Receiver | None = None) -> tuple[int, Answer]:
        """Answer a call, streamed if there is a receiver; return the instance's index and its answer."""
        instance = pick(self.outstanding, self.routing, self._random.getrandbits(32))
        self.outstanding[instance] += 1
        try:
            return instance, await self._backend.invoke(instance, call, timeout_s, receiver)
        finally:
            self.outstanding[instance] -= 1

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
