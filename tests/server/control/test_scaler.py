"""Scaling of simulated variants: the same decisions as the simulation's on the same requests, kept over restarts."""

import asyncio

import naive_events as events
import pytest
from event_dynamics import scaling
from pool_runs import source_of
from rehearsed_account import T0, VARIANT, Account, production, scaled_account, tracking

from shadowsim.engine import _event_kernel as e
from shadowsim.scenario.service import parse_service
from shadowsim.server.control.scaler import PoolReading, Scaler
from shadowsim.server.state.quotas import Quotas

RESOURCE = VARIANT["ResourceId"]
BEGIN_S = T0 + 60.0  # the first whole minute after the policy was put
CONCURRENT = "SageMakerVariantConcurrentRequestsPerModelHighResolution"


def service(out_points=3, in_points=15, delay_s=0.0, cold_start_s=0.0):
    policy = {"metric": "InvocationsPerInstance", "target": 1.0, "min": 1, "max": 9, "delay_s": delay_s}
    policy |= {"out_points": out_points, "in_points": in_points}
    return parse_service(
        {"time": {"law": "deterministic", "mean_s": 0.125}, "scaling": policy, "cold_start_s": cold_start_s}, "s"
    )


class Driver:
    """Lets an account's scaler look at every tick, as long as requests come."""

    def __init__(self, account, services=None):
        self.account, self.scaler = account, Scaler(account.store, services or {})
        self.n_arrived, self.counts = 0, []

    def tick(self, now, n_arrived, n_in_flight=0):
        self.account.now = now
        asyncio.run(self.scaler.look({RESOURCE: PoolReading(n_arrived, n_in_flight)}, now))
        (view,) = self.account.endpoint()["ProductionVariants"]
        self.counts.append((now - BEGIN_S, view["CurrentInstanceCount"], view["DesiredInstanceCount"]))

    def idle_until_the_beginning(self):
        now = BEGIN_S - 50.0
        while now <= BEGIN_S:
            self.tick(now, 0)
            now += 10.0

    def minutes(self, counts):
        """Let requests come in each minute, after an idle one that the alarms do not see."""
        self.idle_until_the_beginning()
        for minute, count in enumerate(counts):
            for i in range(1, 7):
                self.tick(BEGIN_S + 60.0 * minute + 10.0 * i, self.n_arrived + count * i // 6)
            self.n_arrived += count

    def activities(self):
        answer = self.account.do("DescribeScalingActivities", ServiceNamespace="sagemaker", ResourceId=RESOURCE)
        return answer["ScalingActivities"][::-1]

    def actions(self):
        """(minute, instances wanted, status) of each activity, the oldest first."""
        return [
            ((a["StartTime"] - BEGIN_S) / 60.0, int(a["Description"].split()[-1].rstrip(".")), a["StatusCode"])
            for a in self.activities()
        ]


def account_of(n_instances=1, least=1, most=5, configuration=None, **options):
    account = scaled_account(least, most, configuration, **options)
    if n_instances != 2:
        change = {"VariantName": "AllTraffic", "DesiredInstanceCount": n_instances}
        account.do("UpdateEndpointWeightsAndCapacities", EndpointName="live", DesiredWeightsAndCapacities=[change])
        account.wait(2)
    return account


def test_three_high_minutes_scale_out_and_fifteen_low_ones_scale_in():
    """The table that the simulation's oracle has by hand."""
    driver = Driver(account_of())
    driver.minutes([25, 25, 25] + [5] * 37)
    assert driver.actions() == [(3.0, 3, "Successful"), (18.0, 1, "Successful")]
    first, last = driver.activities()
    assert first["Cause"].startswith(f"monitor alarm TargetTracking-{RESOURCE}-AlarmHigh-")
    assert first["Cause"].endswith(" in state ALARM triggered policy p")
    assert "-AlarmLow-" in last["Cause"]
    text = "Successfully set desired instance count to 3. Change successfully fulfilled by sagemaker."
    assert first["StatusMessage"] == text


TABLES = {
    "defaults": (scaling(), [25] * 3 + [5] * 17),
    "boundaries": (scaling(points=(1, 1), out=0.0, into=0.0), [10, 11, 20, 18, 17, 0, 9, 8, 40, 60, 41]),
    "cooldowns": (scaling(out=600.0, into=360.0, points=(3, 2), most=4), [25] * 4 + [45] * 4 + [3] * 20),
    "delays": (scaling(points=(1, 1), delay=90.0, out=120.0), [15, 25, 0, 0, 0, 30, 30, 0, 0]),
    "cold starts": (scaling(points=(1, 2), cold=100.0, into=0.0, out=0.0), [35, 35, 12, 0, 0, 25, 25, 0, 0, 0]),
    "both": (
        scaling(target=7.0, points=(2, 2), delay=30.0, cold=45.5, out=60.0, into=60.0),
        [9, 22, 31, 4, 2, 1, 40, 40, 8],
    ),
}


@pytest.mark.parametrize(("s", "counts"), TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("n_instances", [1, 3])
def test_actions_are_the_simulation_s_on_the_same_minutes(s, counts, n_instances):
    arrivals = [60.0 * m + 59.0 * i / n for m, n in enumerate(counts) for i in range(n)]
    horizon_s = 60.0 * len(counts) + 5.0
    dynamics = events.dynamics(scaling=s)
    history = source_of(arrivals, [0.125], dynamics, horizon_s=horizon_s, source_instances=n_instances)
    account = account_of(
        n_instances,
        s.least,
        s.most,
        tracking(target=s.target, ScaleOutCooldown=int(s.out_cooldown_s), ScaleInCooldown=int(s.in_cooldown_s)),
    )
    points = s.out_points, s.in_points
    driver = Driver(account, {"AllTraffic": service(*points, s.delay_s, s.cold_start_s)})
    driver.minutes(counts)
    made = [(minute, wanted) for minute, wanted, _ in driver.actions()]
    assert made == [(a.decided / 60.0, a.wanted) for a in history.actions]
    last_s = 60.0 * len(counts)
    dropped = [status == "Overridden" for _, _, status in driver.actions()]
    over = [a.effect + s.cold_start_s <= last_s for a in history.actions]
    for is_dropped, is_over, a in zip(dropped, over, history.actions, strict=True):
        assert is_dropped == a.dropped or not is_over or (a.kind == "out" and is_dropped)  # dropped while it started
    steps = dict(history.steps)
    for at_s, n_serving, _ in driver.counts:
        if at_s > 0.0:
            assert n_serving == steps[max(t for t in steps if t <= at_s)], at_s


def test_concurrent_requests_are_sampled_every_ten_seconds():
    s = scaling(e.CONCURRENCY, target=1.0, points=(2, 1), out=20.0, into=0.0)
    arrivals = [5.0, 5.0, 5.0, 131.0, 131.0]
    pool = {"n_workers": 3}
    history = source_of(arrivals, [35.0], events.dynamics(scaling=s), horizon_s=245.0, pool=pool)
    account = account_of(configuration=tracking(CONCURRENT, 1.0, ScaleOutCooldown=20, ScaleInCooldown=0))
    driver = Driver(account, {"AllTraffic": service(2, 1)})
    driver.idle_until_the_beginning()
    for now, present in history.samples[1:]:
        driver.tick(BEGIN_S + now, 0, sum(present.values()))
    made = [(a.decided, a.wanted) for a in history.actions]
    assert [(round(60.0 * minute, 3), wanted) for minute, wanted, _ in driver.actions()] == made
    assert len(made) > 1


def test_new_instances_serve_after_their_cold_start_and_are_described():
    driver = Driver(account_of(), {"AllTraffic": service(1, 1, cold_start_s=100.0)})
    driver.minutes([25, 25])
    assert driver.actions() == [(1.0, 3, "InProgress")]
    driver.tick(BEGIN_S + 130.0, driver.n_arrived)
    driver.tick(BEGIN_S + 160.0, driver.n_arrived)
    by_time = {at_s: counts for at_s, *counts in driver.counts}
    assert [by_time[at_s] for at_s in (50.0, 60.0, 120.0, 130.0, 160.0)] == [[1, 1], [1, 3], [1, 3], [1, 3], [3, 3]]
    assert driver.actions() == [(1.0, 3, "Successful")]


def test_state_survives_a_restart(tmp_path):
    """Targets, policies, cooldowns and instances that start; the points seen so far begin again."""
    path, services = tmp_path / "db", {"AllTraffic": service(1, 1, cold_start_s=100.0)}
    account = account_of(path=path)
    driver = Driver(account, services)
    driver.minutes([25])
    before = account.do("DescribeScalingPolicies", ServiceNamespace="sagemaker")
    account.store.close()
    again = Account(path)
    again.now = BEGIN_S + 70.0
    assert again.do("DescribeScalingPolicies", ServiceNamespace="sagemaker") == before
    (view,) = again.endpoint()["ProductionVariants"]
    assert (view["CurrentInstanceCount"], view["DesiredInstanceCount"]) == (1, 3)
    later = Driver(again, services)
    for i in range(8, 42):  # the requests are counted anew, in their second minute; then nothing comes
        later.tick(BEGIN_S + 10.0 * i, 0)
    # low since minute 3, but 300 s after minute 1 are over at minute 6
    assert [(minute, wanted) for minute, wanted, _ in later.actions()] == [(1.0, 3), (6.0, 1)]
    assert later.counts[-1][1:] == (1, 1)
    whole = again.snapshot()
    again.store.close()
    third = Account(path)
    third.now = again.now
    assert third.snapshot() == whole


def test_a_snapshot_holds_all_of_scaling(tmp_path):
    path = tmp_path / "db"
    account = account_of(path=path, snapshot_events=1)
    Driver(account, {"AllTraffic": service(1, 1, cold_start_s=100.0)}).minutes([25])
    now, world = account.now, account.store.world_at(account.now)
    kept = world.targets, world.policies, world.activities, world.endpoints
    account.store.close()
    again = Account(path)
    again.now = now
    world = again.store.world_at(now)
    assert (world.targets, world.policies, world.activities, world.endpoints) == kept
    assert world.activities


def test_a_number_out_of_bounds_is_corrected_at_once():
    account = account_of(3, 1, 2)
    driver = Driver(account)
    driver.tick(account.now, 0)
    driver.tick(account.now, 0)
    (activity,) = driver.activities()
    assert activity["Cause"] == "maximum capacity was set to 2"
    assert driver.counts[-1][1:] == (2, 2)
    account.do("RegisterScalableTarget", **VARIANT, MinCapacity=4, MaxCapacity=4)
    driver.tick(account.now + 1.0, 0)
    assert driver.activities()[-1]["Cause"] == "minimum capacity was set to 4"
    assert driver.counts[-1][1:] == (4, 4)


def test_suspended_and_disabled_directions_do_not_scale():
    account = account_of()
    account.do("RegisterScalableTarget", **VARIANT, SuspendedState={"DynamicScalingOutSuspended": True})
    driver = Driver(account, {"AllTraffic": service(1, 1)})
    driver.minutes([25, 25])
    assert driver.actions() == []
    account.do("RegisterScalableTarget", **VARIANT, SuspendedState={"DynamicScalingOutSuspended": False})
    driver.tick(BEGIN_S + 130.0, driver.n_arrived)
    for i in range(14, 19):
        driver.tick(BEGIN_S + 10.0 * i, driver.n_arrived + 5 * (i - 13))
    assert [action[:2] for action in driver.actions()] == [(3.0, 3)]
    account = account_of(2, configuration=tracking(DisableScaleIn=True))
    driver = Driver(account, {"AllTraffic": service(1, 1)})
    driver.minutes([0, 0, 0])
    assert driver.actions() == []


def test_of_two_policies_the_larger_number_wins():
    account = account_of()
    more = {"PolicyName": "q", "PolicyType": "TargetTrackingScaling"}
    account.do("PutScalingPolicy", **VARIANT, **more, TargetTrackingScalingPolicyConfiguration=tracking(target=5.0))
    driver = Driver(account, {"AllTraffic": service(1, 1)})
    driver.minutes([20])
    assert [action[:2] for action in driver.actions()] == [(1.0, 4)]
    assert driver.activities()[0]["Cause"].endswith("policy q")


def test_a_quota_stops_a_scale_out_and_is_named():
    quotas = Quotas({"ml.m5.xlarge for endpoint usage": 2})
    driver = Driver(account_of(quotas=quotas), {"AllTraffic": service(2, 15)})
    driver.minutes([25] * 4)
    assert driver.actions() == [(2.0, 3, "Failed"), (4.0, 3, "Failed")]
    message = driver.activities()[0]["StatusMessage"]
    assert message.startswith("Failed to set desired instance count to 3. Reason: The account-level service limit")
    assert driver.counts[-1][1:] == (1, 1)


def test_an_update_blocks_scaling():
    account = account_of()
    driver = Driver(account, {"AllTraffic": service(1, 15)})
    driver.idle_until_the_beginning()
    account.do("CreateEndpointConfig", EndpointConfigName="next", ProductionVariants=[production(model="new", count=1)])
    account.do("UpdateEndpoint", EndpointName="live", EndpointConfigName="next")
    account.store.accept("Configure", {"transition_s": 90.0, "probed": [], "choices": {}}, account.now)
    driver.tick(BEGIN_S + 60.0, 50)
    assert driver.actions() == []
    driver.tick(BEGIN_S + 120.0, 100)
    assert [action[:2] for action in driver.actions()] == [(2.0, 5)]


def test_scaled_time_sees_the_rate_of_wall_time():
    """At 60 times the speed a request a wall second is 60 a minute."""
    account = account_of(time_scale=60.0, configuration=tracking(target=20.0))
    driver = Driver(account, {"AllTraffic": service(1, 15)})
    for i in range(1, 200):
        driver.account.now = now = T0 + 10.0 + i
        scaled = account.store.clock.now()
        asyncio.run(driver.scaler.look({RESOURCE: PoolReading(i, 0)}, scaled))
    (first, *_) = driver.activities()
    assert first["Description"] == "Setting desired instance count to 3."
    assert now < T0 + 300.0


def test_a_long_pause_begins_again():
    driver = Driver(account_of(), {"AllTraffic": service(1, 1)})
    driver.minutes([10])
    driver.tick(BEGIN_S + 10 * 86_400.0, 0)
    assert driver.actions() == []


def test_activities_are_kept_for_six_weeks():
    driver = Driver(account_of(), {"AllTraffic": service(1, 15)})
    driver.minutes([25])
    for week in range(1, 7):
        driver.tick(BEGIN_S + week * 7 * 86_400.0, 0)
    assert len(driver.activities()) == 1
    driver.account.do("RegisterScalableTarget", **VARIANT, MinCapacity=4, MaxCapacity=4)
    driver.tick(BEGIN_S + 43 * 86_400.0, 0)
    assert [a["Cause"] for a in driver.activities()] == ["minimum capacity was set to 4"]


def test_variants_are_read_at_ticks_and_after_actions():
    account = account_of()
    scaler = Scaler(account.store, {})
    now = BEGIN_S + 1.0
    assert scaler.endpoints(now) == {"live"}
    asyncio.run(scaler.look({}, now))
    assert scaler.endpoints(now + 5.0) == set()
    assert scaler.endpoints(now + 9.0) == {"live"}
    account.do("RegisterScalableTarget", **VARIANT, MaxCapacity=9)
    assert scaler.endpoints(now) == {"live"}
