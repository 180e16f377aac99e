"""Tests the views that the data plane gets, and the effects of its /ping results."""

import pytest
from rehearsed_account import DAY, SHADOW, SOURCE, experiment, new_account, production, shadow_mode_config, variant

from shadowsim.errors import UnknownEndpointError
from shadowsim.server.state.undocumented import Undocumented
from shadowsim.server.state.views import endpoint_view, models_to_ping, record_ping

STORAGE = {"Destination": "s3://bucket/x", "KmsKey": "k", "ContentType": {"CsvContentTypes": ["text/csv"]}}


def view(account, name="live"):
    return endpoint_view(account.store, name, account.now)


def probes(account):
    return models_to_ping(account.store, account.now)


def probed(*models, **options):
    """Return an account in which the models of these names have real backends."""
    return new_account(probed=frozenset(models), **options)


def test_what_an_experiment_makes_of_an_endpoint():
    account = new_account()
    before = view(account)
    assert (before.status, before.shadow, before.captures, before.experiment) == ("InService", None, (), None)
    (source,) = before.production
    assert (source.name, source.model_name, source.instance_count, source.weight) == (SOURCE, "old", 2, 1.0)
    assert source.container == {"Image": "image/old"}
    account.do(
        "CreateInferenceExperiment", **experiment(DataStorageConfig=STORAGE, ShadowModeConfig=shadow_mode_config(29))
    )
    assert view(account).experiment == "bert"
    account.wait(2)
    during = view(account)
    assert during.production == before.production
    assert (during.shadow.variant.model_name, during.shadow.source_name) == ("new", SOURCE)
    assert during.shadow.sampling_percentage == 29
    (capture,) = during.captures
    assert (capture.destination, capture.sampling_percentage, capture.kms_key_id) == ("s3://bucket/x", 100, "k")
    assert (capture.modes, capture.csv_content_types) == ({"Input", "Output"}, ("text/csv",))
    assert capture.variants == (SOURCE, SHADOW)
    account.wait(7 * DAY)
    after = view(account)
    assert (after.production, after.shadow, after.captures, after.experiment) == (before.production, None, (), None)


def test_versions_differ_when_anything_does_and_are_never_used_again():
    account = new_account()
    seen = {}
    for step in range(60):
        if step == 3:
            account.do("CreateInferenceExperiment", **experiment())
        if step == 20:
            account.do("UpdateInferenceExperiment", Name="bert", ShadowModeConfig=shadow_mode_config(100))
        if step == 30:
            account.do(
                "StopInferenceExperiment", Name="bert", ModelVariantActions={SOURCE: "Remove", SHADOW: "Promote"}
            )
        if step == 40:
            account.do("DeleteEndpoint", EndpointName="live")
        if step == 48:
            account.do("CreateEndpoint", EndpointName="live", EndpointConfigName="first")
        account.wait(0.25)
        try:
            now = view(account)
        except UnknownEndpointError:
            continue
        assert seen.setdefault(now.version, now) == now
    assert len(seen) >= 10


def test_an_unknown_endpoint_has_the_runtimes_words():
    with pytest.raises(UnknownEndpointError) as caught:
        view(new_account(), "none")
    assert (caught.value.code, caught.value.http_status) == ("ValidationError", 400)
    assert str(caught.value) == "Endpoint none of account 111122223333 not found."


@pytest.mark.parametrize(
    ("weight", "rule", "share"),
    [(0.5, "relative", 25.0), (0.5, "absolute", 50.0), (4.0, "relative", 100.0), (0.0, "relative", 0.0)],
)
def test_a_configurations_shadow_weight_is_its_share(weight, rule, share):
    account = new_account(choices=Undocumented(shadow_weight=rule))
    account.do(
        "CreateEndpointConfig",
        EndpointConfigName="both",
        ProductionVariants=[production(InitialVariantWeight=2.0, RoutingConfig={"RoutingStrategy": "RANDOM"})],
        ShadowProductionVariants=[
            production(
                "S", "new", InitialVariantWeight=weight, RoutingConfig={"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
            )
        ],
    )
    account.do("UpdateEndpoint", EndpointName="live", EndpointConfigName="both")
    account.wait(1)
    assert view(account).shadow.sampling_percentage == share
    assert view(account).routing == {SOURCE: "RANDOM", "S": "LEAST_OUTSTANDING_REQUESTS"}


def test_a_new_endpoint_waits_for_its_backends():
    account = probed("old")
    account.wait(1000)
    assert view(account).status == "Creating"
    assert view(account).production == ()
    (probe,) = probes(account)
    assert (probe.endpoint, probe.variant.name, probe.limit_s) == ("live", SOURCE, 240.0)
    record_ping(account.store, probe, account.now)
    assert view(account).status == "InService"
    assert probes(account) == ()


def test_a_new_endpoint_whose_backend_fails_is_failed():
    account = probed("*")
    (probe,) = probes(account)
    record_ping(account.store, probe, account.now, "The container did not pass the ping health check.")
    described = account.endpoint()
    assert described["EndpointStatus"] == "Failed"
    assert described["FailureReason"] == "The container did not pass the ping health check."
    assert "Cannot update failed endpoint" in str(
        account.refused("UpdateEndpoint", EndpointName="live", EndpointConfigName="first")
    )
    account.do("DeleteEndpoint", EndpointName="live")
    account.wait(1)
    account.do("CreateEndpoint", EndpointName="live", EndpointConfigName="first")


@pytest.mark.parametrize("deploy_in", ["Starting", "Creating"])
def test_a_shadow_whose_backend_fails_cancels_and_leaves_the_endpoint_as_it_was(deploy_in):
    account = probed("new", choices=Undocumented(deploy_in=deploy_in))
    before = view(account)
    account.do("CreateInferenceExperiment", **experiment())
    account.wait(5)
    assert (account.status(), view(account).status) == (deploy_in, "Updating")
    assert view(account).production == before.production
    (probe,) = probes(account)
    assert probe.variant.name == SHADOW
    record_ping(account.store, probe, account.now, "no answer on /ping")
    described = account.do("DescribeInferenceExperiment", Name="bert")
    assert (described["Status"], described["StatusReason"]) == ("Cancelled", "no answer on /ping")
    assert [v["Status"] for v in described["ModelVariants"]] == ["InService", "Deleted"]
    assert view(account).status == "RollingBack"
    account.wait(1)
    after = view(account)
    assert (after.status, after.production, after.shadow) == ("InService", before.production, None)
    assert (account.endpoint()["EndpointConfigName"], account.endpoint()["FailureReason"]) == (
        "first",
        "no answer on /ping",
    )


def test_a_shadow_on_a_new_endpoint_that_fails_leaves_it_failed():
    account = probed("new", endpoint=False)
    account.do("CreateInferenceExperiment", **experiment())
    account.wait(5)
    (probe,) = probes(account)
    record_ping(account.store, probe, account.now, "no answer")
    assert (account.status(), account.endpoint()["EndpointStatus"]) == ("Cancelled", "Failed")


def test_an_experiment_waits_for_its_backend_and_then_runs_and_stops_without_asking_again():
    account = probed("new")
    account.do("CreateInferenceExperiment", **experiment())
    account.wait(30)
    (probe,) = probes(account)
    record_ping(account.store, probe, account.now)
    assert (account.status(), view(account).status) == ("Running", "InService")
    account.do("UpdateInferenceExperiment", Name="bert", ShadowModeConfig=shadow_mode_config(100))
    account.wait(1)
    account.do("StopInferenceExperiment", Name="bert", ModelVariantActions={SOURCE: "Remove", SHADOW: "Promote"})
    assert probes(account) == ()
    account.wait(1)
    assert view(account).production[0].name == SHADOW


def test_a_stop_whose_new_model_fails_ends_cancelled_with_the_endpoint_from_before():
    account = probed("third")
    account.do("CreateModel", ModelName="third", PrimaryContainer={"Image": "c"})
    before = view(account)
    account.do("CreateInferenceExperiment", **experiment())
    account.wait(2)
    account.do(
        "StopInferenceExperiment",
        Name="bert",
        ModelVariantActions={SOURCE: "Remove", SHADOW: "Promote"},
        DesiredModelVariants=[variant(SHADOW, "third")],
        DesiredState="Completed",
    )
    account.wait(9)
    assert (account.status(), view(account).shadow.variant.name) == ("Stopping", SHADOW)
    (probe,) = probes(account)
    record_ping(account.store, probe, account.now, "no answer")
    account.wait(1)
    assert account.status() == "Cancelled"
    assert (view(account).production, view(account).shadow) == (before.production, None)


def test_a_probe_that_was_given_up_is_void():
    account = probed("old")
    (probe,) = probes(account)
    account.do("DeleteEndpoint", EndpointName="live")
    account.wait(1)
    account.do("CreateEndpoint", EndpointName="live", EndpointConfigName="first")
    before = account.snapshot()
    record_ping(account.store, probe, account.now, "too late")
    assert account.snapshot() == before
    assert account.endpoint()["EndpointStatus"] == "Creating"


def test_deployed_while_creating_there_are_no_copies_before_the_start():
    account = new_account(choices=Undocumented(deploy_in="Creating"))
    account.do("CreateInferenceExperiment", **experiment(Schedule={"StartTime": account.now + DAY}))
    account.wait(1)
    assert (account.status(), view(account).shadow.sampling_percentage) == ("Created", 0)
    account.wait(DAY)
    assert (account.status(), view(account).shadow.sampling_percentage) == ("Running", 50)
    account.wait(7 * DAY + 1)
    assert (account.status(), view(account).shadow) == ("Completed", None)


def test_an_endpoint_that_the_experiment_made_can_go_with_it():
    account = new_account(endpoint=False, choices=Undocumented(made_endpoint="delete"))
    account.do("CreateInferenceExperiment", **experiment())
    account.wait(7 * DAY + 2)
    assert account.status() == "Completed"
    with pytest.raises(UnknownEndpointError):
        view(account)


def test_other_choices_for_what_is_undocumented():
    account = new_account(choices=Undocumented(desired_state="Completed", duplicate_name="ConflictException"))
    account.do("CreateInferenceExperiment", **experiment())
    assert account.refused("CreateInferenceExperiment", **experiment()).code == "ConflictException"
    account.wait(2)
    account.do("StopInferenceExperiment", Name="bert", ModelVariantActions={SHADOW: "Remove"})
    account.wait(1)
    assert account.status() == "Completed"
