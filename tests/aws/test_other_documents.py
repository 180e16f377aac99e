"""Checks that documents resembling a request get one sentence that tells what to pass."""

import copy
import json

import pytest
from botocore.utils import ArgumentGenerator
from commands import refused, run
from rehearsed_account import MODEL, experiment

from shadowsim import Experiment, InputError, Scenario
from shadowsim.aws.other_documents import refuse_other_document

RESOURCE = {"Type": "AWS::SageMaker::InferenceExperiment", "Properties": experiment()}
SHAPE = MODEL.operation_model("CreateInferenceExperiment").input_shape
SKELETON = json.loads(json.dumps(ArgumentGenerator().generate_skeleton(SHAPE), default=str))
MEMBERS = "Name, Type, RoleArn, EndpointName, ModelVariants, ShadowModeConfig"


def recased(value, case):
    """Return a document with the names of its members in another case."""
    if isinstance(value, dict):
        return {case(name): recased(member, case) for name, member in value.items()}
    return [recased(item, case) for item in value] if isinstance(value, list) else value


def lower_camel(name):
    return name[0].lower() + name[1:]


def snake(name):
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


OTHER_DOCUMENTS = {
    "other resource": (
        {"Type": "AWS::SageMaker::Endpoint", "Properties": {}},
        "has no resource that is an inference experiment or an endpoint configuration with ShadowProductionVariants",
    ),
    "empty template": (
        {"AWSTemplateFormatVersion": "2010-09-09"},
        "has no resource that is an inference experiment or an endpoint configuration with ShadowProductionVariants",
    ),
    "endpoint": (
        {"EndpointName": "e", "ProductionVariants": [{"VariantName": "p", "CurrentWeight": 1}]},
        "is an endpoint or a configuration of one, without ShadowProductionVariants; pass a configuration that has "
        "them (describe-endpoint-config), or a CreateInferenceExperiment request",
    ),
    "skeleton": (SKELETON, "is an empty skeleton of the AWS CLI (--generate-cli-skeleton); fill in its fields"),
    "CDK": (
        recased(experiment(), lower_camel),
        f"has members in lower camel case, as for CDK; write all of them as AWS does: {MEMBERS}",
    ),
    "Terraform": (
        recased(experiment(), snake),
        f"has members in snake case, as for Terraform; write all of them as AWS does: {MEMBERS}",
    ),
    "capitals": (
        recased(experiment(), str.upper),
        f"has members in another case; write all of them as AWS does: {MEMBERS}",
    ),
}


@pytest.mark.parametrize("name", OTHER_DOCUMENTS)
def test_one_line_tells_what_it_is_and_what_to_pass(name, tmp_path):
    document, constraint = OTHER_DOCUMENTS[name]
    line = f"request: {constraint}"
    for read in (Experiment.from_request, Scenario.of):
        with pytest.raises(InputError) as caught:
            read(copy.deepcopy(document))
        assert str(caught.value) == line
    file = tmp_path / "document.json"
    file.write_text(json.dumps(document))
    assert refused("validate", file) == line
    assert refused("simulate", file, "--rate", 10) == line
    assert refused("init", file) == line
    done = run("validate", file, "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (2, {"valid": False, "violations": [line]})


@pytest.mark.parametrize(
    "document",
    [
        experiment(),
        RESOURCE["Properties"],
        experiment(Name=""),
        {},
        {"name": "x"},
        {"experiment": {}, "traffic": {}},
        {"Type": "ShadowMode"},
        {"Resources": {}},
        {"Type": ["AWS::"]},
        {1: 2},
        [],
        None,
    ],
    ids=str,
)
def test_requests_and_what_is_not_recognised_pass(document):
    refuse_other_document(document)


def test_the_case_of_members_inside_is_left_to_the_violations():
    request = experiment()
    request["ModelVariants"] = recased(request["ModelVariants"], lower_camel)
    with pytest.raises(ValueError, match="did you mean ModelName"):
        Experiment.from_request(request)
