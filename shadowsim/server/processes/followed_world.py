"""Follows the account in a process that does not own it, by its events and by the clock.

The control process sends the whole account at first, and then each event. In between the follower makes the transitions
that fall due by itself, from the same clock, so that a schedule ends although nobody tells. An event may come with a
moment before a transition that the follower has already made, if its clock was some ms ahead: then it asks for the
whole account again. Requests meanwhile are answered by what it has.

Taking the account of many experiments holds a process for long. So a follower whose control was started again tells the
checksum of the events that it has followed, and gets the account only if others have come.
"""

from __future__ import annotations

import json

from shadowsim.errors import ThrottlingError
from shadowsim.server.processes.links import Message
from shadowsim.server.processes.shared_memory import SharedMemory
from shadowsim.server.state import events, snapshot, transitions
from shadowsim.server.state.account import World
from shadowsim.server.state.clock import Clock
from shadowsim.server.state.quotas import Quotas
from shadowsim.server.state.store import Store, chained

WORLD, SAME, EVENT = "world", "same", "event"


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
    """

    def __init__(self, throttle: SharedThrottle):
        self.world, self.clock, self.throttle = World(), Clock(0.0, 0.0), throttle
        self.number, self.checksum = -1, ""
        self._changed_s = 0.0  # when the last transition was made

    def world_at(self, now: float) -> World:
        """Return the account advanced to a moment, as `Store.world_at` does."""
        now = round(now, 6)
        if self.world.due_s <= now:
            self._changed_s = now
        transitions.advance(self.world, now)
        return self.world

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
            self._changed_s = self.world.now_s
            return True
        _, number, at_s, kind, text = message
        if number != self.number + 1 or at_s < self._changed_s:
            return False
        self.world.now_s = min(self.world.now_s, at_s)  # nothing has changed since
        events.apply(self.world, kind, json.loads(text), at_s)
        self.number, self._changed_s = number, at_s
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
