"""References in templates are resolved as far as they are known before a deployment."""

import pytest

from shadowsim import InputError
from shadowsim.aws.cloudformation import Template, Unresolved, resources_of

PARAMETERS = {
    "Env": {"Type": "String", "Default": "prod"},
    "Types": {"Type": "CommaDelimitedList", "Default": "a, b"},
    "Needed": {"Type": "String"},
}
MAPPINGS = {"Sizes": {"prod": {"Count": 3}, "test": {"Count": 1}}}
CONDITIONS = {
    "IsProd": {"Fn::Equals": [{"Ref": "Env"}, "prod"]},
    "IsTest": {"Fn::Not": [{"Condition": "IsProd"}]},
    "Either": {"Fn::Or": [{"Condition": "IsProd"}, {"Condition": "IsTest"}]},
    "Both": {"Fn::And": [{"Condition": "IsProd"}, {"Condition": "IsTest"}]},
    "Unknown": {"Fn::Equals": [{"Ref": "Needed"}, "x"]},
    "Round": {"Condition": "Round"},
}
MODEL = {"Type": "AWS::SageMaker::Model", "Properties": {"ModelName": {"Fn::Sub": "ranker-${Env}"}}}


def resolved(value, **given):
    document = {"Parameters": PARAMETERS, "Mappings": MAPPINGS, "Conditions": CONDITIONS}
    resources = {"Model": MODEL, "It": {"Type": "AWS::X", "Properties": {"value": value}}}
    return Template(document, resources, given).properties("It").get("value", "nothing")


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("plain", "plain"),
        ({"Ref": "Env"}, "prod"),
        ({"Ref": "Types"}, ["a", "b"]),
        ({"Ref": "AWS::NoValue"}, "nothing"),
        ([1, {"Ref": "AWS::NoValue"}], [1]),
        ({"Fn::GetAtt": ["Model", "ModelName"]}, "ranker-prod"),
        ({"Fn::GetAtt": "Model.ModelName"}, "ranker-prod"),
        ({"Fn::Sub": "${Env}-${Model.ModelName}-${!Literal}"}, "prod-ranker-prod-${Literal}"),
        ({"Fn::Sub": ["${a}", {"a": {"Ref": "Env"}}]}, "prod"),
        ({"Fn::Join": ["/", ["s3:/", {"Ref": "Env"}]]}, "s3://prod"),
        ({"Fn::Select": ["1", {"Ref": "Types"}]}, "b"),
        ({"Fn::Select": [0, {"Fn::Split": [",", "x,y"]}]}, "x"),
        ({"Fn::FindInMap": ["Sizes", {"Ref": "Env"}, "Count"]}, 3),
        ({"Fn::If": ["IsProd", {"Ref": "Env"}, 2]}, "prod"),
        ({"Fn::If": ["IsTest", 1, 2]}, 2),
        ({"Fn::If": ["Either", 1, 2]}, 1),
        ({"Fn::If": ["Both", 1, 2]}, 2),
        ({"a": 1, "Ref": "Env"}, {"a": 1, "Ref": "Env"}),
    ],
)
def test_a_value(value, result):
    assert resolved(value) == result


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"Ref": "Needed"}, "Needed"),
        ({"Ref": "AWS::Region"}, "AWS::Region"),
        ({"Ref": "Model"}, "Model"),
        ({"Fn::GetAtt": ["Role", "Arn"]}, "Role.Arn"),
        ({"Fn::Sub": "arn:aws:iam::${AWS::AccountId}:role/x"}, "AWS::AccountId"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Needed"}]]}, "Needed"),
        ({"Fn::If": ["Unknown", 1, 2]}, "Needed"),
        ({"Fn::FindInMap": ["Sizes", {"Ref": "Needed"}, "Count"]}, "Needed"),
    ],
)
def test_what_is_not_known_is_unresolved_unless_it_is_given(value, name):
    assert resolved(value) == Unresolved(name)
    assert resolved(value, **{name: "prod"}) != Unresolved(name)


@pytest.mark.parametrize(
    "value",
    [
        {"Fn::ImportValue": "network"},
        {"Fn::Select": [9, ["a"]]},
        {"Fn::FindInMap": ["Sizes", "dev", "Count"]},
        {"Fn::If": ["Missing", 1, 2]},
        {"Fn::If": ["Round", 1, 2]},
        {"Fn::Sub": 5},
        {"Fn::GetAtt": 5},
        {"Fn::Transform": {}},
    ],
)
def test_what_has_no_value_is_unresolved(value):
    assert isinstance(resolved(value), Unresolved)


def test_references_that_go_round_are_refused():
    one = {"Type": "AWS::X", "Properties": {"Name": {"Fn::GetAtt": ["It", "Name"]}}}
    with pytest.raises(InputError, match="references that go round"):
        Template({}, {"It": one}, {}).properties("It")


def test_the_resources_of_a_document():
    assert resources_of(MODEL) == {"": MODEL}
    assert resources_of({"Resources": {"M": MODEL, "Fn::Transform": {}}}) == {"M": MODEL}
    assert resources_of({"M": MODEL}) == {"M": MODEL}
    assert resources_of({"AWSTemplateFormatVersion": "2010-09-09", "Resources": {}}) == {}
    assert resources_of({"Name": "x"}) is None
