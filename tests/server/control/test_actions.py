"""Tests each control-plane action in each status, its effects, and its answers to random input."""

import json
from datetime import UTC, datetime
from functools import cache

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from rehearsed_account import (
    DAY,
    MODEL,
    SHADOW,
    SOURCE,
    T0,
    client,
    experiment,
    new_account,
    production,
    shadow_mode_config,
    variant,
)

from shadowsim.aws.lifecycle import ACTIONS, ENDPOINT, EXPERIMENT, Event, Stage
from shadowsim.aws.lifecycle import status as status_by_table
from shadowsim.errors import ConflictError, ShadowsimError
from shadowsim.server.control.actions import ACTIONS as REHEARSED
from shadowsim.server.control.actions import handle
from shadowsim.server.state.events import EFFECTS
from shadowsim.server.state.quotas import Quotas
from shadowsim.server.state.store import Store
from shadowsim.server.state.views import models_to_ping, record_ping

SCHEDULED = {"StartTime": T0 + 10 * DAY, "EndTime": T0 + 12 * DAY}
RETAIN = {SOURCE: "Retain", SHADOW: "Remove"}
PROMOTE = {SOURCE: "Remove", SHADOW: "Promote"}
BODIES = {
    "Start": {},
    "Stop": {"ModelVariantActions": RETAIN},
    "Update": {"Description": "changed"},
    "Delete": {},
}


def stop(account, actions=RETAIN, **more):
    return account.do("StopInferenceExperiment", Name="bert", ModelVariantActions=actions, **more)


def in_status(status, endpoint=True, **options):
    """Return an account whose experiment "bert" has just come to a status."""
    account = new_account(endpoint, **options)
    scheduled = status in ("Creating", "Created")
    account.do("CreateInferenceExperiment", **experiment(Schedule=SCHEDULED) if scheduled else experiment())
    if status in ("Created", "Starting"):
        account.wait(1)
    elif status != "Creating":
        account.wait(2)
        if status == "Updating":
            account.do("UpdateInferenceExperiment", Name="bert", Description="soon")
        elif status != "Running":
            stop(account, DesiredState="Cancelled" if status == "Cancelled" else "Completed")
            account.wait(0 if status == "Stopping" else 1)
    assert account.status() == status
    return account


# Every pair of the table


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("status", EXPERIMENT)
def test_every_pair_of_status_and_action_through_boto3(status, action):
    account = in_status(status)
    call = getattr(client(account), f"{action.lower()}_inference_experiment")
    before = account.snapshot()
    if action in EXPERIMENT[status]:
        arn = call(Name="bert", **BODIES[action])["InferenceExperimentArn"]
        assert arn == "arn:aws:sagemaker:us-east-1:111122223333:inference-experiment/bert"
        if action == "Delete":
            assert account.refused("DescribeInferenceExperiment", Name="bert").code == "ResourceNotFound"
        else:
            assert account.status() == EXPERIMENT[status][action]
    else:
        with pytest.raises(ClientError, match=f"{action} is not allowed in status {status}") as caught:
            call(Name="bert", **BODIES[action])
        assert caught.value.response["Error"]["Code"] == "ConflictException"
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        assert account.snapshot() == before


@pytest.mark.parametrize("status", EXPERIMENT)
def test_a_name_is_taken_in_every_status_through_boto3(status):
    account = in_status(status)
    before = account.snapshot()
    with pytest.raises(ClientError, match="already exists") as caught:
        client(account).create_inference_experiment(**experiment())
    assert caught.value.response["Error"]["Code"] == "ResourceInUse"
    assert account.snapshot() == before


def endpoint_in(status):
    """Return an account whose endpoint "live" has just come to a status; "second" is another configuration for it."""
    account = new_account(endpoint=False, probed=frozenset(["new"]))
    for name, model in (("first", "old"), ("second", "new")):
        account.do("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=[production(model=model)])
    failing = status in ("Failed", "RollingBack")
    account.do("CreateEndpoint", EndpointName="live", EndpointConfigName="second" if status == "Failed" else "first")
    if status not in ("Creating", "Failed"):
        account.wait(1)
    if status in ("Updating", "RollingBack"):
        account.do("UpdateEndpoint", EndpointName="live", EndpointConfigName="second")
    if failing:
        (probe,) = models_to_ping(account.store, account.now)
        record_ping(account.store, probe, account.now, "no answer")
    if status == "Deleting":
        account.do("DeleteEndpoint", EndpointName="live")
    assert account.endpoint()["EndpointStatus"] == status
    return account


@pytest.mark.parametrize("action", ["update_endpoint", "update_endpoint_weights_and_capacities", "delete_endpoint"])
@pytest.mark.parametrize("status", ENDPOINT)
def test_every_pair_of_an_endpoints_status_and_action_through_boto3(status, action):
    account = endpoint_in(status)
    bodies = {
        "update_endpoint": {"EndpointConfigName": "first"},
        "update_endpoint_weights_and_capacities": {
            "DesiredWeightsAndCapacities": [{"VariantName": SOURCE, "DesiredInstanceCount": 3}]
        },
    }
    event = "Delete" if action == "delete_endpoint" else "Update"
    call, before = getattr(client(account), action), account.snapshot()
    if event in ENDPOINT[status]:
        call(EndpointName="live", **bodies.get(action, {}))
        assert account.endpoint()["EndpointStatus"] == ENDPOINT[status][event]
    else:
        with pytest.raises(ClientError, match=r"Cannot update (in-progress|failed) endpoint") as caught:
            call(EndpointName="live", **bodies.get(action, {}))
        assert caught.value.response["Error"]["Code"] == "ValidationException"
        assert account.snapshot() == before


@pytest.mark.parametrize("status", sorted(set(ENDPOINT) - {"InService"}))
def test_an_endpoint_that_is_not_in_service_takes_no_experiment(status):
    error = endpoint_in(status).refused("CreateInferenceExperiment", **experiment())
    assert (error.code, f"is {status}." in str(error)) == ("ResourceInUse", True)


@pytest.mark.parametrize("status", EXPERIMENT)
def test_describe_and_list_are_answered_in_every_status(status):
    account = in_status(status)
    sagemaker = client(account)
    described = sagemaker.describe_inference_experiment(Name="bert")
    (listed,) = sagemaker.list_inference_experiments(StatusEquals=status)["InferenceExperiments"]
    assert described["Status"] == listed["Status"] == status
    assert described["CreationTime"] == datetime.fromtimestamp(T0 + 2, UTC)
    assert ("CompletionTime" in described) == (status in ("Completed", "Cancelled"))
    for shape, answer in (("DescribeInferenceExperimentResponse", described), ("InferenceExperimentSummary", listed)):
        assert set(MODEL.shape_for(shape).required_members) <= set(answer) - {"ResponseMetadata"} | {
            "InferenceExperiments"
        }
        assert set(answer) - {"ResponseMetadata"} <= set(MODEL.shape_for(shape).members)


@pytest.mark.parametrize("action", [*ACTIONS, "Describe"])
def test_what_does_not_exist_is_not_found(action):
    error = new_account().refused(f"{action}InferenceExperiment", Name="none", **BODIES.get(action, {}))
    assert (error.code, error.http_status) == ("ResourceNotFound", 400)


# What an experiment does to its endpoint


def served(account):
    endpoint = account.endpoint()
    shadows = [v["VariantName"] for v in endpoint.get("ShadowProductionVariants", ())]
    return [v["VariantName"] for v in endpoint["ProductionVariants"]], shadows, endpoint["EndpointConfigName"]


def test_an_existing_endpoint_is_updated_and_comes_back():
    account = new_account()
    account.do("CreateInferenceExperiment", **experiment())
    assert served(account) == ([SOURCE], [], "first")
    account.wait(1)
    assert (account.status(), account.endpoint()["EndpointStatus"]) == ("Starting", "Updating")
    assert served(account) == ([SOURCE], [], "first")  # the old fleet serves until the new one does
    account.wait(1)
    sources, shadows, config = served(account)
    assert (account.status(), sources, shadows) == ("Running", [SOURCE], [SHADOW])
    (shadow,) = account.do("DescribeEndpointConfig", EndpointConfigName=config)["ShadowProductionVariants"]
    assert shadow["InitialVariantWeight"] == 0.5
    account.wait(7 * DAY - 2)
    assert (account.status(), account.endpoint()["EndpointStatus"]) == ("Stopping", "Updating")
    account.wait(1)
    assert account.status() == "Completed"
    assert served(account) == ([SOURCE], [], "first")


def test_a_new_endpoint_is_made_and_kept_with_the_source():
    account = new_account(endpoint=False)
    account.do("CreateInferenceExperiment", **experiment())
    assert account.refused("DescribeEndpoint", EndpointName="live").code == "ValidationException"
    account.wait(1)
    assert account.endpoint()["EndpointStatus"] == "Creating"
    account.wait(7 * DAY)
    assert account.status() == "Completed"
    assert served(account)[:2] == ([SOURCE], [])


@pytest.mark.parametrize(
    ("actions", "sources", "shadows", "statuses"),
    [
        (PROMOTE, [SHADOW], [], ["Deleted", "InService"]),
        (RETAIN, [SOURCE], [], ["InService", "Deleted"]),
        ({SOURCE: "Retain", SHADOW: "Retain"}, [SOURCE], [SHADOW], ["InService", "InService"]),
        ({SHADOW: "Remove"}, [SOURCE], [], ["InService", "Deleted"]),
    ],
)
@pytest.mark.parametrize("endpoint", [True, False])
def test_a_stop_leaves_what_its_actions_say(actions, sources, shadows, statuses, endpoint):
    account = in_status("Running", endpoint)
    stop(account, actions, Reason="seen enough")
    account.wait(1)
    described = account.do("DescribeInferenceExperiment", Name="bert")
    assert (described["Status"], described["StatusReason"]) == ("Cancelled", "seen enough")
    assert [v["Status"] for v in described["ModelVariants"]] == statuses
    assert served(account)[:2] == (sources, shadows)
    if endpoint and actions == RETAIN:
        assert served(account)[2] == "first"


def test_desired_variants_are_what_is_deployed_after_a_stop():
    account = in_status("Running")
    stop(account, PROMOTE, DesiredModelVariants=[variant(SHADOW, "new", 5, "ml.c5.xlarge")], DesiredState="Completed")
    account.wait(1)
    (promoted,) = account.do("DescribeEndpointConfig", EndpointConfigName=served(account)[2])["ProductionVariants"]
    assert (promoted["InstanceType"], promoted["InitialInstanceCount"]) == ("ml.c5.xlarge", 5)
    assert (promoted["InitialVariantWeight"], account.status()) == (1.0, "Completed")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"ModelVariantActions": {SOURCE: "Promote", SHADOW: "Remove"}}, f"modelVariantActions.{SOURCE}.member"),
        ({"ModelVariantActions": {SOURCE: "Remove", SHADOW: "Remove"}}, "modelVariantActions"),
        ({"ModelVariantActions": {SHADOW: "Promote"}}, "modelVariantActions"),
        ({"ModelVariantActions": {SOURCE: "Remove"}}, "modelVariantActions"),
        ({"ModelVariantActions": {"Other": "Retain"}}, "modelVariantActions"),
        ({"DesiredModelVariants": [variant(SHADOW, "new")]}, "desiredModelVariants.1.member.variantName"),
        ({"DesiredModelVariants": [variant("X", "new")]}, "desiredModelVariants.1.member.variantName"),
        ({"DesiredModelVariants": [variant(SOURCE, "old")] * 2}, "desiredModelVariants.2.member.variantName"),
    ],
)
def test_a_stop_that_cannot_be(body, path):
    error = in_status("Running").refused(
        "StopInferenceExperiment", **{"Name": "bert", "ModelVariantActions": RETAIN, **body}
    )
    assert error.code == "ValidationException"
    assert f"at '{path}' failed" in str(error)


def test_a_stop_before_the_start_touches_nothing_and_promotes_nothing():
    account = in_status("Created")
    assert "before the experiment has started" in str(
        account.refused("StopInferenceExperiment", Name="bert", ModelVariantActions=PROMOTE)
    )
    stop(account)
    account.wait(1)
    assert (account.status(), served(account)) == ("Cancelled", ([SOURCE], [], "first"))


def test_a_start_before_its_time():
    account = in_status("Created")
    account.do("StartInferenceExperiment", Name="bert")
    schedule = account.do("DescribeInferenceExperiment", Name="bert")["Schedule"]
    assert schedule == {"StartTime": account.now, "EndTime": SCHEDULED["EndTime"]}


def test_the_share_changes_while_it_runs_and_scaled_instances_stay():
    account = in_status("Running")
    change = {"VariantName": SHADOW, "DesiredInstanceCount": 7}
    account.do("UpdateEndpointWeightsAndCapacities", EndpointName="live", DesiredWeightsAndCapacities=[change])
    account.wait(1)
    account.do("UpdateInferenceExperiment", Name="bert", ShadowModeConfig=shadow_mode_config(100))
    account.wait(1)
    (shadow,) = account.endpoint()["ShadowProductionVariants"]
    assert (account.status(), shadow["CurrentWeight"], shadow["CurrentInstanceCount"]) == ("Running", 1.0, 7)


@pytest.mark.parametrize(
    ("status", "body", "path"),
    [
        ("Running", {"Schedule": {"StartTime": T0 + DAY}}, "schedule.startTime"),
        ("Running", {"Schedule": {"EndTime": T0 + 3}}, "schedule.endTime"),
        ("Running", {"Schedule": {"EndTime": T0 + 31 * DAY}}, "schedule.endTime"),
        ("Running", {"ModelVariants": [variant(SHADOW, "new", 9)]}, "modelVariants"),
        (
            "Running",
            {"ShadowModeConfig": shadow_mode_config(50, "X")},
            "shadowModelVariants.1.member.shadowModelVariantName",
        ),
        ("Created", {"ModelVariants": [variant(SHADOW, "old")]}, "modelVariants.1.member.modelName"),
        ("Created", {"ModelVariants": [variant("X", "new")]}, "modelVariants.1.member.variantName"),
        (
            "Created",
            {"ShadowModeConfig": shadow_mode_config(50, "X")},
            "shadowModelVariants.1.member.shadowModelVariantName",
        ),
        ("Created", {"Schedule": {"EndTime": T0}}, "schedule.endTime"),
        ("Created", {"DataStorageConfig": {"Destination": "https://example.com/a"}}, "dataStorageConfig.destination"),
    ],
)
def test_an_update_that_cannot_be(status, body, path):
    error = in_status(status).refused("UpdateInferenceExperiment", Name="bert", **body)
    assert error.code == "ValidationException"
    assert f"{path}' failed to satisfy constraint" in str(error)


def test_what_an_update_can_change():
    account = in_status("Created")
    variants = [variant("Shadow-02", "old", 1)]
    account.do(
        "UpdateInferenceExperiment",
        Name="bert",
        ModelVariants=variants,
        ShadowModeConfig=shadow_mode_config(5, "Shadow-02"),
    )
    account.wait(1)
    account.do("UpdateInferenceExperiment", Name="bert", Schedule={"StartTime": T0 + 11 * DAY})
    account.wait(1)
    described = account.do("DescribeInferenceExperiment", Name="bert")
    assert [v["VariantName"] for v in described["ModelVariants"]] == [SOURCE, "Shadow-02"]
    assert described["Schedule"] == {"StartTime": T0 + 11 * DAY, "EndTime": T0 + 12 * DAY}
    account.now = T0 + 11 * DAY + 1
    assert (account.status(), served(account)[1]) == ("Running", ["Shadow-02"])
    account.do("UpdateInferenceExperiment", Name="bert", Schedule={"EndTime": T0 + 40 * DAY}, Description="longer")
    account.wait(1)
    assert account.do("DescribeInferenceExperiment", Name="bert")["Schedule"]["EndTime"] == T0 + 40 * DAY


def test_deleting_an_experiment_leaves_its_endpoint():
    account = in_status("Completed")
    account.do("DeleteInferenceExperiment", Name="bert")
    assert served(account) == ([SOURCE], [], "first")
    assert account.do("CreateInferenceExperiment", **experiment())


def test_a_variant_that_was_taken_away_stays_so_when_another_test_has_one_of_its_name():
    account = in_status("Completed")
    account.do("CreateInferenceExperiment", **experiment("second"))
    account.wait(2)

    def statuses(name):
        return [v["Status"] for v in account.do("DescribeInferenceExperiment", Name=name)["ModelVariants"]]

    assert (statuses("bert"), statuses("second")) == (["InService", "Deleted"], ["InService", "InService"])
    account.do("StopInferenceExperiment", Name="second", ModelVariantActions=PROMOTE)
    account.wait(1)
    assert (statuses("bert"), statuses("second")) == (["Deleted", "Deleted"], ["Deleted", "InService"])


def test_instances_that_are_being_scaled_when_a_test_starts_are_not_forgotten():
    account = new_account(endpoint=True, transition_s=10.0)
    account.wait(20)
    account.do("CreateInferenceExperiment", **experiment(Schedule=SCHEDULED))
    account.now = SCHEDULED["StartTime"] - 5.0
    nine = [{"VariantName": SOURCE, "DesiredInstanceCount": 9}]
    account.do("UpdateEndpointWeightsAndCapacities", EndpointName="live", DesiredWeightsAndCapacities=nine)
    account.wait(5.0)
    assert (account.status(), account.endpoint()["EndpointStatus"]) == ("Starting", "Updating")
    account.now = SCHEDULED["EndTime"] + 20.0
    (source,) = account.endpoint()["ProductionVariants"]
    assert (account.status(), source["CurrentInstanceCount"]) == ("Completed", 9)


def test_instances_that_are_being_scaled_are_not_forgotten_by_an_update_or_a_stop():
    account = in_status("Running")
    seven = [{"VariantName": SHADOW, "DesiredInstanceCount": 7}]
    account.do("UpdateEndpointWeightsAndCapacities", EndpointName="live", DesiredWeightsAndCapacities=seven)
    account.do("UpdateInferenceExperiment", Name="bert", ShadowModeConfig=shadow_mode_config(100))
    account.wait(1)
    (shadow,) = account.endpoint()["ShadowProductionVariants"]
    assert (shadow["CurrentWeight"], shadow["CurrentInstanceCount"]) == (1.0, 7)
    nine = [{**seven[0], "DesiredInstanceCount": 9}]
    account.do("UpdateEndpointWeightsAndCapacities", EndpointName="live", DesiredWeightsAndCapacities=nine)
    stop(account, PROMOTE)
    account.wait(1)
    (promoted,) = account.endpoint()["ProductionVariants"]
    assert (promoted["VariantName"], promoted["CurrentInstanceCount"]) == (SHADOW, 9)


def test_a_weight_that_was_not_given_is_described_as_the_one_that_it_is():
    account = new_account()
    (variant,) = account.do("DescribeEndpointConfig", EndpointConfigName="first")["ProductionVariants"]
    assert variant == {**production(), "InitialVariantWeight": 1.0}


def test_capture_of_the_experiment_takes_the_endpoints_place_until_its_end():
    account = new_account(endpoint=False)
    capture = {
        "InitialSamplingPercentage": 20,
        "DestinationS3Uri": "s3://own/x",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    account.do(
        "CreateEndpointConfig", EndpointConfigName="own", ProductionVariants=[production()], DataCaptureConfig=capture
    )
    account.do("CreateEndpoint", EndpointName="live", EndpointConfigName="own")
    account.wait(1)
    account.do("CreateInferenceExperiment", **experiment(DataStorageConfig={"Destination": "s3://test/y"}))
    seen = []
    for seconds in (0, 2, 7 * DAY):
        account.wait(seconds)
        config = account.endpoint()["DataCaptureConfig"]
        seen.append((config["DestinationS3Uri"], config["CurrentSamplingPercentage"]))
    assert seen == [("s3://own/x", 20), ("s3://test/y", 100), ("s3://own/x", 20)]


# Who has what


def test_one_live_experiment_an_endpoint():
    account = in_status("Running")
    for request in (experiment("other"), experiment()):
        error = account.refused("CreateInferenceExperiment", **request)
        assert (error.code, error.http_status) == ("ResourceInUse", 400)
    for action in ("UpdateEndpoint", "DeleteEndpoint"):
        body = {"EndpointName": "live"} | ({"EndpointConfigName": "first"} if action == "UpdateEndpoint" else {})
        assert account.refused(action, **body).code == "ResourceInUse"
    stop(account)
    account.wait(1)
    account.do("CreateInferenceExperiment", **experiment("other"))


def test_a_name_is_kept_for_an_endpoint_that_is_to_come():
    account = new_account()
    account.do("CreateInferenceExperiment", **experiment(endpoint="later", Schedule=SCHEDULED))
    assert account.refused("CreateEndpoint", EndpointName="later", EndpointConfigName="first").code == "ResourceInUse"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"ModelVariants": [variant(SOURCE, "none"), variant(SHADOW, "new")]}, 'Could not find model "arn:aws:sagem'),
        (
            {
                "ModelVariants": [variant("Other", "old"), variant(SHADOW, "new")],
                "ShadowModeConfig": shadow_mode_config(5, SHADOW, "Other"),
            },
            "Value 'Other' at 'shadowModeConfig.sourceModelVariantName' failed to satisfy constraint: "
            f"Member must be the endpoint's production variant: [{SOURCE}]",
        ),
        ({"Schedule": {"StartTime": T0 - DAY, "EndTime": T0}}, "end later than now"),
        ({"Schedule": {"StartTime": T0 - 10 * DAY}}, "end later than now"),
        ({"Tags": [{"Key": "aws:x", "Value": ""}]}, "must not begin with aws:"),
        ({"DataStorageConfig": {"Destination": "s3://bucket/../x"}}, "at 'dataStorageConfig.destination' failed"),
        ({"ModelVariants": [variant(SOURCE, "old", 0), variant(SHADOW, "new")]}, "greater than or equal to 1"),
        ({"ModelVariants": [variant(SOURCE, "many"), variant(SHADOW, "new")]}, "several containers"),
    ],
)
def test_an_experiment_that_cannot_be(changes, text):
    account = new_account()
    account.do("CreateModel", ModelName="many", Containers=[{"Image": "a"}, {"Image": "b"}])
    error = account.refused("CreateInferenceExperiment", **experiment(**changes))
    assert error.code == "ValidationException"
    assert text in str(error)


def test_an_endpoint_of_several_production_variants_has_no_experiments():
    account = new_account()
    both = [production(), production("B", "new")]
    account.do("CreateEndpointConfig", EndpointConfigName="two", ProductionVariants=both)
    account.do("CreateEndpoint", EndpointName="busy", EndpointConfigName="two")
    error = account.refused("CreateInferenceExperiment", **experiment(endpoint="busy"))
    assert (error.code, "is Creating" in str(error)) == ("ResourceInUse", True)
    account.wait(1)
    error = account.refused("CreateInferenceExperiment", **experiment(endpoint="busy"))
    assert "exactly one production variant, but has 2" in str(error)


def test_a_model_that_is_gone_at_the_start_cancels():
    account = in_status("Created")
    account.do("DeleteModel", ModelName="new")
    account.do("StartInferenceExperiment", Name="bert")
    described = account.do("DescribeInferenceExperiment", Name="bert")
    assert (described["Status"], served(account)) == ("Cancelled", ([SOURCE], [], "first"))
    assert described["StatusReason"].startswith("Could not find model")


def test_a_new_accounts_quotas_start_no_shadow_test():
    account = new_account(endpoint=False, quotas=Quotas.read("default"))
    error = account.refused("CreateInferenceExperiment", **experiment())
    assert error.code == "ResourceLimitExceeded"
    assert str(error) == (
        "The account-level service limit 'ml.m5.xlarge for endpoint usage' is 0 Instances, with current utilization of "
        "0 Instances and a request delta of 4 Instances. Please use AWS Service Quotas to request an increase for this "
        "quota."
    )


def test_only_new_instances_count():
    account = new_account(quotas=Quotas({"ml.m5.xlarge for endpoint usage": 4}))  # two serve already
    more = [variant(SOURCE, "old"), variant(SHADOW, "new", 3)]
    assert "request delta of 3" in str(account.refused("CreateInferenceExperiment", **experiment(ModelVariants=more)))
    account.do("CreateInferenceExperiment", **experiment())
    error = account.refused("CreateEndpoint", EndpointName="more", EndpointConfigName="first")
    assert error.code == "ResourceLimitExceeded"
    assert "current utilization of 4 Instances and a request delta of 2 Instances" in str(error)


# Endpoints, configurations, models, tags


def test_the_older_part_of_the_api_speaks_its_own_words():
    account = new_account()
    arn = "arn:aws:sagemaker:us-east-1:111122223333"
    messages = {
        ("CreateModel", "ModelName", "old"): f'Cannot create already existing model "{arn}:model/old".',
        ("DescribeModel", "ModelName", "x"): f'Could not find model "{arn}:model/x".',
        ("DeleteModel", "ModelName", "x"): f'Could not find model "{arn}:model/x".',
        ("CreateEndpoint", "EndpointName", "live"): f'Cannot create already existing endpoint "{arn}:endpoint/live".',
        ("DescribeEndpoint", "EndpointName", "x"): f'Could not find endpoint "{arn}:endpoint/x".',
        ("DeleteEndpoint", "EndpointName", "x"): f'Could not find endpoint "{arn}:endpoint/x".',
        ("CreateEndpointConfig", "EndpointConfigName", "first"): (
            f'Cannot create already existing endpoint configuration "{arn}:endpoint-config/first".'
        ),
        ("DeleteEndpointConfig", "EndpointConfigName", "x"): (
            f'Could not find endpoint configuration "{arn}:endpoint-config/x".'
        ),
    }
    other_members = {
        "CreateModel": {"PrimaryContainer": {"Image": "x"}},
        "CreateEndpoint": {"EndpointConfigName": "first"},
        "CreateEndpointConfig": {"ProductionVariants": [production()]},
    }
    for (action, member, name), text in messages.items():
        error = account.refused(action, **{member: name}, **other_members.get(action, {}))
        assert (error.code, str(error)) == ("ValidationException", text)


def test_an_endpoint_is_updated_scaled_and_deleted():
    account = new_account()
    weighted = [production(InitialVariantWeight=1), production("B", "new", InitialVariantWeight=3)]
    account.do("CreateEndpointConfig", EndpointConfigName="two", ProductionVariants=weighted)
    change = [{"VariantName": SOURCE, "DesiredInstanceCount": 9, "DesiredWeight": 0}]
    account.do("UpdateEndpointWeightsAndCapacities", EndpointName="live", DesiredWeightsAndCapacities=change)
    assert "Cannot update in-progress endpoint" in str(
        account.refused("UpdateEndpoint", EndpointName="live", EndpointConfigName="two")
    )
    (old,) = account.endpoint()["ProductionVariants"]
    assert (old["CurrentInstanceCount"], old["DesiredInstanceCount"]) == (2, 9)
    account.wait(1)
    kept = {"RetainAllVariantProperties": True, "EndpointConfigName": "two"}
    account.do("UpdateEndpoint", EndpointName="live", **kept)
    account.wait(1)
    variants = account.endpoint()["ProductionVariants"]
    assert [(v["CurrentInstanceCount"], v["CurrentWeight"]) for v in variants] == [(9, 0.0), (2, 3.0)]
    account.do("DeleteEndpoint", EndpointName="live")
    assert account.endpoint()["EndpointStatus"] == "Deleting"
    account.wait(1)
    assert account.do("ListEndpoints") == {"Endpoints": []}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"ProductionVariants": [production(), production()]}, "productionVariants.2.member.variantName"),
        (
            {
                "ProductionVariants": [production(), production("B", "new")],
                "ShadowProductionVariants": [production("S", "new")],
            },
            "productionVariants",
        ),
        ({"ProductionVariants": [{"VariantName": "A"}]}, "productionVariants.1.member.modelName"),
        (
            {"ProductionVariants": [production(RoutingConfig={"RoutingStrategy": "PREFIX_AWARE"})]},
            "productionVariants.1.member.routingConfig.routingStrategy",
        ),
        (
            {"ProductionVariants": [production(ServerlessConfig={"MemorySizeInMB": 1024, "MaxConcurrency": 1})]},
            "productionVariants.1.member.serverlessConfig",
        ),
    ],
)
def test_a_configuration_that_cannot_be(changes, path):
    error = new_account().refused("CreateEndpointConfig", EndpointConfigName="bad", **changes)
    assert f"at '{path}' failed" in str(error)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"InstanceType": "ml.inf1.xlarge"},
            "Value 'ml.inf1.xlarge' at 'shadowProductionVariants.1.member.instanceType' failed to satisfy constraint: "
            "Member must not be an Inf1 type",
        ),
        (
            {"AcceleratorType": "ml.eia1.medium"},
            "Value 'ml.eia1.medium' at 'shadowProductionVariants.1.member.acceleratorType' failed to satisfy "
            "constraint: Member must be null",
        ),
        ({"ModelName": "many"}, "several containers or models, which shadow tests exclude"),
    ],
)
def test_what_shadow_tests_exclude_is_refused_in_a_configuration_too(changes, text):
    account = new_account()
    account.do("CreateModel", ModelName="many", Containers=[{"Image": "a"}, {"Image": "b"}])
    excluded = production("S", "new") | changes
    body = {"ProductionVariants": [production()], "ShadowProductionVariants": [excluded]}
    error = account.refused("CreateEndpointConfig", EndpointConfigName="bad", **body)
    assert (error.code, text in str(error)) == ("ValidationException", True)
    account.do("CreateEndpointConfig", EndpointConfigName="good", ProductionVariants=[excluded])  # without a shadow


def test_an_endpoint_with_elastic_inference_takes_no_experiment():
    account = new_account(endpoint=False)
    variants = [production(AcceleratorType="ml.eia1.medium")]
    account.do("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=variants)
    account.do("CreateEndpoint", EndpointName="live", EndpointConfigName="c")
    account.wait(1)
    error = account.refused("CreateInferenceExperiment", **experiment())
    assert (error.code, "Elastic Inference" in str(error)) == ("ValidationException", True)


def test_a_schedule_that_is_over_is_refused_with_the_servers_time():
    """The caller does not know the server's scaled time, so the error gives it as a date."""
    error = new_account().refused("CreateInferenceExperiment", **experiment(Schedule={"StartTime": T0 - 10 * DAY}))
    assert "end later than now, which is 2027-01-15T08:00:02Z" in str(error)


def test_tags_are_given_listed_and_taken():
    account = in_status("Created")
    for kind, name in (("inference-experiment", "bert"), ("endpoint", "live"), ("model", "old")):
        arn = f"arn:aws:sagemaker:us-east-1:111122223333:{kind}/{name}"
        tags = [{"Key": f"k{i}", "Value": str(i)} for i in range(50)]
        assert account.do("AddTags", ResourceArn=arn, Tags=tags)["Tags"] == tags
        assert account.do("ListTags", ResourceArn=arn) == {"Tags": tags}
        one_more = [{"Key": "more", "Value": ""}]
        assert "at most 50 tags" in str(account.refused("AddTags", ResourceArn=arn, Tags=one_more))
        assert account.do("DeleteTags", ResourceArn=arn, TagKeys=["k0", "none"]) == {}
        assert account.do("ListTags", ResourceArn=arn)["Tags"] == tags[1:]
    assert account.refused("ListTags", ResourceArn=f"{arn}-none").code == "ResourceNotFound"


# The wire


def test_unknown_actions_and_unreadable_bodies():
    account = new_account()
    for action in ("CreateTrainingJob", "createmodel", "", "\ud800"):
        with pytest.raises(ShadowsimError) as caught:
            handle(action, {}, T0, account.store)
        assert caught.value.code == "UnknownOperationException"
    for body in (b"{", b"[]", b"\xff", b'{"a": NaN}', "[" * 10_000, 1, None, [], b'{"Name": 1}', b'{"Name": {}}'):
        with pytest.raises(ShadowsimError) as caught:
            handle("DescribeInferenceExperiment", body, T0, account.store)
        assert (caught.value.code, caught.value.http_status) == ("SerializationException", 400)


def test_unknown_members_and_nulls_are_as_if_not_there():
    account = new_account()
    request = experiment(Description=None, New={"a": 1})
    request["ModelVariants"][0]["Other"] = 5
    account.do("CreateInferenceExperiment", **request)
    described = account.do("DescribeInferenceExperiment", Name="bert")
    assert "Description" not in described
    assert "Other" not in described["ModelVariants"][0]


def test_a_throttled_client_tries_again(monkeypatch):
    waits = []
    monkeypatch.setattr("botocore.endpoint.time.sleep", waits.append)
    account = new_account(quotas=Quotas({"Rate of ListModels requests": 0.001}))
    sagemaker = client(account)
    assert len(sagemaker.list_models()["Models"]) == 2
    with pytest.raises(ClientError, match="Rate exceeded") as caught:
        sagemaker.list_models()
    assert caught.value.response["Error"]["Code"] == "ThrottlingException"
    assert len(waits) == 4  # botocore's default: five attempts


ARN = "arn:aws:sagemaker:us-east-1:111122223333:endpoint/live"
FULL_CONFIG = {
    "ProductionVariants": [
        production(RoutingConfig={"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}, VolumeSizeInGB=5)
    ],
    "ShadowProductionVariants": [production(SHADOW, "new", InitialVariantWeight=0.5)],
    "DataCaptureConfig": {
        "InitialSamplingPercentage": 20,
        "DestinationS3Uri": "s3://bucket/x",
        "KmsKeyId": "alias/k",
        "CaptureOptions": [{"CaptureMode": "InputAndOutput"}],
        "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
    },
    "KmsKeyId": "alias/k",
    "Tags": [{"Key": "a", "Value": "b"}],
    "MetricsConfig": {"EnableEnhancedMetrics": False, "MetricPublishFrequencyInSeconds": 60},
}
EVERY_ACTION = [
    ("CreateModel", {"ModelName": "third", "Containers": [{"Image": "a"}], "EnableNetworkIsolation": True}),
    ("DescribeModel", {"ModelName": "third"}),
    ("ListModels", {"MaxResults": 2}),
    ("DeleteModel", {"ModelName": "third"}),
    ("CreateEndpointConfig", {"EndpointConfigName": "full", **FULL_CONFIG}),
    ("DescribeEndpointConfig", {"EndpointConfigName": "full"}),
    ("ListEndpointConfigs", {"MaxResults": 1}),
    ("UpdateEndpoint", {"EndpointName": "live", "EndpointConfigName": "full"}),
    ("DescribeEndpoint", {"EndpointName": "live"}),
    (
        "UpdateEndpointWeightsAndCapacities",
        {"EndpointName": "live", "DesiredWeightsAndCapacities": [{"VariantName": SHADOW, "DesiredWeight": 1}]},
    ),
    ("DescribeEndpoint", {"EndpointName": "live"}),
    ("CreateEndpoint", {"EndpointName": "second", "EndpointConfigName": "full", "Tags": [{"Key": "a", "Value": ""}]}),
    ("DescribeEndpoint", {"EndpointName": "second"}),
    ("ListEndpoints", {"MaxResults": 1}),
    ("AddTags", {"ResourceArn": ARN, "Tags": [{"Key": "k", "Value": ""}]}),
    ("ListTags", {"ResourceArn": ARN}),
    ("DeleteTags", {"ResourceArn": ARN, "TagKeys": ["k"]}),
    (
        "CreateInferenceExperiment",
        experiment(
            Schedule=SCHEDULED,
            Description="d",
            KmsKey="alias/k",
            DataStorageConfig={
                "Destination": "s3://bucket/y",
                "KmsKey": "k",
                "ContentType": {"CsvContentTypes": ["a/b"]},
            },
        ),
    ),
    ("DescribeInferenceExperiment", {"Name": "bert"}),
    ("UpdateInferenceExperiment", {"Name": "bert", "Description": ""}),
    ("ListInferenceExperiments", {"MaxResults": 1}),
    ("StartInferenceExperiment", {"Name": "bert"}),
    ("DescribeEndpoint", {"EndpointName": "live"}),
    ("DescribeInferenceExperiment", {"Name": "bert"}),
    ("StopInferenceExperiment", {"Name": "bert", "ModelVariantActions": PROMOTE, "Reason": ""}),
    ("DescribeInferenceExperiment", {"Name": "bert"}),
    ("DeleteInferenceExperiment", {"Name": "bert"}),
    ("DeleteEndpointConfig", {"EndpointConfigName": "full"}),
    ("DeleteEndpoint", {"EndpointName": "second"}),
]


def test_every_action_answers_what_its_shape_says():
    """`Account.do` checks each answer against its shape; this calls all actions, at rest and during transitions."""
    assert {action for action, _ in EVERY_ACTION} == set(REHEARSED)
    changes = ("Create", "Update", "Start", "Stop", "DeleteInference")
    for at_rest in (True, False):
        account = new_account()
        for action, body in EVERY_ACTION:
            account.wait(1.0 if at_rest or action.startswith(changes) else 0.0)
            json.dumps(account.do(action, **body), allow_nan=False)


# Nothing random breaks it

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KNOWN = st.sampled_from(
    ["bert", "live", "old", "new", "first", SOURCE, SHADOW, "Promote", "Retain", "Remove", "Completed", T0, T0 + DAY, 1]
)
VALUES = st.one_of(
    KNOWN,
    JSON,
    st.just([variant(SOURCE, "old"), variant(SHADOW, "new")]),
    st.just(shadow_mode_config(10)),
    st.just(PROMOTE),
    st.just([production()]),
    st.fixed_dictionaries({"StartTime": KNOWN | JSON, "EndTime": KNOWN | JSON}),
    st.lists(st.dictionaries(st.sampled_from(["VariantName", "Key", "Value", "DesiredWeight"]), KNOWN), max_size=3),
)


def bodies(action):
    members = list(MODEL.operation_model(action).input_shape.members)
    return st.dictionaries(st.sampled_from(members) | st.text(max_size=8), VALUES, max_size=6)


@cache
def ready(status):
    """Return an account in a status; a test that changes it must clear this cache."""
    return in_status(status)


def random_json_breaks_nothing(data, action):
    account = ready(data.draw(st.sampled_from(["Created", "Running", "Completed"])))
    for _ in range(3):
        before = account.snapshot()
        body = data.draw(bodies(action) | JSON)
        refusal, answer = None, None
        try:
            answer = handle(action, body, account.now, account.store)
        except ShadowsimError as error:
            refusal = error
        if refusal is not None:
            assert 400 <= refusal.http_status < 500
            assert str(refusal).isprintable()
        json.dumps(answer, allow_nan=False)
        assert (account.snapshot() == before) == (refusal is not None or action not in EFFECTS)
        if account.snapshot() != before:
            ready.cache_clear()


@pytest.mark.parametrize("action", REHEARSED)
@settings(max_examples=5)
@given(data=st.data())
def test_random_json_is_refused_and_changes_nothing(action, data):
    random_json_breaks_nothing(data, action)


@pytest.mark.slow
@pytest.mark.parametrize("action", REHEARSED)
@settings(max_examples=400)
@given(data=st.data())
def test_much_random_json_is_refused_and_changes_nothing(action, data):
    random_json_breaks_nothing(data, action)


STEPS = st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.0, 2.5, 6 * DAY]), st.sampled_from(ACTIONS[:3])), max_size=8)


@given(STEPS, st.booleans(), st.sampled_from([0.0, 1.0, 3.0]))
@settings(max_examples=60)
def test_the_status_is_the_tables_function_of_events_and_time(steps, scheduled, transition_s):
    """At any time the experiment's status is the one that folding its accepted events by the table gives."""
    account = new_account(transition_s=transition_s)
    account.wait(5)
    began, end_s = (SCHEDULED["StartTime"], SCHEDULED["EndTime"]) if scheduled else (account.now, account.now + 7 * DAY)
    account.do("CreateInferenceExperiment", **experiment(**({"Schedule": SCHEDULED} if scheduled else {})))
    first, events = Stage("Creating", account.now, began, end_s), []
    for wait, action in steps:
        account.wait(wait)
        try:
            account.do(f"{action}InferenceExperiment", Name="bert", **BODIES[action])
        except ConflictError:
            with pytest.raises(ConflictError):
                status_by_table(first, [*events, Event(account.now, action)], account.now, transition_s)
        else:
            events.append(Event(account.now, action, (("ends_as", "Cancelled"),) if action == "Stop" else ()))
        assert account.status() == status_by_table(first, events, account.now, transition_s)
    account.wait(40 * DAY)
    assert account.status() in ("Completed", "Cancelled")
    assert account.endpoint()["EndpointConfigName"] == "first"


def test_the_same_actions_make_the_same_world(tmp_path):
    """Folding the file again gives the world that was there."""
    account = in_status("Stopping")
    again = Store(tmp_path / "copy.db", wall=lambda: T0, steady=lambda: T0)
    for _, at_s, kind, body in list(account.store.events())[1:]:  # the first event configures the store
        again.accept(kind, json.loads(body), at_s)
    assert repr(again.world_at(account.now)) == repr(account.store.world_at(account.now))
    again.close()
    reopened = Store(tmp_path / "copy.db", wall=lambda: account.now, steady=lambda: account.now)
    assert repr(reopened.world_at(account.now)) == repr(account.store.world_at(account.now))
    reopened.close()
