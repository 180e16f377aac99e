"""Scaling policies as AWS takes them: validated by botocore's own models, and found by goals."""

import json

import pytest
from botocore.session import Session
from botocore.validate import ParamValidator
from cases import scenario, service

import shadowsim
from shadowsim import InputError

SCALING = {"metric": "InvocationsPerInstance", "target": 1500.0, "min": 2, "max": 10}
MODEL = Session().get_service_model("application-autoscaling")


def scaled(source=None, shadow=SCALING, **keys):
    changes = {"source.instance_count": 2, "shadow.instance_count": 2}
    for name, block in {"Source": source, "Shadow": shadow}.items():
        changes[f"services.{name}"] = service("exponential", 0.01) | ({"scaling": block} | keys if block else {})
    return scenario({"process": "poisson", "rate_per_s": 10.0}).replace(changes)


def check(action, request):
    report = ParamValidator().validate(request, MODEL.operation_model(action).input_shape)
    assert not report.has_errors(), report.generate_report()


@pytest.mark.parametrize("metric", ["InvocationsPerInstance", "ConcurrentRequestsPerModel"])
def test_botocore_accepts_the_requests(metric):
    both = shadowsim.scaling_policy(scaled(SCALING, SCALING | {"metric": metric, "scale_in_cooldown_s": 600}))
    assert list(both.documents) == ["Source", "Shadow"]
    for requests in both.documents.values():
        for action, request in requests.items():
            check(action, request)
    policy = both.documents["Shadow"]["PutScalingPolicy"]
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    predefined = tracking["PredefinedMetricSpecification"]["PredefinedMetricType"]
    assert predefined in MODEL.shape_for("MetricType").enum
    assert ("Concurrent" in predefined) == ("Concurrent" in metric)
    assert policy["PolicyType"] in MODEL.shape_for("PolicyType").enum
    assert policy["ServiceNamespace"] in MODEL.shape_for("ServiceNamespace").enum
    assert policy["ScalableDimension"] in MODEL.shape_for("ScalableDimension").enum
    assert (tracking["TargetValue"], tracking["ScaleOutCooldown"], tracking["ScaleInCooldown"]) == (1500.0, 300, 600)


def test_policies_are_said_in_words():
    concurrency = SCALING | {"metric": "ConcurrentRequestsPerModel", "target": 5.5}
    assert shadowsim.scaling_policy(scaled(SCALING, concurrency)).policies == (
        "Source has 2 to 10 instances, so that InvocationsPerInstance stays at 1,500 per minute",
        "Shadow has 2 to 10 instances, so that ConcurrentRequestsPerModel stays at 5.5",
    )


def test_the_target_is_the_endpoints_variant():
    s = scaled()
    target = shadowsim.scaling_policy(s).documents["Shadow"]["RegisterScalableTarget"]
    assert target == {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{s.experiment.endpoint_name}/variant/Shadow",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        "MinCapacity": 2,
        "MaxCapacity": 10,
    }


def test_cloudformation_has_the_same_content():
    s = scaled(SCALING)
    requests = shadowsim.scaling_policy(s).documents["Source"]
    template = shadowsim.scaling_policy(s, format="cloudformation")
    resources = json.loads(str(template))["Resources"]
    assert [r["Type"].split("::")[-1] for r in resources.values()] == ["ScalableTarget", "ScalingPolicy"] * 2
    assert resources["SourceScalableTarget"]["Properties"] == requests["RegisterScalableTarget"]
    policy = resources["SourceScalingPolicy"]["Properties"]
    assert policy.pop("ScalingTargetId") == {"Ref": "SourceScalableTarget"}
    assert policy.items() <= requests["PutScalingPolicy"].items()


def test_what_the_documents_cannot_say_is_said():
    odd = {"out_points": 5, "delay_s": 90, "scale_out_cooldown_s": 90.5}
    policy = shadowsim.scaling_policy(scaled(None, SCALING | odd, cold_start_s=240))
    tracking = policy.documents["Shadow"]["PutScalingPolicy"]["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["ScaleOutCooldown"] == 91
    notes = "\n".join(policy.notes)
    for said in ("5 data points of 60 s", "15 of 60 s", "delay_s 90 and cold_start_s 240", "2 x ml.m5.xlarge"):
        assert said in notes
    assert "ScaleOutCooldown takes whole seconds: 91 in place of 90.5" in notes


def test_what_cannot_be_printed():
    with pytest.raises(InputError, match=r"scenario: must have a variant that scales, by services\.Source\.scaling"):
        shadowsim.scaling_policy(scaled(None, None))
    with pytest.raises(InputError, match="format: must be one of json, cloudformation, got 'yaml'"):
        shadowsim.scaling_policy(scaled(), format="yaml")
    with pytest.raises(InputError, match="slo: has a goal for the source, which has no scaling to be sought"):
        shadowsim.scaling_policy(scaled(), "source.p99 <= 1s")


def test_a_policy_that_is_sought_may_not_exist():
    """At a steady rate a policy cannot cost less than the instances that are needed."""
    steady = scaled(None, SCALING | {"min": 1}).replace({"horizon_s": 3600})
    with pytest.raises(InputError, match=r"slo: cannot be met: No scaling policy .* less than 1 inst"):
        shadowsim.scaling_policy(steady, "p99 <= 100ms")
