"""Accepts random actions in random order, and checks after each that the world is consistent (model-based)."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rehearsed_account import DAY, SHADOW, SOURCE, experiment, new_account, production, shadow_mode_config, variant

from shadowsim.aws.contract import violations
from shadowsim.aws.lifecycle import ENDPOINT, EXPERIMENT
from shadowsim.errors import ShadowsimError
from shadowsim.server.state import snapshot
from shadowsim.server.state.account import World
from shadowsim.server.state.events import apply
from shadowsim.server.state.transitions import advance
from shadowsim.server.state.undocumented import Undocumented
from shadowsim.server.state.views import endpoint_view, models_to_ping, record_ping

PROBED = st.sampled_from([frozenset(), frozenset({"new"}), frozenset({"*"})])
NAMES, ENDPOINTS = st.sampled_from(["one", "two"]), st.sampled_from(["live", "other"])
MODELS = st.sampled_from(["old", "new", "third"])
COUNTS = st.integers(1, 4)
VARIANTS = st.builds(lambda a, b, n: [variant(SOURCE, a), variant(SHADOW, b, n)], MODELS, MODELS, COUNTS)
ACTIONS = st.sampled_from(
    [{SOURCE: "Remove", SHADOW: "Promote"}, {SHADOW: "Remove"}, {SOURCE: "Retain", SHADOW: "Retain"}]
)
SHARES = st.integers(0, 100).map(shadow_mode_config)


def action(name, **members):
    return st.tuples(st.just(name), st.fixed_dictionaries(members))


def create(times):
    return st.builds(
        lambda name, endpoint, variants, share, start: (
            "CreateInferenceExperiment",
            (experiment(name, endpoint, ModelVariants=variants, ShadowModeConfig=share), start),
        ),
        *(NAMES, ENDPOINTS, VARIANTS, SHARES, times),
    )


STEPS = st.one_of(
    create(st.none() | st.floats(0, 3 * DAY)),
    action("StartInferenceExperiment", Name=NAMES),
    action("StopInferenceExperiment", Name=NAMES, ModelVariantActions=ACTIONS),
    action(
        "StopInferenceExperiment",
        Name=NAMES,
        ModelVariantActions=ACTIONS,
        DesiredModelVariants=st.builds(lambda m, n: [variant(SHADOW, m, n)], MODELS, COUNTS),
        DesiredState=st.sampled_from(["Completed", "Cancelled"]),
    ),
    action("UpdateInferenceExperiment", Name=NAMES, ShadowModeConfig=SHARES),
    action("UpdateInferenceExperiment", Name=NAMES, ModelVariants=VARIANTS),
    action("DeleteInferenceExperiment", Name=NAMES),
    action("CreateEndpoint", EndpointName=ENDPOINTS, EndpointConfigName=st.sampled_from(["first", "both"])),
    action("UpdateEndpoint", EndpointName=ENDPOINTS, EndpointConfigName=st.sampled_from(["first", "both"])),
    action("DeleteEndpoint", EndpointName=ENDPOINTS),
    action(
        "UpdateEndpointWeightsAndCapacities",
        EndpointName=ENDPOINTS,
        DesiredWeightsAndCapacities=st.builds(
            lambda name, count: [{"VariantName": name, "DesiredInstanceCount": count, "DesiredWeight": 0.5}],
            st.sampled_from([SOURCE, SHADOW]),
            COUNTS,
        ),
    ),
    action("DeleteModel", ModelName=MODELS),
    action("CreateModel", ModelName=MODELS, PrimaryContainer=st.just({"Image": "again"})),
    st.tuples(st.just("ping"), st.none() | st.just("no answer")),
    st.tuples(st.just("restart"), st.tuples(st.sampled_from([0.0, 1.0, 20.0]), st.deferred(lambda: CHOICES), PROBED)),
    st.tuples(st.just("wait"), st.sampled_from([0.3, 1.0, 2.0, DAY, 8 * DAY])),
)
CHOICES = st.builds(
    Undocumented,
    deploy_in=st.sampled_from(["Starting", "Creating"]),
    made_endpoint=st.sampled_from(["keep", "delete"]),
    stop_before_start=st.booleans(),
    delete_before_start=st.booleans(),
)


def consistent(account):
    """Check the invariants of the world at this moment."""
    world = account.store.world_at(account.now)
    live = [record.endpoint_name for record in world.experiments.values() if record.live]
    assert len(live) == len(set(live))
    for record in world.experiments.values():
        assert record.stage.status in EXPERIMENT
        described = account.do("DescribeInferenceExperiment", Name=record.name)
        json.dumps(described, allow_nan=False)
        assert violations("DescribeInferenceExperimentResponse", described) == []
        if record.stage.status == "Running" and record.deployed:
            fleet = world.endpoints[record.endpoint_name].fleet
            assert fleet.shadow.variant.name == record.shadow_name
            assert fleet.production[0].name == record.source_name
    for endpoint in world.endpoints.values():
        assert endpoint.status in ENDPOINT
        view = endpoint_view(account.store, endpoint.name, account.now)
        assert bool(view.production) == (endpoint.fleet is not None)
        assert endpoint.status != "InService" or view.production
        assert all(v.instance_count >= 1 for v in view.production)
        assert set(view.routing) == {v.name for v in (endpoint.fleet.variants if endpoint.fleet else ())}
        assert violations("DescribeEndpointOutput", account.do("DescribeEndpoint", EndpointName=endpoint.name)) == []
        # A deployment waits for a backend only if the backend is probed.
        if endpoint.deployment and endpoint.deployment.pending:
            assert endpoint.name in {probe.endpoint for probe in models_to_ping(account.store, account.now)} or (
                endpoint.status == "RollingBack" or endpoint.status == "Failed"
            )
    arns = {world.arn("model", name) for name in world.models} | {world.arn("endpoint", n) for n in world.endpoints}
    arns |= {world.arn("endpoint-config", name) for name in world.configs}
    arns |= {world.arn("inference-experiment", name) for name in world.experiments}
    assert all(map(world.has_resource, arns))
    assert set(world.tags) <= arns
    assert all(world.tags.values())


def refolded(account):
    """The world folded from the log alone, and advanced only at the end."""
    world = World(region=account.store.region, account=account.store.account)
    for _, at_s, kind, body in account.store.events():
        apply(world, kind, json.loads(body), at_s)
    advance(world, account.store.world.now_s)
    return world


def restored(account, rows):
    """The world from its last snapshot, which is `rows`, and what has changed since; the rows get it, too."""
    world = account.store.world_at(account.now)
    for key in snapshot.removed_rows(world):
        rows.pop(key, None)
    rows |= {(kind, name): body for kind, name, body in snapshot.changed_rows(world)}
    snapshot.forget_changes(world)
    again = World(region=account.store.region, account=account.store.account)
    snapshot.restore(again, [(*key, body) for key, body in rows.items()])
    return again


@given(st.lists(STEPS, max_size=14), CHOICES, PROBED)
def test_any_actions_at_any_time_leave_a_consistent_world(steps, choices, probed):
    account = new_account(choices=choices, probed=probed)
    account.do("CreateModel", ModelName="third", PrimaryContainer={"Image": "c"})
    both = {"ProductionVariants": [production()], "ShadowProductionVariants": [production(SHADOW, "new")]}
    account.do("CreateEndpointConfig", EndpointConfigName="both", **both)
    refusals, rows = [], {}
    for name, payload in steps:
        if name == "wait":
            account.wait(payload)
        elif name == "restart":  # with other options
            transition_s, other_choices, backends = payload
            options = {"transition_s": transition_s, "choices": asdict(other_choices), "probed": sorted(backends)}
            account.store.accept("Configure", options, account.now)
        elif name == "ping":
            for probe in models_to_ping(account.store, account.now):
                record_ping(account.store, probe, account.now, payload)
        else:
            body = payload
            if name == "CreateInferenceExperiment":
                request, start = payload
                body = request if start is None else request | {"Schedule": {"StartTime": account.now + start}}
            try:
                account.do(name, **body)
            except ShadowsimError as error:
                refusals.append(error)
        consistent(account)
        assert repr(restored(account, rows)) == repr(account.store.world)
    assert all(400 <= error.http_status < 500 for error in refusals)
    assert repr(refolded(account)) == repr(account.store.world)
    for _ in range(10):  # after each answer the next deployment begins
        for probe in models_to_ping(account.store, account.now):
            record_ping(account.store, probe, account.now)
        account.wait(20 * DAY)
        consistent(account)
    assert not any(record.live for record in account.store.world.experiments.values())
    assert {endpoint.status for endpoint in account.store.world.endpoints.values()} <= {"InService", "Failed"}


@pytest.mark.parametrize("name", ["DescribeInferenceExperimentResponse", "DescribeEndpointOutput"])
def test_violations_knows_the_shapes_of_answers(name):
    """`consistent` relies on it: an answer without its required members breaks its shape."""
    assert violations(name, {})
