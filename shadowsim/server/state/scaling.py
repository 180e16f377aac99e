"""Defines scalable targets, policies and activities, and the effect of an activity on the account.

A target is a variant of an endpoint. An activity is a change of its number of instances that was decided: after its
delay the number of instances wanted changes, and after their cold starts new instances serve. Both are transitions of
the account, so they come to pass at the same moments after every restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shadowsim.scenario.scaling import CONCURRENCY, COOLDOWN_S, INVOCATIONS, ScalingPolicy
from shadowsim.server.state.target_tracking import OUT, Capacity, Decision

NAMESPACE, DIMENSION = "sagemaker", "sagemaker:variant:DesiredInstanceCount"
PENDING, IN_PROGRESS, SUCCESSFUL, FAILED, OVERRIDDEN = "Pending", "InProgress", "Successful", "Failed", "Overridden"
UNFULFILLED = "Unfulfilled"
KEPT_S = 42 * 86_400.0  # AWS's six weeks
MOST_KEPT = 500  # activities of a target


def resource_id(endpoint: str, variant: str) -> str:
    """Return the resource id of a variant."""
    return f"endpoint/{endpoint}/variant/{variant}"


def policy_key(resource: str, name: str) -> str:
    """Return the key of a policy among the account's."""
    return f"{resource} {name}"


@dataclass(frozen=True, slots=True)
class ScalableTarget:
    """A variant whose number of instances scales.

    Attributes
    ----------
    name : str
        Its resource id.
    endpoint, variant : str
    least, most : int
    created_s : float
    identity : str
        Of its ARN.
    role : str or None
        RoleARN, which is recorded only.
    suspended : mapping of str to bool
        SuspendedState.
    out_until_s, in_until_s : float
        Ends of the cooldowns.
    """

    name: str
    endpoint: str
    variant: str
    least: int
    most: int
    created_s: float
    identity: str
    role: str | None = None
    suspended: Mapping[str, bool] = field(default_factory=dict)
    out_until_s: float = 0.0
    in_until_s: float = 0.0

    def is_suspended(self, direction: str) -> bool:
        """Return whether scaling by policies is suspended in a direction."""
        return bool(self.suspended.get(f"DynamicScaling{'Out' if direction == OUT else 'In'}Suspended"))


@dataclass(frozen=True, slots=True)
class TrackingPolicy:
    """A target tracking policy: the request of PutScalingPolicy, and when it was first put."""

    name: str
    resource: str
    request: Mapping[str, Any]
    created_s: float
    identity: str

    @property
    def configuration(self) -> Mapping[str, Any]:
        """TargetTrackingScalingPolicyConfiguration."""
        configuration: Mapping[str, Any] = self.request["TargetTrackingScalingPolicyConfiguration"]
        return configuration

    @property
    def scales_in(self) -> bool:
        """Whether it may remove instances."""
        return not self.configuration.get("DisableScaleIn")

    def alarm(self, high: bool) -> str:
        """Return the name of one of its two alarms."""
        return f"TargetTracking-{self.resource}-Alarm{'High' if high else 'Low'}-{self.identity}"

    def rules(self, target: ScalableTarget, out_points: int, in_points: int) -> ScalingPolicy:
        """Return the policy as the simulation has it."""
        configuration = self.configuration
        predefined = configuration.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType", "")
        return ScalingPolicy(
            metric=CONCURRENCY if "ConcurrentRequestsPerModel" in predefined else INVOCATIONS,
            target=float(configuration["TargetValue"]),
            least=target.least,
            most=target.most,
            out_cooldown_s=float(configuration.get("ScaleOutCooldown", COOLDOWN_S)),
            in_cooldown_s=float(configuration.get("ScaleInCooldown", COOLDOWN_S)),
            out_points=out_points,
            in_points=in_points,
        )


@dataclass(frozen=True, slots=True)
class ScalingActivity:
    """A change of a target's number of instances.

    Attributes
    ----------
    name : str
        Its id.
    resource : str
    cause : str
    created_s : float
        When it was decided.
    status : str
        An AWS StatusCode.
    direction : str
    wanted, desired_before : int
        Instances wanted by it, and before it at the decision.
    effect_s, cold_start_s, cooldown_s : float
        When it takes effect, and what follows from there.
    message : str
        StatusMessage once it has ended.
    ready_s, ended_s : float or None
        When the new instances serve, and when it ended.
    """

    name: str
    resource: str
    cause: str
    created_s: float
    status: str
    direction: str
    wanted: int
    desired_before: int
    effect_s: float
    cold_start_s: float = 0.0
    cooldown_s: float = 0.0
    message: str = ""
    ready_s: float | None = None
    ended_s: float | None = None

    @property
    def due_s(self) -> float | None:
        """When it goes on by itself; None once it has ended."""
        return self.effect_s if self.status == PENDING else self.ready_s if self.status == IN_PROGRESS else None

    def ended(self, status: str, at_s: float, message: str) -> ScalingActivity:
        """Return the activity as it has ended."""
        return replace(self, status=status, message=message, ended_s=at_s)

    def succeeded(self, at_s: float) -> ScalingActivity:
        """Return the activity as it has ended well."""
        text = f"Successfully set desired instance count to {self.wanted}. Change successfully fulfilled by sagemaker."
        return self.ended(SUCCESSFUL, at_s, text)

    def applied(self, capacity: Capacity) -> Capacity | None:
        """Return the capacity after the activity takes effect; None if it changes nothing."""
        if self.direction == OUT:
            return capacity.scaled_out(self.wanted, self.effect_s, self.cold_start_s, self.cooldown_s)
        return capacity.scaled_in(self.wanted, self.desired_before, self.effect_s, self.cooldown_s)


def cause_of(policy: TrackingPolicy, decision: Decision) -> str:
    """Return the cause of an activity in AWS's words."""
    alarm = policy.alarm(decision.direction == OUT)
    return f"monitor alarm {alarm} in state ALARM triggered policy {policy.name}"
