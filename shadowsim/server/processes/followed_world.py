"""Follows the account in a process that does not own it, by its events and by the clock.

The control process sends the whole account at first, and then each event. In between the follower makes the transitions
that fall due by itself, from the same clock, so that a schedule ends although nobody tells. An event is on its way for
some ms, in which the follower may have made a transition that comes after it: this is taken back before the event is
put in force, and then made again, or not.

Taking the account of many experiments holds a process for long. So transitions of the last seconds can be taken back
without it, and a follower whose control was started again tells the checksum of the events that it has followed. It
gets the account only if others have come.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import Any

from shadowsim.errors import ThrottlingError
from shadowsim.server.processes.links import Message
from shadowsim.server.processes.shared_memory import SharedMemory
from shadowsim.server.state import events, snapshot, transitions
from shadowsim.server.state.account import ACTIVITY_RANK, ENDPOINT_RANK, EXPERIMENT_RANK, World
from shadowsim.server.state.clock import Clock
from shadowsim.server.state.quotas import Quotas
from shadowsim.server.state.store import Store, chained

WORLD, SAME, EVENT = "world", "same", "event"
KEPT_S = 5.0  # for which transitions can be taken back: what an event is late by at most
_RANKS = {"endpoints": ENDPOINT_RANK, "experiments": EXPERIMENT_RANK, "activities": ACTIVITY_RANK}


def greeting(store: Store, checksum: str) -> Message:
    """Return the message for a process that has followed the events of a checksum: that it has all, or the account."""
    if checksum == store.checksum:
        return SAME, store.n_events(), store.clock.origin, store.clock.anchor
    return world_message(store)


def world_message(store: Store) -> Message:
    """Return the message that has the whole account."""
    clock, world = store.clock, store.world
    rows = list(snapshot.all_rows(world))
    facts = world.region, world.account, clock.origin, clock.anchor
    return WORLD, store.n_events(), store.checksum, *facts, rows


@dataclass(frozen=True, slots=True)
class _Step:
    """Transitions that were made together at a moment of the account, and the account before them."""

    at_s: float
    made_s: float  # by the system's clock
    now_s: float
    n_changes: int
    replaced: dict[str, dict[str, Any]]


class FollowedWorld:
    """The account as a process follows it; it stands for the store there.

    Attributes
    ----------
    world : World
    clock : Clock
    throttle : SharedThrottle
    number : int
        The last event; -1 before the first account has come.
    checksum : str
        Of all events up to that one; "" before.
    n_revised : int
        How often what the account was has turned out to be otherwise: versions that were seen may mean something else.
    """

    def __init__(self, throttle: SharedThrottle):
        self.world, self.clock, self.throttle = World(), Clock(0.0, 0.0), throttle
        self.number, self.checksum, self.n_revised = -1, "", 0
        self._settled_s = 0.0  # what was until then is not taken back
        self._steps: deque[_Step] = deque()

    def world_at(self, now: float) -> World:
        """Return the account advanced to a moment, as `Store.world_at` does."""
        now = round(now, 6)
        if self.world.due_s <= now:
            self._step(now)
        else:
            transitions.advance(self.world, now)
        return self.world

    def _step(self, now: float) -> None:
        """Make the transitions that are due, and keep what they replace."""
        world, made_s = self.world, monotonic()
        while self._steps and self._steps[0].made_s < made_s - KEPT_S:
            self._settled_s = self._steps.popleft().at_s
        before, records = (world.now_s, world.n_changes), world.records
        for of_kind in records.values():
            of_kind.replaced = {}
        transitions.advance(world, now)
        replaced = {kind: of_kind.replaced for kind, of_kind in records.items() if of_kind.replaced}
        for of_kind in records.values():
            of_kind.replaced = None
        self._steps.append(_Step(now, made_s, *before, replaced))

    def _take_back(self, at_s: float) -> None:
        """Take back the transitions that were made after a moment."""
        world = self.world
        while self._steps and self._steps[-1].at_s > at_s:
            step = self._steps.pop()
            for kind, replaced in step.replaced.items():
                world.records[kind].take_back(replaced)
                if kind in _RANKS:
                    world.changed |= {(_RANKS[kind], name) for name in replaced}
            world.now_s, world.n_changes = step.now_s, step.n_changes
            self.n_revised += 1
            transitions.reschedule(world)

    def take(self, message: Message) -> bool:
        """Take the whole account, or that it is the same, or an event; return False for what cannot follow."""
        if message[0] == SAME:
            _, number, origin, anchor = message
            self.clock = Clock.alongside(origin, anchor)
            return bool(number == self.number)
        if message[0] == WORLD:
            _, self.number, self.checksum, region, account, origin, anchor, rows = message
            self.world = World(region=region, account=account)
            snapshot.restore(self.world, rows)
            self.clock = Clock.alongside(origin, anchor)
            self._settled_s, self.n_revised = self.world.now_s, self.n_revised + 1
            self._steps.clear()
            return True
        _, number, at_s, kind, text = message
        if number != self.number + 1 or at_s < self._settled_s:
            return False
        self._take_back(at_s)
        self.world.now_s = min(self.world.now_s, at_s)  # nothing has changed since
        events.apply(self.world, kind, json.loads(text), at_s)
        self.number, self._settled_s = number, at_s
        self._steps.clear()
        self.checksum = chained(self.checksum, at_s, kind, text)
        return True


class SharedThrottle:
    """The quota of invocations, of which all workers take."""

    def __init__(self, memory: SharedMemory, quotas: Quotas):
        self.quotas, self._memory = quotas, memory

    def admit(self, action: str) -> None:
        """Take a token for an action, or raise ThrottlingError."""
        rate = self.quotas.limits.get(f"Rate of {action} requests")
        if rate is not None and not self._memory.take_token(rate, max(1.0, rate)):
            raise ThrottlingError("Rate exceeded")
