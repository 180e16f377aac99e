"""Pools: the choice of variants and instances by the simulator's rules, checked by enumeration."""

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowsim.server.data_plane.backends import Answer, Call
from shadowsim.server.data_plane.pools import LEAST_OUTSTANDING, VariantPool, pick, pick_variant
from shadowsim.server.state.views import VariantView


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.integers(0, 2**32 - 1))
def test_the_least_loaded_of_the_tied_ones_by_the_draw(outstanding, z):
    tied = [i for i in range(len(outstanding)) if all(outstanding[i] <= n for n in outstanding)]
    assert pick(outstanding, LEAST_OUTSTANDING, z) == tied[int(z / 2**32 * len(tied))]
    assert pick(outstanding, "RANDOM", z) == int(z / 2**32 * len(outstanding))


class Gate:
    """A backend that answers once it is open."""

    n_workers, overhead_s = 1, 0.0

    def __init__(self):
        self.open = asyncio.Event()
        self.seen = []

    async def invoke(self, instance, call, timeout_s, receiver=None):
        self.seen.append(instance)
        await self.open.wait()
        return Answer("answered", 0.0, 200)


def test_a_request_counts_until_it_is_answered():
    async def run():
        gate = Gate()
        pool = VariantPool(VariantView("v", "m", "ml.m5.large", 3), LEAST_OUTSTANDING, gate, Random(1))
        waiting = [asyncio.create_task(pool.invoke(Call(b""), 1.0)) for _ in range(6)]
        await asyncio.sleep(0)
        assert pool.outstanding == [2, 2, 2]  # spread evenly, which a random choice would hardly do
        assert sorted(gate.seen[:3]) == [0, 1, 2]
        gate.open.set()
        await asyncio.gather(*waiting)
        assert pool.outstanding == [0, 0, 0]

    asyncio.run(run())


def pools(*weights):
    views = [VariantView(f"v{i}", "m", "ml.m5.large", 1, weight) for i, weight in enumerate(weights)]
    return {view.name: VariantPool(view, "RANDOM", Gate(), Random(1)) for view in views}


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ((2, 1), (2 / 3, 1 / 3)),
        ((1,), (1,)),
        ((0, 1), (0, 1)),
        ((1, 0), (1, 0)),
        ((0, 0), (0.5, 0.5)),
        ((1, 1, 2), None),
    ],
)
def test_variants_get_their_weights_share(weights, shares):
    n = 1200  # a draw in the middle of each of n cells: shares are exact to a cell
    taken = [pick_variant(pools(*weights), (i + 0.5) / n).variant.name for i in range(n)]
    expected = shares or [w / sum(weights) for w in weights]
    assert [taken.count(f"v{i}") for i in range(len(weights))] == [round(n * share) for share in expected]


def test_instances_come_and_go_while_requests_are_under_way():
    """New instances have new numbers; those that go get no more requests, and are forgotten once they have none."""

    class Growing(Gate):
        def __init__(self):
            super().__init__()
            self.added, self.removed = [], []

        def add_instance(self, instance):
            self.added.append(instance)

        def remove_instance(self, instance):
            self.removed.append(instance)

    async def run():
        gate = Growing()
        pool = VariantPool(VariantView("v", "m", "ml.m5.large", 2), LEAST_OUTSTANDING, gate, Random(1))
        waiting = [asyncio.create_task(pool.invoke(Call(b""), 1.0)) for _ in range(4)]
        await asyncio.sleep(0)
        pool.resize(1)
        assert (pool.outstanding, pool.in_flight(), gate.removed) == ([2], [2, 2], [])
        pool.resize(3)
        assert (pool.outstanding, gate.added) == ([2, 0, 0], [2, 3])
        waiting += [asyncio.create_task(pool.invoke(Call(b""), 1.0)) for _ in range(2)]
        await asyncio.sleep(0)
        assert sorted(gate.seen[4:]) == [2, 3]
        pool.resize(2)
        gate.open.set()
        await asyncio.gather(*waiting)
        assert (pool.outstanding, pool.in_flight(), pool.n_arrived) == ([0, 0], [0, 0], 6)
        assert sorted(gate.removed) == [1, 3]
        pool.resize(1)
        assert sorted(gate.removed) == [1, 2, 3]

    asyncio.run(run())
