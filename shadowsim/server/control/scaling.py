"""Registers scalable targets and policies, and answers the other actions of Application Auto Scaling.

Policies are those that the simulation has: target tracking on InvocationsPerInstance or ConcurrentRequestsPerModel. The
other types, metrics and dimensions of AWS are refused by name, as is a MinCapacity of 0, since a variant has at least
one instance here. A variant that is served by a container is registered all the same, and an activity says that nothing
is scaled. The alarms that a policy names are evaluated, but are not among CloudWatch's: there is no DescribeAlarms.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import uuid4

from shadowsim.aws.contract import sentence
from shadowsim.errors import RefusedError, ShadowsimError, ValidationError
from shadowsim.scenario.scaling import LEAST_TARGET, MAX_INSTANCES
from shadowsim.server.control.pagination import page
from shadowsim.server.state.account import World
from shadowsim.server.state.fleet import Body, VariantView
from shadowsim.server.state.scaling import (
    DIMENSION,
    NAMESPACE,
    UNFULFILLED,
    ScalableTarget,
    ScalingActivity,
    TrackingPolicy,
    policy_key,
)
from shadowsim.server.state.store import Store
from shadowsim.server.state.target_tracking import OUT

_PER_PAGE = 50
_MOST_POLICIES, _MOST_TARGETS = 50, 1500  # AWS's quotas: policies a target, and targets of SageMaker's variants
_RESOURCE = re.compile(r"endpoint/([a-zA-Z0-9-]{1,63})/variant/([a-zA-Z0-9-]{1,63})")
_METRICS = ("SageMakerVariantInvocationsPerInstance", "SageMakerVariantConcurrentRequestsPerModelHighResolution")
_CUSTOMIZED = "InvocationsPerInstance"


class ObjectNotFoundError(ShadowsimError, LookupError):
    """A scalable target or policy that does not exist."""

    code = "ObjectNotFoundException"
    http_status = 400


class LimitExceededError(ShadowsimError):
    """More scalable targets or policies than there may be."""

    code = "LimitExceededException"
    http_status = 400


class InvalidNextTokenError(ShadowsimError, ValueError):
    """A token that was not given for the same question."""

    code = "InvalidNextTokenException"
    http_status = 400


def register_scalable_target(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer RegisterScalableTarget."""
    _check_kind(body)
    _find_variant(world, body["ResourceId"])
    old = world.targets.get(body["ResourceId"])
    least = body.get("MinCapacity", old.least if old else None)
    most = body.get("MaxCapacity", old.most if old else None)
    broken = []
    for name, value in (("minCapacity", least), ("maxCapacity", most)):
        if value is None:
            broken.append(sentence(None, name, "Member must not be null for a new scalable target"))
        elif not 1 <= value <= MAX_INSTANCES:
            broken.append(sentence(value, name, f"Member must be from 1 to {MAX_INSTANCES}"))
    if "Tags" in body:
        broken.append(sentence(body["Tags"], "tags", "Member must be null: tags of targets are not supported"))
    if broken:
        raise ValidationError(broken)
    if most < least:
        raise RefusedError("Maximum capacity cannot be less than minimum capacity")
    if old is None and len(world.targets) >= _MOST_TARGETS:
        raise LimitExceededError(f"There may be at most {_MOST_TARGETS} scalable targets.")
    return {} if old is None else {"ScalableTargetARN": _target_arn(world, old)}


def registered(store: Store, world: World, body: Body, answer: dict[str, Any]) -> dict[str, Any]:
    """Complete the answer to RegisterScalableTarget once the target exists, and say if nothing is scaled."""
    target = world.targets[body["ResourceId"]]
    view = _find_variant(world, target.name)
    if is_real(world, view) and not world.activities_of(target.name):
        text = (
            f"Nothing is scaled: model {view.model_name} is served by a container of its own, and only simulated "
            "instances can be added or removed."
        )
        activity = {
            **{"name": str(uuid4()), "resource": target.name, "cause": "RegisterScalableTarget", "message": text},
            **{"status": UNFULFILLED, "direction": OUT, "wanted": view.desired_count},
            **{"desired_before": view.desired_count, "delay_s": 0.0, "ended_s": 0.0},
        }
        store.accept("Scale", activity, world.now_s)
    return {**answer, "ScalableTargetARN": _target_arn(world, target)}


def deregister_scalable_target(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DeregisterScalableTarget."""
    _find_target(world, body)
    return {}


def describe_scalable_targets(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DescribeScalableTargets."""
    _check_kind(body)
    wanted = body.get("ResourceIds", ())
    targets = [target for target in world.targets.values() if not wanted or target.name in wanted]
    return _page("DescribeScalableTargets", "ScalableTargets", body, targets, store, lambda t: _target(world, t))


def put_scaling_policy(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer PutScalingPolicy."""
    target = _find_target(world, body)
    old = world.policies.get(policy_key(target.name, body["PolicyName"]))
    broken = list(_policy_rules({**(old.request if old else {}), **body}, target))
    if broken:
        raise ValidationError(broken)
    if old is None and len(world.policies_of(target.name)) >= _MOST_POLICIES:
        raise LimitExceededError(f"A scalable target may have at most {_MOST_POLICIES} scaling policies.")
    return {}


def policy_put(store: Store, world: World, body: Body, answer: dict[str, Any]) -> dict[str, Any]:
    """Complete the answer to PutScalingPolicy once the policy exists."""
    policy = world.policies[policy_key(body["ResourceId"], body["PolicyName"])]
    return {"PolicyARN": _policy_arn(world, policy), "Alarms": _alarms(world, policy)}


def describe_scaling_policies(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DescribeScalingPolicies."""
    _check_kind(body)
    names, resource = body.get("PolicyNames", ()), body.get("ResourceId")
    policies = [
        _Listed(policy_key(policy.resource, policy.name), policy.created_s, policy)
        for policy in world.policies.values()
        if resource in (None, policy.resource) and (not names or policy.name in names)
    ]
    summary = lambda listed: _policy(world, listed.policy)  # noqa: E731
    return _page("DescribeScalingPolicies", "ScalingPolicies", body, policies, store, summary)


def delete_scaling_policy(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DeleteScalingPolicy."""
    _check_kind(body)
    if policy_key(body["ResourceId"], body["PolicyName"]) not in world.policies:
        text = f"{_named(body)}, policy name: {body['PolicyName']}"
        raise ObjectNotFoundError(f"No scaling policy found for {text}")
    return {}


def describe_scaling_activities(store: Store, world: World, body: Body) -> dict[str, Any]:
    """Answer DescribeScalingActivities; the newest come first."""
    _check_kind(body)
    resource = body.get("ResourceId")
    if body.get("ScalableDimension") is not None and resource is None:
        constraint = "Member must not be null if there is a scalable dimension"
        raise ValidationError([sentence(None, "resourceId", constraint)])
    activities = [activity for activity in world.activities.values() if resource in (None, activity.resource)]
    return _page("DescribeScalingActivities", "ScalingActivities", body, activities, store, _activity)


def is_real(world: World, view: VariantView) -> bool:
    """Return whether a variant is served by containers, whose number does not change."""
    return not world.probed.isdisjoint({view.model_name, "*"})


class _Listed:
    """A policy in a list, whose name is unique within a target only."""

    def __init__(self, name: str, created_s: float, policy: TrackingPolicy):
        self.name, self.created_s, self.policy = name, created_s, policy


def _page(
    action: str, member: str, body: Body, records: Iterable[Any], store: Store, summary: Callable[[Any], Body]
) -> dict[str, Any]:
    size = body.get("MaxResults", _PER_PAGE)
    if not 1 <= size <= _PER_PAGE:
        raise ValidationError([sentence(size, "maxResults", f"Member must be from 1 to {_PER_PAGE}")])
    try:
        answer = page(action, body, records, store.key, summary, per_page=_PER_PAGE)
    except ValidationError as error:
        raise InvalidNextTokenError(str(error)) from None
    return {member: answer.pop("Items"), **answer}


def _check_kind(body: Body) -> None:
    """Refuse other services and dimensions than variants of SageMaker's endpoints."""
    broken = []
    for member, only in (("ServiceNamespace", NAMESPACE), ("ScalableDimension", DIMENSION)):
        given = body.get(member)
        if given not in (None, only):
            constraint = f"Member must be {only}, the only one that is supported"
            broken.append(sentence(given, f"{member[0].lower()}{member[1:]}", constraint))
    if broken:
        raise ValidationError(broken)


def _find_variant(world: World, resource: str) -> VariantView:
    match = _RESOURCE.fullmatch(resource)
    if match is None:
        constraint = "Member must have the form endpoint/NAME/variant/NAME"
        raise ValidationError([sentence(resource, "resourceId", constraint)])
    endpoint = world.endpoints.get(match[1])
    fleet = (endpoint.fleet or endpoint.intended) if endpoint else None
    for view in fleet.variants if fleet else ():
        if view.name == match[2]:
            return view
    raise RefusedError(f"SageMaker endpoint variant does not exist: {resource}")


def _find_target(world: World, body: Body) -> ScalableTarget:
    _check_kind(body)
    target = world.targets.get(body["ResourceId"])
    if target is None:
        raise ObjectNotFoundError(f"No scalable target registered for {_named(body)}")
    return target


def _named(body: Body) -> str:
    resource, dimension = body["ResourceId"], body["ScalableDimension"]
    return f"service namespace: {NAMESPACE}, resource ID: {resource}, scalable dimension: {dimension}"


def _policy_rules(request: Body, target: ScalableTarget) -> Iterable[str]:
    kind = request.get("PolicyType")
    if kind != "TargetTrackingScaling":
        constraint = "Member must be TargetTrackingScaling, the only one that the simulation has"
        yield sentence(kind, "policyType", constraint if kind else "Member must not be null for a new policy")
        return
    path = "targetTrackingScalingPolicyConfiguration"
    configuration = request.get("TargetTrackingScalingPolicyConfiguration")
    if configuration is None:
        yield sentence(None, path, "Member must not be null for target tracking")
        return
    value = configuration["TargetValue"]
    if not (math.isfinite(value) and LEAST_TARGET <= value <= 2.0**360):
        yield sentence(value, f"{path}.targetValue", f"Member must be from {LEAST_TARGET:g} to 2^360")
    predefined = configuration.get("PredefinedMetricSpecification")
    customized = configuration.get("CustomizedMetricSpecification")
    if (predefined is None) == (customized is None):
        what = "Member must have one of predefinedMetricSpecification and customizedMetricSpecification"
        yield sentence(None if predefined is None else configuration, path, what)
    elif predefined is not None:
        inner = f"{path}.predefinedMetricSpecification"
        metric = predefined["PredefinedMetricType"]
        if metric not in _METRICS:
            listed = ", ".join(_METRICS)
            yield sentence(metric, f"{inner}.predefinedMetricType", f"Member must be one that is supported: [{listed}]")
        if "ResourceLabel" in predefined:
            constraint = "Member must be null for metrics of SageMaker"
            yield sentence(predefined["ResourceLabel"], f"{inner}.resourceLabel", constraint)
    else:
        expected = {
            "MetricName": _CUSTOMIZED,
            "Namespace": "AWS/SageMaker",
            "Statistic": "Sum",
            "Dimensions": {"EndpointName": target.endpoint, "VariantName": target.variant},
        }
        assert customized is not None
        given = {name: customized.get(name) for name in expected}
        given["Dimensions"] = {d["Name"]: d["Value"] for d in customized.get("Dimensions", ())}
        if given != expected or "Metrics" in customized:
            constraint = (
                f"Member must be the metric {_CUSTOMIZED} of AWS/SageMaker with the Statistic Sum and the target's own "
                "EndpointName and VariantName: the simulation scales by no other"
            )
            yield sentence(customized, f"{path}.customizedMetricSpecification", constraint)


def _target_arn(world: World, target: ScalableTarget) -> str:
    return f"arn:aws:application-autoscaling:{world.region}:{world.account}:scalable-target/{target.identity}"


def _policy_arn(world: World, policy: TrackingPolicy) -> str:
    owner = f"arn:aws:autoscaling:{world.region}:{world.account}:scalingPolicy:{policy.identity}"
    return f"{owner}:resource/{NAMESPACE}/{policy.resource}:policyName/{policy.name}"


def _alarms(world: World, policy: TrackingPolicy) -> list[dict[str, str]]:
    prefix = f"arn:aws:cloudwatch:{world.region}:{world.account}:alarm"
    names = [policy.alarm(True), *([policy.alarm(False)] if policy.scales_in else [])]
    return [{"AlarmName": name, "AlarmARN": f"{prefix}:{name}"} for name in names]


def _kind(resource: str) -> dict[str, str]:
    return {"ServiceNamespace": NAMESPACE, "ResourceId": resource, "ScalableDimension": DIMENSION}


def _target(world: World, target: ScalableTarget) -> dict[str, Any]:
    role = f"arn:aws:iam::{world.account}:role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com"
    names = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")
    return {
        **_kind(target.name),
        "MinCapacity": target.least,
        "MaxCapacity": target.most,
        "RoleARN": target.role or f"{role}/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint",
        "CreationTime": target.created_s,
        "SuspendedState": {name: bool(target.suspended.get(name)) for name in names},
        "ScalableTargetARN": _target_arn(world, target),
    }


def _policy(world: World, policy: TrackingPolicy) -> dict[str, Any]:
    return {
        **_kind(policy.resource),
        "PolicyARN": _policy_arn(world, policy),
        "PolicyName": policy.name,
        "PolicyType": policy.request["PolicyType"],
        "TargetTrackingScalingPolicyConfiguration": policy.configuration,
        "Alarms": _alarms(world, policy),
        "CreationTime": policy.created_s,
    }


def _activity(activity: ScalingActivity) -> Mapping[str, Any]:
    answer: dict[str, Any] = {
        **_kind(activity.resource),
        "ActivityId": activity.name,
        "Description": f"Setting desired instance count to {activity.wanted}.",
        "Cause": activity.cause,
        "StartTime": activity.created_s,
        "StatusCode": activity.status,
    }
    if activity.ended_s is not None:
        answer |= {"EndTime": activity.ended_s, "StatusMessage": activity.message}
    return answer
