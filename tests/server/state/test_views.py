"""server/views.py: what the data path is told, and what it tells of /ping."""

import pytest
from rehearsed_account import DAY, SHADOW, SOURCE, account, experiment, mirrored, production, variant

from shadowsim.errors import UnknownEndpointError
from shadowsim.server.state.undocumented import Undocumented
from shadowsim.server.state.views import endpoint_view, models_to_ping, record_ping

STORAGE = {"Destination": "s3://bucket/x", "KmsKey": "k", "ContentType": {"CsvContentTypes": ["text/csv"]}}


def view(made, name="live"):
    return endpoint_view(made.store, name, made.now)


def probes(made):
    return models_to_ping(made.store, made.now)


def probed(*models, **options):
    """An account whose models of these names have real backends."""
    return account(probed=frozenset(models), **options)


def test_what_an_experiment_makes_of_an_endpoint():
    made = account()
    before = view(made)
    assert (before.status, before.shadow, before.captures, before.experiment) == ("InService", None, (), None)
    (source,) = before.production
    assert (source.name, source.model_name, source.instance_count, source.weight) == (SOURCE, "old", 2, 1.0)
    assert source.container == {"Image": "image/old"}
    made.do("CreateInferenceExperiment", **experiment(DataStorageConfig=STORAGE, ShadowModeConfig=mirrored(29)))
    assert view(made).experiment == "bert"
    made.wait(2)
    during = view(made)
    assert during.production == before.production
    assert (during.shadow.variant.model_name, during.shadow.source_name) == ("new", SOURCE)
    assert during.shadow.sampling_percentage == 29
    (capture,) = during.captures
    assert (capture.destination, capture.sampling_percentage, capture.kms_key_id) == ("s3://bucket/x", 100, "k")
    assert (capture.modes, capture.csv_content_types) == ({"Input", "Output"}, ("text/csv",))
    assert capture.variants == (SOURCE, SHADOW)
    made.wait(7 * DAY)
    after = view(made)
    assert (after.production, after.shadow, after.captures, after.experiment) == (before.production, None, (), None)


def test_versions_differ_when_anything_does_and_are_never_used_again():
    made = account()
    seen = {}
    for step in range(60):
        if step == 3:
            made.do("CreateInferenceExperiment", **experiment())
        if step == 20:
            made.do("UpdateInferenceExperiment", Name="bert", ShadowModeConfig=mirrored(100))
        if step == 30:
            made.do("StopInferenceExperiment", Name="bert", ModelVariantActions={SOURCE: "Remove", SHADOW: "Promote"})
        if step == 40:
            made.do("DeleteEndpoint", EndpointName="live")
        if step == 48:
            made.do("CreateEndpoint", EndpointName="live", EndpointConfigName="first")
        made.wait(0.25)
        try:
            now = view(made)
        except UnknownEndpointError:
            continue
        assert seen.setdefault(now.version, now) == now
    assert len(seen) >= 10


def test_an_unknown_endpoint_has_the_runtimes_words():
    with pytest.raises(UnknownEndpointError) as caught:
        view(account(), "none")
    assert (caught.value.code, caught.value.http_status) == ("ValidationError", 400)
    assert str(caught.value) == "Endpoint none of account 111122223333 not found."


@pytest.mark.parametrize(
    ("weight", "rule", "share"),
    [(0.5, "relative", 25.0), (0.5, "absolute", 50.0), (4.0, "relative", 100.0), (0.0, "relative", 0.0)],
)
def test_a_configurations_shadow_weight_is_its_share(weight, rule, share):
    made = account(choices=Undocumented(shadow_weight=rule))
    made.do(
        "CreateEndpointConfig",
        EndpointConfigName="both",
        ProductionVariants=[production(InitialVariantWeight=2.0, RoutingConfig={"RoutingStrategy": "RANDOM"})],
        ShadowProductionVariants=[
            production(
                "S", "new", InitialVariantWeight=weight, RoutingConfig={"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
            )
        ],
    )
    made.do("UpdateEndpoint", EndpointName="live", EndpointConfigName="both")
    made.wait(1)
    assert view(made).shadow.sampling_percentage == share
    assert view(made).routing == {SOURCE: "RANDOM", "S": "LEAST_OUTSTANDING_REQUESTS"}


def test_a_new_endpoint_waits_for_its_backends():
    made = probed("old")
    made.wait(1000)
    assert view(made).status == "Creating"
    assert view(made).production == ()
    (probe,) = probes(made)
    assert (probe.endpoint, probe.variant.name, probe.limit_s) == ("live", SOURCE, 240.0)
    record_ping(made.store, probe, made.now)
    assert view(made).status == "InService"
    assert probes(made) == ()


def test_a_new_endpoint_whose_backend_fails_is_failed():
    made = probed("*")
    (probe,) = probes(made)
    record_ping(made.store, probe, made.now, "The container did not pass the ping health check.")
    described = made.endpoint()
    assert described["EndpointStatus"] == "Failed"
    assert described["FailureReason"] == "The container did not pass the ping health check."
    assert "Cannot update failed endpoint" in str(
        made.refused("UpdateEndpoint", EndpointName="live", EndpointConfigName="first")
    )
    made.do("DeleteEndpoint", EndpointName="live")
    made.wait(1)
    made.do("CreateEndpoint", EndpointName="live", EndpointConfigName="first")


@pytest.mark.parametrize("deploy_in", ["Starting", "Creating"])
def test_a_shadow_whose_backend_fails_cancels_and_leaves_the_endpoint_as_it_was(deploy_in):
    made = probed("new", choices=Undocumented(deploy_in=deploy_in))
    before = view(made)
    made.do("CreateInferenceExperiment", **experiment())
    made.wait(5)
    assert (made.status(), view(made).status) == (deploy_in, "Updating")
    assert view(made).production == before.production
    (probe,) = probes(made)
    assert probe.variant.name == SHADOW
    record_ping(made.store, probe, made.now, "no answer on /ping")
    described = made.do("DescribeInferenceExperiment", Name="bert")
    assert (described["Status"], described["StatusReason"]) == ("Cancelled", "no answer on /ping")
    assert [v["Status"] for v in described["ModelVariants"]] == ["InService", "Deleted"]
    assert view(made).status == "RollingBack"
    made.wait(1)
    after = view(made)
    assert (after.status, after.production, after.shadow) == ("InService", before.production, None)
    assert (made.endpoint()["EndpointConfigName"], made.endpoint()["FailureReason"]) == ("first", "no answer on /ping")


def test_a_shadow_on_a_new_endpoint_that_fails_leaves_it_failed():
    made = probed("new", endpoint=False)
    made.do("CreateInferenceExperiment", **experiment())
    made.wait(5)
    (probe,) = probes(made)
    record_ping(made.store, probe, made.now, "no answer")
    assert (made.status(), made.endpoint()["EndpointStatus"]) == ("Cancelled", "Failed")


def test_an_experiment_waits_for_its_backend_and_then_runs_and_stops_without_asking_again():
    made = probed("new")
    made.do("CreateInferenceExperiment", **experiment())
    made.wait(30)
    (probe,) = probes(made)
    record_ping(made.store, probe, made.now)
    assert (made.status(), view(made).status) == ("Running", "InService")
    made.do("UpdateInferenceExperiment", Name="bert", ShadowModeConfig=mirrored(100))
    made.wait(1)
    made.do("StopInferenceExperiment", Name="bert", ModelVariantActions={SOURCE: "Remove", SHADOW: "Promote"})
    assert probes(made) == ()
    made.wait(1)
    assert view(made).production[0].name == SHADOW


def test_a_stop_whose_new_model_fails_ends_cancelled_with_the_endpoint_from_before():
    made = probed("third")
    made.do("CreateModel", ModelName="third", PrimaryContainer={"Image": "c"})
    before = view(made)
    made.do("CreateInferenceExperiment", **experiment())
    made.wait(2)
    made.do(
        "StopInferenceExperiment",
        Name="bert",
        ModelVariantActions={SOURCE: "Remove", SHADOW: "Promote"},
        DesiredModelVariants=[variant(SHADOW, "third")],
        DesiredState="Completed",
    )
    made.wait(9)
    assert (made.status(), view(made).shadow.variant.name) == ("Stopping", SHADOW)
    (probe,) = probes(made)
    record_ping(made.store, probe, made.now, "no answer")
    made.wait(1)
    assert made.status() == "Cancelled"
    assert (view(made).production, view(made).shadow) == (before.production, None)


def test_a_probe_that_was_given_up_is_void():
    made = probed("old")
    (probe,) = probes(made)
    made.do("DeleteEndpoint", EndpointName="live")
    made.wait(1)
    made.do("CreateEndpoint", EndpointName="live", EndpointConfigName="first")
    before = made.picture()
    record_ping(made.store, probe, made.now, "too late")
    assert made.picture() == before
    assert made.endpoint()["EndpointStatus"] == "Creating"


def test_deployed_while_creating_there_are_no_copies_before_the_start():
    made = account(choices=Undocumented(deploy_in="Creating"))
    made.do("CreateInferenceExperiment", **experiment(Schedule={"StartTime": made.now + DAY}))
    made.wait(1)
    assert (made.status(), view(made).shadow.sampling_percentage) == ("Created", 0)
    made.wait(DAY)
    assert (made.status(), view(made).shadow.sampling_percentage) == ("Running", 50)
    made.wait(7 * DAY + 1)
    assert (made.status(), view(made).shadow) == ("Completed", None)


def test_an_endpoint_that_the_experiment_made_can_go_with_it():
    made = account(endpoint=False, choices=Undocumented(made_endpoint="delete"))
    made.do("CreateInferenceExperiment", **experiment())
    made.wait(7 * DAY + 2)
    assert made.status() == "Completed"
    with pytest.raises(UnknownEndpointError):
        view(made)


def test_other_choices_for_what_is_undocumented():
    made = account(choices=Undocumented(desired_state="Completed", duplicate_name="ConflictException"))
    made.do("CreateInferenceExperiment", **experiment())
    assert made.refused("CreateInferenceExperiment", **experiment()).code == "ConflictException"
    made.wait(2)
    made.do("StopInferenceExperiment", Name="bert", ModelVariantActions={SHADOW: "Remove"})
    made.wait(1)
    assert made.status() == "Completed"
