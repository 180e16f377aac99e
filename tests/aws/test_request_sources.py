"""A request is found where people keep it, with what was assumed, or refused by the path of what is missing."""

import copy
import json

import pytest
from commands import good, refused, written
from rehearsed_account import experiment

from shadowsim import Experiment, InputError, Scenario, SerializationError, simulate
from shadowsim.aws.request_sources import request_source
from shadowsim.scenario.scenario import init_scenario

REQUEST = experiment()
ROLE = REQUEST["RoleArn"]
RESOURCE = {"Type": "AWS::SageMaker::InferenceExperiment", "Properties": REQUEST}
CONFIG = {
    "EndpointConfigName": "c",
    "ProductionVariants": [
        {"VariantName": "p", "ModelName": "m1", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 2}
    ],
    "ShadowProductionVariants": [
        {
            "VariantName": "s",
            "ModelName": "m2",
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
            "InitialVariantWeight": 0.5,
            "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
        }
    ],
}
CONFIG_RESOURCE = {"Type": "AWS::SageMaker::EndpointConfig", "Properties": CONFIG}
WITHOUT_SHADOW = {"Type": "AWS::SageMaker::EndpointConfig", "Properties": {"ProductionVariants": []}}
DESCRIPTION = {
    **{key: value for key, value in REQUEST.items() if key not in ("EndpointName", "RoleArn", "Tags")},
    "ModelVariants": [variant | {"Status": "InService"} for variant in REQUEST["ModelVariants"]],
    "Arn": "arn:aws:sagemaker:us-east-1:111122223333:inference-experiment/x",
    "Status": "Running",
    "CreationTime": "2026-11-01T00:00:00Z",
    "EndpointMetadata": {"EndpointName": REQUEST["EndpointName"], "EndpointStatus": "InService"},
}


def template(**resources):
    return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}


def with_properties(**properties):
    return template(Exp=RESOURCE | {"Properties": REQUEST | properties})


@pytest.mark.parametrize(
    "document",
    [
        REQUEST,
        RESOURCE,
        {"Exp": RESOURCE},
        template(Exp=RESOURCE, Model={"Type": "AWS::SageMaker::Model"}, Config=WITHOUT_SHADOW),
    ],
)
def test_the_request_itself(document):
    source = request_source(copy.deepcopy(document))
    assert (source.request, dict(source.assumed), dict(source.routing)) == (REQUEST, {}, {})
    assert Experiment.from_request(document) == Experiment.from_request(REQUEST)


def test_a_description():
    source = request_source(DESCRIPTION)
    assert Experiment.from_request(DESCRIPTION).endpoint_name == REQUEST["EndpointName"]
    assert source.request["ModelVariants"] == REQUEST["ModelVariants"]
    assert "status Running" in source.assumed["experiment.Name"]
    assert source.request["RoleArn"] in source.assumed["experiment.RoleArn"]
    told = request_source(DESCRIPTION | {"RoleArn": ROLE})
    assert told.request["RoleArn"] == ROLE
    assert "experiment.RoleArn" not in told.assumed


@pytest.mark.parametrize(
    "document", [CONFIG, CONFIG | {"EndpointConfigArn": "arn", "CreationTime": 1}, CONFIG_RESOURCE]
)
def test_an_endpoint_configuration(document):
    source = request_source(document)
    found = Experiment.from_request(document)
    assert (found.source.name, found.shadow.name, found.sampling_percentage) == ("p", "s", 50)
    assert (found.source.pool.instance_count, found.shadow.pool.instance_type) == (2, "ml.m5.large")
    assert dict(source.routing) == {"s": "LEAST_OUTSTANDING_REQUESTS"}
    assert "placeholders" in source.assumed["experiment.Name"]
    assert "50 % are copied, the shadow's weight over production's (0.5 / 1)" in str(source.assumed)
    scenario = Scenario.of(document, 10.0)
    assert dict(scenario.routing) == {"p": "RANDOM", "s": "LEAST_OUTSTANDING_REQUESTS"}
    assert {*source.assumed.values()} <= {*scenario.assumptions}
    assert init_scenario(document)["endpoint"]["routing"] == {"s": "LEAST_OUTSTANDING_REQUESTS"}


@pytest.mark.parametrize(
    ("change", "path", "why"),
    [
        ({"InitialVariantWeight": 3}, ".InitialVariantWeight", "must be at most production's"),
        ({"InitialVariantWeight": -1}, ".InitialVariantWeight", "must be a number >= 0, got -1"),
        ({"InitialVariantWeight": "x"}, ".InitialVariantWeight", "must be a number >= 0, got 'x'"),
        ({"ServerlessConfig": {"MaxConcurrency": 1}}, ".ServerlessConfig", "is serverless"),
        ({"InstanceType": None}, "", "needs InstanceType and InitialInstanceCount"),
    ],
)  # fmt: skip
def test_an_endpoint_configuration_that_is_no_shadow_test(change, path, why):
    shadow = CONFIG["ShadowProductionVariants"][0] | change
    with pytest.raises(InputError) as caught:
        request_source(CONFIG | {"ShadowProductionVariants": [shadow]})
    assert caught.value.path == f"request.ShadowProductionVariants.0{path}"
    assert why in str(caught.value)
    with pytest.raises(InputError, match=r"^request\.ProductionVariants: must have exactly one variant, .* got 2"):
        request_source(CONFIG | {"ProductionVariants": CONFIG["ProductionVariants"] * 2})


def test_references_are_resolved_or_refused_by_their_path():
    document = with_properties(RoleArn={"Fn::GetAtt": ["Role", "Arn"]}, Description={"Ref": "Note"})
    document["Parameters"] = {"Note": {"Type": "String", "Default": "from a template"}, "N": {"Default": "5"}}
    shadow = {"ShadowModelVariantName": "Shadow-01", "SamplingPercentage": {"Ref": "N"}}
    mode = REQUEST["ShadowModeConfig"] | {"ShadowModelVariants": [shadow]}
    document["Resources"]["Exp"]["Properties"] |= {"ShadowModeConfig": mode}
    with pytest.raises(InputError) as caught:
        Experiment.from_request(document)
    assert str(caught.value) == (
        "request.Exp.RoleArn: refers to Role.Arn, which is not known before the deployment (--parameter Role.Arn=VALUE)"
    )
    found = Experiment.from_request(document, parameters={"Role.Arn": ROLE})
    assert (found.role_arn, found.description, found.sampling_percentage) == (ROLE, "from a template", 5)
    scenario = Scenario.of(document, 10.0, parameters={"Role.Arn": ROLE, "N": 7})
    assert scenario.experiment.sampling_percentage == 7
    assert "experiment: parameters of the template have their Default: Note = from a template." in scenario.assumptions


def test_a_parameter_that_nothing_refers_to_is_refused():
    document = with_properties(RoleArn={"Fn::GetAtt": ["Role", "Arn"]})
    with pytest.raises(
        InputError, match=r"^parameters: must be what request refers to, got 'Rol\.Arn'; did you mean Role"
    ):
        Experiment.from_request(document, parameters={"Role.Arn": ROLE, "Rol.Arn": ROLE})
    with pytest.raises(InputError, match="parameters: are for a template or a plan, which request is not, got 'Name'"):
        Experiment.from_request(REQUEST, parameters={"Name": "x"})


def test_a_resource_whose_condition_does_not_hold_is_no_candidate():
    document = template(Exp=RESOURCE, Other=RESOURCE | {"Condition": "Never"})
    document["Conditions"] = {"Never": {"Fn::Equals": ["a", "b"]}}
    assert request_source(document).request == REQUEST


def test_several_candidates_are_named_and_one_is_chosen(tmp_path):
    document = template(Exp=RESOURCE, Config=CONFIG_RESOURCE)
    with pytest.raises(InputError, match=r"^request: has 2 candidates: Exp, Config; choose one \(--resource NAME\)$"):
        Experiment.from_request(document)
    assert Experiment.from_request(document, resource="Exp").name == REQUEST["Name"]
    assert Experiment.from_request(document, resource="Config").shadow.name == "s"
    with pytest.raises(
        InputError, match=r"^resource: must be a resource of request .* got 'Conf'; did you mean Config\?"
    ):
        Experiment.from_request(document, resource="Conf")
    with pytest.raises(InputError, match=r"^resource: chooses one of several resources, and request has none"):
        Experiment.from_request(REQUEST, resource="x")
    file = written(tmp_path / "template.json", document)
    assert refused("validate", file).endswith("(--resource NAME)")
    assert "shadow          s: model m2" in good("validate", file, "--resource", "Config")
    assert json.loads(good("init", file, "--resource", "Exp"))["experiment"] == REQUEST
    done = good("simulate", file, "--resource", "Config", "--rate", 5, "--set", "horizon_s=60", "-q")
    assert "assumed  experiment: 50 % are copied" in done


def test_what_an_experiment_has_beside_a_request_is_not_used():
    source = request_source(with_properties(DesiredState="Running"))
    assert source.request == REQUEST
    assert source.assumed == {"experiment": "experiment: DesiredState is not used."}


def test_a_template_without_an_experiment():
    with pytest.raises(
        InputError, match="request: has no resource that is an inference experiment or an endpoint conf"
    ):
        request_source(template(Config=WITHOUT_SHADOW))


def test_yaml_with_short_forms(tmp_path):
    lines = [
        "Parameters: {Share: {Type: Number, Default: 20}}",
        "Resources:",
        "  Unrelated: {Type: AWS::IAM::Role, Properties: {Enabled: yes}}",
        "  Exp:",
        "    Type: AWS::SageMaker::InferenceExperiment",
        f"    Properties: {json.dumps(REQUEST | {'ShadowModeConfig': None})[:-1]}, Description: DESCRIPTION}}",
    ]
    mode = json.dumps(REQUEST["ShadowModeConfig"]).replace(
        str(REQUEST["ShadowModeConfig"]["ShadowModelVariants"][0]["SamplingPercentage"]), "!Ref Share"
    )
    text = "\n".join(lines).replace('"ShadowModeConfig": null', f'"ShadowModeConfig": {mode}')
    file = written(tmp_path / "template.yaml", text.replace("DESCRIPTION", "a test"))
    found = Experiment.from_request(file)
    assert (found.sampling_percentage, found.description) == (20, "a test")
    assert simulate(Scenario.of(file, 5.0, {"horizon_s": 60})).verdict.status
    with pytest.raises(SerializationError, match=r"line 6, column \d+: Description: off is a number or true or false"):
        Experiment.from_request(written(tmp_path / "other.yaml", text.replace("DESCRIPTION", "off")))


def plan(values, unknown=None, kind="awscc_sagemaker_inference_experiment", **more):
    resource = {"address": f"{kind}.it", "mode": "managed", "type": kind, "values": values}
    change = {"address": f"{kind}.it", "change": {"after_unknown": unknown or {}}}
    module = {"resources": [{"type": "aws_s3_bucket"}], "child_modules": [{"resources": [resource]}]}
    return {"format_version": "1.2", "planned_values": {"root_module": module}, "resource_changes": [change], **more}


def snake(value):
    if isinstance(value, dict):
        return {
            "".join(f"_{c.lower()}" if c.isupper() else c for c in key).lstrip("_"): snake(item)
            for key, item in value.items()
        }
    return [snake(item) for item in value] if isinstance(value, list) else value


class TestOfTerraform:
    VALUES = snake(REQUEST)
    ADDRESS = "awscc_sagemaker_inference_experiment.it"

    def test_an_experiment(self):
        assert request_source(plan(self.VALUES | {"arn": None, "status": None})).request == REQUEST
        state = {"format_version": "1.0", "values": plan(self.VALUES)["planned_values"]}
        assert request_source(state).request == REQUEST

    def test_what_is_known_after_the_apply_only(self):
        values = {key: value for key, value in self.VALUES.items() if key != "role_arn"}
        unknown = {"role_arn": True, "arn": True, "kms_key": True, "schedule": True, "model_variants": [{}, {}]}
        with pytest.raises(InputError) as caught:
            request_source(plan(values, unknown))
        assert str(caught.value) == (
            f"request.{self.ADDRESS}.RoleArn: refers to role_arn, which is not known before the deployment "
            "(--parameter role_arn=VALUE)"
        )
        source = request_source(plan(values, unknown), parameters={"role_arn": ROLE})
        assert source.request == REQUEST
        assert source.assumed["experiment.KmsKey"] == "experiment.KmsKey: is not known yet, and taken as left out."

    @pytest.mark.parametrize("kind", ["aws_sagemaker_endpoint_configuration", "awscc_sagemaker_endpoint_config"])
    def test_an_endpoint_configuration(self, kind):
        values = snake(CONFIG)
        if kind.startswith("aws_"):  # whose blocks are lists
            shadow = values["shadow_production_variants"][0]
            shadow |= {"routing_config": [shadow["routing_config"]], "serverless_config": []}
        source = request_source(plan(values, {"id": True, "production_variants": [{"model_name": True}]}, kind),
                                parameters={"production_variants.0.model_name": "m1"})  # fmt: skip
        assert source.request == request_source(CONFIG).request
        assert dict(source.routing) == {"s": "LEAST_OUTSTANDING_REQUESTS"}
        with pytest.raises(
            InputError, match=r"ProductionVariants\.0\.ModelName: refers to production_variants\.0\.model"
        ):
            request_source(plan(values, {"production_variants": [{"model_name": True}]}, kind))

    def test_one_without_any(self):
        with pytest.raises(InputError, match="has no resource that is an inference experiment"):
            request_source({"format_version": "1.2", "planned_values": {}})

    def test_other_modules_and_data_sources_are_passed_over(self):
        document = plan(self.VALUES)
        [child] = document["planned_values"]["root_module"]["child_modules"]
        child["resources"].append({**child["resources"][0], "mode": "data", "address": "data.it"})
        assert request_source(document).request == REQUEST
