"""The account as workers follow it: equal to the store's after every event, and by the clock without any."""

import json
from dataclasses import asdict
from random import Random
from typing import ClassVar

import pytest
from rehearsed_account import DAY, SHADOW, SOURCE, T0, experiment, production, shadow_mode_config

from shadowsim.errors import ShadowsimError, ThrottlingError
from shadowsim.server.control.actions import handle
from shadowsim.server.processes import followed_world
from shadowsim.server.processes.followed_world import (
    EVENT,
    SAME,
    WORLD,
    FollowedWorld,
    SharedThrottle,
    greeting,
    world_message,
)
from shadowsim.server.processes.links import decoded, encoded
from shadowsim.server.processes.shared_memory import SharedMemory, make_block
from shadowsim.server.state import snapshot
from shadowsim.server.state.quotas import Quotas
from shadowsim.server.state.store import Store
from shadowsim.server.state.views import endpoint_view

ROLE = "arn:aws:iam::111122223333:role/r"
LIVE = {"Name": "bert"}
ACTIONS = [
    ("StartInferenceExperiment", LIVE),
    ("StopInferenceExperiment", {**LIVE, "ModelVariantActions": {SOURCE: "Retain", SHADOW: "Remove"}}),
    ("StopInferenceExperiment", {**LIVE, "ModelVariantActions": {SOURCE: "Remove", SHADOW: "Promote"}}),
    ("UpdateInferenceExperiment", {**LIVE, "ShadowModeConfig": shadow_mode_config(7)}),
    ("DeleteInferenceExperiment", LIVE),
    ("CreateInferenceExperiment", experiment()),
    ("CreateEndpoint", {"EndpointName": "live", "EndpointConfigName": "config"}),
    ("UpdateEndpoint", {"EndpointName": "live", "EndpointConfigName": "config"}),
    ("DeleteEndpoint", {"EndpointName": "live"}),
]


class Account:
    """A store whose clock the test moves, and what it tells; closed after the test."""

    opened: ClassVar[list[Store]] = []

    def __init__(self, **options):
        self.now, self.told = T0, []
        self.store = Store(transition_s=60.0, wall=lambda: self.now, steady=lambda: self.now, **options)
        self.opened.append(self.store)
        self.store.tell = lambda *event: self.told.append((EVENT, *event))
        for model in ("old", "new"):
            self("CreateModel", {"ModelName": model, "PrimaryContainer": {"Image": "i"}, "ExecutionRoleArn": ROLE})
        self("CreateEndpointConfig", {"EndpointConfigName": "config", "ProductionVariants": [production()]})

    def __call__(self, action, body):
        return handle(action, body, self.now, self.store)

    def events(self):
        events, self.told = self.told, []
        return [decoded(encoded(event)) for event in events]


@pytest.fixture(autouse=True)
def _closed_accounts():
    yield
    while Account.opened:
        Account.opened.pop().close()


def follower(account):
    world = FollowedWorld(SharedThrottle(SharedMemory(make_block()), Quotas({})))
    assert world.take(decoded(encoded(world_message(account.store))))
    return world


def rows(world):
    return sorted(snapshot.all_rows(world))


def revised_while_following(seed):
    """Follow the account through random actions, and return how often it turned out to be otherwise."""
    rng, account = Random(seed), Account()
    world = follower(account)
    account.events()
    n_accepted = 0
    for _ in range(60):
        account.now += rng.choice([0.0, 0.001, 30.0, 61.0, DAY])
        # the follower may hear of an action later than it has looked at the account, or look later
        for ahead_s in rng.choice([(), (0.0,), (-0.5, 0.0), (0.002,), (1.0, 61.0)]):
            world.world_at(account.now + ahead_s)
        try:
            account(*rng.choice(ACTIONS))
            n_accepted += 1
        except ShadowsimError:
            pass
        assert all(world.take(event) for event in account.events())
        now = max(account.now, world.world.now_s)
        assert rows(world.world_at(now)) == rows(follower(account).world_at(now))
    assert n_accepted > 5
    assert world.number == account.store.n_events()
    assert world.checksum == account.store.checksum
    return world.n_revised - 1  # the first account


@pytest.mark.parametrize("seeds", [range(i, i + 10) for i in (0, 10)])
def test_a_follower_has_the_same_account(seeds):
    """Also when actions come later than the transitions after them, which happens now and then."""
    assert sum(map(revised_while_following, seeds)) > len(seeds) / 2


def test_a_schedule_ends_although_nobody_tells():
    account = Account()
    account("CreateInferenceExperiment", experiment(Schedule={"StartTime": T0 + 100.0, "EndTime": T0 + 100.0 + DAY}))
    world = follower(account)
    views = {t: endpoint_view(world, "live", T0 + t).shadow for t in (161.0, 100.0 + DAY + 130.0)}
    assert views[161.0].variant.name == SHADOW
    assert views[100.0 + DAY + 130.0] is None


def account_with_a_late_event():
    """An account, a follower that has seen a schedule begin, and an event from just before, which puts it off."""
    account = Account()
    account("CreateInferenceExperiment", experiment(Schedule={"StartTime": T0 + 100.0, "EndTime": T0 + 100.0 + DAY}))
    world = follower(account)
    account.events()
    assert world.world_at(T0 + 100.001).experiments["bert"].stage.status == "Starting"
    account.now = T0 + 99.999
    account("UpdateInferenceExperiment", {**LIVE, "Schedule": {"StartTime": T0 + 5_000.0}})
    (event,) = account.events()
    return account, world, event


def test_transitions_after_an_event_that_comes_late_are_taken_back():
    account, world, event = account_with_a_late_event()
    n_revised = world.n_revised
    assert world.take(event)
    assert world.n_revised == n_revised + 1
    for t in (99.999, 200.0, 5_100.0, DAY):
        assert rows(world.world_at(T0 + t)) == rows(account.store.world_at(T0 + t))
    assert world.world.experiments["bert"].stage.status == "Running"


def test_an_event_that_comes_later_than_transitions_are_kept_for_asks_for_the_account(monkeypatch):
    account, world, event = account_with_a_late_event()
    monkeypatch.setattr(followed_world, "KEPT_S", -1.0)
    world.world_at(T0 + 161.0)  # it runs here
    world.world_at(T0 + 100.0 + DAY)
    assert not world.take(event)
    assert world.take(world_message(account.store))
    assert world.world_at(T0 + 200.0).experiments["bert"].stage.status == "Created"
    assert asdict(world.world.choices) == asdict(account.store.world.choices)


def test_an_event_that_comes_in_order_takes_nothing_back():
    account = Account()
    account("CreateInferenceExperiment", experiment(Schedule={"StartTime": T0 + 100.0, "EndTime": T0 + 100.0 + DAY}))
    world = follower(account)
    account.events()
    world.world_at(T0 + 100.0)
    account.now, n_revised = T0 + 100.0, world.n_revised
    account("DeleteModel", {"ModelName": "new"})
    assert all(map(world.take, account.events()))
    assert world.n_revised == n_revised
    assert rows(world.world) == rows(account.store.world)


def test_an_event_that_was_missed_asks_for_the_account():
    account = Account()
    world = follower(account)
    account.events()
    account("CreateEndpoint", {"EndpointName": "live", "EndpointConfigName": "config"})
    account("DeleteModel", {"ModelName": "new"})
    first, second = account.events()
    assert not world.take(second)
    assert world.take(first)
    assert world.take(second)
    assert json.loads(second[4]) == {"ModelName": "new"}


def test_a_follower_that_has_all_events_is_not_sent_the_account(tmp_path):
    account = Account(path=tmp_path / "state.db")
    world = follower(account)
    account.events()
    account("CreateEndpoint", {"EndpointName": "live", "EndpointConfigName": "config"})
    assert all(world.take(event) for event in account.events())
    before = rows(world.world)
    account.store.close()
    again = Store(path=tmp_path / "state.db", transition_s=60.0, wall=lambda: account.now, steady=lambda: account.now)
    same = decoded(encoded(greeting(again, world.checksum)))
    assert same[0] == SAME
    assert world.take(same)
    assert rows(world.world) == before
    assert (world.clock.origin, world.clock.anchor) == (again.clock.origin, again.clock.anchor)
    handle("DeleteModel", {"ModelName": "new"}, account.now, again)
    assert greeting(again, world.checksum)[0] == WORLD
    assert greeting(again, "")[0] == WORLD
    again.close()


def test_the_quota_of_invocations_is_shared():
    memory = SharedMemory(make_block())
    quotas = Quotas({"Rate of InvokeEndpoint requests": 2.0})
    one, other = SharedThrottle(memory, quotas), SharedThrottle(memory, quotas)
    one.admit("InvokeEndpoint")
    other.admit("InvokeEndpoint")
    with pytest.raises(ThrottlingError):
        one.admit("InvokeEndpoint")
    one.admit("CreateModel")  # another's, without a quota
