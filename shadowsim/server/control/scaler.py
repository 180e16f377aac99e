"""Scales simulated variants by the policies of Application Auto Scaling, as the simulation does.

The scaler looks at every tick of the server's scaled time, of which there are six a minute, counted from 1970. What
came in a minute is multiplied by the time scale: at twice the speed a minute has half of the requests. So a policy acts
on the rate that callers really send, and only faster. Of several ticks since the last look, all see what is in flight
now, and the requests since then share out evenly.

The points seen so far are not kept over a restart, since the counts that they come from are not either: alarms begin
again. All else is part of the account. AWS makes alarms in a way that it does not document, and a scenario's `scaling`
says with how many points: `out_points`, `in_points` and `delay_s` are its, `cold_start_s` is the service's.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from shadowsim.errors import ResourceLimitExceededError
from shadowsim.scenario.scaling import IN_POINTS, INVOCATIONS, OUT_POINTS, TICK_S
from shadowsim.scenario.service import Service
from shadowsim.server.control.scaling import is_real
from shadowsim.server.state.account import World
from shadowsim.server.state.fleet import VariantView
from shadowsim.server.state.scaling import FAILED, PENDING, ScalableTarget, TrackingPolicy, cause_of
from shadowsim.server.state.store import Store
from shadowsim.server.state.target_tracking import (
    IN,
    OUT,
    TICKS_A_MINUTE,
    Capacity,
    Decision,
    TargetTracker,
    joint_decision,
)
from shadowsim.server.state.transitions import capacity_of

_TARGETS_AT_ONCE = 16  # looked at before other work may go on
_MOST_TICKS = 6 * 24 * 60  # of one look: after a longer pause, such as a sleep of the machine, alarms begin again


@dataclass(frozen=True, slots=True)
class PoolReading:
    """What is read of a variant's instances.

    Attributes
    ----------
    n_arrived : int
        Requests since the pool was made.
    n_in_flight : int
        Unanswered requests now.
    """

    n_arrived: int
    n_in_flight: int


@dataclass(slots=True)
class _Watched:
    """What the scaler remembers of a scalable target."""

    trackers: dict[str, tuple[TrackingPolicy, TargetTracker]]
    n_arrived: int
    since_minute: float = math.nan  # requests of the minute so far; unknown in the first one


class Scaler:
    """Decides when the scalable targets of an account scale.

    Parameters
    ----------
    store : Store
    services : mapping of str to Service
        By variant.
    """

    def __init__(self, store: Store, services: Mapping[str, Service]):
        self._store, self._services = store, services
        self._watched: dict[str, _Watched] = {}
        self._tick = math.floor(store.clock.now() / TICK_S)  # looked at
        self._n_events = -1  # seen

    def endpoints(self, now: float) -> set[str]:
        """Return the endpoints whose variants must be read at a moment: none between ticks, but after actions.

        Parameters
        ----------
        now : float
            Scaled seconds since 1970.
        """
        world = self._store.world
        if math.floor(now / TICK_S) <= self._tick and self._store.n_events() == self._n_events:
            return set()
        return {target.endpoint for target in world.targets.values()}

    async def look(self, readings: Mapping[str, PoolReading], now: float) -> bool:
        """Look at all ticks up to a moment, and return whether anything was decided; other work goes on meanwhile.

        Parameters
        ----------
        readings : mapping of str to PoolReading
            By resource id; a target without a reading gets no requests.
        now : float
            Scaled seconds since 1970.

        Raises
        ------
        StoreError
            A decision cannot be written.
        """
        world = self._store.world_at(now)
        newest, first = math.floor(now / TICK_S), self._tick + 1
        self._n_events = n_before = self._store.n_events()
        self._tick = max(newest, self._tick)
        for resource in self._watched.keys() - world.targets.keys():
            del self._watched[resource]
        if newest - first >= _MOST_TICKS:
            self._watched.clear()
            first = newest
        policies: dict[str, list[TrackingPolicy]] = {}
        for policy in world.policies.values():
            policies.setdefault(policy.resource, []).append(policy)
        for i, name in enumerate(list(world.targets)):
            if i % _TARGETS_AT_ONCE == _TARGETS_AT_ONCE - 1:
                await asyncio.sleep(0)
            target = self._store.world.targets.get(name)
            view = None if target is None else _view_of(self._store.world, target)
            if target is None or view is None or is_real(self._store.world, view):
                self._watched.pop(name, None)
            else:
                reading = readings.get(name, PoolReading(0, 0))
                self._look_at(target, policies.get(name, []), reading, range(first, newest + 1), now)
        return self._store.n_events() > n_before

    def _look_at(
        self,
        target: ScalableTarget,
        policies: Sequence[TrackingPolicy],
        reading: PoolReading,
        ticks: range,
        now: float,
    ) -> None:
        world = self._store.world
        self._keep_within_bounds(world, target, now)
        if not ticks:
            return
        watched = self._watched.get(target.name)
        if watched is None or reading.n_arrived < watched.n_arrived:  # new, or the pool was made again
            watched = self._watched[target.name] = _Watched({}, reading.n_arrived)
        self._renew_trackers(target, policies, watched)
        n_new, watched.n_arrived = reading.n_arrived - watched.n_arrived, reading.n_arrived
        for tick in ticks:
            watched.since_minute += n_new / len(ticks)
            is_minute = tick % TICKS_A_MINUTE == 0
            per_minute = watched.since_minute * self._store.clock.scale
            if is_minute:
                watched.since_minute = 0.0
            capacity = capacity_of(world, target.name)
            if capacity is None:  # its endpoint is being updated, which blocks scaling
                continue
            asked: dict[str, list[Decision]] = {}
            for policy, tracker in watched.trackers.values():
                value = per_minute if tracker.policy.metric == INVOCATIONS else float(reading.n_in_flight)
                decisions = []
                if tracker.is_point(tick) and not math.isnan(value):
                    decisions = tracker.look(tick, value, capacity.n_serving, capacity.desired)
                if not policy.scales_in:
                    decisions = [decision for decision in decisions if decision.direction == OUT]
                if policy.scales_in or decisions:
                    asked[policy.name] = decisions
            decision = joint_decision(list(asked.values()))
            if decision is not None:
                name = next(name for name, decisions in asked.items() if any(d is decision for d in decisions))
                at_s = max(tick * TICK_S, world.now_s)
                if capacity.may(decision, at_s) and not target.is_suspended(decision.direction):
                    self._decide(world, target, watched.trackers, name, capacity, decision, at_s)

    def _renew_trackers(self, target: ScalableTarget, policies: Sequence[TrackingPolicy], watched: _Watched) -> None:
        """Keep a tracker for each policy; one that has changed begins again."""
        present = {policy.name: policy for policy in policies}
        for name in watched.trackers.keys() - present.keys():
            del watched.trackers[name]
        service = self._services.get(target.variant)
        scaling = service.scaling if service else None
        points = (scaling.out_points, scaling.in_points) if scaling else (OUT_POINTS, IN_POINTS)
        for name, policy in present.items():
            rules = policy.rules(target, *points)
            known = watched.trackers.get(name)
            if known is None or known[0] != policy or known[1].policy != rules:
                watched.trackers[name] = policy, TargetTracker(rules)

    def _decide(
        self,
        world: World,
        target: ScalableTarget,
        trackers: dict[str, tuple[TrackingPolicy, TargetTracker]],
        name: str,
        capacity: Capacity,
        decision: Decision,
        at_s: float,
    ) -> None:
        policy, tracker = trackers[name]
        refusal = self._over_quota(world, target, decision)
        if refusal is not None:
            trackers[name] = policy, TargetTracker(tracker.policy)  # tries again after as many points
        cause, rules = cause_of(policy, decision), tracker.policy
        cooldown_s = rules.out_cooldown_s if decision.direction == OUT else rules.in_cooldown_s
        self._record(target, decision, capacity.desired, at_s, cause, cooldown_s, refusal)

    def _keep_within_bounds(self, world: World, target: ScalableTarget, now: float) -> None:
        """Scale at once where the number of instances wanted is beyond MinCapacity or MaxCapacity."""
        capacity = capacity_of(world, target.name)
        if capacity is None or target.least <= capacity.desired <= target.most:
            return
        is_low = capacity.desired < target.least
        wanted, direction = (target.least, OUT) if is_low else (target.most, IN)
        cause = f"{'minimum' if is_low else 'maximum'} capacity was set to {wanted}"
        last = next(reversed(world.activities_of(target.name)), None)
        if last is not None and last.cause == cause and last.status in (PENDING, FAILED):
            return
        decision = Decision(direction, wanted, math.nan)
        refusal = self._over_quota(world, target, decision)
        self._record(target, decision, capacity.desired, now, cause, 0.0, refusal)

    def _over_quota(self, world: World, target: ScalableTarget, decision: Decision) -> str | None:
        """Return why a quota forbids a scale-out, or None."""
        endpoint = world.endpoints[target.endpoint]
        assert endpoint.fleet is not None
        wanted: Counter[str] = Counter()
        for view in endpoint.fleet.variants:
            wanted[view.instance_type] += decision.wanted if view.name == target.variant else view.desired_count
        try:
            self._store.quotas.check(world, endpoint.name, wanted)
        except ResourceLimitExceededError as error:
            return str(error)
        return None

    def _record(
        self,
        target: ScalableTarget,
        decision: Decision,
        desired_before: int,
        at_s: float,
        cause: str,
        cooldown_s: float,
        refusal: str | None,
    ) -> None:
        service = self._services.get(target.variant)
        scaling = service.scaling if service else None
        body: dict[str, Any] = {
            "name": str(uuid4()),
            "resource": target.name,
            "cause": cause,
            "status": PENDING,
            "direction": decision.direction,
            "wanted": decision.wanted,
            "desired_before": desired_before,
            "delay_s": scaling.delay_s if scaling else 0.0,
            "cold_start_s": (service.cold_start_s or 0.0) if service else 0.0,
            "cooldown_s": cooldown_s,
        }
        if refusal is not None:
            text = f"Failed to set desired instance count to {decision.wanted}. Reason: {refusal}"
            body |= {"status": FAILED, "delay_s": 0.0, "message": text, "ended_s": 0.0}
        self._store.accept("Scale", body, at_s)


def _view_of(world: World, target: ScalableTarget) -> VariantView | None:
    endpoint = world.endpoints.get(target.endpoint)
    fleet = endpoint.fleet if endpoint else None
    return next((view for view in fleet.variants if view.name == target.variant), None) if fleet else None
