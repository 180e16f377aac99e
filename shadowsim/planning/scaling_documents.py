"""Writes scaling policies as requests of Application Auto Scaling, or as CloudFormation resources.

A variant's `scaling` becomes a RegisterScalableTarget and a PutScalingPolicy request, or the two CloudFormation
resources of the same content. AWS makes the alarms of target tracking itself: how many data points they take, and how
long a scale-out lasts, can be simulated but not set. `ScalingDocuments.notes` says what the documents leave out.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from shadowsim.errors import InputError
from shadowsim.frames import ROLES
from shadowsim.planning.costs import Prices, PriceSource
from shadowsim.planning.size import size
from shadowsim.planning.size_policies import no_policy_text, with_cheapest_policy
from shadowsim.planning.slo import Slo, parse_slo
from shadowsim.scenario.fields import choice
from shadowsim.scenario.scaling import CONCURRENCY, INVOCATIONS, ScalingPolicy
from shadowsim.scenario.scenario import Scenario, Side

FORMATS = ("json", "cloudformation")
_PREDEFINED = {
    INVOCATIONS: "SageMakerVariantInvocationsPerInstance",
    CONCURRENCY: "SageMakerVariantConcurrentRequestsPerModelHighResolution",
}


@dataclass(frozen=True, slots=True)
class ScalingDocuments:
    """The documents of a scenario's scaling policies; `str()` gives them as JSON text.

    Attributes
    ----------
    documents : dict
        By VariantName, the requests "RegisterScalableTarget" and "PutScalingPolicy", as boto3 takes them; or one
        CloudFormation template with a scalable target and a policy for each variant.
    notes : tuple of str
        What is simulated and cannot be said in the documents.
    policies : tuple of str
        The policies in words, one per variant.
    """

    documents: dict[str, Any]
    notes: tuple[str, ...]
    policies: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<ScalingDocuments of {', '.join(self.documents.get('Resources', self.documents))}>"

    def __str__(self) -> str:
        return json.dumps(self.documents, indent=2, ensure_ascii=False)


def scaling_policy(
    scenario: Scenario | Mapping[str, Any] | str | os.PathLike[str],
    slo: str | Slo | None = None,
    *,
    format: str = "json",
    rate_per_s: float | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    prices: PriceSource | Prices = None,
    progress: bool = False,
) -> ScalingDocuments:
    """Return the scaling policies of a scenario's variants as the documents that AWS takes.

    Parameters
    ----------
    scenario : Scenario, mapping, JSON text or path
        At least one of its variants has `scaling`.
    slo : str or Slo, optional
        Goals: `size` first finds the cheapest policy that meets them, for each variant that has a goal. By default the
        scenario's own policies are returned.
    format : {"json", "cloudformation"}
        The requests of Application Auto Scaling, or a CloudFormation template.
    rate_per_s, workers, executor, prices, progress
        As for `size`.

    Raises
    ------
    InputError, ValidationError
        When the scenario or the goals cannot be used, no variant scales, or no policy meets the goals.

    Examples
    --------
    >>> import shadowsim as ss
    >>> scaling = {"metric": "InvocationsPerInstance", "target": 1500, "min": 2, "max": 10}
    >>> scenario = ss.default_scenario().replace({"shadow.scaling": scaling})
    >>> ss.scaling_policy(scenario).documents["Shadow-01"]["RegisterScalableTarget"]["ResourceId"]
    'endpoint/built-in/variant/Shadow-01'
    """
    goals = None if slo is None else parse_slo(slo)
    scaled = Scenario.of(scenario, rate_per_s=rate_per_s)
    roles = check_request(scaled, goals, format)
    if goals is not None:
        frame = size(
            scaled, goals, variants=roles, workers=workers, executor=executor, prices=prices, progress=progress
        )
        why = no_policy_text(frame)
        if why:
            raise InputError("slo", f"cannot be met: {why.rstrip('.')}", str(goals))
        scaled = with_cheapest_policy(scaled, frame)
    return documents_of(scaled, format)


def check_request(scenario: Scenario, goals: Slo | None, form: str) -> list[str]:
    """Return the roles whose policies are sought: those with goals.

    Raises
    ------
    InputError
        When no variant scales, one with a goal does not, or the form is none of `FORMATS`.
    """
    choice(form, "format", FORMATS)
    if not any(scenario.side(role).service.scaling for role in ROLES):
        paths = " or ".join(f"services.{scenario.side(role).variant.name}.scaling" for role in ROLES)
        raise InputError("scenario", f"must have a variant that scales, by {paths}")
    roles = [] if goals is None else [role for role in ROLES if goals.of(role)]
    for role in roles:
        if scenario.side(role).service.scaling is None:
            raise InputError("slo", f"has a goal for the {role}, which has no scaling to be sought", str(goals))
    return roles


def documents_of(scenario: Scenario, form: str) -> ScalingDocuments:
    """Return the documents of a scenario's own policies in a form of `FORMATS`."""
    sides = [(role, scenario.side(role)) for role in ROLES if scenario.side(role).service.scaling is not None]
    documents: dict[str, Any] = {}
    for role, side in sides:
        target, policy = _requests(scenario, side)
        if form == "json":
            documents[side.variant.name] = {"RegisterScalableTarget": target, "PutScalingPolicy": policy}
        else:
            documents |= _resources(role.capitalize(), target, policy)
    if form == "cloudformation":
        documents = {"AWSTemplateFormatVersion": "2010-09-09", "Resources": documents}
    notes = tuple(note for _, side in sides for note in _notes(side))
    return ScalingDocuments(documents, notes, tuple(_in_words(side) for _, side in sides))


def _requests(scenario: Scenario, side: Side) -> tuple[dict[str, Any], dict[str, Any]]:
    scaling, variant = _scaling(side), side.variant.name
    endpoint = scenario.experiment.endpoint_name
    identity = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/{variant}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    tracking = {
        "TargetValue": scaling.target,
        "PredefinedMetricSpecification": {"PredefinedMetricType": _PREDEFINED[scaling.metric]},
        "ScaleOutCooldown": math.ceil(scaling.out_cooldown_s),
        "ScaleInCooldown": math.ceil(scaling.in_cooldown_s),
    }
    target = identity | {"MinCapacity": scaling.least, "MaxCapacity": scaling.most}
    policy = {"PolicyName": f"{endpoint}-{variant}-{scaling.metric}"} | identity
    return target, policy | {
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": tracking,
    }


def _resources(prefix: str, target: dict[str, Any], policy: dict[str, Any]) -> dict[str, Any]:
    """Return the requests' content as CloudFormation resources; the policy refers to its target."""
    name = f"{prefix}ScalableTarget"
    properties = {key: policy[key] for key in ("PolicyName", "PolicyType", "TargetTrackingScalingPolicyConfiguration")}
    return {
        name: {"Type": "AWS::ApplicationAutoScaling::ScalableTarget", "Properties": target},
        f"{prefix}ScalingPolicy": {
            "Type": "AWS::ApplicationAutoScaling::ScalingPolicy",
            "Properties": {**properties, "ScalingTargetId": {"Ref": name}},
        },
    }


def _in_words(side: Side) -> str:
    scaling = _scaling(side)
    per = " per minute" if scaling.metric == INVOCATIONS else ""
    return (
        f"{side.variant.name} has {scaling.least:,} to {scaling.most:,} instances, so that {scaling.metric} stays at "
        f"{scaling.target:,.6g}{per}"
    )


def _notes(side: Side) -> list[str]:
    """Return what is simulated for a variant and has no place in the documents."""
    scaling, name = _scaling(side), side.variant.name
    point = "10 s" if scaling.metric == CONCURRENCY else "60 s"
    cold_start_s, pool = side.service.cold_start_s or 0.0, side.variant.pool
    notes = [
        f"{name}: simulated with scale-outs after {scaling.out_points} data points of {point} and scale-ins after "
        f"{scaling.in_points} of 60 s; AWS makes these alarms itself, and the documents cannot set them",
        f"{name}: simulated with delay_s {scaling.delay_s:g} and cold_start_s {cold_start_s:g}, which are measured "
        "and not set",
        f"{name}: it begins with {pool.instance_count:,} x {pool.instance_type}, as the endpoint says, not the policy",
    ]
    for key, seconds in (("ScaleOutCooldown", scaling.out_cooldown_s), ("ScaleInCooldown", scaling.in_cooldown_s)):
        if seconds != math.ceil(seconds):
            notes.append(f"{name}: {key} takes whole seconds: {math.ceil(seconds)} in place of {seconds:g}")
    return notes


def _scaling(side: Side) -> ScalingPolicy:
    assert side.service.scaling is not None
    return side.service.scaling
