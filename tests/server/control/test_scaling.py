"""The actions of Application Auto Scaling: answers, pages, and what is refused."""

import json

import pytest
from rehearsed_account import VARIANT, experiment, new_account, production, scaled_account, tracking, variant

from shadowsim.errors import ValidationError

NAMED = "service namespace: sagemaker, resource ID: endpoint/live/variant/AllTraffic"
NAMED += ", scalable dimension: sagemaker:variant:DesiredInstanceCount"


def put(account, name="p", configuration=None, kind="TargetTrackingScaling", **more):
    body = {"TargetTrackingScalingPolicyConfiguration": configuration or tracking(), **more}
    return account.do("PutScalingPolicy", **VARIANT, PolicyName=name, PolicyType=kind, **body)


def test_a_target_is_registered_changed_and_described():
    account = new_account()
    first = account.do("RegisterScalableTarget", **VARIANT, MinCapacity=1, MaxCapacity=4)
    suspended = {"DynamicScalingInSuspended": True}
    again = account.do("RegisterScalableTarget", **VARIANT, MaxCapacity=8, SuspendedState=suspended)
    assert again == first
    (target,) = account.do("DescribeScalableTargets", ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"], target["CreationTime"]) == (1, 8, account.now)
    assert target["ScalableTargetARN"] == first["ScalableTargetARN"]
    assert target["SuspendedState"] == {
        "DynamicScalingInSuspended": True,
        "DynamicScalingOutSuspended": False,
        "ScheduledScalingSuspended": False,
    }
    other = {"ServiceNamespace": "sagemaker", "ResourceIds": ["endpoint/live/variant/Other"]}
    assert account.do("DescribeScalableTargets", **other)["ScalableTargets"] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"MaxCapacity": None}, "Value null at 'maxCapacity'"),
        ({"MinCapacity": 0}, "Value '0' at 'minCapacity' failed to satisfy constraint: Member must be from 1 to"),
        ({"MinCapacity": 5}, "Maximum capacity cannot be less than minimum capacity"),
        ({"ResourceId": "endpoint/live/variant/None"}, "SageMaker endpoint variant does not exist: endpoint/live"),
        ({"ResourceId": "service/a/b"}, "Member must have the form endpoint/NAME/variant/NAME"),
        ({"ServiceNamespace": "ecs"}, "'serviceNamespace' failed to satisfy constraint: Member must be sagemaker"),
        ({"ScalableDimension": "sagemaker:inference-component:DesiredCopyCount"}, "Member must be sagemaker:variant:"),
        ({"ScalableDimension": "x"}, "Member must satisfy enum value set"),
        ({"Tags": {"a": "b"}}, "tags of targets are not supported"),
    ],
)
def test_refused_targets(changes, words):
    body = {**VARIANT, "MinCapacity": 1, "MaxCapacity": 4, **changes}
    body = {name: value for name, value in body.items() if value is not None}
    assert words in str(new_account().refused("RegisterScalableTarget", **body))


def test_a_policy_is_put_described_and_deleted():
    account = scaled_account()
    answer = put(account, configuration=tracking(target=50.0, ScaleInCooldown=60))
    assert answer["PolicyARN"].endswith(":resource/sagemaker/endpoint/live/variant/AllTraffic:policyName/p")
    names = [alarm["AlarmName"] for alarm in answer["Alarms"]]
    assert [name.rpartition("-Alarm")[0] for name in names] == ["TargetTracking-endpoint/live/variant/AllTraffic"] * 2
    (policy,) = account.do("DescribeScalingPolicies", ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"] == tracking(target=50.0, ScaleInCooldown=60)
    assert (policy["PolicyARN"], policy["Alarms"]) == (answer["PolicyARN"], answer["Alarms"])
    assert len(put(account, configuration=tracking(DisableScaleIn=True))["Alarms"]) == 1
    account.do("DeleteScalingPolicy", **VARIANT, PolicyName="p")
    assert account.do("DescribeScalingPolicies", ServiceNamespace="sagemaker")["ScalingPolicies"] == []
    error = account.refused("DeleteScalingPolicy", **VARIANT, PolicyName="p")
    assert (error.code, str(error)) == (
        "ObjectNotFoundException",
        f"No scaling policy found for {NAMED}, policy name: p",
    )


def customized(**changes):
    dimensions = [{"Name": "EndpointName", "Value": "live"}, {"Name": "VariantName", "Value": "AllTraffic"}]
    metric = {"MetricName": "InvocationsPerInstance", "Namespace": "AWS/SageMaker", "Statistic": "Sum"}
    return {"TargetValue": 10.0, "CustomizedMetricSpecification": {**metric, "Dimensions": dimensions, **changes}}


def test_the_metric_of_the_simulation_can_be_customized():
    account = scaled_account()
    put(account, "c", customized())
    policy = account.store.world.policies["endpoint/live/variant/AllTraffic c"]
    target = account.store.world.targets["endpoint/live/variant/AllTraffic"]
    assert policy.rules(target, 3, 15).metric == "InvocationsPerInstance"


@pytest.mark.parametrize(
    ("kind", "configuration", "words"),
    [
        ("StepScaling", None, "'policyType' failed to satisfy constraint: Member must be TargetTrackingScaling"),
        ("PredictiveScaling", None, "Member must be TargetTrackingScaling"),
        ("Other", None, "Member must satisfy enum value set"),
        ("TargetTrackingScaling", {"TargetValue": 5.0}, "Member must have one of predefinedMetricSpecification and"),
        ("TargetTrackingScaling", tracking(target=0.0), "Member must be from 1e-06 to 2^360"),
        ("TargetTrackingScaling", tracking("ECSServiceAverageCPUUtilization"), "Member must be one that is supported"),
        ("TargetTrackingScaling", tracking(ScaleInCooldown=-1), "Member must have value greater than or equal to 0"),
        ("TargetTrackingScaling", customized(Statistic="Average"), "the simulation scales by no other"),
        ("TargetTrackingScaling", customized(MetricName="CPUUtilization"), "the simulation scales by no other"),
        ("TargetTrackingScaling", customized(Dimensions=[]), "the simulation scales by no other"),
    ],
)
def test_refused_policies(kind, configuration, words):
    body = {"PolicyName": "q", "PolicyType": kind}
    if configuration:
        body["TargetTrackingScalingPolicyConfiguration"] = configuration
    assert words in str(scaled_account().refused("PutScalingPolicy", **VARIANT, **body))


def test_nothing_is_put_or_deregistered_without_a_target():
    account = new_account()
    for action, more in (("PutScalingPolicy", {"PolicyName": "p"}), ("DeregisterScalableTarget", {})):
        error = account.refused(action, **VARIANT, **more)
        assert (error.code, str(error)) == (
            "ObjectNotFoundException",
            f"No scalable target registered for {NAMED}",
        )


def test_a_target_takes_its_policies_with_it():
    account = scaled_account()
    account.do("DeregisterScalableTarget", **VARIANT)
    assert account.do("DescribeScalingPolicies", ServiceNamespace="sagemaker")["ScalingPolicies"] == []


def test_a_target_goes_with_its_endpoint():
    account = scaled_account()
    account.do("DeleteEndpoint", EndpointName="live")
    account.wait(2)
    assert account.do("DescribeScalableTargets", ServiceNamespace="sagemaker")["ScalableTargets"] == []


def test_lists_come_in_pages():
    account = scaled_account()
    for i in range(4):
        put(account, f"p{i}")
    body = {"ServiceNamespace": "sagemaker", "MaxResults": 2}
    names, token = [], {}
    for _ in range(3):
        page = account.do("DescribeScalingPolicies", **body, **token)
        names += [policy["PolicyName"] for policy in page["ScalingPolicies"]]
        token = {"NextToken": page["NextToken"]} if "NextToken" in page else {}
    assert sorted(names) == ["p", "p0", "p1", "p2", "p3"]
    assert token == {}
    assert account.refused("DescribeScalingPolicies", **body, NextToken="x").code == "InvalidNextTokenException"
    assert "from 1 to 50" in str(account.refused("DescribeScalableTargets", **{**body, "MaxResults": 51}))


def test_a_variant_in_a_container_is_registered_and_told_that_nothing_is_scaled():
    account = new_account(endpoint=False)
    account.store.accept("Configure", {"transition_s": 1.0, "probed": ["old"], "choices": {}}, account.now)
    account.do("CreateEndpointConfig", EndpointConfigName="first", ProductionVariants=[production()])
    account.do("CreateEndpoint", EndpointName="live", EndpointConfigName="first")
    for _ in range(2):
        account.do("RegisterScalableTarget", **VARIANT, MinCapacity=1, MaxCapacity=4)
    (activity,) = account.do("DescribeScalingActivities", ServiceNamespace="sagemaker")["ScalingActivities"]
    assert activity["StatusCode"] == "Unfulfilled"
    assert activity["StatusMessage"].startswith("Nothing is scaled: model old is served by a container")


def test_a_scaled_variant_keeps_its_instance_type():
    account = scaled_account()
    other = production() | {"InstanceType": "ml.m5.2xlarge"}
    account.do("CreateEndpointConfig", EndpointConfigName="second", ProductionVariants=[other])
    account.do("CreateEndpointConfig", EndpointConfigName="third", ProductionVariants=[production(model="new")])
    error = account.refused("UpdateEndpoint", EndpointName="live", EndpointConfigName="second")
    assert isinstance(error, ValueError)
    assert str(error) == (
        'The variant(s) "[AllTraffic]" must be deregistered as scalable targets with AWS Auto Scaling before they can '
        "be removed or have their instance type updated."
    )
    account.do("UpdateEndpoint", EndpointName="live", EndpointConfigName="third")  # another model is allowed


def test_an_experiment_that_would_change_the_type_of_a_scaled_variant_is_cancelled():
    account = scaled_account()
    variants = [variant("AllTraffic", "old", 2, "ml.m5.2xlarge"), variant("Shadow-01", "new")]
    account.do("CreateInferenceExperiment", **experiment(ModelVariants=variants))
    account.wait(10)
    described = account.do("DescribeInferenceExperiment", Name="bert")
    assert described["Status"] == "Cancelled"
    assert "must be deregistered as scalable targets" in described["StatusReason"]


@pytest.mark.parametrize("members", [[{}] * 200_000, [{"Name": "a", "Value": "b"}] * 60])
def test_long_lists_are_refused_in_a_bounded_time(members):
    body = {"PolicyName": "p", "PolicyType": "TargetTrackingScaling"}
    configuration = customized(Dimensions=members)
    with pytest.raises(ValidationError) as caught:
        new_account().do("PutScalingPolicy", **VARIANT, **body, TargetTrackingScalingPolicyConfiguration=configuration)
    assert "less than or equal to 50" in str(caught.value)
    assert len(json.dumps(str(caught.value))) < 20_000
