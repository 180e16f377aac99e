"""server/clockwork.py, events.py and world.py: whatever is accepted in whatever order, the world can be."""

import json
from dataclasses import asdict

from hypothesis import given, settings
from hypothesis import strategies as st
from rehearsed_account import DAY, SHADOW, SOURCE, account, experiment, mirrored, production, variant

from shadowsim.aws.contract import _shape, violations
from shadowsim.aws.lifecycle import ENDPOINT, EXPERIMENT
from shadowsim.errors import ShadowsimError
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
SHARES = st.integers(0, 100).map(mirrored)


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


def consistent(made):
    """What must hold at every moment, whatever happened."""
    world = made.store.world_at(made.now)
    live = [experiment.endpoint_name for experiment in world.experiments.values() if experiment.live]
    assert len(live) == len(set(live))
    for experiment in world.experiments.values():
        assert experiment.stage.status in EXPERIMENT
        described = made.do("DescribeInferenceExperiment", Name=experiment.name)
        json.dumps(described, allow_nan=False)
        assert violations("DescribeInferenceExperimentResponse", described) == []
        if experiment.stage.status == "Running" and experiment.deployed:
            fleet = world.endpoints[experiment.endpoint_name].fleet
            assert fleet.shadow.variant.name == experiment.shadow_name
            assert fleet.production[0].name == experiment.source_name
    for endpoint in world.endpoints.values():
        assert endpoint.status in ENDPOINT
        view = endpoint_view(made.store, endpoint.name, made.now)
        assert bool(view.production) == (endpoint.fleet is not None)
        assert endpoint.status != "InService" or view.production
        assert all(v.instance_count >= 1 for v in view.production)
        assert set(view.routing) == {v.name for v in (endpoint.fleet.variants if endpoint.fleet else ())}
        assert violations("DescribeEndpointOutput", made.do("DescribeEndpoint", EndpointName=endpoint.name)) == []
        # Nothing waits for a backend unless one is asked for.
        if endpoint.deployment and endpoint.deployment.pending:
            assert endpoint.name in {probe.endpoint for probe in models_to_ping(made.store, made.now)} or (
                endpoint.status == "RollingBack" or endpoint.status == "Failed"
            )
    arns = {world.arn("model", name) for name in world.models} | {world.arn("endpoint", n) for n in world.endpoints}
    arns |= {world.arn("endpoint-config", name) for name in world.configs}
    arns |= {world.arn("inference-experiment", name) for name in world.experiments}
    assert arns == set(world.tags)


def refolded(made):
    """The world that the log alone makes, looked at only now."""
    rows = made.store._connection.execute("SELECT at_s, kind, body FROM events ORDER BY number").fetchall()
    world = World(region=made.store.region, account=made.store.account)
    for at_s, kind, body in rows:
        apply(world, kind, json.loads(body), at_s)
    advance(world, made.store.world.now_s)
    return world


@settings(max_examples=120)
@given(st.lists(STEPS, max_size=14), CHOICES, PROBED)
def test_any_actions_at_any_time_leave_a_world_that_can_be(steps, choices, probed):
    made = account(choices=choices, probed=probed)
    made.do("CreateModel", ModelName="third", PrimaryContainer={"Image": "c"})
    both = {"ProductionVariants": [production()], "ShadowProductionVariants": [production(SHADOW, "new")]}
    made.do("CreateEndpointConfig", EndpointConfigName="both", **both)
    refusals = []
    for name, given_ in steps:
        if name == "wait":
            made.wait(given_)
        elif name == "restart":  # with other options, which are an event like any other
            transition_s, others, backends = given_
            options = {"transition_s": transition_s, "choices": asdict(others), "probed": sorted(backends)}
            made.store.accept("Configure", options, made.now)
        elif name == "ping":
            for probe in models_to_ping(made.store, made.now):
                record_ping(made.store, probe, made.now, given_)
        else:
            body = given_
            if name == "CreateInferenceExperiment":
                request, start = given_
                body = request if start is None else request | {"Schedule": {"StartTime": made.now + start}}
            try:
                made.do(name, **body)
            except ShadowsimError as error:
                refusals.append(error)
        consistent(made)
    assert all(400 <= error.http_status < 500 for error in refusals)
    assert repr(refolded(made)) == repr(made.store.world)
    for _ in range(10):  # each answer lets the next deployment begin
        for probe in models_to_ping(made.store, made.now):
            record_ping(made.store, probe, made.now)
        made.wait(20 * DAY)
        consistent(made)
    assert not any(experiment.live for experiment in made.store.world.experiments.values())
    assert {endpoint.status for endpoint in made.store.world.endpoints.values()} <= {"InService", "Failed"}


def test_the_shapes_of_answers_are_looked_up_by_their_right_names():
    for name in ("DescribeInferenceExperimentResponse", "DescribeEndpointOutput"):
        assert _shape(name)["members"]
